//! The graphs, one small module a family of architectures.
//!
//! # An hour's work: a new architecture
//!
//! Its name stands in no table here: it is billed as a decoder like llama, a quarter more is added,
//! and the bill says that it is a guess. To bill it to the byte:
//!
//! 1. **What it remembers** (ten minutes). In llama.cpp's `src/models/NAME.cpp`, `load_arch_hparams`
//!    says which blocks have a window, a state, a cache of their own; `create_memory` in
//!    `llama-model.cpp` which kind of memory. What is not plain attention gets a row in
//!    `memory::architecture`. Weights, cache and state are exact from here on.
//! 2. **Its tensors** (ten minutes). `load_arch_tensors` names them. A name that
//!    `memory::tensor::Role` lacks is added there; what the file may leave out is asked for
//!    with `g.has`, not assumed.
//! 3. **Its graph** (half an hour). Put its `build_*` constructor beside this crate's nearest family.
//!    Most differ from [`decoder::LLAMA`] in a value or two: one row in [`dense`] or [`moe`]. Else write a
//!    module with an `of` table, node by node in llama.cpp's order, with the builder's words
//!    (`g.norm`, `g.attend`, `g.feed_forward`). The order in which nodes are added decides who can
//!    take whose place, so every `ggml_build_forward_expand` counts, and every view, copy and
//!    `ggml_cont` too; numbers that only change values (an epsilon, a scale inside an operation) do not.
//! 4. **Hold it against llama.cpp** (ten minutes). Load a file with its shapes with nothing allocated
//!    (`llama_params_fit`, or a server with `-fit on -lv 4`): everything on one GPU, half of the
//!    layers, experts on the CPU, two GPUs, no GPU, with and without flash attention, several slots.
//!    Where a buffer differs, list both graphs' nodes with their places: the first one that differs
//!    is nearly always a missing copy or another order. `fitwatch estimate --cases` prints every part.
//! 5. **Keep it**: the header and a few of these loads join `tests/fixtures/truth` by its `sample.py`,
//!    and `UPDATE_README=1 cargo test --test memory accuracy_table` the table.
//!
//! A block whose graph depends on its number beyond what `BlockKind` tells (every third
//! one shares, the first looks twice) has to say so in `architecture::goes_by_number`, or only some of
//! the blocks are built.

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
