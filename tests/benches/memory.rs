//! How long a bill takes.

use criterion::{Criterion, criterion_group, criterion_main};
use fitwatch::memory::{Backend, Devices, EngineProfile, Gpu, GpuLayers, Settings, bill};
use fitwatch::units::Bytes;

#[path = "../memory/truth.rs"]
#[allow(clippy::unwrap_used, reason = "a broken sample ends the benchmark")]
mod truth;

/// A load to bill.
struct Load {
    model: &'static str,
    gpus: usize,
    gpu_layers: GpuLayers,
    cpu_moe: u32,
}

const ALL: GpuLayers = GpuLayers::All;
const PART: GpuLayers = GpuLayers::Count(20);

/// Dense models, experts, windows and hybrids, on GPUs and in part.
const LOADS: [Load; 12] = [
    Load { model: "llama-3.1-8b-Q4_K_M", gpus: 1, gpu_layers: ALL, cpu_moe: 0 },
    Load { model: "llama-3.1-8b-Q4_K_M", gpus: 1, gpu_layers: PART, cpu_moe: 0 },
    Load { model: "llama-3.3-70b-Q4_K_M", gpus: 2, gpu_layers: ALL, cpu_moe: 0 },
    Load { model: "llama-3.3-70b-Q4_K_M", gpus: 2, gpu_layers: PART, cpu_moe: 0 },
    Load { model: "qwen3-30b-a3b-Q4_K_M", gpus: 1, gpu_layers: ALL, cpu_moe: 0 },
    Load { model: "qwen3-30b-a3b-Q4_K_M", gpus: 1, gpu_layers: ALL, cpu_moe: 30 },
    Load { model: "gemma-3-12b-Q4_K_M", gpus: 1, gpu_layers: ALL, cpu_moe: 0 },
    Load { model: "gemma-3-12b-Q4_K_M", gpus: 1, gpu_layers: PART, cpu_moe: 0 },
    Load { model: "gemma-4-e4b-Q4_K_M", gpus: 2, gpu_layers: PART, cpu_moe: 0 },
    Load { model: "qwen3-next-80b-a3b-Q4_K_M", gpus: 2, gpu_layers: ALL, cpu_moe: 0 },
    Load { model: "qwen3-next-80b-a3b-Q4_K_M", gpus: 2, gpu_layers: PART, cpu_moe: 0 },
    Load { model: "granite-4.0-h-tiny-Q4_K_M", gpus: 1, gpu_layers: PART, cpu_moe: 0 },
];

fn bills(criterion: &mut Criterion) {
    let structures = truth::structures();
    let gpu =
        |index: usize| Gpu { name: format!("CUDA{index}"), memory: Bytes::GIB.saturating_mul(24), overhead: None };
    let devices = |gpus| Devices { backend: Backend::Cuda, gpus: (0..gpus).map(gpu).collect() };
    let profile = EngineProfile::server();
    for Load { model, gpus, gpu_layers, cpu_moe } in LOADS {
        let structure = &structures[model];
        let devices = devices(gpus);
        let settings = Settings { gpu_layers, cpu_moe, ..Settings::default() };
        let what = match (gpu_layers, cpu_moe) {
            (ALL, 0) => "full",
            (ALL, _) => "experts in RAM",
            (GpuLayers::Count(_), _) => "part",
        };
        criterion.bench_function(&format!("one bill/{model}, {gpus} GPU, {what}"), |bencher| {
            bencher.iter(|| bill(structure, None, &settings, &devices, &profile));
        });
    }
    let (devices, settings) = (devices(2), Settings { gpu_layers: PART, ..Settings::default() });
    criterion.bench_function("bills of the whole sample", |bencher| {
        bencher.iter(|| {
            let totals = structures.values().map(|structure| bill(structure, None, &settings, &devices, &profile));
            totals.map(|bill| bill.total()).sum::<Bytes>()
        });
    });
}

criterion_group!(benches, bills);
criterion_main!(benches);
