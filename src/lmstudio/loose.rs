//! Tolerant reading of LM Studio's JSON: numbers may be strings, values may be wrapped, and of a
//! file only what a white-list names is ever looked at.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// Reads an object and keeps the listed keys only; the last of two equal keys counts, as in
/// JavaScript. The error names a place in the text, never its content.
pub(super) fn white_listed(text: &str, keys: &'static [&'static str]) -> Result<BTreeMap<&'static str, Value>, String> {
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = reader.deserialize_map(WhiteList(keys)).and_then(|kept| reader.end().map(|()| kept));
    read.map_err(|error| match error.line() {
        0 => "no JSON object".into(),
        line => format!("no JSON object (line {line}, column {})", error.column()),
    })
}

struct WhiteList(&'static [&'static str]);

impl<'de> Visitor<'de> for WhiteList {
    type Value = BTreeMap<&'static str, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut kept = BTreeMap::new();
        while let Some(key) = map.next_key::<String>().map_err(A::Error::custom)? {
            match self.0.iter().find(|wanted| **wanted == key) {
                Some(wanted) => {
                    kept.insert(*wanted, map.next_value()?);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(kept)
    }
}

/// Returns what a value holds: of `{"checked": true, "value": …}` the value, of an unchecked one
/// nothing.
pub(super) fn unwrapped(value: &Value) -> Option<&Value> {
    match value.get("checked") {
        None => Some(value),
        Some(checked) if boolean(checked) == Some(true) => value.get("value"),
        Some(_) => None,
    }
}

/// Returns a whole number of at least one, also from a string.
pub(super) fn count(value: &Value) -> Option<u32> {
    let number = number(value)?;
    let whole = number.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&number);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and in range")]
    whole.then_some(number as u32)
}

/// Returns a ratio from 0 to 1, also from `"off"` and `"max"`.
pub(super) fn ratio(value: &Value) -> Option<f64> {
    match value.as_str().map(str::trim) {
        Some(word) if word.eq_ignore_ascii_case("off") => Some(0.0),
        Some(word) if word.eq_ignore_ascii_case("max") => Some(1.0),
        _ => number(value).filter(|ratio| (0.0..=1.0).contains(ratio)),
    }
}

/// Returns a truth value, also from a string.
pub(super) fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(boolean) => Some(*boolean),
        Value::String(text) => text.trim().to_ascii_lowercase().parse().ok(),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_listed_keys_are_kept_and_the_last_of_two_counts() {
        let kept = white_listed(r#"{"a": 1, "secret": {"b": 2}, "a": 3}"#, &["a", "b"]).unwrap();
        assert_eq!(kept, BTreeMap::from([("a", json!(3))]));
    }

    #[test]
    fn an_error_names_the_place_and_never_the_content() {
        for text in ["\"hf_secret\"", "{\"hf_secret\"", "{\"a\": hf_secret}", "", "[\"hf_secret\"]", "{} hf_secret"] {
            let error = white_listed(text, &["a"]).unwrap_err();
            assert!(error.starts_with("no JSON object") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_crash() {
        let text = format!("{{\"a\": {}", "[".repeat(1_000_000));
        assert!(white_listed(&text, &["a"]).is_err());
        assert!(white_listed(&text, &["b"]).is_err());
    }

    #[test]
    fn numbers_may_be_strings() {
        assert_eq!(count(&json!(8192)), Some(8_192));
        assert_eq!(count(&json!(" 81920 ")), Some(81_920));
        assert_eq!(count(&json!(4096.0)), Some(4_096));
        for wrong in [json!(0), json!(-1), json!(0.5), json!(4_294_967_296_u64), json!("1e400"), json!(true), json!({})]
        {
            assert_eq!(count(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_ratio_may_be_a_word() {
        assert_eq!(ratio(&json!("max")), Some(1.0));
        assert_eq!(ratio(&json!("off")), Some(0.0));
        assert_eq!(ratio(&json!("0.25")), Some(0.25));
        assert_eq!(ratio(&json!(1)), Some(1.0));
        for wrong in [json!("some"), json!(1.5), json!(-0.1), json!("NaN"), json!(null)] {
            assert_eq!(ratio(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_unchecked_value_counts_as_unset() {
        assert_eq!(unwrapped(&json!({"checked": true, "value": "q8_0"})), Some(&json!("q8_0")));
        assert_eq!(unwrapped(&json!({"checked": false, "value": "q8_0"})), None);
        assert_eq!(unwrapped(&json!("q8_0")), Some(&json!("q8_0")));
    }
}
