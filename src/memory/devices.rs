//! The devices a bill is drawn up for.

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// The GPUs offered to the engine and the back-end that drives them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// The back-end; [`Backend::None`] where nothing can be offloaded.
    pub backend: Backend,
    /// GPUs in the engine's order; empty exactly when the back-end is `None`.
    pub gpus: Vec<Gpu>,
}

/// One GPU as the engine sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// The device's name, `CUDA0` or `RTX 4070` for example.
    pub name: String,
    /// The memory by whose share layers are spread over several GPUs (llama.cpp takes free memory).
    pub memory: Bytes,
    /// What the back-end takes on it beside the model, where that was measured on this machine.
    pub overhead: Option<Bytes>,
}

/// A compute back-end of llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// No GPU device at all.
    None,
    /// NVIDIA's CUDA.
    Cuda,
    /// AMD's `ROCm`.
    Rocm,
    /// Vulkan on any GPU.
    Vulkan,
    /// Apple's Metal.
    Metal,
    /// A device that another llama.cpp lends over the network. It is taken for one that computes on
    /// that machine's CPU: what a GPU there adds of its own, only that machine knows.
    Rpc,
}

impl Devices {
    /// Returns the machine without any GPU.
    pub const fn none() -> Devices {
        Devices { backend: Backend::None, gpus: Vec::new() }
    }
}

impl Backend {
    /// Returns the back-end's name.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::None => "none",
            Backend::Cuda => "cuda",
            Backend::Rocm => "rocm",
            Backend::Vulkan => "vulkan",
            Backend::Metal => "metal",
            Backend::Rpc => "rpc",
        }
    }
}
