//! The bodies of REST v1 and v0, and those that are no answer.

use fitwatch::lmstudio::{
    LoadSettings, LoadedKind, LoadedModel, RestAnswer, parse_models_v0, parse_models_v1, parse_unload, unload_body,
};
use fitwatch::units::Bytes;
use serde_json::{Value, json};

use crate::fixture;

fn v1(body: &str) -> Vec<LoadedModel> {
    match parse_models_v1(body.as_bytes()) {
        RestAnswer::Is(models) => models,
        other => panic!("{other:?}"),
    }
}

fn v0(body: &str) -> Vec<LoadedModel> {
    match parse_models_v0(body.as_bytes()) {
        RestAnswer::Is(models) => models,
        other => panic!("{other:?}"),
    }
}

/// Returns a v1 body with one instance of this configuration.
fn with_config(config: &Value) -> String {
    json!({ "models": [{ "key": "m", "loaded_instances": [{ "id": "m", "config": config }] }] }).to_string()
}

#[test]
fn v1_tells_of_a_loaded_instance_and_its_settings() {
    let expected = LoadedModel {
        identifier: "openai/gpt-oss-20b".into(),
        key: Some("openai/gpt-oss-20b".into()),
        name: Some("gpt-oss 20B".into()),
        kind: Some(LoadedKind::Language),
        format: Some("gguf".into()),
        variant: Some("openai/gpt-oss-20b@mxfp4".into()),
        bytes: Some(Bytes(12_109_566_560)),
        architecture: Some("gpt_oss".into()),
        quantisation: Some("MXFP4".into()),
        context: Some(32_768),
        load: LoadSettings {
            context_length: Some(32_768),
            batch: Some(512),
            parallel: Some(4),
            flash_attention: Some(true),
            offload_kv_cache_to_gpu: Some(true),
            ..LoadSettings::default()
        },
        ..LoadedModel::default()
    };
    assert_eq!(v1(&fixture("api-v1-models-one-loaded.json")), [expected]);
    assert_eq!(v1(&fixture("api-v1-models-none-loaded.json")), []);
}

#[test]
fn v1_tells_two_instances_and_an_embedding_model_apart() {
    let models = v1(&fixture("api-v1-models-two-instances-and-embedding.json"));
    let told: Vec<_> = models
        .iter()
        .map(|model| (model.identifier.as_str(), model.key.as_deref().unwrap(), model.context, model.load.parallel))
        .collect();
    let embedding = "text-embedding-nomic-embed-text-v1.5";
    assert_eq!(
        told,
        [
            ("qwen3-8b", "qwen3-8b", Some(8_192), Some(4)),
            ("qwen3-8b:2", "qwen3-8b", Some(32_768), Some(1)),
            (embedding, embedding, Some(2_048), None),
        ]
    );
    assert_eq!(models[1].load.offload_kv_cache_to_gpu, Some(false));
    assert_eq!((models[2].kind, models[2].architecture.as_deref()), (Some(LoadedKind::Embedding), None));
}

#[test]
fn v1_tells_of_an_mlx_instance_what_it_knows_and_a_stray_projector_is_none() {
    let models = v1(&fixture("api-v1-models-vision.json"));
    let told: Vec<_> = models.iter().map(|model| (model.identifier.as_str(), model.format.as_deref())).collect();
    assert_eq!(told, [("google/gemma-3-12b", Some("gguf")), ("qwen3-vl-8b-instruct-mlx", Some("mlx"))]);
    let expected = LoadSettings { context_length: Some(32_768), parallel: Some(2), ..LoadSettings::default() };
    assert_eq!((&models[1].load, models[1].kind), (&expected, Some(LoadedKind::Language)));
}

#[test]
fn numbers_may_be_strings_and_the_unknown_is_passed_over() {
    let config = json!({
        "context_length": "16384", "eval_batch_size": null, "parallel": 5000, "flash_attention": "true",
        "offload_kv_cache_to_gpu": "sometimes", "reasoning_budget_message": {}, "new": [1],
    });
    let expected =
        LoadSettings { context_length: Some(16_384), flash_attention: Some(true), ..LoadSettings::default() };
    assert_eq!(v1(&with_config(&config))[0].load, expected);
    for config in [json!(null), json!([]), json!("x"), json!({ "context_length": -1 })] {
        assert_eq!(v1(&with_config(&config))[0].load, LoadSettings::default(), "{config}");
    }
}

#[test]
fn a_row_that_makes_no_sense_costs_nothing_but_itself() {
    let instances = json!([{ "id": "m" }, { "id": 7 }, {}, "x", null, { "id": "m" }]);
    let body = json!({ "models": [
        null, 5, "x", [], {}, { "key": "a" }, { "key": "a", "loaded_instances": 3 }, { "loaded_instances": [{}] },
        { "key": null, "type": "imageGen", "format": "splash", "size_bytes": "12", "quantization": null,
          "loaded_instances": instances },
    ], "models_new": 1 });
    let models = v1(&body.to_string());
    assert_eq!(models.iter().map(|model| model.identifier.as_str()).collect::<Vec<_>>(), ["m", "7"]);
    assert_eq!((models[0].kind, models[0].format.as_deref()), (None, Some("splash")));
    assert_eq!((models[0].bytes, models[0].quantisation.as_deref()), (Some(Bytes(12)), None));
}

#[test]
fn v0_tells_only_of_what_is_loaded() {
    let models = v0(&fixture("api-v0-models.json"));
    let expected = LoadedModel {
        identifier: "qwen3-8b".into(),
        key: Some("qwen3-8b".into()),
        kind: Some(LoadedKind::Language),
        format: Some("gguf".into()),
        architecture: Some("qwen3".into()),
        quantisation: Some("Q4_K_M".into()),
        context: Some(16_384),
        load: LoadSettings { context_length: Some(16_384), ..LoadSettings::default() },
        ..LoadedModel::default()
    };
    assert_eq!(models, [expected]);
    assert_eq!(v0(&fixture("api-v0-models-jit-off-none-loaded.json")), []);
}

#[test]
fn v0_rows_may_repeat_and_their_state_may_be_unknown() {
    let row =
        |id: &str, state: &str| json!({ "id": id, "type": "vlm", "state": state, "loaded_context_length": "4096" });
    let rows = [row("a", "loading"), row("a", "loaded"), row("a", "loaded"), row("b", "not-loaded"), row("c", "new")];
    let models = v0(&json!({ "data": rows }).to_string());
    assert_eq!(models.len(), 1);
    assert_eq!((models[0].identifier.as_str(), models[0].context), ("a", Some(4_096)));
}

#[test]
fn an_unknown_route_is_told_by_its_body_whatever_the_status() {
    let bodies: Value = serde_json::from_str(&fixture("api-error-bodies.json")).unwrap();
    let missing = bodies["route_missing_http_200"].to_string();
    assert_eq!(parse_models_v1(missing.as_bytes()), RestAnswer::NoSuchRoute);
    assert_eq!(parse_models_v0(missing.as_bytes()), RestAnswer::NoSuchRoute);
    let wrapped = json!({ "error": { "message": "Unexpected endpoint or method. (GET /x)" } }).to_string();
    assert_eq!(parse_models_v1(wrapped.as_bytes()), RestAnswer::NoSuchRoute);
}

#[test]
fn a_wanted_token_is_a_refusal_and_no_empty_list() {
    let bodies: Value = serde_json::from_str(&fixture("api-error-bodies.json")).unwrap();
    let refused = bodies["auth_required_http_401"].to_string();
    assert_eq!(parse_models_v1(refused.as_bytes()), RestAnswer::Refused);
    assert_eq!(parse_models_v0(refused.as_bytes()), RestAnswer::Refused);
    assert_eq!(parse_unload(refused.as_bytes()), RestAnswer::Refused);
}

#[test]
fn what_is_no_answer_is_garbage_or_an_error_without_its_secrets() {
    // A deep row is passed over like any other that makes no sense.
    let deep = format!("{{\"models\": {}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(v1(&deep), []);
    let deep = format!("{{\"other\": {}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let texts =
        ["", "null", "[]", "\"x\"", "{}", "{\"models\": 5}", "{\"models\": [{", "<html></html>", "{\"models\": [}"];
    for text in texts.into_iter().chain([deep.as_str()]) {
        assert_eq!(parse_models_v1(text.as_bytes()), RestAnswer::Garbage, "{text:.40}");
    }
    assert_eq!(parse_models_v1(b"{\"models\": [\"\xff\"]}"), RestAnswer::Garbage);
    let error = |text: &str| parse_models_v1(json!({ "error": text }).to_string().as_bytes());
    assert_eq!(error("Too busy"), RestAnswer::Error(Some("Too busy".into())));
    assert_eq!(error("cannot read /home/robin/.lmstudio/x"), RestAnswer::Error(None));
    assert_eq!(parse_models_v1(b"{\"error\": {}}"), RestAnswer::Error(None));
}

#[test]
fn a_list_beyond_all_reason_is_cut() {
    let instances: Vec<Value> = (0..2_000).map(|number| json!({ "id": format!("m:{number}") })).collect();
    let body = json!({ "models": [{ "key": "m", "loaded_instances": instances }] });
    assert_eq!(v1(&body.to_string()).len(), 256);
    let numbers = format!("{{\"models\": [{}0]}}", "0,".repeat(1_000_000));
    assert_eq!(v1(&numbers), []);
}

#[test]
fn an_unload_is_asked_and_answered_with_the_instance() {
    let example: Value = serde_json::from_str(&fixture("api-v1-unload-request-response.json")).unwrap();
    let sent: Value = serde_json::from_str(&unload_body("openai/gpt-oss-20b")).unwrap();
    assert_eq!(sent, example["request"]);
    assert_eq!(parse_unload(example["response"].to_string().as_bytes()), RestAnswer::Is(()));
    assert_eq!(parse_unload(b"{}"), RestAnswer::Garbage);
}
