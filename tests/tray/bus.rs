//! A private session bus and services on it that do as they are told.

use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fitwatch::engine::Event;
use fitwatch::host::events::{Inbox, Incoming};
use fitwatch::report::Problem;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep, timeout};
use zbus::export::futures_core::Stream;
use zbus::message::Type;
use zbus::{Connection, Message, MessageStream};

/// Where a test that runs alone finds its folder.
const FOLDER: &str = "FITWATCH_TEST_BUS_FOLDER";
/// How long a test waits for what must happen.
pub(crate) const SOON: Duration = Duration::from_secs(15);
/// How long a test waits to see that something does not happen.
pub(crate) const QUIET: Duration = Duration::from_millis(700);

/// Runs a test in a process of its own, because the address of the session bus belongs to the
/// process. No bus runs there until the test starts one.
pub(crate) fn alone<F: Future<Output = ()>>(body: impl FnOnce() -> F) {
    if std::env::var_os(FOLDER).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(body());
        return;
    }
    if Command::new("dbus-daemon").arg("--version").output().is_err() {
        #[expect(clippy::print_stderr, reason = "a test that is left out says so")]
        {
            eprintln!("SKIPPED: dbus-daemon is not installed");
        }
        return;
    }
    let name = std::any::type_name_of_val(&body);
    let name = name.split_once("::").unwrap().1.split("::{{").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(FOLDER, folder.path())
        .env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", folder.path().join("bus").display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{name}:\n{text}");
}

/// A session bus that starts nothing by itself; it ends when dropped.
pub(crate) struct Bus(Child);

impl Bus {
    pub(crate) async fn start() -> Bus {
        let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
        let socket = folder.join("bus");
        let config = folder.join("bus.conf");
        let text = format!(
            r#"<busconfig><type>session</type><listen>unix:path={}</listen>
               <policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
               <allow own="*"/></policy></busconfig>"#,
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        // A bus that was killed leaves its socket behind.
        let _ = std::fs::remove_file(&socket);
        let daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .arg("--nofork")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            sleep(Duration::from_millis(10)).await;
        }
        Bus(daemon)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a service answers.
pub(crate) enum Answer {
    Nothing,
    Flag(bool),
    Number(u32),
    Texts(Vec<&'static str>),
    /// It hangs.
    Never,
}

/// A service on the bus; its name is free again when it is dropped.
pub(crate) struct Service {
    pub(crate) connection: Connection,
    calls: UnboundedReceiver<Message>,
}

impl Service {
    /// Owns `name` and answers every call by its member.
    pub(crate) async fn start(name: &'static str, answer: impl Fn(&Message) -> Answer + Send + 'static) -> Service {
        let connection = Connection::session().await.unwrap();
        let mut messages = MessageStream::from(&connection);
        let (sender, calls) = unbounded_channel();
        let replies = connection.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = next(&mut messages).await {
                if message.header().message_type() != Type::MethodCall {
                    continue;
                }
                let header = message.header();
                match answer(&message) {
                    Answer::Nothing => replies.reply(&header, &()).await.unwrap(),
                    Answer::Flag(flag) => replies.reply(&header, &zbus::Variant::from(flag)).await.unwrap(),
                    Answer::Number(number) => replies.reply(&header, &number).await.unwrap(),
                    Answer::Texts(texts) => replies.reply(&header, &texts).await.unwrap(),
                    Answer::Never => {}
                }
                if sender.send(message.clone()).is_err() {
                    return;
                }
            }
        });
        connection.request_name(name).await.unwrap();
        Service { connection, calls }
    }

    /// Waits for a call of this member.
    pub(crate) async fn call(&mut self, member: &str) -> Message {
        loop {
            let call = timeout(SOON, self.calls.recv()).await.unwrap_or_else(|_| panic!("no call of {member}"));
            let call = call.unwrap();
            if member_of(&call) == member {
                return call;
            }
        }
    }

    /// Asserts that nobody calls this member for a while.
    pub(crate) async fn no_call(&mut self, member: &str) {
        let called = async { while member_of(&self.calls.recv().await.unwrap()) != member {} };
        assert!(timeout(QUIET, called).await.is_err(), "an unwanted call of {member}");
    }

    /// Leaves the bus.
    pub(crate) async fn stop(self) {
        self.connection.close().await.unwrap();
    }
}

pub(crate) fn member_of(message: &Message) -> String {
    message.header().member().map(ToString::to_string).unwrap_or_default()
}

pub(crate) async fn next(stream: &mut MessageStream) -> Option<zbus::Result<Message>> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

/// Waits for the next event that `wanted` recognises.
pub(crate) async fn event<T>(inbox: &mut Inbox, wanted: impl Fn(Event) -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(Incoming::Event(event)) = inbox.next().await
                && let Some(found) = wanted(event)
            {
                return found;
            }
        }
    };
    timeout(SOON, found).await.expect("the event never came")
}

/// Waits for the next word on how a part stands.
pub(crate) async fn part_state(inbox: &mut Inbox, part: &str) -> Option<Problem> {
    event(inbox, |event| match event {
        Event::PartChanged { part: other, problem } if other == part => Some(problem),
        _ => None,
    })
    .await
}
