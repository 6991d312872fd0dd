//! How long verdicts take: with needs that are known already and without, and what is dearer.

use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use fitwatch::fit::{GpuSupply, Plan, Supply, advice, judge, largest_context};
use fitwatch::memory::{Backend, EngineProfile, Settings};
use fitwatch::units::Bytes;

#[path = "../memory/truth.rs"]
#[allow(clippy::unwrap_used, reason = "a broken sample ends the benchmark")]
mod truth;

const GB: u64 = 1_000_000_000;

/// Dense models that fit and that do in part, one with experts, one with windows, hybrids.
const MODELS: [&str; 6] = [
    "llama-3.1-8b-Q4_K_M",
    "llama-3.3-70b-Q4_K_M",
    "qwen3-30b-a3b-Q8_0",
    "gemma-3-12b-Q4_K_M",
    "qwen3-next-80b-a3b-Q4_K_M",
    "granite-4.0-h-tiny-Q4_K_M",
];

fn verdicts(criterion: &mut Criterion) {
    for name in MODELS {
        let plan = plan(name);
        criterion.bench_function(&format!("judge, needs not known/{name}"), |bencher| {
            bencher.iter_batched_ref(|| plan.clone(), |plan| judge(plan, &supply(1, 20 * GB)), BatchSize::SmallInput);
        });
        criterion.bench_function(&format!("judge, two GPUs, needs not known/{name}"), |bencher| {
            bencher.iter_batched_ref(|| plan.clone(), |plan| judge(plan, &supply(2, 12 * GB)), BatchSize::SmallInput);
        });
        criterion.bench_function(&format!("judge again, other free memory/{name}"), |bencher| {
            let mut warm = plan.clone();
            let supplies = [8, 12, 16, 20].map(|free| supply(1, free * GB));
            for supply in &supplies {
                judge(&mut warm, supply);
            }
            let mut turns = supplies.iter().cycle();
            bencher.iter(|| judge(&mut warm, turns.next().expect("an endless iterator")));
        });
        criterion.bench_function(&format!("largest context/{name}"), |bencher| {
            bencher.iter(|| largest_context(&plan, &supply(1, 24 * GB)));
        });
        criterion.bench_function(&format!("advice/{name}"), |bencher| {
            let supply = supply(1, 8 * GB);
            let judgement = judge(&mut plan.clone(), &supply);
            bencher.iter(|| advice(&plan, &supply, &judgement));
        });
    }
}

fn plan(name: &str) -> Plan {
    let structure = truth::structure(name);
    let settings = Settings { context: 32_768, ..Settings::default() };
    Plan::new(Arc::new(structure), None, settings, Arc::new(EngineProfile::server()))
}

fn supply(gpus: u64, free: u64) -> Supply {
    let gpu = |number| GpuSupply { name: format!("CUDA{number}").into(), available: Bytes(free) };
    Supply { backend: Backend::Cuda, gpus: (0..gpus).map(gpu).collect(), ram: Some(Bytes(64 * GB)), caveat: None }
}

criterion_group!(benches, verdicts);
criterion_main!(benches);
