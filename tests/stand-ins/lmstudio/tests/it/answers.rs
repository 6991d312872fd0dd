//! What each interface says.

use super::*;

#[test]
fn rest_v1_says_what_the_example_says() {
    let wanted = payload("api-v1-models-two-instances-and-embedding.json");
    let mut scenario = Scenario::named("many-loaded");
    let is_in = |key: &str| wanted["models"].as_array().unwrap().iter().any(|model| model["key"] == key);
    scenario.models.retain(|model| is_in(&model.model_key));
    scenario.loaded.retain(|instance| is_in(&instance.model_key) && !instance.model_key.starts_with("openai"));
    let stand_in = StandIn::start(scenario);
    assert_eq!(get(stand_in.user_port, "/api/v1/models").json(), wanted);
}

#[test]
fn rest_v0_says_what_the_example_says() {
    let wanted = payload("api-v0-models.json");
    let mut scenario = Scenario::default();
    for row in wanted["data"].as_array().unwrap() {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        let is_llm = row["type"] != "embeddings";
        scenario.models.push(Model {
            r#type: if is_llm { "llm" } else { "embedding" }.into(),
            model_key: text("id"),
            format: if row["compatibility_type"] == "mlx" { "safetensors" } else { "gguf" }.into(),
            publisher: text("publisher"),
            architecture: Some(text("arch")),
            quantization: Some(serde_json::from_value(json!({ "name": text("quantization"), "bits": 4 })).unwrap()),
            vision: is_llm.then_some(row["type"] == "vlm"),
            trained_for_tool_use: is_llm.then_some(row["capabilities"].is_array()),
            max_context_length: u32::try_from(row["max_context_length"].as_u64().unwrap()).unwrap(),
            ..Model::default()
        });
        if let Some(context) = row["loaded_context_length"].as_u64() {
            let context_length = u32::try_from(context).unwrap();
            scenario.loaded.push(Instance { model_key: text("id"), context_length, ..Instance::default() });
        }
    }
    let stand_in = StandIn::start(scenario);
    assert_eq!(get(stand_in.user_port, "/api/v0/models").json(), wanted);
    assert_eq!(get(stand_in.user_port, "/api/v0/models/qwen3-8b").json(), wanted["data"][0]);
}

#[test]
fn a_session_has_the_frames_of_the_transcript() {
    let transcript = payload("ws-protocol-transcript.json");
    let mut scenario = Scenario::named("everyday");
    scenario.loaded[0].instance_reference = "Zm9vYmFyLWluc3RhbmNl".into();
    let fields = transcript.as_array().unwrap().iter().find_map(|step| step["frame"]["result"].get("fields"));
    scenario.loaded[0].load_config = serde_json::from_value(fields.unwrap().clone()).unwrap();
    let stand_in = StandIn::start(scenario);
    let stream = TcpStream::connect(("127.0.0.1", stand_in.internal_port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (socket, _) = client(format!("ws://127.0.0.1:{}/llm", stand_in.internal_port), stream).unwrap();
    let mut socket = Socket(socket);
    let mut answers = 0;
    for step in transcript.as_array().unwrap() {
        match step["dir"].as_str().unwrap() {
            "send" => socket.send(&step["frame"]),
            "recv" => {
                has_shape(&socket.next().unwrap(), &step["frame"]);
                answers += 1;
            }
            _ => {}
        }
    }
    assert_eq!(answers, 6);
}

/// Checks that all of an example's keys are there, with values of the same kind.
fn has_shape(seen: &Value, example: &Value) {
    match (seen, example) {
        (Value::Object(seen), Value::Object(example)) => {
            for (key, value) in example {
                has_shape(seen.get(key).unwrap_or_else(|| panic!("no {key}: {seen:?}")), value);
            }
        }
        (Value::Array(seen), Value::Array(example)) => {
            assert_eq!(seen.is_empty(), example.is_empty());
            seen.iter().zip(example).for_each(|(seen, example)| has_shape(seen, example));
        }
        _ => assert_eq!(std::mem::discriminant(seen), std::mem::discriminant(example), "{seen} for {example}"),
    }
}

#[test]
fn both_probes_answer_and_unknown_routes_do_so_with_200() {
    let stand_in = StandIn::start(Scenario::named("everyday"));
    for port in [stand_in.internal_port, stand_in.user_port] {
        assert_eq!(get(port, "/lmstudio-greeting").json(), json!({ "lmstudio": true }));
        let unknown = get(port, "/api/v0/events");
        assert_eq!(unknown.status, 200);
        assert_eq!(unknown.json(), json!({ "error": "Unexpected endpoint or method. (GET /api/v0/events)" }));
    }
    let status = get(stand_in.internal_port, "/lms-status");
    assert_eq!((status.status, status.json()), (200, json!({ "package": "lmstudio", "version": "0.4.25" })));
    assert_eq!(get(stand_in.user_port, "/api/v1/events").status, 404);
    assert!(get(stand_in.internal_port, "/api/v1/models").json()["error"].is_string());
}

#[test]
fn an_old_version_lacks_what_came_later() {
    let stand_in = StandIn::start(Scenario::named("everyday").of_version("0.3.10"));
    let answer = get(stand_in.user_port, "/api/v1/models");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({ "error": "Unexpected endpoint or method. (GET /api/v1/models)" }));
    assert!(get(stand_in.user_port, "/api/v0/models").json()["data"].is_array());
    let mut socket = Socket::guest(stand_in.internal_port, "llm");
    let parameter = json!({ "specifier": by_identifier("qwen3-8b"), "throwIfNotFound": true });
    let warning = socket.call("getInstanceProcessingState", &parameter).unwrap();
    assert_eq!(warning["kind"], "rpcEndpointUnknown");
    assert_eq!(socket.next(), None, "an unknown endpoint is never answered");

    let oldest = StandIn::start(Scenario::named("everyday").of_version("0.3.5"));
    assert!(get(oldest.user_port, "/api/v0/models").json()["error"].is_string());
    assert!(get(oldest.user_port, "/v1/models").json()["data"].is_array());
}

#[test]
fn a_parameter_of_another_shape_is_warned_of_and_never_answered() {
    let stand_in = StandIn::start(Scenario::named("everyday"));
    for (endpoint, parameter) in [
        ("listLoaded", json!(null)),
        ("getModelInfo", json!({ "specifier": by_identifier("qwen3-8b") })),
        ("getModelInfo", json!({ "specifier": { "type": "identifier" }, "throwIfNotFound": true })),
        ("getLoadConfig", json!({ "identifier": "qwen3-8b" })),
        ("getLoadConfig", json!({ "specifier": by_identifier("") })),
        ("unloadModel", json!({ "instanceReference": "x" })),
        ("estimateModelUsage", json!({ "modelKey": "qwen3-8b" })),
        (
            "estimateModelUsage",
            json!({ "modelKey": "qwen3-8b", "loadConfigStack": { "layers": [{ "layerName": "mine", "config": { "fields": [] } }] } }),
        ),
    ] {
        let mut socket = Socket::guest(stand_in.internal_port, "llm");
        let warning = socket.call(endpoint, &parameter).unwrap();
        assert_eq!(warning["type"], "communicationWarning", "{endpoint} {parameter}");
        assert_eq!(warning["kind"], "rpcParameterTypeError");
        assert_eq!(socket.next(), None);
    }
    let mut socket = Socket::guest(stand_in.internal_port, "llm");
    let warnings = (0..8).filter(|_| socket.call("listLoaded", &json!(null)).is_some()).count();
    assert_eq!(warnings, 5, "no more than these are sent");
    assert_eq!(stand_in.scenario().loaded.len(), 1);
}

#[test]
fn a_token_is_asked_for_where_it_is_required() {
    let stand_in = StandIn::start(Scenario::named("everyday").with_token(TOKEN));
    let port = stand_in.user_port;
    for path in ["/api/v1/models", "/api/v0/models", "/v1/models"] {
        let refused = get(port, path);
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &json!("invalid_api_key")));
    }
    let wrong = request(port, "GET", "/api/v1/models", "Authorization: Bearer another\r\n", "");
    assert_eq!(wrong.status, 401);
    let right = request(port, "GET", "/api/v1/models", &format!("Authorization: Bearer {TOKEN}\r\n"), "");
    assert_eq!(right.json()["models"].as_array().unwrap().len(), 5);
    assert_eq!(get(port, "/lmstudio-greeting").json(), json!({ "lmstudio": true }));

    for port in [stand_in.internal_port, stand_in.user_port] {
        let refused = Socket::open(port, "llm", "guest:x", "y").next().unwrap();
        assert_eq!(refused["success"], false);
        assert!(refused["error"].as_str().unwrap().contains("token"));
        let entered = Socket::open(port, "llm", "Ab3dEf7h", "0123456789abcdefghij").next().unwrap();
        assert_eq!(entered, json!({ "success": true }));
    }
    stand_in.reconsider(|scenario| scenario.guards_internal = false);
    Socket::guest(stand_in.internal_port, "llm");
    assert_eq!(Socket::open(stand_in.user_port, "llm", "guest:x", "y").next().unwrap()["success"], false);
}

#[test]
fn the_first_passkey_of_an_identifier_is_its_own() {
    let stand_in = StandIn::start(Scenario::named("everyday"));
    let port = stand_in.internal_port;
    let first = Socket::guest(port, "llm");
    let second = Socket::open(port, "system", "guest:test", "another").next().unwrap();
    assert_eq!(second["success"], false);
    Socket::guest(port, "embedding");
    drop(first);
    // The server notices the end a little later.
    let is_free = || Socket::open(port, "system", "guest:test", "another").next().unwrap()["success"] == true;
    assert!((0..50).any(|_| is_free() || (std::thread::sleep(PATIENCE / 10), false).1));
}

#[test]
fn without_loading_on_demand_only_what_is_loaded_is_listed() {
    let mut scenario = Scenario::named("everyday");
    scenario.just_in_time = false;
    let stand_in = StandIn::start(scenario);
    let ids = |path: &str| -> Vec<String> {
        let rows = get(stand_in.user_port, path).json();
        rows["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("/api/v0/models"), ["qwen3-8b"]);
    assert_eq!(ids("/v1/models"), ["qwen3-8b"]);
    assert_eq!(get(stand_in.user_port, "/api/v1/models").json()["models"].as_array().unwrap().len(), 5);
    stand_in.unload("qwen3-8b");
    assert_eq!(get(stand_in.user_port, "/api/v0/models").json(), json!({ "data": [], "object": "list" }));
}

#[test]
fn an_instance_elsewhere_is_told_apart_by_the_websocket_only() {
    let stand_in = StandIn::start(Scenario::named("many-loaded"));
    let loaded = Socket::guest(stand_in.internal_port, "llm").ask("listLoaded").unwrap();
    let devices: Vec<&Value> =
        loaded["result"].as_array().unwrap().iter().map(|row| &row["deviceIdentifier"]).collect();
    let away = json!("c0ffee0123456789c0ffee0123456789");
    assert_eq!(devices, [&Value::Null, &Value::Null, &Value::Null, &away, &Value::Null]);
    assert!(!get(stand_in.user_port, "/api/v1/models").body.contains("c0ffee"));
}

#[test]
fn the_devices_of_lm_link_are_told() {
    let mut scenario = Scenario::named("many-loaded");
    scenario.device = Some("here".into());
    let stand_in = StandIn::start(scenario);
    let status = Socket::guest(stand_in.internal_port, "repository").ask("lmLinkStatus").unwrap()["result"].take();
    assert_eq!((&status["deviceIdentifier"], &status["status"]), (&json!("here"), &json!("online")));
    let peers: Vec<&Value> = status["peers"].as_array().unwrap().iter().map(|peer| &peer["deviceIdentifier"]).collect();
    assert_eq!(peers, [&json!("c0ffee0123456789c0ffee0123456789")]);
    let other = Socket::guest(stand_in.internal_port, "repository").ask("isAuthenticated").unwrap();
    assert_eq!(other["type"], "rpcError", "it does not do this");
}

#[test]
fn a_model_that_two_devices_have_is_listed_once() {
    let mut scenario = Scenario::named("everyday");
    let mut twin = scenario.models[0].clone();
    twin.device_identifier = Some("elsewhere".into());
    scenario.models.insert(0, twin);
    let stand_in = StandIn::start(scenario);
    let listed = Socket::guest(stand_in.internal_port, "system").ask("listDownloadedModels").unwrap();
    let rows = listed["result"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["deviceIdentifier"]), (5, &json!("elsewhere")));
}

#[test]
fn rows_can_carry_what_no_version_has_yet() {
    let mut scenario = Scenario::named("everyday");
    scenario.models[0].more.insert("engineConfigFileEnabled".into(), json!(true));
    scenario.loaded[0].more.insert("contextLength".into(), json!("16384"));
    let stand_in = StandIn::start(scenario);
    let row = Socket::guest(stand_in.internal_port, "llm").ask("listLoaded").unwrap()["result"][0].take();
    assert_eq!(row["engineConfigFileEnabled"], true);
    assert_eq!(row["contextLength"], "16384");
}

#[test]
fn unloading_over_rest_unloads_and_says_so() {
    let stand_in = StandIn::start(Scenario::named("many-loaded"));
    let unload = |body: &str| request(stand_in.user_port, "POST", "/api/v1/models/unload", "", body);
    let done = unload(r#"{ "instance_id": "qwen3-8b:2" }"#);
    assert_eq!((done.status, done.json()), (200, json!({ "instance_id": "qwen3-8b:2" })));
    assert!(!stand_in.scenario().loaded.iter().any(|instance| instance.identifier == "qwen3-8b:2"));
    assert_eq!(unload(r#"{ "instance_id": "qwen3-8b:2" }"#).status, 404);
    assert_eq!(unload("{}").status, 400);
}

#[test]
fn unloading_over_the_websocket_wants_the_right_device() {
    let stand_in = StandIn::start(Scenario::named("many-loaded"));
    let mut socket = Socket::guest(stand_in.internal_port, "llm");
    let wrong = json!({ "identifier": "qwen3-8b", "deviceIdentifier": "elsewhere" });
    assert_eq!(
        socket.call("unloadModel", &wrong).unwrap()["error"]["displayData"]["code"],
        "generic.identifierNotFound"
    );
    let right = json!({ "identifier": "qwen3-8b", "deviceIdentifier": null });
    assert_eq!(socket.call("unloadModel", &right).unwrap(), json!({ "type": "rpcResult", "callId": 7 }));
    let gone = json!({ "specifier": by_identifier("qwen3-8b"), "throwIfNotFound": false });
    assert_eq!(socket.call("getModelInfo", &gone).unwrap(), json!({ "type": "rpcResult", "callId": 7 }));
}
