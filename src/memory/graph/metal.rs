//! ggml's Metal back-end on Apple silicon, as far as it decides about memory.

use super::cuda::{has_whole_rows, source};
use super::tensor::{F16, F32, Graph, I32, I64, Id, Op, Tensor};
use crate::gguf::TensorType;
use crate::memory::tensor::Cpu;
use crate::units::Bytes;

const BF16: TensorType = TensorType::BF16;
const Q4_0: TensorType = TensorType(2);
const Q4_1: TensorType = TensorType(3);
const Q5_0: TensorType = TensorType(6);
const Q5_1: TensorType = TensorType(7);
const Q8_0: TensorType = TensorType(8);
const IQ4_NL: TensorType = TensorType(20);
const TQ1_0: TensorType = TensorType(34);
const TQ2_0: TensorType = TensorType(35);
const NVFP4: TensorType = TensorType(40);
const Q1_0: TensorType = TensorType(41);
const Q2_0: TensorType = TensorType(42);

/// Returns whether Metal has a kernel for an operation (`ggml_metal_device_supports_op`): every chip
/// of Apple's has matrix and bfloat units as far as this asks for them.
pub(super) fn supports(graph: &Graph, id: Id) -> bool {
    let tensor = graph.get(id);
    let Some(a) = source(graph, tensor, 0) else { return true };
    let b = source(graph, tensor, 1).unwrap_or(a);
    let is_float = |kind| matches!(kind, F32 | F16);
    match tensor.op {
        Op::MulMat | Op::MulMatId => multiplies(graph, tensor, a, b),
        Op::Add | Op::Sub | Op::Mul | Op::Div | Op::AddId => {
            has_whole_rows(a) && has_whole_rows(b) && is_float(a.kind) && a.kind == b.kind
        }
        op if op.is_unary() => has_whole_rows(a) && is_float(a.kind),
        Op::Scale | Op::Fill | Op::Clamp | Op::Sqr | Op::Sqrt => has_whole_rows(a) && is_float(a.kind),
        Op::Glu => a.is_contiguous_from(1) && is_float(a.kind),
        Op::Norm | Op::RmsNorm | Op::L2Norm | Op::GroupNorm | Op::SoftMax | Op::SumRows | Op::Mean | Op::Cumsum => {
            has_whole_rows(a)
        }
        Op::GetRows => !matches!(a.kind, NVFP4 | TQ1_0),
        Op::SetRows => match a.kind {
            F16 => tensor.kind == F16,
            F32 => copies(F32, tensor.kind) && !matches!(tensor.kind, I32 | Q1_0 | Q2_0),
            _ => false,
        },
        Op::Set | Op::Cpy | Op::Dup | Op::Cont => copies(a.kind, tensor.kind),
        Op::Concat => a.kind == b.kind && joins(a.kind),
        Op::Im2col => b.is_contiguous() && b.kind == F32,
        Op::Conv2d => a.is_contiguous() && b.kind == F32 && is_float(a.kind),
        Op::Conv2dDw => b.kind == F32 && is_float(a.kind),
        Op::Upscale | Op::Pad | Op::Pool2d => a.kind == F32,
        Op::Pool1d => a.kind == F32 && a.is_contiguous(),
        Op::Roll => a.is_contiguous(),
        Op::GatedDeltaNet => source(graph, tensor, 2).is_none_or(|v| v.ne[0].is_multiple_of(32)),
        Op::LightningIndexer => q_is_indexed(a, b),
        // Four streams make 24 numbers a token.
        Op::Dsv4HcComb => a.ne[0] == 24,
        Op::Dsv4HcPost => b.ne[1] == 4,
        Op::FlashAttnExt => flash_attention(graph, tensor),
        Op::GatedLinearAttn => false,
        _ => true,
    }
}

/// `ggml_metal_supports_mul_mat_op`.
fn multiplies(graph: &Graph, tensor: &Tensor, a: &Tensor, b: &Tensor) -> bool {
    if matches!(a.kind, NVFP4 | TQ1_0) || (b.kind == F16 && a.kind == BF16) {
        return false;
    }
    if b.kind != F16 || (a.kind == F16 && tensor.op == Op::MulMat) {
        return true;
    }
    // Halves go with other weights only where many rows are multiplied at once.
    let upright = |tensor: &Tensor| tensor.nb[0] <= tensor.nb[1];
    let tokens = source(graph, tensor, 2).map_or(0, |ids| ids.ne[1]);
    let many = if tensor.op == Op::MulMat { upright(a) && upright(b) && b.ne[1] > 8 } else { tokens >= 32 };
    a.ne[0] >= 64 && many
}

fn copies(from: TensorType, to: TensorType) -> bool {
    let simple = |kind| matches!(kind, Q1_0 | Q2_0 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | TQ2_0);
    match from {
        F32 => matches!(to, F32 | F16 | BF16 | IQ4_NL | I32) || simple(to),
        F16 => matches!(to, F32 | F16),
        BF16 => matches!(to, F32 | BF16),
        I32 => matches!(to, F32 | I32),
        from => simple(from) && matches!(to, F32 | F16),
    }
}

fn joins(kind: TensorType) -> bool {
    matches!(kind, F32 | F16 | BF16 | I32 | I64 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0)
}

fn q_is_indexed(q: &Tensor, k: &Tensor) -> bool {
    let kind = matches!(k.kind, F32 | F16 | BF16 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0);
    q.ne[0] == 128 && kind && has_whole_rows(q) && has_whole_rows(k)
}

fn flash_attention(graph: &Graph, tensor: &Tensor) -> bool {
    let [Some(q), Some(k), Some(v)] = [0, 1, 2].map(|index| source(graph, tensor, index)) else { return false };
    let width = matches!(q.ne[0], 32 | 40 | 48 | 64 | 72 | 80 | 96 | 112 | 128 | 192 | 256 | 320 | 512 | 576);
    let kind = matches!(k.kind, F32 | F16 | BF16 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0);
    width && kind && k.kind == v.kind && k.ne[0] >= v.ne[0] && (k.ne[0] != 72 || v.ne[0] == 72)
}

/// Returns the bytes that Metal sets aside for a tensor, with what the operation needs for a moment
/// (`ggml_backend_metal_buffer_type_get_alloc_size`).
pub(super) fn allocated(graph: &Graph, id: Id) -> u64 {
    let tensor = graph.get(id);
    let bytes = tensor.bytes();
    match tensor.op {
        Op::MulMatId => bytes.saturating_add(expert_bytes(graph, tensor)),
        Op::FlashAttnExt => bytes.saturating_add(attention_bytes(graph, tensor)),
        Op::Cumsum | Op::Argsort => bytes.saturating_mul(2),
        Op::TopK => source(graph, tensor, 0).map_or(bytes, |a| a.elements().saturating_mul(8)),
        _ => bytes,
    }
}

/// Parts of the largest absolute value, which the experts' product scales by (`N_MM_NPART_AMAX`).
const SCALE_PARTS: u64 = 256;

/// Which token goes to which expert, by expert (`ggml_metal_op_mul_mat_id_extra_*`).
fn expert_bytes(graph: &Graph, tensor: &Tensor) -> u64 {
    let experts = source(graph, tensor, 0).map_or(0, |a| a.ne[2]);
    let tokens = source(graph, tensor, 2).map_or(0, |ids| ids.ne[1]);
    experts.saturating_mul(4).saturating_mul(tokens.saturating_add(1)).saturating_add(8 + 4 * SCALE_PARTS)
}

/// Cells and queries that a flash attention works on at once (`OP_FLASH_ATTN_EXT_*`): many queries,
/// and few.
const MANY: (u64, u64) = (64, 8);
const FEW: (u64, u64) = (32, 1);

/// The padded last cells, which blocks of the mask are empty, the results to be joined, and K and V
/// in f16, for which there is room even where they are f16 (`ggml_metal_op_flash_attn_ext_extra_*`).
fn attention_bytes(graph: &Graph, tensor: &Tensor) -> u64 {
    let [Some(q), Some(k), Some(v)] = [0, 1, 2].map(|index| source(graph, tensor, index)) else { return 0 };
    let mask = source(graph, tensor, 3);
    let is_view = v.is_view() && (v.view_of == tensor.sources[1] || (v.view_of == k.view_of && v.offset == k.offset));
    let product = |factors: &[u64]| factors.iter().fold(1u64, |product, &factor| product.saturating_mul(factor));
    let halves = |tensor: &Tensor| Bytes(tensor.elements().saturating_mul(2)).padded(16).0;
    let copy = halves(k).saturating_add(if is_view { 0 } else { halves(v) });

    let converts = q.ne[1] >= 32 && matches!(k.kind, Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0);
    let k_row = if converts { k.ne[0].saturating_mul(2) } else { k.nb[1] };
    let v_row = match (converts, is_view) {
        (true, true) => k_row,
        (true, false) => v.ne[0].saturating_mul(2),
        (false, _) => v.nb[1],
    };
    let of_mask = mask.map_or(0, |mask| product(&[2, mask.ne[1], mask.ne[2], mask.ne[3]]));
    let rows = [product(&[k_row, k.ne[2], k.ne[3]]), product(&[v_row, v.ne[2], v.ne[3]]), of_mask];
    let last_cells = rows.iter().fold(0u64, |sum, &row| sum.saturating_add(row)).saturating_mul(MANY.0);

    let (cells, queries) = if q.ne[1] < 20 && q.ne[0].is_multiple_of(32) { FEW } else { MANY };
    let blocks = mask
        .map_or(0, |mask| product(&[q.ne[1].div_ceil(queries), mask.ne[0].div_ceil(cells), mask.ne[2], mask.ne[3]]));
    let results = product(&[4 * 32, q.ne[1].min(32), q.ne[2], q.ne[3], v.ne[0].saturating_add(2)]);
    [last_cells, Bytes(blocks).padded(32).0, results, copy].iter().fold(0, |sum, &part| sum.saturating_add(part))
}

/// Returns whether Metal takes an operation on weights in host memory
/// (`ggml_backend_metal_device_offload_op`): the products of experts only, for Accelerate is asked
/// before and takes every other product that is worth it (`ggml_backend_blas_device_supports_op`).
/// Experts laid out for the CPU stay there.
pub(super) fn offloads(graph: &Graph, id: Id, least: u64, cpu: Option<Cpu>) -> bool {
    let tensor = graph.get(id);
    match tensor.op {
        Op::MulMatId => {
            let is_repacked = |weight: &Tensor| cpu.is_some_and(|cpu| cpu.repacks(weight.kind, weight.ne[1]));
            tensor.ne[2] >= least && !source(graph, tensor, 0).is_some_and(is_repacked)
        }
        Op::MulMat => {
            let b = source(graph, tensor, 1);
            let small = tensor.ne[0] < 32 || b.is_none_or(|b| b.ne[0] < 32 || !b.is_contiguous() || b.kind != F32);
            tensor.ne[1] >= least && small
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attention(kind: TensorType, tokens: u64) -> u64 {
        let mut graph = Graph::default();
        let q = graph.constant(F32, [128, tokens, 32, 1]);
        let [k, v] = [(); 2].map(|()| graph.constant(kind, [128, 1024, 8, 1]));
        let mask = graph.constant(F16, [1024, tokens, 1, 1]);
        let id = graph.flash_attn(q, k, v, mask, Id::NONE);
        allocated(&graph, id) - graph.get(id).bytes()
    }

    #[test]
    fn a_flash_attention_has_room_for_keys_and_values_in_f16_whatever_they_are() {
        let copies = 2 * 128 * 1024 * 8 * 2;
        // 64 cells in every head's own strides, and of the mask.
        let last_cells = |row: u64| 64 * (2 * row * 8 + 2 * 512);
        let blocks = (512 / 8) * (1024 / 64);
        let results = 4 * 32 * 32 * 32 * (128 + 2);
        assert_eq!(attention(F16, 512), copies + last_cells(256) + blocks + results);
        assert_eq!(attention(Q8_0, 512), copies + last_cells(256) + blocks + results);
        assert_eq!(attention(BF16, 512), copies + last_cells(256) + blocks + results);
        let few = 64 * (2 * 136 * 8 + 2) + 32 + 4 * 32 * 32 * (128 + 2);
        assert_eq!(attention(Q8_0, 1), copies + few, "one query reads quantised keys as they are");
    }

    #[test]
    fn products_of_experts_note_who_goes_where() {
        let mut graph = Graph::default();
        let experts = graph.constant(Q4_0, [256, 128, 64, 1]);
        let x = graph.constant(F32, [256, 1, 512, 1]);
        let ids = graph.constant(I32, [4, 512, 1, 1]);
        let id = graph.mul_mat_id(experts, x, ids);
        assert_eq!(allocated(&graph, id) - graph.get(id).bytes(), 4 * 64 * 513 + 8 + 1024);
        assert!(offloads(&graph, id, 32, None));
        assert!(!offloads(&graph, id, 32, Some(Cpu::Arm)), "these experts are laid out for the CPU");
    }
}
