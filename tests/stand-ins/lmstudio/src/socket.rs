//! The websocket: one socket a namespace, a first frame that says who it is, then calls.
//!
//! What a call of an unknown endpoint or with a parameter of another shape gets is a
//! `communicationWarning`, and never an answer: so does LM Studio.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::Shared;
use crate::faults::Trouble;
use crate::http::{call, hang, padded, reset, write};
use crate::record::{Authorization, Port};
use crate::world::error;

const NAMESPACES: [&str; 8] =
    ["llm", "embedding", "system", "diagnostics", "files", "repository", "plugins", "runtime"];

/// So long the first frame is waited for.
const AUTHENTICATION: Duration = Duration::from_secs(10);

/// More warnings than these are not sent on a connection.
const WARNINGS: u32 = 5;

/// One connection of a namespace.
struct Connection {
    stream: WebSocketStream<TcpStream>,
    port: Port,
    namespace: String,
    shared: Arc<Shared>,
    authorization: Authorization,
    warnings: u32,
    /// Frames that are answered late come in again here.
    late: mpsc::UnboundedSender<Value>,
}

/// Serves a websocket until either side ends it.
pub(crate) async fn serve(
    mut stream: TcpStream,
    rest: Vec<u8>,
    port: Port,
    namespace: &str,
    key: &str,
    shared: Arc<Shared>,
) {
    if !NAMESPACES.contains(&namespace) {
        return hang(&mut stream).await;
    }
    let accept = derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    if !write(&mut stream, &shared, head.as_bytes()).await {
        return;
    }
    let stream = WebSocketStream::from_partially_read(stream, rest, Role::Server, None).await;
    let (late, mut again) = mpsc::unbounded_channel();
    let namespace = namespace.to_owned();
    let mut connection =
        Connection { stream, port, namespace, shared, authorization: Authorization::Absent, warnings: 0, late };
    let Some(identifier) = connection.authenticate().await else { return };
    let mut goes_on = true;
    while goes_on {
        goes_on = tokio::select! {
            message = connection.stream.next() => match message {
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                    Ok(frame) => connection.receive(&frame, true).await,
                    // LM Studio passes over what is no JSON, too.
                    Err(_) => true,
                },
                Some(Ok(Message::Close(_)) | Err(_)) | None => false,
                Some(Ok(_)) => true,
            },
            Some(frame) = again.recv() => connection.receive(&frame, false).await,
        };
    }
    connection.shared.leave(&identifier);
}

impl Connection {
    /// Waits for the first frame and answers it; returns who it is where that may go on.
    async fn authenticate(&mut self) -> Option<String> {
        let deadline = Instant::now() + AUTHENTICATION;
        let (identifier, passkey) = loop {
            let message = match timeout_at(deadline, self.stream.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => text,
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_)))) => continue,
                Ok(_) => return None,
                Err(_) => {
                    self.refuse("Authentication timed out").await;
                    return None;
                }
            };
            // Anything else is passed over, as LM Studio does.
            let Ok(frame) = serde_json::from_str::<Value>(&message) else { continue };
            let (identifier, passkey) = (frame["clientIdentifier"].as_str(), frame["clientPasskey"].as_str());
            if let (Some(1), Some(identifier), Some(passkey)) = (frame["authVersion"].as_u64(), identifier, passkey) {
                break (identifier.to_owned(), passkey.to_owned());
            }
        };
        let is_token_like = identifier.len() == 8 && identifier.chars().all(|letter| letter.is_ascii_alphanumeric());
        let is_wanted = {
            let world = self.shared.world();
            self.authorization = match world.scenario.token_halves() {
                Some(halves) if halves == (identifier.as_str(), passkey.as_str()) => Authorization::Right,
                _ if is_token_like => Authorization::Wrong,
                _ => Authorization::Absent,
            };
            world.scenario.requires_token && (self.port == Port::User || world.scenario.guards_internal)
        };
        let path = format!("/{}", self.namespace);
        let who = json!({ "clientIdentifier": identifier });
        self.shared.note(call(self.port, "AUTH", &path, who, self.authorization));
        let right = json!({ "success": true });
        match self.shared.trouble(self.port, "AUTH", &path) {
            None => {}
            Some(Trouble::Delay { ms }) => sleep(Duration::from_millis(ms)).await,
            Some(Trouble::Error { title }) => {
                self.refuse(&title).await;
                return None;
            }
            Some(trouble) => {
                if !self.misbehave(trouble, &right).await {
                    return None;
                }
                return Some(identifier);
            }
        }
        if is_wanted && self.authorization != Authorization::Right {
            let reason = match self.authorization {
                Authorization::Absent => "An LM Studio API token is required to connect to this server.",
                _ => "Invalid LM Studio API token.",
            };
            self.refuse(reason).await;
            return None;
        }
        if !self.shared.enter(&identifier, &passkey) {
            let reason = format!("Failed to validate client: Invalid client passkey for client \"{identifier}\"");
            self.refuse(&reason).await;
            return None;
        }
        self.send(&right).await.then_some(identifier)
    }

    async fn refuse(&mut self, reason: &str) {
        self.send(&json!({ "success": false, "error": reason })).await;
        let _ = self.stream.close(None).await;
    }

    /// Answers a frame; tells whether the connection goes on.
    async fn receive(&mut self, frame: &Value, is_new: bool) -> bool {
        let endpoint = frame["endpoint"].as_str().unwrap_or_default();
        let name = format!("{}.{endpoint}", self.namespace);
        let (kind, parameter) = match frame["type"].as_str().unwrap_or_default() {
            "rpcCall" => ("RPC", &frame["parameter"]),
            "channelCreate" => ("CHANNEL", &frame["creationParameter"]),
            "signalSubscribe" | "writableSignalSubscribe" => ("SIGNAL", &frame["creationParameter"]),
            "keepAlive" => ("KEEPALIVE", &Value::Null),
            // The further life of what is on record.
            "channelSend" | "channelAck" | "signalUnsubscribe" | "writableSignalUnsubscribe" => return true,
            _ => ("FRAME", frame),
        };
        if is_new {
            self.shared.note(call(self.port, kind, &name, parameter.clone(), self.authorization));
        }
        let trouble = if is_new { self.shared.trouble(self.port, kind, &name) } else { None };
        if let Some(Trouble::Delay { ms }) = trouble {
            let (late, frame) = (self.late.clone(), frame.clone());
            tokio::spawn(async move {
                sleep(Duration::from_millis(ms)).await;
                // Nobody may be left to answer to.
                let _ = late.send(frame);
            });
            return true;
        }
        let right = match kind {
            _ if trouble.as_ref().is_some_and(Trouble::leaves_undone) => None,
            "RPC" => self.answer(endpoint, frame),
            "CHANNEL" if name == "system.alive" => None,
            "CHANNEL" => {
                let error = error("The stand-in neither loads nor infers: this call is a violation.", &Value::Null);
                Some(json!({ "type": "channelError", "channelId": frame["channelId"], "error": error }))
            }
            "SIGNAL" => {
                let warning = format!("Received signalSubscribe for unknown endpoint, endpoint = {endpoint}");
                self.warning(&warning, "signalEndpointUnknown")
            }
            "KEEPALIVE" => Some(json!({ "type": "keepAliveAck" })),
            _ => None,
        };
        match (trouble, right) {
            (Some(Trouble::Answer { body, .. }), _) => {
                self.send(&json!({ "type": "rpcResult", "callId": frame["callId"], "result": body })).await
            }
            (Some(Trouble::Error { title }), _) => {
                let error = error(&title, &Value::Null);
                self.send(&json!({ "type": "rpcError", "callId": frame["callId"], "error": error })).await
            }
            (Some(trouble), right) => self.misbehave(trouble, &right.unwrap_or_default()).await,
            (None, Some(right)) => self.send(&right).await,
            (None, None) => true,
        }
    }

    /// Returns the frame that answers a call; nothing where LM Studio would keep silent.
    fn answer(&mut self, endpoint: &str, frame: &Value) -> Option<Value> {
        let id = &frame["callId"];
        if !id.is_u64() {
            return None;
        }
        if let Err(reason) = check(endpoint, frame.get("parameter")) {
            let warning = format!("Received invalid parameter for rpcCall, endpointName = {endpoint}, {reason}");
            return self.warning(&warning, "rpcParameterTypeError");
        }
        let answer = self.shared.world().answer(&self.namespace, endpoint, &frame["parameter"]);
        match answer {
            Some(Ok(Some(result))) => Some(json!({ "type": "rpcResult", "callId": id, "result": result })),
            Some(Ok(None)) => Some(json!({ "type": "rpcResult", "callId": id })),
            Some(Err(error)) => Some(json!({ "type": "rpcError", "callId": id, "error": error })),
            // Of the others it has just a few, and those that are left out on purpose.
            None if ["llm", "embedding", "system"].contains(&self.namespace.as_str()) || endpoint == "lmLinkStatus" => {
                let warning = format!("Received rpcCall for unknown endpoint, endpoint = {endpoint}");
                self.warning(&warning, "rpcEndpointUnknown")
            }
            None => {
                let error = error("The stand-in does not do this.", &Value::Null);
                Some(json!({ "type": "rpcError", "callId": id, "error": error }))
            }
        }
    }

    fn warning(&mut self, warning: &str, kind: &str) -> Option<Value> {
        self.warnings += 1;
        let frame = json!({ "type": "communicationWarning", "warning": warning, "kind": kind });
        (self.warnings <= WARNINGS).then_some(frame)
    }

    /// Does what shall go wrong; tells whether the connection goes on.
    async fn misbehave(&mut self, trouble: Trouble, right: &Value) -> bool {
        match trouble {
            Trouble::Delay { .. } | Trouble::Error { .. } => self.send(right).await,
            Trouble::Hang => true,
            Trouble::Reset => {
                reset(self.stream.get_ref());
                false
            }
            Trouble::Close => {
                let _ = self.stream.close(None).await;
                false
            }
            Trouble::Half | Trouble::HalfThenHang => {
                // A frame that announces more than comes.
                let text = right.to_string();
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                let mut bytes = vec![0x81, 127, 0, 0, 0, 0];
                bytes.extend(length.to_be_bytes());
                bytes.extend(&text.as_bytes()[..text.len() / 2]);
                let stream = self.stream.get_mut();
                let is_sent = stream.write_all(&bytes).await.is_ok();
                is_sent && trouble == Trouble::HalfThenHang
            }
            Trouble::Garbage => {
                let junk = Message::binary(vec![0xff, 0xfe, 0x00, 0x9f, 0x80]);
                self.stream.send(Message::text("}{ this is \u{0} no JSON")).await.is_ok()
                    && self.stream.send(Message::text("[null]")).await.is_ok()
                    && self.stream.send(junk).await.is_ok()
            }
            Trouble::Padded { bytes } => self.send_text(padded(right.to_string(), bytes)).await,
            Trouble::Endless => {
                let mut number = 0;
                loop {
                    number += 1;
                    let frame = json!({ "type": "channelSend", "channelId": number, "message": "x".repeat(16_384) });
                    if !self.send(&frame).await {
                        return false;
                    }
                }
            }
            Trouble::Answer { body, .. } => self.send(&body).await,
            Trouble::Redirect { to } => self.send_text(format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\n\r\n")).await,
            Trouble::Raw { text } => self.send_text(text).await,
            Trouble::Astray => {
                let astray =
                    json!({ "type": "rpcResult", "callId": 987_654_321, "result": [{ "identifier": "astray" }] });
                self.send(&astray).await && self.send(right).await
            }
        }
    }

    async fn send(&mut self, frame: &Value) -> bool {
        self.send_text(frame.to_string()).await
    }

    async fn send_text(&mut self, text: String) -> bool {
        self.shared.count(text.len());
        self.stream.send(Message::text(text)).await.is_ok()
    }
}

/// Checks a parameter against the schema of its endpoint.
fn check(endpoint: &str, parameter: Option<&Value>) -> Result<(), String> {
    let is_key = |value: &Value| {
        value
            .as_str()
            .is_some_and(|text| (1..=1_024).contains(&text.chars().count()) && !text.chars().any(char::is_control))
    };
    let is_specifier = |specifier: &Value| match specifier["type"].as_str() {
        Some("instanceReference") => specifier["instanceReference"].is_string(),
        Some("query") => {
            let query = &specifier["query"];
            let is_fine = |name: &str, is: &dyn Fn(&Value) -> bool| query.get(name).is_none_or(is);
            query.is_object()
                && is_fine("identifier", &is_key)
                && is_fine("path", &is_key)
                && is_fine("domain", &Value::is_string)
                && is_fine("vision", &Value::is_boolean)
                && is_fine("deviceIdentifier", &|value| value.is_string() || value.is_null())
        }
        _ => false,
    };
    let is_stack = |stack: &Value| {
        let is_layer = |layer: &Value| {
            let is_field = |field: &Value| field["key"].is_string();
            layer["layerName"].as_str().is_some_and(|name| LAYERS.contains(&name))
                && layer["config"]["fields"].as_array().is_some_and(|fields| fields.iter().all(is_field))
        };
        stack["layers"].as_array().is_some_and(|layers| layers.iter().all(is_layer))
    };
    let is_device = |value: Option<&Value>| value.is_none_or(|device| device.is_string() || device.is_null());
    let fails = |what: &str| Err(format!("parameter: {what}"));
    let Some(parameter) = parameter else {
        return match endpoint {
            "getModelInfo" | "getLoadConfig" | "getInstanceProcessingState" | "unloadModel" | "estimateModelUsage" => {
                fails("Required")
            }
            _ => Ok(()),
        };
    };
    match endpoint {
        "listLoaded" | "listDownloadedModels" | "version" | "info" | "lmLinkStatus" => fails("Expected undefined"),
        "getModelInfo" | "getLoadConfig" | "getInstanceProcessingState" if !is_specifier(&parameter["specifier"]) => {
            fails("specifier: Invalid input")
        }
        "getModelInfo" | "getInstanceProcessingState" if !parameter["throwIfNotFound"].is_boolean() => {
            fails("throwIfNotFound: Required")
        }
        "unloadModel" if !parameter["identifier"].is_string() => fails("identifier: Required"),
        "estimateModelUsage" if !parameter["modelKey"].is_string() => fails("modelKey: Required"),
        "estimateModelUsage" if !is_stack(&parameter["loadConfigStack"]) => fails("loadConfigStack: Invalid input"),
        "unloadModel" | "estimateModelUsage" if !is_device(parameter.get("deviceIdentifier")) => {
            fails("deviceIdentifier: Invalid input")
        }
        _ => Ok(()),
    }
}

/// The layers that a stack of settings may have.
const LAYERS: [&str; 14] = [
    "currentlyEditing",
    "currentlyLoaded",
    "apiOverride",
    "conversationSpecific",
    "conversationGlobal",
    "preset",
    "serverSession",
    "httpServerRequestOverride",
    "completeModeFormatting",
    "instance",
    "userModelDefault",
    "virtualModel",
    "modelDefault",
    "hardware",
];
