//! The graphs, one small module a family of architectures.

mod lfm2;
mod llama;
mod mamba;
mod plamo2;
mod qwen_next;
mod rwkv;

use super::model::Builder;

/// Builds the graph of a family.
pub(super) type Family = fn(&mut Builder);

/// Each family module's table, from an architecture's name in the header to what builds its graph.
const TABLES: &[fn(&str) -> Option<Family>] = &[lfm2::of, llama::of, mamba::of, plamo2::of, qwen_next::of, rwkv::of];

/// Returns what builds the graph of an architecture.
pub(super) fn of(architecture: &str) -> Option<Family> {
    TABLES.iter().find_map(|of| of(architecture))
}
