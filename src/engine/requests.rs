//! Requests, notices, and what they say.

use super::{Effect, Engine, Reply, Request, RequestId};
use crate::alerts::{AlertEffect, Notice};
use crate::fit::advice;
use crate::library::{Model, ModelId};
use crate::report::{Detail, SCHEMA};
use crate::units::{Bytes, Moment};

/// How many models a failed `show` suggests.
const NEAREST: usize = 3;

/// The topic of notices that answer a click in the menu.
const SHOWN: &str = "shown";

impl Engine {
    pub(super) fn asked(&mut self, id: RequestId, request: Request, now: Moment) {
        let reply = match request {
            Request::Report => {
                self.refresh(now);
                Reply::Report(Box::new(self.whole_report(now)))
            }
            Request::Show { model } => {
                self.refresh(now);
                self.detail(&model)
            }
            Request::Recheck => {
                self.recheck(now);
                self.rechecks.push(id);
                return;
            }
            Request::Unload { instance } => {
                self.unload(&instance, Some(id), now);
                return;
            }
            Request::Pause { span } => {
                self.alerts.pause(span, now);
                self.timers.is_stale = true;
                Reply::Done
            }
            Request::Resume => {
                self.alerts.resume();
                self.timers.is_stale = true;
                Reply::Done
            }
            Request::Quit => {
                self.effects.push_back(Effect::Answer { id, reply: Reply::Done });
                self.end();
                return;
            }
        };
        self.effects.push_back(Effect::Answer { id, reply });
    }

    /// Answers those who wait for a scan once everything was read.
    pub(super) fn answer_rechecks(&mut self, now: Moment) {
        if self.rechecks.is_empty() || self.is_busy() || self.timers.sample_at.is_some_and(|at| now >= at) {
            return;
        }
        self.refresh(now);
        for id in std::mem::take(&mut self.rechecks) {
            let reply = Reply::Report(Box::new(self.whole_report(now)));
            self.effects.push_back(Effect::Answer { id, reply });
        }
    }

    /// Hands what the alerts let through to the host.
    pub(super) fn say(&mut self, now: Moment) {
        for effect in self.alerts.take_effects(now) {
            self.effects.push_back(match effect {
                AlertEffect::Show(notice) => Effect::Notify(notice),
                AlertEffect::Close { topic } => Effect::CloseNotice { topic },
            });
        }
    }

    /// Returns the answer to `show`.
    fn detail(&self, asked: &str) -> Reply {
        let Some(model) = self.find(asked) else {
            return Reply::NoSuchModel { asked: asked.to_owned(), nearest: self.nearest(asked) };
        };
        let supply = self.supplies().now;
        let mut report = self.model_report(model);
        let mut bill = None;
        let mut lines = Vec::new();
        if let Some(entry) = self.models.get(&model.id) {
            report.fit = Some(entry.whole_fit());
            bill = Some(entry.plan().judged_bill(&supply, &entry.fit.now));
            lines = advice(entry.plan(), &supply, &entry.fit.now);
        }
        let gpus = supply.gpus.into_iter().map(|gpu| gpu.name.to_string()).collect();
        let guardrail = self.lm_studio.settings.guardrail.clone();
        Reply::Detail(Box::new(Detail { schema: SCHEMA, model: report, bill, gpus, advice: lines, guardrail }))
    }

    /// Returns the model meant by an id, a path, a name, or a part of an id that only one has.
    fn find(&self, asked: &str) -> Option<&Model> {
        let models = self.library.models();
        let exact =
            |model: &&Model| model.id.0 == asked || model.files.iter().any(|file| file.path.as_os_str() == asked);
        if let Some(model) = models.iter().find(exact) {
            return Some(model);
        }
        let wanted = asked.to_lowercase();
        only(models.iter().filter(|model| model.name.to_lowercase() == wanted))
            .or_else(|| only(models.iter().filter(|model| model.id.0.to_lowercase().contains(&wanted))))
    }

    /// Returns the models whose names come nearest: those that contain what was asked for, else
    /// the most similar.
    fn nearest(&self, asked: &str) -> Vec<ModelId> {
        let wanted = asked.to_lowercase();
        let similarity = |model: &Model| {
            let contains = model.id.0.to_lowercase().contains(&wanted);
            if contains { 2.0 } else { strsim::jaro_winkler(&model.name.to_lowercase(), &wanted) }
        };
        let mut models: Vec<_> = self.library.models().iter().map(|model| (similarity(model), &model.id)).collect();
        models.sort_by(|one, other| other.0.total_cmp(&one.0).then_with(|| one.1.cmp(other.1)));
        models.into_iter().take(NEAREST).map(|(_, id)| id.clone()).collect()
    }

    /// Returns what a click on a model's row shows.
    pub(super) fn model_notice(&self, id: &ModelId) -> Option<Notice> {
        let model = self.library.model(id)?;
        let Some(entry) = self.models.get(id) else {
            let body = format!("Run `fitwatch show {}` for what is known about it.", model.name);
            return Some(Notice { topic: SHOWN.into(), title: model.name.clone(), body });
        };
        let fit = entry.whole_fit();
        let needs: Vec<_> = fit.now.pools.iter().map(|pool| format!("{} of {}", pool.need, pool.name)).collect();
        let spare = Bytes(fit.now.spare.unsigned_abs());
        let margin = if fit.now.spare < 0 { "short of" } else { "to spare in" };
        let context = match fit.largest_context {
            Some(context) => format!(" Up to {context} tokens of context fit fully."),
            None => String::new(),
        };
        let body = format!(
            "Needs {} at a context of {} tokens: {spare} {margin} {}.{context}",
            needs.join(" and "),
            entry.settings.settings.context,
            fit.now.binding,
        );
        let title = format!("{}: {}", model.name, fit.now.verdict.label());
        Some(Notice { topic: SHOWN.into(), title, body })
    }

    /// Returns what fitwatch says of itself.
    pub(super) fn about_notice(&self) -> Notice {
        Notice {
            topic: SHOWN.into(),
            title: format!("fitwatch {}", self.version),
            body: "Says which LM Studio models fit this machine now. Run `fitwatch --help` for its commands.".into(),
        }
    }
}

/// Returns the item of an iterator that has just one.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    items.next().filter(|_| items.next().is_none())
}
