//! How a load is asked for, in llama.cpp's words.

use serde::{Deserialize, Serialize};

use crate::gguf::TensorType;

/// The settings of one load. LM Studio's keys and llama.cpp's arguments both end up here.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the engine")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Context length in tokens (`--ctx-size`); 0 means the model's own.
    pub context: u32,
    /// Logical batch (`--batch-size`, LM Studio's evaluation batch size).
    pub batch: u32,
    /// Physical batch (`--ubatch-size`), never more than `batch`.
    pub ubatch: u32,
    /// Slots (`--parallel`, LM Studio's max concurrent predictions).
    pub parallel: u32,
    /// One cache for all slots (`--kv-unified`).
    pub unified_kv: bool,
    /// Type of the K cache.
    pub cache_type_k: CacheType,
    /// Type of the V cache.
    pub cache_type_v: CacheType,
    /// Flash attention.
    pub flash_attention: FlashAttention,
    /// Layers on GPUs (`--n-gpu-layers`).
    pub gpu_layers: GpuLayers,
    /// Blocks whose experts stay in host memory (`--n-cpu-moe`).
    pub cpu_moe: u32,
    /// The cache lives on the device of its block; off, all of it is in RAM.
    pub offload_kv: bool,
    /// Sliding-window caches as long as the context (`--swa-full`).
    pub swa_full: bool,
    /// Weights that stay in RAM are pages of the mapped file.
    pub mmap: bool,
    /// Embedding output is on.
    pub embeddings: bool,
    /// The MTP (`NextN`) blocks are loaded for speculative decoding.
    pub mtp: bool,
}

impl Default for Settings {
    /// Returns LM Studio's own defaults: context 4096, batch 512, four slots over one unified
    /// f16 cache, everything on the GPU.
    fn default() -> Settings {
        Settings {
            context: 4_096,
            batch: 512,
            ubatch: 512,
            parallel: 4,
            unified_kv: true,
            cache_type_k: CacheType::F16,
            cache_type_v: CacheType::F16,
            flash_attention: FlashAttention::Auto,
            gpu_layers: GpuLayers::All,
            cpu_moe: 0,
            offload_kv: true,
            swa_full: false,
            mmap: true,
            embeddings: false,
            mtp: false,
        }
    }
}

/// How many layers are asked onto GPUs, the output layer counted as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuLayers {
    /// Every layer.
    All,
    /// The last `n` layers, as `--n-gpu-layers n` counts them.
    Count(u32),
}

/// The flash attention setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlashAttention {
    /// Asked on.
    On,
    /// Asked off.
    Off,
    /// On where the back-end supports it for this model.
    Auto,
}

/// Element type of a KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are ggml's own")]
pub enum CacheType {
    F32,
    F16,
    Bf16,
    #[serde(rename = "q8_0")]
    Q8_0,
    #[serde(rename = "q5_1")]
    Q5_1,
    #[serde(rename = "q5_0")]
    Q5_0,
    #[serde(rename = "q4_1")]
    Q4_1,
    #[serde(rename = "q4_0")]
    Q4_0,
    #[serde(rename = "iq4_nl")]
    Iq4Nl,
}

impl CacheType {
    /// Every cache type, in falling size.
    pub const ALL: [CacheType; 9] = [
        CacheType::F32,
        CacheType::F16,
        CacheType::Bf16,
        CacheType::Q8_0,
        CacheType::Q5_1,
        CacheType::Q5_0,
        CacheType::Q4_1,
        CacheType::Q4_0,
        CacheType::Iq4Nl,
    ];

    /// Returns the name that llama.cpp and LM Studio use.
    pub const fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Bf16 => "bf16",
            CacheType::Q8_0 => "q8_0",
            CacheType::Q5_1 => "q5_1",
            CacheType::Q5_0 => "q5_0",
            CacheType::Q4_1 => "q4_1",
            CacheType::Q4_0 => "q4_0",
            CacheType::Iq4Nl => "iq4_nl",
        }
    }

    /// Returns the ggml type of the cache's tensors.
    pub const fn tensor_type(self) -> TensorType {
        TensorType(match self {
            CacheType::F32 => 0,
            CacheType::F16 => 1,
            CacheType::Bf16 => 30,
            CacheType::Q8_0 => 8,
            CacheType::Q5_1 => 7,
            CacheType::Q5_0 => 6,
            CacheType::Q4_1 => 3,
            CacheType::Q4_0 => 2,
            CacheType::Iq4Nl => 20,
        })
    }

    /// Returns whether the type is quantised.
    pub const fn is_quantised(self) -> bool {
        !matches!(self, CacheType::F32 | CacheType::F16 | CacheType::Bf16)
    }

    /// Returns the type of a name, whatever its case.
    pub fn from_name(name: &str) -> Option<CacheType> {
        CacheType::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}
