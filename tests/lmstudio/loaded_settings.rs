//! The settings of loaded models: who is believed.

use std::collections::BTreeMap;

use fitwatch::library::{Model, ModelId, ModelState};
use fitwatch::lmstudio::{
    Accelerator, Asked, EngineKind, EngineProcess, Hub, Instance, Layers, LoadedModel, SelectedRuntime, SettingsFor,
    Source, VirtualModel, Whereabouts, loaded_settings, parse_command_line, saved_for,
};
use fitwatch::units::Moment;

use super::*;

fn instance(told: Option<LoadedModel>, line: Option<&str>, sources: &[Source]) -> Instance {
    let process = line.map(|line| EngineProcess {
        pid: 7,
        started_ms: 1,
        kind: EngineKind::Server,
        runtime: Some("llama.cpp-linux-x86_64-nvidia-cuda12-avx2-2.31.0".into()),
        asked: parse_command_line(&line.split_whitespace().map(Into::into).collect::<Vec<_>>()),
        file: None,
    });
    let id = "x".into();
    Instance { id, model: told, process, sharers: 1, whereabouts: Whereabouts::Here, sources: sources.to_vec() }
}

fn told(context: u32, load: LoadSettings) -> LoadedModel {
    LoadedModel { context: Some(context), load, ..LoadedModel::default() }
}

fn found(instance: &Instance, saved: Option<&LoadSettings>) -> SettingsFor {
    loaded_settings(&structure_of(32), instance, saved, &AppSettings::default())
}

fn says(found: &SettingsFor, words: &str) -> bool {
    found.assumptions.iter().any(|text| text.contains(words))
}

#[test]
fn a_command_line_is_believed_before_everything_else() {
    let load = LoadSettings { parallel: Some(8), batch: Some(64), unified_kv: Some(true), ..LoadSettings::default() };
    let line = "s --model m --ctx-size 32768 --n-gpu-layers 20 --n-cpu-moe 99 --parallel 2 --no-kv-unified \
                --cache-type-k q8_0 --flash-attn on --no-kv-offload --no-mmap --swa-full --embeddings --fit off";
    let saved = LoadSettings { context_length: Some(999), ubatch: Some(17), ..LoadSettings::default() };
    let found =
        found(&instance(Some(told(4_096, load)), Some(line), &[Source::Websocket, Source::Processes]), Some(&saved));
    let expected = Settings {
        context: 32_768,
        batch: 64,
        ubatch: 64,
        parallel: 2,
        unified_kv: false,
        cache_type_k: CacheType::Q8_0,
        flash_attention: FlashAttention::On,
        gpu_layers: GpuLayers::Count(20),
        cpu_moe: 32,
        offload_kv: false,
        swa_full: true,
        mmap: false,
        embeddings: true,
        ..Settings::default()
    };
    assert_eq!((found.settings, found.basis), (expected, SettingsBasis::CommandLine));
    assert_eq!(found.assumptions, Vec::<String>::new());
}

#[test]
fn what_a_command_line_leaves_out_is_the_engines_default_and_said() {
    let saved = LoadSettings { context_length: Some(999), ..LoadSettings::default() };
    let found = found(&instance(None, Some("s -m m"), &[Source::Processes]), Some(&saved));
    assert_eq!((found.settings.context, found.settings.batch), (131_072, 2_048));
    assert_eq!(found.settings.gpu_layers, GpuLayers::All);
    assert!(says(&found, "llama.cpp's defaults") && says(&found, "context 131072"), "{:?}", found.assumptions);
    assert!(says(&found, "fits what it was not asked for"), "{:?}", found.assumptions);
}

#[test]
fn zero_is_the_models_own_context_and_very_many_layers_are_all() {
    let found = found(&instance(None, Some("s -m m -c 0 -ngl 999999 -np 1 -b 2048"), &[Source::Processes]), None);
    assert_eq!((found.settings.context, found.settings.gpu_layers), (131_072, GpuLayers::All));
    assert!(found.settings.unified_kv && found.assumptions.is_empty(), "{:?}", found.assumptions);
    let counted = self::found(&instance(None, Some("s -m m -np 4"), &[]), None).settings;
    assert!(!counted.unified_kv, "slots that were counted have caches of their own");
    let all = |layers: &str| {
        let line = format!("s -m m -c 1 -ngl {layers}");
        let found =
            loaded_settings(&structure_of(64), &instance(None, Some(&line), &[]), None, &AppSettings::default());
        found.settings.gpu_layers
    };
    assert_eq!([all("33"), all("64"), all("65")], [GpuLayers::Count(33), GpuLayers::Count(64), GpuLayers::All]);
}

#[test]
fn a_split_and_a_drafter_of_the_command_line_are_said() {
    let found = found(&instance(None, Some("s -m m -c 1 -ngl 9 -ts 3,1 -md d.gguf"), &[]), None);
    assert!(says(&found, "in its own way") && says(&found, "draft model"), "{:?}", found.assumptions);
}

#[test]
fn the_load_config_is_believed_before_what_is_saved() {
    let load = LoadSettings { offload_ratio: Some(0.5), context_length: Some(1), ..LoadSettings::default() };
    let saved = LoadSettings { parallel: Some(9), context_length: Some(2), ..LoadSettings::default() };
    let found = found(&instance(Some(told(8_192, load)), None, &[Source::Websocket]), Some(&saved));
    assert_eq!((found.settings.context, found.settings.parallel), (8_192, 4));
    assert_eq!((found.settings.gpu_layers, found.basis), (GpuLayers::Count(17), SettingsBasis::LoadConfig));
}

#[test]
fn what_rest_does_not_tell_is_as_saved() {
    let load = LoadSettings { batch: Some(256), ..LoadSettings::default() };
    let saved = LoadSettings { parallel: Some(9), context_length: Some(2), ..LoadSettings::default() };
    let told = instance(Some(told(8_192, load)), None, &[Source::Rest]);
    let with_saved = found(&told, Some(&saved));
    assert_eq!((with_saved.settings.context, with_saved.settings.batch, with_saved.settings.parallel), (8_192, 256, 9));
    assert_eq!(with_saved.basis, SettingsBasis::Rest);
    assert!(says(&found(&told, None), "LM Studio's defaults for what is not"), "{:?}", found(&told, None).assumptions);
}

#[test]
fn where_nobody_tells_anything_it_is_as_saved_or_the_default() {
    let silent = instance(Some(LoadedModel::default()), None, &[Source::Rest]);
    assert_eq!(found(&silent, None).basis, SettingsBasis::Defaults);
    let saved = LoadSettings { parallel: Some(9), ..LoadSettings::default() };
    assert_eq!(found(&silent, Some(&saved)).basis, SettingsBasis::Saved);
    let mut worker = instance(Some(told(512, LoadSettings::default())), Some("node"), &[Source::Websocket]);
    worker.process.as_mut().unwrap().asked = Asked::default();
    assert_eq!(found(&worker, None).settings.context, 512, "a worker's command line names no model");
}

#[test]
fn a_runtime_without_a_gpu_offloads_nothing_whatever_it_was_asked() {
    let mut instance = instance(None, Some("s -m m -c 512 -ngl 999999 -b 1 -np 1"), &[Source::Processes]);
    instance.process.as_mut().unwrap().runtime = Some("llama.cpp-linux-x86_64-avx2-2.31.0".into());
    let on_cpu = found(&instance, None);
    assert_eq!(on_cpu.settings.gpu_layers, GpuLayers::Count(0));
    assert!(says(&on_cpu, "no GPU support"), "{:?}", on_cpu.assumptions);
    instance.process.as_mut().unwrap().runtime = None;
    let runtime = Some(SelectedRuntime { accelerator: Accelerator::None, ..SelectedRuntime::default() });
    let app = AppSettings { runtime, ..AppSettings::default() };
    let by_hand = loaded_settings(&structure_of(32), &instance, None, &app);
    assert_eq!(by_hand.settings.gpu_layers, GpuLayers::All, "one started by hand is not LM Studio's runtime");
}

#[test]
fn the_users_settings_stand_over_the_virtual_models() {
    let model = Model {
        id: ModelId("comm/Tiny-GGUF/tiny.gguf".into()),
        name: "tiny".into(),
        publisher: Some("comm".into()),
        repository: Some("Tiny-GGUF".into()),
        origin: Origin::LmStudio,
        files: Vec::new(),
        projector: None,
        state: ModelState::Reading,
        notes: Vec::new(),
        since: Moment(0),
    };
    let context = |tokens| LoadSettings { context_length: Some(tokens), ..LoadSettings::default() };
    let load = LoadSettings { parallel: Some(2), ..context(1) };
    let standing = VirtualModel { bases: vec!["comm/tiny-gguf".into()], load: load.clone() };
    let hub = Hub::new(BTreeMap::from([("owner/tiny".to_owned(), standing)]));
    let of = |saved: &[(&str, LoadSettings)], hub: &Hub| {
        let saved = saved.iter().map(|(key, load)| ((*key).to_owned(), load.clone())).collect();
        saved_for(&model, &saved, hub)
    };
    assert_eq!(of(&[], &Hub::default()), (None, Layers::Own));
    assert_eq!(of(&[], &hub), (Some(load.clone()), Layers::Virtual("owner/tiny".into())));
    let (settings, layers) = of(&[("owner/tiny", context(5))], &hub);
    assert_eq!(layers, Layers::VirtualSaved("owner/tiny".into()));
    assert_eq!(settings, Some(LoadSettings { parallel: Some(2), ..context(5) }));
    let (settings, layers) = of(&[("owner/tiny", context(5)), (&model.id.0, context(7))], &hub);
    assert_eq!((settings.unwrap().context_length, &layers), (Some(7), &Layers::Own));
    let found = settings_for(&structure_of(32), Some(&load), &AppSettings::default());
    let found = found.from_layers(&Layers::Virtual("owner/tiny".into()));
    assert_eq!(found.basis, SettingsBasis::Defaults);
    assert!(says(&found, "come with owner/tiny"), "{:?}", found.assumptions);
}
