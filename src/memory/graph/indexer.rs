//! Sparse attention: an indexer with keys of its own scores every cell, and attention looks at the
//! best ones only (DeepSeek's lightning indexer).

use super::attention::{CacheInput, Extras, Qkv};
use super::feed_forward::Norm;
use super::model::{Builder, Cache};
use super::tensor::{F32, FusedOp, I32, I64, Id, Op, Tensor};
use crate::gguf::TensorType;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

/// The inputs of sparse attention over latent rows (`llm_graph_input_attn_k_dsa`).
#[derive(Clone, Copy, Debug)]
pub(super) struct SparseInput {
    /// The attention's own.
    pub(super) rows: CacheInput,
    /// Cells to write the indexer's keys to.
    pub(super) k_idxs: Id,
    /// Who may look at whom, for the indexer: f16 where it is one operation.
    pub(super) mask: Id,
    /// The rotation of the indexer's queries and keys, where there is one.
    pub(super) rotation: Id,
}

impl Builder<'_> {
    /// Returns a mask of `width` cells and as many rows behind it as cells are chosen, all closed, and
    /// what opens a row.
    pub(super) fn closed_mask(&mut self, kind: TensorType, width: u64, chosen: u64) -> [Id; 2] {
        let tokens = self.tokens();
        [width.saturating_add(chosen), chosen].map(|rows| {
            let row = self.constant(kind, [rows, 1, 1, 1]);
            let row = self.unary(Op::Fill, row);
            let rows_of_tokens = self.repeat(row, [rows, tokens, 1, 1]);
            self.reshape(rows_of_tokens, [1, rows, tokens, 1])
        })
    }

    /// Opens a closed mask at the chosen cells that are live; the others go to places of their own
    /// behind it.
    pub(super) fn open_live(&mut self, [closed, open]: [Id; 2], chosen: Id, live: Id, places: Id) -> Id {
        let (tokens, count) = (self.tokens(), self.get(chosen).ne[0]);
        let wanted = self.cast(chosen, F32);
        let apart = self.binary(Op::Sub, wanted, places);
        let apart = self.mul(apart, live);
        let ids = self.add(apart, places);
        let ids = self.cast(ids, I32);
        let ids = self.reshape(ids, [count, tokens, 1, 1]);
        self.set_rows(closed, open, ids)
    }

    /// Returns the inputs of sparse attention over latent rows (`build_attn_inp_k_dsa`).
    pub(super) fn sparse_input(&mut self) -> SparseInput {
        let mut rows = self.cache_input(false, false);
        rows.k_rot = Id::NONE;
        let tokens = self.tokens();
        let k_idxs = self.input(I64, [tokens, 1, 1, 1]);
        let fused = self.plan.uses.lightning_indexer;
        let mask = self.mask(self.plan.sizes.cells, fused);
        let size = rotation_size(self.indexer_width());
        // Whatever the cache's type: the model was trained so.
        let rotation = self.input(F32, [size, size, 1, 1]);
        SparseInput { rows, k_idxs, mask, rotation }
    }

    /// Returns the width of an indexer's key.
    pub(super) fn indexer_width(&self) -> u64 {
        self.number(Hyper::IndexerKeyLength)
    }

    /// Stores the indexer's keys, scores all cells by its queries and returns the best ones: `narrow`
    /// is the queries' narrow row.
    pub(super) fn best_cells(&mut self, x: Id, narrow: Id, positions: Id, input: &SparseInput) -> Id {
        let (width, heads, tokens) = (self.indexer_width(), self.number(Hyper::IndexerHeads), self.tokens());
        let weight = self.weight(Role::IndexerQB);
        let q = self.mul_mat(weight, narrow);
        let q = self.reshape(q, [width, heads, tokens, 1]);
        let q = self.rope(q, positions, Id::NONE);
        let weight = self.weight(Role::IndexerK);
        let k = self.mul_mat(weight, x);
        let k = self.norm(Norm::Layer, k, Role::IndexerKNorm);
        let k = self.reshape(k, [width, 1, tokens, 1]);
        let k = self.rope(k, positions, Id::NONE);
        let rotates = input.rotation != Id::NONE;
        let [q, k] = [q, k].map(|id| if rotates { self.mul_mat(input.rotation, id) } else { id });
        let keys = self.store_indexer_keys(k, input.k_idxs);
        let weight = self.weight(Role::IndexerProj);
        let weights = self.mul_mat(weight, x);
        let score = self.index_cells(q, keys, weights, input.mask);
        let best = self.number(Hyper::IndexerTopK).min(self.get(score).ne[0]);
        let best = self.top_k(score, best);
        self.cont(best)
    }

    /// Writes keys to the indexer's cache and returns a view of all of it.
    pub(super) fn store_indexer_keys(&mut self, k: Id, ids: Id) -> Id {
        let cache = self.cache(self.index(), Cache::IndexerK);
        let stored = self.store_rows(cache, k, ids);
        self.expand(stored);
        let width = self.get(cache).ne[0];
        self.read_rows(cache, width, 1)
    }

    /// Scores cells: each head's product with the keys where it is positive, weighted and summed up.
    pub(super) fn index_cells(&mut self, q: Id, keys: Id, weights: Id, mask: Id) -> Id {
        let (q, weights) = self.by_stream(q, weights, keys);
        let weights = self.scale(weights);
        self.score_cells(q, keys, weights, mask)
    }

    /// Views queries and their weights stream by stream, as the keys are.
    pub(super) fn by_stream(&mut self, q: Id, weights: Id, keys: Id) -> (Id, Id) {
        let streams = self.get(keys).ne[3].max(1);
        let Tensor { ne, nb, .. } = *self.get(q);
        let q = self.view(q, [ne[0], ne[1], ne[2] / streams, streams], [nb[1], nb[2], nb[3] / streams], 0);
        let Tensor { ne, nb, .. } = *self.get(weights);
        let shape = [ne[0], ne[1] / streams, ne[2], streams];
        let weights = self.view(weights, shape, [nb[1], nb[2] / streams, nb[3] / streams], 0);
        (q, weights)
    }

    /// As [`Builder::index_cells`], with queries and weights already apart by stream.
    pub(super) fn score_cells(&mut self, q: Id, keys: Id, weights: Id, mask: Id) -> Id {
        if self.plan.uses.lightning_indexer {
            let (q_ne, k_ne) = (self.get(q).ne, self.get(keys).ne);
            let ne = [k_ne[2], q_ne[2], 1, q_ne[3]];
            let score = self.other(Op::LightningIndexer, ne, &[q, keys, weights, mask]);
            self.note_fused(FusedOp::LightningIndexer, score);
            return score;
        }
        let [q, keys] = [q, keys].map(|id| self.permute(id, [0, 2, 1, 3]));
        let score = self.mul_mat(keys, q);
        let score = self.permute(score, [2, 1, 0, 3]);
        let score = self.cont(score);
        let score = self.unary(Op::Unary, score);
        let score = self.mul(score, weights);
        let score = self.sum_rows(Op::SumRows, score);
        let score = self.permute(score, [2, 1, 0, 3]);
        let score = self.cont(score);
        self.add(score, mask)
    }

    /// Attends over the block's latent rows at the best cells only (`build_attn` with a
    /// `llm_graph_input_attn_k_dsa`).
    pub(super) fn attend_best(&mut self, input: &CacheInput, qkv: Qkv, extras: Extras, best: Id) -> Id {
        let block = self.index();
        let Qkv { q, k, v } = qkv;
        for id in [q, v, k] {
            self.expand(id);
        }
        let stored = self.store_k(k, input.k_idxs, block);
        self.expand(stored);
        let mask = self.open_mask(input.mask, best, F32);
        let mask = self.add(mask, input.mask);
        let keys = self.read_k(block);
        let Tensor { ne, nb, .. } = *self.get(keys);
        let width = self.get(v).ne[0];
        let values = self.view(keys, [width, ne[1], ne[2], ne[3]], [nb[1], nb[2], nb[3]], 0);
        let attended = self.multi_head(Qkv { q, k: keys, v: values }, mask, extras);
        match extras.output {
            Some(output) => self.project_biased(output, attended),
            None => attended,
        }
    }

    /// Returns a mask that is closed but for the best cells; `kind` is the type of what opens it.
    pub(super) fn open_mask(&mut self, mask: Id, best: Id, kind: TensorType) -> Id {
        let closed = self.unary(Op::Fill, mask);
        let Tensor { ne, nb, .. } = *self.get(closed);
        let closed = self.view(closed, [1, ne[0], ne[1], ne[3]], [nb[0], nb[1], nb[2]], 0);
        let Tensor { ne, nb, .. } = *self.get(best);
        let best = self.view(best, [ne[0], ne[1], ne[3], 1], [nb[1], nb[2], ne[3].saturating_mul(nb[3])], 0);
        let zeros = self.constant(kind, [1, ne[0], ne[1], ne[3]]);
        let zeros = self.unary(Op::Fill, zeros);
        let open = self.set_rows(closed, zeros, best);
        let Tensor { ne, nb, .. } = *self.get(open);
        self.view(open, [ne[1], ne[2], 1, ne[3]], [nb[2], nb[3], nb[3]], 0)
    }
}

/// Returns the size of the rotation of heads of a width: the largest power of two times 64 that
/// divides it (`llama-kv-cache.cpp`).
pub(super) fn rotation_size(width: u64) -> u64 {
    let mut size = 64;
    while width > 0 && width.is_multiple_of(2 * size) {
        size *= 2;
    }
    size
}
