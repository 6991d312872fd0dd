//! How often anything may be said.

use std::collections::BTreeMap;

use crate::units::{Moment, Span};

/// The least time between two notices of one topic.
pub(super) const TOPIC_GAP: Span = Span::minutes(10);
/// The least time between any two notices.
pub(super) const GAP: Span = Span::seconds(60);
/// How many notices an hour may see.
pub(super) const PER_HOUR: usize = 3;
/// An hour.
pub(super) const HOUR: Span = Span::minutes(60);

/// What was said when.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// When the latest notices were shown, oldest first, at most [`PER_HOUR`].
    shown: Vec<Moment>,
    /// When each topic was last said, as long as that still matters.
    topics: BTreeMap<String, Moment>,
}

impl Rates {
    /// Takes note that a notice was shown.
    pub(super) fn shown(&mut self, now: Moment) {
        self.shown.push(now);
        if self.shown.len() > PER_HOUR {
            self.shown.remove(0);
        }
    }

    /// Takes note that a topic was said.
    pub(super) fn topic_shown(&mut self, topic: &str, now: Moment) {
        self.topics.retain(|_, at| now.since(*at) < TOPIC_GAP);
        self.topics.insert(topic.into(), now);
    }

    /// Returns when the next notice of whatever topic may be shown.
    pub(super) fn allow_any(&self) -> Moment {
        let gap = self.shown.last().map_or(Moment(0), |last| last.after(GAP));
        gap.max(self.hour_ends())
    }

    /// Returns when the topic may be said again.
    pub(super) fn allow_topic(&self, topic: &str) -> Moment {
        self.topics.get(topic).map_or(Moment(0), |at| at.after(TOPIC_GAP))
    }

    /// Returns whether something ready at this moment had to wait for the hour to end.
    pub(super) fn was_held_by_the_hour(&self, ready: Moment) -> bool {
        ready < self.hour_ends()
    }

    /// Returns when the hour that has seen all its notices ends.
    fn hour_ends(&self) -> Moment {
        match self.shown.first() {
            Some(first) if self.shown.len() == PER_HOUR => first.after(HOUR),
            _ => Moment(0),
        }
    }
}
