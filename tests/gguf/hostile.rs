//! The malformed files behind known bugs of GGUF readers.

use std::time::{Duration, Instant};

use fitwatch::gguf::{HeaderProblem, Limits};

use super::writer::{ARRAY, TEXT, U32, Writer, array, text};
use super::{assert_problem, message, problem, read, read_with};

const F32: u32 = 0;
const Q4_K: u32 = 12;
const I8: u32 = 24;

#[test]
fn counts_that_wrap_are_refused() {
    // CVE-2024-21836, CVE-2024-23605
    for count in [1 << 32, 1 << 63, u64::MAX] {
        let mut writer = Writer::new();
        writer.tensor_count = count;
        assert_problem!(problem(&writer.bytes()), HeaderProblem::LimitExceeded { what: "tensors", value, .. } if value == count);
        let mut writer = Writer::new();
        writer.entry_count = count;
        assert_problem!(problem(&writer.bytes()), HeaderProblem::LimitExceeded { what: "metadata entries", value, .. } if value == count);
    }
}

#[test]
fn one_more_than_the_file_can_hold_is_refused() {
    let mut writer = Writer::new().tensor("", &[], F32, 0);
    writer.alignment = 1;
    writer.tensor_count = 2;
    assert_problem!(problem(&writer.bytes()), HeaderProblem::Truncated { needed: 48, left: 24, .. });
    let mut writer = Writer::new().entry("a", 0, [0]);
    writer.alignment = 1;
    writer.entry_count = 2;
    assert_problem!(problem(&writer.bytes()), HeaderProblem::Truncated { needed: 28, left: 14, .. });
}

#[test]
fn any_number_of_dimensions_beyond_four_is_refused() {
    // CVE-2024-21802
    let bytes = Writer::new().tensor("t", &[], F32, 0).bytes();
    let place = 24 + 8 + 1;
    for count in [5, 6, 255, 1 << 31, u32::MAX] {
        let mut bytes = bytes.clone();
        bytes[place..place + 4].copy_from_slice(&count.to_le_bytes());
        assert_problem!(problem(&bytes), HeaderProblem::Dimensions { count: found, .. } if found == count);
    }
}

#[test]
fn array_counts_that_wrap_are_refused() {
    // CVE-2024-21825
    for kind in [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12] {
        for count in [1 << 31, 1 << 61, 1 << 63, u64::MAX] {
            let writer = Writer::new().entry("a.key", ARRAY, array(kind, count, [0; 64]));
            assert_problem!(problem(&writer.bytes()), HeaderProblem::Truncated { reading: "an array", .. });
        }
    }
}

#[test]
fn string_lengths_that_wrap_are_refused() {
    // CVE-2024-23496
    for length in [u64::MAX, u64::MAX - 7, 1 << 63, 1 << 32] {
        let length = length.to_le_bytes();
        let mut key = Writer::new().entry("a.key", U32, [0; 4]);
        key.entries[..8].copy_from_slice(&length);
        assert_problem!(problem(&key.bytes()), HeaderProblem::LimitExceeded { what: "bytes in a metadata key", .. });
        let mut name = Writer::new().tensor("name", &[1], F32, 0);
        name.tensors[..8].copy_from_slice(&length);
        assert_problem!(problem(&name.bytes()), HeaderProblem::LimitExceeded { what: "bytes in a tensor name", .. });
        let value = Writer::new().entry("a.key", TEXT, length);
        assert_problem!(problem(&value.bytes()), HeaderProblem::Truncated { reading: "a string", .. });
        let element = Writer::new().entry("a.key", ARRAY, array(TEXT, 2, [text("x"), length.to_vec()].concat()));
        assert_problem!(problem(&element.bytes()), HeaderProblem::Truncated { reading: "an array", .. });
    }
}

#[test]
fn a_sum_of_padded_sizes_that_wraps_is_refused() {
    // CVE-2025-53630
    let huge = (1 << 63) - 1;
    let writer = Writer::new().tensor("a", &[huge], I8, 0).tensor("b", &[huge], I8, 1 << 63);
    assert_problem!(problem(&writer.bytes()), HeaderProblem::SizeOverflow { name } if &*name == "b");
}

#[test]
fn a_sum_of_sizes_that_wraps_is_refused() {
    // Behind a tensor of unknown size nothing is known of the places that follow.
    let mut writer = Writer::new().tensor("unknown", &[1], 9_999, 0);
    for number in 0..5_u32 {
        writer = writer.tensor(number.to_string(), &[1 << 62], I8, 0);
    }
    assert_problem!(problem(&writer.bytes()), HeaderProblem::SizeOverflow { name } if &*name == "3");
}

#[test]
fn a_size_that_wraps_before_the_division_is_told_truly() {
    // CVE-2026-33298: elements times block bytes leave the range, the size itself does not.
    let elements = 1 << 60;
    let writer = Writer::new().tensor("t", &[elements], Q4_K, 0);
    let size = elements / 256 * 144;
    let offset = writer.bytes().len() as u64;
    assert_problem!(problem(&writer.bytes()), HeaderProblem::Incomplete { needed, .. } if needed == offset + size);
}

#[test]
fn a_size_that_is_padded_to_nothing_is_refused() {
    let writer = Writer::new().tensor("t", &[(1 << 62) - 1], F32, 0);
    assert_problem!(problem(&writer.bytes()), HeaderProblem::SizeOverflow { .. });
}

#[test]
fn a_zero_dimension_empties_the_tensor_wherever_it_stands() {
    for place in 0..4 {
        let mut dims = [256; 4];
        dims[place] = 0;
        let header = read(&Writer::new().tensor("t", &dims, Q4_K, 0).bytes()).expect("an empty tensor");
        assert_eq!((header.tensors[0].bytes.0, header.tensors[0].dims), (0, dims));
    }
}

#[test]
fn a_zero_dimension_hides_no_overflow() {
    for place in 0..4 {
        let mut dims = [1 << 40; 4];
        dims[place] = 0;
        assert_problem!(problem(&Writer::new().tensor("t", &dims, F32, 0).bytes()), HeaderProblem::SizeOverflow { .. });
    }
}

#[test]
fn a_row_that_cuts_a_block_is_refused() {
    let writer = Writer::new().tensor("t", &[255, 256], Q4_K, 0);
    assert_problem!(problem(&writer.bytes()), HeaderProblem::Row { elements: 255, block: 256, .. });
}

#[test]
fn a_bad_alignment_is_refused() {
    for alignment in [0, 3, 13, 33, 1 << 21, 0x8000_0000, u32::MAX] {
        let writer = Writer::new().entry("general.alignment", U32, alignment.to_le_bytes());
        assert_problem!(problem(&writer.bytes()), HeaderProblem::Alignment { alignment: found, .. } if found == alignment);
    }
    for alignment in [1_u32, 2, 64, 1 << 20] {
        let mut writer = Writer::new().entry("general.alignment", U32, alignment.to_le_bytes());
        writer.alignment = alignment as usize;
        let header = read(&writer.bytes()).expect("a good alignment");
        assert_eq!((header.alignment, header.data_offset), (alignment, writer.bytes().len() as u64));
    }
}

#[test]
fn an_alignment_of_another_type_is_refused() {
    for kind in (0..13).filter(|kind| *kind != U32) {
        let writer = Writer::new().entry("general.alignment", kind, [32, 0, 0, 0, 0, 0, 0, 0]);
        assert_problem!(problem(&writer.bytes()), HeaderProblem::AlignmentType { number } if number == kind);
    }
}

#[test]
fn a_negative_or_unknown_tensor_type_cannot_be_sized() {
    for kind in [4, 5, 31, 36, 9_999, u32::MAX] {
        let writer = Writer::new().tensor("t", &[100, 3], kind, 0).tensor("known", &[8], F32, 64);
        let writer = writer.tensor("u", &[1], kind, 96);
        let header = read(&[writer.bytes(), vec![0; 96]].concat()).expect("kept with a note");
        assert_eq!((header.tensors[0].bytes.0, header.tensors[1].bytes.0), (0, 32), "type {kind}");
        assert_eq!(header.notes, [format!("unknown tensor type {kind}, size not counted: \"t\" and 1 more")]);
    }
}

#[test]
fn a_key_of_the_wrong_type_or_size_is_a_value_like_any_other() {
    // CVE-2024-8063 and the missing checks after it: what a value means is not asked here.
    let keys = ["block_count", "embedding_length", "context_length", "attention.head_count", "attention.head_count_kv"];
    let values: [(u32, Vec<u8>, Option<u64>); 6] = [
        (U32, 0_u32.to_le_bytes().to_vec(), Some(0)),
        (U32, u32::MAX.to_le_bytes().to_vec(), Some(0xffff_ffff)),
        (5, (-1_i32).to_le_bytes().to_vec(), None),
        (6, 32_f32.to_le_bytes().to_vec(), None),
        (TEXT, text("32"), None),
        (ARRAY, array(0, 3, [1, 2, 3]), None),
    ];
    for key in keys {
        for (kind, value, number) in &values {
            let header = read(&Writer::new().entry(key, *kind, value).bytes()).expect("a good header");
            assert_eq!(header.metadata.unsigned(key), *number, "{key} of type {kind}");
        }
        assert_eq!(read(&Writer::new().bytes()).expect("a good header").metadata.unsigned(key), None);
    }
}

#[test]
fn a_file_of_only_the_magic_is_incomplete() {
    // CVE-2024-39720
    assert_eq!(message(b"GGUF"), "file ends within the version (4 more bytes needed, 0 left) at byte 4");
    assert_eq!(message(b""), "file ends within the magic number (4 more bytes needed, 0 left) at byte 0");
}

#[test]
fn tensor_data_beyond_the_end_is_incomplete() {
    // CVE-2026-7482
    let writer = Writer::new().tensor("a", &[8], F32, 0).tensor("b", &[8], F32, 32);
    let bytes = [writer.bytes(), vec![0; 64]].concat();
    assert!(read(&bytes).is_ok());
    let short = problem(&bytes[..bytes.len() - 1]);
    assert!(short.is_incomplete());
    assert_problem!(short, HeaderProblem::Incomplete { needed, present } if needed == present + 1);
}

#[test]
fn tensors_that_share_their_bytes_are_refused() {
    // Else a small file could claim any amount of memory.
    let mut writer = Writer::new();
    for number in 0..9_u32 {
        writer = writer.tensor(number.to_string(), &[32], F32, 0);
    }
    let bytes = [writer.bytes(), vec![0; 8 * 128]].concat();
    assert_problem!(problem(&bytes), HeaderProblem::Overlap { total: 1_152, present: 1_024 });
}

#[test]
fn a_nested_array_is_refused_in_plain_words() {
    let writer = Writer::new().entry("a.key", ARRAY, array(ARRAY, 1, array(U32, 1, [0; 4])));
    let said = "metadata key \"a.key\" holds an array of arrays, which is not supported at byte 41";
    assert_eq!(message(&writer.bytes()), said);
}

#[test]
fn old_future_and_big_endian_files_are_refused_in_plain_words() {
    let said = |version: u32| {
        let mut writer = Writer::new();
        writer.version = version;
        message(&writer.bytes())
    };
    assert_eq!(said(1), "GGUF version 1 is not supported (2 and 3 are) at byte 4");
    assert_eq!(said(0), "GGUF version 0 is not supported (2 and 3 are) at byte 4");
    assert_eq!(said(99), "GGUF version 99 is not supported (2 and 3 are) at byte 4");
    assert_eq!(said(3_u32.swap_bytes()), "big-endian GGUF file (version 3), which is not supported at byte 4");
    assert_eq!(message(b"<html><body>"), "not a GGUF file (it begins with [3c, 68, 74, 6d]) at byte 0");
}

#[test]
fn a_hostile_key_is_shown_short_and_escaped() {
    let key = format!("\u{1b}[2J\n{}", "x".repeat(60_000));
    let writer = Writer::new().entry(&key, 77, []);
    let said = message(&writer.bytes());
    assert!(said.starts_with(r#"metadata key "\u{1b}[2J\nxxx"#) && said.len() < 200, "{said}");
}

#[test]
fn a_million_duplicate_keys_end_within_a_second() {
    let mut writer = Writer::new();
    for _ in 0..1_000_000 {
        writer = writer.entry("a.key", 0, [0]);
    }
    let bytes = writer.bytes();
    let start = Instant::now();
    assert_problem!(problem(&bytes), HeaderProblem::LimitExceeded { what: "metadata entries", .. });
    let limits = Limits { metadata_entries: u64::MAX, ..Limits::default() };
    let error = read_with(&bytes, &limits).expect_err("a duplicate key");
    assert_problem!(error.problem, HeaderProblem::DuplicateKey { .. });
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn as_many_names_as_allowed_and_a_late_duplicate_are_no_burden() {
    let mut writer = Writer::new();
    for number in 0..65_535 {
        writer = writer.entry(format!("a.long.common.prefix.{number}"), 0, [0]);
        writer = writer.tensor(format!("a.long.common.prefix.{number}"), &[0], F32, 0);
    }
    let start = Instant::now();
    let twice = writer.clone().tensor("a.long.common.prefix.7", &[0], F32, 0).bytes();
    assert_problem!(problem(&twice), HeaderProblem::DuplicateTensor { .. });
    let twice = writer.entry("a.long.common.prefix.7", 0, [0]).bytes();
    assert_problem!(problem(&twice), HeaderProblem::DuplicateKey { .. });
    // Comparing each with each would take minutes.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
