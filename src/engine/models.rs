//! The models with their settings, plans and verdicts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::LmStudioRead;
use crate::config::FitConfig;
use crate::fit::{Fit, Judgement, Plan, Sense, Supply, judge, largest_context};
use crate::library::{Library, Model, ModelId, ModelState};
use crate::lmstudio::{SettingsFor, settings_for};
use crate::machine::Picture;
use crate::memory::EngineProfile;

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

/// All models by id.
#[derive(Debug, Default)]
pub(super) struct Models {
    entries: BTreeMap<ModelId, Entry>,
    /// What the plans were made with.
    config: FitConfig,
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
    pub(super) settings: SettingsFor,
    pub(super) fit: Fit,
    plan: Plan,
    supplies: Arc<Supplies>,
}

impl Models {
    /// Takes over the library's readable models and judges those whose header, settings or supply
    /// have changed.
    pub(super) fn take_over(
        &mut self,
        library: &Library,
        lm_studio: &LmStudioRead,
        config: &FitConfig,
        supplies: &Supplies,
    ) -> Changed {
        let is_same_config = self.config == *config;
        self.config = config.clone();
        let profile = Arc::new(profile(config));
        let supplies = Arc::new(supplies.clone());
        let mut changed = Changed::default();
        let mut old = std::mem::take(&mut self.entries);
        for model in library.models() {
            let ModelState::Ready(structure) = &model.state else { continue };
            let settings = settings_for(structure, lm_studio.saved.get(&model.id.0), &lm_studio.settings);
            let projector = model.projector.as_ref().map(|(_, projector)| projector);
            let old = old.remove(&model.id);
            let before = old.as_ref().map(|entry| entry.fit.now.clone());
            let entry = match old {
                Some(entry) if is_same_config && entry.plan.is_for(structure, projector, &settings.settings) => {
                    entry.judged_on(&supplies)
                }
                _ => {
                    let asked = settings.settings.clone();
                    let plan = Plan::new(Arc::clone(structure), projector.cloned(), asked, Arc::clone(&profile));
                    Entry::new(model, settings, plan, &supplies)
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

    pub(super) fn get(&self, id: &ModelId) -> Option<&Entry> {
        self.entries.get(id)
    }
}

impl Entry {
    fn new(model: &Model, settings: SettingsFor, mut plan: Plan, supplies: &Arc<Supplies>) -> Entry {
        let fit = judge_both(&mut plan, supplies);
        Entry { name: model.name.clone(), settings, fit, plan, supplies: Arc::clone(supplies) }
    }

    /// Returns the entry judged on these supplies, at no cost where they are the same.
    fn judged_on(mut self, supplies: &Arc<Supplies>) -> Entry {
        if *self.supplies != **supplies {
            self.fit = judge_both(&mut self.plan, supplies);
        }
        self.supplies = Arc::clone(supplies);
        self
    }

    /// Returns the fit with the largest context, which costs a few bills.
    pub(super) fn whole_fit(&self) -> Fit {
        Fit { largest_context: largest_context(&self.plan, &self.supplies.now), ..self.fit.clone() }
    }

    pub(super) const fn plan(&self) -> &Plan {
        &self.plan
    }
}

fn judge_both(plan: &mut Plan, supplies: &Supplies) -> Fit {
    Fit { now: judge(plan, &supplies.now), machine: judge(plan, &supplies.machine), largest_context: None }
}

/// Returns the engine profile the config names.
fn profile(config: &FitConfig) -> EngineProfile {
    match config.engine.as_str() {
        "library" => EngineProfile::library(),
        _ => EngineProfile::server(),
    }
}
