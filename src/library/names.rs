//! What a file's name says: its role, its final name while it arrives, its name in the library.

use std::ffi::OsStr;
use std::path::{Component, Path};

/// What a file is for, judged by its name alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileRole {
    /// A GGUF file: a model, shard, projector or drafter.
    Gguf,
    /// A file of a model folder in another format: `*.safetensors`.
    Safetensors,
    /// The `config.json` that makes a folder of safetensors a model.
    MlxConfig,
    /// What a downloader writes before, or beside, the file it is to become.
    Partial {
        /// The name the file will have.
        finished: String,
        /// Whether it is a control file, whose presence says that the finished name is not finished.
        is_control: bool,
    },
    /// Nothing that concerns the library.
    Foreign,
}

/// How downloaders begin the name of a file that is not there yet.
const ARRIVING_PREFIX: &str = "downloading_";

/// How downloaders end it.
const ARRIVING_SUFFIXES: [&str; 14] = [
    ".part",
    ".partial",
    ".filepart",
    ".incomplete",
    ".tmp",
    ".temp",
    ".crdownload",
    ".download",
    ".opdownload",
    ".unconfirmed",
    ".mdm-part",
    ".!ut",
    ".!qb",
    CONTROL_SUFFIX,
];

/// aria2 writes to the final name and keeps this file beside it until it is done.
const CONTROL_SUFFIX: &str = ".aria2";

impl FileRole {
    /// Returns the role of a file of this name.
    pub fn of(file_name: &OsStr) -> FileRole {
        let name = file_name.to_string_lossy();
        // Copies of macOS's resource forks on foreign disks: `._model.gguf`.
        if name.starts_with("._") {
            return FileRole::Foreign;
        }
        let (finished, is_control) = finished_name(&name);
        let role = match extension(finished).as_deref() {
            Some("gguf") => FileRole::Gguf,
            Some("safetensors") => FileRole::Safetensors,
            _ if finished.eq_ignore_ascii_case("config.json") => FileRole::MlxConfig,
            _ => return FileRole::Foreign,
        };
        match role {
            _ if finished.len() == name.len() => role,
            FileRole::MlxConfig => FileRole::Foreign,
            _ => FileRole::Partial { finished: finished.to_owned(), is_control },
        }
    }

    /// Returns whether the file does not concern the library.
    pub fn is_foreign(&self) -> bool {
        *self == FileRole::Foreign
    }
}

/// Strips what downloaders put around a name, and says whether it was a control file's.
fn finished_name(name: &str) -> (&str, bool) {
    let mut finished = name;
    let mut is_control = false;
    while let Some(suffix) = ARRIVING_SUFFIXES.iter().find(|suffix| ends_with(finished, suffix)) {
        is_control |= *suffix == CONTROL_SUFFIX;
        finished = &finished[..finished.len() - suffix.len()];
    }
    let stripped = finished.get(..ARRIVING_PREFIX.len()).is_some_and(|head| head.eq_ignore_ascii_case(ARRIVING_PREFIX));
    (if stripped { &finished[ARRIVING_PREFIX.len()..] } else { finished }, is_control)
}

fn ends_with(name: &str, suffix: &str) -> bool {
    let Some(start) = name.len().checked_sub(suffix.len()) else { return false };
    start > 0 && name.get(start..).is_some_and(|tail| tail.eq_ignore_ascii_case(suffix))
}

fn extension(name: &str) -> Option<String> {
    let (stem, extension) = name.rsplit_once('.')?;
    (!stem.is_empty()).then(|| extension.to_ascii_lowercase())
}

/// Returns whether a GGUF file is a projector by its name; its header has the last word.
pub(super) fn is_projector_name(file_name: &str) -> bool {
    file_name.to_ascii_lowercase().contains("mmproj")
}

/// Returns which model a projector is called after: its name without `mmproj` and the type of its
/// weights, in lower case. Empty where it names none.
pub(super) fn projector_stem(name: &str) -> String {
    let is_type = |word: &str| {
        let number = ["bf", "iq", "f", "q"].iter().find_map(|letters| word.strip_prefix(letters));
        number.is_some_and(|number| number.starts_with(|digit: char| digit.is_ascii_digit()))
    };
    let name = name.to_lowercase().replace("mmproj", "");
    let separators = ['-', '_', '.'];
    let mut stem = name.trim_matches(separators);
    while let Some(word) = stem.rsplit(['-', '.']).next().filter(|word| is_type(word)) {
        stem = stem[..stem.len() - word.len()].trim_end_matches(separators);
    }
    stem.to_owned()
}

/// Returns whether a model's name begins with a projector's stem.
pub(super) fn is_called(model: &str, stem: &str) -> bool {
    let model = model.to_lowercase();
    let rest = model.strip_prefix(stem).filter(|_| !stem.is_empty());
    rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

/// Returns a name as it may be shown: nothing in it moves a cursor or turns the text around.
pub(super) fn shown(name: &OsStr) -> String {
    name.to_string_lossy().chars().map(|letter| if is_unshowable(letter) { '\u{FFFD}' } else { letter }).collect()
}

/// Control characters, and those that change the direction of what follows.
fn is_unshowable(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200E}' | '\u{200F}' | '\u{061C}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Returns the parts of a path below its root, each as it may be shown.
pub(super) fn parts_below(root: &Path, path: &Path) -> Vec<String> {
    let below = path.strip_prefix(root).unwrap_or(path);
    below
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(shown(name)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> FileRole {
        FileRole::of(OsStr::new(name))
    }

    fn partial(finished: &str) -> FileRole {
        FileRole::Partial { finished: finished.to_owned(), is_control: false }
    }

    #[test]
    fn a_projector_is_called_after_the_model_whose_name_begins_like_its_own() {
        for (projector, model, is_its) in [
            ("mmproj-gemma-3-4b-it-F16", "gemma-3-4b-it-Q4_K_M", true),
            ("gemma-3-4b-it.mmproj-q8_0", "Gemma-3-4B-it-Q4_K_M", true),
            ("mmproj-gemma-3-4b-it-F16", "gemma-3-4b-italian-Q4_K_M", false),
            ("mmproj-gemma-3-4b-it-F16", "llama-3.1-8b-Q8_0", false),
            ("mmproj-F16", "F16-Q4_K_M", false),
            ("mmproj-model-f16", "llama-3.1-8b-Q8_0", false),
            ("mmproj", "mmproj", false),
        ] {
            assert_eq!(is_called(model, &projector_stem(projector)), is_its, "{projector} {model}");
        }
    }

    #[test]
    fn a_name_says_what_a_file_is_for() {
        assert_eq!(role("model.gguf"), FileRole::Gguf);
        assert_eq!(role("MODEL.GGUF"), FileRole::Gguf);
        assert_eq!(role("model.safetensors"), FileRole::Safetensors);
        assert_eq!(role("config.json"), FileRole::MlxConfig);
        for foreign in ["model.gguf.txt", "gguf", ".gguf", "._model.gguf", "config.json.tmp", "tokenizer.json", ""] {
            assert_eq!(role(foreign), FileRole::Foreign, "{foreign}");
        }
    }

    #[test]
    fn what_a_downloader_writes_is_no_model() {
        for name in [
            "downloading_m.gguf.part",
            "downloading_m.gguf",
            "m.gguf.part",
            "m.gguf.tmp",
            "m.gguf.crdownload",
            "m.gguf.mdm-part",
            "m.gguf.PART",
            "m.gguf.incomplete",
            "m.gguf.part.tmp",
        ] {
            assert_eq!(role(name), partial("m.gguf"), "{name}");
        }
        assert_eq!(role("m.gguf.aria2"), FileRole::Partial { finished: "m.gguf".into(), is_control: true });
        assert_eq!(role(".part"), FileRole::Foreign);
        assert_eq!(role("downloading_"), FileRole::Foreign);
    }

    #[test]
    fn a_shown_name_cannot_disturb_what_stands_around_it() {
        assert_eq!(shown(OsStr::new("a\nb\u{1b}[2J\u{202e}c")), "a\u{FFFD}b\u{FFFD}[2J\u{FFFD}c");
        assert_eq!(shown(OsStr::new("モデル ü.gguf")), "モデル ü.gguf");
    }

    #[test]
    #[cfg(unix)]
    fn a_name_that_is_no_text_has_a_role_and_a_form_to_show() {
        use std::os::unix::ffi::OsStrExt;
        let name = OsStr::from_bytes(b"m\xff.gguf");
        assert_eq!(FileRole::of(name), FileRole::Gguf);
        assert_eq!(shown(name), "m\u{FFFD}.gguf");
    }
}
