//! The HTTP side of both servers, written by hand so that every byte of it can go wrong on purpose.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::Shared;
use crate::faults::Trouble;
use crate::record::{Authorization, Call, Port, nature};
use crate::socket;

/// An idle connection is closed after so long, as Node's server does.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const HEAD_LIMIT: usize = 16 * 1_024;
const BODY_LIMIT: usize = 1_024 * 1_024;

/// A request as it came in.
struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What an answer says.
struct Response {
    status: u16,
    body: String,
    location: Option<String>,
}

/// Serves a connection until either side ends it.
pub(crate) async fn serve(mut stream: TcpStream, port: Port, shared: Arc<Shared>) {
    let mut buffer = Vec::new();
    loop {
        let request = match read(&mut stream, &mut buffer).await {
            Some(Ok(request)) => request,
            Some(Err(bytes)) => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).into_owned();
                shared.note(call(port, "BYTES", "", json!(text), Authorization::Absent));
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
                return;
            }
            None => return,
        };
        let path = request.path.split('?').next().unwrap_or_default().to_owned();
        if let Some(key) = request.header("sec-websocket-key").filter(|_| request.is_upgrade()) {
            let authorization = request.authorization(&shared);
            shared.note(call(port, "WS", &path, Value::Null, authorization));
            let trouble = shared.trouble(port, "WS", &path);
            let key = key.to_owned();
            if let Some(Trouble::Delay { ms }) = trouble {
                sleep(Duration::from_millis(ms)).await;
            } else if let Some(trouble) = trouble {
                // What goes wrong here does so before there is a websocket.
                let response = Response { status: 404, body: String::new(), location: None };
                misbehave(&mut stream, &shared, trouble, response).await;
                return;
            }
            return socket::serve(stream, buffer, port, path.trim_start_matches('/'), &key, shared).await;
        }
        let parameter = match serde_json::from_slice(&request.body) {
            Ok(body) => body,
            Err(_) if request.body.is_empty() => Value::Null,
            Err(_) => json!(String::from_utf8_lossy(&request.body)),
        };
        let authorization = request.authorization(&shared);
        shared.note(call(port, &request.method, &path, parameter.clone(), authorization));
        let trouble = shared.trouble(port, &request.method, &path);
        if let Some(Trouble::Delay { ms }) = trouble {
            sleep(Duration::from_millis(ms)).await;
        }
        let response = if trouble.as_ref().is_some_and(Trouble::leaves_undone) {
            json(200, &Value::Null)
        } else {
            route(port, &request.method, &path, &parameter, authorization, &shared)
        };
        let goes_on = match trouble {
            None | Some(Trouble::Delay { .. }) => send(&mut stream, &shared, &response).await,
            Some(trouble) => misbehave(&mut stream, &shared, trouble, response).await,
        };
        if !goes_on || request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return;
        }
    }
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn is_upgrade(&self) -> bool {
        self.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
    }

    fn authorization(&self, shared: &Shared) -> Authorization {
        let world = shared.world();
        match (self.header("authorization"), &world.scenario.token) {
            (None, _) => Authorization::Absent,
            (Some(value), Some(token)) if value == format!("Bearer {token}") => Authorization::Right,
            (Some(_), _) => Authorization::Wrong,
        }
    }
}

/// Reads one request; nothing at the end of the connection, the bytes where they are no request.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Result<Request, Vec<u8>>> {
    let (mut request, head, length) = loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(buffer) {
            Ok(httparse::Status::Complete(head)) => {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                let request = Request {
                    method: parsed.method.unwrap_or_default().to_owned(),
                    path: parsed.path.unwrap_or_default().to_owned(),
                    headers: parsed.headers.iter().map(|one| (one.name.to_owned(), text(one.value))).collect(),
                    body: Vec::new(),
                };
                let length = request.header("content-length").map_or(Ok(0), str::parse::<usize>);
                let is_plain = request.header("transfer-encoding").is_none();
                match length {
                    Ok(length) if length <= BODY_LIMIT && is_plain => break (request, head, length),
                    _ => return Some(Err(std::mem::take(buffer))),
                }
            }
            Ok(httparse::Status::Partial) if buffer.len() < HEAD_LIMIT => {}
            _ => return Some(Err(std::mem::take(buffer))),
        }
        if !fill(stream, buffer).await {
            return None;
        }
    };
    while buffer.len() < head + length {
        if !fill(stream, buffer).await {
            return None;
        }
    }
    request.body = buffer[head..head + length].to_vec();
    buffer.drain(..head + length);
    Some(Ok(request))
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    matches!(timeout(KEEP_ALIVE, stream.read_buf(buffer)).await, Ok(Ok(1..)))
}

/// Answers a request as LM Studio does: the body decides, and what is unknown is answered with 200.
fn route(
    port: Port,
    method: &str,
    path: &str,
    body: &Value,
    authorization: Authorization,
    shared: &Shared,
) -> Response {
    let mut world = shared.world();
    let has = |path: &str| world.scenario.has(path);
    let unknown =
        |status| json(status, &json!({ "error": format!("Unexpected endpoint or method. ({method} {path})") }));
    if !has(path) {
        return unknown(200);
    }
    match (port, method, path) {
        (_, "GET", "/lmstudio-greeting") => return json(200, &json!({ "lmstudio": true })),
        (Port::Internal, "GET", "/lms-status") => {
            let scenario = &world.scenario;
            return json(200, &json!({ "package": scenario.package, "version": scenario.version }));
        }
        (Port::Internal, ..) => return unknown(200),
        _ => {}
    }
    if world.scenario.requires_token && authorization != Authorization::Right {
        let message = match authorization {
            Authorization::Absent => {
                "An LM Studio API token is required to make requests to this server, but none was provided using the Authorization header using the 'Bearer' scheme (i.e., 'Authorization: Bearer $LM_API_TOKEN')."
            }
            _ => "Malformed or unknown LM Studio API token provided.",
        };
        let error = json!({ "type": "invalid_request", "code": "invalid_api_key", "message": message });
        return json(401, &json!({ "error": error }));
    }
    match (method, path) {
        ("GET", "/api/v1/models") => json(200, &world.rest_v1()),
        ("GET", "/api/v0/models") => json(200, &world.rest_v0()),
        ("GET", "/v1/models") => json(200, &world.openai()),
        ("POST", "/api/v1/models/unload") => match body["instance_id"].as_str() {
            Some(identifier) if world.unload(identifier) => json(200, &json!({ "instance_id": identifier })),
            Some(identifier) => {
                let message = format!("Cannot find a loaded model instance with the id \"{identifier}\".");
                json(404, &json!({ "error": { "type": "model_not_found", "message": message } }))
            }
            None => {
                let error = json!({ "type": "invalid_request", "message": "'instance_id' is required", "code": "missing_required_parameter", "param": "instance_id" });
                json(400, &json!({ "error": error }))
            }
        },
        ("GET", _) if path.starts_with("/api/v0/models/") => {
            let rows = world.rest_v0();
            let id = path.trim_start_matches("/api/v0/models/");
            let found = rows["data"].as_array().into_iter().flatten().find(|row| row["id"] == id);
            found.map_or_else(|| json(404, &json!({ "error": format!("Model {id} not found") })), |row| json(200, row))
        }
        ("POST", _) if path.starts_with("/api/") || path.starts_with("/v1/") => {
            let message = "the stand-in neither loads nor infers: this call is a violation";
            json(500, &json!({ "error": { "type": "stand_in", "message": message } }))
        }
        _ if path.starts_with("/api/v1/") && has("/api/v1/models") => unknown(404),
        _ => unknown(200),
    }
}

fn json(status: u16, body: &Value) -> Response {
    Response { status, body: body.to_string(), location: None }
}

/// Sends an answer; tells whether the connection goes on.
async fn send(stream: &mut TcpStream, shared: &Shared, response: &Response) -> bool {
    let head = head(response);
    write(stream, shared, format!("{head}{}", response.body).as_bytes()).await
}

fn head(response: &Response) -> String {
    let location = response.location.as_ref().map_or(String::new(), |to| format!("Location: {to}\r\n"));
    let (status, length) = (response.status, response.body.len());
    format!(
        "HTTP/1.1 {status} {}\r\nX-Powered-By: Express\r\n{location}Content-Type: application/json; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n",
        match status {
            200 => "OK",
            302 => "Found",
            400 => "Bad Request",
            401 => "Unauthorized",
            404 => "Not Found",
            _ => "Other",
        }
    )
}

/// Does what shall go wrong; tells whether the connection goes on.
async fn misbehave(stream: &mut TcpStream, shared: &Shared, trouble: Trouble, mut right: Response) -> bool {
    match trouble {
        Trouble::Delay { .. } => return send(stream, shared, &right).await,
        Trouble::Hang => hang(stream).await,
        Trouble::Reset => reset(stream),
        Trouble::Close => {}
        Trouble::Half | Trouble::HalfThenHang => {
            let text = format!("{}{}", head(&right), &right.body);
            let cut = text.len() - right.body.len().div_ceil(2);
            write(stream, shared, &text.as_bytes()[..cut]).await;
            if trouble == Trouble::HalfThenHang {
                hang(stream).await;
            }
        }
        Trouble::Garbage => {
            let bytes: Vec<u8> =
                (0..1_024_u32).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
            write(stream, shared, &bytes).await;
        }
        Trouble::Padded { bytes } => {
            right.body = padded(right.body, bytes);
            return send(stream, shared, &right).await;
        }
        Trouble::Endless => {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n";
            let chunk = format!("8000\r\n{:32768}\r\n", "1,");
            let mut goes_on = write(stream, shared, head.as_bytes()).await;
            while goes_on {
                goes_on = write(stream, shared, chunk.as_bytes()).await;
            }
        }
        Trouble::Answer { status, body } => {
            let body = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
            return send(stream, shared, &Response { status, body, location: None }).await;
        }
        Trouble::Redirect { to } => {
            let response = Response { status: 302, body: String::new(), location: Some(to) };
            return send(stream, shared, &response).await;
        }
        Trouble::Raw { text } => {
            write(stream, shared, text.as_bytes()).await;
        }
        Trouble::Error { title } => return send(stream, shared, &json(500, &json!({ "error": title }))).await,
        Trouble::Astray => {
            write(stream, shared, b"HTTP/1.1 103 Early Hints\r\nLink: </other>\r\n\r\n").await;
            return send(stream, shared, &right).await;
        }
    }
    false
}

/// Returns a text with white space after it, up to a size.
pub(crate) fn padded(mut text: String, bytes: usize) -> String {
    text.push_str(&" ".repeat(bytes.saturating_sub(text.len())));
    text
}

/// Writes bytes and counts them; tells whether they went out.
pub(crate) async fn write(stream: &mut TcpStream, shared: &Shared, bytes: &[u8]) -> bool {
    for piece in bytes.chunks(64 * 1_024) {
        if stream.write_all(piece).await.is_err() {
            return false;
        }
        shared.count(piece.len());
    }
    true
}

/// Waits until the other side gives up.
pub(crate) async fn hang(stream: &mut TcpStream) {
    let mut buffer = [0; 4_096];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

/// Makes the end of the connection a reset.
pub(crate) fn reset(stream: &TcpStream) {
    // Where the system refuses it becomes a plain close.
    let _ = stream.set_zero_linger();
}

/// Returns the record of a call.
pub(crate) fn call(port: Port, kind: &str, name: &str, parameter: Value, authorization: Authorization) -> Call {
    Call { port, kind: kind.to_owned(), name: name.to_owned(), parameter, authorization, nature: nature(kind, name) }
}
