//! Llama and the models that differ from it in a detail or two: RMS norms, rope, gated network.

use crate::memory::graph::attention::{Extras, Qkv};
use crate::memory::graph::feed_forward::{Experts, Norm};
use crate::memory::graph::model::Builder;
use crate::memory::graph::tensor::Id;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

use super::Family;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "llama" => llama,
        "qwen2" => qwen2,
        "qwen3" | "qwen3moe" => qwen3,
        _ => return None,
    })
}

/// Llama, Mistral, Mixtral and what is converted as them.
fn llama(g: &mut Builder) {
    decoder(g, |g, qkv, positions| {
        let factors = g.rope_factors();
        rope(g, qkv, positions, factors)
    });
}

/// Qwen 2: biases, which every projection takes where there are some.
fn qwen2(g: &mut Builder) {
    decoder(g, |g, qkv, positions| rope(g, qkv, positions, Id::NONE));
}

/// Qwen 3: norms of queries and keys, head by head.
fn qwen3(g: &mut Builder) {
    decoder(g, |g, qkv, positions| {
        let q = g.norm(Norm::Rms, qkv.q, Role::AttnQNorm);
        let q = g.rope(q, positions, Id::NONE);
        let k = g.norm(Norm::Rms, qkv.k, Role::AttnKNorm);
        let k = g.rope(k, positions, Id::NONE);
        Qkv { q, k, v: qkv.v }
    });
}

/// Turns queries and keys by their positions.
fn rope(g: &mut Builder, qkv: Qkv, positions: Id, factors: Id) -> Qkv {
    let q = g.rope(qkv.q, positions, factors);
    let k = g.rope(qkv.k, positions, factors);
    Qkv { q, k, v: qkv.v }
}

/// The common shape: norm, attention, residual, norm, network, residual.
fn decoder(g: &mut Builder, mut turn: impl FnMut(&mut Builder, Qkv, Id) -> Qkv) {
    let mut x = g.embeddings();
    let positions = g.positions();
    let input = g.attention_input();
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let qkv = g.qkv(normed);
        let qkv = turn(g, qkv, positions);
        let attended = g.attend(&input, qkv, Extras::default());
        let [attended, residual] = g.keep_outputs(ids, [attended, x]);
        let attended = g.add(attended, residual);
        let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
        let fed = if g.has(Role::FfnGateInp) {
            let scale = g.float(Hyper::ExpertWeightsScale);
            g.experts(normed, Experts { scales: scale != 0.0 && scale != 1.0, ..Experts::default() })
        } else {
            g.swiglu(normed)
        };
        x = g.add(fed, attended);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    g.finish(logits);
}
