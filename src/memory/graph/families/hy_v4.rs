//! Hunyuan V4: latent attention, in full or over the cells that an indexer picks, between
//! hyper-connections that never mix the residual streams with each other (iHC).

use super::super::attention::{AttentionInput, Extras};
use super::super::feed_forward::Norm;
use super::super::hyper_connections::{ATTENTION, Mixing, NETWORK};
use super::super::indexer::SparseInput;
use super::super::model::Builder;
use super::super::tensor::{F32, Id, Op, Tensor, row_bytes};
use super::Family;
use super::moe::by_header;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    (architecture == "hy_v4").then_some(build as Family)
}

/// What attention reads of the caches.
enum Caches {
    Full(AttentionInput),
    Sparse(SparseInput),
}

fn build(g: &mut Builder) {
    let embeddings = g.embeddings();
    let positions = g.positions();
    let caches = if g.number(Hyper::IndexerTopK) == 0 {
        Caches::Full(g.keys_input())
    } else {
        // The indexer's queries and keys are not rotated here.
        Caches::Sparse(SparseInput { rotation: Id::NONE, ..g.sparse_input() })
    };
    let ids = g.output_ids();
    let mut x = g.spread_over_streams(embeddings);
    let mut best = Id::NONE;
    for &block in g.blocks() {
        g.enter(Some(block));
        let (mixed, post) = mix(g, x, ATTENTION);
        let normed = g.norm(Norm::Rms, mixed, Role::AttnNorm);
        let attended = attend(g, normed, positions, &caches, &mut best);
        x = join(g, attended, x, post);
        let (mixed, post) = mix(g, x, NETWORK);
        let normed = g.norm(Norm::Rms, mixed, Role::FfnNorm);
        let fed = if g.has(Role::FfnGateInp) {
            let how = by_header(g);
            g.routed_and_shared(normed, how)
        } else {
            g.swiglu(normed)
        };
        x = join(g, fed, x, post);
    }
    let [width, streams, tokens, _] = g.get(x).ne;
    let flat = g.reshape(x, [width.saturating_mul(streams), tokens, 1, 1]);
    let rows = g.get_rows(flat, ids);
    let outputs = g.get(rows).ne[1];
    let x = g.reshape(rows, [width, streams, outputs, 1]);
    let x = mix_output(g, x);
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    g.finish(logits);
}

/// Latent attention with a gate for each element of its result.
fn attend(g: &mut Builder, x: Id, positions: Id, caches: &Caches, best: &mut Id) -> Id {
    let narrow = g.narrow_queries(x);
    if let Caches::Sparse(input) = caches
        && (g.kind().indexed || *best == Id::NONE)
    {
        *best = g.best_cells(x, narrow, positions, input);
    }
    let weight = g.weight(Role::AttnQB);
    let q = g.mul_mat(weight, narrow);
    let (row, turned) = g.latent_row(x, positions, Id::NONE);
    let qkv = g.absorbed(q, row, turned, positions);
    let extras = Extras { sinks: g.sinks(), v_mla: g.weight(Role::AttnVB), ..Extras::no_output() };
    let attended = match caches {
        Caches::Full(input) => g.attend(input, qkv, extras),
        Caches::Sparse(input) => g.attend_best(&input.rows, qkv, extras, *best),
    };
    let gated = g.gate_attention(attended, x, Op::Sigmoid);
    let weight = g.weight(Role::AttnOutput);
    g.mul_mat(weight, gated)
}

/// Mixes the streams to one activation; returns it, and what each stream takes of the result.
fn mix(g: &mut Builder, x: Id, with: Mixing) -> (Id, Id) {
    let Tensor { ne: [_, streams, tokens, _], .. } = *g.get(x);
    let mixes = g.mixes(x, with.function, false);
    let (scale, base) = (g.weight(with.scale), g.weight(with.base));
    let mut part = |index: u64| {
        let at = streams.saturating_mul(index);
        let Tensor { kind, nb, .. } = *g.get(mixes);
        let part = g.view_2d(mixes, [streams, tokens], nb[1], row_bytes(kind, at));
        let kind = g.get(scale).kind;
        let scale = g.view_1d(scale, 1, row_bytes(kind, index));
        let kind = g.get(base).kind;
        let base = g.view_1d(base, streams, row_bytes(kind, at));
        let part = g.mul(part, scale);
        let part = g.add(part, base);
        let part = g.unary(Op::Sigmoid, part);
        g.scale(part)
    };
    let (pre, post) = (part(0), part(1));
    let post = g.scale(post);
    (reduce(g, x, pre), post)
}

/// Mixes the streams to what the output layer reads.
fn mix_output(g: &mut Builder, x: Id) -> Id {
    g.enter(None);
    let mixes = g.mixes(x, Role::OutputHcFn, true);
    let scale = g.output_weight(Role::OutputHcScale, Suffix::Weight);
    let base = g.output_weight(Role::OutputHcBase, Suffix::Weight);
    let weights = g.mul(mixes, scale);
    let weights = g.add(weights, base);
    let weights = g.unary(Op::Sigmoid, weights);
    let weights = g.scale(weights);
    reduce(g, x, weights)
}

/// Adds the streams up, each with its weight, between casts to f32.
fn reduce(g: &mut Builder, x: Id, weights: Id) -> Id {
    let kind = g.get(x).kind;
    let x = g.cast(x, F32);
    let Tensor { ne, nb, .. } = *g.get(x);
    let strides = g.get(weights).nb;
    let mut sum = Id::NONE;
    for stream in 0..ne[1] {
        let part = g.view_2d(x, [ne[0], ne[2]], nb[2], stream.saturating_mul(nb[1]));
        let weight = g.view_2d(weights, [1, ne[2]], strides[1], stream.saturating_mul(strides[0]));
        let part = g.mul(part, weight);
        sum = if sum == Id::NONE { part } else { g.add(sum, part) };
    }
    g.cast(sum, kind)
}

/// Adds the result of a part of a block to each stream, with the stream's own weight.
fn join(g: &mut Builder, x: Id, residual: Id, post: Id) -> Id {
    let kind = g.get(residual).kind;
    let [x, post, residual] = [x, post, residual].map(|id| g.cast(id, F32));
    let Tensor { ne: [width, streams, tokens, _], nb, .. } = *g.get(residual);
    let strides = g.get(post).nb;
    let mut joined = Id::NONE;
    for stream in 0..streams {
        let own = g.view_2d(residual, [width, tokens], nb[2], stream.saturating_mul(nb[1]));
        let weight = g.view_2d(post, [1, tokens], strides[1], stream.saturating_mul(strides[0]));
        let part = g.mul(x, weight);
        let sum = g.add(own, part);
        let sum = g.reshape(sum, [width, 1, tokens, 1]);
        joined = if joined == Id::NONE { sum } else { g.concat(joined, sum, 1) };
    }
    g.cast(joined, kind)
}
