//! Per-model defaults that the user saved in LM Studio.

use serde::{Deserialize, Serialize};

use super::AppSettings;
use crate::memory::{CacheType, Settings, Structure};

/// The load settings that a per-model file names; what it leaves out is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are LM Studio's load keys")]
pub struct LoadSettings {
    pub context_length: Option<u32>,
    pub offload_ratio: Option<f64>,
    pub cpu_expert_ratio: Option<f64>,
    pub offload_kv_cache_to_gpu: Option<bool>,
    pub parallel: Option<u32>,
    pub unified_kv: Option<bool>,
    pub batch: Option<u32>,
    pub ubatch: Option<u32>,
    pub flash_attention: Option<bool>,
    pub cache_type_k: Option<CacheType>,
    pub cache_type_v: Option<CacheType>,
    pub mmap: Option<bool>,
    pub mtp: Option<bool>,
    /// Raw engine arguments are set: every other key may be meaningless.
    pub arguments_override: bool,
}

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

/// Reads a per-model file (`user-concrete-model-default-config/…json`).
pub fn parse_model_config(text: &str) -> Result<LoadSettings, String> {
    let _ = text;
    todo!()
}

/// Returns the settings LM Studio would load a model with.
pub fn settings_for(structure: &Structure, saved: Option<&LoadSettings>, app: &AppSettings) -> SettingsFor {
    let _ = (structure, saved, app);
    todo!()
}
