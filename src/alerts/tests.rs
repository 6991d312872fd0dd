use proptest::prelude::*;

use super::rates::{GAP, HOUR, PER_HOUR, TOPIC_GAP};
use super::*;
use crate::fit::PoolNeed;
use crate::units::Bytes;

#[test]
fn a_model_that_no_longer_fits_is_said_once_it_has_held() {
    let mut alerts = listening();
    alerts.judged(&id("a"), "a", Some(&full()), &partial(), Some("a game took 9 GB"), at(0));
    assert_eq!(alerts.take_effects(at(9)), []);
    assert_eq!(alerts.deadline(), Some(at(10)));
    let shown = titles(&alerts.take_effects(at(10)));
    assert_eq!(shown, ["a no longer fits fully"]);
    assert_eq!(alerts.deadline(), None);
}

#[test]
fn a_flicker_is_silent() {
    let mut alerts = listening();
    alerts.judged(&id("a"), "a", Some(&full()), &partial(), None, at(0));
    alerts.judged(&id("a"), "a", Some(&partial()), &full(), None, at(5));
    assert_eq!(alerts.deadline(), None);
    assert_eq!(alerts.take_effects(at(100)), []);
}

#[test]
fn a_notice_is_taken_back_when_the_model_fits_again_or_is_gone() {
    let mut alerts = listening();
    for name in ["a", "b"] {
        alerts.judged(&id(name), name, Some(&full()), &partial(), None, at(0));
    }
    assert_eq!(titles(&alerts.take_effects(at(10))), ["2 models no longer fit"]);
    alerts.judged(&id("a"), "a", Some(&partial()), &full(), None, at(20));
    assert_eq!(alerts.take_effects(at(20)), []);
    alerts.forgotten(&id("b"));
    assert_eq!(alerts.take_effects(at(20)), [AlertEffect::Close { topic: NO_LONGER_FITS.into() }]);
    assert_eq!(alerts.take_effects(at(21)), []);
}

#[test]
fn several_models_that_no_longer_fit_share_their_cause() {
    let mut alerts = listening();
    let mut after = partial();
    after.pools[0].available = Bytes::ZERO;
    for name in ["a", "b"] {
        alerts.judged(&id(name), name, Some(&full()), &after, None, at(0));
    }
    let effects = alerts.take_effects(at(10));
    let [AlertEffect::Show(notice)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(notice.body, "RAM has 2 B less free than before. a, b.");
}

#[test]
fn a_machine_that_cannot_be_read_for_a_moment_changes_nothing() {
    let mut alerts = listening();
    alerts.judged(&id("a"), "a", Some(&full()), &judgement(Verdict::Unknown), None, at(0));
    assert_eq!(alerts.deadline(), None);
}

#[test]
fn new_models_are_gathered_into_one_notice() {
    let mut alerts = listening();
    alerts.judged(&id("a"), "a", None, &full(), None, at(0));
    alerts.judged(&id("b"), "b", None, &judgement(Verdict::TooLarge), None, at(1));
    alerts.judged(&id("c"), "c", None, &judgement(Verdict::Unknown), None, at(2));
    alerts.judged(&id("c"), "c", Some(&judgement(Verdict::Unknown)), &full(), None, at(2));
    assert_eq!(titles(&alerts.take_effects(at(3))), ["3 new models: 2 fit"]);
    assert_eq!(alerts.deadline(), None);
}

#[test]
fn nothing_is_said_of_kinds_the_user_did_not_ask_for() {
    let mut alerts = Alerts::default();
    alerts.judged(&id("a"), "a", None, &full(), None, at(0));
    alerts.judged(&id("a"), "a", Some(&full()), &partial(), None, at(0));
    assert_eq!(alerts.deadline(), None);

    let mut alerts = listening();
    alerts.judged(&id("a"), "a", Some(&full()), &partial(), None, at(0));
    alerts.judged(&id("b"), "b", None, &full(), None, at(0));
    alerts.set_levels(NotificationConfig::default());
    assert_eq!(alerts.take_effects(at(100)), []);
}

#[test]
fn nothing_is_said_of_what_the_user_just_did() {
    let mut alerts = listening();
    alerts.user_acted(at(0));
    alerts.judged(&id("a"), "a", Some(&full()), &partial(), None, at(1));
    alerts.judged(&id("b"), "b", None, &full(), None, at(1));
    alerts.say(notice("x"), at(1));
    assert_eq!(alerts.deadline(), None);
    alerts.say(notice("x"), at(6));
    assert_eq!(alerts.deadline(), Some(at(6)));
}

#[test]
fn a_pause_holds_back_and_ends() {
    let mut alerts = listening();
    alerts.pause(Span::minutes(15), at(0));
    assert_eq!(alerts.paused_for(at(60)), Some(Span::minutes(14)));
    alerts.say(notice("x"), at(1));
    assert_eq!(alerts.take_effects(at(899)), []);
    assert_eq!(alerts.deadline(), Some(at(900)));
    assert_eq!(titles(&alerts.take_effects(at(900))), ["x"]);
    assert_eq!(alerts.paused_for(at(900)), None);

    alerts.pause(Span::minutes(15), at(1_000));
    alerts.say(notice("y"), at(1_000));
    alerts.resume();
    assert_eq!(titles(&alerts.take_effects(at(1_000))), ["y"]);
}

#[test]
fn what_is_no_longer_true_is_not_said_after_a_pause() {
    let mut alerts = listening();
    alerts.pause(Span::minutes(15), at(0));
    alerts.say(notice("x"), at(1));
    alerts.withdraw("x");
    assert_eq!(alerts.take_effects(at(2_000)), []);
}

#[test]
fn the_fourth_notice_of_an_hour_waits_for_a_digest() {
    let mut alerts = listening();
    for (second, topic) in [(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e"), (5, "f")] {
        alerts.say(notice(topic), at(second));
    }
    assert_eq!(run(&mut alerts, at(3_599)), [(0, "a".to_owned()), (60, "b".to_owned()), (120, "c".to_owned())]);
    assert_eq!(run(&mut alerts, at(7_200)), [(3_600, "3 notices in the last hour".to_owned())]);
}

#[test]
fn a_single_notice_held_back_is_shown_as_itself() {
    let mut alerts = listening();
    for topic in ["a", "b", "c", "d"] {
        alerts.say(notice(topic), at(0));
    }
    assert_eq!(run(&mut alerts, at(7_200)).last(), Some(&(3_600, "d".to_owned())));
}

#[test]
fn a_topic_waits_ten_minutes_and_shows_its_latest_words() {
    let mut alerts = listening();
    alerts.say(notice("a"), at(0));
    assert_eq!(titles(&alerts.take_effects(at(0))), ["a"]);
    alerts.say(Notice { title: "early".into(), ..notice("a") }, at(70));
    alerts.say(Notice { title: "late".into(), ..notice("a") }, at(80));
    assert_eq!(run(&mut alerts, at(2_000)), [(600, "late".to_owned())]);
}

/// What may happen to alerts.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Say(u8),
    Withdraw(u8),
    Judge { model: u8, before: Option<u8>, after: u8 },
    Forget(u8),
    Pause(u64),
    Resume,
    Act,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..200_u64).prop_map(Step::Wait),
        1 => (200..5_000_u64).prop_map(Step::Wait),
        4 => (0..8_u8).prop_map(Step::Say),
        1 => (0..8_u8).prop_map(Step::Withdraw),
        4 => (0..5_u8, proptest::option::of(0..5_u8), 0..5_u8)
            .prop_map(|(model, before, after)| Step::Judge { model, before, after }),
        1 => (0..5_u8).prop_map(Step::Forget),
        1 => (1..2_000_u64).prop_map(Step::Pause),
        1 => Just(Step::Resume),
        1 => Just(Step::Act),
    ]
}

proptest! {
    // A failure prints its smallest case; what is worth keeping becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rate_rules_hold_for_any_sequence(steps in proptest::collection::vec(step(), 1..150)) {
        let mut alerts = listening();
        let mut now = at(0);
        let mut shown: Vec<(Moment, String)> = Vec::new();
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        for step in steps {
            apply(&mut alerts, &step, &mut wanted, now);
            let until = if let Step::Wait(seconds) = step { now.after(Span::seconds(seconds)) } else { now };
            drain(&mut alerts, &mut now, until, &mut shown, &mut wanted)?;
        }
        // Nothing said and still true is lost: after the last pause every topic is heard.
        let until = now.after(Span::minutes(60 * 24));
        drain(&mut alerts, &mut now, until, &mut shown, &mut wanted)?;
        prop_assert!(wanted.is_empty(), "never said: {wanted:?}");
        prop_assert_eq!(alerts.deadline(), None);
        for (index, (moment, topic)) in shown.iter().enumerate() {
            if let Some((before, _)) = index.checked_sub(1).map(|before| &shown[before]) {
                prop_assert!(moment.since(*before) >= GAP);
            }
            if let Some((first, _)) = index.checked_sub(PER_HOUR).map(|first| &shown[first]) {
                prop_assert!(moment.since(*first) >= HOUR);
            }
            if let Some((before, _)) = shown[..index].iter().rfind(|(_, earlier)| earlier == topic) {
                prop_assert!(moment.since(*before) >= TOPIC_GAP);
            }
        }
    }
}

fn apply(alerts: &mut Alerts, step: &Step, wanted: &mut BTreeSet<String>, now: Moment) {
    let verdicts =
        [Verdict::FullGpu, Verdict::PartialGpu, Verdict::CpuOnly, Verdict::TooLarge, Verdict::Unknown].map(judgement);
    match step {
        Step::Wait(_) => {}
        Step::Say(topic) => {
            if !alerts.is_quiet(now) {
                wanted.insert(topic.to_string());
            }
            alerts.say(notice(&topic.to_string()), now);
        }
        Step::Withdraw(topic) => {
            wanted.remove(&topic.to_string());
            alerts.withdraw(&topic.to_string());
        }
        Step::Judge { model, before, after } => {
            let before = before.map(|before| &verdicts[usize::from(before)]);
            let name = model.to_string();
            alerts.judged(&id(&name), &name, before, &verdicts[usize::from(*after)], None, now);
        }
        Step::Forget(model) => alerts.forgotten(&id(&model.to_string())),
        Step::Pause(seconds) => alerts.pause(Span::seconds(*seconds), now),
        Step::Resume => alerts.resume(),
        Step::Act => alerts.user_acted(now),
    }
}

/// Lets time pass as the engine does: from deadline to deadline.
fn drain(
    alerts: &mut Alerts,
    now: &mut Moment,
    until: Moment,
    shown: &mut Vec<(Moment, String)>,
    wanted: &mut BTreeSet<String>,
) -> Result<(), TestCaseError> {
    loop {
        let paused = alerts.paused_for(*now).is_some();
        let effects = alerts.take_effects(*now);
        for effect in &effects {
            if let AlertEffect::Show(notice) = effect {
                prop_assert!(!paused, "shown while paused: {notice:?}");
                shown.push((*now, notice.topic.clone()));
                wanted.remove(&notice.topic);
                if notice.topic == DIGEST {
                    wanted.retain(|topic| alerts.said.contains_key(topic));
                }
            }
        }
        match alerts.deadline() {
            Some(deadline) if deadline <= *now => {
                prop_assert!(!effects.is_empty(), "the deadline {deadline:?} is in the past and nothing happens");
            }
            Some(deadline) if deadline <= until => *now = deadline,
            _ => break,
        }
    }
    *now = until;
    Ok(())
}

/// Runs from deadline to deadline; returns the second and the title of every notice.
fn run(alerts: &mut Alerts, until: Moment) -> Vec<(u64, String)> {
    let mut shown = Vec::new();
    while let Some(deadline) = alerts.deadline().filter(|deadline| *deadline <= until) {
        for title in titles(&alerts.take_effects(deadline)) {
            shown.push((deadline.0 / 1_000, title));
        }
    }
    shown
}

fn titles(effects: &[AlertEffect]) -> Vec<String> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            AlertEffect::Show(notice) => Some(notice.title.clone()),
            AlertEffect::Close { .. } => None,
        })
        .collect()
}

fn listening() -> Alerts {
    let mut alerts = Alerts::default();
    alerts.set_levels(NotificationConfig { new_model: true, no_longer_fits: true });
    alerts
}

fn id(name: &str) -> ModelId {
    ModelId(name.into())
}

fn at(second: u64) -> Moment {
    Moment(second * 1_000)
}

fn notice(topic: &str) -> Notice {
    Notice { topic: topic.into(), title: topic.into(), body: String::new() }
}

fn full() -> Judgement {
    judgement(Verdict::FullGpu)
}

fn partial() -> Judgement {
    judgement(Verdict::PartialGpu)
}

fn judgement(verdict: Verdict) -> Judgement {
    Judgement {
        verdict,
        gpu_layers: 33,
        layers: 65,
        cpu_moe: 0,
        spare: 1,
        binding: "RAM".into(),
        pools: vec![PoolNeed { name: "RAM".into(), need: Bytes(1), available: Bytes(2) }],
        caveat: None,
    }
}
