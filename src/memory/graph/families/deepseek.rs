//! DeepSeek V2 and V3 and the other dense models with latent attention.

use super::super::attention::{AttentionInput, Extras, Qkv};
use super::super::feed_forward::{Activation, DENSE, Experts, GateType, Gating, Norm, SHARED};
use super::super::model::Builder;
use super::super::tensor::{F32, Id};
use super::Family;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "deepseek2" | "mistral4" => deepseek2,
        "deepseek2-ocr" => ocr,
        "minicpm3" => minicpm3,
        "plm" => plm,
        _ => return None,
    })
}

/// DeepSeek V2 and V3, GLM 4.7 Flash, Mistral Large: latent attention, experts behind the leading
/// dense blocks.
fn deepseek2(g: &mut Builder) {
    decoder(g, latent);
}

fn latent(g: &mut Builder, normed: Id, inputs: &Inputs) -> Id {
    let q = g.latent_queries(normed);
    let (row, turned) = g.latent_row(normed, inputs.positions, Id::NONE);
    let (mut qkv, v_mla) = if g.is_absorbed() {
        (g.absorbed(q, row, turned, inputs.positions), g.weight(Role::AttnVB))
    } else {
        (g.decompressed(q, row, turned, inputs.positions, Id::NONE), Id::NONE)
    };
    if inputs.scales != Id::NONE {
        qkv.q = g.mul(qkv.q, inputs.scales);
    }
    g.attend(&inputs.attention, qkv, Extras { v_mla, ..Extras::default() })
}

/// The block that drafts, as any other; where the others look at the best cells, it looks at all.
pub(super) fn draft_block(g: &mut Builder, x: Id) -> Id {
    let inputs = Inputs { positions: g.positions(), attention: g.keys_input(), scales: Id::NONE };
    let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
    let attended = latent(g, normed, &inputs);
    network(g, attended, x)
}

/// DeepSeek OCR: plain attention, the rest as in DeepSeek V2.
fn ocr(g: &mut Builder) {
    decoder(g, |g, normed, inputs| {
        let qkv = g.qkv(normed);
        let q = g.rope(qkv.q, inputs.positions, Id::NONE);
        let k = g.rope(qkv.k, inputs.positions, Id::NONE);
        g.attend(&inputs.attention, Qkv { q, k, v: qkv.v }, Extras::default())
    });
}

/// What the blocks read beside the activations.
struct Inputs {
    positions: Id,
    attention: AttentionInput,
    /// What queries are multiplied with, token by token (`build_inp_attn_scale`).
    scales: Id,
}

/// The shape that DeepSeek's models share.
fn decoder(g: &mut Builder, mut attend: impl FnMut(&mut Builder, Id, &Inputs) -> Id) {
    let mut x = g.embeddings();
    let tokens = g.tokens();
    let scaled = g.float(Hyper::AttentionTemperatureScale) != 0.0;
    let scales = if scaled { g.input(F32, [1, 1, tokens, 1]) } else { Id::NONE };
    let positions = g.positions();
    let attention = if g.is_absorbed() { g.keys_input() } else { g.attention_input() };
    let inputs = Inputs { positions, attention, scales };
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let attended = attend(g, normed, &inputs);
        let [attended, residual] = g.keep_outputs(ids, [attended, x]);
        x = network(g, attended, residual);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    g.finish(logits);
}

/// The block behind its attention: residual, norm, dense network or experts, residual.
pub(super) fn network(g: &mut Builder, attended: Id, residual: Id) -> Id {
    let attended = g.add(attended, residual);
    let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
    let fed = if u64::from(g.index()) < g.number(Hyper::LeadingDenseBlocks) {
        g.swiglu(normed)
    } else {
        let how = Experts {
            gating: gating(g),
            normalises: g.number(Hyper::ExpertWeightsNorm) != 0,
            scales: scales_experts(g),

            ..Experts::default()
        };
        let routed = g.experts(normed, how);
        let shared = g.feed_forward(normed, SHARED, Activation::Silu, GateType::Parallel);
        g.add(routed, shared)
    };
    g.add(fed, attended)
}

/// Returns whether the weights of the chosen experts are multiplied with a factor: 0 stands for
/// none, 1 changes nothing (`build_moe_ffn`).
pub(super) fn scales_experts(g: &Builder) -> bool {
    let scale = g.float(Hyper::ExpertWeightsScale);
    scale != 0.0 && (scale - 1.0).abs() > f32::EPSILON
}

/// Returns how experts are chosen. Early files do not say: GLM 4.7 Flash, which llama.cpp tells by
/// its depth and vocabulary, takes a sigmoid, as do GLM 5's.
fn gating(g: &Builder) -> Gating {
    let structure = g.plan.structure;
    let trunk = structure.block_kinds().filter(|kind| !kind.mtp).count();
    let flash = matches!(trunk, 47 | 48) && structure.dimensions.vocabulary == 154_880;
    let sigmoid = flash || g.architecture() == "glm-dsa";
    let default = if sigmoid { Gating::Sigmoid } else { Gating::Softmax };
    Gating::from_header(g.number(Hyper::ExpertGatingFunc), default)
}

/// MiniCPM 3: latent attention whose keys and values are cached in full, residuals scaled.
fn minicpm3(g: &mut Builder) {
    let x = g.embeddings();
    let x = g.scale(x);
    let normed = compact(g, x, |g, attended, residual| {
        let attended = g.scale(attended);
        let attended = g.add(attended, residual);
        let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
        let fed = g.swiglu(normed);
        let fed = g.scale(fed);
        g.add(fed, attended)
    });
    g.set_output(normed);
    let scaled = g.scale(normed);
    let logits = g.vocabulary(scaled);
    g.finish(logits);
}

/// PLM: as MiniCPM 3 without its scales, with an ungated network.
fn plm(g: &mut Builder) {
    let x = g.embeddings();
    let normed = compact(g, x, |g, attended, residual| {
        let attended = g.add(attended, residual);
        let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
        let fed = g.feed_forward(normed, DENSE, Activation::ReluSqr, GateType::Sequential);
        g.add(fed, attended)
    });
    let logits = g.logits(normed);
    g.finish(logits);
}

/// The shape that small models with latent attention share; returns the last norm's result.
fn compact(g: &mut Builder, mut x: Id, mut feed: impl FnMut(&mut Builder, Id, Id) -> Id) -> Id {
    let positions = g.positions();
    let attention = g.attention_input();
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let factors = g.rope_factors();
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let q = g.latent_queries(normed);
        let (row, turned) = g.latent_row(normed, positions, factors);
        let qkv = g.decompressed(q, row, turned, positions, factors);
        let attended = g.attend(&attention, qkv, Extras::default());
        let [attended, residual] = g.keep_outputs(ids, [attended, x]);
        x = feed(g, attended, residual);
    }
    g.output_norm(Norm::Rms, x)
}
