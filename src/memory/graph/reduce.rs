//! The few blocks that stand for all.

use super::Load;

/// Returns the blocks that are built.
pub(super) fn blocks(load: &Load) -> Vec<u32> {
    (0u32..).zip(load.structure.block_kinds()).filter(|(_, kind)| !kind.mtp).map(|(block, _)| block).collect()
}
