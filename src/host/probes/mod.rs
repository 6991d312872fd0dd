//! Probes of the machine: RAM through sysinfo, NVIDIA GPUs through NVML, the rest by name only.
//!
//! [`Probes::sample`] blocks for a fraction of a millisecond (some milliseconds where a GPU is
//! asked) and never fails as a whole: what cannot be read is a reason in the [`Sample`]. It wakes
//! nothing: a GPU that sleeps is not asked, and where all of them sleep NVML is not even opened.
//! What a change means is left to [`crate::machine`].

mod memory;
mod nvml;
mod pci;
pub mod processes;

use std::path::PathBuf;

use crate::machine::{GpuProbe, Sample, UnknownGpu};

/// Where the kernel shows the machine; another root stands in for it in tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The `sys` file system.
    pub sys: PathBuf,
}

impl Default for Roots {
    /// Returns this machine's own.
    fn default() -> Roots {
        Roots { sys: PathBuf::from("/sys") }
    }
}

/// The probes and what they keep open between two samples.
#[derive(Debug)]
pub struct Probes {
    roots: Roots,
    memory: memory::MemoryProbe,
    nvml: nvml::NvmlProbe,
}

impl Probes {
    /// Returns probes that load the given NVIDIA management library, or the driver's own.
    pub fn new(nvml_library: Option<PathBuf>, roots: Roots) -> Probes {
        Probes { roots, memory: memory::MemoryProbe::default(), nvml: nvml::NvmlProbe::new(nvml_library) }
    }

    /// Returns what the machine has now. Blocks.
    pub fn sample(&mut self) -> Sample {
        let bus = pci::Bus::read(&self.roots.sys);
        let mut gpus = self.nvml.sample(&bus);
        gpus.unknown.extend(bus.unsupported());
        gpus.unknown.extend(apple());
        Sample { memory: self.memory.sample(), gpus: sorted(gpus) }
    }
}

/// Returns the GPU that every Mac with Apple silicon has.
fn apple() -> Option<UnknownGpu> {
    cfg!(all(target_os = "macos", target_arch = "aarch64")).then(|| UnknownGpu {
        id: "apple".into(),
        name: "Apple GPU".into(),
        reason: "support for Apple GPUs comes later: its share of the unified memory is not read yet".into(),
    })
}

/// Returns the same findings in an order that does not depend on the probes'.
fn sorted(mut gpus: GpuProbe) -> GpuProbe {
    gpus.unknown.sort_by(|one, other| one.id.cmp(&other.id));
    gpus
}
