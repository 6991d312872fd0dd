//! Paths as text, for forms that hold text alone.
//!
//! A file's name need not be text. In JSON such a path stands with replacement characters in place
//! of what is none, so that one odd name never costs a whole answer. State that is read back
//! leaves such files out instead.

use std::path::{Path, PathBuf};

use serde::Serializer;

/// Serialises a path as text.
pub(crate) fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Serialises a path that may be missing as text.
#[expect(clippy::ref_option, reason = "serde hands a reference to the field over")]
pub(crate) fn lossy_option<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serializer.serialize_some(&path.to_string_lossy()),
        None => serializer.serialize_none(),
    }
}
