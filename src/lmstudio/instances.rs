//! The loaded models: what all sides tell, joined.
//!
//! Rounds come in with what was asked this time; a side that was not asked keeps what it said. The
//! websocket's rows come first, those of REST add to them, and each engine process is attached to the
//! instance whose file it has. What is left over stands for itself: a process that no interface knows,
//! a row that no process here stands behind.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::mapping::{map_loaded, map_process, names};
use super::processes::parts;
use super::{
    Activity, EngineKind, EngineProcess, IndexHints, LoadedModel, Mapping, Round, RunningBackend, Said, Shelves,
    Standing, mapping,
};

/// One loaded model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// LM Studio's identifier (`qwen3-8b:2`), or `pid 4711` where a process alone is known.
    pub id: String,
    /// What LM Studio tells of it, from its best source, with what the others add.
    pub model: Option<LoadedModel>,
    /// The process that holds it.
    pub process: Option<EngineProcess>,
    /// How many instances may live in that process, this one counted: LM Studio's worker holds several.
    pub sharers: u32,
    /// Where it runs.
    pub whereabouts: Whereabouts,
    /// Who tells of it, the most trusted first.
    pub sources: Vec<Source>,
}

/// Who tells of a loaded model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// LM Studio's internal websocket.
    Websocket,
    /// Its REST interface, v1 or v0.
    Rest,
    /// The list of processes.
    Processes,
}

/// Where a loaded model runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "at", content = "device")]
pub enum Whereabouts {
    /// On this machine.
    Here,
    /// On another machine (LM Link): its memory is none of ours.
    Elsewhere(String),
    /// Only REST tells of it, and no process here holds it: perhaps on another machine.
    Unclear,
}

impl Instance {
    /// Returns whether it lives in LM Studio's worker, perhaps beside others.
    pub fn is_in_worker(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.kind == EngineKind::Worker)
    }
}

/// What is known of loaded models over several rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Instances {
    list: Vec<Instance>,
    sides: Sides,
    /// Which process each instance was found in, to find it there again.
    found_in: BTreeMap<String, Place>,
    /// What LM Studio's index said of keys.
    hints: IndexHints,
    /// Keys that it was asked for.
    asked_for: BTreeSet<String>,
}

/// A process, by its number and start.
type Place = (u32, u64);

/// What each side has said last.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sides {
    backend: Option<RunningBackend>,
    socket: Option<Vec<LoadedModel>>,
    rest: Option<Vec<LoadedModel>>,
    processes: Option<Vec<EngineProcess>>,
    /// What could not be learned, by the side that could not be asked.
    unknown: BTreeMap<Source, String>,
    notes: Vec<String>,
}

impl Instances {
    /// Takes in a round and returns whether anything has changed: instances, settings, activity.
    pub fn take(&mut self, round: Round) -> bool {
        let before = self.sides.clone();
        self.hints.extend(round.hints.clone());
        self.sides.take(round);
        if self.sides == before {
            return false;
        }
        let list = std::mem::take(&mut self.list);
        self.join(None);
        self.list != list || self.sides.backend != before.backend || self.sides.unknown != before.unknown
    }

    /// Attaches processes to instances with the help of the library, which knows files by all of their
    /// names.
    pub fn settle(&mut self, shelves: Shelves<'_>) {
        self.join(Some(shelves));
        let places = self.list.iter().filter(|instance| !instance.is_in_worker()).filter_map(|instance| {
            let process = instance.process.as_ref()?;
            Some((instance.id.clone(), (process.pid, process.started_ms)))
        });
        self.found_in = places.collect();
    }

    /// Returns the loaded models: LM Studio's in its order, then those it does not know.
    pub fn list(&self) -> &[Instance] {
        &self.list
    }

    /// Returns the back-end that runs.
    pub fn backend(&self) -> Option<&RunningBackend> {
        self.sides.backend.as_ref()
    }

    /// Returns how things stand, for the pace of asking.
    pub fn standing(&self) -> Standing {
        let is_busy = |instance: &Instance| {
            let activity = instance.model.as_ref().and_then(|told| told.activity.as_ref());
            activity.is_some_and(|activity| *activity != Activity::Idle)
        };
        let here: Vec<&Instance> =
            self.list.iter().filter(|instance| !matches!(instance.whereabouts, Whereabouts::Elsewhere(_))).collect();
        match () {
            () if here.iter().any(|instance| is_busy(instance)) => Standing::Busy,
            () if !here.is_empty() => Standing::Idle,
            () if self.sides.backend.is_some() || self.workers().next().is_some() => Standing::Runs,
            () => Standing::Nothing,
        }
    }

    /// Returns what could not be learned, in words for the user.
    pub fn unknown(&self) -> Option<String> {
        let mut words: Vec<&str> = self.sides.unknown.values().map(String::as_str).collect();
        // One of LM Studio's interfaces is enough.
        if self.sides.socket.is_some() || self.sides.rest.is_some() {
            words = self.sides.unknown.get(&Source::Processes).map(String::as_str).into_iter().collect();
        }
        words.extend(self.sides.notes.iter().map(String::as_str));
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// Returns LM Studio's workers, each of which may hold models.
    pub fn workers(&self) -> impl Iterator<Item = &EngineProcess> {
        self.sides.processes.iter().flatten().filter(|process| process.kind == EngineKind::Worker)
    }

    /// Returns what LM Studio's index has said of keys.
    pub fn hints(&self) -> &IndexHints {
        &self.hints
    }

    /// Returns the keys that LM Studio's index has not been asked for yet and may tell more of.
    pub fn in_doubt(&mut self, shelves: Shelves<'_>) -> BTreeSet<String> {
        let in_doubt = self.list.iter().filter(|instance| {
            !matches!(instance.whereabouts, Whereabouts::Elsewhere(_)) && mapping(instance, shelves).one().is_none()
        });
        let keys: BTreeSet<String> =
            in_doubt.filter_map(|instance| instance.model.as_ref()).flat_map(names).map(str::to_owned).collect();
        let new: BTreeSet<String> = keys.difference(&self.asked_for).cloned().collect();
        // What is not loaded any more may be asked for again: the index will be another one.
        self.asked_for = keys;
        new
    }

    fn join(&mut self, shelves: Option<Shelves<'_>>) {
        let mut instances = self.sides.rows();
        let servers = self.sides.processes.iter().flatten().filter(|process| process.kind != EngineKind::Worker);
        let mut left: Vec<&EngineProcess> = servers.collect();
        if shelves.is_none() {
            attach_as_before(&mut instances, &mut left, &self.found_in);
        }
        attach_by_file(&mut instances, &mut left, shelves);
        attach_the_last(&mut instances, &mut left, shelves);
        attach_worker(&mut instances, self.workers());
        instances.extend(left.into_iter().map(alone));
        self.list = instances;
    }
}

impl Sides {
    fn take(&mut self, round: Round) {
        let is_same_backend = match (&self.backend, &round.backend) {
            (Some(before), Some(now)) => before.pid == now.pid,
            (None, None) => true,
            _ => false,
        };
        if !is_same_backend {
            (self.socket, self.rest) = (None, None);
        }
        if round.backend.is_none() {
            self.unknown.remove(&Source::Websocket);
            self.unknown.remove(&Source::Rest);
        }
        self.backend = round.backend;
        let newest = (matches!(round.socket, Said::Is(_)), matches!(round.rest, Said::Is(_)));
        if !matches!(round.processes, Said::NotAsked) {
            self.notes = round.notes;
        }
        take_side(&mut self.socket, round.socket, Source::Websocket, &mut self.unknown);
        take_side(&mut self.rest, round.rest, Source::Rest, &mut self.unknown);
        take_side(&mut self.processes, round.processes, Source::Processes, &mut self.unknown);
        // What only the older of two answers knows has been unloaded since.
        match (newest, &mut self.socket, &mut self.rest) {
            ((true, false), Some(socket), Some(rest)) => rest.retain(|row| is_listed(row, socket)),
            ((false, true), Some(socket), Some(rest)) => socket.retain(|row| is_listed(row, rest)),
            _ => {}
        }
    }

    /// Returns the rows of both interfaces, joined by identifier.
    fn rows(&self) -> Vec<Instance> {
        let mut instances: Vec<Instance> = Vec::new();
        for row in self.socket.iter().flatten().filter(|row| !is_projector(row)) {
            let is_known = |instance: &Instance| {
                instance
                    .model
                    .as_ref()
                    .is_some_and(|told| told.identifier == row.identifier && told.device == row.device)
            };
            if !instances.iter().any(is_known) {
                instances.push(Sides::instance(row, Source::Websocket));
            }
        }
        for row in self.rest.iter().flatten().filter(|row| !is_projector(row)) {
            match instances.iter_mut().find(|instance| instance.id == row.identifier) {
                Some(instance) if !instance.sources.contains(&Source::Rest) => {
                    instance.sources.push(Source::Rest);
                    instance.model = instance.model.as_ref().map(|told| joined(told, row));
                }
                Some(_) => {}
                None => instances.push(Sides::instance(row, Source::Rest)),
            }
        }
        instances
    }

    fn instance(row: &LoadedModel, source: Source) -> Instance {
        let whereabouts = match &row.device {
            Some(device) => Whereabouts::Elsewhere(device.clone()),
            None if source == Source::Rest => Whereabouts::Unclear,
            None => Whereabouts::Here,
        };
        Instance {
            id: row.identifier.clone(),
            model: Some(row.clone()),
            process: None,
            sharers: 1,
            whereabouts,
            sources: vec![source],
        }
    }
}

fn take_side<T>(side: &mut Option<T>, said: Said<T>, source: Source, unknown: &mut BTreeMap<Source, String>) {
    let what = match source {
        Source::Websocket => "LM Studio's websocket",
        Source::Rest => "LM Studio's HTTP server",
        Source::Processes => "the list of processes",
    };
    match said {
        Said::NotAsked => {}
        Said::Is(what) => {
            *side = Some(what);
            unknown.remove(&source);
        }
        // A slow answer does not unload a model.
        Said::Failed(reason) => drop(unknown.insert(source, format!("{what} does not answer: {reason}"))),
        Said::Absent => {
            *side = None;
            unknown.remove(&source);
        }
        Said::Refused => {
            *side = None;
            unknown.insert(source, "LM Studio requires an API token".into());
        }
    }
}

fn is_listed(row: &LoadedModel, list: &[LoadedModel]) -> bool {
    // REST v0 may list a second instance by its key alone.
    let base = row.identifier.rsplit_once(':').filter(|(_, number)| number.parse::<u32>().is_ok());
    let is_row = |other: &LoadedModel| {
        other.identifier == row.identifier || base.is_some_and(|(base, _)| other.identifier == base)
    };
    list.iter().any(is_row)
}

/// A projector may be listed as a model of its own.
fn is_projector(row: &LoadedModel) -> bool {
    row.architecture.as_deref() == Some("clip") || row.identifier.ends_with("@?")
}

/// Returns what two interfaces say of an instance, the first where both do.
fn joined(one: &LoadedModel, other: &LoadedModel) -> LoadedModel {
    let (one, other) = (one.clone(), other.clone());
    LoadedModel {
        identifier: one.identifier,
        key: one.key.or(other.key),
        name: one.name.or(other.name),
        kind: one.kind.or(other.kind),
        format: one.format.or(other.format),
        path: one.path.or(other.path),
        indexed_identifier: one.indexed_identifier.or(other.indexed_identifier),
        bytes: one.bytes.or(other.bytes),
        architecture: one.architecture.or(other.architecture),
        quantisation: one.quantisation.or(other.quantisation),
        device: one.device.or(other.device),
        variant: one.variant.or(other.variant),
        context: one.context.or(other.context),
        ttl: one.ttl.or(other.ttl),
        last_used_ms: one.last_used_ms.or(other.last_used_ms),
        activity: one.activity.or(other.activity),
        load: one.load.over(&other.load),
        estimate: one.estimate.or(other.estimate),
    }
}

fn attach_as_before(instances: &mut [Instance], left: &mut Vec<&EngineProcess>, found_in: &BTreeMap<String, Place>) {
    for instance in instances {
        let Some(place) = found_in.get(&instance.id) else { continue };
        if let Some(order) = left.iter().position(|process| (process.pid, process.started_ms) == *place) {
            attach(instance, left.remove(order));
        }
    }
}

/// Attaches each process to the instance that fits it best: by file, then by what it was asked for.
/// Instances that are alike take theirs in order.
fn attach_by_file(instances: &mut [Instance], left: &mut Vec<&EngineProcess>, shelves: Option<Shelves<'_>>) {
    let models: Vec<Mapping> = left.iter().map(|process| process_model(process, shelves)).collect();
    let mut pairs = Vec::new();
    for (place, instance) in instances.iter().enumerate().filter(|(_, instance)| instance.process.is_none()) {
        let model = instance_model(instance, shelves);
        for (order, process) in left.iter().enumerate() {
            if let Some(score) = likeness(instance, &model, process, &models[order]) {
                pairs.push((Reverse(score), place, order));
            }
        }
    }
    pairs.sort_unstable();
    let mut taken = BTreeSet::new();
    for (_, place, order) in pairs {
        if instances[place].process.is_none() && taken.insert(order) {
            attach(&mut instances[place], left[order]);
        }
    }
    let mut order = 0..;
    left.retain(|_| order.next().is_some_and(|order| !taken.contains(&order)));
}

/// The only model without a process and LM Studio's only engine without a model belong together, if
/// what it was asked for speaks for it.
fn attach_the_last(instances: &mut [Instance], left: &mut Vec<&EngineProcess>, shelves: Option<Shelves<'_>>) {
    let is_open = |instance: &&mut Instance| instance.process.is_none() && instance.whereabouts == Whereabouts::Here;
    let mut open = instances.iter_mut().filter(is_open);
    let (Some(instance), None) = (open.next(), open.next()) else { return };
    let mut servers = left.iter().enumerate().filter(|(_, process)| process.kind == EngineKind::Server);
    let (Some((order, process)), None) = (servers.next(), servers.next()) else { return };
    let are_known =
        instance_model(instance, shelves) != Mapping::None && process_model(process, shelves) != Mapping::None;
    let format = instance.model.as_ref().and_then(|told| told.format.as_deref());
    if !are_known && format.is_none_or(|format| format == "gguf") && agreement(instance, process) > 0 {
        attach(instance, process);
        left.remove(order);
    }
}

/// Models without a process of their own live in the worker, where there is just one.
fn attach_worker<'a>(instances: &mut [Instance], mut workers: impl Iterator<Item = &'a EngineProcess>) {
    let (Some(worker), None) = (workers.next(), workers.next()) else { return };
    let lives_there =
        |instance: &Instance| instance.process.is_none() && !matches!(instance.whereabouts, Whereabouts::Elsewhere(_));
    let sharers = instances.iter().filter(|instance| lives_there(instance)).count();
    for instance in instances.iter_mut().filter(|instance| lives_there(instance)) {
        instance.process = Some(worker.clone());
        instance.sharers = u32::try_from(sharers).unwrap_or(u32::MAX);
        instance.sources.push(Source::Processes);
    }
}

fn attach(instance: &mut Instance, process: &EngineProcess) {
    instance.process = Some(process.clone());
    instance.sources.push(Source::Processes);
    instance.whereabouts = Whereabouts::Here;
}

fn process_model(process: &EngineProcess, shelves: Option<Shelves<'_>>) -> Mapping {
    shelves.map_or(Mapping::None, |shelves| map_process(process, shelves))
}

fn instance_model(instance: &Instance, shelves: Option<Shelves<'_>>) -> Mapping {
    let told = instance.model.as_ref().filter(|_| !matches!(instance.whereabouts, Whereabouts::Elsewhere(_)));
    told.zip(shelves).map_or(Mapping::None, |(told, shelves)| map_loaded(told, shelves))
}

/// Returns how well a process of LM Studio fits an instance, if it has its file.
fn likeness(instance: &Instance, model: &Mapping, process: &EngineProcess, its: &Mapping) -> Option<(u8, i8)> {
    if process.kind != EngineKind::Server || matches!(instance.whereabouts, Whereabouts::Elsewhere(_)) {
        return None;
    }
    let file = match (model, its) {
        (Mapping::One(one), Mapping::One(other)) if one == other => 2,
        (Mapping::Several(_), Mapping::One(other)) if model.may_be(other) => 1,
        (Mapping::One(_), Mapping::One(_)) => return None,
        _ if has_named_file(instance, process) => 2,
        _ => return None,
    };
    Some((file, agreement(instance, process)))
}

/// Returns whether a process has the file that an instance names, in the library or not.
fn has_named_file(instance: &Instance, process: &EngineProcess) -> bool {
    let file = process.file.as_ref().map(|file| parts(&file.path));
    let named = process.asked.model.as_deref().map(parts);
    let paths: Vec<Vec<String>> = file.into_iter().chain(named).collect();
    let ends_with = |name: &String| {
        let name = name.replace('\\', "/").to_lowercase();
        let name: Vec<&str> = name.split('/').collect();
        let is_same = |path: &Vec<String>| {
            path.len() >= name.len()
                && path.iter().rev().zip(name.iter().rev()).all(|(one, other)| one.to_lowercase() == *other)
        };
        name.len() >= 3 && paths.iter().any(is_same)
    };
    let told = instance.model.as_ref();
    told.is_some_and(|told| [&told.path, &told.indexed_identifier].into_iter().flatten().any(ends_with))
}

/// Returns how many settings an instance and a process agree on, less those they differ in.
fn agreement(instance: &Instance, process: &EngineProcess) -> i8 {
    let Some(told) = &instance.model else { return 0 };
    let asked = &process.asked;
    let same = [
        compare(told.context, asked.context.filter(|context| *context > 0)).map(|same| same * 8),
        compare(told.load.parallel, asked.parallel),
        compare(told.load.batch, asked.batch),
        compare(told.load.cache_type_k, asked.cache_type_k),
        compare(told.load.cache_type_v, asked.cache_type_v),
        compare(told.load.offload_kv_cache_to_gpu, asked.offload_kv),
    ];
    same.into_iter().flatten().sum()
}

fn compare<T: PartialEq>(one: Option<T>, other: Option<T>) -> Option<i8> {
    Some(if one? == other? { 1 } else { -1 })
}

/// Returns a process that no interface knows as an instance of its own.
fn alone(process: &EngineProcess) -> Instance {
    Instance {
        id: format!("pid {}", process.pid),
        model: None,
        process: Some(process.clone()),
        sharers: 1,
        whereabouts: Whereabouts::Here,
        sources: vec![Source::Processes],
    }
}

#[cfg(test)]
mod tests;
