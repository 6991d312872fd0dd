//! Sizes as people type them.

use std::str::FromStr;

use thiserror::Error;

use super::Bytes;

/// Units of sizes; a bare `G` is no unit, because it means two things.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SizeError {
    /// The unit is none.
    #[error("\"{text}\" has an unknown unit")]
    Unit {
        /// The text.
        text: String,
    },
    /// The number is none.
    #[error("\"{text}\" is not a size")]
    Number {
        /// The text.
        text: String,
    },
    /// The size leaves the range.
    #[error("\"{text}\" is too large")]
    TooLarge {
        /// The text.
        text: String,
    },
}

impl FromStr for Bytes {
    type Err = SizeError;

    /// Reads a size, whatever the case of its unit: `24GB`, `23.5 GiB`, plain bytes. A fraction of
    /// a byte is rounded down; nothing goes through floats.
    fn from_str(text: &str) -> Result<Bytes, SizeError> {
        let text = text.trim();
        let unit_at = text.find(char::is_alphabetic).unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        let factor = match unit {
            "" => 1,
            _ => factor_of(unit).ok_or_else(|| SizeError::Unit { text: text.to_owned() })?,
        };
        let (whole, fraction) = number.trim().split_once('.').unwrap_or((number.trim(), "0"));
        let digits = |part: &str| -> Result<u64, SizeError> {
            let is_number = (1..=18).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| is_number).ok_or_else(|| SizeError::Number { text: text.to_owned() })
        };
        let (whole, parts) = (u128::from(digits(whole)?), u128::from(digits(fraction)?));
        let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(18));
        let bytes = whole * u128::from(factor) + parts * u128::from(factor) / scale;
        u64::try_from(bytes).map(Bytes).map_err(|_| SizeError::TooLarge { text: text.to_owned() })
    }
}

impl Bytes {
    /// Returns the text that reads back to just this size, in the largest unit that can say it.
    pub fn exact(self) -> String {
        let exact = ["GB", "GiB", "MB", "MiB", "kB", "KiB"].into_iter().find_map(|unit| {
            let factor = factor_of(unit)?;
            (self.0 >= factor && self.0.is_multiple_of(factor)).then(|| format!("{} {unit}", self.0 / factor))
        });
        exact.unwrap_or_else(|| format!("{} B", self.0))
    }
}

fn factor_of(unit: &str) -> Option<u64> {
    UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_exactly_in_decimal_and_binary_units() {
        for (text, bytes) in [
            ("512 MB", 512_000_000),
            ("24GB", 24_000_000_000),
            ("1.5 GiB", 3 << 29),
            ("0.25 kib", 256),
            (" 7 B ", 7),
            ("8200000000", 8_200_000_000),
            ("18446744073709551.615 kB", u64::MAX),
            ("0 MB", 0),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_its_own_text() {
        for (text, message) in [
            ("2 G", "\"2 G\" has an unknown unit"),
            ("24 GBit", "\"24 GBit\" has an unknown unit"),
            ("1e9", "\"1e9\" has an unknown unit"),
            ("-1 GB", "\"-1 GB\" is not a size"),
            ("1,5 GB", "\"1,5 GB\" is not a size"),
            ("1. GB", "\"1. GB\" is not a size"),
            (".5 GB", "\".5 GB\" is not a size"),
            ("1.2.3GB", "\"1.2.3GB\" is not a size"),
            ("½GB", "\"½GB\" is not a size"),
            ("GB", "\"GB\" is not a size"),
            ("", "\"\" is not a size"),
            ("99999999999 TB", "\"99999999999 TB\" is too large"),
            ("9999999999999999999 B", "\"9999999999999999999 B\" is not a size"),
        ] {
            assert_eq!(text.parse::<Bytes>().map_err(|error| error.to_string()), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_exact_text_reads_back_to_the_same_size() {
        for bytes in [0, 1, 999, 512_000_000, 512 << 20, 2_000_000_000, 3 << 30, u64::MAX / 19] {
            assert_eq!(Bytes(bytes).exact().parse(), Ok(Bytes(bytes)));
        }
        assert_eq!(Bytes(512 << 20).exact(), "512 MiB");
    }
}
