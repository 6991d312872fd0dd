//! `model-index-cache.json` as a hint: which file LM Studio means by a key.
//!
//! The cache is stale by nature: its rows outlive their files. What it says is looked for in the
//! library before it is believed, and only rows that are asked for are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::path::PathBuf;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The rows of a cache that are looked at.
const ROWS: usize = 50_000;

/// What the index says of the keys that were asked for.
pub type IndexHints = BTreeMap<String, IndexHint>;

/// What the index says of a key; of several rows the first that tells something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexHint {
    /// `indexedModelIdentifier` of the files, of a virtual model those it stands for.
    pub identifier: Option<String>,
    /// The file.
    #[serde(serialize_with = "crate::paths::lossy_option")]
    pub path: Option<PathBuf>,
}

/// Reads the rows of an index that have one of these keys.
pub fn parse_index(reader: impl Read, keys: &BTreeSet<String>) -> Result<IndexHints, String> {
    let mut hints = IndexHints::new();
    let mut reader = serde_json::Deserializer::from_reader(reader);
    reader.deserialize_map(Document { keys, hints: &mut hints }).map_err(|error| match error.line() {
        0 => "no index".to_owned(),
        line => format!("no index (line {line}, column {})", error.column()),
    })?;
    Ok(hints)
}

struct Document<'a> {
    keys: &'a BTreeSet<String>,
    hints: &'a mut IndexHints,
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "models" {
                map.next_value_seed(Rows { keys: self.keys, hints: &mut *self.hints })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Rows<'a> {
    keys: &'a BTreeSet<String>,
    hints: &'a mut IndexHints,
}

impl<'de> DeserializeSeed<'de> for Rows<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        let mut count = 0;
        while let Some(row) = rows.next_element::<Value>()? {
            count += 1;
            if count > ROWS {
                return Err(A::Error::custom("too many rows"));
            }
            take(&row, self.keys, self.hints);
        }
        Ok(())
    }
}

/// Takes a row over for every key of its own that was asked for.
fn take(row: &Value, keys: &BTreeSet<String>, hints: &mut IndexHints) {
    let text = |key: &str| row.get(key).and_then(Value::as_str);
    let own = [text("indexedModelIdentifier"), text("defaultIdentifier")];
    let automatic =
        row.get("autoIdentifiers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let wanted: BTreeSet<&str> = own.into_iter().flatten().chain(automatic).filter(|key| keys.contains(*key)).collect();
    if wanted.is_empty() {
        return;
    }
    let concrete = row.get("virtual").map(|it| it.get("concreteModelIndexedModelIdentifier").and_then(Value::as_str));
    let is_file = |path: &PathBuf| !path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("yaml"));
    let path = row.get("entryPoint").and_then(|entry| entry.get("absPath")).and_then(Value::as_str).map(PathBuf::from);
    let hint = IndexHint { identifier: concrete.unwrap_or(own[0]).map(str::to_owned), path: path.filter(is_file) };
    for key in wanted {
        let known = hints.entry(key.to_owned()).or_default();
        known.identifier = known.identifier.take().or_else(|| hint.identifier.clone());
        known.path = known.path.take().or_else(|| hint.path.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hints(text: &str, keys: &[&str]) -> Result<IndexHints, String> {
        parse_index(text.as_bytes(), &keys.iter().map(|key| (*key).to_owned()).collect())
    }

    fn index() -> String {
        json!({ "conflicts": [{ "x": [1] }], "models": [
            { "indexedModelIdentifier": "acme/Tiny-GGUF/tiny.gguf", "defaultIdentifier": "tiny",
              "autoIdentifiers": ["tiny", "acme/tiny"], "entryPoint": { "absPath": "/m/acme/Tiny-GGUF/tiny.gguf" } },
            { "indexedModelIdentifier": "openai/gpt", "defaultIdentifier": "openai/gpt",
              "entryPoint": { "absPath": "/h/hub/models/openai/gpt/model.yaml" },
              "virtual": { "concreteModelIndexedModelIdentifier": "comm/gpt-GGUF/gpt.gguf" } },
            { "indexedModelIdentifier": "lost/one", "virtual": { "baseChain": [] } },
            null, 5, "x", { "indexedModelIdentifier": 7, "autoIdentifiers": "odd" },
        ], "errors": null })
        .to_string()
    }

    #[test]
    fn a_key_leads_to_the_file_it_stands_for() {
        let found = hints(&index(), &["tiny", "acme/tiny", "openai/gpt", "lost/one", "unknown"]).unwrap();
        let tiny = IndexHint {
            identifier: Some("acme/Tiny-GGUF/tiny.gguf".into()),
            path: Some("/m/acme/Tiny-GGUF/tiny.gguf".into()),
        };
        assert_eq!((&found["tiny"], &found["acme/tiny"]), (&tiny, &tiny));
        let virtual_one = IndexHint { identifier: Some("comm/gpt-GGUF/gpt.gguf".into()), path: None };
        assert_eq!((&found["openai/gpt"], &found["lost/one"]), (&virtual_one, &IndexHint::default()));
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn what_was_not_asked_for_is_not_kept() {
        assert_eq!(hints(&index(), &[]).unwrap(), IndexHints::new());
    }

    #[test]
    fn what_is_no_index_is_an_error_that_tells_nothing_of_it() {
        let deep = format!("{{\"models\": [{}", "[".repeat(100_000));
        for text in ["", "[]", "{\"models\": {}}", "{\"models\": [{\"SECRET\"", &deep, "SECRET"] {
            let error = hints(text, &["tiny"]).unwrap_err();
            assert!(error.starts_with("no index") && !error.contains("SECRET"), "{error}");
        }
    }
}
