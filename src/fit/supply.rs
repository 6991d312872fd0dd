//! What can be had: a picture of the machine, margins taken off.

use std::sync::Arc;

use crate::config::FitConfig;
use crate::machine::{DeviceMemory, Picture, Reading, Vendor};
use crate::memory::{Backend, Devices, Gpu};
use crate::units::Bytes;

/// In which sense a fit is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sense {
    /// With the memory that is free right now.
    Now,
    /// With all of this machine's memory that models can ever have.
    Machine,
}

/// What can be had, pool by pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supply {
    /// The back-end that would drive the GPUs.
    pub backend: Backend,
    /// GPUs whose memory is known.
    pub gpus: Vec<GpuSupply>,
    /// RAM, or nothing where it is not known.
    pub ram: Option<Bytes>,
    /// What a verdict on this supply leaves open.
    pub caveat: Option<Arc<str>>,
}

/// One GPU's supply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuSupply {
    /// The GPU's name; shared, for it is part of every judgement.
    pub name: Arc<str>,
    /// What can be had of it, the margin taken off.
    pub available: Bytes,
}

/// The step to which shares of several GPUs are rounded, so that a plan outlives small changes.
const SHARE_STEP: u64 = 256 << 20;

impl Supply {
    /// Takes the supply from a picture of the machine.
    pub fn of(picture: &Picture, config: &FitConfig, sense: Sense) -> Supply {
        let mut gpus = Vec::new();
        let mut caveats = Vec::new();
        let mut names = Vec::new();
        for device in &picture.devices {
            // Two cards of one name must stay two pools.
            let twins = names.iter().filter(|name| **name == device.name).count();
            names.push(device.name.clone());
            let name = if twins == 0 { device.name.clone() } else { format!("{} ({})", device.name, twins + 1) };
            match &device.memory {
                Reading::Fresh { value } | Reading::Stale { value, .. } => {
                    gpus.push(GpuSupply { available: gpu_supply(*value, config, sense), name: name.into() });
                }
                Reading::Pending => caveats.push(format!("GPU memory unknown: {name} was not read yet")),
                Reading::Unavailable { reason } => caveats.push(format!("GPU memory unknown: {name}, {reason}")),
            }
            if let (Reading::Stale { reason, .. }, Sense::Now) = (&device.memory, sense) {
                caveats.push(format!("memory of {} is as last seen: {reason}", device.name));
            }
        }
        for gpu in &picture.unknown {
            caveats.push(format!("GPU memory unknown: {}, {}", gpu.name, gpu.reason));
        }
        let ram = picture.memory.value().map(|memory| {
            let memory = match sense {
                Sense::Now => memory.available,
                Sense::Machine => memory.total,
            };
            memory.saturating_sub(config.ram_margin)
        });
        let backend = match picture.devices.first().map(|device| device.vendor) {
            _ if gpus.is_empty() => Backend::None,
            Some(Vendor::Nvidia) => Backend::Cuda,
            Some(Vendor::Amd) => Backend::Rocm,
            Some(Vendor::Apple) => Backend::Metal,
            Some(Vendor::Intel | Vendor::Other) | None => Backend::Vulkan,
        };
        let caveat = (!caveats.is_empty()).then(|| caveats.join("; ").into());
        Supply { backend, gpus, ram, caveat }
    }

    /// Returns the devices a bill is drawn up for. A single GPU takes every layer whatever its
    /// memory, so its memory is left out of the value: a plan then outlives changes of it.
    pub fn devices(&self) -> Devices {
        let gpus = self.gpus.iter().zip(self.shares()).map(|(gpu, memory)| Gpu {
            name: gpu.name.to_string(),
            memory,
            overhead: None,
        });
        Devices { backend: self.backend, gpus: gpus.collect() }
    }

    /// Returns the memory by whose share layers are spread, GPU by GPU.
    pub(super) fn shares(&self) -> impl Iterator<Item = Bytes> {
        self.gpus.iter().map(|gpu| match self.gpus.len() {
            1 => Bytes(SHARE_STEP),
            _ => Bytes((gpu.available.0 / SHARE_STEP).max(1).saturating_mul(SHARE_STEP)),
        })
    }
}

/// Returns what can be had of one GPU. The margin covers what the desktop and the driver take
/// between now and the load: llama.cpp's own `--fit` leaves 1 GiB, of which the back-end's line in
/// the bill already holds about half.
fn gpu_supply(memory: DeviceMemory, config: &FitConfig, sense: Sense) -> Bytes {
    let margin = config.gpu_margin.max(memory.total.share(config.gpu_margin_share()));
    let usable = match sense {
        Sense::Now => memory.free,
        Sense::Machine => memory.total.saturating_sub(memory.reserved),
    };
    usable.saturating_sub(margin)
}
