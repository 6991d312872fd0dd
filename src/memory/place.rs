//! Which device each layer goes to.

use super::{Backend, Devices, GpuLayers, Settings};

/// Where a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    /// A GPU by its index.
    Gpu(usize),
    /// Host memory.
    Host,
}

/// The layers' places (`get_layer_buft_list` in `llama_model_base::load_tensors`).
pub(super) struct Places {
    /// The place of each block, then of the output layer.
    layers: Vec<Device>,
    gpus: usize,
    on_gpus: u32,
}

impl Places {
    /// Places the layers of a model of `blocks` blocks.
    pub(super) fn new(blocks: u32, settings: &Settings, devices: &Devices) -> Places {
        let layers = blocks.saturating_add(1);
        let asked = match settings.gpu_layers {
            GpuLayers::All => layers,
            GpuLayers::Count(count) => count.min(layers),
        };
        let shares = if devices.backend == Backend::None { Vec::new() } else { shares(devices) };
        let on_gpus = if shares.is_empty() { 0 } else { asked };
        let first = layers - on_gpus;
        let place = |layer: u32| {
            if layer < first {
                return Device::Host;
            }
            // llama.cpp compares floats, so this does: the layer at a boundary has to fall alike.
            let place = (layer - first) as f32 / on_gpus as f32;
            let gpu = shares.iter().take_while(|&&share| share <= place).count();
            Device::Gpu(gpu.min(shares.len() - 1))
        };
        Places { layers: (0..layers).map(place).collect(), gpus: shares.len(), on_gpus }
    }

    /// Returns where a block is; the block after the last is the output layer.
    pub(super) fn layer(&self, layer: u32) -> Device {
        self.layers.get(layer as usize).copied().unwrap_or(Device::Host)
    }

    /// Returns the places of the layers in order, the output layer last.
    pub(super) fn layers(&self) -> impl Iterator<Item = Device> {
        self.layers.iter().copied()
    }

    /// Returns where the output layer is.
    pub(super) fn output(&self) -> Device {
        self.layers.last().copied().unwrap_or(Device::Host)
    }

    /// Returns the layers on GPUs.
    pub(super) const fn on_gpus(&self) -> u32 {
        self.on_gpus
    }

    /// Returns how many GPUs there are.
    pub(super) fn gpus(&self) -> usize {
        self.gpus
    }
}

/// Returns the GPUs' cumulated shares of memory. GPUs without any known memory share alike.
fn shares(devices: &Devices) -> Vec<f32> {
    let known = devices.gpus.iter().any(|gpu| gpu.memory.0 != 0);
    let mut sum = 0.0f32;
    let mut shares: Vec<f32> = Vec::with_capacity(devices.gpus.len());
    for gpu in &devices.gpus {
        sum += if known { gpu.memory.0 as f32 } else { 1.0 };
        shares.push(sum);
    }
    for share in &mut shares {
        *share /= sum;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Gpu;
    use crate::units::Bytes;

    fn devices(memory: &[u64]) -> Devices {
        let gpus =
            memory.iter().map(|&gib| Gpu { name: String::new(), memory: Bytes(gib << 30), overhead: None }).collect();
        Devices { backend: Backend::Cuda, gpus }
    }

    fn counts(blocks: u32, layers: GpuLayers, memory: &[u64]) -> (u32, Vec<u32>) {
        let settings = Settings { gpu_layers: layers, ..Settings::default() };
        let places = Places::new(blocks, &settings, &devices(memory));
        let mut gpus = vec![0; memory.len()];
        let mut host = 0;
        for layer in 0..=blocks {
            match places.layer(layer) {
                Device::Gpu(gpu) => gpus[gpu] += 1,
                Device::Host => host += 1,
            }
        }
        (host, gpus)
    }

    #[test]
    fn the_last_layers_go_to_the_gpu_first() {
        let settings = Settings { gpu_layers: GpuLayers::Count(1), ..Settings::default() };
        let places = Places::new(32, &settings, &devices(&[24]));
        assert_eq!((places.layer(31), places.output()), (Device::Host, Device::Gpu(0)));
        assert_eq!(counts(32, GpuLayers::Count(32), &[24]), (1, vec![32]));
    }

    #[test]
    fn more_layers_than_there_are_mean_all() {
        assert_eq!(counts(32, GpuLayers::Count(u32::MAX), &[24]), (0, vec![33]));
        assert_eq!(counts(32, GpuLayers::All, &[24]), (0, vec![33]));
    }

    #[test]
    fn layers_spread_over_gpus_by_their_memory() {
        assert_eq!(counts(47, GpuLayers::All, &[24, 24]), (0, vec![24, 24]));
        assert_eq!(counts(47, GpuLayers::All, &[24, 12]), (0, vec![32, 16]));
        assert_eq!(counts(47, GpuLayers::Count(12), &[24, 12]), (36, vec![8, 4]));
        assert_eq!(counts(3, GpuLayers::All, &[0, 0]), (0, vec![2, 2]), "unknown memory is shared alike");
    }

    #[test]
    fn without_a_gpu_everything_stays_in_host_memory() {
        assert_eq!(counts(4, GpuLayers::All, &[]), (5, vec![]));
        let settings = Settings::default();
        let places = Places::new(4, &settings, &Devices { backend: Backend::None, ..devices(&[24]) });
        assert_eq!(places.layer(4), Device::Host);
    }
}
