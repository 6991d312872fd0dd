//! The command line as it is typed: the real program, in a home of its own, with no daemon.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

mod common;

use common::Home;

#[test]
fn an_estimate_is_a_bill_whose_sum_is_its_total() {
    let home = Home::new();
    let model = home.model("tiny.gguf");
    let (estimate, code) = home.json(&["estimate", &model, "--gpu", "Big=24GB", "--ram", "32GB", "--json"]);
    assert_eq!(code, 0, "{estimate}");
    assert_eq!(estimate["schema"], 1);
    assert_eq!(estimate["architecture"], "llama");
    assert_eq!(estimate["devices"]["gpus"], serde_json::json!(["Big"]));
    assert_eq!(estimate["fit"]["now"]["verdict"], "full_gpu");
    let sum = |list: &Value| -> u64 { list.as_array().unwrap().iter().map(|one| one["bytes"].as_u64().unwrap()).sum() };
    assert!(estimate["total"].as_u64().unwrap() > 0);
    assert_eq!(sum(&estimate["bill"]["lines"]), estimate["total"].as_u64().unwrap());
    assert_eq!(sum(&estimate["pools"]), estimate["total"].as_u64().unwrap());
}

#[test]
fn an_estimate_exits_by_its_verdict() {
    let home = Home::new();
    let model = home.model("tiny.gguf");
    let exit = |arguments: &[&str]| home.run(&[&["estimate", model.as_str()], arguments].concat()).0;
    assert_eq!(exit(&["--gpu", "Big=24GB", "--ram", "32GB"]), 0);
    assert_eq!(exit(&["--backend", "none", "--ram", "32GB"]), 11);
    assert_eq!(exit(&["--backend", "none", "--ram", "1MB"]), 12);
    assert_eq!(exit(&["--gpu", "Big=24GB", "--ram", "32GB", "--gpu-layers", "1"]), 10);
}

#[test]
fn settings_change_the_bill() {
    let home = Home::new();
    let model = home.model("tiny.gguf");
    let cache = |arguments: &[&str]| {
        let devices = ["estimate", &model, "--json", "--gpu", "Big=24GB", "--ram", "32GB"];
        let (estimate, _) = home.json(&[devices.as_slice(), arguments].concat());
        let pool = |name: &str| {
            let pools = estimate["pools"].as_array().unwrap().iter();
            let pool = pools.filter(|pool| pool["name"] == name);
            pool.map(|pool| pool["parts"]["KV cache"].as_u64().unwrap_or(0)).sum::<u64>()
        };
        (pool("Big"), pool("RAM"))
    };
    let (usual, in_ram) = cache(&[]);
    assert_eq!(in_ram, 0);
    assert_eq!(cache(&["--context", "8192"]), (2 * usual, 0));
    assert_eq!(cache(&["--ctx-size", "8192"]), (2 * usual, 0));
    assert_eq!(cache(&["--no-kv-offload"]), (0, usual));
    let quantised = cache(&["--cache-type-k", "q8_0", "--cache-type-v", "q8_0"]).0;
    // 34 bytes hold 32 values; the back-end pads rows a little.
    assert!((usual * 17 / 32..usual * 9 / 16).contains(&quantised), "{quantised} of {usual}");
}

#[test]
fn any_shard_stands_for_the_model() {
    let home = Home::new();
    home.model("split-00001-of-00002.gguf");
    let missing = home.path("split-00001-of-00002.gguf");
    let (code, _, error) = home.run(&["estimate", &missing]);
    assert_eq!(code, 3);
    assert!(error.contains("split-00002-of-00002.gguf is not there"), "{error}");
}

#[test]
fn a_bad_file_is_named_with_its_reason_and_offset() {
    let home = Home::new();
    fs::write(home.0.path().join("bad.gguf"), "this is no model, whatever its name says").unwrap();
    let bad = home.path("bad.gguf");
    let (code, output, error) = home.run(&["estimate", &bad]);
    assert_eq!((code, output.as_str()), (4, ""));
    assert!(error.starts_with("error: ") && error.contains("bad.gguf") && error.contains("at byte 0"), "{error}");
    let (failure, code) = home.json(&["estimate", &bad, "--json"]);
    assert_eq!((code, &failure["error"]["kind"]), (4, &Value::from("unreadable")));
}

#[test]
fn a_cut_file_is_not_billed() {
    let home = Home::new();
    let model = home.model("cut.gguf");
    let file = File::options().write(true).open(&model).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    let (code, _, error) = home.run(&["estimate", &model]);
    assert_eq!(code, 4);
    assert!(error.contains("bytes needed") && error.contains("hint: let its download end"), "{error}");
    file.set_len(100).unwrap();
    assert_eq!(home.run(&["estimate", &model]).0, 4);
}

#[test]
fn a_folder_a_pipe_and_nothing_are_no_models() {
    let home = Home::new();
    let (code, _, error) = home.run(&["estimate", &home.path("")]);
    assert_eq!(code, 4);
    assert!(error.contains("it is a folder\n  hint: name the .gguf file in it"), "{error}");
    let (code, _, error) = home.run(&["estimate", &home.path("missing.gguf")]);
    assert_eq!(code, 3);
    assert!(error.contains("missing.gguf is not there\n  hint: check the path"), "{error}");
    assert_eq!(home.run(&["estimate", "/dev/null"]).0, 4);
    let pipe = home.path("pipe.gguf");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (code, _, error) = home.run(&["estimate", &pipe]);
    assert_eq!(code, 4);
    assert!(error.contains("no regular file"), "{error}");
}

#[test]
fn a_file_that_may_not_be_read_is_named_with_what_to_do() {
    let home = Home::new();
    let model = home.model("locked.gguf");
    fs::set_permissions(&model, fs::Permissions::from_mode(0o0)).unwrap();
    if File::open(&model).is_ok() {
        // For the superuser nothing is locked.
        return;
    }
    let (code, _, error) = home.run(&["estimate", &model]);
    assert_eq!(code, 4);
    assert!(error.contains("Permission denied") && error.contains("hint: make the file"), "{error}");
}

#[test]
fn a_projector_alone_has_a_bill_and_exits_by_its_verdict() {
    let home = Home::new();
    let projector = home.projector("mmproj-tiny-F16.gguf");
    let (estimate, code) = home.json(&["estimate", &projector, "--gpu", "Big=24GB", "--ram", "32GB", "--json"]);
    assert_eq!((code, &estimate["schema"], &estimate["kind"]), (0, &Value::from(1), &Value::from("projector")));
    assert_eq!(estimate["projector_type"], "gemma3");
    let parts = &estimate["pools"][0]["parts"];
    assert_eq!(parts["projector"], 2 * 64 * (64 + 256));
    assert!(parts["projector compute"].as_u64().unwrap() > 0);
    assert_eq!(estimate["total"], estimate["pools"][0]["bytes"]);
    let exit = |arguments: &[&str]| home.run(&[&["estimate", projector.as_str()], arguments].concat()).0;
    assert_eq!(exit(&["--backend", "none", "--ram", "32GB"]), 11);
    assert_eq!(exit(&["--backend", "none", "--ram", "1MB"]), 12);
    assert_eq!(exit(&["--mmproj", &projector]), 2);
    let (_, output, _) = home.run(&["estimate", &projector, "--backend", "none", "--ram", "32GB"]);
    assert!(output.contains("projector, gemma3") && output.contains("RAM") && !output.contains("layers"), "{output}");
}

#[test]
fn a_projector_is_no_model_and_a_model_no_projector() {
    let home = Home::new();
    let model = home.model("tiny.gguf");
    let (code, _, error) = home.run(&["estimate", &model, "--mmproj", &model]);
    assert_eq!(code, 2);
    assert!(error.contains("is no projector"), "{error}");
}

#[test]
fn cases_are_answered_one_a_line_and_a_bad_one_does_not_stop_the_run() {
    let home = Home::new();
    let model = home.model("tiny.gguf");
    let good = format!(r#"{{"id":"a","path":"{model}","n_ctx":4096,"backend":"none","surprise":1}}"#);
    fs::write(home.0.path().join("cases.jsonl"), format!("{{\"id\":\"b\",\"path\":\"/missing\"}}\n{good}\n")).unwrap();
    let (code, output, error) = home.run(&["estimate", "--cases", &home.path("cases.jsonl")]);
    assert_eq!(code, 0, "{error}");
    let answers: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&answers[0]["id"], &answers[1]["id"]), (&Value::from("b"), &Value::from("a")));
    assert!(answers[0]["error"].is_string() && answers[1]["devices"].is_object(), "{output}");
    assert_eq!(home.run(&["estimate", "--cases", &home.path("none.jsonl")]).0, 3);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_happens() {
    let home = Home::new();
    for arguments in [
        ["estimate", "a.gguf", "--contxt", "1"].as_slice(),
        &["estimate", "a.gguf", "--gpu", "Big"],
        &["estimate", "a.gguf", "--gpu", "Big=24G"],
        &["list", "--verdict", "good"],
        &["frobnicate"],
    ] {
        let (code, output, error) = home.run(arguments);
        assert_eq!((code, output.as_str()), (2, ""), "{arguments:?}");
        assert!(error.contains("error:"), "{error}");
    }
}

#[test]
fn without_lm_studio_the_list_says_where_it_looked() {
    let home = Home::new();
    let (code, output, error) = home.run(&["list"]);
    assert_eq!(code, 3, "{error}");
    assert!(output.contains("looked here") && output.contains(".lmstudio/models (not there)"), "{output}");
    assert_eq!(home.run(&["status"]).0, 0);
}

#[test]
fn models_are_listed_and_shown_without_a_daemon() {
    let home = Home::new();
    home.model(".lmstudio/models/maker/tiny-GGUF/tiny.gguf");
    let (list, code) = home.json(&["list", "--json"]);
    assert_eq!((code, &list["schema"], &list["live"]), (0, &Value::from(1), &Value::from(false)));
    assert_eq!(list["models"][0]["id"], "maker/tiny-GGUF/tiny.gguf");
    let (detail, _) = home.json(&["show", "tiny", "--json"]);
    assert_eq!((&detail["schema"], &detail["model"]["name"]), (&Value::from(1), &Value::from("tiny")));
    assert!(!detail["bill"]["lines"].as_array().unwrap().is_empty());
    let (code, output, _) = home.run(&["list", "tiny"]);
    assert_eq!(code, 0);
    assert!(output.starts_with("MODEL"), "{output}");
    assert_eq!(home.run(&["list", "giant"]).0, 3);
}

#[test]
fn a_model_that_is_not_there_is_answered_with_the_nearest() {
    let home = Home::new();
    home.model(".lmstudio/models/maker/tiny-GGUF/tiny.gguf");
    let (code, output, error) = home.run(&["show", "tinny"]);
    assert_eq!((code, output.as_str()), (3, ""));
    assert!(error.contains("no model is called `tinny`") && error.contains("maker/tiny-GGUF/tiny.gguf"), "{error}");
    let (failure, code) = home.json(&["show", "tinny", "--json"]);
    assert_eq!((code, &failure["error"]["kind"]), (3, &Value::from("no_such_model")));
}

#[test]
fn a_hostile_file_name_is_escaped_everywhere() {
    let home = Home::new();
    home.model(".lmstudio/models/maker/evil/evil\u{1b}[31m\u{202e}\n.gguf");
    for arguments in [["list"].as_slice(), &["list", "--json"], &["show", "evil"], &["show", "nobody"]] {
        let (_, output, error) = home.run(arguments);
        let text = output + &error;
        assert!(text.contains("evil"), "{arguments:?}: {text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{arguments:?}: {text:?}");
    }
}

#[test]
fn a_typo_in_the_config_is_found_with_its_line_and_the_right_name() {
    let home = Home::new();
    let config = home.0.path().join("config.toml");
    fs::write(&config, "[fit]\nram_margn = \"2 GB\"\n").unwrap();
    let config = config.to_str().unwrap();
    let (code, output, _) = home.run(&["config", "check", config]);
    assert_eq!(code, 6);
    assert!(output.contains("line 2") && output.contains("ram_margin"), "{output}");
    fs::write(config, "[fit]\nram_margin = 2 GB\n").unwrap();
    let (code, output, _) = home.run(&["config", "check", config]);
    assert_eq!(code, 6);
    assert!(output.contains(":2:"), "{output}");
    let (check, code) = home.json(&["config", "check", config, "--json"]);
    assert_eq!((code, &check["ok"], &check["error"]["line"]), (6, &Value::from(false), &Value::from(2)));
    assert_eq!(home.run(&["config", "check", &home.path("none.toml")]).0, 3);
    assert_eq!(home.run(&["config", "check"]).0, 0);
}

#[test]
fn the_config_shown_is_a_config() {
    let home = Home::new();
    let (code, output, _) = home.run(&["config", "show"]);
    assert_eq!(code, 0);
    fs::write(home.0.path().join("shown.toml"), &output).unwrap();
    assert_eq!(home.run(&["config", "check", &home.path("shown.toml")]).0, 0);
    let (_, path, _) = home.run(&["config", "path"]);
    assert!(path.trim_end().ends_with("config.toml") && Path::new(path.trim_end()).is_absolute(), "{path}");
}

#[test]
fn what_needs_a_running_fitwatch_says_that_none_runs() {
    let home = Home::new();
    for arguments in [["quit"].as_slice(), &["pause", "1h"], &["resume"]] {
        let (code, _, error) = home.run(arguments);
        assert_eq!(code, 5, "{arguments:?}");
        assert!(error.contains("not running"), "{error}");
    }
}

#[test]
fn a_second_start_shows_the_first_and_quit_waits_for_its_end() {
    let home = Home::new();
    home.model(".lmstudio/models/maker/tiny-GGUF/tiny.gguf");
    let watch = ["run", "--no-tray"];
    let mut first = home.command(&watch).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let is_live = || home.json(&["status", "--json"]).0["live"] == true;
    let started = Instant::now();
    while !is_live() {
        assert!(started.elapsed() < Duration::from_secs(20), "it never answered");
        sleep(Duration::from_millis(50));
    }
    let (code, output, error) = home.run(&watch);
    assert_eq!(code, 0, "{error}");
    assert!(output.starts_with("fitwatch") && output.contains("is running\n"), "{output}");
    assert!(error.contains("running already"), "{error}");
    assert_eq!(home.run(&["pause", "1h"]).0, 0);
    assert!(home.run(&["status"]).1.contains("paused for 1 h"));
    let (report, _) = home.json(&["recheck", "--json"]);
    assert_eq!(report["models"].as_array().unwrap().len(), 1);
    assert_eq!(home.run(&["quit"]).0, 0);
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!(home.run(&["quit"]).0, 5);
}

#[test]
fn doctor_finds_nothing_wrong_on_a_bare_machine_and_a_broken_config() {
    let home = Home::new();
    let (doctor, code) = home.json(&["doctor", "--json"]);
    assert_eq!((code, &doctor["ok"]), (0, &Value::from(true)), "{doctor}");
    fs::write(home.0.path().join("config.toml"), "[fit").unwrap();
    let broken = [("FITWATCH_CONFIG", home.path("config.toml"))];
    let output = home.command(&["doctor"]).envs(broken).output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&output.stdout).contains("PROBLEM  config"));
}

#[test]
fn completions_name_the_commands() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, output, _) = home.run(&["completions", shell]);
        assert_eq!(code, 0);
        assert!(output.contains("estimate") && output.contains("cache-type-k"), "{shell}");
    }
}

#[test]
fn installing_can_be_rehearsed() {
    let home = Home::new();
    let (code, output, _) = home.run(&["install", "--dry-run"]);
    assert_eq!(code, 0);
    assert!(output.contains("write ") || output.contains("run reg"), "{output}");
    let (code, output, _) = home.run(&["uninstall"]);
    assert_eq!(code, 0);
    assert!(output.contains("nothing to do"), "{output}");
}

#[test]
fn piped_text_has_no_escapes_and_a_wish_for_colour_is_heard() {
    let home = Home::new();
    home.model(".lmstudio/models/maker/tiny-GGUF/tiny.gguf");
    assert!(!home.run(&["show", "tiny"]).1.contains('\u{1b}'));
    let with = |name: &str| home.command(&["show", "tiny"]).env(name, "1").output().unwrap();
    assert!(with("CLICOLOR_FORCE").stdout.contains(&0x1b));
    assert!(!with("NO_COLOR").stdout.contains(&0x1b));
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let home = Home::new();
    let model = home.model("tiny.gguf");
    fs::write(home.0.path().join("cases.jsonl"), "{}\n").unwrap();
    let cases = home.path("cases.jsonl");
    for (arguments, code) in [
        (["completions", "zsh"].as_slice(), 0),
        (&["--help"], 0),
        (&["estimate", &model, "--backend", "none", "--ram", "32GB"], 11),
        (&["estimate", "--cases", &cases], 0),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = home.command(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(!error.contains("error"), "{arguments:?}: {error}");
    }
}

#[test]
fn version_and_help_are_answers() {
    let home = Home::new();
    let (code, output, _) = home.run(&["--version"]);
    assert_eq!((code, output.as_str()), (0, concat!("fitwatch ", env!("CARGO_PKG_VERSION"), "\n")));
    let (code, output, _) = home.run(&["--help"]);
    assert_eq!(code, 0);
    assert!(output.contains("Exit codes:"), "{output}");
}
