//! The caches of DeepSeek V4: a window of rows as they are, and rows that stand for many tokens.
//!
//! Keys serve as values too. Every slot has caches of its own, whatever `--kv-unified` says, and
//! beside them what its unfinished rows are made from (`llama-kv-cache-dsv4.cpp`).

use super::Settings;
use super::buffer::BufferKind;
use super::cache::snapshots;
use super::sizes::Sizes;
use super::structure::{BlockKind, Structure};
use super::tensor::row_bytes;
use crate::gguf::TensorType;
use crate::units::Bytes;

/// The ratio at which rows overlap and an indexer picks among them (CSA).
pub(super) const OVERLAPPING: u16 = 4;

/// The tensors that a block keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The window's rows.
    Raw,
    /// The compressed rows.
    Rows,
    /// The indexer's compressed keys.
    Keys,
    /// What rows are made from; a second tensor of this shape has the scores.
    State,
    /// What the indexer's keys are made from; likewise.
    KeyState,
}

impl Part {
    /// Returns whether it is something that rows are made from.
    pub(super) const fn is_state(self) -> bool {
        matches!(self, Part::State | Part::KeyState)
    }
}

/// Returns whether a model has such caches.
pub(super) fn is_used(structure: &Structure) -> bool {
    structure.architecture == "deepseek4"
}

/// Returns the width and the rows of a slot of a part of a block, nothing where it has none.
pub(super) fn shape(structure: &Structure, kind: &BlockKind, sizes: &Sizes, part: Part) -> Option<[u64; 2]> {
    let indexer = u64::from(structure.dimensions.indexer);
    let overlaps = kind.compressed == OVERLAPPING;
    match part {
        Part::Raw => return Some([kind.width_k(), sizes.window_cells]),
        _ if kind.compressed == 0 => return None,
        Part::Keys | Part::KeyState if !overlaps => return None,
        Part::Rows | Part::Keys | Part::State | Part::KeyState => {}
    }
    let ratio = u64::from(kind.compressed);
    let cells = sizes.cells.div_ceil(ratio).max(1).next_multiple_of(256);
    // Where rows overlap, each is made from two groups of tokens.
    let groups = if overlaps { 2 } else { 1 };
    let state = |width: u64| [width.saturating_mul(groups), ratio * groups];
    Some(match part {
        Part::Raw | Part::Rows => [kind.width_k(), cells],
        Part::Keys => [indexer, cells],
        Part::State => state(u64::from(kind.head_k)),
        Part::KeyState => state(indexer),
    })
}

/// Returns the caches and states of one block.
pub(super) fn block_cache(
    structure: &Structure,
    kind: &BlockKind,
    settings: &Settings,
    sizes: &Sizes,
    buffer: BufferKind,
) -> Bytes {
    const F32: TensorType = TensorType(0);
    let mut sum = Bytes::ZERO;
    for part in [Part::Raw, Part::Rows, Part::Keys, Part::State, Part::KeyState] {
        let Some([width, rows]) = shape(structure, kind, sizes, part) else { continue };
        let rows = rows.saturating_mul(sizes.slots);
        let bytes = if part.is_state() {
            let rows = rows.saturating_mul(snapshots(structure, settings));
            buffer.padded(row_bytes(F32, width).saturating_mul(rows)).saturating_mul(2)
        } else {
            buffer.cache(settings.cache_type_k, width, rows)
        };
        sum = sum.saturating_add(bytes);
    }
    sum
}
