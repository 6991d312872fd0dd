//! ggml's Vulkan back-end, as far as it decides about memory.
//!
//! Drivers differ in their limits; these are those of the usual desktop drivers. A limit that is
//! lower in fact moves an operation to the CPU, and its memory with it.

use super::cuda::{has_whole_rows, joins, source};
use super::ops::EXACT_INPUT;
use super::tensor::{F16, F32, Graph, I32, I64, Id, Op, Tensor, element_bytes};
use crate::gguf::TensorType;

const BF16: TensorType = TensorType::BF16;
const Q4_0: TensorType = TensorType(2);
const Q4_1: TensorType = TensorType(3);
const Q5_0: TensorType = TensorType(6);
const Q5_1: TensorType = TensorType(7);
const Q8_0: TensorType = TensorType(8);
const Q8_1: TensorType = TensorType(9);
const Q8_K: TensorType = TensorType(15);
const IQ4_NL: TensorType = TensorType(20);
const Q1_0: TensorType = TensorType(41);
const Q2_0: TensorType = TensorType(42);

/// The largest tensor that a shader reaches (`maxStorageBufferRange`).
const MOST_BYTES: u64 = u32::MAX as u64;

/// The largest part of a compute buffer (`suballocation_block_size`).
pub(super) const MOST_CHUNK: u64 = 1 << 30;

/// Returns whether Vulkan has a shader for an operation (`ggml_backend_vk_device_supports_op`).
pub(super) fn supports(graph: &Graph, id: Id) -> bool {
    let tensor = graph.get(id);
    let Some(a) = source(graph, tensor, 0) else { return true };
    let b = source(graph, tensor, 1).unwrap_or(a);
    if tensor.bytes() > MOST_BYTES || tensor.sources().iter().any(|&id| graph.get(id).bytes() > MOST_BYTES) {
        return false;
    }
    let is_float = |kind| matches!(kind, F32 | F16);
    match tensor.op {
        Op::MulMatId if tensor.detail == EXACT_INPUT => false,
        Op::MulMat | Op::MulMatId => multiplies(graph, tensor, a, b),
        Op::Add | Op::Sub | Op::Mul | Op::Div => [a.kind, b.kind, tensor.kind].into_iter().all(is_float),
        op if op.is_unary() => is_float(a.kind),
        Op::Glu => is_float(a.kind) && a.kind == b.kind,
        Op::GetRows => known(a.kind) || a.kind == I32,
        Op::SetRows => is_float(a.kind) && matches!(b.kind, I32 | I64) && stores(tensor.kind),
        Op::Cpy | Op::Cont | Op::Dup => copies(a, tensor),
        Op::Repeat => matches!(element_bytes(a.kind), 2 | 4),
        Op::Rope => has_whole_rows(a),
        Op::Norm | Op::L2Norm | Op::Pad | Op::Roll | Op::Upscale | Op::SsmConv => a.kind == F32,
        Op::Sqr | Op::Sqrt | Op::Clamp | Op::Fill => is_float(a.kind),
        Op::GroupNorm | Op::Argsort | Op::TopK => a.is_contiguous(),
        Op::SumRows | Op::Mean | Op::Cumsum => a.kind == F32 && has_whole_rows(a),
        Op::Set => a.kind == b.kind && matches!(a.kind, F32 | I32),
        Op::Concat => joins(a, b, 3),
        Op::Im2col => b.is_contiguous() && b.kind == F32,
        Op::Conv2d => a.is_contiguous() && b.is_contiguous() && is_float(a.kind) && b.kind == F32,
        Op::Conv2dDw => is_float(a.kind) && b.kind == F32,
        Op::Scale | Op::SoftMax | Op::Pool1d | Op::Pool2d => a.is_contiguous() && a.kind == F32,
        Op::GatedLinearAttn => a.ne[0] == 64,
        Op::GatedDeltaNet => source(graph, tensor, 2).is_some_and(|v| matches!(v.ne[0], 16 | 32 | 64 | 128)),
        Op::SsmScan => scans(graph, tensor, a),
        Op::LightningIndexer => a.ne[0] == 128 && attends(b.kind),
        // The shaders take four streams.
        Op::Dsv4HcPre => a.ne[1] == 4,
        Op::Dsv4HcPost => b.ne[1] == 4,
        Op::FlashAttnExt => flash_attention(graph, tensor),
        _ => true,
    }
}

/// Returns whether the shaders read elements of a type.
fn known(kind: TensorType) -> bool {
    matches!(kind, F32 | F16 | BF16) || (kind.is_quantised() && !matches!(kind, Q8_1 | Q8_K))
}

fn stores(kind: TensorType) -> bool {
    matches!(kind, F32 | F16 | BF16 | Q1_0 | Q2_0 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | IQ4_NL)
}

fn multiplies(graph: &Graph, tensor: &Tensor, a: &Tensor, b: &Tensor) -> bool {
    let stacked = if tensor.op == Op::MulMat { Some(a) } else { source(graph, tensor, 2) };
    if !known(a.kind) || stacked.is_none_or(|stacked| stacked.ne[3] != b.ne[3]) {
        return false;
    }
    // Quantised matrices have to be dense; floats may have any strides (`ggml_vk_dim01_contiguous`).
    let is_dense = |tensor: &Tensor| {
        tensor.is_contiguous_from(1)
            && tensor.nb[1] == super::tensor::row_bytes(tensor.kind, tensor.ne[0])
            && (tensor.ne[3] == 1 || tensor.nb[3] == tensor.nb[2].saturating_mul(tensor.ne[2]))
    };
    let a_fits = matches!(a.kind, F32 | F16 | BF16) || is_dense(a);
    let b_fits = matches!(b.kind, F32 | F16) || is_dense(b);
    a_fits && b_fits && !(a.kind == BF16 && b.kind == F16) && (b.kind != BF16 || a.kind == BF16)
}

fn copies(from: &Tensor, to: &Tensor) -> bool {
    match (from.kind, to.kind) {
        (F32, kind) | (kind, F32) if stores(kind) => true,
        (F32, I32) | (I32, F32) => true,
        (a, b) => {
            let whole = !a.is_quantised() || (from.is_contiguous() && to.is_contiguous());
            a == b && whole && element_bytes(a).is_multiple_of(2)
        }
    }
}

/// Mamba 2's scan has shaders for the usual sizes of states, Mamba's has none.
fn scans(graph: &Graph, tensor: &Tensor, state: &Tensor) -> bool {
    let is_second = source(graph, tensor, 3).is_some_and(|a| a.nb[1] == 4);
    is_second && matches!(state.ne[0], 128 | 256) && state.ne[1].is_multiple_of(16)
}

fn attends(kind: TensorType) -> bool {
    matches!(kind, F32 | F16 | BF16 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | IQ4_NL)
}

fn flash_attention(graph: &Graph, tensor: &Tensor) -> bool {
    let [Some(q), Some(k), Some(v)] = [0, 1, 2].map(|index| source(graph, tensor, index)) else { return false };
    let mask = source(graph, tensor, 3).is_none_or(|mask| mask.kind == F16);
    let kinds = attends(k.kind) && attends(v.kind) && (k.kind == BF16) == (v.kind == BF16);
    q.kind == F32 && mask && kinds && k.ne[0].is_multiple_of(8) && v.ne[0].is_multiple_of(8)
}
