//! How long a header takes from a warm page cache: 8B models, 5 to 7 MB of header.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use fitwatch::gguf::{Limits, read_header};

#[path = "../gguf/writer.rs"]
mod writer;

use writer::{ARRAY, TEXT, U32, Writer, array, text};

fn headers(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("8b.gguf");
    let header = header_of_8b();
    let length = header.len() as u64;
    let mut file = File::create(&path).expect("a temporary file");
    file.write_all(&header).expect("a written header");
    // The weights are a hole: nobody reads them.
    file.set_len(length + DATA_BYTES).expect("a sparse file");

    criterion.bench_function("read_header/8b", |bencher| bencher.iter(|| read(&path)));
    criterion.bench_function("merely_read_the_bytes/8b", |bencher| {
        let mut buffer = vec![0; 128 << 10];
        bencher.iter(|| {
            let mut file = File::open(&path).expect("the file is there").take(length);
            while file.read(&mut buffer).expect("a readable file") > 0 {}
            black_box(&buffer);
        });
    });
}

fn read(path: &Path) {
    let file = File::open(path).expect("the file is there");
    let file_bytes = file.metadata().expect("the file is there").len();
    let header = read_header(file, file_bytes, &Limits::default()).expect("a good header");
    assert_eq!(header.metadata.array_len("tokenizer.ggml.tokens"), Some(TOKENS));
    black_box(header);
}

const TOKENS: u64 = 128_256;
const MERGES: u64 = 280_147;
const BLOCKS: u32 = 32;
/// More than the tensors of the header take.
const DATA_BYTES: u64 = 17 << 30;

/// Returns a header with the counts of Llama 3.1 8B: mostly its tokenizer.
fn header_of_8b() -> Vec<u8> {
    let token_types = 1_u32.to_le_bytes().into_iter().cycle().take(4 * 128_256).collect::<Vec<u8>>();
    let mut writer = Writer::new()
        .entry("general.architecture", TEXT, text("llama"))
        .entry("general.name", TEXT, text("Meta Llama 3.1 8B Instruct"))
        .entry("llama.block_count", U32, BLOCKS.to_le_bytes())
        .entry("llama.context_length", U32, 131_072_u32.to_le_bytes())
        .entry("tokenizer.ggml.tokens", ARRAY, array(TEXT, TOKENS, words(TOKENS, 3)))
        .entry("tokenizer.ggml.token_type", ARRAY, array(U32, TOKENS, token_types))
        .entry("tokenizer.ggml.merges", ARRAY, array(TEXT, MERGES, words(MERGES, 5)))
        .tensor("token_embd.weight", &[4_096, TOKENS], Q4_K, 0)
        .tensor("output_norm.weight", &[4_096], F32, 0)
        .tensor("output.weight", &[4_096, TOKENS], Q4_K, 0);
    for block in 0..BLOCKS {
        for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
            writer = writer.tensor(format!("blk.{block}.{name}.weight"), &[4_096, 4_096], Q4_K, 0);
        }
        for name in ["attn_norm", "ffn_norm"] {
            writer = writer.tensor(format!("blk.{block}.{name}.weight"), &[4_096], F32, 0);
        }
    }
    writer.bytes()
}

const F32: u32 = 0;
const Q4_K: u32 = 12;

/// Returns words whose lengths vary without a pattern that a processor could learn.
fn words(count: u64, shortest: usize) -> Vec<u8> {
    let lengths = (0..count).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0] >> 5);
    lengths.flat_map(|longer| text(&b"abcdefghijklmnopqrstuvwxyz"[..shortest + usize::from(longer)])).collect()
}

criterion_group!(benches, headers);
criterion_main!(benches);
