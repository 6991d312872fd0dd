//! PLaMo 2: Mamba with heads, or attention, each with norms around it.

use crate::memory::graph::attention::{Extras, Qkv};
use crate::memory::graph::feed_forward::{Activation, DENSE, GateType, Norm};
use crate::memory::graph::model::{Builder, Cache};
use crate::memory::graph::ops::Glu;
use crate::memory::graph::recurrent::{StateInput, product};
use crate::memory::graph::tensor::{Id, Op, Tensor};
use crate::memory::tensor::Role;

use super::Family;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    (architecture == "plamo2").then_some(plamo2 as Family)
}

/// PLaMo 2. Many of its norms stand in the file without a suffix.
fn plamo2(g: &mut Builder) {
    let mut x = g.embeddings();
    let positions = g.positions();
    let (state, input) = g.hybrid_input();
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let mixed = if g.kind().recurrent {
            mamba(g, &state, normed)
        } else {
            let Qkv { q, k, v } = g.qkv(normed);
            let q = g.norm(Norm::Rms, q, Role::AttnQNorm);
            let q = g.rope(q, positions, Id::NONE);
            let k = g.norm(Norm::Rms, k, Role::AttnKNorm);
            let k = g.rope(k, positions, Id::NONE);
            g.attend(&input, Qkv { q, k, v }, Extras::default())
        };
        let [mixed, residual] = g.keep_outputs(ids, [mixed, x]);
        let mixed = bare_norm(g, mixed, Role::PostAttentionNorm);
        let mixed = g.add(mixed, residual);
        let normed = g.norm(Norm::Rms, mixed, Role::FfnNorm);
        let fed = g.feed_forward(normed, DENSE, Activation::Swiglu, GateType::Sequential);
        let fed = bare_norm(g, fed, Role::PostFfwNorm);
        x = g.add(fed, mixed);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    g.finish(logits);
}

fn bare_norm(g: &mut Builder, x: Id, role: Role) -> Id {
    let weight = g.bare(role);
    g.norm_with(Norm::Rms, x, weight, Id::NONE)
}

/// Mamba as PLaMo has it (`build_plamo2_mamba_layer`): heads like the second, B, C and time steps
/// from what was convolved like the first.
fn mamba(g: &mut Builder, input: &StateInput, x: Id) -> Id {
    let sizes = g.mamba_sizes();
    let (taps, state, heads, head) = (sizes.taps, sizes.state, sizes.heads, sizes.head());
    let (tokens, slots) = (g.sequence_tokens(), g.sequences());
    let inner = head.saturating_mul(heads);
    let before = g.load_state(input, Cache::R);
    let before = g.reshape(before, [taps, sizes.channels(), slots, 1]);
    let x = g.by_sequence(x);
    let zx = g.project(Role::SsmIn, x);
    let zx = g.permute(zx, [0, 2, 1, 3]);
    let zx = g.cont_as(zx, [head.saturating_mul(2), heads, tokens, slots]);
    let Tensor { nb, .. } = *g.get(zx);
    let [z, x] =
        [0, head.saturating_mul(nb[0])].map(|at| g.view(zx, [head, heads, tokens, slots], [nb[1], nb[2], nb[3]], at));
    let x = g.cont_as(x, [inner, tokens, slots, 1]);
    let turned = g.transpose(x);
    let window = g.concat(before, turned, 0);
    let last = g.last_taps(window, taps, 0);
    g.store_state(Cache::R, last, product(&[taps, sizes.channels()]));
    let kernel = g.weight(Role::SsmConv1d);
    let x = g.ssm_conv(window, kernel);
    let x = g.unary(Op::Silu, x);

    let parts = g.project(Role::SsmX, x);
    let Tensor { nb, .. } = *g.get(parts);
    let rank = (g.embedding() / 16).max(64);
    let shapes =
        [(state, 0, Role::SsmBNorm), (state, state, Role::SsmCNorm), (rank, state.saturating_mul(2), Role::SsmDtNorm)];
    let [b, c, step] = shapes.map(|(width, at, norm)| {
        let part = g.view_3d(parts, [width, tokens, slots], [nb[1], nb[2]], at.saturating_mul(nb[0]));
        bare_norm(g, part, norm)
    });
    let step = g.project_biased(Role::SsmDt, step);
    let a = g.bare(Role::SsmA);
    let a = g.reshape(a, [1, heads, 1, 1]);
    let size = g.get(x).nb[0];
    let row = head.saturating_mul(size);
    let strides = [row, row.saturating_mul(heads), product(&[row, heads, tokens])];
    let x = g.view(x, [head, heads, tokens, slots], strides, 0);
    let [b, c] = [b, c].map(|part| {
        let Tensor { nb, .. } = *g.get(part);
        g.view(part, [state, 1, tokens, slots], [state.saturating_mul(nb[0]), nb[1], nb[2]], 0)
    });
    let scanned = g.scan_over(input, [state, head, heads], 1, a, [x, step, b, c]);
    let width = state.saturating_mul(inner);
    let states = g.view_1d(scanned, width.saturating_mul(slots), product(&[inner, tokens, slots, size]));
    g.store_state(Cache::S, states, width);

    let y = g.view(scanned, [head, heads, tokens, slots], strides, 0);
    let d = g.bare(Role::SsmD);
    let d = g.reshape(d, [1, heads, 1, 1]);
    let passed = g.mul(x, d);
    let y = g.add(y, passed);
    let z = g.cont(z);
    let y = g.glu(Glu::Plain, z, y);
    let Tensor { nb, .. } = *g.get(y);
    let y = g.view_3d(y, [inner, tokens, slots], [nb[2], nb[3]], 0);
    let out = g.project(Role::SsmOut, y);
    g.by_token(out)
}
