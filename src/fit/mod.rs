//! The verdict: does a model fit this machine, now and at its best.
//!
//! A [`Plan`] holds what a model needs under its settings in every placement worth asking about;
//! it changes with the model, its settings and the list of devices. [`judge`] holds a plan
//! against a [`Supply`] in a few comparisons, so that a thousand verdicts follow a change of free
//! memory in milliseconds. Swap never counts, devices are never summed, and a device whose memory
//! is unknown is neither full nor empty: it is named.

mod advice;
mod plan;
mod search;
mod supply;
mod unload;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use advice::advice;
pub use plan::{Plan, judge, largest_context};
pub use supply::{GpuSupply, Sense, Supply};
pub use unload::{Held, IfUnloaded, if_unloaded};

use crate::memory::Settings;
use crate::units::Bytes;

/// A model's fit, in both senses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fit {
    /// With the memory that is free right now.
    pub now: Judgement,
    /// With all of this machine's memory that models can ever have.
    pub machine: Judgement,
    /// The largest context that fits fully right now; `None` where none does, or where it was not
    /// asked for (it costs a few bills, so the tray leaves it out).
    pub largest_context: Option<u32>,
    /// Which loaded models would have to go for a better verdict right now; `None` where that would
    /// change nothing.
    pub if_unloaded: Option<IfUnloaded>,
}

/// One verdict and its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Layers that go onto GPUs, the output layer counted as one.
    pub gpu_layers: u32,
    /// All layers, the output layer counted as one.
    pub layers: u32,
    /// Blocks whose experts stay in RAM for the rest to fit.
    pub cpu_moe: u32,
    /// Bytes to spare in the pool that binds, margins taken off. Negative: how much is missing
    /// for the next better verdict (for full offload where the verdict is partial, for fitting
    /// at all where it is too large).
    pub spare: i64,
    /// The pool that binds: the name of a GPU, or `RAM`.
    pub binding: Arc<str>,
    /// What is needed and what can be had, pool by pool.
    pub pools: Vec<PoolNeed>,
    /// What the verdict leaves open, in words: a GPU whose memory is unknown.
    pub caveat: Option<Arc<str>>,
}

/// One pool's side of a judgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolNeed {
    /// The name of a GPU, or `RAM`.
    pub name: Arc<str>,
    /// What the model needs of it.
    pub need: Bytes,
    /// What can be had of it, margins taken off.
    pub available: Bytes,
}

/// The verdict, in LM Studio's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Full GPU offload possible.
    FullGpu,
    /// Partial GPU offload possible.
    PartialGpu,
    /// Likely fit (CPU only).
    CpuOnly,
    /// Likely too large.
    TooLarge,
    /// The machine's memory could not be read.
    Unknown,
}

impl Verdict {
    /// Returns LM Studio's label for the verdict.
    pub const fn label(self) -> &'static str {
        match self {
            Verdict::FullGpu => "Full GPU offload possible",
            Verdict::PartialGpu => "Partial GPU offload possible",
            Verdict::CpuOnly => "Likely fit (CPU only)",
            Verdict::TooLarge => "Likely too large",
            Verdict::Unknown => "Not known yet",
        }
    }
}

/// What would make a model fit better; every one is computed, none is guessed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// The change, in words with its number.
    pub text: String,
    /// The settings with the change made.
    pub settings: Settings,
    /// Bytes to spare then.
    pub spare: i64,
}

#[cfg(test)]
pub(crate) mod tests;
