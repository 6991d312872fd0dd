//! The loaded models: asking for them, what they need, unloading one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::models::Supplies;
use super::{Effect, Engine, Reply, RequestId};
use crate::alerts::Notice;
use crate::fit::{GpuSupply, Held};
use crate::library::{Library, Model, ModelId, ModelState};
use crate::lmstudio::{
    Ask, IndexHints, Instance, Instances, Mapping, Pace, Round, RunningBackend, SettingsFor, Shelves, Unloaded,
    Whereabouts, loaded_settings, mapping, saved_for,
};
use crate::memory::{Bill, Devices, EngineProfile, Pool, bill};
use crate::report::{InstanceReport, PoolBytes};
use crate::units::{Bytes, Moment, Span};

/// The topic of notices about unloading.
const UNLOADING: &str = "unloading";

/// The loaded models.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    instances: Instances,
    pace: Pace,
    is_asking: bool,
    /// It is asked along with something else that is due.
    is_joined: bool,
    /// What LM Studio's index is to be asked for next time.
    in_doubt: BTreeSet<String>,
    /// When LM Studio was asked last, in its own clock.
    at_ms: u64,
    entries: BTreeMap<String, Entry>,
    /// Instances that are being unloaded, and who waits for it; nobody where the menu was used.
    unloading: BTreeMap<String, Option<RequestId>>,
}

/// What is worked out for an instance.
#[derive(Debug)]
struct Entry {
    mapping: Mapping,
    settings: Option<Arc<SettingsFor>>,
    held: Option<Held>,
}

impl Loaded {
    /// Works out what is loaded, and what of each pool it holds.
    pub(super) fn take_over(&mut self, engine: &Sources, supplies: &Supplies) {
        let devices = supplies.machine.devices();
        let hints = self.instances.hints().clone();
        self.instances.settle(engine.shelves(&hints));
        self.in_doubt.extend(self.instances.in_doubt(engine.shelves(&hints)));
        let entry = |instance: &Instance| {
            let mapping = mapping(instance, engine.shelves(&hints));
            let known = engine.settings(instance, &mapping);
            let held = known.as_ref().and_then(|(model, settings)| {
                let bill = engine.bill(model, settings, &devices)?;
                Some(held(&instance.id, &bill, &supplies.now.gpus))
            });
            let settings = known.map(|(_, settings)| Arc::new(settings));
            (instance.id.clone(), Entry { mapping, settings, held })
        };
        self.entries = self.instances.list().iter().map(entry).collect();
    }

    /// Returns what each loaded model holds.
    pub(super) fn held(&self) -> Vec<Held> {
        self.entries.values().filter_map(|entry| entry.held.clone()).collect()
    }

    /// Returns what the instances of a model hold together.
    pub(super) fn held_by(&self, model: &ModelId) -> Vec<&Held> {
        let is_its = |entry: &&Entry| matches!(&entry.mapping, Mapping::One(id) if id == model);
        self.entries.values().filter(is_its).filter_map(|entry| entry.held.as_ref()).collect()
    }

    /// Returns the loaded models as they are shown.
    pub(super) fn reports(&self, gpus: &[GpuSupply]) -> Vec<InstanceReport> {
        self.instances.list().iter().map(|instance| self.report(instance, gpus)).collect()
    }

    /// Returns the LM Studio that runs.
    pub(super) fn backend(&self) -> Option<&RunningBackend> {
        self.instances.backend()
    }

    /// Returns what could not be learned, in words.
    pub(super) fn unknown(&self) -> Option<String> {
        self.instances.unknown()
    }

    pub(super) fn hint(&mut self, now: Moment) {
        self.pace.hint(now);
    }

    /// Asks along with something else that is due, where the next question is near anyway.
    pub(super) fn join(&mut self, now: Moment) {
        self.is_joined = self.pace.is_nearly_due(now);
    }

    /// Returns when to ask next; nothing while an answer is outstanding.
    pub(super) fn due(&self, now: Moment) -> Option<Moment> {
        (!self.is_asking).then(|| self.pace.due(now))
    }

    fn report(&self, instance: &Instance, gpus: &[GpuSupply]) -> InstanceReport {
        let entry = self.entries.get(&instance.id);
        let told = instance.model.as_ref();
        let model = entry.and_then(|entry| match &entry.mapping {
            Mapping::One(id) => Some(id.clone()),
            Mapping::Several(_) | Mapping::None => None,
        });
        let file = instance.process.as_ref().and_then(|process| process.asked.model.as_ref());
        let name = told.and_then(|told| told.name.clone()).or_else(|| {
            let stem = file?.file_stem()?;
            Some(stem.to_string_lossy().into_owned())
        });
        InstanceReport {
            id: instance.id.clone(),
            name: name.unwrap_or_else(|| instance.id.clone()),
            model,
            whereabouts: instance.whereabouts.clone(),
            sources: instance.sources.clone(),
            kind: told.and_then(|told| told.kind),
            format: told.and_then(|told| told.format.clone()),
            process: instance.process.as_ref().map(|process| process.pid),
            settings: entry.and_then(|entry| entry.settings.clone()),
            needs: entry.and_then(|entry| entry.held.as_ref()).map(|held| needs(held, gpus)).unwrap_or_default(),
            activity: told.and_then(|told| told.activity.clone()),
            idle_for: told
                .and_then(|told| told.last_used_ms)
                .map(|used| whole_minutes(self.at_ms.saturating_sub(used))),
            ttl: told.and_then(|told| told.ttl),
            estimate: told.and_then(|told| told.estimate),
            can_unload: told.is_some() && instance.whereabouts == Whereabouts::Here,
            notes: entry.map(|entry| notes(instance, entry)).unwrap_or_default(),
        }
    }
}

/// What instances are worked out from.
pub(super) struct Sources<'a> {
    pub(super) library: &'a Library,
    pub(super) lm_studio: &'a super::LmStudioRead,
    pub(super) profile: &'a EngineProfile,
}

impl<'a> Sources<'a> {
    /// Returns where a loaded model is looked for.
    fn shelves(&self, hints: &'a IndexHints) -> Shelves<'a> {
        Shelves { library: self.library, hub: &self.lm_studio.hub, hints }
    }

    /// Returns the model of an instance and the settings it was loaded with; nothing where it is not
    /// known, cannot be billed, or runs elsewhere.
    fn settings(&self, instance: &Instance, mapping: &Mapping) -> Option<(&Model, SettingsFor)> {
        let Mapping::One(id) = mapping else { return None };
        if instance.whereabouts != Whereabouts::Here {
            return None;
        }
        let model = self.library.model(id)?;
        let ModelState::Ready(structure) = &model.state else { return None };
        let (saved, _) = saved_for(model, &self.lm_studio.saved, &self.lm_studio.hub);
        Some((model, loaded_settings(structure, instance, saved.as_ref(), &self.lm_studio.settings)))
    }

    fn bill(&self, model: &Model, settings: &SettingsFor, devices: &Devices) -> Option<Bill> {
        let ModelState::Ready(structure) = &model.state else { return None };
        let projector = model.projector.as_ref().map(|(_, projector)| &**projector);
        Some(bill(structure, projector, &settings.settings, devices, self.profile))
    }
}

impl Engine {
    /// Asks which models are loaded, where that is due.
    pub(super) fn ask_loaded_when_due(&mut self, now: Moment) {
        let is_due = self.loaded.due(now).is_some_and(|due| now >= due || self.loaded.is_joined);
        self.loaded.is_joined = false;
        if !is_due || self.lm_studio.home.is_none() {
            return;
        }
        self.loaded.is_asking = true;
        let in_doubt = std::mem::take(&mut self.loaded.in_doubt);
        let ask = Ask { scan: self.loaded.pace.ask(now), in_doubt, ..self.ask() };
        self.effects.push_back(Effect::AskLoaded(Box::new(ask)));
    }

    /// Returns how LM Studio is reached.
    fn ask(&self) -> Ask {
        Ask {
            home: self.lm_studio.home.as_ref().map(|(home, _)| home.path.clone()).unwrap_or_default(),
            models: self.lm_studio.roots.iter().map(|root| root.path.clone()).collect(),
            token_file: self.config.lm_studio.api_token_file.clone(),
            processes_only: !self.config.lm_studio.ask,
            ..Ask::default()
        }
    }

    pub(super) fn loaded_asked(&mut self, round: Round, now: Moment) {
        let supplies = self.supplies();
        let backend = self.loaded.backend().cloned();
        let before = (self.loaded.reports(&supplies.now.gpus), self.loaded.unknown());
        self.loaded.is_asking = false;
        self.loaded.at_ms = round.at_ms;
        let has_changed = self.loaded.instances.take(round);
        self.loaded.pace.answered(self.loaded.instances.standing(), has_changed, now);
        if has_changed
            || backend.as_ref() != self.loaded.backend()
            || before != (self.loaded.reports(&supplies.now.gpus), self.loaded.unknown())
        {
            self.timers.is_stale = true;
        }
    }

    /// Unloads an instance, or says why it is not.
    pub(super) fn unload(&mut self, asked: &str, waiting: Option<RequestId>, now: Moment) {
        let instance = match self.loaded.find(asked) {
            Ok(instance) => instance.clone(),
            Err(loaded) => {
                self.answer_unload(waiting, Reply::NoSuchInstance { asked: asked.to_owned(), loaded });
                return;
            }
        };
        let reason = match &instance.whereabouts {
            Whereabouts::Elsewhere(_) => Some("it runs on another machine: unload it there, or in LM Studio"),
            Whereabouts::Unclear => Some("it cannot be told whether it runs here: unload it in LM Studio"),
            Whereabouts::Here if instance.model.is_none() => {
                Some("LM Studio has not loaded it, and fitwatch ends no programs: end it where you started it")
            }
            Whereabouts::Here if !self.config.lm_studio.ask => {
                Some("fitwatch is told not to talk to LM Studio: set `ask = true` under [lm_studio] in the config")
            }
            Whereabouts::Here => None,
        };
        if let Some(reason) = reason {
            let outcome = Unloaded::Failed { reason: reason.into() };
            self.answer_unload(waiting, Reply::Unloaded { instance: instance.id, outcome });
            return;
        }
        self.loaded.unloading.insert(instance.id.clone(), waiting);
        self.loaded.hint(now);
        self.effects.push_back(Effect::Unload { ask: Box::new(self.ask()), instance: instance.id });
    }

    pub(super) fn unloaded(&mut self, instance: String, outcome: Unloaded, now: Moment) {
        self.loaded.hint(now);
        let waiting = self.loaded.unloading.remove(&instance).flatten();
        self.answer_unload(waiting, Reply::Unloaded { instance, outcome });
    }

    /// Tells who asked for an unload what became of it: by an answer, or by a notice after a click.
    fn answer_unload(&mut self, waiting: Option<RequestId>, reply: Reply) {
        if let Some(id) = waiting {
            self.effects.push_back(Effect::Answer { id, reply });
            return;
        }
        let (title, body) = match reply {
            Reply::Unloaded { instance, outcome: Unloaded::Done } => (format!("{instance} is unloaded"), String::new()),
            Reply::Unloaded { instance, outcome: Unloaded::Failed { reason } } => {
                (format!("{instance} was not unloaded"), reason)
            }
            Reply::Unloaded { instance, outcome: Unloaded::NotLoaded } => {
                (format!("{instance} is not loaded any more"), String::new())
            }
            _ => ("Nothing was unloaded".into(), "It is not loaded any more.".into()),
        };
        self.effects.push_back(Effect::Notify(Notice { topic: UNLOADING.into(), title, body }));
    }
}

impl Loaded {
    /// Returns the instance meant by its identifier, its identifier without the publisher, or a part of
    /// its identifier, name or file that only one has; else all that could be meant.
    fn find(&self, asked: &str) -> Result<&Instance, Vec<String>> {
        let list = self.instances.list();
        let wanted = asked.to_lowercase();
        let is_called = |instance: &&Instance| {
            let id = instance.id.to_lowercase();
            id == wanted || id.rsplit_once('/').is_some_and(|(_, name)| name == wanted)
        };
        let has_part = |instance: &&Instance| {
            let told = instance.model.as_ref();
            let words = [
                Some(&instance.id),
                told.and_then(|told| told.name.as_ref()),
                told.and_then(|told| told.path.as_ref()),
            ];
            !wanted.is_empty() && words.into_iter().flatten().any(|word| word.to_lowercase().contains(&wanted))
        };
        if let Some(instance) = list.iter().find(|instance| instance.id == asked) {
            return Ok(instance);
        }
        let mut meant: Vec<&Instance> = list.iter().filter(is_called).collect();
        if meant.is_empty() {
            meant = list.iter().filter(has_part).collect();
        }
        match meant.as_slice() {
            [instance] => Ok(instance),
            [] => Err(list.iter().map(|instance| instance.id.clone()).collect()),
            several => Err(several.iter().map(|instance| instance.id.clone()).collect()),
        }
    }
}

fn held(instance: &str, bill: &Bill, gpus: &[GpuSupply]) -> Held {
    let gpu = |gpu| bill.pool(Pool::Gpu(u16::try_from(gpu).unwrap_or(u16::MAX)));
    Held { instance: instance.to_owned(), gpus: (0..gpus.len()).map(gpu).collect(), host: bill.pool(Pool::Host) }
}

fn needs(held: &Held, gpus: &[GpuSupply]) -> Vec<PoolBytes> {
    let gpus = gpus.iter().zip(&held.gpus).map(|(gpu, bytes)| PoolBytes { name: Arc::clone(&gpu.name), bytes: *bytes });
    let ram = PoolBytes { name: "RAM".into(), bytes: held.host };
    gpus.chain([ram]).filter(|pool| pool.bytes > Bytes::ZERO).collect()
}

/// Returns what is odd about an instance.
fn notes(instance: &Instance, entry: &Entry) -> Vec<String> {
    let mut notes = Vec::new();
    match &instance.whereabouts {
        Whereabouts::Elsewhere(device) => notes.push(format!("runs on another machine ({device}); not judged here")),
        Whereabouts::Unclear => notes.push("no process here holds it: perhaps it runs on another machine".into()),
        Whereabouts::Here => match &entry.mapping {
            Mapping::One(_) => {}
            Mapping::Several(ids) => {
                let ids: Vec<&str> = ids.iter().map(|id| id.0.as_str()).collect();
                notes.push(format!("it cannot be told which file it is: {}", ids.join(" or ")));
            }
            Mapping::None => notes.push("its file is not among the models found".into()),
        },
    }
    notes
}

fn whole_minutes(milliseconds: u64) -> Span {
    Span::minutes(milliseconds / 60_000)
}
