//! NVIDIA GPUs, through the driver's management library (NVML).
//!
//! An open NVML keeps a laptop's GPU awake and a query wakes it, so the bus is looked at first:
//! GPUs that sleep are listed without being asked, and where any GPU may sleep NVML is closed again
//! after each sample. Everywhere else it stays open, because opening it is what costs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::MemoryInfo;

use super::pci::{Bus, Display};
use crate::machine::{DeviceMemory, DeviceSample, GpuProbe, UnknownGpu, Vendor};
use crate::units::Bytes;

/// How long a GPU that powers itself down is left alone after it was asked: asked more often, it
/// would never get to sleep.
const REST: Duration = Duration::from_secs(10);
/// More GPUs than any machine has.
const MOST_GPUS: u32 = 64;

/// Asks NVML.
#[derive(Debug)]
pub(super) struct NvmlProbe {
    library: Option<PathBuf>,
    open: Option<Nvml>,
    /// What is known from earlier samples, by where a GPU sits.
    known: BTreeMap<Seat, Known>,
    /// The last answer about GPUs that may all sleep, who they were, and when.
    resting: Option<(Instant, Vec<String>, GpuProbe)>,
}

/// How a GPU is found again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seat {
    /// By its address on the bus.
    Address(String),
    /// By NVML's own number, where the bus cannot be seen.
    Index(u32),
}

/// What does not change about a GPU.
#[derive(Clone, Debug)]
struct Known {
    id: String,
    name: String,
}

impl NvmlProbe {
    /// Returns a probe that loads the given library, or the driver's own.
    pub(super) fn new(library: Option<PathBuf>) -> NvmlProbe {
        NvmlProbe { library, open: None, known: BTreeMap::new(), resting: None }
    }

    /// Returns NVIDIA's GPUs.
    pub(super) fn sample(&mut self, bus: &Bus) -> GpuProbe {
        let cards = bus.nvidia();
        let found = if cards.is_empty() { self.unseen(bus) } else { self.on_the_bus(&cards) };
        if cards.iter().any(|card| card.may_sleep) {
            self.open = None;
        }
        found
    }

    /// Samples the GPUs that the bus shows.
    fn on_the_bus(&mut self, cards: &[&Display]) -> GpuProbe {
        let mut found = GpuProbe::default();
        let mut awake = Vec::new();
        for card in cards {
            if let Some(reason) = foreign_driver(card) {
                found.unknown.push(card.unknown(reason));
            } else if card.sleeps {
                found.devices.push(self.sleeper(card));
            } else {
                awake.push(*card);
            }
        }
        if awake.is_empty() {
            self.open = None;
            return found;
        }
        let asked = self.awake(&awake);
        found.driver = asked.driver;
        found.devices.extend(asked.devices);
        found.unknown.extend(asked.unknown);
        // Awake ones come from NVML and sleeping ones from the bus: one order for both.
        found.devices.sort_by(|one, other| one.id.cmp(&other.id));
        found
    }

    /// Asks the GPUs that are awake, unless they may fall asleep and were asked a moment ago.
    fn awake(&mut self, cards: &[&Display]) -> GpuProbe {
        let may_all_sleep = cards.iter().all(|card| card.may_sleep);
        let addresses: Vec<String> = cards.iter().map(|card| card.address.clone()).collect();
        match self.resting.take() {
            Some((asked_at, same, found)) if may_all_sleep && same == addresses && asked_at.elapsed() < REST => {
                self.resting = Some((asked_at, same, found.clone()));
                return found;
            }
            _ => {}
        }
        let asked = self.ask(|probe, nvml| {
            let by_address = |card: &&Display| (Seat::Address(card.address.clone()), card.name());
            Ok(probe.devices(nvml, cards.iter().map(by_address).collect()))
        });
        match asked {
            Ok(found) => {
                if may_all_sleep {
                    self.resting = Some((Instant::now(), addresses, found.clone()));
                }
                found
            }
            Err(error) => self.without_answer(cards, &reason(&error)),
        }
    }

    /// Returns GPUs that nobody answers for.
    fn without_answer(&self, cards: &[&Display], reason: &str) -> GpuProbe {
        let unknown = |card: &&Display| UnknownGpu { name: self.name(card), ..card.unknown(reason.to_owned()) };
        GpuProbe { unknown: cards.iter().map(unknown).collect(), ..GpuProbe::default() }
    }

    /// Samples whatever NVML lists, where the bus shows no NVIDIA GPU.
    fn unseen(&mut self, bus: &Bus) -> GpuProbe {
        // A driver without a GPU is not asked: it would try to load kernel modules every time.
        if self.library.is_none() && !bus.may_hide_gpus() {
            self.open = None;
            return GpuProbe::default();
        }
        let asked = self.ask(|probe, nvml| {
            let count = nvml.device_count()?.min(MOST_GPUS);
            probe.known.retain(|seat, _| *seat < Seat::Index(count));
            Ok(probe.devices(nvml, (0..count).map(|index| (Seat::Index(index), "NVIDIA GPU".into())).collect()))
        });
        match asked {
            Ok(found) => found,
            Err(error) => self.without_nvml(&error),
        }
    }

    /// Returns what to say of a machine where NVML does not work and no NVIDIA GPU shows on the bus.
    fn without_nvml(&self, error: &NvmlError) -> GpuProbe {
        let mut found = GpuProbe::default();
        let reason = reason(error);
        // A machine without NVIDIA GPUs has no NVML: nothing is wrong. But somebody who names the
        // library expects it to work, and GPUs that were there a moment ago are not gone.
        if self.library.is_some() && self.known.is_empty() {
            found.problems.push(reason.clone());
        }
        found.unknown.extend(self.known.values().map(|known| UnknownGpu {
            id: known.id.clone(),
            name: known.name.clone(),
            reason: reason.clone(),
        }));
        found
    }

    /// Asks NVML, opening it where it is not. A handle that was kept and has gone stale (the driver
    /// was reloaded, say) is opened anew once; one that fails after that is dropped for the next
    /// sample to try.
    fn ask(
        &mut self,
        question: impl Fn(&mut NvmlProbe, &Nvml) -> Result<Asked, NvmlError>,
    ) -> Result<GpuProbe, NvmlError> {
        let mut was_kept = self.open.is_some();
        loop {
            let nvml = match self.open.take() {
                Some(nvml) => nvml,
                None => self.load()?,
            };
            let answer = question(self, &nvml);
            let is_stale = match &answer {
                Ok(asked) => asked.is_stale,
                Err(error) => makes_stale(error),
            };
            if !is_stale {
                self.open = Some(nvml);
            } else if std::mem::take(&mut was_kept) {
                continue;
            }
            return answer.map(|asked| asked.found);
        }
    }

    fn load(&self) -> Result<Nvml, NvmlError> {
        let mut builder = Nvml::builder();
        if let Some(library) = &self.library {
            builder.lib_path(library.as_os_str());
        }
        builder.init()
    }

    /// Reads the GPUs at the given seats, each with a name to show where it does not tell its own.
    fn devices(&mut self, nvml: &Nvml, seats: Vec<(Seat, String)>) -> Asked {
        let mut asked = Asked::default();
        asked.found.driver = nvml.sys_driver_version().ok();
        for (seat, fallback_name) in seats {
            match self.device(nvml, &seat, &fallback_name) {
                Ok((known, memory)) => {
                    asked.is_stale |= memory.as_ref().is_err_and(makes_stale);
                    asked.found.devices.push(DeviceSample {
                        id: known.id,
                        name: known.name,
                        vendor: Vendor::Nvidia,
                        memory: Some(memory.map_err(|error| reason(&error))),
                    });
                }
                Err(error) => {
                    asked.is_stale |= makes_stale(&error);
                    asked.found.unknown.push(UnknownGpu { id: seat.id(), name: fallback_name, reason: reason(&error) });
                }
            }
        }
        asked
    }

    /// Reads one GPU. An error of the whole means a GPU that was never read.
    fn device(
        &mut self,
        nvml: &Nvml,
        seat: &Seat,
        fallback_name: &str,
    ) -> Result<(Known, Result<DeviceMemory, NvmlError>), NvmlError> {
        let device = match seat {
            Seat::Address(address) => nvml.device_by_pci_bus_id(address.as_str()),
            Seat::Index(index) => nvml.device_by_index(*index),
        };
        let device = match (device, self.known.get(seat)) {
            (Ok(device), _) => device,
            (Err(error), Some(known)) => return Ok((known.clone(), Err(error))),
            (Err(error), None) => return Err(error),
        };
        let known = match self.known.get(seat) {
            // NVML numbers its GPUs anew after a driver reload.
            Some(known) if matches!(seat, Seat::Address(_)) => known.clone(),
            _ => Known {
                id: match seat {
                    Seat::Address(address) => address.clone(),
                    Seat::Index(_) => device.uuid().unwrap_or_else(|_| seat.id()),
                },
                name: device.name().unwrap_or_else(|_| fallback_name.to_owned()),
            },
        };
        self.known.insert(seat.clone(), known.clone());
        Ok((known, device.memory_info().and_then(|info| memory(&info))))
    }

    /// Returns a GPU that is not asked because it sleeps.
    fn sleeper(&self, card: &Display) -> DeviceSample {
        DeviceSample { id: card.address.clone(), name: self.name(card), vendor: Vendor::Nvidia, memory: None }
    }

    /// Returns the name a card told earlier, or one made of its PCI numbers.
    fn name(&self, card: &Display) -> String {
        let known = self.known.get(&Seat::Address(card.address.clone()));
        known.map_or_else(|| card.name(), |known| known.name.clone())
    }
}

impl Seat {
    /// Returns an identity for a GPU that has not told its own.
    fn id(&self) -> String {
        match self {
            Seat::Address(address) => address.clone(),
            Seat::Index(index) => format!("nvidia-{index}"),
        }
    }
}

/// What NVML answered.
#[derive(Debug, Default)]
struct Asked {
    found: GpuProbe,
    /// The handle will not answer again.
    is_stale: bool,
}

/// Returns why a GPU belongs to somebody else than NVIDIA's driver.
fn foreign_driver(card: &Display) -> Option<String> {
    match card.driver.as_deref()? {
        "nvidia" => None,
        "nouveau" => Some("the nouveau driver runs this GPU: install NVIDIA's own driver to use it for models".into()),
        "vfio-pci" => Some("this GPU is handed to a virtual machine".into()),
        other => Some(format!("the driver {other} runs this GPU, and fitwatch cannot read its memory")),
    }
}

/// Returns the numbers of the driver, held to their bounds.
fn memory(info: &MemoryInfo) -> Result<DeviceMemory, NvmlError> {
    // A GPU that shares the machine's RAM is said to have none.
    if info.total == 0 {
        return Err(NvmlError::NotSupported);
    }
    Ok(DeviceMemory {
        total: Bytes(info.total),
        reserved: Bytes(info.reserved.min(info.total)),
        used: Bytes(info.used.min(info.total)),
        free: Bytes(info.free.min(info.total)),
    })
}

/// Returns whether a handle that gave this error will give no better answer again.
fn makes_stale(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::Uninitialized
            | NvmlError::DriverNotLoaded
            | NvmlError::GpuLost
            | NvmlError::ResetRequired
            | NvmlError::LibRmVersionMismatch
            | NvmlError::Unknown
    )
}

/// Returns an error in words for the user: what is wrong and what to do.
fn reason(error: &NvmlError) -> String {
    let text = match error {
        NvmlError::LibloadingError(error) => {
            return format!("the NVIDIA driver's library cannot be loaded ({error}): install or repair the driver");
        }
        NvmlError::DriverNotLoaded => "the NVIDIA driver is not loaded: load or reinstall it",
        NvmlError::LibRmVersionMismatch => {
            "the NVIDIA driver was updated and the running one does not match its library: restart the machine"
        }
        NvmlError::NoPermission => "this user may not ask the NVIDIA driver: allow access to the GPU's device files",
        NvmlError::OperatingSystem => "the operating system keeps this GPU from programs: allow it in the container",
        NvmlError::NotSupported => "the NVIDIA driver does not tell this GPU's memory (it may share the machine's RAM)",
        NvmlError::NotFound => "the NVIDIA driver does not know this GPU: give it to the container, or reinstall it",
        NvmlError::GpuLost => "the GPU has fallen off the bus: restart the machine",
        NvmlError::ResetRequired => "the GPU needs a reset: restart the machine",
        NvmlError::InsufficientPower => "the GPU lacks power: check its power cables",
        NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => {
            "the NVIDIA driver is too old to tell a GPU's memory: update it to 510 or later"
        }
        other => return format!("the NVIDIA driver does not answer ({other})"),
    };
    text.to_owned()
}
