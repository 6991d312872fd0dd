//! The closed lists of what happens and what is asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::alerts::Notice;
use crate::config::Config;
use crate::library::{HeaderRead, Listing, ModelFile, ModelId, Remembered, Root};
use crate::lmstudio::{AppSettings, Ask, Home, Hub, LoadSettings, Program, Round, Unloaded};
use crate::machine::Sample;
use crate::memory::Build;
use crate::report::{Detail, Problem, Report};
use crate::tray::{Action, Tray};
use crate::units::Span;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The config was read, at start or anew; `problem` says what is odd about it.
    ConfigRead {
        /// The config.
        config: Config,
        /// Warnings.
        warnings: Vec<String>,
    },
    /// The config cannot be used; the old one stays.
    ConfigRejected {
        /// Why, with line and hint.
        problem: Problem,
    },
    /// LM Studio's files were read, at start or anew.
    LmStudioRead(Box<LmStudioRead>),
    /// One of LM Studio's files has changed.
    LmStudioChanged,
    /// A model file was opened by somebody: perhaps it is being loaded.
    ModelOpened,
    /// It was asked which models are loaded.
    LoadedAsked(Box<Round>),
    /// A model was unloaded, or not.
    Unloaded {
        /// The instance.
        instance: String,
        /// What became of it.
        outcome: Unloaded,
    },
    /// Something happened at these paths.
    PathsDirty(Vec<PathBuf>),
    /// Anything may have happened: the watcher overflowed, or the machine slept.
    EverythingDirty,
    /// A root is watched in this way now: `notifications`, `polling (…)`.
    WatchChanged {
        /// The root.
        root: PathBuf,
        /// How.
        watch: String,
    },
    /// A folder was walked.
    Listed(Listing),
    /// A header was read, or not.
    HeaderRead(Box<HeaderRead>),
    /// The machine was sampled.
    Sampled(Sample),
    /// Somebody chose something in the menu.
    Chosen(Action),
    /// Somebody asks something over the control socket.
    Asked {
        /// Which request.
        id: RequestId,
        /// What is asked.
        request: Request,
    },
    /// A part of the host works, or does not; no problem clears the part's last one.
    PartChanged {
        /// The part: `tray`, `notifications`, `watcher`, `state`.
        part: &'static str,
        /// What is wrong.
        problem: Option<Problem>,
    },
    /// The deadline has come.
    DeadlineReached,
    /// The process is to end (SIGTERM, SIGINT, log-out).
    EndRequested,
}

/// What LM Studio's files say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LmStudioRead {
    /// The home, and whether it exists.
    pub home: Option<(Home, bool)>,
    /// The folders to hold: LM Studio's, the bundled models', the config's.
    pub roots: Vec<Root>,
    /// `settings.json`.
    pub settings: AppSettings,
    /// The program whose files they are, where it has some of its own.
    pub program: Program,
    /// Saved per-model settings by `indexedModelIdentifier`.
    pub saved: BTreeMap<String, LoadSettings>,
    /// The virtual models.
    pub hub: Hub,
    /// The build of llama.cpp that it runs, where its files tell.
    pub build: Option<Build>,
    /// What could not be understood.
    pub notes: Vec<String>,
}

/// A request over the control socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
pub enum Request {
    /// Everything worth showing.
    Report,
    /// One model with its bill.
    Show {
        /// The model's id, name, path or an unambiguous part of them.
        model: String,
    },
    /// Scan and sample anew, and answer when done.
    Recheck,
    /// Unload a loaded model.
    Unload {
        /// The instance's identifier, its model's name, or an unambiguous part of them.
        instance: String,
    },
    /// Silence alerts.
    Pause {
        /// For how long.
        span: Span,
    },
    /// End the silence.
    Resume,
    /// End fitwatch.
    Quit,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub enum Reply {
    /// To `Report`, `Recheck`.
    Report(Box<Report>),
    /// To `Show`.
    Detail(Box<Detail>),
    /// To `Show` where no model is meant, or several.
    NoSuchModel {
        /// What was asked for.
        asked: String,
        /// The models that come nearest.
        nearest: Vec<ModelId>,
    },
    /// To `Unload`.
    Unloaded {
        /// The instance.
        instance: String,
        /// What became of it.
        #[serde(flatten)]
        outcome: Unloaded,
    },
    /// To `Unload` where no loaded model is meant, or several.
    NoSuchInstance {
        /// What was asked for.
        asked: String,
        /// The loaded models.
        loaded: Vec<String>,
    },
    /// To everything else.
    Done,
    /// The request could not be understood or served.
    Refused {
        /// Why.
        message: String,
    },
}

/// Which request an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What the host is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Watch exactly these folders.
    Watch {
        /// The folders.
        roots: Vec<Root>,
    },
    /// Walk a root or a folder under it.
    Scan {
        /// The root.
        root: PathBuf,
        /// The folder.
        under: PathBuf,
    },
    /// Read a header.
    ReadHeader {
        /// The files, first shard first.
        files: Vec<ModelFile>,
    },
    /// Sample the machine.
    Sample,
    /// Read LM Studio's files anew, with these settings.
    ReadLmStudio {
        /// The config that names folders.
        config: Box<Config>,
    },
    /// Ask which models are loaded.
    AskLoaded(Box<Ask>),
    /// Unload a model: the user's word.
    Unload {
        /// How LM Studio is reached.
        ask: Box<Ask>,
        /// The instance.
        instance: String,
    },
    /// Show this tray.
    ShowTray(Box<Tray>),
    /// Show a notice.
    Notify(Notice),
    /// Take a notice back.
    CloseNotice {
        /// Its topic.
        topic: String,
    },
    /// Answer a request.
    Answer {
        /// Which.
        id: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// Keep header results over a restart.
    Remember(Remembered),
    /// Open the config file or the log for the user.
    Open(Open),
    /// End the process.
    End,
}

/// What can be opened for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Open {
    /// The config file.
    Settings,
    /// The log.
    Log,
}
