//! Sizes as people write them: `512 MB`, `1.5 GiB`, or a bare number of bytes.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

use crate::units::Bytes;

const UNITS: [(&str, u64); 9] = [
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    deserializer.deserialize_any(SizeVisitor)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference over")]
pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    // The largest unit that says it exactly, so that the text reads back to the same number.
    let exact = ["GB", "GiB", "MB", "MiB", "kB", "KiB"].into_iter().find_map(|unit| {
        let factor = factor_of(unit)?;
        (bytes.0 >= factor && bytes.0.is_multiple_of(factor)).then(|| format!("{} {unit}", bytes.0 / factor))
    });
    match exact {
        Some(text) => serializer.serialize_str(&text),
        None => serializer.serialize_u64(bytes.0),
    }
}

/// Reads a size; the error says what is wrong with it.
pub(super) fn read(text: &str) -> Result<Bytes, String> {
    let text = text.trim();
    let unit_at = text.find(|letter: char| letter.is_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let Some(factor) = factor_of(unit) else {
        return Err(match unit {
            "" => format!("\"{text}\" has no unit"),
            _ => format!("\"{text}\" has an unknown unit"),
        });
    };
    let (whole, fraction) = number.trim().split_once('.').unwrap_or((number.trim(), "0"));
    let digits = |part: &str| (1..=18).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(format!("\"{text}\" is not a size"));
    }
    let too_large = |_| format!("\"{text}\" is too large");
    let whole: u64 = whole.parse().map_err(|_| format!("\"{text}\" is not a size"))?;
    let parts: u64 = fraction.parse().map_err(|_| format!("\"{text}\" is not a size"))?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(18));
    let bytes = u128::from(whole) * u128::from(factor) + u128::from(parts) * u128::from(factor) / scale;
    u64::try_from(bytes).map(Bytes).map_err(too_large)
}

fn factor_of(unit: &str) -> Option<u64> {
    UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor)
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
    fn sizes_are_read_exactly_in_decimal_and_binary_units() {
        for (text, bytes) in [
            ("512 MB", 512_000_000),
            ("2GB", 2_000_000_000),
            ("1.5 GiB", 3 << 29),
            ("0.25 kib", 256),
            (" 7 B ", 7),
            ("18446744073709551.615 kB", u64::MAX),
            ("0 MB", 0),
        ] {
            assert_eq!(read(text), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_its_own_text() {
        for (text, message) in [
            ("512", "\"512\" has no unit"),
            ("2 G", "\"2 G\" has an unknown unit"),
            ("-1 GB", "\"-1 GB\" is not a size"),
            ("1,5 GB", "\"1,5 GB\" is not a size"),
            ("1. GB", "\"1. GB\" is not a size"),
            (".5 GB", "\".5 GB\" is not a size"),
            ("GB", "\"GB\" is not a size"),
            ("", "\"\" has no unit"),
            ("99999999999 TB", "\"99999999999 TB\" is too large"),
            ("9999999999999999999 B", "\"9999999999999999999 B\" is not a size"),
        ] {
            assert_eq!(read(text), Err(message.to_owned()), "{text}");
        }
    }
}
