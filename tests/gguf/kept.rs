//! What the reader keeps of a good file, and what it passes over.

use fitwatch::gguf::{Limits, TensorType, Value};

use super::writer::{ARRAY, TEXT, U32, Writer, array, text};
use super::{read, read_with};

#[test]
fn every_value_type_is_understood() {
    let values: [(u32, &[u8], Value); 14] = [
        (0, &[200], Value::Unsigned(200)),
        (1, &[0xfe], Value::Signed(-2)),
        (2, &[0x34, 0x12], Value::Unsigned(0x1234)),
        (3, &[0xff, 0xff], Value::Signed(-1)),
        (4, &[0xff; 4], Value::Unsigned(0xffff_ffff)),
        (5, &[0xff; 4], Value::Signed(-1)),
        (6, &1.5_f32.to_le_bytes(), Value::Float(1.5)),
        (7, &[1], Value::Bool(true)),
        (7, &[0], Value::Bool(false)),
        (8, &text("ä\n"), Value::Text("ä\n".into())),
        (10, &[0xff; 8], Value::Unsigned(u64::MAX)),
        (11, &[0xff; 8], Value::Signed(-1)),
        (12, &1e300_f64.to_le_bytes(), Value::Float(1e300)),
        (9, &array(1, 2, [1, 0xff]), Value::Numbers(vec![1.0, -1.0])),
    ];
    for version in [2, 3] {
        for (kind, bytes, value) in &values {
            // The entry behind it shows that the right number of bytes was taken.
            let mut writer = Writer::new().entry("a.key", *kind, bytes).entry("a.next", U32, 9_u32.to_le_bytes());
            writer.version = version;
            let header = read(&writer.bytes()).expect("a good header");
            assert_eq!(header.metadata.get("a.key"), Some(value), "type {kind}");
            assert_eq!(header.metadata.unsigned("a.next"), Some(9), "type {kind}");
            assert_eq!(header.version, version);
        }
    }
}

#[test]
fn arrays_of_every_numeric_type_are_understood() {
    let arrays: [(u32, &[u8], &[f64]); 7] = [
        (0, &[1, 255], &[1.0, 255.0]),
        (2, &[1, 0, 0, 1], &[1.0, 256.0]),
        (3, &[0xff, 0xff, 1, 0], &[-1.0, 1.0]),
        (5, &[0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0], &[-1.0, 2.0]),
        (6, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0], &[1.0, -2.0]),
        (7, &[0, 1], &[0.0, 1.0]),
        (10, &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0], &[1.0, 2.0]),
    ];
    for (kind, bytes, numbers) in arrays {
        let header = read(&Writer::new().entry("a.key", ARRAY, array(kind, 2, bytes)).bytes()).expect("a good header");
        assert_eq!(header.metadata.numbers("a.key"), Some(numbers), "type {kind}");
        assert_eq!(header.metadata.array_len("a.key"), Some(2), "type {kind}");
    }
}

#[test]
fn a_value_per_block_is_kept_and_a_vocabulary_is_counted() {
    let writer = Writer::new()
        .entry("a.attention.head_count_kv", ARRAY, array(U32, 4_096, [1, 0, 0, 0].repeat(4_096)))
        .entry("tokenizer.ggml.token_type", ARRAY, array(U32, 4_097, [1, 0, 0, 0].repeat(4_097)))
        .entry("tokenizer.ggml.tokens", ARRAY, array(TEXT, 4_097, text("x").repeat(4_097)))
        .entry("general.tags", ARRAY, array(TEXT, 1, text("chat")))
        .entry("a.nothing", ARRAY, array(U32, 0, []));
    let metadata = read(&writer.bytes()).expect("a good header").metadata;
    assert_eq!(metadata.numbers("a.attention.head_count_kv").map(<[f64]>::len), Some(4_096));
    assert_eq!(metadata.get("tokenizer.ggml.token_type"), Some(&Value::Skipped(4_097)));
    assert_eq!(metadata.array_len("tokenizer.ggml.tokens"), Some(4_097));
    assert_eq!(metadata.get("general.tags"), Some(&Value::Skipped(1)));
    assert_eq!(metadata.numbers("a.nothing"), Some([].as_slice()));
}

#[test]
fn short_strings_are_kept_and_long_or_tokenizer_ones_are_counted() {
    let writer = Writer::new()
        .entry("general.name", TEXT, text("n".repeat(256)))
        .entry("general.description", TEXT, text("d".repeat(257)))
        .entry("tokenizer.chat_template", TEXT, text("{{ t }}"))
        .entry("general.architecture", TEXT, text("llama"));
    let header = read(&writer.bytes()).expect("a good header");
    assert_eq!(header.metadata.text("general.name").map(str::len), Some(256));
    assert_eq!(header.metadata.get("general.description"), Some(&Value::Skipped(257)));
    assert_eq!(header.metadata.get("tokenizer.chat_template"), Some(&Value::Skipped(7)));
    assert_eq!(header.architecture(), Some("llama"));
}

#[test]
fn the_file_type_is_named() {
    let header = read(&Writer::new().entry("general.file_type", U32, 15_u32.to_le_bytes()).bytes());
    assert_eq!(header.expect("a good header").metadata.file_type(), Some("Q4_K_M"));
    let header = read(&Writer::new().entry("general.file_type", TEXT, text("15")).bytes());
    assert_eq!(header.expect("a good header").metadata.file_type(), None);
}

#[test]
fn a_later_shard_needs_no_architecture() {
    let writer = Writer::new()
        .entry("split.no", 2, 1_u16.to_le_bytes())
        .entry("split.count", 2, 2_u16.to_le_bytes())
        .entry("split.tensors.count", 5, 1_i32.to_le_bytes())
        .tensor("t", &[8], 0, 0);
    let header = read(&[writer.bytes(), vec![0; 32]].concat()).expect("a good shard");
    assert_eq!(header.architecture(), None);
    assert_eq!(header.metadata.unsigned("split.tensors.count"), Some(1));
}

#[test]
fn a_tensor_is_listed_with_type_shape_and_place() {
    let writer = Writer::new().tensor("token_embd.weight", &[256, 10], 12, 0).tensor("scalar", &[], 0, 1_440).tensor(
        "blk.0.ffn_gate_exps.weight",
        &[32, 3, 2, 1],
        39,
        1_472,
    );
    let header = read(&[writer.bytes(), vec![0; 1_472 + 6 * 17]].concat()).expect("a good header");
    let [embedding, scalar, experts] = header.tensors.as_slice() else { panic!("{:?}", header.tensors) };
    assert_eq!((embedding.kind, embedding.dims, embedding.bytes.0), (TensorType(12), [256, 10, 1, 1], 1_440));
    assert_eq!((scalar.dims, scalar.bytes.0), ([1; 4], 4));
    assert_eq!((experts.dims, experts.offset, experts.bytes.0), ([32, 3, 2, 1], 1_472, 102));
    assert_eq!((header.alignment, header.data_offset % 32), (32, 0));
    assert_eq!(header.file_bytes.0, header.data_offset + 1_472 + 102);
}

#[test]
fn names_with_newlines_right_to_left_marks_and_broken_utf8_are_kept() {
    let writer = Writer::new()
        .entry("a.\n\u{202e}key", U32, 1_u32.to_le_bytes())
        .entry("a.text", TEXT, text(b"\xff\xfe"))
        .tensor("t\n\u{202e}", &[0], 99, 0)
        .tensor(b"\xc3", &[0], 0, 0);
    let header = read(&writer.bytes()).expect("odd names are no error");
    assert_eq!(header.metadata.unsigned("a.\n\u{202e}key"), Some(1));
    assert_eq!(header.metadata.text("a.text"), Some("\u{fffd}\u{fffd}"));
    assert_eq!(&*header.tensors[1].name, "\u{fffd}");
    // What is shown to people is escaped.
    assert!(header.notes[0].contains(r"t\n\u{202e}"), "{:?}", header.notes);
}

#[test]
fn many_unknown_types_make_few_notes() {
    let mut writer = Writer::new();
    for kind in 1_000..2_000 {
        writer = writer.tensor(kind.to_string(), &[1], kind, 0);
    }
    let header = read(&writer.bytes()).expect("kept with notes");
    assert_eq!(header.tensors.len(), 1_000);
    assert_eq!(header.notes.len(), 9);
    assert_eq!(header.notes[8], "992 more unknown tensor types");
}

#[test]
fn limits_are_the_callers() {
    let writer = Writer::new().entry("a.one", U32, [0; 4]).entry("a.two", U32, [0; 4]).tensor("t", &[0], 0, 0).tensor(
        "u",
        &[0],
        0,
        0,
    );
    let bytes = writer.bytes();
    assert!(read_with(&bytes, &Limits::default()).is_ok());
    let tight = [
        Limits { metadata_entries: 1, ..Limits::default() },
        Limits { tensors: 1, ..Limits::default() },
        Limits { header_bytes: 100, ..Limits::default() },
        Limits { held_bytes: 530, ..Limits::default() },
    ];
    let said: Vec<String> =
        tight.iter().map(|limits| read_with(&bytes, limits).expect_err("over the limit").to_string()).collect();
    assert_eq!(
        said,
        [
            "too many metadata entries (2, allowed are 1) at byte 16",
            "too many tensors (2, allowed are 1) at byte 8",
            "too many header bytes (114, allowed are 100) at byte 66",
            "too many bytes of metadata and tensor names (558, allowed are 530) at byte 99",
        ]
    );
}
