//! What of a projector file is loaded, and what becomes of a file that is not known.

use fitwatch::gguf::{Header, Value};
use fitwatch::memory::{Backend, Basis, FlashAttention, ImageLimits, Projector};
use fitwatch::units::Bytes;
use proptest::prelude::*;

use super::header;
use super::truth::headers;

/// Every type of projector that llama.cpp knows, and one that it does not.
const TYPES: &[&str] = &[
    "adapter",
    "cogvlm",
    "deepseek4v",
    "deepseekocr",
    "deepseekocr2",
    "dots3note_a",
    "dots3note_v",
    "dots_ocr",
    "exaone4_5",
    "gemma3",
    "gemma3na",
    "gemma3nv",
    "gemma4a",
    "gemma4ua",
    "gemma4uv",
    "gemma4v",
    "glm4v",
    "glm5v",
    "glma",
    "granite4_vision",
    "granite_speech",
    "hunyuanvl",
    "idefics3",
    "internvl",
    "janus_pro",
    "kimik25",
    "kimivl",
    "ldp",
    "ldpv2",
    "lfm2",
    "lfm2a",
    "lightonocr",
    "ling3vl",
    "llama4",
    "meralion",
    "mimo_audio",
    "mimovl",
    "minicpmv4_6",
    "minimax_m3",
    "mlp",
    "muse-glimmer",
    "musicflamingo",
    "nemotron_v2_vl",
    "paddleocr",
    "parakeet",
    "phi4",
    "pixtral",
    "pockettts_gen",
    "pockettts_spkenc",
    "qwen2.5o",
    "qwen2.5vl_merger",
    "qwen2a",
    "qwen2vl_merger",
    "qwen3a",
    "qwen3tts_gen",
    "qwen3tts_spkenc",
    "qwen3vl_merger",
    "resampler",
    "step3vl",
    "ultravox",
    "voxtral",
    "yasa2",
    "youtuvl",
    "yet-unheard-of",
];

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

/// A projector file whose tensors have 64 elements each.
fn file(keys: &[(&str, Value)], names: &[&str]) -> Header {
    let tensors: Vec<_> = names.iter().map(|&name| (name, [8, 8, 1, 1])).collect();
    header("clip", keys, &tensors)
}

fn weights(keys: &[(&str, Value)], names: &[&str]) -> u64 {
    Projector::from_header(&file(keys, names)).unwrap().weights.0 / (64 * 4)
}

#[test]
fn a_tensor_that_two_encoders_look_for_is_counted_twice() {
    let both = |vision: &str, audio: &str| {
        [
            ("has_vision_encoder", Value::Bool(true)),
            ("has_audio_encoder", Value::Bool(true)),
            ("vision.projector_type", text(vision)),
            ("audio.projector_type", text(audio)),
            ("audio.block_count", Value::Unsigned(4)),
        ]
    };
    let gemma = both("gemma4v", "gemma4a");
    assert_eq!(weights(&gemma, &["v.blk.0.attn_q.weight", "a.blk.0.attn_q.weight", "mm.a.fc.weight"]), 3);
    assert_eq!(weights(&gemma, &["v.patch_embd.weight", "v.position_embd.weight"]), 3, "patches are common to both");
    assert_eq!(weights(&gemma, &["v.deepstack.3.norm.weight", "v.deepstack.4.norm.weight"]), 3, "as far as blocks go");
    assert_eq!(weights(&both("nemotron_v2_vl", "parakeet"), &["mm.model.mlp.1.weight"]), 2, "Parakeet has it by name");
    assert_eq!(weights(&gemma, &["mm.model.mlp.1.weight"]), 1);
}

#[test]
fn what_is_never_loaded_is_not_counted() {
    let vision = [("has_vision_encoder", Value::Bool(true)), ("projector_type", text("gemma4v"))];
    let names = ["v.blk.0.attn_q.weight", "v.blk.0.attn_q.input_max", "v.blk.0.attn_q.output_min"];
    assert_eq!(weights(&vision, &names), 1, "limits become part of the graph");
    let gemma = |kind: &str| {
        [
            ("has_vision_encoder", Value::Bool(true)),
            ("has_audio_encoder", Value::Bool(true)),
            ("vision.projector_type", text(kind)),
            ("audio.projector_type", text("gemma3na")),
        ]
    };
    assert_eq!(weights(&gemma("gemma3nv"), &["v.blk.0.0.x", "a.blk.0.x"]), 1, "Gemma 3n's ears are not used");
    assert_eq!(weights(&gemma("gemma4v"), &["v.blk.0.x", "a.blk.0.x"]), 2);
    assert_eq!(weights(&vision, &["v.blk.0.x", "strange.x"]), 2, "what is not known may be loaded");
}

#[test]
fn a_speech_decoder_has_weights_but_no_buffer_yet() {
    let keys = [("has_gen_audio_encoder", Value::Bool(true)), ("gen.audio.projector_type", text("qwen3tts_gen"))];
    let projector = Projector::from_header(&file(&keys, &["a.gen.code.norm.weight"])).unwrap();
    assert_eq!((projector.weights, projector.buffers.len()), (Bytes(256), 0));
    assert!(projector.notes.iter().any(|note| note.contains("first used")), "{:?}", projector.notes);
}

#[test]
fn a_limit_on_tokens_makes_the_reserved_image_smaller_but_never_larger() {
    let header = &headers()["mmproj-qwen25vl"];
    let bytes = |max_tokens: u32| {
        let projector = Projector::with_limits(header, ImageLimits { max_tokens }).unwrap();
        let buffers = projector.computed(Backend::Cuda, FlashAttention::On).unwrap();
        (buffers.device.0, buffers.host.0)
    };
    assert_eq!(bytes(256), (66_996_224, 6_621_184));
    assert_eq!(bytes(1_024), (306_323_456, 76_816_384));
    assert_eq!(bytes(0), (739_025_920, 306_616_896));
    assert_eq!(bytes(16_384), bytes(0));
}

#[test]
fn flash_attention_that_fails_leaves_the_larger_of_both_buffers() {
    // Heads of 88 elements have no kernel, so the first graph ran attention on the CPU.
    let projector = Projector::from_header(&headers()["mmproj-llama4"]).unwrap();
    let [on, off, auto] = [FlashAttention::On, FlashAttention::Off, FlashAttention::Auto]
        .map(|flash| *projector.computed(Backend::Cuda, flash).unwrap());
    assert_eq!((on.device, on.host), (Bytes(24_107_264), Bytes(9_748_992)));
    assert_eq!((auto.device, auto.host), (off.device, on.host));
    assert!(off.host < on.host && on.device < off.device);
}

#[test]
fn a_projector_of_an_unknown_type_is_guessed_on_the_high_side() {
    let projectors = headers().into_iter().filter(|(name, _)| name.starts_with("mmproj-"));
    for (name, header) in projectors.step_by(3) {
        let known = Projector::from_header(&header).unwrap();
        let mut unknown = header;
        for key in ["clip.projector_type", "clip.vision.projector_type", "clip.audio.projector_type"] {
            if let Some(kind) = unknown.metadata.0.get_mut(key) {
                *kind = text("yet-unheard-of");
            }
        }
        let unknown = Projector::from_header(&unknown).unwrap();
        assert_eq!((known.basis, unknown.basis), (Basis::Exact, Basis::Guess), "{name}");
        assert!(unknown.notes.iter().any(|note| note.contains("guess")), "{name}: {:?}", unknown.notes);
        let room = |projector: &Projector| {
            let buffers = projector.computed(Backend::Cuda, FlashAttention::On).unwrap();
            buffers.device.0 + buffers.host.0
        };
        let share = room(&unknown) as f64 / room(&known) as f64;
        // SAM's tower over whole pixels and convolutions without a tower are beyond any guess.
        let usual = !["deepseekocr", "gemma3n"].iter().any(|odd| name.contains(odd));
        assert!(!usual || share >= 1.0, "{name} is guessed at {share:.2} of what it takes");
    }
}

#[test]
fn a_deep_graph_fits_a_small_stack() {
    let build = |kind: &'static str| {
        let key = |name: &'static str, number: u64| (name, Value::Unsigned(number));
        let keys = [
            ("has_audio_encoder", Value::Bool(true)),
            ("projector_type", text(kind)),
            key("audio.block_count", 512),
            key("audio.embedding_length", 64),
            key("audio.attention.head_count", 4),
            key("audio.num_mel_bins", 80),
        ];
        Projector::from_header(&file(&keys, &[])).unwrap().basis
    };
    for kind in ["parakeet", "lfm2a", "granite_speech", "gemma4a"] {
        let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(move || build(kind)).unwrap();
        assert_eq!(thread.join().unwrap(), Basis::Guess, "{kind} lacks its tensors");
    }
}

fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..100u64, Just(1_024), Just(1 << 20), Just(u64::MAX), any::<u64>()]
}

const NUMBERS: &[&str] = &[
    "embedding_length",
    "feed_forward_length",
    "block_count",
    "attention.head_count",
    "attention.head_count_kv",
    "image_size",
    "patch_size",
    "num_mel_bins",
    "spatial_merge_size",
    "projector.scale_factor",
    "projector.window_side",
    "projector.window_size",
    "n_wa_pattern",
    "window_size",
    "sam.block_count",
    "sam.embedding_length",
    "sam.head_count",
    "chunk_size",
];

const LISTS: &[&str] = &["feature_layer", "wa_layer_indexes", "wa_pattern_mode", "rvq.codebook_size"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_projector_makes_the_bill_panic(
        kind in prop::sample::select(TYPES.to_vec()),
        values in prop::collection::vec(numbers(), NUMBERS.len()),
        list in prop::collection::vec(-5.0..600.0f64, 0..20),
        limit in any::<u32>(),
        dims in prop::collection::vec(1..3_000u64, 4),
    ) {
        let mut keys = vec![
            ("has_vision_encoder".to_owned(), Value::Bool(true)),
            ("has_audio_encoder".to_owned(), Value::Bool(true)),
            ("projector_type".to_owned(), text(kind)),
        ];
        for modality in ["vision", "audio"] {
            let number = |(key, value): (&&str, &u64)| (format!("{modality}.{key}"), Value::Unsigned(*value));
            keys.extend(NUMBERS.iter().zip(&values).map(number));
            keys.extend(LISTS.iter().map(|key| (format!("{modality}.{key}"), Value::Numbers(list.clone()))));
        }
        let keys: Vec<_> = keys.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        let dims = [dims[0], dims[1], dims[2], dims[3]];
        let names = ["v.patch_embd.weight", "v.position_embd.weight", "mm.0.weight", "a.position_embd.weight",
            "v.blk.0.attn_q.weight", "v.blk.0.ffn_gate_exps.weight", "a.conv1d.1.weight", "v.class_embd"];
        let tensors: Vec<_> = names.iter().map(|&name| (name, dims)).collect();
        let header = header("clip", &keys, &tensors);
        let projector = Projector::with_limits(&header, ImageLimits { max_tokens: limit });
        prop_assert!(projector.is_ok());
    }
}
