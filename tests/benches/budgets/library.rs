//! A library of model files with real shapes, their weights holes in the files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::Value;

#[path = "../../gguf/writer.rs"]
mod writer;

use writer::{ARRAY, TEXT, U32, Writer, array, text};

/// Words in the tokenizer of most files: a thousand full ones would be 6 GB of headers.
const FEW_WORDS: u64 = 2_000;
/// Words and merges of Llama 3's tokenizer.
const WORDS: u64 = 128_256;
const MERGES: u64 = 280_147;
/// Architectures whose headers need no keys but the common ones.
const ARCHITECTURES: [&str; 9] =
    ["llama", "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3", "gpt-oss", "phi3", "starcoder2"];

#[path = "../../memory/truth.rs"]
#[allow(clippy::unwrap_used, reason = "a broken sample ends the benchmark")]
mod truth;

/// Returns the measured shapes of real models, dense and with experts, that are made into files.
pub(crate) fn shapes() -> Vec<(String, Value)> {
    named_shapes().filter(|(_, shape)| ARCHITECTURES.iter().any(|known| shape["architecture"] == *known)).collect()
}

/// Returns the measured shapes of all models.
pub(crate) fn all_shapes() -> Vec<Value> {
    named_shapes().map(|(_, shape)| shape).collect()
}

fn named_shapes() -> impl Iterator<Item = (String, Value)> {
    let shape = |structure| serde_json::to_value(structure).expect("a structure as JSON");
    truth::structures().into_iter().map(move |(name, structure)| (name, shape(structure)))
}

/// Writes `count` models of some publishers; every `full`-th has a tokenizer of full size.
pub(crate) fn write(models: &Path, count: usize, full: usize) {
    let shapes = shapes();
    for number in 0..count {
        let (name, shape) = &shapes[number % shapes.len()];
        let folder = models.join(format!("publisher-{:02}/{name}-{number:04}-GGUF", number % 40));
        write_model(&folder, &format!("{name}-{number:04}.gguf"), shape, number % full == 0);
    }
}

/// Writes one model and returns its path.
pub(crate) fn write_model(folder: &Path, name: &str, shape: &Value, is_full: bool) -> PathBuf {
    let (header, data) = header(shape, is_full);
    fs::create_dir_all(folder).expect("a folder for the model");
    let path = folder.join(name);
    fs::write(&path, &header).expect("a written header");
    let file = File::options().write(true).open(&path).expect("the file just written");
    file.set_len(header.len() as u64 + data).expect("a sparse file");
    path
}

/// Returns a header and how many bytes of weights follow it.
fn header(shape: &Value, is_full: bool) -> (Vec<u8>, u64) {
    let mut writer = tokenizer(keys(shape), is_full);
    let mut offset = 0_u64;
    let globals = shape["globals"].as_array().expect("tensors").iter().map(|tensor| (String::new(), tensor));
    let kinds = |index: &Value| &shape["kinds"][number(index)];
    let layouts = shape["pattern"]
        .as_array()
        .expect("blocks")
        .iter()
        .map(|kind| &shape["layouts"][number(&kinds(kind)["layout"])]);
    let blocks = layouts.enumerate().flat_map(|(block, layout)| {
        layout.as_array().expect("tensors").iter().map(move |tensor| (format!("blk.{block}."), tensor))
    });
    for (place, tensor) in globals.chain(blocks) {
        let name = match tensor[1].as_str() {
            Some("other") | None => tensor[0].as_str().expect("a name").to_owned(),
            Some(suffix) => format!("{}.{suffix}", tensor[0].as_str().expect("a name")),
        };
        let dims: Vec<u64> = tensor[3].as_array().expect("dimensions").iter().filter_map(Value::as_u64).collect();
        let used = dims.iter().rposition(|dim| *dim > 1).unwrap_or(0) + 1;
        let kind = u32::try_from(number(&tensor[2])).expect("a tensor type");
        writer = writer.tensor(format!("{place}{name}"), &dims[..used], kind, offset);
        let shape: fitwatch::memory::TensorShape = serde_json::from_value(tensor.clone()).expect("a tensor");
        offset += shape.bytes().0.next_multiple_of(32);
    }
    (writer.bytes(), offset)
}

fn keys(shape: &Value) -> Writer {
    let architecture = shape["architecture"].as_str().expect("an architecture");
    let dimensions = &shape["dimensions"];
    let cached = shape["kinds"].as_array().expect("kinds").iter().find(|kind| kind["cached"] == true);
    let kind = cached.unwrap_or(&shape["kinds"][0]);
    let mut writer = Writer::new()
        .entry("general.architecture", TEXT, text(architecture))
        .entry("general.name", TEXT, text("A model of a real shape"))
        .entry("general.file_type", U32, 15_u32.to_le_bytes());
    for (key, value) in [
        ("block_count", &shape["blocks"]),
        ("context_length", &shape["context_train"]),
        ("embedding_length", &dimensions["embedding"]),
        ("attention.head_count", &kind["heads"]),
        ("attention.head_count_kv", &kind["heads_kv"]),
        ("attention.key_length", &kind["head_k"]),
        ("attention.value_length", &kind["head_v"]),
        ("attention.sliding_window", &dimensions["window"]),
        ("expert_count", &dimensions["experts"]),
        ("expert_used_count", &kind["experts_used"]),
    ] {
        let value = u32::try_from(number(value)).expect("a size");
        if value != 0 {
            writer = writer.entry(format!("{architecture}.{key}"), U32, value.to_le_bytes());
        }
    }
    writer
}

fn tokenizer(writer: Writer, is_full: bool) -> Writer {
    let (tokens, merges) = if is_full { (WORDS, MERGES) } else { (FEW_WORDS, 2 * FEW_WORDS) };
    let kinds: Vec<u8> = (0..tokens).flat_map(|_| 1_u32.to_le_bytes()).collect();
    writer
        .entry("tokenizer.ggml.tokens", ARRAY, array(TEXT, tokens, words(tokens, 3)))
        .entry("tokenizer.ggml.token_type", ARRAY, array(U32, tokens, kinds))
        .entry("tokenizer.ggml.merges", ARRAY, array(TEXT, merges, words(merges, 5)))
}

/// Returns words whose lengths vary without a pattern that a processor could learn.
fn words(count: u64, shortest: usize) -> Vec<u8> {
    let lengths = (0..count).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0] >> 5);
    lengths.flat_map(|longer| text(&b"abcdefghijklmnopqrstuvwxyz"[..shortest + usize::from(longer)])).collect()
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().expect("a number")).expect("a small number")
}
