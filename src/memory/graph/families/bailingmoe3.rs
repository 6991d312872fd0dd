//! Ling 3 (`bailingmoe3`): experts behind either latent attention with a gate for each head, or a
//! gated delta net whose state decays element by element (KDA).

use super::super::attention::{AttentionInput, Extras};
use super::super::delta_net::Delta;
use super::super::feed_forward::Norm;
use super::super::model::{Builder, Cache};
use super::super::recurrent::{StateInput, product};
use super::super::tensor::{Id, Op, row_bytes};
use super::Family;
use super::moe::feed_by_header;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    (architecture == "bailingmoe3").then_some(build as Family)
}

fn build(g: &mut Builder) {
    let mut x = g.embeddings();
    let states = g.state_input();
    let rows = g.keys_input();
    let positions = g.positions();
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let attended =
            if g.kind().recurrent { delta_net(g, normed, &states) } else { latent(g, normed, positions, &rows) };
        x = feed_by_header(g, attended, x);
    }
    let normed = g.output_norm(Norm::Rms, x);
    g.set_output(normed);
    let normed = g.get_rows(normed, ids);
    let logits = g.logits(normed);
    g.finish(logits);
}

/// Latent attention with a gate for each head.
pub(super) fn latent(g: &mut Builder, x: Id, positions: Id, rows: &AttentionInput) -> Id {
    let q = g.latent_queries(x);
    let (row, turned) = g.latent_row(x, positions, Id::NONE);
    let qkv = g.absorbed(q, row, turned, positions);
    let v_mla = g.weight(Role::AttnVB);
    let attended = g.attend(rows, qkv, Extras { v_mla, ..Extras::no_output() });
    let (sizes, tokens) = (g.latent(), g.tokens());
    let gate = multiply(g, Role::AttnGate, x);
    let gate = g.reshape(gate, [1, sizes.heads, tokens, 1]);
    let gate = g.unary(Op::Sigmoid, gate);
    let attended = g.reshape(attended, [sizes.value, sizes.heads, tokens, 1]);
    let attended = g.mul(attended, gate);
    let attended = g.cont_as(attended, [sizes.value.saturating_mul(sizes.heads), tokens, 1, 1]);
    multiply(g, Role::AttnOutput, attended)
}

/// The gated delta net: queries, keys and values each through a convolution of their own.
fn delta_net(g: &mut Builder, normed: Id, input: &StateInput) -> Id {
    let (heads, head) = (g.heads().q, g.number(Hyper::KdaHeadDim));
    let (tokens, each, slots) = (g.tokens(), g.sequence_tokens(), g.slots());
    let before = g.load_state(input, Cache::R);
    let paths =
        [(Role::AttnQ, Role::SsmConv1dQ, 0), (Role::AttnK, Role::SsmConv1dK, 1), (Role::AttnV, Role::SsmConv1dV, 2)];
    let [q, k, v] = paths.map(|(matrix, taps, place)| {
        let convolved = convolve(g, normed, before, [matrix, taps], place);
        g.reshape(convolved, [head, heads, each, slots])
    });
    let gate = multiply(g, Role::SsmFA, normed);
    let bias = g.bias(Role::SsmDt);
    let gate = g.add(gate, bias);
    let gate = g.reshape(gate, [head, heads, tokens, 1]);
    let decay = g.bare(Role::SsmA);
    let decay = g.reshape(decay, [1, heads, 1, 1]);
    let gate = g.mul(gate, decay);
    let gate = g.unary(Op::Sigmoid, gate);
    let gate = g.scale(gate);
    let gate = g.reshape(gate, [head, heads, each, slots]);
    let beta = multiply(g, Role::SsmBeta, normed);
    let beta = g.reshape(beta, [1, heads, each, slots]);
    let beta = g.unary(Op::Sigmoid, beta);
    let (q, k) = (g.unit_norm(q), g.unit_norm(k));
    let state = g.delta_state(input, head, heads);
    let attended = g.delta_attention(Delta { q, k, v, gate, beta }, state);
    let attended = g.cont(attended);
    let open = multiply(g, Role::SsmGA, normed);
    let open = g.reshape(open, [head, heads, tokens, 1]);
    let attended = g.reshape(attended, [head, heads, tokens, 1]);
    let attended = g.norm(Norm::Rms, attended, Role::SsmNorm);
    let open = g.unary(Op::Sigmoid, open);
    let gated = g.mul(attended, open);
    let flat = g.cont_as(gated, [head.saturating_mul(heads), tokens, 1, 1]);
    multiply(g, Role::AttnOutput, flat)
}

/// Projects and convolves with the columns that the state has kept, and writes the newest back.
fn convolve(g: &mut Builder, x: Id, before: Id, [matrix, taps]: [Role; 2], place: u64) -> Id {
    let (tokens, each, slots) = (g.tokens(), g.sequence_tokens(), g.slots());
    let projected = multiply(g, matrix, x);
    let [width, ..] = g.get(projected).ne;
    let kernel = g.weight(taps);
    let [length, ..] = g.get(kernel).ne;
    let kept = length.saturating_sub(1);
    let kind = g.get(before).kind;
    // The states of queries, keys and values lie behind each other.
    let (row, own) = (row_bytes(kind, kept), row_bytes(kind, kept.saturating_mul(width)));
    let all = own.saturating_mul(3);
    let before = g.view_3d(before, [kept, width, slots], [row, all], own.saturating_mul(place));
    let projected = g.reshape(projected, [width, each, slots, 1]);
    let turned = g.transpose(projected);
    let window = g.concat(before, turned, 0);
    let cache = g.cache(g.index(), Cache::R);
    for number in 0..g.snapshots().min(each) {
        let newest = g.last_taps(window, kept, number);
        let at = product(&[number, g.plan.sizes.slots, all]).saturating_add(own.saturating_mul(place));
        let target = g.view_3d(cache, [kept, width, slots], [row, all], at);
        let stored = g.cpy(newest, target);
        g.expand(stored);
    }
    let kernel = g.reshape(kernel, [length, width, 1, 1]);
    let convolved = g.ssm_conv(window, kernel);
    let convolved = g.reshape(convolved, [width, tokens, 1, 1]);
    g.unary(Op::Silu, convolved)
}

/// Multiplies with a matrix alone.
fn multiply(g: &mut Builder, role: Role, x: Id) -> Id {
    let weight = g.weight(role);
    g.mul_mat(weight, x)
}
