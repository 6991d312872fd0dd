//! The metadata table: which values are kept, and how the rest is passed over.

use std::collections::btree_map::Entry;
use std::io::{Read, Seek};

use super::cursor::Cursor;
use super::reader::Held;
use super::{HeaderError, HeaderProblem, Metadata, Value};

/// Alignment of the tensor data where a file does not say.
pub(super) const DEFAULT_ALIGNMENT: u32 = 32;
/// Larger alignments than this are no use to anyone but an attacker.
const MAX_ALIGNMENT: u32 = 1 << 20;
/// Keys are at most this long by the format's rules.
const MAX_KEY_BYTES: u16 = u16::MAX;
/// Longer numeric arrays are counted only; the kept ones have a value for each block.
const MAX_KEPT_NUMBERS: u64 = 4_096;
/// Longer strings are counted only.
const MAX_KEPT_TEXT_BYTES: u64 = 256;
/// Fewest bytes of an entry: the key's length, one character, the type, a one-byte value.
const MIN_ENTRY_BYTES: u64 = 8 + 1 + 4 + 1;
/// Memory of a map entry beside its key and what its value points to, in half-full nodes.
const ENTRY_OVERHEAD: usize = 128;

const READING: &str = "the metadata";

/// Reads `count` metadata entries.
pub(super) fn read_metadata<R: Read + Seek>(
    cursor: &mut Cursor<R>,
    count: u64,
    held: &mut Held,
) -> Result<Metadata, HeaderError> {
    cursor.expect_room(count.saturating_mul(MIN_ENTRY_BYTES), READING)?;
    let mut metadata = Metadata::default();
    for _ in 0..count {
        let offset = cursor.offset();
        let at = |problem| HeaderError { offset, problem };
        let key = cursor.text(MAX_KEY_BYTES, "bytes in a metadata key", "a metadata key")?;
        if key.is_empty() {
            return Err(at(HeaderProblem::EmptyKey));
        }
        held.hold(ENTRY_OVERHEAD + key.len()).map_err(at)?;
        match metadata.0.entry(key) {
            Entry::Occupied(entry) => return Err(at(HeaderProblem::DuplicateKey { key: shown(entry.key()) })),
            Entry::Vacant(entry) => {
                let value = read_value(cursor, entry.key(), held)?;
                entry.insert(value);
            }
        }
    }
    Ok(metadata)
}

fn read_value<R: Read + Seek>(cursor: &mut Cursor<R>, key: &str, held: &mut Held) -> Result<Value, HeaderError> {
    let offset = cursor.offset();
    let number = cursor.u32("a value type")?;
    let kind = Kind::of(number);
    if key == "general.alignment" {
        return read_alignment(cursor, number);
    }
    match kind {
        Some(Kind::Scalar(scalar)) => {
            let mut bytes = [0; 8];
            let taken = cursor.take(scalar.size(), "a value")?;
            bytes[..taken.len()].copy_from_slice(taken);
            Ok(scalar.value(bytes))
        }
        Some(Kind::Text) => read_text(cursor, key, held),
        Some(Kind::Array) => read_array(cursor, key, held),
        None => Err(HeaderError { offset, problem: HeaderProblem::ValueType { key: shown(key), number } }),
    }
}

fn read_alignment<R: Read + Seek>(cursor: &mut Cursor<R>, number: u32) -> Result<Value, HeaderError> {
    let offset = cursor.offset();
    let Some(Kind::Scalar(Scalar::U32)) = Kind::of(number) else {
        return Err(HeaderError { offset, problem: HeaderProblem::AlignmentType { number } });
    };
    let alignment = cursor.u32("the alignment")?;
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        let problem = HeaderProblem::Alignment { alignment, allowed: MAX_ALIGNMENT };
        return Err(HeaderError { offset, problem });
    }
    Ok(Value::Unsigned(u64::from(alignment)))
}

fn read_text<R: Read + Seek>(cursor: &mut Cursor<R>, key: &str, held: &mut Held) -> Result<Value, HeaderError> {
    let length = cursor.u64("a string")?;
    match usize::try_from(length) {
        Ok(bytes) if length <= MAX_KEPT_TEXT_BYTES && !key.starts_with("tokenizer.") => {
            held.hold(bytes).map_err(|problem| cursor.error(problem))?;
            cursor.known_text(bytes, "a string").map(Value::Text)
        }
        _ => cursor.skip(length, "a string").map(|()| Value::Skipped(length)),
    }
}

fn read_array<R: Read + Seek>(cursor: &mut Cursor<R>, key: &str, held: &mut Held) -> Result<Value, HeaderError> {
    const READING: &str = "an array";
    let offset = cursor.offset();
    let number = cursor.u32(READING)?;
    let count = cursor.u64(READING)?;
    match Kind::of(number) {
        Some(Kind::Scalar(scalar)) if count <= MAX_KEPT_NUMBERS => {
            let bytes = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(scalar.size());
            let taken = cursor.take(bytes, READING)?;
            let elements = taken.chunks_exact(scalar.size());
            held.hold(elements.len() * size_of::<f64>()).map_err(|problem| HeaderError { offset, problem })?;
            Ok(Value::Numbers(elements.map(|element| scalar.number(element)).collect()))
        }
        Some(Kind::Scalar(scalar)) => {
            cursor.skip(count.saturating_mul(scalar.size() as u64), READING)?;
            Ok(Value::Skipped(count))
        }
        Some(Kind::Text) => {
            cursor.expect_room(count.saturating_mul(size_of::<u64>() as u64), READING)?;
            cursor.skip_strings(count, READING)?;
            Ok(Value::Skipped(count))
        }
        Some(Kind::Array) => Err(HeaderError { offset, problem: HeaderProblem::NestedArray { key: shown(key) } }),
        None => Err(HeaderError { offset, problem: HeaderProblem::ValueType { key: shown(key), number } }),
    }
}

/// Returns as much of a key as an error message wants.
fn shown(key: &str) -> Box<str> {
    const LONGEST: usize = 80;
    key.chars().take(LONGEST).collect::<String>().into()
}

/// The format's value types.
#[derive(Clone, Copy)]
enum Kind {
    Scalar(Scalar),
    Text,
    Array,
}

#[derive(Clone, Copy)]
enum Scalar {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    Bool,
}

impl Kind {
    fn of(number: u32) -> Option<Kind> {
        let scalar = match number {
            0 => Scalar::U8,
            1 => Scalar::I8,
            2 => Scalar::U16,
            3 => Scalar::I16,
            4 => Scalar::U32,
            5 => Scalar::I32,
            6 => Scalar::F32,
            7 => Scalar::Bool,
            8 => return Some(Kind::Text),
            9 => return Some(Kind::Array),
            10 => Scalar::U64,
            11 => Scalar::I64,
            12 => Scalar::F64,
            _ => return None,
        };
        Some(Kind::Scalar(scalar))
    }
}

impl Scalar {
    fn size(self) -> usize {
        match self {
            Scalar::U8 | Scalar::I8 | Scalar::Bool => 1,
            Scalar::U16 | Scalar::I16 => 2,
            Scalar::U32 | Scalar::I32 | Scalar::F32 => 4,
            Scalar::U64 | Scalar::I64 | Scalar::F64 => 8,
        }
    }

    /// Returns the value of up to eight bytes, filled up with zeros.
    fn value(self, bytes: [u8; 8]) -> Value {
        let [a, b, c, d, ..] = bytes;
        match self {
            Scalar::U8 | Scalar::U16 | Scalar::U32 | Scalar::U64 => Value::Unsigned(u64::from_le_bytes(bytes)),
            Scalar::I8 => Value::Signed(i64::from(i8::from_le_bytes([a]))),
            Scalar::I16 => Value::Signed(i64::from(i16::from_le_bytes([a, b]))),
            Scalar::I32 => Value::Signed(i64::from(i32::from_le_bytes([a, b, c, d]))),
            Scalar::I64 => Value::Signed(i64::from_le_bytes(bytes)),
            Scalar::F32 => Value::Float(f64::from(f32::from_le_bytes([a, b, c, d]))),
            Scalar::F64 => Value::Float(f64::from_le_bytes(bytes)),
            // llama.cpp takes whatever is not zero for true.
            Scalar::Bool => Value::Bool(a != 0),
        }
    }

    /// Returns an array's element as a number.
    fn number(self, element: &[u8]) -> f64 {
        let mut bytes = [0; 8];
        bytes[..element.len()].copy_from_slice(element);
        match self.value(bytes) {
            Value::Unsigned(number) => number as f64,
            Value::Signed(number) => number as f64,
            Value::Float(number) => number,
            Value::Bool(value) => f64::from(u8::from(value)),
            Value::Text(_) | Value::Numbers(_) | Value::Skipped(_) => f64::NAN,
        }
    }
}
