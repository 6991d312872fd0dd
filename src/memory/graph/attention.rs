//! Attention, as every family shares it: inputs, projections, caches, the product itself
//! (`build_qkv`, `build_attn`, `build_attn_mha` in `llama-graph.cpp`).

use super::model::{Builder, Cache};
use super::tensor::{F16, F32, FusedOp, I64, Id, Op, Tensor, row_bytes};
use crate::memory::Change;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

/// The inputs that attention over one cache reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct CacheInput {
    /// Cells to write keys to.
    pub(super) k_idxs: Id,
    /// Cells to write values to, absent where values are a view of the keys.
    pub(super) v_idxs: Id,
    /// Who may look at whom.
    pub(super) mask: Id,
    /// The rotation of quantised keys.
    pub(super) k_rot: Id,
    /// The rotation of quantised values.
    pub(super) v_rot: Id,
}

/// The inputs of attention, by what it looks at.
#[derive(Clone, Copy, Debug)]
pub(super) enum AttentionInput {
    /// One cache for all blocks (`llm_graph_input_attn_kv`), or for keys alone
    /// (`llm_graph_input_attn_k`).
    Cache(CacheInput),
    /// A full and a windowed cache (`llm_graph_input_attn_kv_iswa`).
    Windowed {
        /// The full cache's.
        full: CacheInput,
        /// The windowed cache's.
        windowed: CacheInput,
    },
    /// Nothing but the micro-batch itself (`llm_graph_input_attn_no_cache`).
    Batch {
        /// The mask of full blocks.
        full: Id,
        /// The mask of windowed blocks.
        windowed: Id,
    },
}

/// Queries, keys and values of a block, an element of a head in each row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Qkv {
    pub(super) q: Id,
    pub(super) k: Id,
    pub(super) v: Id,
}

/// What attention may take beside queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extras {
    /// The role of the output projection, with its bias.
    pub(super) output: Option<Role>,
    /// A bias added to the products (`kq_b`): rules flash attention out.
    pub(super) bias: Id,
    /// Sinks, one a head.
    pub(super) sinks: Id,
    /// The matrix that turns latent values into heads (MLA).
    pub(super) v_mla: Id,
}

impl Default for Extras {
    fn default() -> Extras {
        Extras { output: Some(Role::AttnOutput), bias: Id::NONE, sinks: Id::NONE, v_mla: Id::NONE }
    }
}

impl Extras {
    /// Returns the usual extras without an output projection.
    pub(super) fn no_output() -> Extras {
        Extras { output: None, ..Extras::default() }
    }
}

impl Builder<'_> {
    /// Returns the inputs of attention over the model's caches: one cache, or a full and a windowed
    /// one (`build_attn_inp_kv`, `build_attn_inp_kv_iswa`).
    pub(super) fn attention_input(&mut self) -> AttentionInput {
        if self.plan.structure.memory.windowed {
            let full = self.cache_input(false, true);
            let windowed = self.cache_input(true, true);
            AttentionInput::Windowed { full, windowed }
        } else {
            AttentionInput::Cache(self.cache_input(false, true))
        }
    }

    /// Returns the inputs of attention whose values are a view of the keys (`build_attn_inp_k`).
    pub(super) fn keys_input(&mut self) -> AttentionInput {
        let mut input = self.cache_input(false, false);
        input.k_rot = Id::NONE;
        AttentionInput::Cache(input)
    }

    /// Returns the inputs of one cache.
    pub(super) fn cache_input(&mut self, windowed: bool, values: bool) -> CacheInput {
        let (tokens, sizes) = (self.tokens(), *self.plan.sizes);
        let k_idxs = self.input(I64, [tokens, 1, 1, 1]);
        let v_idxs = if values {
            // A transposed cache is written element by element.
            let each = if sizes.flash { 1 } else { self.widest_value() };
            self.input(I64, [tokens.saturating_mul(each), 1, 1, 1])
        } else {
            Id::NONE
        };
        let mask = self.mask(sizes.cells_of(windowed), self.flash());
        let (k_rot, v_rot) = self.rotations(windowed);
        CacheInput { k_idxs, v_idxs, mask, k_rot, v_rot: if values { v_rot } else { Id::NONE } }
    }

    fn widest_value(&self) -> u64 {
        let kinds = &self.plan.structure.kinds;
        kinds.iter().map(crate::memory::BlockKind::width_v).max().unwrap_or(0)
    }

    /// Returns a mask over `cells` (`build_attn_inp_kq_mask`): f16 where flash attention reads it.
    pub(super) fn mask(&mut self, cells: u64, flash: bool) -> Id {
        let streams = self.plan.sizes.streams.min(self.slots()).max(1);
        let tokens = self.tokens() / streams;
        self.mask_of([cells, tokens, 1, streams], flash)
    }

    /// Returns a mask of a shape, in the precision that it is read in.
    pub(super) fn mask_of(&mut self, shape: [u64; 4], flash: bool) -> Id {
        if flash && !self.plan.build.has(Change::HalfMask) {
            let mask = self.input(F32, shape);
            return self.cast(mask, F16);
        }
        self.input(if flash { F16 } else { F32 }, shape)
    }

    /// Returns the rotations that quantised caches are stored under: K's as large as the largest
    /// power of two times 64 that divides every cached head, V's 64 (`llama-kv-cache.cpp`).
    fn rotations(&mut self, windowed: bool) -> (Id, Id) {
        let structure = self.plan.structure;
        // A drafter has no cache of its own, but reads what its target stored.
        let borrowed = !structure.kinds.iter().any(|kind| kind.cached);
        let stored = move |kind: &&crate::memory::BlockKind| (kind.cached || borrowed) && kind.windowed == windowed;
        let cached = || structure.kinds.iter().filter(stored);
        let common = |width: fn(&crate::memory::BlockKind) -> u32| {
            let mut widths = cached().map(width);
            let first = widths.next().unwrap_or(0);
            if widths.all(|width| width == first) { u64::from(first) } else { 0 }
        };
        let (head_k, head_v) = (common(|kind| kind.head_k), common(|kind| kind.head_v));
        let first = structure.block_kinds().next().copied().unwrap_or_default();
        let settings = self.plan.settings;
        let rotates = self.plan.build.has(Change::Rotations);
        let mut rotation = |quantised: bool, head: u64, first: u32, size: u64| {
            let rotates = rotates && quantised && head > 0 && first.is_multiple_of(64);
            if rotates { self.input(F32, [size, size, 1, 1]) } else { Id::NONE }
        };
        let mut size = 64;
        while head_k > 0 && head_k.is_multiple_of(2 * size) {
            size *= 2;
        }
        let k = rotation(settings.cache_type_k.is_quantised(), head_k, first.head_k, size);
        let v = rotation(settings.cache_type_v.is_quantised(), head_v, first.head_v, 64);
        (k, v)
    }

    /// Returns the inputs of attention over the micro-batch alone (`build_attn_inp_no_cache`).
    pub(super) fn batch_input(&mut self) -> AttentionInput {
        let (tokens, flash) = (self.tokens(), self.flash());
        let full = self.mask_of([tokens, tokens, 1, 1], flash);
        let windowed =
            if self.plan.structure.memory.windowed { self.mask_of([tokens, tokens, 1, 1], flash) } else { Id::NONE };
        AttentionInput::Batch { full, windowed }
    }

    /// Projects to queries, keys and values, fused or apart, with biases and clamps where there are
    /// some, and shapes them into heads (`build_qkv`).
    pub(super) fn qkv(&mut self, x: Id) -> Qkv {
        let heads = self.heads();
        self.qkv_of(x, [(heads.k, heads.q), (heads.k, heads.kv), (heads.v, heads.kv)])
    }

    /// As [`Builder::qkv`] with widths and numbers of heads given for queries, keys and values.
    pub(super) fn qkv_of(&mut self, x: Id, shapes: [(u64, u64); 3]) -> Qkv {
        let tokens = self.tokens();
        let clamps = self.float(Hyper::ClampKqv) > 0.0;
        if self.has(Role::AttnQkv) {
            let mut qkv = self.project(Role::AttnQkv, x);
            let bias = self.bias(Role::AttnQkv);
            if bias == Id::NONE {
                let biases = [Role::AttnQ, Role::AttnK, Role::AttnV].map(|role| self.bias(role));
                if let [q, k, v] = biases
                    && !biases.contains(&Id::NONE)
                {
                    let bias = self.concat(q, k, 0);
                    let bias = self.concat(bias, v, 0);
                    qkv = self.add(qkv, bias);
                }
            } else {
                qkv = self.add(qkv, bias);
            }
            if clamps {
                qkv = self.clamp(qkv);
            }
            let Tensor { kind, nb, .. } = *self.get(qkv);
            let mut at = 0u64;
            let mut part = |(width, count): (u64, u64)| {
                let view =
                    self.view_3d(qkv, [width, count, tokens], [row_bytes(kind, width), nb[1]], row_bytes(kind, at));
                at = at.saturating_add(width.saturating_mul(count));
                view
            };
            let [q, k, v] = shapes.map(&mut part);
            return Qkv { q, k, v };
        }
        let roles = [Role::AttnQ, Role::AttnK, Role::AttnV];
        let flat = roles.map(|role| {
            let projected = self.project_biased(role, x);
            if clamps { self.clamp(projected) } else { projected }
        });
        let mut shaped = [Id::NONE; 3];
        for ((shaped, flat), (width, count)) in shaped.iter_mut().zip(flat).zip(shapes) {
            *shaped = self.reshape(flat, [width, count, tokens, 1]);
        }
        let [q, k, v] = shaped;
        Qkv { q, k, v }
    }

    /// As [`Builder::qkv`], unclamped and not yet shaped into heads: what a fused matrix gave is
    /// taken apart into copies (`build_qkv` with `reshape` off).
    pub(super) fn qkv_flat(&mut self, x: Id) -> Qkv {
        let heads = self.heads();
        if !self.has(Role::AttnQkv) {
            let [q, k, v] = [Role::AttnQ, Role::AttnK, Role::AttnV].map(|role| self.project_biased(role, x));
            return Qkv { q, k, v };
        }
        let qkv = self.project_biased(Role::AttnQkv, x);
        let (tokens, Tensor { kind, nb, .. }) = (self.tokens(), *self.get(qkv));
        let mut at = 0u64;
        let parts = [(heads.k, heads.q), (heads.k, heads.kv), (heads.v, heads.kv)].map(|(width, count)| {
            let width = width.saturating_mul(count);
            let view = self.view_2d(qkv, [width, tokens], nb[1], row_bytes(kind, at));
            at = at.saturating_add(width);
            view
        });
        let [q, k, v] = parts.map(|part| self.cont(part));
        Qkv { q, k, v }
    }

    /// Shapes what [`Builder::qkv_flat`] gave into heads.
    pub(super) fn shape_heads(&mut self, flat: Qkv) -> Qkv {
        let (heads, tokens) = (self.heads(), self.tokens());
        let q = self.reshape(flat.q, [heads.k, heads.q, tokens, 1]);
        let k = self.reshape(flat.k, [heads.k, heads.kv, tokens, 1]);
        let v = self.reshape(flat.v, [heads.v, heads.kv, tokens, 1]);
        Qkv { q, k, v }
    }

    /// Multiplies attention's result with a gate made of its input (`attn_gate`): one a head, or
    /// one an element.
    pub(super) fn gate_attention(&mut self, attended: Id, input: Id, activation: Op) -> Id {
        let gate = self.project(Role::AttnGate, input);
        let gate = self.unary(activation, gate);
        let heads = self.heads().q;
        let ([width, tokens, ..], ne) = (self.get(gate).ne, self.get(attended).ne);
        if width != heads || heads == 0 {
            return self.mul(attended, gate);
        }
        let shaped = self.reshape(attended, [ne[0] / heads, heads, tokens, 1]);
        let gate = self.reshape(gate, [1, heads, tokens, 1]);
        let gated = self.mul(shaped, gate);
        self.reshape(gated, ne)
    }

    /// Attends with the block's own cache, or none, and projects the result (`build_attn`).
    pub(super) fn attend(&mut self, input: &AttentionInput, qkv: Qkv, extras: Extras) -> Id {
        let block = self.index();
        self.attend_over(input, qkv, extras, block)
    }

    /// As [`Builder::attend`], reading the cache of `source`, which another block may have filled:
    /// then keys and values are absent.
    pub(super) fn attend_over(&mut self, input: &AttentionInput, qkv: Qkv, extras: Extras, source: u32) -> Id {
        let mut attended = match input {
            AttentionInput::Cache(cache) => self.attend_cache(cache, qkv, extras, source, false),
            AttentionInput::Windowed { full, windowed } => {
                let cache = if self.kind().windowed { windowed } else { full };
                self.attend_cache(cache, qkv, extras, source, true)
            }
            AttentionInput::Batch { full, windowed } => {
                let mask = if self.kind().windowed { *windowed } else { *full };
                for id in [qkv.q, qkv.k, qkv.v] {
                    self.expand(id);
                }
                self.multi_head(qkv, mask, extras)
            }
        };
        if let Some(output) = extras.output {
            if self.has(output) {
                attended = self.project(output, attended);
            }
            let bias = self.bias(output);
            attended = self.add_if(attended, bias);
        }
        attended
    }

    /// Writes keys and values to a cache and attends over all of it.
    fn attend_cache(&mut self, input: &CacheInput, qkv: Qkv, extras: Extras, source: u32, keys_first: bool) -> Id {
        let Qkv { mut q, mut k, mut v } = qkv;
        if input.k_rot != Id::NONE {
            q = self.rotate(q, input.k_rot);
            k = if k == Id::NONE { k } else { self.rotate(k, input.k_rot) };
        }
        if input.v_rot != Id::NONE && v != Id::NONE {
            v = self.rotate(v, input.v_rot);
        }
        // Keys last, so that their rope is computed right before they are stored; with two caches
        // llama.cpp does not.
        for id in if keys_first { [q, k, v] } else { [q, v, k] } {
            if id != Id::NONE {
                self.expand(id);
            }
        }
        if k != Id::NONE {
            let stored = self.store_k(k, input.k_idxs, source);
            self.expand(stored);
        }
        let keys_only = input.v_idxs == Id::NONE;
        if v != Id::NONE && !keys_only {
            let stored = self.store_v(v, input.v_idxs, source);
            self.expand(stored);
        }
        let keys = self.read_k(source);
        let values = if keys_only {
            let Tensor { ne, nb, .. } = *self.get(keys);
            let width = self.get(v).ne[0];
            self.view(keys, [width, ne[1], ne[2], ne[3]], [nb[1], nb[2], nb[3]], 0)
        } else {
            self.read_v(source)
        };
        let attended = self.multi_head(Qkv { q, k: keys, v: values }, input.mask, extras);
        if input.v_rot == Id::NONE { attended } else { self.rotate(attended, input.v_rot) }
    }

    /// Multiplies with a rotation (`llama_mul_mat_hadamard`).
    pub(super) fn rotate(&mut self, x: Id, rotation: Id) -> Id {
        let size = self.get(rotation).ne[0];
        let shape = self.get(x).ne;
        let flat = [size, self.get(x).elements() / size.max(1), 1, 1];
        let rows = if self.get(x).is_contiguous() { self.reshape(x, flat) } else { self.cont_as(x, flat) };
        let rotated = self.mul_mat(rotation, rows);
        self.reshape(rotated, shape)
    }

    /// Writes keys to a block's cache (`cpy_k`).
    pub(super) fn store_k(&mut self, k: Id, ids: Id, source: u32) -> Id {
        let cache = self.cache(source, Cache::K);
        self.store_rows(cache, k, ids)
    }

    /// Writes rows to a cache whose cells are rows.
    pub(super) fn store_rows(&mut self, mut cache: Id, x: Id, ids: Id) -> Id {
        let Tensor { ne, nb, .. } = *self.get(x);
        let width = ne[0].saturating_mul(ne[1]);
        let rows = self.view_2d(x, [width, ne[2]], nb[2], 0);
        let [_, cells, streams, _] = self.get(cache).ne;
        if streams > 1 {
            cache = self.reshape(cache, [width, cells.saturating_mul(streams), 1, 1]);
        }
        self.set_rows(cache, rows, ids)
    }

    /// Writes values to a block's cache (`cpy_v`), transposed where flash attention was asked off.
    pub(super) fn store_v(&mut self, v: Id, ids: Id, source: u32) -> Id {
        let cache = self.cache(source, Cache::V);
        if self.plan.sizes.flash {
            return self.store_rows(cache, v, ids);
        }
        let Tensor { kind, ne, nb, .. } = *self.get(v);
        let width = ne[0].saturating_mul(ne[1]);
        let shape = [width, ne[2], 1, 1];
        let joined = row_bytes(kind, width) == nb[2];
        let mut rows = if joined { self.reshape(v, shape) } else { self.cont_as(v, shape) };
        let cached = self.get(cache).ne[0];
        if width < cached {
            rows = self.pad(rows, [cached - width, 0, 0, 0]);
        }
        let cells = self.get(cache).elements();
        let cells = self.reshape(cache, [1, cells, 1, 1]);
        let elements = self.get(rows).elements();
        let elements = self.reshape(rows, [1, elements, 1, 1]);
        self.set_rows(cells, elements, ids)
    }

    /// Returns a view of a block's keys, head by head (`get_k`), with the heads of the block under way.
    pub(super) fn read_k(&mut self, source: u32) -> Id {
        let kind = self.kind();
        let cache = self.cache(source, Cache::K);
        self.read_rows(cache, u64::from(kind.head_k), u64::from(kind.heads_kv))
    }

    /// Returns a view of a cache, head by head.
    pub(super) fn read_rows(&mut self, cache: Id, width: u64, heads: u64) -> Id {
        let Tensor { kind, ne, .. } = *self.get(cache);
        let row = row_bytes(kind, ne[0]);
        let stream = row.saturating_mul(ne[1]);
        self.view(cache, [width, heads, ne[1], ne[2]], [row_bytes(kind, width), row, stream], 0)
    }

    /// Returns a view of a block's values (`get_v`).
    pub(super) fn read_v(&mut self, source: u32) -> Id {
        let kind = self.kind();
        let cache = self.cache(source, Cache::V);
        let (width, heads) = (u64::from(kind.head_v), u64::from(kind.heads_kv));
        if self.plan.sizes.flash {
            return self.read_rows(cache, width, heads);
        }
        let Tensor { kind, ne, .. } = *self.get(cache);
        let cells = row_bytes(kind, ne[1]);
        let strides = [cells.saturating_mul(width), cells, cells.saturating_mul(ne[0])];
        self.view(cache, [ne[1], heads, width, ne[2]], strides, 0)
    }

    /// Attention itself (`build_attn_mha`), by flash attention or by the products one by one.
    pub(super) fn multi_head(&mut self, qkv: Qkv, mask: Id, extras: Extras) -> Id {
        let Qkv { q, k, v } = qkv;
        let transposed = self.get(v).nb[1] > self.get(v).nb[2];
        let streams = self.get(k).ne[3].max(1);
        let Tensor { ne, nb, .. } = *self.get(q);
        let tokens = ne[2] / streams;
        let q = self.view(q, [ne[0], ne[1], tokens, streams], [nb[1], nb[2], nb[2].saturating_mul(tokens)], 0);
        let [q, k, v] = [q, k, v].map(|id| self.permute(id, [0, 2, 1, 3]));
        let attended = if self.flash() && extras.bias == Id::NONE {
            self.flash_heads(Qkv { q, k, v }, transposed, mask, extras)
        } else {
            self.plain_heads(Qkv { q, k, v }, transposed, mask, extras)
        };
        self.expand(attended);
        attended
    }

    fn flash_heads(&mut self, Qkv { q, mut k, mut v }: Qkv, transposed: bool, mask: Id, extras: Extras) -> Id {
        if transposed {
            v = self.transpose(v);
        }
        if self.get(k).kind == F32 {
            k = self.cast(k, F16);
        }
        if self.get(v).kind == F32 {
            v = self.cast(v, F16);
        }
        let mut attended = self.flash_attn(q, k, v, mask, extras.sinks);
        let alibi = crate::memory::architecture::has_alibi(self.plan.structure);
        self.get_mut(attended).detail = u32::from(alibi);
        self.note_fused(FusedOp::FlashAttention, attended);
        if extras.v_mla != Id::NONE {
            attended = self.permute(attended, [0, 2, 1, 3]);
            attended = self.mul_mat(extras.v_mla, attended);
            attended = self.permute(attended, [0, 2, 1, 3]);
            attended = self.cont(attended);
        }
        let ne = self.get(attended).ne;
        self.reshape(attended, [ne[0].saturating_mul(ne[1]), ne[2].saturating_mul(ne[3]), 1, 1])
    }

    fn plain_heads(&mut self, Qkv { q, k, mut v }: Qkv, transposed: bool, mask: Id, extras: Extras) -> Id {
        let mut weights = self.mul_mat(k, q);
        // Grok squeezes the products between two limits, as does whatever has a soft cap.
        if self.architecture() == "grok" {
            weights = self.soft_cap(weights);
        }
        if crate::memory::architecture::caps_attention(self.plan.structure) {
            weights = self.soft_cap(weights);
        }
        weights = self.add_if(weights, extras.bias);
        weights = self.soft_max(weights, mask, extras.sinks);
        if !transposed {
            v = self.transpose(v);
            v = self.cont(v);
        }
        let mut attended = self.mul_mat(v, weights);
        if extras.v_mla != Id::NONE {
            attended = self.mul_mat(extras.v_mla, attended);
        }
        attended = self.permute(attended, [0, 2, 1, 3]);
        let ne = self.get(attended).ne;
        attended = self.cont_as(attended, [ne[0].saturating_mul(ne[1]), ne[2].saturating_mul(ne[3]), 1, 1]);
        if !self.plan.settings.offload_kv {
            self.pin_to_cpu(attended);
        }
        attended
    }

    /// Squeezes numbers between two limits by a tanh.
    pub(super) fn soft_cap(&mut self, x: Id) -> Id {
        let small = self.scale(x);
        let squeezed = self.unary(Op::Unary, small);
        self.scale(squeezed)
    }

    /// Returns the rope's factors of a block where the file has some (`get_rope_factors`): one table,
    /// or a long and a short one chosen by the context.
    pub(super) fn rope_factors(&mut self) -> Id {
        let own = self.shared_weight(Role::RopeFreqs);
        if own != Id::NONE {
            return own;
        }
        let original = self.number(Hyper::RopeOriginalContext);
        let role = if self.plan.sizes.cells > original { Role::RopeFactorsLong } else { Role::RopeFactorsShort };
        self.shared_weight(role)
    }

    /// Returns the sinks of the block under way.
    pub(super) fn sinks(&mut self) -> Id {
        self.tensor(Role::AttnSinks, Suffix::Weight)
    }
}
