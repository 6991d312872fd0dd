//! The parsed header as plain values.

use std::collections::BTreeMap;

use super::{TensorType, file_type_name};
use crate::units::Bytes;

/// One file's header, or the headers of all shards joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// GGUF version, 2 or 3.
    pub version: u32,
    /// Typed metadata; long arrays and unneeded strings are counted, not kept.
    pub metadata: Metadata,
    /// The tensor table in file order.
    pub tensors: Vec<Tensor>,
    /// Alignment of the tensor data, a power of two.
    pub alignment: u32,
    /// Where the tensor data begins in the file.
    pub data_offset: u64,
    /// Length of the file, or of all shards together.
    pub file_bytes: Bytes,
    /// What was understood only in part, in words for the user: an unknown tensor type, say.
    pub notes: Vec<String>,
}

/// Metadata by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(pub BTreeMap<Box<str>, Value>);

/// One metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned integer type.
    Unsigned(u64),
    /// Any signed integer type.
    Signed(i64),
    /// `float32` or `float64`.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string short enough to keep.
    Text(Box<str>),
    /// A numeric or boolean array short enough to keep (a value a block, say).
    Numbers(Vec<f64>),
    /// An array or string that was skipped, with its number of elements (bytes for a string).
    Skipped(u64),
}

/// One row of the tensor table.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The tensor's name, `blk.0.attn_q.weight` for example.
    pub name: Box<str>,
    /// Its element type.
    pub kind: TensorType,
    /// Elements in each dimension, the row length first; unused dimensions are 1.
    pub dims: [u64; 4],
    /// Where its data begins, counted from the header's `data_offset`.
    pub offset: u64,
    /// Bytes in the file; zero where the type is unknown.
    pub bytes: Bytes,
}

impl Header {
    /// Returns `general.architecture`, the model's architecture in llama.cpp's words.
    pub fn architecture(&self) -> Option<&str> {
        self.metadata.text("general.architecture")
    }
}

impl Metadata {
    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Returns a string.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Returns the name of `general.file_type`, `Q4_K_M` for example.
    pub fn file_type(&self) -> Option<&'static str> {
        self.unsigned("general.file_type").and_then(file_type_name)
    }

    /// Returns an integer that is not negative, whatever integer type it was stored in.
    pub fn unsigned(&self, key: &str) -> Option<u64> {
        match self.get(key) {
            Some(Value::Unsigned(number)) => Some(*number),
            Some(Value::Signed(number)) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// Returns a floating-point number.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.get(key) {
            Some(Value::Float(number)) => Some(*number),
            _ => None,
        }
    }

    /// Returns a boolean.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key) {
            Some(Value::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    /// Returns the elements of a kept numeric array.
    pub fn numbers(&self, key: &str) -> Option<&[f64]> {
        match self.get(key) {
            Some(Value::Numbers(numbers)) => Some(numbers),
            _ => None,
        }
    }

    /// Returns the number of elements of an array, kept or skipped.
    pub fn array_len(&self, key: &str) -> Option<u64> {
        match self.get(key) {
            Some(Value::Numbers(numbers)) => Some(numbers.len() as u64),
            Some(Value::Skipped(count)) => Some(*count),
            _ => None,
        }
    }
}
