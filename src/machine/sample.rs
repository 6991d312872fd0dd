//! What the probes read.

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// What the probes read at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// RAM and swap, or why they could not be read.
    pub memory: Result<MemorySample, String>,
    /// GPUs.
    pub gpus: GpuProbe,
}

/// RAM and swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemorySample {
    /// All RAM the machine (or its container) may use.
    pub total: Bytes,
    /// RAM available without swapping.
    pub available: Bytes,
    /// All swap.
    pub swap_total: Bytes,
    /// Unused swap.
    pub swap_free: Bytes,
}

/// What the GPU probes found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuProbe {
    /// GPUs whose memory can be read in principle.
    pub devices: Vec<DeviceSample>,
    /// GPUs that are there and whose memory cannot be read.
    pub unknown: Vec<UnknownGpu>,
    /// What went wrong with a whole probe, in words for `doctor`: a missing driver is no problem.
    pub problems: Vec<String>,
    /// The driver's version, where known.
    pub driver: Option<String>,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSample {
    /// A stable identity: the UUID, or the PCI address.
    pub id: String,
    /// The product name.
    pub name: String,
    /// Who made it.
    pub vendor: Vendor,
    /// Its memory; `None` while it sleeps and was not asked.
    pub memory: Option<Result<DeviceMemory, String>>,
}

/// The memory of a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// All of it.
    pub total: Bytes,
    /// What the driver keeps for itself.
    pub reserved: Bytes,
    /// What programs hold.
    pub used: Bytes,
    /// What is free now.
    pub free: Bytes,
}

/// A GPU whose memory cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownGpu {
    /// A stable identity: the PCI address, or the name.
    pub id: String,
    /// The product name, or the vendor's where no name is known.
    pub name: String,
    /// Why its memory is unknown.
    pub reason: String,
}

/// Who made a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names speak for themselves")]
pub enum Vendor {
    Nvidia,
    Amd,
    Intel,
    Apple,
    Other,
}
