//! What a family's graph is built from: the model's tensors and sizes, the inputs, the caches.

use std::ops::{Deref, DerefMut};

use super::backend::Backends;
use super::tensor::{BackendId, F32, Fused, FusedOp, Graph, Home, I32, I64, Id, Op, Tensor};
use crate::gguf::TensorType;
use crate::memory::architecture;
use crate::memory::compressed;
use crate::memory::hyper::Hyper;
use crate::memory::place::{Device, Places};
use crate::memory::sizes::Sizes;
use crate::memory::structure::{BlockKind, Structure};
use crate::memory::tensor::{Role, Suffix, TensorShape};
use crate::memory::{Build, CacheType, Change, Settings};

/// What a graph is built for.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) structure: &'a Structure,
    pub(super) settings: &'a Settings,
    pub(super) places: &'a Places,
    pub(super) sizes: &'a Sizes,
    pub(super) backends: Backends,
    /// The build of llama.cpp.
    pub(super) build: Build,
    /// The blocks that are built, in order.
    pub(super) blocks: &'a [u32],
    /// Tokens of the micro-batch, a multiple of `slots`.
    pub(super) tokens: u64,
    /// Sequences of the micro-batch.
    pub(super) slots: u64,
    /// Rows of logits.
    pub(super) outputs: u64,
    /// Which of the operations that llama.cpp tries are in use.
    pub(super) uses: Uses,
    /// Whether the hidden states of all tokens are put out, for drafts to start from
    /// (`embeddings_nextn`).
    pub(super) shows_states: bool,
}

/// The operations that llama.cpp tries before it uses them (`resolve_fused_ops`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the engine")]
pub(super) struct Uses {
    pub(super) flash_attention: bool,
    pub(super) lightning_indexer: bool,
    pub(super) hyper_connections_pre: bool,
    pub(super) hyper_connections_comb: bool,
    pub(super) hyper_connections_post: bool,
}

impl Uses {
    /// Returns the switch of an operation.
    pub(super) fn switch(&mut self, what: FusedOp) -> &mut bool {
        match what {
            FusedOp::FlashAttention => &mut self.flash_attention,
            FusedOp::LightningIndexer => &mut self.lightning_indexer,
            FusedOp::HyperConnectionsPre => &mut self.hyper_connections_pre,
            FusedOp::HyperConnectionsComb => &mut self.hyper_connections_comb,
            FusedOp::HyperConnectionsPost => &mut self.hyper_connections_post,
        }
    }
}

/// A graph while it is built, with what it is built from.
///
/// Methods follow llama.cpp's `llm_graph_context`; operations are those of [`Graph`]. Where
/// llama.cpp passes `il`, [`Builder::block`] is the block under way: `None` outside the blocks.
pub(super) struct Builder<'a> {
    pub(super) graph: Graph,
    pub(super) plan: Plan<'a>,
    /// The block under way.
    pub(super) block: Option<u32>,
    /// The input embeddings before they are scaled (`t_inp_embd`), once they are built.
    given: Id,
    /// The numbers of the tokens.
    pub(super) ids: Id,
    /// What is put out as embedding (`t_embd`), once it is known.
    pub(super) embedding: Id,
    /// Whether blocks use the tensors of others.
    is_looped: bool,
    /// The block whose tensors were asked for last.
    asked: Asked<'a>,
    /// The numbers of the rows that are kept behind the last norm only, once they are known.
    kept_later: Id,
    weights: Vec<Known<WeightKey>>,
    caches: Vec<Known<(u32, Cache)>>,
}

/// What a weight is: its block, what it is for, and the back-end that has it.
type WeightKey = (Option<u32>, Role, Suffix, BackendId);

/// The tensors of a block, and which suffixes they have: most blocks have neither biases nor scales,
/// which every projection asks for.
#[derive(Clone, Copy, Default)]
struct Asked<'a> {
    block: Option<u32>,
    layout: &'a [TensorShape],
    suffixes: u32,
}

impl Asked<'_> {
    fn find(&self, role: Role, suffix: Suffix) -> Option<TensorShape> {
        if self.suffixes & (1 << suffix as u32) == 0 { None } else { find(self.layout, role, suffix) }
    }
}

/// A tensor made before, found again by what it is.
#[derive(Clone, Copy, Debug)]
struct Known<K> {
    what: K,
    id: Id,
}

/// The memories that a block has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cache {
    /// Keys.
    K,
    /// Values.
    V,
    /// The convolution's part of a recurrent state.
    R,
    /// The rest of a recurrent state.
    S,
    /// The last embeddings of n-grams (qwen4exp).
    Ngrams,
    /// The indexer's keys.
    IndexerK,
    /// A part of DeepSeek V4's caches.
    Compressed(compressed::Part),
    /// The scores beside a state of DeepSeek V4.
    Scores(compressed::Part),
}

impl Deref for Builder<'_> {
    type Target = Graph;

    fn deref(&self) -> &Graph {
        &self.graph
    }
}

impl DerefMut for Builder<'_> {
    fn deref_mut(&mut self) -> &mut Graph {
        &mut self.graph
    }
}

impl<'a> Builder<'a> {
    /// Returns a builder of an empty graph.
    pub(super) fn new(plan: Plan<'a>) -> Builder<'a> {
        Builder {
            graph: Graph::with_room(plan.blocks.len()),
            plan,
            block: None,
            given: Id::NONE,
            ids: Id::NONE,
            embedding: Id::NONE,
            kept_later: Id::NONE,
            is_looped: architecture::is_looped(plan.structure),
            asked: Asked::default(),
            weights: Vec::with_capacity(32),
            caches: Vec::with_capacity(2 * plan.blocks.len()),
        }
    }

    /// Returns the architecture's name.
    pub(super) fn architecture(&self) -> &'a str {
        &self.plan.structure.architecture
    }

    /// Returns the width of an activation.
    pub(super) fn embedding(&self) -> u64 {
        u64::from(self.plan.structure.dimensions.embedding)
    }

    /// Returns the tokens of the micro-batch.
    pub(super) fn tokens(&self) -> u64 {
        self.plan.tokens
    }

    /// Returns the sequences of the micro-batch.
    pub(super) fn slots(&self) -> u64 {
        self.plan.slots
    }

    /// Returns an integer of the header, 0 where it is missing.
    pub(super) fn number(&self, key: Hyper) -> u64 {
        u64::from(self.plan.structure.hyper.number(key))
    }

    /// Returns a float of the header, 0 where it is missing.
    pub(super) fn float(&self, key: Hyper) -> f32 {
        self.plan.structure.hyper.float(key)
    }

    /// Returns the block under way, 0 outside the blocks.
    pub(super) fn index(&self) -> u32 {
        self.block.unwrap_or(0)
    }

    /// Returns the kind of the block under way.
    pub(super) fn kind(&self) -> BlockKind {
        self.kind_of(self.index())
    }

    /// Returns the kind of a block.
    pub(super) fn kind_of(&self, block: u32) -> BlockKind {
        let structure = self.plan.structure;
        let kind = structure.pattern.get(block as usize).and_then(|&kind| structure.kinds.get(usize::from(kind)));
        kind.copied().unwrap_or_default()
    }

    /// Returns the query heads, the key and value heads and the widths of a key and a value head of
    /// the block under way.
    pub(super) fn heads(&self) -> Heads {
        let kind = self.kind();
        Heads {
            q: u64::from(kind.heads),
            kv: u64::from(kind.heads_kv),
            k: u64::from(kind.head_k),
            v: u64::from(kind.head_v),
        }
    }

    /// Returns the blocks to build.
    pub(super) fn blocks(&self) -> &'a [u32] {
        self.plan.blocks
    }

    /// Returns whether the block under way is the last.
    pub(super) fn is_last(&self) -> bool {
        self.block.is_some() && self.block == self.plan.blocks.last().copied()
    }

    /// Returns whether flash attention is in use.
    pub(super) fn flash(&self) -> bool {
        self.plan.uses.flash_attention
    }

    /// Returns the back-end of a place.
    fn backend_of(&self, place: Device) -> BackendId {
        match place {
            Device::Gpu(gpu) => BackendId(u8::try_from(gpu).unwrap_or(0)),
            Device::Host => self.plan.backends.cpu(),
        }
    }

    /// Returns the back-end of the block under way.
    pub(super) fn backend(&self) -> BackendId {
        self.backend_of(self.plan.places.layer(self.index()))
    }

    /// Returns a weight of the block under way, [`Id::NONE`] where the file has none.
    pub(super) fn weight(&mut self, role: Role) -> Id {
        self.tensor(role, Suffix::Weight)
    }

    /// Returns a bias of the block under way.
    pub(super) fn bias(&mut self, role: Role) -> Id {
        self.tensor(role, Suffix::Bias)
    }

    /// Returns a tensor of the block under way.
    pub(super) fn tensor(&mut self, role: Role, suffix: Suffix) -> Id {
        let Some(block) = self.block else { return Id::NONE };
        let lender = self.lender(block);
        if self.asked.block != Some(lender) {
            let layout = self.layout(lender);
            let suffixes = layout.iter().fold(0, |suffixes, tensor| suffixes | 1 << tensor.suffix as u32);
            self.asked = Asked { block: Some(lender), layout, suffixes };
        }
        let Some(shape) = self.asked.find(role, suffix) else { return Id::NONE };
        let on_host = (role.is_expert() && lender < self.plan.settings.cpu_moe)
            || !super::is_usable(self.plan.structure, self.plan.backends.kind(), &shape);
        let backend = if on_host { self.plan.backends.cpu() } else { self.backend_of(self.plan.places.layer(lender)) };
        self.known(Some(lender), &shape, backend)
    }

    /// Returns whether the block under way has a weight.
    pub(super) fn has(&self, role: Role) -> bool {
        let lender = self.lender(self.index());
        find(self.layout(lender), role, Suffix::Weight).is_some()
    }

    /// Returns the block whose tensors a block uses.
    fn lender(&self, block: u32) -> u32 {
        if self.is_looped { architecture::lender(self.plan.structure, block) } else { block }
    }

    /// Returns the tensors of a block.
    fn layout(&self, block: u32) -> &'a [TensorShape] {
        let structure = self.plan.structure;
        let kind = structure.pattern.get(block as usize).and_then(|&kind| structure.kinds.get(usize::from(kind)));
        kind.map_or(&[], |kind| structure.layout(kind))
    }

    /// Returns a tensor that stands outside the blocks, looked up on the CPU.
    pub(super) fn input_weight(&mut self, role: Role) -> Id {
        self.input_tensor(role, Suffix::Weight)
    }

    /// As [`Builder::input_weight`], whatever stands behind the role.
    pub(super) fn input_tensor(&mut self, role: Role, suffix: Suffix) -> Id {
        self.global(role, suffix, self.plan.backends.cpu())
    }

    /// Returns a tensor that lives with the first block.
    pub(super) fn first_weight(&mut self, role: Role, suffix: Suffix) -> Id {
        let backend = self.backend_of(self.plan.places.layer(0));
        self.global(role, suffix, backend)
    }

    /// Returns the back-end of the output layer.
    pub(super) fn output_backend(&self) -> BackendId {
        self.backend_of(self.plan.places.output())
    }

    /// Returns a tensor that lives with the output layer.
    pub(super) fn output_weight(&mut self, role: Role, suffix: Suffix) -> Id {
        let backend = self.output_backend();
        self.global(role, suffix, backend)
    }

    /// Returns a tensor that every block has a copy of in its own buffer, such as the rope's factors.
    pub(super) fn shared_weight(&mut self, role: Role) -> Id {
        let lender = self.lender(self.index());
        let backend = self.backend_of(self.plan.places.layer(lender));
        self.global(role, Suffix::Weight, backend)
    }

    /// Returns whether the file has a tensor outside the blocks.
    pub(super) fn has_global(&self, role: Role) -> bool {
        find(&self.plan.structure.globals, role, Suffix::Weight).is_some()
    }

    /// Returns the table of tokens of another model, of which only the width counts: it is looked up
    /// on the CPU.
    pub(super) fn foreign_table(&mut self, width: u64) -> Id {
        let mut table = Tensor::new(F32, [width, 1, 1, 1]);
        table.home = Home::Weights(self.plan.backends.cpu());
        self.graph.borrows = true;
        self.graph.push(table)
    }

    fn global(&mut self, role: Role, suffix: Suffix, backend: BackendId) -> Id {
        match find(&self.plan.structure.globals, role, suffix) {
            Some(shape) => self.known(None, &shape, backend),
            None => Id::NONE,
        }
    }

    /// Returns the matrix of the output layer: the token embedding's where the file has no other.
    pub(super) fn output_matrix(&mut self) -> Id {
        let own = self.output_weight(Role::Output, Suffix::Weight);
        if own == Id::NONE { self.output_weight(Role::TokenEmbd, Suffix::Weight) } else { own }
    }

    fn known(&mut self, block: Option<u32>, shape: &TensorShape, backend: BackendId) -> Id {
        let what = (block, shape.role, shape.suffix, backend);
        if let Some(known) = self.weights.iter().find(|known| known.what == what) {
            return known.id;
        }
        let mut tensor = Tensor::new(shape.kind, shape.dims.map(u64::from));
        tensor.home = Home::Weights(backend);
        let id = self.graph.push(tensor);
        self.weights.push(Known { what, id });
        id
    }

    /// Begins a block, or leaves the blocks.
    pub(super) fn enter(&mut self, block: Option<u32>) {
        self.block = block;
        if let Some(block) = block {
            // What is put with a block before it is its turn does not begin it.
            self.graph.begun.retain(|&(begun, _)| begun != block);
            self.graph.begun.push((block, self.graph.nodes.len()));
        }
        // Weights of a block are asked for while it is under way only, unless others borrow them.
        if !self.is_looped {
            self.weights.retain(|known| known.what.0.is_none());
        }
    }

    /// Enters a block whose weights, and those of the blocks around it, are read several times.
    pub(super) fn enter_again(&mut self, block: u32) {
        self.block = Some(block);
    }

    /// Pins a node to the back-end of its block, as llama.cpp does with norms where the batch is
    /// small or everything is on GPUs (`graph_get_cb`).
    pub(super) fn pin_to_block(&mut self, id: Id) {
        let whole = self.plan.places.gpus() > 0 && self.plan.places.on_gpus() > self.plan.structure.blocks;
        if self.block.is_some() && (self.tokens() < 32 || whole) {
            let backend = self.backend();
            self.graph.pinned.push((id, backend));
        }
    }

    /// Pins a node to the CPU.
    pub(super) fn pin_to_cpu(&mut self, id: Id) {
        let cpu = self.plan.backends.cpu();
        self.graph.pinned.push((id, cpu));
    }

    /// Notes an operation that has to run where its block is.
    pub(super) fn note_fused(&mut self, what: FusedOp, tensor: Id) {
        let block = self.backend();
        self.graph.fused.push(Fused { what, tensor, block });
    }

    /// Returns a memory of a block: the same tensor each time it is asked for.
    pub(super) fn cache(&mut self, block: u32, which: Cache) -> Id {
        if let Some(known) = self.caches.iter().find(|known| known.what == (block, which)) {
            return known.id;
        }
        let (kind, ne) = self.cache_shape(block, which);
        let places = self.plan.places;
        let place = if !self.plan.settings.offload_kv {
            Device::Host
        } else if self.architecture() == "gemma4-assistant" {
            // The caches are the target's, whose last blocks are where its output layer is.
            places.output()
        } else {
            places.layer(block)
        };
        let mut tensor = Tensor::new(kind, ne);
        tensor.home = Home::Cache(self.backend_of(place));
        let id = self.graph.push(tensor);
        self.caches.push(Known { what: (block, which), id });
        id
    }

    fn cache_shape(&self, block: u32, which: Cache) -> (TensorType, [u64; 4]) {
        let (structure, sizes, settings) = (self.plan.structure, self.plan.sizes, self.plan.settings);
        let kind = self.kind_of(block);
        let cells = sizes.cells_of(kind.windowed);
        let rows = |cache: CacheType, width: u64| (cache.tensor_type(), [width, cells, sizes.streams, 1]);
        let rows_of_states = sizes.slots.saturating_mul(crate::memory::cache::snapshots(structure, settings));
        let states = |width: u64| (F32, [width, rows_of_states, 1, 1]);
        match which {
            Cache::K => rows(settings.cache_type_k, kind.width_k()),
            Cache::V => {
                let widest = crate::memory::cache::widest_value(structure, sizes);
                rows(settings.cache_type_v, widest.unwrap_or(kind.width_v()))
            }
            Cache::R => states(structure.memory.state_r),
            Cache::S => states(structure.memory.state_s),
            Cache::Ngrams => states(crate::memory::cache::ngram_state(structure)),
            Cache::IndexerK => rows(settings.cache_type_k, u64::from(structure.dimensions.indexer)),
            Cache::Compressed(part) | Cache::Scores(part) => {
                let [width, rows] = compressed::shape(structure, &kind, sizes, part).unwrap_or_default();
                let kind = if part.is_state() { F32 } else { settings.cache_type_k.tensor_type() };
                let planes = if part.is_state() { crate::memory::cache::snapshots(structure, settings) } else { 1 };
                (kind, [width, rows, sizes.slots.saturating_mul(planes), 1])
            }
        }
    }

    /// Builds the input embeddings (`build_inp_embd`): the rows of the tokens, of embeddings given
    /// instead, and of both mixed. Only one is used, all have their room.
    pub(super) fn embeddings(&mut self) -> Id {
        let mut table = self.input_weight(Role::TokenEmbd);
        if table == Id::NONE {
            // Codeshell may have the output matrix alone.
            table = self.output_weight(Role::Output, Suffix::Weight);
        }
        self.embeddings_from(table, false)
    }

    /// As [`Builder::embeddings`], but the rows of tokens are multiplied (gemma).
    pub(super) fn token_embeddings_scaled(&mut self) -> Id {
        let table = self.input_weight(Role::TokenEmbd);
        self.embeddings_from(table, true)
    }

    /// As [`Builder::embeddings`], `scaled` where only the rows of tokens are multiplied (gemma).
    pub(super) fn embeddings_from(&mut self, table: Id, scaled: bool) -> Id {
        let (tokens, width) = (self.tokens(), self.embedding());
        let parts = u64::from(self.plan.structure.dimensions.deepstack);
        let wide = width.saturating_mul(1 + parts);
        let of_tokens = |g: &mut Builder, ids: Id| {
            let rows = g.get_rows(table, ids);
            if wide == width { rows } else { g.pad(rows, [wide - width, 0, 0, 0]) }
        };
        let ids = self.input(I32, [tokens, 1, 1, 1]);
        let has_given = self.plan.build.has(Change::GivenInput);
        let given = if has_given { self.input(F32, [wide, tokens, 1, 1]) } else { Id::NONE };
        self.ids = ids;
        let from_tokens = of_tokens(self, ids);
        let mixes = self.plan.build.has(Change::MixedInput) && !architecture::has_separate_batches(self.architecture());
        let mixed = mixes.then(|| {
            let ids = self.input(I32, [tokens, 1, 1, 1]);
            let slots = self.input(I64, [tokens, 1, 1, 1]);
            let given = self.input(F32, [wide, tokens, 1, 1]);
            let copy = self.dup(given);
            let rows = of_tokens(self, ids);
            self.set_rows(copy, rows, slots)
        });
        self.expand(from_tokens);
        self.expand(given);
        if let Some(mixed) = mixed {
            self.expand(mixed);
        }
        let mut embeddings = from_tokens;
        if wide != width {
            let stride = self.get(embeddings).nb[1];
            embeddings = self.view_2d(embeddings, [width, tokens], stride, 0);
        }
        self.given = embeddings;
        let scales = architecture::scales_embeddings(self.plan.structure);
        if scales && wide == width {
            embeddings = self.contiguous(embeddings);
            embeddings = self.scale(embeddings);
        }
        // Images come with several parts, and are not multiplied.
        let tokens_only = scales && wide != width;
        if scaled || (tokens_only && (self.float(Hyper::EmbeddingScale) - 1.0).abs() > f32::EPSILON) {
            embeddings = self.contiguous(embeddings);
            if self.plan.build.has(Change::MixedInput) {
                let factors = self.input(F32, [1, tokens, 1, 1]);
                embeddings = self.mul(embeddings, factors);
            } else if scaled {
                // Multiplied by the model itself, when it first reads them.
                self.expand(embeddings);
                return self.scale(embeddings);
            } else {
                embeddings = self.scale(embeddings);
            }
        }
        self.expand(embeddings);
        embeddings
    }

    /// Returns a further part of the input embeddings (deepstack).
    pub(super) fn deepstack(&mut self) -> Id {
        let given = self.given;
        let Tensor { ne, nb, .. } = *self.get(given);
        self.view_2d(given, [ne[0], ne[1]], nb[1], nb[0].saturating_mul(ne[0]))
    }

    /// Keeps a tensor's elements between two limits.
    pub(super) fn clamp(&mut self, id: Id) -> Id {
        let is_own = self.plan.build.has(Change::OwnClamps);
        if is_own { self.unary(Op::Clamp, id) } else { self.view_as(Op::Clamp, id, &[id]) }
    }

    /// Returns a tensor without gaps: itself where it has none.
    pub(super) fn contiguous(&mut self, id: Id) -> Id {
        if self.get(id).is_contiguous() { id } else { self.cont(id) }
    }

    /// Builds the positions (`build_inp_pos`), four a token with multimodal rope.
    pub(super) fn positions(&mut self) -> Id {
        let each = if architecture::has_sections(self.plan.structure) { 4 } else { 1 };
        let positions = self.tokens().saturating_mul(each);
        self.input(I32, [positions, 1, 1, 1])
    }

    /// Builds the numbers of the rows that are put out (`build_inp_out_ids`).
    pub(super) fn output_ids(&mut self) -> Id {
        let outputs = self.plan.outputs;
        self.input(I32, [outputs, 1, 1, 1])
    }

    /// Keeps only the rows that are put out, in the last block; where the hidden states of all tokens are,
    /// [`Builder::logits`] does it.
    pub(super) fn keep_outputs<const N: usize>(&mut self, ids: Id, tensors: [Id; N]) -> [Id; N] {
        if !self.is_last() || ids == Id::NONE {
            return tensors;
        }
        if self.plan.shows_states {
            self.kept_later = ids;
            return tensors;
        }
        tensors.map(|tensor| if tensor == Id::NONE { tensor } else { self.get_rows(tensor, ids) })
    }

    /// Multiplies with a weight of the block under way (`build_lora_mm`), and with its scale where
    /// the file has one.
    pub(super) fn project(&mut self, role: Role, x: Id) -> Id {
        let weight = self.weight(role);
        let product = self.mul_mat(weight, x);
        let scale = self.scale_of(role);
        if scale == Id::NONE { product } else { self.mul(product, scale) }
    }

    /// Returns the scale of a weight of the block under way, where the file has one and the graph
    /// applies it.
    pub(super) fn scale_of(&mut self, role: Role) -> Id {
        let applies = architecture::applies_scale(self.plan.structure, role);
        if applies { self.tensor(role, Suffix::Scale) } else { Id::NONE }
    }

    /// As [`Builder::project`], with the bias where the file has one.
    pub(super) fn project_biased(&mut self, role: Role, x: Id) -> Id {
        let product = self.project(role, x);
        let bias = self.bias(role);
        self.add_if(product, bias)
    }

    /// Adds a tensor if there is one.
    pub(super) fn add_if(&mut self, x: Id, other: Id) -> Id {
        if other == Id::NONE { x } else { self.add(x, other) }
    }

    /// Ends a language model: the last norm's result is put out as embedding, the product with the
    /// output matrix as logits.
    pub(super) fn logits(&mut self, mut normed: Id) -> Id {
        if self.kept_later != Id::NONE {
            self.set_output(normed);
            let ids = self.kept_later;
            normed = self.get_rows(normed, ids);
        }
        self.set_embedding(normed);
        self.vocabulary(normed)
    }

    /// Multiplies with the output matrix.
    pub(super) fn vocabulary(&mut self, x: Id) -> Id {
        self.enter(None);
        let matrix = self.output_matrix();
        let mut logits = self.mul_mat(matrix, x);
        let scale = self.output_weight(Role::Output, Suffix::Scale);
        if scale != Id::NONE {
            logits = self.mul(logits, scale);
        }
        let bias = self.output_weight(Role::Output, Suffix::Bias);
        self.add_if(logits, bias)
    }

    /// Notes what is put out as embedding.
    pub(super) fn set_embedding(&mut self, x: Id) {
        self.embedding = x;
        self.set_output(x);
    }

    /// Ends a model without logits: what comes out last is the embedding.
    pub(super) fn finish_embedding(&mut self, x: Id) {
        self.enter(None);
        self.set_embedding(x);
        self.expand(x);
    }

    /// Marks the logits as put out and adds everything they need to the graph.
    pub(super) fn finish(&mut self, logits: Id) {
        self.set_output(logits);
        self.expand(logits);
    }
}

/// The heads of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    /// Query heads.
    pub(super) q: u64,
    /// Key and value heads.
    pub(super) kv: u64,
    /// Width of a key head.
    pub(super) k: u64,
    /// Width of a value head.
    pub(super) v: u64,
}

fn find(tensors: &[TensorShape], role: Role, suffix: Suffix) -> Option<TensorShape> {
    // Lists of tensors are sorted by role and suffix first.
    let at = tensors.partition_point(|tensor| (tensor.role, tensor.suffix) < (role, suffix));
    tensors.get(at).filter(|tensor| tensor.role == role && tensor.suffix == suffix).copied()
}
