//! What is worth a notification, when, and in which words.
//!
//! The engine says what happened; [`Alerts`] decides whether anyone hears of it. It promises the
//! rate rules for any input: one open notice a topic, ten minutes between two of one topic, a
//! minute between any two, three an hour and then one digest, none while paused. What a rule holds
//! back waits and is said later, unless it is no longer true by then.
//!
//! ```text
//!   judged, say ──► waiting ──(it held, and every rule allows it)──► open
//!                      │                                              │
//!                      └── no longer true: forgotten in silence       └── no longer true: closed
//! ```

mod rates;
pub(crate) mod text;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::config::NotificationConfig;
use crate::fit::{Judgement, Verdict};
use crate::library::ModelId;
use crate::units::{Moment, Span};
use rates::Rates;
use words::difference;

pub use words::{DIGEST, NEW_MODEL, NO_LONGER_FITS};
pub use words::{digest, new_model, no_longer_fits, several_new_models, several_no_longer_fit};

/// How long a change must last before anyone hears of it, so that what flickers is silent.
const HOLD: Span = Span::seconds(10);
/// How long new models are gathered, so that several at once make one notice.
const GATHER: Span = Span::seconds(3);
/// How long after a choice in our own menu nothing is said: the user is looking already.
const QUIET: Span = Span::seconds(5);

/// A notification as a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Notices of one topic replace each other.
    pub topic: String,
    /// What happened to which model, under about 45 characters.
    pub title: String,
    /// One sentence: size, cause, what to do.
    pub body: String,
}

/// What alerts want of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlertEffect {
    /// Show a notice, in place of an open one of the same topic.
    Show(Notice),
    /// Take back the notice of a topic: it is no longer true.
    Close {
        /// The topic.
        topic: String,
    },
}

/// Decides what is said.
#[derive(Debug, Default)]
pub struct Alerts {
    levels: NotificationConfig,
    paused_until: Option<Moment>,
    quiet_until: Option<Moment>,
    /// Notices said, by topic.
    said: BTreeMap<String, (Moment, Notice)>,
    /// Models that fitted and no longer do.
    lost: BTreeMap<ModelId, Lost>,
    /// New models nobody has heard of yet.
    new: BTreeMap<ModelId, New>,
    /// Topics with a notice on the screen.
    open: BTreeSet<String>,
    /// Topics to close.
    closing: BTreeSet<String>,
    rates: Rates,
}

/// A model that fitted and no longer does.
#[derive(Debug)]
struct Lost {
    name: String,
    before: Judgement,
    after: Judgement,
    cause: Option<String>,
    since: Moment,
    announced: bool,
}

/// A model that was not there before.
#[derive(Debug)]
struct New {
    name: String,
    now: Judgement,
    since: Moment,
}

/// A notice that waits.
#[derive(Debug)]
struct Waiting {
    /// When it has held long enough.
    ready: Moment,
    notice: Notice,
}

impl Alerts {
    /// Sets which kinds the user wants to hear of; what waits of other kinds is forgotten.
    pub fn set_levels(&mut self, levels: NotificationConfig) {
        if !levels.no_longer_fits {
            self.lost.clear();
            self.close(NO_LONGER_FITS);
        }
        if !levels.new_model {
            self.new.clear();
        }
        self.levels = levels;
    }

    /// Silences everything for a while.
    pub fn pause(&mut self, span: Span, now: Moment) {
        self.paused_until = Some(now.after(span));
    }

    /// Ends a pause.
    pub fn resume(&mut self) {
        self.paused_until = None;
    }

    /// Returns how long the pause still lasts.
    pub fn paused_for(&self, now: Moment) -> Option<Span> {
        self.paused_until.map(|until| until.since(now)).filter(|span| span.0 > 0)
    }

    /// Takes note that the user chose something in our own menu: what follows from it at once is
    /// no news to them.
    pub fn user_acted(&mut self, now: Moment) {
        self.quiet_until = Some(now.after(QUIET));
    }

    /// Takes in a model's verdict for right now. Without a verdict before it the model is new: the
    /// caller leaves out models that were there at the start. `cause` says in words what changed
    /// the verdict, where that is known.
    pub fn judged(
        &mut self,
        id: &ModelId,
        name: &str,
        before: Option<&Judgement>,
        after: &Judgement,
        cause: Option<&str>,
        now: Moment,
    ) {
        if let Some(new) = self.new.get_mut(id) {
            // Nobody has heard of it yet: its latest verdict is the news.
            new.now = after.clone();
            return;
        }
        let Some(before) = before else {
            if self.levels.new_model && !self.is_quiet(now) {
                let new = New { name: name.into(), now: after.clone(), since: now };
                self.new.insert(id.clone(), new);
            }
            return;
        };
        if after.verdict == Verdict::Unknown {
            return;
        }
        if let Some(lost) = self.lost.get_mut(id) {
            if after.verdict <= lost.before.verdict {
                self.found(id);
            } else {
                lost.after = after.clone();
            }
            return;
        }
        let is_lost = words::fits(before.verdict) && after.verdict > before.verdict;
        if is_lost && self.levels.no_longer_fits && !self.is_quiet(now) {
            let lost = Lost {
                name: name.into(),
                before: before.clone(),
                after: after.clone(),
                cause: cause.map(str::to_owned),
                since: now,
                announced: false,
            };
            self.lost.insert(id.clone(), lost);
        }
    }

    /// Takes note that a model is gone: nothing about it is true any more.
    pub fn forgotten(&mut self, id: &ModelId) {
        self.new.remove(id);
        self.found(id);
    }

    /// Says something; it is shown as soon as the rules allow it.
    pub fn say(&mut self, notice: Notice, now: Moment) {
        if !self.is_quiet(now) {
            let since = self.said.get(&notice.topic).map_or(now, |(since, _)| *since);
            self.said.insert(notice.topic.clone(), (since, notice));
        }
    }

    /// Takes back what was said of a topic: it is no longer true.
    pub fn withdraw(&mut self, topic: &str) {
        self.said.remove(topic);
        self.close(topic);
    }

    /// Returns when `take_effects` has something to say next, if nothing else happens.
    pub fn deadline(&self) -> Option<Moment> {
        if !self.closing.is_empty() {
            return Some(Moment(0));
        }
        self.waiting().iter().map(|waiting| self.due(waiting)).min()
    }

    /// Returns what is to be shown and closed now; every effect is returned once.
    pub fn take_effects(&mut self, now: Moment) -> Vec<AlertEffect> {
        let mut effects: Vec<AlertEffect> =
            std::mem::take(&mut self.closing).into_iter().map(|topic| AlertEffect::Close { topic }).collect();
        let mut due: Vec<Waiting> = self.waiting().into_iter().filter(|waiting| self.due(waiting) <= now).collect();
        due.sort_by_key(|waiting| waiting.ready);
        let held_back = due.iter().filter(|waiting| self.rates.was_held_by_the_hour(waiting.ready)).count();
        if held_back > 1 && self.rates.allow_topic(DIGEST) <= now {
            let notices: Vec<Notice> = due.into_iter().map(|waiting| waiting.notice).collect();
            for notice in &notices {
                self.shown(&notice.topic, now);
                if self.open.remove(&notice.topic) {
                    // What stands there is older than what the digest says.
                    effects.push(AlertEffect::Close { topic: notice.topic.clone() });
                }
            }
            effects.push(self.show(digest(&notices), now));
        } else if let Some(first) = due.into_iter().next() {
            self.shown(&first.notice.topic, now);
            effects.push(self.show(first.notice, now));
        }
        effects
    }

    /// Takes note that a notice reaches the screen.
    fn show(&mut self, notice: Notice, now: Moment) -> AlertEffect {
        self.rates.shown(now);
        self.rates.topic_shown(&notice.topic, now);
        self.open.insert(notice.topic.clone());
        AlertEffect::Show(notice)
    }

    /// Takes note that a topic is said, by itself or in a digest.
    fn shown(&mut self, topic: &str, now: Moment) {
        self.rates.topic_shown(topic, now);
        self.said.remove(topic);
        match topic {
            NO_LONGER_FITS => self.lost.values_mut().for_each(|lost| lost.announced = true),
            NEW_MODEL => self.new.clear(),
            _ => {}
        }
    }

    /// Takes note that a model fits again, or is gone.
    fn found(&mut self, id: &ModelId) {
        let Some(lost) = self.lost.remove(id) else { return };
        if lost.announced && !self.lost.values().any(|lost| lost.announced) {
            self.close(NO_LONGER_FITS);
        }
    }

    /// Closes a topic's notice, if one is open.
    fn close(&mut self, topic: &str) {
        if self.open.remove(topic) {
            self.closing.insert(topic.into());
        }
    }

    fn is_quiet(&self, now: Moment) -> bool {
        self.quiet_until.is_some_and(|until| now < until)
    }

    /// Returns when every rule allows a notice that waits.
    fn due(&self, waiting: &Waiting) -> Moment {
        let paused = self.paused_until.unwrap_or_default();
        waiting.ready.max(paused).max(self.rates.allow_any()).max(self.rates.allow_topic(&waiting.notice.topic))
    }

    /// Returns everything nobody has heard yet, one notice a topic.
    fn waiting(&self) -> Vec<Waiting> {
        let said = self.said.values().map(|(since, notice)| Waiting { ready: *since, notice: notice.clone() });
        said.chain(self.waiting_lost()).chain(self.waiting_new()).collect()
    }

    /// Returns the notice of the models that no longer fit, if nobody has heard of some yet.
    fn waiting_lost(&self) -> Option<Waiting> {
        let lost: Vec<&Lost> = self.lost.values().filter(|lost| !lost.announced).collect();
        let since = lost.iter().map(|lost| lost.since).min()?;
        let notice = match lost.as_slice() {
            [one] => no_longer_fits(&one.name, &one.before, &one.after, one.cause.as_deref()),
            several => {
                let names: Vec<&str> = several.iter().map(|lost| lost.name.as_str()).collect();
                let told = several.iter().find_map(|lost| lost.cause.clone());
                let cause = told.or_else(|| several.iter().find_map(|lost| difference(&lost.before, &lost.after)));
                several_no_longer_fit(&names, cause.as_deref())
            }
        };
        Some(Waiting { ready: since.after(HOLD), notice })
    }

    /// Returns the notice of the new models, if there are any.
    fn waiting_new(&self) -> Option<Waiting> {
        let new: Vec<&New> = self.new.values().collect();
        let since = new.iter().map(|new| new.since).min()?;
        let notice = match new.as_slice() {
            [one] => new_model(&one.name, &one.now),
            several => {
                let verdicts: Vec<(&str, Verdict)> =
                    several.iter().map(|new| (new.name.as_str(), new.now.verdict)).collect();
                several_new_models(&verdicts)
            }
        };
        Some(Waiting { ready: since.after(GATHER), notice })
    }
}

#[cfg(test)]
mod tests;
