//! What a model drafts with: one more block behind the others (MTP, `NextN`).
//!
//! It looks at the embedding of the token found last, beside the hidden state that this was found
//! from (the graphs for `LLM_GRAPH_TYPE_DECODER_MTP`). What is drafted is sampled on the device, as
//! llama-server asks for.

use super::super::attention::Extras;
use super::super::feed_forward::Norm;
use super::super::model::Builder;
use super::super::tensor::{F32, I32, Id};
use super::qwen_next::Attended;
use super::{Family, bailingmoe3, deepseek, deepseek4, mamba, moe, moe_apart, qwen_next, qwen4exp};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

/// The best candidates that are looked at for each drafted token.
const CANDIDATES: u64 = 10;

/// What sets a draft apart.
#[derive(Clone, Copy)]
struct Draft {
    /// The norms of what the block is given, and the last one.
    norms: fn(&Builder) -> [Norm; 2],
    /// The block, on the joined input, with the numbers of the rows that are put out.
    block: fn(&mut Builder, Id, Id) -> Id,
    /// Where those rows are picked.
    crop: Crop,
}

/// Where the rows that are put out are picked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Crop {
    /// In the block.
    InBlock,
    /// Behind the block.
    BeforeNorm,
    /// Behind the last norm.
    AfterNorm,
}

/// Returns what builds the graph that an architecture drafts with.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "deepseek4" => deepseek4::draft,
        "qwen4exp" => qwen4exp::draft,
        _ => describe(architecture).map(|_| build as Family)?,
    })
}

const USUAL: Draft = Draft { norms: |_| [Norm::Rms; 2], block: |g, x, _| plain(g, x), crop: Crop::AfterNorm };

/// The table.
fn describe(architecture: &str) -> Option<Draft> {
    Some(match architecture {
        "glm4moe" | "hy_v3" => USUAL,
        "mimo2" | "step35" => Draft { crop: Crop::BeforeNorm, ..USUAL },
        "deepseek2" | "deepseek32" | "glm-dsa" => Draft { block: |g, x, _| deepseek::draft_block(g, x), ..USUAL },
        "bailingmoe3" => Draft { block: |g, x, _| latent_with_gate(g, x), ..USUAL },
        "cohere2moe" => {
            Draft { norms: |g| [moe_apart::cohere_norm(g); 2], block: |g, x, _| moe_apart::cohere_draft(g, x), ..USUAL }
        }
        "qwen35" | "qwen35moe" => Draft { block: |g, x, _| gated(g, x, Id::NONE), ..USUAL },
        "qwen3next" => Draft { block: gated, crop: Crop::InBlock, ..USUAL },
        "nemotron_h_moe" => Draft { norms: |_| [Norm::Rms, Norm::Layer], block: nemotron, crop: Crop::InBlock },
        _ => return None,
    })
}

/// Builds a draft of the table.
fn build(g: &mut Builder) {
    let Some(how) = describe(g.architecture()) else { return };
    let given = given(g);
    let [norm, last] = (how.norms)(g);
    let x = join(g, given, norm);
    let ids = g.output_ids();
    let mut x = (how.block)(g, x, ids);
    if how.crop == Crop::BeforeNorm {
        x = g.get_rows(x, ids);
        g.set_output(x);
    }
    let mut normed = head_norm(g, last, x);
    if how.crop != Crop::BeforeNorm {
        g.set_output(normed);
    }
    if how.crop == Crop::AfterNorm {
        normed = g.get_rows(normed, ids);
    }
    let mut logits = head(g, normed);
    if g.architecture() == "cohere2moe" && g.float(Hyper::LogitScale) != 0.0 {
        logits = g.scale(logits);
    }
    finish(g, logits);
}

/// Enters the block that drafts, and returns its inputs: the tokens and the hidden states that they were
/// found from.
pub(super) fn given(g: &mut Builder) -> [Id; 2] {
    g.enter(g.plan.blocks.first().copied());
    let tokens = g.tokens();
    let ids = g.input(I32, [tokens, 1, 1, 1]);
    let width = g.embedding().saturating_mul(g.streams());
    let states = g.input(F32, [width, tokens, 1, 1]);
    [ids, states]
}

/// Joins the embeddings of tokens with the hidden states, for each residual stream where there are
/// several.
pub(super) fn join(g: &mut Builder, [ids, mut states]: [Id; 2], norm: Norm) -> Id {
    let (width, tokens) = (g.embedding(), g.tokens());
    let own = g.has(Role::NextnEmbedTokens) && g.architecture() != "qwen4exp";
    let table = if own { g.weight(Role::NextnEmbedTokens) } else { g.input_weight(Role::TokenEmbd) };
    let embedded = g.get_rows(table, ids);
    let mut embedded = g.norm(norm, embedded, Role::NextnEnorm);
    let streams = g.streams();
    if streams > 1 {
        states = g.reshape(states, [width, streams, tokens, 1]);
        let column = g.reshape(embedded, [width, 1, tokens, 1]);
        embedded = g.repeat(column, [width, streams, tokens, 1]);
    }
    let states = g.norm(norm, states, Role::NextnHnorm);
    let both = g.concat(embedded, states, 0);
    g.project(Role::NextnEhProj, both)
}

/// The norm before the logits: the block's own or that of the model.
pub(super) fn head_norm(g: &mut Builder, norm: Norm, x: Id) -> Id {
    g.block = g.plan.blocks.first().copied();
    let own = [Role::NextnSharedHeadNorm, Role::LayerOutputNorm].into_iter().find(|&role| g.has(role));
    match own {
        Some(role) => g.loose_norm_if(norm, x, role),
        None => g.output_norm(norm, x),
    }
}

/// Multiplies with the output matrix: the block's own or that of the model.
pub(super) fn head(g: &mut Builder, x: Id) -> Id {
    g.block = g.plan.blocks.first().copied();
    if g.has(Role::NextnSharedHeadHead) { g.project(Role::NextnSharedHeadHead, x) } else { g.vocabulary(x) }
}

/// Puts the logits out and picks the best candidates of each slot from them (`build_sampling`).
pub(super) fn finish(g: &mut Builder, logits: Id) {
    g.finish(logits);
    // A row that stands in for slots without a token.
    let padded = g.pad(logits, [0, 1, 0, 0]);
    let [vocabulary, rows, ..] = g.get(logits).ne;
    let stride = g.get(padded).nb[1];
    for row in 0..rows.min(g.slots()) {
        let one = g.view_1d(padded, vocabulary, row.saturating_mul(stride));
        let one = g.reshape(one, [vocabulary, 1, 1, 1]);
        let best = g.top_k(one, CANDIDATES.min(vocabulary));
        let column = g.reshape(one, [1, vocabulary, 1, 1]);
        let values = g.get_rows(column, best);
        for id in [values, best] {
            g.expand(id);
            g.set_output(id);
        }
    }
}

/// A block like the others of its model.
fn plain(g: &mut Builder, x: Id) -> Id {
    let caches = g.attention_input();
    moe::draft_block(g, x, &caches)
}

/// Ling 3's block of latent attention.
fn latent_with_gate(g: &mut Builder, x: Id) -> Id {
    let positions = g.positions();
    let rows = g.keys_input();
    let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
    let attended = bailingmoe3::latent(g, normed, positions, &rows);
    moe::feed_by_header(g, attended, x)
}

/// Qwen3-Next's block of gated attention; rows are picked before its network where there are numbers.
fn gated(g: &mut Builder, x: Id, ids: Id) -> Id {
    let inputs = Attended { positions: g.positions(), input: g.attention_input() };
    let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
    let mixed = qwen_next::gated_attention(g, &inputs, normed);
    let [mixed, x] = if ids == Id::NONE { [mixed, x] } else { [mixed, x].map(|id| g.get_rows(id, ids)) };
    let mixed = g.add(mixed, x);
    let normed = g.norm(Norm::Rms, mixed, Role::PostAttentionNorm);
    let fed = qwen_next::network(g, normed);
    g.add(fed, mixed)
}

/// Nemotron H's block: attention without rope, then experts on the rows that are put out.
fn nemotron(g: &mut Builder, x: Id, ids: Id) -> Id {
    let input = g.attention_input();
    let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
    let qkv = g.qkv(normed);
    let attended = g.attend(&input, qkv, Extras::default());
    let attended = g.add(attended, x);
    let kept = g.get_rows(attended, ids);
    let normed = g.norm(Norm::Rms, kept, Role::PostAttentionNorm);
    let fed = mamba::nemotron_network(g, normed);
    g.add(fed, kept)
}
