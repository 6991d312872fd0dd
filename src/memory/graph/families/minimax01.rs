//! MiniMax 01: seven blocks of lightning attention, then one of the usual; all with experts.

use crate::memory::graph::attention::{Extras, Qkv};
use crate::memory::graph::feed_forward::{Experts, Norm};
use crate::memory::graph::model::{Builder, Cache};
use crate::memory::graph::recurrent::StateInput;
use crate::memory::graph::tensor::{F32, Id, Op, Tensor};
use crate::memory::tensor::Role;

use super::Family;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    (architecture == "minimax-01").then_some(minimax as Family)
}

/// How much a token counts for others, by distance and head (`llm_graph_input_la`).
struct Decays {
    slopes: Id,
    q: Id,
    k: Id,
    /// Within the micro-batch.
    pairs: Id,
}

impl Decays {
    fn new(g: &mut Builder) -> Decays {
        let (heads, tokens, slots) = (g.heads().q, g.sequence_tokens(), g.sequences());
        Decays {
            slopes: g.input(F32, [heads, 1, 1, 1]),
            q: g.input(F32, [1, heads, tokens, slots]),
            k: g.input(F32, [1, heads, tokens, slots]),
            pairs: g.input(F32, [tokens, tokens, heads, slots]),
        }
    }
}

/// MiniMax 01. What flows past attention and past the experts is their normed input, scaled.
fn minimax(g: &mut Builder) {
    let mut x = g.embeddings();
    let (state, input) = g.hybrid_input();
    let positions = g.positions();
    let ids = g.output_ids();
    let decays = Decays::new(g);
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let mixed = if g.kind().recurrent {
            lightning(g, &state, &decays, normed)
        } else {
            let Qkv { q, k, v } = g.qkv(normed);
            let q = g.rope(q, positions, Id::NONE);
            let k = g.rope(k, positions, Id::NONE);
            g.attend(&input, Qkv { q, k, v }, Extras::default())
        };
        let [mixed, residual] = g.keep_outputs(ids, [mixed, normed]);
        let residual = g.scale(residual);
        let mixed = g.add(mixed, residual);
        let normed = g.norm(Norm::Rms, mixed, Role::FfnNorm);
        let fed = g.experts(normed, Experts::default());
        let residual = g.scale(normed);
        x = g.add(fed, residual);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    g.finish(logits);
}

/// Linear attention whose state is the sum of all keys and values, older ones counting less. Its
/// convolution's state is loaded but never used.
fn lightning(g: &mut Builder, input: &StateInput, decays: &Decays, x: Id) -> Id {
    let heads = g.heads();
    let (head, count) = (heads.k, heads.q);
    let (tokens, slots) = (g.sequence_tokens(), g.sequences());
    g.load_state(input, Cache::R);
    let rate = g.scale(decays.slopes);
    let width = g.get(x).ne[0];
    let x = g.reshape(x, [width, tokens, 1, slots]);
    let all = g.project(Role::AttnQkv, x);
    let all = g.unary(Op::Silu, all);
    let all = g.reshape(all, [head.saturating_mul(3), count, tokens, slots]);
    let Tensor { nb, .. } = *g.get(all);
    let [q, k, v] = [0, 1, 2].map(|part: u64| {
        let at = part.saturating_mul(head).saturating_mul(nb[0]);
        g.view(all, [head, count, tokens, slots], [nb[1], nb[2], nb[3]], at)
    });
    let old = g.load_state(input, Cache::S);
    let old = g.reshape(old, [head, head, count, slots]);

    let [q_decay, k_decay, pairs] = [decays.q, decays.k, decays.pairs].map(|decay| {
        let decay = g.scale(decay);
        g.unary(Op::Exp, decay)
    });
    let decayed = g.mul(q, q_decay);
    let decayed = g.permute(decayed, [0, 2, 1, 3]);
    let from_state = g.mul_mat(old, decayed);
    let [q, turned] = [q, k].map(|part| g.permute(part, [0, 2, 1, 3]));
    let products = g.mul_mat(turned, q);
    let products = g.mul(products, pairs);
    let values = g.permute(v, [1, 2, 0, 3]);
    let values = g.cont(values);
    let from_batch = g.mul_mat(values, products);
    let attended = g.add(from_state, from_batch);
    g.expand(attended);

    let rate = g.scale(rate);
    let rate = g.unary(Op::Exp, rate);
    let rate = g.reshape(rate, [1, 1, count, 1]);
    let old = g.mul(old, rate);
    let keys = g.mul(k, k_decay);
    let keys = g.permute(keys, [1, 2, 0, 3]);
    let keys = g.cont(keys);
    let added = g.mul_mat(keys, values);
    let new = g.add(old, added);
    let width = head.saturating_mul(head).saturating_mul(count);
    g.store_state(Cache::S, new, width);

    let attended = g.permute(attended, [0, 2, 1, 3]);
    let attended = g.cont(attended);
    let [head, count, tokens, slots] = g.get(attended).ne;
    let attended = g.reshape(attended, [head.saturating_mul(count), tokens, 1, slots]);
    let normed = g.norm(Norm::Rms, attended, Role::AttnNorm2);
    let open = g.project(Role::AttnGate, x);
    let open = g.unary(Op::Sigmoid, open);
    let gated = g.mul(open, normed);
    let out = g.project(Role::AttnOutput, gated);
    let flat = [g.get(out).ne[0], g.tokens(), 1, 1];
    g.reshape(out, flat)
}
