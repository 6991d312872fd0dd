//! Where LM Studio lives.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::AppSettings;

/// LM Studio's home folder and how it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The folder.
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
    pub path: PathBuf,
    /// Whether `settings.json` names it; otherwise it is the default below the home.
    pub from_settings: bool,
}

/// Returns LM Studio's home as LM Studio itself finds it: what the pointer file says, else the
/// old layout where it exists, else the default.
pub fn resolve_home(user_home: &Path, pointer_text: Option<&str>, old_layout_exists: bool) -> Home {
    let _ = (user_home, pointer_text, old_layout_exists);
    todo!()
}

/// Returns the models folder: `downloadsFolder` of the settings, else `models` below the home.
pub fn models_folder(home: &Home, settings: &AppSettings) -> ModelsFolder {
    let _ = (home, settings);
    todo!()
}
