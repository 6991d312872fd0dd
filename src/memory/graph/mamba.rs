//! Mamba's layers (`mamba-base.cpp`): a short convolution over the last tokens, then a scan that
//! carries the state along.

use super::feed_forward::Norm;
use super::model::{Builder, Cache};
use super::ops::Glu;
use super::recurrent::{StateInput, product};
use super::tensor::{Id, Op, Tensor};
use crate::memory::Change;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

/// The sizes of a Mamba layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mamba {
    /// Tokens that the convolution keeps.
    pub(super) taps: u64,
    /// Width inside (`ssm_d_inner`).
    pub(super) inner: u64,
    /// Width of a state (`ssm_d_state`).
    pub(super) state: u64,
    /// Heads, or the rank of the time step in the first Mamba (`ssm_dt_rank`).
    pub(super) heads: u64,
    /// Groups of B and C (`ssm_n_group`).
    pub(super) groups: u64,
}

impl Mamba {
    /// Returns the channels that are convolved: x, B and C.
    pub(super) fn channels(self) -> u64 {
        self.inner.saturating_add(product(&[2, self.groups, self.state]))
    }

    /// Returns the width of a head.
    pub(super) fn head(self) -> u64 {
        self.inner / self.heads.max(1)
    }
}

impl Builder<'_> {
    /// Returns the sizes of the model's Mamba layers.
    pub(super) fn mamba_sizes(&self) -> Mamba {
        Mamba {
            taps: self.number(Hyper::SsmConvKernel).saturating_sub(1),
            inner: self.number(Hyper::SsmInnerSize),
            state: self.number(Hyper::SsmStateSize),
            heads: self.number(Hyper::SsmTimeStepRank),
            groups: self.number(Hyper::SsmGroupCount),
        }
    }

    /// The first Mamba (`build_mamba_layer`): every channel a head of its own.
    pub(super) fn mamba(&mut self, input: &StateInput, x: Id) -> Id {
        let Mamba { taps, inner, state, heads: rank, .. } = self.mamba_sizes();
        let (tokens, slots) = (self.sequence_tokens(), self.sequences());
        let before = self.load_state(input, Cache::R);
        let before = self.reshape(before, [taps, inner, slots, 1]);
        let x = self.by_sequence(x);
        let xz = self.project(Role::SsmIn, x);
        let Tensor { ne, nb, .. } = *self.get(xz);
        let [x, z] =
            [0, inner].map(|at| self.view_3d(xz, [inner, ne[1], ne[2]], [nb[1], nb[2]], at.saturating_mul(nb[0])));
        let turned = self.transpose(x);
        let window = self.concat(before, turned, 0);
        let last = self.last_taps(window, taps, 0);
        self.store_state(Cache::R, last, taps.saturating_mul(inner));
        let x = self.convolve(window);

        let parts = self.project(Role::SsmX, x);
        let Tensor { nb, .. } = *self.get(parts);
        let step = self.view_3d(parts, [rank, tokens, slots], [nb[1], nb[2]], 0);
        let [b, c] = [rank, rank.saturating_add(state)].map(|at| {
            let strides = [state.saturating_mul(nb[0]), nb[1], nb[2]];
            self.view(parts, [state, 1, tokens, slots], strides, at.saturating_mul(nb[0]))
        });
        let has_norms = self.has(Role::SsmDtNorm) && self.has(Role::SsmBNorm) && self.has(Role::SsmCNorm);
        let (step, b, c) = if has_norms || self.number(Hyper::SsmDtBCRms) != 0 {
            let step = self.norm(Norm::Rms, step, Role::SsmDtNorm);
            let b = self.norm(Norm::Rms, b, Role::SsmBNorm);
            (step, b, self.norm(Norm::Rms, c, Role::SsmCNorm))
        } else if self.plan.build.has(Change::ContiguousSteps) {
            (self.cont(step), b, c)
        } else {
            (step, b, c)
        };
        let step = self.project_biased(Role::SsmDt, step);
        let heads = self.reshape(x, [1, inner, tokens, slots]);
        let scanned = self.scan(input, [state, 1, inner], 1, [heads, step, b, c]);
        let Tensor { ne, nb, .. } = *self.get(heads);
        let width = state.saturating_mul(inner);
        let states = self.view_1d(scanned, width.saturating_mul(slots), nb[3].saturating_mul(ne[3]));
        self.store_state(Cache::S, states, width);

        let y = self.view_3d(scanned, [inner, tokens, slots], [nb[2], nb[3]], 0);
        let y = self.skip(y, x);
        let z = self.cont(z);
        let y = self.glu(Glu::Plain, z, y);
        let out = self.project(Role::SsmOut, y);
        self.by_token(out)
    }

    /// The second Mamba (`build_mamba2_layer`): heads of some width, B and C convolved too.
    pub(super) fn mamba2(&mut self, input: &StateInput, x: Id) -> Id {
        let sizes = self.mamba_sizes();
        let Mamba { taps, inner, state, heads, groups } = sizes;
        let (channels, head) = (sizes.channels(), sizes.head());
        let (tokens, slots) = (self.sequence_tokens(), self.sequences());
        let before = self.load_state(input, Cache::R);
        let before = self.reshape(before, [taps, channels, slots, 1]);
        let is_flat = self.plan.build.has(Change::FlatProjections);
        let projected = if is_flat {
            let projected = self.project(Role::SsmIn, x);
            self.by_sequence(projected)
        } else {
            let x = self.by_sequence(x);
            self.project(Role::SsmIn, x)
        };
        let Tensor { nb, .. } = *self.get(projected);
        let z = self.view(projected, [head, heads, tokens, slots], [head.saturating_mul(nb[0]), nb[1], nb[2]], 0);
        let x = self.view_3d(projected, [channels, tokens, slots], [nb[1], nb[2]], inner.saturating_mul(nb[0]));
        let at = inner.saturating_add(channels).saturating_mul(nb[0]);
        let step = self.view_3d(projected, [heads, tokens, slots], [nb[1], nb[2]], at);
        let turned = self.transpose(x);
        let window = self.concat(before, turned, 0);
        for number in 0..self.snapshots().min(tokens) {
            let last = self.last_taps(window, taps, number);
            self.store_snapshot(Cache::R, last, taps.saturating_mul(channels), number);
        }
        let x = self.convolve(window);

        let Tensor { nb, .. } = *self.get(x);
        let mut part = |width: u64, count: u64, at: u64| {
            let strides = [width.saturating_mul(nb[0]), nb[1], nb[2]];
            self.view(x, [width, count, tokens, slots], strides, at.saturating_mul(nb[0]))
        };
        let x = part(head, heads, 0);
        let b = part(state, groups, inner);
        let c = part(state, groups, inner.saturating_add(state.saturating_mul(groups)));
        let step = self.cont(step);
        let bias = self.bias(Role::SsmDt);
        let step = self.add(step, bias);
        let snapshots = self.snapshots();
        let scanned = self.scan(input, [state, head, heads], snapshots, [x, step, b, c]);
        let behind = self.get(x).elements().saturating_mul(nb[0]);
        self.store_snapshots(Cache::S, scanned, state.saturating_mul(inner), behind);

        let row = self.get(x).nb[1];
        let strides = [row, row.saturating_mul(heads), product(&[row, heads, tokens])];
        let y = self.view(scanned, [head, heads, tokens, slots], strides, 0);
        let y = self.skip(y, x);
        let z = self.cont(z);
        let mut y = self.glu(Glu::Plain, z, y);
        if self.has(Role::SsmNorm) {
            y = self.reshape(y, [inner / groups.max(1), groups, tokens, slots]);
            y = self.norm(Norm::Rms, y, Role::SsmNorm);
        }
        let shape = if is_flat { [inner, self.tokens(), 1, 1] } else { [inner, tokens, slots, 1] };
        let y = self.reshape(y, shape);
        let out = self.project(Role::SsmOut, y);
        if is_flat { out } else { self.by_token(out) }
    }

    /// Returns a view of the last columns of a convolution's window, `number` tokens back.
    pub(super) fn last_taps(&mut self, window: Id, taps: u64, number: u64) -> Id {
        let Tensor { ne, nb, .. } = *self.get(window);
        let at = ne[0].saturating_sub(taps).saturating_sub(number).saturating_mul(nb[0]);
        self.view_3d(window, [taps, ne[1], ne[2]], [nb[1], nb[2]], at)
    }

    /// Convolves a window.
    fn convolve(&mut self, window: Id) -> Id {
        let kernel = self.weight(Role::SsmConv1d);
        let x = self.ssm_conv(window, kernel);
        let bias = self.bias(Role::SsmConv1d);
        let x = self.add_if(x, bias);
        self.unary(Op::Silu, x)
    }

    /// Scans x, the time steps, B and C over states of a shape, and keeps the newest of them.
    pub(super) fn scan(&mut self, input: &StateInput, shape: [u64; 3], snapshots: u64, parts: [Id; 4]) -> Id {
        let a = self.bare(Role::SsmA);
        self.scan_over(input, shape, snapshots, a, parts)
    }

    /// As [`Builder::scan`] with the decay given.
    pub(super) fn scan_over(
        &mut self,
        input: &StateInput,
        [state, head, heads]: [u64; 3],
        snapshots: u64,
        a: Id,
        [x, step, b, c]: [Id; 4],
    ) -> Id {
        self.scan_state(input, Cache::S, |g, states, ids| {
            let rows = g.get(states).ne[1];
            let states = g.reshape(states, [state, head, heads, rows]);
            g.ssm_scan([states, x, step, a, b, c, ids], u32::try_from(snapshots).unwrap_or(1))
        })
    }

    /// Adds what passes the scan by.
    fn skip(&mut self, y: Id, x: Id) -> Id {
        let d = self.bare(Role::SsmD);
        let passed = self.mul(x, d);
        self.add(y, passed)
    }
}
