//! Loaded models, with a stand-in for LM Studio: found, followed, unloaded, and nothing given away.

use lmstudio_stand_in::{Call, Instance, Scenario, StandIn};

use super::*;

const TOKEN: &str = "sk-lm-Ab3dEf7h:0123456789abcdefghij";
/// What is in the loaded models' scenario.
const QWEN: &str = ".lmstudio/models/lmstudio-community/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf";

/// Returns the identifiers of the loaded models.
fn loaded(report: &Value) -> Vec<String> {
    let list = report["loaded"].as_array().unwrap();
    list.iter().map(|instance| instance["id"].as_str().unwrap().to_owned()).collect()
}

fn qwen() -> Instance {
    Instance { model_key: "qwen3-8b".into(), context_length: 4_096, ..Instance::default() }
}

#[test]
fn loaded_models_are_followed_and_only_the_users_word_unloads_one() {
    let home = Home::new();
    home.model(QWEN);
    let stand_in = StandIn::start_in(home.0.path(), Scenario::named("nothing-loaded"));
    let daemon = Daemon::start(&home);
    daemon.until("LM Studio is asked", |_| stand_in.heard().iter().any(|call| call.contains("listLoaded")));

    let begun = Instant::now();
    stand_in.load(qwen());
    // As an engine does that loads it.
    File::open(home.path(QWEN)).unwrap();
    let report = daemon.until("it is loaded", |report| loaded(report) == ["qwen3-8b"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let instance = &report["loaded"][0];
    assert_eq!(instance["model"], "lmstudio-community/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf", "{instance:#}");
    assert_eq!((&instance["settings"]["settings"]["context"], &instance["can_unload"]), (&json!(4_096), &json!(true)));
    assert!(instance["needs"].as_array().is_some_and(|needs| !needs.is_empty()), "{instance:#}");
    let (_, list, _) = home.run(&["list"]);
    assert!(list.starts_with("loaded           qwen3-8b: context 4096"), "{list}");
    assert!(stand_in.not_reading().is_empty(), "{:?}", stand_in.not_reading());

    stand_in.load(Instance { context_length: 8_192, ..qwen() });
    daemon.until("a second one is loaded", |report| loaded(report) == ["qwen3-8b", "qwen3-8b:2"]);
    let (code, outcome, said) = home.run(&["unload", "qwen3-8b:2"]);
    assert_eq!((code, outcome.as_str(), said.as_str()), (0, "", "qwen3-8b:2 is unloaded\n"));
    daemon.until("it is gone", |report| loaded(report) == ["qwen3-8b"]);
    let changes: Vec<String> = stand_in.not_reading().iter().map(Call::what).collect();
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert!(changes[0].contains("unloadModel"), "{changes:?}");

    let (code, _, said) = home.run(&["unload", "phi"]);
    assert_eq!((code, said.contains("no loaded model is called `phi`")), (3, true), "{said}");
    let (failure, code) = home.json(&["unload", "phi", "--json"]);
    assert_eq!((code, &failure["error"]["kind"]), (3, &json!("no_such_instance")), "{failure}");

    stand_in.unload("qwen3-8b");
    let report = daemon.until("LM Studio unloads it", |report| loaded(report).is_empty());
    assert_eq!(report["problems"], json!([]));
}

#[test]
fn a_restart_of_lm_studio_is_followed() {
    let home = Home::new();
    home.model(QWEN);
    let mut stand_in = StandIn::start_in(home.0.path(), Scenario::named("nothing-loaded"));
    let daemon = Daemon::start(&home);
    stand_in.load(qwen());
    File::open(home.path(QWEN)).unwrap();
    daemon.until("it is loaded", |report| loaded(report) == ["qwen3-8b"]);
    stand_in.quit();
    let report = daemon.until("LM Studio has ended", |report| loaded(report).is_empty());
    assert_eq!(report["problems"], json!([]), "an end is no problem");
    stand_in.start_again();
    daemon.until("it is back on other ports", |report| loaded(report) == ["qwen3-8b"]);
}

#[test]
fn a_single_scan_tells_what_is_loaded_and_can_unload_it() {
    let home = Home::new();
    home.model(QWEN);
    let stand_in = StandIn::start_in(home.0.path(), Scenario::named("nothing-loaded"));
    stand_in.load(qwen());
    let (report, _) = home.json(&["status", "--json"]);
    assert_eq!((loaded(&report), &report["live"]), (vec!["qwen3-8b".to_owned()], &json!(false)));
    let (outcome, code) = home.json(&["unload", "qwen3", "--json"]);
    assert_eq!((code, &outcome["instance"], &outcome["outcome"]), (0, &json!("qwen3-8b"), &json!("done")), "{outcome}");
    assert_eq!(loaded(&home.json(&["status", "--json"]).0), Vec::<String>::new());
}

#[test]
fn no_token_key_or_prompt_leaves_fitwatch() {
    let home = Home::new();
    home.model(QWEN);
    let stand_in = StandIn::start_in(home.0.path(), Scenario::named("many-loaded").with_token(TOKEN));
    let token = home.write("token", TOKEN);
    home.write(CONFIG, format!("[lm_studio]\napi_token_file = '{token}'\n[log]\nlevel = \"trace\"\n"));
    // An engine as LM Studio starts it, with secrets of all kinds on its command line.
    let engine = home.path(".lmstudio/extensions/backends/llama.cpp-linux-x86_64-avx2-2.31.0/llama-server");
    home.write(".lmstudio/extensions/backends/llama.cpp-linux-x86_64-avx2-2.31.0/x", "");
    fs::copy("/bin/sleep", &engine).unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$0\" 60 \"$@\" 2>/dev/null", &engine])
        .args(["--model", &home.path(QWEN), "--api-key", "planted-api-key", "--ctx-size", "4096"])
        .args(["--hf-token", "planted-hf-token", "--system-prompt", "planted prompt"])
        .args(["--chat-template-file", "/home/planted/template.jinja"])
        .spawn()
        .unwrap();
    let daemon = Daemon::start(&home);
    let report = daemon.until("all are there", |report| loaded(report).len() >= 5);
    assert_eq!(report["loaded_unknown"], Value::Null, "{report:#}");
    home.run(&["unload", "qwen3-8b:2"]);
    home.run(&["unload", "planted-of-no-meaning"]);
    let mut told = String::new();
    for arguments in [&["status", "--json"][..], &["list"], &["list", "--json"], &["doctor"], &["doctor", "--json"]] {
        let (_, output, error) = home.run(arguments);
        told.extend([output, error]);
    }
    let (code, _, _) = home.run(&["quit"]);
    assert_eq!(code, 0);
    for file in files(Path::new(&home.path(STATE))) {
        told.push_str(&String::from_utf8_lossy(&fs::read(file).unwrap()));
    }
    told.push_str(&fs::read_to_string(home.path("stderr")).unwrap());
    let _ = child.kill();
    child.wait().unwrap();
    for secret in [TOKEN, "Ab3dEf7h", "0123456789abcdefghij", "planted-api-key", "planted-hf-token", "planted prompt"] {
        assert!(!told.contains(secret), "{secret} was told");
    }
    assert!(!told.contains("/home/planted") && !told.contains("hf_planted") && !told.contains("planted-lms-key"));
    assert!(told.contains("watching"), "the log was searched too");
    assert!(!stand_in.calls().is_empty(), "it was let in");
}

/// Returns all files below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut list = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            list.extend(files(&path));
        } else if path.is_file() {
            list.push(path);
        }
    }
    list
}
