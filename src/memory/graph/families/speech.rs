//! The language models inside speech synthesisers.

use super::super::attention::{Extras, Qkv};
use super::super::feed_forward::{Activation, DENSE, GateType, Norm};
use super::super::model::Builder;
use super::super::tensor::Id;
use super::Family;
use crate::memory::tensor::{Role, Suffix};

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "qwen3tts" => qwen3tts,
        "pockettts" => pockettts,
        _ => return None,
    })
}

/// Qwen 3 TTS: as Qwen 3 VL, with an output layer over the codec's tokens only; the logits of all
/// other tokens are filled in.
fn qwen3tts(g: &mut Builder) {
    let mut x = g.embeddings();
    let positions = g.positions();
    let input = g.attention_input();
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        if g.kind().deepstack {
            let more = g.deepstack();
            x = g.add(x, more);
        }
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let qkv = g.qkv(normed);
        let q = g.norm(Norm::Rms, qkv.q, Role::AttnQNorm);
        let q = g.rope(q, positions, Id::NONE);
        let k = g.norm(Norm::Rms, qkv.k, Role::AttnKNorm);
        let k = g.rope(k, positions, Id::NONE);
        let attended = g.attend(&input, Qkv { q, k, v: qkv.v }, Extras::default());
        let [attended, residual] = g.keep_outputs(ids, [attended, x]);
        let attended = g.add(attended, residual);
        let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
        let fed = g.swiglu(normed);
        x = g.add(fed, attended);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let mut logits = g.logits(normed);
    let [codec, rows, ..] = g.get(logits).ne;
    let table = g.input_weight(Role::TokenEmbd);
    let others = if table == Id::NONE { 0 } else { g.get(table).ne[1].saturating_sub(codec) };
    if others > 0 {
        let norm = g.output_weight(Role::OutputNorm, Suffix::Weight);
        let never = g.view_1d(norm, 1, 0);
        let never = g.scale(never);
        let never = g.repeat(never, [others, rows, 1, 1]);
        logits = g.concat(never, logits, 0);
    }
    g.finish(logits);
}

/// Pocket TTS: layer norms and an ungated network.
fn pockettts(g: &mut Builder) {
    let mut x = g.embeddings();
    let positions = g.positions();
    let input = g.attention_input();
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Layer, x, Role::AttnNorm);
        let qkv = g.qkv(normed);
        let q = g.rope(qkv.q, positions, Id::NONE);
        let k = g.rope(qkv.k, positions, Id::NONE);
        let attended = g.attend(&input, Qkv { q, k, v: qkv.v }, Extras::default());
        let [attended, residual] = g.keep_outputs(ids, [attended, x]);
        let attended = g.add(attended, residual);
        let normed = g.norm(Norm::Layer, attended, Role::FfnNorm);
        let fed = g.feed_forward(normed, DENSE, Activation::Gelu, GateType::Sequential);
        x = g.add(fed, attended);
    }
    let normed = g.output_norm(Norm::Layer, x);
    let logits = g.logits(normed);
    g.finish(logits);
}
