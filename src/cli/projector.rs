//! `fitwatch estimate PROJECTOR`: what a projector takes by itself, beside any model.

use std::path::PathBuf;

use serde::Serialize;

use super::bill::{self, PoolForm};
use super::estimate::DevicesForm;
use super::facts::Facts;
use super::file::ModelFiles;
use super::given::Target;
use super::text::safe;
use super::words::{self, RAM};
use crate::fit::{Fit, Judgement, PoolNeed, Supply, Verdict};
use crate::memory::{Bill, Devices, EngineProfile, Kind, Projector};
use crate::report::SCHEMA;
use crate::units::Bytes;

/// Everything that is said of a projector; also its JSON form, with the keys of an estimate.
#[derive(Debug, Serialize)]
pub(super) struct ProjectorEstimate {
    schema: u32,
    file: PathBuf,
    files: usize,
    bytes: Bytes,
    architecture: String,
    kind: Kind,
    projector_type: Option<String>,
    devices: DevicesForm,
    bill: Bill,
    pools: Vec<PoolForm>,
    total: Bytes,
    /// The verdict on the devices given, or on this machine.
    pub(super) fit: Option<Fit>,
    notes: Vec<String>,
}

/// Returns the estimate of a projector on the devices of a target.
pub(super) fn estimate(
    files: ModelFiles,
    projector: &Projector,
    target: &Target,
    profile: &EngineProfile,
) -> ProjectorEstimate {
    let bill = projector.bill(&target.devices, profile);
    let total = bill.total();
    let need = Need { gpu: bill.gpus(), ram: projector.bill(&Devices::none(), profile).total() };
    let devices = DevicesForm::of(target);
    let fit = target.is_judged.then(|| Fit {
        now: judge(&need, &target.now),
        machine: judge(&need, &target.best),
        largest_context: None,
        if_unloaded: None,
    });
    let mut notes = files.notes;
    notes.push("this is the projector alone; name it with --mmproj after a model to see both".into());
    ProjectorEstimate {
        schema: SCHEMA,
        file: files.path,
        files: files.count,
        bytes: files.structure.file_bytes,
        architecture: files.structure.architecture.clone(),
        kind: files.structure.kind,
        projector_type: projector.projector_type.clone(),
        pools: bill::forms(&bill, &devices.gpus),
        devices,
        bill,
        total,
        fit,
        notes,
    }
}

/// What a projector takes of the first GPU, and what it takes of RAM where it is there as a whole.
struct Need {
    gpu: Bytes,
    ram: Bytes,
}

/// Judges a projector: it goes onto the first GPU as a whole, or else into RAM.
fn judge(need: &Need, supply: &Supply) -> Judgement {
    let judgement = |verdict, name: &str, need: Bytes, available: Bytes| Judgement {
        verdict,
        gpu_layers: 0,
        layers: 0,
        cpu_moe: 0,
        spare: available.signed_difference(need),
        binding: name.into(),
        pools: vec![PoolNeed { name: name.into(), need, available }],
        caveat: supply.caveat.clone(),
    };
    match (supply.gpus.first(), supply.ram) {
        (Some(gpu), _) if need.gpu <= gpu.available => judgement(Verdict::FullGpu, &gpu.name, need.gpu, gpu.available),
        (_, None) => Judgement { pools: Vec::new(), ..judgement(Verdict::Unknown, RAM, need.ram, Bytes::ZERO) },
        (_, Some(ram)) if need.ram <= ram => judgement(Verdict::CpuOnly, RAM, need.ram, ram),
        (_, Some(ram)) => judgement(Verdict::TooLarge, RAM, need.ram, ram),
    }
}

/// Returns the estimate as text.
pub(super) fn render(estimate: &ProjectorEstimate, columns: Option<usize>) -> String {
    let mut facts = Facts::new(columns);
    facts.heading(&safe(&estimate.file.file_name().unwrap_or_default().to_string_lossy()));
    facts.fact("file", &words::files(&estimate.file, estimate.files, estimate.bytes));
    let name = estimate.projector_type.as_deref().unwrap_or("of a type it does not name");
    facts.fact("model", &format!("{}, {}", words::model(None, Some(estimate.kind), None, None, None), safe(name)));
    facts.fact("devices", &estimate.devices.words());
    facts.text.push('\n');
    facts.text.push_str(&bill::render(&estimate.bill, &estimate.devices.gpus, columns));
    facts.text.push('\n');
    if let Some(fit) = &estimate.fit {
        facts.verdicts(fit);
    }
    facts.points("Assumed", &estimate.bill.assumptions);
    facts.points("Notes", &estimate.notes);
    facts.text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::GpuSupply;
    use crate::memory::Backend;

    #[test]
    fn a_projector_is_judged_as_a_whole_on_the_first_gpu_or_in_ram() {
        let gpu = |gigabytes: u64| GpuSupply { name: "A".into(), available: Bytes(gigabytes * 1_000_000_000) };
        let supply = |gpus: &[u64], ram: Option<u64>| Supply {
            backend: Backend::Cuda,
            gpus: gpus.iter().map(|gigabytes| gpu(*gigabytes)).collect(),
            ram: ram.map(|gigabytes| Bytes(gigabytes * 1_000_000_000)),
            caveat: None,
        };
        let need = Need { gpu: Bytes(2_000_000_000), ram: Bytes(2_100_000_000) };
        let verdict = |gpus: &[u64], ram| judge(&need, &supply(gpus, ram)).verdict;
        assert_eq!(verdict(&[2], Some(8)), Verdict::FullGpu);
        assert_eq!(verdict(&[1, 9], Some(8)), Verdict::CpuOnly, "two GPUs are never one");
        assert_eq!(verdict(&[], Some(8)), Verdict::CpuOnly);
        assert_eq!(verdict(&[1], Some(1)), Verdict::TooLarge);
        assert_eq!(verdict(&[1], None), Verdict::Unknown);
        assert_eq!(judge(&need, &supply(&[], Some(2))).spare, -100_000_000);
    }
}
