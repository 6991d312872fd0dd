//! What goes wrong, and that it goes wrong as it is told.

use std::time::Instant;

use lmstudio_stand_in::{Fault, Trouble};

use super::*;

const STATUS: &str = "GET /lms-status HTTP/1.1\r\nHost: x\r\n\r\n";

/// Returns what comes of a request that something goes wrong with.
fn with(trouble: Trouble) -> (Vec<u8>, Ended) {
    let stand_in = StandIn::start(Scenario::named("everyday"));
    stand_in.fault("internal GET /lms-status", trouble);
    raw(stand_in.internal_port, STATUS)
}

#[test]
fn each_fault_of_http_does_what_it_says() {
    assert_eq!(with(Trouble::Hang), (Vec::new(), Ended::Open));
    assert_eq!(with(Trouble::Close), (Vec::new(), Ended::Closed));
    assert_eq!(with(Trouble::Reset), (Vec::new(), Ended::Reset));
    let body_of = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    };
    for (trouble, end) in [(Trouble::Half, Ended::Closed), (Trouble::HalfThenHang, Ended::Open)] {
        let (bytes, ended) = with(trouble);
        assert_eq!((body_of(&bytes).unwrap().as_str(), ended), (r#"{"package":"lmstudio"#, end));
    }
    let (garbage, ended) = with(Trouble::Garbage);
    assert_eq!((garbage.len(), ended), (1_024, Ended::Closed));
    assert!(!garbage.starts_with(b"HTTP"));
    let (padded, _) = with(Trouble::Padded { bytes: 1_000_000 });
    assert_eq!(body_of(&padded).unwrap().len(), 1_000_000);
    let (endless, _) = with(Trouble::Endless);
    assert!(endless.len() > 4_000_000);
    let (answer, _) = with(Trouble::Answer { status: 404, body: "<html>".into() });
    assert!(answer.starts_with(b"HTTP/1.1 404 ") && answer.ends_with(b"\r\n\r\n<html>"));
    let (redirect, _) = with(Trouble::Redirect { to: "http://127.0.0.1:9/x".into() });
    assert!(
        String::from_utf8(redirect)
            .unwrap()
            .contains("302 Found\r\nX-Powered-By: Express\r\nLocation: http://127.0.0.1:9/x\r\n")
    );
    assert_eq!(
        with(Trouble::Raw { text: "SSH-2.0-OpenSSH\r\n".into() }),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), Ended::Closed)
    );
    let (error, _) = with(Trouble::Error { title: "no".into() });
    assert!(error.starts_with(b"HTTP/1.1 500 ") && error.ends_with(br#"{"error":"no"}"#));
    let (astray, _) = with(Trouble::Astray);
    assert!(astray.starts_with(b"HTTP/1.1 103 ") && String::from_utf8(astray).unwrap().contains("lmstudio"));
}

#[test]
fn a_late_answer_is_right_and_late() {
    let stand_in = StandIn::start(Scenario::named("everyday"));
    stand_in.fault("* * *", Trouble::Delay { ms: 120 });
    let began = Instant::now();
    assert_eq!(get(stand_in.user_port, "/lmstudio-greeting").json(), json!({ "lmstudio": true }));
    assert!(began.elapsed() >= Duration::from_millis(120));
    let began = Instant::now();
    let mut socket = Socket::guest(stand_in.internal_port, "system");
    assert!(began.elapsed() >= Duration::from_millis(240), "the handshake and the first frame");
    assert_eq!(socket.ask("version").unwrap()["result"]["version"], "0.4.25");
}

#[test]
fn one_late_call_does_not_hold_up_the_next() {
    let stand_in = StandIn::start(Scenario::named("everyday"));
    stand_in.fault("internal RPC llm.listLoaded", Trouble::Delay { ms: 100 });
    let mut socket = Socket::guest(stand_in.internal_port, "llm");
    socket.send(&json!({ "type": "rpcCall", "endpoint": "listLoaded", "callId": 1 }));
    let parameter = json!({ "specifier": by_identifier("qwen3-8b") });
    assert!(socket.call("getLoadConfig", &parameter).unwrap()["result"]["fields"].is_array());
    assert_eq!(socket.next().unwrap()["callId"], 1);
    assert_eq!(stand_in.heard().iter().filter(|call| call.ends_with("llm.listLoaded")).count(), 1);
}

#[test]
fn a_fault_happens_as_often_as_it_is_told_and_ends_when_it_is_mended() {
    let stand_in = StandIn::start(Scenario::named("everyday"));
    stand_in.add_fault(Fault::new("user GET /api/*", Trouble::Close).times(2));
    let greeting = || raw(stand_in.user_port, "GET /api/v0/models HTTP/1.1\r\nConnection: close\r\n\r\n").0.len();
    assert_eq!((greeting(), greeting()), (0, 0));
    assert!(greeting() > 0);
    stand_in.fault("user GET /api/v0/models", Trouble::Close);
    assert_eq!(greeting(), 0);
    stand_in.mend();
    assert!(greeting() > 0);
}

#[test]
fn each_fault_of_the_websocket_does_what_it_says() {
    let after = |trouble: Trouble| {
        let stand_in = StandIn::start(Scenario::named("everyday"));
        stand_in.fault("internal RPC system.version", trouble);
        let mut socket = Socket::guest(stand_in.internal_port, "system");
        socket.send(&json!({ "type": "rpcCall", "endpoint": "version", "callId": 7 }));
        let texts: Vec<String> = (0..3).map_while(|_| socket.text()).collect();
        let is_open = socket.ask("info").is_some();
        (texts, is_open)
    };
    let right = r#"{"callId":7,"result":{"build":1,"version":"0.4.25"},"type":"rpcResult"}"#;
    let frame = |text: &str| vec![text.to_owned()];
    let nothing = Vec::<String>::new;
    assert_eq!(after(Trouble::Hang), (nothing(), true));
    assert_eq!(after(Trouble::Reset), (nothing(), false));
    assert_eq!(after(Trouble::Close), (nothing(), false));
    assert_eq!(after(Trouble::Half), (nothing(), false));
    assert_eq!(after(Trouble::HalfThenHang).0, nothing());
    assert_eq!(after(Trouble::Raw { text: "?".into() }), (frame("?"), true));
    assert_eq!(
        after(Trouble::Answer { status: 200, body: json!([]) }).0,
        frame(r#"{"callId":7,"result":[],"type":"rpcResult"}"#)
    );
    let (error, _) = after(Trouble::Error { title: "no".into() });
    assert_eq!(error, frame(r#"{"callId":7,"error":{"rootTitle":"no","title":"no"},"type":"rpcError"}"#));
    let (astray, is_open) = after(Trouble::Astray);
    assert_eq!((astray[1].as_str(), is_open), (right, true));
    assert!(astray[0].contains("987654321"));
    let (garbage, _) = after(Trouble::Garbage);
    assert_eq!((garbage.len(), garbage[1].as_str()), (2, "[null]"));
    let (padded, _) = after(Trouble::Padded { bytes: 2_000_000 });
    let padded = padded[0].as_str();
    assert_eq!((padded.len(), padded.trim_end()), (2_000_000, right));
    let (endless, _) = after(Trouble::Endless);
    assert!(endless.len() == 3 && endless.iter().all(|text| text.contains("channelSend")));
}

#[test]
fn a_spoilt_answer_does_not_undo_the_work_and_an_error_means_that_none_was_done() {
    for (trouble, is_done) in
        [(Trouble::Hang, true), (Trouble::Half, true), (Trouble::Error { title: "no".into() }, false)]
    {
        let stand_in = StandIn::start(Scenario::named("everyday"));
        stand_in.fault("internal RPC llm.unloadModel", trouble.clone());
        Socket::guest(stand_in.internal_port, "llm").call("unloadModel", &json!({ "identifier": "qwen3-8b" }));
        assert_eq!(stand_in.scenario().loaded.is_empty(), is_done, "{trouble:?}");
        let stand_in = StandIn::start(Scenario::named("everyday"));
        stand_in.fault("user POST *", trouble.clone());
        let body = r#"{"instance_id":"qwen3-8b"}"#;
        let length = body.len();
        raw(
            stand_in.user_port,
            &format!("POST /api/v1/models/unload HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"),
        );
        assert_eq!(stand_in.scenario().loaded.is_empty(), is_done, "{trouble:?}");
    }
}

#[test]
fn the_handshake_and_the_first_frame_can_fail_too() {
    let stand_in = StandIn::start(Scenario::named("everyday"));
    stand_in.fault("internal AUTH /llm", Trouble::Hang);
    assert_eq!(Socket::open(stand_in.internal_port, "llm", "guest:x", "y").next(), None);
    stand_in.mend();
    stand_in.fault("internal AUTH *", Trouble::Error { title: "no".into() });
    let refused = Socket::open(stand_in.internal_port, "llm", "guest:x", "y").next().unwrap();
    assert_eq!(refused, json!({ "success": false, "error": "no" }));

    let upgrade = "GET /llm HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let (accepted, ended) = raw(stand_in.internal_port, upgrade);
    assert_eq!(ended, Ended::Open);
    assert!(String::from_utf8(accepted).unwrap().contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    stand_in.fault("internal WS *", Trouble::Hang);
    assert_eq!(raw(stand_in.internal_port, upgrade), (Vec::new(), Ended::Open));
    stand_in.mend();
    let nowhere = upgrade.replace("/llm", "/nowhere");
    assert_eq!(raw(stand_in.internal_port, &nowhere), (Vec::new(), Ended::Open), "nobody answers there");
}

#[test]
fn a_foreign_program_answers_all_and_is_on_record_all_the_same() {
    let stand_in = StandIn::start(Scenario::named("everyday").with_token(TOKEN));
    stand_in.foreign(Port::User, "Ollama is running");
    let headers = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(request(stand_in.user_port, "GET", "/api/v1/models", &headers, "").body, "Ollama is running");
    let heard = stand_in.calls();
    assert_eq!(heard[0].authorization, lmstudio_stand_in::Authorization::Right, "a token went to a stranger");
    assert_eq!(get(stand_in.internal_port, "/lms-status").json()["package"], "lmstudio");
}
