//! Headers: what came of reading them, what is known, what is wanted and what is being read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ModelFile, Stamp};
use crate::memory::{Projector, Structure};

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

/// Header results by first file, with what is wanted and under way.
#[derive(Debug, Default)]
pub(super) struct Headers {
    known: BTreeMap<PathBuf, Known>,
    wanted: BTreeMap<PathBuf, Vec<ModelFile>>,
    reading: BTreeMap<PathBuf, Vec<ModelFile>>,
}

#[derive(Debug)]
struct Known {
    files: Vec<ModelFile>,
    outcome: HeaderOutcome,
    /// Whether it is to be read again although no stamp has changed: a reason such as a missing
    /// permission leaves no trace in a stamp.
    is_doubted: bool,
}

impl Headers {
    pub(super) fn new(remembered: Remembered) -> Headers {
        let known = remembered.0.into_iter().filter_map(|(files, outcome)| {
            let key = files.first()?.path.clone();
            Some((key, Known { files, outcome, is_doubted: false }))
        });
        Headers { known: known.collect(), ..Headers::default() }
    }

    /// Returns what is known of exactly these versions of these files.
    pub(super) fn outcome(&self, files: &[ModelFile]) -> Option<&HeaderOutcome> {
        self.known_of(files).map(|known| &known.outcome)
    }

    /// Returns whether this version of a file was read with good result, first file or shard.
    pub(super) fn vouch_for(&self, path: &Path, stamp: Stamp) -> bool {
        self.known.get(path).is_some_and(|known| is_lasting(&known.outcome) && known.files[0].stamp == stamp)
    }

    /// Asks for the header of these files, unless it is known or being read.
    pub(super) fn want(&mut self, files: &[ModelFile]) {
        let Some(first) = files.first() else { return };
        let is_known = self.known_of(files).is_some_and(|known| !known.is_doubted);
        if is_known || self.reading.contains_key(&first.path) {
            self.wanted.remove(&first.path);
        } else {
            self.wanted.insert(first.path.clone(), files.to_vec());
        }
    }

    /// Withdraws what was asked for these files.
    pub(super) fn withdraw(&mut self, files: &[ModelFile]) {
        if let Some(first) = files.first() {
            self.wanted.remove(&first.path);
        }
    }

    /// Returns what is to be read now; it counts as being read from here on.
    pub(super) fn start_wanted(&mut self) -> Vec<Vec<ModelFile>> {
        let wanted = std::mem::take(&mut self.wanted);
        self.reading.extend(wanted.iter().map(|(path, files)| (path.clone(), files.clone())));
        wanted.into_values().collect()
    }

    pub(super) fn is_any_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    pub(super) fn is_any_outstanding(&self) -> bool {
        !self.wanted.is_empty() || !self.reading.is_empty()
    }

    /// Takes in a result and returns the path of its first file.
    pub(super) fn read(&mut self, read: HeaderRead) -> Option<PathBuf> {
        let key = read.files.first()?.path.clone();
        self.reading.remove(&key);
        self.known.insert(key.clone(), Known { files: read.files, outcome: read.outcome, is_doubted: false });
        Some(key)
    }

    /// Doubts a failure, so that it is read again.
    pub(super) fn doubt(&mut self, path: &Path) -> bool {
        let failed = self.known.get_mut(path).filter(|known| matches!(known.outcome, HeaderOutcome::Unreadable { .. }));
        if let Some(known) = failed {
            known.is_doubted = true;
            return true;
        }
        false
    }

    /// Doubts every failure, and gives up waiting for what may never come back.
    pub(super) fn doubt_failures(&mut self) -> Vec<PathBuf> {
        self.reading.clear();
        let failed: Vec<PathBuf> = self.known.keys().cloned().collect();
        failed.into_iter().filter(|path| self.doubt(path)).collect()
    }

    /// Returns what is worth keeping over a restart, of the files a caller wants to keep.
    pub(super) fn remembered(&self, is_kept: impl Fn(&[ModelFile]) -> bool) -> Remembered {
        let kept = self.known.values().filter(|known| is_lasting(&known.outcome) && is_kept(&known.files));
        Remembered(kept.map(|known| (known.files.clone(), known.outcome.clone())).collect())
    }

    /// Forgets what a caller does not want to keep.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&[ModelFile]) -> bool) {
        self.known.retain(|_, known| is_kept(&known.files));
    }

    fn known_of(&self, files: &[ModelFile]) -> Option<&Known> {
        self.known.get(&files.first()?.path).filter(|known| known.files == files)
    }
}

/// A failure can have gone by the next start; reading it again costs little.
fn is_lasting(outcome: &HeaderOutcome) -> bool {
    matches!(outcome, HeaderOutcome::Model(_) | HeaderOutcome::Projector(_))
}
