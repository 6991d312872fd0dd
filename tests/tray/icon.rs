//! The icon and its menu, as a panel sees them.

use std::collections::HashMap;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fitwatch::engine::Event;
use fitwatch::host::events::{Inbox, channel};
use fitwatch::host::tray::{UiMessage, run_ui};
use fitwatch::library::ModelId;
use fitwatch::tray::{Action, Icon, Row, Tray};
use tokio::time::{sleep, timeout};
use zbus::message::Type;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedVariant, Variant};

use crate::bus::{Answer, Bus, QUIET, SOON, Service, alone, event, member_of, next, part_state};

const WATCHER: &str = "org.kde.StatusNotifierWatcher";
const ITEM: &str = "org.kde.StatusNotifierItem";
const MENU: &str = "com.canonical.dbusmenu";

#[test]
fn the_icon_comes_when_the_panel_does() {
    alone(async || {
        let _bus = Bus::start().await;
        let mut ui = Ui::start(&tray("1 of 1 model fits"));
        let problem = part_state(&mut ui.inbox, "tray").await.unwrap();
        assert_eq!(problem.message, "no tray host on this desktop");
        assert!(problem.hint.unwrap().contains("AppIndicator"));

        let mut panel = panel().await;
        let item = registered(&mut panel).await;
        assert_eq!(part_state(&mut ui.inbox, "tray").await, None);
        assert_eq!(text(&property(&panel.connection, &item, "Id").await), "fitwatch");
        assert_eq!(text(&property(&panel.connection, &item, "Title").await), "fitwatch");
        let tooltip = property(&panel.connection, &item, "ToolTip").await;
        let Variant::Structure(tooltip) = &tooltip else { panic!() };
        assert_eq!(tooltip.fields()[3], Variant::from("1 of 1 model fits"));

        // A panel that restarts gets the icon anew.
        panel.stop().await;
        assert!(part_state(&mut ui.inbox, "tray").await.is_some());
        let mut panel = self::panel().await;
        registered(&mut panel).await;
        assert_eq!(part_state(&mut ui.inbox, "tray").await, None);
    });
}

#[test]
fn a_watcher_without_a_panel_is_a_problem_until_one_comes() {
    alone(async || {
        let _bus = Bus::start().await;
        let host = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let has_host = std::sync::Arc::clone(&host);
        let watcher = Service::start(WATCHER, move |message| match member_of(message).as_str() {
            "Get" => Answer::Flag(has_host.load(std::sync::atomic::Ordering::Relaxed)),
            _ => Answer::Nothing,
        })
        .await;
        let mut ui = Ui::start(&tray("x"));
        assert!(part_state(&mut ui.inbox, "tray").await.is_some());
        host.store(true, std::sync::atomic::Ordering::Relaxed);
        watcher
            .connection
            .emit_signal(None::<&str>, "/StatusNotifierWatcher", WATCHER, "StatusNotifierHostRegistered", &())
            .await
            .unwrap();
        assert_eq!(part_state(&mut ui.inbox, "tray").await, None);
    });
}

#[test]
fn a_row_that_is_chosen_reaches_the_engine() {
    alone(async || {
        let _bus = Bus::start().await;
        let mut panel = panel().await;
        let mut ui = Ui::start(&tray("1 of 1 model fits"));
        let item = registered(&mut panel).await;
        let rows = layout(&panel.connection, &item).await;
        let labels: Vec<&str> = rows.iter().map(|row| row.label.as_str()).collect();
        // A single underscore would mark a shortcut key; an ampersand stands for itself here.
        assert_eq!(labels, ["1 of 1 model fits", "", "Fits (1)", "R&D__model", "Quit"]);
        assert!(!rows[0].enabled && rows[3].enabled);

        for (row, action) in [(3, Action::ShowModel(ModelId("lab/R&D_model".into()))), (4, Action::Quit)] {
            click(&panel.connection, &item, rows[row].id).await;
            assert_eq!(chosen(&mut ui.inbox).await, action);
        }
    });
}

#[test]
fn a_click_on_the_icon_asks_how_things_stand() {
    alone(async || {
        let _bus = Bus::start().await;
        let mut panel = panel().await;
        let mut ui = Ui::start(&tray("x"));
        let item = registered(&mut panel).await;
        call(&panel.connection, &item, "/StatusNotifierItem", ITEM, "Activate", &(0, 0)).await;
        assert_eq!(chosen(&mut ui.inbox).await, Action::ShowStatus);
    });
}

#[test]
fn an_equal_tray_sends_nothing_and_a_changed_number_no_new_layout() {
    alone(async || {
        let _bus = Bus::start().await;
        let mut panel = panel().await;
        let ui = Ui::start(&tray("1 of 1 model fits"));
        let item = registered(&mut panel).await;
        let rule = MatchRule::builder().msg_type(Type::Signal).sender(item.as_str()).build().unwrap();
        let mut signals = MessageStream::for_match_rule(rule, &panel.connection, None).await.unwrap();
        let before = layout(&panel.connection, &item).await;

        ui.show(&tray("1 of 1 model fits"));
        assert_eq!(members(&mut signals).await, [""; 0]);

        let mut changed = tray("0 of 1 model fit");
        let Row::Submenu { rows, .. } = &mut changed.rows[2] else { panic!() };
        let Row::Item { text, .. } = &mut rows[0] else { panic!() };
        *text = "R&D_model, too large".into();
        ui.show(&changed);
        let sent = members(&mut signals).await;
        assert!(sent.iter().any(|member| member == "ItemsPropertiesUpdated"), "{sent:?}");
        assert!(!sent.iter().any(|member| member == "LayoutUpdated" || member == "NewIcon"), "{sent:?}");
        let after = layout(&panel.connection, &item).await;
        assert_eq!(after[0].label, "0 of 1 model fit");
        assert_eq!(after[3].label, "R&D__model, too large");
        assert_eq!(ids(&before), ids(&after), "rows keep their places while a menu is open");

        changed.rows.push(Row::Text("more".into()));
        changed.icon = Icon::Paused;
        ui.show(&changed);
        let sent = members(&mut signals).await;
        assert!(sent.iter().any(|member| member == "LayoutUpdated"), "{sent:?}");
        assert!(sent.iter().any(|member| member == "NewIcon"), "{sent:?}");
        assert_eq!(layout(&panel.connection, &item).await.last().unwrap().label, "more");
    });
}

#[test]
fn the_icon_comes_back_with_the_bus() {
    alone(async || {
        let mut ui = Ui::start(&tray("first"));
        let problem = part_state(&mut ui.inbox, "tray").await.unwrap();
        assert!(problem.message.starts_with("no session bus"), "{}", problem.message);

        let bus = Bus::start().await;
        let mut panel = panel().await;
        registered(&mut panel).await;
        assert_eq!(part_state(&mut ui.inbox, "tray").await, None);
        drop(bus);
        let problem = part_state(&mut ui.inbox, "tray").await.unwrap();
        assert_eq!(problem.message, "the session bus is gone");
        let woken = wakes(Duration::from_secs(2)).await;
        assert!(woken <= 20, "{woken} context switches in 2 s without a bus");

        ui.show(&tray("second"));
        let _bus = Bus::start().await;
        let mut panel = self::panel().await;
        let item = registered(&mut panel).await;
        assert_eq!(layout(&panel.connection, &item).await[0].label, "second");
    });
}

#[test]
fn quitting_takes_the_icon_away() {
    alone(async || {
        let _bus = Bus::start().await;
        let mut panel = panel().await;
        let ui = Ui::start(&tray("x"));
        let item = registered(&mut panel).await;
        ui.quit().await;
        let answer = panel.connection.call_method(
            Some("org.freedesktop.DBus"),
            "/org/freedesktop/DBus",
            Some("org.freedesktop.DBus"),
            "NameHasOwner",
            &item,
        );
        assert!(!answer.await.unwrap().body().deserialize::<bool>().unwrap());
    });
}

#[test]
fn a_panel_that_hangs_does_not_hold_up_the_end() {
    alone(async || {
        let _bus = Bus::start().await;
        let mut panel = Service::start(WATCHER, |message| match member_of(message).as_str() {
            "Get" => Answer::Flag(true),
            _ => Answer::Never,
        })
        .await;
        let ui = Ui::start(&tray("x"));
        panel.call("RegisterStatusNotifierItem").await;
        ui.quit().await;
    });
}

#[test]
fn an_icon_that_shows_nothing_new_sleeps() {
    alone(async || {
        let _bus = Bus::start().await;
        let mut panel = panel().await;
        let _ui = Ui::start(&tray("x"));
        registered(&mut panel).await;
        // The start's own threads come to rest first.
        sleep(Duration::from_secs(2)).await;
        let woken = wakes(Duration::from_secs(5)).await;
        assert!(woken <= 5, "{woken} context switches in 5 s with nothing to do");
    });
}

/// The main thread's part, on a thread of its own.
struct Ui {
    inbox: Inbox,
    messages: Sender<UiMessage>,
    thread: JoinHandle<()>,
}

impl Ui {
    fn start(tray: &Tray) -> Ui {
        let (events, inbox) = channel();
        let (messages, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || run_ui(receiver, events));
        let ui = Ui { inbox, messages, thread };
        ui.show(tray);
        ui
    }

    fn show(&self, tray: &Tray) {
        self.messages.send(UiMessage::Show(Box::new(tray.clone()))).unwrap();
    }

    /// Says quit and waits until the main thread is free.
    async fn quit(self) {
        self.messages.send(UiMessage::Quit).unwrap();
        let start = Instant::now();
        while !self.thread.is_finished() {
            assert!(start.elapsed() < Duration::from_secs(4), "the main thread does not come back");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A row as the panel sees it.
#[derive(Debug)]
struct Seen {
    id: i32,
    label: String,
    enabled: bool,
}

/// Starts a stand-in for a panel with a tray.
async fn panel() -> Service {
    Service::start(WATCHER, |message| match member_of(message).as_str() {
        "Get" => Answer::Flag(true),
        _ => Answer::Nothing,
    })
    .await
}

/// Waits for an item to register; returns its name on the bus.
async fn registered(panel: &mut Service) -> String {
    panel.call("RegisterStatusNotifierItem").await.body().deserialize().unwrap()
}

async fn chosen(inbox: &mut Inbox) -> Action {
    event(inbox, |event| match event {
        Event::Chosen(action) => Some(action),
        _ => None,
    })
    .await
}

async fn property(connection: &Connection, item: &str, name: &str) -> Variant<'static> {
    let answer =
        call(connection, item, "/StatusNotifierItem", "org.freedesktop.DBus.Properties", "Get", &(ITEM, name)).await;
    answer.body().deserialize::<OwnedVariant>().unwrap().into()
}

async fn click(connection: &Connection, item: &str, id: i32) {
    let body = (id, "clicked", Variant::from(0), 0_u32);
    call(connection, item, "/MenuBar", MENU, "Event", &body).await;
}

/// Reads the whole menu, every row after the one that opens it.
async fn layout(connection: &Connection, item: &str) -> Vec<Seen> {
    type Node = (i32, HashMap<String, OwnedVariant>, Vec<OwnedVariant>);
    let answer = call(connection, item, "/MenuBar", MENU, "GetLayout", &(0, -1, Vec::<String>::new())).await;
    let (_, (_, _, rows)): (u32, Node) = answer.body().deserialize().unwrap();
    let mut seen = Vec::new();
    for row in &rows {
        read(row, &mut seen);
    }
    seen
}

fn read(row: &Variant<'_>, seen: &mut Vec<Seen>) {
    let Variant::Structure(row) = row else { panic!("{row:?}") };
    let [Variant::I32(id), Variant::Dict(properties), Variant::Array(rows)] = row.fields() else { panic!("{row:?}") };
    let property = |name: &str| properties.iter().find(|(key, _)| **key == Variant::from(name)).map(|(_, value)| value);
    let label = match property("label") {
        Some(Variant::Variant(label)) => match &**label {
            Variant::Str(label) => label.to_string(),
            other => panic!("{other:?}"),
        },
        _ => String::new(),
    };
    let enabled = property("enabled") != Some(&Variant::Variant(Box::new(Variant::Bool(false))));
    seen.push(Seen { id: *id, label, enabled });
    for row in rows.inner() {
        let Variant::Variant(row) = row else { panic!("{row:?}") };
        read(row, seen);
    }
}

async fn call<B>(connection: &Connection, item: &str, path: &str, interface: &str, member: &str, body: &B) -> Message
where
    B: serde::Serialize + zbus::DynamicType,
{
    let call = connection.call_method(Some(item), path, Some(interface), member, body);
    timeout(SOON, call).await.expect("the item does not answer").unwrap()
}

/// Returns the members of the signals sent until it is quiet.
async fn members(signals: &mut MessageStream) -> Vec<String> {
    let mut members = Vec::new();
    while let Ok(Some(Ok(message))) = timeout(QUIET, next(signals)).await {
        members.push(member_of(&message));
    }
    members
}

fn ids(rows: &[Seen]) -> Vec<i32> {
    rows.iter().map(|row| row.id).collect()
}

fn text(value: &Variant<'_>) -> String {
    let Variant::Str(text) = value else { panic!("{value:?}") };
    text.to_string()
}

/// Returns how often this process's threads are woken in a while, the test's own left out.
async fn wakes(time: Duration) -> u64 {
    let before = switches();
    sleep(time).await;
    let count = |(thread, after): (String, u64)| after - before.get(&thread).copied().unwrap_or(0).min(after);
    switches().into_iter().map(count).sum()
}

/// Returns how often each thread was woken so far.
fn switches() -> HashMap<String, u64> {
    let mut switches = HashMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap();
        let Ok(status) = std::fs::read_to_string(task.path().join("status")) else { continue };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        // The test's own thread is named after the test, cut to 15 characters.
        if !field("Name:").unwrap().starts_with("icon::") {
            let count = field("voluntary_ctxt_switches:").unwrap().parse().unwrap();
            switches.insert(task.file_name().to_string_lossy().into_owned(), count);
        }
    }
    switches
}

/// Returns a small tray with one submenu.
fn tray(status: &str) -> Tray {
    let row = Row::Item { text: "R&D_model".into(), action: Action::ShowModel(ModelId("lab/R&D_model".into())) };
    Tray {
        icon: Icon::Ready,
        tooltip: status.into(),
        rows: vec![
            Row::Text(status.into()),
            Row::Separator,
            Row::Submenu { text: "Fits (1)".into(), rows: vec![row] },
            Row::Item { text: "Quit".into(), action: Action::Quit },
        ],
    }
}
