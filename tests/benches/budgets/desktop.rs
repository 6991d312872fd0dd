//! A private session bus with somebody on it who draws tray icons.

use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use zbus::export::futures_core::Stream;
use zbus::message::Type;
use zbus::{Message, MessageStream};

/// The bus; it ends when dropped.
pub(crate) struct Desktop {
    daemon: Child,
    pub(crate) address: String,
}

impl Desktop {
    /// Starts a bus, where there is a program for it.
    pub(crate) fn start(folder: &Path) -> Option<Desktop> {
        let socket = folder.join("bus");
        let config = folder.join("bus.conf");
        let text = format!(
            r#"<busconfig><type>session</type><listen>unix:path={}</listen>
               <policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
               <allow own="*"/></policy></busconfig>"#,
            socket.display()
        );
        std::fs::write(&config, text).expect("a written file");
        let mut command = Command::new("dbus-daemon");
        command.arg(format!("--config-file={}", config.display())).arg("--nofork").stderr(Stdio::null());
        let daemon = command.spawn().ok()?;
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            thread::sleep(Duration::from_millis(10));
        }
        let address = format!("unix:path={}", socket.display());
        let desktop = Desktop { daemon, address: address.clone() };
        let (ready, is_ready) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            // It fails when the bus ends, as the run does.
            let _ = runtime.block_on(watch_icons(&address, &ready));
        });
        is_ready.recv().ok()?;
        Some(desktop)
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Answers as a panel's list of tray icons does, and reads each icon's menu as a panel does.
async fn watch_icons(address: &str, ready: &mpsc::Sender<()>) -> zbus::Result<()> {
    let connection = zbus::connection::Builder::address(address).build().await?;
    connection.request_name("org.kde.StatusNotifierWatcher").await?;
    let mut messages = MessageStream::from(&connection);
    let _ = ready.send(());
    while let Some(message) = next(&mut messages).await {
        let message: Message = message?;
        if message.header().message_type() != Type::MethodCall {
            continue;
        }
        let header = message.header();
        match header.member().map(zbus::names::MemberName::as_str) {
            Some("Get") => connection.reply(&header, &zbus::Variant::from(true)).await?,
            Some("RegisterStatusNotifierItem") => {
                connection.reply(&header, &()).await?;
                let Some(item) = header.sender().map(ToString::to_string) else { continue };
                let menu = (0_i32, -1_i32, Vec::<String>::new());
                connection
                    .call_method(Some(item), "/MenuBar", Some("com.canonical.dbusmenu"), "GetLayout", &menu)
                    .await?;
            }
            _ => connection.reply(&header, &()).await?,
        }
    }
    Ok(())
}

async fn next(stream: &mut MessageStream) -> Option<zbus::Result<Message>> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}
