//! Per-model defaults that the user saved in LM Studio.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::loose::{boolean, count, ratio, unwrapped, white_listed};
use crate::memory::CacheType;

/// The most slots LM Studio allows.
pub(super) const MOST_SESSIONS: u32 = 1_023;

/// The load settings that a per-model file names; what it leaves out is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
    /// LM Studio chooses context and layers at load time.
    pub auto_fit: Option<bool>,
    /// GPUs are left out, ordered or weighted, or their memory is capped.
    pub own_gpu_split: bool,
    /// Another model drafts for this one.
    pub draft_model: bool,
    /// Raw engine arguments are set: every other key may be meaningless.
    pub arguments_override: bool,
}

/// Reads a per-model file (`user-concrete-model-default-config/…json`).
///
/// Keys that are unknown and values that make no sense are left out; of two equal keys the last
/// one counts.
pub fn parse_model_config(text: &str) -> Result<LoadSettings, String> {
    let values = white_listed(text, &["load"])?;
    fields(values.get("load")).ok_or_else(|| "load.fields is no list".into())
}

/// Reads `{"fields": [{"key": …, "value": …}, …]}`, as LM Studio writes load settings everywhere: in
/// files, and where it tells with which a model is loaded. `None` where the fields are no list; none
/// at all are no settings.
pub(super) fn fields(list: Option<&Value>) -> Option<LoadSettings> {
    let fields = match list.and_then(|list| list.get("fields")) {
        None => &[],
        Some(Value::Array(fields)) => fields.as_slice(),
        Some(_) => return None,
    };
    let mut settings = LoadSettings::default();
    let mut half_precision = None;
    for field in fields {
        let (Some(key), Some(value)) = (field.get("key").and_then(Value::as_str), field.get("value")) else {
            continue;
        };
        let key = key.strip_prefix("llm.").or_else(|| key.strip_prefix("embedding.")).unwrap_or(key);
        if key == "load.llama.useFp16ForKVCache" {
            half_precision = boolean(value);
        } else if let Some(key) = key.strip_prefix("load.") {
            settings.set(key, value);
        }
    }
    if half_precision == Some(false) {
        settings.cache_type_k.get_or_insert(CacheType::F32);
        settings.cache_type_v.get_or_insert(CacheType::F32);
    }
    Some(settings)
}

impl LoadSettings {
    /// Returns these settings with those of a weaker layer where these say nothing.
    #[must_use]
    pub fn over(&self, weaker: &LoadSettings) -> LoadSettings {
        LoadSettings {
            context_length: self.context_length.or(weaker.context_length),
            offload_ratio: self.offload_ratio.or(weaker.offload_ratio),
            cpu_expert_ratio: self.cpu_expert_ratio.or(weaker.cpu_expert_ratio),
            offload_kv_cache_to_gpu: self.offload_kv_cache_to_gpu.or(weaker.offload_kv_cache_to_gpu),
            parallel: self.parallel.or(weaker.parallel),
            unified_kv: self.unified_kv.or(weaker.unified_kv),
            batch: self.batch.or(weaker.batch),
            ubatch: self.ubatch.or(weaker.ubatch),
            flash_attention: self.flash_attention.or(weaker.flash_attention),
            cache_type_k: self.cache_type_k.or(weaker.cache_type_k),
            cache_type_v: self.cache_type_v.or(weaker.cache_type_v),
            mmap: self.mmap.or(weaker.mmap),
            mtp: self.mtp.or(weaker.mtp),
            auto_fit: self.auto_fit.or(weaker.auto_fit),
            own_gpu_split: self.own_gpu_split || weaker.own_gpu_split,
            draft_model: self.draft_model || weaker.draft_model,
            arguments_override: self.arguments_override || weaker.arguments_override,
        }
    }

    /// Takes one field over where its key is known.
    fn set(&mut self, key: &str, value: &Value) {
        let inner = unwrapped(value);
        let truth = inner.and_then(boolean);
        match key {
            "contextLength" => self.context_length = inner.and_then(count),
            "numCpuExpertLayersRatio" => self.cpu_expert_ratio = inner.and_then(ratio),
            "offloadKVCacheToGpu" => self.offload_kv_cache_to_gpu = truth,
            "numParallelSessions" => self.parallel = inner.and_then(count).filter(|slots| *slots <= MOST_SESSIONS),
            "useUnifiedKvCache" => self.unified_kv = truth,
            "llama.acceleration.offloadRatio" => self.offload_ratio = inner.and_then(ratio),
            "llama.evalBatchSize" => self.batch = inner.and_then(count),
            "llama.physicalBatchSize" => self.ubatch = inner.and_then(count),
            "llama.flashAttention" => self.flash_attention = truth,
            "llama.kCacheQuantizationType" => self.cache_type_k = inner.and_then(cache_type),
            "llama.vCacheQuantizationType" => self.cache_type_v = inner.and_then(cache_type),
            "llama.tryMmap" => self.mmap = truth,
            "llama.autoFit" => self.auto_fit = truth,
            "llama.speculativeDecoding.draftMtp" => self.mtp = truth,
            "llama.speculativeDecoding.draftModel" => self.draft_model = names_something(value),
            "llama.argumentsOverride" => {
                self.arguments_override = value.get("enabled").and_then(boolean) == Some(true);
            }
            "gpuSplitConfig" => self.own_gpu_split |= is_own_split(value),
            "gpuStrictVramCap" => self.own_gpu_split |= truth == Some(true),
            _ => {}
        }
    }
}

fn cache_type(value: &Value) -> Option<CacheType> {
    CacheType::from_name(value.as_str()?.trim())
}

fn names_something(value: &Value) -> bool {
    value.as_str().is_some_and(|name| !name.trim().is_empty())
}

/// Returns whether layers are spread otherwise than evenly over all GPUs.
fn is_own_split(value: &Value) -> bool {
    split_config(value).0
}

/// Returns whether layers are spread otherwise than evenly over all GPUs, and the GPUs left out.
pub(super) fn split_config(value: &Value) -> (bool, Vec<u32>) {
    let is_even = value.get("strategy").and_then(Value::as_str).is_none_or(|strategy| strategy == "evenly");
    let left_out = value.get("disabledGpus").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let number = |gpu: &Value| count(gpu).or_else(|| (zero(gpu)).then_some(0));
    (!is_even || !left_out.is_empty(), left_out.iter().take(64).filter_map(number).collect())
}

fn zero(value: &Value) -> bool {
    value.as_u64() == Some(0) || value.as_str().is_some_and(|text| text.trim() == "0")
}
