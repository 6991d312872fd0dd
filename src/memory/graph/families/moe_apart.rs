//! Decoders with networks of experts that put the parts of a block together in ways of their own.

use super::super::attention::{AttentionInput, Extras, Qkv};
use super::super::feed_forward::{Activation, DENSE, Experts, GateType, Matrices, Norm};
use super::super::model::Builder;
use super::super::tensor::{Id, Op};
use super::Family;
use super::moe::by_header;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "arctic" => arctic,
        "cohere2moe" => cohere2moe,
        "grok" => grok,
        "grovemoe" => grovemoe,
        "phimoe" => phimoe,
        _ => return None,
    })
}

/// Grove's smaller experts.
const CHUNKS: Matrices = Matrices { up: Role::FfnUpChexps, gate: Role::FfnGateChexps, down: Role::FfnDownChexps };

/// What all blocks read beside the activations.
struct Inputs {
    positions: Id,
    caches: AttentionInput,
    ids: Id,
}

impl Inputs {
    fn new(g: &mut Builder) -> Inputs {
        Inputs { positions: g.positions(), caches: g.attention_input(), ids: g.output_ids() }
    }

    /// Turns queries and keys by their positions.
    fn turn(&self, g: &mut Builder, qkv: Qkv) -> Qkv {
        let factors = g.rope_factors();
        let q = g.rope(qkv.q, self.positions, factors);
        let k = g.rope(qkv.k, self.positions, factors);
        Qkv { q, k, v: qkv.v }
    }
}

/// Arctic: a dense network behind attention, and experts that look at what the block began with.
fn arctic(g: &mut Builder) {
    let mut x = g.embeddings();
    let inputs = Inputs::new(g);
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let qkv = g.qkv(normed);
        let qkv = inputs.turn(g, qkv);
        let attended = g.attend(&inputs.caches, qkv, Extras::default());
        let [attended, residual] = g.keep_outputs(inputs.ids, [attended, x]);
        let attended = g.add(attended, residual);
        let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
        let fed = g.swiglu(normed);
        let fed = g.add(fed, attended);
        let normed = g.norm(Norm::Rms, residual, Role::FfnNormExps);
        let routed = g.experts(normed, Experts::default());
        x = g.add(routed, fed);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    g.finish(logits);
}

/// Grok: norms behind attention and network; the second model has a dense network beside the
/// experts, each at the same weight.
fn grok(g: &mut Builder) {
    let mut x = g.embeddings();
    // Grok 1's files leave the factor to the default (`load_arch_hparams` in `grok.cpp`).
    if g.float(Hyper::EmbeddingScale) == 0.0 {
        x = g.scale(x);
    }
    let inputs = Inputs::new(g);
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let qkv = g.qkv(normed);
        let qkv = inputs.turn(g, qkv);
        let attended = g.attend(&inputs.caches, qkv, Extras::default());
        let [attended, residual] = g.keep_outputs(inputs.ids, [attended, x]);
        let attended = g.norm(Norm::Rms, attended, Role::AttnOutputNorm);
        let attended = g.add(attended, residual);
        let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
        let mut fed = g.experts(normed, Experts { activation: Activation::Gelu, ..Experts::default() });
        if g.has(Role::FfnUp) {
            let dense = g.feed_forward(normed, DENSE, Activation::Gelu, GateType::Parallel);
            fed = g.add(dense, fed);
            fed = g.scale(fed);
        }
        let last = if g.has(Role::LayerOutputNorm) { Role::LayerOutputNorm } else { Role::PostFfwNorm };
        let fed = g.norm(Norm::Rms, fed, last);
        x = g.add(fed, attended);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let mut logits = g.logits(normed);
    logits = g.scale(logits);
    if g.float(Hyper::FinalLogitSoftcapping) != 0.0 {
        logits = g.scale(logits);
        logits = g.unary(Op::Unary, logits);
        logits = g.scale(logits);
    }
    g.finish(logits);
}

/// Grove: the router's scores choose among the experts first, then among a few smaller ones, each
/// of which stands for a group and works on what the first gave.
fn grovemoe(g: &mut Builder) {
    let mut x = g.embeddings();
    let inputs = Inputs::new(g);
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let Qkv { q, k, v } = g.qkv(normed);
        let q = g.norm(Norm::Rms, q, Role::AttnQNorm);
        let k = g.norm(Norm::Rms, k, Role::AttnKNorm);
        let qkv = inputs.turn(g, Qkv { q, k, v });
        let attended = g.attend(&inputs.caches, qkv, Extras::default());
        let [attended, residual] = g.keep_outputs(inputs.ids, [attended, x]);
        let attended = g.add(attended, residual);
        let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
        let scores = g.project(Role::FfnGateInp, normed);
        let routed = g.experts(normed, Experts { scores, ..Experts::default() });
        let chunks = g.experts(routed, Experts { scores, matrices: CHUNKS, ..Experts::default() });
        let chunks = g.scale(chunks);
        let fed = g.add(routed, chunks);
        x = g.add(fed, attended);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    g.finish(logits);
}

/// Cohere 2 with experts: attention and network stand beside each other behind one norm; rope in
/// windowed and leading dense blocks alone.
fn cohere2moe(g: &mut Builder) {
    let norm = cohere_norm(g);
    let mut x = g.embeddings();
    let inputs = Inputs::new(g);
    for &block in g.blocks() {
        g.enter(Some(block));
        let turns = g.kind().windowed || u64::from(block) < g.number(Hyper::LeadingDenseBlocks);
        x = cohere_block(g, x, &inputs, turns);
    }
    let normed = g.output_norm(norm, x);
    g.set_output(normed);
    let normed = g.get_rows(normed, inputs.ids);
    let mut logits = g.logits(normed);
    if g.float(Hyper::LogitScale) != 0.0 {
        logits = g.scale(logits);
    }
    g.finish(logits);
}

/// Returns the kind of norm, which the header tells by whose epsilon it has.
pub(super) fn cohere_norm(g: &Builder) -> Norm {
    if g.float(Hyper::LayerNormRmsEpsilon) == 0.0 { Norm::Layer } else { Norm::Rms }
}

fn cohere_block(g: &mut Builder, x: Id, inputs: &Inputs, turns: bool) -> Id {
    let norm = cohere_norm(g);
    let normed = g.norm(norm, x, Role::AttnNorm);
    let mut qkv = g.qkv(normed);
    if turns {
        qkv = inputs.turn(g, qkv);
    }
    let attended = g.attend(&inputs.caches, qkv, Extras::default());
    let mut fed = if g.has(Role::FfnGateInp) {
        let how = by_header(g);
        g.routed_and_shared(normed, how)
    } else {
        g.swiglu(normed)
    };
    if g.has(Role::FfnUpShexp) {
        fed = g.scale(fed);
    }
    let fed = g.add(fed, x);
    g.add(fed, attended)
}

/// The block that drafts, always with rope.
pub(super) fn cohere_draft(g: &mut Builder, x: Id) -> Id {
    let inputs = Inputs::new(g);
    cohere_block(g, x, &inputs, true)
}

/// Phi 3.5 `MoE`: queries are scaled by themselves, and there is a bias to everything.
fn phimoe(g: &mut Builder) {
    let mut x = g.embeddings();
    let inputs = Inputs::new(g);
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let qkv = g.qkv(normed);
        let Qkv { q, k, v } = inputs.turn(g, qkv);
        let q = g.scale(q);
        let attended = g.attend(&inputs.caches, Qkv { q, k, v }, Extras::default());
        let [attended, residual] = g.keep_outputs(inputs.ids, [attended, x]);
        let attended = g.add(attended, residual);
        let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
        let fed = g.experts(normed, Experts::default());
        x = g.add(attended, fed);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    let bias = g.output_weight(Role::Output, Suffix::Bias);
    let logits = g.add_if(logits, bias);
    g.finish(logits);
}
