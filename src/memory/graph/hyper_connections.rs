//! Hyper-connections: several residual streams, mixed anew before and behind every part of a block
//! (`build_hc_pre`, `build_hc_post`, `build_hc_head` in `deepseek4.cpp`).

use super::model::Builder;
use super::tensor::{F32, FusedOp, Id, Op, Tensor, row_bytes};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

/// More residual streams than any model has.
const MOST_STREAMS: u64 = 64;

/// The tensors that mix the streams around a part of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mixing {
    pub(super) function: Role,
    pub(super) scale: Role,
    pub(super) base: Role,
}

/// Around attention.
pub(super) const ATTENTION: Mixing =
    Mixing { function: Role::HcAttnFn, scale: Role::HcAttnScale, base: Role::HcAttnBase };

/// Around the feed-forward network.
pub(super) const NETWORK: Mixing = Mixing { function: Role::HcFfnFn, scale: Role::HcFfnScale, base: Role::HcFfnBase };

/// How the streams are joined again behind a part of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joint {
    /// What each stream takes of the result.
    pub(super) post: Id,
    /// What each stream takes of the streams.
    pub(super) comb: Id,
}

impl Builder<'_> {
    /// Returns how many residual streams there are; llama.cpp knows four.
    pub(super) fn streams(&self) -> u64 {
        self.number(Hyper::HyperConnections).clamp(1, MOST_STREAMS)
    }

    /// Repeats the embeddings for every stream.
    pub(super) fn spread_over_streams(&mut self, x: Id) -> Id {
        let (width, tokens, streams) = (self.embedding(), self.tokens(), self.streams());
        let x = self.reshape(x, [width, 1, tokens, 1]);
        self.repeat(x, [width, streams, tokens, 1])
    }

    /// Mixes the streams to one activation; returns it, and how to join it with them again.
    pub(super) fn mix(&mut self, x: Id, with: Mixing) -> (Id, Joint) {
        let streams = self.streams();
        let mixes = self.mixes(x, with.function, false);
        let scale = self.weight(with.scale);
        let base = self.weight(with.base);
        let tokens = self.get(x).ne[2];
        let part = |g: &mut Self, width: u64, index: u64, at: u64| {
            let Tensor { kind, nb, .. } = *g.get(mixes);
            let part = g.view_2d(mixes, [width, tokens], nb[1], row_bytes(kind, at));
            let kind = g.get(scale).kind;
            let scale = g.view_1d(scale, 1, row_bytes(kind, index));
            let kind = g.get(base).kind;
            let base = g.view_1d(base, width, row_bytes(kind, at));
            let part = g.mul(part, scale);
            g.add(part, base)
        };
        let pre = part(self, streams, 0, 0);
        let pre = self.unary(Op::Sigmoid, pre);
        let pre = self.scale(pre);
        let post = part(self, streams, 1, streams);
        let post = self.unary(Op::Sigmoid, post);
        let post = self.scale(post);
        let comb = if self.plan.uses.hyper_connections_comb {
            let comb = self.other(Op::Dsv4HcComb, [streams, streams, tokens, 1], &[mixes, scale, base]);
            self.note_fused(FusedOp::HyperConnectionsComb, comb);
            comb
        } else {
            let comb = part(self, streams.saturating_mul(streams), 2, streams.saturating_mul(2));
            let comb = self.reshape(comb, [streams, streams, tokens, 1]);
            self.sinkhorn(comb)
        };
        (self.gather(x, pre), Joint { post, comb })
    }

    /// Returns the streams' product with a matrix of their own.
    pub(super) fn mixes(&mut self, x: Id, function: Role, outside: bool) -> Id {
        let Tensor { ne, .. } = *self.get(x);
        let flat = self.reshape(x, [ne[0].saturating_mul(ne[1]), ne[2], 1, 1]);
        let normed = self.unary(Op::RmsNorm, flat);
        let weight = if outside { self.output_weight(function, Suffix::Weight) } else { self.weight(function) };
        self.mul_mat(weight, normed)
    }

    /// Adds the streams up, each with its weight.
    fn gather(&mut self, x: Id, weights: Id) -> Id {
        let Tensor { ne, nb, .. } = *self.get(x);
        if self.block.is_some() && self.plan.uses.hyper_connections_pre {
            let gathered = self.other(Op::Dsv4HcPre, [ne[0], ne[2], 1, 1], &[x, weights]);
            self.note_fused(FusedOp::HyperConnectionsPre, gathered);
            return gathered;
        }
        let mut sum = Id::NONE;
        for stream in 0..ne[1] {
            let part = self.view_2d(x, [ne[0], ne[2]], nb[2], stream.saturating_mul(nb[1]));
            let strides = self.get(weights).nb;
            let weight = self.view_2d(weights, [1, ne[2]], strides[1], stream.saturating_mul(strides[0]));
            let part = self.mul(part, weight);
            sum = if sum == Id::NONE { part } else { self.add(sum, part) };
        }
        sum
    }

    /// Norms rows and columns of each token's matrix in turns.
    fn sinkhorn(&mut self, comb: Id) -> Id {
        let comb = self.soft_max(comb, Id::NONE, Id::NONE);
        let epsilon = self.constant(F32, [1, 1, 1, 1]);
        let epsilon = self.unary(Op::Fill, epsilon);
        let mut comb = self.add(comb, epsilon);
        for round in 0..self.number(Hyper::SinkhornIterations).clamp(1, 64) {
            if round > 0 {
                let sum = self.sum_rows(Op::SumRows, comb);
                let sum = self.add(sum, epsilon);
                comb = self.binary(Op::Div, comb, sum);
            }
            let turned = self.permute(comb, [1, 0, 2, 3]);
            let turned = self.cont(turned);
            let sum = self.sum_rows(Op::SumRows, turned);
            let sum = self.add(sum, epsilon);
            let sum = self.permute(sum, [1, 0, 2, 3]);
            comb = self.binary(Op::Div, comb, sum);
        }
        comb
    }

    /// Joins the result of a part of a block with the streams that went into it.
    pub(super) fn join(&mut self, x: Id, residual: Id, joint: Joint) -> Id {
        let Tensor { ne, nb, .. } = *self.get(residual);
        let [width, streams, tokens, _] = ne;
        let Joint { post, comb } = joint;
        if self.plan.uses.hyper_connections_post {
            let joined = self.other(Op::Dsv4HcPost, [width, streams, tokens, 1], &[x, residual, post, comb]);
            self.note_fused(FusedOp::HyperConnectionsPost, joined);
            return joined;
        }
        let (post_nb, comb_nb) = (self.get(post).nb, self.get(comb).nb);
        let mut joined = Id::NONE;
        for to in 0..streams {
            let weight = self.view_2d(post, [1, tokens], post_nb[1], to.saturating_mul(post_nb[0]));
            let mut sum = self.mul(x, weight);
            for from in 0..streams {
                let part = self.view_2d(residual, [width, tokens], nb[2], from.saturating_mul(nb[1]));
                let at = to.saturating_mul(comb_nb[0]).saturating_add(from.saturating_mul(comb_nb[1]));
                let weight = self.view_2d(comb, [1, tokens], comb_nb[2], at);
                let part = self.mul(part, weight);
                sum = self.add(sum, part);
            }
            let sum = self.reshape(sum, [width, 1, tokens, 1]);
            joined = if joined == Id::NONE { sum } else { self.concat(joined, sum, 1) };
        }
        joined
    }

    /// Mixes the streams to what the output layer reads.
    pub(super) fn mix_output(&mut self, x: Id) -> Id {
        self.enter(None);
        let mixes = self.mixes(x, Role::OutputHcFn, true);
        let scale = self.output_weight(Role::OutputHcScale, Suffix::Weight);
        let base = self.output_weight(Role::OutputHcBase, Suffix::Weight);
        let pre = self.mul(mixes, scale);
        let pre = self.add(pre, base);
        let pre = self.unary(Op::Sigmoid, pre);
        let pre = self.scale(pre);
        self.gather(x, pre)
    }
}
