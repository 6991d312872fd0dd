//! Gemma 1 to 3 and its embedding model: embeddings scaled, queries scaled, networks gated by a
//! gelu, and from Gemma 2 on a norm behind attention and network too.

use crate::memory::graph::attention::{AttentionInput, Extras, Qkv};
use crate::memory::graph::feed_forward::{Activation, DENSE, GateType, Norm};
use crate::memory::graph::model::Builder;
use crate::memory::graph::tensor::Id;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

use super::Family;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "gemma" => gemma,
        "gemma2" => gemma2,
        "gemma3" => gemma3,
        "gemma-embedding" => gemma_embedding,
        _ => return None,
    })
}

/// Gemma 1: scales what it is given, whether tokens or embeddings.
fn gemma(g: &mut Builder) {
    let x = g.embeddings();
    let x = g.scale(x);
    let input = g.attention_input();
    let normed = blocks(g, x, &input, turn);
    let logits = g.logits(normed);
    g.finish(logits);
}

/// Gemma 2: squeezes the logits always.
fn gemma2(g: &mut Builder) {
    let x = g.embeddings();
    let x = g.scale(x);
    let input = g.attention_input();
    let normed = blocks(g, x, &input, turn);
    let logits = g.logits(normed);
    let logits = g.soft_cap(logits);
    g.finish(logits);
}

/// Gemma 3: scales tokens only; norms queries and keys head by head.
fn gemma3(g: &mut Builder) {
    let x = g.token_embeddings_scaled();
    let input = g.attention_input();
    let normed = blocks(g, x, &input, normed_turn);
    let mut logits = g.logits(normed);
    if g.float(Hyper::FinalLogitSoftcapping) != 0.0 {
        logits = g.soft_cap(logits);
    }
    g.finish(logits);
}

/// `EmbeddingGemma`: Gemma 3 that looks both ways, without a cache and without logits.
fn gemma_embedding(g: &mut Builder) {
    let x = g.token_embeddings_scaled();
    let input = g.batch_input();
    let normed = blocks(g, x, &input, normed_turn);
    g.finish_embedding(normed);
}

/// The blocks and the last norm.
fn blocks(g: &mut Builder, mut x: Id, input: &AttentionInput, turn: fn(&mut Builder, Qkv, Id) -> Qkv) -> Id {
    let positions = g.positions();
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let qkv = g.qkv(normed);
        let Qkv { q, k, v } = turn(g, qkv, positions);
        let q = g.scale(q);
        let attended = g.attend(input, Qkv { q, k, v }, Extras::default());
        let [attended, residual] = g.keep_outputs(ids, [attended, x]);
        x = rest(g, attended, residual);
    }
    g.output_norm(Norm::Rms, x)
}

/// What follows attention in a block: residual, norm, network, residual, with norms behind
/// attention and network where the file has them.
pub(super) fn rest(g: &mut Builder, attended: Id, residual: Id) -> Id {
    let attended = g.norm_if(Norm::Rms, attended, Role::PostAttentionNorm);
    let attended = g.add(attended, residual);
    let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
    let fed = geglu(g, normed);
    let fed = g.loose_norm_if(Norm::Rms, fed, Role::PostFfwNorm);
    g.add(fed, attended)
}

/// A network gated by a gelu.
pub(super) fn geglu(g: &mut Builder, x: Id) -> Id {
    g.feed_forward(x, DENSE, Activation::Gelu, GateType::Parallel)
}

/// Turns queries and keys by their positions.
fn turn(g: &mut Builder, Qkv { q, k, v }: Qkv, positions: Id) -> Qkv {
    let q = g.rope(q, positions, Id::NONE);
    let k = g.rope(k, positions, Id::NONE);
    Qkv { q, k, v }
}

/// Norms queries and keys and turns them by their positions.
fn normed_turn(g: &mut Builder, Qkv { q, k, v }: Qkv, positions: Id) -> Qkv {
    let q = g.norm(Norm::Rms, q, Role::AttnQNorm);
    let q = g.rope(q, positions, Id::NONE);
    let k = g.norm(Norm::Rms, k, Role::AttnKNorm);
    let k = g.rope(k, positions, Id::NONE);
    Qkv { q, k, v }
}
