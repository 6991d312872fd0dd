//! Promises of the bill: what holds for every real model under any settings, and what even a
//! spoilt header cannot break.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fitwatch::memory::{
    Backend, Bill, CacheType, Devices, EngineProfile, FlashAttention, GpuLayers, Part, Pool, Projector, Settings,
    Structure, TensorShape,
};
use fitwatch::units::Bytes;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::mutations::{HEADERS, devices, real, settings, spoilt};
use super::truth::{Case, cases, structures};
use super::{gpus, plain, sum};

/// The parts that a load keeps from its beginning to its end. The compute buffer is not among them.
const KEPT: [Part; 5] = [Part::Weights, Part::RepackedWeights, Part::KvCache, Part::RecurrentState, Part::Output];

fn kept(bill: &Bill) -> Bytes {
    KEPT.into_iter().map(|part| bill.part(part)).sum()
}

/// Settings as people choose them.
fn sensible() -> impl Strategy<Value = Settings> {
    (settings(), 0u32..65_536, 32u32..2_048, 32u32..2_048, 1u32..9).prop_map(
        |(any, context, batch, ubatch, parallel)| Settings {
            context: context + 1,
            batch,
            ubatch,
            parallel,
            mtp: false,
            ..any
        },
    )
}

/// The same runs everywhere, so that a limit that was found out stays one.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(11_434), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(512))]

    // The longest that one takes is bounded too: a header must not keep the program busy.
    #[test]
    fn no_spoilt_header_makes_the_bill_panic_or_hang(
        header in spoilt(), settings in settings(), devices in devices(),
    ) {
        let began = Instant::now();
        if let Ok(projector) = Projector::from_header(&header) {
            prop_assert_eq!(adds_up(&projector.bill(&devices, &EngineProfile::server())), Ok(()));
        }
        if let Ok(structure) = Structure::from_header(&header) {
            let bill = plain(&structure, &settings, &devices);
            prop_assert_eq!(adds_up(&bill), Ok(()));
        }
        prop_assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    }

    #[test]
    fn the_bill_is_the_sum_of_its_lines(header in real(), settings in settings(), devices in devices()) {
        let Ok(structure) = Structure::from_header(header) else { return Ok(()) };
        let bill = plain(&structure, &settings, &devices);
        prop_assert_eq!(adds_up(&bill), Ok(()));
        prop_assert_eq!(bill.placement.by_gpu.iter().sum::<u32>(), bill.placement.gpu_layers);
        prop_assert!(bill.placement.gpu_layers <= bill.placement.layers);
    }

    // Cells of separate caches are rounded up for each slot, so that more slots may round less; a
    // state and a row of logits are kept for each.
    #[test]
    fn what_a_load_keeps_never_shrinks_with_more(
        header in real(), settings in sensible(), devices in devices(), more in 1u32..5_000,
    ) {
        let Ok(structure) = Structure::from_header(header) else { return Ok(()) };
        let bill = |settings: &Settings| plain(&structure, settings, &devices);
        let base = bill(&settings);
        let longer = Settings { context: settings.context + more, ..settings.clone() };
        prop_assert!(kept(&bill(&longer)) >= kept(&base), "a longer context");
        let batch = Settings { batch: settings.batch + more, ..settings.clone() };
        prop_assert!(kept(&bill(&batch)) >= kept(&base), "a larger batch");
        let ubatch = Settings { ubatch: settings.ubatch + more, ..settings.clone() };
        prop_assert!(kept(&bill(&ubatch)) >= kept(&base), "a larger micro-batch");
        let slots = bill(&Settings { parallel: settings.parallel + more, ..settings.clone() });
        prop_assert!(!settings.unified_kv || kept(&slots) >= kept(&base), "more slots");
        for part in [Part::RecurrentState, Part::Output] {
            prop_assert!(slots.part(part) >= base.part(part), "{} of more slots", part.name());
        }
        for pair in CacheType::ALL.windows(2) {
            let with = |kind: CacheType| bill(&Settings { cache_type_k: kind, cache_type_v: kind, ..settings.clone() });
            let (wide, narrow) = (with(pair[0]), with(pair[1]));
            prop_assert!(kept(&wide) >= kept(&narrow), "{:?}", pair);
        }
    }

    // On one device, with flash attention, the compute buffer shrinks only by what ggml's allocator
    // gains where tensors happen to fit the gaps of others better.
    #[test]
    fn on_one_device_more_costs_less_by_the_allocators_gaps_at_most(
        header in real(), settings in sensible(), is_gpu in any::<bool>(), more in 1u32..5_000, kind in 0usize..2,
    ) {
        let Ok(structure) = Structure::from_header(header) else { return Ok(()) };
        let devices = if is_gpu { gpus(Backend::Cuda, 1) } else { Devices::none() };
        let kind = [CacheType::F16, CacheType::Q8_0][kind];
        let settings = Settings {
            gpu_layers: GpuLayers::All,
            cpu_moe: 0,
            offload_kv: true,
            flash_attention: FlashAttention::On,
            cache_type_k: kind,
            cache_type_v: kind,
            ..settings
        };
        let total = |settings: &Settings| plain(&structure, settings, &devices).total();
        let base = total(&settings);
        let least = Bytes(base.0 - base.0 / 20);
        let longer = Settings { context: settings.context + more, ..settings.clone() };
        prop_assert!(total(&longer) >= least, "a longer context");
        let batch = Settings { batch: settings.batch + more, ..settings.clone() };
        prop_assert!(total(&batch) >= least, "a larger batch");
        let ubatch = Settings { ubatch: settings.ubatch + more, ..settings.clone() };
        prop_assert!(total(&ubatch) >= least, "a larger micro-batch");
    }

    #[test]
    fn layers_moved_to_the_gpu_take_their_bytes_along(
        header in real(), settings in sensible(), layers in 0u32..80, cpu_moe in 0u32..20,
    ) {
        let Ok(structure) = Structure::from_header(header) else { return Ok(()) };
        let layers = layers % structure.layers();
        let with = |count: u32| {
            let gpu_layers = GpuLayers::Count(count);
            let settings = Settings { gpu_layers, cpu_moe, offload_kv: true, ..settings.clone() };
            plain(&structure, &settings, &gpus(Backend::Cuda, 1))
        };
        let (fewer, more) = (with(layers), with(layers + 1));
        let moved = [Part::Weights, Part::KvCache, Part::RecurrentState];
        let on = |bill: &Bill, pool: Pool| sum(bill, pool, &moved);
        let (gained, lost) = (on(&more, Pool::Gpu(0)).checked_sub(on(&fewer, Pool::Gpu(0))), on(&fewer, Pool::Host).checked_sub(on(&more, Pool::Host)));
        let (Some(gained), Some(lost)) = (gained, lost) else {
            return Err(TestCaseError::fail(format!("{} moved to the host", structure.architecture)));
        };
        let padding = padding(&structure, structure.blocks.checked_sub(layers));
        prop_assert!(gained.abs_diff(lost) <= padding, "{} of {gained} gained and {lost} lost", structure.architecture);
    }
}

/// Returns what the bytes of a layer may differ by between a GPU and main memory: tensors are padded
/// otherwise, factors of rope are on each device that needs them, and an output matrix that serves
/// as the embedding too is on both.
fn padding(structure: &Structure, block: Option<u32>) -> u64 {
    // Alignment, and 512 elements behind a quantised row; six tensors of caches and states.
    const EACH: u64 = 128 + 512;
    let block = block.filter(|&block| block < structure.blocks);
    let kind = block.and_then(|block| structure.block_kinds().nth(block as usize));
    let tensors = kind.map_or(structure.globals.len(), |kind| structure.layout(kind).len()) as u64 + 6;
    let is_shared = |tensor: &&TensorShape| {
        let name = format!("{:?}", tensor.role);
        name.starts_with("Rope") || (kind.is_none() && name == "TokenEmbd")
    };
    let shared: Bytes = structure.globals.iter().filter(is_shared).map(TensorShape::bytes).sum();
    tensors * EACH + shared.0
}

/// Returns whether a bill is the sum of its lines, each of which is there once.
fn adds_up(bill: &Bill) -> Result<(), String> {
    let mut lines = BTreeSet::new();
    let mut pools = BTreeSet::new();
    let mut parts = BTreeSet::new();
    for line in &bill.lines {
        if line.bytes == Bytes::ZERO || !lines.insert((line.pool, line.part, line.basis)) {
            return Err(format!("{line:?} is empty or twice there"));
        }
        pools.insert(line.pool);
        parts.insert(line.part);
    }
    let total: Bytes = bill.lines.iter().map(|line| line.bytes).sum();
    let by_pool: Bytes = pools.iter().map(|pool| bill.pool(*pool)).sum();
    let by_part: Bytes = parts.iter().map(|part| bill.part(*part)).sum();
    let by_place = bill.gpus().saturating_add(bill.pool(Pool::Host));
    if [bill.total(), by_pool, by_part, by_place].iter().any(|sum| *sum != total) {
        return Err(format!("{total} in lines, {} in all, {by_pool} by pool, {by_part} by part", bill.total()));
    }
    Ok(())
}

/// More is not always more: llama.cpp's compute buffer shrinks where separate caches leave each slot
/// a part of the context to look at, where a wider cache takes another way through the graph, and
/// where a best-fit allocator finds a gap for what is a little larger. The bill follows.
#[test]
fn more_costs_less_where_llama_cpp_itself_takes_less() {
    let structures = structures();
    let cases = cases();
    let pairs: Vec<(&Case, &Case)> = cases
        .iter()
        .filter_map(|less| {
            let name = less.id.strip_suffix(" less")?;
            Some((less, cases.iter().find(|more| more.id.strip_suffix(" more") == Some(name))?))
        })
        .collect();
    assert!(pairs.len() >= 10, "{} pairs", pairs.len());
    for (less, more) in pairs {
        let truth = |case: &Case| case.devices.values().flatten().sum::<u64>();
        let billed = |case: &Case| case.billed(&structures[&case.header]).values().flatten().sum::<u64>();
        assert!(truth(more) < truth(less), "{}", less.id);
        assert!(billed(more) < billed(less), "{}", less.id);
    }
}

#[test]
fn a_header_of_more_blocks_than_llama_cpp_loads_is_refused() {
    let header = HEADERS.iter().find(|header| header.architecture() == Some("llama")).unwrap();
    let with = |blocks: u64| {
        let mut header = header.clone();
        header.metadata.0.insert("llama.block_count".into(), fitwatch::gguf::Value::Unsigned(blocks));
        Structure::from_header(&header)
    };
    assert!(with(512).is_ok());
    assert!(with(513).is_err());
}
