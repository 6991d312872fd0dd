//! The websocket's frames, sent and received.

use fitwatch::lmstudio::{
    Activity, BackendInfo, Endpoint, Frame, LoadSettings, LoadedKind, LoadedModel, OwnEstimate, authentication, call,
    can_be_estimated, estimate_parameter, parse_activity, parse_authentication, parse_estimate, parse_frame,
    parse_info, parse_list_loaded, parse_load_config, parse_own_device, specifier, unload_parameter, warns_of,
};
use fitwatch::memory::CacheType;
use fitwatch::units::{Bytes, Span};
use serde_json::{Value, json};

use crate::fixture;

/// Returns the frames of the example session that went in a direction.
fn frames(direction: &str) -> Vec<Value> {
    let session: Vec<Value> = serde_json::from_str(&fixture("ws-protocol-transcript.json")).unwrap();
    session.into_iter().filter(|entry| entry["dir"] == direction).map(|entry| entry["frame"].clone()).collect()
}

/// Returns the result of the example session's call of this number.
fn result(number: usize) -> String {
    let frame = frames("recv")[number + 1].to_string();
    match parse_frame(&frame) {
        Some(Frame::Result { number: answered, result }) if answered == number as u64 => result.unwrap().to_owned(),
        other => panic!("{other:?}"),
    }
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn what_is_sent_is_what_the_example_session_sends() {
    let sent = frames("send");
    let (identifier, passkey) = ("guest:7d1f3c0a-0000-4000-8000-fitwatch0001", "3f5d0c2e-0000-4000-8000-fitwatch0002");
    assert_eq!(json_of(&authentication(identifier, passkey)), sent[0]);
    assert_eq!(json_of(&call(Endpoint::ListLoaded, 0, None)), sent[1]);
    let instance = &parse_list_loaded(&result(0)).unwrap()[0];
    let parameter = json!({ "specifier": specifier(instance) });
    assert_eq!(json_of(&call(Endpoint::GetLoadConfig, 1, Some(&parameter))), sent[2]);
    let load = LoadSettings { context_length: Some(32_768), offload_ratio: Some(1.0), ..LoadSettings::default() };
    let parameter = estimate_parameter("qwen3-8b", &load);
    assert_eq!(json_of(&call(Endpoint::EstimateModelUsage, 2, Some(&parameter))), sent[3]);
    let parameter = unload_parameter("no-such-model");
    assert_eq!(json_of(&call(Endpoint::UnloadModel, 4, Some(&parameter))), sent[5]);
}

#[test]
fn the_example_session_is_understood() {
    assert_eq!(parse_authentication(&frames("recv")[0].to_string()), Some(true));
    let expected = LoadedModel {
        identifier: "qwen3-8b".into(),
        key: Some("qwen3-8b".into()),
        name: Some("Qwen3 8B".into()),
        kind: Some(LoadedKind::Language),
        format: Some("gguf".into()),
        path: Some("lmstudio-community/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf".into()),
        indexed_identifier: Some("lmstudio-community/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf".into()),
        bytes: Some(Bytes(5_027_783_488)),
        architecture: Some("qwen3".into()),
        quantisation: Some("Q4_K_M".into()),
        context: Some(16_384),
        ttl: Some(Span(3_600_000)),
        last_used_ms: Some(1_788_953_670_392),
        ..LoadedModel::default()
    };
    let listed = parse_list_loaded(&result(0)).unwrap();
    assert_eq!((listed.len(), &listed[0].model), (1, &expected));
    assert_eq!(listed[0].reference.as_deref(), Some("Zm9vYmFyLWluc3RhbmNl"));
    let load = LoadSettings {
        context_length: Some(16_384),
        parallel: Some(4),
        offload_ratio: Some(1.0),
        flash_attention: Some(true),
        offload_kv_cache_to_gpu: Some(true),
        ..LoadSettings::default()
    };
    assert_eq!(parse_load_config(&result(1)), Some(load));
    let estimate = OwnEstimate {
        total: Bytes(9_859_621_696),
        gpu: Bytes(9_711_838_208),
        is_confident: true,
        passes_guardrails: true,
    };
    assert_eq!(parse_estimate(&result(2)), Some(estimate));
    assert_eq!(parse_activity(&result(3)), Some(Activity::Idle));
    let failed = frames("recv")[5].to_string();
    let words = Some("Model not found".into());
    assert_eq!(parse_frame(&failed), Some(Frame::Error { number: 4, words }));
}

#[test]
fn an_effective_max_is_written_as_one() {
    let of = |value: Value| {
        let fields = json!({ "fields": [{ "key": "llm.load.llama.acceleration.offloadRatio", "value": value }] });
        parse_load_config(&fields.to_string()).unwrap().offload_ratio
    };
    for all in [json!(1), json!("1"), json!("max"), json!(1.0)] {
        assert_eq!(of(all), Some(1.0));
    }
    assert_eq!((of(json!(0.5)), of(json!("off")), of(json!(null))), (Some(0.5), Some(0.0), None));
}

#[test]
fn mlx_remote_and_embedding_instances_are_told_apart() {
    let listed = parse_list_loaded(&fixture("lms-ps.json")).unwrap();
    let told: Vec<_> = listed
        .iter()
        .map(|instance| {
            let model = &instance.model;
            (model.format.as_deref().unwrap(), model.kind.unwrap(), model.device.as_deref(), model.ttl)
        })
        .collect();
    let (language, embedding) = (LoadedKind::Language, LoadedKind::Embedding);
    let remote = Some("c0ffee0123456789c0ffee0123456789");
    assert_eq!(
        told,
        [
            ("gguf", language, None, Some(Span(3_600_000))),
            ("safetensors", language, None, None),
            ("gguf", language, remote, None),
            ("gguf", embedding, None, None),
        ]
    );
    assert_eq!(listed[2].model.variant.as_deref(), Some("openai/gpt-oss-120b@mxfp4"));
    assert_eq!(
        listed.iter().map(|instance| can_be_estimated(&instance.model)).collect::<Vec<_>>(),
        [true, false, false, false]
    );
    // Without a reference, the identifier names an instance.
    let query = json!({ "type": "query", "query": { "identifier": "qwen3-8b" } });
    assert_eq!(specifier(&listed[0]), query);
}

#[test]
fn a_device_that_cannot_be_read_is_not_taken_for_this_machine() {
    let of = |device: Value| {
        let row = json!([{ "identifier": "m", "deviceIdentifier": device }]);
        parse_list_loaded(&row.to_string()).unwrap()[0].model.device.clone()
    };
    assert_eq!((of(json!(null)), of(json!(""))), (None, None));
    assert_eq!((of(json!("abc")), of(json!(7))), (Some("abc".into()), Some("7".into())));
    assert_eq!((of(json!({})), of(json!(true))), (Some("unknown".into()), Some("unknown".into())));
}

#[test]
fn rows_that_make_no_sense_are_passed_over_and_numbers_may_be_strings() {
    let rows = json!([
        null, 1, "x", {}, { "identifier": "" }, { "identifier": null, "modelKey": "key" },
        { "identifier": "m", "sizeBytes": "12", "contextLength": "4096", "ttlMs": "60000", "lastUsedTime": -1,
          "type": "tts", "format": "yuzu", "quantization": "Q4_0", "path": {}, "new": [[]] },
        { "identifier": "m", "contextLength": 1 },
    ]);
    let listed = parse_list_loaded(&rows.to_string()).unwrap();
    let names: Vec<_> = listed.iter().map(|instance| instance.model.identifier.as_str()).collect();
    assert_eq!(names, ["key", "m"]);
    let model = &listed[1].model;
    assert_eq!((model.bytes, model.context, model.ttl), (Some(Bytes(12)), Some(4_096), Some(Span(60_000))));
    assert_eq!((model.last_used_ms, model.kind, model.format.as_deref()), (None, None, Some("yuzu")));
    assert_eq!((model.quantisation.as_deref(), model.path.as_deref()), (Some("Q4_0"), None));
    for text in ["null", "{}", "5", "", "[{", "[[}"] {
        assert_eq!(parse_list_loaded(text), None, "{text}");
    }
}

#[test]
fn frames_of_other_kinds_are_passed_over_and_garbage_is_none() {
    for frame in [
        json!({ "type": "keepAliveAck" }),
        json!({ "type": "channelSend", "channelId": 1, "message": {} }),
        json!({ "type": "rpcResult" }),
        json!({ "type": "rpcResult", "callId": null }),
        json!({ "type": "somethingNew", "callId": 0, "result": 1 }),
    ] {
        assert_eq!(parse_frame(&frame.to_string()), Some(Frame::Other), "{frame}");
    }
    for text in ["", "null", "[]", "{}", "{\"type\": 5}", "{\"type\": \"rpcResult\"", "\u{0}"] {
        assert_eq!(parse_frame(text), None, "{text}");
    }
    let void = r#"{"type":"rpcResult","callId":"3"}"#;
    assert_eq!(parse_frame(void), Some(Frame::Result { number: 3, result: None }));
    let deep =
        format!("{{\"type\":\"rpcResult\",\"callId\":0,\"result\":{}{}}}", "[".repeat(500_000), "]".repeat(500_000));
    let Some(Frame::Result { result: Some(result), .. }) = parse_frame(&deep) else { panic!("no result") };
    assert!(parse_load_config(result).is_none() && parse_list_loaded(result).unwrap_or_default().is_empty());
}

#[test]
fn an_errors_stack_data_and_paths_are_never_kept() {
    let frame = json!({ "type": "rpcError", "callId": 0, "error": {
        "title": "Cannot open /home/robin/m.gguf", "stack": "at /home/robin", "errorData": { "token": "sk-lm-x" },
    } });
    let Some(Frame::Error { words, .. }) = parse_frame(&frame.to_string()) else { panic!("no error") };
    assert_eq!(words, None);
}

#[test]
fn a_warning_names_the_endpoint_that_is_not_known() {
    let warning = "Received rpcCall for unknown endpoint, endpoint = getInstanceProcessingState";
    assert!(warns_of(warning, Endpoint::GetInstanceProcessingState));
    assert!(!warns_of(warning, Endpoint::Info) && !warns_of("more information", Endpoint::Info));
    assert!(warns_of("unhandled endpoint, endpoint = info", Endpoint::Info));
    let frame = json!({ "type": "communicationWarning", "warning": warning }).to_string();
    assert_eq!(parse_frame(&frame), Some(Frame::Warning { warning: warning.into() }));
}

#[test]
fn an_authentication_is_answered_or_not() {
    assert_eq!(parse_authentication(r#"{"success":true,"new":1}"#), Some(true));
    assert_eq!(parse_authentication(r#"{"success":false,"error":"Invalid passkey"}"#), Some(false));
    for text in ["", "{}", "true", "{\"success\": 1}", "{\"success\": null}"] {
        assert_eq!(parse_authentication(text), None, "{text}");
    }
}

#[test]
fn an_unknown_activity_is_kept_as_it_is_called() {
    let of = |status: Value| parse_activity(&json!({ "status": status, "queued": 1 }).to_string());
    assert_eq!(of(json!("processingPrompt")), Some(Activity::ProcessingPrompt));
    assert_eq!(of(json!("generating")), Some(Activity::Generating));
    assert_eq!(of(json!("computingEmbedding")), Some(Activity::ComputingEmbedding));
    assert_eq!(of(json!("drawing")), Some(Activity::Other("drawing".into())));
    assert_eq!((of(json!(null)), of(json!("/home/robin")), parse_activity("null")), (None, None, None));
}

#[test]
fn an_estimate_that_lacks_a_number_is_none() {
    let of = |memory: Value| parse_estimate(&json!({ "memory": memory, "passesGuardrails": false }).to_string());
    let low = of(json!({ "confidence": "low", "totalBytes": "12", "totalVramBytes": 0 })).unwrap();
    assert_eq!((low.total, low.gpu, low.is_confident, low.passes_guardrails), (Bytes(12), Bytes(0), false, false));
    for memory in [json!(null), json!({}), json!({ "totalBytes": 1 }), json!({ "totalBytes": -1, "totalVramBytes": 0 })]
    {
        assert_eq!(of(memory.clone()), None, "{memory}");
    }
}

#[test]
fn an_estimate_asks_with_the_settings_of_the_instance_and_nothing_else() {
    let load = LoadSettings {
        parallel: Some(2),
        cache_type_k: Some(CacheType::Q8_0),
        offload_ratio: Some(0.5),
        arguments_override: true,
        ..LoadSettings::default()
    };
    let parameter = estimate_parameter("m", &load);
    let fields = &parameter["loadConfigStack"]["layers"][0]["config"]["fields"];
    let expected = json!([
        { "key": "llm.load.numParallelSessions", "value": 2 },
        { "key": "llm.load.llama.acceleration.offloadRatio", "value": 0.5 },
        { "key": "llm.load.llama.kCacheQuantizationType", "value": { "checked": true, "value": "q8_0" } },
    ]);
    assert_eq!(fields, &expected);
}

#[test]
fn the_back_end_tells_of_itself_as_far_as_it_does() {
    let info = parse_info(r#"{"pid":"48213","isDaemon":true,"version":"0.4.25"}"#).unwrap();
    assert_eq!(info, BackendInfo { pid: Some(48_213), is_daemon: Some(true), version: Some("0.4.25".into()) });
    let version = parse_info(r#"{"version":"0.3.9","build":6}"#).unwrap();
    assert_eq!(version, BackendInfo { version: Some("0.3.9".into()), ..BackendInfo::default() });
    assert_eq!((parse_info("null"), parse_info("[]")), (None, None));
    assert_eq!(parse_own_device(r#"{"deviceIdentifier":"abc","peers":[]}"#).as_deref(), Some("abc"));
    assert_eq!(parse_own_device(r#"{"deviceIdentifier":null}"#), None);
}
