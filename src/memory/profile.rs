//! What differs between builds of the engine.
//!
//! A build is the number that `llama-server --version` shows. What llama.cpp reserves changed at a
//! few of them: [`Change`] lists those that move a bill.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a bill has to know of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineProfile {
    /// The profile's name, shown in the bill: `server`, `library`, `server@9010`.
    pub name: String,
    /// What uses llama.cpp.
    pub engine: Engine,
    /// Its build.
    pub build: Build,
    /// Rows of logits reserved in the compute buffer.
    pub logit_rows: LogitRows,
    /// Weights may be repacked for the CPU where no GPU is present.
    pub cpu_repack: bool,
}

/// How many rows of logits a build reserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogitRows {
    /// One a slot: llama-server since mid-2026.
    Slots,
    /// One a token of the micro-batch: the library default.
    Batch,
    /// A given number (`n_outputs_max`).
    Count(u32),
}

/// What uses llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// llama-server, as LM Studio starts it since 0.4.
    Server,
    /// A program that links the library and keeps its defaults.
    Library,
}

/// A build of llama.cpp, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Build(pub u32);

impl Build {
    /// The newest build that bills were held against.
    pub const NEWEST: Build = Build(11_434);
    /// The build from which on nothing is known to have changed.
    pub const CURRENT: Build = Change::MixedInput.since();
    /// The oldest build whose bills, without a GPU, were held against real ones for every family. Back
    /// to 8672 most families are exact; gemma 4, gpt-oss and a few others are some percent off.
    pub const OLDEST: Build = Build(9_538);

    /// Returns whether the build has a change.
    pub const fn has(self, change: Change) -> bool {
        self.0 >= change.since().0
    }
}

/// What a build of llama.cpp changed about the memory it reserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Embeddings given instead of tokens have room of their own; before, each graph had one input.
    GivenInput,
    /// Quantised caches are stored rotated.
    Rotations,
    /// Attention's mask comes as f16 where flash attention reads it; before, as f32 that is copied.
    HalfMask,
    /// llama-server asks for a row of logits a slot; before, one a token was reserved for all.
    SlotRows,
    /// CUDA's f16 copies of a quantised cache lie in the compute buffer; before, in a pool that grows
    /// as the model works.
    FlashScratch,
    /// Queries of which only the end is turned are turned as a whole; before, apart.
    OffsetRopes,
    /// The second Mamba multiplies a micro-batch as a whole; before, sequence by sequence.
    FlatProjections,
    /// What is clamped is a tensor of its own; before, a view of what it is made from.
    OwnClamps,
    /// CUDA keeps experts' results until their weighted sum is computed.
    KeptExperts,
    /// A split of the graph has as many inputs as it reads; before, a new one was begun at thirty.
    LongSplits,
    /// Vulkan keeps what it computes in one go.
    VulkanKeeps,
    /// No cache is kept for MTP blocks of a model that does not draft for itself; before, only some
    /// architectures did without.
    TrunkCaches,
    /// Metal keeps what it computes in one go.
    MetalKeeps,
    /// The first Mamba's time steps are made contiguous before they are multiplied.
    ContiguousSteps,
    /// CUDA keeps what a router reads until the experts are chosen.
    KeptRouters,
    /// CUDA computes the gates of shared and routed experts in one go.
    JoinedExperts,
    /// One gather reads the states of a micro-batch and those that only move; before, each had its own,
    /// and an operation that picks its states itself had none of them gathered.
    GatheredStates,
    /// Tokens and embeddings may be mixed in a micro-batch: a third kind of input embeddings has its room.
    MixedInput,
}

impl Change {
    /// Returns the first build that is known to have the change, by its source or by what it allocates.
    /// Not every build is at hand: one after the last without it may have it as well.
    pub const fn since(self) -> Build {
        Build(match self {
            Change::GivenInput => 7_827,                              // not in 7772
            Change::Rotations => 8_672,                               // #21038, of April 2026
            Change::HalfMask => 9_415,                                // #23764, not in 9409
            Change::SlotRows => 9_464,                                // #23861, not in 9453
            Change::FlashScratch => 9_496,                            // #23907, not in 9464
            Change::OffsetRopes => 10_568,                            // not in 10435
            Change::FlatProjections => 10_605,                        // not in 10593
            Change::OwnClamps => 10_615,                              // not in 10605
            Change::KeptExperts => 10_698,                            // not in 10688
            Change::LongSplits => 10_840,                             // not in 10830
            Change::VulkanKeeps => 10_901,                            // not in 10894
            Change::TrunkCaches => 10_909,                            // not in 10901
            Change::MetalKeeps => 11_053,                             // not in 11046
            Change::ContiguousSteps => 11_063,                        // not in 11053
            Change::KeptRouters => 11_138,                            // not in 11117
            Change::JoinedExperts | Change::GatheredStates => 11_378, // not in 11368
            Change::MixedInput => 11_401,                             // not in 11393
        })
    }
}

impl EngineProfile {
    /// Returns the profile of llama-server as LM Studio starts it since 0.4, in its newest build.
    pub fn server() -> EngineProfile {
        EngineProfile::of_build(Engine::Server, Build::NEWEST)
    }

    /// Returns the profile of a program that links the library and keeps its defaults, in its newest
    /// build.
    pub fn library() -> EngineProfile {
        EngineProfile::of_build(Engine::Library, Build::NEWEST)
    }

    /// Returns the profile of an engine in a build.
    pub fn of_build(engine: Engine, build: Build) -> EngineProfile {
        let slots = engine == Engine::Server && build.has(Change::SlotRows);
        let name = match engine {
            Engine::Server => "server",
            Engine::Library => "library",
        };
        EngineProfile {
            name: if build == Build::NEWEST { name.into() } else { format!("{name}@{}", build.0) },
            engine,
            build,
            logit_rows: if slots { LogitRows::Slots } else { LogitRows::Batch },
            cpu_repack: true,
        }
    }
}

impl Default for EngineProfile {
    fn default() -> EngineProfile {
        EngineProfile::server()
    }
}

/// A name that is no engine profile's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownProfile;

impl fmt::Display for UnknownProfile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("neither server nor library, nor one of them with a build, such as server@9010")
    }
}

impl std::error::Error for UnknownProfile {}

impl FromStr for EngineProfile {
    type Err = UnknownProfile;

    /// Reads `server` or `library`, and a build of llama.cpp behind an `@`: `server@9010`.
    fn from_str(name: &str) -> Result<EngineProfile, UnknownProfile> {
        let (engine, build) = match name.split_once('@') {
            None => (name, None),
            Some((engine, build)) => (engine, Some(build)),
        };
        let engine = match engine {
            "server" => Engine::Server,
            "library" => Engine::Library,
            _ => return Err(UnknownProfile),
        };
        let build = match build {
            None => Build::NEWEST,
            // llama.cpp's own tags begin with a b.
            Some(build) => match build.strip_prefix('b').unwrap_or(build).parse() {
                Ok(number @ 1..) => Build(number),
                _ => return Err(UnknownProfile),
            },
        };
        Ok(EngineProfile::of_build(engine, build))
    }
}
