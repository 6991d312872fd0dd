//! The few blocks that stand for all.
//!
//! A compute buffer does not grow with the number of blocks: the allocator's state repeats with
//! them. So of a stretch of blocks that repeats (one kind over and over, or a period of several as
//! with sliding windows and hybrids) only the last rounds are built, for each device anew, and
//! before them one block for each precision of weights that the stretch has in host memory, since
//! a GPU makes room for the weights that are copied to it.

use super::Load;
use crate::memory::place::Device;
use crate::memory::structure::BlockKind;

/// Rounds of a repetition that are built, at least: the first leaves the gaps that the second finds,
/// and from the third on nothing is new. Where weights are copied some gaps are found by every other
/// round only, so there an even number of rounds is stood for by an even one.
const ROUNDS: usize = 3;

/// The longest period looked for; hybrids and sliding windows repeat after at most 8 blocks.
const LONGEST_PERIOD: usize = 8;

/// What tells a block apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    block: u32,
    /// Its kind but for the precision of its weights.
    shape: BlockKind,
    place: Device,
    experts_on_host: bool,
    /// The layout where weights are copied to a GPU, so that their precision counts.
    copied: Option<u16>,
}

impl Signature {
    /// Returns whether two blocks take the same room but for copied weights.
    fn is_like(&self, other: &Signature) -> bool {
        self.shape == other.shape && self.place == other.place && self.experts_on_host == other.experts_on_host
    }
}

/// Returns the blocks that are built, in order; the last block is always among them.
pub(super) fn blocks(load: &Load) -> Vec<u32> {
    let structure = load.structure;
    let sign = |(block, &number): (u32, &u16)| {
        let kind = structure.kinds.get(usize::from(number)).filter(|kind| !kind.mtp)?;
        let place = load.places.layer(block);
        let experts_on_host = block < load.settings.cpu_moe;
        let copied = load.places.gpus() > 0 && (place == Device::Host || experts_on_host);
        Some(Signature {
            block,
            shape: BlockKind { layout: kind.shape, ..*kind },
            place,
            experts_on_host,
            copied: copied.then_some(kind.layout),
        })
    };
    let all: Vec<Signature> = (0u32..).zip(&structure.pattern).filter_map(sign).collect();
    representatives(&all)
}

/// Returns every block, in order.
pub(super) fn all(load: &Load) -> Vec<u32> {
    let kinds = (0u32..).zip(load.structure.block_kinds());
    kinds.filter(|(_, kind)| !kind.mtp).map(|(block, _)| block).collect()
}

fn representatives(all: &[Signature]) -> Vec<u32> {
    let mut kept = Vec::with_capacity(16);
    let mut at = 0;
    while at < all.len() {
        let (period, rounds) = repetition(&all[at..]);
        let stretch = &all[at..at + period * rounds];
        let evens = if stretch.iter().any(|block| block.copied.is_some()) { (rounds + ROUNDS) % 2 } else { 0 };
        let rounds = rounds.min(ROUNDS + evens);
        let built = &stretch[stretch.len() - period * rounds..];
        let before = &stretch[..stretch.len() - built.len()];
        // Copied weights fit the gaps that those of the block before left, or not.
        let pairs = |from: usize, to: usize| stretch[from..to].windows(2).map(|pair| (pair[0].copied, pair[1].copied));
        for (index, pair) in before.windows(2).enumerate() {
            let this = (pair[0].copied, pair[1].copied);
            let mut known = pairs(before.len(), stretch.len()).chain(pairs(0, index + 1));
            if this.1.is_some() && !known.any(|other| other == this) {
                for block in pair {
                    if kept.last() != Some(&block.block) {
                        kept.push(block.block);
                    }
                }
            }
        }
        kept.extend(built.iter().map(|block| block.block));
        at += stretch.len();
    }
    kept
}

/// Returns the period that repeats most from the beginning on, and how often.
fn repetition(blocks: &[Signature]) -> (usize, usize) {
    let mut best = (1, 1);
    for period in 1..=LONGEST_PERIOD.min(blocks.len() / 2) {
        let same = blocks[period..].iter().zip(blocks).take_while(|(a, b)| a.is_like(b)).count();
        let rounds = same / period + 1;
        if rounds > 1 && period * rounds > best.0 * best.1 {
            best = (period, rounds);
        }
    }
    best
}
