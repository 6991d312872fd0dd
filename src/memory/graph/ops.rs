//! ggml's operations: which shape and which sources each result has (`ggml.c`, build 11434).
//!
//! Only what decides about memory is kept: no scale, no angle, no epsilon.

use super::tensor::{F16, F32, Graph, I32, Id, Op, Tensor, dense_strides, row_bytes};
use crate::gguf::TensorType;

/// The gates of a [`Op::Glu`], as far as back-ends tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Glu {
    /// reglu, geglu and swiglu.
    Plain,
    /// gpt-oss' own.
    SwigluOai,
    /// A swiglu with limits.
    SwigluClamp,
}

/// The detail of a product that must read its input in f32 (`ggml_prec_set_src`).
pub(super) const EXACT_INPUT: u32 = 1;

impl Graph {
    /// Adds a result of the given type and shape.
    pub(super) fn result(&mut self, op: Op, kind: TensorType, ne: [u64; 4], sources: &[Id]) -> Id {
        let mut tensor = Tensor::new(kind, ne);
        tensor.op = op;
        tensor.set_sources(sources);
        self.push(tensor)
    }

    /// Adds a result shaped like `a`, without its gaps (`ggml_dup_tensor`).
    pub(super) fn like(&mut self, op: Op, a: Id, sources: &[Id]) -> Id {
        let (kind, ne) = (self.get(a).kind, self.get(a).ne);
        self.result(op, kind, ne, sources)
    }

    /// Adds a result of f32 and the given shape, for operations that have no method of their own.
    pub(super) fn other(&mut self, op: Op, ne: [u64; 4], sources: &[Id]) -> Id {
        self.result(op, F32, ne, sources)
    }

    /// Adds a view with the strides of `a`, shared by every operation that writes into a source.
    pub(super) fn view_as(&mut self, op: Op, a: Id, sources: &[Id]) -> Id {
        let Tensor { kind, ne, nb, view_of, offset, .. } = *self.get(a);
        let mut tensor = Tensor::strided(kind, ne, nb);
        tensor.op = op;
        tensor.set_sources(sources);
        tensor.view_of = view_of.get().unwrap_or(a);
        tensor.offset = offset;
        self.push(tensor)
    }

    /// Adds an input of the graph.
    pub(super) fn input(&mut self, kind: TensorType, ne: [u64; 4]) -> Id {
        let mut tensor = Tensor::new(kind, ne);
        tensor.is_input = true;
        self.push(tensor)
    }

    /// Adds a constant that the graph's allocator makes room for (`ggml_new_tensor` without
    /// `ggml_set_input`).
    pub(super) fn constant(&mut self, kind: TensorType, ne: [u64; 4]) -> Id {
        self.push(Tensor::new(kind, ne))
    }

    /// Marks a tensor as read from outside, if there is one.
    pub(super) fn set_output(&mut self, id: Id) {
        if id != Id::NONE {
            self.get_mut(id).is_output = true;
        }
    }

    /// `ggml_view_4d` and its shorter forms: `strides` are the bytes of the upper three dimensions.
    pub(super) fn view(&mut self, a: Id, ne: [u64; 4], strides: [u64; 3], offset: u64) -> Id {
        let view = self.view_as(Op::View, a, &[a]);
        let tensor = self.get_mut(view);
        tensor.ne = ne;
        tensor.nb[1..].copy_from_slice(&strides);
        tensor.offset = tensor.offset.saturating_add(offset);
        view
    }

    /// `ggml_view_2d`.
    pub(super) fn view_2d(&mut self, a: Id, ne: [u64; 2], nb1: u64, offset: u64) -> Id {
        let plane = nb1.saturating_mul(ne[1]);
        self.view(a, [ne[0], ne[1], 1, 1], [nb1, plane, plane], offset)
    }

    /// `ggml_view_3d`.
    pub(super) fn view_3d(&mut self, a: Id, ne: [u64; 3], strides: [u64; 2], offset: u64) -> Id {
        let whole = strides[1].saturating_mul(ne[2]);
        self.view(a, [ne[0], ne[1], ne[2], 1], [strides[0], strides[1], whole], offset)
    }

    /// `ggml_view_1d`.
    pub(super) fn view_1d(&mut self, a: Id, ne: u64, offset: u64) -> Id {
        let row = row_bytes(self.get(a).kind, ne);
        self.view(a, [ne, 1, 1, 1], [row, row, row], offset)
    }

    /// `ggml_reshape_*`.
    pub(super) fn reshape(&mut self, a: Id, ne: [u64; 4]) -> Id {
        let view = self.view_as(Op::Reshape, a, &[a]);
        let tensor = self.get_mut(view);
        (tensor.ne, tensor.nb) = (ne, dense_strides(tensor.kind, ne));
        view
    }

    /// `ggml_permute`: dimension `i` of `a` becomes dimension `axes[i]`.
    pub(super) fn permute(&mut self, a: Id, axes: [usize; 4]) -> Id {
        let view = self.view_as(Op::Permute, a, &[a]);
        let from = *self.get(a);
        let tensor = self.get_mut(view);
        for (dimension, axis) in axes.into_iter().enumerate() {
            tensor.ne[axis] = from.ne[dimension];
            tensor.nb[axis] = from.nb[dimension];
        }
        view
    }

    /// `ggml_transpose`.
    pub(super) fn transpose(&mut self, a: Id) -> Id {
        let view = self.view_as(Op::Transpose, a, &[a]);
        let tensor = self.get_mut(view);
        tensor.ne.swap(0, 1);
        tensor.nb.swap(0, 1);
        view
    }

    /// `ggml_cont`.
    pub(super) fn cont(&mut self, a: Id) -> Id {
        self.like(Op::Cont, a, &[a])
    }

    /// `ggml_cont_2d` and its like.
    pub(super) fn cont_as(&mut self, a: Id, ne: [u64; 4]) -> Id {
        let kind = self.get(a).kind;
        self.result(Op::Cont, kind, ne, &[a])
    }

    /// `ggml_dup`.
    pub(super) fn dup(&mut self, a: Id) -> Id {
        self.like(Op::Dup, a, &[a])
    }

    /// `ggml_cast`, which names its own result as the destination.
    pub(super) fn cast(&mut self, a: Id, kind: TensorType) -> Id {
        let ne = self.get(a).ne;
        let result = self.result(Op::Cpy, kind, ne, &[a]);
        self.get_mut(result).set_sources(&[a, result]);
        result
    }

    /// `ggml_cpy`: writes `a` into `b`.
    pub(super) fn cpy(&mut self, a: Id, b: Id) -> Id {
        self.view_as(Op::Cpy, b, &[a, b])
    }

    /// `ggml_add`, `ggml_mul` and the other operations that keep the shape of `a`.
    pub(super) fn binary(&mut self, op: Op, a: Id, b: Id) -> Id {
        self.like(op, a, &[a, b])
    }

    /// `ggml_add`.
    pub(super) fn add(&mut self, a: Id, b: Id) -> Id {
        self.binary(Op::Add, a, b)
    }

    /// `ggml_mul`.
    pub(super) fn mul(&mut self, a: Id, b: Id) -> Id {
        self.binary(Op::Mul, a, b)
    }

    /// `ggml_scale`, `ggml_silu` and the other operations on one source that keep its shape.
    pub(super) fn unary(&mut self, op: Op, a: Id) -> Id {
        self.like(op, a, &[a])
    }

    /// `ggml_scale`.
    pub(super) fn scale(&mut self, a: Id) -> Id {
        self.unary(Op::Scale, a)
    }

    /// `ggml_mul_mat`.
    pub(super) fn mul_mat(&mut self, a: Id, b: Id) -> Id {
        let (rows, columns) = (self.get(a).ne[1], self.get(b).ne);
        self.result(Op::MulMat, F32, [rows, columns[1], columns[2], columns[3]], &[a, b])
    }

    /// `ggml_mul_mat_id`.
    pub(super) fn mul_mat_id(&mut self, experts: Id, b: Id, ids: Id) -> Id {
        let ne = [self.get(experts).ne[1], self.get(ids).ne[0], self.get(b).ne[2], 1];
        self.result(Op::MulMatId, F32, ne, &[experts, b, ids])
    }

    /// `ggml_add_id`.
    pub(super) fn add_id(&mut self, a: Id, b: Id, ids: Id) -> Id {
        self.like(Op::AddId, a, &[a, b, ids])
    }

    /// `ggml_get_rows`.
    pub(super) fn get_rows(&mut self, a: Id, rows: Id) -> Id {
        let kind = if self.get(a).kind == I32 { I32 } else { F32 };
        let (width, picked) = (self.get(a).ne[0], self.get(rows).ne);
        self.result(Op::GetRows, kind, [width, picked[0], picked[1], picked[2]], &[a, rows])
    }

    /// `ggml_set_rows`: writes `rows` into `a` at `ids`.
    pub(super) fn set_rows(&mut self, a: Id, rows: Id, ids: Id) -> Id {
        self.view_as(Op::SetRows, a, &[rows, ids, a])
    }

    /// `ggml_soft_max_ext` with the sinks of `ggml_soft_max_add_sinks`.
    pub(super) fn soft_max(&mut self, a: Id, mask: Id, sinks: Id) -> Id {
        self.like(Op::SoftMax, a, &[a, mask, sinks])
    }

    /// `ggml_rope_ext` and `ggml_rope_multi`.
    pub(super) fn rope(&mut self, a: Id, positions: Id, factors: Id) -> Id {
        self.like(Op::Rope, a, &[a, positions, factors])
    }

    /// `ggml_flash_attn_ext` with the sinks of `ggml_flash_attn_ext_add_sinks`.
    pub(super) fn flash_attn(&mut self, q: Id, k: Id, v: Id, mask: Id, sinks: Id) -> Id {
        let (query, width) = (self.get(q).ne, self.get(v).ne[0]);
        let ne = [width, query[2], query[1], query[3]];
        self.result(Op::FlashAttnExt, F32, ne, &[q, k, v, mask, sinks])
    }

    /// `ggml_swiglu_split` and its like, `b` absent where `a` holds both halves.
    pub(super) fn glu(&mut self, gate: Glu, a: Id, b: Id) -> Id {
        let (kind, mut ne) = (self.get(a).kind, self.get(a).ne);
        if b == Id::NONE {
            ne[0] /= 2;
        }
        let result = self.result(Op::Glu, kind, ne, &[a, b]);
        self.get_mut(result).detail = gate as u32;
        result
    }

    /// `ggml_concat`.
    pub(super) fn concat(&mut self, a: Id, b: Id, dimension: u8) -> Id {
        let (kind, mut ne) = (self.get(a).kind, self.get(a).ne);
        let at = usize::from(dimension);
        ne[at] = ne[at].saturating_add(self.get(b).ne[at]);
        let result = self.result(Op::Concat, kind, ne, &[a, b]);
        self.get_mut(result).detail = u32::from(dimension);
        result
    }

    /// `ggml_repeat_4d`.
    pub(super) fn repeat(&mut self, a: Id, ne: [u64; 4]) -> Id {
        let kind = self.get(a).kind;
        self.result(Op::Repeat, kind, ne, &[a])
    }

    /// `ggml_sum_rows` and `ggml_mean`.
    pub(super) fn sum_rows(&mut self, op: Op, a: Id) -> Id {
        let (kind, ne) = (self.get(a).kind, self.get(a).ne);
        self.result(op, kind, [1, ne[1], ne[2], ne[3]], &[a])
    }

    /// `ggml_argmax`.
    pub(super) fn argmax(&mut self, a: Id) -> Id {
        let rows = self.get(a).ne[1];
        self.result(Op::Other, I32, [rows, 1, 1, 1], &[a])
    }

    /// `ggml_argsort`.
    pub(super) fn argsort(&mut self, a: Id) -> Id {
        let ne = self.get(a).ne;
        self.result(Op::Argsort, I32, ne, &[a])
    }

    /// `ggml_argsort_top_k`: a view of the first `k` of a full sort.
    pub(super) fn argsort_top_k(&mut self, a: Id, k: u64) -> Id {
        let sorted = self.argsort(a);
        let Tensor { ne, nb, .. } = *self.get(sorted);
        self.view(sorted, [k, ne[1], ne[2], ne[3]], [nb[1], nb[2], nb[3]], 0)
    }

    /// `ggml_top_k`.
    pub(super) fn top_k(&mut self, a: Id, k: u64) -> Id {
        let ne = self.get(a).ne;
        self.result(Op::TopK, I32, [k, ne[1], ne[2], ne[3]], &[a])
    }

    /// `ggml_pad`.
    pub(super) fn pad(&mut self, a: Id, by: [u64; 4]) -> Id {
        let (kind, mut ne) = (self.get(a).kind, self.get(a).ne);
        for (ne, by) in ne.iter_mut().zip(by) {
            *ne = ne.saturating_add(by);
        }
        self.result(Op::Pad, kind, ne, &[a])
    }

    /// `ggml_conv_1d_ph`: each output channel over all input channels, as long as what it is given.
    pub(super) fn conv_1d(&mut self, kernel: Id, x: Id) -> Id {
        let [taps, inputs, outputs, _] = self.get(kernel).ne;
        let columns = self.im2col_1d(kernel, x);
        let ne = self.get(columns).ne;
        let rows = self.reshape(columns, [ne[0], ne[1].saturating_mul(ne[2]), 1, 1]);
        let flat = self.reshape(kernel, [taps.saturating_mul(inputs), outputs, 1, 1]);
        let product = self.mul_mat(rows, flat);
        self.reshape(product, [ne[1], outputs, ne[2], 1])
    }

    /// `ggml_conv_1d_dw_ph`: each channel by itself.
    pub(super) fn conv_1d_by_channel(&mut self, kernel: Id, x: Id) -> Id {
        let ne = self.get(x).ne;
        let channels = self.reshape(x, [ne[0], 1, ne[1], ne[2]]);
        let columns = self.im2col_1d(kernel, channels);
        let product = self.mul_mat(columns, kernel);
        let ne = self.get(product).ne;
        self.reshape(product, [ne[0], ne[2], 1, 1])
    }

    /// `ggml_im2col` in one dimension, with half a kernel of padding on both sides.
    fn im2col_1d(&mut self, kernel: Id, x: Id) -> Id {
        let Tensor { kind, ne: [taps, inputs, ..], .. } = *self.get(kernel);
        let from = self.get(x).ne;
        let length = (from[0] + taps / 2 * 2 + 1).saturating_sub(taps);
        let kind = if kind == TensorType::BF16 { F32 } else { F16 };
        self.result(Op::Im2col, kind, [taps.saturating_mul(inputs), length, from[2], 1], &[kernel, x])
    }

    /// `ggml_ssm_conv`.
    pub(super) fn ssm_conv(&mut self, sx: Id, c: Id) -> Id {
        let (kernel, inner) = (self.get(c).ne[0], self.get(c).ne[1]);
        let Tensor { ne, .. } = *self.get(sx);
        let tokens = (ne[0] + 1).saturating_sub(kernel);
        self.result(Op::SsmConv, F32, [inner, tokens, ne[2], 1], &[sx, c])
    }

    /// `ggml_ssm_scan`: the output, and `snapshots` states of each sequence behind it.
    pub(super) fn ssm_scan(&mut self, sources: [Id; 7], snapshots: u32) -> Id {
        let [s, x, .., ids] = sources;
        let state = self.get(s).ne;
        let states = [u64::from(snapshots), state[0], state[1], state[2], self.get(ids).ne[0]];
        let states = states.iter().fold(1u64, |product, &factor| product.saturating_mul(factor));
        let ne = [self.get(x).elements().saturating_add(states), 1, 1, 1];
        let result = self.result(Op::SsmScan, F32, ne, &sources);
        self.get_mut(result).detail = snapshots;
        result
    }

    /// `ggml_gated_delta_net`: the output, and `snapshots` states of each sequence below it.
    pub(super) fn gated_delta_net(&mut self, sources: [Id; 6], snapshots: u64) -> Id {
        let v = self.get(sources[2]).ne;
        let states = snapshots.saturating_mul(v[0]).saturating_mul(v[3]);
        let rows = v[2].saturating_mul(v[3]).saturating_add(states);
        self.result(Op::GatedDeltaNet, F32, [v[0].saturating_mul(v[1]), rows, 1, 1], &sources)
    }
}
