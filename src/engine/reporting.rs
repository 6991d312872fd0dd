//! The engine's state as a report.

use super::Engine;
use super::models::Supplies;
use crate::library::{Model, ModelState};
use crate::machine::Reading;
use crate::report::{AlertReport, LibraryReport, ModelReport, Report, RootReport, SCHEMA, StateReport};
use crate::units::{Moment, Span};

impl Engine {
    /// Returns everything worth showing. Largest contexts are left out:
    /// answers to requests have them.
    pub fn report(&self, now: Moment) -> Report {
        let (notes, problems) = self.problems.values().cloned().partition(|problem| self.is_a_note(&problem.part));
        Report {
            schema: SCHEMA,
            version: self.version.clone(),
            live: true,
            lm_studio: self.loaded.backend().cloned(),
            loaded: self.loaded.reports(&self.supplies().now.gpus),
            loaded_unknown: self.loaded.unknown(),
            models: self.library.models().iter().map(|model| self.model_report(model)).collect(),
            machine: self.machine.picture().clone(),
            library: self.library_report(),
            alerts: AlertReport { paused_for: self.alerts.paused_for(now).map(whole_minutes) },
            problems,
            notes,
        }
    }

    /// Returns whether a problem of this part is worth knowing and nothing to be mended.
    fn is_a_note(&self, part: &str) -> bool {
        let wanted = &self.config.notifications;
        match part {
            "notifications" => !wanted.new_model && !wanted.no_longer_fits,
            // A new one has taken its place.
            "old state" => true,
            _ => false,
        }
    }

    /// Returns the report with the largest context of every model.
    pub(super) fn whole_report(&self, now: Moment) -> Report {
        let mut report = self.report(now);
        for model in &mut report.models {
            model.fit = self.models.get(&model.id).map(super::models::Entry::whole_fit);
        }
        report
    }

    pub(super) fn supplies(&self) -> Supplies {
        Supplies::of(self.machine.picture(), &self.config.fit)
    }

    pub(super) fn model_report(&self, model: &Model) -> ModelReport {
        let structure = match &model.state {
            ModelState::Ready(structure) => Some(structure),
            _ => None,
        };
        let entry = self.models.get(&model.id);
        let mut notes = model.notes.clone();
        notes.extend(structure.iter().flat_map(|structure| structure.notes.iter().cloned()));
        ModelReport {
            id: model.id.clone(),
            name: model.name.clone(),
            publisher: model.publisher.clone(),
            path: model.files.first().map(|file| file.path.clone()).unwrap_or_default(),
            files: model.files.len(),
            bytes: model.bytes(),
            state: self.state_report(model),
            architecture: structure.map(|structure| structure.architecture.clone()),
            quantisation: structure.and_then(|structure| structure.quantisation.clone()),
            parameters: structure.map(|structure| structure.parameters),
            kind: structure.map(|structure| structure.kind),
            context_train: structure.map(|structure| structure.context_train),
            projector: model.projector.as_ref().map(|(file, _)| file.path.clone()),
            settings: entry.map(|entry| entry.settings.clone()),
            fit: entry.map(|entry| entry.fit.clone()),
            notes,
        }
    }

    fn state_report(&self, model: &Model) -> StateReport {
        match &model.state {
            ModelState::Downloading => StateReport::Downloading,
            ModelState::Incomplete { missing } => StateReport::Incomplete { missing: missing.clone() },
            ModelState::Reading => StateReport::Reading,
            ModelState::Ready(_) if self.models.get(&model.id).is_none() => StateReport::Reading,
            ModelState::Ready(_) => StateReport::Judged,
            ModelState::Unreadable { reason } => StateReport::Unreadable { reason: reason.clone() },
            ModelState::NotJudged { reason } => StateReport::NotJudged { reason: reason.clone() },
        }
    }

    fn library_report(&self) -> LibraryReport {
        let roots = self.library.roots().into_iter().map(|(root, state)| {
            let watch = self.watches.get(&root.path).cloned().unwrap_or_else(|| "not yet".to_owned());
            RootReport { root, state, watch }
        });
        LibraryReport {
            home: self.lm_studio.home.as_ref().map(|(home, _)| home.clone()),
            home_exists: self.lm_studio.home.as_ref().is_some_and(|(_, exists)| *exists),
            roots: roots.collect(),
            busy: self.library.is_busy() || matches!(self.machine.picture().memory, Reading::Pending),
            guardrail: self.lm_studio.settings.guardrail.clone(),
        }
    }
}

/// Rounds up, so that a pause never reads "0 min" and the menu changes once a minute at the most.
fn whole_minutes(span: Span) -> Span {
    Span::minutes(span.0.div_ceil(60_000))
}
