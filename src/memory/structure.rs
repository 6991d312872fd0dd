//! What the bill needs of a header, and no more.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::hyper::Hyperparameters;
use super::read;
use super::tensor::TensorShape;
use crate::gguf::Header;
use crate::units::Bytes;

/// A model's hyper-parameters and tensor shapes by block, in a few kilobytes.
///
/// Blocks repeat, so each is an index into `kinds`, and a kind an index into `layouts`: a model of
/// 80 blocks has a handful of kinds.
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
    /// The sizes that hold for the whole model.
    pub dimensions: Dimensions,
    /// What the model remembers between tokens.
    pub memory: Memory,
    /// What else decides which graph the model has.
    pub hyper: Hyperparameters,
    /// The tensors outside the blocks.
    pub globals: Vec<TensorShape>,
    /// The different lists of tensors that blocks have, each sorted.
    pub layouts: Vec<Vec<TensorShape>>,
    /// The different blocks.
    pub kinds: Vec<BlockKind>,
    /// Each block as an index into `kinds`.
    pub pattern: Vec<u16>,
}

/// Sizes that hold for the whole model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dimensions {
    /// Width of an activation (`embedding_length`).
    pub embedding: u32,
    /// Width of an embedding that is put out, where it differs from `embedding`.
    pub embedding_out: u32,
    /// Tokens of the vocabulary.
    pub vocabulary: u32,
    /// Routed experts of a block, 0 for a dense model.
    pub experts: u32,
    /// Tokens of the sliding window, 0 without one.
    pub window: u32,
    /// Width of the per-layer embeddings (gemma 3n and 4), 0 without.
    pub per_layer_embedding: u32,
    /// Extra input embeddings for the first blocks (Qwen3-VL), 0 without.
    pub deepstack: u32,
    /// Width of the indexer's keys (sparse attention), 0 without.
    pub indexer: u32,
    /// Width of the value that some indexers keep beside the key.
    pub indexer_value: u32,
}

/// What a model remembers between tokens, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, kept small")]
pub struct Memory {
    /// Whether there is a memory at all: encoders have none.
    pub any: bool,
    /// Whether windowed and global blocks have separate caches.
    pub windowed: bool,
    /// Whether only keys are cached and values are a view of them (MLA).
    pub keys_only: bool,
    /// Elements of the convolution state of one recurrent block and slot.
    pub state_r: u64,
    /// Elements of the recurrent state of one recurrent block and slot.
    pub state_s: u64,
    /// Whether attention is causal; without it the batch is not cut to the context.
    pub causal: bool,
}

/// One kind of block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, kept small")]
pub struct BlockKind {
    /// Its tensors, an index into [`Structure::layouts`].
    pub layout: u16,
    /// Kinds whose layouts differ in the precision of weights alone have the same number here: on
    /// the device of their weights their graphs take the same room.
    pub shape: u16,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub heads_kv: u32,
    /// Width of a key head, as cached.
    pub head_k: u32,
    /// Width of a value head, as cached.
    pub head_v: u32,
    /// Experts that a token uses.
    pub experts_used: u32,
    /// Whether the block has a KV cache of its own.
    pub cached: bool,
    /// Whether its attention is limited to the sliding window.
    pub windowed: bool,
    /// Whether it has a recurrent state.
    pub recurrent: bool,
    /// Whether it has an indexer cache (sparse attention).
    pub indexed: bool,
    /// Whether a further part of the input embeddings is added before it (deepstack).
    pub deepstack: bool,
    /// Whether it leaves queries and keys as they are where other blocks turn them by rope.
    pub nope: bool,
    /// Whether the gates of its shared experts have limits.
    pub clamps_shared: bool,
    /// Whether the gates of its experts have limits.
    pub clamps_experts: bool,
    /// Tokens that are compressed into one cached row beside the window (DeepSeek V4), 0 for none.
    pub compressed: u16,
    /// Whether it is an MTP (`NextN`) block, loaded for speculative decoding only.
    pub mtp: bool,
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
    /// Takes from a (joined) header what the bill needs.
    pub fn from_header(header: &Header) -> Result<Structure, StructureError> {
        read::structure(header)
    }

    /// Returns the number of layers as llama.cpp counts them: the blocks and the output layer.
    pub const fn layers(&self) -> u32 {
        self.blocks.saturating_add(1)
    }

    /// Returns whether some weights are routed experts, which can stay in host memory.
    pub fn has_experts(&self) -> bool {
        self.layouts.iter().flatten().any(TensorShape::is_expert)
    }

    /// Returns the kinds of the blocks in order.
    pub fn block_kinds(&self) -> impl Iterator<Item = &BlockKind> {
        self.pattern.iter().filter_map(|&kind| self.kinds.get(usize::from(kind)))
    }

    /// Returns the tensors of a kind of block.
    pub fn layout(&self, kind: &BlockKind) -> &[TensorShape] {
        self.layouts.get(usize::from(kind.layout)).map_or(&[], Vec::as_slice)
    }
}

impl BlockKind {
    /// Returns the width of a cached key.
    pub const fn width_k(&self) -> u64 {
        self.heads_kv as u64 * self.head_k as u64
    }

    /// Returns the width of a cached value.
    pub const fn width_v(&self) -> u64 {
        self.heads_kv as u64 * self.head_v as u64
    }
}
