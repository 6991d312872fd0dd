//! The loaded models: what all sides tell, joined.

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
    list: Vec<Instance>,
    runs: bool,
}

impl Instances {
    /// Takes in a round and returns whether anything has changed: instances, settings, activity.
    pub fn take(&mut self, round: Round) -> bool {
        let before = self.clone();
        self.runs = round.backend.is_some();
        if let super::Said::Is(rows) = round.socket {
            self.list = rows
                .into_iter()
                .map(|row| Instance {
                    id: row.identifier.clone(),
                    whereabouts: match &row.device {
                        Some(device) => Whereabouts::Elsewhere(device.clone()),
                        None => Whereabouts::Here,
                    },
                    model: Some(row),
                    process: None,
                    sources: vec![Source::Websocket],
                })
                .collect();
        }
        *self != before
    }

    /// Returns the loaded models, by identifier.
    pub fn list(&self) -> &[Instance] {
        &self.list
    }

    /// Returns how things stand, for the pace of asking.
    pub fn standing(&self) -> super::Standing {
        match (self.runs, self.list.is_empty()) {
            (_, false) => super::Standing::Idle,
            (true, true) => super::Standing::Runs,
            (false, true) => super::Standing::Nothing,
        }
    }

    /// Returns what could not be learned, in words for the user.
    pub fn unknown(&self) -> Option<String> {
        None
    }
}

/// Returns which model of the library an instance is.
pub fn mapping(instance: &Instance, models: &[Model]) -> Mapping {
    let id = instance.model.as_ref().and_then(|model| model.indexed_identifier.clone());
    match models.iter().find(|model| Some(&model.id.0) == id.as_ref()) {
        Some(model) => Mapping::One(model.id.clone()),
        None => Mapping::None,
    }
}
