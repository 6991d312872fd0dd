//! ggml's CUDA back-end, as far as it decides about memory; ROCm is the same source.

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
const TQ1_0: TensorType = TensorType(34);
const TQ2_0: TensorType = TensorType(35);
const MXFP4: TensorType = TensorType(39);
const NVFP4: TensorType = TensorType(40);

/// Elements of a super-block (`QK_K`).
const SUPER_BLOCK: u64 = 256;

/// Returns whether CUDA has a kernel for an operation (`ggml_backend_cuda_device_supports_op`).
pub(super) fn supports(graph: &Graph, id: Id) -> bool {
    let tensor = graph.get(id);
    let Some(a) = source(graph, tensor, 0) else { return true };
    let b = source(graph, tensor, 1).unwrap_or(a);
    match tensor.op {
        Op::MulMatId if tensor.detail == EXACT_INPUT => false,
        Op::MulMat | Op::MulMatId => multiplies(a, b),
        Op::Add | Op::Sub | Op::Mul | Op::Div => calculates(a.kind, b.kind, tensor.kind),
        op if op.is_unary() => a.is_contiguous(),
        Op::Glu => a.is_contiguous_from(1),
        Op::Norm | Op::RmsNorm | Op::L2Norm => has_whole_rows(a),
        Op::SumRows | Op::Mean => a.kind == F32 && has_whole_rows(a),
        Op::Rope => a.nb[0] == element_bytes(a.kind) && a.is_contiguous_from(2),
        Op::Scale => matches!(a.kind, F32 | BF16),
        Op::GetRows => looks_up(a),
        Op::SetRows => stores(a.kind, tensor.kind) && matches!(b.kind, I32 | I64),
        Op::Set => matches!(a.kind, F32 | I32) && a.kind == b.kind,
        Op::Cpy => copies(a, b),
        Op::Repeat => matches!(a.kind, F32 | F16),
        Op::Concat => joins(a, b, tensor.detail),
        Op::GroupNorm => a.is_contiguous(),
        Op::Roll => a.kind == F32 && a.is_contiguous(),
        Op::Im2col | Op::Conv2d => a.is_contiguous() && b.is_contiguous(),
        Op::Conv2dDw => matches!(a.kind, F32 | F16) && b.kind == F32,
        Op::SsmConv => a.ne[1].is_multiple_of(128),
        Op::SsmScan => scans(graph, tensor),
        Op::LightningIndexer => indexes(a, b),
        Op::FlashAttnExt => flash_attention(graph, id).is_some(),
        _ => true,
    }
}

pub(super) fn source<'a>(graph: &'a Graph, tensor: &Tensor, index: usize) -> Option<&'a Tensor> {
    tensor.sources.get(index)?.get().map(|id| graph.get(id))
}

/// Returns whether the elements of each row lie side by side (`ggml_is_contiguous_rows`).
pub(super) fn has_whole_rows(a: &Tensor) -> bool {
    let (block, size) = a.kind.block().unwrap_or((1, 1));
    a.ne[0] == block || a.nb[0] == size
}

fn multiplies(a: &Tensor, b: &Tensor) -> bool {
    let dense = a.nb[0] == element_bytes(a.kind) && b.nb[0] == element_bytes(b.kind);
    let known = match a.kind {
        F32 | F16 | BF16 => true,
        Q8_1 | TQ1_0 | TQ2_0 => false,
        kind => kind.is_quantised(),
    };
    dense && known && (b.kind != F16 || a.kind == F16)
}

fn calculates(a: TensorType, b: TensorType, result: TensorType) -> bool {
    if [a, b, result].contains(&BF16) {
        return a == BF16 && result == BF16 && matches!(b, BF16 | F32);
    }
    [a, b, result].iter().all(|&kind| matches!(kind, F32 | F16))
}

fn looks_up(a: &Tensor) -> bool {
    match a.kind {
        F32 | F16 | BF16 | I32 => true,
        // The kernel goes through whole super-blocks, which these types' rows need not fill.
        IQ4_NL | MXFP4 => a.ne[0].is_multiple_of(SUPER_BLOCK),
        Q8_1 | Q8_K | TQ1_0 | TQ2_0 | NVFP4 => false,
        kind => kind.is_quantised(),
    }
}

fn stores(from: TensorType, to: TensorType) -> bool {
    let known = matches!(to, F32 | F16 | BF16 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | IQ4_NL);
    (from == F32 && known) || (from == F16 && to == F16)
}

fn copies(a: &Tensor, b: &Tensor) -> bool {
    let float = |kind| matches!(kind, F32 | F16 | BF16);
    let simple = |kind| matches!(kind, Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0);
    match (a.kind, b.kind) {
        (from, to) if float(from) && float(to) => true,
        (F32, to) if simple(to) => true,
        (from, F32) if simple(from) => true,
        (F32, IQ4_NL | I32) | (I32, F32 | I32) => true,
        (from, to) => from == to && a.is_contiguous() && b.is_contiguous(),
    }
}

pub(super) fn joins(a: &Tensor, b: &Tensor, dimension: u32) -> bool {
    if a.kind != b.kind {
        return false;
    }
    let (block, size) = a.kind.block().unwrap_or((1, 0));
    if block == 1 {
        return matches!(size, 1 | 2 | 4 | 8);
    }
    // `ggml_is_contiguous_to_3` lets only the matrices of dimension 3 stand apart.
    let whole = |tensor: &Tensor| {
        let mut upto = *tensor;
        if dimension != 3 {
            upto.ne[3] = 1;
        }
        upto.is_contiguous() && tensor.ne[0].is_multiple_of(block)
    };
    whole(a) && whole(b)
}

/// Mamba's and Mamba 2's scans have kernels for the usual sizes of states only.
fn scans(graph: &Graph, tensor: &Tensor) -> bool {
    let part = |index| source(graph, tensor, index).map_or([0; 4], |part| part.ne);
    let (state, a, b) = (part(0), part(3), part(4));
    if a[0] == 1 {
        return matches!(state[0], 96 | 128 | 256) && state[1].is_multiple_of(16);
    }
    tensor.detail <= 1 && state[0] == 16 && state[1] == 1 && state[2].is_multiple_of(128) && b[1] == 1
}

/// `ggml_cuda_lightning_indexer_supported`.
fn indexes(q: &Tensor, k: &Tensor) -> bool {
    let kind = matches!(k.kind, F32 | F16 | BF16 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0);
    q.ne[0] == 128 && matches!(q.ne[1], 4 | 32 | 64) && is_aligned(q) && is_aligned(k) && kind
}

/// Returns whether rows begin at multiples of 16 bytes; quantised ones are read in another way.
fn is_aligned(tensor: &Tensor) -> bool {
    tensor.kind.is_quantised() || tensor.nb[1..].iter().all(|stride| stride.is_multiple_of(16))
}

/// The kernels of flash attention, as far as they differ in what they read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// The tile and tensor core kernels, which read K and V in f16 only.
    Halves,
    /// The vector kernel for one or two queries, which reads K and V as they are.
    Vector,
}

/// Cells that the faster kernels take at once (`FATTN_KQ_STRIDE`).
const STRIDE: u64 = 256;

/// Returns the kernel that CUDA takes for a flash attention, or nothing where it has none
/// (`ggml_cuda_get_best_fattn_kernel`).
///
/// Whether there is a kernel is a matter of shapes alone. Which one depends on the GPU for a
/// micro-batch of one or two tokens, and only where K and V are not f16: this is Ada's choice,
/// older ones take [`Kernel::Halves`] for two tokens already.
pub(super) fn flash_attention(graph: &Graph, id: Id) -> Option<Kernel> {
    let tensor = graph.get(id);
    let [q, k, v] = [0, 1, 2].map(|index| source(graph, tensor, index));
    let (q, k, v) = (q?, k?, v?);
    let mask = source(graph, tensor, 3);
    let (wide, narrow) = (k.ne[0], v.ne[0]);
    let shared = q.ne[2].checked_div(k.ne[2])?;
    // ALiBi rules sharing out as well, but goes with none of the widths that need it.
    let shares = || {
        let all = [Some(q), Some(k), Some(v), mask].into_iter().flatten();
        shared >= 2 && mask.is_some() && k.ne[1].is_multiple_of(STRIDE) && all.into_iter().all(is_aligned)
    };
    let fits = match wide {
        40 | 64 | 72 | 80 | 96 | 112 | 128 | 256 => narrow == wide,
        192 => narrow == 128 && shared.is_multiple_of(8) && shares(),
        320 => narrow == 256 && shared.is_multiple_of(32) && shares(),
        512 | 576 => narrow == 512 && shares(),
        _ => false,
    };
    let known = |kind| matches!(kind, F32 | F16 | BF16 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0);
    if !fits || !known(k.kind) || !known(v.kind) || mask.is_some_and(|mask| mask.ne[2] != 1) {
        return None;
    }
    let vector = matches!(q.ne[0], 64 | 128 | 256) && k.ne[1].is_multiple_of(STRIDE);
    let vector = vector && q.ne[1] <= 2 && {
        if k.kind.is_quantised() || v.kind.is_quantised() {
            true
        } else {
            let gathers = shared > 4 && (q.ne[0] >= 256 || k.ne[1] >= 8192);
            q.ne[1] == 1 && ((q.ne[3] == 1 && !gathers) || !shares())
        }
    };
    Some(if vector { Kernel::Vector } else { Kernel::Halves })
}

/// Returns the bytes of a flash attention's result, with the f16 copies of K and V behind it that
/// its kernel reads (`ggml_cuda_flash_attn_ext_get_alloc_size`).
pub(super) fn flash_attention_bytes(graph: &Graph, id: Id) -> u64 {
    let tensor = graph.get(id);
    let [k, v] = [1, 2].map(|index| source(graph, tensor, index).map(|source| source.kind));
    let copies = match flash_attention(graph, id) {
        None => false,
        Some(Kernel::Halves) => true,
        // The pairs that are compiled (`GGML_CUDA_FA_QUANTS`); f32 is copied to read it as f16.
        Some(Kernel::Vector) => k != v || !matches!(k, Some(Q4_0 | Q8_0 | F16 | BF16)),
    };
    if copies { bytes_with_halves(graph, id) } else { tensor.bytes() }
}

/// Returns the bytes of a flash attention's result with f16 copies of K and V
/// (`ggml_cuda_flash_attn_ext_get_f16_extra_data`).
pub(super) fn bytes_with_halves(graph: &Graph, id: Id) -> u64 {
    let tensor = graph.get(id);
    let (Some(k), Some(v)) = (source(graph, tensor, 1), source(graph, tensor, 2)) else { return tensor.bytes() };
    let copied = |end: u64, source: &Tensor| {
        let begin = end.checked_next_multiple_of(128).unwrap_or(u64::MAX);
        begin.saturating_add(source.elements().saturating_mul(2))
    };
    let mut end = tensor.bytes();
    if k.kind != F16 {
        end = copied(end, k);
    }
    // Values that are a view of the keys share their copy.
    let is_view = v.is_view() && (v.view_of == tensor.sources[1] || (v.view_of == k.view_of && v.offset == k.offset));
    if v.kind != F16 && !is_view {
        end = copied(end, v);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flash attention of `tokens` queries over 1,024 cells.
    fn attention(heads: [u64; 2], widths: [u64; 2], kinds: [TensorType; 2], tokens: u64) -> (Graph, Id) {
        let mut graph = Graph::default();
        let q = graph.constant(F32, [widths[0], tokens, heads[0], 1]);
        let k = graph.constant(kinds[0], [widths[0], 1024, heads[1], 1]);
        let v = graph.constant(kinds[1], [widths[1], 1024, heads[1], 1]);
        let mask = graph.constant(F16, [1024, tokens, 1, 1]);
        let id = graph.flash_attn(q, k, v, mask, Id::NONE);
        (graph, id)
    }

    #[test]
    fn only_some_heads_have_a_kernel() {
        let kernel = |heads, widths| {
            let (graph, id) = attention(heads, widths, [F16; 2], 512);
            flash_attention(&graph, id)
        };
        assert_eq!(kernel([32, 8], [128, 128]), Some(Kernel::Halves));
        assert_eq!(kernel([32, 8], [128, 64]), None);
        assert_eq!(kernel([32, 8], [160, 160]), None);
        assert_eq!(kernel([32, 4], [192, 128]), Some(Kernel::Halves));
        assert_eq!(kernel([32, 8], [192, 128]), None, "such heads share keys by eights");
        assert_eq!(kernel([16, 1], [576, 512]), Some(Kernel::Halves));
        assert_eq!(kernel([1, 1], [512, 512]), None, "such heads have to share keys");
    }

    #[test]
    fn quantised_keys_and_values_are_copied_for_more_than_two_tokens() {
        let copies = |kinds, tokens| {
            let (graph, id) = attention([32, 8], [128, 128], kinds, tokens);
            flash_attention_bytes(&graph, id) - graph.get(id).bytes()
        };
        let halves = 128 * 1024 * 8 * 2;
        assert_eq!(copies([F16; 2], 512), 0);
        assert_eq!(copies([Q8_0; 2], 512), 2 * halves);
        assert_eq!(copies([F16, Q8_0], 512), halves);
        assert_eq!(copies([Q8_0; 2], 2), 0);
        assert_eq!(copies([Q8_0, Q4_0], 2), 2 * halves, "no vector kernel takes this pair");
    }

    #[test]
    fn values_that_are_a_view_of_the_keys_share_their_copy() {
        let (mut graph, apart) = attention([16, 1], [576, 512], [Q8_0; 2], 512);
        let [q, k, _, mask, ..] = graph.get(apart).sources;
        let Tensor { ne, nb, .. } = *graph.get(k);
        let v = graph.view(k, [512, ne[1], ne[2], ne[3]], [nb[1], nb[2], nb[3]], 0);
        let id = graph.flash_attn(q, k, v, mask, Id::NONE);
        assert_eq!(flash_attention_bytes(&graph, id) - graph.get(id).bytes(), 576 * 1024 * 2);
    }

    #[test]
    fn rows_of_small_blocks_are_looked_up_by_whole_super_blocks() {
        let mut graph = Graph::default();
        let mut looks_up = |kind, width| {
            let table = graph.constant(kind, [width, 10, 1, 1]);
            let ids = graph.constant(I32, [4, 1, 1, 1]);
            let rows = graph.get_rows(table, ids);
            supports(&graph, rows)
        };
        assert!(looks_up(MXFP4, 512));
        assert!(!looks_up(MXFP4, 96));
        assert!(!looks_up(NVFP4, 512));
    }
}
