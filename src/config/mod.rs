//! The configuration: TOML text in, [`Config`] or a [`ConfigError`] with line and hint out.
//!
//! Unknown keys are warnings with the nearest right name, never errors. Where the file lies and
//! when it is read again is left to [`crate::host`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::units::{Bytes, Share};

/// Everything a user can set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Which folders are watched.
    pub library: LibraryConfig,
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LibraryConfig {
    /// LM Studio's home, where it is not found by itself.
    pub lm_studio_home: Option<PathBuf>,
    /// Extra folders with models.
    pub extra_folders: Vec<PathBuf>,
    /// Also list the models LM Studio ships with.
    pub bundled_models: bool,
}

/// How verdicts are reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FitConfig {
    /// GPU memory left free at the least.
    pub gpu_margin: Bytes,
    /// Share of a GPU's memory left free at the least, in percent.
    pub gpu_margin_percent: u16,
    /// RAM left free at the least.
    pub ram_margin: Bytes,
    /// The engine profile: `server` or `library`.
    pub engine: String,
}

/// What is said, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NotificationConfig {
    /// Say the verdict of a new model.
    pub new_model: bool,
    /// Say that a model that fitted no longer does.
    pub no_longer_fits: bool,
}

/// Probes of the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineConfig {
    /// The NVIDIA management library, where it is not found by itself.
    pub nvml_library: Option<PathBuf>,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
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

impl Default for NotificationConfig {
    fn default() -> NotificationConfig {
        NotificationConfig { new_model: false, no_longer_fits: false }
    }
}

impl Default for MachineConfig {
    fn default() -> MachineConfig {
        MachineConfig { nvml_library: None }
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { level: "warn".into() }
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

/// Reads a config.
pub fn parse(text: &str) -> Result<Parsed, ConfigError> {
    let _ = text;
    todo!()
}
