//! RAM and swap.

use sysinfo::System;

use crate::machine::MemorySample;
use crate::units::Bytes;

/// Reads RAM and swap; keeps sysinfo's buffers between samples.
#[derive(Debug, Default)]
pub(super) struct MemoryProbe {
    system: Option<System>,
}

impl MemoryProbe {
    /// Returns RAM and swap now, of the container where a container's limit binds.
    pub(super) fn sample(&mut self) -> Result<MemorySample, String> {
        let system = match &mut self.system {
            Some(system) => system,
            none => none.insert(System::new().map_err(|error| format!("the memory cannot be read: {error}"))?),
        };
        system.refresh_memory();
        let machine = MemorySample {
            total: Bytes(system.total_memory()),
            available: Bytes(system.available_memory()),
            swap_total: Bytes(system.total_swap()),
            swap_free: Bytes(system.free_swap()),
        };
        if machine.total == Bytes::ZERO {
            return Err("the system does not say how much memory it has".into());
        }
        Ok(match system.cgroup_limits() {
            Some(limits) => limited(machine, Bytes(limits.total_memory), Bytes(limits.rss), Bytes(limits.free_swap)),
            None => machine,
        })
    }
}

/// Returns the memory under a container's limit.
///
/// What the container may still take is its limit less what its programs hold; its page cache is
/// given back when memory is wanted, as in the kernel's own `MemAvailable`.
fn limited(machine: MemorySample, limit: Bytes, held: Bytes, swap_free: Bytes) -> MemorySample {
    if limit >= machine.total {
        return machine;
    }
    MemorySample {
        total: limit,
        available: machine.available.min(limit.saturating_sub(held)),
        swap_total: machine.swap_total,
        swap_free: machine.swap_free.min(swap_free),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: MemorySample = MemorySample {
        total: Bytes(64_000),
        available: Bytes(40_000),
        swap_total: Bytes(8_000),
        swap_free: Bytes(8_000),
    };

    #[test]
    fn a_container_has_what_its_limit_leaves() {
        let limited = limited(MACHINE, Bytes(16_000), Bytes(5_000), Bytes(7_000));
        assert_eq!((limited.total, limited.available), (Bytes(16_000), Bytes(11_000)));
        assert_eq!((limited.swap_total, limited.swap_free), (Bytes(8_000), Bytes(7_000)));
    }

    #[test]
    fn a_container_cannot_have_more_than_the_machine() {
        assert_eq!(limited(MACHINE, Bytes(60_000), Bytes(5_000), Bytes(8_000)).available, Bytes(40_000));
        assert_eq!(limited(MACHINE, Bytes(64_000), Bytes(5_000), Bytes::ZERO), MACHINE);
        assert_eq!(limited(MACHINE, Bytes(1_000), Bytes(5_000), Bytes::ZERO).available, Bytes::ZERO);
    }

    #[test]
    fn this_machine_has_memory() {
        let sample = MemoryProbe::default().sample().unwrap();
        assert!(sample.available > Bytes::ZERO && sample.available <= sample.total);
        assert!(sample.swap_free <= sample.swap_total);
    }
}
