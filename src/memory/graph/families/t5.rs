//! T5: an encoder, and a decoder that looks at what the encoder gave. Distances between tokens are
//! a bias on the products of queries and keys, which rules flash attention out there.

use crate::memory::graph::attention::{AttentionInput, Extras, Qkv};
use crate::memory::graph::feed_forward::{Activation, DENSE, GateType, Matrices, Norm};
use crate::memory::graph::model::Builder;
use crate::memory::graph::tensor::{F16, F32, I32, Id};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

use super::Family;

/// The encoder's network.
const ENCODER: Matrices = Matrices { up: Role::EncFfnUp, gate: Role::EncFfnGate, down: Role::EncFfnDown };

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "t5" => decoder,
        "t5encoder" => encoder,
        _ => return None,
    })
}

/// The decoder, which is what llama.cpp reserves for a whole model. What the encoder will have given
/// counts as long as the context that the model was trained for.
fn decoder(g: &mut Builder) {
    let mut x = g.embeddings();
    let (tokens, width) = (g.tokens(), g.embedding());
    let seen = u64::from(g.plan.structure.context_train);
    let encoded = g.input(F32, [width, seen, 1, 1]);
    let cells = g.plan.sizes.cells;
    let distances = g.input(I32, [cells, tokens, 1, 1]);
    let own = g.attention_input();
    let kind = if g.flash() { F16 } else { F32 };
    let mask = g.input(kind, [seen, tokens, 1, 1]);
    let cross = AttentionInput::Batch { full: mask, windowed: Id::NONE };
    let ids = g.output_ids();
    let blocks = decoder_blocks(g);
    let mut first_bias = Id::NONE;
    for &block in blocks {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let qkv = g.qkv(normed);
        let bias = distance_bias(g, distances, Role::AttnRelB, &mut first_bias);
        let attended = g.attend(&own, qkv, Extras { output: Some(Role::AttnO), bias, ..Extras::default() });
        let attended = g.add(attended, x);
        let normed = g.norm(Norm::Rms, attended, Role::CrossAttnNorm);
        let qkv = cross_qkv(g, normed, encoded);
        let looked = g.attend(&cross, qkv, Extras { output: Some(Role::CrossAttnO), ..Extras::default() });
        let last = Some(&block) == blocks.last();
        let [looked, residual] = if last { [looked, attended].map(|x| g.get_rows(x, ids)) } else { [looked, attended] };
        let looked = g.add(looked, residual);
        let normed = g.norm(Norm::Rms, looked, Role::FfnNorm);
        let fed = network(g, normed, DENSE);
        x = g.add(fed, looked);
    }
    g.enter(None);
    let norm = g.output_weight(Role::DecOutputNorm, Suffix::Weight);
    let normed = g.norm_with(Norm::Rms, x, norm, Id::NONE);
    let logits = g.logits(normed);
    g.finish(logits);
}

/// The blocks that the decoder has: as many as the encoder unless the file says fewer.
fn decoder_blocks<'a>(g: &Builder<'a>) -> &'a [u32] {
    let blocks = g.blocks();
    match g.number(Hyper::DecoderBlockCount) {
        0 => blocks,
        count => &blocks[..blocks.partition_point(|&block| u64::from(block) < count)],
    }
}

/// Queries of the decoder, keys and values of what the encoder gave.
fn cross_qkv(g: &mut Builder, x: Id, encoded: Id) -> Qkv {
    let (heads, tokens) = (g.heads(), g.tokens());
    let seen = g.get(encoded).ne[1];
    let queries = g.project(Role::CrossAttnQ, x);
    let keys = g.project(Role::CrossAttnK, encoded);
    let values = g.project(Role::CrossAttnV, encoded);
    Qkv {
        q: g.reshape(queries, [heads.v, heads.q, tokens, 1]),
        k: g.reshape(keys, [heads.v, heads.kv, seen, 1]),
        v: g.reshape(values, [heads.v, heads.kv, seen, 1]),
    }
}

/// The encoder alone.
fn encoder(g: &mut Builder) {
    let mut x = g.embeddings();
    let tokens = g.tokens();
    let distances = g.input(I32, [tokens, tokens, 1, 1]);
    let input = g.batch_input();
    let ids = g.output_ids();
    let mut first_bias = Id::NONE;
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::EncAttnNorm);
        let flat = Qkv {
            q: g.project(Role::EncAttnQ, normed),
            k: g.project(Role::EncAttnK, normed),
            v: g.project(Role::EncAttnV, normed),
        };
        let qkv = g.shape_heads(flat);
        let bias = distance_bias(g, distances, Role::EncAttnRelB, &mut first_bias);
        let attended = g.attend(&input, qkv, Extras { output: Some(Role::EncAttnO), bias, ..Extras::default() });
        let [attended, residual] = g.keep_outputs(ids, [attended, x]);
        let attended = g.add(attended, residual);
        let normed = g.norm(Norm::Rms, attended, Role::EncFfnNorm);
        let fed = network(g, normed, ENCODER);
        x = g.add(fed, attended);
    }
    g.enter(None);
    let norm = g.output_weight(Role::EncOutputNorm, Suffix::Weight);
    let normed = g.norm_with(Norm::Rms, x, norm, Id::NONE);
    g.finish_embedding(normed);
}

/// Looks up the bias of each distance, by head (`build_pos_bias`). A block without a table of its
/// own, as all but the first are, takes the first's.
fn distance_bias(g: &mut Builder, distances: Id, role: Role, first: &mut Id) -> Id {
    let own = g.weight(role);
    if g.index() == 0 {
        *first = own;
    }
    let table = if own == Id::NONE { *first } else { own };
    let ne = g.get(distances).ne;
    let flat = g.reshape(distances, [ne[0].saturating_mul(ne[1]), 1, 1, 1]);
    let biases = g.get_rows(table, flat);
    let heads = g.get(biases).ne[0];
    let biases = g.reshape(biases, [heads, ne[0], ne[1], 1]);
    let by_head = g.permute(biases, [2, 0, 1, 3]);
    g.cont(by_head)
}

/// T5's network has no gate and relu, Flan's a gate and gelu.
fn network(g: &mut Builder, x: Id, with: Matrices) -> Id {
    if g.has(with.gate) {
        g.feed_forward(x, with, Activation::Gelu, GateType::Parallel)
    } else {
        g.feed_forward(x, with, Activation::Relu, GateType::Sequential)
    }
}
