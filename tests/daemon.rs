//! The running program as a user and the system meet it: files that come and go, signals, the
//! command line, the control socket.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

mod common;
#[path = "daemon/loaded.rs"]
mod loaded;
#[path = "common/nvml.rs"]
mod nvml;

use common::{Home, Llama};

/// A busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(40);
const STEP: Duration = Duration::from_millis(100);

const MODELS: &str = ".lmstudio/models";
const TINY: &str = ".lmstudio/models/maker/tiny-GGUF/tiny.gguf";
const TINY_ID: &str = "maker/tiny-GGUF/tiny.gguf";
const CONFIG: &str = ".config/fitwatch/config.toml";
const STATE: &str = ".local/state/fitwatch";

#[test]
fn lm_studio_is_waited_for_and_its_models_come_by_themselves() {
    let home = Home::new();
    let daemon = Daemon::start(&home);
    let report = daemon.until("the folder was looked for", |report| root(report, MODELS)["state"] == "missing");
    assert_eq!((&report["library"]["home_exists"], &report["problems"]), (&json!(false), &json!([])), "{report}");
    let (code, status, _) = home.run(&["status"]);
    assert_eq!(code, 0);
    assert!(status.contains("not found; fitwatch looked at") && status.contains("it is watched for"), "{status}");
    let (code, doctor, _) = home.run(&["doctor"]);
    assert_eq!(code, 0, "{doctor}");
    assert!(doctor.contains(".lmstudio/models (not there") && doctor.contains("Nothing is wrong"), "{doctor}");

    fs::create_dir_all(home.path(MODELS)).unwrap();
    daemon.until("the folder came", |report| root(report, MODELS)["state"] == "present");
    home.model(TINY);
    daemon.until("a model came in a new folder", |report| is_judged(report, TINY_ID));
    home.model("elsewhere/tiny-GGUF/tiny.gguf");
    fs::rename(home.path("elsewhere"), home.path(MODELS) + "/other").unwrap();
    daemon.until("a folder was moved in", |report| is_judged(report, "other/tiny-GGUF/tiny.gguf"));
}

#[test]
fn the_watch_follows_the_settings_and_the_pointer_of_lm_studio() {
    let home = Home::new();
    home.model(TINY);
    home.model("disk/maker/second-GGUF/second.gguf");
    home.model("moved/models/maker/third-GGUF/third.gguf");
    let daemon = Daemon::start(&home);
    let only = |id: &str| {
        daemon.until(id, |report| ids(report) == [id] && is_judged(report, id));
    };
    only(TINY_ID);
    let settings = json!({ "downloadsFolder": home.path("disk") });
    home.write(".lmstudio/settings.json", settings.to_string());
    only("maker/second-GGUF/second.gguf");
    home.model("disk/maker/new-GGUF/new.gguf");
    daemon.until("the other folder is watched", |report| is_judged(report, "maker/new-GGUF/new.gguf"));
    home.write(".lmstudio-home-pointer", home.path("moved"));
    only("maker/third-GGUF/third.gguf");
    fs::remove_file(home.path(".lmstudio-home-pointer")).unwrap();
    fs::remove_file(home.path(".lmstudio/settings.json")).unwrap();
    only(TINY_ID);
}

#[test]
fn settings_saved_in_lm_studio_change_the_verdict() {
    let home = Home::new();
    home.model(TINY);
    let daemon = Daemon::start(&home);
    let settings = |report: &Value| model(report, TINY_ID)["settings"].clone();
    let report = daemon.until("it is judged", |report| is_judged(report, TINY_ID));
    assert_eq!(
        (&settings(&report)["basis"], &settings(&report)["settings"]["context"]),
        (&json!("defaults"), &json!(4096))
    );
    let need = |report: &Value| model(report, TINY_ID)["fit"]["now"]["pools"][0]["need"].as_u64().unwrap();
    let before = need(&report);
    let saved = json!({ "load": { "fields": [{ "key": "llm.load.contextLength", "value": 8192 }] } });
    let path = home.write(&saved_settings(), saved.to_string());
    let report = daemon.until("the settings are read", |report| settings(report)["basis"] == "saved");
    assert_eq!(settings(&report)["settings"]["context"], 8192);
    assert!(need(&report) > before);
    fs::remove_file(path).unwrap();
    daemon.until("the defaults are back", |report| settings(report)["basis"] == "defaults" && need(report) == before);
}

#[test]
fn what_cannot_be_understood_of_lm_studio_is_said_and_mended_by_mending_it() {
    let home = Home::new();
    home.model(TINY);
    home.write(".lmstudio/settings.json", "{ \"downloadsFolder\": ");
    let daemon = Daemon::start(&home);
    let report = daemon.until("it is judged all the same", |report| is_judged(report, TINY_ID));
    let message = problem(&report, "LM Studio")["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("settings.json"), "{report}");
    home.write(".lmstudio/settings.json", "{}");
    daemon.until("it is understood", |report| problem(report, "LM Studio").is_null());
    home.write(&saved_settings(), "{ \"load\": 7");
    let report = daemon.until("the model's are said", |report| !problem(report, "LM Studio").is_null());
    assert!(problem(&report, "LM Studio")["message"].as_str().unwrap().contains(TINY_ID), "{report}");
    assert!(is_judged(&report, TINY_ID));
}

#[test]
fn a_folder_named_in_the_config_is_picked_up_without_a_restart() {
    let home = Home::new();
    home.model("extra/alone.gguf");
    let daemon = Daemon::start(&home);
    home.write(CONFIG, format!("[library]\nextra_folders = [\"{}\"]\n", home.path("extra")));
    let report =
        daemon.until("the folder is read", |report| ids(report).len() == 1 && is_judged(report, &ids(report)[0]));
    assert!(ids(&report)[0].ends_with("alone.gguf"), "{report}");
    home.model("extra/maker/repository/further.gguf");
    daemon.until("the folder is watched", |report| ids(report).len() == 2);
    fs::remove_file(home.path(CONFIG)).unwrap();
    daemon.until("the folder is left", |report| ids(report).is_empty());
}

#[test]
fn a_growing_file_is_downloading_and_is_judged_when_whole() {
    let home = Home::new();
    home.model("whole.gguf");
    let whole = fs::read(home.path("whole.gguf")).unwrap();
    let daemon = Daemon::start(&home);
    home.write(TINY, &whole[..100]);
    home.write(&TINY.replace("tiny.gguf", "downloading_tiny2.gguf.part"), &whole[..100]);
    let mut file = File::options().append(true).open(home.path(TINY)).unwrap();
    daemon.until("it is seen", |report| state(report, TINY_ID) == "downloading");
    let (head, tail) = whole[100..].split_at(whole.len() - 1_000);
    for part in head.chunks(head.len() / 4) {
        file.write_all(part).unwrap();
        let report = daemon.report();
        assert!(["downloading", "reading"].contains(&state(&report, TINY_ID).as_str()), "{report}");
    }
    // At rest for longer than it takes to settle, and still not whole.
    let rested = Instant::now();
    while rested.elapsed() < Duration::from_secs(4) {
        let report = daemon.report();
        assert!(["downloading", "reading"].contains(&state(&report, TINY_ID).as_str()), "{report}");
        sleep(STEP);
    }
    file.write_all(tail).unwrap();
    let report = daemon.until("it is whole", |report| is_judged(report, TINY_ID));
    assert_eq!(model(&report, TINY_ID)["bytes"], whole.len());
    assert_eq!(state(&report, "maker/tiny-GGUF/tiny2.gguf"), "downloading", "its name says that it is not done");
}

#[test]
fn a_model_that_is_renamed_or_removed_is_followed() {
    let home = Home::new();
    home.model(TINY);
    home.model(&TINY.replace("tiny.gguf", "other.gguf"));
    let daemon = Daemon::start(&home);
    daemon.until("both are judged", |report| {
        ids(report).iter().all(|id| is_judged(report, id)) && ids(report).len() == 2
    });
    fs::rename(home.path(TINY), home.path(&TINY.replace("tiny.gguf", "renamed.gguf"))).unwrap();
    let (renamed, other) = ("maker/tiny-GGUF/renamed.gguf", "maker/tiny-GGUF/other.gguf");
    daemon.until("one is renamed", |report| ids(report) == [other, renamed] && is_judged(report, renamed));
    fs::remove_dir_all(home.path(MODELS)).unwrap();
    daemon.until("all are gone", |report| ids(report).is_empty() && root(report, MODELS)["state"] == "missing");
    home.model(TINY);
    daemon.until("the folder is back", |report| is_judged(report, TINY_ID));
}

#[test]
fn shards_and_a_projector_make_one_model() {
    let home = Home::new();
    let folder = format!("{MODELS}/maker/split-GGUF");
    let shard = |number| Llama { shard: Some((number, 2)), ..Llama::tiny() }.header();
    home.sparse(&format!("{folder}/split-00001-of-00002.gguf"), &shard(1));
    let daemon = Daemon::start(&home);
    let id = "maker/split-GGUF/split-00001-of-00002.gguf";
    let report = daemon
        .until("one is missing", |report| ids(report).len() == 1 && state(report, &ids(report)[0]) == "incomplete");
    let id = if ids(&report)[0] == id { id.to_owned() } else { ids(&report)[0].clone() };
    assert_eq!(model(&report, &id)["state"]["missing"], json!([2]));
    home.sparse(&format!("{folder}/split-00002-of-00002.gguf"), &shard(2));
    let report = daemon.until("both are there", |report| is_judged(report, &id));
    assert_eq!((ids(&report).len(), &model(&report, &id)["files"]), (1, &json!(2)));
    let projector = home.projector(&format!("{folder}/mmproj-split-F16.gguf"));
    let report = daemon.until("the projector is attached", |report| !model(report, &id)["projector"].is_null());
    assert_eq!(
        (ids(&report).len(), &model(&report, &id)["projector"]),
        (1, &json!(fs::canonicalize(projector).unwrap()))
    );
}

#[test]
fn an_unreadable_file_is_listed_with_its_reason_and_place() {
    let home = Home::new();
    home.model(TINY);
    home.write(&TINY.replace("tiny.gguf", "bad.gguf"), "this is no model, whatever its name says");
    let daemon = Daemon::start(&home);
    let bad = "maker/tiny-GGUF/bad.gguf";
    let report = daemon.until("it is read", |report| state(report, bad) == "unreadable" && is_judged(report, TINY_ID));
    let reason = model(&report, bad)["state"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("at byte 0"), "{reason}");
    assert_eq!(report["problems"], json!([]));
    assert_eq!(home.run(&["show", "bad"]).0, 4);
    assert!(home.run(&["list"]).1.contains("at byte 0"));
}

#[test]
fn a_second_start_shows_the_first_and_changes_nothing() {
    let home = Home::new();
    home.model(TINY);
    let mut daemon = Daemon::start(&home);
    daemon.until("it is judged", |report| is_judged(report, TINY_ID));
    let (code, output, error) = home.run(&["run", "--no-tray"]);
    assert_eq!(code, 0, "{error}");
    assert!(output.contains("is running\n") && output.contains("models           1: "), "{output}");
    assert!(error.contains("running already"), "{error}");
    assert!(daemon.child.try_wait().unwrap().is_none());
}

#[test]
fn after_a_kill_another_start_takes_over() {
    let home = Home::new();
    home.model(TINY);
    let mut killed = Daemon::start(&home);
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    assert!(cfg!(not(target_os = "linux")) || fs::exists(home.path("run/fitwatch/control.sock")).unwrap());
    assert!(home.run(&["status"]).1.contains("is not running"));
    assert_eq!(home.run(&["quit"]).0, 5);
    let daemon = Daemon::start(&home);
    daemon.until("it is judged", |report| is_judged(report, TINY_ID));
}

#[test]
fn signals_end_it_cleanly() {
    for signal in ["TERM", "INT"] {
        let home = Home::new();
        home.model(TINY);
        let mut daemon = Daemon::start(&home);
        daemon.until("it is judged", |report| is_judged(report, TINY_ID));
        daemon.signal(signal);
        assert_eq!(daemon.ended(), Some(0), "SIG{signal}");
        assert!(!fs::exists(home.path("run/fitwatch/control.sock")).unwrap(), "SIG{signal}");
        if cfg!(target_os = "linux") {
            let state = fs::read_to_string(home.path(&format!("{STATE}/state.json"))).unwrap();
            assert!(state.contains("tiny.gguf"), "SIG{signal}: {state}");
        }
    }
}

#[test]
fn a_hangup_reads_the_config_anew() {
    let home = Home::new();
    home.model("one/one.gguf");
    home.model("two/two.gguf");
    let config = |name: &str| format!("[library]\nextra_folders = [\"{}\"]\n", home.path(name));
    home.write("versions/1/fitwatch.toml", config("one"));
    home.write("versions/2/fitwatch.toml", config("two"));
    // A link in the middle of the path is not watched: only the signal tells.
    symlink(home.path("versions/1"), home.path("versions/current")).unwrap();
    fs::create_dir_all(home.path(".config/fitwatch")).unwrap();
    symlink(home.path("versions/current/fitwatch.toml"), home.path(CONFIG)).unwrap();
    let daemon = Daemon::start(&home);
    let holds = |report: &Value, name: &str| ids(report).len() == 1 && ids(report)[0].ends_with(name);
    daemon.until("the first config is in force", |report| holds(report, "one.gguf"));
    symlink(home.path("versions/2"), home.path("versions/next")).unwrap();
    fs::rename(home.path("versions/next"), home.path("versions/current")).unwrap();
    daemon.signal("HUP");
    daemon.until("the second config is in force", |report| holds(report, "two.gguf"));
}

#[test]
fn a_broken_config_keeps_the_old_one_and_is_named_until_it_is_mended() {
    let home = Home::new();
    home.model("extra/alone.gguf");
    let good = format!("[library]\nextra_folders = [\"{}\"]\n", home.path("extra"));
    home.write(CONFIG, &good);
    let daemon = Daemon::start(&home);
    daemon.until("the folder is read", |report| ids(report).len() == 1);
    home.write(CONFIG, format!("{good}\n[log]\nlevel = \"loud\"\n"));
    let report = daemon.until("it is named", |report| !problem(report, "config").is_null());
    assert!(problem(&report, "config")["message"].as_str().unwrap().contains("line 5"), "{report}");
    assert!(problem(&report, "config")["hint"].is_string(), "{report}");
    assert_eq!(ids(&report).len(), 1, "the old config stays in force");
    let (code, status, _) = home.run(&["status"]);
    assert!(code == 0 && status.contains("line 5") && status.contains("level = \"info\""), "{status}");
    let (code, doctor, _) = home.run(&["doctor"]);
    assert!(code == 6 && doctor.contains("PROBLEM  config") && doctor.contains("line 5"), "{doctor}");
    home.write(CONFIG, &good);
    daemon.until("it is mended", |report| problem(report, "config").is_null());
    assert_eq!(home.run(&["doctor"]).0, 0);
}

#[test]
fn a_broken_state_file_is_set_aside_and_said_once() {
    let home = Home::new();
    home.model(TINY);
    home.write(&format!("{STATE}/state.json"), "{ \"version\": 1, \"headers\": [[");
    let mut daemon = Daemon::start(&home);
    daemon.until("it is judged all the same", |report| is_judged(report, TINY_ID));
    let (code, doctor, _) = home.run(&["doctor"]);
    assert!(code == 0 && doctor.contains("note     old state") && doctor.contains("state.json.bad-"), "{doctor}");
    let names: Vec<_> = fs::read_dir(home.path(STATE)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().any(|name| name.to_string_lossy().starts_with("state.json.bad-")), "{names:?}");
    assert_eq!(home.run(&["quit"]).0, 0);
    assert_eq!(daemon.ended(), Some(0));
    let daemon = Daemon::start(&home);
    daemon.until("it is judged", |report| is_judged(report, TINY_ID));
    assert!(!home.run(&["doctor"]).1.contains("old state"));
}

#[test]
fn a_restart_reads_no_header_of_a_file_that_has_not_changed() {
    let home = Home::new();
    let path = home.model(TINY);
    let mut daemon = Daemon::start(&home);
    daemon.until("it is judged", |report| is_judged(report, TINY_ID));
    daemon.signal("TERM");
    assert_eq!(daemon.ended(), Some(0));
    // Other bytes under the same size and time: whoever reads the header finds nothing to judge.
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let mut file = File::options().write(true).open(&path).unwrap();
    file.write_all(&[b'?'; 64]).unwrap();
    file.set_modified(modified).unwrap();
    let daemon = Daemon::start(&home);
    daemon.until("it is remembered", |report| is_judged(report, TINY_ID));
    file.set_modified(modified + Duration::from_secs(2)).unwrap();
    daemon.until("it is read once it has changed", |report| state(report, TINY_ID) == "unreadable");
}

#[test]
fn alerts_are_paused_and_resumed_and_a_recheck_waits_for_its_result() {
    let home = Home::new();
    fs::create_dir_all(home.path(MODELS)).unwrap();
    let daemon = Daemon::start(&home);
    let paused = || daemon.report()["alerts"]["paused_for"].clone();
    assert_eq!(paused(), Value::Null);
    assert_eq!(home.run(&["pause", "90m"]).0, 0);
    assert!(paused().as_u64().is_some_and(|span| span > 80 * 60_000), "{}", paused());
    assert_eq!(home.run(&["resume"]).0, 0);
    assert_eq!(paused(), Value::Null);
    home.write(&format!("{MODELS}/maker/bad/bad.gguf"), "no model");
    let (report, code) = home.json(&["recheck", "--json"]);
    assert_eq!(code, 0);
    assert!(!ids(&report).is_empty(), "{report}");
}

#[test]
fn quit_ends_it_and_waits() {
    let home = Home::new();
    let mut daemon = Daemon::start(&home);
    assert_eq!(home.run(&["quit"]).0, 0);
    assert!(daemon.child.try_wait().unwrap().is_some_and(|status| status.success()) || daemon.ended() == Some(0));
    assert!(!fs::exists(home.path("run/fitwatch/control.sock")).unwrap());
    assert_eq!(home.run(&["quit"]).0, 5);
}

#[test]
fn the_daemon_lists_what_a_single_scan_lists() {
    let home = Home::new();
    home.model(TINY);
    home.projector(&TINY.replace("tiny.gguf", "mmproj-tiny.gguf"));
    home.write(&TINY.replace("tiny.gguf", "bad.gguf"), "this is no model, whatever its name says");
    home.sparse(
        &format!("{MODELS}/maker/split/split-00001-of-00002.gguf"),
        &Llama { shard: Some((1, 2)), ..Llama::tiny() }.header(),
    );
    let (single, code) = home.json(&["list", "--json"]);
    assert_eq!((code, &single["live"]), (0, &json!(false)));
    let daemon = Daemon::start(&home);
    daemon.until("all is read", |report| ids(report).len() == 3 && report["library"]["busy"] == false);
    let (live, _) = home.json(&["list", "--json"]);
    assert_eq!(live["live"], true);
    assert_eq!(steady(live), steady(single));
}

#[test]
fn the_control_socket_speaks_json_lines() {
    if cfg!(not(target_os = "linux")) {
        return;
    }
    let home = Home::new();
    home.model(TINY);
    let daemon = Daemon::start(&home);
    daemon.until("it is judged", |report| is_judged(report, TINY_ID));
    let socket = UnixStream::connect(home.path("run/fitwatch/control.sock")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answers = BufReader::new(&socket).lines();
    let mut ask = |request: &str| -> Value {
        (&socket).write_all(format!("{request}\n").as_bytes()).unwrap();
        serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap()
    };
    assert_eq!(ask(r#"{"request":"resume"}"#), json!({ "reply": "done" }));
    assert_eq!(ask(r#"{"request":"show","model":"tiny"}"#)["model"]["id"], TINY_ID);
    assert_eq!(ask(r#"{"request":"show","model":"nobody"}"#)["reply"], "no_such_model");
    assert_eq!(ask(r#"{"request":"report"}"#)["models"][0]["id"], TINY_ID);
    assert_eq!(ask(r#"{"request":"dance"}"#)["reply"], "refused");
    assert!(is_judged(&daemon.report(), TINY_ID));
}

#[test]
fn verdicts_follow_a_gpu_as_others_take_it_and_as_it_is_lost_and_comes_back() {
    const FREE: &str = "gpu Big_GPU 25757220864 1000000000 400000000 0\n";
    const TAKEN: &str = "gpu Big_GPU 25757220864 23500000000 400000000 0\n";
    let home = Home::new();
    let (_folder, library) = nvml::compile(&[]);
    fs::copy(library, home.path("libnvidia-ml.so.1")).unwrap();
    let gpu = |state: &str| home.write("libnvidia-ml.so.1.state", format!("driver 580.95\n{state}"));
    home.write(CONFIG, format!("[machine]\nnvml_library = \"{}\"\n", home.path("libnvidia-ml.so.1")));
    // A tight GPU is looked at more often, which keeps this test short.
    gpu(TAKEN);
    let llama = Llama { blocks: 32, width: 4_096, shard: None }.header();
    assert!(llama.weights > 6_000_000_000);
    home.sparse(TINY, &llama);
    let daemon = Daemon::start(&home);
    let verdict = |report: &Value, sense: &str| model(report, TINY_ID)["fit"][sense]["verdict"].clone();
    let free = |report: &Value| report["machine"]["devices"][0]["memory"]["value"]["free"].as_u64();

    daemon.until("the GPU is taken", |report| verdict(report, "machine") == "full_gpu");
    assert_ne!(verdict(&daemon.report(), "now"), "full_gpu");
    gpu(FREE);
    let report = daemon.until("the GPU is free", |report| verdict(report, "now") == "full_gpu");
    assert_eq!(free(&report), Some(24_357_220_864));
    gpu(TAKEN);
    let report = daemon.until("another program takes it", |report| verdict(report, "now") != "full_gpu");
    assert_eq!((free(&report), verdict(&report, "machine")), (Some(1_857_220_864), json!("full_gpu")));
    gpu(&format!("{TAKEN}fail nvmlDeviceGetMemoryInfo_v2 15\n"));
    let report = daemon.until("the GPU is lost", |report| free(report).is_none());
    assert!(!report.to_string().contains("\"free\":0,"), "{report}");
    let caveat = model(&report, TINY_ID)["fit"]["now"]["caveat"].to_string();
    assert!(caveat.contains("GPU memory unknown") && caveat.contains("fallen off the bus"), "{caveat}");
    let (_, list, _) = home.run(&["list"]);
    assert!(list.contains("memory unknown") && !list.contains("0 B free"), "{list}");
    gpu(FREE);
    daemon.until("it is back", |report| verdict(report, "now") == "full_gpu" && free(report).is_some());
    fs::remove_file(home.path("libnvidia-ml.so.1.state")).unwrap();
    let report = daemon.until("the driver is gone", |report| report.to_string().contains("driver is not loaded"));
    assert_eq!(free(&report), None);
    assert!(verdict(&report, "now") != "full_gpu", "{report}");
    gpu(FREE);
    daemon.until("the driver is back", |report| verdict(report, "now") == "full_gpu");
}

/// A running fitwatch without a tray.
struct Daemon<'a> {
    home: &'a Home,
    child: Child,
}

impl Daemon<'_> {
    /// Starts one and waits until it answers.
    fn start(home: &Home) -> Daemon<'_> {
        let mut command = home.command(&["run", "--no-tray"]);
        // What it says there, a panic above all, is kept beside its state.
        let said = File::create(home.path("stderr")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(said).spawn().unwrap();
        let daemon = Daemon { home, child };
        daemon.until("it answers", |report| report["live"] == true);
        daemon
    }

    /// Returns how everything stands.
    fn report(&self) -> Value {
        self.home.json(&["status", "--json"]).0
    }

    /// Waits until everything stands as wanted and returns how.
    fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let report = self.report();
            if is_so(&report) {
                return report;
            }
            assert!(started.elapsed() < PATIENCE, "waited in vain until {what}: {report:#}");
            sleep(STEP);
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Waits for its end and returns its exit code.
    fn ended(&mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "it never ended");
            sleep(STEP);
        }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn saved_settings() -> String {
    format!(".lmstudio/.internal/user-concrete-model-default-config/{TINY_ID}.json")
}

fn ids(report: &Value) -> Vec<String> {
    report["models"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect()
}

fn model<'a>(report: &'a Value, id: &str) -> &'a Value {
    report["models"].as_array().unwrap().iter().find(|model| model["id"] == id).unwrap_or(&Value::Null)
}

fn state(report: &Value, id: &str) -> String {
    model(report, id)["state"]["state"].as_str().unwrap_or_default().to_owned()
}

fn is_judged(report: &Value, id: &str) -> bool {
    state(report, id) == "judged" && !model(report, id)["fit"].is_null()
}

fn problem<'a>(report: &'a Value, part: &str) -> &'a Value {
    report["problems"].as_array().unwrap().iter().find(|problem| problem["part"] == part).unwrap_or(&Value::Null)
}

fn root<'a>(report: &'a Value, ending: &str) -> &'a Value {
    let roots = report["library"]["roots"].as_array().unwrap().iter();
    roots.clone().find(|root| root["path"].as_str().unwrap().ends_with(ending)).unwrap_or(&Value::Null)
}

/// Returns a list without what changes from one moment to the next, or with the way it was made.
fn steady(mut value: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for key in ["live", "watch", "available", "swap_free", "spare"] {
                    fields.remove(key);
                }
                fields.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut value);
    value
}
