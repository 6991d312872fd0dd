//! The bill against llama.cpp's own accounting, and its promises for any header.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use fitwatch::gguf::{Header, Metadata, Tensor, TensorType, Value};
use fitwatch::memory::{
    Backend, Basis, Bill, Devices, EngineProfile, FlashAttention, Gpu, GpuLayers, Kind, Part, Pool, Projector,
    ProjectorBuffers, Settings, Structure, StructureError, bill,
};
use fitwatch::units::Bytes;
use proptest::prelude::*;

use truth::{structure, structures};

mod accuracy;
mod builds;
mod mutations;
mod projectors;
mod properties;
mod truth;

fn sum(bill: &Bill, pool: Pool, parts: &[Part]) -> u64 {
    let lines = bill.lines.iter().filter(|line| line.pool == pool && parts.contains(&line.part));
    lines.map(|line| line.bytes).sum::<Bytes>().0
}

#[test]
fn nearly_every_structure_stays_below_four_kilobytes_and_none_takes_eight() {
    let mut sizes: Vec<(usize, String)> = Vec::new();
    for (name, structure) in structures() {
        let tensors = structure.globals.len() + structure.layouts.iter().map(Vec::len).sum::<usize>();
        let bytes = size_of::<Structure>()
            + tensors * size_of::<fitwatch::memory::TensorShape>()
            + structure.layouts.len() * size_of::<Vec<u8>>()
            + structure.kinds.len() * size_of::<fitwatch::memory::BlockKind>()
            + structure.pattern.len() * 2;
        sizes.push((bytes, name));
    }
    sizes.sort();
    let (largest, large) = (sizes.last().unwrap(), sizes.iter().filter(|(bytes, _)| *bytes > 4_096).count());
    assert!(largest.0 < 8_192, "{} takes {} bytes", largest.1, largest.0);
    // Some rare architectures have blocks of many kinds.
    assert!(large * 20 <= sizes.len(), "{large} of {}: {sizes:?}", sizes.len());
}

fn one_gpu() -> Devices {
    gpus(Backend::Cuda, 1)
}

fn gpus(backend: Backend, count: usize) -> Devices {
    let gpu = |index: usize| Gpu { name: format!("GPU{index}"), memory: Bytes::GIB.saturating_mul(24), overhead: None };
    Devices { backend, gpus: (0..count).map(gpu).collect() }
}

fn plain(structure: &Structure, settings: &Settings, devices: &Devices) -> Bill {
    bill(structure, None, settings, devices, &EngineProfile::server())
}

#[test]
fn a_context_of_zero_is_the_trained_one() {
    let llama = structure("llama-3.1-8b-Q4_K_M");
    let bill = plain(&llama, &Settings { context: 0, ..Settings::default() }, &one_gpu());
    assert_eq!(bill.placement.context, 131_072);
}

#[test]
fn repacked_weights_are_counted_once_whether_or_not_the_file_is_mapped() {
    let llama = structure("llama-3.1-8b-Q4_K_M");
    let mapped = plain(&llama, &Settings::default(), &Devices::none());
    let read = plain(&llama, &Settings { mmap: false, ..Settings::default() }, &Devices::none());
    let repacked = mapped.part(Part::RepackedWeights);
    assert!(repacked > Bytes::GIB);
    assert_eq!(repacked, read.part(Part::RepackedWeights));
    assert_eq!(mapped.part(Part::Weights), read.part(Part::Weights));
    let beside_a_gpu = plain(&llama, &Settings { gpu_layers: GpuLayers::Count(0), ..Settings::default() }, &one_gpu());
    assert_eq!(beside_a_gpu.part(Part::RepackedWeights), Bytes::ZERO);
}

#[test]
fn what_the_back_end_adds_is_a_guess_of_its_own() {
    let llama = structure("llama-3.1-8b-Q4_K_M");
    let two = plain(&llama, &Settings::default(), &gpus(Backend::Cuda, 2));
    let lines: Vec<_> = two.lines.iter().filter(|line| line.part == Part::Backend).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line.basis == Basis::Guess && line.bytes == Bytes::MIB.saturating_mul(450)));
    assert_eq!(plain(&llama, &Settings::default(), &gpus(Backend::Metal, 1)).part(Part::Backend), Bytes::ZERO);
}

#[test]
fn more_experts_on_the_cpu_than_blocks_mean_all() {
    let mixtral = structure("mixtral-8x7b-Q4_K_M");
    assert!(mixtral.has_experts() && !structure("llama-3.1-8b-Q4_K_M").has_experts());
    let all = plain(&mixtral, &Settings { cpu_moe: 32, ..Settings::default() }, &one_gpu());
    let more = plain(&mixtral, &Settings { cpu_moe: u32::MAX, ..Settings::default() }, &one_gpu());
    assert_eq!(all.lines, more.lines);
    assert_eq!(more.placement.cpu_moe, 32);
    assert!(all.gpus() < Bytes::GIB.saturating_mul(3));
}

#[test]
fn an_encoder_has_no_cache_and_is_an_embedding_model() {
    let nomic = structure("nomic-embed-text-v1.5-F16");
    assert_eq!(nomic.kind, Kind::Embedding);
    let bill = plain(&nomic, &Settings::default(), &one_gpu());
    assert_eq!(bill.part(Part::KvCache), Bytes::ZERO);
}

#[test]
fn a_projector_goes_with_the_first_gpu() {
    let llama = structure("llama-3.1-8b-Q4_K_M");
    let projector = Projector {
        projector_type: None,
        weights: Bytes(5),
        buffers: vec![ProjectorBuffers {
            backend: Backend::Cuda,
            flash_attention: FlashAttention::Auto,
            device: Bytes(7),
            host: Bytes(3),
        }],
        basis: Basis::Guess,
        notes: vec!["a guess".into()],
    };
    let bill = bill(&llama, Some(&projector), &Settings::default(), &gpus(Backend::Cuda, 2), &EngineProfile::server());
    assert_eq!(sum(&bill, Pool::Gpu(0), &[Part::Projector, Part::ProjectorCompute]), 12);
    assert!(bill.assumptions.contains(&"a guess".to_owned()));
}

/// A header of an architecture with the given keys and tensors.
fn header(architecture: &str, keys: &[(&str, Value)], tensors: &[(&str, [u64; 4])]) -> Header {
    let mut metadata = BTreeMap::from([("general.architecture".into(), Value::Text(architecture.into()))]);
    for (key, value) in keys {
        metadata.insert(format!("{architecture}.{key}").into(), value.clone());
    }
    let tensor = |(name, dims): &(&str, [u64; 4])| Tensor {
        name: (*name).into(),
        kind: TensorType::F32,
        dims: *dims,
        offset: 0,
        bytes: Bytes(4 * dims.iter().product::<u64>()),
    };
    Header {
        version: 3,
        metadata: Metadata(metadata),
        tensors: tensors.iter().map(tensor).collect(),
        alignment: 32,
        data_offset: 0,
        file_bytes: Bytes(1 << 20),
        notes: Vec::new(),
    }
}

#[test]
fn an_unknown_architecture_is_billed_by_what_its_tensors_show() {
    let keys = [
        ("block_count", Value::Unsigned(2)),
        ("embedding_length", Value::Unsigned(64)),
        ("attention.head_count", Value::Unsigned(4)),
        ("ssm.inner_size", Value::Unsigned(128)),
        ("ssm.state_size", Value::Unsigned(16)),
    ];
    let tensors = [
        ("token_embd.weight", [64, 100, 1, 1]),
        ("blk.0.attn_k.weight", [64, 64, 1, 1]),
        ("blk.1.ssm_in.weight", [64, 256, 1, 1]),
    ];
    let structure = Structure::from_header(&header("yet-unheard-of", &keys, &tensors)).unwrap();
    assert!(structure.notes.iter().any(|note| note.contains("yet-unheard-of")), "{:?}", structure.notes);
    let settings = Settings { context: 256, parallel: 1, ..Settings::default() };
    let bill = plain(&structure, &settings, &Devices::none());
    assert_eq!(bill.part(Part::KvCache), Bytes(2 * 256 * 64 * 2), "the cache of one block");
    assert_eq!(bill.part(Part::RecurrentState), Bytes(128 * 16 * 4), "the state of the other");
    assert!(bill.assumptions.iter().any(|text| text.contains("yet-unheard-of")));
}

#[test]
fn mtp_blocks_cost_nothing_until_asked_for() {
    let keys = [
        ("block_count", Value::Unsigned(2)),
        ("nextn_predict_layers", Value::Unsigned(1)),
        ("embedding_length", Value::Unsigned(64)),
        ("attention.head_count", Value::Unsigned(4)),
    ];
    let eh_proj = ("blk.1.nextn.eh_proj.weight", [128, 64, 1, 1]);
    let tensors = [("blk.0.attn_k.weight", [64, 64, 1, 1]), ("blk.1.attn_k.weight", [64, 64, 1, 1]), eh_proj];
    let structure = Structure::from_header(&header("glm4moe", &keys, &tensors)).unwrap();
    let one = plain(&structure, &Settings::default(), &Devices::none());
    let both = plain(&structure, &Settings { mtp: true, ..Settings::default() }, &Devices::none());
    assert_eq!((one.part(Part::Weights), both.part(Part::Weights)), (Bytes(64 * 64 * 4), Bytes(4 * 64 * 64 * 4)));
    assert_eq!(both.part(Part::KvCache).0, 2 * one.part(Part::KvCache).0);
    assert_eq!(structure.layers(), 3, "layers count the MTP block");
}

#[test]
fn files_that_are_no_models_of_their_own_are_told_apart() {
    let kind = |architecture: &str, keys: &[(&str, Value)]| {
        Structure::from_header(&header(architecture, keys, &[])).map(|structure| structure.kind)
    };
    let keys = [("block_count", Value::Unsigned(1)), ("embedding_length", Value::Unsigned(64))];
    let with = |key: &'static str| [keys[0].clone(), keys[1].clone(), (key, Value::Unsigned(1))];
    assert_eq!(kind("clip", &[]), Ok(Kind::Projector));
    assert_eq!(kind("eagle3", &keys), Ok(Kind::Drafter));
    assert_eq!(kind("glm4moe", &with("nextn_predict_layers")), Ok(Kind::Drafter));
    assert_eq!(kind("qwen3", &with("pooling_type")), Ok(Kind::Embedding));
    assert_eq!(kind("qwen3", &keys), Ok(Kind::Language));
}

#[test]
fn a_header_without_its_sizes_is_refused_with_the_key() {
    let refused = |keys: &[(&str, Value)]| Structure::from_header(&header("llama", keys, &[])).unwrap_err();
    assert_eq!(refused(&[]), StructureError::MissingKey { key: "llama.block_count".into() });
    let huge = refused(&[("block_count", Value::Unsigned(u64::MAX))]);
    assert!(matches!(huge, StructureError::OutOfRange { ref key, .. } if key == "llama.block_count"), "{huge}");
    assert!(matches!(refused(&[("block_count", Value::Unsigned(0))]), StructureError::OutOfRange { .. }));
}

const ARCHITECTURES: &[&str] = &[
    "llama",
    "qwen3moe",
    "qwen35",
    "gemma2",
    "gemma3n",
    "gemma4",
    "deepseek2",
    "mamba2",
    "falcon-h1",
    "lfm2",
    "nemotron_h",
    "rwkv7",
    "glm-dsa",
    "minimax-m3",
    "nanbeige",
    "bert",
    "t5",
    "llama4",
    "yet-unheard-of",
];

const KEYS: &[&str] = &[
    "nextn_predict_layers",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.key_length_mla",
    "attention.value_length_mla",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.shared_kv_layers",
    "attention.indexer.key_length",
    "full_attention_interval",
    "feed_forward_length",
    "expert_used_count",
    "context_length",
    "ssm.conv_kernel",
    "ssm.inner_size",
    "ssm.state_size",
    "ssm.group_count",
    "wkv.head_size",
    "shortconv.l_cache",
    "kda.head_dim",
    "num_loops",
    "vocab_size",
    "embedding_length_per_layer_input",
    "n_deepstack_layers",
];

const TENSORS: &[&str] = &[
    "token_embd.weight",
    "output.weight",
    "rope_freqs.weight",
    "altup_proj.weight",
    "blk.0.attn_q.weight",
    "blk.0.attn_k.weight",
    "blk.1.attn_output.weight",
    "blk.0.ffn_up.weight",
    "blk.0.ffn_down.weight",
    "blk.1.ffn_gate_exps.weight",
    "blk.1.ffn_down_exps.weight",
    "blk.1.ssm_out.weight",
    "blk.0.ssm_conv1d.weight",
    "blk.99999.attn_q.weight",
    "blk.x.attn_q.weight",
    "blk..weight",
    "strange",
];

fn numbers() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (0u64..300).prop_map(Value::Unsigned),
        1 => any::<u64>().prop_map(Value::Unsigned),
        1 => any::<i64>().prop_map(Value::Signed),
        1 => prop::collection::vec(any::<f64>(), 0..6).prop_map(Value::Numbers),
        1 => prop::collection::vec((0u8..9).prop_map(f64::from), 0..6).prop_map(Value::Numbers),
    ]
}

prop_compose! {
    fn headers()(
        architecture in prop::sample::select(ARCHITECTURES),
        blocks in 1u64..6,
        embedding in 1u64..2_000,
        values in prop::collection::btree_map(prop::sample::select(KEYS), numbers(), 0..12),
        tensors in prop::collection::vec(
            (prop::sample::select(TENSORS), 0u32..45, prop::array::uniform4(prop_oneof![9 => 1u64..5_000, 1 => any::<u64>()])),
            0..14,
        ),
    ) -> Header {
        let mut keys: Vec<(&str, Value)> = values.into_iter().collect();
        keys.push(("block_count", Value::Unsigned(blocks)));
        keys.push(("embedding_length", Value::Unsigned(embedding)));
        let mut header = header(architecture, &keys, &[]);
        header.tensors = tensors
            .into_iter()
            .map(|(name, kind, dims)| Tensor {
                name: name.into(),
                kind: TensorType(kind),
                dims,
                offset: dims[0],
                bytes: Bytes::ZERO,
            })
            .collect();
        header
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_header_and_no_setting_makes_the_bill_panic(
        header in headers(), settings in mutations::settings(), devices in mutations::devices(),
    ) {
        let _ = Projector::from_header(&header);
        if let Ok(structure) = Structure::from_header(&header) {
            let bill = plain(&structure, &settings, &devices);
            let lines = bill.lines.iter().map(|line| line.bytes).sum::<Bytes>();
            prop_assert_eq!(bill.total(), lines);
            let mut keys: Vec<_> = bill.lines.iter().map(|line| (line.pool, line.part, line.basis)).collect();
            keys.sort();
            keys.dedup();
            prop_assert_eq!(keys.len(), bill.lines.len(), "one line for each pool, part and basis");
            prop_assert!(bill.placement.by_gpu.iter().sum::<u32>() == bill.placement.gpu_layers);
        }
    }
}
