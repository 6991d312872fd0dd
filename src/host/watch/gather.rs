//! What `notify` says, reduced to dirty paths.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, EventKind, MetadataKind, ModifyKind, RemoveKind, RenameMode};

use crate::library::FileRole;

/// More paths than this at once count as an overflow.
const PATHS: usize = 4_096;

/// Which watches an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Those of the roots and what is in them.
    Tree,
    /// Those of the folders above roots.
    Above,
}

/// Something that happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// At some paths.
    Paths(Source, Vec<PathBuf>, Trace),
    /// A model file was opened by somebody.
    Opened,
    /// Nobody knows where.
    Overflow,
}

/// What an event leaves behind, as far as watches go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trace {
    /// Nothing that matters to watches.
    #[default]
    Nothing,
    /// Perhaps a new folder.
    Come,
    /// Perhaps the end of a folder.
    Gone,
}

impl Found {
    /// Returns what an event means; nothing where it means nothing to the library.
    pub(super) fn new(source: Source, event: notify::Result<notify::Event>) -> Option<Found> {
        let Ok(event) = event else { return Some(Found::Overflow) };
        if event.need_rescan() {
            return Some(Found::Overflow);
        }
        if event.kind == EventKind::Access(AccessKind::Open(AccessMode::Any)) {
            let is_model = event.paths.iter().any(|path| path.file_name().is_some_and(is_model));
            return (source == Source::Tree && is_model).then_some(Found::Opened);
        }
        let trace = match event.kind {
            // Any program that opens a file makes an access, and so does our own reader.
            EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Modify(ModifyKind::Data(_)) => {
                Trace::Nothing
            }
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(MetadataKind::AccessTime)) => return None,
            // A root can be a link, which goes like a file.
            EventKind::Remove(RemoveKind::File) if source == Source::Tree => Trace::Nothing,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Trace::Gone,
            EventKind::Create(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => Trace::Come,
        };
        let concerns = |path: &PathBuf| match trace {
            // Writing to a file is of interest only where the file is.
            Trace::Nothing if source == Source::Tree => {
                matches!(event.kind, EventKind::Remove(_))
                    || path.file_name().is_some_and(|name| !FileRole::of(name).is_foreign())
            }
            Trace::Nothing => false,
            Trace::Come | Trace::Gone => true,
        };
        let paths: Vec<PathBuf> = event.paths.into_iter().filter(concerns).collect();
        (!paths.is_empty()).then_some(Found::Paths(source, paths, trace))
    }
}

/// Returns whether a file of this name may be loaded as a model.
fn is_model(name: &OsStr) -> bool {
    matches!(FileRole::of(name), FileRole::Gguf | FileRole::Safetensors)
}

/// What came in quick succession.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Dirty paths in watched trees.
    pub(super) paths: BTreeMap<PathBuf, Trace>,
    /// Paths in folders above roots.
    above: BTreeMap<PathBuf, Trace>,
    pub(super) is_above: bool,
    pub(super) is_opened: bool,
    pub(super) is_overflowed: bool,
}

impl Gathered {
    pub(super) fn add(&mut self, found: Found) {
        match found {
            Found::Overflow => self.is_overflowed = true,
            Found::Opened => self.is_opened = true,
            Found::Paths(source, paths, trace) => {
                let known = match source {
                    Source::Tree => &mut self.paths,
                    Source::Above => &mut self.above,
                };
                self.is_above |= source == Source::Above;
                for path in paths {
                    let strongest = known.entry(path).or_default();
                    *strongest = trace.max(*strongest);
                }
                if known.len() > PATHS {
                    known.clear();
                    self.is_overflowed = true;
                }
            }
        }
    }

    /// Returns whether a folder may have been replaced by another.
    pub(super) fn has_replaced(&self, folder: &Path) -> bool {
        let is_replaced = |paths: &BTreeMap<PathBuf, Trace>| paths.get(folder) == Some(&Trace::Gone);
        is_replaced(&self.above) || is_replaced(&self.paths)
    }

    /// Returns whether something happened to a root or a folder above it.
    pub(super) fn concerns_way_to(&self, root: &Path) -> bool {
        self.above.keys().any(|path| root.starts_with(path)) || self.paths.contains_key(root)
    }
}
