//! Per-model files as text.

use super::*;

#[test]
fn a_file_as_lm_studio_writes_it_is_read_key_by_key() {
    let settings = parse_model_config(&fixture("per-model-config.gguf.json")).unwrap();
    let expected = LoadSettings {
        context_length: Some(16_384),
        offload_ratio: Some(0.5),
        cpu_expert_ratio: Some(0.25),
        offload_kv_cache_to_gpu: Some(true),
        parallel: Some(1),
        unified_kv: Some(true),
        batch: Some(512),
        ubatch: Some(512),
        flash_attention: Some(true),
        cache_type_k: Some(CacheType::Q8_0),
        cache_type_v: Some(CacheType::Q8_0),
        mmap: Some(true),
        own_gpu_split: true,
        ..LoadSettings::default()
    };
    assert_eq!(settings, expected);
}

#[test]
fn raw_engine_arguments_are_noticed() {
    let settings = parse_model_config(&fixture("per-model-config.hub.json")).unwrap();
    assert!(settings.arguments_override);
    assert_eq!((settings.context_length, settings.offload_ratio), (Some(65_536), Some(1.0)));
    assert_eq!((settings.mtp, settings.auto_fit), (Some(false), Some(false)));
    let off = fields(&json!([{ "key": "llm.load.llama.argumentsOverride", "value": { "enabled": false } }]));
    assert!(!off.arguments_override);
}

#[test]
fn keys_of_other_back_ends_are_passed_over() {
    let settings = parse_model_config(&fixture("per-model-config.mlx.json")).unwrap();
    assert_eq!(settings, LoadSettings { context_length: Some(32_768), ..LoadSettings::default() });
}

#[test]
fn values_may_be_strings_wrapped_or_words() {
    let settings = fields(&json!([
        { "key": "llm.load.contextLength", "value": "32768" },
        { "key": "llm.load.llama.acceleration.offloadRatio", "value": "max" },
        { "key": "llm.load.numCpuExpertLayersRatio", "value": "off" },
        { "key": "llm.load.llama.kCacheQuantizationType", "value": "Q4_0" },
        { "key": "llm.load.llama.vCacheQuantizationType", "value": { "checked": false, "value": "q4_0" } },
        { "key": "llm.load.llama.flashAttention", "value": "true" },
    ]));
    assert_eq!((settings.context_length, settings.offload_ratio), (Some(32_768), Some(1.0)));
    assert_eq!((settings.cpu_expert_ratio, settings.flash_attention), (Some(0.0), Some(true)));
    assert_eq!((settings.cache_type_k, settings.cache_type_v), (Some(CacheType::Q4_0), None));
}

#[test]
fn nonsense_is_left_out_and_the_rest_is_kept() {
    let settings = fields(&json!([
        "contextLength",
        { "key": 7, "value": 1 },
        { "key": "llm.load.contextLength" },
        { "key": "llm.load.contextLength", "value": -5 },
        { "key": "llm.load.numParallelSessions", "value": 5000 },
        { "key": "llm.load.llama.acceleration.offloadRatio", "value": 1.5 },
        { "key": "llm.load.llama.kCacheQuantizationType", "value": { "checked": true, "value": "q99" } },
        { "key": "llm.prediction.contextLength", "value": 77 },
        { "key": "llm.load.llama.evalBatchSize", "value": 1024 },
    ]));
    assert_eq!(settings, LoadSettings { batch: Some(1_024), ..LoadSettings::default() });
}

#[test]
fn embedding_keys_count_as_well() {
    let settings = fields(&json!([
        { "key": "embedding.load.contextLength", "value": 1024 },
        { "key": "embedding.load.llama.acceleration.offloadRatio", "value": "off" },
    ]));
    assert_eq!((settings.context_length, settings.offload_ratio), (Some(1_024), Some(0.0)));
}

#[test]
fn a_full_precision_cache_is_four_bytes_unless_a_type_is_chosen() {
    let settings = fields(&json!([
        { "key": "llm.load.llama.useFp16ForKVCache", "value": false },
        { "key": "llm.load.llama.kCacheQuantizationType", "value": "q8_0" },
    ]));
    assert_eq!((settings.cache_type_k, settings.cache_type_v), (Some(CacheType::Q8_0), Some(CacheType::F32)));
}

#[test]
fn a_file_without_load_settings_is_empty_and_a_broken_one_an_error() {
    assert_eq!(parse_model_config("{\"preset\": \"\"}"), Ok(LoadSettings::default()));
    for text in ["", "{\"load\": {\"fields\": [{", "[]", "{\"load\": {\"fields\": {}}}"] {
        assert!(parse_model_config(text).is_err(), "{text}");
    }
}
