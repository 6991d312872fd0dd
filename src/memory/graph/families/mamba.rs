//! Mamba, and the models that mix its layers with attention.

use crate::memory::graph::attention::{AttentionInput, Extras, Qkv};
use crate::memory::graph::feed_forward::{Activation, DENSE, Experts, GateType, Gating, Matrices, Norm, SHARED};
use crate::memory::graph::model::Builder;
use crate::memory::graph::recurrent::StateInput;
use crate::memory::graph::tensor::Id;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

use super::Family;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "mamba" => mamba,
        "mamba2" => mamba2,
        "jamba" => jamba,
        "granitehybrid" => granite_hybrid,
        "falcon-h1" => falcon_h1,
        "nemotron_h" | "nemotron_h_moe" => nemotron_h,
        _ => return None,
    })
}

/// The first Mamba: nothing but its layers.
fn mamba(g: &mut Builder) {
    layers(g, Builder::mamba);
}

/// The second Mamba.
fn mamba2(g: &mut Builder) {
    layers(g, Builder::mamba2);
}

fn layers<'a>(g: &mut Builder<'a>, layer: fn(&mut Builder<'a>, &StateInput, Id) -> Id) {
    let mut x = g.embeddings();
    let state = g.state_input();
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let mixed = layer(g, &state, normed);
        let [mixed, residual] = g.keep_outputs(ids, [mixed, x]);
        x = g.add(mixed, residual);
    }
    end(g, x);
}

/// Jamba: the first Mamba or attention without rope, each before a network, dense or of experts.
fn jamba(g: &mut Builder) {
    let mut x = g.embeddings();
    let inputs = Inputs::new(g);
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let mixed = if g.kind().recurrent { g.mamba(&inputs.state, normed) } else { attention(g, &inputs, normed) };
        let [mixed, residual] = g.keep_outputs(ids, [mixed, x]);
        let mixed = g.add(residual, mixed);
        let normed = g.norm(Norm::Rms, mixed, Role::FfnNorm);
        let fed = if g.has(Role::FfnGateInp) {
            g.experts(normed, Experts { normalises: false, ..Experts::default() })
        } else {
            g.swiglu(normed)
        };
        x = g.add(mixed, fed);
    }
    end(g, x);
}

/// Granite 4: the second Mamba or attention, each before a network whose experts share one.
/// Residuals and logits are scaled, and rope is an option of the header.
fn granite_hybrid(g: &mut Builder) {
    let mut x = g.embeddings();
    let inputs = Inputs::new(g);
    let ids = g.output_ids();
    let positions = if g.number(Hyper::RopeUntuned) == 0 { g.positions() } else { Id::NONE };
    let scales = g.float(Hyper::ResidualScale) != 0.0;
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let mixed = if g.kind().recurrent {
            g.mamba2(&inputs.state, normed)
        } else if positions == Id::NONE {
            attention(g, &inputs, normed)
        } else {
            let factors = g.rope_factors();
            turned_attention(g, &inputs, normed, positions, factors)
        };
        let [mixed, residual] = g.keep_outputs(ids, [mixed, x]);
        let mixed = if scales { g.scale(mixed) } else { mixed };
        let mixed = g.add(mixed, residual);
        let normed = g.norm(Norm::Rms, mixed, Role::FfnNorm);
        let fed = if g.has(Role::FfnGateInp) {
            let chosen = g.experts(normed, Experts::default());
            if g.has(Role::FfnUpShexp) {
                let shared = g.feed_forward(normed, SHARED, Activation::Silu, GateType::Parallel);
                g.add(chosen, shared)
            } else {
                chosen
            }
        } else {
            g.swiglu(normed)
        };
        let fed = if scales { g.scale(fed) } else { fed };
        x = g.add(fed, mixed);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let mut logits = g.logits(normed);
    if g.float(Hyper::LogitScale) != 0.0 {
        logits = g.scale(logits);
    }
    g.finish(logits);
}

/// Falcon H1: attention and the second Mamba side by side in every block.
fn falcon_h1(g: &mut Builder) {
    let mut x = g.embeddings();
    let positions = g.positions();
    let inputs = Inputs::new(g);
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let attended = turned_attention(g, &inputs, normed, positions, Id::NONE);
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let mixed = g.mamba2(&inputs.state, normed);
        let both = g.add(attended, mixed);
        let both = g.add(both, x);
        let [both] = g.keep_outputs(ids, [both]);
        let weight = g.bare(Role::FfnNorm);
        let normed = g.norm_with(Norm::Rms, both, weight, Id::NONE);
        let fed = g.swiglu(normed);
        x = g.add(fed, both);
    }
    end(g, x);
}

/// Nemotron H: each block is the second Mamba, attention without rope, or a network alone.
fn nemotron_h(g: &mut Builder) {
    let mut x = g.embeddings();
    let inputs = Inputs::new(g);
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let kind = g.kind();
        let mixed = if kind.recurrent {
            g.mamba2(&inputs.state, normed)
        } else if kind.cached {
            attention(g, &inputs, normed)
        } else {
            nemotron_network(g, normed)
        };
        x = g.add(mixed, x);
    }
    // Drafts continue from the rows of all tokens, so rows are picked after the norm.
    let normed = g.output_norm(Norm::Rms, x);
    g.set_output(normed);
    let kept = g.get_rows(normed, ids);
    let logits = g.logits(kept);
    g.finish(logits);
}

/// A network of squared relus without a gate; experts may work at a smaller width.
pub(super) fn nemotron_network(g: &mut Builder, x: Id) -> Id {
    if !g.has(Role::FfnGateInp) {
        return g.feed_forward(x, DENSE, Activation::ReluSqr, GateType::Parallel);
    }
    let narrow = if g.has(Role::FfnLatentDown) { g.project(Role::FfnLatentDown, x) } else { x };
    let scores = g.project(Role::FfnGateInp, x);
    let scale = g.float(Hyper::ExpertWeightsScale);
    let how = Experts {
        activation: Activation::ReluSqr,
        gating: Gating::Sigmoid,
        normalises: g.number(Hyper::ExpertWeightsNorm) != 0,
        scales: scale != 0.0 && (scale - 1.0).abs() > f32::EPSILON,

        scores,
        ..Experts::default()
    };
    let mut chosen = g.experts(narrow, how);
    if g.has(Role::FfnLatentUp) {
        chosen = g.project(Role::FfnLatentUp, chosen);
    }
    let ungated = Matrices { gate: Role::Other, ..SHARED };
    let shared = g.feed_forward(x, ungated, Activation::ReluSqr, GateType::Parallel);
    g.add(chosen, shared)
}

/// The inputs of a model with caches and states (`build_inp_mem_hybrid`).
struct Inputs {
    state: StateInput,
    attention: AttentionInput,
}

impl Inputs {
    fn new(g: &mut Builder) -> Inputs {
        let (state, attention) = g.hybrid_input();
        Inputs { state, attention }
    }
}

/// Attention without rope.
fn attention(g: &mut Builder, inputs: &Inputs, x: Id) -> Id {
    let qkv = g.qkv(x);
    g.attend(&inputs.attention, qkv, Extras::default())
}

/// Attention with rope.
fn turned_attention(g: &mut Builder, inputs: &Inputs, x: Id, positions: Id, factors: Id) -> Id {
    let Qkv { q, k, v } = g.qkv(x);
    let q = g.rope(q, positions, factors);
    let k = g.rope(k, positions, factors);
    g.attend(&inputs.attention, Qkv { q, k, v }, Extras::default())
}

/// The last norm and the logits.
fn end(g: &mut Builder, x: Id) {
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    g.finish(logits);
}
