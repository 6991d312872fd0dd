//! Plans, and judging one against a supply.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Judgement, PoolNeed, Supply, Verdict};
use crate::memory::{Bill, Devices, EngineProfile, GpuLayers, Pool, Projector, Settings, Structure, bill};
use crate::units::Bytes;

/// What a model needs under its settings, placement by placement. Bills are drawn up when first
/// asked for and kept, since free memory changes often and needs do not.
#[derive(Clone, Debug)]
pub struct Plan {
    structure: Arc<Structure>,
    projector: Option<Arc<Projector>>,
    settings: Settings,
    profile: Arc<EngineProfile>,
    kept: Vec<(Devices, BTreeMap<Offload, Needs>)>,
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

/// How many device lists a plan keeps needs for: now, at the machine's best, without GPU.
const KEPT_DEVICES: usize = 3;

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

    /// Returns what a placement needs.
    fn needs(&mut self, devices: &Devices, offload: Offload) -> &Needs {
        let known = self.kept.iter().position(|(kept, _)| kept == devices);
        let index = known.unwrap_or_else(|| {
            if self.kept.len() == KEPT_DEVICES {
                self.kept.remove(0);
            }
            self.kept.push((devices.clone(), BTreeMap::new()));
            self.kept.len() - 1
        });
        if !self.kept[index].1.contains_key(&offload) {
            let bill = self.bill(devices, offload.gpu_layers, offload.cpu_moe);
            let gpus = (0..devices.gpus.len())
                .map(|gpu| bill.pool(Pool::Gpu(u16::try_from(gpu).unwrap_or(u16::MAX))))
                .collect();
            self.kept[index].1.insert(offload, Needs { gpus, host: bill.pool(Pool::Host) });
        }
        &self.kept[index].1[&offload]
    }
}

impl Needs {
    /// Returns whether every GPU holds its part: device by device, never in sum.
    fn fits_gpus(&self, supply: &Supply) -> bool {
        self.gpus.iter().zip(&supply.gpus).all(|(need, gpu)| *need <= gpu.available)
    }

    /// Returns the GPU with the least to spare and how much that is.
    fn tightest_gpu(&self, supply: &Supply) -> Option<(String, i64)> {
        let spare =
            |(need, gpu): (&Bytes, &super::GpuSupply)| (gpu.name.clone(), gpu.available.signed_difference(*need));
        self.gpus.iter().zip(&supply.gpus).map(spare).min_by_key(|(_, spare)| *spare)
    }

    /// Returns needs and supply pool by pool.
    fn pools(&self, supply: &Supply, ram: Bytes) -> Vec<PoolNeed> {
        let gpu = |(need, gpu): (&Bytes, &super::GpuSupply)| PoolNeed {
            name: gpu.name.clone(),
            need: *need,
            available: gpu.available,
        };
        let mut pools: Vec<PoolNeed> = self.gpus.iter().zip(&supply.gpus).map(gpu).collect();
        pools.push(PoolNeed { name: RAM.into(), need: self.host, available: ram });
        pools
    }
}

/// The name of main memory among pools.
const RAM: &str = "RAM";

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
    let devices = supply.devices();
    let whole = Offload { gpu_layers: asked, cpu_moe: plan.settings.cpu_moe };
    let needs = plan.needs(&devices, whole).clone();
    if needs.fits_gpus(supply) && needs.host <= ram {
        return judge_as_asked(plan, supply, ram, whole, &needs);
    }
    match best_part(plan, supply, ram, &devices, whole) {
        Some((offload, part)) if part.host <= ram => {
            let (binding, spare) = if needs.fits_gpus(supply) {
                (RAM.to_owned(), ram.signed_difference(needs.host))
            } else {
                needs.tightest_gpu(supply).unwrap_or((RAM.to_owned(), 0))
            };
            verdict(plan, Verdict::PartialGpu, offload, (binding, spare), part.pools(supply, ram), supply)
        }
        Some((offload, part)) => {
            let short = (RAM.to_owned(), ram.signed_difference(part.host));
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
    let tightest = tightest.unwrap_or((RAM.to_owned(), host_spare));
    let word = if is_whole { Verdict::FullGpu } else { Verdict::PartialGpu };
    verdict(plan, word, offload, tightest, needs.pools(supply, ram), supply)
}

/// Returns the best placement that the GPUs hold: every layer with as few experts in RAM as need
/// be, or else as many layers as fit.
fn best_part(
    plan: &mut Plan,
    supply: &Supply,
    ram: Bytes,
    devices: &Devices,
    whole: Offload,
) -> Option<(Offload, Needs)> {
    if plan.structure.has_experts() && whole.cpu_moe < plan.structure.blocks {
        let experts = |cpu_moe| Offload { cpu_moe, ..whole };
        let fewest = first_that(whole.cpu_moe + 1, plan.structure.blocks, |cpu_moe| {
            plan.needs(devices, experts(cpu_moe)).fits_gpus(supply)
        });
        if let Some(cpu_moe) = fewest {
            let needs = plan.needs(devices, experts(cpu_moe)).clone();
            if needs.host <= ram {
                return Some((experts(cpu_moe), needs));
            }
        }
    }
    // Counting the layers left behind turns "as many as fit" into "the first that fits".
    let behind = |left: u32| Offload { gpu_layers: whole.gpu_layers - left, ..whole };
    let fewest = first_that(1, whole.gpu_layers - 1, |left| plan.needs(devices, behind(left)).fits_gpus(supply))?;
    let needs = plan.needs(devices, behind(fewest)).clone();
    Some((behind(fewest), needs))
}

/// Returns the first number in `from..=to` for which `holds`, which stays true once it is.
fn first_that(from: u32, to: u32, mut holds: impl FnMut(u32) -> bool) -> Option<u32> {
    if from > to || !holds(to) {
        return None;
    }
    let (mut low, mut high) = (from, to);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Some(high)
}

/// Judges a plan without any GPU.
fn judge_on_cpu(plan: &mut Plan, supply: &Supply, ram: Bytes) -> Judgement {
    let offload = Offload { gpu_layers: 0, cpu_moe: 0 };
    let needs = plan.needs(&Devices::none(), offload).clone();
    let word = if needs.host <= ram { Verdict::CpuOnly } else { Verdict::TooLarge };
    let binding = (RAM.to_owned(), ram.signed_difference(needs.host));
    verdict(plan, word, offload, binding, needs.pools(supply, ram), supply)
}

/// Returns the judgement where not even RAM is known.
fn unknown(plan: &Plan, supply: &Supply) -> Judgement {
    let offload = Offload { gpu_layers: 0, cpu_moe: 0 };
    let mut judgement = verdict(plan, Verdict::Unknown, offload, (RAM.to_owned(), 0), Vec::new(), supply);
    judgement.caveat.get_or_insert_with(|| "this machine's memory was not read yet".to_owned());
    judgement
}

/// Puts a judgement together.
fn verdict(
    plan: &Plan,
    verdict: Verdict,
    offload: Offload,
    (binding, spare): (String, i64),
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
    let devices = supply.devices();
    let layers = if supply.gpus.is_empty() { 0 } else { plan.layers() };
    let fits = |context: u32| {
        let mut plan = plan.with(Settings { context, ..plan.settings.clone() });
        let needs = plan.needs(&devices, Offload { gpu_layers: layers, cpu_moe: 0 });
        needs.fits_gpus(supply) && needs.host <= ram
    };
    let trained = plan.structure.context_train.max(1);
    if fits(trained) {
        return Some(trained);
    }
    let steps = trained / CONTEXT_STEP;
    // Counting the steps given up turns "the largest" into "the first that fits".
    let given_up = first_that(0, steps.checked_sub(1)?, |given_up| fits((steps - given_up) * CONTEXT_STEP))?;
    Some((steps - given_up) * CONTEXT_STEP)
}
