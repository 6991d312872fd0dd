//! The gated delta net (`delta-net-base.cpp`): linear attention whose state is corrected by what each
//! token adds to it.
//!
//! llama.cpp computes it in one operation; it never falls back to several (`auto_fgdn` is off).

use super::feed_forward::Norm;
use super::mamba::Mamba;
use super::model::{Builder, Cache};
use super::recurrent::{StateInput, product};
use super::tensor::{Id, Op, Tensor};
use crate::memory::tensor::Role;

/// What a gated delta net reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delta {
    /// Queries, keys and values, head by head.
    pub(super) q: Id,
    pub(super) k: Id,
    pub(super) v: Id,
    /// How much of the state is kept: one number a head, or one an element of it.
    pub(super) gate: Id,
    /// How much of a token goes in, one number a head.
    pub(super) beta: Id,
}

impl Builder<'_> {
    /// Reads the last columns of the state before a convolution's input, and writes the newest back
    /// (`build_conv_state`).
    pub(super) fn convolution_window(&mut self, input: &StateInput, x: Id, [taps, channels]: [u64; 2]) -> Id {
        let window = self.window_over(input, Cache::R, x, [taps, channels]);
        for number in (0..self.snapshots()).rev() {
            let last = self.last_taps(window, taps, number);
            self.store_snapshot(Cache::R, last, taps.saturating_mul(channels), number);
        }
        window
    }

    /// As [`Builder::convolution_window`] over the state of a choice, whose columns are copied before
    /// they are written back (`build_conv_state_at`).
    pub(super) fn copied_window(&mut self, input: &StateInput, which: Cache, x: Id, [taps, channels]: [u64; 2]) -> Id {
        let window = self.window_over(input, which, x, [taps, channels]);
        for number in 0..self.snapshots() {
            let last = self.last_taps(window, taps, number);
            let last = self.cont(last);
            self.store_snapshot(which, last, taps.saturating_mul(channels), number);
        }
        window
    }

    fn window_over(&mut self, input: &StateInput, which: Cache, x: Id, [taps, channels]: [u64; 2]) -> Id {
        let before = self.load_state(input, which);
        let shape = [taps, channels, self.sequences(), 1];
        let before = self.reshape(before, shape);
        let turned = self.transpose(x);
        self.concat(before, turned, 0)
    }

    /// Reads the states of the micro-batch's sequences, a square matrix a head.
    pub(super) fn delta_state(&mut self, input: &StateInput, head: u64, heads: u64) -> Id {
        let state = self.load_state(input, Cache::S);
        let shape = [head, head, heads, self.sequences()];
        self.reshape(state, shape)
    }

    /// Attends over states, and writes the new ones back (`build_recurrent_attn`).
    pub(super) fn delta_attention(&mut self, delta: Delta, state: Id) -> Id {
        let Tensor { ne, .. } = *self.get(state);
        let width = product(&[ne[0], ne[1], ne[2]]);
        let snapshots = self.snapshots();
        let (attended, result, behind) = self.delta_net(delta, state, snapshots);
        if snapshots > 1 {
            self.store_snapshots(Cache::S, result, width, behind);
            return attended;
        }
        let size = self.get(result).nb[0];
        let [row, head, slot] = [ne[0], product(&[ne[0], ne[1]]), width].map(|elements| elements.saturating_mul(size));
        let states = self.view(result, ne, [row, head, slot], behind);
        self.store_snapshot(Cache::S, states, width, 0);
        attended
    }

    /// The operation itself (`build_delta_net_fused`): returns what is attended to, the whole result,
    /// and where the new states begin in it.
    pub(super) fn delta_net(&mut self, delta: Delta, state: Id, snapshots: u64) -> (Id, Id, u64) {
        let Delta { q, k, v, gate, beta } = delta;
        let result = self.gated_delta_net([q, k, v, gate, beta, state], snapshots);
        let (ne, size) = (self.get(v).ne, self.get(result).nb[0]);
        let row = ne[0].saturating_mul(size);
        let strides = [row, row.saturating_mul(ne[1]), product(&[row, ne[1], ne[2]])];
        let attended = self.view(result, ne, strides, 0);
        (attended, result, product(&[row, ne[1], ne[2], ne[3]]))
    }

    /// Splits what was convolved into queries, keys and values, head by head.
    pub(super) fn delta_heads(&mut self, x: Id, sizes: Mamba) -> [Id; 3] {
        let (tokens, slots, size) = (self.sequence_tokens(), self.sequences(), self.get(x).nb[0]);
        let (key, value) = (sizes.state, sizes.head());
        let keys = key.saturating_mul(sizes.groups);
        let all = keys.saturating_mul(2).saturating_add(value.saturating_mul(sizes.heads));
        let token = all.saturating_mul(size);
        let shapes = [(key, sizes.groups, 0), (key, sizes.groups, keys), (value, sizes.heads, keys.saturating_mul(2))];
        shapes.map(|(width, heads, at)| {
            let strides = [width.saturating_mul(size), token, token.saturating_mul(tokens)];
            self.view(x, [width, heads, tokens, slots], strides, at.saturating_mul(size))
        })
    }

    /// Norms to length one (`build_gdn_l2_norm`).
    pub(super) fn unit_norm(&mut self, x: Id) -> Id {
        let normed = self.unary(Op::RmsNorm, x);
        self.scale(normed)
    }

    /// Norms what was attended to, head by head, and lets through what a gate z lets (`build_norm_gated`).
    pub(super) fn gated_norm(&mut self, attended: Id, z: Id, gate: Op) -> Id {
        let shape = self.get(attended).ne;
        let z = self.reshape(z, shape);
        let normed = self.norm(Norm::Rms, attended, Role::SsmNorm);
        let open = self.unary(gate, z);
        self.mul(normed, open)
    }
}
