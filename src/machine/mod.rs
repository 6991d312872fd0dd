//! What the machine has: samples in, a picture out.
//!
//! A [`Sample`] is what the probes read at one moment; [`Machine`] turns samples into a
//! [`Picture`] whose every number is a [`Reading`], says whether a change matters (with hysteresis,
//! so that verdicts do not flicker) and how soon to sample again. Unknown is never zero. Probing
//! is left to [`crate::host`].

mod picture;
mod sample;
mod steady;
#[cfg(test)]
mod tests;

pub use picture::{Device, Picture, Reading};
pub use sample::{DeviceMemory, DeviceSample, GpuProbe, MemorySample, Sample, UnknownGpu, Vendor};
pub use steady::Machine;
