//! Asking a running LM Studio, against a scripted one.

use std::path::PathBuf;

use fitwatch::host::lmstudio::{Asker, Limits};
use fitwatch::lmstudio::{
    Activity, ApiToken, Ask, Endpoint, LoadedModel, Program, Round, Route, Said, Unloaded, internal_folders,
};
use tokio::net::TcpListener;

use super::scripted::{Act, Script, Scripted, http};
use super::*;

const TOKEN: &str = "sk-lm-Ab3dEf9h:abcdefghij0123456789";

/// A home with a scripted LM Studio.
struct Studio {
    home: TempDir,
    internal: Scripted,
    user: Scripted,
    asker: Asker,
}

impl Studio {
    /// Starts both servers; the internal one offers no REST, as the real one.
    async fn start(internal: Script, user: Script) -> Studio {
        let (internal, user) = (Scripted::start(internal).await, Scripted::start(user).await);
        let studio = Studio { home: tempfile::tempdir().unwrap(), internal, user, asker: asker(None) };
        studio.names(studio.internal.port, studio.user.port);
        studio
    }

    /// Writes the files that name the ports.
    fn names(&self, internal: u16, user: u16) {
        let folder = self.home.path().join(".internal");
        fs::create_dir_all(&folder).unwrap();
        let pid = std::process::id();
        let server = json!({ "host": "127.0.0.1", "pid": pid, "port": internal });
        fs::write(folder.join("http-server.json"), server.to_string()).unwrap();
        let server = json!({ "port": user, "networkInterface": "0.0.0.0" });
        fs::write(folder.join("http-server-config.json"), server.to_string()).unwrap();
    }

    fn ask(&self) -> Ask {
        Ask { home: self.home.path().to_owned(), ..Ask::default() }
    }

    async fn round(&mut self) -> Round {
        let ask = self.ask();
        self.asker.round(&ask).await
    }

    /// Waits until the failures so far are forgotten.
    async fn pause(&self) {
        tokio::time::sleep(limits().longest_pause + Duration::from_millis(20)).await;
    }
}

/// Short ones, and no port that a real LM Studio may have.
fn limits() -> Limits {
    Limits {
        ports: Vec::new(),
        probe: Duration::from_secs(1),
        answer: Duration::from_millis(1_500),
        estimate: Duration::from_millis(1_500),
        unload: Duration::from_millis(1_500),
        pause: Duration::from_millis(100),
        longest_pause: Duration::from_millis(200),
    }
}

fn asker(token: Option<&str>) -> Asker {
    Asker::within(limits(), token.map(|token| ApiToken::parse(token).unwrap()))
}

/// The internal interface with one model loaded.
fn internal() -> Script {
    let session: Vec<Value> = serde_json::from_str(&fixture("ws-protocol-transcript.json")).unwrap();
    let result = |entry: usize| Act::Json(session[entry]["frame"]["result"].clone());
    Script::default()
        .http("/lms-status", Act::Json(json!({ "package": "lmstudio", "version": "0.4.25" })))
        .http("/lmstudio-greeting", Act::Json(json!({ "lmstudio": true })))
        .call("system.info", Act::Json(json!({ "pid": 48_213, "isDaemon": true, "version": "0.4.25" })))
        .call("llm.listLoaded", result(4))
        .call("embedding.listLoaded", Act::Json(json!([])))
        .call("llm.getLoadConfig", result(6))
        .call("llm.estimateModelUsage", result(8))
        .call("llm.getInstanceProcessingState", Act::Json(json!({ "status": "generating", "queued": 1 })))
}

/// The user's server with the same model loaded.
fn user() -> Script {
    let v1 = serde_json::from_str(&fixture("api-v1-models-two-instances-and-embedding.json")).unwrap();
    let v0 = serde_json::from_str(&fixture("api-v0-models.json")).unwrap();
    Script::default()
        .http("/lmstudio-greeting", Act::Json(json!({ "lmstudio": true })))
        .http("/api/v1/models", Act::Json(v1))
        .http("/api/v0/models", Act::Json(v0))
}

fn nothing() -> Script {
    Script { has_no_socket: true, ..Script::default() }
}

fn models(said: &Said<Vec<LoadedModel>>) -> &[LoadedModel] {
    match said {
        Said::Is(models) => models,
        other => panic!("{other:?}"),
    }
}

fn names(said: &Said<Vec<LoadedModel>>) -> Vec<&str> {
    models(said).iter().map(|model| model.identifier.as_str()).collect()
}

fn reason(said: &Said<Vec<LoadedModel>>) -> &str {
    match said {
        Said::Failed(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_websocket_tells_everything_and_rest_is_left_alone() {
    let mut studio = Studio::start(internal(), user()).await;
    let round = studio.round().await;
    let backend = round.backend.unwrap();
    assert_eq!((backend.program, backend.pid), (Program::Llmster, Some(48_213)));
    assert_eq!(backend.version.as_deref(), Some("0.4.25"));
    let ports = (backend.internal_port, backend.user_port);
    assert_eq!(ports, (Some(studio.internal.port), Some(studio.user.port)));
    assert_eq!((round.rest, round.processes), (Said::NotAsked, Said::NotAsked));
    let [model] = models(&round.socket) else { panic!("not one model") };
    assert_eq!((model.identifier.as_str(), &model.activity), ("qwen3-8b", &Some(Activity::Generating)));
    assert_eq!((model.load.parallel, model.load.offload_ratio), (Some(4), Some(1.0)));
    assert_eq!(studio.user.heard(), ["GET /lmstudio-greeting"]);
}

#[tokio::test]
async fn what_stays_the_same_is_asked_once_over_sockets_that_stay_open() {
    let mut studio = Studio::start(internal(), user()).await;
    studio.asker = Asker::within(Limits { longest_pause: Duration::from_mins(1), ..limits() }, None);
    studio.round().await;
    // The estimate comes beside the rounds.
    let mut estimate = None;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        estimate = models(&studio.round().await.socket)[0].estimate;
        if estimate.is_some() {
            break;
        }
    }
    let estimate = estimate.unwrap();
    assert_eq!((estimate.total, estimate.is_confident), (Bytes(9_859_621_696), true));
    studio.internal.heard();
    studio.user.heard();
    let sockets = studio.internal.clients().len();
    for _ in 0..3 {
        assert_eq!(names(&studio.round().await.socket), ["qwen3-8b"]);
    }
    let round = ["llm.listLoaded", "embedding.listLoaded", "llm.getInstanceProcessingState"];
    let heard = studio.internal.heard();
    assert_eq!(heard, [round, round, round].concat());
    assert_eq!((studio.internal.clients().len(), studio.user.heard().len()), (sockets, 0));
    // Two namespaces, the back-end's own words, and the estimate.
    assert_eq!(sockets, 4);
}

#[tokio::test]
async fn a_new_instance_is_asked_for_its_settings() {
    let mut studio = Studio::start(internal(), user()).await;
    studio.round().await;
    studio.internal.heard();
    let rows =
        json!([{ "type": "llm", "identifier": "qwen3-8b", "modelKey": "qwen3-8b", "instanceReference": "other" }]);
    studio.internal.script().calls.insert("llm.listLoaded".into(), Act::Json(rows));
    studio.round().await;
    assert!(studio.internal.heard().contains(&"llm.getLoadConfig".to_owned()));
}

#[tokio::test]
async fn only_the_calls_of_the_list_are_made() {
    let mut studio = Studio::start(internal(), user()).await;
    studio.internal.script().token = None;
    for _ in 0..3 {
        studio.round().await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    studio.internal.script().has_no_socket = true;
    studio.names(1, studio.user.port);
    studio.round().await;
    let mut allowed: Vec<String> = Vec::new();
    for route in Route::ALL.into_iter().filter(|route| !route.changes()) {
        allowed.push(format!("{} {}", route.method(), route.path()));
    }
    for endpoint in Endpoint::ALL.into_iter().filter(|endpoint| !endpoint.changes()) {
        let names = endpoint.namespaces().iter().map(|space| format!("{}.{}", space.name(), endpoint.name()));
        allowed.extend(names);
    }
    let heard: Vec<String> = [studio.internal.heard(), studio.user.heard()].concat();
    assert!(heard.len() > 10 && heard.iter().all(|call| allowed.contains(call)), "{heard:?}");
}

#[tokio::test]
async fn a_guest_is_the_same_for_a_whole_run() {
    let mut studio = Studio::start(internal(), user()).await;
    studio.round().await;
    let clients = studio.internal.clients();
    assert!(clients.len() >= 3 && clients.iter().all(|client| *client == clients[0]), "{clients:?}");
    assert!(clients[0]["clientIdentifier"].as_str().unwrap().starts_with("guest:"));
    assert_eq!(clients[0]["authVersion"], 1);
}

#[tokio::test]
async fn a_remote_instance_is_told_and_left_alone_and_our_own_device_is_here() {
    let mut studio = Studio::start(internal(), user()).await;
    let row = |identifier: &str, device: Value| {
        json!({ "type": "llm", "identifier": identifier, "modelKey": identifier, "format": "gguf",
            "deviceIdentifier": device, "instanceReference": identifier })
    };
    let rows = json!([row("far", json!("c0ffee")), row("near", json!("beef")), row("here", json!(null))]);
    {
        let mut script = studio.internal.script();
        script.calls.insert("llm.listLoaded".into(), Act::Json(rows));
        let status = json!({ "deviceIdentifier": "beef", "peers": [] });
        script.calls.insert("repository.lmLinkStatus".into(), Act::Json(status));
    }
    let round = studio.round().await;
    let devices: Vec<_> = models(&round.socket).iter().map(|model| model.device.as_deref()).collect();
    assert_eq!(devices, [Some("c0ffee"), None, None]);
    let asked = studio.internal.heard().iter().filter(|call| *call == "llm.getLoadConfig").count();
    assert_eq!(asked, 2);
    let ask = studio.ask();
    assert!(matches!(studio.asker.unload(&ask, "far").await, Unloaded::Failed { .. }));
    assert!(!studio.internal.heard().contains(&"llm.unloadModel".to_owned()));
}

#[tokio::test]
async fn an_unknown_own_device_leaves_an_instance_remote() {
    let mut studio = Studio::start(internal(), user()).await;
    let rows = json!([{ "type": "llm", "identifier": "far", "deviceIdentifier": "c0ffee" }]);
    studio.internal.script().calls.insert("llm.listLoaded".into(), Act::Json(rows));
    let round = studio.round().await;
    assert_eq!(models(&round.socket)[0].device.as_deref(), Some("c0ffee"));
    assert_eq!(round.rest, Said::NotAsked);
}

#[tokio::test]
async fn without_a_websocket_rest_tells_of_two_instances_of_a_model() {
    let mut studio = Studio::start(Script { has_no_socket: true, ..internal() }, user()).await;
    let round = studio.round().await;
    assert_eq!(reason(&round.socket), "it offers no websocket");
    assert_eq!(names(&round.rest), ["qwen3-8b", "qwen3-8b:2", "text-embedding-nomic-embed-text-v1.5"]);
    // What fails is left alone for a while, and its last word counts; what answers goes on.
    let round = studio.round().await;
    assert_eq!((round.socket, names(&round.rest).len()), (Said::NotAsked, 3));
}

#[tokio::test]
async fn version_0_is_asked_only_where_there_is_no_version_1() {
    let mut studio = Studio::start(nothing(), user()).await;
    studio.round().await;
    assert!(!studio.user.heard().contains(&"GET /api/v0/models".to_owned()));
    studio.user.script().http.remove("/api/v1/models");
    assert_eq!(names(&studio.round().await.rest), ["qwen3-8b"]);
    assert_eq!(studio.user.heard(), ["GET /api/v1/models", "GET /api/v0/models"]);
    assert_eq!(names(&studio.round().await.rest), ["qwen3-8b"]);
    assert_eq!(studio.user.heard(), ["GET /api/v0/models"]);
    studio.user.script().http.remove("/api/v0/models");
    assert_eq!(studio.round().await.rest, Said::Absent);
}

#[tokio::test]
async fn a_version_that_does_not_know_an_endpoint_is_not_asked_again() {
    let mut studio = Studio::start(internal(), user()).await;
    {
        let mut script = studio.internal.script();
        for name in ["llm.getLoadConfig", "llm.getInstanceProcessingState", "embedding.listLoaded", "system.info"] {
            script.calls.remove(name);
        }
        script.calls.insert("system.version".into(), Act::Json(json!({ "version": "0.3.9", "build": 6 })));
    }
    for _ in 0..2 {
        let round = studio.round().await;
        assert_eq!(models(&round.socket)[0].activity, None);
        // REST knows some of the settings that the websocket does not tell.
        assert_eq!(names(&round.rest).len(), 3);
    }
    let heard = studio.internal.heard();
    let count = |name: &str| heard.iter().filter(|call| *call == name).count();
    assert_eq!((count("llm.listLoaded"), count("llm.getLoadConfig")), (2, 1));
    assert_eq!((count("llm.getInstanceProcessingState"), count("embedding.listLoaded")), (1, 1));
    assert_eq!((count("system.version"), count("llm.estimateModelUsage")), (1, 0));
}

#[tokio::test]
async fn where_a_token_is_wanted_it_says_so_and_does_not_fall_back_to_version_0() {
    let wants = |script: Script| Script { token: Some(TOKEN), ..script };
    let mut studio = Studio::start(wants(internal()), wants(user())).await;
    let round = studio.round().await;
    assert_eq!((round.socket, round.rest), (Said::Refused, Said::Refused));
    assert_eq!(studio.user.heard(), ["GET /lmstudio-greeting", "GET /api/v1/models"]);
    let round = studio.round().await;
    assert_eq!((round.socket, round.rest), (Said::NotAsked, Said::NotAsked));

    // With the environment's token, and with the file's, which counts more.
    studio.asker = asker(Some(TOKEN));
    assert_eq!(names(&studio.round().await.socket), ["qwen3-8b"]);
    studio.asker = asker(Some("sk-lm-00000000:00000000000000000000"));
    assert_eq!(studio.round().await.socket, Said::Refused);
    let file = studio.home.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let ask = Ask { token_file: Some(file), ..studio.ask() };
    assert_eq!(names(&studio.asker.round(&ask).await.socket), ["qwen3-8b"]);
    studio.internal.script().has_no_socket = true;
    studio.names(1, studio.user.port);
    let round = studio.asker.round(&ask).await;
    assert_eq!(names(&round.rest).len(), 3);
    assert!(!format!("{:?} {round:?}", studio.asker).contains("abcdefghij"), "the token shows");
}

#[tokio::test]
async fn a_websocket_that_never_speaks_costs_a_limit_and_rest_is_asked() {
    for greets in [Act::Hang, Act::HangUp, Act::Json(json!("hello")), Act::Raw(vec![0xff; 64])] {
        let mut studio = Studio::start(Script { greets: Some(greets.clone()), ..internal() }, user()).await;
        let began = Instant::now();
        let round = studio.round().await;
        assert!(began.elapsed() < Duration::from_secs(20), "{greets:?} takes {:?}", began.elapsed());
        assert!(!reason(&round.socket).is_empty());
        assert_eq!(names(&round.rest).len(), 3, "{greets:?}");
        // The same one comes back.
        studio.internal.script().greets = None;
        studio.pause().await;
        assert_eq!(names(&studio.round().await.socket), ["qwen3-8b"]);
    }
}

#[tokio::test]
async fn calls_that_hang_answer_garbage_or_too_much_break_nothing() {
    let huge = Act::Json(json!("x".repeat(10 << 20)));
    for act in [Act::Hang, Act::HangUp, Act::Raw(b"{\"type\":".to_vec()), huge, Act::Error(json!(null))] {
        let mut studio = Studio::start(internal(), user()).await;
        studio.internal.script().calls.insert("llm.listLoaded".into(), act.clone());
        let round = studio.round().await;
        assert!(!reason(&round.socket).is_empty());
        assert_eq!(names(&round.rest).len(), 3);
        studio.internal.script().calls.insert("llm.listLoaded".into(), Act::Json(json!([])));
        studio.pause().await;
        assert_eq!(names(&studio.round().await.socket), Vec::<&str>::new());
    }
    let mut studio = Studio::start(internal(), user()).await;
    let huge = Act::Json(json!("x".repeat(10 << 20)));
    studio.internal.script().calls.insert("embedding.listLoaded".into(), huge);
    // The other namespace alone would look as if the embedding models were unloaded.
    assert_eq!(reason(&studio.round().await.socket), "its answer is larger than 4 MiB");
}

#[tokio::test]
async fn rest_that_is_slow_hangs_or_answers_garbage_half_or_too_much_breaks_nothing() {
    let body = "x".repeat(10 << 20);
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"models\": [".to_vec();
    let redirect = b"HTTP/1.1 302 Found\r\nLocation: /api/v0/models\r\nContent-Length: 0\r\n\r\n".to_vec();
    let cases = [
        (Act::Hang, "it does not answer in time"),
        (Act::HangUp, "it hangs up without an answer"),
        (Act::Raw(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()), "its answer is no HTTP"),
        (Act::Raw(half), "its answer breaks off"),
        (Act::Raw(http(&body)), "its answer is larger than 4 MiB"),
        (Act::Raw(http("<html>")), "its answer is not understood"),
        (Act::Raw(redirect), "its answer is not understood"),
        (Act::After(Duration::from_mins(1), json!({ "models": [] })), "it does not answer in time"),
    ];
    for (act, expected) in cases {
        let mut studio = Studio::start(nothing(), user().http("/api/v1/models", act)).await;
        let began = Instant::now();
        let round = studio.round().await;
        assert_eq!(reason(&round.rest), expected);
        assert!(began.elapsed() < Duration::from_secs(20), "{expected}: {:?}", began.elapsed());
        assert!(!studio.user.heard().contains(&"GET /api/v0/models".to_owned()), "{expected}");
    }
    let slow = Act::After(Duration::from_millis(150), json!({ "models": [] }));
    let mut studio = Studio::start(nothing(), user().http("/api/v1/models", slow)).await;
    assert_eq!(studio.round().await.rest, Said::Is(Vec::new()));
}

#[tokio::test]
async fn a_port_of_another_program_is_not_lm_studios() {
    let other = || {
        nothing()
            .http("/lms-status", Act::Json(json!({ "version": "1.0" })))
            .http("/lmstudio-greeting", Act::Json(json!({ "ok": true })))
            .http("/api/v1/models", Act::Json(json!({ "models": [] })))
    };
    let mut studio = Studio::start(other(), other()).await;
    let round = studio.round().await;
    assert_eq!((round.backend, round.socket, round.rest), (None, Said::Absent, Said::Absent));
    assert_eq!(studio.internal.heard(), ["GET /lms-status", "GET /lmstudio-greeting"]);
    assert_eq!(studio.user.heard(), ["GET /lmstudio-greeting"]);
    // It is not asked again and again.
    studio.round().await;
    assert_eq!((studio.internal.heard().len(), studio.user.heard().len()), (0, 0));
}

#[tokio::test]
async fn the_usual_ports_are_asked_where_the_named_one_is_another_programs() {
    let mut studio = Studio::start(nothing(), user()).await;
    let real = Scripted::start(internal()).await;
    studio.asker = Asker::within(Limits { ports: vec![real.port], ..limits() }, None);
    let round = studio.round().await;
    assert_eq!(names(&round.socket), ["qwen3-8b"]);
    assert_eq!(round.backend.unwrap().internal_port, Some(real.port));
}

#[tokio::test]
async fn an_older_version_is_known_by_its_greeting() {
    let mut script = internal();
    script.http.remove("/lms-status");
    let mut studio = Studio::start(script, nothing()).await;
    let round = studio.round().await;
    assert_eq!((names(&round.socket), round.rest), (vec!["qwen3-8b"], Said::NotAsked));
}

#[tokio::test]
async fn a_restart_on_another_port_is_followed_at_once() {
    let mut studio = Studio::start(internal(), user()).await;
    assert_eq!(names(&studio.round().await.socket), ["qwen3-8b"]);
    let row = json!([{ "type": "llm", "identifier": "new", "modelKey": "new" }]);
    studio.internal = Scripted::start(internal().call("llm.listLoaded", Act::Json(row))).await;
    studio.names(studio.internal.port, studio.user.port);
    let round = studio.round().await;
    assert_eq!(names(&round.socket), ["new"]);
    assert_eq!(round.backend.unwrap().internal_port, Some(studio.internal.port));
}

#[tokio::test]
async fn a_restart_that_the_file_does_not_tell_of_is_found_on_the_usual_ports() {
    let mut studio = Studio::start(internal(), user()).await;
    let other = Scripted::start(internal().call("llm.listLoaded", Act::Json(json!([])))).await;
    studio.asker = Asker::within(Limits { ports: vec![other.port], ..limits() }, None);
    assert_eq!(names(&studio.round().await.socket), ["qwen3-8b"]);
    // The old one goes with all its connections.
    studio.internal = Scripted::start(nothing()).await;
    assert_eq!(studio.round().await.socket, Said::Is(Vec::new()));
}

#[tokio::test]
async fn sockets_that_were_closed_in_between_are_opened_anew() {
    let mut studio = Studio::start(internal(), user()).await;
    studio.internal.script().calls.insert("llm.getInstanceProcessingState".into(), Act::HangUp);
    assert!(!reason(&studio.round().await.socket).is_empty());
    studio.pause().await;
    studio.internal.script().calls.insert("llm.getInstanceProcessingState".into(), Act::Json(json!(null)));
    assert_eq!(names(&studio.round().await.socket), ["qwen3-8b"]);
}

#[tokio::test]
async fn a_file_that_a_crash_left_wakes_nothing() {
    let mut studio = Studio::start(internal(), user()).await;
    let file = studio.home.path().join(".internal/http-server.json");
    // No process has this number: they end far below.
    let dead = json!({ "pid": i32::MAX, "port": studio.internal.port });
    fs::write(&file, dead.to_string()).unwrap();
    for text in [dead.to_string(), String::new(), "{\"pid\": 1".into()] {
        fs::write(&file, text).unwrap();
        let round = studio.round().await;
        assert_eq!((round.backend, round.socket, round.rest), (None, Said::Absent, Said::Absent));
    }
    fs::remove_dir_all(studio.home.path().join(".internal")).unwrap();
    assert_eq!(studio.round().await.socket, Said::Absent);
    assert_eq!((studio.internal.heard().len(), studio.user.heard().len()), (0, 0));
    // A process that somebody saw is reason enough to look at the usual ports.
    studio.asker = Asker::within(Limits { ports: vec![studio.internal.port], ..limits() }, None);
    let ask = Ask { is_seen: true, ..studio.ask() };
    assert_eq!(names(&studio.asker.round(&ask).await.socket), ["qwen3-8b"]);
}

#[tokio::test]
async fn where_only_processes_are_to_be_looked_at_no_port_is_asked() {
    let mut studio = Studio::start(internal(), user()).await;
    let ask = Ask { processes_only: true, is_seen: true, ..studio.ask() };
    let round = studio.asker.round(&ask).await;
    assert_eq!((round.backend, round.socket, round.rest), (None, Said::Absent, Said::Absent));
    assert!(matches!(studio.asker.unload(&ask, "qwen3-8b").await, Unloaded::Failed { .. }));
    assert_eq!((studio.internal.heard().len(), studio.user.heard().len()), (0, 0));
}

#[tokio::test]
async fn a_file_that_is_just_being_written_is_read_again() {
    let mut studio = Studio::start(internal(), user()).await;
    studio.round().await;
    let file = studio.home.path().join(".internal/http-server.json");
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, &whole[..10]).unwrap();
    let written = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        fs::write(file, whole).unwrap();
    });
    assert_eq!(names(&studio.round().await.socket), ["qwen3-8b"]);
    written.join().unwrap();
}

#[tokio::test]
async fn it_ends_and_all_is_forgotten() {
    let mut studio = Studio::start(internal(), user()).await;
    assert!(studio.round().await.backend.is_some());
    fs::remove_file(studio.home.path().join(".internal/http-server.json")).unwrap();
    let round = studio.round().await;
    assert_eq!((round.backend, round.socket), (None, Said::Absent));
}

#[tokio::test]
async fn a_users_server_that_alone_runs_is_asked_over_its_websocket() {
    let both = user().http("/lms-status", Act::Json(json!({})));
    let both = Script { calls: internal().calls, ..both };
    let mut studio = Studio::start(nothing(), both).await;
    let round = studio.round().await;
    assert_eq!(names(&round.socket), ["qwen3-8b"]);
    let backend = round.backend.unwrap();
    assert_eq!((backend.internal_port, backend.user_port), (None, Some(studio.user.port)));
}

#[tokio::test]
async fn a_users_server_that_is_off_is_no_error() {
    let mut studio = Studio::start(internal(), user()).await;
    // A port that was just free.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    studio.names(studio.internal.port, free);
    let round = studio.round().await;
    assert_eq!((names(&round.socket), round.rest), (vec!["qwen3-8b"], Said::NotAsked));
    assert_eq!(round.backend.unwrap().user_port, None);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_on_one_address_of_this_machine_is_dialled_there_and_no_other_host_is() {
    let mut studio = Studio::start(nothing(), nothing()).await;
    let config = |address: &str, port: u16| {
        let text = json!({ "port": port, "networkInterface": address }).to_string();
        fs::write(studio.home.path().join(".internal/http-server-config.json"), text).unwrap();
    };
    // The whole of 127.0.0.0/8 is this machine's on Linux.
    let other = Scripted::start_at("127.0.0.2", user()).await;
    config("127.0.0.2", other.port);
    assert_eq!(names(&studio.asker.round(&studio.ask()).await.rest).len(), 3);
    // An address that is not ours is not dialled: the loopback is.
    assert!(std::net::UdpSocket::bind("192.168.213.213:0").is_err());
    config("192.168.213.213", studio.user.port);
    studio.user.heard();
    studio.round().await;
    assert_eq!(studio.user.heard(), ["GET /lmstudio-greeting"]);
}

#[tokio::test]
async fn bionic_may_keep_its_files_in_a_folder_of_its_own() {
    let mut studio = Studio::start(internal(), user()).await;
    let home = studio.home.path().to_owned();
    let folder: PathBuf = internal_folders(&home, &["bionic".into()]).pop().unwrap();
    fs::create_dir_all(&folder).unwrap();
    fs::rename(home.join(".internal/http-server.json"), folder.join("http-server.json")).unwrap();
    studio.internal.script().calls.insert("system.info".into(), Act::Json(json!({ "isDaemon": false })));
    let round = studio.round().await;
    assert_eq!((names(&round.socket), round.backend.unwrap().program), (vec!["qwen3-8b"], Program::Bionic));
}

#[tokio::test]
async fn an_unload_by_websocket_is_made_once_and_its_outcome_told() {
    let mut studio = Studio::start(internal(), user()).await;
    studio.internal.script().calls.insert("llm.unloadModel".into(), Act::Json(json!(null)));
    let ask = studio.ask();
    assert_eq!(studio.asker.unload(&ask, "qwen3-8b").await, Unloaded::Done);
    assert_eq!(studio.asker.unload(&ask, "no-such-model").await, Unloaded::NotLoaded);
    let heard = studio.internal.heard();
    assert_eq!(heard.iter().filter(|call| *call == "llm.unloadModel").count(), 1);
    let error = json!({ "title": "The model is busy", "stack": "at /home/robin" });
    studio.internal.script().calls.insert("llm.unloadModel".into(), Act::Error(error));
    let failed = Unloaded::Failed { reason: "it answers: The model is busy".into() };
    assert_eq!(studio.asker.unload(&ask, "qwen3-8b").await, failed);
    assert!(!studio.user.heard().contains(&"POST /api/v1/models/unload".to_owned()));
}

#[tokio::test]
async fn an_unload_that_hangs_is_not_sent_again_another_way() {
    let mut studio = Studio::start(internal(), user()).await;
    studio.internal.script().calls.insert("llm.unloadModel".into(), Act::Hang);
    let ask = studio.ask();
    let Unloaded::Failed { reason } = studio.asker.unload(&ask, "qwen3-8b").await else { panic!("unloaded") };
    assert_eq!(reason, "its websocket does not answer in time");
    assert_eq!(studio.internal.heard().iter().filter(|call| *call == "llm.unloadModel").count(), 1);
    assert!(!studio.user.heard().contains(&"POST /api/v1/models/unload".to_owned()));
}

#[tokio::test]
async fn without_a_websocket_an_unload_goes_by_rest() {
    let unloaded = Act::Json(json!({ "instance_id": "qwen3-8b:2" }));
    let mut studio = Studio::start(nothing(), user().http("/api/v1/models/unload", unloaded)).await;
    studio.user.script().has_no_socket = true;
    let ask = studio.ask();
    assert_eq!(studio.asker.unload(&ask, "qwen3-8b:2").await, Unloaded::Done);
    assert_eq!(studio.asker.unload(&ask, "qwen3-8b:3").await, Unloaded::NotLoaded);
    let heard = studio.user.heard();
    assert_eq!(heard.iter().filter(|call| *call == "POST /api/v1/models/unload").count(), 1);
    studio.user.script().token = Some(TOKEN);
    let failed = Unloaded::Failed { reason: "LM Studio requires an API token".into() };
    assert_eq!(studio.asker.unload(&ask, "qwen3-8b").await, failed);
    fs::remove_dir_all(studio.home.path().join(".internal")).unwrap();
    let failed = Unloaded::Failed { reason: "LM Studio does not run".into() };
    assert_eq!(studio.asker.unload(&ask, "qwen3-8b").await, failed);
}
