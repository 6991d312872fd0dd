//! Decoders with networks of experts whose differences fit a table.
//!
//! They have llama's shape: norm, attention, residual, norm, experts, residual. What a file's
//! tensors show needs no row: norms of heads, sinks, a gate behind attention, shared experts and
//! their gate, dense blocks among those with experts, norms behind a part.

use super::super::attention::{AttentionInput, Extras, Qkv};
use super::super::feed_forward::{Activation, Experts, Gating, Norm, ROUTED};
use super::super::model::Builder;
use super::super::tensor::{F32, Id, Op};
use super::Family;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

/// What sets a decoder apart.
#[derive(Clone, Copy)]
struct Decoder {
    norm: Norm,
    /// Makes queries, keys and values of the normed input.
    qkv: fn(&mut Builder, Id, &Inputs) -> Qkv,
    /// The activation of the gate behind attention, where there is one.
    gate: Op,
    /// The norm before the experts.
    ffn_norm: Role,
    /// How experts are chosen and what they compute.
    experts: fn(&Builder) -> Experts,
    /// Where the rows that are put out are picked.
    crop: Crop,
}

/// Where the rows that are put out are picked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Crop {
    /// Behind the last attention.
    InLast,
    /// Behind the last block, whose result is put out for MTP as well (`t_h_nextn`).
    AfterLast,
    /// Behind the last norm, whose result is put out for MTP as well.
    AfterNorm,
}

/// What all blocks read beside the activations.
struct Inputs {
    positions: Id,
    /// What queries of blocks without rope are multiplied with, token by token (llama 4).
    temperatures: Id,
}

impl Inputs {
    fn new(g: &mut Builder) -> Inputs {
        let (tokens, positions) = (g.tokens(), g.positions());
        Inputs { positions, temperatures: g.input(F32, [1, 1, tokens, 1]) }
    }
}

const USUAL: Decoder = Decoder {
    norm: Norm::Rms,
    qkv: turned,
    gate: Op::Sigmoid,
    ffn_norm: Role::FfnNorm,
    experts: |_| SUMMED,
    crop: Crop::InLast,
};

/// A softmax over all experts, whose weights of the chosen are made to sum up to one.
const SUMMED: Experts = Experts {
    matrices: ROUTED,
    activation: Activation::Silu,
    gating: Gating::Softmax,
    normalises: true,
    scales: false,

    scores: Id::NONE,
    chosen: Id::NONE,
    weights_first: false,
};

/// A softmax over all experts, as it is.
const PLAIN: Experts = Experts { normalises: false, ..SUMMED };

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    describe(architecture).map(|_| build as Family)
}

/// The table.
fn describe(architecture: &str) -> Option<Decoder> {
    Some(match architecture {
        "ernie4_5-moe" | "mellum" | "qwen3vlmoe" | "rnd1" => USUAL,
        "llada-moe" | "qwen2moe" => Decoder { experts: |_| PLAIN, ..USUAL },
        "olmoe" => Decoder { qkv: normed_flat, experts: |_| PLAIN, ..USUAL },
        "hunyuan-moe" => Decoder { qkv: turned_first, ..USUAL },
        "maple" => Decoder { qkv: turned_in_windows, ..USUAL },
        "dbrx" => Decoder { norm: Norm::Layer, ffn_norm: Role::AttnOutputNorm, ..USUAL },
        "deepseek" => Decoder { experts: |g| Experts { scales: scales(g), ..PLAIN }, ..USUAL },
        "bailingmoe" => Decoder { experts: |g| Experts { gating: Gating::Softmax, ..by_header(g) }, ..USUAL },
        "afmoe" => Decoder { qkv: turned_but_for_some, experts: by_header, ..USUAL },
        "bailingmoe2" | "dots1" => Decoder { experts: by_header, ..USUAL },
        "exaone-moe" => Decoder { qkv: turned_in_windows, experts: by_header, ..USUAL },
        "glm4moe" => Decoder { ffn_norm: Role::PostAttentionNorm, experts: by_header, ..USUAL },
        "hy_v3" => Decoder { experts: by_header, crop: Crop::AfterNorm, ..USUAL },
        "laguna" => Decoder { gate: Op::Softplus, experts: by_header, ..USUAL },
        "step35" => Decoder { qkv: step35, experts: by_header, crop: Crop::AfterLast, ..USUAL },
        "mimo2" => Decoder { experts: |_| Experts { gating: Gating::Sigmoid, ..SUMMED }, ..USUAL },
        "minimax-m2" => Decoder {
            qkv: normed_flat,
            experts: |g| Experts { normalises: true, scales: false, ..by_header(g) },
            ..USUAL
        },
        "smallthinker" => Decoder {
            qkv: turned_but_for_some,
            experts: |g| Experts { activation: Activation::Relu, normalises: true, scales: false, ..by_header(g) },
            ..USUAL
        },
        "llama4" => Decoder {
            qkv: llama4,
            experts: |_| Experts { gating: Gating::Sigmoid, weights_first: true, ..PLAIN },
            ..USUAL
        },
        "gpt-oss" => Decoder {
            ffn_norm: Role::PostAttentionNorm,
            experts: |_| Experts { activation: Activation::SwigluOai, gating: Gating::SoftmaxWeight, ..PLAIN },
            crop: Crop::AfterLast,
            ..USUAL
        },
        _ => return None,
    })
}

/// The block behind its attention: residual, norm, experts or a dense network, residual.
pub(super) fn feed_by_header(g: &mut Builder, attended: Id, residual: Id) -> Id {
    let attended = g.add(attended, residual);
    let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
    let fed = if g.has(Role::FfnGateInp) {
        let how = by_header(g);
        g.routed_and_shared(normed, how)
    } else {
        g.swiglu(normed)
    };
    g.add(fed, attended)
}

/// Reads from the header how experts are chosen; models whose header does not say take a sigmoid.
pub(super) fn by_header(g: &Builder) -> Experts {
    Experts {
        gating: Gating::from_header(g.number(Hyper::ExpertGatingFunc), Gating::Sigmoid),
        normalises: g.number(Hyper::ExpertWeightsNorm) != 0,
        scales: scales(g),
        ..SUMMED
    }
}

/// Returns whether the header has a factor for the experts' weights; 0 stands for none, 1 changes
/// nothing (`build_moe_ffn`).
fn scales(g: &Builder) -> bool {
    let scale = g.float(Hyper::ExpertWeightsScale);
    scale != 0.0 && (scale - 1.0).abs() > f32::EPSILON
}

/// Builds a model of the table.
fn build(g: &mut Builder) {
    let Some(how) = describe(g.architecture()) else { return };
    let embeddings = g.embeddings();
    // afmoe alone scales its embeddings whatever the header says.
    let mut x = if g.architecture() == "afmoe" { g.scale(embeddings) } else { embeddings };
    let inputs = Inputs::new(g);
    let caches = if g.plan.structure.memory.any { g.attention_input() } else { g.batch_input() };
    let ids = g.output_ids();
    // MiMo 2 puts the hidden states out as they are before the last norm.
    let late = g.plan.shows_states && g.architecture() == "mimo2";
    let crop = if late { Crop::AfterLast } else { how.crop };
    let ids_in_last = if crop == Crop::InLast { ids } else { Id::NONE };
    for &block in g.blocks() {
        g.enter(Some(block));
        if g.kind().deepstack {
            let more = g.deepstack();
            x = g.add(x, more);
        }
        // smallthinker chooses its experts by what the block begins with.
        let early = g.architecture() == "smallthinker";
        let scores = if early { g.project(Role::FfnGateInp, x) } else { Id::NONE };
        let normed = g.norm(how.norm, x, Role::AttnNorm);
        let attended = attend(g, &how, normed, &inputs, &caches);
        let [attended, residual, scores] = g.keep_outputs(ids_in_last, [attended, x, scores]);
        let attended = g.add(attended, residual);
        x = feed(g, &how, attended, scores);
    }
    if crop == Crop::AfterLast {
        g.set_output(x);
        x = g.get_rows(x, ids);
    }
    let mut normed = g.output_norm(how.norm, x);
    if crop == Crop::AfterNorm {
        g.set_output(normed);
        normed = g.get_rows(normed, ids);
    }
    let logits = g.logits(normed);
    g.finish(logits);
}

/// The block that drafts, as any other of its model.
pub(super) fn draft_block(g: &mut Builder, x: Id, caches: &AttentionInput) -> Id {
    let Some(how) = describe(g.architecture()) else { return x };
    let inputs = Inputs::new(g);
    let normed = g.norm(how.norm, x, Role::AttnNorm);
    let attended = attend(g, &how, normed, &inputs, caches);
    let attended = g.add(attended, x);
    feed(g, &how, attended, Id::NONE)
}

/// The block behind its attention: norm, experts or a dense network, residual.
fn feed(g: &mut Builder, how: &Decoder, attended: Id, scores: Id) -> Id {
    let normed = g.norm(how.norm, attended, how.ffn_norm);
    let fed = if scores != Id::NONE || g.has(Role::FfnGateInp) {
        let experts = Experts { scores, ..(how.experts)(g) };
        g.routed_and_shared(normed, experts)
    } else {
        g.swiglu(normed)
    };
    let fed = g.norm_if(how.norm, fed, Role::PostFfwNorm);
    g.add(fed, attended)
}

/// Attention with what follows up to the residual.
fn attend(g: &mut Builder, how: &Decoder, normed: Id, inputs: &Inputs, caches: &AttentionInput) -> Id {
    let qkv = (how.qkv)(g, normed, inputs);
    let sinks = g.sinks();
    let mut attended = if g.has(Role::AttnGate) {
        let attended = g.attend(caches, qkv, Extras { sinks, ..Extras::no_output() });
        let gated = g.gate_attention(attended, normed, how.gate);
        g.project(Role::AttnOutput, gated)
    } else {
        g.attend(caches, qkv, Extras { sinks, ..Extras::default() })
    };
    if how.ffn_norm != Role::PostAttentionNorm {
        attended = g.norm_if(how.norm, attended, Role::PostAttentionNorm);
    }
    let scale = g.float(Hyper::AttentionValueScale);
    let scaled = g.architecture() == "mimo2" && scale != 0.0 && (scale - 1.0).abs() > f32::EPSILON;
    if scaled { g.scale(attended) } else { attended }
}

/// Norms of heads where there are any, then rope.
fn turned(g: &mut Builder, x: Id, inputs: &Inputs) -> Qkv {
    let qkv = normed(g, x);
    turn(g, qkv, inputs)
}

/// As [`turned`], with rope in windowed blocks alone.
fn turned_in_windows(g: &mut Builder, x: Id, inputs: &Inputs) -> Qkv {
    let qkv = normed(g, x);
    if g.kind().windowed { turn(g, qkv, inputs) } else { qkv }
}

/// As [`turned`], without rope in blocks that leave queries and keys unturned.
fn turned_but_for_some(g: &mut Builder, x: Id, inputs: &Inputs) -> Qkv {
    let qkv = normed(g, x);
    if g.kind().nope { qkv } else { turn(g, qkv, inputs) }
}

/// Rope, then norms of heads.
fn turned_first(g: &mut Builder, x: Id, inputs: &Inputs) -> Qkv {
    let qkv = g.qkv(x);
    let qkv = turn(g, qkv, inputs);
    let q = g.norm(Norm::Rms, qkv.q, Role::AttnQNorm);
    let k = g.norm(Norm::Rms, qkv.k, Role::AttnKNorm);
    Qkv { q, k, v: qkv.v }
}

/// Norms over all heads at once, then rope.
fn normed_flat(g: &mut Builder, x: Id, inputs: &Inputs) -> Qkv {
    let flat = g.qkv_flat(x);
    let q = g.norm(Norm::Rms, flat.q, Role::AttnQNorm);
    let k = g.norm(Norm::Rms, flat.k, Role::AttnKNorm);
    let qkv = g.shape_heads(Qkv { q, k, v: flat.v });
    turn(g, qkv, inputs)
}

/// Step 3.5: the file's rope factors are for full blocks alone.
fn step35(g: &mut Builder, x: Id, inputs: &Inputs) -> Qkv {
    let flat = g.qkv_flat(x);
    let qkv = g.shape_heads(flat);
    let q = g.norm_if(Norm::Rms, qkv.q, Role::AttnQNorm);
    let k = g.norm_if(Norm::Rms, qkv.k, Role::AttnKNorm);
    let factors = if g.kind().windowed { Id::NONE } else { g.rope_factors() };
    let q = g.rope(q, inputs.positions, factors);
    let k = g.rope(k, inputs.positions, factors);
    Qkv { q, k, v: qkv.v }
}

/// Llama 4: in the last of four blocks queries are scaled by the position instead of turned; the
/// others' queries and keys have norms without weights, but for Maverick, which llama.cpp tells by
/// its experts.
fn llama4(g: &mut Builder, x: Id, inputs: &Inputs) -> Qkv {
    let Qkv { q, k, v } = g.qkv(x);
    if g.kind().nope {
        return Qkv { q: g.mul(q, inputs.temperatures), k, v };
    }
    let Qkv { q, k, v } = turn(g, Qkv { q, k, v }, inputs);
    if g.plan.structure.dimensions.experts == 128 {
        return Qkv { q, k, v };
    }
    Qkv { q: g.unary(Op::RmsNorm, q), k: g.unary(Op::RmsNorm, k), v }
}

/// Queries, keys and values, with norms of heads where there are any.
fn normed(g: &mut Builder, x: Id) -> Qkv {
    let qkv = g.qkv(x);
    let q = g.norm_if(Norm::Rms, qkv.q, Role::AttnQNorm);
    let k = g.norm_if(Norm::Rms, qkv.k, Role::AttnKNorm);
    Qkv { q, k, v: qkv.v }
}

/// Turns queries and keys by their positions.
fn turn(g: &mut Builder, qkv: Qkv, inputs: &Inputs) -> Qkv {
    let factors = g.rope_factors();
    let q = g.rope(qkv.q, inputs.positions, factors);
    let k = g.rope(qkv.k, inputs.positions, factors);
    Qkv { q, k, v: qkv.v }
}
