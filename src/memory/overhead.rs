//! What a back-end takes on each GPU outside llama.cpp's accounting: contexts, kernels, libraries,
//! pools.

use serde::{Deserialize, Serialize};

use super::{Backend, Basis};
use crate::units::Bytes;

/// What a back-end adds on a GPU, with the band that it was seen in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overhead {
    /// What is billed.
    pub bytes: Bytes,
    /// The least that was seen.
    pub least: Bytes,
    /// The most that was seen.
    pub most: Bytes,
    /// How it is known.
    pub basis: Basis,
}

impl Overhead {
    /// Returns the middle and the ends of what public load logs show, the desktop and other programs
    /// taken off, nothing where a back-end adds nothing. It hardly moves with the model.
    pub fn usual(backend: Backend) -> Option<Overhead> {
        let (bytes, least, most) = match backend {
            // The bare context of an old card; kernels and pools of a large new one.
            Backend::Cuda => (450, 100, 750),
            Backend::Rocm => (400, 250, 500),
            Backend::Vulkan => (32, 5, 64),
            // Buffers are all that counts against the recommended working set. A server that lends its CPU
            // has no context.
            Backend::Metal | Backend::Rpc | Backend::None => return None,
        };
        let mib = |count| Bytes::MIB.saturating_mul(count);
        Some(Overhead { bytes: mib(bytes), least: mib(least), most: mib(most), basis: Basis::Guess })
    }

    /// Returns what was measured on a machine.
    pub const fn measured(bytes: Bytes) -> Overhead {
        Overhead { bytes, least: bytes, most: bytes, basis: Basis::Measured }
    }
}
