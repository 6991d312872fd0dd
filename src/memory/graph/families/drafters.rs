//! Drafters: small models that guess the next tokens for a larger one.
//!
//! A drafter may lack token embeddings and output matrix and then reads those of the model that it
//! drafts for, which a bill does not know: a stand-in of the usual kind takes their place.

use super::super::attention::{AttentionInput, CacheInput, Extras, Qkv};
use super::super::feed_forward::{Activation, DENSE, GateType, Norm};
use super::super::model::Builder;
use super::super::tensor::{BackendId, F32, Home, I32, Id, Op, Tensor};
use super::{Family, deepseek4};
use crate::gguf::TensorType;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "eagle3" => eagle3,
        "dflash" => dflash,
        _ => return None,
    })
}

/// More tokens than any drafter guesses at once.
const LONGEST_DRAFT: u64 = 256;
/// More taps than any convolution here has.
const LARGEST_KERNEL: u64 = 64;

/// EAGLE 3: one block that reads a token beside the larger model's features.
fn eagle3(g: &mut Builder) {
    let tokens = g.tokens();
    let ids = g.input(I32, [tokens, 1, 1, 1]);
    let width = g.embedding();
    let given = g.input(F32, [width, tokens, 1, 1]);
    let table = embeddings(g);
    let embedded = g.get_rows(table, ids);
    let positions = g.positions();
    let input = g.attention_input();
    let mut x = given;
    for &block in g.blocks() {
        g.enter(Some(block));
        let embedded = g.norm(Norm::Rms, embedded, Role::AttnNorm);
        // Not named as a norm of the block, so never pinned to it.
        let normed = g.unary(Op::RmsNorm, x);
        let weight = g.weight(Role::AttnNorm2);
        let normed = g.mul(normed, weight);
        let residual = if g.number(Hyper::NormBeforeResidual) != 0 { normed } else { x };
        let both = g.concat(embedded, normed, 0);
        let heads = g.heads();
        let mut qkv =
            [(Role::AttnQ, heads.q), (Role::AttnK, heads.kv), (Role::AttnV, heads.kv)].map(|(role, count)| {
                let projected = g.project(role, both);
                let width = if role == Role::AttnV { heads.v } else { heads.k };
                g.reshape(projected, [width, count, tokens, 1])
            });
        let factors = g.rope_factors();
        for id in &mut qkv[..2] {
            *id = g.rope(*id, positions, factors);
        }
        let [q, k, v] = qkv;
        let attended = g.attend(&input, Qkv { q, k, v }, Extras::default());
        let attended = g.add(attended, residual);
        let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
        let fed = g.swiglu(normed);
        x = g.add(fed, attended);
    }
    g.set_output(x);
    let normed = g.output_norm(Norm::Rms, x);
    let logits = vocabulary(g, normed);
    let logits = to_all_tokens(g, logits);
    g.finish(logits);
}

/// DFlash, DSpark and DFlash 2: blocks of tokens are drafted at once, attending both ways.
fn dflash(g: &mut Builder) {
    let positions = g.positions();
    let from_v4 = g.number(Hyper::HyperConnections) != 0;
    let tokens = g.tokens();
    let (embedded, normed, ids);
    if from_v4 {
        let input = g.cache_input(true, false);
        ids = g.input(I32, [tokens, 1, 1, 1]);
        embedded = v4_blocks(g, ids, positions, &input);
        normed = g.output_norm(Norm::Rms, embedded);
    } else {
        let input = g.attention_input();
        ids = g.input(I32, [tokens, 1, 1, 1]);
        let x = blocks(g, ids, positions, &input);
        normed = g.output_norm(Norm::Rms, x);
        embedded = normed;
    }
    let mut logits = vocabulary(g, normed);
    let selects = g.has_global(Role::SelectorHidden) && !from_v4;
    if selects {
        logits = transformed(g, logits);
    }
    if !from_v4 {
        logits = to_all_tokens(g, logits);
    }
    g.expand(logits);
    g.set_output(embedded);
    if g.has_global(Role::MarkovW1) {
        logits = markov(g, ids, logits, embedded);
    }
    if selects {
        select(g, ids, logits, embedded);
    }
    g.set_output(logits);
}

/// The blocks of DeepSeek V4's drafter.
fn v4_blocks(g: &mut Builder, ids: Id, positions: Id, input: &CacheInput) -> Id {
    let table = embeddings(g);
    let x = g.get_rows(table, ids);
    let mut x = g.spread_over_streams(x);
    for &block in g.blocks() {
        g.enter(Some(block));
        x = deepseek4::block(g, x, false, |g, normed| deepseek4::window_attention(g, normed, positions, input));
    }
    g.mix_output(x)
}

/// The blocks of the others, as those of Qwen 3, with convolutions around each part in DFlash 2.
fn blocks(g: &mut Builder, ids: Id, positions: Id, input: &AttentionInput) -> Id {
    let tokens = g.tokens();
    let table = embeddings(g);
    let mut x = g.get_rows(table, ids);
    if g.float(Hyper::EmbeddingScale) != 0.0 {
        x = g.scale(x);
    }
    let sections = crate::memory::architecture::has_sections(g.plan.structure);
    let factors = if sections { Id::NONE } else { g.first_weight(Role::RopeFreqs, Suffix::Weight) };
    let activation = if g.number(Hyper::HiddenActivationGelu) != 0 { Activation::Gelu } else { Activation::Silu };
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let (normed, around) = Convolution::before(g, normed, Role::AttnConvProj, Role::AttnConvBase);
        let heads = g.heads();
        let q = g.project(Role::AttnQ, normed);
        let k = g.project(Role::AttnK, normed);
        let shares = !g.has(Role::AttnV);
        let v = if shares { k } else { g.project(Role::AttnV, normed) };
        let q = g.reshape(q, [heads.k, heads.q, tokens, 1]);
        let k = g.reshape(k, [heads.k, heads.kv, tokens, 1]);
        let mut v = g.reshape(v, [heads.v, heads.kv, tokens, 1]);
        let q = g.norm(Norm::Rms, q, Role::AttnQNorm);
        let k = g.norm(Norm::Rms, k, Role::AttnKNorm);
        if shares {
            v = g.unary(Op::RmsNorm, v);
        }
        let q = g.rope(q, positions, factors);
        let k = g.rope(k, positions, factors);
        let sinks = g.sinks();
        let mut attended = g.attend(input, Qkv { q, k, v }, Extras { sinks, ..Extras::default() });
        if g.float(Hyper::AttentionValueScale) != 0.0 {
            attended = g.scale(attended);
        }
        attended = around.behind(g, attended);
        attended = g.norm_if(Norm::Rms, attended, Role::PostAttentionNorm);
        let attended = g.add(attended, x);
        let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
        let (normed, around) = Convolution::before(g, normed, Role::FfnConvProj, Role::FfnConvBase);
        let fed = g.feed_forward(normed, DENSE, activation, GateType::Parallel);
        let fed = around.behind(g, fed);
        let fed = g.norm_if(Norm::Rms, fed, Role::PostFfwNorm);
        x = g.add(fed, attended);
        let scale = g.weight(Role::LayerOutputScale);
        if scale != Id::NONE {
            x = g.mul(x, scale);
        }
    }
    x
}

/// Scales and caps logits, as the larger model does with its own.
fn transformed(g: &mut Builder, mut logits: Id) -> Id {
    if g.float(Hyper::LogitScale) != 0.0 {
        logits = g.scale(logits);
    }
    if g.float(Hyper::FinalLogitSoftcapping) > 0.0 {
        logits = g.scale(logits);
        logits = g.unary(Op::Unary, logits);
        logits = g.scale(logits);
    }
    logits
}

/// A convolution over the tokens of a block whose kernel is made from them, before and behind a part
/// (`build_dflash2_conv`).
#[derive(Clone, Copy)]
struct Convolution {
    /// What the kernel is made from, none where there is no convolution.
    dynamic: Id,
    base: Id,
}

impl Convolution {
    fn before(g: &mut Builder, x: Id, project: Role, base: Role) -> (Id, Convolution) {
        if !g.has(project) {
            return (x, Convolution { dynamic: Id::NONE, base: Id::NONE });
        }
        let dynamic = g.project(project, x);
        let around = Convolution { dynamic, base: g.tensor(base, Suffix::Other) };
        (around.apply(g, x, 0), around)
    }

    fn behind(self, g: &mut Builder, x: Id) -> Id {
        if self.dynamic == Id::NONE { x } else { self.apply(g, x, 1) }
    }

    fn apply(self, g: &mut Builder, x: Id, side: u64) -> Id {
        let (kernel, size) =
            (g.number(Hyper::ConvKernelSize).min(LARGEST_KERNEL), g.number(Hyper::ConvGroupSize).max(1));
        let (width, tokens, blocks) = (g.get(x).ne[0], g.tokens(), g.slots().max(1));
        let (groups, each) = (width / size, tokens / blocks);
        let values = g.reshape(x, [width, each, blocks, 1]);
        let parts = g.reshape(self.dynamic, [groups, kernel, 2, tokens]);
        let nb = g.get(parts).nb;
        let part = g.view_3d(parts, [groups, kernel, tokens], [nb[1], nb[3]], side.saturating_mul(nb[2]));
        let part = g.cont(part);
        let part = g.reshape(part, [1, groups, kernel, tokens]);
        let part = g.repeat(part, [size, groups, kernel, tokens]);
        let stride = g.get(self.base).nb[2];
        let base = g.view_1d(self.base, width.saturating_mul(kernel), side.saturating_mul(stride));
        let base = g.reshape(base, [size, groups, kernel, 1]);
        let weights = g.add(part, base);
        let mut sum = Id::NONE;
        for tap in 0..kernel.min(each) {
            let mut shifted = values;
            if tap > 0 {
                let nb = g.get(values).nb;
                let earlier = g.view_3d(values, [width, each - tap, blocks], [nb[1], nb[2]], 0);
                shifted = g.pad(earlier, [0, tap, 0, 0]);
            }
            let shifted = g.reshape(shifted, [width, tokens, 1, 1]);
            let nb = g.get(weights).nb;
            let shape = [size, groups, 1, tokens];
            let weight = g.view(weights, shape, [nb[1], nb[2], nb[3]], tap.saturating_mul(nb[2]));
            let weight = g.cont(weight);
            let weight = g.reshape(weight, [width, tokens, 1, 1]);
            let term = g.mul(weight, shifted);
            sum = if sum == Id::NONE { term } else { g.add(sum, term) };
        }
        if sum == Id::NONE { x } else { sum }
    }
}

/// DSpark's Markov head: each token's logits take the draft before it into account; returns the
/// logits (`build_dspark_markov_head`).
fn markov(g: &mut Builder, ids: Id, base: Id, embedded: Id) -> Id {
    let [vocabulary, tokens, ..] = g.get(base).ne;
    let blocks = g.slots().max(1);
    let each = tokens / blocks;
    if each > g.number(Hyper::BlockSize).min(LONGEST_DRAFT) {
        return base;
    }
    let [from, to] = [Role::MarkovW1, Role::MarkovW2].map(|role| g.output_weight(role, Suffix::Weight));
    let scale = g.output_weight(Role::MarkovW2, Suffix::Scale);
    let project = g.output_weight(Role::ConfProj, Suffix::Weight);
    let project_bias = g.output_weight(Role::ConfProj, Suffix::Bias);
    let judges = project != Id::NONE;
    let (id_stride, stride) = (g.get(ids).nb[0], g.get(base).nb[1]);
    let previous = g.view_2d(ids, [1, blocks], each.saturating_mul(id_stride), 0);
    let mut previous = g.cont_as(previous, [blocks, 1, 1, 1]);
    let at = |g: &mut Builder, of: Id, width: u64, position: u64| {
        let stride = g.get(of).nb[1];
        g.view_2d(of, [width, blocks], each.saturating_mul(stride), position.saturating_mul(stride))
    };
    let join = |g: &mut Builder, sum: Id, column: Id| if sum == Id::NONE { column } else { g.concat(sum, column, 1) };
    let (mut columns, mut confidences) = (Id::NONE, Id::NONE);
    let first = g.number(Hyper::BonusAnchor);
    if first > 0 {
        let column = at(g, base, vocabulary, 0);
        columns = g.cont(column);
        if judges {
            let column = g.view_2d(base, [1, blocks], each.saturating_mul(stride), 0);
            let column = g.cont(column);
            confidences = g.unary(Op::Sigmoid, column);
        }
    }
    for position in first..each {
        let row = g.get_rows(from, previous);
        let mut bias = g.mul_mat(to, row);
        if scale != Id::NONE {
            bias = g.mul(bias, scale);
        }
        let bias = to_all_tokens(g, bias);
        let column = at(g, base, vocabulary, position);
        let column = g.add(column, bias);
        columns = join(g, columns, column);
        if judges {
            let width = g.get(embedded).ne[0];
            let feature = at(g, embedded, width, position);
            let feature = g.cont(feature);
            let feature = g.concat(feature, row, 0);
            let confidence = g.mul_mat(project, feature);
            let confidence = g.add_if(confidence, project_bias);
            let confidence = g.unary(Op::Sigmoid, confidence);
            confidences = join(g, confidences, confidence);
        }
        if position + 1 < each {
            previous = g.argmax(column);
        }
    }
    if columns == Id::NONE {
        return base;
    }
    let by_block = |g: &mut Builder, columns: Id, width: u64| {
        let columns = g.reshape(columns, [width, blocks, each, 1]);
        let columns = g.permute(columns, [0, 2, 1, 3]);
        let columns = g.cont(columns);
        g.reshape(columns, [width, tokens, 1, 1])
    };
    let logits = by_block(g, columns, vocabulary);
    if confidences != Id::NONE {
        let confidences = by_block(g, confidences, 1);
        let shape = g.get(embedded).ne;
        let confidences = g.repeat(confidences, shape);
        g.set_output(confidences);
        g.expand(confidences);
    }
    g.expand(logits);
    logits
}

/// DFlash 2's selector: the best tokens of each position and how well each follows on each
/// (`build_dflash2_selector`).
fn select(g: &mut Builder, ids: Id, logits: Id, embedded: Id) {
    let [vocabulary, tokens, ..] = g.get(logits).ne;
    let (blocks, width) = (g.slots().max(1), g.embedding());
    let (best, rank) = (g.number(Hyper::SelectorTopK), g.number(Hyper::SelectorRank));
    let each = tokens / blocks;
    let size = each.min(g.number(Hyper::BlockSize));
    let candidates = g.top_k(logits, best);
    let rows = g.reshape(logits, [1, vocabulary, tokens, 1]);
    let scores = g.get_rows(rows, candidates);
    let scores = g.reshape(scores, [best, tokens, 1, 1]);
    let hidden = g.output_weight(Role::SelectorHidden, Suffix::Weight);
    let gate = g.mul_mat(hidden, embedded);
    let candidates = g.reshape(candidates, [best, each, blocks, 1]);
    let scores = g.reshape(scores, [best, each, blocks, 1]);
    let gate = g.reshape(gate, [rank, each, blocks, 1]);
    let run = |g: &mut Builder, of: Id, first: u64, count: u64| {
        let Tensor { ne, nb, .. } = *g.get(of);
        let view = g.view_3d(of, [ne[0], count, blocks], [nb[1], nb[2]], first.saturating_mul(nb[1]));
        g.cont(view)
    };
    let score = |g: &mut Builder, first: u64, count: u64, before: Id| {
        let [chosen, scores, gate] = [candidates, scores, gate].map(|of| run(g, of, first, count));
        let runs = count.saturating_mul(blocks).max(1);
        let each_before = g.get(before).ne[0] / runs;
        let flat = g.reshape(chosen, [best.saturating_mul(runs), 1, 1, 1]);
        let [next, previous] =
            [Role::SelectorSuccessor, Role::SelectorPredecessor].map(|role| g.output_weight(role, Suffix::Weight));
        let next = g.get_rows(next, flat);
        let next = g.reshape(next, [rank, best, count, blocks]);
        let previous = g.get_rows(previous, before);
        let shape = [rank, each_before, count, blocks];
        let previous = g.reshape(previous, shape);
        let gate = g.reshape(gate, [rank, 1, count, blocks]);
        let gate = g.repeat(gate, shape);
        let previous = g.mul(previous, gate);
        let mut follows = g.mul_mat(next, previous);
        if each_before == 1 {
            follows = g.repeat(follows, [best, best, count, blocks]);
        }
        let scores = g.reshape(scores, [best, 1, count, blocks]);
        let shape = g.get(follows).ne;
        let scores = g.repeat(scores, shape);
        let follows = g.add(follows, scores);
        let chosen = g.cast(chosen, F32);
        let follows = g.reshape(follows, [best.saturating_mul(best), count, blocks, 1]);
        let row = g.concat(chosen, follows, 0);
        let used = g.get(row).ne[0];
        g.pad(row, [width.saturating_sub(used), 0, 0, 0])
    };
    let packed = g.constant(F32, [width, 1, blocks, 1]);
    let mut packed = g.unary(Op::Fill, packed);
    if size > 1 {
        let stride = g.get(ids).nb[0];
        let anchors = g.view_2d(ids, [1, blocks], each.saturating_mul(stride), 0);
        let anchors = g.cont_as(anchors, [blocks, 1, 1, 1]);
        let rows = score(g, 1, 1, anchors);
        packed = g.concat(packed, rows, 1);
    }
    if size > 2 {
        let before = run(g, candidates, 1, size - 2);
        let flat = g.get(before).elements();
        let before = g.reshape(before, [flat, 1, 1, 1]);
        let rows = score(g, 2, size - 2, before);
        packed = g.concat(packed, rows, 1);
    }
    let packed = g.reshape(packed, [width, size.saturating_mul(blocks), 1, 1]);
    g.set_output(packed);
    g.expand(packed);
}

/// Spreads what is known of the drafter's own tokens over all of the vocabulary, where it has fewer.
fn to_all_tokens(g: &mut Builder, x: Id) -> Id {
    let map = g.input_tensor(Role::D2t, Suffix::Other);
    if map == Id::NONE {
        return x;
    }
    let all = u64::from(g.plan.structure.dimensions.vocabulary);
    let [own, rows, ..] = g.get(x).ne;
    let spread = g.constant(F32, [1, all, rows, 1]);
    let spread = g.unary(Op::Fill, spread);
    let x = g.reshape(x, [1, own, rows, 1]);
    let map = g.reshape(map, [own, 1, 1, 1]);
    let spread = g.set_rows(spread, x, map);
    g.reshape(spread, [all, rows, 1, 1])
}

/// Returns the token embeddings, the drafter's own or a stand-in.
fn embeddings(g: &mut Builder) -> Id {
    let own = g.input_weight(Role::TokenEmbd);
    let cpu = g.plan.backends.cpu();
    if own == Id::NONE { stand_in(g, cpu) } else { own }
}

/// Multiplies with the output matrix, the drafter's own or a stand-in.
fn vocabulary(g: &mut Builder, x: Id) -> Id {
    if g.output_matrix() != Id::NONE {
        return g.vocabulary(x);
    }
    g.enter(None);
    let output = g.output_backend();
    let matrix = stand_in(g, output);
    g.mul_mat(matrix, x)
}

/// Adds a matrix as wide as the embedding and as long as the vocabulary, of the larger model.
fn stand_in(g: &mut Builder, backend: BackendId) -> Id {
    const Q6_K: TensorType = TensorType(14);
    let rows = u64::from(g.plan.structure.dimensions.vocabulary);
    let mut tensor = Tensor::new(Q6_K, [g.embedding(), rows, 1, 1]);
    tensor.home = Home::Weights(backend);
    g.borrows = true;
    g.push(tensor)
}
