//! The settings and devices that `estimate` was given.

use super::args::{DevicesArguments, SettingsArguments};
use super::failure::Failure;
use crate::config::FitConfig;
use crate::fit::{Sense, Supply};
use crate::lmstudio::{SettingsBasis, SettingsFor};
use crate::machine::{Device, DeviceMemory, MemorySample, Picture, Reading, Vendor};
use crate::memory::{Backend, Devices, Gpu, GpuLayers};
use crate::units::Bytes;

/// Returns the usual settings with those given put in their place.
pub(super) fn settings(given: &SettingsArguments, usual: SettingsFor, context_train: u32) -> SettingsFor {
    let mut settings = usual.settings.clone();
    put(&mut settings.context, given.context);
    if settings.context == 0 {
        settings.context = context_train;
    }
    put(&mut settings.gpu_layers, given.gpu_layers);
    put(&mut settings.cpu_moe, given.cpu_moe);
    put(&mut settings.cache_type_k, given.cache_type_k);
    put(&mut settings.cache_type_v, given.cache_type_v);
    put(&mut settings.batch, given.batch);
    put(&mut settings.ubatch, given.ubatch);
    settings.ubatch = settings.ubatch.min(settings.batch);
    put(&mut settings.parallel, given.parallel);
    settings.unified_kv = (settings.unified_kv || given.unified_kv) && !given.no_unified_kv;
    put(&mut settings.flash_attention, given.flash_attention);
    settings.offload_kv &= !given.no_kv_offload;
    settings.swa_full |= given.swa_full;
    settings.mmap &= !given.no_mmap;
    settings.mtp |= given.mtp;
    if settings == usual.settings {
        return usual;
    }
    let assumptions = vec!["what is not given is LM Studio's default".to_owned()];
    SettingsFor { settings, basis: SettingsBasis::Given, assumptions }
}

/// What an estimate is for: a machine, and whether it is this one.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The devices of the bill.
    pub(super) devices: Devices,
    /// What can be had right now.
    pub(super) now: Supply,
    /// What can be had at the best.
    pub(super) best: Supply,
    /// Whether a verdict means something: a GPU without a size has none.
    pub(super) is_judged: bool,
}

/// Returns what the estimate is for: the devices given, else those of this machine.
pub(super) fn target(given: &DevicesArguments, machine: Picture, config: &FitConfig) -> Result<Target, Failure> {
    let mut picture = machine;
    if given.backend == Some(Backend::None) {
        if !given.gpus.is_empty() {
            return Err(Failure::Usage("--backend none leaves no use for --gpu".into()));
        }
        (picture.devices, picture.unknown) = (Vec::new(), Vec::new());
    } else if !given.gpus.is_empty() {
        picture.devices = given.gpus.iter().map(|(name, memory)| device(name, *memory)).collect();
        picture.unknown = Vec::new();
    }
    if let Some(ram) = given.ram {
        let value = MemorySample { total: ram, available: ram, ..MemorySample::default() };
        picture.memory = Reading::Fresh { value };
    }
    let mut now = Supply::of(&picture, config, Sense::Now);
    let mut best = Supply::of(&picture, config, Sense::Machine);
    let backend = match given.backend {
        Some(backend) => backend,
        None if given.gpus.is_empty() => now.backend,
        None if cfg!(target_os = "macos") => Backend::Metal,
        None => Backend::Cuda,
    };
    if backend != Backend::None && now.gpus.is_empty() {
        // Placed on a GPU nobody gave a size: the bill stands, a verdict would not.
        let gpu = Gpu { name: backend.name().to_uppercase(), memory: Bytes(u64::MAX), overhead: None };
        return Ok(Target { devices: Devices { backend, gpus: vec![gpu] }, now, best, is_judged: false });
    }
    (now.backend, best.backend) = (backend, backend);
    let devices = if given.gpus.is_empty() {
        now.devices()
    } else {
        // Sizes that were typed are taken at their word, margins and all.
        let gpus = now.gpus.iter().zip(&given.gpus);
        Devices {
            backend,
            gpus: gpus
                .map(|(gpu, given)| Gpu { name: gpu.name.to_string(), memory: given.1, overhead: None })
                .collect(),
        }
    };
    Ok(Target { devices, now, best, is_judged: true })
}

/// Returns whether all layers are asked onto GPUs that are not there.
pub(super) fn asks_for_missing_gpus(given: &SettingsArguments, devices: &Devices) -> bool {
    devices.gpus.is_empty() && !matches!(given.gpu_layers, None | Some(GpuLayers::Count(0)))
}

fn device(name: &str, memory: Bytes) -> Device {
    let value = DeviceMemory { total: memory, reserved: Bytes::ZERO, used: Bytes::ZERO, free: memory };
    Device { id: name.to_owned(), name: name.to_owned(), vendor: Vendor::Other, memory: Reading::Fresh { value } }
}

fn put<T>(place: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *place = given;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{CacheType, Settings};

    #[test]
    fn only_what_is_given_is_changed() {
        let given = SettingsArguments {
            context: Some(32_768),
            batch: Some(256),
            cache_type_k: Some(CacheType::Q8_0),
            no_unified_kv: true,
            no_kv_offload: true,
            ..SettingsArguments::default()
        };
        let changed = Settings {
            context: 32_768,
            batch: 256,
            // The physical batch never exceeds the logical one.
            ubatch: 256,
            cache_type_k: CacheType::Q8_0,
            unified_kv: false,
            offload_kv: false,
            ..Settings::default()
        };
        let settings = settings(&given, usual(), 131_072);
        assert_eq!((settings.settings, settings.basis), (changed, SettingsBasis::Given));
    }

    #[test]
    fn nothing_given_leaves_the_defaults() {
        assert_eq!(settings(&SettingsArguments::default(), usual(), 131_072), usual());
    }

    #[test]
    fn the_longest_context_is_the_models_own() {
        let given = SettingsArguments { context: Some(0), ..SettingsArguments::default() };
        assert_eq!(settings(&given, usual(), 131_072).settings.context, 131_072);
    }

    #[test]
    fn gpus_that_are_given_take_the_place_of_the_machines() {
        let given = DevicesArguments {
            gpus: vec![("A".into(), Bytes(24_000_000_000)), ("A".into(), Bytes(12_000_000_000))],
            ram: Some(Bytes(64_000_000_000)),
            ..DevicesArguments::default()
        };
        let target = target(&given, machine(), &FitConfig::default()).unwrap();
        let gpus: Vec<_> = target.devices.gpus.iter().map(|gpu| (gpu.name.as_str(), gpu.memory.0)).collect();
        assert_eq!(gpus, [("A", 24_000_000_000), ("A (2)", 12_000_000_000)]);
        // The larger margin is taken off: 5 % of the first, 512 MiB of the second.
        let available: Vec<u64> = target.now.gpus.iter().map(|gpu| gpu.available.0).collect();
        assert_eq!(available, [22_800_000_000, 11_400_000_000]);
        assert_eq!(target.now.ram, Some(Bytes(62_000_000_000)));
        assert!(target.is_judged);
    }

    #[test]
    fn no_backend_means_no_gpu() {
        let given = DevicesArguments { backend: Some(Backend::None), ..DevicesArguments::default() };
        let target = target(&given, machine(), &FitConfig::default()).unwrap();
        assert_eq!(target.devices, Devices::none());
        assert!(target.now.gpus.is_empty() && target.is_judged);
    }

    #[test]
    fn a_backend_drives_the_machines_own_gpus() {
        let given = DevicesArguments { backend: Some(Backend::Vulkan), ..DevicesArguments::default() };
        let target = target(&given, machine(), &FitConfig::default()).unwrap();
        assert_eq!((target.devices.backend, target.devices.gpus.len()), (Backend::Vulkan, 1));
        assert!(target.is_judged);
    }

    #[test]
    fn a_gpu_of_no_size_has_a_bill_and_no_verdict() {
        let given = DevicesArguments { backend: Some(Backend::Cuda), ..DevicesArguments::default() };
        let target = target(&given, Picture { devices: Vec::new(), ..machine() }, &FitConfig::default()).unwrap();
        assert_eq!((target.devices.gpus.len(), target.is_judged), (1, false));
    }

    #[test]
    fn contrary_devices_are_refused() {
        let given = DevicesArguments {
            gpus: vec![("A".into(), Bytes::GIB)],
            backend: Some(Backend::None),
            ..DevicesArguments::default()
        };
        assert!(matches!(target(&given, machine(), &FitConfig::default()), Err(Failure::Usage(_))));
    }

    fn usual() -> SettingsFor {
        SettingsFor { settings: Settings::default(), basis: SettingsBasis::Defaults, assumptions: vec!["a".into()] }
    }

    fn machine() -> Picture {
        let value = MemorySample { total: Bytes(32_000_000_000), ..MemorySample::default() };
        Picture {
            memory: Reading::Fresh { value },
            devices: vec![device("own", Bytes(8_000_000_000))],
            unknown: Vec::new(),
            problems: Vec::new(),
            driver: None,
        }
    }
}
