//! Kimi's delta attention (KDA): a gated delta net whose state decays element by element, with a
//! convolution each for queries, keys and values.

use super::delta_net::Delta;
use super::feed_forward::Norm;
use super::model::{Builder, Cache};
use super::recurrent::{StateInput, product};
use super::tensor::{Id, Op, Tensor, row_bytes};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

/// How the state's decay is made of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decay {
    /// By a softplus.
    Softplus,
    /// By a sigmoid, so that it has a lower bound.
    Bounded,
}

impl Builder<'_> {
    /// A layer of Kimi's delta attention, its output projection included.
    pub(super) fn kda(&mut self, input: &StateInput, x: Id, decay: Decay) -> Id {
        let (heads, head) = (self.heads().q, self.number(Hyper::KdaHeadDim));
        let (tokens, each, slots) = (self.tokens(), self.sequence_tokens(), self.sequences());
        let inner = heads.saturating_mul(head);
        let before = self.load_state(input, Cache::R);
        let all = if self.has(Role::AttnQkv) { self.project(Role::AttnQkv, x) } else { Id::NONE };
        let paths = [
            (Role::AttnQ, Role::SsmConv1dQ, 0),
            (Role::AttnK, Role::SsmConv1dK, 1),
            (Role::AttnV, Role::SsmConv1dV, 2),
        ];
        let [q, k, v] = paths.map(|(matrix, kernel, place)| {
            let part = if all == Id::NONE { self.project(matrix, x) } else { self.kda_part(all, inner, place) };
            let convolved = self.kda_convolution(part, before, kernel, place);
            self.reshape(convolved, [head, heads, each, slots])
        });
        let gate = self.kda_decay(x, decay);
        let gate = self.reshape(gate, [head, heads, each, slots]);
        let beta = self.project(Role::SsmBeta, x);
        let beta = self.reshape(beta, [1, heads, each, slots]);
        let beta = self.unary(Op::Sigmoid, beta);
        let state = self.delta_state(input, head, heads);
        let (q, k) = (self.unit_norm(q), self.unit_norm(k));
        let attended = self.delta_attention(Delta { q, k, v, gate, beta }, state);
        let attended = self.cont(attended);
        let open = if self.has(Role::SsmG) {
            self.project(Role::SsmG, x)
        } else {
            let narrow = self.project(Role::SsmGA, x);
            self.project(Role::SsmGB, narrow)
        };
        let [open, attended] = [open, attended].map(|part| self.reshape(part, [head, heads, tokens, 1]));
        let normed = self.norm(Norm::Rms, attended, Role::SsmNorm);
        let open = self.unary(Op::Sigmoid, open);
        let gated = self.mul(normed, open);
        let gated = self.cont_as(gated, [inner, tokens, 1, 1]);
        self.project(Role::AttnOutput, gated)
    }

    /// Copies one of three parts out of what one matrix gave.
    fn kda_part(&mut self, all: Id, inner: u64, place: u64) -> Id {
        let (tokens, Tensor { nb, .. }) = (self.tokens(), *self.get(all));
        let part = self.view_2d(all, [inner, tokens], nb[1], product(&[place, inner, nb[0]]));
        self.cont(part)
    }

    /// Convolves over the last tokens, kept in one of three parts of the state.
    pub(super) fn kda_convolution(&mut self, x: Id, before: Id, kernel: Role, place: u64) -> Id {
        let (tokens, each, slots) = (self.tokens(), self.sequence_tokens(), self.sequences());
        let width = self.get(x).ne[0];
        let taps = self.number(Hyper::SsmConvKernel).saturating_sub(1);
        let kind = self.get(before).kind;
        let (row, own) = (row_bytes(kind, taps), row_bytes(kind, taps.saturating_mul(width)));
        let (all, at) = (own.saturating_mul(3), own.saturating_mul(place));
        let before = self.view_3d(before, [taps, width, slots], [row, all], at);
        let x = self.reshape(x, [width, each, slots, 1]);
        let turned = self.transpose(x);
        let window = self.concat(before, turned, 0);
        let cache = self.cache(self.index(), Cache::R);
        for number in 0..self.snapshots() {
            let last = self.last_taps(window, taps, number.min(each));
            let at = product(&[number, self.plan.sizes.slots, all]).saturating_add(at);
            let place = self.view_3d(cache, [taps, width, slots], [row, all], at);
            let stored = self.cpy(last, place);
            self.expand(stored);
        }
        let kernel = self.weight(kernel);
        let kernel = self.reshape(kernel, [taps.saturating_add(1), width, 1, 1]);
        let convolved = self.ssm_conv(window, kernel);
        let convolved = self.reshape(convolved, [width, tokens, 1, 1]);
        self.unary(Op::Silu, convolved)
    }

    /// Returns how much of the state is kept, element by element.
    fn kda_decay(&mut self, x: Id, decay: Decay) -> Id {
        let (heads, head) = (self.heads().q, self.number(Hyper::KdaHeadDim));
        let shape = [head, heads, self.tokens(), 1];
        let narrow = self.project(Role::SsmFA, x);
        let gate = self.project(Role::SsmFB, narrow);
        let bias = self.bias(Role::SsmDt);
        let gate = self.add(gate, bias);
        let a = self.bare(Role::SsmA);
        let a = self.reshape(a, [1, heads, 1, 1]);
        match decay {
            Decay::Softplus => {
                let gate = self.unary(Op::Softplus, gate);
                let gate = self.reshape(gate, shape);
                self.mul(gate, a)
            }
            Decay::Bounded => {
                let gate = self.reshape(gate, shape);
                let gate = self.mul(gate, a);
                let gate = self.scale(gate);
                let gate = self.unary(Op::Sigmoid, gate);
                self.scale(gate)
            }
        }
    }
}
