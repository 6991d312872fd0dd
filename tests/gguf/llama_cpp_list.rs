//! The named hand-made files of llama.cpp's own test of its reader, one test each.
//!
//! The reader is more forgiving than llama.cpp in two places, because a model that is not
//! understood in full is still shown: a tensor of unknown type is kept with a note, and so are
//! tensors that do not follow one another. It is stricter in one: tensor data that is not there
//! is always an error.

use fitwatch::gguf::{HeaderProblem, TensorType, Value};

use super::writer::{ARRAY, TEXT, U32, Writer, array, text};
use super::{assert_problem, problem, read};

const I32: u32 = 5;
const TYPE_COUNT: u32 = 13;
const F32: u32 = 0;
const I8: u32 = 24;
const I64: u32 = 27;

#[test]
fn header_bad_magic() {
    let mut writer = some_entries();
    writer.magic = *b"FUGG";
    assert_problem!(problem(&writer.bytes()), HeaderProblem::Magic { found } if found == *b"FUGG");
}

#[test]
fn header_bad_version_0() {
    assert_problem!(problem(&with_version(0)), HeaderProblem::Version { version: 0 });
}

#[test]
fn header_bad_version_1() {
    assert_problem!(problem(&with_version(1)), HeaderProblem::Version { version: 1 });
}

#[test]
fn header_bad_version_future() {
    assert_problem!(problem(&with_version(4)), HeaderProblem::Version { version: 4 });
    assert_problem!(problem(&with_version(99)), HeaderProblem::Version { version: 99 });
}

#[test]
fn header_bad_n_tensors() {
    let mut writer = some_entries();
    writer.tensor_count = u64::MAX;
    assert_problem!(problem(&writer.bytes()), HeaderProblem::LimitExceeded { what: "tensors", value: u64::MAX, .. });
}

#[test]
fn header_bad_n_kv() {
    let mut writer = some_entries();
    writer.entry_count = u64::MAX;
    assert_problem!(problem(&writer.bytes()), HeaderProblem::LimitExceeded { what: "metadata entries", .. });
}

#[test]
fn header_empty() {
    let header = read(&Writer::new().bytes()).expect("an empty header is one");
    assert!(header.tensors.is_empty() && header.metadata.0.is_empty());
    assert_eq!((header.version, header.data_offset), (3, 32));
}

#[test]
fn kv_bad_key_size() {
    let mut writer = some_entries();
    writer.entries[..8].fill(0xff);
    assert_problem!(problem(&writer.bytes()), HeaderProblem::LimitExceeded { value: u64::MAX, .. });
}

#[test]
fn kv_empty_key() {
    let writer = Writer::new().entry("", U32, 1_u32.to_le_bytes());
    assert_problem!(problem(&writer.bytes()), HeaderProblem::EmptyKey);
}

#[test]
fn kv_bad_type() {
    let writer = Writer::new().entry("key", TYPE_COUNT, [1]);
    assert_problem!(problem(&writer.bytes()), HeaderProblem::ValueType { number: TYPE_COUNT, .. });
    let writer = Writer::new().entry("key", ARRAY, array(TYPE_COUNT, 1, [1]));
    assert_problem!(problem(&writer.bytes()), HeaderProblem::ValueType { number: TYPE_COUNT, .. });
}

#[test]
fn kv_duplicate_key() {
    let writer = some_entries().entry("my_key_0", TEXT, text("another"));
    assert_problem!(problem(&writer.bytes()), HeaderProblem::DuplicateKey { key } if &*key == "my_key_0");
}

#[test]
fn kv_bad_align() {
    let writer = some_entries().entry("general.alignment", U32, 13_u32.to_le_bytes());
    assert_problem!(problem(&writer.bytes()), HeaderProblem::Alignment { alignment: 13, .. });
}

#[test]
fn kv_wrong_type_align() {
    let writer = some_entries().entry("general.alignment", I32, 32_u32.to_le_bytes());
    assert_problem!(problem(&writer.bytes()), HeaderProblem::AlignmentType { number: I32 });
}

#[test]
fn kv_success() {
    let header = read(&some_entries().bytes()).expect("a good header");
    assert_eq!(header.metadata.get("my_key_0"), Some(&Value::Unsigned(7)));
    assert_eq!(header.metadata.get("my_key_1"), Some(&Value::Text("text".into())));
}

#[test]
fn tensors_bad_name_size() {
    let longest = "x".repeat(63);
    assert!(read(&Writer::new().tensor(&longest, &[0], F32, 0).bytes()).is_ok());
    let writer = Writer::new().tensor(longest + "x", &[0], F32, 0);
    assert_problem!(problem(&writer.bytes()), HeaderProblem::LimitExceeded { value: 64, allowed: 63, .. });
}

#[test]
fn tensors_bad_n_dims() {
    let writer = Writer::new().tensor("my_tensor", &[1; 5], F32, 0);
    assert_problem!(problem(&writer.bytes()), HeaderProblem::Dimensions { count: 5, .. });
}

#[test]
fn tensors_bad_shape() {
    // Negative numbers, as ggml sees them.
    for dim in [u64::MAX, 1 << 63] {
        let writer = Writer::new().tensor("my_tensor", &[dim], I8, 0);
        assert_problem!(problem(&writer.bytes()), HeaderProblem::SizeOverflow { .. });
    }
}

#[test]
fn tensors_zero_dim() {
    let header = read(&Writer::new().tensor("my_tensor", &[256, 0], F32, 0).bytes()).expect("llama.cpp takes it too");
    assert_eq!((header.tensors[0].dims, header.tensors[0].bytes.0), ([256, 0, 1, 1], 0));
}

#[test]
fn tensors_ne_too_big() {
    let big = 4 * 0x7fff_ffff;
    let writer = Writer::new().tensor("my_tensor", &[big, big], F32, 0);
    assert_problem!(problem(&writer.bytes()), HeaderProblem::SizeOverflow { .. });
}

#[test]
fn tensors_nbytes_too_big() {
    let writer = Writer::new().tensor("my_tensor", &[1 << 31, 1 << 30], I64, 0);
    assert_problem!(problem(&writer.bytes()), HeaderProblem::SizeOverflow { .. });
}

#[test]
fn tensors_bad_type() {
    let header = read(&Writer::new().tensor("my_tensor", &[8], 43, 0).bytes()).expect("kept with a note");
    assert_eq!((header.tensors[0].kind, header.tensors[0].bytes.0), (TensorType(43), 0));
    assert_eq!(header.notes, ["unknown tensor type 43, size not counted: \"my_tensor\""]);
}

#[test]
fn tensors_bad_offset() {
    let writer = Writer::new().tensor("my_tensor", &[8], F32, u64::MAX);
    assert_problem!(problem(&with_data(&writer, 32)), HeaderProblem::SizeOverflow { .. });
    let writer = Writer::new().tensor("my_tensor", &[8], F32, 1 << 40);
    assert_problem!(problem(&with_data(&writer, 32)), HeaderProblem::Incomplete { .. });
}

#[test]
fn tensors_duplicate_name() {
    let writer = Writer::new().tensor("my_tensor", &[8], F32, 0).tensor("my_tensor", &[8], F32, 32);
    assert_problem!(problem(&with_data(&writer, 64)), HeaderProblem::DuplicateTensor { name } if &*name == "my_tensor");
}

#[test]
fn tensors_bad_align() {
    let writer = two_tensors(32).entry("general.alignment", U32, 13_u32.to_le_bytes());
    assert_problem!(problem(&with_data(&writer, 64)), HeaderProblem::Alignment { alignment: 13, .. });
}

#[test]
fn tensors_inconsistent_align() {
    let header = read(&with_data(&two_tensors(28), 64)).expect("kept with a note");
    assert!(header.notes[0].contains("do not follow"), "{:?}", header.notes);
}

#[test]
fn tensors_success() {
    // The table alone is what a download has that just began.
    assert_problem!(problem(&two_tensors(32).bytes()), HeaderProblem::Incomplete { .. });
}

#[test]
fn tensors_custom_align() {
    let mut writer = two_tensors(28).entry("general.alignment", U32, 1_u32.to_le_bytes());
    writer.alignment = 1;
    let header = read(&with_data(&writer, 56)).expect("a good header");
    assert_eq!((header.alignment, header.data_offset), (1, writer.bytes().len() as u64));
    assert_eq!(header.notes, Vec::<String>::new());
}

#[test]
fn data_not_enough_data() {
    let needed = two_tensors(32).bytes().len() as u64 + 32 + 28;
    let bytes = with_data(&two_tensors(32), 32 + 28 - 1);
    assert_problem!(problem(&bytes), HeaderProblem::Incomplete { needed: n, present } if (n, present) == (needed, needed - 1));
}

#[test]
fn data_bad_align() {
    let writer = two_tensors(32).entry("general.alignment", U32, 0_u32.to_le_bytes());
    assert_problem!(problem(&with_data(&writer, 64)), HeaderProblem::Alignment { alignment: 0, .. });
}

#[test]
fn data_inconsistent_align() {
    let header = read(&with_data(&two_tensors(28), 56)).expect("kept with a note");
    assert_eq!(header.tensors[1].offset, 28);
    assert_eq!(header.notes.len(), 1);
}

#[test]
fn data_mem_size_overflow() {
    // CVE-2026-27940 as well: the sum fits, but not with what is added to it.
    let huge = 0x7fff_ffff_ffff_ffc0;
    let writer = Writer::new().tensor("a", &[huge], I8, 0).tensor("b", &[huge], I8, huge);
    assert_problem!(problem(&with_data(&writer, 32)), HeaderProblem::Incomplete { needed: 0xffff_ffff_ffff_ffe0, .. });
    let writer = writer.entry("my_key", TEXT, text("x".repeat(100)));
    assert_problem!(problem(&with_data(&writer, 32)), HeaderProblem::Incomplete { needed: u64::MAX, .. });
}

#[test]
fn data_success() {
    let header = read(&with_data(&two_tensors(32), 60)).expect("a good header");
    let places: Vec<(u64, u64)> = header.tensors.iter().map(|tensor| (tensor.offset, tensor.bytes.0)).collect();
    assert_eq!(places, [(0, 28), (32, 28)]);
    assert_eq!(header.notes, Vec::<String>::new());
}

#[test]
fn data_custom_align() {
    let mut writer = two_tensors(4_096).entry("general.alignment", U32, 4_096_u32.to_le_bytes());
    writer.alignment = 4_096;
    let header = read(&with_data(&writer, 4_096 + 28)).expect("a good header");
    assert_eq!((header.alignment, header.data_offset), (4_096, 4_096));
}

fn some_entries() -> Writer {
    Writer::new().entry("my_key_0", U32, 7_u32.to_le_bytes()).entry("my_key_1", TEXT, text("text"))
}

fn with_version(version: u32) -> Vec<u8> {
    let mut writer = some_entries();
    writer.version = version;
    writer.bytes()
}

/// Two tensors of 28 bytes each.
fn two_tensors(second_offset: u64) -> Writer {
    Writer::new().tensor("my_tensor_0", &[7], F32, 0).tensor("my_tensor_1", &[1, 7], F32, second_offset)
}

fn with_data(writer: &Writer, data_bytes: usize) -> Vec<u8> {
    [writer.bytes(), vec![0; data_bytes]].concat()
}
