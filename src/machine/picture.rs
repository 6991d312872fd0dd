//! The picture of the machine: every number a reading.

use serde::{Deserialize, Serialize};

use super::{DeviceMemory, MemorySample, UnknownGpu, Vendor};
use crate::units::Moment;

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

impl Default for Picture {
    /// Returns the picture before the first sample.
    fn default() -> Picture {
        Picture {
            memory: Reading::Pending,
            devices: Vec::new(),
            unknown: Vec::new(),
            problems: Vec::new(),
            driver: None,
        }
    }
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
