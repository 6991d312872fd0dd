//! How much memory the reader takes, counted at the allocator.
//!
//! One test alone, because the allocator counts the whole process.

use std::io::Cursor;

use fitwatch::gguf::{HeaderProblem, Limits, read_header};
use peak_alloc::PeakAlloc;

#[path = "gguf/writer.rs"]
mod writer;

use writer::{ARRAY, TEXT, U32, Writer, array, text};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;

#[test]
fn no_header_takes_more_memory_than_the_limits() {
    let (peak, kept, result) = measure(&large_vocabulary());
    assert!(result.is_ok(), "{result:?}");
    assert!(peak < MIB / 4 && kept < MIB / 20, "a usual header took {peak} bytes and kept {kept}");

    // ollama/ollama#17042: a tiny file that claims much.
    let mut tiny = Writer::new();
    (tiny.tensor_count, tiny.entry_count) = (1 << 16, 0);
    let (peak, kept, result) = measure(&tiny.bytes());
    assert!(matches!(result, Err(HeaderProblem::Truncated { .. })));
    assert!(peak < MIB / 4 && kept == 0, "a tiny file took {peak} bytes and kept {kept}");

    // One byte in the file, eight in memory: what is kept has to be counted, not what is read.
    let mut arrays = Writer::new();
    let payload = array(0, 4_096, vec![1; 4_096]);
    for number in 0..15_000_u32 {
        arrays = arrays.entry(number.to_string(), ARRAY, &payload);
    }
    let (peak, kept, result) = measure(&arrays.bytes());
    assert!(matches!(result, Err(HeaderProblem::LimitExceeded { allowed: 0x0200_0000, .. })));
    assert!(peak <= 33 * MIB && kept == 0, "arrays took {peak} bytes and kept {kept}");

    // As many entries and tensors as the counts allow, with names of the longest kind.
    let mut names = Writer::new();
    for number in 0..1_u32 << 16 {
        names = names.entry(format!("{number:0>100}"), TEXT, text("x".repeat(100)));
        names = names.tensor(format!("{number:0>63}"), &[0, 1, 1, 1], 0, 0);
    }
    let (peak, _, _) = measure(&names.bytes());
    assert!(peak <= 33 * MIB, "names took {peak} bytes");
}

/// Returns the bytes allocated at the most, those still allocated, and whether it was a header.
fn measure(bytes: &[u8]) -> (usize, usize, Result<(), HeaderProblem>) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let result = read_header(Cursor::new(bytes), bytes.len() as u64, &Limits::default());
    let (peak, after) = (ALLOCATOR.peak_usage(), ALLOCATOR.current_usage());
    (peak - before, after - before, result.map(drop).map_err(|error| error.problem))
}

/// A header as most models have one: 128,256 tokens and 300 tensors.
fn large_vocabulary() -> Vec<u8> {
    let mut writer = Writer::new()
        .entry("general.architecture", TEXT, text("llama"))
        .entry("llama.block_count", U32, [32, 0, 0, 0])
        .entry("tokenizer.ggml.tokens", ARRAY, array(TEXT, 128_256, text("token").repeat(128_256)));
    for number in 0..300_u32 {
        writer = writer.tensor(format!("blk.{number}.ffn_down_exps.weight"), &[0, 4_096], 12, 0);
    }
    writer.bytes()
}
