//! The configuration: TOML text in, [`Config`] or a [`ConfigError`] with line and hint out.
//!
//! Unknown keys are warnings with the nearest right name, never errors. Where the file lies and
//! when it is read again is left to [`crate::host`], and so is what `~` means.

mod keys;
mod parse;
mod size;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::units::{Bytes, Share};

pub use parse::parse;

/// The sample with every key, its meaning and its default, as it lies in `config/`.
pub const SAMPLE: &str = include_str!("../../config/fitwatch.toml");

/// Everything a user can set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Which folders are watched.
    pub library: LibraryConfig,
    /// How a running LM Studio is asked.
    pub lm_studio: LmStudioConfig,
    /// How verdicts are reached.
    pub fit: FitConfig,
    /// What is said, and how often.
    pub notifications: NotificationConfig,
    /// Probes of the machine.
    pub machine: MachineConfig,
    /// The log.
    pub log: LogConfig,
}

/// Which folders are watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LibraryConfig {
    /// LM Studio's home, where it is not found by itself.
    #[serde(deserialize_with = "parse::optional_path")]
    pub lm_studio_home: Option<PathBuf>,
    /// Extra folders with models.
    #[serde(deserialize_with = "parse::paths")]
    pub extra_folders: Vec<PathBuf>,
    /// Also list the models LM Studio ships with.
    pub bundled_models: bool,
}

/// How a running LM Studio is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LmStudioConfig {
    /// Whether it is asked at all which models are loaded; otherwise processes alone tell.
    pub ask: bool,
    /// The file that holds an API token, for an LM Studio that requires one.
    #[serde(deserialize_with = "parse::optional_path")]
    pub api_token_file: Option<PathBuf>,
}

/// How verdicts are reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FitConfig {
    /// GPU memory left free at the least.
    #[serde(with = "size")]
    pub gpu_margin: Bytes,
    /// Share of a GPU's memory left free at the least, in percent.
    #[serde(deserialize_with = "parse::percent")]
    pub gpu_margin_percent: u16,
    /// RAM left free at the least.
    #[serde(with = "size")]
    pub ram_margin: Bytes,
    /// The engine profile: `server` or `library`, or one of them in a build of llama.cpp (`server@9010`).
    #[serde(deserialize_with = "parse::engine")]
    pub engine: String,
}

/// What is said, and how often.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NotificationConfig {
    /// Say the verdict of a new model.
    pub new_model: bool,
    /// Say that a model that fitted no longer does.
    pub no_longer_fits: bool,
}

/// Probes of the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineConfig {
    /// The NVIDIA management library, where it is not found by itself.
    #[serde(deserialize_with = "parse::optional_path")]
    pub nvml_library: Option<PathBuf>,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    #[serde(deserialize_with = "parse::level")]
    pub level: String,
}

impl Default for LmStudioConfig {
    fn default() -> LmStudioConfig {
        LmStudioConfig { ask: true, api_token_file: None }
    }
}

impl Default for LibraryConfig {
    fn default() -> LibraryConfig {
        LibraryConfig { lm_studio_home: None, extra_folders: Vec::new(), bundled_models: true }
    }
}

impl Default for FitConfig {
    fn default() -> FitConfig {
        FitConfig {
            gpu_margin: Bytes(512 << 20),
            gpu_margin_percent: 5,
            ram_margin: Bytes(2_000_000_000),
            engine: "server".into(),
        }
    }
}

impl FitConfig {
    /// Returns the share of a GPU's memory left free at the least.
    pub const fn gpu_margin_share(&self) -> Share {
        Share::percent(self.gpu_margin_percent)
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { level: "warn".into() }
    }
}

impl Config {
    /// Returns the config as TOML that [`parse()`] reads back to an equal one.
    ///
    /// # Panics
    ///
    /// Never where the paths are text, which those that were read from a text are.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("the config holds only text, numbers, booleans and lists in tables")
    }
}

/// A config that was read, with what is odd about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The config.
    pub config: Config,
    /// Unknown keys and the like, each with its line and the nearest right name.
    pub warnings: Vec<String>,
}

/// Why a config cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ConfigError {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do, beginning with a verb.
    pub hint: Option<String>,
}
