//! Files, ports, the record and the orders.

use std::fs;
use std::process::{Command, Stdio};

use lmstudio_stand_in::control::Order;
use lmstudio_stand_in::{DEAD_PID, Nature};

use super::*;

fn file(stand_in: &StandIn, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(stand_in.home.join(name)).unwrap()).unwrap()
}

#[test]
fn the_files_say_where_it_listens() {
    let stand_in = StandIn::start(Scenario::named("everyday"));
    let own = json!({ "host": "127.0.0.1", "pid": std::process::id(), "port": stand_in.internal_port });
    assert_eq!(file(&stand_in, ".internal/http-server.json"), own);
    let config = file(&stand_in, ".internal/http-server-config.json");
    assert_eq!((&config["port"], &config["networkInterface"]), (&json!(stand_in.user_port), &json!("127.0.0.1")));
    assert_eq!(file(&stand_in, ".internal/backend-preferences-v1.json")[0]["model_format"], "gguf");
    assert_eq!(file(&stand_in, "settings.json")["downloadsFolder"], json!(stand_in.home.join("models")));
    let home = stand_in.home.clone();
    drop(stand_in);
    assert!(!home.exists());
}

#[test]
fn a_crash_leaves_the_files_and_a_restart_writes_them_anew() {
    let mut stand_in = StandIn::start(Scenario::named("everyday"));
    let before = (stand_in.internal_port, stand_in.user_port);
    let mut socket = Socket::guest(before.0, "llm");
    stand_in.stop();
    assert_eq!(socket.ask("listLoaded"), None);
    for port in [before.0, before.1] {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    }
    assert_eq!(file(&stand_in, ".internal/http-server.json")["port"], before.0);
    stand_in.write_http_server(DEAD_PID, before.0);
    assert_eq!(file(&stand_in, ".internal/http-server.json")["pid"], DEAD_PID);

    // Something else has taken the port in the meantime.
    let _taken = std::net::TcpListener::bind(("127.0.0.1", before.0)).unwrap();
    stand_in.restart();
    assert_ne!(stand_in.internal_port, before.0);
    assert_eq!(file(&stand_in, ".internal/http-server.json")["port"], stand_in.internal_port);
    let loaded = Socket::guest(stand_in.internal_port, "llm").ask("listLoaded").unwrap();
    assert_eq!(loaded["result"], json!([]));
    stand_in.quit();
    assert!(!stand_in.home.join(".internal/http-server.json").exists());
}

#[test]
fn a_file_can_be_cut_in_its_middle() {
    let stand_in = StandIn::start(Scenario::named("everyday"));
    stand_in.cut(".internal/http-server.json");
    let text = fs::read_to_string(stand_in.home.join(".internal/http-server.json")).unwrap();
    assert!(!text.is_empty() && serde_json::from_str::<Value>(&text).is_err());
}

#[test]
fn a_user_server_that_is_off_has_a_port_that_nobody_answers() {
    let mut scenario = Scenario::named("everyday");
    scenario.user_server = false;
    let mut stand_in = StandIn::start(scenario);
    assert_eq!(file(&stand_in, ".internal/http-server-config.json")["port"], stand_in.user_port);
    assert!(TcpStream::connect(("127.0.0.1", stand_in.user_port)).is_err());
    stand_in.switch_user_server(true);
    assert_eq!(get(stand_in.user_port, "/lmstudio-greeting").status, 200);
}

#[test]
fn the_record_tells_reading_from_unloading_from_loading() {
    let stand_in = StandIn::start(Scenario::named("everyday"));
    get(stand_in.user_port, "/api/v1/models");
    request(stand_in.user_port, "POST", "/api/v1/models/load", "", r#"{"model":"qwen3-8b"}"#);
    request(stand_in.user_port, "POST", "/v1/chat/completions", "", "{}");
    let mut socket = Socket::guest(stand_in.internal_port, "llm");
    socket.ask("listLoaded");
    socket.send(&json!({ "type": "keepAlive" }));
    assert_eq!(socket.next().unwrap(), json!({ "type": "keepAliveAck" }));
    for endpoint in ["loadModel", "getOrLoad", "predict"] {
        socket.send(&json!({ "type": "channelCreate", "endpoint": endpoint, "channelId": 3, "creationParameter": {} }));
        assert_eq!(socket.next().unwrap()["type"], "channelError");
    }
    socket.call("unloadModel", &json!({ "identifier": "qwen3-8b" }));
    socket.call("tokenize", &json!({}));
    let _ = raw(stand_in.internal_port, "hello?\r\n\r\n");
    let told: Vec<(String, Nature)> = stand_in.calls().iter().map(|call| (call.to_string(), call.nature)).collect();
    let wanted = [
        ("user GET /api/v1/models", Nature::Reads),
        ("user POST /api/v1/models/load", Nature::Forbidden),
        ("user POST /v1/chat/completions", Nature::Forbidden),
        ("internal WS /llm", Nature::Reads),
        ("internal AUTH /llm", Nature::Reads),
        ("internal RPC llm.listLoaded", Nature::Reads),
        ("internal KEEPALIVE llm.", Nature::Reads),
        ("internal CHANNEL llm.loadModel", Nature::Forbidden),
        ("internal CHANNEL llm.getOrLoad", Nature::Forbidden),
        ("internal CHANNEL llm.predict", Nature::Forbidden),
        ("internal RPC llm.unloadModel", Nature::Unloads),
        ("internal RPC llm.tokenize", Nature::Forbidden),
        ("internal BYTES ", Nature::Forbidden),
    ];
    assert_eq!(told, wanted.map(|(call, nature)| (call.to_owned(), nature)));
    assert_eq!(stand_in.calls()[1].parameter, json!({ "model": "qwen3-8b" }));
    assert_eq!(stand_in.not_reading().len(), 8);
    assert_eq!(stand_in.connections(), 5);
    assert!(stand_in.sent() > 1_000);
    stand_in.forget();
    assert_eq!((stand_in.calls(), stand_in.connections()), (Vec::new(), 0));
}

#[test]
fn a_second_instance_is_numbered_and_a_state_can_change() {
    let mut stand_in = StandIn::start(Scenario::named("everyday"));
    let instance = json!({ "modelKey": "qwen3-8b", "contextLength": 2_048 });
    let load: Order = serde_json::from_value(json!({ "do": "load", "instance": instance })).unwrap();
    assert_eq!(stand_in.obey(load.clone()), json!({ "identifier": "qwen3-8b:2" }));
    assert_eq!(stand_in.obey(load), json!({ "identifier": "qwen3-8b:3" }));
    let state = json!({ "do": "state", "identifier": "qwen3-8b:2", "status": "generating", "queued": 2 });
    stand_in.obey(serde_json::from_value(state).unwrap());
    let parameter = json!({ "specifier": by_identifier("qwen3-8b:2"), "throwIfNotFound": true });
    let told = Socket::guest(stand_in.internal_port, "llm").call("getInstanceProcessingState", &parameter).unwrap();
    assert_eq!(told["result"], json!({ "status": "generating", "queued": 2 }));
}

#[test]
fn the_program_takes_orders_a_line_each_and_ends_with_its_input() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lmstudio-stand-in"))
        .args(["--scenario", "nothing-loaded", "--version", "0.3.10"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let orders = [
        json!({ "do": "load", "instance": { "modelKey": "qwen3-8b", "contextLength": 4_096 } }),
        json!({ "do": "fault", "on": "* * *", "trouble": "delay", "ms": 1, "times": 3 }),
        json!({ "do": "nonsense" }),
        json!({ "do": "scenario" }),
        json!({ "do": "calls" }),
    ];
    let mut input = child.stdin.take().unwrap();
    for order in orders {
        writeln!(input, "{order}").unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    assert!(lines[0]["internal_port"].is_u64() && lines[0]["user_port"].is_u64());
    assert_eq!(lines[1], json!({ "identifier": "qwen3-8b" }));
    assert!(lines[3]["error"].as_str().unwrap().contains("nonsense"));
    assert_eq!((&lines[4]["version"], &lines[4]["loaded"][0]["contextLength"]), (&json!("0.3.10"), &json!(4_096)));
    assert_eq!(lines[5]["calls"], json!([]));
}
