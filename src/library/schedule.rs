//! When which folder of one root is walked next.
//!
//! ```text
//!  dirty ──► burst (quiet 0.3 s, at most 2 s) ─┐
//!  unsettled file ──► look (1 s later) ────────┼─► walking ──► walked
//!  start, rescan, every 30 min ──► whole root ─┘
//! ```
//!
//! Two walks of one root never overlap, so that an older finding cannot replace a newer one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::units::{Moment, Span};

/// A folder is walked when nothing has happened in it for so long …
const QUIET: Span = Span(300);
/// … or when things have kept happening for so long.
const PATIENCE: Span = Span::seconds(2);
/// What notifications have missed is found at this pace.
const WHOLE_EVERY: Span = Span::minutes(30);
/// A folder that is not there is looked for at this pace; its watcher is quicker.
const MISSING_EVERY: Span = Span::minutes(2);
/// A walk that has said nothing for so long is taken for lost.
const WALK_LOST: Span = Span::minutes(10);
/// More folders than this at once, and the whole root is walked instead.
const MANY: usize = 64;

/// What is to be walked in one root, and what is being walked.
#[derive(Debug)]
pub(super) struct Schedule {
    root: PathBuf,
    bursts: BTreeMap<PathBuf, Burst>,
    looks: BTreeMap<PathBuf, Moment>,
    walking: BTreeMap<PathBuf, Moment>,
    whole_at: Moment,
    /// Whether somebody waits for the walk of the whole root that is due or under way.
    is_asked: bool,
}

/// Things that happened in a folder in quick succession.
#[derive(Clone, Copy, Debug)]
struct Burst {
    first: Moment,
    last: Moment,
}

impl Burst {
    fn due(self) -> Moment {
        self.last.after(QUIET).min(self.first.after(PATIENCE))
    }
}

impl Schedule {
    /// Returns the schedule of a root that has to be walked at once.
    pub(super) fn new(root: PathBuf, now: Moment) -> Schedule {
        Schedule {
            root,
            bursts: BTreeMap::new(),
            looks: BTreeMap::new(),
            walking: BTreeMap::new(),
            whole_at: now,
            is_asked: true,
        }
    }

    /// Takes note that something happened in a folder.
    pub(super) fn dirty(&mut self, folder: &Path, now: Moment) {
        if let Some(burst) = self.bursts.get_mut(folder) {
            burst.last = now;
            return;
        }
        if self.bursts.len() >= MANY {
            let first = self.bursts.values().map(|burst| burst.first).min().unwrap_or(now);
            self.bursts.clear();
            self.bursts.insert(self.root.clone(), Burst { first, last: now });
        } else {
            self.bursts.insert(folder.to_owned(), Burst { first: now, last: now });
        }
    }

    /// Asks for a look into a folder at a moment, or sooner.
    pub(super) fn look(&mut self, folder: &Path, at: Moment) {
        let folder = if self.looks.len() >= MANY { &self.root } else { folder };
        let due = self.looks.entry(folder.to_owned()).or_insert(at);
        *due = at.min(*due);
    }

    /// Asks for a walk of the whole root at once.
    pub(super) fn whole(&mut self, now: Moment) {
        self.whole_at = now;
        self.is_asked = true;
    }

    /// Returns whether a walk that somebody asked for is still to come.
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// Returns the folders to walk now; they count as being walked from here on.
    pub(super) fn start_due(&mut self, now: Moment) -> Vec<PathBuf> {
        let under_way = self.walking.len();
        self.walking.retain(|_, started| now.since(*started) < WALK_LOST);
        if self.walking.len() < under_way {
            self.whole_at = self.whole_at.min(now);
        }
        let mut due: Vec<(Moment, PathBuf)> =
            self.due().filter(|(at, _)| *at <= now).map(|(at, folder)| (at, folder.clone())).collect();
        // A folder comes after those above it, so one walk covers both.
        due.sort_by(|one, other| one.1.cmp(&other.1));
        let mut started = Vec::new();
        for (at, folder) in due {
            if !self.is_blocked(at, &folder) {
                self.forget(&folder);
                self.walking.insert(folder.clone(), now);
                started.push(folder);
            }
        }
        started
    }

    /// Takes note that a walk has come back.
    pub(super) fn walked(&mut self, folder: &Path, is_present: bool, now: Moment) {
        self.walking.remove(folder);
        if folder == self.root {
            self.is_asked = self.whole_at <= now;
            let next = now.after(if is_present { WHOLE_EVERY } else { MISSING_EVERY });
            self.whole_at = if self.is_asked { self.whole_at } else { next };
        } else if !is_present {
            self.whole_at = self.whole_at.min(now.after(MISSING_EVERY));
        }
    }

    /// Returns when there is something to start; what waits for a walk to end has no moment.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let next = self.due().filter(|(at, folder)| !self.is_blocked(*at, folder)).map(|(at, _)| at).min();
        let lost = self.walking.values().map(|started| started.after(WALK_LOST)).min();
        next.into_iter().chain(lost).min()
    }

    fn due(&self) -> impl Iterator<Item = (Moment, &PathBuf)> {
        let bursts = self.bursts.iter().map(|(folder, burst)| (burst.due(), folder));
        let looks = self.looks.iter().map(|(folder, at)| (*at, folder));
        bursts.chain(looks).chain([(self.whole_at, &self.root)])
    }

    /// Returns whether a folder due at a moment has to wait for a walk, under way or to come.
    fn is_blocked(&self, at: Moment, folder: &Path) -> bool {
        // The whole root would wait for ever if folders kept overtaking it.
        let waits_for_whole = self.whole_at <= at && folder != self.root;
        waits_for_whole || self.walking.keys().any(|walked| folder.starts_with(walked) || walked.starts_with(folder))
    }

    /// Drops what a walk of this folder answers.
    fn forget(&mut self, folder: &Path) {
        self.bursts.retain(|other, _| !other.starts_with(folder));
        self.looks.retain(|other, _| !other.starts_with(folder));
        if folder == self.root {
            // Not due again before the walk comes back, whoever asks.
            self.whole_at = Moment(u64::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "/m";

    fn quiet_schedule() -> Schedule {
        let mut schedule = Schedule::new(ROOT.into(), Moment(0));
        assert_eq!(schedule.start_due(Moment(0)), [PathBuf::from(ROOT)]);
        schedule.walked(Path::new(ROOT), true, Moment(0));
        schedule
    }

    #[test]
    fn a_root_is_walked_at_start_and_every_half_hour() {
        let mut schedule = quiet_schedule();
        assert_eq!(schedule.deadline(), Some(Moment(1_800_000)));
        assert!(schedule.start_due(Moment(1_799_999)).is_empty());
        assert_eq!(schedule.start_due(Moment(1_800_000)), [PathBuf::from(ROOT)]);
        assert!(!schedule.is_asked(), "nobody waits for a walk of routine");
    }

    #[test]
    fn a_missing_root_is_looked_for_slowly() {
        let mut schedule = Schedule::new(ROOT.into(), Moment(0));
        schedule.start_due(Moment(0));
        schedule.walked(Path::new(ROOT), false, Moment(10));
        assert_eq!(schedule.deadline(), Some(Moment(120_010)));
    }

    #[test]
    fn a_burst_waits_for_quiet_but_not_for_ever() {
        let mut schedule = quiet_schedule();
        let folder = Path::new("/m/a");
        schedule.dirty(folder, Moment(1_000));
        schedule.dirty(folder, Moment(1_200));
        assert_eq!(schedule.deadline(), Some(Moment(1_500)));
        for at in (1_300..4_000).step_by(100) {
            schedule.dirty(folder, Moment(at));
        }
        assert_eq!(schedule.deadline(), Some(Moment(3_000)));
        assert_eq!(schedule.start_due(Moment(3_000)), [folder.to_owned()]);
    }

    #[test]
    fn walks_of_one_root_never_overlap() {
        let mut schedule = quiet_schedule();
        schedule.dirty(Path::new("/m/a"), Moment(0));
        assert_eq!(schedule.start_due(Moment(300)), [PathBuf::from("/m/a")]);
        schedule.dirty(Path::new("/m/a/b"), Moment(300));
        schedule.dirty(Path::new("/m/c"), Moment(300));
        assert_eq!(schedule.start_due(Moment(600)), [PathBuf::from("/m/c")], "only what lies beside goes on");
        assert_eq!(schedule.deadline(), Some(Moment(600_300)), "a blocked walk must not spin the host");
        schedule.walked(Path::new("/m/a"), true, Moment(700));
        assert_eq!(schedule.start_due(Moment(700)), [PathBuf::from("/m/a/b")]);
    }

    #[test]
    fn a_whole_walk_is_not_overtaken_by_folders() {
        let mut schedule = quiet_schedule();
        schedule.dirty(Path::new("/m/a"), Moment(0));
        schedule.start_due(Moment(300));
        schedule.whole(Moment(400));
        schedule.dirty(Path::new("/m/b"), Moment(400));
        assert!(schedule.start_due(Moment(800)).is_empty());
        assert_eq!(schedule.deadline(), Some(Moment(600_300)));
        schedule.walked(Path::new("/m/a"), true, Moment(900));
        assert_eq!(schedule.start_due(Moment(900)), [PathBuf::from(ROOT)]);
        schedule.walked(Path::new(ROOT), true, Moment(950));
        assert_eq!(schedule.deadline(), Some(Moment(1_800_950)), "the walk answered every burst");
    }

    #[test]
    fn a_walk_asked_for_during_a_walk_still_comes() {
        let mut schedule = Schedule::new(ROOT.into(), Moment(0));
        schedule.start_due(Moment(0));
        schedule.whole(Moment(5));
        schedule.walked(Path::new(ROOT), true, Moment(10));
        assert!(schedule.is_asked());
        assert_eq!(schedule.start_due(Moment(10)), [PathBuf::from(ROOT)]);
        schedule.walked(Path::new(ROOT), true, Moment(20));
        assert!(!schedule.is_asked());
    }

    #[test]
    fn a_lost_walk_does_not_block_for_ever() {
        let mut schedule = quiet_schedule();
        schedule.dirty(Path::new("/m/a"), Moment(0));
        schedule.start_due(Moment(300));
        schedule.dirty(Path::new("/m/a"), Moment(400));
        assert!(schedule.start_due(Moment(2_400)).is_empty());
        let lost = schedule.deadline().expect("a lost walk has an end");
        assert_eq!(schedule.start_due(lost), [PathBuf::from(ROOT)], "what it would have found may lie anywhere");
        let lost = schedule.deadline().expect("so has a lost walk of the root");
        assert_eq!(schedule.start_due(lost), [PathBuf::from(ROOT)]);
    }

    #[test]
    fn very_many_dirty_folders_become_one_walk() {
        let mut schedule = quiet_schedule();
        for number in 0..1_000 {
            schedule.dirty(&PathBuf::from(format!("/m/{number}")), Moment(number));
            schedule.look(&PathBuf::from(format!("/m/{number}")), Moment(number));
        }
        assert!(schedule.bursts.len() <= MANY && schedule.looks.len() <= MANY + 1);
        assert_eq!(schedule.start_due(Moment(5_000)), [PathBuf::from(ROOT)]);
    }
}
