//! Granite Switch: a dense model with adapters inside, of which each token chooses one.
//!
//! A cache of one head, behind the last block, remembers what each token chose; attention over it
//! gives the number of the adapter.

use super::super::attention::{AttentionInput, Extras, Qkv};
use super::super::feed_forward::Norm;
use super::super::model::Builder;
use super::super::tensor::{F32, I32, Id, Op, Tensor};
use super::Family;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    (architecture == "graniteswitch").then_some(switch as Family)
}

fn switch(g: &mut Builder) {
    let tokens = g.tokens();
    let ids = g.input(I32, [tokens, 1, 1, 1]);
    let table = g.input_weight(Role::TokenEmbd);
    let mut x = g.get_rows(table, ids);
    if g.float(Hyper::EmbeddingScale) != 0.0 {
        x = g.scale(x);
    }
    let positions = g.positions();
    let caches = g.attention_input();
    let mut adapters = choose(g, &caches);
    let outputs = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let attended = attend(g, normed, adapters, positions, &caches);
        let column = if g.is_last() { g.reshape(adapters, [1, tokens, 1, 1]) } else { Id::NONE };
        let [attended, residual, column] = g.keep_outputs(outputs, [attended, x, column]);
        if column != Id::NONE {
            let rows = g.get(column).ne[1];
            adapters = g.reshape(column, [rows, 1, 1, 1]);
        }
        let attended = scale_residual(g, attended);
        let attended = g.add(attended, residual);
        let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
        let gate = adapted(g, Role::FfnGate, normed, adapters);
        let up = adapted(g, Role::FfnUp, normed, adapters);
        let gate = g.unary(Op::Silu, gate);
        let active = g.mul(gate, up);
        let fed = adapted(g, Role::FfnDown, active, adapters);
        let fed = scale_residual(g, fed);
        x = g.add(fed, attended);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    let logits = g.scale(logits);
    g.finish(logits);
}

/// Returns the number of each token's adapter.
fn choose(g: &mut Builder, caches: &AttentionInput) -> Id {
    g.enter(Some(g.plan.structure.blocks.saturating_sub(1)));
    let (tokens, width) = (g.tokens(), g.heads().k);
    let mut lane = || {
        let signal = g.input(F32, [tokens, 1, 1, 1]);
        let signal = g.reshape(signal, [1, 1, tokens, 1]);
        g.pad(signal, [width.saturating_sub(1), 0, 0, 0])
    };
    let qkv = Qkv { q: lane(), k: lane(), v: lane() };
    let attended = g.attend(caches, qkv, Extras::no_output());
    let stride = g.get(attended).nb[1];
    let slots = g.view_2d(attended, [1, tokens], stride, 0);
    let slots = g.cont(slots);
    let slots = g.reshape(slots, [tokens, 1, 1, 1]);
    let slots = g.clamp(slots);
    let slots = g.unary(Op::Unary, slots);
    g.cast(slots, I32)
}

/// Attention, each of its matrices with its adapters.
fn attend(g: &mut Builder, normed: Id, adapters: Id, positions: Id, caches: &AttentionInput) -> Id {
    let (heads, tokens) = (g.heads(), g.tokens());
    let weight = g.weight(Role::AttnQkv);
    let qkv = g.mul_mat(weight, normed);
    let Tensor { nb, .. } = *g.get(qkv);
    let mut at = 0;
    let parts = [(Role::AttnQ, heads.q), (Role::AttnK, heads.kv), (Role::AttnV, heads.kv)].map(|(role, count)| {
        let width = heads.k.saturating_mul(count);
        let part = g.view_2d(qkv, [width, tokens], nb[1], at);
        at = at.saturating_add(width.saturating_mul(nb[0]));
        let part = g.cont(part);
        let change = adapter(g, role, normed, adapters);
        let part = g.add(part, change);
        g.reshape(part, [heads.k, count, tokens, 1])
    });
    let [mut q, mut k, v] = parts;
    let factors = g.rope_factors();
    q = g.rope(q, positions, factors);
    k = g.rope(k, positions, factors);
    let attended = g.attend(caches, Qkv { q, k, v }, Extras::no_output());
    adapted(g, Role::AttnOutput, attended, adapters)
}

/// Multiplies with a matrix and adds what the adapters change.
fn adapted(g: &mut Builder, role: Role, x: Id, adapters: Id) -> Id {
    let weight = g.weight(role);
    let product = g.mul_mat(weight, x);
    let change = adapter(g, role, x, adapters);
    g.add(product, change)
}

/// Returns what the adapters change of a product.
fn adapter(g: &mut Builder, role: Role, x: Id, adapters: Id) -> Id {
    let [width, tokens, ..] = g.get(x).ne;
    let rows = g.reshape(x, [width, 1, tokens, 1]);
    let ids = g.reshape(adapters, [1, tokens, 1, 1]);
    let [first, second] = [Suffix::LoraA, Suffix::LoraB].map(|half| g.tensor(role, half));
    let narrow = g.mul_mat_id(first, rows, ids);
    let change = g.mul_mat_id(second, narrow, ids);
    let width = g.get(change).ne[0];
    g.reshape(change, [width, tokens, 1, 1])
}

/// Scales half a block's result where the header says so.
fn scale_residual(g: &mut Builder, x: Id) -> Id {
    if g.float(Hyper::ResidualScale) == 0.0 { x } else { g.scale(x) }
}
