//! Which loaded models would have to go for another one to fit.

use serde::{Deserialize, Serialize};

use super::{Plan, Supply, Verdict, judge};
use crate::units::Bytes;

/// What a loaded model holds, pool by pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The instance's identifier.
    pub instance: String,
    /// Of each GPU, in the supply's order.
    pub gpus: Vec<Bytes>,
    /// Of RAM.
    pub host: Bytes,
}

/// What unloading would do for a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IfUnloaded {
    /// The instances to unload.
    pub instances: Vec<String>,
    /// The verdict then.
    pub verdict: Verdict,
    /// Bytes to spare in the pool that binds then.
    pub spare: i64,
}

/// How many loaded models are looked at, those that hold most; more are rarely loaded at once.
const MOST: usize = 4;

impl Held {
    fn bytes(&self) -> Bytes {
        self.gpus.iter().copied().sum::<Bytes>().saturating_add(self.host)
    }
}

/// Returns the fewest loaded models, and of as few the smallest, without which the model gets the best
/// verdict that unloading can give it; nothing where no unloading gives it a better one.
///
/// `best` is what can be had at the machine's best: no unloading gives back more.
pub fn if_unloaded(plan: &mut Plan, supply: &Supply, best: &Supply, held: &[Held]) -> Option<IfUnloaded> {
    let now = judge(plan, supply).verdict;
    if matches!(now, Verdict::FullGpu | Verdict::Unknown) || (now == Verdict::CpuOnly && supply.gpus.is_empty()) {
        return None;
    }
    let mut held: Vec<&Held> = held.iter().collect();
    held.sort_by_key(|held| std::cmp::Reverse(held.bytes()));
    held.truncate(MOST);
    let mut found: Option<(Verdict, usize, Bytes, IfUnloaded)> = None;
    for choice in 1..1_usize << held.len() {
        let gone: Vec<&Held> = (0..held.len()).filter(|bit| choice >> bit & 1 == 1).map(|bit| held[bit]).collect();
        let judgement = judge(plan, &supply.without(&gone, best));
        let rank = (judgement.verdict, gone.len(), gone.iter().map(|held| held.bytes()).sum());
        let is_better = found.as_ref().is_none_or(|(verdict, count, bytes, _)| rank < (*verdict, *count, *bytes));
        if judgement.verdict < now && is_better {
            let instances = gone.iter().map(|held| held.instance.clone()).collect();
            let unloaded = IfUnloaded { instances, verdict: judgement.verdict, spare: judgement.spare };
            found = Some((rank.0, rank.1, rank.2, unloaded));
        }
    }
    found.map(|(.., unloaded)| unloaded)
}

impl Supply {
    /// Returns what can be had once these are unloaded; never more than `best`, for what they hold is
    /// known by their bills and not measured.
    #[must_use]
    pub fn without(&self, gone: &[&Held], best: &Supply) -> Supply {
        let mut supply = self.clone();
        let more = |now: Bytes, held: Bytes, most: Bytes| now.saturating_add(held).min(most.max(now));
        for held in gone {
            for ((gpu, bytes), most) in supply.gpus.iter_mut().zip(&held.gpus).zip(&best.gpus) {
                gpu.available = more(gpu.available, *bytes, most.available);
            }
            supply.ram = supply.ram.map(|ram| more(ram, held.host, best.ram.unwrap_or(ram)));
        }
        supply
    }
}
