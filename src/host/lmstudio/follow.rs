//! Notices changes of LM Studio's files, missing ones included.
//!
//! Each path of interest is watched through the nearest folder that exists, not recursively: what
//! is missing is noticed when it comes, and a home folder with all its traffic costs one
//! comparison an event. Only the folder with the per-model files is watched with everything in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::{WITH_CONTENT, read_as, resolved, watched};
use crate::config::Config;
use crate::engine::LmStudioRead;
use crate::lmstudio::Program;

/// Arming may reveal folders that came meanwhile, which are armed in turn.
const ROUNDS: usize = 4;

/// Reads LM Studio's files and says when to read them again.
#[derive(Debug)]
pub struct Follower {
    user_home: PathBuf,
    program: Program,
    watcher: Result<RecommendedWatcher, String>,
    paths: Vec<PathBuf>,
    armed: BTreeMap<PathBuf, RecursiveMode>,
    interests: Arc<Mutex<Vec<Interest>>>,
    has_changed: Arc<AtomicBool>,
}

/// A path whose change counts, as events name it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interest {
    path: PathBuf,
    /// What lies below it counts as well.
    with_content: bool,
}

impl Follower {
    /// Returns a follower that calls `changed`, on a thread of its own, when one of the files may
    /// have changed since the last reading began: once, however much happens until the next one.
    pub fn new(user_home: PathBuf, changed: impl Fn() + Send + 'static) -> Follower {
        let interests = Arc::new(Mutex::new(Vec::new()));
        let has_changed = Arc::new(AtomicBool::new(false));
        let (known, was_said) = (Arc::clone(&interests), Arc::clone(&has_changed));
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let is_news = event.map_or(true, |event| is_of_interest(&event, &lock(&known)));
            if is_news && !was_said.swap(true, Ordering::AcqRel) {
                changed();
            }
        });
        let watcher = watcher.map_err(|error| error.to_string());
        Follower {
            user_home,
            program: Program::Unknown,
            watcher,
            paths: Vec::new(),
            armed: BTreeMap::new(),
            interests,
            has_changed,
        }
    }

    /// Takes note which program runs, and returns whether that may mean other files.
    pub fn runs(&mut self, program: Program) -> bool {
        let is_other = (self.program == Program::Bionic) != (program == Program::Bionic);
        self.program = program;
        is_other
    }

    /// Reads LM Studio's files and watches what this reading depends on. Blocks.
    pub fn read(&mut self, config: &Config) -> LmStudioRead {
        self.has_changed.store(false, Ordering::Release);
        // A folder that was replaced since the last time is watched before it is read.
        let mut outcome = self.arm();
        let mut found = read_as(config, &self.user_home, self.program);
        for _ in 0..ROUNDS {
            self.paths = watched(&found, &self.user_home);
            outcome = self.arm();
            if outcome != Ok(true) {
                break;
            }
            found = read_as(config, &self.user_home, self.program);
        }
        if let Err(error) = outcome {
            found.notes.push(format!("changes of LM Studio's files are noticed only by `fitwatch recheck`: {error}"));
        }
        found
    }

    /// Watches for the paths and nothing else; returns whether anything is watched anew, so that
    /// a change before that moment may have gone unseen.
    fn arm(&mut self) -> Result<bool, String> {
        let watcher = self.watcher.as_mut().map_err(|error| error.clone())?;
        let (wanted, interests) = plan(&self.paths);
        *lock(&self.interests) = interests;
        for path in self.armed.keys().filter(|path| !wanted.contains_key(*path)) {
            // A folder that is gone has taken its watch along.
            let _ = watcher.unwatch(path);
        }
        self.armed.retain(|path, mode| wanted.get(path) == Some(mode));
        let mut is_new = false;
        for (path, mode) in wanted {
            // Also for a folder that is watched already: another one may have taken its place.
            match watcher.watch(&path, mode) {
                Ok(()) => is_new |= self.armed.insert(path, mode).is_none(),
                Err(_) if !path.exists() => is_new = true,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(is_new)
    }
}

/// Returns what to watch, and the paths of interest; with the last of them goes its content.
fn plan(paths: &[PathBuf]) -> (BTreeMap<PathBuf, RecursiveMode>, Vec<Interest>) {
    let mut wanted = BTreeMap::new();
    let mut interests = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let Some((folder, rest)) = nearest(path) else { continue };
        let interest = Interest { path: folder.join(rest), with_content: index + WITH_CONTENT >= paths.len() };
        if interest.with_content && interest.path.is_dir() {
            wanted.insert(interest.path.clone(), RecursiveMode::Recursive);
        }
        wanted.entry(folder).or_insert(RecursiveMode::NonRecursive);
        interests.push(interest);
    }
    (wanted, interests)
}

/// Returns the nearest folder above a path that exists, links resolved, and the way from there.
fn nearest(path: &Path) -> Option<(PathBuf, &Path)> {
    let folder = path.ancestors().skip(1).find(|folder| folder.is_dir())?;
    Some((resolved(folder), path.strip_prefix(folder).ok()?))
}

/// Returns whether an event may mean another reading: something that leads to a path of interest,
/// or lies below one, has changed; not merely been looked at, as our own reading does.
fn is_of_interest(event: &Event, interests: &[Interest]) -> bool {
    let is_change = match event.kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    };
    let concerns = |path: &PathBuf| {
        let leads_to = |interest: &Interest| interest.path.starts_with(path);
        let lies_in = |interest: &Interest| interest.with_content && path.starts_with(&interest.path);
        interests.iter().any(|interest| leads_to(interest) || lies_in(interest))
    };
    is_change && (event.need_rescan() || event.paths.iter().any(concerns))
}

fn lock(interests: &Mutex<Vec<Interest>>) -> MutexGuard<'_, Vec<Interest>> {
    interests.lock().unwrap_or_else(PoisonError::into_inner)
}
