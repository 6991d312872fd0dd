//! The parts of a graph that a compute buffer has to hold, one at a time, and the inputs that
//! stay beside them.

use super::CacheType;
use super::compute::Load;
use super::structure::{BlockKind, Structure};
use super::tensor::{Role, Suffix, TensorShape, row_bytes};
use crate::units::Bytes;

/// Bytes of an f32.
const F32: u64 = 4;
/// Bytes of an f16.
const F16: u64 = 2;

/// Returns the product as bytes.
fn product(factors: &[u64]) -> Bytes {
    Bytes(factors.iter().fold(1, |product, &factor| product.saturating_mul(factor)))
}

/// What lives through the whole graph.
pub(super) struct Inputs {
    /// One activation of the micro-batch: the unit that most of the rest is counted in.
    pub(super) embedding: Bytes,
    /// The attention masks.
    pub(super) masks: Bytes,
    /// Positions, cell numbers, rotation matrices and the like.
    pub(super) extras: Bytes,
    /// All of it on a GPU.
    pub(super) gpu: Bytes,
    /// All of it in host memory.
    pub(super) host: Bytes,
}

impl Inputs {
    /// Returns the inputs of a load.
    pub(super) fn new(load: &Load) -> Inputs {
        let (structure, tokens) = (load.structure, load.sizes.tokens);
        let embedding = product(&[u64::from(structure.dimensions.embedding), tokens, F32]);
        let masks = masks(load);
        let extras = extras(load);
        let base = embedding.saturating_mul(4).saturating_add(masks).saturating_add(extras);
        let deepstack = embedding.saturating_mul(u64::from(structure.dimensions.deepstack));
        // Qwen3-VL: the extra embeddings come in on the host and are added block by block on
        // the GPU, where up to 25 activations were seen.
        let gpu = if deepstack == Bytes::ZERO { base } else { base.saturating_add(embedding.saturating_mul(21)) };
        Inputs { embedding, masks, extras, gpu, host: base.saturating_add(deepstack.saturating_mul(3)) }
    }
}

/// Returns the masks: a cell a token, f16 with flash attention, one mask a cache. Encoders look at
/// the micro-batch itself.
fn masks(load: &Load) -> Bytes {
    let (structure, sizes) = (load.structure, load.sizes);
    let element = if load.flash { F16 } else { F32 };
    if !structure.memory.any {
        let masks = if structure.memory.windowed { 2 } else { 1 };
        return product(&[sizes.tokens, sizes.tokens, element, masks]);
    }
    let mask = |windowed: bool| {
        let used = structure.kinds.iter().any(|kind| attends(structure, kind) && kind.windowed == windowed);
        if used { product(&[sizes.cells_of(windowed), sizes.tokens, element]) } else { Bytes::ZERO }
    };
    mask(false).saturating_add(mask(true))
}

/// Returns the small inputs: ids, positions, cell numbers, the rotation matrices of quantised
/// caches, the transposed V's index without flash attention, per-layer embeddings.
fn extras(load: &Load) -> Bytes {
    let (structure, sizes) = (load.structure, load.sizes);
    let tokens = sizes.tokens;
    let caches = 1 + u64::from(structure.memory.windowed);
    // Token and position take 4 bytes each, a cell number 8 for K and for V, an output id 4.
    let mut sum = product(&[tokens, 20 + 16 * caches]).saturating_add(product(&[sizes.rows, 4]));
    if load.settings.cache_type_k.is_quantised() {
        let size = structure.kinds.iter().map(|kind| rotation(kind.head_k)).max().unwrap_or(0);
        sum = sum.saturating_add(product(&[size, size, F32, caches]));
    }
    if load.settings.cache_type_v.is_quantised() && !structure.memory.keys_only {
        sum = sum.saturating_add(product(&[64, 64, F32, caches]));
    }
    if !load.flash && structure.memory.any {
        let width = structure.kinds.iter().map(BlockKind::width_v).max().unwrap_or(0);
        sum = sum.saturating_add(product(&[width, tokens, 8, caches]));
    }
    let per_layer = u64::from(structure.dimensions.per_layer_embedding);
    sum.saturating_add(product(&[per_layer, u64::from(structure.blocks), tokens, F32]))
}

/// Returns the size of K's rotation matrix: the largest 64·2ⁿ that divides the head
/// (`n_rot_k` in `llama-kv-cache.cpp`), nothing where 64 does not.
const fn rotation(head: u32) -> u64 {
    if head == 0 || !head.is_multiple_of(64) {
        return 0;
    }
    1 << head.trailing_zeros()
}

/// The largest parts of the graph, over all kinds of block.
pub(super) struct Phases<'a> {
    load: &'a Load<'a>,
    without_logits: Bytes,
    on_host: Bytes,
}

impl<'a> Phases<'a> {
    /// Looks at every kind of block.
    pub(super) fn new(load: &'a Load) -> Phases<'a> {
        let mut phases = Phases { load, without_logits: Bytes::ZERO, on_host: Bytes::ZERO };
        for kind in &load.structure.kinds {
            if kind.mtp && !load.settings.mtp {
                continue;
            }
            let scratch = phases.scratch(kind);
            let (attention, feed_forward) = (phases.attention(kind), phases.feed_forward(kind));
            // Blocks that run both from one norm keep both at once (command-r).
            let block = if is_parallel(load.structure.layout(kind)) && load.structure.memory.any {
                attention.saturating_add(feed_forward)
            } else {
                attention.max(feed_forward)
            };
            let state = phases.state(kind);
            phases.on_host = phases.on_host.max(block).max(state);
            let block = if scratch == Bytes::ZERO { block } else { block.max(attention.saturating_add(scratch)) };
            phases.without_logits = phases.without_logits.max(block).max(state);
        }
        phases
    }

    /// Returns the largest phase of the blocks.
    pub(super) fn without_logits(&self) -> Bytes {
        self.without_logits
    }

    /// Returns the largest phase of a GPU that has everything.
    pub(super) fn on_gpu(&self) -> Bytes {
        self.without_logits.max(self.logits())
    }

    /// Returns the largest phase in host memory, where no cache is converted.
    pub(super) fn largest_on_host(&self) -> Bytes {
        self.on_host.max(self.logits())
    }

    /// Returns the rows of logits.
    pub(super) fn logits(&self) -> Bytes {
        let structure = self.load.structure;
        if structure.memory.any {
            product(&[self.load.sizes.rows, u64::from(structure.dimensions.vocabulary), F32])
        } else {
            Bytes::ZERO
        }
    }

    /// Returns the activations of a block's feed-forward network.
    pub(super) fn feed_forward(&self, kind: &BlockKind) -> Bytes {
        let structure = self.load.structure;
        let tokens = self.load.sizes.tokens;
        let layout = structure.layout(kind);
        let width = |role: Role| find(layout, role).map_or(0, |tensor| u64::from(tensor.dims[0]));
        let gated = find(layout, Role::FfnGate).is_some()
            || find(layout, Role::FfnUp).is_some_and(|up| u64::from(up.dims[1]) >= 2 * width(Role::FfnDown));
        let dense = product(&[if gated { 3 } else { 1 }, width(Role::FfnDown), tokens, F32]);
        let shared = product(&[3, width(Role::FfnDownShexp), tokens, F32]);
        let used = u64::from(kind.experts_used);
        let experts = match find(layout, Role::FfnDownExps) {
            None => Bytes::ZERO,
            Some(down) => {
                let products = product(&[3, used, u64::from(down.dims[0]), tokens, F32]);
                let sums = product(&[2 * used + 1, u64::from(down.dims[1]), tokens, F32]);
                products.max(sums)
            }
        };
        let channel = product(&[width(Role::ChannelMixValue), tokens, F32]);
        dense.max(shared).max(experts).max(channel)
    }

    /// Returns the activations of a block's attention.
    pub(super) fn attention(&self, kind: &BlockKind) -> Bytes {
        let (structure, sizes) = (self.load.structure, self.load.sizes);
        if !attends(structure, kind) {
            return Bytes::ZERO;
        }
        let (heads, tokens) = (u64::from(kind.heads), sizes.tokens);
        let query = product(&[heads, u64::from(kind.head_k), tokens, F32]);
        if self.load.flash {
            return query.saturating_mul(2);
        }
        let cells = if structure.memory.any { sizes.cells_of(kind.windowed) } else { tokens };
        product(&[heads, cells, tokens, F32]).saturating_add(query)
    }

    /// Returns the f16 copy of a quantised cache that CUDA's flash attention makes of the whole
    /// context of one block.
    fn scratch(&self, kind: &BlockKind) -> Bytes {
        let settings = self.load.settings;
        if !self.load.flash || !attends(self.load.structure, kind) {
            return Bytes::ZERO;
        }
        let cells = self.load.sizes.cells_of(kind.windowed).saturating_mul(self.load.sizes.streams);
        let copy = |quantised: bool, width: u64| {
            if quantised { product(&[cells, width, F16]) } else { Bytes::ZERO }
        };
        copy(settings.cache_type_k.is_quantised(), kind.width_k())
            .saturating_add(copy(settings.cache_type_v.is_quantised(), kind.width_v()))
    }

    /// Returns the activations of a recurrent block: about 2.6 times what goes through its
    /// convolution (Mamba), a few activations without one.
    pub(super) fn state(&self, kind: &BlockKind) -> Bytes {
        if !kind.recurrent {
            return Bytes::ZERO;
        }
        let layout = self.load.structure.layout(kind);
        let rows = |role: Role| find(layout, role).map_or(0, |tensor| u64::from(tensor.dims[1]));
        let inner = find(layout, Role::SsmOut).map_or(0, |tensor| u64::from(tensor.dims[0]));
        let through = rows(Role::SsmConv1d).saturating_add(inner);
        let mamba = product(&[through, self.load.sizes.tokens, F32, 26]);
        let others = rows(Role::ShortconvInProj).max(4 * u64::from(self.load.structure.dimensions.embedding));
        Bytes(mamba.0 / 10).max(product(&[others, self.load.sizes.tokens, F32]))
    }

    /// Returns a host block's feed-forward network on the GPU, with the two matrices that are
    /// copied there at a time: gate and up, or up and down where there is no gate.
    pub(super) fn copied_feed_forward(&self, kind: &BlockKind) -> Bytes {
        let layout = self.load.structure.layout(kind);
        let bytes = |role: Role| find(layout, role).map_or(Bytes::ZERO, TensorShape::bytes);
        let width = find(layout, Role::FfnDown).map_or(0, |tensor| u64::from(tensor.dims[0]));
        let hidden = product(&[width, self.load.sizes.tokens, F32]);
        let fused = find(layout, Role::FfnUp).is_some_and(|up| u64::from(up.dims[1]) >= 2 * width);
        if fused || find(layout, Role::FfnGate).is_some() {
            bytes(Role::FfnGate).saturating_add(bytes(Role::FfnUp)).saturating_add(hidden.saturating_mul(2))
        } else {
            let activation =
                product(&[u64::from(self.load.structure.dimensions.embedding), self.load.sizes.tokens, F32]);
            let matrices = bytes(Role::FfnUp).saturating_add(bytes(Role::FfnDown));
            matrices.saturating_add(hidden).saturating_add(activation)
        }
    }

    /// Returns whether a block has routed experts.
    pub(super) fn has_experts(&self, kind: &BlockKind) -> bool {
        self.load.structure.layout(kind).iter().any(TensorShape::is_expert)
    }

    /// Returns a product of experts from host memory on the GPU, with the largest expert tensor of
    /// the block copied there.
    pub(super) fn copied_experts(&self, kind: &BlockKind, inputs: &Inputs) -> Bytes {
        let layout = self.load.structure.layout(kind);
        let Some(largest) = layout.iter().filter(|tensor| tensor.is_expert()).map(TensorShape::bytes).max() else {
            return Bytes::ZERO;
        };
        let used = u64::from(kind.experts_used);
        let width = find(layout, Role::FfnDownExps).map_or(0, |tensor| u64::from(tensor.dims[0]));
        let hidden = product(&[2, used, width, self.load.sizes.tokens, F32]);
        let sums = inputs.gpu.saturating_add(inputs.embedding.saturating_mul(used + 3));
        largest.saturating_add(sums.max(hidden.saturating_add(inputs.embedding.saturating_mul(2))))
    }

    /// Returns a host block's attention on the GPU, with its cache copied there.
    pub(super) fn copied_cache(&self, kind: &BlockKind) -> Bytes {
        let (structure, settings, sizes) = (self.load.structure, self.load.settings, self.load.sizes);
        let attention = self.attention(kind);
        if !structure.memory.any || attention == Bytes::ZERO {
            return attention;
        }
        let rows = sizes.cells_of(kind.windowed).saturating_mul(sizes.streams);
        let tensor = |kind: CacheType, width: u64| row_bytes(kind.tensor_type(), width).saturating_mul(rows);
        let keys = tensor(settings.cache_type_k, kind.width_k());
        let values =
            if structure.memory.keys_only { Bytes::ZERO } else { tensor(settings.cache_type_v, kind.width_v()) };
        attention.saturating_add(keys).saturating_add(values).saturating_add(self.scratch(kind))
    }

    /// Returns how many activations run side by side: gemma 3n's alternating updates keep four.
    pub(super) fn streams(&self) -> u64 {
        let altup = self.load.structure.globals.iter().find(|tensor| tensor.role == Role::AltupProj);
        altup.map_or(1, |tensor| u64::from(tensor.dims[2]) + 1)
    }
}

/// Returns whether a block has attention.
fn attends(structure: &Structure, kind: &BlockKind) -> bool {
    if structure.memory.any { kind.heads_kv != 0 && (kind.cached || !kind.recurrent) } else { kind.heads != 0 }
}

/// Returns whether attention and feed-forward network run from the same norm.
fn is_parallel(layout: &[TensorShape]) -> bool {
    let has = |role: Role| layout.iter().any(|tensor| tensor.role == role);
    let norms = [Role::FfnNorm, Role::PostAttentionNorm, Role::AttnOutputNorm, Role::AttnNorm2, Role::PostFfwNorm];
    has(Role::FfnUp) && has(Role::AttnOutput) && !norms.into_iter().any(has)
}

fn find(layout: &[TensorShape], role: Role) -> Option<&TensorShape> {
    layout.iter().find(|tensor| tensor.role == role && tensor.suffix == Suffix::Weight)
}
