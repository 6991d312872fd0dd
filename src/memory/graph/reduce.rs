//! The few blocks that stand for all.
//!
//! A compute buffer does not grow with the number of blocks: the allocator's state repeats with
//! them. So of a stretch of blocks that repeats (one kind over and over, or a period of several as
//! with sliding windows and hybrids) only the first rounds are built, for each device anew.

use super::Load;
use crate::memory::place::Device;

/// Rounds of a repetition that are built: the first leaves the gaps that the second finds, and
/// from the third on nothing is new.
const ROUNDS: usize = 3;

/// The longest period looked for; hybrids and sliding windows repeat after at most 8 blocks.
const LONGEST_PERIOD: usize = 8;

/// What tells blocks apart.
type Signature = (u16, Device, bool);

/// Returns the blocks that are built, in order; the last block is always among them.
pub(super) fn blocks(load: &Load) -> Vec<u32> {
    let structure = load.structure;
    let sign = |(block, &kind): (u32, &u16)| -> Option<(u32, Signature)> {
        let mtp = structure.kinds.get(usize::from(kind))?.mtp;
        (!mtp).then(|| (block, (kind, load.places.layer(block), block < load.settings.cpu_moe)))
    };
    let all: Vec<(u32, Signature)> = (0u32..).zip(&structure.pattern).filter_map(sign).collect();
    representatives(&all)
}

fn representatives(all: &[(u32, Signature)]) -> Vec<u32> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let (period, rounds) = repetition(&all[at..]);
        let whole = period * rounds;
        if rounds > ROUNDS {
            // The last rounds, so that the last block of the model is among them.
            let skipped = period * (rounds - ROUNDS);
            kept.extend(all[at + skipped..at + whole].iter().map(|&(block, _)| block));
        } else {
            kept.extend(all[at..at + whole].iter().map(|&(block, _)| block));
        }
        at += whole;
    }
    kept
}

/// Returns the period that repeats most from the beginning on, and how often.
fn repetition(blocks: &[(u32, Signature)]) -> (usize, usize) {
    let mut best = (1, 1);
    for period in 1..=LONGEST_PERIOD.min(blocks.len() / 2) {
        let same = blocks[period..].iter().zip(blocks).take_while(|((_, a), (_, b))| a == b).count();
        let rounds = same / period + 1;
        if rounds > ROUNDS && period * rounds > best.0 * best.1 {
            best = (period, rounds);
        }
    }
    best
}
