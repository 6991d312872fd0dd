//! Asking the stand-in LM Studio, which the official clients take for a real one, while everything
//! goes wrong that can.
//!
//! What holds whatever happens: a round ends in time, only reads, and never tells of other instances
//! than there are. Where it cannot know, it says that.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use fitwatch::host::lmstudio::{Asker, Limits};
use fitwatch::lmstudio::{Activity, ApiToken, Ask, LoadedKind, LoadedModel, Round, Said, Unloaded};
use fitwatch::units::Span;
use lmstudio_stand_in::{Authorization, DEAD_PID, Fault, Instance, Nature, Port, Scenario, StandIn, Trouble};

use super::*;

const TOKEN: &str = "sk-lm-Ab3dEf7h:0123456789abcdefghij";

/// All that a round may take with these limits: discovery, both websockets, REST of both versions.
const LONGEST_ROUND: Duration = Duration::from_secs(5);

/// Short ones, and no port that a real LM Studio may have.
fn limits() -> Limits {
    Limits {
        ports: Vec::new(),
        probe: Duration::from_millis(250),
        answer: Duration::from_millis(350),
        estimate: Duration::from_millis(350),
        unload: Duration::from_millis(350),
        pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(50),
    }
}

/// The stand-in and who asks it.
struct Desk {
    stand_in: StandIn,
    asker: Asker,
}

impl Desk {
    fn new(scenario: Scenario) -> Desk {
        Desk { stand_in: StandIn::start(scenario), asker: Asker::within(limits(), None) }
    }

    fn with_token(scenario: Scenario) -> Desk {
        Desk { stand_in: StandIn::start(scenario), asker: Asker::within(limits(), ApiToken::parse(TOKEN)) }
    }

    fn ask(&self) -> Ask {
        Ask { home: self.stand_in.home.clone(), ..Ask::default() }
    }

    /// Asks, and checks what holds of every round.
    async fn round(&mut self) -> Round {
        let (ask, began) = (self.ask(), Instant::now());
        let round = self.asker.round(&ask).await;
        let took = began.elapsed();
        assert!(took < LONGEST_ROUND, "a round took {took:?}");
        assert_eq!(self.stand_in.not_reading(), [], "a round only reads");
        for said in [&round.socket, &round.rest] {
            if let Said::Is(models) = said {
                assert_eq!(identifiers(models), self.loaded(), "{round:?}");
            }
            if let Said::Failed(reason) = said {
                assert!(!reason.is_empty());
            }
        }
        round
    }

    /// Lets the pauses pass after what failed, and asks until the websocket has been heard.
    async fn recovered(&mut self) -> Round {
        let mut round = self.round().await;
        for _ in 0..20 {
            if matches!(round.socket, Said::Is(_)) && round.rest == Said::NotAsked {
                break;
            }
            tokio::time::sleep(limits().longest_pause).await;
            round = self.round().await;
        }
        round
    }

    fn loaded(&self) -> Vec<String> {
        let mut loaded: Vec<String> =
            self.stand_in.scenario().loaded.iter().map(|instance| instance.identifier.clone()).collect();
        loaded.sort();
        loaded
    }

    /// Checks a round's whole story against the scenario.
    fn tells_all(&self, round: &Round) {
        let Said::Is(models) = &round.socket else { panic!("{round:?}") };
        assert_eq!(round.rest, Said::NotAsked);
        assert_eq!(identifiers(models), self.loaded());
        let scenario = self.stand_in.scenario();
        for instance in &scenario.loaded {
            let told = models.iter().find(|model| model.identifier == instance.identifier).unwrap();
            let model = scenario.models.iter().find(|model| model.model_key == instance.model_key).unwrap();
            assert_eq!(told.key.as_deref(), Some(model.model_key.as_str()));
            assert_eq!(told.name.as_deref(), Some(model.display_name.as_str()));
            assert_eq!(told.path.as_deref(), Some(model.path.as_str()));
            assert_eq!(told.format.as_deref(), Some(model.format.as_str()));
            assert_eq!(told.architecture, model.architecture);
            assert_eq!(told.quantisation.as_ref(), model.quantization.as_ref().map(|one| &one.name));
            assert_eq!(told.bytes, Some(Bytes(model.size_bytes)));
            assert_eq!(told.context, Some(instance.context_length));
            assert_eq!(told.ttl, instance.ttl_ms.map(Span));
            assert_eq!(told.last_used_ms, instance.last_used_time);
            let is_llm = model.r#type == "llm";
            assert_eq!(told.kind, Some(if is_llm { LoadedKind::Language } else { LoadedKind::Embedding }));
            assert_eq!(told.device, instance.device_identifier);
            if told.device.is_none() {
                assert_eq!(told.activity, activity(&instance.status));
                assert_eq!(told.load, load(instance));
            }
        }
    }
}

fn identifiers(models: &[LoadedModel]) -> Vec<String> {
    let mut identifiers: Vec<String> = models.iter().map(|model| model.identifier.clone()).collect();
    identifiers.sort();
    identifiers
}

fn activity(status: &str) -> Option<Activity> {
    Some(match status {
        "idle" => Activity::Idle,
        "processingPrompt" => Activity::ProcessingPrompt,
        "generating" => Activity::Generating,
        other => Activity::Other(other.to_owned()),
    })
}

/// Reads an instance's settings as the file of a model's settings is read: that reader has its own tests.
fn load(instance: &Instance) -> LoadSettings {
    let mut wanted = json!(instance.load_config);
    if wanted.as_array().unwrap().is_empty() {
        wanted = json!([{ "key": "llm.load.contextLength", "value": instance.context_length }]);
    }
    fields(&wanted)
}

fn everyday() -> Scenario {
    Scenario::named("everyday")
}

/// Everything that can go wrong with an answer; none of them is a well-formed lie.
fn troubles() -> Vec<Trouble> {
    vec![
        Trouble::Delay { ms: 100 },
        Trouble::Delay { ms: 2_000 },
        Trouble::Hang,
        Trouble::Reset,
        Trouble::Close,
        Trouble::Half,
        Trouble::HalfThenHang,
        Trouble::Garbage,
        Trouble::Padded { bytes: 5_000_000 },
        Trouble::Endless,
        Trouble::Answer { status: 200, body: json!({ "error": "Unexpected endpoint or method. (GET /x)" }) },
        Trouble::Answer { status: 500, body: json!("<html>busy</html>") },
        Trouble::Answer { status: 200, body: json!(null) },
        Trouble::Redirect { to: "http://127.0.0.1:9/".into() },
        Trouble::Raw { text: "SSH-2.0-OpenSSH_9.6\r\n".into() },
        Trouble::Error { title: "Model is unloaded.".into() },
        Trouble::Astray,
    ]
}

#[tokio::test]
async fn every_kind_of_instance_is_told_with_all_its_settings() {
    let mut desk = Desk::new(Scenario::named("many-loaded"));
    let round = desk.round().await;
    desk.tells_all(&round);
    let backend = round.backend.unwrap();
    assert_eq!((backend.version.as_deref(), backend.pid), (Some("0.4.25"), Some(std::process::id())));
    let ports = (desk.stand_in.internal_port, desk.stand_in.user_port);
    assert_eq!((backend.internal_port, backend.user_port), (Some(ports.0), Some(ports.1)));
}

#[tokio::test]
async fn where_there_is_no_websocket_rest_tells_what_it_can() {
    let mut desk = Desk::new(Scenario::named("many-loaded"));
    desk.stand_in.fault("* WS *", Trouble::Close);
    let round = desk.round().await;
    let Said::Is(models) = &round.rest else { panic!("{round:?}") };
    let second = models.iter().find(|model| model.identifier == "qwen3-8b:2").unwrap();
    assert_eq!((second.context, second.load.parallel), (Some(32_768), Some(1)));
    assert!(matches!(round.socket, Said::Failed(_)));
}

#[test]
fn one_fault_anywhere_blinds_nobody_and_is_forgotten_when_it_is_over() {
    const PLACES: [&str; 16] = [
        "internal GET /lms-status",
        "internal GET *",
        "internal WS /llm",
        "internal WS *",
        "internal AUTH /llm",
        "internal AUTH /embedding",
        "internal RPC llm.listLoaded",
        "internal RPC embedding.listLoaded",
        "internal RPC llm.getLoadConfig",
        "internal RPC llm.getInstanceProcessingState",
        "internal RPC llm.estimateModelUsage",
        "internal RPC system.info",
        "internal RPC repository.lmLinkStatus",
        "internal RPC *",
        "user GET /api/v1/models",
        "user * *",
    ];
    let cases: Vec<(&str, Trouble)> =
        PLACES.iter().flat_map(|place| troubles().into_iter().map(move |trouble| (*place, trouble))).collect();
    // They mostly wait; each thread takes the next one that nobody has taken.
    let next = AtomicUsize::new(0);
    let blind = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                while let Some((place, trouble)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !alone(with_one_fault(place, trouble.clone())) {
                        blind.lock().unwrap().push(format!("{place} {trouble:?}"));
                    }
                }
            });
        }
    });
    assert_eq!(blind.into_inner().unwrap(), Vec::<String>::new());
}

/// Runs something on a runtime of its own, as the daemon does.
fn alone<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Asks while something goes wrong and after; tells whether one of the sides always told all.
async fn with_one_fault(place: &str, trouble: Trouble) -> bool {
    let mut desk = Desk::new(Scenario::named("many-loaded"));
    desk.stand_in.fault(place, trouble);
    let mut is_told = false;
    for _ in 0..3 {
        let round = desk.round().await;
        is_told |= [&round.socket, &round.rest].iter().any(|said| matches!(said, Said::Is(_)));
        tokio::time::sleep(limits().longest_pause).await;
    }
    desk.stand_in.mend();
    let round = desk.recovered().await;
    desk.tells_all(&round);
    is_told
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    for place in ["internal GET /lms-status", "user GET /api/v1/models"] {
        for trouble in [Trouble::Endless, Trouble::Padded { bytes: 200_000_000 }] {
            let mut desk = Desk::new(everyday());
            desk.stand_in.fault("* WS *", Trouble::Close);
            desk.stand_in.fault(place, trouble);
            desk.round().await;
            // What is read, and what the system has taken in before.
            let sent = desk.stand_in.sent();
            assert!(sent < 40_000_000, "{place}: {sent} bytes");
        }
    }
}

#[test]
fn a_storm_of_faults_loads_and_restarts_never_makes_it_tell_a_lie() {
    let seeds: Vec<u64> = match std::env::var("STORM") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=8).collect(),
    };
    thread::scope(|scope| {
        for seed in seeds {
            scope.spawn(move || alone(storm(seed)));
        }
    });
}

/// Lets a seed decide what happens; a failure says `STORM=seed`.
async fn storm(seed: u64) {
    const PLACES: [&str; 9] = [
        "internal GET *",
        "internal WS *",
        "* AUTH *",
        "internal RPC llm.*",
        "internal RPC embedding.*",
        "internal RPC system.*",
        "user GET /api/*",
        "user GET *",
        "* * *",
    ];
    let mut random = Random(seed);
    let mut desk = Desk::new(Scenario::named("many-loaded"));
    let mut timeline = Timeline(seed, Vec::new());
    for _ in 0..40 {
        let stand_in = &mut desk.stand_in;
        let loaded = stand_in.scenario().loaded;
        let event = match random.below(14) {
            0..=3 => {
                let (place, trouble) = (*random.of(&PLACES), random.of(&troubles()).clone());
                let fault = Fault::new(place, trouble).times(1 + random.below(4));
                let event = format!("{fault:?}");
                stand_in.add_fault(fault);
                event
            }
            4 | 5 => {
                stand_in.mend();
                "mend".into()
            }
            6 | 7 => {
                let model_key = random.of(&stand_in.scenario().models).model_key.clone();
                let context_length = 1_024 * (1 + random.below(32));
                stand_in.load(Instance { model_key, context_length, ..Instance::default() })
            }
            8 if !loaded.is_empty() => {
                let identifier = &random.of(&loaded).identifier;
                stand_in.unload(identifier);
                format!("unload {identifier}")
            }
            9 => {
                stand_in.restart();
                "restart".into()
            }
            10 => {
                stand_in.stop();
                stand_in.start_again();
                "crash and come back".into()
            }
            11 => {
                stand_in.switch_user_server(random.below(2) == 0);
                "switch the user's server".into()
            }
            12 => {
                stand_in.cut(".internal/http-server.json");
                "half a file".into()
            }
            _ => {
                stand_in.write_http_server(DEAD_PID, stand_in.internal_port);
                "a dead process".into()
            }
        };
        timeline.1.push(event);
        desk.round().await;
        tokio::time::sleep(Duration::from_millis(u64::from(random.below(60)))).await;
    }
    desk.stand_in.mend();
    desk.stand_in.stop();
    desk.stand_in.start_again();
    let round = desk.recovered().await;
    desk.tells_all(&round);
    timeline.1.clear();
}

/// What happened, printed where a test fails in the middle.
struct Timeline(u64, Vec<String>);

impl Drop for Timeline {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("STORM={}\n{}", self.0, self.1.join("\n"));
        }
    }
}

/// A few random numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % end
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(u32::try_from(list.len()).unwrap()) as usize]
    }
}

#[tokio::test]
async fn a_new_load_under_an_old_name_has_its_own_settings() {
    let mut desk = Desk::new(everyday());
    desk.round().await;
    desk.stand_in.unload("qwen3-8b");
    desk.stand_in.load(Instance { model_key: "qwen3-8b".into(), context_length: 2_048, ..Instance::default() });
    let round = desk.round().await;
    desk.tells_all(&round);
}

#[tokio::test]
async fn each_version_tells_what_it_can() {
    for (version, has_settings, has_activity) in
        [("0.3.5", true, false), ("0.3.10", true, false), ("0.3.30", true, false), ("0.4.25", true, true)]
    {
        let mut desk = Desk::new(everyday().of_version(version));
        for _ in 0..3 {
            let round = desk.round().await;
            let Said::Is(models) = &round.socket else { panic!("{version}: {round:?}") };
            assert_eq!(models[0].load.parallel.is_some(), has_settings, "{version}");
            assert_eq!(models[0].activity.is_some(), has_activity, "{version}");
            assert_eq!(round.backend.unwrap().version.as_deref(), Some(version));
        }
    }
    // Without the settings REST is asked as well; without REST the rest is told all the same.
    let mut scenario = everyday().of_version("0.3.5");
    scenario.without.push("llm.getLoadConfig".into());
    let mut desk = Desk::new(scenario);
    let round = desk.round().await;
    let Said::Is(models) = &round.socket else { panic!("{round:?}") };
    assert_eq!((models[0].context, round.rest), (Some(16_384), Said::Absent));
}

#[tokio::test]
async fn a_token_opens_what_is_closed_and_is_shown_to_nobody_else() {
    let closed = || everyday().with_token(TOKEN);
    let mut desk = Desk::new(closed());
    let round = desk.round().await;
    assert_eq!((&round.socket, &round.rest), (&Said::Refused, &Said::Refused));

    let mut desk = Desk::with_token(closed());
    let round = desk.round().await;
    desk.tells_all(&round);
    assert!(desk.stand_in.calls().iter().any(|call| call.authorization == Authorization::Right));
    let told = format!("{round:?} {:?} {}", desk.asker, serde_json::to_string(&round).unwrap());
    for part in ["sk-lm", "Ab3dEf7h", "0123456789abcdefghij", "planted"] {
        assert!(!told.contains(part), "{part}");
    }

    // What does not show itself as LM Studio never sees it.
    for body in ["Ollama is running", "{\"lmstudio\":false}", "{}"] {
        let mut desk = Desk::with_token(closed());
        desk.stand_in.foreign(Port::Internal, body);
        desk.stand_in.foreign(Port::User, body);
        for _ in 0..3 {
            let round = desk.round().await;
            assert_eq!((round.backend, round.socket, round.rest), (None, Said::Absent, Said::Absent));
            tokio::time::sleep(limits().longest_pause).await;
        }
        let calls = desk.stand_in.calls();
        assert!(calls.len() >= 4, "{calls:?}");
        assert!(calls.iter().all(|call| call.authorization == Authorization::Absent), "{calls:?}");
    }
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_not_tried_without_pause() {
    let mut desk = Desk::with_token(everyday().with_token("sk-lm-00000000:00000000000000000000"));
    for _ in 0..3 {
        let round = desk.round().await;
        assert!(matches!(round.socket, Said::Refused | Said::NotAsked), "{round:?}");
    }
    let tried = desk.stand_in.calls().iter().filter(|call| call.kind == "AUTH" && call.name == "/llm").count();
    assert!(tried < 3, "{tried}");
}

#[tokio::test]
async fn nothing_that_runs_is_asked_for_nothing() {
    let mut desk = Desk::new(everyday());
    desk.round().await;
    desk.stand_in.quit();
    let round = desk.round().await;
    assert_eq!((round.backend, round.socket, round.rest), (None, Said::Absent, Said::Absent));
    desk.stand_in.start_again();
    desk.stand_in.write_http_server(DEAD_PID, desk.stand_in.internal_port);
    desk.stand_in.forget();
    let round = desk.round().await;
    assert_eq!((round.backend, desk.stand_in.connections()), (None, 0));
}

#[tokio::test]
async fn an_unload_under_any_fault_is_sent_once_and_its_outcome_is_true() {
    let over_rest = || vec![Fault::new("* WS *", Trouble::Close)];
    let ways = [("internal RPC llm.unloadModel", Vec::new()), ("user POST /api/v1/models/unload", over_rest())];
    for (place, before) in ways {
        // A result is an outcome, whatever it says: there is none to an unload.
        let is_no_result = |trouble: &Trouble| !matches!(trouble, Trouble::Answer { .. }) || place.starts_with("user");
        for trouble in troubles().into_iter().filter(is_no_result) {
            let mut desk = Desk::new(Scenario::named("many-loaded"));
            before.iter().for_each(|fault| desk.stand_in.add_fault(fault.clone()));
            desk.stand_in.fault(place, trouble.clone());
            let (ask, others) = (desk.ask(), desk.loaded());
            let outcome = desk.asker.unload(&ask, "qwen3-8b:2").await;
            let case = format!("{place} {trouble:?}: {outcome:?}");
            // A late one may still be under way when it has been given up.
            let is_gone = !desk.loaded().contains(&"qwen3-8b:2".to_owned());
            match outcome {
                Unloaded::Done => assert!(is_gone, "{case}"),
                Unloaded::NotLoaded => panic!("{case}: it was loaded"),
                Unloaded::Failed { reason } => assert!(!reason.is_empty()),
            }
            let kept = others.iter().filter(|one| *one != "qwen3-8b:2").all(|one| desk.loaded().contains(one));
            assert!(kept, "{case}");
            let not_reading = desk.stand_in.not_reading();
            assert_eq!(not_reading.len(), 1, "{case}: {not_reading:?}");
            assert_eq!(not_reading[0].nature, Nature::Unloads);
            assert!(not_reading[0].parameter.to_string().contains("\"qwen3-8b:2\""), "{case}");
        }
    }
}

#[tokio::test]
async fn an_unload_of_what_is_not_loaded_or_elsewhere_sends_nothing() {
    let mut desk = Desk::new(Scenario::named("many-loaded"));
    let ask = desk.ask();
    assert_eq!(desk.asker.unload(&ask, "google/gemma-3-12b").await, Unloaded::NotLoaded);
    assert!(matches!(desk.asker.unload(&ask, "openai/gpt-oss-120b").await, Unloaded::Failed { .. }));
    assert_eq!(desk.stand_in.not_reading(), []);
    assert_eq!(desk.asker.unload(&ask, "text-embedding-nomic-embed-text-v1.5").await, Unloaded::Done);
    assert_eq!(desk.loaded().len(), 5);
    let over_rest = desk.stand_in.calls().iter().any(|call| call.port == Port::User && call.nature != Nature::Reads);
    assert!(!over_rest);
}

#[tokio::test]
async fn what_stays_the_same_costs_a_few_calls_and_no_connection() {
    let mut desk = Desk::new(everyday());
    desk.recovered().await;
    for _ in 0..5 {
        // The estimate comes beside the rounds, and the user's server shows itself now and then.
        tokio::time::sleep(Duration::from_millis(20)).await;
        desk.round().await;
    }
    desk.stand_in.mend();
    desk.stand_in.forget();
    for _ in 0..10 {
        desk.round().await;
    }
    let heard = desk.stand_in.heard();
    let internal = heard.iter().filter(|call| call.starts_with("internal")).count();
    assert_eq!(internal, 30, "two lists and a state each: {heard:?}");
}
