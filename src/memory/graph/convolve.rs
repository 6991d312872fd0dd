//! ggml's operations on images and sound: convolutions, pooling, resizing (`ggml.c`, build 11434).
//!
//! An image lies with its width first: width, height, channels, number of images.

use super::tensor::{F16, F32, Graph, Id, Op, Tensor};
use crate::gguf::TensorType;

/// Steps and edges of a convolution: stride, padding on both sides and dilation, alike in width and
/// height.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    pub(super) stride: u64,
    pub(super) padding: u64,
    pub(super) dilation: u64,
}

impl Steps {
    /// Returns steps of a stride without padding.
    pub(super) const fn of(stride: u64) -> Steps {
        Steps { stride, padding: 0, dilation: 1 }
    }

    /// Returns the steps with padding.
    pub(super) const fn padded(self, padding: u64) -> Steps {
        Steps { padding, ..self }
    }

    /// Returns the steps with dilation.
    pub(super) const fn dilated(self, dilation: u64) -> Steps {
        Steps { dilation, ..self }
    }

    /// Returns how often a kernel fits (`ggml_calc_conv_output_size`).
    fn fits(self, size: u64, kernel: u64) -> u64 {
        let room = size.saturating_add(self.padding.saturating_mul(2));
        let reach = self.dilation.saturating_mul(kernel.saturating_sub(1)).saturating_add(1);
        room.checked_sub(reach).map_or(0, |rest| rest / self.stride.max(1) + 1)
    }
}

impl Graph {
    /// `ggml_im2col` for images: each place of the kernel becomes a row.
    pub(super) fn im2col(&mut self, kernel: Id, x: Id, steps: Steps, kind: TensorType) -> Id {
        let (k, from) = (self.get(kernel).ne, self.get(x).ne);
        let row = k[0].saturating_mul(k[1]).saturating_mul(k[2]);
        let ne = [row, steps.fits(from[0], k[0]), steps.fits(from[1], k[1]), from[3]];
        self.result(Op::Im2col, kind, ne, &[kernel, x])
    }

    /// `ggml_im2col` for sound: one dimension, channels second.
    pub(super) fn im2col_1d_by(&mut self, kernel: Id, x: Id, steps: Steps, kind: TensorType) -> Id {
        let (k, from) = (self.get(kernel).ne, self.get(x).ne);
        let ne = [k[0].saturating_mul(k[1]), steps.fits(from[0], k[0]), from[2], 1];
        self.result(Op::Im2col, kind, ne, &[kernel, x])
    }

    /// `ggml_conv_1d`.
    pub(super) fn conv_1d_by(&mut self, kernel: Id, x: Id, steps: Steps) -> Id {
        let kind = self.unfolded_kind(kernel);
        let unfolded = self.im2col_1d_by(kernel, x, steps, kind);
        let (u, k) = (self.get(unfolded).ne, self.get(kernel).ne);
        let a = self.reshape(unfolded, [u[0], u[2].saturating_mul(u[1]), 1, 1]);
        let b = self.reshape(kernel, [k[0].saturating_mul(k[1]), k[2], 1, 1]);
        let product = self.mul_mat(a, b);
        self.reshape(product, [u[1], k[2], u[2], 1])
    }

    /// `ggml_conv_1d_ph`: padded by half the kernel.
    pub(super) fn conv_1d_ph(&mut self, kernel: Id, x: Id, stride: u64) -> Id {
        let half = self.get(kernel).ne[0] / 2;
        self.conv_1d_by(kernel, x, Steps::of(stride).padded(half))
    }

    /// `ggml_conv_2d`.
    pub(super) fn conv_2d(&mut self, kernel: Id, x: Id, steps: Steps) -> Id {
        let kind = self.unfolded_kind(kernel);
        self.conv_2d_over(kernel, x, steps, kind)
    }

    /// `ggml_conv_2d` with a given type of the unfolded image.
    pub(super) fn conv_2d_over(&mut self, kernel: Id, x: Id, steps: Steps, kind: TensorType) -> Id {
        let unfolded = self.im2col(kernel, x, steps, kind);
        let (u, k) = (self.get(unfolded).ne, self.get(kernel).ne);
        let rows = u[3].saturating_mul(u[2]).saturating_mul(u[1]);
        let a = self.reshape(unfolded, [u[0], rows, 1, 1]);
        let b = self.reshape(kernel, [k[0].saturating_mul(k[1]).saturating_mul(k[2]), k[3], 1, 1]);
        let product = self.mul_mat(a, b);
        let product = self.reshape(product, [u[1], u[2], u[3], k[3]]);
        let product = self.permute(product, [0, 1, 3, 2]);
        self.cont(product)
    }

    /// `ggml_conv_2d_dw`: a kernel for each channel.
    pub(super) fn conv_2d_dw(&mut self, kernel: Id, x: Id, steps: Steps) -> Id {
        let kind = self.unfolded_kind(kernel);
        let (k, from) = (self.get(kernel).ne, self.get(x).ne);
        let a = self.reshape(kernel, [k[0], k[1], 1, k[2].saturating_mul(k[3])]);
        let b = self.reshape(x, [from[0], from[1], 1, from[2].saturating_mul(from[3])]);
        let unfolded = self.im2col(a, b, steps, kind);
        let u = self.get(unfolded).ne;
        let b = self.reshape(unfolded, [u[0], u[2].saturating_mul(u[1]), from[2], from[3]]);
        let a = self.reshape(a, [k[0].saturating_mul(k[1]), 1, k[2].saturating_mul(k[3]), 1]);
        let product = self.mul_mat(a, b);
        self.reshape(product, [u[1], u[2], from[2], from[3]])
    }

    /// `ggml_conv_2d_direct`.
    pub(super) fn conv_2d_direct(&mut self, kernel: Id, x: Id, steps: Steps) -> Id {
        let (k, Tensor { kind, ne, .. }) = (self.get(kernel).ne, *self.get(x));
        let ne = [steps.fits(ne[0], k[0]), steps.fits(ne[1], k[1]), k[3], ne[3]];
        self.result(Op::Conv2d, kind, ne, &[kernel, x])
    }

    /// `ggml_conv_2d_dw_direct`; where channels lie first they stay there.
    pub(super) fn conv_2d_dw_direct(&mut self, kernel: Id, x: Id, steps: Steps) -> Id {
        let (k, from) = (self.get(kernel).ne, *self.get(x));
        let ne = [steps.fits(from.ne[0], k[0]), steps.fits(from.ne[1], k[1]), from.ne[2], from.ne[3]];
        let result = self.result(Op::Conv2dDw, from.kind, ne, &[kernel, x]);
        if from.nb[0] > from.nb[2] && from.nb[1] > from.nb[0] {
            let tensor = self.get_mut(result);
            let size = tensor.nb[0];
            tensor.nb[0] = ne[2].saturating_mul(size);
            tensor.nb[1] = ne[0].saturating_mul(tensor.nb[0]);
            tensor.nb[2] = size;
        }
        result
    }

    /// Returns the type that a convolution unfolds its input to.
    fn unfolded_kind(&self, kernel: Id) -> TensorType {
        if self.get(kernel).kind == TensorType::BF16 { F32 } else { F16 }
    }

    /// `ggml_pool_2d` with windows side by side.
    pub(super) fn pool_2d(&mut self, x: Id, width: u64, height: u64) -> Id {
        let ne = self.get(x).ne;
        let ne = [Steps::of(width).fits(ne[0], width), Steps::of(height).fits(ne[1], height), ne[2], ne[3]];
        self.result(Op::Pool2d, F32, ne, &[x])
    }

    /// `ggml_pool_1d` with windows side by side.
    pub(super) fn pool_1d(&mut self, x: Id, width: u64) -> Id {
        let ne = self.get(x).ne;
        self.result(Op::Pool1d, F32, [Steps::of(width).fits(ne[0], width), ne[1], ne[2], ne[3]], &[x])
    }

    /// `ggml_interpolate` and `ggml_upscale`.
    pub(super) fn interpolate(&mut self, x: Id, ne: [u64; 4]) -> Id {
        let kind = self.get(x).kind;
        self.result(Op::Upscale, kind, ne, &[x])
    }

    /// `ggml_arange` from 0 on.
    pub(super) fn arange(&mut self, steps: u64) -> Id {
        self.result(Op::Other, F32, [steps, 1, 1, 1], &[])
    }

    /// `ggml_gelu_inplace` and its like: the result is a view of its source.
    pub(super) fn unary_inplace(&mut self, x: Id) -> Id {
        self.view_as(Op::Unary, x, &[x])
    }

    /// `ggml_cont` of a permutation.
    pub(super) fn cont_permuted(&mut self, x: Id, axes: [usize; 4]) -> Id {
        let permuted = self.permute(x, axes);
        self.cont(permuted)
    }

    /// `ggml_cont` of a transposition.
    pub(super) fn cont_transposed(&mut self, x: Id) -> Id {
        let transposed = self.transpose(x);
        self.cont(transposed)
    }
}
