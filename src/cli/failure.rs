//! What can go wrong in a command, with its exit code and what to do.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use super::exit::Exit;
use super::text::{safe, safe_path};
use crate::host::control::AskError;
use crate::report::{Problem, SCHEMA};

/// Why a command could not answer.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// Standard output took no more.
    #[error("the output could not be written: {0}")]
    Output(#[source] io::Error),
    /// No model is meant, or several.
    #[error("{} `{}`", if means_several(asked, nearest) { "several models match" } else { "no model is called" }, safe(asked))]
    NoSuchModel {
        /// What was asked for.
        asked: String,
        /// The ids that come nearest.
        nearest: Vec<String>,
    },
    /// No loaded model is meant, or several.
    #[error("{} `{}`", if means_several(asked, loaded) { "several loaded models match" } else { "no loaded model is called" }, safe(asked))]
    NoSuchInstance {
        /// What was asked for.
        asked: String,
        /// The loaded models.
        loaded: Vec<String>,
    },
    /// A model was not unloaded.
    #[error("{} was not unloaded: {}", safe(instance), safe(reason))]
    NotUnloaded {
        /// The instance.
        instance: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A file is not there.
    #[error("{} is not there", safe_path(.0))]
    NoSuchFile(PathBuf),
    /// A file cannot be read, or is not what it should be.
    #[error("{} cannot be read: {}", safe_path(path), safe(reason))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why, with the offset.
        reason: String,
        /// What to do, beginning with a verb.
        hint: Option<String>,
    },
    /// There is nothing to talk to.
    #[error("fitwatch is not running")]
    NotRunning,
    /// The running fitwatch could not be asked.
    #[error("{}", safe(&.0.to_string()))]
    Unanswered(#[source] AskError),
    /// The running fitwatch did not do it.
    #[error("the running fitwatch did not answer as hoped: {}", safe(.0))]
    Refused(String),
    /// The arguments contradict each other or the file.
    #[error("{}", safe(.0))]
    Usage(String),
    /// The machine did not do its part.
    #[error("{}", safe(&.0.message))]
    Problem(Problem),
}

/// Returns whether the nearest models are what was asked for, only too many.
fn means_several(asked: &str, nearest: &[String]) -> bool {
    nearest.iter().any(|id| id.to_lowercase().contains(&asked.to_lowercase()))
}

/// A failure as JSON.
#[derive(Debug, Serialize)]
pub(super) struct FailureForm {
    schema: u32,
    error: ErrorForm,
}

#[derive(Debug, Serialize)]
struct ErrorForm {
    kind: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nearest: Vec<String>,
}

impl Failure {
    /// Returns the failure of a file that the system does not hand over.
    pub(super) fn file(path: &Path, error: &io::Error) -> Failure {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => return Failure::NoSuchFile(path.to_owned()),
            io::ErrorKind::PermissionDenied => Some("make the file, and the folders above it, readable for you".into()),
            _ => None,
        };
        Failure::Unreadable { path: path.to_owned(), reason: error.to_string(), hint }
    }

    /// Returns the exit code.
    pub(super) const fn exit(&self) -> Exit {
        match self {
            Failure::Output(_)
            | Failure::Unanswered(_)
            | Failure::Refused(_)
            | Failure::Problem(_)
            | Failure::NotUnloaded { .. } => Exit::Failed,
            Failure::NoSuchModel { .. } | Failure::NoSuchInstance { .. } | Failure::NoSuchFile(_) => Exit::NotFound,
            Failure::Unreadable { .. } => Exit::Unreadable,
            Failure::NotRunning => Exit::NotRunning,
            Failure::Usage(_) => Exit::Usage,
        }
    }

    /// Returns what to do, beginning with a verb.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Failure::NoSuchModel { nearest, .. } if nearest.is_empty() => {
                Some("run `fitwatch list` to see the models there are".into())
            }
            Failure::NoSuchModel { nearest, .. } => {
                let names: Vec<String> = nearest.iter().map(|id| format!("\n        {}", safe(id))).collect();
                Some(format!("name one of these:{}", names.concat()))
            }
            Failure::NoSuchInstance { loaded, .. } if loaded.is_empty() => Some("nothing is loaded".into()),
            Failure::NoSuchInstance { loaded, .. } => {
                let names: Vec<String> = loaded.iter().map(|id| format!("\n        {}", safe(id))).collect();
                Some(format!("name one of these:{}", names.concat()))
            }
            Failure::NotRunning => Some("start it with `fitwatch`".into()),
            Failure::Problem(problem) => problem.hint.as_deref().map(|hint| safe(hint).into_owned()),
            Failure::Unanswered(error) => Some(error.hint().into()),
            Failure::Refused(_) => Some("run `fitwatch doctor`".into()),
            Failure::NoSuchFile(_) => Some("check the path".into()),
            Failure::Unreadable { hint, .. } => hint.as_deref().map(|hint| safe(hint).into_owned()),
            Failure::Output(_) | Failure::Usage(_) | Failure::NotUnloaded { .. } => None,
        }
    }

    /// Returns the failure for JSON.
    pub(super) fn form(&self) -> FailureForm {
        let nearest = match self {
            Failure::NoSuchModel { nearest, .. } => nearest.clone(),
            Failure::NoSuchInstance { loaded, .. } => loaded.clone(),
            _ => Vec::new(),
        };
        let kind = match self {
            Failure::Output(_) => "output",
            Failure::NoSuchModel { .. } => "no_such_model",
            Failure::NoSuchInstance { .. } => "no_such_instance",
            Failure::NotUnloaded { .. } => "not_unloaded",
            Failure::NoSuchFile(_) => "no_such_file",
            Failure::Unreadable { .. } => "unreadable",
            Failure::NotRunning => "not_running",
            Failure::Unanswered(_) => "unanswered",
            Failure::Refused(_) => "refused",
            Failure::Usage(_) => "usage",
            Failure::Problem(_) => "problem",
        };
        FailureForm { schema: SCHEMA, error: ErrorForm { kind, message: self.to_string(), nearest } }
    }
}
