//! The graphs, one small module a family of architectures.

mod bailingmoe3;
mod clef;
mod decoder;
mod deepseek;
mod deepseek4;
mod dense;
mod dots3note;
mod drafters;
mod encoders;
mod gemma;
mod gemma3n;
mod glm5_next;
mod granite_switch;
mod hy_v4;
mod kimi;
mod lfm2;
mod looped;
mod mamba;
mod minimax01;
mod minimax_m3;
mod moe;
mod moe_apart;
mod mtp;
mod plamo2;
mod qwen4exp;
mod qwen_next;
mod rwkv;
mod sparse;
mod speech;
mod t5;
mod wavtokenizer;
mod windowed;

use super::model::Builder;

/// Builds the graph of a family.
pub(super) type Family = fn(&mut Builder);

/// Each family module's table, from an architecture's name in the header to what builds its graph.
const TABLES: &[fn(&str) -> Option<Family>] = &[
    dense::of,
    looped::of,
    moe::of,
    moe_apart::of,
    gemma::of,
    gemma3n::of,
    windowed::of,
    encoders::of,
    t5::of,
    wavtokenizer::of,
    bailingmoe3::of,
    clef::of,
    deepseek::of,
    sparse::of,
    deepseek4::of,
    dots3note::of,
    glm5_next::of,
    granite_switch::of,
    hy_v4::of,
    minimax01::of,
    minimax_m3::of,
    speech::of,
    kimi::of,
    drafters::of,
    lfm2::of,
    mamba::of,
    plamo2::of,
    qwen4exp::of,
    qwen_next::of,
    rwkv::of,
];

/// What builds the graph of an architecture that stands in no table: what its tensors show of a
/// decoder.
pub(super) const UNKNOWN: Family = |g| decoder::LLAMA.build(g);

/// Returns what builds the graph of an architecture.
pub(super) fn of(architecture: &str) -> Option<Family> {
    TABLES.iter().find_map(|of| of(architecture))
}

/// Returns what builds the graph that an architecture drafts with.
pub(super) fn drafting(architecture: &str) -> Option<Family> {
    mtp::of(architecture)
}
