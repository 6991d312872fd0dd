//! How often to ask which models are loaded.
//!
//! Asking follows what goes on: often while something is loading, now and then while a model is
//! loaded, hardly at all while none is. A hint (a model file was opened, a file of LM Studio's has
//! changed) is followed at once; where the system gives none, a model is found within half a minute.

use super::Scan;
use crate::units::{Moment, Span};

/// How things stood at the last answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Neither LM Studio nor another engine runs.
    #[default]
    Nothing,
    /// LM Studio runs and nothing is loaded.
    Runs,
    /// Models are loaded and idle.
    Idle,
    /// A loaded model works.
    Busy,
}

/// For so long after a hint or a change, loads and unloads are followed closely.
const CLOSELY: Span = Span::seconds(10);
/// After so long without any change a loaded model is looked at less often.
const QUIET: Span = Span::minutes(10);
/// All processes are looked at this often at the least.
const FULL_SCAN: Span = Span::seconds(30);

/// The pace.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    standing: Standing,
    hinted_at: Option<Moment>,
    changed_at: Option<Moment>,
    asked_at: Option<Moment>,
    scanned_at: Option<Moment>,
}

impl Pace {
    /// Takes note that something may have been loaded or unloaded.
    pub fn hint(&mut self, now: Moment) {
        self.hinted_at = Some(now);
    }

    /// Takes note that it is asked now, and returns which processes to look at.
    pub fn ask(&mut self, now: Moment) -> Scan {
        let is_known_well = self.standing >= Standing::Idle && !self.is_close(now);
        let is_recent = self.scanned_at.is_some_and(|at| now.since(at) < FULL_SCAN);
        self.asked_at = Some(now);
        if is_known_well && is_recent {
            return Scan::Known;
        }
        self.scanned_at = Some(now);
        Scan::All
    }

    /// Takes note of an answer.
    pub fn answered(&mut self, standing: Standing, has_changed: bool, now: Moment) {
        if has_changed || standing != self.standing {
            self.changed_at = Some(now);
        }
        self.standing = standing;
    }

    /// Returns when to ask next.
    pub fn due(&self, now: Moment) -> Moment {
        let Some(asked) = self.asked_at else { return now };
        if self.hinted_at.is_some_and(|hinted| hinted > asked) {
            // One load opens its file several times.
            return asked.after(Span(300));
        }
        asked.after(self.gap(now))
    }

    /// Returns whether it is nearly due, so that it may be asked along with something else that wakes
    /// the machine.
    pub fn is_nearly_due(&self, now: Moment) -> bool {
        now.after(Span(self.gap(now).0 / 2)) >= self.due(now)
    }

    /// Returns whether loads are followed closely.
    fn is_close(&self, now: Moment) -> bool {
        [self.hinted_at, self.changed_at].into_iter().flatten().any(|at| now.since(at) < CLOSELY)
    }

    fn gap(&self, now: Moment) -> Span {
        let is_quiet = self.changed_at.is_none_or(|at| now.since(at) >= QUIET);
        match self.standing {
            _ if self.is_close(now) => Span::seconds(1),
            Standing::Nothing | Standing::Runs => Span::seconds(30),
            Standing::Idle if is_quiet => Span::seconds(15),
            Standing::Idle => Span::seconds(5),
            Standing::Busy => Span::seconds(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for `span` whenever it is due and returns how often, and how often of it everywhere.
    fn asks(pace: &mut Pace, standing: Standing, from: Moment, span: Span) -> (usize, usize) {
        let (mut all, mut full, mut now) = (0, 0, from);
        let end = from.after(span);
        while now < end {
            if now >= pace.due(now) {
                all += 1;
                full += usize::from(pace.ask(now) == Scan::All);
                pace.answered(standing, false, now);
            }
            now = now.after(Span(100));
        }
        (all, full)
    }

    #[test]
    fn while_nothing_runs_it_asks_twice_a_minute() {
        let mut pace = Pace::default();
        assert_eq!(asks(&mut pace, Standing::Nothing, Moment(0), Span::minutes(10)), (20, 20));
    }

    #[test]
    fn a_hint_is_followed_at_once_and_closely_for_a_while() {
        let mut pace = Pace::default();
        asks(&mut pace, Standing::Runs, Moment(0), Span::minutes(1));
        let now = Moment(60_100);
        pace.hint(now);
        assert!(pace.due(now) <= now);
        let (all, full) = asks(&mut pace, Standing::Runs, now, Span::seconds(20));
        assert!((10..=13).contains(&all) && all == full, "{all} times, {full} everywhere");
    }

    #[test]
    fn a_burst_of_hints_is_one_question_in_a_while() {
        let mut pace = Pace::default();
        let mut asked = 0;
        for step in 0..100 {
            let now = Moment(step * 10);
            pace.hint(now);
            if now >= pace.due(now) {
                asked += 1;
                pace.ask(now);
            }
        }
        assert!(asked <= 4, "{asked} times in a second");
    }

    #[test]
    fn a_loaded_model_is_looked_at_while_it_works_and_less_once_it_rests() {
        let mut pace = Pace::default();
        asks(&mut pace, Standing::Busy, Moment(0), Span::seconds(10));
        let (busy, full) = asks(&mut pace, Standing::Busy, Moment(20_000), Span::minutes(1));
        assert!((29..=31).contains(&busy) && full <= 3, "{busy} times, {full} everywhere");
        asks(&mut pace, Standing::Idle, Moment(80_000), Span::seconds(15));
        let (idle, _) = asks(&mut pace, Standing::Idle, Moment(100_000), Span::minutes(1));
        assert!((11..=13).contains(&idle), "{idle} times");
        let (resting, _) = asks(&mut pace, Standing::Idle, Moment(1_000_000), Span::minutes(1));
        assert!((3..=5).contains(&resting), "{resting} times");
    }
}
