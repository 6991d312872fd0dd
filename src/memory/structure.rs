//! What the bill needs of a header, and no more.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::gguf::Header;
use crate::units::Bytes;

/// A model's hyper-parameters and tensor shapes by block, in a few kilobytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Structure {
    /// llama.cpp's architecture name.
    pub architecture: String,
    /// What the file is.
    pub kind: Kind,
    /// Number of blocks, MTP blocks included; all layers on the GPU are `blocks + 1`.
    pub blocks: u32,
    /// The context length the model was trained for.
    pub context_train: u32,
    /// Bytes of all files that hold the weights.
    pub file_bytes: Bytes,
    /// The quantisation in LM Studio's words (`Q4_K_M`), where the header names it.
    pub quantisation: Option<String>,
    /// Parameters, counted from the tensor table.
    pub parameters: u64,
    /// What is billed conservatively and why, in words for the user.
    pub notes: Vec<String>,
}

/// What a GGUF file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A language model.
    Language,
    /// An embedding model or another encoder.
    Embedding,
    /// A vision or audio projector (`clip`): part of the models beside it.
    Projector,
    /// A drafter or MTP head for speculative decoding: no model of its own.
    Drafter,
}

/// What the bill needs of a projector file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Projector {
    /// The projector's type in llama.cpp's words, where the file names it.
    pub projector_type: Option<String>,
    /// Bytes of its weights as allocated on a GPU.
    pub weights: Bytes,
    /// Compute buffer for the largest image, a documented estimate.
    pub compute: Bytes,
    /// Where `compute` comes from.
    pub notes: Vec<String>,
}

/// Why a header does not describe a model that can be billed.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum StructureError {
    /// A needed key is missing or has the wrong type.
    #[error("the header has no usable {key}")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A value lies outside what llama.cpp accepts.
    #[error("{key} is {value}, allowed is {allowed}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The value found.
        value: String,
        /// What is allowed.
        allowed: String,
    },
}

impl Structure {
    /// Returns whether some block has experts.
    pub fn has_experts(&self) -> bool {
        false
    }

    /// Takes from a (joined) header what the bill needs.
    pub fn from_header(header: &Header) -> Result<Structure, StructureError> {
        let _ = header;
        todo!()
    }
}

impl Projector {
    /// Takes from a projector's header what the bill needs.
    pub fn from_header(header: &Header) -> Result<Projector, StructureError> {
        let _ = header;
        todo!()
    }
}
