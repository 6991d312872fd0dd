//! Tolerant reading of LM Studio's JSON: numbers may be strings, values may be wrapped, and of a
//! file only what a white-list names is ever looked at.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// More models than anybody has.
const MOST_ROWS: usize = 16_384;
/// 2⁵³: above it, a float is no longer a count.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;

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

/// The values of a list, unread; those beyond all reason are left out.
pub(super) struct Rows<'a>(pub(super) Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Rows<'a> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut rows = Vec::new();
                while rows.len() < MOST_ROWS {
                    let Some(row) = list.next_element()? else { return Ok(rows) };
                    rows.push(row);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(rows)
            }
        }

        reader.deserialize_seq(List).map(Rows)
    }
}

impl Rows<'_> {
    /// Reads the rows; one that cannot be read is left out.
    pub(super) fn values(&self) -> impl Iterator<Item = Value> {
        self.0.iter().filter_map(|row| serde_json::from_str(row.get()).ok())
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

/// Returns a whole number of at least zero, also from a string.
pub(super) fn amount(value: &Value) -> Option<u64> {
    if let Some(whole) = value.as_u64() {
        return Some(whole);
    }
    let number = number(value)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    (0.0..=MOST_EXACT).contains(&number).then_some(number as u64)
}

/// Returns a text that is not blank, also from a number; one beyond all reason is none.
pub(super) fn text(value: Option<&Value>) -> Option<String> {
    /// Paths are shorter.
    const MOST_BYTES: usize = 4_096;
    let text = match value? {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    (!text.is_empty() && text.len() <= MOST_BYTES && !text.contains(char::is_control)).then_some(text)
}

/// Returns an error's words where they are short and can name neither a path nor a secret.
pub(super) fn plain(words: &str) -> Option<String> {
    const MOST_LETTERS: usize = 120;
    let words = words.lines().next()?.trim();
    let is_plain = |letter: char| letter.is_alphanumeric() || " .,;'\"()-_!?".contains(letter);
    let is_word = |word: &str| word.len() <= 24;
    let fits = !words.is_empty() && words.chars().count() <= MOST_LETTERS && words.split(' ').all(is_word);
    (fits && words.chars().all(is_plain)).then(|| words.to_owned())
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
    fn amounts_are_whole_and_may_be_zero() {
        assert_eq!(amount(&json!(u64::MAX)), Some(u64::MAX));
        assert_eq!(amount(&json!("5027783488")), Some(5_027_783_488));
        assert_eq!((amount(&json!(0)), amount(&json!(1.5e9))), (Some(0), Some(1_500_000_000)));
        for wrong in [json!(-1), json!("many"), json!(1e300), json!("inf"), json!(null), json!([])] {
            assert_eq!(amount(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn texts_are_trimmed_and_within_reason() {
        assert_eq!(text(Some(&json!(" qwen3-8b "))), Some("qwen3-8b".into()));
        assert_eq!(text(Some(&json!(7))), Some("7".into()));
        for wrong in
            [json!(""), json!("  "), json!(null), json!(true), json!({}), json!("a\u{0}b"), json!("x".repeat(5_000))]
        {
            assert_eq!(text(Some(&wrong)), None, "{wrong}");
        }
        assert_eq!(text(None), None);
    }

    #[test]
    fn an_errors_words_name_no_path_and_no_secret() {
        assert_eq!(plain("Model not found\nat line 3"), Some("Model not found".into()));
        for wrong in ["", "cannot open /home/robin/x.gguf", r"cannot open C:\x", "sk-lm-Ab3dEf9h:abcdefghij0123456789"]
        {
            assert_eq!(plain(wrong), None, "{wrong}");
        }
        assert_eq!(plain("key abcdefghijklmnopqrstuvwxyz0123456789"), None);
        assert_eq!(plain(&"so ".repeat(100)), None);
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
