//! Which verdicts have changed in a way that may be worth a word.
//!
//! A verdict must stay worse for [`DWELL`] before anyone hears of it, and a model that fits again
//! takes the notice back. What is found before the first scan has ended is not new.

use std::collections::{BTreeMap, BTreeSet};

use super::models::Models;
use crate::fit::{Fit, Judgement, Supply, Verdict};
use crate::library::ModelId;
use crate::units::{Moment, Span};

/// How long a verdict stays worse before it is worth a word.
const DWELL: Span = Span::seconds(20);

/// What has changed since it was last asked about.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Whether the first scan has ended.
    is_settled: bool,
    known: BTreeSet<ModelId>,
    new: BTreeSet<ModelId>,
    worse: BTreeMap<ModelId, Worse>,
    told: BTreeSet<ModelId>,
    /// The supply that verdicts were last taken on.
    supply: Option<Supply>,
}

/// A model that fitted fully and no longer does.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Worse {
    pub(super) before: Judgement,
    pub(super) cause: Option<String>,
    since: Moment,
}

impl Changes {
    /// Takes note of the verdicts before and after a judgement.
    pub(super) fn note(
        &mut self,
        before: BTreeMap<ModelId, Fit>,
        models: &Models,
        supply: &Supply,
        is_busy: bool,
        now: Moment,
    ) {
        let cause = self.supply.as_ref().and_then(|old| cause(old, supply));
        for (id, entry) in models.iter() {
            if self.is_settled && !self.known.contains(id) {
                self.new.insert(id.clone());
            }
            let fits = entry.fit.now.verdict == Verdict::FullGpu;
            let fitted = before.get(id).filter(|fit| fit.now.verdict == Verdict::FullGpu);
            match fitted {
                _ if fits => {
                    self.worse.remove(id);
                }
                // Only a change of the machine counts: new settings are the user's own doing.
                Some(fit) if cause.is_some() && entry.fit.now.verdict != Verdict::Unknown => {
                    let worse = Worse { before: fit.now.clone(), cause: cause.clone(), since: now };
                    self.worse.entry(id.clone()).or_insert(worse);
                }
                Some(_) | None => {}
            }
        }
        self.known = models.iter().map(|(id, _)| id.clone()).collect();
        self.worse.retain(|id, _| self.known.contains(id));
        self.new.retain(|id| self.known.contains(id));
        self.is_settled |= !is_busy;
        self.supply = Some(supply.clone());
    }

    /// Returns the models that came since the last call.
    pub(super) fn take_new(&mut self) -> BTreeSet<ModelId> {
        std::mem::take(&mut self.new)
    }

    /// Returns the models that have been worse for long enough, if any of them is untold.
    pub(super) fn take_worse(&mut self, now: Moment) -> Option<BTreeMap<ModelId, Worse>> {
        let ripe: BTreeMap<_, _> = self
            .worse
            .iter()
            .filter(|(_, worse)| now.since(worse.since) >= DWELL)
            .map(|(i, w)| (i.clone(), w.clone()))
            .collect();
        let has_untold = ripe.keys().any(|id| !self.told.contains(id));
        has_untold.then(|| {
            self.told.extend(ripe.keys().cloned());
            ripe
        })
    }

    /// Returns whether every model that was told of fits again, and forgets them then.
    pub(super) fn take_recovered(&mut self) -> bool {
        let is_over = !self.told.is_empty() && self.told.iter().all(|id| !self.worse.contains_key(id));
        if is_over {
            self.told.clear();
        }
        is_over
    }

    /// Returns when a verdict will have been worse for long enough.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let untold = self.worse.iter().filter(|(id, _)| !self.told.contains(*id));
        untold.map(|(_, worse)| worse.since.after(DWELL)).min()
    }
}

/// Returns what has taken memory between two supplies, in words: the pool that lost most.
fn cause(old: &Supply, new: &Supply) -> Option<String> {
    let gpus = new.gpus.iter().filter_map(|gpu| {
        let before = old.gpus.iter().find(|before| before.name == gpu.name)?;
        let lost = before.available.saturating_sub(gpu.available);
        Some((lost, format!("{lost} less is free on {}", gpu.name)))
    });
    let ram = old.ram.zip(new.ram).map(|(before, after)| {
        let lost = before.saturating_sub(after);
        (lost, format!("{lost} less RAM is available"))
    });
    let gone = old.gpus.iter().find(|gpu| new.gpus.iter().all(|other| other.name != gpu.name));
    if let Some(gpu) = gone {
        return Some(format!("{} is gone", gpu.name));
    }
    gpus.chain(ram).filter(|(lost, _)| lost.0 > 0).max_by_key(|(lost, _)| *lost).map(|(_, text)| text)
}
