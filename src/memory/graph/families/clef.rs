//! Clef: Qwen 3.5 without memory, whose head scores options of questions in the text.
//!
//! The graph is reserved for one question with one option, as llama.cpp does where a batch names none.

use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::model::Builder;
use crate::memory::graph::tensor::{F32, I32, Id, Op, Tensor};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

use super::Family;
use super::qwen_next::{Attended, USUAL, gated_attention, linear_with};

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    (architecture == "clef").then_some(clef as Family)
}

fn clef(g: &mut Builder) {
    let mut x = g.embeddings();
    let positions = g.positions();
    let attended = Attended { input: g.batch_input(), positions };
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let mixed = if g.has(Role::SsmConv1d) {
            linear_with(g, None, normed, USUAL)
        } else {
            gated_attention(g, &attended, normed)
        };
        let mixed = g.add(mixed, x);
        let normed = g.norm(Norm::Rms, mixed, Role::PostAttentionNorm);
        let fed = g.swiglu(normed);
        x = g.add(fed, mixed);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let inputs = Inputs::new(g);
    let score = head(g, normed, &inputs);
    let others = g.tokens().saturating_sub(1);
    let scores = g.pad(score, [0, others, 0, 0]);
    let scores = g.add(scores, inputs.status);
    g.finish_embedding(scores);
}

/// What the head reads (`input_decision`).
struct Inputs {
    tokens: Id,
    /// Which tokens make a question, and an option, up.
    question: Id,
    option: Id,
    kind: Id,
    /// The question of each option.
    owner: Id,
    mask: Id,
    status: Id,
}

impl Inputs {
    fn new(g: &mut Builder) -> Inputs {
        let tokens = g.tokens();
        Inputs {
            tokens: g.input(I32, [tokens, 1, 1, 1]),
            question: g.input(F32, [tokens, 1, 1, 1]),
            option: g.input(F32, [tokens, 1, 1, 1]),
            kind: g.input(I32, [1; 4]),
            owner: g.input(I32, [1; 4]),
            mask: g.input(F32, [1; 4]),
            status: g.input(F32, [1; 4]),
        }
    }
}

/// Returns the scores of the options (`build_head`).
fn head(g: &mut Builder, hidden: Id, inputs: &Inputs) -> Id {
    let hidden = decision_norm(g, hidden, Role::DecisionHiddenNorm);
    let memory = multiply(g, Role::DecisionProjMemory, hidden);
    let Tensor { ne, nb, .. } = *g.get(hidden);
    let last = g.view_2d(hidden, [ne[0], 1], nb[1], ne[1].saturating_sub(1).saturating_mul(nb[1]));
    let turned = turned(g, hidden);
    let [question, option] = [inputs.question, inputs.option].map(|pool| g.mul_mat(turned, pool));
    let matrix = g.output_matrix();
    let words = g.get_rows(matrix, inputs.tokens);
    let words = self::turned(g, words);
    let words = g.mul_mat(words, inputs.option);

    let mut options = multiply(g, Role::DecisionProjOptionContext, option);
    let of_words = multiply(g, Role::DecisionProjOptionLexical, words);
    options = g.add(options, of_words);
    let of_question = multiply(g, Role::DecisionProjOptionQuestion, question);
    let of_question = g.get_rows(of_question, inputs.owner);
    options = g.add(options, of_question);
    let routing = count(g, Hyper::DecisionRoutingBlocks);
    for block in 0..routing {
        let q = norm(g, block, options, Role::DecCrossAttnNorm);
        let kv = norm(g, block, memory, Role::DecCrossAttnNormKv);
        let read = attention(g, block, q, kv, CROSS);
        options = g.add(options, read);
        let fed = network(g, block, options);
        options = g.add(options, fed);
    }

    let mut fields = multiply(g, Role::DecisionProjQuestion, question);
    let weights = g.mul_mat(options, fields);
    let weights = g.scale(weights);
    let weights = g.add(weights, inputs.mask);
    let weights = g.soft_max(weights, Id::NONE, Id::NONE);
    let columns = self::turned(g, options);
    let summary = g.mul_mat(columns, weights);
    let summary = decision_norm(g, summary, Role::DecisionOptionSummaryNorm);
    fields = g.add(fields, summary);
    let of_last = multiply(g, Role::DecisionProjGlobal, last);
    fields = g.add(fields, of_last);
    let kinds = g.input_weight(Role::TokenTypes);
    let kind = g.get_rows(kinds, inputs.kind);
    fields = g.add(fields, kind);
    for block in routing..routing.saturating_add(count(g, Hyper::DecisionBlocks)) {
        let normed = norm(g, block, fields, Role::DecAttnNorm);
        let read = attention(g, block, normed, normed, OWN);
        fields = g.add(fields, read);
        let normed = norm(g, block, fields, Role::DecCrossAttnNorm);
        let read = attention(g, block, normed, memory, CROSS);
        fields = g.add(fields, read);
        let fed = network(g, block, fields);
        fields = g.add(fields, fed);
    }
    let fields = decision_norm(g, fields, Role::DecisionFieldNorm);

    let anchor = g.add(question, last);
    let anchor = g.unary(Op::L2Norm, anchor);
    let anchor = g.get_rows(anchor, inputs.owner);
    let words = g.unary(Op::L2Norm, words);
    let prior = g.mul(words, anchor);
    let prior = g.sum_rows(Op::SumRows, prior);
    let options = decision_norm(g, options, Role::DecisionOptionNorm);
    let field = g.get_rows(fields, inputs.owner);
    let [one, other] = [field, options].map(|part| g.unary(Op::L2Norm, part));
    let cosine = g.mul(one, other);
    let cosine = g.sum_rows(Op::SumRows, cosine);
    let residual = scorer(g, field, options);
    let [prior_scale, cosine_scale, joint_scale] = [0, 1, 2].map(|index: u64| {
        let scales = g.output_weight(Role::DecisionScales, Suffix::Other);
        let size = if scales == Id::NONE { 0 } else { g.get(scales).nb[0] };
        g.view_1d(scales, 1, index.saturating_mul(size))
    });
    let cosine = g.mul(cosine, cosine_scale);
    let joint = g.add(cosine, residual);
    let prior = g.mul(prior, prior_scale);
    let joint = g.mul(joint, joint_scale);
    g.add(prior, joint)
}

/// Scores options by how they and their questions' fields differ.
fn scorer(g: &mut Builder, field: Id, options: Id) -> Id {
    let both = g.concat(field, options, 0);
    let product = g.mul(field, options);
    let both = g.concat(both, product, 0);
    let difference = g.binary(Op::Sub, field, options);
    let difference = g.unary(Op::Unary, difference);
    let all = g.concat(both, difference, 0);
    let active = multiply(g, Role::DecisionScorer, all);
    let bias = g.output_weight(Role::DecisionScorer, Suffix::Bias);
    let active = g.add(active, bias);
    let active = g.unary(Op::Unary, active);
    let score = multiply(g, Role::DecisionScorerOut, active);
    let bias = g.output_weight(Role::DecisionScorerOut, Suffix::Bias);
    g.add(score, bias)
}

/// Blocks of the head, by a key of the header.
fn count(g: &Builder, key: Hyper) -> u32 {
    u32::try_from(g.number(key)).unwrap_or(0).min(g.plan.structure.blocks)
}

/// Returns a tensor without gaps whose rows are the columns of another.
fn turned(g: &mut Builder, x: Id) -> Id {
    let turned = g.transpose(x);
    g.cont(turned)
}

/// Multiplies with a matrix that lives with the output layer.
fn multiply(g: &mut Builder, role: Role, x: Id) -> Id {
    let weight = g.output_weight(role, Suffix::Weight);
    g.mul_mat(weight, x)
}

fn decision_norm(g: &mut Builder, x: Id, role: Role) -> Id {
    let [weight, bias] = [Suffix::Weight, Suffix::Bias].map(|suffix| g.output_weight(role, suffix));
    g.norm_with(Norm::Layer, x, weight, bias)
}

/// Returns weight and bias of a block of the head. What is computed with them is not pinned there.
fn tensors(g: &mut Builder, block: u32, role: Role) -> [Id; 2] {
    g.enter(Some(block));
    let found = [g.weight(role), g.bias(role)];
    g.enter(None);
    found
}

fn norm(g: &mut Builder, block: u32, x: Id, role: Role) -> Id {
    let [weight, bias] = tensors(g, block, role);
    g.norm_with(Norm::Layer, x, weight, bias)
}

fn project(g: &mut Builder, block: u32, role: Role, x: Id) -> Id {
    let [weight, bias] = tensors(g, block, role);
    let product = g.mul_mat(weight, x);
    g.add(product, bias)
}

/// The projections of an attention of the head: to queries, keys, values, and back.
type Projections = [Role; 4];
const OWN: Projections = [Role::DecAttnQ, Role::DecAttnK, Role::DecAttnV, Role::DecAttnO];
const CROSS: Projections = [Role::DecCrossAttnQ, Role::DecCrossAttnK, Role::DecCrossAttnV, Role::DecCrossAttnO];

/// Attention of the head, never flash attention (`build_head_attn`).
fn attention(g: &mut Builder, block: u32, from: Id, to: Id, [q, k, v, out]: Projections) -> Id {
    let heads = g.number(Hyper::DecisionHeads).max(1);
    let [q, k, v] = [(q, from), (k, to), (v, to)].map(|(role, x)| {
        let part = project(g, block, role, x);
        let [width, rows, ..] = g.get(part).ne;
        g.reshape(part, [width / heads, heads, rows, 1])
    });
    let [q, k] = [q, k].map(|part| g.permute(part, [0, 2, 1, 3]));
    let v = g.permute(v, [1, 2, 0, 3]);
    let v = g.cont(v);
    let weights = g.mul_mat(k, q);
    let weights = g.soft_max(weights, Id::NONE, Id::NONE);
    let read = g.mul_mat(v, weights);
    let read = g.permute(read, [0, 2, 1, 3]);
    let shape = g.get(from).ne;
    let read = g.cont_as(read, shape);
    project(g, block, out, read)
}

fn network(g: &mut Builder, block: u32, x: Id) -> Id {
    let normed = norm(g, block, x, Role::DecFfnNorm);
    let up = project(g, block, Role::DecFfnUp, normed);
    let active = g.unary(Op::Unary, up);
    project(g, block, Role::DecFfnDown, active)
}
