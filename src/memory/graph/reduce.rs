//! The few blocks that stand for all.
//!
//! A compute buffer does not grow with the number of blocks: the allocator comes back to where it
//! was. So of blocks that are alike only a few are built: those at the beginning, until the
//! allocator has settled, then each neighbourhood once. Whether they were enough is seen in the
//! allocator. What a block does to it follows from the state it finds and from the blocks around it;
//! so with the built blocks as a table all blocks are gone through, and where each finds what a
//! built one found, those left out would have changed nothing.

use super::Load;
use crate::memory::architecture;
use crate::memory::place::Device;
use crate::memory::structure::{BlockKind, Structure};

/// Blocks after which the allocator is first taken to have settled: the first leaves the gaps that
/// the second finds, and mostly the fourth begins as the third did.
const FIRST_PATIENCE: usize = 2;

/// The blocks of a model, and which of them are built.
#[derive(Debug)]
pub(super) struct Selection {
    all: Vec<Block>,
    /// The blocks that are built, as indices of `all`; the last block is always among them.
    built: Vec<usize>,
    patience: usize,
}

/// One block, with what tells it apart.
#[derive(Clone, Copy, Debug)]
struct Block {
    number: u32,
    /// The same for blocks that are alike in everything.
    exact: Signature,
    /// The same for blocks that are alike but for the precision of their weights, which what comes
    /// before them does not see.
    rough: Signature,
    /// Blocks since the model began or went on elsewhere.
    since: usize,
}

/// What tells blocks apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    /// The first of the kinds that are the same here.
    kind: u16,
    place: Device,
    experts_on_host: bool,
}

/// A block between its neighbours. Half of what a block computes is put off until the next one asks
/// for it, so the block before counts in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Neighbourhood {
    before: Option<Signature>,
    own: Signature,
    after: Option<Signature>,
}

impl Selection {
    /// Returns a selection to begin with.
    pub(super) fn new(load: &Load) -> Selection {
        let all = blocks(load);
        if architecture::goes_by_number(load.structure) {
            return Selection { built: (0..all.len()).collect(), all, patience: usize::MAX };
        }
        Selection { built: choose(&all, FIRST_PATIENCE), all, patience: FIRST_PATIENCE }
    }

    /// Returns the blocks to build, in order.
    pub(super) fn blocks(&self) -> Vec<u32> {
        self.built.iter().map(|&at| self.all[at].number).collect()
    }

    /// Returns the blocks that show every neighbourhood, wherever the allocator is.
    pub(super) fn neighbourhoods(&self) -> Vec<u32> {
        if self.built.len() == self.all.len() {
            return self.blocks();
        }
        choose(&self.all, 0).into_iter().map(|at| self.all[at].number).collect()
    }

    /// Looks at what the allocator was like as each of the built blocks began, and returns whether they
    /// stand for all; else more are selected.
    pub(super) fn suffices(&mut self, begun: &[u64]) -> bool {
        if self.built.len() == self.all.len() || self.stands_for_all(begun) {
            return true;
        }
        while self.patience < self.all.len() {
            self.patience += self.patience.div_ceil(2);
            let more = choose(&self.all, self.patience);
            if more.len() > self.built.len() {
                self.built = more;
                return false;
            }
        }
        self.built = (0..self.all.len()).collect();
        false
    }

    /// Goes through all blocks with what the built ones did.
    fn stands_for_all(&self, begun: &[u64]) -> bool {
        let (Some(&first), Some(&last), true) = (begun.first(), begun.last(), begun.len() == self.built.len()) else {
            return false;
        };
        let built = |at: usize| self.built.get(at).map(|&at| &self.all[at]);
        let known = |at: usize| Neighbourhood::of(at.checked_sub(1).and_then(built), &self.all[self.built[at]], built(at + 1));
        let known: Vec<(u64, Neighbourhood)> = (0..self.built.len()).map(|at| (begun[at], known(at))).collect();
        let mut state = first;
        for at in 0..self.all.len().saturating_sub(1) {
            let what = (state, Neighbourhood::at(&self.all, at));
            let Some(same) = known.iter().position(|&known| known == what) else { return false };
            state = begun[same + 1];
        }
        state == last
    }
}

impl Neighbourhood {
    fn of(before: Option<&Block>, own: &Block, after: Option<&Block>) -> Neighbourhood {
        Neighbourhood { before: before.map(|block| block.exact), own: own.exact, after: after.map(|block| block.rough) }
    }

    fn at(all: &[Block], at: usize) -> Neighbourhood {
        Neighbourhood::of(at.checked_sub(1).map(|before| &all[before]), &all[at], all.get(at + 1))
    }
}

/// Lists the blocks with what tells them apart.
fn blocks(load: &Load) -> Vec<Block> {
    let structure = load.structure;
    let alike = alike(structure);
    let mut blocks: Vec<Block> = Vec::with_capacity(structure.pattern.len());
    for (number, &kind) in (0u32..).zip(&structure.pattern) {
        if structure.kinds.get(usize::from(kind)).is_none_or(|kind| kind.mtp) {
            continue;
        }
        let place = load.places.layer(number);
        let experts_on_host = number < load.settings.cpu_moe;
        // Weights that are copied to a GPU count with their precision, others do not.
        let copied = load.places.gpus() > 0 && (place == Device::Host || experts_on_host);
        let rough = Signature { kind: alike[usize::from(kind)], place, experts_on_host };
        let exact = if copied { Signature { kind, ..rough } } else { rough };
        let since = match blocks.last() {
            Some(last) if last.rough.place == place && last.rough.experts_on_host == experts_on_host => last.since + 1,
            _ => 0,
        };
        blocks.push(Block { number, exact, rough, since });
    }
    blocks
}

/// Returns for each kind the first that differs from it in the precision of weights alone.
fn alike(structure: &Structure) -> Vec<u16> {
    let rough = |kind: &BlockKind| BlockKind { layout: kind.shape, ..*kind };
    let first = |kind: &BlockKind| structure.kinds.iter().position(|other| rough(other) == rough(kind));
    structure.kinds.iter().map(|kind| first(kind).and_then(|at| u16::try_from(at).ok()).unwrap_or(u16::MAX)).collect()
}

/// Chooses blocks that show every neighbourhood, taking the allocator to have settled after `patience`
/// blocks in one place.
fn choose(all: &[Block], patience: usize) -> Vec<usize> {
    let what = |at: usize| (all[at].since.min(patience), Neighbourhood::at(all, at));
    let mut seen: Vec<(usize, Neighbourhood)> = Vec::with_capacity(16);
    let mut chosen: Vec<usize> = Vec::with_capacity(16);
    let mut at = 0;
    while at < all.len() {
        chosen.push(at);
        seen.push(what(at));
        let next = at + 1;
        // What is seen already may be left out, if what comes after it looks the same from both sides.
        let new = (next..all.len()).find(|&next| next + 1 == all.len() || !seen.contains(&what(next)));
        let fits = |&to: &usize| all[to - 1].exact == all[at].exact && all[to].rough == all[next].rough;
        at = new.and_then(|new| (next..=new).rev().find(fits)).unwrap_or(next);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of the kinds that the letters stand for, small ones on the host.
    fn model(kinds: &str) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        for (number, letter) in (0u32..).zip(kinds.bytes()) {
            let place = if letter.is_ascii_lowercase() { Device::Host } else { Device::Gpu(0) };
            let exact = Signature { kind: u16::from(letter), place, experts_on_host: false };
            let since = blocks.last().filter(|last| last.exact.place == place).map_or(0, |last| last.since + 1);
            blocks.push(Block { number, exact, rough: exact, since });
        }
        blocks
    }

    fn selection(kinds: &str) -> Selection {
        let all = model(kinds);
        Selection { built: choose(&all, FIRST_PATIENCE), all, patience: FIRST_PATIENCE }
    }

    #[test]
    fn each_neighbourhood_is_built_once_after_the_first_blocks() {
        assert_eq!(selection("AAAAAAAAAAAA").blocks(), [0, 1, 2, 11]);
        assert_eq!(selection("aaaaaaAAAAAA").blocks(), [0, 1, 2, 5, 6, 7, 8, 11]);
        assert_eq!(selection("AAABAAABAAABAAAB").blocks(), [0, 1, 2, 3, 4, 5, 6, 15]);
        assert_eq!(selection("AB").blocks(), [0, 1]);
        assert_eq!(selection("").blocks(), [0; 0]);
        assert_eq!(selection("aaaaaaAAAAAA").neighbourhoods(), [0, 1, 5, 6, 7, 11]);
    }

    #[test]
    fn blocks_are_left_out_once_the_allocator_comes_back() {
        assert!(selection("AAAAAAAAAAAA").suffices(&[1, 2, 3, 3]));
        let mut slow = selection("AAAAAAAAAAAA");
        assert!(!slow.suffices(&[1, 2, 3, 4]), "the last block found something else than the third");
        assert_eq!(slow.blocks(), [0, 1, 2, 3, 11]);
        assert!(slow.suffices(&[1, 2, 3, 2, 3]), "every other block is alike, and so is the last");
        let mut odd = selection("AAAAAAAAAAA");
        assert!(!odd.suffices(&[1, 2, 3, 2]));
        assert!(!odd.suffices(&[1, 2, 3, 2, 3]), "the last block would have found the other state");
    }
}
