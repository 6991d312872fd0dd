//! GLM 5 Next: Kimi's delta attention, or latent attention without rope to the best groups of cells,
//! both between hyper-connections.

use super::super::attention::{AttentionInput, CacheInput, Extras, Qkv};
use super::super::feed_forward::Norm;
use super::super::hyper_connections::{ATTENTION, NETWORK};
use super::super::kda::Decay;
use super::super::model::{Builder, Cache};
use super::super::tensor::{F16, F32, I32, I64, Id, Op, Tensor, row_bytes};
use super::Family;
use super::moe::by_header;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    (architecture == "glm5-next").then_some(glm5_next as Family)
}

/// The longest micro-batch whose tokens' best rows are gathered (`build_inp_kpool`).
const GATHERED_TOKENS: u64 = 16;

fn glm5_next(g: &mut Builder) {
    let x = g.embeddings();
    let states = g.state_input();
    let AttentionInput::Cache(rows) = g.keys_input() else { return };
    let pools = Pools::new(g);
    let ids = g.output_ids();
    let mut x = g.spread_over_streams(x);
    // The bound is an option of the header; 0 stands for none.
    let decay = if g.float(Hyper::KdaGateLowerBound) == 0.0 { Decay::Softplus } else { Decay::Bounded };
    let mut best = Id::NONE;
    for &block in g.blocks() {
        g.enter(Some(block));
        let (mixed, joint) = g.mix(x, ATTENTION);
        let normed = g.norm(Norm::Rms, mixed, Role::AttnNorm);
        g.expand(normed);
        let attended = if g.kind().recurrent {
            g.kda(&states, normed, decay)
        } else {
            latent(g, normed, &rows, &pools, &mut best)
        };
        x = g.join(attended, x, joint);
        let (mixed, joint) = g.mix(x, NETWORK);
        let normed = g.norm(Norm::Rms, mixed, Role::FfnNorm);
        let fed = if u64::from(block) < g.number(Hyper::LeadingDenseBlocks) {
            g.swiglu(normed)
        } else {
            let how = by_header(g);
            g.routed_and_shared(normed, how)
        };
        x = g.join(fed, x, joint);
    }
    g.enter(None);
    let [width, streams, tokens, _] = g.get(x).ne;
    let flat = g.reshape(x, [width.saturating_mul(streams), tokens, 1, 1]);
    let kept = g.get_rows(flat, ids);
    let outputs = g.plan.outputs;
    let x = g.reshape(kept, [width, streams, outputs, 1]);
    let mean = mean(g, x);
    let normed = g.output_norm(Norm::Rms, mean);
    let logits = g.logits(normed);
    g.finish(logits);
}

/// Returns the mean of the residual streams.
fn mean(g: &mut Builder, x: Id) -> Id {
    let Tensor { ne, nb, .. } = *g.get(x);
    let mut sum = Id::NONE;
    for stream in 0..ne[1] {
        let part = g.view_2d(x, [ne[0], ne[2]], nb[2], stream.saturating_mul(nb[1]));
        sum = if sum == Id::NONE { part } else { g.add(sum, part) };
    }
    g.scale(sum)
}

/// The inputs of attention to the best groups of cells (`llm_graph_input_kpool`).
struct Pools {
    /// Cells of a group.
    size: u64,
    /// Groups that a token looks at.
    best: u64,
    /// Cells to write the indexer's rows to.
    k_idxs: Id,
    /// The cell that has a group's pooled key.
    cells: Id,
    /// The cells of each group.
    members: Id,
    /// Which groups a token may look at.
    mask: Id,
    /// The cells behind the last full group.
    tail: Id,
    /// Which of the chosen cells are there at all.
    live: Id,
    /// Whether each token's rows are gathered; else a mask is opened for them.
    gathers: bool,
    /// The groups that are pooled anew: their cells, and where the key goes.
    new_members: Id,
    new_cells: Id,
}

impl Pools {
    /// Returns the inputs at full context, where every group is pooled anew.
    fn new(g: &mut Builder) -> Pools {
        let (tokens, sizes) = (g.tokens(), *g.plan.sizes);
        let size = g.number(Hyper::IndexerPool).clamp(2, 1 << 16);
        let groups = (sizes.cells / size).saturating_mul(sizes.slots);
        // The last group is always unused (`kpool_pad`).
        let padded = groups.saturating_add(1).checked_next_multiple_of(64).unwrap_or(groups);
        let top = g.number(Hyper::IndexerTopK);
        let best = padded.min(top / size);
        let k_idxs = g.input(I64, [tokens, 1, 1, 1]);
        let cells = g.input(I32, [padded, 1, 1, 1]);
        let members = g.input(I32, [size, padded, 1, 1]);
        let kind = if g.plan.uses.lightning_indexer { F16 } else { F32 };
        let mask = g.input(kind, [padded, tokens, 1, 1]);
        let tail = g.input(I32, [size - 1, tokens, 1, 1]);
        for id in [cells, members, mask, tail] {
            g.expand(id);
        }
        let chosen = size.saturating_mul(best).saturating_add(if selects_tail(g) { size - 1 } else { 0 });
        let gathers = sizes.tokens <= GATHERED_TOKENS && sizes.context() > top.saturating_add(size - 1);
        let live = g.input(F32, [chosen, 1, 1, tokens]);
        g.expand(live);
        let new = groups.max(1);
        let new_members = g.input(I32, [size, new, 1, 1]);
        let new_cells = g.input(I64, [new, 1, 1, 1]);
        Pools { size, best, k_idxs, cells, members, mask, tail, live, gathers, new_members, new_cells }
    }
}

/// Returns whether the cells behind the last full group are always looked at.
fn selects_tail(g: &Builder) -> bool {
    g.number(Hyper::IndexerTailLeft) == 0
}

/// Latent attention without rope, to the cells that an indexer picks; a block without one takes those of
/// the last block that has one.
fn latent(g: &mut Builder, x: Id, input: &CacheInput, pools: &Pools, best: &mut Id) -> Id {
    let (heads, tokens) = (g.heads(), g.tokens());
    let (nope, rank) = (g.number(Hyper::KeyLengthMla), g.number(Hyper::KvLoraRank));
    let narrow = g.narrow_queries(x);
    let weight = g.weight(Role::AttnQB);
    let q = g.mul_mat(weight, narrow);
    let q = g.reshape(q, [nope, heads.q, tokens, 1]);
    let weight = g.weight(Role::AttnKvAMqa);
    let row = g.mul_mat(weight, x);
    let row = g.norm(Norm::Rms, row, Role::AttnKvANorm);
    let row = g.reshape(row, [rank, 1, tokens, 1]);
    let q = g.permute(q, [0, 2, 1, 3]);
    let weight = g.weight(Role::AttnKB);
    let q = g.mul_mat(weight, q);
    let q = g.permute(q, [0, 2, 1, 3]);
    if g.kind().indexed || *best == Id::NONE {
        *best = best_groups(g, x, narrow, input.mask, pools);
    }
    for id in [q, row] {
        g.expand(id);
    }
    let stored = g.store_k(row, input.k_idxs, g.index());
    g.expand(stored);
    let attended = if pools.gathers {
        gathered(g, q, input, pools, *best)
    } else {
        let shape = g.get(input.mask).ne;
        let mask = g.reshape(*best, shape);
        let k = g.read_k(g.index());
        let Tensor { ne, nb, .. } = *g.get(k);
        let v = g.view(k, [rank, ne[1], ne[2], ne[3]], [nb[1], nb[2], nb[3]], 0);
        let v_mla = g.weight(Role::AttnVB);
        g.multi_head(Qkv { q, k, v }, mask, Extras { v_mla, ..Extras::no_output() })
    };
    let weight = g.weight(Role::AttnOutput);
    g.mul_mat(weight, attended)
}

/// Attends to each token's best rows alone.
fn gathered(g: &mut Builder, q: Id, input: &CacheInput, pools: &Pools, best: Id) -> Id {
    g.expand(input.mask);
    let (heads, tokens, rank) = (g.heads().q, g.tokens(), g.number(Hyper::KvLoraRank));
    let cache = g.cache(g.index(), Cache::K);
    let Tensor { ne, nb, .. } = *g.get(cache);
    let rows = g.view_2d(cache, [ne[0], ne[1].saturating_mul(ne[2])], nb[1], 0);
    let chosen = g.get(best).ne[0];
    let ids = g.reshape(best, [chosen.saturating_mul(tokens), 1, 1, 1]);
    let rows = g.get_rows(rows, ids);
    let keys = g.reshape(rows, [rank, chosen, 1, tokens]);
    let q = g.permute(q, [0, 2, 3, 1]);
    let weights = g.mul_mat(keys, q);
    let weights = g.soft_max(weights, pools.live, Id::NONE);
    let values = g.transpose(keys);
    let values = g.cont(values);
    let attended = g.mul_mat(values, weights);
    let weight = g.weight(Role::AttnVB);
    let attended = g.mul_mat(weight, attended);
    let width = g.get(attended).ne[0];
    let attended = g.permute(attended, [0, 2, 1, 3]);
    let attended = g.cont(attended);
    g.reshape(attended, [width.saturating_mul(heads), tokens, 1, 1])
}

/// Returns the cells of the best groups and those behind the last full one, or a mask that is open for
/// them (`build_kpool_select`).
fn best_groups(g: &mut Builder, x: Id, narrow: Id, mask: Id, pools: &Pools) -> Id {
    let (width, heads, tokens) = (g.indexer_width(), g.number(Hyper::IndexerHeads), g.tokens());
    let weight = g.weight(Role::IndexerQB);
    let q = g.mul_mat(weight, narrow);
    let q = g.reshape(q, [width, heads, tokens, 1]);
    let pooled = pooled_keys(g, x, pools);
    let weight = g.weight(Role::IndexerProj);
    let weights = g.mul_mat(weight, x);
    let weights = g.scale(weights);
    let score = g.score_cells(q, pooled, weights, pools.mask);
    let groups = g.get(score).ne[0];
    let top = g.top_k(score, pools.best);
    // The best come first, since it is by their number that cells are told to be there.
    let column = g.reshape(score, [1, groups, tokens, 1]);
    let scores = g.get_rows(column, top);
    let scores = g.reshape(scores, [pools.best, tokens, 1, 1]);
    let order = g.argsort(scores);
    let top = g.cast(top, F32);
    let top = g.reshape(top, [1, pools.best, tokens, 1]);
    let top = g.get_rows(top, order);
    let top = g.reshape(top, [pools.best, tokens, 1, 1]);
    let top = g.cont(top);
    let top = g.cast(top, I32);
    let top = g.reshape(top, [pools.best.saturating_mul(tokens), 1, 1, 1]);
    let chosen = g.get_rows(pools.members, top);
    let mut chosen = g.reshape(chosen, [pools.size.saturating_mul(pools.best), tokens, 1, 1]);
    if selects_tail(g) {
        chosen = g.concat(chosen, pools.tail, 0);
    }
    if pools.gathers {
        return chosen;
    }
    g.expand(chosen);
    let opened = open(g, chosen, mask, pools.live);
    let [cells, ..] = g.get(mask).ne;
    let flat = g.reshape(mask, [cells, tokens, 1, 1]);
    g.add(opened, flat)
}

/// Returns a mask that is open for the chosen cells that are there.
fn open(g: &mut Builder, chosen: Id, mask: Id, live: Id) -> Id {
    let Tensor { kind, ne, .. } = *g.get(mask);
    let (tokens, count) = (g.tokens(), g.get(chosen).ne[0]);
    let closed = g.closed_mask(kind, ne[0], count);
    // Cells that are not there go to rows of their own behind the mask.
    let live = g.reshape(live, [count, tokens, 1, 1]);
    let live = g.unary(Op::Exp, live);
    let places = g.other(Op::Other, [count, 1, 1, 1], &[]);
    let opened = g.open_live(closed, chosen, live, places);
    let stride = g.get(opened).nb[2];
    g.view_2d(opened, [ne[0], tokens], stride, 0)
}

/// Stores the indexer's key and gate of each token, pools the keys of each group by the gates, stores
/// the result beside them, and returns the pooled keys of all groups.
fn pooled_keys(g: &mut Builder, x: Id, pools: &Pools) -> Id {
    let (width, tokens) = (g.indexer_width(), g.tokens());
    let weight = g.weight(Role::IndexerK);
    let key = g.mul_mat(weight, x);
    let key = g.norm(Norm::Layer, key, Role::IndexerKNorm);
    let weight = g.weight(Role::IndexerCompressorGate);
    let gate = g.mul_mat(weight, x);
    let empty = g.constant(F32, [width, tokens, 1, 1]);
    let empty = g.unary(Op::Fill, empty);
    let row = g.concat(key, gate, 0);
    let row = g.concat(row, empty, 0);
    let row = g.reshape(row, [width.saturating_mul(3), 1, tokens, 1]);
    let cache = g.cache(g.index(), Cache::IndexerK);
    let stored = g.store_rows(cache, row, pools.k_idxs);
    g.expand(stored);

    let Tensor { kind, ne, nb, .. } = *g.get(cache);
    let cells = ne[1].saturating_mul(ne[2]);
    let both = width.saturating_mul(2);
    let rows = g.view_2d(cache, [both, cells], nb[1], 0);
    let pooled = g.view_2d(cache, [width, cells], nb[1], row_bytes(kind, both));
    let new = g.get(pools.new_cells).ne[0];
    let ids = g.reshape(pools.new_members, [pools.size.saturating_mul(new), 1, 1, 1]);
    let rows = g.get_rows(rows, ids);
    let rows = g.reshape(rows, [both, pools.size, new, 1]);
    let Tensor { kind, nb, .. } = *g.get(rows);
    let [keys, gates] =
        [0, row_bytes(kind, width)].map(|at| g.view_3d(rows, [width, pools.size, new], [nb[1], nb[2]], at));
    let places = g.weight(Role::IndexerCompressorApe);
    let gates = g.add(gates, places);
    let gates = g.permute(gates, [1, 0, 2, 3]);
    let gates = g.cont(gates);
    let gates = g.reshape(gates, [pools.size, width.saturating_mul(new), 1, 1]);
    let shares = g.soft_max(gates, Id::NONE, Id::NONE);
    let shares = g.reshape(shares, [pools.size, width, new, 1]);
    let keys = g.permute(keys, [1, 0, 2, 3]);
    let keys = g.cont(keys);
    let weighted = g.mul(shares, keys);
    let sums = g.sum_rows(Op::SumRows, weighted);
    let fresh = g.reshape(sums, [width, new, 1, 1]);
    let stored = g.set_rows(pooled, fresh, pools.new_cells);
    g.expand(stored);
    let all = g.get_rows(pooled, pools.cells);
    let count = g.get(all).ne[1];
    g.reshape(all, [width, 1, count, 1])
}
