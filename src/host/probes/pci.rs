//! The display devices on the PCI bus, read without waking any of them.
//!
//! Everything here is a small file that the kernel answers from its own memory.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::machine::UnknownGpu;

const NVIDIA: u16 = 0x10de;
const AMD: u16 = 0x1002;
const INTEL: u16 = 0x8086;
const MICROSOFT: u16 = 0x1414;

/// Makers of display devices that drive a screen, or pretend to, and compute nothing: QEMU and
/// bochs, virtio, Red Hat's QXL, `VMware`, `VirtualBox`, Parallels, Hyper-V, Cirrus, and the
/// management chips of servers (ASPEED, Matrox, Silicon Motion, `HiSilicon`, XGI, Amazon).
const NO_GPUS: [u16; 14] =
    [0x1234, 0x1af4, 0x1b36, 0x15ad, 0x80ee, 0x1ab8, MICROSOFT, 0x1013, 0x1a03, 0x102b, 0x126f, 0x19e5, 0x18ca, 0x1d0f];

/// The bus as far as fitwatch cares.
#[derive(Debug, Default)]
pub(super) struct Bus {
    /// Display devices by address.
    displays: Vec<Display>,
    /// The bus shows everything that is there. Not so on Windows and macOS, in WSL (which has its
    /// GPU beside the bus) and in sandboxes.
    shows_all: bool,
}

/// A display device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Display {
    /// Its address, `0000:01:00.0`.
    pub(super) address: String,
    vendor: u16,
    device: u16,
    /// The driver bound to it, where the kernel says so.
    pub(super) driver: Option<String>,
    /// It is powered down.
    pub(super) sleeps: bool,
    /// It powers itself down when nobody uses it.
    pub(super) may_sleep: bool,
}

impl Bus {
    /// Reads the bus below the root of the `sys` file system.
    pub(super) fn read(sys: &Path) -> Bus {
        let Ok(entries) = fs::read_dir(sys.join("bus/pci/devices")) else {
            return Bus::default();
        };
        let mut bus = Bus::default();
        for entry in entries.flatten() {
            bus.shows_all = true;
            let Ok(address) = entry.file_name().into_string() else { continue };
            bus.displays.extend(display(address, &entry.path()));
        }
        if bus.displays.iter().any(|display| display.vendor == MICROSOFT) {
            bus.shows_all = false;
        }
        bus.displays.sort_by(|one, other| one.address.cmp(&other.address));
        bus
    }

    /// Returns NVIDIA's devices in the order of their addresses.
    pub(super) fn nvidia(&self) -> Vec<&Display> {
        self.displays.iter().filter(|display| display.vendor == NVIDIA).collect()
    }

    /// Returns whether a GPU may be there that the bus does not show.
    pub(super) fn may_hide_gpus(&self) -> bool {
        !self.shows_all
    }

    /// Returns the GPUs whose memory no probe reads yet.
    pub(super) fn unsupported(&self) -> impl Iterator<Item = UnknownGpu> {
        self.displays.iter().filter(|display| display.vendor != NVIDIA && !NO_GPUS.contains(&display.vendor)).map(
            |display| {
                let whose = match display.vendor {
                    AMD => "AMD GPUs",
                    INTEL => "Intel GPUs",
                    _ => "this maker's GPUs",
                };
                display.unknown(format!("support for {whose} comes later: its memory is not read yet"))
            },
        )
    }
}

impl Display {
    /// Returns a name for a device that nobody has asked for its own.
    pub(super) fn name(&self) -> String {
        let vendor = match self.vendor {
            NVIDIA => "NVIDIA GPU",
            AMD => "AMD GPU",
            INTEL => "Intel GPU",
            _ => "GPU",
        };
        format!("{vendor} ({:04x}:{:04x})", self.vendor, self.device)
    }

    /// Returns the device as one whose memory is unknown.
    pub(super) fn unknown(&self, reason: String) -> UnknownGpu {
        UnknownGpu { id: self.address.clone(), name: self.name(), reason }
    }
}

/// Returns the device in a folder of the bus where it is a display device.
fn display(address: String, folder: &Path) -> Option<Display> {
    let class = hexadecimal(&folder.join("class"))?;
    let vendor = u16::try_from(hexadecimal(&folder.join("vendor"))?).ok()?;
    // VGA, 3D and other display controllers; AMD's largest accelerators call themselves processors.
    let is_display = matches!(class >> 8, 0x0300 | 0x0302 | 0x0380) || (class >> 8 == 0x1200 && vendor == AMD);
    if !is_display {
        return None;
    }
    let device = u16::try_from(hexadecimal(&folder.join("device"))?).ok()?;
    let driver = fs::read_link(folder.join("driver")).ok();
    let driver = driver.and_then(|target| Some(target.file_name()?.to_str()?.to_owned()));
    let status = word(&folder.join("power/runtime_status"));
    Some(Display {
        address,
        vendor,
        device,
        driver,
        sleeps: matches!(status.as_deref(), Some("suspended" | "suspending")),
        may_sleep: word(&folder.join("power/control")).as_deref() == Some("auto"),
    })
}

fn hexadecimal(path: &Path) -> Option<u32> {
    u32::from_str_radix(word(path)?.strip_prefix("0x")?, 16).ok()
}

/// Returns the word in a small file.
fn word(path: &Path) -> Option<String> {
    let mut text = [0; 64];
    let length = File::open(path).ok()?.read(&mut text).ok()?;
    Some(std::str::from_utf8(&text[..length]).ok()?.trim().to_owned())
}
