//! A made-up machine around the engine: files, memory, LM Studio's settings and a clock of its own.
//! Effects are performed at once and answered a moment later, so a day passes in milliseconds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::alerts::Notice;
use crate::config::Config;
use crate::engine::{Effect, Engine, Event, LmStudioRead, Reply, Request, RequestId};
use crate::fit::Verdict;
use crate::library::{
    FileIdentity, FoundFile, HeaderOutcome, HeaderRead, Listing, ModelFile, Origin, Remembered, Root, RootState, Stamp,
};
use crate::lmstudio::{Activity, LoadSettings, LoadedModel, Round, RunningBackend, Said, Unloaded};
use crate::machine::{DeviceMemory, DeviceSample, GpuProbe, MemorySample, Sample, Vendor};
use crate::report::Report;
use crate::tray::Tray;
use crate::units::{Bytes, Moment, Span};

pub(super) const ROOT: &str = "/models";
const GB: u64 = 1_000_000_000;

/// The machine and everything that came out of the engine.
pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) now: Moment,
    files: BTreeMap<PathBuf, File>,
    is_mounted: bool,
    pub(super) sample: Sample,
    pub(super) lm_studio: LmStudioRead,
    /// What LM Studio says when it is asked.
    pub(super) loaded: Round,
    pub(super) asks: usize,
    pub(super) unloads: Vec<String>,
    pending: BTreeMap<(Moment, u64), Event>,
    order: u64,
    pub(super) trays: Vec<(Moment, Tray)>,
    pub(super) notices: Vec<(Moment, Notice)>,
    pub(super) closed: Vec<String>,
    pub(super) replies: BTreeMap<RequestId, Reply>,
    pub(super) remembered: Option<Remembered>,
    pub(super) headers_read: usize,
    pub(super) wakes: usize,
    pub(super) has_ended: bool,
    pub(super) timeline: String,
}

/// A file as it is now.
#[derive(Clone)]
struct File {
    stamp: Stamp,
    identity: u64,
    outcome: HeaderOutcome,
}

impl World {
    /// Returns a machine with a 24 GB GPU and 64 GB of RAM, just started.
    pub(super) fn new(config: Config) -> World {
        World::remembering(config, Remembered::default())
    }

    pub(super) fn remembering(config: Config, remembered: Remembered) -> World {
        let memory = MemorySample { total: Bytes(64 * GB), available: Bytes(56 * GB), ..MemorySample::default() };
        let root = Root { path: ROOT.into(), origin: Origin::LmStudio };
        let mut world = World {
            engine: Engine::new("0.0.0", remembered),
            now: Moment(1_000_000),
            files: BTreeMap::new(),
            is_mounted: true,
            sample: Sample { memory: Ok(memory), gpus: GpuProbe::default() },
            lm_studio: LmStudioRead { roots: vec![root], ..LmStudioRead::default() },
            loaded: Round::default(),
            asks: 0,
            unloads: Vec::new(),
            pending: BTreeMap::new(),
            order: 0,
            trays: Vec::new(),
            notices: Vec::new(),
            closed: Vec::new(),
            replies: BTreeMap::new(),
            remembered: None,
            headers_read: 0,
            wakes: 0,
            has_ended: false,
            timeline: String::new(),
        };
        world.set_gpu_free(23 * GB);
        world.send(Event::ConfigRead { config, warnings: Vec::new() });
        world
    }

    /// Sets the free memory of the GPU; the next sample sees it.
    pub(super) fn set_gpu_free(&mut self, free: u64) {
        let memory = DeviceMemory {
            total: Bytes(24 * GB),
            used: Bytes(24 * GB - free),
            free: Bytes(free),
            ..Default::default()
        };
        self.sample.gpus.devices = vec![DeviceSample {
            id: "GPU-0".into(),
            name: "RTX 4090".into(),
            vendor: Vendor::Nvidia,
            memory: Some(Ok(memory)),
        }];
        let _ = writeln!(self.timeline, "{:>10} gpu free {}", self.now.0, Bytes(free));
    }

    /// Writes a file, as a program that has closed it; the watcher notices.
    pub(super) fn write(&mut self, path: &str, outcome: HeaderOutcome) {
        let path = Path::new(ROOT).join(path);
        self.order += 1;
        let stamp = Stamp { bytes: Bytes(GB + self.order), modified_ms: self.now.0 };
        let identity = self.files.get(&path).map_or(self.order, |file| file.identity);
        let _ = writeln!(self.timeline, "{:>10} write {} {}", self.now.0, path.display(), stamp.bytes.0);
        self.files.insert(path.clone(), File { stamp, identity, outcome });
        self.send(Event::PathsDirty(vec![path]));
    }

    /// Removes a file; the watcher notices.
    pub(super) fn remove(&mut self, path: &str) {
        let path = Path::new(ROOT).join(path);
        let _ = writeln!(self.timeline, "{:>10} remove {}", self.now.0, path.display());
        self.files.remove(&path);
        self.send(Event::PathsDirty(vec![path]));
    }

    /// Takes over the files of another machine, before anything was looked at.
    pub(super) fn adopt_files(&mut self, other: &World) {
        self.files = other.files.clone();
    }

    /// Completes every half-written file.
    pub(super) fn finish_downloads(&mut self) {
        let cut: Vec<PathBuf> =
            self.files.iter().filter(|(_, file)| file.outcome == cut()).map(|(path, _)| path.clone()).collect();
        for path in cut {
            let path = path.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned();
            self.write(&path, model(12));
        }
    }

    /// Takes the disk away or brings it back; nobody notices by itself.
    pub(super) fn set_mounted(&mut self, is_mounted: bool) {
        let _ = writeln!(self.timeline, "{:>10} mounted {is_mounted}", self.now.0);
        self.is_mounted = is_mounted;
    }

    pub(super) fn send(&mut self, event: Event) {
        self.engine.handle(event, self.now);
        self.perform();
    }

    pub(super) fn ask(&mut self, id: u64, request: Request) -> Option<Reply> {
        self.send(Event::Asked { id: RequestId(id), request });
        self.replies.remove(&RequestId(id))
    }

    /// Has LM Studio load a file.
    pub(super) fn load(&mut self, identifier: &str, path: &str, context: u32) {
        let load = LoadSettings { context_length: Some(context), ..LoadSettings::default() };
        let row = LoadedModel {
            identifier: identifier.into(),
            format: Some("gguf".into()),
            path: Some(path.into()),
            indexed_identifier: Some(path.into()),
            activity: Some(Activity::Idle),
            load,
            ..LoadedModel::default()
        };
        let mut rows = self.rows();
        rows.push(row);
        self.set_rows(rows);
    }

    pub(super) fn rows(&self) -> Vec<LoadedModel> {
        match &self.loaded.socket {
            Said::Is(rows) => rows.clone(),
            _ => Vec::new(),
        }
    }

    pub(super) fn set_rows(&mut self, rows: Vec<LoadedModel>) {
        self.loaded.backend = Some(RunningBackend::default());
        self.loaded.socket = Said::Is(rows);
    }

    fn unload(&mut self, instance: &str) -> Unloaded {
        let (gone, kept): (Vec<_>, Vec<_>) = self.rows().into_iter().partition(|row| row.identifier == instance);
        self.set_rows(kept);
        if gone.is_empty() { Unloaded::NotLoaded } else { Unloaded::Done }
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, span: Span) {
        let end = self.now.after(span);
        let mut last = (self.now, 0);
        while !self.has_ended {
            last = if last.0 == self.now { (self.now, last.1 + 1) } else { (self.now, 0) };
            assert!(last.1 < 1_000, "the engine spins: {:?}\n{}", self.engine.deadline(), self.timeline);
            let deadline = self.engine.deadline();
            let pending = self.pending.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = [deadline, pending].into_iter().flatten().min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let arrived = self.pending.first_entry().filter(|entry| entry.key().0 <= self.now);
            let arrived = arrived.map(std::collections::btree_map::OccupiedEntry::remove);
            self.wakes += usize::from(arrived.is_none());
            let event = arrived.unwrap_or(Event::DeadlineReached);
            self.send(event);
        }
        self.now = end;
    }

    /// Passes time without anybody noticing, as a suspended machine does, then says so.
    pub(super) fn sleep(&mut self, span: Span) {
        self.now = self.now.after(span);
        self.send(Event::EverythingDirty);
    }

    pub(super) fn report(&self) -> Report {
        self.engine.report(self.now)
    }

    /// Returns each model's name and verdict, or its state.
    pub(super) fn verdicts(&self) -> Vec<(String, Option<Verdict>)> {
        let verdict = |model: crate::report::ModelReport| (model.name, model.fit.map(|fit| fit.now.verdict));
        self.report().models.into_iter().map(verdict).collect()
    }

    fn later(&mut self, delay_ms: u64, event: Event) {
        self.order += 1;
        self.pending.insert((self.now.after(Span(delay_ms)), self.order), event);
    }

    fn perform(&mut self) {
        while let Some(effect) = self.engine.next_effect() {
            match effect {
                Effect::Scan { root, under } => {
                    let listing = self.listing(root, under);
                    self.later(20, Event::Listed(listing));
                }
                Effect::ReadHeader { files } => {
                    self.headers_read += 1;
                    let read = self.header(files);
                    self.later(2, Event::HeaderRead(Box::new(read)));
                }
                Effect::Sample => {
                    let sample = self.sample.clone();
                    self.later(1, Event::Sampled(sample));
                }
                Effect::ReadLmStudio { .. } => {
                    let read = self.lm_studio.clone();
                    self.later(5, Event::LmStudioRead(Box::new(read)));
                }
                Effect::AskLoaded(_) => {
                    self.asks += 1;
                    let round = Round { at_ms: self.now.0, ..self.loaded.clone() };
                    self.later(15, Event::LoadedAsked(Box::new(round)));
                }
                Effect::Unload { instance, .. } => {
                    self.unloads.push(instance.clone());
                    let outcome = self.unload(&instance);
                    self.later(40, Event::Unloaded { instance, outcome });
                }
                Effect::ShowTray(tray) => self.trays.push((self.now, *tray)),
                Effect::Notify(notice) => {
                    let _ = writeln!(self.timeline, "{:>10} notice {} | {}", self.now.0, notice.title, notice.body);
                    self.notices.push((self.now, notice));
                }
                Effect::CloseNotice { topic } => self.closed.push(topic),
                Effect::Answer { id, reply } => {
                    self.replies.insert(id, reply);
                }
                Effect::Remember(remembered) => self.remembered = Some(remembered),
                Effect::End => self.has_ended = true,
                Effect::Watch { .. } | Effect::Open(_) => {}
            }
        }
    }

    fn listing(&self, root: PathBuf, under: PathBuf) -> Listing {
        let files = self.files.iter().filter(|(path, _)| self.is_mounted && path.starts_with(&under));
        let found = |(path, file): (&PathBuf, &File)| FoundFile {
            path: path.clone(),
            target: path.clone(),
            identity: FileIdentity(1, file.identity),
            bytes: file.stamp.bytes,
            modified_ms: file.stamp.modified_ms,
        };
        let state = if self.is_mounted { RootState::Present } else { RootState::Missing };
        let files = files.map(found).collect();
        Listing { root, under, state, files, notes: Vec::new() }
    }

    fn header(&self, files: Vec<ModelFile>) -> HeaderRead {
        let changed = || HeaderOutcome::Cut { reason: "the file has changed".into() };
        let current = files.first().and_then(|file| self.files.get(&file.path).filter(|now| now.stamp == file.stamp));
        let outcome = current.map_or_else(changed, |file| file.outcome.clone());
        HeaderRead { files, outcome }
    }
}

/// Returns a readable model of so many blocks, about 0.44 GB each.
pub(super) fn model(blocks: u32) -> HeaderOutcome {
    HeaderOutcome::Model(Arc::new(crate::fit::tests::dense(blocks)))
}

/// Returns what a half-written file gives.
pub(super) fn cut() -> HeaderOutcome {
    HeaderOutcome::Cut { reason: "it ends within its tensors".into() }
}
