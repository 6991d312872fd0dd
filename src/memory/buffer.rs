//! How a back-end rounds what it allocates.

use super::{Backend, CacheType, tensor::row_bytes};
use crate::gguf::TensorType;
use crate::units::Bytes;

/// A kind of buffer: its alignment and how it fills up quantised rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferKind {
    /// Every tensor begins at a multiple of this.
    alignment: u64,
    /// The last row of a quantised tensor is filled up to a multiple of this many elements.
    row_elements: u64,
}

impl BufferKind {
    /// Host memory, pinned, mapped or plain: `TENSOR_ALIGNMENT` of ggml's CPU back-end.
    pub const HOST: BufferKind = BufferKind { alignment: 32, row_elements: 1 };

    /// Returns the kind of buffer that a back-end's devices have.
    pub const fn of(backend: Backend) -> BufferKind {
        match backend {
            // `ggml_backend_cuda_buffer_type_get_alignment`, and `MATRIX_ROW_PADDING` of 512
            // elements behind a quantised tensor. ROCm is the same source.
            Backend::Cuda | Backend::Rocm => BufferKind { alignment: 128, row_elements: 512 },
            // Vulkan takes the driver's `minStorageBufferOffsetAlignment`; 64 is the most that
            // the usual drivers ask for.
            Backend::Vulkan => BufferKind { alignment: 64, row_elements: 1 },
            // A lent device's alignment is that of the back-end behind it, a CPU.
            Backend::Metal | Backend::Rpc | Backend::None => BufferKind::HOST,
        }
    }

    /// Returns what a tensor of `bytes` takes, given its element type and row length.
    pub fn allocated(self, kind: TensorType, row: u64, bytes: Bytes) -> Bytes {
        self.filled(kind, row, bytes).padded(self.alignment)
    }

    /// Returns what a tensor takes before it is rounded up to the alignment.
    pub(super) fn filled(self, kind: TensorType, row: u64, bytes: Bytes) -> Bytes {
        if self.row_elements == 1 || !kind.is_quantised() {
            return bytes;
        }
        let short = row % self.row_elements;
        if short == 0 { bytes } else { bytes.saturating_add(row_bytes(kind, self.row_elements - short)) }
    }

    /// Returns what every tensor's place is a multiple of.
    pub(super) const fn alignment(self) -> u64 {
        self.alignment
    }

    /// Returns what a cache tensor of `row` elements by `rows` takes.
    pub fn cache(self, kind: CacheType, row: u64, rows: u64) -> Bytes {
        let kind = kind.tensor_type();
        self.allocated(kind, row, row_bytes(kind, row).saturating_mul(rows))
    }

    /// Returns bytes rounded up to the alignment.
    pub fn padded(self, bytes: Bytes) -> Bytes {
        bytes.padded(self.alignment)
    }
}
