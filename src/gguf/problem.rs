//! What can be wrong with a header, and where.

use thiserror::Error;

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
///
/// Names from the file are shown escaped, so that a hostile one cannot disturb a terminal.
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
    /// The file was written for a big-endian machine.
    #[error("big-endian GGUF file (version {version}), which is not supported")]
    BigEndian {
        /// The version, read as the file means it.
        version: u32,
    },
    /// The version is none the reader knows.
    #[error("GGUF version {version} is not supported (2 and 3 are)")]
    Version {
        /// The version in the file.
        version: u32,
    },
    /// The file ends inside the header.
    #[error("file ends within {reading} ({needed} more bytes needed, {left} left)")]
    Truncated {
        /// What was being read.
        reading: &'static str,
        /// Bytes needed from the offset on, at the least.
        needed: u64,
        /// Bytes left in the file from the offset on.
        left: u64,
    },
    /// The tensor data goes beyond the end of the file.
    #[error("file is incomplete or corrupt ({needed} bytes needed, {present} present)")]
    Incomplete {
        /// Length the file must have.
        needed: u64,
        /// Length the file has.
        present: u64,
    },
    /// A count, a length or the whole header is larger than the limits allow.
    #[error("too many {what} ({value}, allowed are {allowed})")]
    LimitExceeded {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        value: u64,
        /// How much the limits allow.
        allowed: u64,
    },
    /// A metadata entry has no name.
    #[error("empty metadata key")]
    EmptyKey,
    /// Two metadata entries have the same key.
    #[error("duplicate metadata key {key:?}")]
    DuplicateKey {
        /// The key.
        key: Box<str>,
    },
    /// A metadata value is of a type the format does not have, so that its end is unknown.
    #[error("metadata key {key:?} has unknown value type {number}")]
    ValueType {
        /// The key.
        key: Box<str>,
        /// The type's number.
        number: u32,
    },
    /// A metadata value is an array of arrays.
    #[error("metadata key {key:?} holds an array of arrays, which is not supported")]
    NestedArray {
        /// The key.
        key: Box<str>,
    },
    /// `general.alignment` is not stored as `uint32`.
    #[error("general.alignment has value type {number} instead of uint32")]
    AlignmentType {
        /// The type's number.
        number: u32,
    },
    /// `general.alignment` is no power of two, or too large.
    #[error("general.alignment is {alignment}, which is no power of two up to {allowed}")]
    Alignment {
        /// The alignment in the file.
        alignment: u32,
        /// The largest alignment accepted.
        allowed: u32,
    },
    /// A tensor has more dimensions than ggml knows.
    #[error("tensor {name:?} has {count} dimensions (at most 4 are possible)")]
    Dimensions {
        /// The tensor's name.
        name: Box<str>,
        /// Its number of dimensions.
        count: u32,
    },
    /// A tensor's row is no whole number of blocks of its type.
    #[error("tensor {name:?} has rows of {elements} elements, no multiple of its type's {block}")]
    Row {
        /// The tensor's name.
        name: Box<str>,
        /// Elements in a row.
        elements: u64,
        /// Elements in a block.
        block: u64,
    },
    /// A tensor's size, or the sum of all, leaves the range.
    #[error("size of tensor {name:?} leaves the 64-bit range")]
    SizeOverflow {
        /// The tensor's name.
        name: Box<str>,
    },
    /// Two tensors have the same name.
    #[error("duplicate tensor name {name:?}")]
    DuplicateTensor {
        /// The name.
        name: Box<str>,
    },
    /// The tensors are together larger than the data they share.
    #[error("tensors overlap ({total} bytes of tensors in {present} bytes of data)")]
    Overlap {
        /// Bytes of all tensors.
        total: u64,
        /// Bytes between the header and the end of the file.
        present: u64,
    },
}

impl HeaderProblem {
    /// Returns whether the file merely ends too early, as one does that is still being written.
    pub fn is_incomplete(&self) -> bool {
        matches!(self, HeaderProblem::Truncated { .. } | HeaderProblem::Incomplete { .. })
    }
}
