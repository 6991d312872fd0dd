//! What each architecture family remembers: which blocks have a cache, a window, a state.
//!
//! One table of sliding windows ([`mod@windows`]), one of memories ([`memory`]), each row with its
//! source: the `load_arch_hparams` of llama.cpp's `src/models/*.cpp`, `create_memory` in
//! `llama-model.cpp` and `llama-hparams.cpp`, build 11434. An architecture that stands in no row
//! is plain attention; one that llama.cpp does not know is billed by what its tensors show.
//!
//! To add an architecture: find its `load_arch_hparams`, add its name to [`mod@names`], and a row to
//! the table whose rule it needs.

mod drafts;
mod graph;
mod memory;
mod names;
mod windows;

pub(super) use drafts::{caches_drafting, drafts_itself, loads_anyway};
pub(super) use graph::{
    applies_scale, caps_attention, fuses_limits, goes_by_number, has_alibi, has_sections, has_separate_batches,
    is_looped, leaves_unturned, lender, put_out, scales_embeddings, scales_logits, scales_residuals, scans_states,
    stacked, takes_states_back,
};
pub(super) use memory::remembered;
pub(super) use names::{has_encoder, has_output_layer, is_drafter, is_encoder};
pub(super) use windows::windows;

use super::keys::Keys;

/// What the rules look at.
pub(super) struct Header<'a> {
    /// The architecture's name.
    pub(super) architecture: &'a str,
    /// Its keys.
    pub(super) keys: &'a Keys<'a>,
    /// All blocks.
    pub(super) blocks: usize,
    /// Blocks without the MTP blocks at the end.
    pub(super) trunk: usize,
    /// Width of an activation.
    pub(super) embedding: u32,
    /// Query heads by block.
    pub(super) heads: &'a [u32],
    /// Key and value heads by block.
    pub(super) heads_kv: &'a [u32],
    /// Width of the feed-forward network by block.
    pub(super) feed_forward: &'a [u32],
    /// Whether a block has tensors for attention, and for a recurrent state.
    pub(super) shows: &'a [Shown],
}

/// What a block's tensors show of its memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    /// It has `attn_k`, `attn_v` or a fused form of them.
    pub(super) attention: bool,
    /// It has `ssm_*`, `time_mix_*` or `shortconv.*`.
    pub(super) recurrent: bool,
}
