//! Home folders as they occur.

use super::*;

#[test]
fn a_machine_without_lm_studio_is_no_error() {
    let user = User::new();
    let found = user.read();
    let (home, exists) = found.home.clone().unwrap();
    assert_eq!((home.path, home.basis, exists), (user.path(".lmstudio"), HomeBasis::Default, false));
    assert_eq!(roots(&found), [(user.path(".lmstudio/models"), Origin::LmStudio)]);
    assert_eq!((found.notes, found.saved.len()), (Vec::new(), 0));
    assert_eq!(found.settings, AppSettings::default());
    assert_eq!(fs::read_dir(user.home()).unwrap().count(), 0, "something was written");
}

#[test]
fn the_pointer_file_the_old_layout_and_the_config_are_followed_in_their_order() {
    let user = User::new();
    fs::create_dir_all(user.path(".cache/lm-studio")).unwrap();
    assert_eq!(user.read().home.unwrap().0.path, user.path(".cache/lm-studio"));
    user.write(".lmstudio-home-pointer", &format!("{}\n", user.path("elsewhere").display()));
    let (home, exists) = user.read().home.unwrap();
    assert_eq!((home.path, home.basis, exists), (user.path("elsewhere"), HomeBasis::PointerFile, false));
    let mut config = plain();
    config.library.lm_studio_home = Some(PathBuf::from("~/mine"));
    let home = read(&config, user.home()).home.unwrap().0;
    assert_eq!((home.path, home.basis), (user.path("mine"), HomeBasis::Config));
}

#[test]
fn a_pointer_file_that_names_nothing_is_said() {
    let user = User::new();
    user.write(".lmstudio-home-pointer", "  \n");
    let found = user.read();
    assert_eq!(found.home.unwrap().0.basis, HomeBasis::Default);
    assert!(found.notes[0].contains("names no folder"), "{:?}", found.notes);
}

#[test]
fn the_models_folder_is_where_the_settings_say() {
    let user = User::new();
    let models = user.path("disk/models");
    user.write(".lmstudio/settings.json", &json!({ "downloadsFolder": models }).to_string());
    assert_eq!(roots(&user.read()), [(models, Origin::LmStudio)]);
}

#[test]
fn the_build_of_llama_cpp_is_read_from_the_selected_runtime() {
    let user = User::new();
    let runtime = "llama.cpp-linux-x86_64-nvidia-cuda12-avx2";
    let selected = json!([{ "model_format": "gguf", "name": runtime, "version": "2.31.0" }]);
    user.write(".lmstudio/.internal/backend-preferences-v1.json", &selected.to_string());
    assert_eq!(user.read().build, None);
    let notes = json!([{ "version": "2.31.0", "releaseNotes": "- llama.cpp release b9849 (commit 0123abc)" }]);
    let display = json!([["en", { "displayName": "CUDA 12 llama.cpp", "releaseNotes": notes }]]);
    let folder = format!(".lmstudio/extensions/backends/{runtime}-2.31.0");
    user.write(&format!("{folder}/display-data.json"), &display.to_string());
    assert_eq!(user.read().build, Some(Build(9_849)));
}

#[test]
fn extra_folders_and_bundled_models_come_after_and_each_folder_once() {
    let user = User::new();
    fs::create_dir_all(user.path("llm")).unwrap();
    let mut config = plain();
    config.library.bundled_models = true;
    config.library.extra_folders = vec!["~/llm".into(), user.path("llm"), user.path(".lmstudio/models")];
    assert_eq!(
        roots(&read(&config, user.home())),
        [
            (user.path(".lmstudio/models"), Origin::LmStudio),
            (user.path(".lmstudio/.internal/bundled-models"), Origin::Bundled),
            (user.path("llm"), Origin::Config),
        ]
    );
    config.library.bundled_models = false;
    assert_eq!(read(&config, user.home()).roots.len(), 2);
}

#[test]
fn saved_settings_are_keyed_as_lm_studio_keys_models() {
    let user = User::new();
    let good = fixture("per-model-config.gguf.json");
    user.write(&format!("{SAVED}/acme/Tiny-GGUF/tiny-Q4_K_M.gguf.json"), &good);
    user.write(&format!("{SAVED}/acme/tiny.json"), &good);
    user.write(&format!("{SAVED}/acme/tiny.json.bak"), &good);
    user.write(&format!("{SAVED}/acme/readme.txt"), &good);
    fs::create_dir_all(user.path(".lmstudio").join(SAVED).join("folder.json")).unwrap();
    let found = user.read();
    let keys: Vec<&str> = found.saved.keys().map(String::as_str).collect();
    assert_eq!(keys, ["acme/Tiny-GGUF/tiny-Q4_K_M.gguf", "acme/tiny"]);
    assert_eq!(found.saved["acme/tiny"].context_length, Some(16_384));
    assert_eq!(found.notes, Vec::<String>::new());
}

#[test]
fn a_half_written_file_costs_only_its_own_settings() {
    let user = User::new();
    let good = fixture("per-model-config.gguf.json");
    user.write(&format!("{SAVED}/acme/good.gguf.json"), &good);
    user.write(&format!("{SAVED}/acme/half.gguf.json"), &good[..good.len() / 2]);
    user.write(".lmstudio/settings.json", "{\"downloadsFolder\": \"/data");
    let found = user.read();
    assert_eq!(found.saved.keys().collect::<Vec<_>>(), ["acme/good.gguf"]);
    assert_eq!(roots(&found), [(user.path(".lmstudio/models"), Origin::LmStudio)]);
    assert_eq!(found.notes.len(), 2, "{:?}", found.notes);
    assert!(found.notes.iter().any(|note| note.contains("acme/half.gguf")), "{:?}", found.notes);
}

#[test]
fn a_file_that_is_being_written_is_read_again() {
    let user = User::new();
    let models = user.path("disk");
    let text = json!({ "downloadsFolder": models }).to_string();
    user.write(".lmstudio/settings.json", &text[..10]);
    let path = user.path(".lmstudio/settings.json");
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(60));
        fs::write(path, text).unwrap();
    });
    let found = user.read();
    writer.join().unwrap();
    assert_eq!(roots(&found), [(models, Origin::LmStudio)]);
    assert_eq!(found.notes, Vec::<String>::new());
}

#[test]
fn files_beyond_their_limits_are_not_read() {
    let user = User::new();
    let padding = " ".repeat(1 << 20);
    user.write(&format!("{SAVED}/acme/huge.json"), &format!("{{\"load\": {{}}{padding}}}"));
    user.write(".lmstudio/settings.json", &" ".repeat((4 << 20) + 1));
    user.write(".lmstudio-home-pointer", &"/".repeat((64 << 10) + 1));
    let found = user.read();
    assert_eq!(found.saved.len(), 0);
    assert_eq!(found.notes.iter().filter(|note| note.contains("larger than")).count(), 3, "{:?}", found.notes);
}

#[test]
fn secrets_never_leave_the_files() {
    let user = User::new();
    let mut settings: Value = serde_json::from_str(&fixture("settings.json")).unwrap();
    settings["hfSearchToken"] = json!("hf_SECRET");
    settings["hfDownloadToken"] = json!("hf_SECRET");
    settings["modelLoadingGuardrails"]["mode"] = json!("hf_SECRET");
    settings["defaultContextLength"]["value"] = json!("hf_SECRET");
    user.write(".lmstudio/settings.json", &settings.to_string());
    user.write(".lmstudio/.internal/lms-key-2", "hf_SECRET");
    let saved = json!({ "load": { "fields": [
        { "key": "llm.load.promptTemplate", "value": "hf_SECRET" },
        { "key": "llm.load.llama.speculativeDecoding.draftModel", "value": "hf_SECRET" },
        { "key": "llm.load.llama.argumentsOverride", "value": { "enabled": true, "overrideParameters": [
            { "key": "--api-key", "value": "hf_SECRET" }] } },
    ] } });
    user.write(&format!("{SAVED}/acme/tiny.json"), &saved.to_string());
    user.write(&format!("{SAVED}/acme/broken.json"), "{\"key\": hf_SECRET");
    let found = user.read();
    assert!(found.saved["acme/tiny"].arguments_override && found.saved["acme/tiny"].draft_model);
    let shown = format!("{found:?} {} {}", json!(found.settings), json!(found.saved));
    assert!(!shown.contains("hf_SECRET"), "{shown}");
}

#[cfg(unix)]
#[test]
fn a_linked_user_home_is_resolved_and_links_out_of_the_folder_are_not_followed() {
    use std::os::unix::fs::symlink;
    let user = User::new();
    let good = fixture("per-model-config.gguf.json");
    user.write("../outside/tiny.json", &good);
    user.write(&format!("{SAVED}/acme/inside.json"), &good);
    let saved = user.path(".lmstudio").join(SAVED);
    symlink("inside.json", saved.join("acme/alias.json")).unwrap();
    symlink(user.path("../outside/tiny.json"), saved.join("acme/outside.json")).unwrap();
    symlink(user.path("../outside"), saved.join("folder")).unwrap();
    symlink(&saved, saved.join("loop")).unwrap();
    symlink("nowhere.json", saved.join("dangling.json")).unwrap();
    symlink(user.home(), user.path("../linked")).unwrap();
    let found = read(&plain(), &user.path("../linked"));
    assert_eq!(found.saved.keys().collect::<Vec<_>>(), ["acme/alias", "acme/inside"]);
    assert_eq!(found.home.unwrap().0.path, user.path(".lmstudio"));
}

#[cfg(unix)]
#[test]
fn a_pipe_in_place_of_a_file_is_not_waited_for() {
    let user = User::new();
    fs::create_dir_all(user.path(".lmstudio")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(user.path(".lmstudio/settings.json")).status();
    assert!(made.unwrap().success());
    let found = user.read();
    assert!(found.notes[0].contains("no regular file"), "{:?}", found.notes);
}
