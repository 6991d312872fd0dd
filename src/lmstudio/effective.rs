//! The settings LM Studio would load a model with, and what of them is assumed.

use serde::{Deserialize, Serialize};

use super::{AppSettings, DefaultContext, Instance, LoadSettings};
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
}

/// Returns the settings LM Studio would load a model with.
pub fn settings_for(structure: &Structure, saved: Option<&LoadSettings>, app: &AppSettings) -> SettingsFor {
    let unsaved = LoadSettings::default();
    let saved = saved.unwrap_or(&unsaved);
    let defaults = defaults(structure, app);
    let batch = saved.batch.unwrap_or(defaults.batch);
    let settings = Settings {
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
        ..defaults
    };
    let basis = if *saved == unsaved { SettingsBasis::Defaults } else { SettingsBasis::Saved };
    let assumptions = assumptions(&settings, saved, basis);
    SettingsFor { settings, basis, assumptions }
}

/// Returns the settings that a loaded model was loaded with.
pub fn loaded_settings(
    structure: &Structure,
    instance: &Instance,
    saved: Option<&LoadSettings>,
    app: &AppSettings,
) -> SettingsFor {
    settings_for(structure, instance.model.as_ref().map(|model| &model.load).or(saved), app)
}

/// Returns LM Studio's defaults for a model.
fn defaults(structure: &Structure, app: &AppSettings) -> Settings {
    let trained = match structure.context_train {
        0 => u32::MAX,
        trained => trained,
    };
    match structure.kind {
        Kind::Embedding => {
            Settings { context: EMBEDDING_CONTEXT.min(trained), parallel: 1, embeddings: true, ..Settings::default() }
        }
        Kind::Language | Kind::Projector | Kind::Drafter => {
            let context = match app.default_context {
                Some(DefaultContext::Tokens(tokens)) => tokens.min(trained),
                Some(DefaultContext::Max) if structure.context_train > 0 => trained,
                Some(DefaultContext::Max) | None => Settings::default().context.min(trained),
            };
            Settings { context, ..Settings::default() }
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
