//! The probes against a stand-in for NVIDIA's library and stand-in `sys` trees.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test whose ground cannot be laid fails")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fitwatch::host::probes::{Probes, Roots};
use fitwatch::machine::{DeviceMemory, DeviceSample, GpuProbe, Machine, Reading};
use fitwatch::units::{Bytes, Moment};
use tempfile::TempDir;

#[path = "common/nvml.rs"]
mod nvml_library;

use nvml_library::compile;

const RTX_4090: &str = "gpu NVIDIA_GeForce_RTX_4090 25757220864 3000000000 400000000 0 0000:01:00.0\n";
const RTX_3060: &str = "gpu NVIDIA_GeForce_RTX_3060 12884901888 500000000 300000000 0 0000:04:00.0\n";

#[test]
fn a_machine_without_nvidia_says_nothing_of_nvidia() {
    let desk = Desk::new();
    desk.pci("0000:00:02.0", 0x8086, 0x46a6, "i915", "active", "auto");
    let gpus = Probes::new(None, desk.roots()).sample().gpus;
    assert_eq!(gpus.devices, []);
    assert_eq!(gpus.problems, Vec::<String>::new());
    assert_eq!(gpus.unknown.len(), 1);
    assert_eq!(gpus.unknown[0].name, "Intel GPU (8086:46a6)");
    assert!(gpus.unknown[0].reason.contains("comes later"), "{}", gpus.unknown[0].reason);
}

#[test]
fn screens_without_a_gpu_are_left_out() {
    let desk = Desk::new();
    for (slot, vendor) in [0x1234, 0x1af4, 0x15ad, 0x1a03, 0x102b].into_iter().enumerate() {
        desk.pci(&format!("0000:00:0{slot}.0"), vendor, 0x1111, "bochs-drm", "active", "on");
    }
    desk.pci("0000:03:00.0", 0x1002, 0x744c, "amdgpu", "active", "auto");
    let unknown = Probes::new(None, desk.roots()).sample().gpus.unknown;
    assert_eq!(unknown.len(), 1);
    assert_eq!((unknown[0].id.as_str(), unknown[0].name.as_str()), ("0000:03:00.0", "AMD GPU (1002:744c)"));
}

#[test]
fn a_gpu_without_its_driver_library_is_unknown_and_never_empty() {
    let desk = Desk::new();
    desk.nvidia("0000:01:00.0", "active", "on");
    let gpus = Probes::new(Some(desk.path("missing/libnvidia-ml.so.1")), desk.roots()).sample().gpus;
    assert_eq!(gpus.devices, []);
    assert_eq!(gpus.unknown.len(), 1);
    assert_eq!(gpus.unknown[0].name, "NVIDIA GPU (10de:2684)");
    let reason = &gpus.unknown[0].reason;
    assert!(reason.contains("library cannot be loaded") && reason.contains("missing/libnvidia-ml.so.1"), "{reason}");
}

#[test]
fn a_library_that_the_config_names_and_that_is_missing_is_a_problem() {
    let desk = Desk::new();
    let gpus = Probes::new(Some(desk.path("missing.so")), desk.roots()).sample().gpus;
    assert_eq!(gpus.problems.len(), 1);
    assert!(gpus.problems[0].contains("missing.so"), "{}", gpus.problems[0]);
}

#[test]
fn a_driver_that_is_not_loaded_is_named_and_recovers() {
    let desk = Desk::new();
    desk.nvidia("0000:01:00.0", "active", "on");
    let mut probes = desk.probes();
    let gpus = probes.sample().gpus;
    assert_eq!(gpus.devices, []);
    assert!(gpus.unknown[0].reason.contains("not loaded"), "{}", gpus.unknown[0].reason);
    desk.state(RTX_4090);
    let gpus = probes.sample().gpus;
    assert_eq!((gpus.devices.len(), gpus.unknown.len()), (1, 0));
}

#[test]
fn a_gpu_shows_its_memory_its_name_and_the_driver() {
    let desk = Desk::new();
    desk.state(&format!("driver 580.95\n{RTX_4090}"));
    desk.nvidia("0000:01:00.0", "active", "on");
    let gpus = desk.probes().sample().gpus;
    assert_eq!(gpus.driver.as_deref(), Some("580.95"));
    let device = only(&gpus);
    assert_eq!((device.id.as_str(), device.name.as_str()), ("0000:01:00.0", "NVIDIA GeForce RTX 4090"));
    let expected = DeviceMemory {
        total: Bytes(25_757_220_864),
        reserved: Bytes(400_000_000),
        used: Bytes(3_000_000_000),
        free: Bytes(22_357_220_864),
    };
    assert_eq!(device.memory, Some(Ok(expected)));
    assert_eq!(gpus.unknown, []);
}

#[test]
fn gpus_are_found_where_the_bus_cannot_be_seen() {
    let desk = Desk::new();
    desk.state(&format!("{RTX_4090}{RTX_3060}"));
    let gpus = desk.probes().sample().gpus;
    let ids: Vec<&str> = gpus.devices.iter().map(|device| device.id.as_str()).collect();
    assert_eq!(ids, ["GPU-fake-0", "GPU-fake-1"]);
}

#[test]
fn two_unequal_gpus_keep_their_own_numbers() {
    let desk = Desk::new();
    desk.state(&format!("{RTX_4090}{RTX_3060}"));
    desk.nvidia("0000:04:00.0", "active", "on");
    desk.nvidia("0000:01:00.0", "active", "on");
    let gpus = desk.probes().sample().gpus;
    let totals: Vec<(&str, Bytes)> =
        gpus.devices.iter().map(|device| (device.id.as_str(), memory(device).total)).collect();
    assert_eq!(totals, [("0000:01:00.0", Bytes(25_757_220_864)), ("0000:04:00.0", Bytes(12_884_901_888))]);
}

#[test]
fn memory_is_read_anew_at_every_sample() {
    let desk = Desk::new();
    desk.state(RTX_4090);
    desk.nvidia("0000:01:00.0", "active", "on");
    let mut probes = desk.probes();
    assert_eq!(memory(only(&probes.sample().gpus)).used, Bytes(3_000_000_000));
    desk.state(&RTX_4090.replace(" 3000000000 ", " 21000000000 "));
    assert_eq!(memory(only(&probes.sample().gpus)).used, Bytes(21_000_000_000));
}

#[test]
fn a_refused_call_is_a_reason_and_not_a_number() {
    let desk = Desk::new();
    desk.state(&format!("{RTX_4090}{RTX_3060}fail nvmlDeviceGetMemoryInfo_v2 4 0\n"));
    desk.nvidia("0000:01:00.0", "active", "on");
    desk.nvidia("0000:04:00.0", "active", "on");
    let gpus = desk.probes().sample().gpus;
    let refused = gpus.devices[0].memory.clone().unwrap().unwrap_err();
    assert!(refused.contains("may not ask"), "{refused}");
    assert_eq!(memory(&gpus.devices[1]).total, Bytes(12_884_901_888));
}

#[test]
fn a_user_who_may_not_open_the_driver_is_told_so() {
    let desk = Desk::new();
    desk.state(&format!("{RTX_4090}fail nvmlInit_v2 4\n"));
    desk.nvidia("0000:01:00.0", "active", "on");
    let gpus = desk.probes().sample().gpus;
    assert_eq!(gpus.devices, []);
    assert!(gpus.unknown[0].reason.contains("may not ask"), "{}", gpus.unknown[0].reason);
}

#[test]
fn an_updated_driver_asks_for_a_restart() {
    let desk = Desk::new();
    desk.state(&format!("{RTX_4090}fail nvmlInit_v2 18\n"));
    desk.nvidia("0000:01:00.0", "active", "on");
    assert!(desk.probes().sample().gpus.unknown[0].reason.contains("restart"));
}

#[test]
fn a_lost_gpu_is_unavailable_and_comes_back() {
    let desk = Desk::new();
    desk.state(RTX_4090);
    desk.nvidia("0000:01:00.0", "active", "on");
    let (mut probes, mut machine) = (desk.probes(), Machine::default());
    machine.sampled(&probes.sample(), Moment(0));
    for failing in ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetHandleByPciBusId_v2"] {
        desk.state(&format!("{RTX_4090}fail {failing} 15\n"));
        assert!(machine.sampled(&probes.sample(), Moment(1_000)));
        let device = &machine.picture().devices[0];
        assert_eq!(device.name, "NVIDIA GeForce RTX 4090");
        let Reading::Unavailable { reason } = &device.memory else { panic!("{device:?}") };
        assert!(reason.contains("fallen off the bus"), "{reason}");
        desk.state(RTX_4090);
        assert!(machine.sampled(&probes.sample(), Moment(2_000)));
        assert!(matches!(machine.picture().devices[0].memory, Reading::Fresh { .. }));
    }
}

#[test]
fn a_reloaded_driver_is_opened_anew_within_the_same_sample() {
    let desk = Desk::new();
    desk.state(&format!("{RTX_4090}record\n"));
    desk.nvidia("0000:01:00.0", "active", "on");
    let mut probes = desk.probes();
    probes.sample();
    desk.state(&format!("{RTX_4090}record\nfail nvmlDeviceGetHandleByPciBusId_v2 1\n"));
    probes.sample();
    assert_eq!(desk.calls("nvmlInit_v2"), 2, "a kept handle that went stale is replaced once");
}

#[test]
fn a_driver_too_old_to_tell_is_named() {
    let desk = Desk::with_library(old_driver());
    desk.state(RTX_4090);
    desk.nvidia("0000:01:00.0", "active", "on");
    let gpus = desk.probes().sample().gpus;
    let reason = only(&gpus).memory.clone().unwrap().unwrap_err();
    assert!(reason.contains("too old") && reason.contains("510"), "{reason}");
}

#[test]
fn a_gpu_that_shares_the_machines_ram_is_not_shown_with_zero_bytes() {
    let desk = Desk::new();
    desk.state("gpu NVIDIA_GB10 0 0 0 0 0000:01:00.0\n");
    desk.nvidia("0000:01:00.0", "active", "on");
    assert!(only(&desk.probes().sample().gpus).memory.clone().unwrap().is_err());
}

#[test]
fn a_sleeping_gpu_is_listed_and_never_touched() {
    let desk = Desk::new();
    desk.state(&format!("{RTX_4090}record\n"));
    for status in ["suspended", "suspending"] {
        desk.nvidia("0000:01:00.0", status, "auto");
        let gpus = desk.probes().sample().gpus;
        assert_eq!(only(&gpus).memory, None);
        assert_eq!((gpus.unknown.len(), gpus.problems.len()), (0, 0));
    }
    assert_eq!(desk.calls(""), 0, "NVML was called");
}

#[test]
fn a_laptop_gpu_keeps_its_name_and_last_memory_while_it_sleeps() {
    let desk = Desk::new();
    desk.state(&format!("{RTX_4090}record\n"));
    desk.nvidia("0000:01:00.0", "active", "auto");
    let (mut probes, mut machine) = (desk.probes(), Machine::default());
    machine.sampled(&probes.sample(), Moment(7_000));
    assert_eq!((desk.calls("nvmlInit_v2"), desk.calls("nvmlShutdown")), (1, 1), "NVML stays open and keeps it awake");

    desk.nvidia("0000:01:00.0", "suspended", "auto");
    assert!(machine.sampled(&probes.sample(), Moment(37_000)));
    assert_eq!(desk.calls("nvmlInit_v2"), 1, "a sleeping GPU was touched");
    let device = &machine.picture().devices[0];
    assert_eq!(device.name, "NVIDIA GeForce RTX 4090");
    let Reading::Stale { value, at, reason } = &device.memory else { panic!("{device:?}") };
    assert_eq!((value.used, *at), (Bytes(3_000_000_000), Moment(7_000)));
    assert!(reason.contains("sleeps"), "{reason}");
}

#[test]
fn a_gpu_that_may_fall_asleep_is_not_asked_twice_in_a_moment() {
    let desk = Desk::new();
    desk.state(&format!("{RTX_4090}{RTX_3060}record\n"));
    desk.nvidia("0000:01:00.0", "active", "auto");
    let mut probes = desk.probes();
    let first = probes.sample().gpus;
    assert_eq!(probes.sample().gpus, first);
    assert_eq!(desk.calls("nvmlInit_v2"), 1);
    desk.nvidia("0000:04:00.0", "active", "auto");
    assert_eq!(probes.sample().gpus.devices.len(), 2, "another one woke up");
    desk.nvidia("0000:04:00.0", "suspended", "auto");
    assert_eq!(probes.sample().gpus.devices[1].memory, None);
    desk.nvidia("0000:01:00.0", "active", "on");
    probes.sample();
    probes.sample();
    assert_eq!(desk.calls("nvmlDeviceGetMemoryInfo_v2"), 6, "one that never sleeps is asked every time");
}

#[test]
fn beside_an_awake_gpu_a_sleeping_one_is_left_alone() {
    let desk = Desk::new();
    desk.state(&format!("{RTX_4090}{RTX_3060}record\n"));
    desk.nvidia("0000:01:00.0", "suspended", "auto");
    desk.nvidia("0000:04:00.0", "active", "auto");
    let gpus = desk.probes().sample().gpus;
    assert_eq!(gpus.devices[0].memory, None);
    assert_eq!(memory(&gpus.devices[1]).total, Bytes(12_884_901_888));
    assert_eq!(desk.calls("nvmlDeviceGetHandleByPciBusId_v2"), 1);
    assert_eq!(desk.calls("nvmlDeviceGetHandleByIndex_v2"), 0);
}

#[test]
fn nvml_stays_open_where_no_gpu_sleeps() {
    let desk = Desk::new();
    desk.state(&format!("{RTX_4090}record\n"));
    desk.nvidia("0000:01:00.0", "active", "on");
    let mut probes = desk.probes();
    probes.sample();
    probes.sample();
    assert_eq!((desk.calls("nvmlInit_v2"), desk.calls("nvmlShutdown")), (1, 0));
    assert_eq!(desk.calls("nvmlDeviceGetMemoryInfo_v2"), 2);
}

#[test]
fn a_gpu_of_another_driver_is_not_asked() {
    let desk = Desk::new();
    desk.state(&format!("{RTX_4090}record\n"));
    desk.pci("0000:01:00.0", 0x10de, 0x2684, "nouveau", "active", "on");
    desk.pci("0000:04:00.0", 0x10de, 0x2504, "vfio-pci", "active", "on");
    let gpus = desk.probes().sample().gpus;
    assert_eq!(gpus.devices, []);
    assert!(gpus.unknown[0].reason.contains("nouveau"), "{}", gpus.unknown[0].reason);
    assert!(gpus.unknown[1].reason.contains("virtual machine"), "{}", gpus.unknown[1].reason);
    assert_eq!(desk.calls(""), 0);
}

#[test]
fn a_gpu_the_driver_does_not_know_is_unknown() {
    let desk = Desk::new();
    desk.state(RTX_4090);
    desk.nvidia("0000:01:00.0", "active", "on");
    desk.nvidia("0000:09:00.0", "active", "on");
    let gpus = desk.probes().sample().gpus;
    assert_eq!(only(&gpus).id, "0000:01:00.0");
    assert_eq!(gpus.unknown[0].id, "0000:09:00.0");
    assert!(gpus.unknown[0].reason.contains("does not know this GPU"), "{}", gpus.unknown[0].reason);
}

#[test]
fn broken_files_on_the_bus_are_passed_over() {
    let desk = Desk::new();
    desk.nvidia("0000:01:00.0", "active", "on");
    fs::write(desk.path("sys/bus/pci/devices/0000:01:00.0/class"), "display, mostly\n").unwrap();
    desk.nvidia("0000:02:00.0", "active", "on");
    fs::write(desk.path("sys/bus/pci/devices/0000:02:00.0/vendor"), "0x10de10de\n").unwrap();
    fs::create_dir_all(desk.path("sys/bus/pci/devices/empty")).unwrap();
    let gpus = Probes::new(None, desk.roots()).sample().gpus;
    assert_eq!(gpus, GpuProbe::default());
}

/// A machine made of a temporary folder: `sys`, the library and its state.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Desk {
        Desk::with_library(library())
    }

    fn with_library(library: &Path) -> Desk {
        let desk = Desk { folder: tempfile::tempdir().unwrap() };
        // Each test loads its own copy: the state lies beside the library.
        fs::copy(library, desk.path("libnvidia-ml.so.1")).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn roots(&self) -> Roots {
        Roots { sys: self.path("sys") }
    }

    fn probes(&self) -> Probes {
        Probes::new(Some(self.path("libnvidia-ml.so.1")), self.roots())
    }

    fn state(&self, text: &str) {
        fs::write(self.path("libnvidia-ml.so.1.state"), text).unwrap();
    }

    /// Returns how often a function was called, or any function.
    fn calls(&self, symbol: &str) -> usize {
        let calls = fs::read_to_string(self.path("libnvidia-ml.so.1.state.calls")).unwrap_or_default();
        calls.lines().filter(|line| symbol.is_empty() || *line == symbol).count()
    }

    fn nvidia(&self, address: &str, status: &str, control: &str) {
        self.pci(address, 0x10de, 0x2684, "nvidia", status, control);
    }

    fn pci(&self, address: &str, vendor: u16, device: u16, driver: &str, status: &str, control: &str) {
        let folder = self.path("sys/bus/pci/devices").join(address);
        fs::create_dir_all(folder.join("power")).unwrap();
        fs::write(folder.join("class"), "0x030000\n").unwrap();
        fs::write(folder.join("vendor"), format!("0x{vendor:04x}\n")).unwrap();
        fs::write(folder.join("device"), format!("0x{device:04x}\n")).unwrap();
        fs::write(folder.join("power/runtime_status"), format!("{status}\n")).unwrap();
        fs::write(folder.join("power/control"), format!("{control}\n")).unwrap();
        let _ = fs::remove_file(folder.join("driver"));
        symlink(format!("../../../bus/pci/drivers/{driver}"), folder.join("driver")).unwrap();
    }
}

fn only(gpus: &GpuProbe) -> &DeviceSample {
    assert_eq!(gpus.devices.len(), 1, "{gpus:?}");
    &gpus.devices[0]
}

fn memory(device: &DeviceSample) -> DeviceMemory {
    device.memory.clone().expect("it is awake").expect("it can be read")
}

fn library() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    &LIBRARY.get_or_init(|| compile(&[])).1
}

fn old_driver() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    &LIBRARY.get_or_init(|| compile(&["--cfg", "old_driver"])).1
}
