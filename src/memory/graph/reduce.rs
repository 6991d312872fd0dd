//! The few blocks that stand for all.
//!
//! A compute buffer does not grow with the number of blocks: the allocator comes back to where it
//! was. So of a stretch of blocks that repeats (one kind over and over, or a period of several as
//! with sliding windows and hybrids) only some rounds are built. Whether they were enough is seen in
//! the allocator: where two rounds began with the same gaps and the same tensors in the same places,
//! everything after the first is repeated by what comes after the second, for as long as rounds are
//! alike.

use std::ops::Range;

use super::Load;
use crate::memory::Change;
use crate::memory::architecture;
use crate::memory::place::Device;
use crate::memory::structure::BlockKind;

/// Rounds of a stretch that are built at first: the first leaves the gaps that the second finds, and
/// mostly the fourth begins as the third did.
const FIRST_ROUNDS: usize = 4;

/// The longest period looked for; hybrids and sliding windows repeat after at most 8 blocks.
const LONGEST_PERIOD: usize = 8;

/// The blocks of a model as stretches, and how many rounds of each are built.
#[derive(Debug)]
pub(super) struct Selection {
    stretches: Vec<Stretch>,
}

/// Blocks that repeat with a period.
#[derive(Clone, Debug)]
struct Stretch {
    blocks: Vec<u32>,
    period: usize,
    rounds: usize,
    built: usize,
}

/// What tells blocks apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    kind: BlockKind,
    place: Device,
    experts_on_host: bool,
}

impl Selection {
    /// Returns a selection to begin with.
    pub(super) fn new(load: &Load) -> Selection {
        let structure = load.structure;
        let sign = |(block, &number): (u32, &u16)| {
            let kind = structure.kinds.get(usize::from(number)).filter(|kind| !kind.mtp)?;
            let place = load.places.layer(block);
            let experts_on_host = block < load.settings.cpu_moe;
            // Weights that are copied to a GPU count with their precision, others do not.
            let copied = load.places.gpus() > 0 && (place == Device::Host || experts_on_host);
            let kind = if copied { *kind } else { BlockKind { layout: kind.shape, ..*kind } };
            Some((block, Signature { kind, place, experts_on_host }))
        };
        let all: Vec<(u32, Signature)> = (0u32..).zip(&structure.pattern).filter_map(sign).collect();
        // Where splits are cut by their inputs, those of every block count.
        let cuts = load.places.gpus() > 0 && !load.build.has(Change::LongSplits);
        if cuts || architecture::goes_by_number(structure) {
            return Selection::of(all.into_iter().map(|(block, _)| block).collect());
        }
        Selection { stretches: stretches(&all) }
    }

    /// Returns a selection of blocks that are all built.
    pub(super) fn of(blocks: Vec<u32>) -> Selection {
        let rounds = blocks.len();
        Selection { stretches: vec![Stretch { blocks, period: 1, rounds, built: rounds }] }
    }

    /// Returns the blocks to build, in order; the last block is always among them.
    pub(super) fn blocks(&self) -> Vec<u32> {
        let built = |stretch: &Stretch| stretch.blocks[(stretch.rounds - stretch.built) * stretch.period..].to_vec();
        self.stretches.iter().flat_map(built).collect()
    }

    /// Looks at what the allocator was like as each of the blocks began, and returns whether every
    /// stretch came back to where it was; else more rounds are selected.
    pub(super) fn suffices(&mut self, begun: &[u64]) -> bool {
        let mut suffices = true;
        let mut at = 0;
        for stretch in &mut self.stretches {
            let end = at + stretch.built * stretch.period;
            if stretch.built < stretch.rounds {
                let rounds: Vec<u64> =
                    begun.get(at..end).unwrap_or_default().iter().step_by(stretch.period).copied().collect();
                let needed = needed(&rounds, stretch.rounds);
                suffices &= needed <= stretch.built;
                stretch.built = needed.max(stretch.built);
            }
            at = end;
        }
        suffices
    }
}

/// Returns how many of `all` rounds are needed, given what the allocator was like as each of the built
/// ones began.
fn needed(begun: &[u64], all: usize) -> usize {
    let built = begun.len();
    let returns =
        |first: usize| (first + 1..built).find(|&again| begun[again] == begun[first]).map(|again| again - first);
    match (0..built).find_map(returns) {
        // What is left out has to be whole turns, or the last round would not be the last.
        Some(turn) => built + (all - built) % turn,
        None => (built + built.div_ceil(2)).min(all),
    }
}

/// Cuts the blocks into stretches.
fn stretches(all: &[(u32, Signature)]) -> Vec<Stretch> {
    let mut found: Vec<Stretch> = Vec::with_capacity(8);
    let mut at = 0;
    while at < all.len() {
        let (period, rounds) = repetition(&all[at..]);
        let part: Range<usize> = at..at + period * rounds;
        at = part.end;
        let blocks = all[part].iter().map(|&(block, _)| block).collect();
        found.push(Stretch { blocks, period, rounds, built: rounds.min(FIRST_ROUNDS) });
    }
    found
}

/// Returns the period that repeats most from the beginning on, and how often.
fn repetition(blocks: &[(u32, Signature)]) -> (usize, usize) {
    let mut best = (1, 1);
    for period in 1..=LONGEST_PERIOD.min(blocks.len() / 2) {
        let same = blocks[period..].iter().zip(blocks).take_while(|((_, a), (_, b))| a == b).count();
        let rounds = same / period + 1;
        if rounds > 1 && period * rounds > best.0 * best.1 {
            best = (period, rounds);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_left_out_in_whole_turns_only() {
        assert_eq!(needed(&[1, 2, 2], 32), 3, "the third round began as the second did");
        assert_eq!(needed(&[1, 2, 1], 32), 4, "every other round is alike: 28 are left out, not 29");
        assert_eq!(needed(&[1, 2, 1, 2], 32), 4);
        assert_eq!(needed(&[1, 2, 3], 32), 5, "nothing came back yet");
        assert_eq!(needed(&[1, 2, 3, 4, 5], 6), 6);
    }
}
