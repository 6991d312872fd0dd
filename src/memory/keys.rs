//! A header's keys under its architecture's prefix, with limits.

use super::StructureError;
use crate::gguf::Metadata;

/// The most blocks that llama.cpp loads (`LLAMA_MAX_LAYERS`).
pub(super) const MOST_BLOCKS: u32 = 512;

/// The keys of one architecture.
pub(super) struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl<'a> Keys<'a> {
    /// Returns the keys that begin with the architecture's name.
    pub(super) const fn new(metadata: &'a Metadata, architecture: &'a str) -> Keys<'a> {
        Keys { metadata, architecture }
    }

    /// Returns an integer that fits 32 bits; a larger one is cut to the largest, so that the bill
    /// errs on the high side.
    pub(super) fn number(&self, key: &str) -> Option<u32> {
        self.metadata.unsigned(&self.full(key)).map(clamp)
    }

    /// Returns an integer that must be there and lie within `1..=most`.
    pub(super) fn required(&self, key: &str, most: u32) -> Result<u32, StructureError> {
        let full = self.full(key);
        let Some(number) = self.metadata.unsigned(&full) else {
            return Err(StructureError::MissingKey { key: full });
        };
        match u32::try_from(number) {
            Ok(number) if (1..=most).contains(&number) => Ok(number),
            _ => Err(StructureError::OutOfRange {
                key: full,
                value: number.to_string(),
                allowed: format!("1 to {most}"),
            }),
        }
    }

    /// Returns a number for each block: an array as it is (missing elements are 0), a single
    /// number repeated (`get_key_or_arr` in `llama-model-loader.cpp`).
    pub(super) fn by_block(&self, key: &str, blocks: usize) -> Option<Vec<u32>> {
        if let Some(mut numbers) = self.array(key) {
            numbers.resize(blocks, 0);
            return Some(numbers);
        }
        self.number(key).map(|number| vec![number; blocks])
    }

    /// Returns the elements of an array.
    pub(super) fn array(&self, key: &str) -> Option<Vec<u32>> {
        let numbers = self.metadata.numbers(&self.full(key))?;
        Some(numbers.iter().map(|&number| from_float(number)).collect())
    }

    /// Returns the elements of an array of floating-point numbers, or a single number.
    pub(super) fn floats(&self, key: &str) -> Option<Vec<f64>> {
        let full = self.full(key);
        let array = self.metadata.numbers(&full).map(<[f64]>::to_vec);
        array.or_else(|| self.metadata.float(&full).map(|number| vec![number]))
    }

    /// Returns a floating-point number.
    pub(super) fn float(&self, key: &str) -> Option<f32> {
        #[expect(clippy::cast_possible_truncation, reason = "llama.cpp keeps 32 bits too")]
        self.metadata.float(&self.full(key)).map(|number| number as f32)
    }

    /// Returns a text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.metadata.text(&self.full(key))
    }

    /// Returns a boolean.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.metadata.bool(&self.full(key))
    }

    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }
}

/// Returns the number, or the largest that fits.
pub(super) fn clamp(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Returns an array's element as an integer; the reader keeps numeric arrays as floats.
fn from_float(number: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, NaN becomes 0")]
    let number = number as u32;
    number
}
