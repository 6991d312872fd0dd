//! The second context of a model that drafts for itself with its MTP (`NextN`) blocks.
//!
//! llama-server gives it a cache and compute buffers of its own beside the first context's
//! (`common_speculative_init_result`). Its cache is as long as the other, always f16, and holds the
//! MTP blocks alone.

use super::architecture;
use super::buffer::BufferKind;
use super::cache::{Spread, widest_value};
use super::hyper::Hyper;
use super::place::{Device, Places};
use super::sizes::Sizes;
use super::structure::{BlockKind, Structure};
use super::{Backend, CacheType, Settings};
use crate::units::Bytes;

/// The tokens that are drafted at once by default, with llama.cpp (`draft.n_max`) and LM Studio.
pub(super) const DRAFTS: u64 = 3;

/// Returns the tokens that are drafted at once, 0 where the model does not draft for itself.
pub(super) fn drafts(structure: &Structure, settings: &Settings) -> u64 {
    if settings.mtp && architecture::drafts_itself(structure) { DRAFTS } else { 0 }
}

/// The context that drafts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draft {
    /// What it is loaded with.
    pub(super) settings: Settings,
    /// Its sizes.
    pub(super) sizes: Sizes,
}

impl Draft {
    /// Returns the context that drafts, for a context of `sizes` that answers.
    pub(super) fn new(structure: &Structure, settings: &Settings, sizes: &Sizes) -> Option<Draft> {
        if drafts(structure, settings) == 0 {
            return None;
        }
        let settings = Settings {
            context: u32::try_from(sizes.context()).unwrap_or(u32::MAX),
            cache_type_k: CacheType::F16,
            cache_type_v: CacheType::F16,
            embeddings: false,
            mtp: false,
            ..settings.clone()
        };
        let sizes = Sizes::of_draft(structure, &settings);
        Some(Draft { settings, sizes })
    }

    /// Adds up its cache.
    pub(super) fn cache(&self, structure: &Structure, backend: Backend, places: &Places) -> Spread {
        let widest = widest_value(structure, &self.sizes);
        let mut sum = Spread::new(places.gpus());
        for (block, kind) in (0u32..).zip(structure.block_kinds()).filter(|(_, kind)| kind.mtp) {
            let place = if self.settings.offload_kv { places.layer(block) } else { Device::Host };
            let buffer = if place == Device::Host { BufferKind::HOST } else { BufferKind::of(backend) };
            sum.add(place, self.block_cache(structure, kind, widest, buffer));
        }
        sum
    }

    fn block_cache(&self, structure: &Structure, kind: &BlockKind, widest: Option<u64>, buffer: BufferKind) -> Bytes {
        let rows = self.sizes.cells_of(kind.windowed).saturating_mul(self.sizes.streams);
        let tensor = |width: u64| buffer.cache(CacheType::F16, width, rows);
        let mut sum = tensor(kind.width_k());
        if !structure.memory.keys_only {
            sum = sum.saturating_add(tensor(widest.unwrap_or(kind.width_v())));
        }
        // The others' MTP blocks look at every cell; this one keeps its indexer.
        if structure.architecture == "qwen4exp" && structure.hyper.number(Hyper::IndexerKeyLength) != 0 {
            sum = sum.saturating_add(tensor(u64::from(structure.dimensions.indexer)));
        }
        sum
    }

    /// Returns its output buffer: of every slot a row of logits, the hidden state that the next draft
    /// starts from, and what sampling on the device puts out, which is probabilities and twice the
    /// candidates (`output_reserve`).
    pub(super) fn output(&self, structure: &Structure) -> Bytes {
        let dimensions = &structure.dimensions;
        let vocabulary = u64::from(dimensions.vocabulary);
        let sampled = vocabulary.saturating_mul(3).saturating_add(1);
        let row = vocabulary.saturating_add(sampled).saturating_add(u64::from(dimensions.embedding_out));
        Bytes(row).saturating_mul(4).saturating_mul(self.sizes.slots)
    }
}
