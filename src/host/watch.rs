//! Watches the roots: an event only means that a path is dirty.
//!
//! One thread owns everything that `notify` needs. On Linux it watches folder by folder, so that a
//! folder without permission, a loop of links or a link to half the disk spoils nothing, and a new
//! folder is watched before it is looked into. Folders that cannot be watched (network folders,
//! too few watches) are called dirty once a minute instead. A root that is not there is waited for
//! at its nearest folder above. Once a minute every root is compared with what is watched; between
//! that and events the thread sleeps, and it checks along with something else where it can.

mod gather;
mod network;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use gather::{Found, Gathered, Source};
use tree::{ArmError, Tree};

use super::events::Events;
use super::walk::identity;
use crate::engine::Event;
use crate::library::{FileIdentity, Root};
use crate::report::Problem;

/// The name of this part in problems.
const PART: &str = "watcher";

/// What can be set apart for a test.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often, to a quarter, roots are compared with what is watched, and polled roots called dirty.
    pub check_every: Duration,
    /// For how long events are gathered before they are handed over together.
    pub gather_for: Duration,
    /// How many folders are watched at the most.
    pub folders: usize,
    /// Tells why a folder cannot be watched by notifications, where it cannot.
    pub is_polled: fn(&Path) -> Option<&'static str>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            check_every: Duration::from_mins(1),
            gather_for: Duration::from_millis(50),
            folders: 50_000,
            is_polled: network::reason,
        }
    }
}

/// Watches folders until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    messages: mpsc::Sender<Message>,
}

enum Message {
    Roots(Vec<Root>),
    Found(Found),
    Awake,
    Stop,
}

impl Watcher {
    /// Starts a watcher that watches nothing yet.
    pub fn new(events: Events) -> Watcher {
        Watcher::with(events, Options::default())
    }

    /// Starts a watcher with options of its own.
    pub fn with(events: Events, options: Options) -> Watcher {
        let (messages, inbox) = mpsc::channel();
        let sender = messages.clone();
        let reporter = events.clone();
        let thread = std::thread::Builder::new().name(PART.into()).spawn(move || {
            Worker {
                events,
                inbox,
                sender,
                options,
                roots: Vec::new(),
                tree: None,
                above: Above::default(),
                checks: 0,
                problem: None,
            }
            .run();
        });
        if let Err(error) = thread {
            report(&reporter, Some((format!("folders are not watched: {error}"), "start fitwatch again")));
        }
        Watcher { messages }
    }

    /// Watches exactly these folders. Returns at once; what comes of it is an event.
    pub fn watch(&mut self, roots: Vec<Root>) {
        let _ = self.messages.send(Message::Roots(roots));
    }
}

impl Watcher {
    /// Says that the process is awake for something else: a check that is nearly due is done now,
    /// so that the two wake the machine once.
    pub fn is_awake(&self) {
        let _ = self.messages.send(Message::Awake);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Stop);
    }
}

fn report(events: &Events, problem: Option<(String, &str)>) {
    let problem = problem.map(|(message, hint)| Problem { part: PART.into(), message, hint: Some(hint.into()) });
    events.post(Event::PartChanged { part: PART, problem });
}

/// One root and how it is watched.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    how: How,
    /// What the root was when it was armed.
    mark: Option<Mark>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    NotYet,
    Notifications,
    Polling(String),
    Waiting,
}

/// Tells a folder from another that has taken its place, even one that got the same number.
type Mark = (FileIdentity, Option<SystemTime>);

/// The folders above roots.
#[derive(Debug, Default)]
struct Above {
    watcher: Option<notify::RecommendedWatcher>,
    folders: BTreeMap<PathBuf, Mark>,
}

struct Worker {
    events: Events,
    inbox: mpsc::Receiver<Message>,
    sender: mpsc::Sender<Message>,
    options: Options,
    roots: Vec<Watched>,
    tree: Option<Tree>,
    above: Above,
    checks: u32,
    /// The problem last reported.
    problem: Option<String>,
}

/// A root that is polled for want of watches is tried again after so many checks.
const RETRY_AFTER: u32 = 10;

impl Worker {
    fn run(mut self) {
        let (early, late) = (self.options.check_every * 3 / 4, self.options.check_every * 5 / 4);
        let mut checked = Instant::now();
        loop {
            let message = if self.roots.is_empty() {
                self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.inbox.recv_timeout(late.saturating_sub(checked.elapsed()))
            };
            let mut stashed = match message {
                Ok(Message::Found(found)) => self.take_found(found),
                Ok(message) => vec![message],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut due = late;
            for message in stashed.drain(..) {
                match message {
                    Message::Roots(roots) => {
                        self.set_roots(roots);
                        checked = Instant::now();
                    }
                    Message::Awake => due = early,
                    Message::Stop => return,
                    Message::Found(_) => {}
                }
            }
            if checked.elapsed() >= due {
                self.check_all();
                checked = Instant::now();
            }
        }
    }

    fn set_roots(&mut self, roots: Vec<Root>) {
        if self.roots.iter().map(|root| &root.path).eq(roots.iter().map(|root| &root.path)) {
            return;
        }
        // Roots change rarely, and may lie in each other: everything is armed anew.
        self.tree = None;
        self.above = Above::default();
        let watched = |root: Root| Watched { path: root.path, how: How::NotYet, mark: None };
        self.roots = roots.into_iter().map(watched).collect();
        for place in 0..self.roots.len() {
            self.compare(place);
        }
        self.watch_above(true);
        self.report_problems();
    }

    /// Compares every root with what is watched.
    fn check_all(&mut self) {
        self.checks = self.checks.wrapping_add(1);
        for place in 0..self.roots.len() {
            if self.checks.is_multiple_of(RETRY_AFTER) && matches!(self.roots[place].how, How::Polling(_)) {
                self.roots[place].mark = None;
            }
            let was_armed = self.compare(place);
            let root = &self.roots[place];
            if !was_armed && matches!(root.how, How::Polling(_)) {
                self.events.post(Event::PathsDirty(vec![root.path.clone()]));
            }
        }
        self.watch_above(true);
        self.report_problems();
    }

    /// Arms a root that is not what it was, and returns whether it had to.
    fn compare(&mut self, place: usize) -> bool {
        let root = &self.roots[place];
        let mark = mark(&root.path);
        let is_known = root.how != How::NotYet && mark == root.mark;
        if !is_known {
            self.arm(place, mark);
        }
        !is_known
    }

    fn arm(&mut self, place: usize, mark: Option<Mark>) {
        let path = self.roots[place].path.clone();
        if let Some(tree) = &mut self.tree {
            tree.disarm(&path);
        }
        let how = match (mark, (self.options.is_polled)(&path)) {
            (None, _) => How::Waiting,
            (Some(_), Some(reason)) => How::Polling(reason.to_owned()),
            (Some(_), None) => self.arm_tree(&path),
        };
        let root = &mut self.roots[place];
        root.mark = mark;
        if root.how != how {
            root.how = how;
            let watch = root.how.to_string();
            tracing::info!(root = %path.display(), watch, "watching");
            self.events.post(Event::WatchChanged { root: path.clone(), watch });
        }
        // What happened before the watch stood was not heard.
        self.events.post(Event::PathsDirty(vec![path]));
    }

    fn arm_tree(&mut self, root: &Path) -> How {
        let tree =
            match self.tree.take().map_or_else(|| Tree::new(self.handler(Source::Tree), self.options.folders), Ok) {
                Ok(tree) => self.tree.insert(tree),
                Err(error) => return How::Polling(format!("no notifications: {error}")),
            };
        match tree.arm(root, root) {
            Ok(()) => How::Notifications,
            Err(error) => {
                tree.disarm(root);
                How::Polling(error.to_string())
            }
        }
    }

    fn handler(&self, source: Source) -> impl Fn(notify::Result<notify::Event>) + Send + 'static {
        let sender = self.sender.clone();
        move |event| {
            if let Some(found) = Found::new(source, event) {
                let _ = sender.send(Message::Found(found));
            }
        }
    }

    /// Gathers what comes in quick succession, hands it over, and returns what else came.
    fn take_found(&mut self, first: Found) -> Vec<Message> {
        let mut gathered = Gathered::default();
        let mut stashed = Vec::new();
        gathered.add(first);
        let end = Instant::now() + self.options.gather_for;
        while stashed.is_empty() && Instant::now() < end {
            match self.inbox.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Message::Found(found)) => gathered.add(found),
                Ok(other) => stashed.push(other),
                Err(_) => break,
            }
        }
        self.hand_over(&gathered);
        stashed
    }

    fn hand_over(&mut self, gathered: &Gathered) {
        let mut is_rearmed = false;
        for place in 0..self.roots.len() {
            let path = &self.roots[place].path;
            if gathered.has_replaced(path) || gathered.is_overflowed {
                self.roots[place].how = match &self.roots[place].how {
                    How::Waiting => How::Waiting,
                    _ => How::NotYet,
                };
            } else if !gathered.concerns_way_to(path) {
                continue;
            }
            is_rearmed |= self.compare(place);
        }
        if gathered.is_opened {
            self.events.post(Event::ModelOpened);
        }
        if gathered.is_overflowed {
            self.events.post(Event::EverythingDirty);
        }
        if is_rearmed || gathered.is_above {
            self.above.folders.retain(|folder, _| !gathered.has_replaced(folder));
            self.watch_above(false);
            self.report_problems();
        }
        let Some(tree) = &mut self.tree else { return };
        let paths: Vec<PathBuf> = match tree.follow(gathered, &self.roots) {
            Ok(paths) => paths,
            Err((root, error)) => return self.fall_back(&root, &error),
        };
        if !paths.is_empty() {
            self.events.post(Event::PathsDirty(paths));
        }
    }

    /// Polls a root whose new folders can no longer be watched.
    fn fall_back(&mut self, path: &Path, error: &ArmError) {
        if let Some(tree) = &mut self.tree {
            tree.disarm(path);
        }
        if let Some(root) = self.roots.iter_mut().find(|root| root.path == path) {
            root.how = How::Polling(error.to_string());
            self.events.post(Event::WatchChanged { root: path.to_owned(), watch: root.how.to_string() });
        }
        self.events.post(Event::EverythingDirty);
        self.report_problems();
    }

    /// Watches the nearest folder above each root, where a root's coming and going is seen. A folder
    /// that was replaced unseen needs the watch again.
    fn watch_above(&mut self, is_again: bool) {
        use notify::{RecursiveMode, Watcher as _};
        let shown = self.roots.iter().filter(|root| matches!(root.how, How::Notifications | How::Waiting));
        let wanted: BTreeMap<PathBuf, Mark> = shown.filter_map(|root| nearest_above(&root.path)).collect();
        if self.above.watcher.is_none() && !wanted.is_empty() {
            self.above.watcher = notify::recommended_watcher(self.handler(Source::Above)).ok();
        }
        let Some(watcher) = &mut self.above.watcher else { return };
        for gone in self.above.folders.keys().filter(|folder| !wanted.contains_key(*folder)) {
            let _ = watcher.unwatch(gone);
        }
        for (folder, mark) in &wanted {
            if is_again || self.above.folders.get(folder) != Some(mark) {
                // What cannot be watched is still looked at once a minute.
                let _ = watcher.watch(folder, RecursiveMode::NonRecursive);
            }
        }
        self.above.folders = wanted;
        // One may have come between the look at it and the watch above it.
        for place in 0..self.roots.len() {
            if self.roots[place].how == How::Waiting {
                self.compare(place);
            }
        }
    }

    fn report_problems(&mut self) {
        let limited = self.roots.iter().find_map(|root| match &root.how {
            How::Polling(reason) if (self.options.is_polled)(&root.path).is_none() => Some((root, reason)),
            _ => None,
        });
        let problem =
            limited.map(|(root, reason)| format!("{} is looked at once a minute only: {reason}", root.path.display()));
        if problem != self.problem {
            report(&self.events, problem.clone().map(|message| (message, tree::HINT)));
            self.problem = problem;
        }
    }
}

impl std::fmt::Display for How {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            How::NotYet => f.write_str("not yet"),
            How::Notifications => f.write_str("notifications"),
            How::Polling(reason) => write!(f, "polling ({reason})"),
            How::Waiting => f.write_str("waiting for the folder"),
        }
    }
}

/// Returns what a folder is now; nothing where there is no folder.
fn mark(path: &Path) -> Option<Mark> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir)?;
    Some((identity(path, &metadata), metadata.created().ok()))
}

/// Returns the nearest existing folder above a path, but not the topmost: too much happens there.
fn nearest_above(path: &Path) -> Option<(PathBuf, Mark)> {
    let mut above = path.ancestors().skip(1).filter(|folder| folder.parent().is_some());
    above.find_map(|folder| Some((folder.to_owned(), mark(folder)?)))
}
