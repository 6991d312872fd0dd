//! The control socket for real: sockets, limits, stale files and slow peers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg_attr(
    windows,
    expect(dead_code, unused_imports, reason = "what is tested of the socket's file is tested where it is a file")
)]

use std::io;
use std::path::Path;
use std::time::Duration;

use fitwatch::engine::{Reply, Request};
use fitwatch::host::control::{AskError, Server, ask, ask_within};
use fitwatch::host::events::{self, Inbox, Incoming};
use fitwatch::host::instance::Instance;
use fitwatch::host::places::Places;

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn without_a_daemon_the_asker_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let places = Places::under(folder.path());
    assert!(matches!(ask(&places, &Request::Report, PATIENCE), Err(AskError::NoDaemon)));
    places.prepare().unwrap();
    assert!(matches!(ask(&places, &Request::Report, PATIENCE), Err(AskError::NoDaemon)));
}

#[tokio::test]
async fn requests_reach_the_engine_and_answers_come_back() {
    let daemon = Daemon::start();
    let asked = Request::Show { model: "gemma \"3\"\n".into() };
    let Ok(Reply::NoSuchModel { asked, nearest }) = ask_within(&daemon.places, &asked, PATIENCE).await else {
        panic!("another answer")
    };
    assert_eq!((asked.as_str(), nearest.len()), ("gemma \"3\"\n", 0));
    assert_eq!(ask_within(&daemon.places, &Request::Resume, PATIENCE).await.unwrap(), Reply::Done);
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::PermissionsExt;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn the_socket_is_the_users_alone_and_goes_with_the_daemon() {
        let daemon = Daemon::start();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&daemon.places.socket()), 0o600);
        assert_eq!(mode(&daemon.places.runtime), 0o700);
        let places = daemon.end().await;
        assert!(!places.socket().exists());
        assert!(matches!(ask_within(&places, &Request::Report, PATIENCE).await, Err(AskError::NoDaemon)));
    }

    #[tokio::test]
    async fn a_socket_that_a_killed_daemon_left_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        places.prepare().unwrap();
        // std does not remove the file when the listener goes: as after SIGKILL.
        drop(std::os::unix::net::UnixListener::bind(places.socket()).unwrap());
        assert!(places.socket().exists());
        assert!(matches!(ask_within(&places, &Request::Report, PATIENCE).await, Err(AskError::NoDaemon)));
        let daemon = Daemon::start_in(folder, places, |server| server);
        assert_eq!(ask_within(&daemon.places, &Request::Resume, PATIENCE).await.unwrap(), Reply::Done);
    }

    #[tokio::test]
    async fn nonsense_is_refused_and_the_connection_goes_on() {
        let daemon = Daemon::start();
        let mut peer = UnixStream::connect(daemon.places.socket()).await.unwrap();
        for nonsense in ["\n", "{}\n", "{\"request\":\"explode\"}\n", "\u{0}\u{ff}\n", "[[[[[[[[\n"] {
            peer.write_all(nonsense.as_bytes()).await.unwrap();
            assert!(line(&mut peer).await.contains("\"refused\""), "{nonsense:?}");
        }
        let deep = "[".repeat(500_000) + "\n";
        peer.write_all(deep.as_bytes()).await.unwrap();
        assert!(line(&mut peer).await.contains("\"refused\""));
        peer.write_all(b"{\"request\":\"resume\"}\n").await.unwrap();
        assert_eq!(line(&mut peer).await, "{\"reply\":\"done\"}");
    }

    #[tokio::test]
    async fn an_endless_line_is_cut_off_at_its_limit() {
        let daemon = Daemon::start();
        let mut peer = UnixStream::connect(daemon.places.socket()).await.unwrap();
        let mut sent = 0_usize;
        let ended = loop {
            match peer.write(&[b'x'; 8_192]).await {
                Ok(written) => sent += written,
                Err(error) => break error.kind(),
            }
            assert!(sent < 8 << 20, "it reads for ever");
        };
        assert!(matches!(ended, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{ended:?}");
        assert_eq!(ask_within(&daemon.places, &Request::Resume, PATIENCE).await.unwrap(), Reply::Done);
    }

    #[tokio::test]
    async fn silent_peers_are_limited_and_do_not_lock_others_out_for_ever() {
        let daemon = Daemon::start();
        let mut silent = Vec::new();
        for _ in 0..16 {
            let mut peer = UnixStream::connect(daemon.places.socket()).await.unwrap();
            peer.write_all(b"{\"request\":\"resume\"}\n").await.unwrap();
            line(&mut peer).await;
            silent.push(peer);
        }
        let Reply::Refused { message } = ask_within(&daemon.places, &Request::Resume, PATIENCE).await.unwrap() else {
            panic!("the seventeenth was served")
        };
        assert_eq!(message, "too many connections");
        silent.clear();
        let mut tries = 0;
        while ask_within(&daemon.places, &Request::Resume, PATIENCE).await.unwrap() != Reply::Done {
            tries += 1;
            assert!(tries < 1_000, "the places are never given back");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_peer_that_stays_silent_is_hung_up_on() {
        let daemon = Daemon::start_with(|server| server.idle_after(Duration::from_millis(50)));
        let mut peer = UnixStream::connect(daemon.places.socket()).await.unwrap();
        peer.write_all(b"{\"request\":").await.unwrap();
        let mut rest = Vec::new();
        assert_eq!(peer.read_to_end(&mut rest).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_daemon_that_does_not_answer_or_answers_nonsense_is_no_hang() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        places.prepare().unwrap();
        let listener = tokio::net::UnixListener::bind(places.socket()).unwrap();
        let short = Duration::from_millis(50);
        assert!(matches!(ask_within(&places, &Request::Report, short).await, Err(AskError::Timeout)));
        let answer = tokio::spawn(async move {
            // The first one in the queue has gone already.
            let (_gone, _) = listener.accept().await.unwrap();
            for text in ["{\"reply\":\"from the future\"}\n", "cut"] {
                let (mut peer, _) = listener.accept().await.unwrap();
                line(&mut peer).await;
                peer.write_all(text.as_bytes()).await.unwrap();
            }
        });
        assert!(matches!(ask_within(&places, &Request::Report, PATIENCE).await, Err(AskError::NotUnderstood(_))));
        assert!(matches!(ask_within(&places, &Request::Report, PATIENCE).await, Err(AskError::Broken(_))));
        answer.await.unwrap();
    }

    async fn line(peer: &mut UnixStream) -> String {
        let mut line = Vec::new();
        loop {
            match peer.read_u8().await.unwrap() {
                b'\n' => return String::from_utf8(line).unwrap(),
                byte => line.push(byte),
            }
        }
    }
}

/// The wiring of a daemon around an engine of three answers.
struct Daemon {
    places: Places,
    server: tokio::task::JoinHandle<()>,
    engine: tokio::task::JoinHandle<()>,
    _instance: Instance,
    _folder: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Daemon {
        Daemon::start_with(|server| server)
    }

    fn start_with(change: impl FnOnce(Server) -> Server) -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        places.prepare().unwrap();
        Daemon::start_in(folder, places, change)
    }

    fn start_in(folder: tempfile::TempDir, places: Places, change: impl FnOnce(Server) -> Server) -> Daemon {
        let instance = Instance::acquire(&places).unwrap();
        let (events, inbox) = events::channel();
        let server = change(Server::bind(&places, &instance).unwrap());
        Daemon {
            places,
            server: tokio::spawn(server.serve(events)),
            engine: tokio::spawn(answer(inbox)),
            _instance: instance,
            _folder: folder,
        }
    }

    async fn end(self) -> Places {
        self.server.abort();
        self.engine.abort();
        assert!(self.server.await.unwrap_err().is_cancelled());
        self.places
    }
}

async fn answer(mut inbox: Inbox) {
    while let Some(incoming) = inbox.next().await {
        let Incoming::Asked { request, answer } = incoming else { continue };
        let reply = match request {
            Request::Show { model } => Reply::NoSuchModel { asked: model, nearest: vec![] },
            _ => Reply::Done,
        };
        answer.send(reply).unwrap();
    }
}
