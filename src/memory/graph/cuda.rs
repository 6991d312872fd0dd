//! ggml's CUDA back-end, as far as it decides about memory; ROCm is the same source.

use super::tensor::{Graph, Id};

/// Returns whether CUDA has a kernel for an operation (`ggml_backend_cuda_device_supports_op`).
pub(super) fn supports(_graph: &Graph, _id: Id) -> bool {
    true
}

/// Returns the bytes of a flash attention's result, with the f16 copies of K and V behind it
/// (`ggml_cuda_flash_attn_ext_get_alloc_size`).
pub(super) fn flash_attention_bytes(graph: &Graph, id: Id) -> u64 {
    graph.get(id).bytes()
}
