//! The reader itself: magic, version, counts, and then the two tables.

use std::io::{Read, Seek};

use super::cursor::Cursor;
use super::metadata::{DEFAULT_ALIGNMENT, read_metadata};
use super::tensor_table::read_tensors;
use super::{Header, HeaderError, HeaderProblem};
use crate::units::Bytes;

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

/// Reads the header of a GGUF file of `file_bytes` bytes.
///
/// # Errors
/// Returns the first problem met, with its offset; nothing of a bad file is kept.
pub fn read_header<R: Read + Seek>(source: R, file_bytes: u64, limits: &Limits) -> Result<Header, HeaderError> {
    let mut cursor = Cursor::new(source, file_bytes, limits)?;
    let version = read_version(&mut cursor)?;
    let tensor_count = read_count(&mut cursor, "tensors", limits.tensors)?;
    let metadata_count = read_count(&mut cursor, "metadata entries", limits.metadata_entries)?;
    let mut held = Held { bytes: 0, allowed: limits.held_bytes };
    let metadata = read_metadata(&mut cursor, metadata_count, &mut held)?;
    let alignment = metadata.unsigned("general.alignment").and_then(|number| u32::try_from(number).ok());
    let alignment = alignment.unwrap_or(DEFAULT_ALIGNMENT);
    let table = read_tensors(&mut cursor, tensor_count, alignment, file_bytes, &mut held)?;
    Ok(Header {
        version,
        metadata,
        tensors: table.tensors,
        alignment,
        data_offset: table.data_offset,
        file_bytes: Bytes(file_bytes),
        notes: table.notes,
    })
}

/// The memory a header takes so far.
pub(super) struct Held {
    bytes: u64,
    allowed: u64,
}

impl Held {
    /// Counts bytes about to be kept, and refuses them where they are too many.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<(), HeaderProblem> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.bytes > self.allowed {
            let what = "bytes of metadata and tensor names";
            return Err(HeaderProblem::LimitExceeded { what, value: self.bytes, allowed: self.allowed });
        }
        Ok(())
    }
}

fn read_version<R: Read + Seek>(cursor: &mut Cursor<R>) -> Result<u32, HeaderError> {
    let found = cursor.array("the magic number")?;
    if found != *b"GGUF" {
        return Err(HeaderError { offset: 0, problem: HeaderProblem::Magic { found } });
    }
    let offset = cursor.offset();
    let version = cursor.u32("the version")?;
    let problem = match version {
        2 | 3 => return Ok(version),
        // A small number in the other byte order.
        _ if version != 0 && version.trailing_zeros() >= 16 => {
            HeaderProblem::BigEndian { version: version.swap_bytes() }
        }
        _ => HeaderProblem::Version { version },
    };
    Err(HeaderError { offset, problem })
}

fn read_count<R: Read + Seek>(cursor: &mut Cursor<R>, what: &'static str, allowed: u64) -> Result<u64, HeaderError> {
    let offset = cursor.offset();
    let value = cursor.u64("the counts")?;
    if value > allowed {
        return Err(HeaderError { offset, problem: HeaderProblem::LimitExceeded { what, value, allowed } });
    }
    Ok(value)
}
