//! Linux: the notification server on the session bus.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use notify_rust::{Hint, Notification, NotificationHandle, Urgency};
use tokio::time::{sleep, timeout};

use super::{Command, Queue, tell};
use crate::alerts::Notice;
use crate::host::bus::{ANSWER, NameWatch};
use crate::host::part::Part;

/// Who shows notifications on the bus.
const SERVER: &str = "org.freedesktop.Notifications";
/// How many notices stay open. Each holds a connection to the bus, and GNOME takes a notice back
/// as soon as its connection is gone.
const OPEN: usize = 3;
/// How long to wait before looking for a bus again. A notice that comes looks at once.
const RETRY: Duration = Duration::from_mins(5);

/// How long to wait before following a bus that came back: one that flaps costs little.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows what the queue says, for ever.
pub(super) async fn serve(queue: Arc<Queue>, mut part: Part) {
    let mut open = Open::default();
    loop {
        let mut watch = NameWatch::start(SERVER).await;
        tell(&mut part, is_there(&watch).await);
        loop {
            tokio::select! {
                command = queue.next() => tell(&mut part, open.run(command).await),
                is_alive = changed(&mut watch) => {
                    if !is_alive {
                        break;
                    }
                    tell(&mut part, is_there(&watch).await);
                }
            }
        }
        sleep(PAUSE).await;
    }
}

/// Waits until a notification server may have come or gone; `false` once the bus is to be looked
/// for again.
async fn changed(watch: &mut Result<NameWatch, String>) -> bool {
    if let Ok(watch) = watch {
        return watch.changed().await;
    }
    sleep(RETRY).await;
    false
}

/// Returns whether there is a notification server, or one that the bus would start.
async fn is_there(watch: &Result<NameWatch, String>) -> Result<(), String> {
    let watch = watch.as_ref().map_err(Clone::clone)?;
    if watch.is_owned().await || watch.is_activatable().await {
        Ok(())
    } else {
        Err("no notification server on this desktop".into())
    }
}

/// The notices that were shown last, oldest first.
#[derive(Default)]
struct Open {
    handles: VecDeque<(String, NotificationHandle)>,
}

impl Open {
    /// Does one thing, under a time limit: a server that hangs would hold us for ever.
    async fn run(&mut self, command: Command) -> Result<(), String> {
        let done = async {
            match command {
                Command::Show(notice) => self.show(&notice).await,
                Command::Close(topic) => {
                    self.close(&topic).await;
                    Ok(())
                }
            }
        };
        timeout(ANSWER, done).await.unwrap_or_else(|_| Err("the notification server does not answer".into()))
    }

    async fn show(&mut self, notice: &Notice) -> Result<(), String> {
        let is_markup = server_reads_markup().await.map_err(|error| reason(&error))?;
        let mut notification = Notification::new();
        notification
            .appname("fitwatch")
            .summary(&notice.title)
            .body(&if is_markup { escaped(&notice.body) } else { notice.body.clone() })
            .hint(Hint::DesktopEntry("fitwatch".into()))
            .urgency(Urgency::Normal);
        if let Some((_, shown)) = self.handles.iter().rfind(|(topic, _)| *topic == notice.topic) {
            notification.id(shown.id());
        }
        let handle = notification.show_async().await.map_err(|error| reason(&error))?;
        // The handle of the notice it replaces stays for now: dropping it may withdraw both.
        self.handles.push_back((notice.topic.clone(), handle));
        if self.handles.len() > OPEN {
            self.handles.pop_front();
        }
        Ok(())
    }

    async fn close(&mut self, topic: &str) {
        if let Some((_, shown)) = self.handles.iter().rfind(|(other, _)| other == topic) {
            shown.close_async().await;
        }
        self.handles.retain(|(other, _)| other != topic);
    }
}

/// Returns whether the server reads `<b>` and `&amp;` in a body.
async fn server_reads_markup() -> zbus::Result<bool> {
    let bus = zbus::Connection::session().await?;
    let answer =
        bus.call_method(Some(SERVER), "/org/freedesktop/Notifications", Some(SERVER), "GetCapabilities", &()).await?;
    let capabilities: Vec<String> = answer.body().deserialize()?;
    Ok(capabilities.iter().any(|capability| capability == "body-markup"))
}

/// Returns an error in words for the user.
fn reason(error: &dyn std::error::Error) -> String {
    format!("no notification server: {error}")
}

/// Escapes what servers read as markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
