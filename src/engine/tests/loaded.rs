//! Loaded models: how they are found, shown and unloaded.

use super::*;
use crate::lmstudio::{Activity, Home, HomeBasis, Unloaded, Whereabouts};
use crate::tray::Row;

/// Returns a machine with LM Studio on it and two models, of 4 GB and of 13 GB.
fn world() -> World {
    let mut world = World::new(loud());
    let home = Home { path: "/home/user/.lmstudio".into(), basis: HomeBasis::Default };
    world.lm_studio.home = Some((home, true));
    world.send(Event::LmStudioChanged);
    world.write("a/b/small.gguf", model(8));
    world.write("a/b/large.gguf", model(30));
    world.pass(Span::minutes(2));
    world
}

/// Returns the rows of the last menu, submenus opened.
fn rows(world: &World) -> Vec<String> {
    fn texts(rows: &[Row], list: &mut Vec<String>) {
        for row in rows {
            match row {
                Row::Text(text) | Row::Item { text, .. } => list.push(text.clone()),
                Row::Submenu { text, rows } => {
                    list.push(text.clone());
                    texts(rows, list);
                }
                Row::Separator => {}
            }
        }
    }
    let mut list = Vec::new();
    texts(&world.trays.last().unwrap().1.rows, &mut list);
    list
}

#[test]
fn a_loaded_model_stands_first_as_soon_as_its_file_was_opened() {
    let mut world = world();
    world.load("small", "a/b/small.gguf", 16_384);
    world.send(Event::ModelOpened);
    world.pass(Span(500));
    let rows = rows(&world);
    let place = |words: &str| rows.iter().position(|row| row.starts_with(words));
    assert_eq!(place("Loaded"), Some(1), "{rows:?}");
    assert!(rows[2].starts_with("small  context 16384 · ") && rows[2].ends_with(" of RTX 4090 · idle"), "{rows:?}");
    assert!(place("Unload").is_some() && place("context 16384").is_some(), "{rows:?}");
}

#[test]
fn without_a_hint_a_loaded_model_is_found_within_half_a_minute() {
    let mut world = world();
    world.load("small", "a/b/small.gguf", 4_096);
    world.pass(Span::seconds(31));
    assert_eq!(world.report().loaded.len(), 1);
}

#[test]
fn while_nothing_is_loaded_asking_wakes_the_machine_no_more_than_sampling_does() {
    let mut world = world();
    world.pass(Span::minutes(10));
    let (asks, wakes) = (world.asks, world.wakes);
    world.pass(Span::minutes(60));
    assert!(world.asks - asks <= 122, "{} times", world.asks - asks);
    assert!(world.wakes - wakes <= 122, "{} wakes", world.wakes - wakes);
}

#[test]
fn a_loaded_model_may_have_what_it_holds_itself() {
    let mut world = world();
    world.load("large", "a/b/large.gguf", 4_096);
    world.set_gpu_free(9 * GB);
    world.pass(Span::minutes(1));
    assert_eq!(world.verdicts()[0], ("large".into(), Some(Verdict::FullGpu)), "it is there as a whole");
    world.set_rows(Vec::new());
    world.pass(Span::minutes(1));
    assert_eq!(world.verdicts()[0].1, Some(Verdict::PartialGpu), "somebody else holds the memory");
}

#[test]
fn another_model_says_without_which_it_would_fit() {
    let mut world = world();
    world.load("one", "a/b/small.gguf", 4_096);
    world.load("two", "a/b/small.gguf", 8_192);
    world.set_gpu_free(13 * GB);
    world.pass(Span::minutes(1));
    let report = world.report();
    let large = report.models.iter().find(|model| model.name == "large").unwrap();
    let fit = large.fit.as_ref().unwrap();
    assert_eq!(fit.now.verdict, Verdict::PartialGpu);
    let unloaded = fit.if_unloaded.as_ref().unwrap();
    assert_eq!((unloaded.instances.as_slice(), unloaded.verdict), (&["one".to_owned()][..], Verdict::FullGpu));
    assert!(rows(&world).iter().any(|row| row.contains("fits fully without one")), "{:?}", rows(&world));
}

#[test]
fn an_instance_that_is_gone_is_unloaded_and_no_problem() {
    let mut world = world();
    world.load("small", "a/b/small.gguf", 4_096);
    world.pass(Span::minutes(1));
    let notices = world.notices.len();
    world.set_rows(Vec::new());
    world.pass(Span::minutes(1));
    let report = world.report();
    assert!(report.loaded.is_empty() && report.problems.is_empty() && report.loaded_unknown.is_none());
    assert_eq!(world.notices.len(), notices);
}

#[test]
fn a_click_unloads_and_says_what_became_of_it() {
    let mut world = world();
    world.load("small", "a/b/small.gguf", 4_096);
    world.pass(Span::minutes(1));
    world.send(Event::Chosen(Action::Unload("small".into())));
    world.pass(Span::seconds(3));
    assert_eq!(world.unloads, ["small"]);
    assert!(world.report().loaded.is_empty(), "asked again at once");
    assert_eq!(world.notices.last().unwrap().1.title, "small is unloaded");
}

#[test]
fn a_request_unloads_the_instance_that_is_meant_and_no_other() {
    let mut world = world();
    world.load("qwen3-8b", "a/b/small.gguf", 4_096);
    world.load("qwen3-8b:2", "a/b/small.gguf", 8_192);
    world.pass(Span::minutes(1));
    let unload = |instance: &str| Request::Unload { instance: instance.into() };
    let loaded = vec!["qwen3-8b".to_owned(), "qwen3-8b:2".to_owned()];
    let refused = Some(Reply::NoSuchInstance { asked: "qwen".into(), loaded: loaded.clone() });
    assert_eq!(world.ask(1, unload("qwen")), refused, "two could be meant");
    assert_eq!(world.ask(2, unload("")), Some(Reply::NoSuchInstance { asked: String::new(), loaded }));
    assert_eq!(world.ask(3, unload("b:2")), None, "not before LM Studio has answered");
    world.pass(Span::seconds(1));
    let done = Reply::Unloaded { instance: "qwen3-8b:2".into(), outcome: Unloaded::Done };
    assert_eq!(world.replies.remove(&RequestId(3)), Some(done));
    assert_eq!(world.unloads, ["qwen3-8b:2"]);
    assert_eq!(world.report().loaded.len(), 1);
}

#[test]
fn what_runs_elsewhere_is_shown_and_neither_judged_nor_unloaded() {
    let mut world = world();
    world.load("small", "a/b/small.gguf", 4_096);
    let mut rows = world.rows();
    rows[0].device = Some("c0ffee".into());
    world.set_rows(rows);
    world.pass(Span::minutes(1));
    let report = world.report();
    assert_eq!(report.loaded[0].whereabouts, Whereabouts::Elsewhere("c0ffee".into()));
    assert!(report.loaded[0].needs.is_empty() && !report.loaded[0].can_unload);
    let reply = world.ask(1, Request::Unload { instance: "small".into() });
    assert!(matches!(reply, Some(Reply::Unloaded { outcome: Unloaded::Failed { .. }, .. })), "{reply:?}");
    assert!(world.unloads.is_empty());
}

#[test]
fn a_config_that_says_so_keeps_fitwatch_from_asking_and_unloading() {
    let mut world = world();
    world.load("small", "a/b/small.gguf", 4_096);
    world.pass(Span::minutes(1));
    let mut config = loud();
    config.lm_studio.ask = false;
    world.send(Event::ConfigRead { config, warnings: Vec::new() });
    let reply = world.ask(1, Request::Unload { instance: "small".into() });
    assert!(matches!(reply, Some(Reply::Unloaded { outcome: Unloaded::Failed { .. }, .. })), "{reply:?}");
    assert!(world.unloads.is_empty());
}

#[test]
fn a_working_model_is_followed_and_the_menu_changes_with_it() {
    let mut world = world();
    world.load("small", "a/b/small.gguf", 4_096);
    world.pass(Span::minutes(1));
    let mut rows = world.rows();
    rows[0].activity = Some(Activity::Generating);
    world.set_rows(rows);
    world.pass(Span::seconds(6));
    assert!(self::rows(&world)[2].ends_with("generating"), "{:?}", self::rows(&world));
}
