//! A good file, cut and mutated: whatever comes of it, the reader answers.

use fitwatch::gguf::Header;
use proptest::prelude::*;

use super::read;
use super::writer::{ARRAY, TEXT, U32, Writer, array, text};

#[test]
fn a_file_cut_at_any_byte_is_incomplete() {
    let bytes = good_file();
    assert!(read(&bytes).is_ok());
    for length in 0..bytes.len() {
        let error = read(&bytes[..length]).expect_err("a cut file");
        assert!(error.problem.is_incomplete(), "cut at {length}: {error}");
        assert!(error.offset <= length as u64, "cut at {length}: {error}");
    }
}

#[test]
fn a_file_with_any_one_byte_changed_is_answered() {
    let bytes = good_file();
    for place in 0..bytes.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[place] = value;
            check(&bytes);
        }
    }
}

proptest! {
    #[test]
    fn a_mutated_file_is_answered(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = good_file();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        check(&bytes);
    }

    #[test]
    fn a_file_with_hostile_numbers_is_answered(
        changes in prop::collection::vec((any::<prop::sample::Index>(), hostile_number()), 1..4),
    ) {
        let mut bytes = good_file();
        for (place, number) in changes {
            let place = place.index(bytes.len() - 8);
            bytes[place..place + 8].copy_from_slice(&number.to_le_bytes());
        }
        check(&bytes);
    }

    #[test]
    fn any_bytes_behind_the_magic_are_answered(rest in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&[b"GGUF\x03\0\0\0".as_slice(), &rest].concat());
    }
}

fn hostile_number() -> impl Strategy<Value = u64> {
    let near = |number: u64| (0..9_u64).prop_map(move |step| number.wrapping_sub(step));
    prop_oneof![
        near(0),
        near(8),
        near(1 << 16),
        near(1 << 31),
        near(1 << 32),
        near(1 << 62),
        near(1 << 63),
        any::<u64>()
    ]
}

/// Reads the bytes and checks what a header promises where there is one.
fn check(bytes: &[u8]) {
    match read(bytes) {
        Ok(header) => check_header(&header, bytes.len() as u64),
        Err(error) => {
            assert!(error.offset <= bytes.len() as u64, "{error}");
            assert!(error.to_string().len() < 1_000, "{error}");
        }
    }
}

fn check_header(header: &Header, file_bytes: u64) {
    assert!(header.alignment.is_power_of_two());
    assert_eq!(header.data_offset % u64::from(header.alignment), 0);
    assert_eq!(header.file_bytes.0, file_bytes);
    let mut total = 0;
    for tensor in &header.tensors {
        let end = header.data_offset.checked_add(tensor.offset).and_then(|start| start.checked_add(tensor.bytes.0));
        assert!(tensor.bytes.0 == 0 || end.is_some_and(|end| end <= file_bytes), "{tensor:?}");
        total += tensor.bytes.0;
    }
    assert!(total <= file_bytes);
}

/// A small file with a bit of everything, which ends with its last tensor.
fn good_file() -> Vec<u8> {
    let words: Vec<u8> = ["<s>", "", "hello", "world"].iter().flat_map(text).collect();
    let writer = Writer::new()
        .entry("general.architecture", TEXT, text("llama"))
        .entry("general.alignment", U32, 64_u32.to_le_bytes())
        .entry("llama.block_count", U32, 2_u32.to_le_bytes())
        .entry("llama.rope.freq_base", 6, 10_000_f32.to_le_bytes())
        .entry("llama.attention.head_count_kv", ARRAY, array(5, 2, [4, 0, 0, 0, 8, 0, 0, 0]))
        .entry("tokenizer.ggml.tokens", ARRAY, array(TEXT, 4, words))
        .entry("tokenizer.ggml.add_bos_token", 7, [1])
        .entry("tokenizer.chat_template", TEXT, text("{{ messages }}"))
        .tensor("token_embd.weight", &[32, 4], 8, 0)
        .tensor("blk.0.attn_norm.weight", &[32], 0, 192)
        .tensor("blk.0.ffn_down_exps.weight", &[32, 2, 2], 2, 320);
    let mut writer = writer;
    writer.alignment = 64;
    [writer.bytes(), vec![0; 320 + 72]].concat()
}
