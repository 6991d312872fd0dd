//! Multi-head latent attention (MLA): keys and values are made from one narrow row a token.
//!
//! Either the row itself is cached and the heads' matrices are absorbed into queries and results,
//! so that all heads share one key, or keys and values of every head are made from it at once.

use super::attention::Qkv;
use super::feed_forward::Norm;
use super::model::Builder;
use super::tensor::{Id, Tensor, row_bytes};
use crate::memory::Change;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

/// The widths of latent attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Latent {
    /// Query heads.
    pub(super) heads: u64,
    /// A head's elements without a position.
    pub(super) nope: u64,
    /// A head's elements that are turned by the position.
    pub(super) rope: u64,
    /// A value head.
    pub(super) value: u64,
    /// The row that is made for a token, without its position's part (`kv_lora_rank`).
    pub(super) rank: u64,
}

impl Builder<'_> {
    /// Returns the elements of a head that are turned by the position (`n_rot`).
    pub(super) fn rotated(&self) -> u64 {
        match self.number(Hyper::RopeDimensions) {
            0 => self.heads().k,
            dimensions => dimensions,
        }
    }

    /// Returns whether the latent row is what is cached (`is_mla`).
    pub(super) fn is_absorbed(&self) -> bool {
        self.plan.structure.memory.keys_only
    }

    /// Returns the widths of latent attention. Where the row itself is cached the header's usual
    /// lengths are those of the row, and a head's own stand beside them.
    pub(super) fn latent(&self) -> Latent {
        let heads = self.heads();
        let full = [Hyper::KeyLengthMla, Hyper::ValueLengthMla, Hyper::KvLoraRank];
        // Windowed blocks of Dots 3 Note have their own.
        let windowed = [Hyper::KeyLengthMlaSwa, Hyper::ValueLengthMlaSwa, Hyper::KvLoraRankSwa];
        let own = self.kind().windowed && self.number(Hyper::KvLoraRankSwa) != 0;
        let [key, value, rank] = if own { windowed } else { full }.map(|key| self.number(key));
        let (key, value) = if self.is_absorbed() { (key, value) } else { (heads.k, heads.v) };
        let rope = self.rotated();
        Latent { heads: heads.q, nope: key.saturating_sub(rope), rope, value, rank }
    }

    /// Projects down to the queries' narrow row, with its norm (`q_lora_rank`).
    pub(super) fn narrow_queries(&mut self, x: Id) -> Id {
        let weight = self.weight(Role::AttnQA);
        let narrow = self.mul_mat(weight, x);
        self.norm(Norm::Rms, narrow, Role::AttnQANorm)
    }

    /// Projects to queries, by way of the narrow row where the model has one.
    pub(super) fn latent_queries(&mut self, x: Id) -> Id {
        let (from, role) =
            if self.has(Role::AttnQA) { (self.narrow_queries(x), Role::AttnQB) } else { (x, Role::AttnQ) };
        let weight = self.weight(role);
        self.mul_mat(weight, from)
    }

    /// Projects to the latent row, with its norm, and to the part of the key that is turned.
    pub(super) fn latent_row(&mut self, x: Id, positions: Id, factors: Id) -> (Id, Id) {
        let Latent { rope, rank, .. } = self.latent();
        let tokens = self.tokens();
        let weight = self.weight(Role::AttnKvAMqa);
        let both = self.mul_mat(weight, x);
        let Tensor { kind, nb, .. } = *self.get(both);
        let row = self.view_2d(both, [rank, tokens], nb[1], 0);
        let turned = self.view_3d(both, [rope, 1, tokens], [nb[1], nb[1]], row_bytes(kind, rank));
        // Dots 3 Note norms it first.
        let turned = self.norm_if(Norm::Rms, turned, Role::AttnKNorm);
        let turned = self.turn(turned, positions, factors);
        let row = self.norm(Norm::Rms, row, Role::AttnKvANorm);
        (row, turned)
    }

    /// Turns by the positions; Kimi has none.
    fn turn(&mut self, x: Id, positions: Id, factors: Id) -> Id {
        if positions == Id::NONE { x } else { self.rope(x, positions, factors) }
    }

    /// Absorbs the keys' matrix into the queries: each head then looks at the latent row itself.
    pub(super) fn absorbed(&mut self, q: Id, row: Id, turned: Id, positions: Id) -> Qkv {
        let Latent { heads, nope, rope, rank, .. } = self.latent();
        let tokens = self.tokens();
        let kind = self.get(q).kind;
        let head = row_bytes(kind, nope.saturating_add(rope));
        let strides = [head, head.saturating_mul(heads)];
        let plain = self.view_3d(q, [nope, heads, tokens], strides, 0);
        let turned_q = self.view_3d(q, [rope, heads, tokens], strides, row_bytes(kind, nope));
        let turned_q = self.turn(turned_q, positions, Id::NONE);
        let plain = self.permute(plain, [0, 2, 1, 3]);
        let weight = self.weight(Role::AttnKB);
        let plain = self.mul_mat(weight, plain);
        let plain = self.permute(plain, [0, 2, 1, 3]);
        let q = self.concat(plain, turned_q, 0);
        let v = self.reshape(row, [rank, 1, tokens, 1]);
        let k = self.concat(v, turned, 0);
        Qkv { q, k, v }
    }

    /// Makes keys and values of every head from the latent row; the turned part is the same for all.
    pub(super) fn decompressed(&mut self, q: Id, row: Id, turned: Id, positions: Id, factors: Id) -> Qkv {
        let Latent { heads, nope, rope, value, .. } = self.latent();
        let tokens = self.tokens();
        let weight = self.weight(Role::AttnKvB);
        let both = self.mul_mat(weight, row);
        let kind = self.get(both).kind;
        let head = row_bytes(kind, nope.saturating_add(value));
        let strides = [head, head.saturating_mul(heads)];
        let plain = self.view_3d(both, [nope, heads, tokens], strides, 0);
        let v = self.view_3d(both, [value, heads, tokens], strides, row_bytes(kind, nope));
        let v = self.cont(v);
        let q = if self.plan.build.has(Change::OffsetRopes) {
            let q = self.reshape(q, [nope.saturating_add(rope), heads, tokens, 1]);
            self.rope(q, positions, factors)
        } else {
            let kind = self.get(q).kind;
            let head = row_bytes(kind, nope.saturating_add(rope));
            let strides = [head, head.saturating_mul(heads)];
            let plain = self.view_3d(q, [nope, heads, tokens], strides, 0);
            let turned = self.view_3d(q, [rope, heads, tokens], strides, row_bytes(kind, nope));
            let turned = self.rope(turned, positions, factors);
            self.concat(plain, turned, 0)
        };
        let turned = self.repeat(turned, [rope, heads, tokens, 1]);
        let k = self.concat(plain, turned, 0);
        Qkv { q, k, v }
    }
}
