//! The engine on a made-up machine.

mod day;
mod loaded;
mod world;

use std::time::Duration;

use super::*;
use crate::config::{Config, NotificationConfig};
use crate::fit::Verdict;
use crate::library::{Listing, RootState};
use crate::lmstudio::{LoadSettings, SettingsBasis};
use crate::report::{Problem, StateReport};
use world::{World, cut, model};

const GB: u64 = 1_000_000_000;

#[test]
fn a_model_that_lies_there_at_the_start_is_judged_at_once_and_is_no_news() {
    let mut world = World::new(loud());
    world.write("a/b/small.gguf", model(8));
    world.pass(Span(200));
    assert_eq!(world.verdicts(), [("small".into(), Some(Verdict::FullGpu))]);
    world.pass(Span::minutes(5));
    assert!(world.notices.is_empty(), "{:?}", world.notices);
}

#[test]
fn the_first_full_menu_is_shown_as_soon_as_everything_was_read() {
    let mut world = World::new(loud());
    let begun = world.now;
    world.write("a/b/small.gguf", model(8));
    world.pass(Span::seconds(1));
    let (shown, _) = world.trays.iter().find(|(_, tray)| tray.tooltip.starts_with("1 of 1 model")).unwrap();
    assert!(shown.since(begun) < SHOW_GAP, "{:?}", shown.since(begun));
}

#[test]
fn a_model_dropped_in_appears_by_itself() {
    let mut world = started(loud());
    let dropped = world.now;
    world.write("a/b/small.gguf", model(8));
    world.pass(Span::seconds(10));
    let (shown, _) = world.trays.iter().find(|(_, tray)| format!("{tray:?}").contains("small")).unwrap();
    assert!(shown.since(dropped) <= Span::seconds(2), "{:?}", shown.since(dropped));
    assert_eq!(world.verdicts(), [("small".into(), Some(Verdict::FullGpu))]);
    assert_eq!(world.notices.len(), 1, "{}", world.timeline);
    assert!(world.notices[0].1.title.contains("small"), "{:?}", world.notices);
}

#[test]
fn a_growing_file_is_not_judged() {
    let mut world = started(loud());
    for _ in 0..120 {
        world.write("a/b/big.gguf", cut());
        world.pass(Span(500));
        assert!(world.verdicts().iter().all(|(_, verdict)| verdict.is_none()), "{}", world.timeline);
    }
    world.write("a/b/big.gguf", model(8));
    world.pass(Span::seconds(3));
    assert_eq!(world.verdicts(), [("big".into(), Some(Verdict::FullGpu))]);
    world.pass(Span::seconds(10));
    assert_eq!(world.notices.len(), 1, "one notice for the whole download: {}", world.timeline);
}

#[test]
fn a_model_that_no_longer_fits_is_said_once_with_its_cause_and_taken_back() {
    let mut world = with_models(loud(), &[("a/b/large.gguf", 32)]);
    world.set_gpu_free(6 * GB);
    world.pass(Span::minutes(2));
    assert_eq!(world.verdicts()[0].1, Some(Verdict::PartialGpu));
    assert_eq!(world.notices.len(), 1, "{}", world.timeline);
    let notice = world.notices[0].1.clone();
    assert!(notice.title.contains("large") && notice.body.contains("17.0 GB"), "{notice:?}");
    world.set_gpu_free(23 * GB);
    world.pass(Span::minutes(2));
    assert_eq!(world.verdicts()[0].1, Some(Verdict::FullGpu));
    assert_eq!(world.closed, [notice.topic]);
    assert_eq!(world.notices.len(), 1, "{}", world.timeline);
}

#[test]
fn nothing_is_said_without_being_asked_for() {
    let mut world = with_models(Config::default(), &[("a/b/large.gguf", 32)]);
    world.write("a/b/small.gguf", model(8));
    world.set_gpu_free(8 * GB);
    world.pass(Span::minutes(60));
    assert!(world.notices.is_empty(), "{:?}", world.notices);
    assert_eq!(world.verdicts()[0].1, Some(Verdict::PartialGpu));
}

#[test]
fn a_paused_engine_says_nothing_and_the_menu_says_so() {
    let mut world = with_models(loud(), &[("a/b/large.gguf", 32)]);
    world.send(Event::Chosen(Action::Pause(Duration::from_hours(1))));
    world.pass(Span::seconds(30));
    assert_eq!(world.report().alerts.paused_for, Some(Span::minutes(60)));
    world.set_gpu_free(6 * GB);
    world.pass(Span::minutes(30));
    assert!(world.notices.is_empty(), "{}", world.timeline);
}

#[test]
fn a_quiet_day_costs_at_most_two_wakes_a_minute() {
    let mut world = with_models(loud(), &[("a/b/one.gguf", 8), ("a/b/two.gguf", 16)]);
    world.pass(Span::minutes(10));
    let (wakes, trays) = (world.wakes, world.trays.len());
    world.pass(Span::minutes(24 * 60));
    let wakes = world.wakes - wakes;
    assert!(wakes <= 2 * 24 * 60, "{wakes} wakes in a day");
    assert!(wakes > 60, "it does look now and then: {wakes}");
    assert_eq!(world.trays.len(), trays, "equal trays are not shown again");
}

#[test]
fn saved_settings_change_the_verdict() {
    let mut world = with_models(loud(), &[("a/b/large.gguf", 32)]);
    assert_eq!(world.verdicts()[0].1, Some(Verdict::FullGpu));
    let saved = LoadSettings { context_length: Some(131_072), ..LoadSettings::default() };
    world.lm_studio.saved.insert("a/b/large.gguf".into(), saved);
    world.send(Event::LmStudioChanged);
    world.pass(Span::seconds(1));
    let report = world.report();
    let settings = report.models[0].settings.as_ref().unwrap();
    assert_eq!((settings.basis, settings.settings.context), (SettingsBasis::Saved, 131_072));
    assert_eq!(world.verdicts()[0].1, Some(Verdict::PartialGpu));
}

#[test]
fn a_rejected_config_leaves_the_old_one_in_force_and_says_so() {
    let mut config = loud();
    config.fit.gpu_margin = crate::units::Bytes(20 * GB);
    let mut world = with_models(config, &[("a/b/large.gguf", 32)]);
    assert_eq!(world.verdicts()[0].1, Some(Verdict::PartialGpu), "the margin counts");
    let problem = Problem { part: "config".into(), message: "line 3: no".into(), hint: None };
    world.send(Event::ConfigRejected { problem: problem.clone() });
    world.pass(Span::seconds(1));
    assert_eq!(world.report().problems, [problem]);
    assert_eq!(world.verdicts()[0].1, Some(Verdict::PartialGpu));
    world.send(Event::ConfigRead { config: loud(), warnings: Vec::new() });
    world.pass(Span::seconds(1));
    assert!(world.report().problems.is_empty());
    assert_eq!(world.verdicts()[0].1, Some(Verdict::FullGpu));
    assert!(world.notices.is_empty(), "a new margin makes no new models: {}", world.timeline);
}

#[test]
fn a_missing_notification_server_is_a_problem_only_where_notifications_are_wanted() {
    let problem = Problem { part: "notifications".into(), message: "no server".into(), hint: None };
    let mut world = started(Config::default());
    world.send(Event::PartChanged { part: "notifications", problem: Some(problem.clone()) });
    let report = world.report();
    assert_eq!((report.notes.as_slice(), report.problems.len()), ([problem.clone()].as_slice(), 0));
    world.send(Event::ConfigRead { config: loud(), warnings: Vec::new() });
    let report = world.report();
    assert_eq!((report.notes.len(), report.problems.as_slice()), (0, [problem].as_slice()));
}

#[test]
fn what_a_walk_cannot_enter_is_a_problem_until_it_can() {
    let mut world = started(loud());
    let walk = |notes: &[&str]| {
        let notes = notes.iter().map(|note| (*note).to_owned()).collect();
        let (root, under) = (world::ROOT.into(), world::ROOT.into());
        Event::Listed(Listing { root, under, state: RootState::Present, files: Vec::new(), notes })
    };
    world.send(walk(&["cannot read the folder /models/a", "cannot read the folder /models/b"]));
    let problems = world.report().problems;
    assert_eq!(problems[0].part, "library");
    assert_eq!(problems[0].message, "cannot read the folder /models/a (and 1 more)");
    world.send(walk(&[]));
    assert_eq!(world.report().problems, []);
}

#[test]
fn a_recheck_is_answered_when_everything_was_read_anew() {
    let mut world = with_models(loud(), &[("a/b/one.gguf", 8)]);
    assert_eq!(world.ask(7, Request::Recheck), None, "not before it is done");
    world.pass(Span::seconds(2));
    let Some(Reply::Report(report)) = world.replies.remove(&RequestId(7)) else { panic!("no report") };
    assert_eq!(report.models.len(), 1);
    assert!(report.models[0].fit.as_ref().unwrap().largest_context.is_some());
}

#[test]
fn a_model_is_found_by_id_path_name_or_a_part_only_it_has() {
    let mut world = with_models(loud(), &[("a/b/One-Q4.gguf", 2), ("a/b/One-Q8.gguf", 4), ("c/d/Two.gguf", 2)]);
    for asked in ["a/b/One-Q4.gguf", "/models/a/b/One-Q4.gguf", "one-q4", "q4"] {
        let Some(Reply::Detail(detail)) = world.ask(1, Request::Show { model: asked.into() }) else {
            panic!("{asked}")
        };
        assert_eq!(detail.model.name, "One-Q4", "{asked}");
        assert!(detail.bill.is_some());
    }
    for asked in ["one", "three"] {
        let reply = world.ask(1, Request::Show { model: asked.into() });
        let Some(Reply::NoSuchModel { nearest, .. }) = reply else { panic!("{asked}") };
        assert!(!nearest.is_empty());
    }
}

#[test]
fn a_vanished_folder_empties_the_list_and_comes_back() {
    let mut world = with_models(loud(), &[("a/b/one.gguf", 8)]);
    world.set_mounted(false);
    world.send(Event::EverythingDirty);
    world.pass(Span::seconds(5));
    assert!(world.verdicts().is_empty());
    world.set_mounted(true);
    world.pass(Span::minutes(5));
    assert_eq!(world.verdicts().len(), 1, "found again without an event");
}

#[test]
fn headers_of_unchanged_files_are_not_read_again_after_a_restart() {
    let mut world = with_models(loud(), &[("a/b/one.gguf", 8), ("a/b/two.gguf", 8)]);
    assert_eq!(world.headers_read, 2);
    world.send(Event::Asked { id: RequestId(1), request: Request::Quit });
    assert!(world.has_ended);
    let remembered = world.remembered.take().unwrap();
    let mut again = World::remembering(loud(), remembered);
    again.adopt_files(&world);
    again.pass(Span::seconds(1));
    assert_eq!(again.verdicts(), world.verdicts());
    assert_eq!(again.headers_read, 0);
}

#[test]
fn an_unreadable_file_is_listed_with_its_reason() {
    let mut world = started(loud());
    let reason = "not a GGUF file at byte 0".to_owned();
    world.write("a/b/bad.gguf", crate::library::HeaderOutcome::Unreadable { reason: reason.clone() });
    world.pass(Span::seconds(10));
    assert_eq!(world.report().models[0].state, StateReport::Unreadable { reason });
}

#[test]
fn without_any_folder_nothing_is_an_error() {
    let mut world = World::new(loud());
    world.lm_studio.roots.clear();
    world.pass(Span::minutes(10));
    let report = world.report();
    assert!(report.models.is_empty() && report.problems.is_empty() && !report.library.busy, "{report:?}");
    assert!(!world.trays.is_empty(), "the tray says so");
}

#[test]
fn quit_in_the_menu_ends_and_keeps_what_was_learnt() {
    let mut world = with_models(loud(), &[("a/b/one.gguf", 8)]);
    world.send(Event::Chosen(Action::Quit));
    assert!(world.has_ended);
    assert_eq!(world.remembered.unwrap().0.len(), 1);
}

#[test]
fn a_click_on_a_model_shows_its_numbers() {
    let mut world = with_models(Config::default(), &[("a/b/one.gguf", 8)]);
    let id = world.report().models[0].id.clone();
    world.send(Event::Chosen(Action::ShowModel(id)));
    let (_, notice) = &world.notices[0];
    assert!(notice.title.contains("one") && notice.body.contains("RTX 4090"), "{notice:?}");
}

/// Returns a config that wants to hear of everything.
fn loud() -> Config {
    Config { notifications: NotificationConfig { new_model: true, no_longer_fits: true }, ..Config::default() }
}

/// Returns a machine whose first scan is over.
fn started(config: Config) -> World {
    with_models(config, &[])
}

/// Returns a machine that has known these models from its start.
fn with_models(config: Config, models: &[(&str, u32)]) -> World {
    let mut world = World::new(config);
    for (path, blocks) in models {
        world.write(path, model(*blocks));
    }
    world.pass(Span::minutes(2));
    world
}
