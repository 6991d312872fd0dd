//! The selected runtime, virtual models, the index and Bionic's own files.

use std::collections::BTreeSet;

use fitwatch::host::lmstudio::{read_as, read_index};
use fitwatch::lmstudio::{Accelerator, IndexHint, Program};
use fitwatch::units::Span;

use super::*;

const RUNTIME: &str = "llama.cpp-linux-x86_64-nvidia-cuda12-avx2";

fn select(user: &User, internal: &str, name: &str) {
    let selected = json!([{ "model_format": "gguf", "name": name, "version": "2.31.0" }]);
    user.write(&format!("{internal}/backend-preferences-v1.json"), &selected.to_string());
}

#[test]
fn the_selected_runtime_tells_what_it_computes_on_and_what_is_set_for_it() {
    let user = User::new();
    assert_eq!(user.read().settings.runtime, None);
    select(&user, ".internal", RUNTIME);
    user.write(".internal/hardware-config.json", &fixture("hardware-config.json"));
    let runtime = user.read().settings.runtime.unwrap();
    assert_eq!((runtime.accelerator, runtime.has_own_process), (Accelerator::Cuda, None), "by its name");
    assert!(!runtime.hardware.own_gpu_split && !runtime.hardware.strict_vram_cap);
    let manifest = |name: &str| {
        let folder = format!(".lmstudio/extensions/backends/{RUNTIME}-2.31.0");
        user.write(&format!("{folder}/backend-manifest.json"), &fixture(name));
        user.read().settings.runtime.unwrap().has_own_process
    };
    assert_eq!(manifest("backend-manifest.json"), Some(true));
    assert_eq!(manifest("backend-manifest-in-process.json"), Some(false));
}

#[test]
fn on_a_runtime_of_the_cpu_nothing_is_offloaded() {
    let user = User::new();
    select(&user, ".internal", "llama.cpp-linux-x86_64-avx2");
    let app = user.read().settings;
    let saved = fields(&json!([{ "key": "llm.load.llama.acceleration.offloadRatio", "value": "max" }]));
    for saved in [None, Some(&saved)] {
        let found = settings_for(&structure_of(32), saved, &app);
        assert_eq!(found.settings.gpu_layers, GpuLayers::Count(0));
        assert!(found.assumptions[0].contains("no GPU support: nothing can be offloaded"), "{:?}", found.assumptions);
        assert!(found.assumptions.iter().all(|text| !text.contains("all layers")), "{:?}", found.assumptions);
    }
}

#[test]
fn what_is_set_for_the_runtime_is_weaker_than_what_is_saved() {
    let user = User::new();
    select(&user, ".internal", RUNTIME);
    let set = json!({ "json": [[RUNTIME, { "fields": [
        { "key": "load.gpuSplitConfig", "value": { "strategy": "evenly", "disabledGpus": [1] } },
        { "key": "llm.load.offloadKVCacheToGpu", "value": false } ] }]], "meta": {} });
    user.write(".internal/hardware-config.json", &set.to_string());
    let app = user.read().settings;
    let found = settings_for(&structure_of(32), None, &app);
    assert!(!found.settings.offload_kv);
    assert!(found.assumptions.iter().any(|text| text.contains("leave out GPU 1")), "{:?}", found.assumptions);
    let saved = fields(&json!([{ "key": "llm.load.offloadKVCacheToGpu", "value": true }]));
    assert!(settings_for(&structure_of(32), Some(&saved), &app).settings.offload_kv);
}

#[test]
fn virtual_models_are_read_and_broken_ones_said() {
    let user = User::new();
    let hub = ".lmstudio/hub/models";
    let text = "model: qwen/qwen3-8b\nbase:\n  - key: comm/qwen3-8b-gguf\nconfig:\n  load:\n    fields:\n      \
                - key: llm.load.contextLength\n        value: 42690\n";
    user.write(&format!("{hub}/qwen/qwen3-8b/model.yaml"), text);
    user.write(&format!("{hub}/qwen/broken/model.yaml"), "base: [SECRET");
    user.write(&format!("{hub}/qwen/huge/model.yaml"), &format!("base: a/b\n{}", "#".repeat(300_000)));
    user.write(&format!("{hub}/qwen/only-a-readme/README.md"), "x");
    user.write(&format!("{hub}/stray.txt"), "x");
    let found = user.read();
    assert_eq!(found.hub.models().keys().collect::<Vec<_>>(), ["qwen/qwen3-8b"]);
    assert_eq!(found.hub.models()["qwen/qwen3-8b"].load.context_length, Some(42_690));
    assert_eq!(found.notes.len(), 2, "{:?}", found.notes);
    assert!(!format!("{found:?}").contains("SECRET"));
}

#[test]
fn the_index_is_read_for_the_keys_in_doubt_within_its_limit() {
    let user = User::new();
    let home = user.path(".lmstudio");
    let keys = BTreeSet::from(["openai/gpt-oss-20b".to_owned(), "qwen3-8b".to_owned()]);
    assert!(read_index(&home, Program::App, &keys).unwrap_err().contains("cannot be read"));
    user.write(".internal/model-index-cache.json", &fixture("model-index-cache.json"));
    let found = read_index(&home, Program::App, &keys).unwrap();
    let expected = "lmstudio-community/gpt-oss-20b-GGUF/gpt-oss-20b-MXFP4.gguf";
    assert_eq!(found["openai/gpt-oss-20b"], IndexHint { identifier: Some(expected.into()), path: None });
    assert!(found["qwen3-8b"].path.as_ref().unwrap().ends_with("Qwen3-8B-Q4_K_M.gguf"));
    fs::File::create(home.join(".internal/model-index-cache.json")).unwrap().set_len((32 << 20) + 1).unwrap();
    assert!(read_index(&home, Program::App, &keys).unwrap_err().contains("regular file of up to"));
}

#[test]
fn bionics_own_files_count_while_it_runs() {
    let user = User::new();
    let bionic = ".lmstudio/apps/bionic";
    user.write(".lmstudio/settings.json", &json!({ "downloadsFolder": user.path("shared") }).to_string());
    user.write(&format!("{SAVED}/acme/tiny.gguf.json"), &fixture("per-model-config.gguf.json"));
    select(&user, ".internal", RUNTIME);
    let context = json!({ "defaultContextLength": { "type": "custom", "value": 512 } });
    user.write(&format!("{bionic}/settings.json"), &context.to_string());
    user.write(&format!("{bionic}/{SAVED}/acme/other.gguf.json"), &fixture("per-model-config.gguf.json"));
    let of = |program| read_as(&plain(), user.home(), program);
    for program in [Program::App, Program::Llmster, Program::Unknown] {
        let found = of(program);
        assert_eq!(found.saved.keys().collect::<Vec<_>>(), ["acme/tiny.gguf"]);
        assert_eq!(found.settings.default_context, None);
    }
    let found = of(Program::Bionic);
    assert_eq!(found.saved.keys().collect::<Vec<_>>(), ["acme/other.gguf"]);
    assert_eq!(found.settings.default_context, Some(DefaultContext::Tokens(512)));
    assert_eq!(roots(&found), [(user.path("shared"), Origin::LmStudio)], "it shares the models");
    assert_eq!(found.settings.runtime.as_ref().unwrap().accelerator, Accelerator::Cuda, "and the runtimes");
    let paths = watched(&found, user.home());
    assert_eq!(paths.last(), Some(&user.path(bionic).join(SAVED)));
    select(&user, &format!("{bionic}/.internal"), "llama.cpp-linux-x86_64-avx2");
    assert_eq!(of(Program::Bionic).settings.runtime.unwrap().accelerator, Accelerator::None);
    let own = json!({ "downloadsFolder": user.path("own") });
    user.write(&format!("{bionic}/settings.json"), &own.to_string());
    let both = [(user.path("own"), Origin::LmStudio), (user.path("shared"), Origin::LmStudio)];
    assert_eq!(roots(&of(Program::Bionic)), both);
}

#[test]
fn a_model_that_a_request_had_loaded_stays_as_long_as_the_settings_say() {
    let developer = |value: Value| parse_settings(&json!({ "developer": value }).to_string()).0;
    let (settings, _) = parse_settings(&fixture("settings.json"));
    assert_eq!((settings.jit_ttl, settings.unloads_previous), (Some(Span::minutes(60)), Some(true)));
    assert_eq!(developer(json!({ "jitModelTTL": { "enabled": false, "ttlSeconds": 60 } })).jit_ttl, Some(Span(0)));
    assert_eq!(developer(json!({ "jitModelTTL": { "ttlSeconds": "60" } })).jit_ttl, Some(Span::seconds(60)));
    for odd in [json!(null), json!(7), json!([]), json!({ "jitModelTTL": 5, "unloadPreviousJITModelOnLoad": 5 })] {
        assert_eq!(developer(odd.clone()), AppSettings::default(), "{odd}");
    }
}
