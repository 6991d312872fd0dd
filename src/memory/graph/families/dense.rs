//! The dense models: llama's relatives, and those of GPT-2.

use super::Family;
use super::decoder::{Decoder, GPT, Inputs, LLAMA, Parts};
use crate::memory::graph::feed_forward::{Activation, Norm};
use crate::memory::graph::model::Builder;
use crate::memory::graph::tensor::{F32, Id, Op};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    let family: Family = match architecture {
        "llama" | "dream" | "ernie4_5" | "exaone" | "granitemoe" | "internlm2" | "llada" | "minicpm" | "mistral3"
        | "paddleocr" | "pangu-embedded" | "qwen" | "qwen2" | "qwen2vl" | "qwen3" | "qwen3moe" | "qwen3vl"
        | "xverse" => |g| LLAMA.build(g),
        // Each without a gate; apertus' xielu is as any other activation here.
        "arcee" => |g| Decoder { activation: Activation::ReluSqr, ..LLAMA }.build(g),
        "apertus" => |g| Decoder { activation: Activation::Relu, ..LLAMA }.build(g),
        // Gate and `up` are one matrix.
        "chatglm" => |g| Decoder { activation: Activation::Swiglu, ..LLAMA }.build(g),
        "phi3" => {
            |g| Decoder { activation: Activation::Swiglu, scales_queries: true, join: phi3_join, ..LLAMA }.build(g)
        }
        "glm4" => |g| Decoder { activation: Activation::Swiglu, join: normed_twice, ..LLAMA }.build(g),
        // Llama but for rope: alibi instead (baichuan's 13B, told by its depth, and refact), none in
        // each fourth block (smollm3), none at all in some (granite).
        "baichuan" => |g| Decoder { turns: |g| g.plan.structure.blocks == 32, ..LLAMA }.build(g),
        "refact" => |g| Decoder { turns: |_| false, ..LLAMA }.build(g),
        "smollm3" => |g| Decoder { turns: |g| !g.kind().nope, ..LLAMA }.build(g),
        "granite" => |g| Decoder { turns: |g| g.number(Hyper::RopeUntuned) == 0, ..LLAMA }.build(g),
        // Queries and keys are turned before they are normed.
        "hunyuan-dense" | "hunyuan_vl" | "maincoder" => |g| Decoder { turns_first: true, ..LLAMA }.build(g),
        "seed_oss" => |g| Decoder { join: in_turn_by_post_norm, ..LLAMA }.build(g),
        "openelm" => |g| Decoder { join: openelm_join, ..LLAMA }.build(g),
        "plamo" => |g| Decoder { join: beside, ..LLAMA }.build(g),
        "spark2_5" => |g| Decoder { activation: Activation::Gelu, ..LLAMA }.build(g),
        // Some of its blocks lack attention, or the network.
        "deci" => |g| Decoder { attention: deci_attention, join: deci_join, ..LLAMA }.build(g),
        "bitnet" => bitnet,
        "chameleon" => chameleon,
        // Puts out every row.
        "cogvlm" => cogvlm,
        "llama-embed" => llama_embed,
        "muse-glimmer" => muse_glimmer,
        "talkie" => talkie,
        // Layer norms and rope.
        "codeshell" | "starcoder2" => |g| GPT.build(g),
        "falcon" => |g| Decoder { attention: falcon_attention, join: beside, ..GPT }.build(g),
        "gptneox" => |g| Decoder { join: neox_join, ..GPT }.build(g),
        "phi2" => |g| Decoder { scales_queries: true, join: phi2_join, ..GPT }.build(g),
        "jais2" | "nemotron" => |g| Decoder { activation: Activation::ReluSqr, ..GPT }.build(g),
        "command-r" => |g| Decoder { activation: Activation::Silu, join: command_r_join, ..GPT }.build(g),
        "olmo" | "orion" => |g| Decoder { activation: Activation::Silu, ..GPT }.build(g),
        "stablelm" => |g| Decoder { activation: Activation::Silu, join: stablelm_join, ..GPT }.build(g),
        // Layer norms, and learned positions or alibi.
        "bloom" | "gpt2" | "mpt" | "starcoder" => |g| Decoder { turns: |_| false, ..GPT }.build(g),
        "jais" => |g| Decoder { activation: Activation::Silu, turns: |_| false, ..GPT }.build(g),
        _ => return None,
    };
    Some(family)
}

/// One half after the other, each normed before and after (glm4).
fn normed_twice(how: &Decoder, g: &mut Builder, Parts { x, attended, .. }: Parts) -> Id {
    let attended = g.norm(how.norm, attended, Role::PostAttentionNorm);
    let sum = g.add(attended, x);
    let normed = g.norm(how.norm, sum, Role::FfnNorm);
    let fed = how.network(g, normed);
    let fed = g.norm(how.norm, fed, Role::PostFfwNorm);
    g.add(fed, sum)
}

/// One half after the other, the network's norm named after attention (seed-oss).
fn in_turn_by_post_norm(how: &Decoder, g: &mut Builder, Parts { x, attended, .. }: Parts) -> Id {
    let sum = g.add(attended, x);
    let normed = g.norm(how.norm, sum, Role::PostAttentionNorm);
    let fed = how.network(g, normed);
    g.add(fed, sum)
}

/// One half after the other, the first sum the other way round: it then takes the place of what the
/// block was given.
fn openelm_join(how: &Decoder, g: &mut Builder, Parts { x, attended, .. }: Parts) -> Id {
    let sum = g.add(x, attended);
    let normed = g.norm(how.norm, sum, Role::FfnNorm);
    let fed = how.network(g, normed);
    g.add(fed, sum)
}

/// One half after the other, the second sum the other way round.
fn phi3_join(how: &Decoder, g: &mut Builder, Parts { x, attended, .. }: Parts) -> Id {
    let sum = g.add(attended, x);
    let normed = g.norm(how.norm, sum, Role::FfnNorm);
    let fed = how.network(g, normed);
    g.add(sum, fed)
}

/// The network beside attention, on the same norm (falcon, plamo).
fn beside(how: &Decoder, g: &mut Builder, Parts { x, normed, attended, .. }: Parts) -> Id {
    let fed = how.network(g, normed);
    let sum = g.add(fed, attended);
    g.add(sum, x)
}

/// The network beside attention, added in another order, which decides what is computed first.
fn phi2_join(how: &Decoder, g: &mut Builder, Parts { x, normed, attended, .. }: Parts) -> Id {
    let fed = how.network(g, normed);
    let sum = g.add(attended, fed);
    g.add(sum, x)
}

/// The network beside attention, added in yet another order.
fn command_r_join(how: &Decoder, g: &mut Builder, Parts { x, normed, attended, .. }: Parts) -> Id {
    let fed = how.network(g, normed);
    let sum = g.add(fed, x);
    g.add(sum, attended)
}

/// The network after attention or beside it, as the header says; always with a norm of its own.
fn neox_join(how: &Decoder, g: &mut Builder, parts: Parts) -> Id {
    if g.number(Hyper::UseParallelResidual) == 0 {
        return how.in_turn(g, parts);
    }
    let normed = g.norm(how.norm, parts.x, Role::FfnNorm);
    command_r_join(how, g, Parts { normed, ..parts })
}

/// Without a norm of its own the network reads what attention read.
fn stablelm_join(how: &Decoder, g: &mut Builder, parts: Parts) -> Id {
    if g.has(Role::FfnNorm) {
        return how.in_turn(g, parts);
    }
    let sum = g.add(parts.attended, parts.x);
    let fed = how.network(g, parts.normed);
    g.add(fed, sum)
}

/// Falcon 40B norms for attention apart.
fn falcon_attention(how: &Decoder, g: &mut Builder, inputs: &Inputs, Parts { x, normed, .. }: Parts) -> Id {
    let normed = if g.has(Role::AttnNorm2) { g.norm(how.norm, x, Role::AttnNorm2) } else { normed };
    how.attend(g, inputs, normed)
}

/// A block without query heads has no attention; one without keys a mere matrix.
fn deci_attention(how: &Decoder, g: &mut Builder, inputs: &Inputs, parts: Parts) -> Id {
    let heads = g.heads();
    match (heads.q, heads.kv) {
        (0, _) => Id::NONE,
        (_, 0) => {
            let weight = g.weight(Role::AttnOutput);
            g.mul_mat(weight, parts.normed)
        }
        _ => how.attend(g, inputs, parts.normed),
    }
}

/// A block without a network drops what attention gave: `deci.cpp` leaves it at `continue`.
fn deci_join(how: &Decoder, g: &mut Builder, parts: Parts) -> Id {
    let Parts { x, whole, attended, .. } = parts;
    if !g.has(Role::FfnUp) {
        return whole;
    }
    let sum = if attended == Id::NONE { x } else { g.add(attended, x) };
    let normed = g.norm(how.norm, sum, Role::FfnNorm);
    let fed = how.network(g, normed);
    g.add(fed, sum)
}

/// Bitnet: the logits come from the token embedding itself, where the input reads it.
fn bitnet(g: &mut Builder) {
    let x = g.embeddings();
    let x = LLAMA.blocks(g, x);
    let normed = g.output_norm(LLAMA.norm, x);
    g.set_embedding(normed);
    let table = g.input_weight(Role::TokenEmbd);
    let logits = g.mul_mat(table, normed);
    g.finish(logits);
}

/// Chameleon: norms heads with mean and deviation, and masks the tokens of images out. Of its two
/// sizes the larger norms after attention and network, not before (`swin_norm`).
fn chameleon(g: &mut Builder) {
    /// The first and the last of the tokens that stand for parts of an image.
    const IMAGES: std::ops::Range<u64> = 4..8_196;
    let swin = g.number(Hyper::SwinNorm) != 0;
    let how = Decoder { head_norm: Norm::Layer, ..LLAMA };
    let how = if swin { Decoder { attention: swin_attention, join: swin_join, ..how } } else { how };
    let x = g.embeddings();
    let x = how.blocks(g, x);
    let logits = how.logits(g, x);
    let hidden = g.constant(F32, [IMAGES.end - IMAGES.start, 1, 1, 1]);
    let hidden = g.unary(Op::Clamp, hidden);
    let logits = g.like(Op::Set, logits, &[logits, hidden]);
    g.finish(logits);
}

/// Attention on what was not normed.
fn swin_attention(how: &Decoder, g: &mut Builder, inputs: &Inputs, parts: Parts) -> Id {
    how.attend(g, inputs, parts.x)
}

/// Norms behind both halves; the network reads what attention gave, not the sum (so `chameleon.cpp`).
fn swin_join(how: &Decoder, g: &mut Builder, Parts { x, attended, .. }: Parts) -> Id {
    let attended = g.norm(how.norm, attended, Role::AttnNorm);
    let sum = g.add(attended, x);
    let fed = how.network(g, attended);
    let fed = g.norm(how.norm, fed, Role::FfnNorm);
    g.add(fed, sum)
}

/// `CogVLM`, which builds no numbers of rows: each token has its logits.
fn cogvlm(g: &mut Builder) {
    let x = g.embeddings();
    let x = LLAMA.blocks_with(g, x, Id::NONE);
    let logits = LLAMA.logits(g, x);
    g.finish(logits);
}

/// Llama as an embedding model: without a cache, without logits.
fn llama_embed(g: &mut Builder) {
    let x = g.embeddings();
    let x = LLAMA.blocks(g, x);
    let normed = g.output_norm(LLAMA.norm, x);
    g.finish_embedding(normed);
}

/// Muse-glimmer: embeddings normed, rope in windowed blocks only, norms behind both halves, logits
/// scaled and squeezed.
fn muse_glimmer(g: &mut Builder) {
    let how = Decoder { turns: |g| g.kind().windowed, attention: muse_attention, join: muse_join, ..LLAMA };
    let x = g.embeddings();
    let x = g.norm_with(how.norm, x, Id::NONE, Id::NONE);
    let x = how.blocks(g, x);
    let mut logits = how.logits(g, x);
    if g.float(Hyper::FinalLogitSoftcapping) != 0.0 {
        logits = g.soft_cap(logits);
    }
    g.finish(logits);
}

/// Attention, normed before the rows that are not put out are left out.
fn muse_attention(how: &Decoder, g: &mut Builder, inputs: &Inputs, parts: Parts) -> Id {
    let attended = how.attend(g, inputs, parts.normed);
    g.loose_norm_if(how.norm, attended, Role::PostAttentionNorm)
}

fn muse_join(how: &Decoder, g: &mut Builder, Parts { x, attended, .. }: Parts) -> Id {
    let sum = g.add(attended, x);
    let normed = g.norm(how.norm, sum, Role::FfnNorm);
    let fed = how.network(g, normed);
    let fed = g.loose_norm_if(how.norm, fed, Role::PostFfwNorm);
    g.add(fed, sum)
}

/// Talkie: no norm but that of queries has a weight, and each block adds the embeddings again.
fn talkie(g: &mut Builder) {
    let how = Decoder { turns_first: true, join: talkie_join, ..LLAMA };
    let x = g.embeddings();
    let x = g.norm_with(how.norm, x, Id::NONE, Id::NONE);
    let x = how.blocks(g, x);
    let logits = how.logits(g, x);
    g.finish(logits);
}

fn talkie_join(how: &Decoder, g: &mut Builder, parts: Parts) -> Id {
    let sum = how.in_turn(g, parts);
    let scale = g.weight(Role::LayerOutputScale);
    let skipped = g.mul(parts.first, scale);
    g.add(sum, skipped)
}
