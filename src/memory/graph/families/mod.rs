//! The graphs, one small module a family of architectures.

mod clef;
mod deepseek4;
mod deepseek;
mod dots3note;
mod drafters;
mod granite_switch;
mod hy_v4;
mod kimi;
mod lfm2;
mod llama;
mod mamba;
mod minimax01;
mod minimax_m3;
mod moe;
mod moe_apart;
mod plamo2;
mod qwen4exp;
mod qwen_next;
mod rwkv;
mod sparse;
mod speech;

use super::model::Builder;

/// Builds the graph of a family.
pub(super) type Family = fn(&mut Builder);

/// Each family module's table, from an architecture's name in the header to what builds its graph.
const TABLES: &[fn(&str) -> Option<Family>] = &[
    llama::of,
    moe::of,
    moe_apart::of,
    clef::of,
    deepseek::of,
    sparse::of,
    deepseek4::of,
    dots3note::of,
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

/// Returns what builds the graph of an architecture.
pub(super) fn of(architecture: &str) -> Option<Family> {
    TABLES.iter().find_map(|of| of(architecture))
}
