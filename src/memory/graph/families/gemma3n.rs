//! Gemma 3n and 4: each block is given an embedding of its own beside the stream, and the last
//! blocks attend over the caches of earlier ones.

use crate::memory::graph::attention::{AttentionInput, Extras, Qkv};
use crate::memory::graph::feed_forward::{Activation, Experts, Norm};
use crate::memory::graph::model::Builder;
use crate::memory::graph::tensor::{F32, I32, Id, Op, Tensor};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

use super::Family;
use super::gemma::{geglu, rest};

/// Streams of Gemma 3n's alternating updates (`n_altup`): the first is the active one.
const STREAMS: u64 = 4;

/// Width of Gemma 3n's embeddings by block (`n_embd_altup`).
const ALTUP_WIDTH: u64 = 256;

/// Blocks at the beginning of Gemma 3n whose networks let only the largest activations through
/// (`n_layer_sparsity`).
const SPARSE_BLOCKS: u32 = 10;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "gemma3n" => gemma3n,
        "gemma4" => gemma4,
        "gemma4-assistant" => assistant,
        _ => return None,
    })
}

/// Gemma 3n: four streams, of which attention and network see the active one; the others are
/// predicted from it and corrected by it. Rows are picked only after the last block.
fn gemma3n(g: &mut Builder) {
    let x = g.token_embeddings_scaled();
    let positions = g.positions();
    let input = g.attention_input();
    let extras = block_embeddings(g, x, ALTUP_WIDTH);
    let mut x = spread(g, x);
    for &block in g.blocks() {
        g.enter(Some(block));
        let predictions = predict(g, x);
        let active = slice(g, predictions, 0);
        let normed = g.norm(Norm::Rms, active, Role::AttnNorm);
        let laurel = laurel(g, normed);
        let attended = attend(g, &input, normed, positions, Id::NONE);
        let attended = g.norm(Norm::Rms, attended, Role::PostAttentionNorm);
        let attended = g.add(attended, active);
        let attended = g.add(attended, laurel);
        let attended = g.scale(attended);
        let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
        let fed = sparse_network(g, normed);
        let fed = g.loose_norm_if(Norm::Rms, fed, Role::PostFfwNorm);
        let fed = g.add(fed, attended);
        let corrected = correct(g, predictions, fed);
        x = join_block_embedding(g, corrected, extras);
    }
    g.enter(None);
    let merged = merge(g, x);
    let ids = g.output_ids();
    let kept = g.get_rows(merged, ids);
    let normed = g.output_norm(Norm::Rms, kept);
    let logits = g.logits(normed);
    let logits = g.soft_cap(logits);
    g.finish(logits);
}

/// Gemma 4: one stream. A block may have experts beside its network, and a number that its result
/// is multiplied with. Rows are picked after the last norm, as a drafter reads them all.
fn gemma4(g: &mut Builder) {
    let x = g.token_embeddings_scaled();
    let positions = g.positions();
    let input = g.attention_input();
    let ids = g.output_ids();
    let extras = if g.has_global(Role::PerLayerTokenEmbd) {
        let width = u64::from(g.plan.structure.dimensions.per_layer_embedding);
        block_embeddings(g, x, width)
    } else {
        Id::NONE
    };
    let mut x = x;
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let factors = factors(g);
        let attended = attend(g, &input, normed, positions, factors);
        let attended = g.norm(Norm::Rms, attended, Role::PostAttentionNorm);
        let attended = g.add(attended, x);
        let fed = network(g, attended);
        let fed = g.loose_norm_if(Norm::Rms, fed, Role::PostFfwNorm);
        x = g.add(fed, attended);
        if extras != Id::NONE {
            let gated = gate_block_embedding(g, x, extras);
            x = g.add(x, gated);
        }
        let scale = g.weight(Role::LayerOutputScale);
        if scale != Id::NONE {
            x = g.mul(x, scale);
        }
    }
    let normed = g.output_norm(Norm::Rms, x);
    g.set_output(normed);
    let kept = g.get_rows(normed, ids);
    let mut logits = g.logits(kept);
    if g.float(Hyper::FinalLogitSoftcapping) != 0.0 {
        logits = g.soft_cap(logits);
    }
    g.finish(logits);
}

/// Gemma 4's drafter: reads the target model's table of tokens, what the target made of them, and the
/// target's caches, which are taken to be where its output layer is.
fn assistant(g: &mut Builder) {
    let tokens = g.tokens();
    let width = u64::from(g.plan.structure.dimensions.embedding_out);
    let ids = g.input(I32, [tokens, 1, 1, 1]);
    let hidden = g.input(F32, [width, tokens, 1, 1]);
    let table = g.foreign_table(width);
    let rows = g.get_rows(table, ids);
    let rows = g.scale(rows);
    let both = g.concat(rows, hidden, 0);
    let matrix = g.first_weight(Role::NextnPreProjection, Suffix::Weight);
    let mut x = g.mul_mat(matrix, both);
    let input = g.attention_input();
    let positions = g.positions();
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let mut qkv = parts(g, normed, false);
        qkv.q = g.norm(Norm::Rms, qkv.q, Role::AttnQNorm);
        let factors = factors(g);
        qkv.q = g.rope(qkv.q, positions, factors);
        let attended = g.attend(&input, qkv, Extras::default());
        let [attended, residual] = g.keep_outputs(ids, [attended, x]);
        x = rest(g, attended, residual);
        let scale = g.weight(Role::LayerOutputScale);
        x = g.mul(x, scale);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let matrix = g.output_matrix();
    let logits = g.mul_mat(matrix, normed);
    let matrix = g.output_weight(Role::NextnPostProjection, Suffix::Weight);
    let hidden = g.mul_mat(matrix, normed);
    g.finish(logits);
    g.finish(hidden);
}

/// Returns the rope's factors, which only blocks that see everything have.
fn factors(g: &mut Builder) -> Id {
    if g.kind().windowed { Id::NONE } else { g.shared_weight(Role::RopeFreqs) }
}

/// The embeddings of all blocks, one slice each: what the tokens say and what the stream says
/// (`build_inp_per_layer`, `project_per_layer_inputs`).
fn block_embeddings(g: &mut Builder, x: Id, width: u64) -> Id {
    let (tokens, blocks) = (g.tokens(), u64::from(g.plan.structure.blocks));
    let shape = [width, blocks, tokens, 1];
    let ids = g.input(I32, [tokens, 1, 1, 1]);
    let table = g.input_weight(Role::PerLayerTokenEmbd);
    let rows = g.get_rows(table, ids);
    let rows = g.reshape(rows, shape);
    let of_tokens = g.scale(rows);
    g.expand(of_tokens);
    let matrix = g.first_weight(Role::PerLayerModelProj, Suffix::Weight);
    let of_stream = g.mul_mat(matrix, x);
    let of_stream = g.scale(of_stream);
    let of_stream = g.reshape(of_stream, shape);
    let norm = g.first_weight(Role::PerLayerProjNorm, Suffix::Weight);
    let of_stream = g.norm_with(Norm::Rms, of_stream, norm, Id::NONE);
    let both = g.add(of_stream, of_tokens);
    let both = g.scale(both);
    let turned = g.permute(both, [0, 2, 1, 3]);
    g.cont(turned)
}

/// Gates a stream by the embedding of the block under way, and norms the result.
fn gate_block_embedding(g: &mut Builder, x: Id, extras: Id) -> Id {
    let gate = g.project(Role::InpGate, x);
    let gate = g.unary(Op::Unary, gate);
    let own = slice(g, extras, g.index());
    let gated = g.mul(gate, own);
    let gated = g.project(Role::Proj, gated);
    g.norm(Norm::Rms, gated, Role::PostNorm)
}

/// Returns one matrix of a tensor.
fn slice(g: &mut Builder, x: Id, at: u32) -> Id {
    let Tensor { ne, nb, .. } = *g.get(x);
    let matrix = ne[0].saturating_mul(ne[1]).saturating_mul(nb[0]);
    let row = ne[0].saturating_mul(nb[0]);
    g.view_2d(x, [ne[0], ne[1]], row, u64::from(at).saturating_mul(matrix))
}

/// Returns all matrices of a tensor but the first.
fn all_but_first(g: &mut Builder, x: Id) -> Id {
    let Tensor { ne, nb, .. } = *g.get(x);
    let row = ne[0].saturating_mul(nb[0]);
    let matrix = row.saturating_mul(ne[1]);
    g.view_3d(x, [ne[0], ne[1], ne[2].saturating_sub(1)], [row, matrix], matrix)
}

/// Attention with norms of queries, keys and values. A block without a cache of its own projects
/// queries only, and reads the last cache of its kind (`layer_reuse_cb` in `create_memory`).
fn attend(g: &mut Builder, input: &AttentionInput, x: Id, positions: Id, factors: Id) -> Id {
    let cached = g.kind().cached;
    let mut qkv = if cached && g.architecture() == "gemma3n" { g.qkv(x) } else { parts(g, x, cached) };
    qkv.q = g.norm(Norm::Rms, qkv.q, Role::AttnQNorm);
    qkv.q = g.rope(qkv.q, positions, factors);
    if cached {
        qkv.k = g.norm(Norm::Rms, qkv.k, Role::AttnKNorm);
        qkv.k = g.rope(qkv.k, positions, factors);
        qkv.v = g.unary(Op::RmsNorm, qkv.v);
        return g.attend(input, qkv, Extras::default());
    }
    let own = g.plan.structure.block_kinds().filter(|kind| kind.cached).count();
    let back = if g.kind().windowed { 2 } else { 1 };
    let source = u32::try_from(own).unwrap_or(u32::MAX).saturating_sub(back);
    g.attend_over(input, qkv, Extras::default(), source)
}

/// Projects to queries, and to keys and values where there is a cache to write them to. Parts of a
/// fused product are copied; keys serve as values where the file has no projection of them.
fn parts(g: &mut Builder, x: Id, cached: bool) -> Qkv {
    let (heads, tokens) = (g.heads(), g.tokens());
    let counts = [heads.q, heads.kv, heads.kv];
    let wanted = if cached { 3 } else { 1 };
    let mut flat = [Id::NONE; 3];
    if g.has(Role::AttnQkv) {
        let fused = g.project(Role::AttnQkv, x);
        let Tensor { nb, .. } = *g.get(fused);
        let mut at = 0u64;
        for (flat, count) in flat.iter_mut().zip(counts).take(wanted) {
            let width = heads.k.saturating_mul(count);
            let view = g.view_2d(fused, [width, tokens], nb[1], at.saturating_mul(nb[0]));
            *flat = g.cont(view);
            at = at.saturating_add(width);
        }
    } else {
        for (flat, role) in flat.iter_mut().zip([Role::AttnQ, Role::AttnK, Role::AttnV]).take(wanted) {
            *flat = if g.has(role) { g.project(role, x) } else { Id::NONE };
        }
        if flat[2] == Id::NONE {
            flat[2] = flat[1];
        }
    }
    let mut shaped = |flat: Id, count: u64| {
        if flat == Id::NONE { flat } else { g.reshape(flat, [heads.k, count, tokens, 1]) }
    };
    let [queries, keys, values] = flat;
    Qkv { q: shaped(queries, heads.q), k: shaped(keys, heads.kv), v: shaped(values, heads.kv) }
}

/// Gemma 4's network, with experts beside it where the block has a router, which looks at what the
/// network's own norm has not seen.
fn network(g: &mut Builder, attended: Id) -> Id {
    let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
    let fed = geglu(g, normed);
    if !g.has(Role::FfnGateInp) {
        return fed;
    }
    let fed = g.norm(Norm::Rms, fed, Role::PostFfwNorm1);
    let normed = g.norm(Norm::Rms, attended, Role::PreFfwNorm2);
    let scores = g.unary(Op::RmsNorm, attended);
    let scores = g.scale(scores);
    let weights = g.tensor(Role::FfnGateInp, Suffix::Scale);
    let scores = if weights == Id::NONE { scores } else { g.mul(scores, weights) };
    let router = g.weight(Role::FfnGateInp);
    let scores = g.mul_mat(router, scores);
    let chosen = g.experts(normed, Experts { activation: Activation::Gelu, scores, ..Experts::default() });
    let chosen = g.norm(Norm::Rms, chosen, Role::PostFfwNorm2);
    g.add(fed, chosen)
}

/// Gemma 3n's network: in the first blocks only activations well above the mean pass
/// (`gaussian_topk`).
fn sparse_network(g: &mut Builder, x: Id) -> Id {
    let up = g.project(Role::FfnUp, x);
    let mut gate = g.project(Role::FfnGate, x);
    if g.index() < SPARSE_BLOCKS {
        let mean = g.sum_rows(Op::Mean, gate);
        let above = g.binary(Op::Sub, gate, mean);
        let square = g.unary(Op::Sqr, above);
        let sum = g.sum_rows(Op::SumRows, square);
        let variance = g.scale(sum);
        let deviation = g.unary(Op::Sqrt, variance);
        let deviation = g.scale(deviation);
        let limit = g.add(mean, deviation);
        let above = g.binary(Op::Sub, gate, limit);
        gate = g.unary(Op::Unary, above);
    }
    let gate = g.unary(Op::Unary, gate);
    let gated = g.mul(up, gate);
    g.project(Role::FfnDown, gated)
}

/// Makes the other streams from the first, as large as it (`altup_proj`).
fn spread(g: &mut Builder, x: Id) -> Id {
    let Tensor { ne, .. } = *g.get(x);
    let size = magnitude(g, x);
    let repeated = g.repeat(x, [ne[0], ne[1], STREAMS - 1, 1]);
    let matrix = g.output_weight(Role::AltupProj, Suffix::Weight);
    let others = g.mul_mat(matrix, repeated);
    let others = resize(g, others, size);
    g.concat(x, others, 2)
}

/// Makes one stream of all again: their mean (`altup_unembd_proj`).
fn merge(g: &mut Builder, x: Id) -> Id {
    let active = slice(g, x, 0);
    let size = magnitude(g, active);
    let others = all_but_first(g, x);
    let matrix = g.output_weight(Role::AltupUnembdProj, Suffix::Weight);
    let others = g.mul_mat(matrix, others);
    let others = resize(g, others, size);
    let mut sum = slice(g, x, 0);
    for stream in 1..STREAMS {
        let other = slice(g, others, u32::try_from(stream - 1).unwrap_or(0));
        sum = g.add(sum, other);
    }
    g.scale(sum)
}

fn magnitude(g: &mut Builder, x: Id) -> Id {
    let square = g.unary(Op::Sqr, x);
    let sum = g.sum_rows(Op::SumRows, square);
    g.unary(Op::Sqrt, sum)
}

fn resize(g: &mut Builder, x: Id, size: Id) -> Id {
    let own = magnitude(g, x);
    let larger = g.mul(x, size);
    g.binary(Op::Div, larger, own)
}

/// What the active stream says about the mixing of streams (`altup_compute_router_modalities`).
fn modalities(g: &mut Builder, active: Id) -> Id {
    let normed = g.norm(Norm::Rms, active, Role::AltupRouterNorm);
    let scaled = g.scale(normed);
    let matrix = g.weight(Role::AltupRouter);
    let routed = g.mul_mat(matrix, scaled);
    g.unary(Op::Unary, routed)
}

/// Predicts all streams from each other (`altup_predict`).
fn predict(g: &mut Builder, x: Id) -> Id {
    let active = slice(g, x, 0);
    let modalities = modalities(g, active);
    let factors = g.project(Role::AltupPredictCoef, modalities);
    let tokens = g.tokens();
    let factors = g.reshape(factors, [STREAMS, STREAMS, tokens, 1]);
    let turned = g.permute(x, [1, 2, 0, 3]);
    let turned = g.cont(turned);
    let mixed = g.mul_mat(turned, factors);
    let mixed = g.permute(mixed, [0, 2, 1, 3]);
    let mixed = g.cont(mixed);
    g.add(mixed, x)
}

/// Corrects the predictions by what became of the active stream (`altup_correct`).
fn correct(g: &mut Builder, predictions: Id, active: Id) -> Id {
    let modalities = modalities(g, active);
    let predicted = slice(g, predictions, 0);
    let news = g.binary(Op::Sub, active, predicted);
    let factors = g.project(Role::AltupCorrectCoef, modalities);
    let factors = g.scale(factors);
    let factors = g.transpose(factors);
    let tokens = g.tokens();
    let factors = g.cont_as(factors, [1, tokens, STREAMS, 1]);
    let width = g.get(news).ne[0];
    let news = g.repeat(news, [width, tokens, STREAMS, 1]);
    let corrections = g.mul(news, factors);
    g.add(corrections, predictions)
}

/// Adds the block's own embedding, gated by the active stream, to all streams but that.
fn join_block_embedding(g: &mut Builder, x: Id, extras: Id) -> Id {
    let active = slice(g, x, 0);
    let scale = g.weight(Role::AltupCorrectScale);
    let scaled = g.mul(active, scale);
    let gated = gate_block_embedding(g, scaled, extras);
    let first = slice(g, x, 0);
    let others = all_but_first(g, x);
    let others = g.add(others, gated);
    g.concat(first, others, 2)
}

/// A detour of low rank beside attention (`laurel`).
fn laurel(g: &mut Builder, x: Id) -> Id {
    let narrow = g.project(Role::LaurelL, x);
    let wide = g.project(Role::LaurelR, narrow);
    let normed = g.norm(Norm::Rms, wide, Role::LaurelPostNorm);
    g.add(normed, x)
}
