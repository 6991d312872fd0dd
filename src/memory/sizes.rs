//! What llama.cpp makes of the settings: cells, streams, tokens of a micro-batch, rows of logits.

use super::architecture::has_encoder;
use super::draft::drafts;
use super::{EngineProfile, FlashAttention, LogitRows, Settings, Structure, compressed};

/// llama.cpp's `LLAMA_MAX_SEQ`.
const MOST_SLOTS: u32 = 256;
/// Contexts are rounded up to this many cells.
const CELLS: u64 = 256;

/// The sizes that a load ends up with (`llama_context::llama_context` and `llama-kv-cache-iswa.cpp`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Slots, at least one.
    pub(super) slots: u64,
    /// Separate streams of the cache: one where it is unified.
    pub(super) streams: u64,
    /// Cells of one stream of the full cache.
    pub(super) cells: u64,
    /// Cells of one stream of the windowed cache.
    pub(super) window_cells: u64,
    /// Tokens of a batch.
    pub(super) batch: u64,
    /// Tokens of a micro-batch.
    pub(super) tokens: u64,
    /// Rows of logits reserved.
    pub(super) rows: u64,
    /// Whether flash attention is taken to be on.
    pub(super) flash: bool,
}

impl Sizes {
    /// Returns the sizes for a load.
    pub(super) fn new(structure: &Structure, settings: &Settings, profile: &EngineProfile) -> Sizes {
        // DeepSeek V4 never shares its caches between slots.
        let shares = settings.unified_kv && !compressed::is_used(structure);
        // To check what was drafted takes a row of logits for each token of it.
        let rows = match profile.logit_rows {
            LogitRows::Slots => LogitRows::Count(checked_rows(structure, settings)),
            rows => rows,
        };
        Sizes::with(structure, settings, rows, shares)
    }

    /// Returns the sizes of the context that drafts, which has one row of logits a slot.
    pub(super) fn of_draft(structure: &Structure, settings: &Settings) -> Sizes {
        Sizes::with(structure, settings, LogitRows::Slots, settings.unified_kv)
    }

    fn with(structure: &Structure, settings: &Settings, rows: LogitRows, shares: bool) -> Sizes {
        let slots = slots(settings);
        let context = match settings.context {
            0 => structure.context_train.max(1),
            context => context,
        };
        let context = u64::from(context);
        let batch = u64::from(settings.batch.max(1));
        // Without causal attention a batch may be longer than the context.
        let batch = if structure.memory.causal { batch.min(context) } else { batch };
        let micro = match settings.ubatch {
            0 => batch,
            ubatch => batch.min(u64::from(ubatch)),
        };
        let streams = if settings.unified_kv { 1 } else { slots };
        let context = context.next_multiple_of(CELLS);
        let cells = (context / streams).next_multiple_of(CELLS).max(CELLS);
        let tokens = micro.min(cells.saturating_mul(streams));
        let reserved = match rows {
            _ if has_encoder(&structure.architecture) => batch,
            // Every token's embedding is put out, to be pooled or handed on.
            LogitRows::Slots if settings.embeddings => batch,
            LogitRows::Slots => slots,
            LogitRows::Batch | LogitRows::Count(0) => batch,
            LogitRows::Count(rows) => u64::from(rows),
        };
        let window = u64::from(structure.dimensions.window);
        let span = window.saturating_mul(if shares { slots } else { 1 }).saturating_add(micro);
        let window_cells = if settings.swa_full { cells } else { cells.min(span).next_multiple_of(CELLS) };
        Sizes {
            slots,
            streams,
            cells,
            window_cells,
            batch,
            tokens,
            rows: reserved.min(tokens),
            flash: super::flash::wished(structure, settings) != FlashAttention::Off,
        }
    }

    /// Returns the rows of the output buffer: one a slot, and one for each token it drafts.
    pub(super) fn outputs(&self, drafts: u64) -> u64 {
        let rows = self.slots.saturating_mul(1 + drafts);
        rows.min(self.batch).max(self.slots)
    }

    /// Returns the cells of one stream that a block sees.
    pub(super) const fn cells_of(&self, windowed: bool) -> u64 {
        if windowed { self.window_cells } else { self.cells }
    }

    /// Returns the context in all.
    pub(super) const fn context(&self) -> u64 {
        self.cells.saturating_mul(self.streams)
    }
}

fn slots(settings: &Settings) -> u64 {
    u64::from(settings.parallel.clamp(1, MOST_SLOTS))
}

/// Returns the rows of logits for all slots and what they draft.
fn checked_rows(structure: &Structure, settings: &Settings) -> u32 {
    let rows = slots(settings).saturating_mul(1 + drafts(structure, settings));
    u32::try_from(rows).unwrap_or(u32::MAX)
}
