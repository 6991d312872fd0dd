//! How long a bill takes.

use criterion::{Criterion, criterion_group, criterion_main};
use fitwatch::memory::{Backend, Devices, EngineProfile, Gpu, GpuLayers, Settings, bill};
use fitwatch::units::Bytes;

#[path = "../memory/truth.rs"]
#[allow(clippy::unwrap_used, reason = "a broken sample ends the benchmark")]
mod truth;

fn bills(criterion: &mut Criterion) {
    let structures = truth::structures();
    let gpu = |index: u32| Gpu { name: format!("CUDA{index}"), memory: Bytes::GIB.saturating_mul(24), overhead: None };
    let devices = Devices { backend: Backend::Cuda, gpus: (0..2).map(gpu).collect() };
    let profile = EngineProfile::server();
    let settings = Settings { gpu_layers: GpuLayers::Count(20), ..Settings::default() };
    for wanted in ["llama-3.3-70b-Q4_K_M", "qwen3-next-80b-a3b-Q4_K_M", "gemma-4-e4b-Q4_K_M"] {
        let Some(structure) = structures.get(wanted) else { continue };
        criterion.bench_function(&format!("one bill/{wanted}"), |bencher| {
            bencher.iter(|| bill(structure, None, &settings, &devices, &profile));
        });
    }
    criterion.bench_function("bills of the whole sample", |bencher| {
        bencher.iter(|| {
            let totals = structures.values().map(|structure| bill(structure, None, &settings, &devices, &profile));
            totals.map(|bill| bill.total()).sum::<Bytes>()
        });
    });
}

criterion_group!(benches, bills);
criterion_main!(benches);
