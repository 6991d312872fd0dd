//! The graphs, one small module a family of architectures.

mod deepseek;
mod deepseek4;
mod drafters;
mod llama;
mod sparse;
mod speech;

use super::model::Builder;

/// Builds the graph of a family.
pub(super) type Family = fn(&mut Builder);

/// Each family module's table, from an architecture's name in the header to what builds its graph.
const TABLES: &[fn(&str) -> Option<Family>] = &[llama::of, deepseek::of, sparse::of, deepseek4::of, speech::of, drafters::of];

/// Returns what builds the graph of an architecture.
pub(super) fn of(architecture: &str) -> Option<Family> {
    TABLES.iter().find_map(|of| of(architecture))
}
