//! Linux: a `StatusNotifierItem` on the session bus, no event loop and no toolkit.
//!
//! The main thread only waits for messages. A thread of its own talks to the bus, so that a panel
//! that hangs holds up neither the core nor the end of the process.
//!
//! ```text
//!   no bus ──(retry, ever more rarely)──► no host ◄──(the watcher comes and goes)──► shown
//!     ▲                                      │                                         │
//!     └──────────────── the bus is gone ─────┴─────────────────────────────────────────┘
//! ```

use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tray_icon::{MouseButton, MouseButtonState, TrayIconEvent};
use zbus::message::Type;
use zbus::{MatchRule, MessageStream};

use super::view::View;
use super::{UiMessage, listen_to_menu};
use crate::engine::Event;
use crate::host::bus::{ANSWER, NameWatch, next};
use crate::host::events::Events;
use crate::host::part::Part;
use crate::tray::{Action, Tray};

/// Who keeps the list of tray icons on the bus.
const WATCHER: &str = "org.kde.StatusNotifierWatcher";
/// The least time between two changes of what is shown. GNOME's extension rebuilds its menu for
/// each, and a scan makes many.
const GAP: Duration = Duration::from_millis(250);
/// How long to wait for a bus at first, and at most.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_mins(5);
/// How long the end of the process waits for the icon to go.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the tray's thread is to show; closed when the process ends.
type Wanted = watch::Receiver<Option<Box<Tray>>>;

/// Shows what `receiver` says until it says quit, or until nobody is left to say anything.
pub fn run_ui(receiver: Receiver<UiMessage>, events: Events) {
    let (show, wanted) = watch::channel(None);
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let heard = events.clone();
    let thread = thread::Builder::new().name("tray".into()).spawn(move || {
        run(wanted, heard);
        drop(done);
    });
    if let Err(error) = thread {
        Part::new("tray", events).fails(format!("cannot start a thread: {error}"), MEMORY_HINT);
    }
    for message in receiver {
        match message {
            UiMessage::Show(tray) => drop(show.send_replace(Some(tray))),
            UiMessage::Quit => break,
        }
    }
    drop(show);
    // Nothing is ever sent: this waits for the thread to let go of its end.
    let _ = ended.recv_timeout(FAREWELL);
}

/// Runs the tray's thread.
fn run(wanted: Wanted, events: Events) {
    listen_to_menu(events.clone());
    listen_to_icon(events.clone());
    let mut part = Part::new("tray", events);
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(follow(wanted, &mut part)),
        Err(error) => part.fails(format!("cannot wait for the bus: {error}"), MEMORY_HINT),
    }
}

/// Says how things stand on a click on the icon. The panel opens the menu on the other button.
fn listen_to_icon(events: Events) {
    TrayIconEvent::set_event_handler(Some(move |event| {
        if let TrayIconEvent::Click { button: MouseButton::Left, button_state: MouseButtonState::Up, .. } = event {
            events.post(Event::Chosen(Action::ShowStatus));
        }
    }));
}

/// Follows the bus as it comes and goes, until the process ends.
async fn follow(mut wanted: Wanted, part: &mut Part) {
    let mut retry = FIRST_RETRY;
    loop {
        match Bus::connect().await {
            Ok(bus) => {
                retry = FIRST_RETRY;
                if show_on(bus, &mut wanted, part).await == Ended::Process {
                    return;
                }
                part.fails("the session bus is gone", NO_BUS_HINT);
            }
            Err(reason) => part.fails(reason, NO_BUS_HINT),
        }
        if is_closed_within(&mut wanted, retry).await {
            return;
        }
        retry = (retry * 2).min(LAST_RETRY);
    }
}

const NO_BUS_HINT: &str = "Start fitwatch from a desktop session, or without a tray: fitwatch run --no-tray";
const NO_HOST_HINT: &str = "Start a panel with a tray; on GNOME, install the AppIndicator extension";
const MEMORY_HINT: &str = "Free some memory, then start fitwatch again";
const REFUSED_HINT: &str = "Restart the panel; fitwatch tries again by itself";

/// What has come to an end.
#[derive(PartialEq, Eq)]
enum Ended {
    Process,
    Bus,
}

/// Shows what is wanted for as long as this bus lives.
async fn show_on(mut bus: Bus, wanted: &mut Wanted, part: &mut Part) -> Ended {
    let mut view: Option<View> = None;
    let mut has_host = bus.has_host().await;
    wanted.mark_changed();
    loop {
        if !has_host {
            part.fails("no tray host on this desktop", NO_HOST_HINT);
        } else if view.is_some() {
            part.works();
        }
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return Ended::Process;
                }
                let Some(tray) = wanted.borrow_and_update().clone() else { continue };
                let shown = match &mut view {
                    Some(view) => view.show(&tray),
                    None => View::new(&tray).map(|new| view = Some(new)),
                };
                if let Err(reason) = shown {
                    view = None;
                    part.fails(reason, REFUSED_HINT);
                }
                sleep(GAP).await;
            }
            is_alive = bus.changed() => {
                if !is_alive {
                    return Ended::Bus;
                }
                has_host = bus.has_host().await;
                if view.is_none() {
                    wanted.mark_changed();
                }
            }
        }
    }
}

/// Returns whether the process ends within a time. What is to be shown meanwhile is kept.
async fn is_closed_within(wanted: &mut Wanted, time: Duration) -> bool {
    let closed = async { while wanted.changed().await.is_ok() {} };
    timeout(time, closed).await.is_ok()
}

/// The session bus, as far as a tray needs it.
struct Bus {
    watcher: NameWatch,
    hosts: MessageStream,
}

impl Bus {
    async fn connect() -> Result<Bus, String> {
        let watcher = NameWatch::start(WATCHER).await?;
        let hosts = async {
            let rule = MatchRule::builder().msg_type(Type::Signal).interface(WATCHER).build()?;
            MessageStream::for_match_rule(rule, watcher.connection(), None).await
        };
        let hosts = hosts.await.map_err(|error| format!("no session bus: {error}"))?;
        Ok(Bus { watcher, hosts })
    }

    /// Returns whether somebody draws tray icons.
    async fn has_host(&self) -> bool {
        if !self.watcher.is_owned().await {
            return false;
        }
        let answer = self.watcher.connection().call_method(
            Some(WATCHER),
            "/StatusNotifierWatcher",
            Some("org.freedesktop.DBus.Properties"),
            "Get",
            &(WATCHER, "IsStatusNotifierHostRegistered"),
        );
        let Ok(Ok(answer)) = timeout(ANSWER, answer).await else {
            // A watcher that cannot say so is as good as one that says yes: all of them draw.
            return true;
        };
        let value = answer.body().deserialize::<zbus::OwnedVariant>();
        value.ok().and_then(|value| bool::try_from(value).ok()).unwrap_or(true)
    }

    /// Waits until tray hosts may have come or gone; `false` once the bus is gone.
    async fn changed(&mut self) -> bool {
        tokio::select! {
            is_alive = self.watcher.changed() => is_alive,
            message = next(&mut self.hosts) => matches!(message, Some(Ok(_))),
        }
    }
}
