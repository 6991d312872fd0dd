//! A models folder, and a library driven over it as the host drives it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fitwatch::engine::Event;
use fitwatch::host::events::{Inbox, Incoming, channel};
use fitwatch::host::watch::{Options, Watcher};
use fitwatch::host::{clock, headers, walk};
use fitwatch::library::{Library, Model, ModelState, Origin, Remembered, Root, Want};
use tempfile::TempDir;

use crate::writer::{TEXT, U32, Writer, text};

/// How long a test waits before it gives up; a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Rig {
    pub(crate) folder: TempDir,
    pub(crate) root: PathBuf,
    pub(crate) library: Library,
    /// How each root was last said to be watched.
    pub(crate) watch: String,
    /// How many headers were read.
    pub(crate) headers_read: usize,
    /// How many folders were walked.
    pub(crate) walks: usize,
    watcher: Option<(Watcher, Inbox)>,
    runtime: tokio::runtime::Runtime,
}

impl Rig {
    /// Returns a rig over an empty folder named `models`, not watched.
    pub(crate) fn new() -> Rig {
        let folder = tempfile::tempdir().expect("a folder to test in");
        let root = fs::canonicalize(folder.path()).expect("its path").join("models");
        fs::create_dir(&root).expect("the models folder");
        Rig {
            root,
            folder,
            library: Library::new(Remembered::default()),
            watch: String::new(),
            headers_read: 0,
            walks: 0,
            watcher: None,
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"),
        }
    }

    /// Sets the root and scans until nothing is outstanding.
    pub(crate) fn scan(&mut self) {
        self.library.set_roots(vec![self.lm_studio_root()], clock::now());
        self.library.rescan(clock::now());
        while self.perform() || self.library.is_busy() {}
    }

    /// Sets the root, watches it, and waits until it is watched.
    pub(crate) fn watch(&mut self) {
        self.watch_with(Options { check_every: Duration::from_hours(1), ..Options::default() });
        assert_eq!(self.watch, if self.root.exists() { "notifications" } else { "waiting for the folder" });
    }

    pub(crate) fn watch_with(&mut self, options: Options) {
        let (events, inbox) = channel();
        let mut watcher = Watcher::with(events, options);
        watcher.watch(vec![self.lm_studio_root()]);
        self.watcher = Some((watcher, inbox));
        self.library.set_roots(vec![self.lm_studio_root()], clock::now());
        self.until_rig("the watch stands", |rig| !rig.watch.is_empty() && !rig.library.is_busy());
        // The scan that follows the watch is done, so that each test sees its own events only.
        self.run_for(Duration::from_millis(700));
    }

    /// Tells the watcher that the process is awake for something else.
    pub(crate) fn wake(&self) {
        self.watcher.as_ref().expect("a watched rig").0.is_awake();
    }

    pub(crate) fn lm_studio_root(&self) -> Root {
        Root { path: self.root.clone(), origin: Origin::LmStudio }
    }

    /// Runs until the library is as wanted and returns how long that took.
    pub(crate) fn until(&mut self, what: &str, is_so: impl Fn(&Library) -> bool) -> Duration {
        self.until_rig(what, |rig| is_so(&rig.library))
    }

    pub(crate) fn until_rig(&mut self, what: &str, is_so: impl Fn(&Rig) -> bool) -> Duration {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < PATIENCE, "waited in vain until {what}: {:#?}", self.states());
            self.step();
        }
        start.elapsed()
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.step();
        }
    }

    /// Waits for an event for a moment, and does what the library wants.
    fn step(&mut self) {
        if let Some((_, inbox)) = &mut self.watcher {
            let next =
                self.runtime.block_on(async { tokio::time::timeout(Duration::from_millis(10), inbox.next()).await });
            match next {
                Ok(Some(Incoming::Event(Event::PathsDirty(paths)))) => {
                    for path in paths {
                        self.library.dirty(&path, clock::now());
                    }
                }
                Ok(Some(Incoming::Event(Event::EverythingDirty))) => self.library.rescan(clock::now()),
                Ok(Some(Incoming::Event(Event::WatchChanged { watch, .. }))) => self.watch = watch,
                Ok(_) | Err(_) => {}
            }
        }
        self.perform();
    }

    fn perform(&mut self) -> bool {
        let wants = self.library.wants(clock::now());
        let is_any = !wants.is_empty();
        for want in wants {
            match want {
                Want::Scan { root, under } => {
                    self.walks += 1;
                    self.library.listed(walk::walk(&root, &under), clock::now());
                }
                Want::ReadHeader { files } => {
                    self.headers_read += 1;
                    self.library.header_read(headers::read(&files), clock::now());
                }
            }
        }
        is_any
    }

    /// Returns each model's id with its state in a word.
    pub(crate) fn states(&self) -> Vec<(String, &'static str)> {
        self.library.models().iter().map(|model| (model.id.0.clone(), word(model))).collect()
    }

    /// Returns a path below the root, its folder made.
    pub(crate) fn place(&self, below: &str) -> PathBuf {
        let path = self.root.join(below);
        fs::create_dir_all(path.parent().expect("it lies below the root")).expect("its folder");
        path
    }

    /// Writes a whole model.
    pub(crate) fn put(&self, below: &str) -> PathBuf {
        let path = self.place(below);
        fs::write(&path, model()).expect("a model");
        path
    }
}

pub(crate) fn word(model: &Model) -> &'static str {
    match &model.state {
        ModelState::Downloading => "downloading",
        ModelState::Incomplete { .. } => "incomplete",
        ModelState::Reading => "reading",
        ModelState::Ready(_) => "ready",
        ModelState::Unreadable { .. } => "unreadable",
        ModelState::NotJudged { .. } => "not judged",
    }
}

pub(crate) fn is_ready(library: &Library, id: &str) -> bool {
    library.models().iter().any(|model| model.id.0 == id && word(model) == "ready")
}

/// Returns a small model file, its data complete.
pub(crate) fn model() -> Vec<u8> {
    let number = |number: u32| number.to_le_bytes();
    let header = Writer::new()
        .entry("general.architecture", TEXT, text("llama"))
        .entry("llama.block_count", U32, number(1))
        .entry("llama.context_length", U32, number(4_096))
        .entry("llama.embedding_length", U32, number(64))
        .entry("llama.feed_forward_length", U32, number(128))
        .entry("llama.attention.head_count", U32, number(4))
        .entry("llama.vocab_size", U32, number(32))
        .tensor("token_embd.weight", &[64, 32], 0, 0)
        .tensor("blk.0.attn_q.weight", &[64, 64], 0, 64 * 32 * 4);
    let mut bytes = header.bytes();
    bytes.resize(bytes.len() + 4 * 64 * (32 + 64), 0);
    bytes
}

/// Returns a projector file, its data complete.
pub(crate) fn projector() -> Vec<u8> {
    let header = Writer::new()
        .entry("general.architecture", TEXT, text("clip"))
        .entry("clip.projector_type", TEXT, text("gemma3"))
        .tensor("v.patch_embd.weight", &[64, 64], 0, 0);
    let mut bytes = header.bytes();
    bytes.resize(bytes.len() + 4 * 64 * 64, 0);
    bytes
}

pub(crate) fn ids(library: &Library) -> Vec<&str> {
    library.models().iter().map(|model| model.id.0.as_str()).collect()
}

pub(crate) fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).expect("a rename");
}
