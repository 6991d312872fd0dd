//! Decoders that mix blocks with a window and blocks that see everything, and norm behind attention
//! and network rather than in front.

use crate::memory::graph::attention::{Extras, Qkv};
use crate::memory::graph::feed_forward::{Activation, DENSE, Experts, GateType, Norm, SHARED};
use crate::memory::graph::model::Builder;
use crate::memory::graph::tensor::Id;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

use super::Family;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "cohere2" => cohere2,
        "exaone4" => exaone4,
        "olmo2" => olmo2,
        "plamo3" => plamo3,
        "granite_swa" => granite_swa,
        _ => return None,
    })
}

/// Command R7B: attention and network beside each other after one layer norm; only windowed blocks
/// turn queries and keys.
fn cohere2(g: &mut Builder) {
    let mut x = g.embeddings();
    let positions = g.positions();
    let input = g.attention_input();
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Layer, x, Role::AttnNorm);
        let mut qkv = g.qkv(normed);
        if g.kind().windowed {
            let factors = g.rope_factors();
            qkv = turn(g, qkv, positions, factors);
        }
        let attended = g.attend(&input, qkv, Extras::default());
        let [attended, residual, normed] = g.keep_outputs(ids, [attended, x, normed]);
        let fed = g.swiglu(normed);
        let fed = g.add(fed, residual);
        x = g.add(fed, attended);
    }
    let normed = g.output_norm(Norm::Layer, x);
    let mut logits = g.logits(normed);
    if g.float(Hyper::LogitScale) != 0.0 {
        logits = g.scale(logits);
    }
    g.finish(logits);
}

/// EXAONE 4: norms of queries and keys head by head; where there are windows, blocks without one do
/// not turn.
fn exaone4(g: &mut Builder) {
    post_normed(g, |g, x, positions| {
        let Qkv { q, k, v } = g.qkv(x);
        let q = g.norm(Norm::Rms, q, Role::AttnQNorm);
        let k = g.norm(Norm::Rms, k, Role::AttnKNorm);
        let qkv = Qkv { q, k, v };
        if g.plan.structure.memory.windowed && !g.kind().windowed {
            return qkv;
        }
        let factors = g.rope_factors();
        turn(g, qkv, positions, factors)
    });
}

/// `OLMo` 2 and 3: norms of queries and keys over all heads together.
fn olmo2(g: &mut Builder) {
    post_normed(g, |g, x, positions| {
        let Qkv { q, k, v } = g.qkv_flat(x);
        let q = g.norm(Norm::Rms, q, Role::AttnQNorm);
        let k = g.norm(Norm::Rms, k, Role::AttnKNorm);
        let qkv = g.shape_heads(Qkv { q, k, v });
        turn(g, qkv, positions, Id::NONE)
    });
}

/// A decoder whose norms stand behind attention and network, before what they give is added.
fn post_normed(g: &mut Builder, project: fn(&mut Builder, Id, Id) -> Qkv) {
    let mut x = g.embeddings();
    let positions = g.positions();
    let input = g.attention_input();
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let qkv = project(g, x, positions);
        let attended = g.attend(&input, qkv, Extras::default());
        let [attended, residual] = g.keep_outputs(ids, [attended, x]);
        let attended = g.norm(Norm::Rms, attended, Role::PostAttentionNorm);
        let attended = g.add(attended, residual);
        let fed = g.swiglu(attended);
        let fed = g.loose_norm_if(Norm::Rms, fed, Role::PostFfwNorm);
        x = g.add(fed, attended);
    }
    finish(g, x);
}

/// `PLaMo` 3: norms in front and behind, gate and up in one matrix.
fn plamo3(g: &mut Builder) {
    let mut x = g.embeddings();
    let positions = g.positions();
    let input = g.attention_input();
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let Qkv { q, k, v } = g.qkv(normed);
        let q = g.norm(Norm::Rms, q, Role::AttnQNorm);
        let k = g.norm(Norm::Rms, k, Role::AttnKNorm);
        let qkv = turn(g, Qkv { q, k, v }, positions, Id::NONE);
        let attended = g.attend(&input, qkv, Extras::default());
        let [attended, residual] = g.keep_outputs(ids, [attended, x]);
        let attended = g.norm(Norm::Rms, attended, Role::PostAttentionNorm);
        let attended = g.add(attended, residual);
        let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
        let fed = g.feed_forward(normed, DENSE, Activation::Swiglu, GateType::Sequential);
        let fed = g.norm(Norm::Rms, fed, Role::PostFfwNorm);
        x = g.add(fed, attended);
    }
    finish(g, x);
}

/// Granite with windows: sinks, results that are multiplied before they are added, and further parts
/// of the input embeddings added before some blocks.
fn granite_swa(g: &mut Builder) {
    let mut x = g.embeddings();
    let positions = g.positions();
    let input = g.attention_input();
    let ids = g.output_ids();
    let scales = g.float(Hyper::ResidualScale) != 0.0;
    for &block in g.blocks() {
        g.enter(Some(block));
        if g.kind().deepstack {
            let more = g.deepstack();
            x = g.add(x, more);
        }
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let mut qkv = g.qkv(normed);
        if !g.kind().nope {
            let factors = g.rope_factors();
            qkv = turn(g, qkv, positions, factors);
        }
        let sinks = g.sinks();
        let attended = g.attend(&input, qkv, Extras { sinks, ..Extras::default() });
        let [attended, residual] = g.keep_outputs(ids, [attended, x]);
        let attended = if scales { g.scale(attended) } else { attended };
        let attended = g.add(attended, residual);
        let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
        let fed = granite_network(g, normed);
        let fed = if scales { g.scale(fed) } else { fed };
        x = g.add(fed, attended);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    let logits = g.scale(logits);
    g.finish(logits);
}

/// A dense network, or experts with those that every token uses beside them, gate and up of which
/// are one matrix.
fn granite_network(g: &mut Builder, x: Id) -> Id {
    if !g.has(Role::FfnGateInp) {
        return g.swiglu(x);
    }
    let scale = g.float(Hyper::ExpertWeightsScale);
    let scales = scale != 0.0 && (scale - 1.0).abs() > f32::EPSILON;
    let chosen = g.experts(x, Experts { scales, ..Experts::default() });
    if g.number(Hyper::ExpertSharedFeedForwardLength) == 0 {
        return chosen;
    }
    let shared = g.feed_forward(x, SHARED, Activation::Swiglu, GateType::Sequential);
    g.add(chosen, shared)
}

/// Turns queries and keys by their positions.
fn turn(g: &mut Builder, Qkv { q, k, v }: Qkv, positions: Id, factors: Id) -> Qkv {
    let q = g.rope(q, positions, factors);
    let k = g.rope(k, positions, factors);
    Qkv { q, k, v }
}

/// The last norm and the logits.
fn finish(g: &mut Builder, x: Id) {
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    g.finish(logits);
}
