//! A checked walk through a header: small reads from one reused buffer, long things skipped.

use std::io::{ErrorKind, Read, Seek, SeekFrom};

use super::{HeaderError, HeaderProblem, Limits};

/// Large enough that reading costs few system calls, small enough to stay in the processor's
/// cache between the copy and the walk.
const BUFFER_BYTES: usize = 128 << 10;

/// A position in a header, which never leaves the file or the limits.
pub(super) struct Cursor<R> {
    source: R,
    buffer: Box<[u8]>,
    /// The buffered bytes not taken yet are `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Where the next byte to be taken stands in the file.
    offset: u64,
    file_bytes: u64,
    header_bytes: u64,
}

impl<R: Read + Seek> Cursor<R> {
    /// Returns a cursor at the beginning of the file.
    pub(super) fn new(mut source: R, file_bytes: u64, limits: &Limits) -> Result<Cursor<R>, HeaderError> {
        source.seek(SeekFrom::Start(0)).map_err(|error| HeaderError { offset: 0, problem: error.into() })?;
        Ok(Cursor {
            source,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            offset: 0,
            file_bytes,
            header_bytes: limits.header_bytes,
        })
    }

    /// Returns where the next byte stands in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the problem as an error at the current place.
    pub(super) fn error(&self, problem: HeaderProblem) -> HeaderError {
        HeaderError { offset: self.offset, problem }
    }

    /// Refuses what the rest of the file, or of the header's budget, cannot hold.
    ///
    /// `bytes` may be a lower bound: the least that a count of things needs.
    pub(super) fn expect_room(&self, bytes: u64, reading: &'static str) -> Result<(), HeaderError> {
        let left = self.file_bytes.saturating_sub(self.offset);
        if bytes > left {
            return Err(self.error(HeaderProblem::Truncated { reading, needed: bytes, left }));
        }
        // The sum cannot wrap: it is no larger than the file.
        let header_end = self.offset.saturating_add(bytes);
        if header_end > self.header_bytes {
            let what = "header bytes";
            return Err(self.error(HeaderProblem::LimitExceeded {
                what,
                value: header_end,
                allowed: self.header_bytes,
            }));
        }
        Ok(())
    }

    /// Takes a `u32`.
    pub(super) fn u32(&mut self, reading: &'static str) -> Result<u32, HeaderError> {
        self.array(reading).map(u32::from_le_bytes)
    }

    /// Takes a `u64`.
    pub(super) fn u64(&mut self, reading: &'static str) -> Result<u64, HeaderError> {
        self.array(reading).map(u64::from_le_bytes)
    }

    /// Takes a fixed number of bytes.
    pub(super) fn array<const N: usize>(&mut self, reading: &'static str) -> Result<[u8; N], HeaderError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, reading)?);
        Ok(array)
    }

    /// Takes the text of a string that is at most `allowed` bytes long, with broken UTF-8 mended.
    pub(super) fn text(
        &mut self,
        allowed: u16,
        what: &'static str,
        reading: &'static str,
    ) -> Result<Box<str>, HeaderError> {
        let at = self.offset;
        let length = self.u64(reading)?;
        match u16::try_from(length) {
            Ok(short) if short <= allowed => self.known_text(usize::from(short), reading),
            _ => Err(HeaderError {
                offset: at,
                problem: HeaderProblem::LimitExceeded { what, value: length, allowed: u64::from(allowed) },
            }),
        }
    }

    /// Takes text whose length was read before.
    pub(super) fn known_text(&mut self, bytes: usize, reading: &'static str) -> Result<Box<str>, HeaderError> {
        self.take(bytes, reading).map(|text| String::from_utf8_lossy(text).into())
    }

    /// Takes bytes, no more than the buffer holds.
    pub(super) fn take(&mut self, bytes: usize, reading: &'static str) -> Result<&[u8], HeaderError> {
        self.expect_room(bytes as u64, reading)?;
        if self.end - self.start < bytes {
            self.fill(bytes, reading)?;
        }
        let taken = self.start..self.start + bytes;
        self.advance(bytes);
        Ok(&self.buffer[taken])
    }

    /// Passes over bytes without reading what is not in the buffer already.
    pub(super) fn skip(&mut self, bytes: u64, reading: &'static str) -> Result<(), HeaderError> {
        self.expect_room(bytes, reading)?;
        match usize::try_from(bytes) {
            Ok(buffered) if buffered <= self.end - self.start => self.advance(buffered),
            _ => {
                let offset = self.offset.saturating_add(bytes);
                self.source.seek(SeekFrom::Start(offset)).map_err(|error| self.error(error.into()))?;
                (self.start, self.end, self.offset) = (0, 0, offset);
            }
        }
        Ok(())
    }

    /// Passes over strings, each a length and as many bytes.
    ///
    /// May end beyond the header's budget, by a buffer at the most; what comes next notices.
    pub(super) fn skip_strings(&mut self, count: u64, reading: &'static str) -> Result<(), HeaderError> {
        let mut left = count;
        while left > 0 {
            let (passed, bytes) = walk_strings(&self.buffer[self.start..self.end], left);
            self.advance(bytes);
            left -= passed;
            if left > 0 {
                // This one reaches over the end of the buffer.
                let length = self.u64(reading)?;
                self.skip(length, reading)?;
                left -= 1;
            }
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// Reads until `bytes` are in the buffer. A file can be shorter than it was said to be.
    fn fill(&mut self, bytes: usize, reading: &'static str) -> Result<(), HeaderError> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        // Nothing behind the stated end is looked at, though a growing file has it.
        let left = usize::try_from(self.file_bytes.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let room = self.buffer.len().min(left);
        while self.end < bytes {
            match self.source.read(&mut self.buffer[self.end..room]) {
                Ok(0) => {
                    let (needed, left) = (bytes as u64, self.end as u64);
                    return Err(self.error(HeaderProblem::Truncated { reading, needed, left }));
                }
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(error.into())),
            }
        }
        Ok(())
    }
}

/// Walks over at most `count` strings that lie wholly in `window` and returns how many they are
/// and how many bytes they take.
///
/// A header has half a million of them, so this loop is the time the reader takes: the only thing
/// an iteration waits for is the length before it.
fn walk_strings(window: &[u8], count: u64) -> (u64, usize) {
    let (mut passed, mut at) = (0, 0);
    while passed < count {
        let Some(length) = window[at..].first_chunk() else { break };
        let text = at + size_of::<u64>();
        match usize::try_from(u64::from_le_bytes(*length)) {
            Ok(bytes) if bytes <= window.len() - text => at = text + bytes,
            _ => break,
        }
        passed += 1;
    }
    (passed, at)
}
