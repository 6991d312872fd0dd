//! Walks a folder: which files lie under it that concern the library.
//!
//! A walk follows links and enters each real folder once, so a loop of links ends. It promises
//! limits on depth and number, and that what it cannot enter becomes a note, not a failure. Only
//! names are read of files that do not concern the library; no file is opened. Blocking.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{DirEntry, FileType, Metadata};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::library::{FileIdentity, FileRole, FoundFile, Listing, RootState, Stamp};
use crate::units::Bytes;

/// Folders below each other, counted from the root.
const DEPTH: usize = 16;
/// Names read in one walk.
const ENTRIES: usize = 1_000_000;
/// Files kept of one walk.
const FILES: usize = 100_000;
/// Notes kept of one walk.
const NOTES: usize = 16;

/// Folders in which systems keep what was deleted, and what they recovered.
const NOT_ENTERED: [&str; 5] = [".Trashes", "$RECYCLE.BIN", "System Volume Information", "lost+found", "@eaDir"];

/// Walks a root, or a folder under it.
pub fn walk(root: &Path, under: &Path) -> Listing {
    let mut listing = Listing {
        root: root.to_owned(),
        under: under.to_owned(),
        state: RootState::Present,
        files: Vec::new(),
        notes: Vec::new(),
    };
    match std::fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => listing.state = RootState::Unreadable { reason: "it is not a folder".to_owned() },
        Err(error) if is_absent(&error) => listing.state = RootState::Missing,
        Err(error) => listing.state = RootState::Unreadable { reason: error.to_string() },
    }
    if listing.state == RootState::Present {
        let Listing { files, state, .. } = &mut listing;
        let notes = visit(root, under, &mut |visit| match visit {
            Visit::Folder { .. } => ControlFlow::Continue(()),
            Visit::File(_) if files.len() >= FILES => ControlFlow::Break(format!("only {FILES} files are looked at")),
            Visit::File(file) => {
                files.push(file);
                ControlFlow::Continue(())
            }
            Visit::Unreadable { path, error } => {
                if path == root {
                    *state = RootState::Unreadable { reason: error.to_string() };
                }
                ControlFlow::Continue(())
            }
        });
        // That of a root that cannot be read is its state already.
        if listing.state == RootState::Present {
            listing.notes = notes;
        }
    }
    listing
}

/// What a walk meets.
pub(super) enum Visit<'a> {
    /// A folder, before anything in it.
    Folder {
        /// Its path under the root.
        path: &'a Path,
        /// What makes it the same folder under another path.
        identity: FileIdentity,
        /// Whether its path leads over a link.
        is_linked: bool,
    },
    /// A regular file that concerns the library.
    File(FoundFile),
    /// A folder that cannot be read.
    Unreadable {
        /// Its path under the root.
        path: &'a Path,
        /// Why.
        error: &'a io::Error,
    },
}

/// Who is shown what a walk meets; a break ends the walk with a note.
pub(super) type Visitor<'a> = dyn FnMut(Visit<'_>) -> ControlFlow<String> + 'a;

/// Shows a visitor everything under a folder of a root and returns what could not be walked.
pub(super) fn visit(root: &Path, under: &Path, visitor: &mut Visitor<'_>) -> Vec<String> {
    let mut walk = Walk { root, visitor, visited: BTreeSet::new(), notes: Vec::new(), entries: 0, links: Vec::new() };
    if let ControlFlow::Break(note) = walk.run(under) {
        walk.note(note);
    }
    walk.notes
}

struct Walk<'a, 'b> {
    root: &'a Path,
    visitor: &'a mut Visitor<'b>,
    visited: BTreeSet<FileIdentity>,
    notes: Vec<String>,
    entries: usize,
    /// Links to folders, entered after all real folders so that a real path is the one that counts.
    links: Vec<PathBuf>,
}

impl Walk<'_, '_> {
    fn run(&mut self, under: &Path) -> ControlFlow<String> {
        let is_linked = self.pass_ancestors(under);
        self.walk_tree(under, is_linked)?;
        while !self.links.is_empty() {
            let mut links = std::mem::take(&mut self.links);
            links.sort_by(|one, other| (one.components().count(), one).cmp(&(other.components().count(), other)));
            for link in links {
                self.walk_tree(&link, true)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Marks the folders above, so that a link back to one is not followed, and returns whether
    /// the path leads over a link.
    fn pass_ancestors(&mut self, under: &Path) -> bool {
        let mut is_linked = false;
        for folder in under.ancestors().take_while(|folder| *folder != self.root && folder.starts_with(self.root)) {
            is_linked |= std::fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_symlink());
            if let Some(parent) = folder.parent()
                && let Ok(metadata) = std::fs::metadata(parent)
            {
                self.visited.insert(identity(parent, &metadata));
            }
        }
        is_linked
    }

    fn walk_tree(&mut self, top: &Path, is_linked: bool) -> ControlFlow<String> {
        let mut queue = VecDeque::from([top.to_owned()]);
        while let Some(folder) = queue.pop_front() {
            self.walk_folder(&folder, is_linked, &mut queue)?;
        }
        ControlFlow::Continue(())
    }

    fn walk_folder(&mut self, folder: &Path, is_linked: bool, queue: &mut VecDeque<PathBuf>) -> ControlFlow<String> {
        // What has vanished meanwhile, or is no folder at all, has nothing under it.
        let Ok(metadata) = std::fs::metadata(folder) else { return ControlFlow::Continue(()) };
        let identity = identity(folder, &metadata);
        if !metadata.is_dir() || !self.visited.insert(identity) {
            return ControlFlow::Continue(());
        }
        (self.visitor)(Visit::Folder { path: folder, identity, is_linked })?;
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return ControlFlow::Continue(()),
            Err(error) => {
                self.note(format!("cannot read the folder {}: {error}", folder.display()));
                return (self.visitor)(Visit::Unreadable { path: folder, error: &error });
            }
        };
        // Real paths below a link lead to the link's target.
        let target = if is_linked {
            std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned())
        } else {
            folder.to_owned()
        };
        let mut folders = Vec::new();
        let mut files = Vec::new();
        for entry in entries.map_while(Result::ok) {
            self.entries += 1;
            if self.entries > ENTRIES {
                return ControlFlow::Break(format!("only {ENTRIES} names are looked at"));
            }
            let Ok(kind) = entry.file_type() else { continue };
            match self.sort_entry(&entry, kind) {
                Some(Sorted::Folder) => folders.push(entry.path()),
                Some(Sorted::File(found)) => files.push(at_target(found, &target)),
                None => {}
            }
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        for file in files {
            (self.visitor)(Visit::File(file))?;
        }
        folders.sort();
        self.descend(folder, folders, queue);
        ControlFlow::Continue(())
    }

    fn descend(&mut self, folder: &Path, folders: Vec<PathBuf>, queue: &mut VecDeque<PathBuf>) {
        let depth = folder.strip_prefix(self.root).map_or(0, |below| below.components().count());
        if depth < DEPTH {
            queue.extend(folders);
        } else if !folders.is_empty() {
            self.note(format!("folders below {} lie too deep to be looked at", folder.display()));
        }
    }

    /// Returns what an entry is; links to folders are put aside.
    fn sort_entry(&mut self, entry: &DirEntry, kind: FileType) -> Option<Sorted> {
        let name = entry.file_name();
        if kind.is_dir() {
            return is_entered(&name.to_string_lossy()).then_some(Sorted::Folder);
        }
        let role = FileRole::of(&name);
        if kind.is_symlink() {
            let path = entry.path();
            // A dangling link leads nowhere, silently.
            let metadata = std::fs::metadata(&path).ok()?;
            if metadata.is_dir() {
                self.links.push(path);
                return None;
            }
            if role.is_foreign() || !metadata.is_file() {
                return None;
            }
            let target = std::fs::canonicalize(&path).ok()?;
            return Some(Sorted::File(found(path, target, &metadata)));
        }
        if role.is_foreign() || !kind.is_file() {
            return None;
        }
        let path = entry.path();
        let metadata = entry.metadata().ok()?;
        Some(Sorted::File(found(path.clone(), path, &metadata)))
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < NOTES {
            self.notes.push(note);
        }
    }
}

enum Sorted {
    Folder,
    File(FoundFile),
}

fn is_entered(name: &str) -> bool {
    !name.starts_with(".Trash-") && !NOT_ENTERED.contains(&name)
}

fn found(path: PathBuf, target: PathBuf, metadata: &Metadata) -> FoundFile {
    let Stamp { bytes, modified_ms } = stamp_of(metadata);
    FoundFile { identity: identity(&target, metadata), bytes, modified_ms, path, target }
}

/// Returns what tells one version of a file from another.
pub(super) fn stamp_of(metadata: &Metadata) -> Stamp {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified_ms = modified.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    Stamp { bytes: Bytes(metadata.len()), modified_ms }
}

/// Replaces the folder of a file that is no link itself by the folder's real path.
fn at_target(file: FoundFile, folder: &Path) -> FoundFile {
    let is_link = file.target != file.path;
    match file.path.file_name() {
        Some(name) if !is_link => FoundFile { target: folder.join(name), ..file },
        _ => file,
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Returns what makes two paths the same file or folder.
#[cfg(unix)]
pub(super) fn identity(_path: &Path, metadata: &Metadata) -> FileIdentity {
    use std::os::unix::fs::MetadataExt;
    FileIdentity(metadata.dev(), metadata.ino())
}

/// Returns what makes two paths the same file or folder.
#[cfg(not(unix))]
pub(super) fn identity(path: &Path, _metadata: &Metadata) -> FileIdentity {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).hash(&mut hasher);
    FileIdentity(0, hasher.finish())
}
