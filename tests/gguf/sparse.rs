//! Files with holes: what is large here is never in memory.

use std::io::{self, Read, Seek, SeekFrom};

use fitwatch::gguf::{HeaderProblem, Limits, Value, read_header};

use super::assert_problem;
use super::writer::{ARRAY, TEXT, Writer, array, text};

const TIB: u64 = 1 << 40;
const I8: u32 = 24;

#[test]
fn a_sparse_file_of_two_tebibytes_is_read() {
    let mut hole = Hole::behind(&Writer::new().tensor("big", &[TIB], I8, 0).tensor("other", &[TIB - 256], I8, TIB));
    let header = read_header(&mut hole, 2 * TIB, &Limits::default()).expect("all tensors are in the file");
    assert_eq!(header.tensors[1].bytes.0, TIB - 256);
    assert!(hole.read_bytes <= 1 << 20, "{} bytes were read", hole.read_bytes);
}

#[test]
fn a_sparse_file_that_is_a_byte_short_is_incomplete() {
    let writer = Writer::new().tensor("big", &[2 * TIB], I8, 0);
    let needed = writer.bytes().len() as u64 + 2 * TIB;
    let read = |file_bytes| read_header(Hole::behind(&writer), file_bytes, &Limits::default());
    assert!(read(needed).is_ok());
    let error = read(needed - 1).expect_err("the file is short");
    assert!(error.problem.is_incomplete());
    assert_problem!(error.problem, HeaderProblem::Incomplete { needed: n, present } if (n, present) == (needed, needed - 1));
}

#[test]
fn a_token_longer_than_the_header_may_be_is_refused() {
    // CVE-2025-49847: a token whose length is no int32, in a file that really is so long.
    let writer = Writer::new().entry("tokenizer.ggml.tokens", ARRAY, array(TEXT, 1, (1_u64 << 31).to_le_bytes()));
    let error = read_header(Hole::behind(&writer), TIB, &Limits::default()).expect_err("a token of 2 GiB");
    assert_problem!(error.problem, HeaderProblem::LimitExceeded { what: "header bytes", allowed: 0x0400_0000, .. });
}

#[test]
fn a_header_of_holes_ends_at_its_budget() {
    // Strings of no bytes: the cheapest way to keep a reader busy.
    let writer = Writer::new().entry("tokenizer.ggml.tokens", ARRAY, array(TEXT, 1 << 23, []));
    let mut hole = Hole::behind(&writer);
    let error = read_header(&mut hole, TIB, &Limits::default()).expect_err("64 MiB of empty strings and more");
    assert_problem!(error.problem, HeaderProblem::LimitExceeded { what: "header bytes", .. });
    assert!(hole.read_bytes <= 64 << 20, "{} bytes were read", hole.read_bytes);
}

#[test]
fn a_long_array_is_passed_over_without_reading_it() {
    let padding = vec![0; 40 << 20];
    let writer = Writer::new().entry("a.scores", ARRAY, array(6, 10 << 20, padding)).entry("a.name", TEXT, text("x"));
    let mut hole = Hole::behind(&writer);
    let header = read_header(&mut hole, TIB, &Limits::default()).expect("a good header");
    assert_eq!(header.metadata.get("a.scores"), Some(&Value::Skipped(10 << 20)));
    assert_eq!(header.metadata.text("a.name"), Some("x"));
    assert!(hole.read_bytes <= 1 << 20, "{} bytes were read", hole.read_bytes);
}

#[test]
fn a_string_array_is_passed_over_wherever_the_buffer_ends() {
    // Lengths around the reader's buffer and far below it, so that prefixes and texts are cut.
    for length in [0, 1, 3, 60, 1_000, 131_063, 131_064, 131_065, 131_072, 300_000] {
        let count = (2_000_000 / (length + 8)) as u64;
        let words: Vec<u8> = (0..count).flat_map(|_| text(vec![b'x'; length])).collect();
        let writer = Writer::new().entry("tokenizer.ggml.tokens", ARRAY, array(TEXT, count, words));
        let writer = writer.entry("general.architecture", TEXT, text("llama"));
        let header = read_header(Hole::behind(&writer), TIB, &Limits::default()).expect("a good header");
        assert_eq!(header.metadata.array_len("tokenizer.ggml.tokens"), Some(count), "{length}");
        assert_eq!(header.architecture(), Some("llama"), "{length}");
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_truncated() {
    let mut writer = Writer::new().entry("general.architecture", TEXT, text("llama"));
    writer.alignment = 1;
    let bytes = writer.bytes();
    for length in 0..bytes.len() {
        let source = io::Cursor::new(&bytes[..length]);
        let error = read_header(source, bytes.len() as u64, &Limits::default()).expect_err("the end is gone");
        assert_problem!(error.problem, HeaderProblem::Truncated { .. });
    }
}

#[test]
fn a_file_that_grows_while_it_is_read_is_read_to_its_stated_end() {
    let mut writer = Writer::new().entry("a.words", ARRAY, array(TEXT, 3, text("word").repeat(3)));
    writer.alignment = 1;
    let bytes = writer.bytes();
    for file_bytes in 0..bytes.len() as u64 {
        let error =
            read_header(io::Cursor::new(&bytes), file_bytes, &Limits::default()).expect_err("the end was stated");
        assert_problem!(error.problem, HeaderProblem::Truncated { .. });
    }
}

#[test]
fn a_string_array_beyond_the_budget_is_refused_though_it_is_the_last_thing() {
    let mut writer = Writer::new().entry("a.words", ARRAY, array(TEXT, 3, text("word").repeat(3)));
    writer.alignment = 1;
    let bytes = writer.bytes();
    let read = |header_bytes| {
        let limits = Limits { header_bytes, ..Limits::default() };
        read_header(io::Cursor::new(&bytes), bytes.len() as u64, &limits)
    };
    assert!(read(bytes.len() as u64).is_ok());
    let error = read(bytes.len() as u64 - 1).expect_err("a byte too many");
    assert_problem!(error.problem, HeaderProblem::LimitExceeded { what: "header bytes", .. });
}

#[test]
fn a_read_error_is_handed_on() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("disk on fire"))
        }
    }
    impl Seek for Broken {
        fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
            Ok(0)
        }
    }
    let error = read_header(Broken, 1_000, &Limits::default()).expect_err("the disk is on fire");
    assert_eq!(error.to_string(), "cannot read the file: disk on fire at byte 0");
}

#[test]
fn an_interrupted_or_slow_read_goes_on() {
    struct Slow(io::Cursor<Vec<u8>>, bool);
    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 { Err(io::ErrorKind::Interrupted.into()) } else { self.0.read(&mut buffer[..1]) }
        }
    }
    impl Seek for Slow {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }
    let words: Vec<u8> = ["a", "", "longer"].iter().flat_map(text).collect();
    let writer = Writer::new().entry("x.words", ARRAY, array(TEXT, 3, words)).entry("x.name", TEXT, text("y"));
    let bytes = writer.bytes();
    let length = bytes.len() as u64;
    let slow = Slow(io::Cursor::new(bytes), false);
    let header = read_header(slow, length, &Limits::default()).expect("a good header");
    assert_eq!(header.metadata.array_len("x.words"), Some(3));
    assert_eq!(header.metadata.text("x.name"), Some("y"));
}

/// Some bytes, and then zeros without end.
struct Hole {
    bytes: Vec<u8>,
    position: u64,
    read_bytes: u64,
}

impl Hole {
    fn behind(writer: &Writer) -> Hole {
        Hole { bytes: writer.bytes(), position: 0, read_bytes: 0 }
    }
}

impl Read for Hole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(self.position).map_or(self.bytes.len(), |start| start.min(self.bytes.len()));
        let mut rest = &self.bytes[start..];
        let read = rest.read(buffer)?;
        buffer[read..].fill(0);
        self.position += buffer.len() as u64;
        self.read_bytes += buffer.len() as u64;
        Ok(buffer.len())
    }
}

impl Seek for Hole {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::Current(step) => self.position.saturating_add_signed(step),
            SeekFrom::End(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(self.position)
    }
}
