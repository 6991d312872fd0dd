//! Virtual models: `hub/models/<owner>/<name>/model.yaml`, which name the files they stand for and the
//! load settings that come with them.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::LoadSettings;
use super::saved::fields;

/// What a file may hold: more is no description of a model.
const DEPTH: usize = 32;
const NODES: usize = 20_000;

/// A virtual model may stand for another one, so many times over.
const GENERATIONS: usize = 8;

/// The virtual models.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hub {
    /// By `owner/name`.
    models: BTreeMap<String, VirtualModel>,
    /// The key that stands for a repository of files, in lower case; nothing where several do.
    standing: BTreeMap<String, Option<String>>,
}

/// A virtual model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VirtualModel {
    /// What it stands for: `publisher/repository` of files, or another virtual model's key.
    pub bases: Vec<String>,
    /// The load settings that come with it.
    pub load: LoadSettings,
}

/// Reads a `model.yaml`. The error names a place in the text, never its content.
pub fn parse_virtual_model(text: &str) -> Result<VirtualModel, String> {
    let document = yaml(text)?;
    let base = document.get("base");
    if !document.is_object() || base.is_none() {
        return Err("it names no base".into());
    }
    let load = document.get("config").and_then(|config| config.get("load"));
    let load = fields(load).ok_or("config.load.fields is no list")?;
    Ok(VirtualModel { bases: bases(base.unwrap_or(&Value::Null)), load })
}

impl Hub {
    /// Returns the hub of these virtual models, by `owner/name`.
    pub fn new(models: BTreeMap<String, VirtualModel>) -> Hub {
        let mut hub = Hub { models, standing: BTreeMap::new() };
        for key in hub.models.keys() {
            for repository in hub.repositories(key) {
                hub.standing.entry(repository).and_modify(|only| *only = None).or_insert_with(|| Some(key.clone()));
            }
        }
        hub
    }

    /// Returns the virtual models by `owner/name`.
    pub fn models(&self) -> &BTreeMap<String, VirtualModel> {
        &self.models
    }

    /// Returns the virtual model of a key, whatever its case, with or without the variant behind an `@`.
    pub fn get(&self, key: &str) -> Option<&VirtualModel> {
        let key = key.split('@').next().unwrap_or(key);
        let same = || self.models.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
        self.models.get(key).or_else(|| same().map(|(_, model)| model))
    }

    /// Returns the repositories of files that a key stands for, in lower case.
    pub fn repositories(&self, key: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut wanted = vec![key.to_owned()];
        for _ in 0..GENERATIONS {
            let mut next = Vec::new();
            for key in wanted.drain(..) {
                let Some(model) = self.get(&key).filter(|_| seen.insert(key.to_lowercase())) else { continue };
                for base in &model.bases {
                    match self.get(base) {
                        Some(_) if !base.eq_ignore_ascii_case(&key) => next.push(base.clone()),
                        _ => drop(found.insert(base.to_lowercase())),
                    }
                }
            }
            wanted = next;
        }
        found
    }

    /// Returns the one virtual model that stands for a repository of files, with its key.
    pub fn standing_for(&self, publisher: &str, repository: &str) -> Option<(&str, &VirtualModel)> {
        if self.standing.is_empty() {
            return None;
        }
        let key = self.standing.get(&format!("{publisher}/{repository}").to_lowercase())?.as_deref()?;
        Some((key, self.models.get(key)?))
    }
}

/// Returns what `base` names: one text, or a list of texts and `{key, sources}`.
fn bases(base: &Value) -> Vec<String> {
    let mut names = BTreeSet::new();
    let entries = match base {
        Value::Array(entries) => entries.as_slice(),
        other => std::slice::from_ref(other),
    };
    for entry in entries {
        let key = entry.as_str().or_else(|| entry.get("key")?.as_str());
        let sources = entry.get("sources").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let repositories: Vec<String> = sources.iter().filter_map(repository).collect();
        // A key is a repository's name in lower case, or another virtual model's.
        names.extend(key.map(str::to_owned));
        names.extend(repositories);
    }
    names.into_iter().filter(|name| is_name(name)).collect()
}

fn repository(source: &Value) -> Option<String> {
    Some(format!("{}/{}", source.get("user")?.as_str()?, source.get("repo")?.as_str()?))
}

fn is_name(name: &str) -> bool {
    name.len() <= 256 && name.contains('/') && !name.chars().any(char::is_control)
}

/// A list or an object that is not closed yet, and the key that waits for its value.
enum Open {
    List(Vec<Value>),
    Object(Map<String, Value>, Option<String>),
}

/// Reads the first document of a text. References within it are refused: few lines of them make a
/// value of any size.
fn yaml(text: &str) -> Result<Value, String> {
    let mut open: Vec<Open> = Vec::new();
    for (count, event) in Parser::new_from_str(text.trim_start_matches('\u{feff}')).enumerate() {
        let (event, span) = event.map_err(|error| {
            format!("no YAML (line {}, column {})", error.marker().line(), error.marker().col() + 1)
        })?;
        let line = span.start.line();
        if count > NODES || open.len() > DEPTH {
            return Err(format!("too much YAML (line {line})"));
        }
        let value = match event {
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Object(Map::new(), None));
                continue;
            }
            Event::Scalar(text, style, ..) => scalar(&text, style),
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list)) => Value::Array(list),
                Some(Open::Object(object, _)) => Value::Object(object),
                None => return Err(format!("no YAML (line {line})")),
            },
            Event::Alias(_) => return Err(format!("YAML with references (line {line})")),
            Event::DocumentEnd | Event::StreamEnd => break,
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => continue,
        };
        match open.last_mut() {
            None => return Ok(value),
            Some(Open::List(list)) => list.push(value),
            Some(Open::Object(object, key)) => match key.take() {
                Some(key) => drop(object.insert(key, value)),
                None => *key = Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
            },
        }
    }
    Ok(Value::Null)
}

/// Returns what a scalar means by YAML's core schema.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return text.into();
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        _ => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(whole), _) => whole.into(),
            (_, Ok(number)) if number.is_finite() => number.into(),
            _ => text.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QWEN: &str = "# comment\nmodel: qwen/qwen3-8b\nbase:\n  - key: lmstudio-community/qwen3-8b-gguf\n    sources:\n      \
        - type: huggingface\n        user: lmstudio-community\n        repo: Qwen3-8B-GGUF\n  - key: lmstudio-community/\
        qwen3-8b-mlx-4bit\n    sources: []\nconfig:\n  operation:\n    fields:\n      - key: llm.prediction.systemPrompt\n        \
        value: SECRET\n  load:\n    fields:\n      - key: llm.load.contextLength\n        value: 42690\n      - key: \
        llm.load.llama.kCacheQuantizationType\n        value: { checked: true, value: q8_0 }\n      - key: llm.load.llama.\
        acceleration.offloadRatio\n        value: max\n";

    fn virtual_of(bases: &[&str]) -> VirtualModel {
        VirtualModel { bases: bases.iter().map(|base| (*base).to_owned()).collect(), ..VirtualModel::default() }
    }

    #[test]
    fn a_virtual_model_names_its_files_and_its_settings() {
        let found = parse_virtual_model(QWEN).unwrap();
        assert_eq!(
            found.bases,
            [
                "lmstudio-community/Qwen3-8B-GGUF",
                "lmstudio-community/qwen3-8b-gguf",
                "lmstudio-community/qwen3-8b-mlx-4bit"
            ]
        );
        assert_eq!((found.load.context_length, found.load.offload_ratio), (Some(42_690), Some(1.0)));
        assert_eq!(found.load.cache_type_k, Some(crate::memory::CacheType::Q8_0));
        assert!(!format!("{found:?}").contains("SECRET"));
        let short = parse_virtual_model("model: a/b\nbase: other/one\n").unwrap();
        assert_eq!((short.bases, short.load), (vec!["other/one".to_owned()], LoadSettings::default()));
    }

    #[test]
    fn what_describes_no_model_is_an_error_that_tells_nothing_of_it() {
        for text in [
            "",
            "SECRET",
            "- SECRET",
            "model: SECRET",
            "base: [SECRET",
            "base: SECRET\n\tx: y",
            "a: &x [SECRET]\nbase: *x",
            "base: a/b\nconfig: {load: {fields: SECRET}}",
            "\u{feff}",
            "base: \"SECRET",
        ] {
            let error = parse_virtual_model(text).unwrap_err();
            assert!(!error.contains("SECRET") && error.len() < 60, "{text}: {error}");
        }
    }

    #[test]
    fn deep_long_and_self_repeating_texts_are_refused() {
        for text in [
            "[".repeat(100_000),
            format!("base: a/b\nx: {}{}", "[".repeat(100), "]".repeat(100)),
            "{a: ".repeat(100_000),
            "- ".repeat(100_000),
            format!("base: a/b\nx:\n{}", " - y\n".repeat(30_000)),
            "base: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n".to_owned(),
        ] {
            assert!(parse_virtual_model(&text).is_err(), "{}", &text[..20]);
        }
    }

    #[test]
    fn a_virtual_model_may_stand_for_another_one_or_for_itself() {
        let hub = Hub::new(BTreeMap::from([
            ("me/mine".to_owned(), virtual_of(&["qwen/qwen3-8b"])),
            ("qwen/qwen3-8b".to_owned(), virtual_of(&["lmstudio-community/Qwen3-8B-GGUF"])),
            ("round/one".to_owned(), virtual_of(&["round/two"])),
            ("round/two".to_owned(), virtual_of(&["round/one"])),
            ("self/same".to_owned(), virtual_of(&["self/same"])),
        ]));
        let repository = BTreeSet::from(["lmstudio-community/qwen3-8b-gguf".to_owned()]);
        assert_eq!(hub.repositories("me/mine"), repository);
        assert_eq!(hub.repositories("Qwen/Qwen3-8B@q4_k_m"), repository);
        assert_eq!(hub.repositories("round/one"), BTreeSet::new());
        assert_eq!(hub.repositories("self/same"), BTreeSet::from(["self/same".to_owned()]));
        assert_eq!(hub.repositories("unknown"), BTreeSet::new());
        assert_eq!(hub.standing_for("LMStudio-Community", "Qwen3-8B-GGUF"), None, "two stand for it");
        assert_eq!(hub.standing_for("Self", "same").map(|(key, _)| key), Some("self/same"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\-:\\[\\]{}&*!|>'\"%@#,? \n\ta-c0-9~.]{0,200}") {
            let _ = parse_virtual_model(&text);
        }
    }
}
