//! Units as types: bytes, moments, spans and shares.
//!
//! A number never travels without its unit. Arithmetic that could leave the range saturates and
//! says so in its name, because a wrapped byte count is a wrong verdict.

mod size;

use std::fmt;
use std::iter::Sum;

use serde::{Deserialize, Serialize};

pub use size::SizeError;

/// A number of bytes. Shown in GB = 10⁹ bytes, as LM Studio shows sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// No bytes at all.
    pub const ZERO: Bytes = Bytes(0);
    /// One mebibyte, 2²⁰ bytes.
    pub const MIB: Bytes = Bytes(1 << 20);
    /// One gibibyte, 2³⁰ bytes.
    pub const GIB: Bytes = Bytes(1 << 30);

    /// Returns the sum, or the largest number of bytes where the sum does not fit.
    #[must_use]
    pub const fn saturating_add(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(other.0))
    }

    /// Returns the difference, or zero where `other` is larger.
    #[must_use]
    pub const fn saturating_sub(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_sub(other.0))
    }

    /// Returns the product, or the largest number of bytes where the product does not fit.
    #[must_use]
    pub const fn saturating_mul(self, factor: u64) -> Bytes {
        Bytes(self.0.saturating_mul(factor))
    }

    /// Returns the bytes rounded up to a multiple of `alignment`, which must not be zero.
    #[must_use]
    pub const fn padded(self, alignment: u64) -> Bytes {
        match self.0.checked_next_multiple_of(alignment) {
            Some(bytes) => Bytes(bytes),
            None => Bytes(u64::MAX),
        }
    }

    /// Returns the given share of these bytes, rounded down.
    #[must_use]
    pub fn share(self, share: Share) -> Bytes {
        let bytes = u128::from(self.0) * u128::from(share.0) / 1_000;
        Bytes(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// Returns how far `self` is above `other`; negative where it is below.
    pub fn signed_difference(self, other: Bytes) -> i64 {
        let magnitude = i64::try_from(self.0.abs_diff(other.0)).unwrap_or(i64::MAX);
        if self >= other { magnitude } else { -magnitude }
    }

    /// Returns the size in binary units, always named as such: `3.99 GiB`.
    pub fn binary(self) -> String {
        let (size, unit) = scaled(self.0, 1_024.0, ["B", "KiB", "MiB", "GiB", "TiB"]);
        if unit == "B" { format!("{} B", self.0) } else { format!("{size:.2} {unit}") }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, unit) = scaled(self.0, 1_000.0, ["B", "kB", "MB", "GB", "TB"]);
        let text = match unit {
            "B" => format!("{} B", self.0),
            "kB" | "MB" => format!("{size:.0} {unit}"),
            _ => format!("{size:.1} {unit}"),
        };
        f.pad(&text)
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Bytes>>(iter: I) -> Bytes {
        iter.fold(Bytes::ZERO, Bytes::saturating_add)
    }
}

/// Returns the size in the largest unit that keeps it at least one, also after rounding.
fn scaled(bytes: u64, step: f64, units: [&'static str; 5]) -> (f64, &'static str) {
    let mut size = bytes as f64;
    let mut index = 0;
    while index + 1 < units.len() && size >= step - 0.5 {
        size /= step;
        index += 1;
    }
    (size, units[index])
}

/// A point in time, in milliseconds of a clock that never runs backwards and counts sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// Returns the moment `span` after this one.
    #[must_use]
    pub const fn after(self, span: Span) -> Moment {
        Moment(self.0.saturating_add(span.0))
    }

    /// Returns the time from `earlier` to this moment, zero where it lies in the future.
    #[must_use]
    pub const fn since(self, earlier: Moment) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

/// A length of time, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(pub u64);

impl Span {
    /// Returns a span of whole seconds.
    pub const fn seconds(seconds: u64) -> Span {
        Span(seconds.saturating_mul(1_000))
    }

    /// Returns a span of whole minutes.
    pub const fn minutes(minutes: u64) -> Span {
        Span::seconds(minutes.saturating_mul(60))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000;
        let text = match seconds {
            0 => format!("{} ms", self.0),
            1..60 => format!("{seconds} s"),
            60..3_600 => format!("{} min", seconds / 60),
            3_600..86_400 if seconds % 3_600 < 60 => format!("{} h", seconds / 3_600),
            3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
            _ => format!("{} days", seconds / 86_400),
        };
        f.pad(&text)
    }
}

impl From<Span> for std::time::Duration {
    fn from(span: Span) -> std::time::Duration {
        std::time::Duration::from_millis(span.0)
    }
}

/// A share of a whole, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(pub u16);

impl Share {
    /// Returns a share given in percent.
    pub const fn percent(percent: u16) -> Share {
        Share(percent.saturating_mul(10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_lm_studio_shows_them() {
        assert_eq!(Bytes(999).to_string(), "999 B");
        assert_eq!(Bytes(241_410_208).to_string(), "241 MB");
        assert_eq!(Bytes(4_920_739_232).to_string(), "4.9 GB");
        assert_eq!(Bytes(999_999_999).to_string(), "1.0 GB");
        assert_eq!(Bytes(u64::MAX).to_string(), "18446744.1 TB");
        assert_eq!(Bytes::GIB.binary(), "1.00 GiB");
    }

    #[test]
    fn byte_arithmetic_stays_at_the_ends_of_its_range() {
        assert_eq!(Bytes(u64::MAX).saturating_add(Bytes(1)), Bytes(u64::MAX));
        assert_eq!(Bytes(1).saturating_sub(Bytes(2)), Bytes::ZERO);
        assert_eq!(Bytes(u64::MAX).padded(128), Bytes(u64::MAX));
        assert_eq!(Bytes(u64::MAX).share(Share(1_000)), Bytes(u64::MAX));
        assert_eq!(Bytes::ZERO.signed_difference(Bytes(u64::MAX)), -i64::MAX);
        assert_eq!(Bytes(7).signed_difference(Bytes(9)), -2);
        assert_eq!([Bytes(u64::MAX), Bytes(5)].into_iter().sum::<Bytes>(), Bytes(u64::MAX));
    }

    #[test]
    fn spans_read_in_their_natural_unit() {
        assert_eq!(Span(250).to_string(), "250 ms");
        assert_eq!(Span::seconds(59).to_string(), "59 s");
        assert_eq!(Span::minutes(61).to_string(), "1 h 1 min");
    }
}
