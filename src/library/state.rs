//! The library's state machine.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Listing, Model, ModelFile, ModelId, Root, RootState};
use crate::memory::{Projector, Structure};
use crate::units::Moment;

/// The models of all roots.
#[derive(Debug, Default)]
pub struct Library {
    models: Vec<Model>,
}

/// What the library wants from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Walk a root, or one folder under it.
    Scan {
        /// The root.
        root: PathBuf,
        /// The folder to walk.
        under: PathBuf,
    },
    /// Read the header of these files, which make one model or projector.
    ReadHeader {
        /// The files, first shard first.
        files: Vec<ModelFile>,
    },
}

/// A header that was read, or not.
#[derive(Clone, Debug)]
pub struct HeaderRead {
    /// The files it was read from, with the stamps they had when it was asked for.
    pub files: Vec<ModelFile>,
    /// What came of it.
    pub outcome: HeaderOutcome,
}

/// What came of reading a header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderOutcome {
    /// A model, drafter or the like; its kind is in the structure.
    Model(Arc<Structure>),
    /// A projector.
    Projector(Arc<Projector>),
    /// The file is shorter than its tensor table says: still downloading, or cut.
    Cut {
        /// What is missing, in words.
        reason: String,
    },
    /// It cannot be read.
    Unreadable {
        /// Why, with the offset.
        reason: String,
    },
}

/// Header results worth keeping over a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Remembered(pub Vec<(Vec<ModelFile>, HeaderOutcome)>);

impl Library {
    /// Returns an empty library that trusts remembered headers of files with unchanged stamps.
    pub fn new(remembered: Remembered) -> Library {
        let _ = remembered;
        Library::default()
    }

    /// Sets the folders to hold; models of others leave.
    pub fn set_roots(&mut self, roots: Vec<Root>, now: Moment) {
        let _ = (roots, now);
    }

    /// Takes note that something happened at a path.
    pub fn dirty(&mut self, path: &std::path::Path, now: Moment) {
        let _ = (path, now);
    }

    /// Takes note that anything may have happened anywhere: every root is wanted anew.
    pub fn rescan(&mut self, now: Moment) {
        let _ = now;
    }

    /// Takes in what a walk found.
    pub fn listed(&mut self, listing: Listing, now: Moment) {
        let _ = (listing, now);
    }

    /// Takes in a header.
    pub fn header_read(&mut self, read: HeaderRead, now: Moment) {
        let _ = (read, now);
    }

    /// Returns what is wanted now; each want is returned once.
    pub fn wants(&mut self, now: Moment) -> Vec<Want> {
        let _ = now;
        Vec::new()
    }

    /// Returns when `wants` has something to say next, if nothing else happens.
    pub fn deadline(&self) -> Option<Moment> {
        None
    }

    /// Returns the models, sorted by id; projectors and drafters are not among them.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// Returns the model of an id.
    pub fn model(&self, id: &ModelId) -> Option<&Model> {
        self.models.iter().find(|model| model.id == *id)
    }

    /// Returns the roots and their state.
    pub fn roots(&self) -> Vec<(Root, RootState)> {
        Vec::new()
    }

    /// Returns whether a walk or a header is still outstanding.
    pub fn is_busy(&self) -> bool {
        false
    }

    /// Returns what to keep over a restart.
    pub fn remembered(&self) -> Remembered {
        Remembered::default()
    }

    /// Returns a number that changes whenever `models` or `roots` would return something else.
    pub fn revision(&self) -> u64 {
        0
    }
}
