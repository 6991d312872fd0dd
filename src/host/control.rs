//! The control socket: how `fitwatch list` and the like reach the running fitwatch.
//!
//! A Unix socket in the user's runtime folder, a named pipe on Windows. One JSON
//! [`Request`] a line, one JSON [`Reply`] a line in return, on the same connection as often as
//! wanted. Only the same user (or root) is served: the folder is private, and where the system
//! names the peer it is checked as well. A peer that sends too much, too slowly or nonsense costs
//! its own connection and nothing else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use interprocess::local_socket::tokio::{Listener, Stream, prelude::*};
use interprocess::local_socket::{ListenerOptions, Name};
use thiserror::Error;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::events::Events;
use super::instance::Instance;
use super::places::Places;
use crate::engine::{Reply, Request};

/// A request is a few hundred bytes.
const MOST_REQUEST_BYTES: u64 = 1 << 20;
/// A report of ten thousand models is some 30 MB.
const MOST_REPLY_BYTES: u64 = 256 << 20;
/// More connections than this are sent away.
const MOST_CONNECTIONS: usize = 16;
/// A connection that says nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// `Recheck` answers when all folders were walked, which takes its time on a network.
const ANSWER: Duration = Duration::from_mins(5);
/// A peer that does not take its answer for so long loses it.
const TAKE: Duration = Duration::from_secs(10);

/// The listening socket of the running fitwatch; its file goes when it is dropped.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    idle: Duration,
    /// The only user who is served.
    #[cfg(unix)]
    user: u32,
}

/// Why the control socket cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on the control socket {name}: {source}")]
pub struct BindError {
    /// The socket.
    pub name: String,
    /// Why.
    pub source: io::Error,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("fitwatch is not running")]
    NoDaemon,
    /// The running fitwatch does not answer in time.
    #[error("the running fitwatch does not answer")]
    Timeout,
    /// The connection broke.
    #[error("the connection to the running fitwatch broke: {0}")]
    Broken(#[source] io::Error),
    /// The answer is not understood: another version runs.
    #[error("the running fitwatch gives an answer of another version: {0}")]
    NotUnderstood(#[source] serde_json::Error),
}

impl Server {
    /// Listens. Only the one running fitwatch may, so that a socket file in the way is one that a
    /// killed fitwatch left, and is replaced.
    pub fn bind(places: &Places, _instance: &Instance) -> Result<Server, BindError> {
        let in_place = |source| BindError { name: shown(places), source };
        let options = ListenerOptions::new().name(name(places).map_err(in_place)?).try_overwrite(true);
        let listener = options.max_spin_time(Duration::from_secs(1)).create_tokio().map_err(in_place)?;
        Ok(Server {
            listener,
            idle: IDLE,
            #[cfg(unix)]
            user: close_to_others(places).map_err(in_place)?,
        })
    }

    /// Closes a connection that says nothing for so long, instead of half a minute.
    #[must_use]
    pub fn idle_after(self, idle: Duration) -> Server {
        Server { idle, ..self }
    }

    /// Serves for ever; each connection is a task of its own.
    pub async fn serve(self, events: Events) {
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let connection = match self.listener.accept().await {
                Ok(connection) => connection,
                Err(error) => {
                    // Out of file descriptors, most likely: others may give some back.
                    tracing::warn!("cannot accept on the control socket: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            if !self.may_ask(&connection) {
                tracing::warn!("another user was refused on the control socket");
                continue;
            }
            let (events, idle) = (events.clone(), self.idle);
            let room = Arc::clone(&room).try_acquire_owned();
            tokio::spawn(async move {
                let served = match room {
                    Ok(_room) => converse(&connection, &events, idle).await,
                    Err(_) => answer(&connection, &refused("too many connections")).await,
                };
                if let Err(error) = served {
                    tracing::debug!("a control connection ended: {error}");
                }
            });
        }
    }

    #[cfg(unix)]
    fn may_ask(&self, connection: &Stream) -> bool {
        is_served(connection.peer_creds().ok().and_then(|peer| peer.euid()), self.user)
    }

    #[cfg(not(unix))]
    #[expect(clippy::unused_self, reason = "the pipe's own access list decides on Windows")]
    fn may_ask(&self, _connection: &Stream) -> bool {
        true
    }
}

/// Asks the running fitwatch and waits for the answer. Not to be called within a runtime.
pub fn ask(places: &Places, request: &Request, patience: Duration) -> Result<Reply, AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AskError::Broken)?;
    runtime.block_on(ask_within(places, request, patience))
}

/// Asks the running fitwatch from within a runtime.
pub async fn ask_within(places: &Places, request: &Request, patience: Duration) -> Result<Reply, AskError> {
    let asked = async {
        let name = name(places).map_err(AskError::Broken)?;
        let connection = Stream::connect(name).await.map_err(|error| match error.kind() {
            // No file, or one that a killed fitwatch left.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NoDaemon,
            _ => AskError::Broken(error),
        })?;
        let mut line = serde_json::to_vec(request).map_err(|error| AskError::Broken(error.into()))?;
        line.push(b'\n');
        (&connection).write_all(&line).await.map_err(AskError::Broken)?;
        let mut reader = BufReader::new(&connection);
        let reply = read_line(&mut reader, MOST_REPLY_BYTES).await.map_err(AskError::Broken)?;
        let reply = reply.ok_or_else(|| AskError::Broken(io::ErrorKind::UnexpectedEof.into()))?;
        serde_json::from_slice(&reply).map_err(AskError::NotUnderstood)
    };
    timeout(patience, asked).await.unwrap_or(Err(AskError::Timeout))
}

impl AskError {
    /// Returns what to do, beginning with a verb.
    pub const fn hint(&self) -> &'static str {
        match self {
            AskError::NoDaemon => "start it with `fitwatch`",
            AskError::Timeout | AskError::Broken(_) => "try again, or end it and start it anew",
            AskError::NotUnderstood(_) => "end the running fitwatch and start this one",
        }
    }
}

/// A system that does not name the peer leaves it to the folder, which is private.
#[cfg(unix)]
fn is_served(peer: Option<u32>, user: u32) -> bool {
    peer.is_none_or(|peer| peer == user || peer == 0)
}

async fn converse(connection: &Stream, events: &Events, idle: Duration) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    loop {
        let line = match timeout(idle, read_line(&mut reader, MOST_REQUEST_BYTES)).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) | Err(_) => return Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return answer(connection, &refused(&error.to_string())).await;
            }
            Ok(Err(error)) => return Err(error),
        };
        let reply = match serde_json::from_slice(&line) {
            Err(error) => refused(&format!("the request is not understood: {error}")),
            Ok(request) => match timeout(ANSWER, events.ask(request)).await {
                Ok(Some(reply)) => reply,
                Ok(None) => refused("fitwatch is ending"),
                Err(_) => refused("fitwatch is too busy"),
            },
        };
        answer(connection, &reply).await?;
    }
}

async fn answer(connection: &Stream, reply: &Reply) -> io::Result<()> {
    let mut line = match serde_json::to_vec(reply) {
        Ok(line) => line,
        // A path that is no text, say: the asker is told rather than left waiting.
        Err(error) => serde_json::to_vec(&refused(&format!("the answer cannot be written: {error}")))?,
    };
    line.push(b'\n');
    let mut writer = connection;
    timeout(TAKE, async {
        writer.write_all(&line).await?;
        writer.flush().await
    })
    .await
    .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

fn refused(message: &str) -> Reply {
    Reply::Refused { message: message.to_owned() }
}

/// Reads a line without its end, `None` where the peer is done.
async fn read_line<R: AsyncBufRead + Unpin>(reader: &mut R, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader.take(most).read_until(b'\n', &mut line).await?;
    match line.pop() {
        Some(b'\n') => Ok(Some(line)),
        None => Ok(None),
        Some(_) if read as u64 >= most => Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long")),
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(unix)]
fn name(places: &Places) -> io::Result<Name<'static>> {
    use interprocess::local_socket::{GenericFilePath, ToFsName as _};

    places.socket().to_fs_name::<GenericFilePath>()
}

#[cfg(not(unix))]
fn name(places: &Places) -> io::Result<Name<'static>> {
    use interprocess::local_socket::{GenericNamespaced, ToNsName as _};

    shown(places).to_ns_name::<GenericNamespaced>()
}

/// Pipes have one name space for all users: the runtime folder, which names the user, makes the
/// name the user's own.
#[cfg(not(unix))]
fn shown(places: &Places) -> String {
    let folder = places.runtime.to_string_lossy();
    format!("fitwatch{}", folder.replace(|letter: char| !letter.is_alphanumeric(), "-"))
}

#[cfg(unix)]
fn shown(places: &Places) -> String {
    places.socket().display().to_string()
}

/// Makes the socket the user's alone and returns who that is.
#[cfg(unix)]
fn close_to_others(places: &Places) -> io::Result<u32> {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fs::set_permissions(places.socket(), fs::Permissions::from_mode(0o600))?;
    Ok(fs::metadata(places.socket())?.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn only_the_user_and_root_are_served() {
        assert!(is_served(Some(1_000), 1_000));
        assert!(is_served(Some(0), 1_000));
        assert!(is_served(None, 1_000));
        assert!(!is_served(Some(1_001), 1_000));
        assert!(!is_served(Some(1_000), 0));
    }

    #[tokio::test]
    async fn a_line_ends_at_its_end_its_limit_or_with_the_peer() {
        async fn read(bytes: &[u8]) -> Result<Option<Vec<u8>>, io::ErrorKind> {
            read_line(&mut BufReader::new(bytes), 8).await.map_err(|error| error.kind())
        }
        assert_eq!(read(b"{}\nrest").await, Ok(Some(b"{}".to_vec())));
        assert_eq!(read(b"\n").await, Ok(Some(Vec::new())));
        assert_eq!(read(b"").await, Ok(None));
        assert_eq!(read(b"{").await, Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(read(b"1234567\n").await, Ok(Some(b"1234567".to_vec())));
        assert_eq!(read(b"12345678\n").await, Err(io::ErrorKind::InvalidData));
    }
}
