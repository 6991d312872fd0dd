//! Plans, and judging one against a supply.

use std::sync::{Arc, LazyLock};

use super::search::first_without_excess;
use super::{GpuSupply, Judgement, PoolNeed, Supply, Verdict};
use crate::memory::{Backend, Bill, Devices, EngineProfile, GpuLayers, Pool, Projector, Settings, Structure, bill};
use crate::units::Bytes;

/// What a model needs under its settings, placement by placement. Bills are drawn up when first
/// asked for and kept, since free memory changes often and needs do not.
#[derive(Clone, Debug)]
pub struct Plan {
    structure: Arc<Structure>,
    projector: Option<Arc<Projector>>,
    settings: Settings,
    profile: Arc<EngineProfile>,
    kept: Vec<Kept>,
}

/// A placement: layers on GPUs and blocks whose experts stay in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Offload {
    gpu_layers: u32,
    cpu_moe: u32,
}

/// What a placement needs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Needs {
    gpus: Vec<Bytes>,
    host: Bytes,
}

/// Needs on one list of devices.
#[derive(Clone, Debug)]
struct Kept {
    backend: Backend,
    shares: Vec<Bytes>,
    needs: Vec<(Offload, Needs)>,
}

/// How many device lists a plan keeps needs for: now, at the machine's best, without GPU.
const KEPT_DEVICES: usize = 3;
/// How many placements it keeps needs for on each: more than a search asks for, and a bound on
/// what a day of changing memory adds up to over a thousand models.
const KEPT_NEEDS: usize = 12;

/// Contexts are looked for in steps of this many tokens: llama.cpp rounds the cache up to it.
const CONTEXT_STEP: u32 = 256;

impl Plan {
    /// Returns the plan of a model.
    pub fn new(
        structure: Arc<Structure>,
        projector: Option<Arc<Projector>>,
        settings: Settings,
        profile: Arc<EngineProfile>,
    ) -> Plan {
        Plan { structure, projector, settings, profile, kept: Vec::new() }
    }

    /// Returns the settings the plan is for.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the model's structure.
    pub fn structure(&self) -> &Structure {
        &self.structure
    }

    /// Returns whether the plan is for just these.
    pub fn is_for(&self, structure: &Arc<Structure>, projector: Option<&Arc<Projector>>, settings: &Settings) -> bool {
        let same_projector = match (&self.projector, projector) {
            (None, None) => true,
            (Some(mine), Some(other)) => Arc::ptr_eq(mine, other),
            _ => false,
        };
        Arc::ptr_eq(&self.structure, structure) && same_projector && self.settings == *settings
    }

    /// Returns a plan for other settings of the same model.
    #[must_use]
    pub fn with(&self, settings: Settings) -> Plan {
        Plan { settings, kept: Vec::new(), ..self.clone() }
    }

    /// Returns the plan without its projector.
    #[must_use]
    pub fn without_projector(&self) -> Plan {
        Plan { projector: None, kept: Vec::new(), ..self.clone() }
    }

    /// Returns whether a projector is part of the plan.
    pub const fn has_projector(&self) -> bool {
        self.projector.is_some()
    }

    /// Returns the bill with this many layers on GPUs and these experts in RAM.
    pub fn bill(&self, devices: &Devices, gpu_layers: u32, cpu_moe: u32) -> Bill {
        let settings = Settings { gpu_layers: GpuLayers::Count(gpu_layers), cpu_moe, ..self.settings.clone() };
        bill(&self.structure, self.projector.as_deref(), &settings, devices, &self.profile)
    }

    /// Returns the bill of the placement that a judgement arrived at.
    pub fn judged_bill(&self, supply: &Supply, judgement: &Judgement) -> Bill {
        let devices = if judgement.gpu_layers == 0 { Devices::none() } else { supply.devices() };
        self.bill(&devices, judgement.gpu_layers, judgement.cpu_moe)
    }

    /// Returns all layers, the output layer counted as one.
    fn layers(&self) -> u32 {
        self.structure.blocks.saturating_add(1)
    }

    /// Returns what a placement needs on these GPUs; on none where there is no supply.
    fn needs(&mut self, supply: Option<&Supply>, offload: Offload) -> &Needs {
        let known = self.kept.iter().position(|kept| kept.is_for(supply));
        let index = known.unwrap_or_else(|| {
            // The ones used last stay: what a machine has at its best never changes.
            if self.kept.len() == KEPT_DEVICES {
                self.kept.remove(0);
            }
            self.kept.push(Kept::new(supply));
            self.kept.len() - 1
        });
        self.kept[index..].rotate_left(1);
        let last = self.kept.len() - 1;
        let at = self.kept[last].needs.iter().position(|(kept, _)| *kept == offload).unwrap_or_else(|| {
            let bill = self.bill(&devices(supply), offload.gpu_layers, offload.cpu_moe);
            self.kept[last].keep(offload, Needs::of(&bill, supply.map_or(0, |supply| supply.gpus.len())))
        });
        &self.kept[last].needs[at].1
    }
}

impl Kept {
    fn new(supply: Option<&Supply>) -> Kept {
        let backend = supply.map_or(Backend::None, |supply| supply.backend);
        Kept { backend, shares: supply.into_iter().flat_map(Supply::shares).collect(), needs: Vec::new() }
    }

    fn is_for(&self, supply: Option<&Supply>) -> bool {
        match supply {
            Some(supply) => self.backend == supply.backend && supply.shares().eq(self.shares.iter().copied()),
            None => self.backend == Backend::None,
        }
    }

    /// Keeps needs, in place of the oldest where there are many, and returns where they are.
    fn keep(&mut self, offload: Offload, needs: Needs) -> usize {
        if self.needs.len() == KEPT_NEEDS {
            self.needs.remove(0);
        }
        self.needs.push((offload, needs));
        self.needs.len() - 1
    }
}

fn devices(supply: Option<&Supply>) -> Devices {
    supply.map_or_else(Devices::none, Supply::devices)
}

impl Needs {
    /// Takes the needs from a bill for so many GPUs.
    fn of(bill: &Bill, gpus: usize) -> Needs {
        let gpu = |gpu| bill.pool(Pool::Gpu(u16::try_from(gpu).unwrap_or(u16::MAX)));
        Needs { gpus: (0..gpus).map(gpu).collect(), host: bill.pool(Pool::Host) }
    }

    /// Returns by how many bytes the GPU that lacks the most is exceeded; not above zero where
    /// every GPU holds its part.
    fn excess_on_gpus(&self, supply: &Supply) -> i64 {
        let excess = |(need, gpu): (&Bytes, &GpuSupply)| need.signed_difference(gpu.available);
        self.gpus.iter().zip(&supply.gpus).map(excess).max().unwrap_or(0)
    }

    /// Returns whether every GPU holds its part: device by device, never in sum.
    fn fits_gpus(&self, supply: &Supply) -> bool {
        self.gpus.iter().zip(&supply.gpus).all(|(need, gpu)| *need <= gpu.available)
    }

    /// Returns the GPU with the least to spare and how much that is.
    fn tightest_gpu(&self, supply: &Supply) -> Option<(Arc<str>, i64)> {
        let spare = |(need, gpu): (&Bytes, &GpuSupply)| (gpu.name.clone(), gpu.available.signed_difference(*need));
        self.gpus.iter().zip(&supply.gpus).map(spare).min_by_key(|(_, spare)| *spare)
    }

    /// Returns needs and supply pool by pool.
    fn pools(&self, supply: &Supply, ram: Bytes) -> Vec<PoolNeed> {
        let gpu = |(need, gpu): (&Bytes, &GpuSupply)| PoolNeed {
            name: gpu.name.clone(),
            need: *need,
            available: gpu.available,
        };
        let mut pools: Vec<PoolNeed> = self.gpus.iter().zip(&supply.gpus).map(gpu).collect();
        pools.push(PoolNeed { name: ram_name(), need: self.host, available: ram });
        pools
    }
}

/// Returns the name of main memory among pools; shared, for it is part of every judgement.
fn ram_name() -> Arc<str> {
    static RAM: LazyLock<Arc<str>> = LazyLock::new(|| "RAM".into());
    Arc::clone(&RAM)
}

/// Judges a plan against a supply.
pub fn judge(plan: &mut Plan, supply: &Supply) -> Judgement {
    let Some(ram) = supply.ram else { return unknown(plan, supply) };
    let layers = plan.layers();
    let asked = match plan.settings.gpu_layers {
        GpuLayers::All => layers,
        GpuLayers::Count(count) => count.min(layers),
    };
    if supply.gpus.is_empty() || asked == 0 {
        return judge_on_cpu(plan, supply, ram);
    }
    let whole = Offload { gpu_layers: asked, cpu_moe: plan.settings.cpu_moe };
    let needs = plan.needs(Some(supply), whole).clone();
    if needs.fits_gpus(supply) && needs.host <= ram {
        return judge_as_asked(plan, supply, ram, whole, &needs);
    }
    match best_part(plan, supply, ram, whole, &needs) {
        Some((offload, part)) if part.host <= ram => {
            let (binding, spare) = if needs.fits_gpus(supply) {
                (ram_name(), ram.signed_difference(needs.host))
            } else {
                needs.tightest_gpu(supply).unwrap_or((ram_name(), 0))
            };
            verdict(plan, Verdict::PartialGpu, offload, (binding, spare), part.pools(supply, ram), supply)
        }
        Some((offload, part)) => {
            let short = (ram_name(), ram.signed_difference(part.host));
            verdict(plan, Verdict::TooLarge, offload, short, part.pools(supply, ram), supply)
        }
        None => judge_on_cpu(plan, supply, ram),
    }
}

/// Returns the judgement of a placement that fits just as it was asked for.
fn judge_as_asked(plan: &Plan, supply: &Supply, ram: Bytes, offload: Offload, needs: &Needs) -> Judgement {
    let is_whole = offload.gpu_layers == plan.layers() && offload.cpu_moe == 0;
    let host_spare = ram.signed_difference(needs.host);
    // What lies wholly on GPUs is bound by them, however little RAM there is beside what it needs.
    let tightest = needs.tightest_gpu(supply).filter(|(_, spare)| is_whole || *spare <= host_spare);
    let tightest = tightest.unwrap_or((ram_name(), host_spare));
    let word = if is_whole { Verdict::FullGpu } else { Verdict::PartialGpu };
    verdict(plan, word, offload, tightest, needs.pools(supply, ram), supply)
}

/// Returns the best placement that the GPUs hold: every layer with as few experts in RAM as need
/// be, or else as many layers as fit.
fn best_part(plan: &mut Plan, supply: &Supply, ram: Bytes, whole: Offload, needs: &Needs) -> Option<(Offload, Needs)> {
    let excess = needs.excess_on_gpus(supply);
    if plan.structure.has_experts() && whole.cpu_moe < plan.structure.blocks {
        let experts = |cpu_moe| Offload { cpu_moe, ..whole };
        let fewest = first_without_excess(excess, whole.cpu_moe + 1, plan.structure.blocks, |cpu_moe| {
            plan.needs(Some(supply), experts(cpu_moe)).excess_on_gpus(supply)
        });
        if let Some(cpu_moe) = fewest {
            let needs = plan.needs(Some(supply), experts(cpu_moe)).clone();
            if needs.host <= ram {
                return Some((experts(cpu_moe), needs));
            }
        }
    }
    // Counting the layers left behind turns "as many as fit" into "the first that fits".
    let behind = |left: u32| Offload { gpu_layers: whole.gpu_layers - left, ..whole };
    let fewest = first_without_excess(excess, 1, whole.gpu_layers - 1, |left| {
        plan.needs(Some(supply), behind(left)).excess_on_gpus(supply)
    })?;
    let needs = plan.needs(Some(supply), behind(fewest)).clone();
    Some((behind(fewest), needs))
}

/// Judges a plan without any GPU.
fn judge_on_cpu(plan: &mut Plan, supply: &Supply, ram: Bytes) -> Judgement {
    let offload = Offload { gpu_layers: 0, cpu_moe: 0 };
    let needs = plan.needs(None, offload).clone();
    let word = if needs.host <= ram { Verdict::CpuOnly } else { Verdict::TooLarge };
    let binding = (ram_name(), ram.signed_difference(needs.host));
    verdict(plan, word, offload, binding, needs.pools(supply, ram), supply)
}

/// Returns the judgement where not even RAM is known.
fn unknown(plan: &Plan, supply: &Supply) -> Judgement {
    let offload = Offload { gpu_layers: 0, cpu_moe: 0 };
    let mut judgement = verdict(plan, Verdict::Unknown, offload, (ram_name(), 0), Vec::new(), supply);
    judgement.caveat.get_or_insert_with(|| "this machine's memory was not read yet".into());
    judgement
}

/// Puts a judgement together.
fn verdict(
    plan: &Plan,
    verdict: Verdict,
    offload: Offload,
    (binding, spare): (Arc<str>, i64),
    pools: Vec<PoolNeed>,
    supply: &Supply,
) -> Judgement {
    Judgement {
        verdict,
        gpu_layers: offload.gpu_layers,
        layers: plan.layers(),
        cpu_moe: offload.cpu_moe,
        spare,
        binding,
        pools,
        caveat: supply.caveat.clone(),
    }
}

/// Returns the largest context that fits fully: on GPUs where there are any, else in RAM. Never
/// more than the model was trained for; `None` where not even the smallest fits.
pub fn largest_context(plan: &Plan, supply: &Supply) -> Option<u32> {
    let ram = supply.ram?;
    let layers = if supply.gpus.is_empty() { 0 } else { plan.layers() };
    let gpus = (!supply.gpus.is_empty()).then_some(supply);
    let excess = |context: u32| {
        let mut plan = plan.with(Settings { context, ..plan.settings.clone() });
        let needs = plan.needs(gpus, Offload { gpu_layers: layers, cpu_moe: 0 });
        needs.excess_on_gpus(supply).max(needs.host.signed_difference(ram))
    };
    let trained = plan.structure.context_train.max(1);
    let at_most = excess(trained);
    if at_most <= 0 {
        return Some(trained);
    }
    let steps = trained / CONTEXT_STEP;
    // Counting the steps given up turns "the largest" into "the first that fits".
    let given_up =
        first_without_excess(at_most, 0, steps.checked_sub(1)?, |given_up| excess((steps - given_up) * CONTEXT_STEP))?;
    Some((steps - given_up) * CONTEXT_STEP)
}
