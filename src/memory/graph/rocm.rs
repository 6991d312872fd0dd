//! ggml's `ROCm` back-end, as far as it differs from [`super::cuda`], whose source it is.

use super::cuda;
use super::tensor::{Graph, Id, Op};

/// The longest row that is sorted: it has to fit the memory that a group of threads shares.
const MOST_SORTED: u64 = 64 * 1024 / 4;

/// Returns whether `ROCm` has a kernel for an operation: there is no library that sorts longer rows.
pub(super) fn supports(graph: &Graph, id: Id) -> bool {
    let tensor = graph.get(id);
    (tensor.op != Op::Argsort || tensor.ne[0] <= MOST_SORTED) && cuda::supports(graph, id)
}

/// Returns the bytes of a flash attention's result, with f16 copies of K and V for its kernel.
///
/// For one or two tokens the kernel depends on the GPU, and some read K and V as they are; the copies
/// are counted all the same.
pub(super) fn flash_attention_bytes(graph: &Graph, id: Id) -> u64 {
    match cuda::flash_attention(graph, id) {
        Some(_) => cuda::bytes_with_halves(graph, id),
        None => graph.get(id).bytes(),
    }
}
