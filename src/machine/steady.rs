//! From samples to a picture that changes only when it matters.
//!
//! Free memory trembles all day. The picture keeps a number until the new one is far enough away
//! to matter, or has been away for a minute; what trembles by less than that is never taken over.
//!
//! ```text
//!   distance from the picture    the picture takes the new number over
//!   ≥ 256 MB and 2 % of the pool at once
//!   ≥ an eighth of that          after a minute away
//!   less                         together with the next larger change
//! ```
//!
//! Sizes, names, the list of devices and whether a device can be read at all change at once.

use std::collections::BTreeMap;

use super::{Device, DeviceMemory, DeviceSample, GpuProbe, MemorySample, Picture, Reading, Sample};
use crate::units::{Bytes, Moment, Share, Span};

/// A change of free memory that always matters, whatever the size of the pool.
const MATTERS: Bytes = Bytes(256_000_000);
/// A change of free memory matters only from this share of the pool on.
const MATTERS_SHARE: Share = Share::percent(2);
/// How long a smaller change lasts before it is taken over, and a vanished device before it is dropped.
const LASTING: Span = Span::seconds(60);
/// How long after a change that mattered another one is likely.
const LIVELY: Span = Span::seconds(60);
/// Below this free share a pool is tight.
const TIGHT: Share = Share::percent(10);

pub(super) const ASLEEP: &str = "the GPU sleeps, and fitwatch does not wake it";
const GONE: &str = "the GPU is not there any more";

/// Turns samples into a picture.
#[derive(Debug, Default)]
pub struct Machine {
    picture: Picture,
    memory: Track,
    devices: BTreeMap<String, Track>,
    sampled_at: Option<Moment>,
    moved_at: Option<Moment>,
}

impl Machine {
    /// Takes in a sample; returns whether the picture that verdicts are based on has changed.
    pub fn sampled(&mut self, sample: &Sample, now: Moment) -> bool {
        let is_first = self.sampled_at.replace(now).is_none();
        let memory = match &sample.memory {
            Ok(read) => take(&mut self.picture.memory, *read, &mut self.memory, now),
            Err(reason) => fail(&mut self.picture.memory, reason, &mut self.memory),
        };
        let devices = self.devices_sampled(&sample.gpus, now);
        let rest = self.rest_sampled(&sample.gpus);
        let change = memory.max(devices).max(rest);
        if change == Change::Moved && !is_first {
            self.moved_at = Some(now);
        }
        change > Change::None
    }

    /// Returns the picture that verdicts are based on. Small changes of free memory are left out
    /// of it until they matter or have lasted.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// Returns how long to wait before the next sample.
    ///
    /// | | quiet for a minute | a change that mattered within the last minute |
    /// | --- | --- | --- |
    /// | every pool has 10 % free | 30 s | 5 s |
    /// | a pool has less | 10 s | 2 s |
    ///
    /// Only pools that were just read count: a sleeping GPU never raises the pace.
    pub fn pace(&self) -> Span {
        let lively = match (self.moved_at, self.sampled_at) {
            (Some(moved), Some(sampled)) => sampled.since(moved) < LIVELY,
            _ => false,
        };
        match (self.is_tight(), lively) {
            (false, false) => Span::seconds(30),
            (true, false) => Span::seconds(10),
            (false, true) => Span::seconds(5),
            (true, true) => Span::seconds(2),
        }
    }

    /// Holds the samples of the GPUs against the devices in the picture.
    fn devices_sampled(&mut self, gpus: &GpuProbe, now: Moment) -> Change {
        let mut change = Change::None;
        let mut old = std::mem::take(&mut self.picture.devices);
        let order_before: Vec<String> = old.iter().map(|device| device.id.clone()).collect();
        for sample in &gpus.devices {
            let known = old.iter().position(|device| device.id == sample.id).map(|at| old.remove(at));
            let mut device = known.unwrap_or_else(|| new_device(sample));
            change = change.max(self.device_sampled(&mut device, sample, now));
            self.picture.devices.push(device);
        }
        for device in old {
            let is_unknown_now = gpus.unknown.iter().any(|gpu| gpu.id == device.id);
            change = change.max(self.device_absent(device, is_unknown_now, now));
        }
        self.devices.retain(|id, _| self.picture.devices.iter().any(|device| device.id == *id));
        if !self.picture.devices.iter().map(|device| &device.id).eq(&order_before) {
            change = change.max(Change::Shown);
        }
        change
    }

    /// Takes one GPU's sample over.
    fn device_sampled(&mut self, device: &mut Device, sample: &DeviceSample, now: Moment) -> Change {
        let mut change = Change::None;
        if device.name != sample.name || device.vendor != sample.vendor {
            device.name.clone_from(&sample.name);
            device.vendor = sample.vendor;
            change = Change::Shown;
        }
        let track = self.devices.entry(sample.id.clone()).or_default();
        track.missing_since = None;
        change.max(match &sample.memory {
            Some(Ok(read)) => take(&mut device.memory, *read, track, now),
            Some(Err(reason)) => fail(&mut device.memory, reason, track),
            None => set_aside(&mut device.memory, ASLEEP, track),
        })
    }

    /// Keeps a device that is gone for a minute, because a driver that is reloaded comes back;
    /// drops it at once where the probes say why it cannot be read any more.
    fn device_absent(&mut self, mut device: Device, is_unknown_now: bool, now: Moment) -> Change {
        let track = self.devices.entry(device.id.clone()).or_default();
        let missing_since = *track.missing_since.get_or_insert(now);
        if is_unknown_now || now.since(missing_since) >= LASTING {
            return Change::Shown;
        }
        let change = set_aside(&mut device.memory, GONE, track);
        self.picture.devices.push(device);
        change
    }

    /// Takes over what is not a number.
    fn rest_sampled(&mut self, gpus: &GpuProbe) -> Change {
        let mut change = Change::None;
        let picture = &mut self.picture;
        if picture.unknown != gpus.unknown {
            picture.unknown.clone_from(&gpus.unknown);
            change = Change::Shown;
        }
        if picture.problems != gpus.problems {
            picture.problems.clone_from(&gpus.problems);
            change = Change::Shown;
        }
        // A driver is not asked for its version while its GPUs sleep.
        if gpus.driver.is_some() && picture.driver != gpus.driver {
            picture.driver.clone_from(&gpus.driver);
            change = Change::Shown;
        }
        change
    }

    fn is_tight(&self) -> bool {
        fn tight<T: Pool>(reading: &Reading<T>) -> bool {
            match reading {
                Reading::Fresh { value } => value.free() < value.size().share(TIGHT),
                Reading::Pending | Reading::Stale { .. } | Reading::Unavailable { .. } => false,
            }
        }
        tight(&self.picture.memory) || self.picture.devices.iter().any(|device| tight(&device.memory))
    }
}

/// What is remembered of a pool beside its place in the picture.
#[derive(Debug, Default)]
struct Track {
    /// When it was last read.
    read_at: Moment,
    /// Since when it differs from the picture, by less than matters at once.
    away_since: Option<Moment>,
    /// Since when the device is not listed.
    missing_since: Option<Moment>,
}

/// What a sample did to the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    /// Nothing.
    None,
    /// It shows something else now.
    Shown,
    /// Free memory moved by an amount that matters.
    Moved,
}

/// A pool of memory as hysteresis sees it.
trait Pool: Copy {
    /// Its size.
    fn size(&self) -> Bytes;
    /// What is free of it.
    fn free(&self) -> Bytes;
    /// Whether everything but the free memory is as in `other`.
    fn has_same_frame(&self, other: &Self) -> bool;
    /// How far its numbers are from `other`'s.
    fn distance(&self, other: &Self) -> Bytes;
}

impl Pool for MemorySample {
    fn size(&self) -> Bytes {
        self.total
    }

    fn free(&self) -> Bytes {
        self.available
    }

    fn has_same_frame(&self, other: &Self) -> bool {
        self.total == other.total && self.swap_total == other.swap_total
    }

    fn distance(&self, other: &Self) -> Bytes {
        apart(self.available, other.available).max(apart(self.swap_free, other.swap_free))
    }
}

impl Pool for DeviceMemory {
    fn size(&self) -> Bytes {
        self.total
    }

    fn free(&self) -> Bytes {
        self.free
    }

    fn has_same_frame(&self, other: &Self) -> bool {
        self.total == other.total
    }

    fn distance(&self, other: &Self) -> Bytes {
        apart(self.free, other.free).max(apart(self.reserved, other.reserved))
    }
}

/// Takes a number over where it matters or has lasted.
fn take<T: Pool>(shown: &mut Reading<T>, read: T, track: &mut Track, now: Moment) -> Change {
    track.read_at = now;
    let matters = MATTERS.max(read.size().share(MATTERS_SHARE));
    let change = match shown {
        Reading::Fresh { value } if value.has_same_frame(&read) => {
            let distance = value.distance(&read);
            if distance >= matters {
                Change::Moved
            } else if distance.saturating_mul(8) < matters {
                track.away_since = None;
                Change::None
            } else if now.since(*track.away_since.get_or_insert(now)) >= LASTING {
                Change::Shown
            } else {
                Change::None
            }
        }
        // A GPU that wakes up as it fell asleep is no sign of anything.
        Reading::Stale { value, .. } if value.has_same_frame(&read) && value.distance(&read) < matters => Change::Shown,
        Reading::Fresh { .. } | Reading::Stale { .. } | Reading::Pending | Reading::Unavailable { .. } => Change::Moved,
    };
    if change > Change::None {
        *shown = Reading::Fresh { value: read };
        track.away_since = None;
    }
    change
}

/// Notes that a pool cannot be read.
fn fail<T: Pool>(shown: &mut Reading<T>, reason: &str, track: &mut Track) -> Change {
    track.away_since = None;
    if matches!(shown, Reading::Unavailable { reason: old } if old == reason) {
        return Change::None;
    }
    *shown = Reading::Unavailable { reason: reason.to_owned() };
    Change::Shown
}

/// Keeps the last number of a pool that is not read for now.
fn set_aside<T: Pool>(shown: &mut Reading<T>, why: &str, track: &mut Track) -> Change {
    track.away_since = None;
    let (value, at) = match shown {
        Reading::Stale { reason, .. } if reason == why => return Change::None,
        Reading::Fresh { value } => (*value, track.read_at),
        Reading::Stale { value, at, .. } => (*value, *at),
        Reading::Pending | Reading::Unavailable { .. } => return fail(shown, why, track),
    };
    *shown = Reading::Stale { value, at, reason: why.to_owned() };
    Change::Shown
}

fn new_device(sample: &DeviceSample) -> Device {
    Device { id: sample.id.clone(), name: sample.name.clone(), vendor: sample.vendor, memory: Reading::Pending }
}

fn apart(one: Bytes, other: Bytes) -> Bytes {
    Bytes(one.0.abs_diff(other.0))
}
