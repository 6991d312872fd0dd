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
    tries: usize,
    /// Blocks that were built in all tries.
    done: usize,
    /// What is known from earlier builds: the state that a block found, and the one it left.
    learned: Vec<(u64, Neighbourhood, u64)>,
}

/// One block, with what tells it apart.
#[derive(Clone, Copy, Debug)]
struct Block {
    number: u32,
    /// The same for blocks that are alike in everything.
    exact: Class,
    /// The same for blocks that are alike but for the precision of their weights, which what comes
    /// before them does not see.
    rough: Class,
    /// Blocks since the first of a kind, or the first at a place.
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

/// A number for a [`Signature`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Class {
    signature: u16,
    /// It is the last of those that are alike: what they all read is given back after it.
    ends: bool,
}

/// A block between its neighbours. Half of what a block computes is put off until the next one asks
/// for it, so the block before counts in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Neighbourhood {
    before: Option<Class>,
    own: Class,
    after: Option<Class>,
}

/// What the allocator is like as a block begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// As the number says.
    Known(u64),
    /// Taken to be the same for the same number of blocks since something changed.
    Guessed(usize),
}

impl Selection {
    /// Returns a selection to begin with.
    pub(super) fn new(load: &Load) -> Selection {
        let mut blocks = blocks(load);
        // What is computed around experts in host memory is cut into many pieces, and what the last block
        // reads is copied with the one in which it begins.
        if let Some(last) = blocks.last_mut().filter(|last| last.number < load.settings.cpu_moe) {
            last.rough.ends = load.places.gpus() > 0;
        }
        let mut selection = Selection::of(blocks);
        if architecture::goes_by_number(load.structure) {
            selection.built = (0..selection.all.len()).collect();
        }
        selection
    }

    fn of(all: Vec<Block>) -> Selection {
        let patience = FIRST_PATIENCE;
        let mut selection = Selection { all, built: Vec::new(), patience, tries: 0, done: 0, learned: Vec::new() };
        selection.built = selection.choose(&[], patience);
        selection
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
        self.choose(&[], 0).into_iter().map(|at| self.all[at].number).collect()
    }

    /// Looks at what the allocator was like as each of the built blocks began, and returns whether they
    /// stand for all; else others are selected.
    pub(super) fn suffices(&mut self, begun: &[u64]) -> bool {
        if self.built.len() == self.all.len() {
            return true;
        }
        let did = self.did(begun);
        let states = self.follow(begun, &did);
        if states.len() == self.all.len() {
            if states.last() == begun.last() {
                return true;
            }
            self.mark_last();
        }
        self.learned.extend(self.did(begun));
        self.tries += 1;
        self.done += self.built.len();
        self.patience += 1;
        let states = self.follow(begun, &self.learned);
        let chosen = self.choose(&states, self.patience);
        // Where the allocator does not come back, everything has to be built sooner or later.
        let comes_back = begun.len() == self.built.len() && self.done + chosen.len() <= 2 * self.all.len();
        self.built = if comes_back && chosen != self.built { chosen } else { (0..self.all.len()).collect() };
        false
    }

    /// Returns what each of the built blocks found, and left for the next one.
    fn did(&self, begun: &[u64]) -> Vec<(u64, Neighbourhood, u64)> {
        if begun.len() != self.built.len() {
            return Vec::new();
        }
        let built: Vec<Block> = self.built.iter().map(|&at| self.all[at]).collect();
        let did = |(at, states): (usize, &[u64])| (states[0], Neighbourhood::at(&built, at), states[1]);
        begun.windows(2).enumerate().map(did).collect()
    }

    /// Makes the last block look different from those that it is like: what only the last one reads may
    /// be copied to a GPU before the one before it ends.
    fn mark_last(&mut self) {
        if let Some(last) = self.all.last_mut() {
            last.rough.ends = true;
            self.learned.clear();
        }
    }

    /// Returns the states that the blocks find, from the first on as far as what they do is known.
    fn follow(&self, begun: &[u64], known: &[(u64, Neighbourhood, u64)]) -> Vec<u64> {
        let mut states = Vec::with_capacity(self.all.len());
        states.extend(begun.first());
        for at in 1..self.all.len() {
            let (Some(&state), own) = (states.last(), Neighbourhood::at(&self.all, at - 1)) else { break };
            let Some(&(.., after)) = known.iter().find(|known| known.0 == state && known.1 == own) else { break };
            states.push(after);
        }
        states
    }

    /// Chooses blocks that show every neighbourhood in every state. From where the states are not known
    /// the allocator is taken to have settled after `patience` blocks.
    fn choose(&self, states: &[u64], patience: usize) -> Vec<usize> {
        let all = &self.all;
        let state = |at: usize| match states.get(at) {
            Some(&state) => State::Known(state),
            None => State::Guessed(all[at].since.min(at - states.len()).min(patience)),
        };
        let what = |at: usize| (state(at), Neighbourhood::at(all, at));
        let rough = |at: usize| all.get(at).map(|block| block.rough);
        let mut seen: Vec<(State, Neighbourhood)> = Vec::with_capacity(16);
        let mut chosen: Vec<usize> = Vec::with_capacity(16);
        let mut at = 0;
        while at < all.len() {
            chosen.push(at);
            seen.push(what(at));
            let next = at + 1;
            let found = |next: usize| {
                let what = what(next);
                seen.iter().rposition(|&seen| seen == what)
            };
            at = match (next + 1 < all.len()).then(|| found(next)).flatten() {
                None => next,
                // What was seen already may be left out, if what comes after it looks the same from both sides.
                Some(same) => {
                    let period = next - chosen[same];
                    // The allocator often takes two turns to come back.
                    let turn = match state(next) {
                        State::Known(_) => 1,
                        State::Guessed(_) if self.tries == 0 => period.max(2),
                        State::Guessed(_) => 2 * period,
                    };
                    let fits = |&to: &usize| {
                        let alike = all[to - 1].exact == all[at].exact && rough(to) == rough(next);
                        let goes_on = to + 1 == all.len() || rough(to + 1) == rough(next + 1);
                        alike && goes_on && state(to) == state(next) && (to - next).is_multiple_of(turn)
                    };
                    let new = (next + 1..all.len()).find(|&new| new + 1 == all.len() || found(new).is_none());
                    (next..=new.unwrap_or(next)).rev().find(fits).unwrap_or(next)
                }
            };
        }
        chosen
    }
}

impl Neighbourhood {
    #[inline]
    fn at(blocks: &[Block], at: usize) -> Neighbourhood {
        Neighbourhood {
            before: at.checked_sub(1).map(|before| blocks[before].exact),
            own: blocks[at].exact,
            after: blocks.get(at + 1).map(|block| block.rough),
        }
    }
}

/// Lists the blocks with what tells them apart.
fn blocks(load: &Load) -> Vec<Block> {
    let structure = load.structure;
    let alike = alike(structure);
    let mut signatures = Signatures::default();
    let mut blocks: Vec<Block> = Vec::with_capacity(structure.pattern.len());
    for (number, &kind) in (0u32..).zip(&structure.pattern) {
        if structure.kinds.get(usize::from(kind)).is_none_or(|kind| kind.mtp) {
            continue;
        }
        let place = load.places.layer(number);
        let experts_on_host = number < load.settings.cpu_moe;
        // Weights that are copied to a GPU count with their precision, others do not.
        let copied = load.places.gpus() > 0 && (place == Device::Host || experts_on_host);
        let signature = Signature { kind: alike[usize::from(kind)], place, experts_on_host };
        let rough = signatures.class(signature);
        let exact = if copied { signatures.class(Signature { kind, ..signature }) } else { rough };
        blocks.push(Block { number, exact, rough, since: 0 });
    }
    look_around(&mut blocks);
    blocks
}

/// The signatures that were seen.
#[derive(Default)]
struct Signatures(Vec<Signature>);

impl Signatures {
    /// Returns the class of a signature; most are as the last one.
    fn class(&mut self, signature: Signature) -> Class {
        let seen = self.0.iter().rposition(|&seen| seen == signature);
        let at = seen.unwrap_or_else(|| {
            self.0.push(signature);
            self.0.len() - 1
        });
        Class { signature: u16::try_from(at).unwrap_or(u16::MAX), ends: false }
    }
}

/// Counts the blocks since something new, and marks the last of those that are alike.
fn look_around(blocks: &mut [Block]) {
    let mut seen: Vec<Class> = Vec::with_capacity(4);
    let mut since = 0;
    for block in blocks.iter_mut() {
        since += 1;
        if !seen.contains(&block.rough) {
            seen.push(block.rough);
            since = 0;
        }
        block.since = since;
    }
    for block in blocks.iter_mut().rev() {
        if seen.is_empty() {
            break;
        }
        if let Some(at) = seen.iter().position(|seen| *seen == block.rough) {
            seen.swap_remove(at);
            block.exact.ends = true;
        }
    }
}

/// Returns for each kind the first that differs from it in the precision of weights alone.
fn alike(structure: &Structure) -> Vec<u16> {
    let rough = |kind: &BlockKind| BlockKind { layout: kind.shape, ..*kind };
    let first = |kind: &BlockKind| structure.kinds.iter().position(|other| rough(other) == rough(kind));
    structure.kinds.iter().map(|kind| first(kind).and_then(|at| u16::try_from(at).ok()).unwrap_or(u16::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of the kinds that the letters stand for.
    fn selection(kinds: &str) -> Selection {
        let class = |letter: u8| Class { signature: u16::from(letter), ends: false };
        let block = |(number, letter)| Block { number, exact: class(letter), rough: class(letter), since: 0 };
        let mut blocks: Vec<Block> = (0u32..).zip(kinds.bytes()).map(block).collect();
        look_around(&mut blocks);
        Selection::of(blocks)
    }

    #[test]
    fn each_neighbourhood_is_built_once_after_the_first_blocks() {
        assert_eq!(selection("AAAAAAAAAAAA").blocks(), [0, 1, 2, 11]);
        assert_eq!(selection("aaaaaaAAAAAA").blocks(), [0, 1, 2, 5, 6, 7, 8, 11]);
        assert_eq!(selection("AAABAAABAAABAAAB").blocks(), [0, 1, 2, 3, 4, 5, 14, 15]);
        assert_eq!(selection("AB").blocks(), [0, 1]);
        assert_eq!(selection("").blocks(), [0; 0]);
        assert_eq!(selection("aaaaaaAAAAAA").neighbourhoods(), [0, 1, 5, 6, 7, 11]);
    }

    #[test]
    fn blocks_are_left_out_once_the_allocator_comes_back() {
        assert!(selection("AAAAAAAAAAAA").suffices(&[1, 2, 3, 3]));
        let mut slow = selection("AAAAAAAAAAAA");
        assert!(!slow.suffices(&[1, 2, 3, 4]), "the last block found something else than the third");
        assert_eq!(slow.blocks(), [0, 1, 2, 3, 4, 5, 6, 11]);
        assert!(slow.suffices(&[1, 2, 3, 4, 5, 5, 5, 5]));
    }

    #[test]
    fn the_last_block_finds_what_it_would_find_after_all() {
        let mut odd = selection("AAAAAAAAAAA");
        assert!(!odd.suffices(&[1, 2, 3, 4]));
        assert!(!odd.suffices(&[1, 2, 3, 4, 3, 4, 3, 4]), "the last block would have found the other state");
        assert_eq!(odd.blocks(), [0, 1, 2, 3, 10]);
        assert!(odd.suffices(&[1, 2, 3, 4, 3]));
    }
}
