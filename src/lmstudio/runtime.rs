//! Which llama.cpp LM Studio runs: the runtime selected for GGUF files, and the build that its
//! release notes name.

use serde_json::Value;

use crate::memory::Build;

/// A runtime as LM Studio lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    name: String,
    version: String,
}

impl Runtime {
    /// Returns the name of its folder below `extensions/backends`.
    pub fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

/// Reads `backend-preferences-v1.json`: a list of the runtimes selected, one a model format.
pub fn parse_preferences(text: &str) -> Option<Runtime> {
    let list: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()?;
    let is_gguf = |entry: &&Value| entry.get("model_format").and_then(Value::as_str) == Some("gguf");
    let entry = list.as_array()?.iter().find(is_gguf)?;
    // They become a folder's name, so nothing in them may lead elsewhere.
    let plain = |key: &str| {
        let text = entry.get(key)?.as_str()?;
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | '+');
        (!text.is_empty() && text.len() <= 128 && text.chars().all(is_plain)).then(|| text.to_owned())
    };
    Some(Runtime { name: plain("name")?, version: plain("version")? })
}

/// Reads `display-data.json` of a runtime's folder: release notes by language and version, in which
/// the release of llama.cpp is named.
pub fn parse_build(text: &str, runtime: &Runtime) -> Option<Build> {
    let languages: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()?;
    let notes = languages.as_array()?.iter().filter_map(|language| language.get(1)?.get("releaseNotes")?.as_array());
    let own = |note: &&Value| note.get("version").and_then(Value::as_str) == Some(&runtime.version);
    notes.flatten().filter(own).find_map(|note| named_build(note.get("releaseNotes")?.as_str()?))
}

/// Returns the build of the first `llama.cpp release b9849` in a text.
fn named_build(text: &str) -> Option<Build> {
    text.split("llama.cpp release").skip(1).find_map(|rest| {
        // The number may be a link's text.
        let rest = rest.trim_start_matches([' ', '[', '`', '*', ':']).strip_prefix('b')?;
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
        digits.parse().ok().filter(|number| *number > 0).map(Build)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFERENCES: &str = r#"[{"model_format":"safetensors","name":"mlx-llm","version":"1.9.0"},
        {"model_format":"gguf","name":"llama.cpp-linux-x86_64-nvidia-cuda12-avx2","version":"2.31.0"}]"#;

    fn display(version: &str, notes: &str) -> String {
        let language = serde_json::json!({
            "langKey": "en", "displayName": "CUDA 12 llama.cpp",
            "releaseNotes": [{"version": "2.30.1", "releaseNotes": "- llama.cpp release b9010"},
                {"version": version, "releaseNotes": notes}],
        });
        serde_json::json!([["en", language]]).to_string()
    }

    #[test]
    fn the_build_is_that_of_the_selected_runtime() {
        let runtime = parse_preferences(PREFERENCES).expect("a runtime");
        assert_eq!(runtime.folder(), "llama.cpp-linux-x86_64-nvidia-cuda12-avx2-2.31.0");
        for notes in ["- llama.cpp release b9849 (commit 0123abc)", "llama.cpp release [b9849](https://x)"] {
            assert_eq!(parse_build(&display("2.31.0", notes), &runtime), Some(Build(9_849)), "{notes}");
        }
    }

    #[test]
    fn what_names_no_build_is_no_build() {
        let runtime = parse_preferences(PREFERENCES).expect("a runtime");
        let texts = ["", "[]", "[[\"en\"]]", "{}", &display("2.32.0", "llama.cpp release b9849")];
        let silent = ["faster", "llama.cpp release", "llama.cpp release b", "llama.cpp release b99999999999"];
        let silent = silent.map(|notes| display("2.31.0", notes));
        for text in texts.into_iter().chain(silent.iter().map(String::as_str)) {
            assert_eq!(parse_build(text, &runtime), None, "{text}");
        }
    }

    #[test]
    fn a_runtime_whose_folder_would_lie_elsewhere_is_none() {
        for name in ["", "../x", "a/b", "a\\\\b", "C:x"] {
            let text = format!(r#"[{{"model_format":"gguf","name":"{name}","version":"1"}}]"#);
            assert_eq!(parse_preferences(&text), None, "{name}");
        }
    }
}
