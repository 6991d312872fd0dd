//! Encoders: every token sees every other of the micro-batch, nothing is cached, and what comes out
//! is an embedding.

use crate::memory::graph::attention::{AttentionInput, Extras, Qkv};
use crate::memory::graph::feed_forward::{Activation, DENSE, Experts, GateType, Norm};
use crate::memory::graph::model::Builder;
use crate::memory::graph::tensor::{Id, Op};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

use super::Family;

/// Question types of a `ModernBERT` with a decision head (`N_DECISION_TYPES`).
const DECISION_TYPES: u64 = 3;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "bert" | "nomic-bert" | "nomic-bert-moe" | "jina-bert-v2" | "jina-bert-v3" => bert,
        "neo-bert" => neo_bert,
        "eurobert" => eurobert,
        "llama-embed" => llama_embed,
        "modern-bert" => modern_bert,
        _ => return None,
    })
}

/// BERT and its kin: norms behind attention and network. They differ in how positions enter (a
/// table, rope, a slope) and in the network.
fn bert(g: &mut Builder) {
    let positions = g.positions();
    let mut x = g.embeddings();
    let types = g.input_weight(Role::TokenTypes);
    if types != Id::NONE {
        let width = g.embedding();
        let first = g.view_1d(types, width, 0);
        x = g.add(x, first);
    }
    if g.architecture() == "bert" {
        let table = g.input_weight(Role::PositionEmbd);
        let rows = g.get_rows(table, positions);
        x = g.add(rows, x);
    }
    let mut x = embedding_norm(g, x);
    let input = g.batch_input();
    let ids = g.output_ids();
    let turns = matches!(g.architecture(), "nomic-bert" | "nomic-bert-moe" | "jina-bert-v3");
    for &block in g.blocks() {
        g.enter(Some(block));
        let Qkv { q, k, v } = g.qkv(x);
        let mut q = flat_norm(g, q, Role::AttnQNorm);
        let mut k = flat_norm(g, k, Role::AttnKNorm);
        if turns {
            q = g.rope(q, positions, Id::NONE);
            k = g.rope(k, positions, Id::NONE);
        }
        let attended = g.attend(&input, Qkv { q, k, v }, Extras::default());
        let [attended, residual] = g.keep_outputs(ids, [attended, x]);
        let attended = g.add(attended, residual);
        let mut attended = g.norm(Norm::Layer, attended, Role::AttnOutputNorm);
        if g.has(Role::AttnNorm2) {
            let again = g.add(attended, residual);
            attended = g.norm(Norm::Layer, again, Role::AttnNorm2);
        }
        let fed = bert_network(g, attended);
        let fed = g.add(fed, attended);
        x = g.norm(Norm::Layer, fed, Role::LayerOutputNorm);
    }
    g.finish_embedding(x);
}

/// The norm of the embeddings, which counts as the first block's (`build_norm` with block 0).
fn embedding_norm(g: &mut Builder, x: Id) -> Id {
    g.enter(Some(0));
    let weight = g.first_weight(Role::TokenEmbdNorm, Suffix::Weight);
    let bias = g.first_weight(Role::TokenEmbdNorm, Suffix::Bias);
    let normed = g.norm_with(Norm::Layer, x, weight, bias);
    g.enter(None);
    normed
}

/// Norms all heads together, where the file has such a norm (jina's code model).
fn flat_norm(g: &mut Builder, x: Id, role: Role) -> Id {
    if !g.has(role) {
        return x;
    }
    let ne = g.get(x).ne;
    let flat = g.reshape(x, [ne[0].saturating_mul(ne[1]), ne[2], 1, 1]);
    let normed = g.norm(Norm::Layer, flat, role);
    g.reshape(normed, ne)
}

/// The network of a block of BERT's kind.
fn bert_network(g: &mut Builder, x: Id) -> Id {
    let every = g.number(Hyper::MoeEveryNLayers);
    if every > 0 && u64::from(g.index()) % every == 1 {
        let scales = scales_experts(g);
        let how = Experts { activation: Activation::Gelu, normalises: false, scales, ..Experts::default() };
        return g.experts(x, how);
    }
    match g.architecture() {
        "nomic-bert" => g.swiglu(x),
        "jina-bert-v2" => {
            let (up, down) = (g.weight(Role::FfnUp), g.weight(Role::FfnDown));
            // Some files keep gate and up in one matrix.
            let joined = !g.has(Role::FfnGate) && g.get(up).ne[1] != g.get(down).ne[0];
            let activation = if joined { Activation::Geglu } else { Activation::Gelu };
            g.feed_forward(x, DENSE, activation, GateType::Parallel)
        }
        _ => g.feed_forward(x, DENSE, Activation::Gelu, GateType::Sequential),
    }
}

/// `NeoBERT`: gate and up in one matrix, and a last norm named as an encoder's.
fn neo_bert(g: &mut Builder) {
    let x = g.embeddings();
    let x = pre_normed(g, x, false, joined_swiglu);
    g.enter(None);
    let norm = g.output_weight(Role::EncOutputNorm, Suffix::Weight);
    let x = g.norm_with(Norm::Rms, x, norm, Id::NONE);
    g.finish_embedding(x);
}

/// `EuroBERT`: Llama's block.
fn eurobert(g: &mut Builder) {
    let x = g.embeddings();
    let x = pre_normed(g, x, false, swiglu);
    let x = g.output_norm(Norm::Rms, x);
    g.finish_embedding(x);
}

fn swiglu(g: &mut Builder, x: Id) -> Id {
    g.swiglu(x)
}

/// A Llama that looks both ways, with its factors of the rope and its experts.
fn llama_embed(g: &mut Builder) {
    let x = g.embeddings();
    let x = pre_normed(g, x, true, llama_network);
    let x = g.output_norm(Norm::Rms, x);
    g.finish_embedding(x);
}

/// `ModernBERT`: layer norms, windows in most blocks, and possibly a head that scores options.
fn modern_bert(g: &mut Builder) {
    let x = g.embeddings();
    let x = embedding_norm(g, x);
    // Gelu or silu, the file says; both take half of what `up` gives.
    let positions = g.positions();
    let inputs = Inputs { turns: Some((positions, false)), attention: g.batch_input(), ids: g.output_ids() };
    let decision = g.number(Hyper::DecisionBlocks);
    let encoder = u64::from(g.plan.structure.blocks).saturating_sub(decision);
    let mut x = x;
    for &block in g.blocks().iter().filter(|&&block| u64::from(block) < encoder) {
        g.enter(Some(block));
        x = pre_normed_block(g, x, &inputs, Norm::Layer, joined_swiglu);
    }
    let mut x = g.output_norm(Norm::Layer, x);
    if decision > 0 {
        let inputs = Inputs { turns: None, ..inputs };
        x = decide(g, x, &inputs, encoder);
    }
    g.finish_embedding(x);
}

/// Scores of each token for each type of question: the last blocks run once a type
/// (`build_decision_head`).
fn decide(g: &mut Builder, x: Id, inputs: &Inputs, encoder: u64) -> Id {
    let types = g.input_weight(Role::TokenTypes);
    let (row, width) = (g.get(types).nb[1], g.embedding());
    let mut scores = Id::NONE;
    for question in 0..DECISION_TYPES {
        let kind = g.view_1d(types, width, question.saturating_mul(row));
        let mut x = g.add(x, kind);
        for &block in g.blocks().iter().filter(|&&block| u64::from(block) >= encoder) {
            g.enter_again(block);
            x = pre_normed_block(g, x, inputs, Norm::Layer, |g, x| {
                g.feed_forward(x, DENSE, Activation::Relu, GateType::Sequential)
            });
        }
        g.block = None;
        let score = score(g, x);
        scores = if scores == Id::NONE { score } else { g.concat(scores, score, 0) };
    }
    scores
}

/// The scorer behind the decision blocks.
fn score(g: &mut Builder, x: Id) -> Id {
    let mut part = |role, suffix| g.output_weight(role, suffix);
    let (norm, norm_bias) = (part(Role::ClsNorm, Suffix::Weight), part(Role::ClsNorm, Suffix::Bias));
    let (head, head_bias) = (part(Role::Cls, Suffix::Weight), part(Role::Cls, Suffix::Bias));
    let (out, out_bias) = (part(Role::ClsOutput, Suffix::Weight), part(Role::ClsOutput, Suffix::Bias));
    let x = g.norm_with(Norm::Layer, x, norm, norm_bias);
    let x = g.mul_mat(head, x);
    let x = g.add_if(x, head_bias);
    let x = g.unary(Op::Unary, x);
    let x = g.mul_mat(out, x);
    g.add_if(x, out_bias)
}

/// Llama's network, or its experts.
fn llama_network(g: &mut Builder, x: Id) -> Id {
    if !g.has(Role::FfnGateInp) {
        return g.swiglu(x);
    }
    let scales = scales_experts(g);
    g.experts(x, Experts { scales, ..Experts::default() })
}

/// Returns whether the weights of experts are multiplied with a number.
fn scales_experts(g: &Builder) -> bool {
    let scale = g.float(Hyper::ExpertWeightsScale);
    scale != 0.0 && (scale - 1.0).abs() > f32::EPSILON
}

fn joined_swiglu(g: &mut Builder, x: Id) -> Id {
    g.feed_forward(x, DENSE, Activation::Swiglu, GateType::Sequential)
}

/// What blocks read beside the stream.
struct Inputs {
    /// The positions by which queries and keys are turned, and whether the rope may have factors.
    turns: Option<(Id, bool)>,
    attention: AttentionInput,
    ids: Id,
}

/// Blocks with norms in front of attention and network.
fn pre_normed(g: &mut Builder, mut x: Id, factored: bool, network: fn(&mut Builder, Id) -> Id) -> Id {
    let positions = g.positions();
    let inputs = Inputs { turns: Some((positions, factored)), attention: g.batch_input(), ids: g.output_ids() };
    for &block in g.blocks() {
        g.enter(Some(block));
        x = pre_normed_block(g, x, &inputs, Norm::Rms, network);
    }
    x
}

/// One such block. `ModernBERT`'s first has no norm in front of attention.
fn pre_normed_block(g: &mut Builder, x: Id, inputs: &Inputs, norm: Norm, network: fn(&mut Builder, Id) -> Id) -> Id {
    let normed = g.norm_if(norm, x, Role::AttnNorm);
    let Qkv { mut q, mut k, v } = g.qkv(normed);
    if let Some((positions, factored)) = inputs.turns {
        let factors = if factored { g.rope_factors() } else { Id::NONE };
        q = g.rope(q, positions, factors);
        k = g.rope(k, positions, factors);
    }
    let attended = g.attend(&inputs.attention, Qkv { q, k, v }, Extras::default());
    let [attended, residual] = g.keep_outputs(inputs.ids, [attended, x]);
    let attended = g.add(attended, residual);
    let normed = g.norm(norm, attended, Role::FfnNorm);
    let fed = network(g, normed);
    g.add(fed, attended)
}
