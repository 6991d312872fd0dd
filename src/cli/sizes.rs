//! Sizes and spans as people type them.

use crate::units::{Bytes, SizeError, Span};

/// Returns a size: `24GB`, `23.5 GiB`, plain bytes.
pub(super) fn size(text: &str) -> Result<Bytes, String> {
    text.parse()
        .map_err(|error: SizeError| format!("{error}; write 24GB (10⁹ bytes), 23.5GiB (2³⁰ bytes) or plain bytes"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_is_none_is_refused_with_an_example() {
        assert_eq!(size("23.5GiB"), Ok(Bytes(25_232_932_864)));
        assert!(size("24G").unwrap_err().contains("write 24GB"));
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
