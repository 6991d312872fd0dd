//! Sizes and spans as people type them.

use crate::units::{Bytes, Span};

/// Units of sizes; a bare `G` is refused because it means two things.
const UNITS: [(&str, u64); 10] = [
    ("", 1),
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

/// Returns a size: `24GB`, `23.5 GiB`, plain bytes.
pub(super) fn size(text: &str) -> Result<Bytes, String> {
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim().to_ascii_lowercase());
    let Some(&(_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("{unit:?} is no unit of size; write GB (10⁹ bytes) or GiB (2³⁰ bytes)"));
    };
    scaled(number, factor).map(Bytes).ok_or_else(|| "a size is wanted: 24GB, 23.5GiB or plain bytes".into())
}

/// Returns a name and a size: `RTX 4090=24GB`.
pub(super) fn named_size(text: &str) -> Result<(String, Bytes), String> {
    let Some((name, bytes)) = text.rsplit_once('=') else {
        return Err("a name and a size are wanted: RTX4090=24GB".into());
    };
    match name.trim() {
        "" => Err("the name is missing: RTX4090=24GB".into()),
        // Pools are told apart by name, and main memory has this one.
        name if name.eq_ignore_ascii_case("ram") => Err("`RAM` is main memory; use --ram".into()),
        name => Ok((name.to_owned(), size(bytes)?)),
    }
}

/// Returns a span: `45m`, `2h`, `1h30m`.
pub(super) fn span(text: &str) -> Result<Span, String> {
    const WANTED: &str = "a span is wanted: 45m, 2h, 1h30m";
    let mut seconds = 0_u64;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).ok_or(WANTED)?;
        let number: u64 = rest[..digits].parse().map_err(|_| WANTED)?;
        let after = &rest[digits..];
        let letters = after.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(after.len());
        let unit = match &after[..letters] {
            "s" | "sec" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(WANTED.into()),
        };
        seconds = number.checked_mul(unit).and_then(|more| seconds.checked_add(more)).ok_or(WANTED)?;
        rest = after[letters..].trim_start();
    }
    if seconds == 0 { Err(WANTED.into()) } else { Ok(Span::seconds(seconds)) }
}

/// Returns a decimal number times a factor, rounded down, without going through floats.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| (1..=9).contains(digits))?;
    let bytes = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let part = fraction.parse::<u128>().ok()? * u128::from(factor) / 10_u128.pow(digits);
    bytes.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_typed() {
        for (text, bytes) in [
            ("24GB", 24_000_000_000),
            ("23.5GiB", 25_232_932_864),
            ("512 mib", 536_870_912),
            ("8200000000", 8_200_000_000),
            ("0.5kB", 500),
            ("1b", 1),
        ] {
            assert_eq!(size(text), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "GB", "24G", "24 GBit", "-1GB", "1.2.3GB", "1.GB", ".5GB", "99999999999999TB", "1e9", "½GB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_gpu_has_a_name_and_a_size() {
        assert_eq!(named_size("RTX 4090=24GB"), Ok(("RTX 4090".into(), Bytes(24_000_000_000))));
        assert_eq!(named_size("a=b=1GiB"), Ok(("a=b".into(), Bytes::GIB)));
        for text in ["24GB", "=24GB", "RTX=", "ram=3GB"] {
            assert!(named_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_read_as_typed() {
        assert_eq!(span("45m"), Ok(Span::minutes(45)));
        assert_eq!(span("1h30m"), Ok(Span::minutes(90)));
        assert_eq!(span("2 h"), Err("a span is wanted: 45m, 2h, 1h30m".into()));
        for text in ["", "5", "h", "0m", "5 parsecs", "99999999999999999999h", "18446744073709551615d"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
