//! The compute buffers, by doing what llama.cpp does.
//!
//! llama.cpp reserves its compute buffers once, for its worst graph: a full micro-batch at full
//! context. This module builds that graph without a weight ([`families`]), gives each node a
//! back-end ([`schedule`]), and runs ggml's allocator over it ([`allocate`]).
//!
//! - [`tensor`] and [`ops`]: ggml's tensors and operations;
//! - [`model`], [`attention`], [`feed_forward`]: what llama.cpp's `llm_graph_context` offers;
//! - [`families`]: one small module a family of architectures;
//! - [`projectors`] and [`convolve`]: the same for encoders of images and sound;
//! - [`backend`], [`cuda`], [`fusion`]: what a back-end decides about memory;
//! - [`reduce`]: the few blocks that stand for all.

mod allocate;
mod attention;
mod backend;
mod convolve;
mod cuda;
mod families;
mod feed_forward;
mod fusion;
mod model;
mod ops;
pub(super) mod projectors;
mod reduce;
mod schedule;
mod tensor;

use self::backend::Backends;
use self::model::{Builder, Plan, Uses};
use self::tensor::{FusedOp, Graph};
use super::cache::Spread;
use super::place::Places;
use super::sizes::Sizes;
use super::structure::Structure;
use super::{Backend, FlashAttention, Settings};
use crate::units::Bytes;

/// Copies of the inputs that several fully loaded GPUs keep to work in turns
/// (`GGML_SCHED_MAX_COPIES`).
const PIPELINE_COPIES: u32 = 4;

/// What a graph is built for.
#[derive(Clone, Copy)]
pub(super) struct Load<'a> {
    pub(super) structure: &'a Structure,
    pub(super) settings: &'a Settings,
    pub(super) places: &'a Places,
    pub(super) sizes: &'a Sizes,
    pub(super) backend: Backend,
}

/// What the graph of a load needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Computed {
    /// The compute buffers.
    pub(super) buffers: Spread,
    /// Whether flash attention ends up on.
    pub(super) flash_attention: bool,
}

/// Returns what the graph of a load needs, or nothing where no family describes its architecture.
pub(super) fn compute(load: &Load) -> Option<Computed> {
    let family = families::of(&load.structure.architecture)?;
    let blocks = reduce::blocks(load);
    let backends = Backends::new(load.backend, load.places.gpus());
    let sizes = load.sizes;
    let slots = sizes.slots;
    let plan = |tokens: u64, outputs: u64, uses: Uses| Plan {
        structure: load.structure,
        settings: load.settings,
        places: load.places,
        sizes,
        backends,
        blocks: &blocks,
        // `graph_reserve` makes the tokens a multiple of the sequences.
        tokens: tokens.next_multiple_of(slots.max(1)),
        slots,
        outputs,
        uses,
    };
    let build = |plan: Plan| -> Graph {
        let mut builder = Builder::new(plan);
        family(&mut builder);
        builder.graph
    };
    let mut uses = Uses {
        flash_attention: load.settings.flash_attention != FlashAttention::Off,
        gated_delta_net: true,
        lightning_indexer: true,
        hyper_connections: true,
    };
    if load.settings.flash_attention == FlashAttention::Auto {
        let graph = build(plan(slots, slots, uses));
        uses.flash_attention = runs_at_home(&graph, &backends, FusedOp::FlashAttention);
    }
    let copies = if is_pipelined(load) { PIPELINE_COPIES } else { 1 };
    let mut graph = build(plan(sizes.tokens, sizes.rows, uses));
    let scheduled = schedule::schedule(&mut graph, &backends, copies);
    let mut bytes = allocate::allocate(&graph, &scheduled, &backends).into_iter().map(Bytes);
    let gpus = bytes.by_ref().take(load.places.gpus()).collect();
    let host = bytes.next().unwrap_or_default();
    Some(Computed { buffers: Spread { gpus, host }, flash_attention: uses.flash_attention })
}

/// Returns whether each of the operations runs where its block is; else it is switched off for the
/// whole model (`resolve_fused_ops` in `llama-context.cpp`).
fn runs_at_home(graph: &Graph, backends: &Backends, what: FusedOp) -> bool {
    let places = schedule::fused_places(graph, backends);
    graph.fused.iter().zip(places).all(|(fused, place)| fused.what != what || place == Some(fused.block))
}

/// Returns whether several micro-batches are under way at once: several GPUs have everything.
fn is_pipelined(load: &Load) -> bool {
    load.places.gpus() > 1
        && load.places.on_gpus() >= load.structure.layers()
        && load.settings.offload_kv
        && load.settings.cpu_moe == 0
        && matches!(load.backend, Backend::Cuda | Backend::Rocm | Backend::Vulkan)
}
