//! The bill and its lines.

use serde::{Deserialize, Serialize};

use super::{Devices, EngineProfile, Projector, Settings, Structure};
use crate::units::Bytes;

/// What a model takes, by pool and part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// The lines; their sum is the bill. At most one for each pool, part and basis.
    pub lines: Vec<Line>,
    /// Where the layers were placed.
    pub placement: Placement,
    /// The engine profile's name.
    pub profile: String,
    /// What the bill assumes, in words for the user.
    pub assumptions: Vec<String>,
}

/// One line of a bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Where the bytes are.
    pub pool: Pool,
    /// What they are.
    pub part: Part,
    /// How many they are.
    pub bytes: Bytes,
    /// How they are known.
    pub basis: Basis,
}

/// Where bytes are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The GPU of this index in [`Devices::gpus`].
    Gpu(u16),
    /// Main memory.
    Host,
}

/// What bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The model's weights.
    Weights,
    /// Weights repacked for the CPU: beside the mapped file where mmap is on.
    RepackedWeights,
    /// The KV cache.
    KvCache,
    /// The recurrent state.
    RecurrentState,
    /// The compute buffer.
    Compute,
    /// The output buffer.
    Output,
    /// A projector's weights.
    Projector,
    /// A projector's compute buffer.
    ProjectorCompute,
    /// What the back-end adds outside llama.cpp's accounting (CUDA context and the like).
    Backend,
}

/// How a line is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// To the byte.
    Exact,
    /// By a formula checked against llama.cpp.
    Formula,
    /// A documented guess.
    Guess,
}

/// Where layers were placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Layers on GPUs, the output layer counted as one.
    pub gpu_layers: u32,
    /// All layers, the output layer counted as one.
    pub layers: u32,
    /// Layers on each GPU, in [`Devices::gpus`] order.
    pub by_gpu: Vec<u32>,
    /// Blocks whose experts stay in host memory.
    pub cpu_moe: u32,
    /// Context cells in all after llama.cpp's rounding.
    pub context: u32,
    /// Whether flash attention ends up on.
    pub flash_attention: bool,
}

/// Draws up the bill of a load.
pub fn bill(
    structure: &Structure,
    projector: Option<&Projector>,
    settings: &Settings,
    devices: &Devices,
    profile: &EngineProfile,
) -> Bill {
    let _ = (structure, projector, settings, devices, profile);
    todo!()
}

impl Bill {
    /// Returns everything in one pool.
    pub fn pool(&self, pool: Pool) -> Bytes {
        self.lines.iter().filter(|line| line.pool == pool).map(|line| line.bytes).sum()
    }

    /// Returns one part over all pools.
    pub fn part(&self, part: Part) -> Bytes {
        self.lines.iter().filter(|line| line.part == part).map(|line| line.bytes).sum()
    }

    /// Returns everything on GPUs.
    pub fn gpus(&self) -> Bytes {
        self.lines.iter().filter(|line| line.pool != Pool::Host).map(|line| line.bytes).sum()
    }

    /// Returns the sum of all lines.
    pub fn total(&self) -> Bytes {
        self.lines.iter().map(|line| line.bytes).sum()
    }
}

impl Part {
    /// Returns the part's name in bills and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Weights => "weights",
            Part::RepackedWeights => "repacked weights",
            Part::KvCache => "KV cache",
            Part::RecurrentState => "recurrent state",
            Part::Compute => "compute buffer",
            Part::Output => "output buffer",
            Part::Projector => "projector",
            Part::ProjectorCompute => "projector compute",
            Part::Backend => "back-end overhead",
        }
    }
}
