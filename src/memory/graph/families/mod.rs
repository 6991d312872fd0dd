//! The graphs, one small module a family of architectures.

mod llama;

use super::model::Builder;

/// Builds the graph of a family.
pub(super) type Family = fn(&mut Builder);

/// Returns what builds the graph of an architecture, by its name in the header.
pub(super) fn of(architecture: &str) -> Option<Family> {
    let family: Family = match architecture {
        "llama" => llama::llama,
        "qwen2" => llama::qwen2,
        "qwen3" => llama::qwen3,
        "qwen3moe" => llama::qwen3moe,
        _ => return None,
    };
    Some(family)
}
