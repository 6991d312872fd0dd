//! The settings LM Studio would load a model with, and what of them is assumed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Accelerator, AppSettings, Asked, DefaultContext, HardwareSettings, Hub, Instance, LoadSettings, LoadedModel,
    Source, accelerator_of,
};
use crate::library::Model;
use crate::memory::{CacheType, FlashAttention, GpuLayers, Kind, Settings, Structure};

/// LM Studio's context for embedding models.
const EMBEDDING_CONTEXT: u32 = 2_048;

/// The settings of a model and where they come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsFor {
    /// The settings.
    pub settings: Settings,
    /// Where they come from.
    pub basis: SettingsBasis,
    /// What is assumed, in words.
    pub assumptions: Vec<String>,
}

/// Where settings come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingsBasis {
    /// Saved for this model in LM Studio.
    Saved,
    /// LM Studio's defaults.
    Defaults,
    /// Given on the command line.
    Given,
    /// What the running engine's command line asks for.
    CommandLine,
    /// The load config that LM Studio tells of a loaded model.
    LoadConfig,
    /// The part of it that REST tells.
    Rest,
}

/// Where the settings saved for a model come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Layers {
    /// The user saved them for this file, or nothing is saved.
    #[default]
    Own,
    /// The user saved them for the virtual model of this key, which stands for the file.
    VirtualSaved(String),
    /// They come with the virtual model of this key.
    Virtual(String),
}

/// Returns the settings saved for a model: the user's over those that come with the virtual model that
/// stands for it, where there is just one.
pub fn saved_for(model: &Model, saved: &BTreeMap<String, LoadSettings>, hub: &Hub) -> (Option<LoadSettings>, Layers) {
    let own = saved.get(&model.id.0);
    let standing = match (&model.publisher, &model.repository) {
        (Some(publisher), Some(repository)) => hub.standing_for(publisher, repository),
        _ => None,
    };
    let Some((key, standing)) = standing else { return (own.cloned(), Layers::Own) };
    let user = own.or_else(|| saved.get(key));
    let nothing = LoadSettings::default();
    let settings = user.unwrap_or(&nothing).over(&standing.load);
    let layers = match (own, user) {
        _ if settings == nothing => Layers::Own,
        (Some(_), _) => Layers::Own,
        (None, Some(_)) => Layers::VirtualSaved(key.to_owned()),
        (None, None) => Layers::Virtual(key.to_owned()),
    };
    (Some(settings), layers)
}

/// Returns the settings LM Studio would load a model with.
pub fn settings_for(structure: &Structure, saved: Option<&LoadSettings>, app: &AppSettings) -> SettingsFor {
    let unsaved = LoadSettings::default();
    let saved = saved.unwrap_or(&unsaved);
    let mut settings = with_saved(&defaults(structure, app), structure, saved);
    let basis = if *saved == unsaved { SettingsBasis::Defaults } else { SettingsBasis::Saved };
    let mut assumptions = assumptions(&settings, saved, basis);
    let runtime = app.runtime.as_ref();
    if runtime.is_some_and(|runtime| runtime.accelerator == Accelerator::None) {
        offload_nothing(&mut settings, &mut assumptions);
    }
    assumptions.extend(runtime.and_then(|runtime| hardware_assumption(&runtime.hardware, saved)));
    SettingsFor { settings, basis, assumptions }
}

/// Returns the settings that a loaded model was loaded with, as far as anything tells: its engine's
/// command line, then LM Studio's load config, then what REST says. `saved` fills what no side tells,
/// unless a command line does: what it leaves out is the engine's own choice.
pub fn loaded_settings(
    structure: &Structure,
    instance: &Instance,
    saved: Option<&LoadSettings>,
    app: &AppSettings,
) -> SettingsFor {
    let nothing = LoadedModel::default();
    let told = instance.model.as_ref().unwrap_or(&nothing);
    let mut load = told.load.clone();
    load.context_length = told.context.or(load.context_length);
    let is_told = load != LoadSettings::default();
    let process = instance.process.as_ref().filter(|process| process.asked.model.is_some());
    let Some(process) = process else {
        let basis = match () {
            () if !is_told => return settings_for(structure, saved, app),
            () if instance.sources.contains(&Source::Websocket) && told.load != LoadSettings::default() => {
                SettingsBasis::LoadConfig
            }
            () => SettingsBasis::Rest,
        };
        // The load config is the whole truth; REST tells a part of it.
        let layered = match (basis, saved) {
            (SettingsBasis::Rest, Some(saved)) => load.over(saved),
            _ => load.clone(),
        };
        let found = settings_for(structure, Some(&layered), app);
        return SettingsFor { basis, ..found };
    };
    let mut settings = with_saved(&engine_defaults(structure), structure, &load);
    apply(&process.asked, structure, &mut settings);
    let mut assumptions = engine_assumptions(&process.asked, &load, &settings);
    if process.runtime.as_deref().is_some_and(|runtime| accelerator_of(runtime) == Accelerator::None) {
        offload_nothing(&mut settings, &mut assumptions);
    }
    SettingsFor { settings, basis: SettingsBasis::CommandLine, assumptions }
}

impl SettingsFor {
    /// Says which layers the saved settings came from, where these are not the user's for the file.
    #[must_use]
    pub fn from_layers(mut self, layers: &Layers) -> SettingsFor {
        match layers {
            Layers::Own => {}
            Layers::VirtualSaved(key) => self.assumptions.push(format!("the settings saved for {key} apply")),
            Layers::Virtual(key) => {
                self.basis = SettingsBasis::Defaults;
                self.assumptions.push(format!("the defaults that come with {key} apply"));
            }
        }
        self
    }
}

/// Returns settings with what is saved in their place.
fn with_saved(defaults: &Settings, structure: &Structure, saved: &LoadSettings) -> Settings {
    let batch = saved.batch.unwrap_or(defaults.batch);
    Settings {
        context: saved.context_length.unwrap_or(defaults.context),
        batch,
        ubatch: saved.ubatch.unwrap_or(defaults.ubatch).min(batch),
        parallel: saved.parallel.unwrap_or(defaults.parallel),
        unified_kv: saved.unified_kv.unwrap_or(defaults.unified_kv),
        cache_type_k: saved.cache_type_k.unwrap_or(defaults.cache_type_k),
        cache_type_v: saved.cache_type_v.unwrap_or(defaults.cache_type_v),
        flash_attention: match saved.flash_attention {
            Some(true) => FlashAttention::On,
            Some(false) => FlashAttention::Off,
            None => defaults.flash_attention,
        },
        gpu_layers: saved.offload_ratio.map_or(defaults.gpu_layers, |ratio| gpu_layers(ratio, structure.blocks)),
        cpu_moe: saved.cpu_expert_ratio.map_or(defaults.cpu_moe, |ratio| part(ratio, structure.blocks)),
        offload_kv: saved.offload_kv_cache_to_gpu.unwrap_or(defaults.offload_kv),
        mmap: saved.mmap.unwrap_or(defaults.mmap),
        mtp: saved.mtp.unwrap_or(defaults.mtp),
        ..defaults.clone()
    }
}

/// Returns what llama-server does when it is asked for nothing, in its newest builds: the model's own
/// context, four slots over one cache, all layers on the GPU.
fn engine_defaults(structure: &Structure) -> Settings {
    Settings {
        context: structure.context_train,
        batch: 2_048,
        embeddings: structure.kind == Kind::Embedding,
        ..Settings::default()
    }
}

/// Puts what a command line asks for in its place.
fn apply(asked: &Asked, structure: &Structure, settings: &mut Settings) {
    fn put<T: Copy>(place: &mut T, value: Option<T>) {
        *place = value.unwrap_or(*place);
    }
    put(&mut settings.context, asked.context.map(|tokens| if tokens == 0 { structure.context_train } else { tokens }));
    put(&mut settings.batch, asked.batch);
    put(&mut settings.ubatch, asked.ubatch);
    settings.ubatch = settings.ubatch.min(settings.batch);
    put(&mut settings.parallel, asked.parallel);
    // Slots that were counted have caches of their own unless it is said.
    put(&mut settings.unified_kv, asked.unified_kv.or(asked.parallel.map(|slots| slots == 1)));
    put(&mut settings.cache_type_k, asked.cache_type_k);
    put(&mut settings.cache_type_v, asked.cache_type_v);
    put(&mut settings.flash_attention, asked.flash_attention);
    let layers = |layers| if layers >= structure.layers() { GpuLayers::All } else { GpuLayers::Count(layers) };
    put(&mut settings.gpu_layers, asked.gpu_layers.map(layers));
    put(&mut settings.cpu_moe, asked.cpu_moe.map(|blocks| blocks.min(structure.blocks)));
    put(&mut settings.offload_kv, asked.offload_kv);
    put(&mut settings.swa_full, asked.swa_full);
    put(&mut settings.mmap, asked.mmap);
    put(&mut settings.embeddings, asked.embeddings);
    put(&mut settings.mtp, asked.mtp);
}

/// Returns what is assumed about an engine with a command line, in words.
fn engine_assumptions(asked: &Asked, load: &LoadSettings, settings: &Settings) -> Vec<String> {
    let mut list = Vec::new();
    let mut defaulted = Vec::new();
    if asked.context.is_none() && load.context_length.is_none() {
        defaulted.push(format!("context {}", settings.context));
    }
    if asked.batch.is_none() && load.batch.is_none() {
        defaulted.push(format!("batch {}", settings.batch));
    }
    if asked.parallel.is_none() && load.parallel.is_none() {
        defaulted.push(format!("{} at a time", settings.parallel));
    }
    if asked.gpu_layers.is_none() && load.offload_ratio.is_none() {
        defaulted.push("all layers on the GPU where they fit".into());
    }
    if !defaulted.is_empty() {
        list.push(format!("llama.cpp's defaults for what its command line leaves out: {}", defaulted.join(", ")));
    }
    let is_left_to_it = asked.context.is_none() || asked.gpu_layers.is_none();
    if asked.fit == Some(true) || (asked.fit.is_none() && is_left_to_it) {
        list.push(
            "the engine fits what it was not asked for to the memory itself; it may differ from what is said here"
                .into(),
        );
    }
    if asked.own_split {
        list.push(
            "the engine was told to spread this model over the GPUs in its own way; layers may lie elsewhere".into(),
        );
    }
    if asked.draft_model.is_some() {
        list.push("a draft model runs beside it; its memory is not counted".into());
    }
    list
}

/// A runtime without a GPU's support keeps everything in RAM, whatever is asked.
fn offload_nothing(settings: &mut Settings, assumptions: &mut Vec<String>) {
    settings.gpu_layers = GpuLayers::Count(0);
    for assumption in assumptions.iter_mut() {
        *assumption = assumption.replace(", all layers on the GPU where they fit", "");
    }
    assumptions.insert(0, "LM Studio's selected runtime has no GPU support: nothing can be offloaded".into());
}

/// Returns what is set for the runtime that spreads a model otherwise than is billed.
fn hardware_assumption(hardware: &HardwareSettings, saved: &LoadSettings) -> Option<String> {
    if saved.own_gpu_split {
        // It is said already.
        return None;
    }
    if !hardware.disabled_gpus.is_empty() {
        let gpus: Vec<String> = hardware.disabled_gpus.iter().map(ToString::to_string).collect();
        return Some(format!("LM Studio is set to leave out GPU {}; layers may lie elsewhere", gpus.join(" and ")));
    }
    if hardware.own_gpu_split {
        return Some("LM Studio spreads models over the GPUs in its own way; layers may lie elsewhere".into());
    }
    let cap = "LM Studio limits layers to dedicated GPU memory; fewer may lie there than are asked for";
    hardware.strict_vram_cap.then(|| cap.into())
}

/// Returns LM Studio's defaults for a model.
fn defaults(structure: &Structure, app: &AppSettings) -> Settings {
    let offload_kv = app.runtime.as_ref().and_then(|runtime| runtime.hardware.offload_kv).unwrap_or(true);
    let trained = match structure.context_train {
        0 => u32::MAX,
        trained => trained,
    };
    match structure.kind {
        Kind::Embedding => Settings {
            context: EMBEDDING_CONTEXT.min(trained),
            parallel: 1,
            embeddings: true,
            offload_kv,
            ..Settings::default()
        },
        Kind::Language | Kind::Projector | Kind::Drafter => {
            let context = match app.default_context {
                Some(DefaultContext::Tokens(tokens)) => tokens.min(trained),
                Some(DefaultContext::Max) if structure.context_train > 0 => trained,
                Some(DefaultContext::Max) | None => Settings::default().context.min(trained),
            };
            Settings { context, offload_kv, ..Settings::default() }
        }
    }
}

/// Returns the layers LM Studio asks for: the ratio of all layers, the output layer counted.
fn gpu_layers(ratio: f64, blocks: u32) -> GpuLayers {
    let all = blocks.saturating_add(1);
    match part(ratio, all) {
        layers if layers >= all => GpuLayers::All,
        layers => GpuLayers::Count(layers),
    }
}

/// Returns the ratio of a whole, rounded half up as JavaScript does.
fn part(ratio: f64, whole: u32) -> u32 {
    let part = (ratio.clamp(0.0, 1.0) * f64::from(whole) + 0.5).floor();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the ratio lies within 0 and 1")]
    let part = part as u32;
    part.min(whole)
}

/// Returns what is assumed about the settings, in words.
fn assumptions(settings: &Settings, saved: &LoadSettings, basis: SettingsBasis) -> Vec<String> {
    let mut list = Vec::new();
    let mut defaulted = Vec::new();
    if saved.context_length.is_none() {
        defaulted.push(format!("context {}", settings.context));
    }
    if saved.batch.is_none() {
        defaulted.push(format!("batch {}", settings.batch));
    }
    if saved.parallel.is_none() {
        defaulted.push(format!("{} at a time", settings.parallel));
    }
    if saved.offload_ratio.is_none() {
        defaulted.push("all layers on the GPU where they fit".into());
    }
    if !defaulted.is_empty() {
        let rest = if basis == SettingsBasis::Saved { " for what is not saved" } else { "" };
        list.push(format!("LM Studio's defaults{rest}: {}", defaulted.join(", ")));
    }
    let is_quantised = !matches!(settings.cache_type_v, CacheType::F32 | CacheType::F16 | CacheType::Bf16);
    if is_quantised && settings.flash_attention == FlashAttention::Off {
        list.push("a quantised V cache needs flash attention, which is off: the engine may refuse to load".into());
    }
    if saved.auto_fit == Some(true) {
        list.push(
            "LM Studio fits context and layers to the memory itself; they may differ from what is said here".into(),
        );
    }
    if saved.own_gpu_split {
        list.push("LM Studio spreads this model over the GPUs in its own way; layers may lie elsewhere".into());
    }
    if saved.draft_model {
        list.push("a draft model is set in LM Studio; its memory is not counted".into());
    }
    if saved.arguments_override {
        list.push("raw engine arguments are set in LM Studio; they may change what is said here".into());
    }
    list
}
