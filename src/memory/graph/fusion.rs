//! What a back-end keeps longer than the graph itself would, to compute several nodes as one.

use std::ops::Range;

use super::backend::Backends;
use super::tensor::{BackendId, Graph, Id};

/// A tensor that must not be given back before another is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) tensor: Id,
    pub(super) until: Id,
}

/// Lets a back-end look at a split: it may change the order of the nodes and keep tensors.
pub(super) fn optimise(_graph: &mut Graph, _backends: &Backends, _on: BackendId, _nodes: Range<usize>) -> Vec<Kept> {
    Vec::new()
}
