//! The KV cache and the recurrent state, by device, to the byte.

use super::architecture;
use super::buffer::BufferKind;
use super::draft::drafts;
use super::hyper::Hyper;
use super::place::{Device, Places};
use super::sizes::Sizes;
use super::structure::{BlockKind, Structure};
use super::{Backend, Build, CacheType, Settings, compressed};
use crate::units::Bytes;

/// Bytes on each GPU and in host memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) gpus: Vec<Bytes>,
    pub(super) host: Bytes,
}

impl Spread {
    /// Returns nothing on any of `gpus` devices.
    pub(super) fn new(gpus: usize) -> Spread {
        Spread { gpus: vec![Bytes::ZERO; gpus], host: Bytes::ZERO }
    }

    /// Adds bytes on a device.
    pub(super) fn add(&mut self, place: Device, bytes: Bytes) {
        let sum = match place {
            Device::Gpu(gpu) => &mut self.gpus[gpu],
            Device::Host => &mut self.host,
        };
        *sum = sum.saturating_add(bytes);
    }

    /// Adds other bytes, device by device.
    pub(super) fn add_all(&mut self, other: &Spread) {
        for (sum, &bytes) in self.gpus.iter_mut().zip(&other.gpus) {
            *sum = sum.saturating_add(bytes);
        }
        self.host = self.host.saturating_add(other.host);
    }

    /// Grows by one part of so many.
    pub(super) fn grow_by(&mut self, part: u64) {
        let grown = |bytes: Bytes| bytes.saturating_add(Bytes(bytes.0 / part.max(1)));
        for bytes in self.gpus.iter_mut().chain([&mut self.host]) {
            *bytes = grown(*bytes);
        }
    }

    /// Grows to other bytes, device by device.
    pub(super) fn grow(&mut self, other: &Spread) {
        for (most, &bytes) in self.gpus.iter_mut().zip(&other.gpus) {
            *most = bytes.max(*most);
        }
        self.host = other.host.max(self.host);
    }
}

/// Returns the states that each slot keeps: its own, and one for each drafted token that may have to
/// be taken back (`n_rs_seq`).
pub(super) fn snapshots(structure: &Structure, settings: &Settings) -> u64 {
    let taken_back = architecture::takes_states_back(&structure.architecture);
    if taken_back { 1 + drafts(structure, settings) } else { 1 }
}

/// Adds up the KV cache: [`block_cache`] over all blocks, each on its block's device unless
/// `--no-kv-offload` keeps all of it in host memory.
pub(super) fn kv_cache(
    structure: &Structure,
    settings: &Settings,
    backend: Backend,
    build: Build,
    places: &Places,
    sizes: &Sizes,
) -> Spread {
    let widest = widest_value(structure, sizes);
    let caches_drafting = architecture::caches_drafting(&structure.architecture, build);
    let on = |buffer: BufferKind| -> Vec<Bytes> {
        let bytes = |kind: &BlockKind| {
            if !(kind.mtp && caches_drafting) {
                return block_cache(structure, kind, settings, sizes, widest, buffer);
            }
            // Windows are counted on.
            let kind = BlockKind { cached: true, windowed: structure.memory.windowed, ..*kind };
            block_cache(structure, &kind, settings, sizes, widest, buffer)
        };
        structure.kinds.iter().map(bytes).collect()
    };
    let (on_gpu, on_host) = (on(BufferKind::of(backend)), on(BufferKind::HOST));
    let mut sum = Spread::new(places.gpus());
    for (block, &kind) in (0u32..).zip(&structure.pattern) {
        let place = if settings.offload_kv { places.layer(block) } else { Device::Host };
        let bytes = match place {
            Device::Gpu(_) => &on_gpu,
            Device::Host => &on_host,
        };
        sum.add(place, bytes.get(usize::from(kind)).copied().unwrap_or_default());
    }
    sum
}

/// Adds up the recurrent state: one of every slot, whatever the context, in f32.
pub(super) fn recurrent_state(
    structure: &Structure,
    settings: &Settings,
    backend: Backend,
    places: &Places,
    sizes: &Sizes,
) -> Spread {
    let rows = sizes.slots.saturating_mul(snapshots(structure, settings));
    let on = |buffer: BufferKind| {
        let tensor = |elements: u64| buffer.padded(Bytes(elements).saturating_mul(rows).saturating_mul(4));
        let states = tensor(structure.memory.state_r).saturating_add(tensor(structure.memory.state_s));
        (states, tensor(ngram_state(structure)))
    };
    let (on_gpu, on_host) = (on(BufferKind::of(backend)), on(BufferKind::HOST));
    let ngrams = structure.hyper.number(Hyper::PleLayer);
    let mut sum = Spread::new(places.gpus());
    for (block, _) in (0u32..).zip(structure.block_kinds()).filter(|(_, kind)| kind.recurrent) {
        let place = if settings.offload_kv { places.layer(block) } else { Device::Host };
        let (states, ngram) = if place == Device::Host { on_host } else { on_gpu };
        sum.add(place, states);
        if block.saturating_add(1) == ngrams {
            sum.add(place, ngram);
        }
    }
    sum
}

/// Returns the elements of the state of qwen4exp's embeddings of n-grams, which one block keeps beside
/// its own (`ple_conv_state`).
pub(super) fn ngram_state(structure: &Structure) -> u64 {
    let number = |key: Hyper| u64::from(structure.hyper.number(key));
    if number(Hyper::PleLayer) == 0 {
        return 0;
    }
    let columns = number(Hyper::PleConvKernel).saturating_sub(1).saturating_mul(number(Hyper::PleNgramSize));
    let channels = number(Hyper::HyperConnections).saturating_mul(u64::from(structure.dimensions.embedding));
    columns.saturating_mul(channels)
}

/// Returns the cache of one block: a K and a V tensor over the cells of all streams, and the
/// indexer's where there is one.
fn block_cache(
    structure: &Structure,
    kind: &BlockKind,
    settings: &Settings,
    sizes: &Sizes,
    widest: Option<u64>,
    buffer: BufferKind,
) -> Bytes {
    if compressed::is_used(structure) {
        return compressed::block_cache(structure, kind, settings, sizes, buffer);
    }
    let rows = sizes.cells_of(kind.windowed).saturating_mul(sizes.streams);
    let tensor = |kind: CacheType, width: u64| buffer.cache(kind, width, rows);
    let mut sum = Bytes::ZERO;
    if kind.cached {
        sum = sum.saturating_add(tensor(settings.cache_type_k, kind.width_k()));
        if !structure.memory.keys_only {
            sum = sum.saturating_add(tensor(settings.cache_type_v, widest.unwrap_or(kind.width_v())));
        }
    }
    if kind.indexed {
        let dimensions = &structure.dimensions;
        sum = sum.saturating_add(tensor(settings.cache_type_k, u64::from(dimensions.indexer)));
        sum = sum.saturating_add(tensor(settings.cache_type_v, u64::from(dimensions.indexer_value)));
    }
    sum
}

/// Returns the width that every V has where flash attention was asked off: a transposed V must be
/// as wide as the widest (`[TAG_V_CACHE_VARIABLE]` in `llama-kv-cache.cpp`). `auto` that ends in
/// off keeps the narrow ones, as the cache is made before.
pub(super) fn widest_value(structure: &Structure, sizes: &Sizes) -> Option<u64> {
    if sizes.flash {
        return None;
    }
    structure.kinds.iter().map(BlockKind::width_v).max()
}
