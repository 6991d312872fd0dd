//! What tells the blocks of a model apart, as far as the allocator sees it.

use super::Load;
use crate::memory::place::Device;
use crate::memory::structure::{BlockKind, Structure};

/// One block, with what tells it apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) number: u32,
    /// The same for blocks that are alike in everything.
    pub(super) exact: Class,
    /// The same for blocks that are alike but for the precision of their weights, which what comes
    /// before them does not see.
    pub(super) rough: Class,
    /// Blocks since the first of a kind, or the first at a place.
    pub(super) since: usize,
}

/// A number for a [`Signature`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    signature: u16,
    /// It is the last of those that are alike: what they all read is given back after it.
    ends: bool,
}

/// A block between its neighbours. Half of what a block computes is put off until the next one asks
/// for it, so the block before counts in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbourhood {
    before: Option<Class>,
    own: Class,
    after: Option<Class>,
}

/// What tells blocks apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    /// The first of the kinds that are the same here.
    kind: u16,
    place: Device,
    experts_on_host: bool,
}

/// Lists the blocks of a load.
pub(super) fn list(load: &Load) -> Vec<Block> {
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
    // What is computed around experts in host memory is cut into many pieces, and what the last block
    // reads is copied with the one in which it begins.
    if let Some(last) = blocks.last_mut().filter(|last| last.number < load.settings.cpu_moe) {
        last.rough.ends = load.places.gpus() > 0;
    }
    blocks
}

impl Block {
    /// Returns a block that is like every other one made so.
    pub(super) const fn alike(number: u32) -> Block {
        let class = Class { signature: 0, ends: false };
        Block { number, exact: class, rough: class, since: 0 }
    }

    /// Makes the block look different from what it is like, to the one before it too.
    pub(super) const fn set_apart(&mut self) {
        self.rough.ends = true;
    }
}

impl Neighbourhood {
    /// Returns the neighbourhood of one of the blocks.
    #[inline]
    pub(super) fn at(blocks: &[Block], at: usize) -> Neighbourhood {
        Neighbourhood {
            before: at.checked_sub(1).map(|before| blocks[before].exact),
            own: blocks[at].exact,
            after: blocks.get(at + 1).map(|block| block.rough),
        }
    }
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

/// Returns for each kind the first that differs from it in the precision of weights alone.
fn alike(structure: &Structure) -> Vec<u16> {
    let rough = |kind: &BlockKind| BlockKind { layout: kind.shape, ..*kind };
    let first = |kind: &BlockKind| structure.kinds.iter().position(|other| rough(other) == rough(kind));
    structure.kinds.iter().map(|kind| first(kind).and_then(|at| u16::try_from(at).ok()).unwrap_or(u16::MAX)).collect()
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

/// Returns blocks of the kinds that the letters stand for.
#[cfg(test)]
pub(super) fn of_kinds(letters: &str) -> Vec<Block> {
    let class = |letter: u8| Class { signature: u16::from(letter), ends: false };
    let block = |(number, letter)| Block { number, exact: class(letter), rough: class(letter), since: 0 };
    let mut blocks: Vec<Block> = (0u32..).zip(letters.bytes()).map(block).collect();
    look_around(&mut blocks);
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_from_the_last_new_kind_on() {
        let since = |letters: &str| of_kinds(letters).iter().map(|block| block.since).collect::<Vec<_>>();
        assert_eq!(since("aaaAAA"), [0, 1, 2, 0, 1, 2]);
        assert_eq!(since("aaabaaab"), [0, 1, 2, 0, 1, 2, 3, 4], "the second b is not new");
    }

    #[test]
    fn the_last_of_each_kind_is_told_apart_from_within_only() {
        let blocks = of_kinds("aabaab");
        let ends: Vec<bool> = blocks.iter().map(|block| block.exact.ends).collect();
        assert_eq!(ends, [false, false, false, false, true, true]);
        assert!(blocks.iter().all(|block| !block.rough.ends));
    }

    #[test]
    fn a_neighbourhood_takes_the_block_after_roughly() {
        let blocks = of_kinds("aaaa");
        assert_eq!(Neighbourhood::at(&blocks, 1), Neighbourhood::at(&blocks, 2));
        assert_ne!(Neighbourhood::at(&blocks, 2), Neighbourhood::at(&blocks, 3), "nothing comes after it");
        assert_ne!(Neighbourhood::at(&blocks, 0), Neighbourhood::at(&blocks, 1), "nothing comes before it");
    }
}
