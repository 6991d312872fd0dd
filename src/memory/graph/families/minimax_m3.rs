//! `MiniMax` M3: sparse attention over blocks of the context (MSA).
//!
//! An indexer scores each position, the best of a block counts for it, and each group of heads
//! attends to the blocks that score highest. Cells of a cache need not be in the order of their
//! positions, so the graph goes from one to the other by tables that are inputs.

use super::super::attention::{AttentionInput, CacheInput, Extras, Qkv};
use super::super::feed_forward::{Activation, DENSE, Experts, GateType, Norm};
use super::super::model::{Builder, Cache};
use super::super::tensor::{F16, F32, I32, I64, Id, Op, Tensor};
use super::Family;
use super::moe::by_header;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

/// Positions are looked at in multiples of this many; as the graph is reserved over an empty cache,
/// there are no more (`get_n_pos` in `llama-kv-cache-msa.cpp`).
const POSITIONS: u64 = 256;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    (architecture == "minimax-m3").then_some(build as Family)
}

fn build(g: &mut Builder) {
    let mut x = g.embeddings();
    let positions = g.positions();
    let input = g.cache_input(false, true);
    let caches = AttentionInput::Cache(input);
    let sparse = Sparse::new(g, input);
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let Qkv { q, k, v } = g.qkv(normed);
        let q = g.norm(Norm::Rms, q, Role::AttnQNorm);
        let k = g.norm(Norm::Rms, k, Role::AttnKNorm);
        let q = g.rope(q, positions, Id::NONE);
        let k = g.rope(k, positions, Id::NONE);
        let leads = u64::from(block) < g.number(Hyper::LeadingDenseBlocks);
        let attended = match &sparse {
            Some(sparse) if !leads => sparse.attend(g, normed, positions, Qkv { q, k, v }),
            _ => g.attend(&caches, Qkv { q, k, v }, Extras::default()),
        };
        let [attended, residual] = g.keep_outputs(ids, [attended, x]);
        let attended = g.add(attended, residual);
        let normed = g.norm(Norm::Rms, attended, Role::FfnNorm);
        let fed = if g.has(Role::FfnGateInp) {
            let how = Experts { activation: Activation::SwigluOai, ..by_header(g) };
            g.routed_and_shared(normed, how)
        } else {
            g.feed_forward(normed, DENSE, Activation::SwigluOai, GateType::Parallel)
        };
        x = g.add(fed, attended);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    g.finish(logits);
}

/// What sparse attention reads, and its measures.
struct Sparse {
    cache: CacheInput,
    /// Cells to write the indexer's keys to.
    k_idxs: Id,
    /// What makes each token look at the blocks right behind it.
    bias: Id,
    /// Who may look at whom, by position.
    mask: Id,
    /// The cell of each position.
    cells: Id,
    /// The same as numbers to compute with, where each stream has one token.
    cell_numbers: Id,
    /// The block of each cell, where streams have several tokens.
    blocks_of_cells: Id,
    /// The cache's mask in f32, where streams have several tokens.
    wide_mask: Id,
    /// Positions in a block.
    block: u64,
    /// Positions looked at.
    positions: u64,
    /// Blocks that a group of heads attends to.
    chosen: u64,
    /// The indexer's heads, one for each group of heads.
    heads: u64,
    /// The width of an indexer's head.
    width: u64,
    streams: u64,
    /// Tokens of a stream.
    tokens: u64,
}

impl Sparse {
    /// Makes the inputs. Without flash attention, or where slots share a cache, attention is dense.
    fn new(g: &mut Builder, cache: CacheInput) -> Option<Sparse> {
        let alone = g.plan.sizes.slots == 1 || !g.plan.settings.unified_kv;
        if !g.flash() || !alone {
            return None;
        }
        let all = g.tokens();
        let [cells, tokens, _, streams] = g.get(cache.mask).ne;
        let block = g.number(Hyper::IndexerBlockSize).max(1);
        let positions = POSITIONS.next_multiple_of(block);
        let blocks = positions / block;
        let single = tokens == 1;
        Some(Sparse {
            cache,
            k_idxs: g.input(I64, [all, 1, 1, 1]),
            bias: g.input(F32, [blocks, all, 1, 1]),
            mask: g.input(F32, [positions, all, 1, 1]),
            cells: g.input(I32, [positions, streams, 1, 1]),
            cell_numbers: if single { g.input(F32, [positions, streams, 1, 1]) } else { Id::NONE },
            blocks_of_cells: if single { Id::NONE } else { g.input(I32, [cells, streams, 1, 1]) },
            wide_mask: if single { Id::NONE } else { g.cast(cache.mask, F32) },
            block,
            positions,
            chosen: g.number(Hyper::IndexerTopK).min(blocks),
            heads: g.number(Hyper::IndexerHeads),
            width: u64::from(g.plan.structure.dimensions.indexer),
            streams,
            tokens,
        })
    }

    /// Blocks looked at.
    const fn blocks(&self) -> u64 {
        self.positions / self.block
    }

    /// Attends sparsely and projects the result.
    fn attend(&self, g: &mut Builder, x: Id, positions: Id, qkv: Qkv) -> Id {
        let index_q = self.indexed(g, [Role::IndexerQProj, Role::IndexerQNorm], self.heads, x, positions);
        let index_k = self.indexed(g, [Role::IndexerKProj, Role::IndexerKNorm], 1, x, positions);
        let block = g.index();
        let cache = g.cache(block, Cache::IndexerK);
        let stored = g.store_rows(cache, index_k, self.k_idxs);
        g.expand(stored);
        let index_k = g.read_rows(cache, self.width, 1);

        let Qkv { mut q, mut k, mut v } = qkv;
        if self.cache.k_rot != Id::NONE {
            q = g.rotate(q, self.cache.k_rot);
            k = g.rotate(k, self.cache.k_rot);
        }
        if self.cache.v_rot != Id::NONE {
            v = g.rotate(v, self.cache.v_rot);
        }
        for id in [q, k, v] {
            g.expand(id);
        }
        let stored = g.store_k(k, self.cache.k_idxs, block);
        g.expand(stored);
        let stored = g.store_v(v, self.cache.v_idxs, block);
        g.expand(stored);
        let (k, v) = (g.read_k(block), g.read_v(block));

        let mut attended = if self.tokens == 1 {
            self.gather(g, index_q, index_k, Qkv { q, k, v })
        } else {
            let mut joined = Id::NONE;
            for stream in 0..self.streams {
                let part = self.attend_stream(g, stream, [index_q, index_k], Qkv { q, k, v });
                joined = if joined == Id::NONE { part } else { g.concat(joined, part, 1) };
            }
            joined
        };
        if self.cache.v_rot != Id::NONE {
            attended = g.rotate(attended, self.cache.v_rot);
        }
        g.project(Role::AttnOutput, attended)
    }

    /// Projects to the indexer's queries or keys.
    fn indexed(&self, g: &mut Builder, [matrix, norm]: [Role; 2], heads: u64, x: Id, positions: Id) -> Id {
        let tokens = g.tokens();
        let weight = g.weight(matrix);
        let product = g.mul_mat(weight, x);
        let shaped = g.reshape(product, [self.width, heads, tokens, 1]);
        let normed = g.norm(Norm::Rms, shaped, norm);
        g.rope(normed, positions, Id::NONE)
    }

    /// Attends over the whole cache of a stream under a mask that shows the chosen blocks alone.
    fn attend_stream(&self, g: &mut Builder, stream: u64, [index_q, index_k]: [Id; 2], qkv: Qkv) -> Id {
        let (tokens, heads, blocks) = (self.tokens, self.heads, self.blocks());
        let columns = heads.saturating_mul(tokens);
        let of_stream = |g: &mut Builder, x: Id, ne: [u64; 3], strides: [u64; 2], each: u64| {
            g.view_3d(x, ne, strides, stream.saturating_mul(each))
        };
        let Tensor { nb, .. } = *g.get(index_q);
        let index_q = of_stream(g, index_q, [self.width, heads, tokens], [nb[1], nb[2]], tokens.saturating_mul(nb[2]));
        let Tensor { ne, nb, .. } = *g.get(index_k);
        let cells = ne[2];
        let index_k = g.view_2d(index_k, [self.width, cells], nb[2], stream.saturating_mul(nb[3]));
        let stride = g.get(self.cells).nb[1];
        let cells_of_positions = g.view_1d(self.cells, self.positions, stream.saturating_mul(stride));
        let stride = g.get(self.mask).nb[1];
        let mask =
            of_stream(g, self.mask, [self.positions, 1, tokens], [stride, stride], tokens.saturating_mul(stride));
        let stride = g.get(self.blocks_of_cells).nb[1];
        let blocks_of_cells = g.view_1d(self.blocks_of_cells, cells, stream.saturating_mul(stride));
        let Tensor { nb, .. } = *g.get(self.wide_mask);
        let wide_mask = of_stream(g, self.wide_mask, [cells, tokens, 1], [nb[1], nb[3]], nb[3]);
        let stride = g.get(self.bias).nb[1];
        let bias = of_stream(g, self.bias, [blocks, 1, tokens], [stride, stride], tokens.saturating_mul(stride));
        let Tensor { ne, nb, .. } = *g.get(qkv.q);
        let q = of_stream(g, qkv.q, [ne[0], ne[1], tokens], [nb[1], nb[2]], tokens.saturating_mul(nb[2]));
        let [k, v] = [qkv.k, qkv.v].map(|cache| {
            let Tensor { ne, nb, .. } = *g.get(cache);
            g.view(cache, [ne[0], ne[1], ne[2], 1], [nb[1], nb[2], nb[3]], stream.saturating_mul(nb[3]))
        });

        let keys = g.get_rows(index_k, cells_of_positions);
        let index_q = g.reshape(index_q, [self.width, columns, 1, 1]);
        let scores = g.mul_mat(keys, index_q);
        let scores = g.reshape(scores, [self.positions, heads, tokens, 1]);
        let best = self.best_blocks(g, scores, mask, bias);

        // Everything is hidden at first, then the chosen blocks are shown.
        let hidden = g.scale(bias);
        let hidden = g.cast(hidden, F16);
        let hidden = g.repeat(hidden, [blocks, heads, tokens, 1]);
        let shown = g.cast(best, F32);
        let shown = g.scale(shown);
        let hidden = g.reshape(hidden, [1, blocks, columns, 1]);
        let shown = g.reshape(shown, [1, self.chosen, columns, 1]);
        let best = g.reshape(best, [self.chosen, columns, 1, 1]);
        let by_block = g.set_rows(hidden, shown, best);
        let by_block = g.reshape(by_block, [blocks, heads, tokens, 1]);
        let by_block = g.permute(by_block, [0, 2, 1, 3]);
        let by_block = g.cont(by_block);
        let by_block = g.reshape(by_block, [blocks, columns, 1, 1]);
        let by_block = g.transpose(by_block);
        let by_block = g.cont(by_block);
        let by_cell = g.get_rows(by_block, blocks_of_cells);
        let by_cell = g.transpose(by_cell);
        let by_cell = g.cont(by_cell);
        let by_cell = g.reshape(by_cell, [cells, tokens, heads, 1]);
        let by_cell = g.view_as(Op::Add, by_cell, &[by_cell, wide_mask]);
        let by_cell = g.reshape(by_cell, [cells, tokens, 1, heads]);
        let by_cell = g.cast(by_cell, F16);
        let [k, v] = [k, v].map(|id| g.permute(id, [0, 3, 1, 2]));
        Sparse::by_groups(g, Qkv { q, k, v }, by_cell)
    }

    /// Attends over copies of the chosen blocks, of all streams at once: each has one token.
    fn gather(&self, g: &mut Builder, index_q: Id, index_k: Id, qkv: Qkv) -> Id {
        let (streams, heads, positions) = (self.streams, self.heads, self.positions);
        let Tensor { ne, nb, .. } = *g.get(index_k);
        let keys = g.view_3d(index_k, [self.width, ne[2], streams], [nb[2], nb[3]], 0);
        let keys = g.get_rows(keys, self.cells);
        let index_q = g.reshape(index_q, [self.width, heads, 1, streams]);
        let keys = g.reshape(keys, [self.width, positions, 1, streams]);
        let scores = g.mul_mat(keys, index_q);
        let mask = g.reshape(self.mask, [positions, 1, 1, streams]);
        let bias = g.reshape(self.bias, [self.blocks(), 1, 1, streams]);
        let best = self.best_blocks(g, scores, mask, bias);

        // From blocks to positions to cells to rows of the cache.
        let (block, chosen) = (self.block, self.chosen);
        let each = block.saturating_mul(chosen);
        let all = each.saturating_mul(heads);
        let first = g.cast(best, F32);
        let first = g.scale(first);
        let first = g.reshape(first, [1, chosen, heads, streams]);
        let first = g.repeat(first, [block, chosen, heads, streams]);
        let steps = range(g, [block, 1, 1, 1]);
        let at = g.add(first, steps);
        let at = g.reshape(at, [all, streams, 1, 1]);
        let at = g.cast(at, I32);
        let numbers = g.reshape(self.cell_numbers, [1, positions, streams, 1]);
        let cells = g.get_rows(numbers, at);
        let cells = g.reshape(cells, [block, chosen, heads, streams]);
        let rows = g.scale(cells);
        let groups = range(g, [1, 1, heads, 1]);
        let rows = g.add(rows, groups);
        let rows = g.reshape(rows, [all, streams, 1, 1]);
        let rows = g.cast(rows, I32);
        let [k, v] = [qkv.k, qkv.v].map(|cache| {
            let Tensor { ne, nb, .. } = *g.get(cache);
            g.view_3d(cache, [ne[0], ne[1].saturating_mul(ne[2]), streams], [nb[1], nb[3]], 0)
        });
        let mask = g.reshape(self.mask, [1, positions, streams, 1]);
        let copies = [k, v].map(|cache| g.get_rows(cache, rows));
        let mask = g.get_rows(mask, at);
        let lanes = heads.saturating_mul(streams);
        let shaped = copies.map(|copy| {
            let width = g.get(copy).ne[0];
            g.reshape(copy, [width, each, 1, lanes])
        });
        let settings = g.plan.settings;
        let kinds = [settings.cache_type_k, settings.cache_type_v];
        let mut cast = shaped;
        for (copy, cached) in cast.iter_mut().zip(kinds) {
            // Rows come out of every cache as f32.
            let kind = if cached.is_quantised() { F16 } else { cached.tensor_type() };
            if kind != F32 {
                *copy = g.cast(*copy, kind);
            }
        }
        let [k, v] = cast;
        let mask = g.reshape(mask, [each, 1, 1, lanes]);
        let mask = g.cast(mask, F16);
        Sparse::by_groups(g, Qkv { q: qkv.q, k, v }, mask)
    }

    /// Returns the blocks with the highest scores.
    fn best_blocks(&self, g: &mut Builder, scores: Id, mask: Id, bias: Id) -> Id {
        let scores = g.view_as(Op::Add, scores, &[scores, mask]);
        let ne = g.get(scores).ne;
        let best = g.other(Op::Pool2d, [self.blocks(), ne[1], ne[2], ne[3]], &[scores]);
        let best = g.add(best, bias);
        g.top_k(best, self.chosen)
    }

    /// Attends once for all groups of heads, each as a sequence of its own (`build_attn_msa_fa`).
    fn by_groups(g: &mut Builder, Qkv { q, k, v }: Qkv, mask: Id) -> Id {
        let [width, heads, tokens, _] = g.get(q).ne;
        let lanes = g.get(k).ne[3].max(1);
        let group = g.heads().q.checked_div(g.heads().kv).unwrap_or(1).max(1);
        let rows = heads.saturating_mul(tokens) / group.saturating_mul(lanes);
        let q = g.reshape(q, [width, group, lanes, rows]);
        let q = g.permute(q, [0, 2, 3, 1]);
        let attended = g.flash_attn(q, k, v, mask, Id::NONE);
        let attended = g.permute(attended, [0, 1, 3, 2]);
        let attended = g.contiguous(attended);
        g.reshape(attended, [width.saturating_mul(heads), tokens, 1, 1])
    }
}

/// Counts up from zero (`ggml_arange`).
fn range(g: &mut Builder, ne: [u64; 4]) -> Id {
    let length = ne.iter().fold(1, |product: u64, &ne| product.saturating_mul(ne));
    let counted = g.other(Op::Other, [length, 1, 1, 1], &[]);
    g.reshape(counted, ne)
}
