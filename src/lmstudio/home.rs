//! Where LM Studio lives.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::AppSettings;

/// LM Studio's home folder and how it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The folder.
    #[serde(serialize_with = "crate::paths::lossy")]
    pub path: PathBuf,
    /// How it was found.
    pub basis: HomeBasis,
}

/// How LM Studio's home was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HomeBasis {
    /// The config names it.
    Config,
    /// The pointer file names it.
    PointerFile,
    /// The layout of old versions exists.
    OldLayout,
    /// The default.
    Default,
}

/// LM Studio's models folder and how it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelsFolder {
    /// The folder.
    #[serde(serialize_with = "crate::paths::lossy")]
    pub path: PathBuf,
    /// Whether `settings.json` names it; otherwise it is the default below the home.
    pub from_settings: bool,
}

/// Returns the file whose text is LM Studio's home.
pub fn pointer_file(user_home: &Path) -> PathBuf {
    user_home.join(".lmstudio-home-pointer")
}

/// Returns the home of old versions of LM Studio.
pub fn old_layout(user_home: &Path) -> PathBuf {
    user_home.join(".cache").join("lm-studio")
}

/// Returns LM Studio's home as LM Studio itself finds it: what the pointer file says, else the
/// old layout where it exists, else the default.
pub fn resolve_home(user_home: &Path, pointer_text: Option<&str>, old_layout_exists: bool) -> Home {
    if let Some(path) = pointer_text.and_then(pointed_at) {
        Home { path, basis: HomeBasis::PointerFile }
    } else if old_layout_exists {
        Home { path: old_layout(user_home), basis: HomeBasis::OldLayout }
    } else {
        Home { path: user_home.join(".lmstudio"), basis: HomeBasis::Default }
    }
}

/// Returns the folder a pointer file names, where it names one: an absolute path and nothing else.
fn pointed_at(text: &str) -> Option<PathBuf> {
    // JavaScript's trim() takes a byte order mark away too.
    let text = text.trim_matches(|letter: char| letter.is_whitespace() || letter == '\u{feff}');
    let path = PathBuf::from(text);
    (path.is_absolute() && !text.contains(char::is_control)).then_some(path)
}

/// Returns the models folder: `downloadsFolder` of the settings, else `models` below the home.
pub fn models_folder(home: &Home, settings: &AppSettings) -> ModelsFolder {
    match &settings.downloads_folder {
        Some(path) => ModelsFolder { path: path.clone(), from_settings: true },
        None => ModelsFolder { path: home.path.join("models"), from_settings: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An absolute path on every system.
    fn root() -> PathBuf {
        PathBuf::from(if cfg!(windows) { r"C:\" } else { "/" })
    }

    #[test]
    fn the_pointer_file_wins_over_the_old_layout() {
        let (user, elsewhere) = (root().join("robin"), root().join("elsewhere"));
        let text = format!("\u{feff}  {}\r\n", elsewhere.display());
        let home = resolve_home(&user, Some(&text), true);
        assert_eq!(home, Home { path: elsewhere, basis: HomeBasis::PointerFile });
    }

    #[test]
    fn a_pointer_file_that_names_nothing_usable_is_passed_over() {
        let user = root().join("robin");
        let two_lines = format!("{}\n{}", user.display(), user.display());
        for text in ["", "   \n", "lmstudio", "~/lmstudio", "\0", &two_lines] {
            assert_eq!(resolve_home(&user, Some(text), false).path, user.join(".lmstudio"), "{text:?}");
        }
    }

    #[test]
    fn the_old_layout_counts_only_where_it_exists() {
        let user = root().join("robin");
        let old = resolve_home(&user, None, true);
        assert_eq!(old, Home { path: user.join(".cache/lm-studio"), basis: HomeBasis::OldLayout });
        let new = resolve_home(&user, None, false);
        assert_eq!(new, Home { path: user.join(".lmstudio"), basis: HomeBasis::Default });
    }

    #[test]
    fn the_models_folder_is_below_the_home_unless_the_settings_name_one() {
        let home = resolve_home(&root(), None, true);
        let mut settings = AppSettings::default();
        let default = models_folder(&home, &settings);
        assert_eq!(default, ModelsFolder { path: root().join(".cache/lm-studio/models"), from_settings: false });
        settings.downloads_folder = Some(root().join("llm"));
        let named = models_folder(&home, &settings);
        assert_eq!(named, ModelsFolder { path: root().join("llm"), from_settings: true });
    }
}
