//! The reader of the config text.

use std::ops::Range;
use std::path::PathBuf;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use toml::de::{DeTable, DeValue};

use super::keys::{self, KEYS};
use super::{ConfigError, Parsed};

const ENGINES: [&str; 2] = ["server", "library"];
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
/// With more than this kept free nothing would ever fit: a slip, not a wish.
const MOST_PERCENT: u16 = 90;

/// Reads a config.
pub fn parse(text: &str) -> Result<Parsed, ConfigError> {
    // Editors on Windows like to put a byte order mark first.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut unknown = Vec::new();
    let config = toml::Deserializer::parse(text)
        .and_then(|document| serde_ignored::deserialize(document, |path| unknown.push(path.to_string())))
        .map_err(|error| config_error(text, &error))?;
    Ok(Parsed { config, warnings: unknown.iter().map(|name| warning(text, name)).collect() })
}

pub(super) fn optional_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    checked_path(&String::deserialize(deserializer)?).map(Some)
}

pub(super) fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    Vec::<String>::deserialize(deserializer)?.iter().map(|path| checked_path(path)).collect()
}

pub(super) fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let percent = i64::deserialize(deserializer)?;
    match u16::try_from(percent) {
        Ok(percent) if percent <= MOST_PERCENT => Ok(percent),
        _ => Err(D::Error::custom(format!("{percent} is not between 0 and {MOST_PERCENT} percent"))),
    }
}

pub(super) fn engine<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let (engine, build) = name.split_once('@').map_or((name.as_str(), None), |(engine, build)| (engine, Some(build)));
    if !build.is_none_or(is_build) {
        return Err(D::Error::custom(format!("\"{name}\" has no build behind the @, such as {engine}@9010")));
    }
    one_of(&ENGINES, engine.to_owned()).map(|_| name)
}

pub(super) fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    one_of(&LEVELS, String::deserialize(deserializer)?)
}

/// Returns whether the text is a build of llama.cpp: a number, perhaps with the b of its tags.
fn is_build(text: &str) -> bool {
    text.strip_prefix('b').unwrap_or(text).parse().is_ok_and(|number: u32| number > 0)
}

fn one_of<E: Error>(allowed: &[&str], value: String) -> Result<String, E> {
    if allowed.contains(&value.as_str()) {
        return Ok(value);
    }
    Err(E::custom(format!("\"{value}\" is none of {}", allowed.join(", "))))
}

/// A path must not depend on the folder that fitwatch happens to be started in.
fn checked_path<E: Error>(text: &str) -> Result<PathBuf, E> {
    let path = PathBuf::from(text);
    if path.is_absolute() || text == "~" || text.starts_with("~/") || (cfg!(windows) && text.starts_with("~\\")) {
        return Ok(path);
    }
    Err(E::custom(format!("\"{text}\" is not a whole path")))
}

fn warning(text: &str, name: &str) -> String {
    let line = span_of_key(text, name).map_or(1, |span| position(text, span.start).0);
    match keys::nearest(name) {
        Some(nearest) => format!("line {line}: unknown key `{name}`, did you mean `{nearest}`?"),
        None => format!("line {line}: unknown key `{name}`"),
    }
}

fn config_error(text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start);
    let (line, column) = position(text, start);
    // The message of a parser may run over several lines; a person is shown one.
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    let message = match message.split_once("expected struct ") {
        Some((found, _)) => format!("{found}expected a table"),
        None => message,
    };
    let hint = hint(text, start, &message);
    ConfigError { line, column, message, hint }
}

/// Returns what to do about an error at this place.
fn hint(text: &str, at: usize, message: &str) -> Option<String> {
    if message.contains("escape") {
        return Some("write paths in 'single quotes', where a backslash is a backslash".to_owned());
    }
    if message.contains("duplicate key") {
        return Some("remove one of the two lines".to_owned());
    }
    let table = DeTable::parse(text).ok()?;
    for (section, value) in table.get_ref() {
        let Some(keys) = value.get_ref().as_table() else {
            let name = section.get_ref();
            let is_section = KEYS.iter().any(|key| key.section == name.as_ref());
            if is_section && value.span().contains(&at) {
                return Some(format!("write `[{name}]` on a line of its own, and its keys below it"));
            }
            continue;
        };
        let Some((name, _)) = keys.iter().find(|(_, value)| value.span().contains(&at)) else { continue };
        let key = KEYS.iter().find(|key| key.section == section.get_ref() && key.name == name.get_ref())?;
        return Some(format!("write it like `{} = {}`", key.name, key.example));
    }
    None
}

/// Returns where a key stands, given as `section.name`.
fn span_of_key(text: &str, path: &str) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut found = None;
    for name in path.split('.') {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else { break };
        found = Some(key.span());
        let DeValue::Table(below) = value.get_ref() else { break };
        table = below;
    }
    found
}

/// Returns line and column of a byte, both from 1, the column in characters.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::{Config, SAMPLE};
    use super::*;
    use crate::units::Bytes;

    #[test]
    fn an_empty_config_is_the_default() {
        for text in ["", "\n# nothing\n", "[fit]\n", "\u{feff}"] {
            let parsed = parse(text).unwrap();
            assert_eq!(parsed, Parsed { config: Config::default(), warnings: vec![] }, "{text:?}");
        }
    }

    #[test]
    fn every_key_is_read() {
        let text = "
            [library]
            lm_studio_home = '~/lm'
            extra_folders = ['~/models', '~']
            bundled_models = false
            [lm_studio]
            ask = false
            api_token_file = '~/token'
            [fit]
            gpu_margin = \"1.5 GiB\"
            gpu_margin_percent = 7
            ram_margin = 4000000000
            engine = \"library\"
            [notifications]
            new_model = true
            no_longer_fits = true
            [machine]
            nvml_library = '~/libnvidia-ml.so.1'
            [log]
            level = \"debug\"
        ";
        let Parsed { config, warnings } = parse(text).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(config.library.lm_studio_home.as_deref(), Some(Path::new("~/lm")));
        assert_eq!(config.library.extra_folders, [PathBuf::from("~/models"), PathBuf::from("~")]);
        assert!(!config.library.bundled_models);
        assert!(!config.lm_studio.ask);
        assert_eq!(config.lm_studio.api_token_file.as_deref(), Some(Path::new("~/token")));
        assert_eq!(config.fit.gpu_margin, Bytes(3 << 29));
        assert_eq!(config.fit.gpu_margin_percent, 7);
        assert_eq!(config.fit.ram_margin, Bytes(4_000_000_000));
        assert_eq!(config.fit.engine, "library");
        assert!(config.notifications.new_model && config.notifications.no_longer_fits);
        assert_eq!(config.machine.nvml_library.as_deref(), Some(Path::new("~/libnvidia-ml.so.1")));
        assert_eq!(config.log.level, "debug");
        assert_eq!(parse(&config.to_toml()).unwrap().config, config, "what is shown reads back");
    }

    #[test]
    fn unknown_keys_warn_with_line_and_nearest_name_and_the_rest_counts() {
        let text =
            "colour = 1\n\n[fit]\ngpu_margn = \"1 GB\"\nram_margin = \"1 GB\"\n[notification]\nnew_model = true\n";
        let Parsed { config, warnings } = parse(text).unwrap();
        assert_eq!(
            warnings,
            [
                "line 1: unknown key `colour`",
                "line 4: unknown key `fit.gpu_margn`, did you mean `fit.gpu_margin`?",
                "line 6: unknown key `notification`, did you mean `notifications`?",
            ]
        );
        assert_eq!(config.fit.ram_margin, Bytes(1_000_000_000));
        assert!(!config.notifications.new_model);
    }

    #[test]
    fn errors_name_line_column_and_what_to_write_instead() {
        for (text, expected, hint) in [
            (
                "[fit]\ngpu_margin_percent = 101",
                "line 2, column 22: 101 is not between 0 and 90 percent",
                "write it like `gpu_margin_percent = 5`",
            ),
            (
                "[fit]\ngpu_margin_percent = -1",
                "line 2, column 22: -1 is not between 0 and 90 percent",
                "write it like `gpu_margin_percent = 5`",
            ),
            (
                "[fit]\nram_margin = \"2 G\"",
                "line 2, column 14: \"2 G\" has an unknown unit",
                "write it like `ram_margin = \"2 GB\"`",
            ),
            ("[fit]\nram_margin = -2", "line 2, column 14: -2 is below zero", "write it like `ram_margin = \"2 GB\"`"),
            (
                "[fit]\nengine = \"vllm\"",
                "line 2, column 10: \"vllm\" is none of server, library",
                "write it like `engine = \"server\"`",
            ),
            (
                "[fit]\nengine = \"server@x\"",
                "line 2, column 10: \"server@x\" has no build behind the @, such as server@9010",
                "write it like `engine = \"server\"`",
            ),
            (
                "[log]\n\nlevel = \"loud\"",
                "line 3, column 9: \"loud\" is none of error, warn, info, debug, trace",
                "write it like `level = \"info\"`",
            ),
            (
                "[library]\nextra_folders = ['~/m', 'models']",
                "line 2, column 17: \"models\" is not a whole path",
                "write it like `extra_folders = ['~/models']`",
            ),
            (
                "[library]\nlm_studio_home = ''",
                "line 2, column 18: \"\" is not a whole path",
                "write it like `lm_studio_home = '~/.lmstudio'`",
            ),
            (
                "[notifications]\nnew_model = \"yes\"",
                "line 2, column 13: invalid type: string \"yes\", expected a boolean",
                "write it like `new_model = true`",
            ),
            (
                "library = 3",
                "line 1, column 11: invalid type: integer `3`, expected a table",
                "write `[library]` on a line of its own, and its keys below it",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.hint.as_deref()), (expected, Some(hint)), "{text}");
        }
    }

    #[test]
    fn broken_toml_is_an_error_at_its_place() {
        for (text, line) in [
            ("[fit\n", 1),
            ("[fit]\nram_margin = \n", 2),
            ("[fit]\nengine = \"server\n[log]", 2),
            ("[log]\nlevel = \"info\"\nlevel = \"warn\"\n", 3),
            ("[machine]\n\nnvml_library = \"C:\\nvml.dll\\qq\"\n", 3),
            ("\0", 1),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(!error.message.contains('\n'), "{error}");
        }
        let duplicate = parse("[log]\nlevel = \"info\"\nlevel = \"warn\"\n").unwrap_err();
        assert_eq!(duplicate.hint.as_deref(), Some("remove one of the two lines"));
        let backslash = parse("[machine]\nnvml_library = \"C:\\qvml.dll\"\n").unwrap_err();
        assert!(backslash.hint.is_some_and(|hint| hint.contains("single quotes")));
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        let error = parse("[library]\nextra_folders = ['~/größe', 3]").unwrap_err();
        assert_eq!((error.line, error.column), (2, 29));
    }

    #[test]
    fn the_sample_shows_every_key_with_its_default() {
        assert_eq!(parse(SAMPLE).unwrap(), Parsed { config: Config::default(), warnings: vec![] });

        // Uncommented, every line that holds a key must still be the default.
        let mut shown = BTreeSet::new();
        let uncommented: String = SAMPLE
            .lines()
            .map(|line| match line.strip_prefix('#').filter(|rest| rest.contains('=') && !rest.starts_with(' ')) {
                Some(setting) => {
                    shown.insert(setting.split('=').next().unwrap_or_default().trim().to_owned());
                    format!("{setting}\n")
                }
                None => format!("{line}\n"),
            })
            .collect();
        let Parsed { mut config, warnings } = parse(&uncommented).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        // These three have no default value to show: the sample shows what they could be.
        assert!(config.library.lm_studio_home.take().is_some());
        assert!(config.machine.nvml_library.take().is_some());
        assert!(config.lm_studio.api_token_file.take().is_some());
        assert_eq!(config, Config::default());
        assert_eq!(shown, KEYS.iter().map(|key| key.name.to_owned()).collect::<BTreeSet<_>>());
    }

    #[test]
    fn the_list_of_keys_is_the_schema_and_its_examples_are_allowed() {
        let mut config = Config::default();
        config.library.lm_studio_home = Some("~/lm".into());
        config.machine.nvml_library = Some("~/nvml".into());
        config.lm_studio.api_token_file = Some("~/token".into());
        let table: toml::Table = config.to_toml().parse().unwrap();
        let schema: Vec<String> = table
            .iter()
            .flat_map(|(section, keys)| keys.as_table().unwrap().keys().map(move |key| format!("{section}.{key}")))
            .collect();
        let listed: Vec<String> = KEYS.iter().map(|key| format!("{}.{}", key.section, key.name)).collect();
        assert_eq!(schema.iter().collect::<BTreeSet<_>>(), listed.iter().collect::<BTreeSet<_>>());
        for key in KEYS {
            let text = format!("[{}]\n{} = {}", key.section, key.name, key.example);
            assert!(parse(&text).is_ok_and(|parsed| parsed.warnings.is_empty()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*|[\\[\\]a-z_.='\"\n#0-9 -]{0,200}") {
            let _ = parse(&text);
        }
    }
}
