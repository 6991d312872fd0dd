//! The picture of the machine and how it changes.

use serde::{Deserialize, Serialize};

use super::{DeviceMemory, MemorySample, Sample, UnknownGpu, Vendor};
use crate::units::{Moment, Span};

/// A number from a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reading")]
pub enum Reading<T> {
    /// Not read yet.
    Pending,
    /// Read a moment ago.
    Fresh {
        /// What was read.
        value: T,
    },
    /// Read some time ago, and not since.
    Stale {
        /// What was read then.
        value: T,
        /// When.
        at: Moment,
        /// Why not since: the GPU sleeps, say.
        reason: String,
    },
    /// It cannot be read.
    Unavailable {
        /// Why.
        reason: String,
    },
}

impl<T> Reading<T> {
    /// Returns the value, fresh or stale.
    pub fn value(&self) -> Option<&T> {
        match self {
            Reading::Fresh { value } | Reading::Stale { value, .. } => Some(value),
            Reading::Pending | Reading::Unavailable { .. } => None,
        }
    }
}

/// The machine as last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// RAM and swap.
    pub memory: Reading<MemorySample>,
    /// GPUs in the engine's order.
    pub devices: Vec<Device>,
    /// GPUs whose memory is unknown.
    pub unknown: Vec<UnknownGpu>,
    /// What is wrong with a whole probe.
    pub problems: Vec<String>,
    /// The GPU driver's version.
    pub driver: Option<String>,
}

/// One GPU in the picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// A stable identity.
    pub id: String,
    /// The product name, `NVIDIA GeForce RTX 4090`.
    pub name: String,
    /// Who made it.
    pub vendor: Vendor,
    /// Its memory.
    pub memory: Reading<DeviceMemory>,
}

/// Turns samples into a picture.
#[derive(Debug)]
pub struct Machine {
    picture: Picture,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine {
            picture: Picture {
                memory: Reading::Pending,
                devices: Vec::new(),
                unknown: Vec::new(),
                problems: Vec::new(),
                driver: None,
            },
        }
    }
}

impl Machine {
    /// Takes in a sample; returns whether the picture that verdicts are based on has changed.
    pub fn sampled(&mut self, sample: &Sample, now: Moment) -> bool {
        let _ = (sample, now);
        false
    }

    /// Returns the picture that verdicts are based on. Small changes of free memory are left out
    /// of it until they matter or have lasted.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// Returns how long to wait before the next sample.
    pub fn pace(&self) -> Span {
        Span::seconds(30)
    }
}
