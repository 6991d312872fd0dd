//! HTTP as far as LM Studio needs it: one request a connection, to an address of this machine.
//!
//! No redirect is followed, no proxy used and no name resolved. What answers too late, too much or
//! no HTTP costs the time limit and nothing else.

use std::future::Future;
use std::net::SocketAddrV4;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::lmstudio::{ApiToken, Route};

/// The largest answer that is read.
pub(super) const MOST_BYTES: usize = 4 << 20;
/// The largest head of an answer.
const MOST_HEAD_BYTES: usize = 64 << 10;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HttpError {
    /// Nobody listens there.
    Absent,
    /// What listens does not answer, or not in HTTP.
    Failed(&'static str),
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the connection.
    pub(super) connection: Duration,
    /// For all of it.
    pub(super) answer: Duration,
}

/// Asks something that only reads; returns the body, whatever the status is.
pub(super) async fn ask(
    address: SocketAddrV4,
    route: Route,
    token: Option<&ApiToken>,
    patience: Patience,
) -> Result<Bytes, HttpError> {
    if route.changes() {
        return Err(HttpError::Failed("it was not asked for"));
    }
    exchange(address, route, token, String::new(), patience).await
}

/// Sends a request that changes something, on the user's word.
pub(super) async fn change(
    address: SocketAddrV4,
    route: Route,
    token: Option<&ApiToken>,
    body: String,
    patience: Patience,
) -> Result<Bytes, HttpError> {
    exchange(address, route, token, body, patience).await
}

/// Connects to an address of this machine.
pub(super) async fn connect(address: SocketAddrV4, patience: Duration) -> Result<TcpStream, HttpError> {
    match timeout(patience, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // Requests are single small writes; waiting for more would only delay them.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(_)) => Err(HttpError::Absent),
        Err(_) => Err(HttpError::Failed("it does not accept the connection")),
    }
}

async fn exchange(
    address: SocketAddrV4,
    route: Route,
    token: Option<&ApiToken>,
    body: String,
    patience: Patience,
) -> Result<Bytes, HttpError> {
    let request = request(address, route, token, body).ok_or(HttpError::Failed("the request cannot be written"))?;
    let stream = connect(address, patience.connection).await?;
    let answered = async {
        let builder = http1::Builder::new().max_buf_size(MOST_HEAD_BYTES).handshake(TokioIo::new(stream));
        let (mut sender, connection) = builder.await.map_err(no_http)?;
        let answer = async { body_of(sender.send_request(request).await.map_err(no_http)?).await };
        alongside(connection, answer).await
    };
    timeout(patience.answer, answered).await.unwrap_or(Err(HttpError::Failed("it does not answer in time")))
}

fn request(
    address: SocketAddrV4,
    route: Route,
    token: Option<&ApiToken>,
    body: String,
) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::builder()
        .method(route.method())
        .uri(route.path())
        .header(HOST, address.to_string())
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close");
    if route.changes() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    if let Some(token) = token {
        let mut bearer = HeaderValue::try_from(token.bearer()).ok()?;
        bearer.set_sensitive(true);
        request = request.header(AUTHORIZATION, bearer);
    }
    request.body(Full::new(Bytes::from(body))).ok()
}

async fn body_of(response: Response<Incoming>) -> Result<Bytes, HttpError> {
    match Limited::new(response.into_body(), MOST_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(HttpError::Failed("its answer is larger than 4 MiB")),
        Err(_) => Err(HttpError::Failed("its answer breaks off")),
    }
}

/// Waits for the answer while the connection works.
async fn alongside<T>(connection: impl Future, answer: impl Future<Output = T>) -> T {
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => return answer,
        _ = connection => {}
    }
    answer.await
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn no_http(error: hyper::Error) -> HttpError {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        HttpError::Failed("it hangs up without an answer")
    } else {
        HttpError::Failed("its answer is no HTTP")
    }
}
