//! Notifications, as a notification server sees them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fitwatch::alerts::Notice;
use fitwatch::host::events::channel;
use fitwatch::host::notifications::Notifier;
use zbus::{Message, OwnedVariant};

use crate::bus::{Answer, Bus, Service, alone, member_of, part_state};

const SERVER: &str = "org.freedesktop.Notifications";

/// The body of a `Notify` call.
type Notify = (String, u32, String, String, String, Vec<String>, std::collections::HashMap<String, OwnedVariant>, i32);

#[test]
fn a_notice_is_shown_replaced_and_taken_back() {
    alone(async || {
        let _bus = Bus::start().await;
        let mut server = server(&["body"]).await;
        let (events, mut inbox) = channel();
        let notifier = Notifier::spawn(events);
        assert_eq!(part_state(&mut inbox, "notifications").await, None);

        notifier.show(notice("a", "first"));
        let (name, replaced, _, title, body, _, hints, _) = shown(&mut server).await;
        assert_eq!((name.as_str(), replaced, title.as_str()), ("fitwatch", 0, "first"));
        assert_eq!(body, "a <b> & c");
        assert_eq!(zbus::Variant::from(hints["desktop-entry"].clone()), zbus::Variant::from("fitwatch"));
        assert_eq!(zbus::Variant::from(hints["urgency"].clone()), zbus::Variant::from(1_u8));

        notifier.show(notice("b", "other topic"));
        assert_eq!(shown(&mut server).await.1, 0);
        notifier.show(notice("a", "second"));
        assert_eq!(shown(&mut server).await.1, 1, "the notice of the same topic is replaced by its id");

        notifier.close("a");
        let closed: u32 = server.call("CloseNotification").await.body().deserialize().unwrap();
        assert_eq!(closed, 3);
        notifier.close("a");
        server.no_call("CloseNotification").await;
    });
}

#[test]
fn markup_is_escaped_where_the_server_reads_it() {
    alone(async || {
        let _bus = Bus::start().await;
        let mut server = server(&["body", "body-markup"]).await;
        let (events, _inbox) = channel();
        let notifier = Notifier::spawn(events);
        notifier.show(notice("a", "x"));
        assert_eq!(shown(&mut server).await.4, "a &lt;b&gt; &amp; c");
    });
}

#[test]
fn a_server_that_hangs_is_a_problem_until_it_answers() {
    alone(async || {
        let _bus = Bus::start().await;
        let hangs = Arc::new(AtomicBool::new(true));
        let is_hanging = Arc::clone(&hangs);
        let mut server = Service::start(SERVER, move |message| match member_of(message).as_str() {
            "GetCapabilities" => Answer::Texts(vec![]),
            _ if is_hanging.load(Ordering::Relaxed) => Answer::Never,
            _ => Answer::Number(1),
        })
        .await;
        let (events, mut inbox) = channel();
        let notifier = Notifier::spawn(events);
        assert_eq!(part_state(&mut inbox, "notifications").await, None);

        let start = Instant::now();
        notifier.show(notice("a", "lost"));
        notifier.show(notice("b", "early"));
        notifier.show(notice("b", "late"));
        assert!(start.elapsed() < Duration::from_millis(50), "the caller waits");
        assert_eq!(shown(&mut server).await.3, "lost");
        let problem = part_state(&mut inbox, "notifications").await.unwrap();
        assert_eq!(problem.message, "the notification server does not answer");
        assert!(problem.hint.is_some());

        hangs.store(false, Ordering::Relaxed);
        assert_eq!(shown(&mut server).await.3, "late", "of one topic only the last is shown");
        assert_eq!(part_state(&mut inbox, "notifications").await, None);
    });
}

#[test]
fn a_server_that_comes_late_is_used() {
    alone(async || {
        let _bus = Bus::start().await;
        let (events, mut inbox) = channel();
        let notifier = Notifier::spawn(events);
        let problem = part_state(&mut inbox, "notifications").await.unwrap();
        assert_eq!(problem.message, "no notification server on this desktop");

        let mut server = server(&[]).await;
        assert_eq!(part_state(&mut inbox, "notifications").await, None);
        notifier.show(notice("a", "x"));
        assert_eq!(shown(&mut server).await.3, "x");
        server.stop().await;
        assert!(part_state(&mut inbox, "notifications").await.is_some());
    });
}

#[test]
fn without_a_bus_the_next_notice_tries_again() {
    alone(async || {
        let (events, mut inbox) = channel();
        let notifier = Notifier::spawn(events);
        let problem = part_state(&mut inbox, "notifications").await.unwrap();
        assert!(problem.message.starts_with("no session bus"), "{}", problem.message);
        notifier.show(notice("a", "lost"));

        let _bus = Bus::start().await;
        let mut server = server(&[]).await;
        notifier.show(notice("a", "heard"));
        while shown(&mut server).await.3 != "heard" {}
    });
}

#[test]
fn open_notices_hold_few_connections() {
    alone(async || {
        let _bus = Bus::start().await;
        let mut server = server(&[]).await;
        let (events, _inbox) = channel();
        let notifier = Notifier::spawn(events);
        for number in 0..8 {
            notifier.show(notice(&number.to_string(), "x"));
            shown(&mut server).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let bus = zbus::fdo::DBusProxy::new(&server.connection).await.unwrap();
        let names = bus.list_names().await.unwrap();
        let connections = names.iter().filter(|name| name.as_str().starts_with(':')).count();
        // This test's own, the notifier's watch and three open notices.
        assert!(connections <= 5, "{connections} connections: {names:?}");
    });
}

/// Starts a notification server that numbers its notices from 1.
async fn server(capabilities: &'static [&'static str]) -> Service {
    let last = AtomicU32::new(0);
    Service::start(SERVER, move |message| match member_of(message).as_str() {
        "GetCapabilities" => Answer::Texts(capabilities.to_vec()),
        "Notify" => Answer::Number(last.fetch_add(1, Ordering::Relaxed) + 1),
        _ => Answer::Nothing,
    })
    .await
}

async fn shown(server: &mut Service) -> Notify {
    let call: Message = server.call("Notify").await;
    call.body().deserialize().unwrap()
}

fn notice(topic: &str, title: &str) -> Notice {
    Notice { topic: topic.into(), title: title.into(), body: "a <b> & c".into() }
}
