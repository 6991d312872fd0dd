//! A model as the disk shows it.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Origin;
use crate::memory::{Projector, Structure};
use crate::units::{Bytes, Moment};

/// A model's name within the library: `publisher/repository/file.gguf`, as LM Studio's
/// `indexedModelIdentifier`; of shards the first file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelId(pub String);

/// A model on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its name within the library.
    pub id: ModelId,
    /// A short name to show: the file name without extension and shard number.
    pub name: String,
    /// The publisher's folder, where there is one.
    pub publisher: Option<String>,
    /// The repository's folder, where there is one.
    pub repository: Option<String>,
    /// Which kind of root it lies in.
    pub origin: Origin,
    /// Its files: one, or the shards in order.
    pub files: Vec<ModelFile>,
    /// The projector beside it, attached to it.
    pub projector: Option<(ModelFile, Arc<Projector>)>,
    /// What is known about it.
    pub state: ModelState,
    /// Oddities worth a word: a depth LM Studio may not index, several projectors.
    pub notes: Vec<String>,
    /// When its present state began.
    pub since: Moment,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it was when seen.
    pub stamp: Stamp,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The file's length.
    pub bytes: Bytes,
    /// Last modification, milliseconds since 1970.
    pub modified_ms: u64,
}

/// What is known about a model.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelState {
    /// It still grows, or has changed a moment ago.
    Downloading,
    /// Shards are missing.
    Incomplete {
        /// Their numbers.
        missing: Vec<u32>,
    },
    /// Its header is wanted.
    Reading,
    /// Its header was read.
    Ready(Arc<Structure>),
    /// Its header cannot be read, or describes nothing that can be billed.
    Unreadable {
        /// Why, with the offset.
        reason: String,
    },
    /// A format that is listed, not judged (MLX folders for now).
    NotJudged {
        /// Why.
        reason: String,
    },
}

impl Model {
    /// Returns the bytes of all its files, the projector's not counted.
    pub fn bytes(&self) -> Bytes {
        self.files.iter().map(|file| file.stamp.bytes).sum()
    }
}
