//! Sizes as people write them: `512 MB`, `1.5 GiB`, or a bare number of bytes.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

use crate::units::{Bytes, SizeError};

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    deserializer.deserialize_any(SizeVisitor)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference over")]
pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&bytes.exact())
}

/// Reads a size; the error says what is wrong with it.
pub(super) fn read(text: &str) -> Result<Bytes, String> {
    // A bare number in quotes has most likely lost its unit; bytes are written without quotes.
    if text.trim().parse::<u64>().is_ok() {
        return Err(format!("\"{}\" has no unit", text.trim()));
    }
    text.parse().map_err(|error: SizeError| error.to_string())
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size or a number of bytes")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<Bytes, E> {
        Ok(Bytes(bytes))
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<Bytes, E> {
        u64::try_from(bytes).map(Bytes).map_err(|_| E::custom(format!("{bytes} is below zero")))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
        read(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_number_without_a_unit_is_refused() {
        assert_eq!(read("512 MB"), Ok(Bytes(512_000_000)));
        assert_eq!(read(" 512 "), Err("\"512\" has no unit".to_owned()));
        assert_eq!(read("2 G"), Err("\"2 G\" has an unknown unit".to_owned()));
    }
}
