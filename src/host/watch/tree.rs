//! The watches of everything in the roots.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use thiserror::Error;

use super::Watched;
use super::gather::{Gathered, Trace};
use crate::host::walk::{Visit, identity, visit};
use crate::library::FileIdentity;

/// Whether every folder takes a watch of its own; elsewhere one watch covers a whole tree.
const IS_FOLDER_BY_FOLDER: bool = cfg!(target_os = "linux");

/// What a user can do about a folder that cannot be watched.
#[cfg(target_os = "linux")]
pub(super) const HINT: &str =
    "raise the limits: `sudo sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512`";
/// What a user can do about a folder that cannot be watched.
#[cfg(not(target_os = "linux"))]
pub(super) const HINT: &str = "check that the folder can be read";

/// Why a root cannot be watched by notifications; the words stand in `polling (…)`.
#[derive(Debug, Error)]
pub(super) enum ArmError {
    /// The system grants no more watches.
    #[error("watch limit reached")]
    Limit,
    /// The root holds more folders than we watch.
    #[error("more than {0} folders")]
    Folders(usize),
    /// The root itself cannot be watched.
    #[error("no notifications: {0}")]
    Refused(notify::Error),
}

/// The watches.
#[derive(Debug)]
pub(super) struct Tree {
    watcher: RecommendedWatcher,
    /// The path by which each folder is watched: one that two paths lead to is watched once.
    folders: BTreeMap<FileIdentity, PathBuf>,
    /// Links to files elsewhere, each watched by its own name.
    linked: BTreeSet<PathBuf>,
    /// Other spellings under which a system may report what is watched.
    spellings: BTreeMap<PathBuf, PathBuf>,
    allowed: usize,
}

impl Tree {
    pub(super) fn new(
        handler: impl Fn(notify::Result<notify::Event>) + Send + 'static,
        allowed: usize,
    ) -> Result<Tree, notify::Error> {
        // Links are followed by our own walk, which knows loops and limits.
        let config = notify::Config::default().with_follow_symlinks(false);
        let watcher = RecommendedWatcher::new(handler, config)?;
        let (folders, linked, spellings) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Ok(Tree { watcher, folders, linked, spellings, allowed })
    }

    /// Watches a folder of a root and everything under it.
    pub(super) fn arm(&mut self, root: &Path, under: &Path) -> Result<(), ArmError> {
        let mut failure = None;
        // What the walk cannot enter cannot be watched either; the library has the note.
        visit(root, under, &mut |visit| {
            let result = match visit {
                Visit::Folder { path, identity, is_linked } => self.watch_folder(root, path, identity, is_linked),
                Visit::File(file) if IS_FOLDER_BY_FOLDER && file.path != file.target => self.watch_link(&file.path),
                Visit::File(_) | Visit::Unreadable { .. } => Ok(()),
            };
            match result {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(String::new())
                }
            }
        });
        failure.map_or(Ok(()), Err)
    }

    /// Ends the watches of a root.
    pub(super) fn disarm(&mut self, root: &Path) {
        let folders = std::mem::take(&mut self.folders);
        let (gone, left) = folders.into_iter().partition(|(_, path): &(FileIdentity, PathBuf)| path.starts_with(root));
        self.folders = left;
        let linked = self.linked.iter().filter(|path| path.starts_with(root)).cloned().collect::<Vec<_>>();
        self.linked.retain(|path| !path.starts_with(root));
        self.spellings.retain(|_, path| !path.starts_with(root));
        let gone: BTreeMap<FileIdentity, PathBuf> = gone;
        for path in gone.into_values().chain(linked) {
            // A watch ends with its folder, so it may be gone already.
            let _ = self.watcher.unwatch(&path);
        }
    }

    /// Watches what is new among dirty paths and returns them in the roots' own spelling.
    pub(super) fn follow(
        &mut self,
        gathered: &Gathered,
        roots: &[Watched],
    ) -> Result<Vec<PathBuf>, (PathBuf, ArmError)> {
        let gone: BTreeSet<&Path> =
            gathered.paths.iter().filter(|(_, trace)| **trace == Trace::Gone).map(|(path, _)| path.as_path()).collect();
        if !gone.is_empty() {
            let is_gone = |path: &Path| path.ancestors().any(|folder| gone.contains(folder));
            self.folders.retain(|_, path| !is_gone(path));
            self.linked.retain(|path| !is_gone(path));
        }
        let mut paths = Vec::new();
        for (path, trace) in &gathered.paths {
            let path = self.respelled(path);
            // What was removed may have come again.
            if *trace != Trace::Nothing {
                for root in roots.iter().filter(|root| root.is_notified() && path.starts_with(&root.path)) {
                    self.arm(&root.path, &path).map_err(|error| (root.path.clone(), error))?;
                }
            }
            paths.push(path);
        }
        Ok(paths)
    }

    fn watch_folder(&mut self, root: &Path, path: &Path, id: FileIdentity, is_linked: bool) -> Result<(), ArmError> {
        let is_top = path == root;
        if !IS_FOLDER_BY_FOLDER && !is_top && !is_linked {
            return Ok(());
        }
        if self.folders.get(&id).is_some_and(|other| other != path && is_still(other, id)) {
            return Ok(());
        }
        if self.folders.len() >= self.allowed {
            return Err(ArmError::Folders(self.allowed));
        }
        let mode = if IS_FOLDER_BY_FOLDER { RecursiveMode::NonRecursive } else { RecursiveMode::Recursive };
        match self.watcher.watch(path, mode) {
            Ok(()) => {
                self.folders.insert(id, path.to_owned());
                if let Ok(real) = std::fs::canonicalize(path)
                    && !IS_FOLDER_BY_FOLDER
                    && real != path
                {
                    self.spellings.insert(real, path.to_owned());
                }
                Ok(())
            }
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => Err(ArmError::Limit),
            Err(error) if is_top => Err(ArmError::Refused(error)),
            // One folder that vanished or may not be read does not spoil the rest.
            Err(_) => Ok(()),
        }
    }

    /// Watches a link to a file: what is written to its target happens in another folder.
    fn watch_link(&mut self, path: &Path) -> Result<(), ArmError> {
        if !std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()) {
            return Ok(());
        }
        if self.linked.len() >= self.allowed {
            return Err(ArmError::Folders(self.allowed));
        }
        match self.watcher.watch(path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.linked.insert(path.to_owned());
                Ok(())
            }
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => Err(ArmError::Limit),
            Err(_) => Ok(()),
        }
    }

    fn respelled(&self, path: &Path) -> PathBuf {
        let mut ways = self.spellings.iter();
        let respelled = ways.find_map(|(real, shown)| Some(shown.join(path.strip_prefix(real).ok()?)));
        respelled.unwrap_or_else(|| path.to_owned())
    }
}

impl Watched {
    fn is_notified(&self) -> bool {
        self.how == super::How::Notifications
    }
}

fn is_still(path: &Path, id: FileIdentity) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| identity(path, &metadata) == id)
}
