//! Qwen4-exp: Qwen 3.5's blocks on several residual streams, with embeddings of n-grams in one block
//! and attention that looks at the best groups of cells only.

use crate::memory::graph::attention::{AttentionInput, CacheInput, Extras, Qkv};
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::model::{Builder, Cache};
use crate::memory::graph::recurrent::{StateInput, product};
use crate::memory::graph::tensor::{F16, F32, FusedOp, I32, I64, Id, Op, Tensor, row_bytes};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

use super::qwen_next::{Net, USUAL, gated, linear_with, network};
use super::{Family, mtp};

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    (architecture == "qwen4exp").then_some(qwen4exp as Family)
}

/// The delta net differs from Qwen 3.5's in its gate.
const NET: Net = Net { gate: Op::Sigmoid, copies: true, ..USUAL };

fn qwen4exp(g: &mut Builder) {
    let x = g.embeddings();
    g.expand(x);
    let (state, input) = g.hybrid_input();
    let AttentionInput::Cache(cache) = input else { return };
    let pools = Pools::new(g);
    let positions = g.positions();
    let ids = g.output_ids();
    let ngrams = ngrams(g);
    let (width, tokens, streams) = (g.embedding(), g.tokens(), g.streams());
    let x = g.reshape(x, [width, 1, tokens, 1]);
    let mut x = g.repeat(x, [width, streams, tokens, 1]);
    g.expand(x);
    for &block in g.blocks() {
        g.enter(Some(block));
        if g.has(Role::PleKey) {
            x = mix_ngrams(g, &state, ngrams, x);
        }
        let (mixed, inject) = mix(g, x, ATTENTION);
        g.expand(mixed);
        let mixed = if g.kind().recurrent {
            linear_with(g, Some(&state), mixed, NET)
        } else {
            attention(g, &cache, pools.as_ref(), positions, mixed)
        };
        let (mixed, inject) = if g.is_last() && !g.plan.shows_states {
            let flat = g.reshape(x, [width.saturating_mul(streams), tokens, 1, 1]);
            let [mixed, inject, flat] = g.keep_outputs(ids, [mixed, inject, flat]);
            let shape = [width, streams, g.get(flat).ne[1], 1];
            x = g.reshape(flat, shape);
            (mixed, inject)
        } else {
            (mixed, inject)
        };
        x = combine(g, x, mixed, inject);
        let (mixed, inject) = mix(g, x, NETWORK);
        let fed = network(g, mixed);
        x = combine(g, x, fed, inject);
        // Called `l_last`, it is kept where its block is.
        g.pin_to_block(x);
    }
    if g.plan.shows_states {
        let flat = flatten(g, x);
        g.set_output(flat);
        g.expand(flat);
        let flat = flatten(g, x);
        let kept = g.get_rows(flat, ids);
        let outputs = g.plan.outputs;
        x = g.reshape(kept, [width, streams, outputs, 1]);
    }
    g.enter(None);
    let (normed, _) = mix(g, x, OUTPUT);
    let logits = g.logits(normed);
    g.finish(logits);
}

/// Puts the streams of each token into one row.
fn flatten(g: &mut Builder, x: Id) -> Id {
    let [width, streams, tokens, _] = g.get(x).ne;
    g.reshape(x, [width.saturating_mul(streams), tokens, 1, 1])
}

/// What drafts: one more block of gated attention on the streams, which the embedding of the token
/// found last has been joined with.
pub(super) fn draft(g: &mut Builder) {
    let joint = mtp::given(g);
    let (state, input) = g.hybrid_input();
    let AttentionInput::Cache(cache) = input else { return };
    // There is no state in this context, but its input has its room.
    g.expand(state.all);
    let pools = Pools::new(g);
    let positions = g.positions();
    let ids = g.output_ids();
    let mut x = mtp::join(g, joint, Norm::Rms);
    let (mixed, inject) = mix(g, x, ATTENTION);
    let mixed = attention(g, &cache, pools.as_ref(), positions, mixed);
    x = combine(g, x, mixed, inject);
    let (mixed, inject) = mix(g, x, NETWORK);
    let fed = network(g, mixed);
    x = combine(g, x, fed, inject);
    let flat = flatten(g, x);
    let kept = g.get_rows(flat, ids);
    g.set_output(flat);
    g.expand(flat);
    let (width, streams, outputs) = (g.embedding(), g.streams(), g.plan.outputs);
    let x = g.reshape(kept, [width, streams, outputs, 1]);
    let (normed, _) = mix(g, x, DRAFT);
    g.set_output(normed);
    let logits = g.vocabulary(normed);
    mtp::finish(g, logits);
}

/// The tensors that mix the streams to one activation.
#[derive(Clone, Copy)]
struct Mixing {
    norm: Role,
    down: Role,
    up: Role,
    inject: Option<Role>,
}

const ATTENTION: Mixing =
    Mixing { norm: Role::HcAttnNorm, down: Role::HcAttnDown, up: Role::HcAttnUp, inject: Some(Role::HcAttnInject) };
const NETWORK: Mixing =
    Mixing { norm: Role::HcFfnNorm, down: Role::HcFfnDown, up: Role::HcFfnUp, inject: Some(Role::HcFfnInject) };
const DRAFT: Mixing =
    Mixing { norm: Role::NextnHcHeadNorm, down: Role::NextnHcHeadDown, up: Role::NextnHcHeadUp, inject: None };
const OUTPUT: Mixing =
    Mixing { norm: Role::OutputHcNorm, down: Role::OutputHcDown, up: Role::OutputHcUp, inject: None };

/// Mixes the streams to one activation by a gate of low rank; returns it, and how much of a part's
/// result each stream takes (`build_hc_mix`).
fn mix(g: &mut Builder, x: Id, with: Mixing) -> (Id, Id) {
    let [width, streams, tokens, _] = g.get(x).ne;
    let all = width.saturating_mul(streams);
    let weight = |g: &mut Builder, role: Role| match g.block {
        Some(_) => g.weight(role),
        None => g.output_weight(role, Suffix::Weight),
    };
    let normed = g.unary(Op::RmsNorm, x);
    let norm = weight(g, with.norm);
    let normed = g.mul(normed, norm);
    let flat = g.reshape(normed, [all, tokens, 1, 1]);
    let down = weight(g, with.down);
    let narrow = g.mul_mat(down, flat);
    let narrow = g.scale(narrow);
    let narrow = g.unary(Op::Silu, narrow);
    let up = weight(g, with.up);
    let gate = g.mul_mat(up, narrow);
    let mixed = if g.block.is_some() && g.plan.uses.hyper_connections_pre {
        let [flat, gate] = [flat, gate].map(|part| g.reshape(part, [width, streams, tokens, 1]));
        let mixed = g.other(Op::Dsv4HcPre, [width, tokens, 1, 1], &[flat, gate]);
        g.note_fused(FusedOp::HyperConnectionsPre, mixed);
        mixed
    } else {
        let open = g.unary(Op::Sigmoid, gate);
        let open = g.mul(flat, open);
        let open = g.reshape(open, [width, streams, tokens, 1]);
        mean(g, open)
    };
    let inject = match with.inject {
        Some(role) => {
            let inject = weight(g, role);
            g.mul_mat(inject, flat)
        }
        None => Id::NONE,
    };
    (mixed, inject)
}

/// Returns the mean over the second dimension, which is short.
fn mean(g: &mut Builder, x: Id) -> Id {
    let Tensor { ne, nb, .. } = *g.get(x);
    let mut sum = Id::NONE;
    for index in 0..ne[1].min(MOST_SUMMED) {
        let part = g.view_2d(x, [ne[0], ne[2]], nb[2], index.saturating_mul(nb[1]));
        sum = if sum == Id::NONE { g.cont(part) } else { g.add(sum, part) };
    }
    if sum == Id::NONE { x } else { g.scale(sum) }
}

/// Adds a part's result to each stream (`build_hc_combine`).
fn combine(g: &mut Builder, x: Id, result: Id, inject: Id) -> Id {
    let shape @ [width, streams, tokens, _] = g.get(x).ne;
    let weights = g.scale(inject);
    let weights = g.unary(Op::Sigmoid, weights);
    let weights = g.scale(weights);
    if g.plan.uses.hyper_connections_post {
        let joined = g.other(Op::Dsv4HcPost, shape, &[result, x, weights]);
        g.note_fused(FusedOp::HyperConnectionsPost, joined);
        return joined;
    }
    let weights = g.reshape(weights, [1, streams, tokens, 1]);
    let result = g.reshape(result, [width, 1, tokens, 1]);
    let result = g.repeat(result, [width, streams, tokens, 1]);
    let result = g.mul(result, weights);
    g.add(x, result)
}

/// Looks the n-grams that end in each token up, by hashes that the host computes (`build_inp_ple`).
fn ngrams(g: &mut Builder) -> Id {
    let lengths = g.number(Hyper::PleNgramSize).saturating_sub(1);
    let heads = lengths.saturating_mul(g.number(Hyper::PleHeadsPerNgram));
    if heads == 0 || !g.has_global(Role::PerLayerTokenEmbd) {
        return Id::NONE;
    }
    let tokens = g.tokens();
    let ids = g.input(I32, [heads.saturating_mul(tokens), 1, 1, 1]);
    let table = g.input_weight(Role::PerLayerTokenEmbd);
    let rows = g.get_rows(table, ids);
    let width = g.get(rows).ne[0].saturating_mul(heads);
    let rows = g.reshape(rows, [width, tokens, 1, 1]);
    g.expand(rows);
    rows
}

/// Adds the embeddings of n-grams to the streams, through a gate and a convolution that skips tokens
/// (`build_ple`).
fn mix_ngrams(g: &mut Builder, state: &StateInput, ngrams: Id, x: Id) -> Id {
    let shape @ [width, streams, tokens, _] = g.get(x).ne;
    let all = width.saturating_mul(streams);
    let (each, slots) = (g.sequence_tokens(), g.sequences());
    let key = g.project(Role::PleKey, ngrams);
    let value = g.project(Role::PleValue, ngrams);
    let norm = |g: &mut Builder, x: Id, role: Role| {
        let x = g.reshape(x, shape);
        let normed = g.unary(Op::RmsNorm, x);
        let weight = g.weight(role);
        g.mul(normed, weight)
    };
    let key = norm(g, key, Role::PleNormKey);
    let query = norm(g, x, Role::PleNormQuery);
    let score = g.mul(key, query);
    let score = g.sum_rows(Op::SumRows, score);
    let score = g.scale(score);
    let size = g.unary(Op::Unary, score);
    let size = g.unary(Op::Clamp, size);
    let size = g.unary(Op::Sqrt, size);
    let sign = g.unary(Op::Unary, score);
    let gate = g.mul(sign, size);
    let gate = g.unary(Op::Sigmoid, gate);
    let value = g.reshape(value, [width, 1, tokens, 1]);
    let value = g.repeat(value, shape);
    let value = g.mul(value, gate);

    let flat = g.reshape(value, [all, tokens, 1, 1]);
    let normed = norm(g, flat, Role::PleNormConv);
    let normed = g.reshape(normed, [all, tokens, 1, 1]);
    let normed = g.reshape(normed, [all, each, slots, 1]);
    let (kernel, skips) = (g.number(Hyper::PleConvKernel), g.number(Hyper::PleNgramSize));
    let before = kernel.saturating_sub(1).saturating_mul(skips);
    let window = g.copied_window(state, Cache::Ngrams, normed, [before, all]);
    let weights = g.weight(Role::PleConv1d);
    let mut sum = Id::NONE;
    for tap in 0..kernel.min(MOST_TAPS) {
        let Tensor { kind, nb, .. } = *g.get(window);
        let shifted = g.view_3d(window, [each, all, slots], [nb[1], nb[2]], row_bytes(kind, tap.saturating_mul(skips)));
        let shifted = g.transpose(shifted);
        let shifted = g.cont(shifted);
        let Tensor { nb, .. } = *g.get(weights);
        let weight = g.view_2d(weights, [1, all], nb[1], tap.saturating_mul(nb[0]));
        let weight = g.cont(weight);
        let mut weight = g.reshape(weight, [all, 1, 1, 1]);
        if g.get(weight).kind != F32 {
            weight = g.cast(weight, F32);
        }
        let term = g.mul(shifted, weight);
        sum = if sum == Id::NONE { term } else { g.add(sum, term) };
    }
    let convolved = g.unary(Op::Silu, sum);
    let convolved = g.cont(convolved);
    let convolved = g.reshape(convolved, shape);
    let added = g.add(value, convolved);
    g.add(x, added)
}

/// More than any sum that is built part by part has.
const MOST_SUMMED: u64 = 256;

/// More taps than any convolution of n-grams has.
const MOST_TAPS: u64 = 64;

/// The inputs of attention to the best groups of cells (`llm_graph_input_kpool`).
struct Pools {
    /// Cells of a group.
    size: u64,
    /// Cells to write the indexer's keys to.
    k_idxs: Id,
    /// The cell that has a group's pooled key.
    cells: Id,
    /// The cells of each group.
    members: Id,
    /// Which groups a token may look at.
    mask: Id,
    /// The cells behind the last full group.
    tail: Id,
    /// The groups that are pooled anew: their cells, where the key goes, and its position.
    new_members: Id,
    new_cells: Id,
    new_positions: Id,
}

impl Pools {
    /// Returns the inputs at full context, where every group is pooled anew; nothing where the model
    /// does not pool.
    fn new(g: &mut Builder) -> Option<Pools> {
        let size = g.plan.structure.kinds.iter().map(|kind| u64::from(kind.compressed)).max()?;
        if size == 0 || g.number(Hyper::IndexerKeyLength) == 0 {
            return None;
        }
        let (tokens, sizes) = (g.tokens(), *g.plan.sizes);
        let groups = (sizes.cells / size).saturating_mul(sizes.slots);
        // The last group is always unused (`kpool_pad`).
        let padded = groups.saturating_add(1).checked_next_multiple_of(64).unwrap_or(groups);
        let k_idxs = g.input(I64, [tokens, 1, 1, 1]);
        let cells = g.input(I32, [padded, 1, 1, 1]);
        let members = g.input(I32, [size, padded, 1, 1]);
        let mask = g.input(F16, [padded, tokens, 1, 1]);
        let tail = g.input(I32, [size - 1, tokens, 1, 1]);
        for id in [cells, members, mask, tail] {
            g.expand(id);
        }
        let new = groups.max(1);
        let new_members = g.input(I32, [size, new, 1, 1]);
        let new_cells = g.input(I64, [new, 1, 1, 1]);
        let new_positions = g.input(I32, [new.saturating_mul(4), 1, 1, 1]);
        Some(Pools { size, k_idxs, cells, members, mask, tail, new_members, new_cells, new_positions })
    }
}

/// Attention with a gate, to the best groups of cells where the block pools them.
fn attention(g: &mut Builder, cache: &CacheInput, pools: Option<&Pools>, positions: Id, x: Id) -> Id {
    let pools = pools.filter(|_| g.kind().compressed != 0);
    let mask = pools.map(|pools| best_groups(g, cache, pools, positions, x));
    gated(g, positions, x, |g, qkv| match mask {
        Some(mask) => attend_best(g, cache, mask, qkv),
        None => g.attend(&AttentionInput::Cache(*cache), qkv, Extras::no_output()),
    })
}

/// Returns a mask that is open for the best groups and for the cells behind the last full one
/// (`build_qsa_sel`).
fn best_groups(g: &mut Builder, cache: &CacheInput, pools: &Pools, positions: Id, x: Id) -> Id {
    let (width, heads, tokens) = (g.indexer_width(), g.number(Hyper::IndexerHeads), g.tokens());
    let pooled = pooled_keys(g, pools, x);
    let q = g.project(Role::IndexerQProj, x);
    let q = g.reshape(q, [width, heads, tokens, 1]);
    let q = g.norm(Norm::Rms, q, Role::IndexerQNorm);
    let q = g.rope(q, positions, Id::NONE);
    let weights = filled(g, [heads, tokens, 1, 1]);
    let score = g.score_cells(q, pooled, weights, pools.mask);
    let groups = g.get(score).ne[0];
    let best = groups.min(g.number(Hyper::IndexerTopK) / pools.size);
    let top = g.top_k(score, best);
    let flat = g.reshape(top, [best.saturating_mul(tokens), 1, 1, 1]);
    let chosen = g.get_rows(pools.members, flat);
    let chosen = g.reshape(chosen, [pools.size.saturating_mul(best), tokens, 1, 1]);
    let chosen = g.concat(chosen, pools.tail, 0);
    g.expand(chosen);

    let Tensor { kind, ne: mask, .. } = *g.get(cache.mask);
    let count = g.get(chosen).ne[0];
    let closed = g.closed_mask(kind, mask[0], count);
    let column = g.reshape(score, [1, groups, tokens, 1]);
    let scores = g.get_rows(column, top);
    let live = live(g, scores);
    let live = g.repeat(live, [pools.size, best, tokens, 1]);
    let live = g.reshape(live, [pools.size.saturating_mul(best), tokens, 1, 1]);
    let tail = g.cast(pools.tail, F32);
    let tail = self::live(g, tail);
    let live = g.concat(live, tail, 0);
    // Cells that must not be opened go to rows of their own behind the mask.
    let ones = g.unary(Op::Fill, live);
    let places = g.unary(Op::Cumsum, ones);
    let places = g.scale(places);
    let opened = g.open_live(closed, chosen, live, places);
    let row = g.get(opened).nb[2];
    let strides = [row, row.saturating_mul(mask[1]), product(&[row, mask[1], mask[2]])];
    let opened = g.view(opened, mask, strides, 0);
    g.add(opened, cache.mask)
}

/// Turns scores into 0 or 1.
fn live(g: &mut Builder, scores: Id) -> Id {
    let shifted = g.scale(scores);
    g.unary(Op::Clamp, shifted)
}

/// Returns a constant of f32 that is filled in.
fn filled(g: &mut Builder, shape: [u64; 4]) -> Id {
    let room = g.constant(F32, shape);
    g.unary(Op::Fill, room)
}

/// Stores the indexer's keys, pools those of each group to one, stores it beside them, and returns
/// the pooled keys of all groups.
fn pooled_keys(g: &mut Builder, pools: &Pools, x: Id) -> Id {
    let (width, tokens) = (g.indexer_width(), g.tokens());
    let key = g.project(Role::IndexerKProj, x);
    let empty = filled(g, [width, tokens, 1, 1]);
    let both = g.concat(key, empty, 0);
    let both = g.reshape(both, [width.saturating_mul(2), 1, tokens, 1]);
    let cache = g.cache(g.index(), Cache::IndexerK);
    let stored = g.store_rows(cache, both, pools.k_idxs);
    g.expand(stored);

    let Tensor { kind, ne, nb, .. } = *g.get(cache);
    let cells = ne[1].saturating_mul(ne[2]);
    let [keys, pooled] = [0, row_bytes(kind, width)].map(|at| g.view_2d(cache, [width, cells], nb[1], at));
    let new = g.get(pools.new_cells).ne[0];
    let ids = g.reshape(pools.new_members, [pools.size.saturating_mul(new), 1, 1, 1]);
    let rows = g.get_rows(keys, ids);
    let rows = g.reshape(rows, [width, pools.size, new, 1]);
    let key = mean(g, rows);
    let key = g.norm(Norm::Rms, key, Role::IndexerKNorm);
    let key = g.reshape(key, [width, 1, new, 1]);
    let key = g.rope(key, pools.new_positions, Id::NONE);
    let key = g.reshape(key, [width, new, 1, 1]);
    let stored = g.set_rows(pooled, key, pools.new_cells);
    g.expand(stored);
    let all = g.get_rows(pooled, pools.cells);
    let count = g.get(all).ne[1];
    g.reshape(all, [width, 1, count, 1])
}

/// Attends over the whole cache with a mask of its own (`build_attn_qsa`).
fn attend_best(g: &mut Builder, cache: &CacheInput, mask: Id, qkv: Qkv) -> Id {
    let block = g.index();
    let Qkv { mut q, mut k, mut v } = qkv;
    if cache.k_rot != Id::NONE {
        (q, k) = (g.rotate(q, cache.k_rot), g.rotate(k, cache.k_rot));
    }
    if cache.v_rot != Id::NONE {
        v = g.rotate(v, cache.v_rot);
    }
    for id in [q, v, k] {
        g.expand(id);
    }
    let stored = g.store_k(k, cache.k_idxs, block);
    g.expand(stored);
    let stored = g.store_v(v, cache.v_idxs, block);
    g.expand(stored);
    let shape = g.get(cache.mask).ne;
    let mask = g.reshape(mask, shape);
    let (k, v) = (g.read_k(block), g.read_v(block));
    let attended = g.multi_head(Qkv { q, k, v }, mask, Extras::no_output());
    if cache.v_rot == Id::NONE { attended } else { g.rotate(attended, cache.v_rot) }
}
