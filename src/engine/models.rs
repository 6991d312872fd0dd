//! The models with their settings, plans and verdicts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::loaded::{Loaded, Sources};
use crate::config::FitConfig;
use crate::fit::{Fit, Held, Judgement, Plan, Sense, Supply, if_unloaded, judge, largest_context};
use crate::library::{Model, ModelId, ModelState};
use crate::lmstudio::{SettingsFor, saved_for, settings_for};
use crate::machine::Picture;
use crate::memory::{Build, EngineProfile};

/// What can be had, in both senses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Supplies {
    pub(super) now: Supply,
    pub(super) machine: Supply,
}

impl Supplies {
    pub(super) fn of(picture: &Picture, config: &FitConfig) -> Supplies {
        Supplies { now: Supply::of(picture, config, Sense::Now), machine: Supply::of(picture, config, Sense::Machine) }
    }
}

impl Default for Supplies {
    /// Returns what can be had before anything is known.
    fn default() -> Supplies {
        Supplies::of(&Picture::default(), &FitConfig::default())
    }
}

/// All models by id.
#[derive(Debug, Default)]
pub(super) struct Models {
    entries: BTreeMap<ModelId, Entry>,
    /// What the plans were made with.
    config: FitConfig,
    /// What they were last judged on.
    supplies: Arc<Supplies>,
    /// The library's revision that they were taken from; nothing once anything else has changed
    /// that settings depend on.
    taken_from: Option<u64>,
    /// What loaded models hold.
    held: Vec<Held>,
}

/// What has changed when models were taken over.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changed {
    /// Models with another verdict for right now, and the one before; new ones have none.
    pub(super) judged: Vec<(ModelId, Option<Judgement>)>,
    /// Models that have left.
    pub(super) gone: Vec<ModelId>,
}

/// One judged model.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) settings: Arc<SettingsFor>,
    pub(super) fit: Fit,
    plan: Plan,
    supplies: Arc<Supplies>,
}

impl Models {
    /// Takes over the library's readable models and judges those whose header, settings or supply
    /// have changed.
    pub(super) fn take_over(
        &mut self,
        sources: &Sources,
        config: &FitConfig,
        supplies: &Supplies,
        loaded: &Loaded,
    ) -> Changed {
        let Sources { library, lm_studio, profile } = *sources;
        let is_same_config = self.config == *config;
        let held = loaded.held();
        if *self.supplies != *supplies || self.held != held {
            self.supplies = Arc::new(supplies.clone());
            self.held = held;
        }
        let revision = Some(library.revision());
        if is_same_config && self.taken_from == revision {
            return self.judge_anew(loaded);
        }
        self.taken_from = revision;
        self.config = config.clone();
        let profile = Arc::new(profile.clone());
        let on = On { supplies: Arc::clone(&self.supplies), held: &self.held };
        let mut changed = Changed::default();
        let mut old = std::mem::take(&mut self.entries);
        for model in library.models() {
            let ModelState::Ready(structure) = &model.state else { continue };
            let (saved, origin) = saved_for(model, &lm_studio.saved, &lm_studio.hub);
            let settings = settings_for(structure, saved.as_ref(), &lm_studio.settings).from_layers(&origin);
            let projector = model.projector.as_ref().map(|(_, projector)| projector);
            let old = old.remove(&model.id);
            let before = old.as_ref().map(|entry| entry.fit.now.clone());
            let entry = match old {
                Some(mut entry) if is_same_config && entry.plan.is_for(structure, projector, &settings.settings) => {
                    entry.judge_on(&on, loaded, &model.id);
                    entry
                }
                _ => {
                    let asked = settings.settings.clone();
                    let plan = Plan::new(Arc::clone(structure), projector.cloned(), asked, Arc::clone(&profile));
                    Entry::new(model, settings, plan, &on, loaded)
                }
            };
            if before.as_ref() != Some(&entry.fit.now) {
                changed.judged.push((model.id.clone(), before));
            }
            self.entries.insert(model.id.clone(), entry);
        }
        changed.gone.extend(old.into_keys());
        changed
    }

    /// Judges the same models on other supplies.
    fn judge_anew(&mut self, loaded: &Loaded) -> Changed {
        let mut changed = Changed::default();
        let on = On { supplies: Arc::clone(&self.supplies), held: &self.held };
        for (id, entry) in &mut self.entries {
            let Some(before) = entry.judge_on(&on, loaded, id) else { continue };
            if before != entry.fit.now {
                changed.judged.push((id.clone(), Some(before)));
            }
        }
        changed
    }

    /// Takes note that settings may have changed.
    pub(super) fn settings_changed(&mut self) {
        self.taken_from = None;
    }

    pub(super) fn get(&self, id: &ModelId) -> Option<&Entry> {
        self.entries.get(id)
    }
}

/// What models are judged on.
struct On<'a> {
    supplies: Arc<Supplies>,
    /// What loaded models hold.
    held: &'a [Held],
}

impl On<'_> {
    /// Judges a plan. What the model holds itself, where it is loaded, is its own to have.
    fn judge(&self, plan: &mut Plan, own: &[&Held]) -> Fit {
        let now =
            if own.is_empty() { &self.supplies.now } else { &self.supplies.now.without(own, &self.supplies.machine) };
        let mut fit = Fit {
            now: judge(plan, now),
            machine: judge(plan, &self.supplies.machine),
            largest_context: None,
            if_unloaded: None,
        };
        // Only what the machine could hold at its best is worth a search.
        if own.is_empty() && !self.held.is_empty() && fit.machine.verdict < fit.now.verdict {
            fit.if_unloaded = if_unloaded(plan, now, &self.supplies.machine, self.held);
        }
        fit
    }
}

impl Entry {
    fn new(model: &Model, settings: SettingsFor, mut plan: Plan, on: &On, loaded: &Loaded) -> Entry {
        let settings = Arc::new(settings);
        let fit = on.judge(&mut plan, &loaded.held_by(&model.id));
        Entry { name: model.name.clone(), settings, fit, plan, supplies: Arc::clone(&on.supplies) }
    }

    /// Judges the model on these supplies and returns the judgement before; does nothing where it
    /// was judged on just these.
    fn judge_on(&mut self, on: &On, loaded: &Loaded, id: &ModelId) -> Option<Judgement> {
        if Arc::ptr_eq(&self.supplies, &on.supplies) {
            return None;
        }
        self.supplies = Arc::clone(&on.supplies);
        Some(std::mem::replace(&mut self.fit, on.judge(&mut self.plan, &loaded.held_by(id))).now)
    }

    /// Returns the fit with the largest context, which costs a few bills.
    pub(super) fn whole_fit(&self) -> Fit {
        Fit { largest_context: largest_context(&self.plan, &self.supplies.now), ..self.fit.clone() }
    }

    pub(super) const fn plan(&self) -> &Plan {
        &self.plan
    }
}

/// Returns the engine profile the config names, in the build that LM Studio runs where the config
/// names none.
pub(super) fn profile(config: &FitConfig, build: Option<Build>) -> EngineProfile {
    let profile: EngineProfile = config.engine.parse().unwrap_or_default();
    match build {
        Some(build) if !config.engine.contains('@') => EngineProfile::of_build(profile.engine, build),
        _ => profile,
    }
}
