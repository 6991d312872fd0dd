//! What a walk of a folder found.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// A folder that holds models.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Root {
    /// The folder.
    #[serde(serialize_with = "crate::paths::lossy")]
    pub path: PathBuf,
    /// Why it is watched.
    pub origin: Origin,
}

/// Why a folder is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// LM Studio's models folder.
    LmStudio,
    /// The models LM Studio ships with.
    Bundled,
    /// An extra folder from the config.
    Config,
}

/// The result of walking one root, or one folder under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The root that was walked.
    pub root: PathBuf,
    /// The folder that was walked: the root or a folder below it. What is known under it is replaced.
    pub under: PathBuf,
    /// Whether the root could be walked.
    pub state: RootState,
    /// Every regular file found, links resolved.
    pub files: Vec<FoundFile>,
    /// What could not be walked, in words for the user.
    pub notes: Vec<String>,
}

/// Whether a root can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootState {
    /// Not walked yet.
    Pending,
    /// There, and walked.
    Present,
    /// Not there; it is watched for.
    Missing,
    /// There, but it cannot be read.
    Unreadable {
        /// Why.
        reason: String,
    },
}

/// One regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// The path under the root, links not resolved.
    pub path: PathBuf,
    /// The path that links lead to; equal to `path` where there is no link.
    pub target: PathBuf,
    /// What makes two paths the same file.
    pub identity: FileIdentity,
    /// The file's length.
    pub bytes: Bytes,
    /// Last modification, milliseconds since 1970.
    pub modified_ms: u64,
}

/// What makes two paths the same file: device and inode, or a hash of the canonical path where a
/// system has no such numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileIdentity(pub u64, pub u64);
