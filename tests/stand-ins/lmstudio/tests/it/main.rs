//! The stand-in held against the example payloads, and its faults against what they promise.
//!
//! The clients here are as plain as can be: what a real client makes of it is shown by the official
//! SDKs (`tests/run sdk`).

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use lmstudio_stand_in::{Instance, Model, Port, Scenario, StandIn};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

mod answers;
mod faults;
mod running;

/// Long enough for what comes, short enough to wait for what does not.
const PATIENCE: Duration = Duration::from_millis(300);

const TOKEN: &str = "sk-lm-Ab3dEf7h:0123456789abcdefghij";

/// An answer over HTTP.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends a request and returns all that comes until the end, or until nothing comes any more.
fn raw(port: u16, request: &str) -> (Vec<u8>, Ended) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 8_192];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (bytes, Ended::Closed),
            Ok(count) => bytes.extend(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (bytes, Ended::Reset),
            Err(_) => return (bytes, Ended::Open),
        }
        if bytes.len() > 4_000_000 {
            return (bytes, Ended::Open);
        }
    }
}

/// How a connection was left.
#[derive(Debug, PartialEq)]
enum Ended {
    Closed,
    Reset,
    Open,
}

fn request(port: u16, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    let (bytes, ended) = raw(port, &request);
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(ended, Ended::Closed, "{text}");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, body: body.to_owned() }
}

fn get(port: u16, path: &str) -> Answer {
    request(port, "GET", path, "", "")
}

/// A websocket of one namespace.
struct Socket(WebSocket<TcpStream>);

impl Socket {
    /// Opens one and sends the first frame.
    fn open(port: u16, namespace: &str, identifier: &str, passkey: &str) -> Socket {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = client(format!("ws://127.0.0.1:{port}/{namespace}"), stream).unwrap();
        let mut socket = Socket(socket);
        socket.send(&json!({ "authVersion": 1, "clientIdentifier": identifier, "clientPasskey": passkey }));
        socket
    }

    /// Opens one as a guest.
    fn guest(port: u16, namespace: &str) -> Socket {
        let mut socket = Socket::open(port, namespace, "guest:test", "test");
        assert_eq!(socket.next().unwrap(), json!({ "success": true }));
        socket
    }

    fn send(&mut self, frame: &Value) {
        // One that the other side has closed shows in what does not come.
        let _ = self.0.send(Message::text(frame.to_string()));
    }

    /// Returns the next frame; nothing where none comes.
    fn next(&mut self) -> Option<Value> {
        serde_json::from_str(&self.text()?).ok()
    }

    fn text(&mut self) -> Option<String> {
        match self.0.read() {
            Ok(Message::Text(text)) => Some(text.as_str().to_owned()),
            _ => None,
        }
    }

    fn call(&mut self, endpoint: &str, parameter: &Value) -> Option<Value> {
        self.send(&json!({ "type": "rpcCall", "endpoint": endpoint, "callId": 7, "parameter": parameter }));
        self.next()
    }

    /// Calls without a parameter.
    fn ask(&mut self, endpoint: &str) -> Option<Value> {
        self.send(&json!({ "type": "rpcCall", "endpoint": endpoint, "callId": 7 }));
        self.next()
    }
}

fn payload(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/lmstudio").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn by_identifier(identifier: &str) -> Value {
    json!({ "type": "query", "query": { "identifier": identifier } })
}
