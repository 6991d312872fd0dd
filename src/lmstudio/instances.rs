//! The loaded models: what all sides tell, joined.
//!
//! (Note to whoever works here: the types `Instance`, `Source`, `Whereabouts`, `Mapping` and the
//! signatures below are agreed on, engine, report and tray already use them. Fill in the functions;
//! private fields and helpers are yours. Remove this note.)

use serde::{Deserialize, Serialize};

use super::{EngineProcess, LoadedModel, Round};
use crate::library::{Model, ModelId};

/// One loaded model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// LM Studio's identifier (`qwen3-8b:2`), or `pid 4711` where a process alone is known.
    pub id: String,
    /// What LM Studio tells of it, from its best source, with what the others add.
    pub model: Option<LoadedModel>,
    /// The process that holds it.
    pub process: Option<EngineProcess>,
    /// Where it runs.
    pub whereabouts: Whereabouts,
    /// Who tells of it, the most trusted first.
    pub sources: Vec<Source>,
}

/// Who tells of a loaded model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// LM Studio's internal websocket.
    Websocket,
    /// Its REST interface, v1 or v0.
    Rest,
    /// The list of processes.
    Processes,
}

/// Where a loaded model runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "at", content = "device")]
pub enum Whereabouts {
    /// On this machine.
    Here,
    /// On another machine (LM Link): its memory is none of ours.
    Elsewhere(String),
    /// Only REST tells of it, and no process here holds it: perhaps on another machine.
    Unclear,
}

/// Which model of the library an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// This one.
    One(ModelId),
    /// One of these; they cannot be told apart.
    Several(Vec<ModelId>),
    /// It cannot be told.
    None,
}

/// What is known of loaded models over several rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Instances {
    // the last word of each side, and what is joined from it
}

impl Instances {
    /// Takes in a round and returns whether anything has changed: instances, settings, activity.
    pub fn take(&mut self, round: Round) -> bool {
        todo!()
    }

    /// Returns the loaded models, by identifier.
    pub fn list(&self) -> &[Instance] {
        todo!()
    }

    /// Returns how things stand, for the pace of asking.
    pub fn standing(&self) -> super::Standing {
        todo!() // `Standing` is in pace.rs on main: Nothing, Runs, Idle, Busy
    }

    /// Returns what could not be learned, in words for the user (an API token is missing, a port does
    /// not answer); nothing where all is well or nothing runs.
    pub fn unknown(&self) -> Option<String> {
        todo!()
    }
}

/// Returns which model of the library an instance is.
pub fn mapping(instance: &Instance, models: &[Model], hints: &super::IndexHints) -> Mapping {
    todo!()
}
