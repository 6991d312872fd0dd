//! LM Studio's files: what is read, what is left alone, what is noticed.
#![expect(clippy::unwrap_used, reason = "a test whose ground cannot be laid fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use fitwatch::config::Config;
use fitwatch::engine::LmStudioRead;
use fitwatch::host::lmstudio::{Follower, read, watched};
use fitwatch::library::Origin;
use fitwatch::lmstudio::{
    AppSettings, DefaultContext, HomeBasis, LoadSettings, SettingsBasis, parse_model_config, parse_settings,
    settings_for,
};
use fitwatch::memory::{CacheType, Dimensions, FlashAttention, GpuLayers, Kind, Memory, Settings, Structure};
use fitwatch::units::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;

const SAVED: &str = ".internal/user-concrete-model-default-config";

mod settings_json {
    use super::*;

    #[test]
    fn a_whole_file_gives_what_is_on_the_white_list() {
        let (settings, notes) = parse_settings(&fixture("settings.json"));
        assert_eq!(
            settings.downloads_folder,
            Some(PathBuf::from("/data/llm/models")).filter(|path| path.is_absolute())
        );
        assert_eq!(settings.default_context, Some(DefaultContext::Tokens(8_192)));
        assert_eq!(settings.guardrail.as_deref(), Some("Strict"));
        assert!(cfg!(windows) || notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn what_is_blank_missing_or_of_the_wrong_type_is_left_out() {
        for folder in
            [json!(""), json!("  "), json!(null), json!(7), json!(["/models"]), json!("models"), json!("~/llm")]
        {
            let (settings, _) = parse_settings(&json!({ "downloadsFolder": folder }).to_string());
            assert_eq!(settings, AppSettings::default(), "{folder}");
        }
        assert_eq!(parse_settings("{}"), (AppSettings::default(), Vec::new()));
    }

    #[test]
    fn what_is_not_understood_is_said_and_what_is_only_missing_is_not() {
        let text = json!({ "downloadsFolder": 7, "defaultContextLength": "long", "modelLoadingGuardrails": [] });
        assert_eq!(parse_settings(&text.to_string()).1.len(), 3);
        let text = json!({ "downloadsFolder": " ", "defaultContextLength": null });
        assert_eq!(parse_settings(&text.to_string()).1, Vec::<String>::new());
    }

    #[test]
    fn the_default_context_may_be_a_string_and_max_carries_a_value() {
        let context =
            |value: Value| parse_settings(&json!({ "defaultContextLength": value }).to_string()).0.default_context;
        assert_eq!(context(json!({ "type": "custom", "value": "81920" })), Some(DefaultContext::Tokens(81_920)));
        assert_eq!(context(json!({ "type": "max", "value": 4096 })), Some(DefaultContext::Max));
        assert_eq!(context(json!({ "type": "custom", "value": 0 })), None);
        assert_eq!(context(json!({ "type": "custom" })), None);
        assert_eq!(context(json!(4096)), Some(DefaultContext::Tokens(4_096)));
    }

    #[test]
    fn guardrails_are_named_as_lm_studio_names_them() {
        let mode =
            |mode: &str| parse_settings(&json!({ "modelLoadingGuardrails": { "mode": mode } }).to_string()).0.guardrail;
        let named: Vec<_> =
            ["off", "low", "medium", "high", "custom", "extreme"].map(mode).into_iter().flatten().collect();
        assert_eq!(named, ["OFF", "Relaxed", "Balanced", "Strict", "Custom", "extreme"]);
        assert_eq!(mode("hf_ABCDEFGHIJKLMNOPQRSTUVWXYZ"), None);
        assert_eq!(mode(""), None);
    }

    #[test]
    fn broken_text_is_a_note_without_its_content() {
        for text in ["", "{", "\"hf_token\"", "{\"hfSearchToken\": hf_token", "[\"hf_token\"]", "null"] {
            let (settings, notes) = parse_settings(text);
            assert_eq!(settings, AppSettings::default());
            assert_eq!(notes.len(), 1, "{text}");
            assert!(!notes[0].contains("hf_token"), "{}", notes[0]);
        }
    }
}

mod per_model_file {
    use super::*;

    #[test]
    fn a_file_as_lm_studio_writes_it_is_read_key_by_key() {
        let settings = parse_model_config(&fixture("per-model-config.gguf.json")).unwrap();
        let expected = LoadSettings {
            context_length: Some(16_384),
            offload_ratio: Some(0.5),
            cpu_expert_ratio: Some(0.25),
            offload_kv_cache_to_gpu: Some(true),
            parallel: Some(1),
            unified_kv: Some(true),
            batch: Some(512),
            ubatch: Some(512),
            flash_attention: Some(true),
            cache_type_k: Some(CacheType::Q8_0),
            cache_type_v: Some(CacheType::Q8_0),
            mmap: Some(true),
            own_gpu_split: true,
            ..LoadSettings::default()
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn raw_engine_arguments_are_noticed() {
        let settings = parse_model_config(&fixture("per-model-config.hub.json")).unwrap();
        assert!(settings.arguments_override);
        assert_eq!((settings.context_length, settings.offload_ratio), (Some(65_536), Some(1.0)));
        assert_eq!((settings.mtp, settings.auto_fit), (Some(false), Some(false)));
        let off = fields(&json!([{ "key": "llm.load.llama.argumentsOverride", "value": { "enabled": false } }]));
        assert!(!off.arguments_override);
    }

    #[test]
    fn keys_of_other_back_ends_are_passed_over() {
        let settings = parse_model_config(&fixture("per-model-config.mlx.json")).unwrap();
        assert_eq!(settings, LoadSettings { context_length: Some(32_768), ..LoadSettings::default() });
    }

    #[test]
    fn values_may_be_strings_wrapped_or_words() {
        let settings = fields(&json!([
            { "key": "llm.load.contextLength", "value": "32768" },
            { "key": "llm.load.llama.acceleration.offloadRatio", "value": "max" },
            { "key": "llm.load.numCpuExpertLayersRatio", "value": "off" },
            { "key": "llm.load.llama.kCacheQuantizationType", "value": "Q4_0" },
            { "key": "llm.load.llama.vCacheQuantizationType", "value": { "checked": false, "value": "q4_0" } },
            { "key": "llm.load.llama.flashAttention", "value": "true" },
        ]));
        assert_eq!((settings.context_length, settings.offload_ratio), (Some(32_768), Some(1.0)));
        assert_eq!((settings.cpu_expert_ratio, settings.flash_attention), (Some(0.0), Some(true)));
        assert_eq!((settings.cache_type_k, settings.cache_type_v), (Some(CacheType::Q4_0), None));
    }

    #[test]
    fn nonsense_is_left_out_and_the_rest_is_kept() {
        let settings = fields(&json!([
            "contextLength",
            { "key": 7, "value": 1 },
            { "key": "llm.load.contextLength" },
            { "key": "llm.load.contextLength", "value": -5 },
            { "key": "llm.load.numParallelSessions", "value": 5000 },
            { "key": "llm.load.llama.acceleration.offloadRatio", "value": 1.5 },
            { "key": "llm.load.llama.kCacheQuantizationType", "value": { "checked": true, "value": "q99" } },
            { "key": "llm.prediction.contextLength", "value": 77 },
            { "key": "llm.load.llama.evalBatchSize", "value": 1024 },
        ]));
        assert_eq!(settings, LoadSettings { batch: Some(1_024), ..LoadSettings::default() });
    }

    #[test]
    fn embedding_keys_count_as_well() {
        let settings = fields(&json!([
            { "key": "embedding.load.contextLength", "value": 1024 },
            { "key": "embedding.load.llama.acceleration.offloadRatio", "value": "off" },
        ]));
        assert_eq!((settings.context_length, settings.offload_ratio), (Some(1_024), Some(0.0)));
    }

    #[test]
    fn a_full_precision_cache_is_four_bytes_unless_a_type_is_chosen() {
        let settings = fields(&json!([
            { "key": "llm.load.llama.useFp16ForKVCache", "value": false },
            { "key": "llm.load.llama.kCacheQuantizationType", "value": "q8_0" },
        ]));
        assert_eq!((settings.cache_type_k, settings.cache_type_v), (Some(CacheType::Q8_0), Some(CacheType::F32)));
    }

    #[test]
    fn a_file_without_load_settings_is_empty_and_a_broken_one_an_error() {
        assert_eq!(parse_model_config("{\"preset\": \"\"}"), Ok(LoadSettings::default()));
        for text in ["", "{\"load\": {\"fields\": [{", "[]", "{\"load\": {\"fields\": {}}}"] {
            assert!(parse_model_config(text).is_err(), "{text}");
        }
    }
}

mod effective_settings {
    use super::*;

    #[test]
    fn nothing_saved_means_lm_studios_defaults_and_says_so() {
        let found = settings_for(&model(32), None, &AppSettings::default());
        assert_eq!((&found.settings, found.basis), (&Settings::default(), SettingsBasis::Defaults));
        assert_eq!(found.assumptions.len(), 1);
        assert!(found.assumptions[0].starts_with("LM Studio's defaults: context 4096, batch 512"), "{found:?}");
    }

    #[test]
    fn the_default_context_never_exceeds_the_trained_one() {
        let context = |default: Option<DefaultContext>, trained: u32| {
            let structure = Structure { context_train: trained, ..model(32) };
            let app = AppSettings { default_context: default, ..AppSettings::default() };
            settings_for(&structure, None, &app).settings.context
        };
        assert_eq!(context(Some(DefaultContext::Tokens(8_192)), 131_072), 8_192);
        assert_eq!(context(Some(DefaultContext::Tokens(8_192)), 2_048), 2_048);
        assert_eq!(context(Some(DefaultContext::Max), 131_072), 131_072);
        assert_eq!(context(None, 2_048), 2_048);
        for unknown in [Some(DefaultContext::Max), None] {
            assert_eq!(context(unknown, 0), 4_096, "a model that does not say what it was trained for");
        }
    }

    #[test]
    fn saved_settings_win_and_the_rest_is_said_to_be_assumed() {
        let saved = parse_model_config(&fixture("per-model-config.gguf.json")).unwrap();
        let found = settings_for(&model(64), Some(&saved), &AppSettings::default());
        assert_eq!(found.basis, SettingsBasis::Saved);
        let expected = Settings {
            context: 16_384,
            parallel: 1,
            cache_type_k: CacheType::Q8_0,
            cache_type_v: CacheType::Q8_0,
            flash_attention: FlashAttention::On,
            // As seen on the command line of an engine that LM Studio started: half of 64 layers.
            gpu_layers: GpuLayers::Count(33),
            cpu_moe: 16,
            ..Settings::default()
        };
        assert_eq!(found.settings, expected);
        assert!(!found.assumptions.iter().any(|text| text.contains("defaults")), "{:?}", found.assumptions);
        assert!(found.assumptions.iter().any(|text| text.contains("spreads this model")), "{:?}", found.assumptions);

        let saved = LoadSettings { context_length: Some(1_000), ..LoadSettings::default() };
        let found = settings_for(&model(64), Some(&saved), &AppSettings::default());
        assert_eq!(found.settings.context, 1_000);
        assert!(found.assumptions[0].starts_with("LM Studio's defaults for what is not saved: batch 512"), "{found:?}");
    }

    #[test]
    fn a_ratio_becomes_layers() {
        let layers = |ratio: f64, blocks: u32| {
            let saved = LoadSettings { offload_ratio: Some(ratio), ..LoadSettings::default() };
            settings_for(&model(blocks), Some(&saved), &AppSettings::default()).settings.gpu_layers
        };
        assert_eq!(layers(1.0, 32), GpuLayers::All);
        assert_eq!(layers(0.0, 32), GpuLayers::Count(0));
        assert_eq!(layers(0.5, 32), GpuLayers::Count(17));
        assert_eq!(layers(0.99, 32), GpuLayers::All);
        assert_eq!(layers(0.01, 32), GpuLayers::Count(0));
        assert_eq!(layers(1.0, u32::MAX), GpuLayers::All);
    }

    #[test]
    fn the_physical_batch_is_never_larger_than_the_logical_one() {
        let saved = LoadSettings { batch: Some(128), ..LoadSettings::default() };
        let settings = settings_for(&model(32), Some(&saved), &AppSettings::default()).settings;
        assert_eq!((settings.batch, settings.ubatch), (128, 128));
        let saved = LoadSettings { batch: Some(2_048), ..LoadSettings::default() };
        let settings = settings_for(&model(32), Some(&saved), &AppSettings::default()).settings;
        assert_eq!((settings.batch, settings.ubatch), (2_048, 512));
    }

    #[test]
    fn an_embedding_model_has_its_own_defaults() {
        let app = AppSettings { default_context: Some(DefaultContext::Tokens(65_536)), ..AppSettings::default() };
        let structure = Structure { kind: Kind::Embedding, context_train: 8_192, ..model(12) };
        let settings = settings_for(&structure, None, &app).settings;
        assert_eq!((settings.context, settings.parallel, settings.embeddings), (2_048, 1, true));
        let short = Structure { context_train: 512, ..structure };
        assert_eq!(settings_for(&short, None, &app).settings.context, 512);
    }

    #[test]
    fn what_makes_the_bill_a_guess_is_said() {
        let warns = |saved: LoadSettings, word: &str| {
            let found = settings_for(&model(32), Some(&saved), &AppSettings::default());
            assert!(found.assumptions.iter().any(|text| text.contains(word)), "{word}: {:?}", found.assumptions);
        };
        warns(LoadSettings { arguments_override: true, ..LoadSettings::default() }, "raw engine arguments");
        warns(LoadSettings { draft_model: true, ..LoadSettings::default() }, "draft model");
        warns(LoadSettings { auto_fit: Some(true), ..LoadSettings::default() }, "fits context and layers");
        let quantised = LoadSettings {
            cache_type_v: Some(CacheType::Q8_0),
            flash_attention: Some(false),
            ..LoadSettings::default()
        };
        warns(quantised, "needs flash attention");
    }

    #[test]
    fn a_saved_file_that_says_nothing_means_defaults() {
        let found = settings_for(&model(32), Some(&LoadSettings::default()), &AppSettings::default());
        assert_eq!(found.basis, SettingsBasis::Defaults);
    }

    fn model(blocks: u32) -> Structure {
        structure_of(blocks)
    }
}

mod on_disk {
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
}

mod changes {
    use super::*;

    #[test]
    fn an_installation_is_noticed_step_by_step() {
        let user = User::new();
        let (mut follower, changes) = follow(&user);
        assert!(!follower.read(&plain()).home.unwrap().1);
        quiet(&changes);

        fs::create_dir_all(user.path(".lmstudio")).unwrap();
        noticed(&changes, "the home came");
        assert!(follower.read(&plain()).home.unwrap().1);
        quiet(&changes);

        user.write(".lmstudio/settings.json", &json!({ "downloadsFolder": user.path("disk") }).to_string());
        noticed(&changes, "the settings came");
        assert_eq!(roots(&follower.read(&plain())), [(user.path("disk"), Origin::LmStudio)]);
        quiet(&changes);

        user.write(&format!("{SAVED}/acme/tiny/tiny.gguf.json"), &fixture("per-model-config.gguf.json"));
        noticed(&changes, "a model's settings came");
        assert_eq!(follower.read(&plain()).saved.len(), 1);
        quiet(&changes);

        user.write(&format!("{SAVED}/other/new/new.gguf.json"), &fixture("per-model-config.gguf.json"));
        noticed(&changes, "another model's settings came");
        assert_eq!(follower.read(&plain()).saved.len(), 2);
        quiet(&changes);

        user.write(".lmstudio-home-pointer", &user.path("moved").display().to_string());
        noticed(&changes, "the pointer came");
        assert_eq!(follower.read(&plain()).home.unwrap().0.path, user.path("moved"));
    }

    #[test]
    fn a_home_that_is_deleted_and_comes_back_is_noticed() {
        let user = User::new();
        user.write(".lmstudio/settings.json", "{}");
        let (mut follower, changes) = follow(&user);
        follower.read(&plain());
        quiet(&changes);
        fs::remove_dir_all(user.path(".lmstudio")).unwrap();
        noticed(&changes, "the home went");
        assert!(!follower.read(&plain()).home.unwrap().1);
        quiet(&changes);
        fs::create_dir(user.path(".lmstudio")).unwrap();
        noticed(&changes, "the home came back");
        follower.read(&plain());
        quiet(&changes);
        user.write(".lmstudio/settings.json", &json!({ "downloadsFolder": user.path("disk") }).to_string());
        noticed(&changes, "settings in the new home");
        assert_eq!(roots(&follower.read(&plain())), [(user.path("disk"), Origin::LmStudio)]);
    }

    #[test]
    fn a_home_that_is_swapped_for_another_between_two_looks_is_followed() {
        let user = User::new();
        user.write(".lmstudio/settings.json", "{}");
        let (mut follower, changes) = follow(&user);
        follower.read(&plain());
        fs::rename(user.path(".lmstudio"), user.path("old")).unwrap();
        fs::create_dir(user.path(".lmstudio")).unwrap();
        noticed(&changes, "the home was swapped");
        follower.read(&plain());
        quiet(&changes);
        user.write(".lmstudio/settings.json", "{\"defaultContextLength\": 777}");
        noticed(&changes, "settings in the new home");
        let settings = follower.read(&plain()).settings;
        assert_eq!(settings.default_context, Some(DefaultContext::Tokens(777)));
    }

    #[test]
    fn other_traffic_and_our_own_reading_are_not_noticed() {
        let user = User::new();
        user.write(".lmstudio/settings.json", "{}");
        user.write(&format!("{SAVED}/acme/tiny.json"), "{}");
        user.write(".cache/mesa/a", "x");
        let (mut follower, changes) = follow(&user);
        follower.read(&plain());
        quiet(&changes);
        for name in [
            ".bash_history",
            ".lmstudio/credentials",
            ".lmstudio/.internal/cache.json",
            ".cache/mesa/b",
            ".cache/thumbs/a",
        ] {
            user.write(name, "x");
        }
        follower.read(&plain());
        assert!(changes.recv_timeout(Duration::from_millis(300)).is_err(), "something was noticed");
    }

    #[test]
    fn what_is_watched_follows_the_home() {
        let user = User::new();
        let paths = watched(&user.read(), user.home());
        let wanted = [".lmstudio-home-pointer", ".cache/lm-studio", ".lmstudio", ".lmstudio/settings.json"];
        assert_eq!(paths[..4], wanted.map(|name| user.path(name)));
        assert_eq!(paths[4], user.path(".lmstudio").join(SAVED));
        let mut config = plain();
        config.library.lm_studio_home = Some(user.path("mine"));
        let paths = watched(&read(&config, user.home()), user.home());
        assert_eq!(paths.len(), 3, "the pointer does not matter where the config names the home");
    }

    fn follow(user: &User) -> (Follower, Receiver<()>) {
        let (sender, receiver) = channel();
        let changed = move || sender.send(()).expect("the test still listens");
        (Follower::new(user.home().to_owned(), changed), receiver)
    }

    fn noticed(changes: &Receiver<()>, what: &str) {
        assert!(changes.recv_timeout(Duration::from_secs(5)).is_ok(), "not noticed: {what}");
        quiet(changes);
    }

    /// Waits until nothing more is said of what has already happened.
    fn quiet(changes: &Receiver<()>) {
        let start = Instant::now();
        while changes.recv_timeout(Duration::from_millis(80)).is_ok() {
            assert!(start.elapsed() < Duration::from_secs(5), "no end of changes");
        }
    }
}

/// A user's home folder.
struct User {
    folder: TempDir,
    home: PathBuf,
}

impl User {
    fn new() -> User {
        let folder = tempfile::tempdir().unwrap();
        let top = if cfg!(windows) { folder.path().to_owned() } else { folder.path().canonicalize().unwrap() };
        let home = top.join("robin");
        fs::create_dir(&home).unwrap();
        User { folder, home }
    }

    fn home(&self) -> &Path {
        assert!(self.folder.path().exists());
        &self.home
    }

    fn path(&self, name: &str) -> PathBuf {
        match name.strip_prefix("../") {
            Some(name) => self.home.with_file_name(name),
            None => self.home.join(name),
        }
    }

    fn write(&self, name: &str, text: &str) {
        let path = if name.starts_with(".internal") { self.path(".lmstudio").join(name) } else { self.path(name) };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self) -> LmStudioRead {
        read(&plain(), self.home())
    }
}

/// Returns a config that adds no folder of its own.
fn plain() -> Config {
    let mut config = Config::default();
    config.library.bundled_models = false;
    config
}

fn roots(found: &LmStudioRead) -> Vec<(PathBuf, Origin)> {
    found.roots.iter().map(|root| (root.path.clone(), root.origin)).collect()
}

fn fields(fields: &Value) -> LoadSettings {
    parse_model_config(&json!({ "load": { "fields": fields } }).to_string()).unwrap()
}

fn fixture(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lmstudio").join(name)).unwrap()
}

fn structure_of(blocks: u32) -> Structure {
    Structure {
        architecture: "llama".into(),
        kind: Kind::Language,
        blocks,
        context_train: 131_072,
        file_bytes: Bytes(4_000_000_000),
        quantisation: None,
        parameters: 8_000_000_000,
        notes: Vec::new(),
        dimensions: Dimensions::default(),
        memory: Memory::default(),
        globals: Vec::new(),
        layouts: Vec::new(),
        kinds: Vec::new(),
        pattern: Vec::new(),
    }
}
