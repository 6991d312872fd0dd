//! What differs between builds of the engine.

use serde::{Deserialize, Serialize};

/// The few constants in which engine builds differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineProfile {
    /// The profile's name, shown in the bill: `server`, `library`.
    pub name: String,
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

impl EngineProfile {
    /// Returns the profile of llama-server as LM Studio starts it since 0.4.
    pub fn server() -> EngineProfile {
        EngineProfile { name: "server".into(), logit_rows: LogitRows::Slots, cpu_repack: true }
    }

    /// Returns the profile of a program that links the library and keeps its defaults.
    pub fn library() -> EngineProfile {
        EngineProfile { name: "library".into(), logit_rows: LogitRows::Batch, cpu_repack: true }
    }
}
