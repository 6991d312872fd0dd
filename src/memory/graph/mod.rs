//! The compute buffers, by doing what llama.cpp does.
//!
//! llama.cpp reserves its compute buffers once, for its worst graph: a full micro-batch at full
//! context. This module builds that graph without a weight ([`families`]), gives each node a
//! back-end ([`schedule`]), and runs ggml's allocator over it ([`allocate`]).
//!
//! - [`tensor`] and [`ops`]: ggml's tensors and operations;
//! - [`model`], [`attention`], [`feed_forward`]: what llama.cpp's `llm_graph_context` offers;
//! - [`recurrent`], [`mamba`], [`delta_net`], [`kda`]: states, and the layers that carry them along;
//! - [`pooling`]: what follows where embeddings are asked for;
//! - [`families`]: one small module a family of architectures;
//! - [`projectors`] and [`convolve`]: the same for encoders of images and sound;
//! - [`backend`]: what a back-end decides about memory: [`cuda`] with [`fusion`], [`rocm`], [`metal`] with
//!   [`metal_order`], [`vulkan`] with [`vulkan_order`];
//! - [`reduce`]: the few blocks that stand for all, told apart by [`blocks`];
//! - [`usable`]: which weights a device can use at all.

#![expect(
    clippy::many_single_char_names,
    clippy::similar_names,
    reason = "q, k, v, g and x are what the field calls them"
)]

mod allocate;
mod attention;
mod backend;
mod blocks;
mod convolve;
mod cuda;
mod delta_net;
mod families;
mod feed_forward;
mod fusion;
mod hyper_connections;
mod indexer;
mod kda;
mod latent;
mod mamba;
mod metal;
mod metal_order;
mod model;
mod ops;
mod pooling;
pub(super) mod projectors;
mod recurrent;
mod reduce;
mod rocm;
mod room;
mod schedule;
mod tensor;
mod usable;
mod vulkan;
mod vulkan_order;

pub(super) use self::usable::is_usable;

use self::allocate::Room;
use self::backend::Backends;
use self::model::{Builder, Plan, Uses};
use self::reduce::Selection;
use self::tensor::{FusedOp, Graph};
use super::cache::Spread;
use super::draft::Draft;
use super::flash::wished;
use super::hyper::Hyper;
use super::place::{Device, Places};
use super::sizes::Sizes;
use super::structure::Structure;
use super::tensor::Cpu;
use super::{Backend, Basis, Build, FlashAttention, Settings};
use crate::units::Bytes;

/// Copies of the inputs that several fully loaded GPUs keep to work in turns
/// (`GGML_SCHED_MAX_COPIES`).
const PIPELINE_COPIES: u32 = 4;

/// By which part the buffers of an architecture that no family describes are made larger: no more is
/// known of it than what its tensors show.
const GUESSED: u64 = 4;

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
    /// The build of llama.cpp.
    pub(super) build: Build,
}

/// What the graph of a load needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Computed {
    /// The compute buffers.
    pub(super) buffers: Spread,
    /// Whether flash attention ends up on.
    pub(super) flash_attention: bool,
    /// How the buffers are known: by a formula where tensors of another model are read, by a guess
    /// where no family describes the architecture.
    pub(super) basis: Basis,
}

/// Returns what the graph of a load needs, with that of the context that drafts where there is one.
pub(super) fn compute(load: &Load, draft: Option<&Draft>) -> Computed {
    let known = families::of(&load.structure.architecture);
    let family = known.unwrap_or(families::UNKNOWN);
    let (mut buffers, uses, borrows) = reserve(load, family, Selection::new(load), None);
    if known.is_none() {
        buffers.grow_by(GUESSED);
    }
    if let Some(draft) = draft {
        // Once drafts start from the hidden states of all tokens, those are put out.
        let (shown, ..) = reserve(load, family, Selection::new(load), Some(uses));
        buffers.grow(&shown);
        buffers.add_all(&drafted(load, draft));
    }
    let basis = match known {
        None => Basis::Guess,
        Some(_) if borrows || draft.is_some() || !is_held_against(load) => Basis::Formula,
        Some(_) => Basis::Exact,
    };
    Computed { buffers, flash_attention: uses.flash_attention, basis }
}

/// Returns what the context that drafts needs: the most of its MTP blocks, of which it runs one at a
/// time.
fn drafted(load: &Load, draft: &Draft) -> Spread {
    let Load { structure, places, .. } = *load;
    let mut most = Spread::new(places.gpus());
    let Some(family) = families::drafting(&structure.architecture) else { return most };
    let load = Load { settings: &draft.settings, sizes: &draft.sizes, ..*load };
    let mut known = Vec::new();
    for (block, kind) in (0u32..).zip(structure.block_kinds()).filter(|(_, kind)| kind.mtp) {
        let what = (kind, places.layer(block), block < load.settings.cpu_moe);
        if !known.contains(&what) {
            known.push(what);
            most.grow(&reserve(&load, family, Selection::whole(vec![block]), None).0);
        }
    }
    most
}

/// Returns the buffers of a family's worst graph, which of the operations that are tried are in use, and
/// whether the graph reads what is only guessed. Where the operations are known already, it is the graph
/// that puts out the hidden states.
fn reserve(
    load: &Load,
    family: families::Family,
    mut selection: Selection,
    known: Option<Uses>,
) -> (Spread, Uses, bool) {
    let backends = Backends::new(load.backend, load.places.gpus()).repacking(load.repacks).of_build(load.build);
    let shows_states = known.is_some();
    let on_one_device = is_on_one_device(load);
    let mut uses = known.unwrap_or_else(|| wishes(load));
    if known.is_none() && !on_one_device {
        let blocks = selection.neighbourhoods();
        Worst { load, family, backends, blocks: &blocks, shows_states }.try_operations(&mut uses);
    }
    loop {
        let blocks = selection.blocks();
        let worst = Worst { load, family, backends, blocks: &blocks, shows_states };
        let mut graph = worst.build(load.sizes.tokens, load.sizes.rows, uses);
        if known.is_none() && on_one_device && worst.drop_operations(&graph, &mut uses) {
            graph = worst.build(load.sizes.tokens, load.sizes.rows, uses);
        }
        let (room, borrows) = worst.allocate(graph);
        if selection.suffices(&room.begun) {
            let mut bytes = room.bytes.into_iter().map(Bytes);
            let gpus = bytes.by_ref().take(load.places.gpus()).collect();
            let host = bytes.next().unwrap_or_default();
            return (Spread { gpus, host }, uses, borrows);
        }
    }
}

/// The worst graph of a load, over the blocks that stand for all.
struct Worst<'a> {
    load: &'a Load<'a>,
    family: families::Family,
    backends: Backends,
    blocks: &'a [u32],
    shows_states: bool,
}

impl Worst<'_> {
    /// Builds the graph for a micro-batch.
    fn build(&self, tokens: u64, outputs: u64, uses: Uses) -> Graph {
        let Load { structure, settings, places, sizes, .. } = *self.load;
        let slots = sizes.slots;
        let mut builder = Builder::new(Plan {
            structure,
            settings,
            places,
            sizes,
            backends: self.backends,
            build: self.load.build,
            blocks: self.blocks,
            // `graph_reserve` makes the tokens a multiple of the sequences.
            tokens: tokens.next_multiple_of(slots.max(1)),
            slots,
            outputs,
            uses,
            shows_states: self.shows_states,
        });
        (self.family)(&mut builder);
        builder.pool();
        builder.graph
    }

    /// Switches off the operations that do not run where their blocks are; llama.cpp tries with one
    /// token a sequence.
    fn try_operations(&self, uses: &mut Uses) {
        let slots = self.load.sizes.slots;
        for what in tried(self.load) {
            let trial = self.build(slots, slots, *uses);
            *uses.switch(what) &= runs_at_home(&trial, self.backends, what);
        }
    }

    /// Switches off the operations that the only device of a load cannot compute, and returns whether
    /// there were any. The number of tokens and what is around an operation do not matter then.
    fn drop_operations(&self, graph: &Graph, uses: &mut Uses) -> bool {
        let before = *uses;
        for what in tried(self.load) {
            let mut fused = graph.fused.iter().filter(|fused| fused.what == what);
            *uses.switch(what) &= fused.all(|fused| self.backends.supports(fused.block, graph, fused.tensor));
        }
        *uses != before
    }

    /// Finds room for the graph, and returns whether it reads what is only guessed.
    fn allocate(&self, mut graph: Graph) -> (Room, bool) {
        // llama.cpp's own measure of a load forgets where nodes were pinned, which takes up to a few
        // dozen MiB more between two GPUs than a load then does (`ggml_backend_sched_reserve_size`).
        graph.pinned.clear();
        let copies = if is_pipelined(self.load) { PIPELINE_COPIES } else { 1 };
        let scheduled = schedule::schedule(&mut graph, self.backends, copies);
        (allocate::allocate(&graph, &scheduled, self.backends), graph.borrows)
    }
}

/// Returns the operations that a load begins with.
fn wishes(load: &Load) -> Uses {
    Uses {
        flash_attention: wished(load.structure, load.settings) != FlashAttention::Off,
        lightning_indexer: true,
        hyper_connections_pre: true,
        hyper_connections_comb: true,
        hyper_connections_post: true,
    }
}

/// Returns whether buffers of the build were held against real ones: without a GPU those of many
/// builds, with one those of the newest.
fn is_held_against(load: &Load) -> bool {
    let oldest = if load.places.gpus() == 0 { Build::OLDEST } else { Build::CURRENT };
    load.build >= oldest
}

/// Returns the operations that are tried first, in order: one that is switched off may change where
/// the next one lands. The gated delta net and the lightning indexer are taken for granted (`auto_fgdn`
/// and `auto_flid` are off).
fn tried(load: &Load) -> impl Iterator<Item = FusedOp> {
    let automatic = wished(load.structure, load.settings) == FlashAttention::Auto;
    let mixes = load.structure.hyper.number(Hyper::HyperConnections) != 0;
    let all = [
        (FusedOp::FlashAttention, automatic),
        (FusedOp::HyperConnectionsPre, mixes),
        (FusedOp::HyperConnectionsComb, mixes),
        (FusedOp::HyperConnectionsPost, mixes),
    ];
    all.into_iter().filter(|&(_, is_tried)| is_tried).map(|(what, _)| what)
}

/// Returns whether each of the operations runs where its block is; else it is switched off for the
/// whole model (`resolve_fused_ops` in `llama-context.cpp`).
fn runs_at_home(graph: &Graph, backends: Backends, what: FusedOp) -> bool {
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
