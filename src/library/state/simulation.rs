//! A disk made of values, and a library driven over it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::gguf::{Header, Metadata, Value};
use crate::library::{
    FileIdentity, FileRole, FoundFile, HeaderOutcome, HeaderRead, Library, Listing, Model, ModelFile, ModelState,
    Origin, Remembered, Root, RootState, Want,
};
use crate::memory::{Basis, Kind, Projector, Structure};
use crate::units::{Bytes, Moment, Span};

/// What is in a file.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Model(Kind),
    Projector(u64),
    Cut,
    Bad,
}

/// A file under one of its names.
#[derive(Clone, Debug)]
pub(super) struct Named {
    inode: u64,
    /// Where it leads, of a link.
    target: Option<PathBuf>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) files: BTreeMap<PathBuf, Named>,
    /// Length and modification by inode.
    stamps: BTreeMap<u64, (u64, u64)>,
    pub(super) content: BTreeMap<PathBuf, Content>,
    pub(super) is_root_missing: bool,
    pub(super) notes: Vec<String>,
    clock: u64,
}

impl Disk {
    pub(super) fn put(&mut self, path: &Path, bytes: u64, content: Content) {
        self.clock += 1;
        let clock = self.clock;
        let inode = self.files.entry(path.to_owned()).or_insert(Named { inode: clock, target: None }).inode;
        self.stamps.insert(inode, (bytes, clock));
        self.content.insert(path.to_owned(), content);
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.files.retain(|name, _| !name.starts_with(path));
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) {
        let moved: Vec<PathBuf> = self.files.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            let below = path.strip_prefix(from).expect("it starts with it");
            let new = if below.as_os_str().is_empty() { to.to_owned() } else { to.join(below) };
            let named = self.files.remove(&path).expect("it was there");
            self.files.insert(new.clone(), named);
            if let Some(content) = self.content.remove(&path) {
                self.content.insert(new, content);
            }
        }
    }

    fn link(&mut self, to: &Path, path: &Path, is_hard: bool) {
        let named = Named { inode: self.files[to].inode, target: (!is_hard).then(|| to.to_owned()) };
        self.files.insert(path.to_owned(), named);
        self.content.insert(path.to_owned(), self.content[to].clone());
    }

    /// Returns what a walk would find; what is no concern of the library is left out as a walk does.
    pub(super) fn listing(&self, root: &Path, under: &Path) -> Listing {
        let is_found = |path: &Path, named: &Named| {
            let is_dangling = named.target.as_ref().is_some_and(|target| !self.files.contains_key(target));
            path.starts_with(under)
                && !is_dangling
                && path.file_name().is_some_and(|name| !FileRole::of(name).is_foreign())
        };
        let files = self.files.iter().filter(|(path, named)| is_found(path, named)).map(|(path, named)| {
            let (bytes, modified_ms) = self.stamps[&named.inode];
            FoundFile {
                path: path.clone(),
                target: named.target.clone().unwrap_or_else(|| path.clone()),
                identity: FileIdentity(1, named.inode),
                bytes: Bytes(bytes),
                modified_ms,
            }
        });
        let (root, under) = (root.to_owned(), under.to_owned());
        if self.is_root_missing {
            return Listing { root, under, state: RootState::Missing, files: Vec::new(), notes: Vec::new() };
        }
        Listing { root, under, state: RootState::Present, files: files.collect(), notes: self.notes.clone() }
    }

    fn outcome(&self, files: &[ModelFile]) -> HeaderOutcome {
        match files.first().and_then(|file| self.content.get(&file.path)) {
            Some(Content::Model(Kind::Language)) => HeaderOutcome::Model(language()),
            Some(Content::Model(kind)) => {
                HeaderOutcome::Model(Arc::new(Structure { kind: *kind, ..Structure::clone(&language()) }))
            }
            Some(Content::Projector(weights)) => HeaderOutcome::Projector(projector(*weights)),
            Some(Content::Cut) => HeaderOutcome::Cut { reason: "cut".into() },
            Some(Content::Bad) | None => HeaderOutcome::Unreadable { reason: "bad".into() },
        }
    }
}

/// A library over a disk, with a clock of its own.
#[derive(Debug)]
pub(super) struct Simulation {
    pub(super) disk: Disk,
    pub(super) library: Library,
    pub(super) roots: Vec<Root>,
    pub(super) now: Moment,
    /// How many headers were read.
    pub(super) reads: usize,
    /// How often the library had something to do on its own account.
    pub(super) wakes: usize,
    /// What a watcher said while the library was away.
    pub(super) heard: Vec<PathBuf>,
}

impl Simulation {
    /// Returns a simulation with these models on its disk.
    pub(super) fn with(models: &[&str]) -> Simulation {
        let mut sim = Simulation {
            disk: Disk::default(),
            library: Library::new(Remembered::default()),
            roots: vec![Root { path: "/models".into(), origin: Origin::LmStudio }],
            now: Moment(0),
            reads: 0,
            wakes: 0,
            heard: Vec::new(),
        };
        for model in models {
            sim.disk.put(&sim.path(model), 100, Content::Model(Kind::Language));
        }
        sim
    }

    pub(super) fn add_root(&mut self, path: &str, origin: Origin) -> PathBuf {
        self.roots.push(Root { path: path.into(), origin });
        path.into()
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.roots[0].path.join(below)
    }

    /// Sets the roots and does what is wanted at once.
    pub(super) fn start(&mut self) {
        self.library.set_roots(self.roots.clone(), self.now);
        self.perform();
    }

    /// Lets time pass, waking the library at its deadlines only.
    pub(super) fn run_for(&mut self, span: Span) {
        let end = self.now.after(span);
        self.perform();
        while let Some(deadline) = self.library.deadline().filter(|deadline| *deadline <= end) {
            assert!(deadline > self.now || deadline == Moment(0), "a deadline that is past spins the host");
            self.now = deadline.max(self.now);
            self.wakes += 1;
            self.perform();
        }
        self.now = end;
    }

    pub(super) fn perform(&mut self) {
        loop {
            let wants = self.library.wants(self.now);
            if wants.is_empty() {
                return;
            }
            for want in wants {
                match want {
                    Want::Scan { root, under } => self.library.listed(self.disk.listing(&root, &under), self.now),
                    Want::ReadHeader { files } => self.read(files),
                }
            }
        }
    }

    pub(super) fn read(&mut self, files: Vec<ModelFile>) {
        self.reads += 1;
        let outcome = self.disk.outcome(&files);
        self.library.header_read(HeaderRead { files, outcome }, self.now);
    }

    /// Tells the library that something happened at a path.
    fn tell(&mut self, path: PathBuf) {
        self.library.dirty(&path, self.now);
        self.heard.push(path);
    }

    pub(super) fn put(&mut self, below: &str, bytes: u64, content: Content) {
        let path = self.path(below);
        self.disk.put(&path, bytes, content);
        self.tell(path);
    }

    pub(super) fn write(&mut self, below: &str, bytes: u64) {
        self.put(below, bytes, Content::Model(Kind::Language));
    }

    pub(super) fn write_unheard(&mut self, below: &str, bytes: u64) {
        let path = self.path(below);
        self.disk.put(&path, bytes, Content::Model(Kind::Language));
    }

    pub(super) fn touch(&mut self, below: &str) {
        self.tell(self.path(below));
    }

    pub(super) fn remove(&mut self, below: &str) {
        let path = self.path(below);
        self.disk.remove(&path);
        self.tell(path);
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let (from, to) = (self.path(from), self.path(to));
        self.disk.rename(&from, &to);
        self.tell(from);
        self.tell(to);
    }

    pub(super) fn link(&mut self, to: &str, below: &str) {
        let (to, path) = (self.path(to), self.path(below));
        self.disk.link(&to, &path, false);
        self.tell(path);
    }

    pub(super) fn hard_link(&mut self, to: &str, below: &str) {
        let (to, path) = (self.path(to), self.path(below));
        self.disk.link(&to, &path, true);
        self.tell(path);
    }

    /// Returns each model's id and state.
    pub(super) fn shown(&self) -> Vec<String> {
        self.library.models().iter().map(|model| format!("{} {}", model.id.0, word(model))).collect()
    }
}

fn word(model: &Model) -> String {
    match &model.state {
        ModelState::Downloading => "downloading".into(),
        ModelState::Incomplete { .. } => "incomplete".into(),
        ModelState::Reading => "reading".into(),
        ModelState::Ready(_) => "ready".into(),
        ModelState::Unreadable { reason } => format!("unreadable: {reason}"),
        ModelState::NotJudged { .. } => "not judged".into(),
    }
}

/// Returns the structure of some language model.
pub(super) fn language() -> Arc<Structure> {
    static LANGUAGE: OnceLock<Arc<Structure>> = OnceLock::new();
    let make = || {
        let entries = [
            ("general.architecture", Value::Text("llama".into())),
            ("llama.block_count", Value::Unsigned(1)),
            ("llama.context_length", Value::Unsigned(4_096)),
            ("llama.embedding_length", Value::Unsigned(64)),
            ("llama.attention.head_count", Value::Unsigned(4)),
            ("llama.vocab_size", Value::Unsigned(32)),
        ];
        let header = Header {
            version: 3,
            metadata: Metadata(entries.map(|(key, value)| (key.into(), value)).into()),
            tensors: Vec::new(),
            alignment: 32,
            data_offset: 0,
            file_bytes: Bytes(100),
            notes: Vec::new(),
        };
        Arc::new(Structure::from_header(&header).expect("a header with all it takes"))
    };
    Arc::clone(LANGUAGE.get_or_init(make))
}

/// Returns a projector of a size.
pub(super) fn projector(weights: u64) -> Arc<Projector> {
    let (projector_type, notes) = (None, Vec::new());
    let basis = Basis::Exact;
    Arc::new(Projector { projector_type, weights: Bytes(weights), buffers: Vec::new(), basis, notes })
}
