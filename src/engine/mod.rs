//! Events in, effects out: everything fitwatch decides.
//!
//! The host waits for an [`Event`] or the deadline, hands it over with the time, drains the
//! [`Effect`]s and waits again. The engine never blocks, never fails and reads no clock, file,
//! socket or device; equal inputs give equal outputs, so a day runs in a test.

mod event;
mod loaded;
mod models;
mod reporting;
mod requests;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

pub use event::{Effect, Event, LmStudioRead, Open, Reply, Request, RequestId};

use crate::alerts::Alerts;
use crate::config::Config;
use crate::library::{Library, Remembered, Want};
use crate::machine::Machine;
use crate::report::Problem;
use crate::tray::{Action, Tray, status_notice, tray};
use crate::units::{Moment, Span};
use loaded::Loaded;
use models::{Changed, Models};

/// The menu is rebuilt at most this often, so that a thousand headers in a second cost ten menus.
const SHOW_GAP: Span = Span(100);

/// Header results are kept this long after the last change, so that a scan is one write.
const REMEMBER_GAP: Span = Span::seconds(5);

/// The engine.
#[derive(Debug)]
pub struct Engine {
    version: String,
    config: Config,
    lm_studio: LmStudioRead,
    library: Library,
    machine: Machine,
    models: Models,
    loaded: Loaded,
    alerts: Alerts,
    watches: BTreeMap<PathBuf, String>,
    problems: BTreeMap<String, Problem>,
    rechecks: Vec<RequestId>,
    effects: VecDeque<Effect>,
    shown: Option<Tray>,
    /// Whether the first scan has ended: what it finds is no news.
    is_settled: bool,
    timers: Timers,
}

/// Everything that waits for a moment, and what is outstanding.
#[derive(Debug, Default)]
struct Timers {
    /// The revision of the library that models were taken from.
    library_revision: u64,
    /// Models, verdicts or anything else shown have changed.
    is_stale: bool,
    /// When the menu was last rebuilt.
    shown_at: Option<Moment>,
    /// When to sample next; nothing while a sample is outstanding.
    sample_at: Option<Moment>,
    is_sampling: bool,
    is_reading_lm_studio: bool,
    /// When to write the remembered headers.
    remember_at: Option<Moment>,
    /// When the last event came in.
    handled_at: Moment,
}

impl Engine {
    /// Returns an engine that trusts remembered headers of unchanged files. It waits for
    /// [`Event::ConfigRead`] before it asks for anything.
    pub fn new(version: impl Into<String>, remembered: Remembered) -> Engine {
        Engine {
            version: version.into(),
            config: Config::default(),
            lm_studio: LmStudioRead::default(),
            library: Library::new(remembered),
            machine: Machine::default(),
            models: Models::default(),
            loaded: Loaded::default(),
            alerts: Alerts::default(),
            watches: BTreeMap::new(),
            problems: BTreeMap::new(),
            rechecks: Vec::new(),
            effects: VecDeque::new(),
            shown: None,
            is_settled: false,
            timers: Timers { is_stale: true, ..Timers::default() },
        }
    }

    /// Takes in one event; its effects wait in [`Engine::next_effect`].
    pub fn handle(&mut self, event: Event, now: Moment) {
        self.timers.handled_at = now;
        match event {
            Event::ConfigRead { config, warnings } => self.config_read(config, &warnings, now),
            Event::ConfigRejected { problem } => self.set_problem("config", Some(problem)),
            Event::LmStudioRead(read) => self.lm_studio_read(*read, now),
            Event::LmStudioChanged => {
                self.loaded.hint(now);
                self.read_lm_studio();
            }
            Event::ModelOpened => self.model_opened(now),
            Event::LoadedAsked(round) => self.loaded_asked(*round, now),
            Event::Unloaded { instance, outcome } => self.unloaded(instance, outcome, now),
            Event::PathsDirty(paths) => paths.iter().for_each(|path| self.library.dirty(path, now)),
            Event::EverythingDirty => self.recheck(now),
            Event::WatchChanged { root, watch } => {
                self.timers.is_stale |= self.watches.insert(root, watch.clone()) != Some(watch);
            }
            Event::Listed(listing) => self.library.listed(listing, now),
            Event::HeaderRead(read) => self.library.header_read(*read, now),
            Event::Sampled(sample) => self.sampled(&sample, now),
            Event::Chosen(action) => self.chosen(action, now),
            Event::Asked { id, request } => self.asked(id, request, now),
            Event::PartChanged { part, problem } => self.set_problem(part, problem),
            Event::DeadlineReached => self.join_timers(now),
            Event::EndRequested => self.end(),
        }
        self.follow_up(now);
    }

    /// Returns the next thing the host is asked to do.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Returns when to hand over [`Event::DeadlineReached`] if nothing else happens.
    pub fn deadline(&self) -> Option<Moment> {
        let show_at = self.timers.is_stale.then(|| self.show_due());
        let sample_at = self.timers.sample_at.filter(|_| !self.timers.is_sampling);
        let ask_at = self.lm_studio.home.as_ref().and_then(|_| self.loaded.due(self.timers.handled_at));
        [self.library.deadline(), self.alerts.deadline(), sample_at, ask_at, self.timers.remember_at, show_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Returns whether folders, headers, LM Studio's files or the machine are still being read.
    pub fn is_busy(&self) -> bool {
        self.library.is_busy() || self.timers.is_sampling || self.timers.is_reading_lm_studio
    }

    fn config_read(&mut self, config: Config, warnings: &[String], now: Moment) {
        let problem = (!warnings.is_empty()).then(|| Problem {
            part: "config".into(),
            message: warnings.join("; "),
            hint: Some("correct the file that `fitwatch config path` names".into()),
        });
        self.set_problem("config", problem);
        self.alerts.set_levels(config.notifications.clone());
        self.config = config;
        self.timers.is_stale = true;
        self.timers.sample_at = Some(now);
        self.read_lm_studio();
    }

    /// Somebody opened a model file: perhaps an engine that loads it, perhaps our own reader.
    fn model_opened(&mut self, now: Moment) {
        if !self.library.is_busy() {
            self.loaded.hint(now);
        }
    }

    fn read_lm_studio(&mut self) {
        self.timers.is_reading_lm_studio = true;
        self.effects.push_back(Effect::ReadLmStudio { config: Box::new(self.config.clone()) });
    }

    fn lm_studio_read(&mut self, read: LmStudioRead, now: Moment) {
        self.timers.is_reading_lm_studio = false;
        if read.roots != self.lm_studio.roots {
            self.watches.retain(|path, _| read.roots.iter().any(|root| root.path == *path));
            self.library.set_roots(read.roots.clone(), now);
            self.effects.push_back(Effect::Watch { roots: read.roots.clone() });
        }
        let problem = (!read.notes.is_empty()).then(|| Problem {
            part: "LM Studio".into(),
            message: read.notes.join("; "),
            hint: Some("mend or remove the files named; LM Studio's defaults stand in for them until then".into()),
        });
        self.set_problem("LM Studio", problem);
        if read != self.lm_studio {
            self.models.settings_changed();
            self.timers.is_stale = true;
        }
        self.lm_studio = read;
    }

    fn sampled(&mut self, sample: &crate::machine::Sample, now: Moment) {
        self.timers.is_sampling = false;
        self.timers.is_stale |= self.machine.sampled(sample, now);
    }

    fn recheck(&mut self, now: Moment) {
        self.library.rescan(now);
        self.timers.sample_at = Some(now);
        self.read_lm_studio();
    }

    fn chosen(&mut self, action: Action, now: Moment) {
        self.alerts.user_acted(now);
        match action {
            Action::ShowStatus => self.effects.push_back(Effect::Notify(status_notice(&self.report(now)))),
            Action::ShowModel(id) => {
                if let Some(notice) = self.model_notice(&id) {
                    self.effects.push_back(Effect::Notify(notice));
                }
            }
            Action::Pause(duration) => {
                self.alerts.pause(Span(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)), now);
                self.timers.is_stale = true;
            }
            Action::Resume => {
                self.alerts.resume();
                self.timers.is_stale = true;
            }
            Action::Recheck => self.recheck(now),
            Action::OpenSettings => self.effects.push_back(Effect::Open(Open::Settings)),
            Action::OpenLog => self.effects.push_back(Effect::Open(Open::Log)),
            Action::About => self.effects.push_back(Effect::Notify(self.about_notice())),
            Action::Unload(instance) => self.unload(&instance, None, now),
            Action::Quit => self.end(),
        }
    }

    fn end(&mut self) {
        self.effects.push_back(Effect::Remember(self.library.remembered()));
        self.effects.push_back(Effect::End);
    }

    fn set_problem(&mut self, part: &str, problem: Option<Problem>) {
        if self.problems.get(part) == problem.as_ref() {
            return;
        }
        self.timers.is_stale = true;
        match problem {
            Some(problem) => self.problems.insert(part.to_owned(), problem),
            None => self.problems.remove(part),
        };
    }

    /// Returns what walks could not enter, as a problem.
    fn library_problem(&self) -> Option<Problem> {
        let notes = self.library.notes();
        let (first, more) = notes.split_first()?;
        let more = if more.is_empty() { String::new() } else { format!(" (and {} more)", more.len()) };
        Some(Problem {
            part: "library".into(),
            message: format!("{first}{more}"),
            hint: Some("make the folder readable, or keep models elsewhere: those in it are not listed".into()),
        })
    }

    /// Does what any event may have made due.
    fn follow_up(&mut self, now: Moment) {
        for want in self.library.wants(now) {
            self.effects.push_back(match want {
                Want::Scan { root, under } => Effect::Scan { root, under },
                Want::ReadHeader { files } => Effect::ReadHeader { files },
            });
        }
        if self.library.revision() != self.timers.library_revision {
            self.timers.library_revision = self.library.revision();
            self.set_problem("library", self.library_problem());
            self.timers.is_stale = true;
            self.timers.remember_at = Some(now.after(REMEMBER_GAP));
        }
        if self.timers.is_stale && now >= self.show_due() {
            self.refresh(now);
        }
        self.answer_rechecks(now);
        self.say(now);
        self.sample_when_due(now);
        self.ask_loaded_when_due(now);
        if self.timers.remember_at.is_some_and(|at| now >= at) {
            self.timers.remember_at = None;
            self.effects.push_back(Effect::Remember(self.library.remembered()));
        }
    }

    /// Returns when the menu may be rebuilt: at once when everything was read for the first time.
    fn show_due(&self) -> Moment {
        if !self.is_settled && !self.is_busy() {
            return Moment(0);
        }
        self.timers.shown_at.map_or(Moment(0), |at| at.after(SHOW_GAP))
    }

    /// Takes over the library's models, judges what has changed and shows the result.
    fn refresh(&mut self, now: Moment) {
        self.timers.is_stale = false;
        self.timers.shown_at = Some(now);
        let supplies = self.supplies();
        let profile = models::profile(&self.config.fit, self.lm_studio.build);
        let sources = loaded::Sources { library: &self.library, lm_studio: &self.lm_studio, profile: &profile };
        self.loaded.take_over(&sources, &supplies);
        let changed = self.models.take_over(&sources, &self.config.fit, &supplies, &self.loaded);
        self.tell(changed, now);
        let shown = tray(&self.report(now));
        if self.shown.as_ref() != Some(&shown) {
            self.effects.push_back(Effect::ShowTray(Box::new(shown.clone())));
            self.shown = Some(shown);
        }
    }

    /// Tells the alerts what has changed.
    fn tell(&mut self, changed: Changed, now: Moment) {
        for id in changed.gone {
            self.alerts.forgotten(&id);
        }
        for (id, before) in changed.judged {
            if let Some(entry) = self.models.get(&id)
                && (self.is_settled || before.is_some())
            {
                self.alerts.judged(&id, &entry.name, before.as_ref(), &entry.fit.now, None, now);
            }
        }
        self.is_settled |= !self.is_busy();
    }

    /// Samples and asks along with another timer that is due, where the next time is near anyway: one
    /// wake-up serves all.
    fn join_timers(&mut self, now: Moment) {
        self.loaded.join(now);
        let slack = Span(self.machine.pace().0 / 2);
        if let Some(at) = self.timers.sample_at
            && now.after(slack) >= at
        {
            self.timers.sample_at = Some(now);
        }
    }

    fn sample_when_due(&mut self, now: Moment) {
        if self.timers.is_sampling {
            return;
        }
        let due = *self.timers.sample_at.get_or_insert_with(|| now.after(self.machine.pace()));
        if now >= due {
            self.timers.is_sampling = true;
            self.timers.sample_at = None;
            self.effects.push_back(Effect::Sample);
        }
    }
}

#[cfg(test)]
mod tests;
