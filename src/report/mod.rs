//! The state as one comparable value: what tray, tables and JSON all show.
//!
//! The engine makes a [`Report`]; nothing else decides what is true. Equal state makes an equal
//! report, so a back-end can skip one equal to the last.

mod loaded;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) use loaded::example as example_instance;
pub use loaded::{InstanceReport, PoolBytes};

use crate::fit::{Advice, Fit};
use crate::library::{ModelId, Root, RootState};
use crate::lmstudio::{Home, RunningBackend, SettingsFor};
use crate::machine::Picture;
use crate::memory::{Bill, Kind};
use crate::paths::{lossy, lossy_option};
use crate::units::{Bytes, Span};

/// The version of the JSON forms; it grows when a key changes its meaning or leaves.
pub const SCHEMA: u32 = 1;

/// Everything worth showing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this form.
    pub schema: u32,
    /// fitwatch's version.
    pub version: String,
    /// Whether it comes from a running daemon (else from a single scan).
    pub live: bool,
    /// The LM Studio that runs.
    pub lm_studio: Option<RunningBackend>,
    /// The loaded models: LM Studio's in its order, then those it does not know.
    pub loaded: Vec<InstanceReport>,
    /// What could not be learned about loaded models, in words.
    pub loaded_unknown: Option<String>,
    /// The models, sorted by id.
    pub models: Vec<ModelReport>,
    /// The machine as last seen.
    pub machine: Picture,
    /// Where models are looked for.
    pub library: LibraryReport,
    /// Alerts.
    pub alerts: AlertReport,
    /// What does not work, each with what to do.
    pub problems: Vec<Problem>,
    /// What does not work and is not needed as things are.
    pub notes: Vec<Problem>,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// `publisher/repository/file.gguf`.
    pub id: ModelId,
    /// A short name to show.
    pub name: String,
    /// The publisher's folder.
    pub publisher: Option<String>,
    /// The first file.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// How many files it has.
    pub files: usize,
    /// Bytes on disk, the projector's not counted.
    pub bytes: Bytes,
    /// Its state.
    pub state: StateReport,
    /// Architecture, where the header was read.
    pub architecture: Option<String>,
    /// Quantisation, where the header names it.
    pub quantisation: Option<String>,
    /// Parameters, where the header was read.
    pub parameters: Option<u64>,
    /// What it is, where the header was read.
    pub kind: Option<Kind>,
    /// The context length it was trained for, where the header was read.
    pub context_train: Option<u32>,
    /// The projector attached to it.
    #[serde(serialize_with = "lossy_option")]
    pub projector: Option<PathBuf>,
    /// The settings it is judged with.
    pub settings: Option<Arc<SettingsFor>>,
    /// The verdict.
    pub fit: Option<Fit>,
    /// Oddities worth a word.
    pub notes: Vec<String>,
}

/// A model's state in words and, where there is one, its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum StateReport {
    /// It still grows.
    Downloading,
    /// Shards are missing.
    Incomplete {
        /// Their numbers.
        missing: Vec<u32>,
    },
    /// Its header is being read.
    Reading,
    /// It is judged; `fit` is there.
    Judged,
    /// Its header cannot be read.
    Unreadable {
        /// Why.
        reason: String,
    },
    /// Its format is listed, not judged.
    NotJudged {
        /// Why.
        reason: String,
    },
}

/// Where models are looked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LibraryReport {
    /// LM Studio's home.
    pub home: Option<Home>,
    /// Whether that folder exists.
    pub home_exists: bool,
    /// The folders and their state.
    pub roots: Vec<RootReport>,
    /// Whether a scan is under way.
    pub busy: bool,
    /// LM Studio's guardrail mode in its own word (`Strict`).
    pub guardrail: Option<String>,
}

/// One folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootReport {
    /// The folder.
    #[serde(flatten)]
    pub root: Root,
    /// Its state.
    pub state: RootState,
    /// How it is watched: `notifications`, `polling (network folder)`, `not yet`.
    pub watch: String,
}

/// Alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertReport {
    /// For how long alerts are still paused, rounded up to a minute.
    pub paused_for: Option<Span>,
}

/// Something that does not work.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// Which part: `tray`, `notifications`, `watcher`, `nvml`, `config`, `state`.
    pub part: String,
    /// What is wrong.
    pub message: String,
    /// What to do, beginning with a verb.
    pub hint: Option<String>,
}

/// One model with its bill: the answer to `show`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// The version of this form.
    pub schema: u32,
    /// The model.
    pub model: ModelReport,
    /// The bill under its settings, placed as the verdict says.
    pub bill: Option<Bill>,
    /// The names of the GPUs the bill's pools refer to.
    pub gpus: Vec<String>,
    /// What would make it fit better.
    pub advice: Vec<Advice>,
    /// LM Studio's guardrail mode in its own word (`Strict`), which may refuse what fits.
    pub guardrail: Option<String>,
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    #[test]
    fn a_name_that_is_no_text_costs_no_answer() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        use crate::library::{Origin, Root};

        let path = OsStr::from_bytes(b"/models/caf\xe9").into();
        let root = Root { path, origin: Origin::Config };
        assert_eq!(serde_json::to_string(&root).unwrap(), "{\"path\":\"/models/caf\u{fffd}\",\"origin\":\"config\"}");
    }
}
