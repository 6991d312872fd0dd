//! A report made by hand, for the tests of what is shown.

use std::path::PathBuf;
use std::sync::Arc;

use crate::fit::{Advice, Fit, Judgement, PoolNeed, Verdict};
use crate::library::{ModelId, Origin, Root, RootState};
use crate::lmstudio::{Home, HomeBasis, SettingsBasis, SettingsFor};
use crate::machine::{Device, DeviceMemory, MemorySample, Picture, Reading, Vendor};
use crate::memory::{Backend, Basis, Bill, Kind, Line, Overhead, Part, Placement, Pool, Settings};
use crate::report::{AlertReport, Detail, LibraryReport, ModelReport, Report, RootReport, SCHEMA, StateReport};
use crate::units::Bytes;

/// Returns a report of three judged models and one download, on a machine with one GPU.
pub(super) fn report() -> Report {
    let mut download = model("new", 1_000_000_000, None);
    download.state = StateReport::Downloading;
    let machine = Picture {
        memory: Reading::Fresh {
            value: MemorySample {
                total: Bytes(33_500_000_000),
                available: Bytes(21_000_000_000),
                ..MemorySample::default()
            },
        },
        devices: vec![Device {
            id: "0".into(),
            name: "RTX 4090".into(),
            vendor: Vendor::Nvidia,
            memory: Reading::Fresh {
                value: DeviceMemory {
                    total: Bytes(25_800_000_000),
                    free: Bytes(22_100_000_000),
                    ..DeviceMemory::default()
                },
            },
        }],
        unknown: Vec::new(),
        problems: Vec::new(),
        driver: None,
    };
    Report {
        schema: SCHEMA,
        version: "0.1.0".into(),
        live: true,
        lm_studio: None,
        loaded: Vec::new(),
        loaded_unknown: None,
        models: vec![
            download,
            model("zephyr", 5_000_000_000, Some(fit(Verdict::FullGpu, Verdict::FullGpu, 15_200_000_000))),
            model("huge", 50_000_000_000, Some(fit(Verdict::TooLarge, Verdict::PartialGpu, -2_900_000_000))),
            model("alpaca", 4_000_000_000, Some(fit(Verdict::FullGpu, Verdict::FullGpu, 16_000_000_000))),
        ],
        machine,
        library: library(),
        alerts: AlertReport::default(),
        problems: Vec::new(),
        notes: Vec::new(),
    }
}

/// Returns the first model of the report with a bill.
pub(super) fn detail() -> Detail {
    let line = |pool, part, bytes, basis| Line { pool, part, bytes: Bytes(bytes), basis };
    Detail {
        schema: SCHEMA,
        model: model("zephyr", 5_000_000_000, Some(fit(Verdict::FullGpu, Verdict::FullGpu, 15_200_000_000))),
        bill: Some(Bill {
            lines: vec![
                line(Pool::Host, Part::Weights, 350_060_544, Basis::Exact),
                line(Pool::Gpu(0), Part::Compute, 113_264_656, Basis::Formula),
                line(Pool::Gpu(0), Part::Weights, 4_671_766_528, Basis::Exact),
                line(Pool::Gpu(0), Part::Backend, 471_859_200, Basis::Guess),
            ],
            placement: Placement {
                gpu_layers: 33,
                layers: 33,
                by_gpu: vec![33],
                cpu_moe: 0,
                context: 4_096,
                flash_attention: true,
            },
            overhead: Overhead::usual(Backend::Cuda),
            profile: "server".into(),
            assumptions: vec!["cuda takes about 472 MB".into()],
        }),
        gpus: vec!["RTX 4090".into()],
        advice: vec![Advice { text: "close the game".into(), settings: Settings::default(), spare: 1 }],
        guardrail: Some("Strict".into()),
    }
}

/// Returns a model; without a fit it is one that was not read yet.
pub(super) fn model(name: &str, bytes: u64, fit: Option<Fit>) -> ModelReport {
    let is_read = fit.is_some();
    ModelReport {
        id: ModelId(format!("publisher/{name}-GGUF/{name}.gguf")),
        name: name.into(),
        publisher: Some("publisher".into()),
        path: PathBuf::from(format!("/models/publisher/{name}-GGUF/{name}.gguf")),
        files: 1,
        bytes: Bytes(bytes),
        state: if is_read { StateReport::Judged } else { StateReport::Reading },
        architecture: is_read.then(|| "llama".into()),
        quantisation: is_read.then(|| "Q4_K_M".into()),
        parameters: is_read.then_some(7_200_000_000),
        kind: is_read.then_some(Kind::Language),
        context_train: is_read.then_some(32_768),
        projector: None,
        settings: is_read.then(|| {
            Arc::new(SettingsFor {
                settings: Settings::default(),
                basis: SettingsBasis::Saved,
                assumptions: Vec::new(),
            })
        }),
        fit,
        notes: Vec::new(),
    }
}

/// Returns a fit with these verdicts and this many bytes to spare.
pub(super) fn fit(now: Verdict, machine: Verdict, spare: i64) -> Fit {
    let judgement = |verdict| Judgement {
        verdict,
        gpu_layers: 33,
        layers: 33,
        cpu_moe: 0,
        spare,
        binding: "RTX 4090".into(),
        pools: vec![
            PoolNeed { name: "RTX 4090".into(), need: Bytes(5_900_000_000), available: Bytes(21_100_000_000) },
            PoolNeed { name: "RAM".into(), need: Bytes(390_000_000), available: Bytes(19_000_000_000) },
        ],
        caveat: None,
    };
    let largest_context = (now == Verdict::FullGpu).then_some(32_768);
    Fit { now: judgement(now), machine: judgement(machine), largest_context, if_unloaded: None }
}

fn library() -> LibraryReport {
    LibraryReport {
        home: Some(Home { path: "/home/user/.lmstudio".into(), basis: HomeBasis::Default }),
        home_exists: true,
        roots: vec![RootReport {
            root: Root { path: "/home/user/.lmstudio/models".into(), origin: Origin::LmStudio },
            state: RootState::Present,
            watch: "notifications".into(),
        }],
        busy: false,
        guardrail: None,
    }
}
