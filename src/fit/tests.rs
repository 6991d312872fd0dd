//! Verdicts on made-up models and machines.

use std::sync::Arc;

use super::*;
use crate::config::FitConfig;
use crate::gguf::{Header, Metadata, Tensor, TensorType, Value};
use crate::machine::{Device, DeviceMemory, MemorySample, Picture, Reading, UnknownGpu, Vendor};
use crate::memory::{Bill, CacheType, Devices, EngineProfile, GpuLayers, Part, Pool, Settings, Structure};

const GB: u64 = 1_000_000_000;

#[test]
fn a_small_model_on_a_large_gpu_fits_fully() {
    let judgement = judge(&mut plan(dense(32)), &supply(&[24 * GB], 32 * GB));
    assert_eq!(judgement.verdict, Verdict::FullGpu);
    assert_eq!((judgement.gpu_layers, judgement.layers), (33, 33));
    assert!(judgement.spare > 0, "{judgement:?}");
    let judgement = judge(&mut plan(dense(2)), &supply(&[24 * GB], 4 * GB));
    assert_eq!(&*judgement.binding, "RTX 4090", "even where less RAM is to spare: {judgement:?}");
}

#[test]
fn a_model_larger_than_the_gpu_keeps_as_many_layers_there_as_fit() {
    let mut plan = plan(dense(32));
    let supply = supply(&[4 * GB], 32 * GB);
    let judgement = judge(&mut plan, &supply);
    assert_eq!(judgement.verdict, Verdict::PartialGpu);
    assert!((1..33).contains(&judgement.gpu_layers), "{judgement:?}");
    assert!(judgement.spare < 0, "what is missing for full offload: {judgement:?}");

    let fits = |layers| plan.bill(&supply.devices(), layers, 0).pool(Pool::Gpu(0)) <= supply.gpus[0].available;
    assert!(fits(judgement.gpu_layers), "what is promised fits");
    assert!(!fits(judgement.gpu_layers + 1), "one layer more does not");
}

#[test]
fn experts_stay_in_ram_before_layers_do() {
    let mut plan = plan(mixture(24));
    let judgement = judge(&mut plan, &supply(&[6 * GB], 64 * GB));
    assert_eq!(judgement.verdict, Verdict::PartialGpu);
    assert_eq!(judgement.gpu_layers, judgement.layers);
    assert!((1..=24).contains(&judgement.cpu_moe), "{judgement:?}");
}

#[test]
fn without_a_gpu_ram_decides() {
    assert_eq!(judge(&mut plan(dense(32)), &supply(&[], 16 * GB)).verdict, Verdict::CpuOnly);
    let judgement = judge(&mut plan(dense(32)), &supply(&[], 2 * GB));
    assert_eq!(judgement.verdict, Verdict::TooLarge);
    assert!(judgement.spare < 0 && &*judgement.binding == "RAM", "{judgement:?}");
}

#[test]
fn two_gpus_are_never_summed() {
    let needs = judge(&mut plan(dense(32)), &supply(&[24 * GB], 32 * GB)).pools[0].need;
    // Together they hold the model, but the smaller one does not hold its share and overhead.
    let each = Bytes(needs.0 / 2);
    let judgement = judge(&mut plan(dense(32)), &supply(&[each.0, each.0], 32 * GB));
    assert_ne!(judgement.verdict, Verdict::FullGpu, "{judgement:?}");
    for pool in &judgement.pools {
        assert!(pool.need <= pool.available, "{judgement:?}");
    }
}

#[test]
fn unknown_ram_is_no_verdict() {
    let supply = Supply { ram: None, ..supply(&[24 * GB], 0) };
    let judgement = judge(&mut plan(dense(8)), &supply);
    assert_eq!(judgement.verdict, Verdict::Unknown);
    assert!(judgement.caveat.is_some());
}

#[test]
fn an_unknown_gpu_is_named_and_never_counted() {
    let mut picture = picture(&[], 32 * GB);
    picture.unknown.push(UnknownGpu {
        id: "0000:03:00.0".into(),
        name: "AMD GPU".into(),
        reason: "not read yet".into(),
    });
    let supply = Supply::of(&picture, &FitConfig::default(), Sense::Now);
    let judgement = judge(&mut plan(dense(32)), &supply);
    assert_eq!(judgement.verdict, Verdict::CpuOnly);
    assert_eq!(judgement.caveat.as_deref(), Some("GPU memory unknown: AMD GPU, not read yet"));
}

#[test]
fn now_and_the_machine_differ_by_what_others_hold() {
    let mut picture = picture(&[24 * GB], 64 * GB);
    if let Reading::Fresh { value } = &mut picture.devices[0].memory {
        value.used = Bytes(22 * GB);
        value.free = Bytes(2 * GB);
    }
    let of = |sense| Supply::of(&picture, &FitConfig::default(), sense);
    assert_eq!(judge(&mut plan(dense(32)), &of(Sense::Machine)).verdict, Verdict::FullGpu);
    assert_ne!(judge(&mut plan(dense(32)), &of(Sense::Now)).verdict, Verdict::FullGpu);
}

#[test]
fn layers_asked_for_by_hand_are_judged_as_asked() {
    let settings = Settings { gpu_layers: GpuLayers::Count(10), ..Settings::default() };
    let judgement = judge(&mut plan(dense(32)).with(settings), &supply(&[24 * GB], 32 * GB));
    assert_eq!((judgement.verdict, judgement.gpu_layers), (Verdict::PartialGpu, 10));
    assert!(judgement.spare > 0, "{judgement:?}");
    let settings = Settings { gpu_layers: GpuLayers::Count(0), ..Settings::default() };
    let judgement = judge(&mut plan(dense(32)).with(settings), &supply(&[24 * GB], 32 * GB));
    assert_eq!(judgement.verdict, Verdict::CpuOnly);
}

#[test]
fn the_largest_context_fits_and_the_next_does_not() {
    let plan = plan(dense(32));
    let supply = supply(&[20 * GB], 32 * GB);
    let context = largest_context(&plan, &supply).unwrap();
    assert!(context > 4_096 && context < 131_072 && context.is_multiple_of(256), "{context}");
    let verdict = |context| judge(&mut plan.with(Settings { context, ..Settings::default() }), &supply).verdict;
    assert_eq!(verdict(context), Verdict::FullGpu);
    assert_ne!(verdict(context + 256), Verdict::FullGpu);
}

#[test]
fn a_context_is_never_larger_than_trained_nor_found_where_nothing_fits() {
    assert_eq!(largest_context(&plan(dense(2)), &supply(&[80 * GB], 64 * GB)), Some(131_072));
    assert_eq!(largest_context(&plan(dense(32)), &supply(&[GB], 64 * GB)), None);
}

#[test]
fn every_advice_is_enough() {
    let settings = Settings { context: 65_536, ..Settings::default() };
    let plan = plan(dense(32)).with(settings);
    let supply = supply(&[20 * GB], 64 * GB);
    let judgement = judge(&mut plan.clone(), &supply);
    assert_eq!(judgement.verdict, Verdict::PartialGpu);
    let lines = advice(&plan, &supply, &judgement);
    assert!(!lines.is_empty());
    for line in lines {
        let after = judge(&mut plan.with(line.settings.clone()), &supply);
        assert_eq!((after.verdict, after.spare), (Verdict::FullGpu, line.spare), "{}", line.text);
        assert!(after.spare >= 0);
    }
    let judgement = judge(&mut plan.clone(), &self::supply(&[80 * GB], 64 * GB));
    assert!(advice(&plan, &self::supply(&[80 * GB], 64 * GB), &judgement).is_empty(), "nothing to mend");
}

#[test]
fn the_widest_cache_type_that_is_enough_is_offered() {
    let settings = Settings { context: 65_536, ..Settings::default() };
    let plan = plan(dense(32)).with(settings.clone());
    let need = |cache_type| {
        let settings = Settings { cache_type_k: cache_type, cache_type_v: cache_type, ..settings.clone() };
        judge(&mut plan.with(settings), &supply(&[80 * GB], 64 * GB)).pools[0].need.0
    };
    let offered = |gpu: u64| {
        let supply = supply(&[gpu], 64 * GB);
        let lines = advice(&plan, &supply, &judge(&mut plan.clone(), &supply));
        lines.iter().find(|line| line.settings.context == 65_536).map(|line| line.settings.cache_type_v)
    };
    let [f16, q8_0, q4_0] = [CacheType::F16, CacheType::Q8_0, CacheType::Q4_0].map(need);
    assert!(f16 > q8_0 && q8_0 > q4_0);
    assert_eq!(offered(q8_0 + 100_000_000), Some(CacheType::Q8_0));
    assert_eq!(offered(q4_0 + 100_000_000), Some(CacheType::Q4_0));
    assert_eq!(offered(q4_0 - 100_000_000), None);
}

#[test]
fn the_fewest_and_smallest_models_are_unloaded_for_another_one_to_fit() {
    let plan = plan(dense(32));
    let need = judge(&mut plan.clone(), &supply(&[80 * GB], 64 * GB)).pools[0].need.0;
    let held = |instance: &str, gpu: u64| Held { instance: instance.into(), gpus: vec![Bytes(gpu)], host: Bytes(GB) };
    let loaded = [held("small", 2 * GB), held("middle", 4 * GB), held("large", 7 * GB)];
    let best = supply(&[80 * GB], 64 * GB);
    let gone = |free: u64| if_unloaded(&mut plan.clone(), &supply(&[free], 64 * GB), &best, &loaded);
    assert_eq!(gone(need), None, "it fits as it is");
    assert_eq!(gone(need - GB).unwrap().instances, ["small"]);
    assert_eq!(gone(need - 3 * GB).unwrap().instances, ["middle"]);
    assert_eq!(gone(need - 5 * GB).unwrap().instances, ["large"], "one rather than two");
    let two = gone(need - 9 * GB).unwrap();
    assert_eq!(two.instances, ["large", "small"]);
    assert_eq!((two.verdict, two.spare), (Verdict::FullGpu, 0), "as if the GPU had had that much");
    assert_eq!(gone(need - 14 * GB), None, "no unloading is enough, and partial it is already");
}

#[test]
fn unloading_gives_back_ram_too() {
    let plan = plan(dense(32));
    let held = Held { instance: "other".into(), gpus: Vec::new(), host: Bytes(20 * GB) };
    assert_eq!(judge(&mut plan.clone(), &supply(&[], 2 * GB)).verdict, Verdict::TooLarge);
    let unloaded =
        |best: u64, held: &[Held]| if_unloaded(&mut plan.clone(), &supply(&[], 2 * GB), &supply(&[], best), held);
    let found = unloaded(64 * GB, std::slice::from_ref(&held)).unwrap();
    assert_eq!((found.verdict, found.instances), (Verdict::CpuOnly, vec!["other".to_owned()]));
    assert_eq!(unloaded(64 * GB, &[]), None);
    assert_eq!(unloaded(4 * GB, &[held]), None, "no more than the machine has");
}

#[test]
fn a_judgement_and_its_bill_agree() {
    for (gpus, ram) in [(vec![24 * GB], 32 * GB), (vec![4 * GB], 32 * GB), (vec![], 32 * GB), (vec![], GB)] {
        let mut plan = plan(dense(32));
        let supply = supply(&gpus, ram);
        let judgement = judge(&mut plan, &supply);
        let bill: Bill = plan.judged_bill(&supply, &judgement);
        let host = judgement.pools.last().unwrap();
        assert_eq!((&*host.name, host.need), ("RAM", bill.pool(Pool::Host)), "{judgement:?}");
        assert_eq!(bill.placement.gpu_layers, judgement.gpu_layers);
        assert!(bill.part(Part::Weights) > Bytes::ZERO);
    }
}

#[test]
fn free_memory_changes_need_no_new_bill_on_one_gpu() {
    assert_eq!(supply(&[24 * GB], GB).devices(), supply(&[3 * GB], GB).devices());
    assert_eq!(supply(&[], GB).devices(), Devices::none());
}

/// Returns a machine's supply; sizes are what can be had, margins already taken off.
fn supply(gpus: &[u64], ram: u64) -> Supply {
    let mut supply = Supply::of(&picture(gpus, ram), &FitConfig::default(), Sense::Now);
    supply.ram = Some(Bytes(ram));
    for (gpu, bytes) in supply.gpus.iter_mut().zip(gpus) {
        gpu.available = Bytes(*bytes);
    }
    supply
}

fn picture(gpus: &[u64], ram: u64) -> Picture {
    let device = |(index, bytes): (usize, &u64)| Device {
        id: format!("GPU-{index}"),
        name: "RTX 4090".into(),
        vendor: Vendor::Nvidia,
        memory: Reading::Fresh {
            value: DeviceMemory { total: Bytes(*bytes), free: Bytes(*bytes), ..DeviceMemory::default() },
        },
    };
    let memory = MemorySample { total: Bytes(ram), available: Bytes(ram), ..MemorySample::default() };
    Picture {
        memory: Reading::Fresh { value: memory },
        devices: gpus.iter().enumerate().map(device).collect(),
        unknown: Vec::new(),
        problems: Vec::new(),
        driver: None,
    }
}

fn plan(structure: Structure) -> Plan {
    Plan::new(Arc::new(structure), None, Settings::default(), Arc::new(EngineProfile::server()))
}

/// Returns an 8B-like model of so many blocks, f16: about 0.44 GB a block.
pub(crate) fn dense(blocks: u32) -> Structure {
    structure(blocks, |block| {
        vec![
            (format!("blk.{block}.ffn_gate.weight"), [4_096, 14_336, 1, 1]),
            (format!("blk.{block}.ffn_up.weight"), [4_096, 14_336, 1, 1]),
            (format!("blk.{block}.ffn_down.weight"), [14_336, 4_096, 1, 1]),
        ]
    })
}

/// Returns a mixture of experts of so many blocks.
pub(crate) fn mixture(blocks: u32) -> Structure {
    structure(blocks, |block| {
        vec![
            (format!("blk.{block}.ffn_gate_inp.weight"), [4_096, 32, 1, 1]),
            (format!("blk.{block}.ffn_gate_exps.weight"), [4_096, 1_024, 32, 1]),
            (format!("blk.{block}.ffn_up_exps.weight"), [4_096, 1_024, 32, 1]),
            (format!("blk.{block}.ffn_down_exps.weight"), [1_024, 4_096, 32, 1]),
        ]
    })
}

fn structure(blocks: u32, feed_forward: impl Fn(u32) -> Vec<(String, [u64; 4])>) -> Structure {
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), [4_096, 32_000, 1, 1]),
        ("output_norm.weight".to_owned(), [4_096, 1, 1, 1]),
        ("output.weight".to_owned(), [4_096, 32_000, 1, 1]),
    ];
    for block in 0..blocks {
        tensors.push((format!("blk.{block}.attn_norm.weight"), [4_096, 1, 1, 1]));
        tensors.push((format!("blk.{block}.attn_q.weight"), [4_096, 4_096, 1, 1]));
        tensors.push((format!("blk.{block}.attn_k.weight"), [4_096, 1_024, 1, 1]));
        tensors.push((format!("blk.{block}.attn_v.weight"), [4_096, 1_024, 1, 1]));
        tensors.push((format!("blk.{block}.attn_output.weight"), [4_096, 4_096, 1, 1]));
        tensors.extend(feed_forward(block));
    }
    let metadata = [
        ("general.architecture", Value::Text("llama".into())),
        ("llama.block_count", Value::Unsigned(u64::from(blocks))),
        ("llama.context_length", Value::Unsigned(131_072)),
        ("llama.embedding_length", Value::Unsigned(4_096)),
        ("llama.feed_forward_length", Value::Unsigned(14_336)),
        ("llama.attention.head_count", Value::Unsigned(32)),
        ("llama.attention.head_count_kv", Value::Unsigned(8)),
        ("llama.expert_count", Value::Unsigned(32)),
        ("llama.expert_used_count", Value::Unsigned(4)),
        ("tokenizer.ggml.tokens", Value::Skipped(32_000)),
    ];
    let header = Header {
        version: 3,
        metadata: Metadata(metadata.into_iter().map(|(key, value)| (key.into(), value)).collect()),
        tensors: tensors.into_iter().map(tensor).collect(),
        alignment: 32,
        data_offset: 0,
        file_bytes: Bytes(0),
        notes: Vec::new(),
    };
    Structure::from_header(&header).unwrap()
}

fn tensor((name, dims): (String, [u64; 4])) -> Tensor {
    let bytes = Bytes(dims.iter().product::<u64>() * 2);
    Tensor { name: name.into(), kind: TensorType::F16, dims, offset: 0, bytes }
}
