//! The graphs, one small module a family of architectures.

mod encoders;
mod gemma;
mod gemma3n;
mod llama;
mod t5;
mod wavtokenizer;
mod windowed;

use super::model::Builder;

/// Builds the graph of a family.
pub(super) type Family = fn(&mut Builder);

/// Each family module's table, from an architecture's name in the header to what builds its graph.
const TABLES: &[fn(&str) -> Option<Family>] = &[encoders::of, gemma::of, gemma3n::of, llama::of, t5::of, wavtokenizer::of, windowed::of];

/// Returns what builds the graph of an architecture.
pub(super) fn of(architecture: &str) -> Option<Family> {
    TABLES.iter().find_map(|of| of(architecture))
}
