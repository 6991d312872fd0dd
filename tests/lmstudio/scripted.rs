//! A small scripted LM Studio: one port that speaks HTTP and the websocket, and notes every call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

/// What is done about a request or a call.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Json(Value),
    /// These bytes instead of an answer.
    Raw(Vec<u8>),
    After(Duration, Value),
    Hang,
    HangUp,
    /// A call that fails.
    Error(Value),
    /// An endpoint that is not known.
    Unknown,
}

/// What the server does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// By path, with the status that goes with it.
    pub(crate) http: BTreeMap<&'static str, Act>,
    /// By `namespace.endpoint`.
    pub(crate) calls: BTreeMap<String, Act>,
    /// What is done once a websocket is open, before it authenticates.
    pub(crate) greets: Option<Act>,
    /// No websocket is offered.
    pub(crate) has_no_socket: bool,
    /// The token that is wanted.
    pub(crate) token: Option<&'static str>,
}

impl Script {
    pub(crate) fn http(mut self, path: &'static str, act: Act) -> Script {
        self.http.insert(path, act);
        self
    }

    pub(crate) fn call(mut self, name: &str, act: Act) -> Script {
        self.calls.insert(name.into(), act);
        self
    }
}

/// A running server; it ends when it is dropped.
pub(crate) struct Scripted {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    serving: tokio::task::JoinHandle<()>,
}

struct Shared {
    script: Mutex<Script>,
    heard: Mutex<Vec<String>>,
    clients: Mutex<Vec<Value>>,
}

impl Scripted {
    pub(crate) async fn start(script: Script) -> Scripted {
        Scripted::start_at("127.0.0.1", script).await
    }

    pub(crate) async fn start_at(address: &str, script: Script) -> Scripted {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared =
            Arc::new(Shared { script: Mutex::new(script), heard: Mutex::default(), clients: Mutex::default() });
        let served = Arc::clone(&shared);
        let serving = tokio::spawn(async move {
            // They end with the server.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&served);
                connections.spawn(async move { shared.serve(stream).await });
            }
        });
        Scripted { port, shared, serving }
    }

    /// Changes what the server does from now on.
    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.shared.script.lock().unwrap()
    }

    /// Returns what was asked since the last time.
    pub(crate) fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.heard.lock().unwrap())
    }

    /// Returns the first frames of all websockets.
    pub(crate) fn clients(&self) -> Vec<Value> {
        self.shared.clients.lock().unwrap().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    async fn serve(&self, mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut head = [0; 4_096];
        let head = loop {
            // Left where it is: the websocket's handshake wants to read it itself.
            let Ok(length @ 1..) = stream.peek(&mut head).await else { return };
            let text = String::from_utf8_lossy(&head[..length]).into_owned();
            if text.contains("\r\n\r\n") {
                break text;
            }
        };
        let mut words = head.split_whitespace();
        let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        if head.to_ascii_lowercase().contains("upgrade: websocket") && !self.script.lock().unwrap().has_no_socket {
            self.converse(stream, path.trim_start_matches('/')).await;
            return;
        }
        let mut bytes = vec![0; 8_192];
        let _ = stream.read(&mut bytes).await;
        self.heard.lock().unwrap().push(format!("{method} {path}"));
        let script = self.script.lock().unwrap().clone();
        let is_let_in = script.token.is_none_or(|token| {
            head.to_ascii_lowercase().contains(&format!("authorization: bearer {token}").to_ascii_lowercase())
        });
        let refused = json!({ "error": { "type": "invalid_request", "code": "invalid_api_key", "message": "no" } });
        let act = match script.http.get(path.as_str()) {
            Some(_) if path.starts_with("/api") && !is_let_in => Act::Json(refused),
            Some(act) => act.clone(),
            None => Act::Json(json!({ "error": format!("Unexpected endpoint or method. ({method} {path})") })),
        };
        let body = match act {
            Act::Json(body) | Act::Error(body) => body,
            Act::After(span, body) => {
                tokio::time::sleep(span).await;
                body
            }
            Act::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Act::Hang => std::future::pending().await,
            Act::HangUp | Act::Unknown => return,
        };
        let _ = stream.write_all(&http(&body.to_string())).await;
    }

    async fn converse(&self, stream: TcpStream, namespace: &str) {
        let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
        let greets = self.script.lock().unwrap().greets.clone();
        let Some(Ok(Message::Text(first))) = socket.next().await else { return };
        let client: Value = serde_json::from_str(&first).unwrap();
        self.clients.lock().unwrap().push(client.clone());
        let token = self.script.lock().unwrap().token;
        let given = format!("sk-lm-{}:{}", client["clientIdentifier"], client["clientPasskey"]).replace('"', "");
        let answer = match greets {
            Some(Act::Hang) => std::future::pending().await,
            Some(Act::HangUp) => return,
            Some(Act::Json(answer)) => answer,
            Some(Act::Raw(bytes)) => {
                let _ = socket.get_mut().write_all(&bytes).await;
                return;
            }
            _ if token.is_none_or(|token| token == given) => json!({ "success": true }),
            _ => json!({ "success": false, "error": "Invalid passkey" }),
        };
        if socket.send(Message::text(answer.to_string())).await.is_err() {
            return;
        }
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(frame["type"], "rpcCall");
            let name = format!("{namespace}.{}", frame["endpoint"].as_str().unwrap());
            self.heard.lock().unwrap().push(name.clone());
            let act = self.script.lock().unwrap().calls.get(&name).cloned().unwrap_or(Act::Unknown);
            let answer = match act {
                Act::Json(result) => json!({ "type": "rpcResult", "callId": frame["callId"], "result": result }),
                Act::After(span, result) => {
                    tokio::time::sleep(span).await;
                    json!({ "type": "rpcResult", "callId": frame["callId"], "result": result })
                }
                Act::Error(error) => json!({ "type": "rpcError", "callId": frame["callId"], "error": error }),
                Act::Unknown => {
                    let warning = format!("Received rpcCall for unknown endpoint, endpoint = {}", frame["endpoint"]);
                    json!({ "type": "communicationWarning", "warning": warning })
                }
                Act::Raw(bytes) => {
                    let _ = socket.send(Message::text(String::from_utf8(bytes).unwrap())).await;
                    continue;
                }
                Act::Hang => std::future::pending().await,
                Act::HangUp => return,
            };
            // Something that nobody waits for comes first.
            let _ = socket.send(Message::text(r#"{"type":"keepAliveAck"}"#)).await;
            if socket.send(Message::text(answer.to_string())).await.is_err() {
                return;
            }
        }
    }
}

/// Returns a whole answer with a body. The status is one that a client must not look at.
pub(crate) fn http(body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json; charset=utf-8\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
