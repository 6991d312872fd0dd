//! The reader itself.

use std::io::{Read, Seek};

use thiserror::Error;

use super::Header;

/// What the reader accepts before it refuses a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of header read at the most.
    pub header_bytes: u64,
    /// Bytes of header held in memory at the most.
    pub held_bytes: u64,
    /// Metadata entries.
    pub metadata_entries: u64,
    /// Tensors.
    pub tensors: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { header_bytes: 64 << 20, held_bytes: 32 << 20, metadata_entries: 1 << 16, tensors: 1 << 16 }
    }
}

/// Why a header could not be read, and where in the file.
#[derive(Debug, Error)]
#[error("{problem} at byte {offset}")]
pub struct HeaderError {
    /// Byte offset at which the problem was met.
    pub offset: u64,
    /// What the problem is.
    pub problem: HeaderProblem,
}

/// What can be wrong with a header.
#[derive(Debug, Error)]
pub enum HeaderProblem {
    /// The file could not be read.
    #[error("cannot read the file: {0}")]
    Io(#[from] std::io::Error),
    /// The file does not begin with `GGUF`.
    #[error("not a GGUF file (it begins with {found:02x?})")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
}

/// Reads the header of a GGUF file of `file_bytes` bytes.
///
/// # Errors
/// Returns the first problem met, with its offset; nothing of a bad file is kept.
pub fn read_header<R: Read + Seek>(source: R, file_bytes: u64, limits: &Limits) -> Result<Header, HeaderError> {
    let _ = (source, file_bytes, limits);
    todo!()
}
