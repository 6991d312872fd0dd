//! The few blocks that stand for all.
//!
//! A compute buffer does not grow with the number of blocks: the allocator comes back to where it
//! was, and most blocks repeat what others did. So only some are built:
//!
//! 1. Blocks are chosen: the first ones, until the allocator is likely to have settled, then each
//!    [`Neighbourhood`] once more, and always the last.
//! 2. Their graph is allocated, and what the allocator was like as each block began is noted as a
//!    number, the state.
//! 3. What a block does to the allocator follows from the state that it finds and from the blocks
//!    around it. So the built blocks are a table of steps, and all blocks of the model are followed
//!    through it. Where every step is in the table, and the last block finds what it found when it
//!    was built, those left out would only have repeated what is there. Else others are chosen with
//!    what was learned; at worst all are built.

use super::Load;
use super::blocks::{self, Block, Neighbourhood};
use crate::memory::Change;
use crate::memory::architecture;

/// Blocks after which the allocator is first taken to have settled: the first leaves the gaps that
/// the second finds, and mostly the fourth begins as the third did.
const FIRST_PATIENCE: usize = 2;

/// The blocks of a model, and which of them are built.
#[derive(Debug)]
pub(super) struct Selection {
    all: Vec<Block>,
    /// The blocks that are built, as indices of `all`; the last block is always among them.
    built: Vec<usize>,
    /// Choices that were not enough.
    tries: usize,
    /// Blocks that were built for those.
    done: usize,
    /// What they showed.
    learned: Vec<Step>,
}

/// What a block did to the allocator.
#[derive(Clone, Copy, Debug)]
struct Step {
    found: u64,
    around: Neighbourhood,
    left: u64,
}

impl Selection {
    /// Returns a selection to begin with.
    pub(super) fn new(load: &Load) -> Selection {
        let all = blocks::list(load);
        // Where splits are cut by their inputs, those of every block count.
        let cuts = load.places.gpus() > 0 && !load.build.has(Change::LongSplits);
        let is_whole = cuts || architecture::goes_by_number(load.structure);
        if is_whole { Selection::of_all(all) } else { Selection::of_few(all) }
    }

    /// Returns a selection of blocks that are all built.
    pub(super) fn whole(numbers: Vec<u32>) -> Selection {
        Selection::of_all(numbers.into_iter().map(Block::alike).collect())
    }

    fn of_all(all: Vec<Block>) -> Selection {
        let built = (0..all.len()).collect();
        Selection { all, built, tries: 0, done: 0, learned: Vec::new() }
    }

    fn of_few(all: Vec<Block>) -> Selection {
        let built = Choice::new(&all, &[]).take(FIRST_PATIENCE, true);
        if built.len() * 8 >= all.len() * 7 {
            // Those left out would be worth less than another try costs.
            return Selection::of_all(all);
        }
        Selection { all, built, tries: 0, done: 0, learned: Vec::new() }
    }

    /// Returns the blocks to build, in order.
    pub(super) fn blocks(&self) -> Vec<u32> {
        self.built.iter().map(|&at| self.all[at].number).collect()
    }

    /// Returns the blocks that show every neighbourhood, wherever the allocator is.
    pub(super) fn neighbourhoods(&self) -> Vec<u32> {
        if self.is_whole() {
            return self.blocks();
        }
        Choice::new(&self.all, &[]).take(0, true).into_iter().map(|at| self.all[at].number).collect()
    }

    /// Looks at what the allocator was like as each of the built blocks began, and returns whether they
    /// stand for all; else others are selected.
    pub(super) fn suffices(&mut self, begun: &[u64]) -> bool {
        if self.is_whole() {
            return true;
        }
        let states = self.follow(begun, &self.steps(begun));
        if states.len() == self.all.len() {
            if states.last() == begun.last() {
                return true;
            }
            // What only the last block reads may be copied to a GPU before the one before it ends.
            self.learned.clear();
            self.all.last_mut().into_iter().for_each(Block::set_apart);
        }
        self.learned.extend(self.steps(begun));
        self.built = self.choose_again(begun);
        false
    }

    fn is_whole(&self) -> bool {
        self.built.len() == self.all.len()
    }

    /// Chooses with more patience and what was learned, or all blocks where that would come no cheaper.
    fn choose_again(&mut self, begun: &[u64]) -> Vec<usize> {
        self.tries += 1;
        self.done += self.built.len();
        let states = self.follow(begun, &self.learned);
        let chosen = Choice::new(&self.all, &states).take(FIRST_PATIENCE + self.tries, false);
        let comes_back = begun.len() == self.built.len() && self.done + chosen.len() <= 2 * self.all.len();
        if comes_back && chosen != self.built { chosen } else { (0..self.all.len()).collect() }
    }

    /// Returns what the built blocks but the last did; nothing where the graph has other blocks.
    fn steps(&self, begun: &[u64]) -> Vec<Step> {
        if begun.len() != self.built.len() {
            return Vec::new();
        }
        let built: Vec<Block> = self.built.iter().map(|&at| self.all[at]).collect();
        let pairs = begun.iter().zip(&begun[1..]).enumerate();
        pairs.map(|(at, (&found, &left))| Step { found, around: Neighbourhood::at(&built, at), left }).collect()
    }

    /// Returns the states that the blocks of the model find, from the first on as far as the steps lead.
    fn follow(&self, begun: &[u64], steps: &[Step]) -> Vec<u64> {
        let mut states = Vec::with_capacity(self.all.len());
        let mut next = begun.first().copied();
        while let Some(state) = next
            && states.len() < self.all.len()
        {
            let around = Neighbourhood::at(&self.all, states.len());
            states.push(state);
            next = steps.iter().find(|step| step.found == state && step.around == around).map(|step| step.left);
        }
        states
    }
}

/// A choice of blocks under way.
struct Choice<'a> {
    all: &'a [Block],
    /// The states that the blocks find, as far as they are known.
    states: &'a [u64],
    patience: usize,
    chosen: Vec<usize>,
    /// What each of the chosen shows.
    shown: Vec<(State, Neighbourhood)>,
}

/// What the allocator is like as a block begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// As the number says.
    Known(u64),
    /// Taken to be the same for the same number of blocks since something changed.
    Guessed(usize),
}

impl Choice<'_> {
    fn new<'a>(all: &'a [Block], states: &'a [u64]) -> Choice<'a> {
        Choice { all, states, patience: 0, chosen: Vec::with_capacity(16), shown: Vec::with_capacity(16) }
    }

    /// Chooses blocks that show every neighbourhood in every state. From where the states are not known
    /// the allocator is taken to have settled after `patience` blocks.
    fn take(mut self, patience: usize, is_first: bool) -> Vec<usize> {
        self.patience = patience;
        let mut at = 0;
        while at < self.all.len() {
            self.shown.push(self.what(at));
            self.chosen.push(at);
            at = self.after(at, is_first);
        }
        self.chosen
    }

    /// Returns the block to build after one: the next, or one further on where those between are
    /// shown already and leave off where the next one begins.
    fn after(&self, at: usize, is_first: bool) -> usize {
        let next = at + 1;
        let Some(same) = self.shown_by(next) else { return next };
        // The allocator often takes two turns to come back.
        let period = next - self.chosen[same];
        let turn = match self.state(next) {
            State::Known(_) => 1,
            State::Guessed(_) if is_first => period.max(2),
            State::Guessed(_) => 2 * period,
        };
        let new = (next + 1..self.all.len()).find(|&new| self.shown_by(new).is_none()).unwrap_or(next);
        let mut turns = (next..=new).rev().filter(|to| (to - next).is_multiple_of(turn));
        turns.find(|&to| self.can_replace(next, to)).unwrap_or(next)
    }

    /// Returns whether a block looks from both sides as the next one does.
    fn can_replace(&self, next: usize, to: usize) -> bool {
        let rough = |at: usize| self.all.get(at).map(|block| block.rough);
        let is_last = to + 1 == self.all.len();
        self.all[to - 1].exact == self.all[next - 1].exact
            && rough(to) == rough(next)
            && (is_last || rough(to + 1) == rough(next + 1))
            && self.state(to) == self.state(next)
    }

    /// Returns which of the chosen blocks shows what a block does; the last block always counts as new.
    fn shown_by(&self, at: usize) -> Option<usize> {
        if at + 1 >= self.all.len() {
            return None;
        }
        let what = self.what(at);
        self.shown.iter().rposition(|&shown| shown == what)
    }

    fn what(&self, at: usize) -> (State, Neighbourhood) {
        (self.state(at), Neighbourhood::at(self.all, at))
    }

    fn state(&self, at: usize) -> State {
        match self.states.get(at) {
            Some(&state) => State::Known(state),
            None => State::Guessed(self.all[at].since.min(at - self.states.len()).min(self.patience)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(kinds: &str) -> Selection {
        Selection::of_few(blocks::of_kinds(kinds))
    }

    /// Returns what an allocator is like as each block begins that comes through `states` states.
    fn run(blocks: &[Block], states: u64, seed: u64) -> Vec<u64> {
        let known = |around: &Neighbourhood| {
            format!("{around:?}").bytes().fold(seed, |sum, byte| sum * 31 % 1009 + u64::from(byte))
        };
        let mut state = 0;
        let mut begun = Vec::new();
        for at in 0..blocks.len() {
            begun.push(state);
            state = (state * 7 + known(&Neighbourhood::at(blocks, at))) % states;
        }
        begun
    }

    #[test]
    fn each_neighbourhood_is_built_once_after_the_first_blocks() {
        assert_eq!(selection("AAAAAAAAAAAA").blocks(), [0, 1, 2, 11]);
        assert_eq!(selection("aaaaaaaaaaAAAAAAAAAA").blocks(), [0, 1, 2, 7, 8, 9, 10, 11, 12, 19]);
        assert_eq!(selection("AAABAAABAAABAAABAAAB").blocks(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 17, 18, 19]);
        assert_eq!(selection("AB").blocks(), [0, 1]);
        assert_eq!(selection("").blocks(), [0; 0]);
    }

    #[test]
    fn blocks_are_left_out_once_the_allocator_comes_back() {
        assert!(selection("AAAAAAAAAAAA").suffices(&[1, 2, 3, 3]));
        let mut slow = selection("AAAAAAAAAAAA");
        assert!(!slow.suffices(&[1, 2, 3, 4]), "the last block found something else than the third");
        let more = slow.blocks();
        assert!(more.len() > 4 && more.len() < 12, "{more:?}");
    }

    #[test]
    fn what_is_left_out_would_have_repeated_what_is_built() {
        for kinds in
            ["AAAAAAAAAAAAAAAAAAAA", "aaaaaaaaaaAAAAAAAAAA", "AAABAAABAAABAAABAAABAAAB", "abbbbbbbbbbbbbCCCCCCCCab"]
        {
            for (states, seed) in (1..7).flat_map(|states| (0..20).map(move |seed| (states, seed))) {
                let mut selection = selection(kinds);
                let begun = loop {
                    let built: Vec<Block> = selection.built.iter().map(|&at| selection.all[at]).collect();
                    let begun = run(&built, states, seed);
                    if selection.suffices(&begun) {
                        break begun;
                    }
                };
                let all = run(&selection.all, states, seed);
                assert_eq!(begun.last(), all.last(), "{kinds} {states} {seed}");
                assert!(all.iter().all(|state| begun.contains(state)), "{kinds} {states} {seed}");
            }
        }
    }

    #[test]
    fn every_neighbourhood_is_shown_wherever_the_allocator_is() {
        for kinds in ["AAAAAAAA", "aaaaaaaaAAAAAAAA", "AAABAAABAAABAAAB", "abcabcabcabc", "A"] {
            let selection = selection(kinds);
            let all = &selection.all;
            let few: Vec<Block> = selection.neighbourhoods().iter().map(|&number| all[number as usize]).collect();
            let shows = |around| (0..few.len()).any(|at| Neighbourhood::at(&few, at) == around);
            assert!((0..all.len()).all(|at| shows(Neighbourhood::at(all, at))), "{kinds}");
        }
    }
}
