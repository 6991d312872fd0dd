//! The compute buffers, by doing what llama.cpp does.
//!
//! llama.cpp reserves its compute buffers once, for its worst graph: a full micro-batch at full
//! context. This module builds that graph without a weight ([`families`]), gives each node a
//! back-end ([`schedule`]), and runs ggml's allocator over it ([`allocate`]).
//!
//! - [`tensor`] and [`ops`]: ggml's tensors and operations;
//! - [`model`], [`attention`], [`feed_forward`]: what llama.cpp's `llm_graph_context` offers;
//! - [`recurrent`], [`mamba`], [`delta_net`]: states, and the layers that carry them along;
//! - [`pooling`]: what follows where embeddings are asked for;
//! - [`families`]: one small module a family of architectures;
//! - [`backend`]: what a back-end decides about memory: [`cuda`] with [`fusion`], [`metal`] with
//!   [`metal_order`], [`vulkan`] with [`vulkan_order`];
//! - [`reduce`]: the few blocks that stand for all;
//! - [`usable`]: which weights a device can use at all.

mod allocate;
mod attention;
mod backend;
mod cuda;
mod delta_net;
mod families;
mod feed_forward;
mod fusion;
mod metal;
mod metal_order;
mod hyper_connections;
mod indexer;
mod latent;
mod mamba;
mod model;
mod ops;
mod recurrent;
mod pooling;
mod reduce;
mod room;
mod schedule;
mod tensor;
mod usable;
mod vulkan;
mod vulkan_order;

pub(super) use self::usable::is_usable;

use self::backend::Backends;
use self::families::Family;
use self::model::{Builder, Plan, Uses};
use self::tensor::{FusedOp, Graph};
use super::cache::Spread;
use super::flash::wished;
use super::hyper::Hyper;
use super::place::{Device, Places};
use super::sizes::Sizes;
use super::structure::Structure;
use super::tensor::Cpu;
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
    /// The CPU that weights in host memory are laid out for.
    pub(super) repacks: Option<Cpu>,
}

/// What the graph of a load needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Computed {
    /// The compute buffers.
    pub(super) buffers: Spread,
    /// Whether flash attention ends up on.
    pub(super) flash_attention: bool,
    /// Whether tensors of another model are read, which are only guessed.
    pub(super) borrows: bool,
}

/// Returns what the graph of a load needs, or nothing where no family describes its architecture.
pub(super) fn compute(load: &Load) -> Option<Computed> {
    let family = families::of(&load.structure.architecture)?;
    let copies = if is_pipelined(load) { PIPELINE_COPIES } else { 1 };
    let (computed, splits) = compute_of(load, family, &reduce::blocks(load), copies);
    // The copies between devices stay while several micro-batches are under way, so every block counts
    // where each is split.
    let usual = load.places.gpus() + 2;
    if copies == 1 || splits <= usual {
        return Some(computed);
    }
    Some(compute_of(load, family, &reduce::all(load), copies).0)
}

/// Returns what the graph of some blocks needs, and in how many parts it is computed.
fn compute_of(load: &Load, family: Family, blocks: &[u32], copies: u32) -> (Computed, usize) {
    let backends = Backends::new(load.backend, load.places.gpus()).repacking(load.repacks);
    let sizes = load.sizes;
    let slots = sizes.slots;
    let plan = |tokens: u64, outputs: u64, uses: Uses| Plan {
        structure: load.structure,
        settings: load.settings,
        places: load.places,
        sizes,
        backends,
        blocks,
        // `graph_reserve` makes the tokens a multiple of the sequences.
        tokens: tokens.next_multiple_of(slots.max(1)),
        slots,
        outputs,
        uses,
    };
    let build = |plan: Plan| -> Graph {
        let mut builder = Builder::new(plan);
        family(&mut builder);
        builder.pool();
        builder.graph
    };
    let wished = wished(load.structure, load.settings);
    let mut uses = Uses {
        flash_attention: wished != FlashAttention::Off,
        gated_delta_net: true,
        lightning_indexer: true,
        hyper_connections_pre: true,
        hyper_connections_comb: true,
        hyper_connections_post: true,
    };
    let mut graph = build(plan(sizes.tokens, sizes.rows, uses));
    for what in tried(load) {
        // llama.cpp tries with one token a sequence. Where everything is on one device the number
        // of tokens moves nothing, and the graph at hand will do.
        let trial = (!is_on_one_device(load)).then(|| build(plan(slots, slots, uses)));
        if !runs_at_home(trial.as_ref().unwrap_or(&graph), &backends, what) {
            *uses.switch(what) = false;
            graph = build(plan(sizes.tokens, sizes.rows, uses));
        }
    }
    // llama.cpp's own measure of a load forgets where nodes were pinned, which takes up to a few
    // dozen MiB more between two GPUs than a load then does (`ggml_backend_sched_reserve_size`).
    graph.pinned.clear();
    let scheduled = schedule::schedule(&mut graph, &backends, copies);
    let mut bytes = allocate::allocate(&graph, &scheduled, &backends).into_iter().map(Bytes);
    let gpus = bytes.by_ref().take(load.places.gpus()).collect();
    let host = bytes.next().unwrap_or_default();
    let buffers = Spread { gpus, host };
    let computed = Computed { buffers, flash_attention: uses.flash_attention, borrows: graph.borrows };
    (computed, scheduled.splits)
}

/// Returns the operations that are tried first, in order: one that is switched off may change where
/// the next one lands.
fn tried(load: &Load) -> impl Iterator<Item = FusedOp> {
    let automatic = wished(load.structure, load.settings) == FlashAttention::Auto;
    let has = |key: Hyper| load.structure.hyper.number(key) != 0;
    let (indexes, mixes) = (has(Hyper::IndexerKeyLength), has(Hyper::HyperConnections));
    let all = [
        (FusedOp::FlashAttention, automatic),
        (FusedOp::LightningIndexer, indexes),
        (FusedOp::HyperConnectionsPre, mixes),
        (FusedOp::HyperConnectionsComb, mixes),
        (FusedOp::HyperConnectionsPost, mixes),
    ];
    all.into_iter().filter(|&(_, is_tried)| is_tried).map(|(what, _)| what)
}

/// Returns whether each of the operations runs where its block is; else it is switched off for the
/// whole model (`resolve_fused_ops` in `llama-context.cpp`).
fn runs_at_home(graph: &Graph, backends: &Backends, what: FusedOp) -> bool {
    let places = schedule::fused_places(graph, backends);
    graph.fused.iter().zip(places).all(|(fused, place)| fused.what != what || place == Some(fused.block))
}

/// Returns whether everything is on one device and no other could take work from it.
fn is_on_one_device(load: &Load) -> bool {
    let on_first = load.places.layers().all(|layer| layer == Device::Gpu(0));
    load.places.gpus() == 0 || (on_first && load.settings.offload_kv && load.settings.cpu_moe == 0)
}

/// Returns whether several micro-batches are under way at once: several GPUs have everything.
fn is_pipelined(load: &Load) -> bool {
    load.places.gpus() > 1
        && load.places.on_gpus() >= load.structure.layers()
        && load.settings.offload_kv
        && load.settings.cpu_moe == 0
        && matches!(load.backend, Backend::Cuda | Backend::Rocm | Backend::Vulkan)
}
