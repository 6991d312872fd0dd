//! The compute buffers, by formula.
//!
//! llama.cpp reserves one buffer a device for its worst graph: a full micro-batch at full context.
//! The inputs live through the whole graph, and beside them the largest phase: attention,
//! feed-forward or logits. The formulas are those of a survey of build 11434; they know neither the
//! gaps of ggml's allocator nor every copy between devices, so the basis of the line is
//! [`super::Basis::Formula`].

use super::Settings;
use super::cache::Spread;
use super::phases::{Inputs, Phases};
use super::place::{Device, Places};
use super::sizes::Sizes;
use super::structure::{BlockKind, Structure};
use super::tensor::{Role, Suffix};
use crate::units::Bytes;

/// From this many tokens on, ops on host weights run on the GPU (`op_offload`).
const OFFLOAD_TOKENS: u64 = 32;

/// Copies of the inputs that several fully loaded GPUs keep to work in turns
/// (`GGML_SCHED_MAX_COPIES`).
const PIPELINE_COPIES: u64 = 4;

/// What the formulas look at.
pub(super) struct Load<'a> {
    pub(super) structure: &'a Structure,
    pub(super) settings: &'a Settings,
    pub(super) places: &'a Places,
    pub(super) sizes: &'a Sizes,
    /// Whether flash attention ends up on.
    pub(super) flash: bool,
    /// Whether some attention stays in host memory beside a GPU ([`super::flash::is_stranded`]).
    pub(super) stranded: bool,
}

/// Adds up the compute buffers.
pub(super) fn compute(load: &Load) -> Spread {
    let inputs = Inputs::new(load);
    let phases = Phases::new(load);
    let residences = residences(load);
    let mut spread = Spread::new(load.places.gpus());
    if load.places.gpus() == 0 {
        let embedding = inputs.embedding;
        spread.host = inputs.host.saturating_add(embedding).saturating_add(phases.largest_on_host());
        return spread;
    }
    spread.host = inputs.host;
    let moved = residences.iter().any(|kind| kind.experts_on_host && phases.has_experts(kind.kind));
    let whole = load.places.on_gpus() >= load.structure.layers() && !moved;
    if whole && load.places.gpus() > 1 && load.settings.offload_kv {
        pipelined(load, &inputs, &phases, &mut spread);
        return spread;
    }
    for gpu in 0..load.places.gpus() {
        spread.gpus[gpu] = one_gpu(load, &inputs, &phases, &residences, gpu);
    }
    spread.host = spread.host.saturating_add(host_phases(load, &inputs, &phases, &residences));
    spread
}

/// Everything on several GPUs: four copies of the inputs, the logits on the last one.
fn pipelined(load: &Load, inputs: &Inputs, phases: &Phases, spread: &mut Spread) {
    let masks = inputs.masks.saturating_mul(PIPELINE_COPIES);
    let extras = inputs.extras.saturating_mul(PIPELINE_COPIES);
    let last = load.places.gpus() - 1;
    for (gpu, bytes) in spread.gpus.iter_mut().enumerate() {
        let (phase, copies) = match gpu {
            gpu if gpu == last => (phases.on_gpu(), 9),
            0 => (phases.without_logits(), 16),
            // Between the ends only the hand-over is kept.
            _ => (phases.without_logits(), 12),
        };
        let activations = inputs.embedding.saturating_mul(copies).saturating_mul(phases.streams());
        *bytes = phase.saturating_add(activations).saturating_add(masks).saturating_add(extras);
    }
    spread.host = masks.saturating_add(inputs.embedding.saturating_mul(10)).saturating_add(extras);
}

/// One GPU of a load that may leave layers or experts in host memory.
fn one_gpu(load: &Load, inputs: &Inputs, phases: &Phases, residences: &[Residence], gpu: usize) -> Bytes {
    let offloads = load.sizes.tokens >= OFFLOAD_TOKENS && gpu == 0;
    let mut most = Bytes::ZERO;
    let mut reach = |bytes: Bytes| most = most.max(bytes);
    let blocks = load.structure.blocks as usize;
    if load.places.layers().take(blocks).any(|place| place == Device::Gpu(gpu)) {
        reach(inputs.gpu.saturating_add(phases.without_logits()));
    }
    match load.places.output() {
        Device::Gpu(output) if output == gpu => reach(inputs.gpu.saturating_add(phases.logits())),
        Device::Host if offloads && load.sizes.rows >= OFFLOAD_TOKENS => {
            let output = output_bytes(load.structure);
            reach(inputs.embedding.saturating_mul(4).saturating_add(phases.logits()).saturating_add(output));
        }
        Device::Gpu(_) | Device::Host => {}
    }
    if !offloads {
        return most;
    }
    let activations = inputs.embedding.saturating_mul(4).saturating_mul(phases.streams());
    for residence in residences {
        if residence.on_host {
            reach(activations.saturating_add(phases.copied_feed_forward(residence.kind)));
            reach(inputs.gpu.saturating_add(phases.copied_cache(residence.kind)));
        }
        if residence.experts_on_host {
            reach(phases.copied_experts(residence.kind, inputs));
        }
    }
    most
}

/// What runs in host memory although there is a GPU: batches too small to be worth moving,
/// recurrent blocks, and attention that the scheduler leaves with its cache.
fn host_phases(load: &Load, inputs: &Inputs, phases: &Phases, residences: &[Residence]) -> Bytes {
    if load.places.on_gpus() < load.structure.layers() && load.sizes.tokens < OFFLOAD_TOKENS {
        return phases.largest_on_host().saturating_add(inputs.embedding);
    }
    let mut most = Bytes::ZERO;
    for residence in residences {
        if residence.on_host {
            most = most.max(phases.state(residence.kind));
        }
        if load.stranded {
            most = most.max(phases.attention(residence.kind));
        }
    }
    most
}

/// Where the blocks of one kind are.
struct Residence<'a> {
    kind: &'a BlockKind,
    /// Some are in host memory.
    on_host: bool,
    /// The experts of some are in host memory.
    experts_on_host: bool,
}

/// Looks up where the blocks of each kind are, so that the formulas run once a kind.
fn residences<'a>(load: &Load<'a>) -> Vec<Residence<'a>> {
    let residence = |kind| Residence { kind, on_host: false, experts_on_host: false };
    let mut residences: Vec<Residence> = load.structure.kinds.iter().map(residence).collect();
    for ((block, place), &kind) in (0u32..).zip(load.places.layers()).zip(&load.structure.pattern) {
        if let Some(residence) = residences.get_mut(usize::from(kind)) {
            let loaded = !residence.kind.mtp || load.settings.mtp;
            residence.on_host |= loaded && place == Device::Host;
            residence.experts_on_host |= loaded && (place == Device::Host || block < load.settings.cpu_moe);
        }
    }
    residences
}

/// Returns the output matrix as it is copied to a GPU for one product.
fn output_bytes(structure: &Structure) -> Bytes {
    let find =
        |role: Role| structure.globals.iter().find(|tensor| tensor.role == role && tensor.suffix == Suffix::Weight);
    find(Role::Output).or_else(|| find(Role::TokenEmbd)).map_or(Bytes::ZERO, super::tensor::TensorShape::bytes)
}
