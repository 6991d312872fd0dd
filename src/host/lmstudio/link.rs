//! A websocket to LM Studio: one namespace, authenticated, one call at a time.
//!
//! It is kept open between rounds and costs nothing there: nothing is subscribed to, so nothing
//! comes. Whatever breaks it is the next round's reason to open another one.

use std::fmt;
use std::net::SocketAddrV4;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::http::{self, HttpError, MOST_BYTES, Patience};
use crate::lmstudio::{
    ApiToken, Endpoint, Frame, Namespace, authentication, call, is_refused, parse_authentication, parse_frame, warns_of,
};

/// Answers are small; LM Studio's whole list of models is not asked for here.
const READ_BUFFER: usize = 16 << 10;
/// To say goodbye in.
const FAREWELL: Duration = Duration::from_millis(100);

/// Who this client is: a guest of this run, or the holder of a token.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    identifier: String,
    passkey: String,
}

impl Credentials {
    /// Returns a guest that nobody was before: LM Studio binds an identifier to its first passkey.
    pub(super) fn guest() -> Credentials {
        let mut random = [0; 32];
        getrandom::fill(&mut random).expect("the system has random numbers");
        let [identifier, passkey] = [0, 16].map(|start| {
            let half = random.iter().skip(start).take(16);
            half.fold(0_u128, |number, byte| number << 8 | u128::from(*byte))
        });
        Credentials { identifier: format!("guest:{identifier:032x}"), passkey: format!("{passkey:032x}") }
    }

    /// Returns the holder of a token.
    pub(super) fn of(token: &ApiToken) -> Credentials {
        Credentials { identifier: token.identifier().into(), passkey: token.passkey().into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(hidden)")
    }
}

/// An open websocket.
pub(super) struct Link {
    socket: WebSocketStream<TcpStream>,
    namespace: Namespace,
    patience: Duration,
    /// The next call's number.
    next: u64,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// Nobody listens there.
    Absent,
    /// LM Studio wants an API token, or another one.
    Refused,
    /// It does not know the endpoint.
    Unknown,
    /// The call failed there, in its words where they are harmless.
    Rejected(Option<String>),
    /// The answer is not understood.
    NotUnderstood,
    /// The connection was closed, before the call or during it.
    Closed,
    /// It does not answer, or not as it should.
    Failed(&'static str),
}

impl CallError {
    /// Tells whether the link can be used no more.
    pub(super) fn ends_the_link(&self) -> bool {
        match self {
            CallError::Absent | CallError::Refused | CallError::Closed | CallError::Failed(_) => true,
            CallError::Unknown | CallError::Rejected(_) | CallError::NotUnderstood => false,
        }
    }
}

impl From<HttpError> for CallError {
    fn from(error: HttpError) -> CallError {
        match error {
            HttpError::Absent => CallError::Absent,
            HttpError::Failed(reason) => CallError::Failed(reason),
        }
    }
}

impl Link {
    /// Connects and authenticates.
    pub(super) async fn open(
        address: SocketAddrV4,
        namespace: Namespace,
        credentials: &Credentials,
        patience: Patience,
    ) -> Result<Link, CallError> {
        let stream = http::connect(address, patience.connection).await?;
        let opened = async {
            let url = format!("ws://{address}/{}", namespace.name());
            let (socket, _) =
                client_async_with_config(url, stream, Some(limits())).await.map_err(|error| no_handshake(&error))?;
            let mut link = Link { socket, namespace, patience: patience.answer, next: 0 };
            link.send(authentication(&credentials.identifier, &credentials.passkey)).await?;
            let answer = link.receive().await?;
            match parse_authentication(&answer) {
                Some(true) => Ok(link),
                Some(false) => Err(CallError::Refused),
                None => Err(CallError::Failed("its websocket does not authenticate")),
            }
        };
        timeout(patience.answer, opened)
            .await
            .unwrap_or(Err(CallError::Failed("its websocket does not answer in time")))
    }

    /// Calls an endpoint that only reads.
    pub(super) async fn call<T>(
        &mut self,
        endpoint: Endpoint,
        parameter: Option<&Value>,
        read: fn(&str) -> Option<T>,
    ) -> Result<T, CallError> {
        if endpoint.changes() {
            return Err(CallError::Failed("it was not asked for"));
        }
        self.exchange(endpoint, parameter, self.patience, |result| read(result.unwrap_or("null"))).await
    }

    /// Calls an endpoint that changes something, on the user's word.
    pub(super) async fn change(
        &mut self,
        endpoint: Endpoint,
        parameter: &Value,
        patience: Duration,
    ) -> Result<(), CallError> {
        self.exchange(endpoint, Some(parameter), patience, |_| Some(())).await
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) {
        // It is as good as closed either way.
        let _ = timeout(FAREWELL, self.socket.close(None)).await;
    }

    async fn exchange<T>(
        &mut self,
        endpoint: Endpoint,
        parameter: Option<&Value>,
        patience: Duration,
        read: impl FnOnce(Option<&str>) -> Option<T>,
    ) -> Result<T, CallError> {
        if !endpoint.namespaces().contains(&self.namespace) {
            return Err(CallError::Unknown);
        }
        let number = self.next;
        self.next += 1;
        let answered = async {
            self.send(call(endpoint, number, parameter)).await?;
            loop {
                let frame = self.receive().await?;
                match parse_frame(&frame) {
                    Some(Frame::Result { number: answered, result }) if answered == number => {
                        return read(result).ok_or(CallError::NotUnderstood);
                    }
                    Some(Frame::Error { number: answered, words }) if answered == number => {
                        return Err(CallError::Rejected(words));
                    }
                    Some(Frame::Warning { warning }) if warns_of(&warning, endpoint) => {
                        return Err(CallError::Unknown);
                    }
                    Some(_) => {}
                    None => return Err(CallError::Failed("its websocket speaks no JSON")),
                }
            }
        };
        timeout(patience, answered).await.unwrap_or(Err(CallError::Failed("its websocket does not answer in time")))
    }

    async fn send(&mut self, frame: String) -> Result<(), CallError> {
        self.socket.send(Message::text(frame)).await.map_err(|error| broken(&error))
    }

    /// Waits for the next frame of text.
    async fn receive(&mut self) -> Result<Utf8Bytes, CallError> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Binary(_))) => return Err(CallError::Failed("its websocket speaks no JSON")),
                Some(Ok(Message::Close(_))) | None => return Err(CallError::Closed),
                Some(Err(error)) => return Err(broken(&error)),
            }
        }
    }
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(MOST_BYTES))
        .max_frame_size(Some(MOST_BYTES))
}

fn no_handshake(error: &Error) -> CallError {
    match error {
        Error::Http(response) if response.body().as_deref().is_some_and(is_refused) => CallError::Refused,
        Error::Io(_) => CallError::Failed("it hangs up without an answer"),
        _ => CallError::Failed("it offers no websocket"),
    }
}

fn broken(error: &Error) -> CallError {
    match error {
        Error::Capacity(_) => CallError::Failed("its answer is larger than 4 MiB"),
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing) => {
            CallError::Closed
        }
        _ => CallError::Failed("it does not speak the websocket's protocol"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_new_every_time_and_is_never_shown() {
        let (one, other) = (Credentials::guest(), Credentials::guest());
        assert!(one.identifier != other.identifier && one.passkey != other.passkey);
        assert_eq!((one.identifier.len(), one.passkey.len()), (38, 32));
        assert_eq!(format!("{one:?}"), "Credentials(hidden)");
    }
}
