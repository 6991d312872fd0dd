//! DeepSeek V4: a window of latent rows, compressed rows beside it, hyper-connections.

use super::super::attention::{CacheInput, Extras, Qkv};
use super::super::feed_forward::{Activation, Experts, GateType, Gating, Norm, SHARED};
use super::super::hyper_connections::{ATTENTION, NETWORK};
use super::super::indexer::rotation_size;
use super::super::model::{Builder, Cache};
use super::super::tensor::{F16, F32, I32, I64, Id, Op, Tensor, row_bytes};
use super::{Family, deepseek, mtp};
use crate::memory::compressed::{OVERLAPPING, Part};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::Role;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    (architecture == "deepseek4").then_some(deepseek4)
}

/// The inputs around one kind of compressed rows (`llm_graph_input_dsv4::comp_input`).
#[derive(Clone, Copy)]
struct Rows {
    /// Each token's place in its group.
    places: Id,
    /// Tokens that are kept, and the states' rows that they go to.
    kept: [Id; 2],
    /// Rows of states to take back, and where to; likewise the copies that are kept for that.
    restored: Option<[Id; 2]>,
    snapshots: Option<[Id; 2]>,
    /// The groups of tokens that rows are made from.
    groups: Id,
    /// Cells to write rows to.
    cells: Id,
    /// The rows' positions.
    positions: Id,
    mask: Id,
    rotation: Id,
}

/// The inputs of all blocks.
struct Inputs {
    positions: Id,
    window: CacheInput,
    /// Rows of four tokens, overlapping.
    overlapping: Rows,
    /// Rows of 128 tokens.
    long: Rows,
    /// The indexer's keys.
    keys: Rows,
}

/// DeepSeek V4.
fn deepseek4(g: &mut Builder) {
    let x = g.embeddings();
    let positions = g.positions();
    let ids = g.output_ids();
    let inputs = inputs(g, positions);
    g.expand(inputs.window.mask);
    let mut x = g.spread_over_streams(x);
    for &block in g.blocks() {
        g.enter(Some(block));
        x = self::block(g, x, true, |g, normed| attention(g, normed, &inputs));
        // What llama.cpp calls `l_last` stays with its block too.
        g.pin_to_block(x);
    }
    let (width, streams, tokens) = (g.embedding(), g.streams(), g.tokens());
    if g.plan.shows_states {
        g.set_output(x);
    }
    let flat = g.reshape(x, [width.saturating_mul(streams), tokens, 1, 1]);
    let flat = g.get_rows(flat, ids);
    let outputs = g.plan.outputs;
    let x = g.reshape(flat, [width, streams, outputs, 1]);
    let x = g.mix_output(x);
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    g.finish(logits);
}

/// What drafts: one more block with a window alone, on the streams, which the embedding of the token
/// found last has been joined with.
pub(super) fn draft(g: &mut Builder) {
    let joint = mtp::given(g);
    let positions = g.positions();
    let ids = g.output_ids();
    let input = g.cache_input(true, false);
    let x = mtp::join(g, joint, Norm::Rms);
    let x = block(g, x, false, |g, normed| window_attention(g, normed, positions, &input));
    let (width, streams, tokens) = (g.embedding(), g.streams(), g.tokens());
    let flat = g.reshape(x, [width.saturating_mul(streams), tokens, 1, 1]);
    let kept = g.get_rows(flat, ids);
    g.set_output(kept);
    let outputs = g.plan.outputs;
    let x = g.reshape(kept, [width, streams, outputs, 1]);
    let x = g.mix_output(x);
    let normed = mtp::head_norm(g, Norm::Rms, x);
    g.set_output(normed);
    let logits = mtp::head(g, normed);
    mtp::finish(g, logits);
}

/// One block around its attention; `kept` puts the streams into the graph before the network.
pub(super) fn block(g: &mut Builder, x: Id, kept: bool, attend: impl FnOnce(&mut Builder, Id) -> Id) -> Id {
    let (mixed, joint) = g.mix(x, ATTENTION);
    let normed = g.norm(Norm::Rms, mixed, Role::AttnNorm);
    let attended = attend(g, normed);
    let x = g.join(attended, x, joint);
    let (mixed, joint) = g.mix(x, NETWORK);
    if kept {
        for id in [x, joint.post, joint.comb] {
            g.expand(id);
        }
    }
    let normed = g.norm(Norm::Rms, mixed, Role::FfnNorm);
    let fed = network(g, normed);
    g.join(fed, x, joint)
}

/// Experts, which in the first blocks are looked up by token, not by score.
fn network(g: &mut Builder, normed: Id) -> Id {
    let hashed = u64::from(g.index()) < g.number(Hyper::HashLayers);
    let chosen = if hashed {
        let table = g.weight(Role::FfnGateTid2eid);
        let ids = g.ids;
        g.get_rows(table, ids)
    } else {
        Id::NONE
    };
    let how = Experts {
        gating: Gating::SqrtSoftplus,
        normalises: g.number(Hyper::ExpertWeightsNorm) != 0,
        scales: deepseek::scales_experts(g),
        chosen,
        ..Experts::default()
    };
    let routed = g.experts(normed, how);
    let shared = g.feed_forward(normed, SHARED, Activation::Silu, GateType::Parallel);
    g.add(routed, shared)
}

fn inputs(g: &mut Builder, positions: Id) -> Inputs {
    let (tokens, slots, sizes) = (g.tokens(), g.slots().max(1), *g.plan.sizes);
    let k_idxs = g.input(I64, [tokens, 1, 1, 1]);
    let kind = if g.flash() { F16 } else { F32 };
    let mask = g.input(kind, [sizes.window_cells, tokens / slots, 1, slots]);
    let heads = g.kind_of(0);
    let stored_turned = g.plan.settings.cache_type_k.is_quantised() && heads.head_k.is_multiple_of(64);
    let size = if stored_turned { rotation_size(u64::from(heads.head_k)) } else { 0 };
    let k_rot = rotation(g, size);
    let window = CacheInput { k_idxs, v_idxs: Id::NONE, mask, k_rot, v_rot: Id::NONE };
    let overlapping = rows(g, OVERLAPPING, Part::Rows, size);
    let long = rows(g, LONG, Part::Rows, size);
    let keys = rows(g, OVERLAPPING, Part::Keys, rotation_size(g.indexer_width()));
    Inputs { positions, window, overlapping, long, keys }
}

/// The ratio without an indexer.
const LONG: u16 = 128;

fn rotation(g: &mut Builder, size: u64) -> Id {
    if size == 0 { Id::NONE } else { g.input(F32, [size, size, 1, 1]) }
}

/// Returns the inputs around rows of a ratio, as large as they ever get
/// (`dsv4_build_reserve_comp_plan`).
fn rows(g: &mut Builder, ratio: u16, part: Part, size: u64) -> Rows {
    let (tokens, slots, sizes) = (g.tokens(), g.slots().max(1), *g.plan.sizes);
    let groups = if ratio == OVERLAPPING { 2 } else { 1 };
    let ratio = u64::from(ratio);
    // Each slot may end a row early.
    let made = (tokens / ratio).saturating_add(slots);
    let state = ratio.saturating_mul(groups).saturating_mul(slots);
    let drafts = g.snapshots().saturating_sub(1);
    let mut numbers = |kind, count: u64| g.input(kind, [count, 1, 1, 1]);
    let places = numbers(I32, tokens);
    let kept = [numbers(I32, tokens.min(state)), numbers(I32, tokens.min(state))];
    let restored = (drafts > 0).then(|| [numbers(I32, state), numbers(I32, state)]);
    let drafted = drafts.saturating_mul(state);
    let snapshots = (drafts > 0).then(|| [numbers(I32, drafted), numbers(I32, drafted)]);
    let groups = numbers(I32, groups.saturating_mul(ratio).saturating_mul(made));
    let cells = numbers(I64, made);
    let positions = numbers(I32, made);
    let fused = if part == Part::Keys { g.plan.uses.lightning_indexer } else { g.flash() };
    let all = sizes.cells.div_ceil(ratio).max(1).next_multiple_of(256);
    let mask = g.input(if fused { F16 } else { F32 }, [all, tokens / slots, 1, slots]);
    let rotation = rotation(g, size);
    Rows { places, kept, restored, snapshots, groups, cells, positions, mask, rotation }
}

/// Returns the queries' narrow row, the queries made from it, and the row that is key and value for
/// all heads.
fn queries_and_row(g: &mut Builder, x: Id, positions: Id) -> [Id; 3] {
    let heads = g.heads();
    let tokens = g.tokens();
    let narrow = g.narrow_queries(x);
    let weight = g.weight(Role::AttnQB);
    let q = g.mul_mat(weight, narrow);
    let q = g.reshape(q, [heads.k, heads.q, tokens, 1]);
    let q = g.unary(Op::RmsNorm, q);
    let q = g.rope(q, positions, Id::NONE);
    let row = g.project(Role::AttnKv, x);
    let row = g.norm(Norm::Rms, row, Role::AttnKvANorm);
    let row = g.reshape(row, [heads.k, 1, tokens, 1]);
    let row = g.rope(row, positions, Id::NONE);
    [narrow, q, row]
}

/// Attention over the window alone, as in drafts.
pub(super) fn window_attention(g: &mut Builder, x: Id, positions: Id, input: &CacheInput) -> Id {
    let [_, q, row] = queries_and_row(g, x, positions);
    let (q, cells) = window(g, q, row, input, Cache::K);
    let attended = attend(g, q, cells, input.mask, input.k_rot);
    project_groups(g, attended, positions)
}

/// Attention over the window and what the block keeps beside it.
fn attention(g: &mut Builder, x: Id, inputs: &Inputs) -> Id {
    let [narrow, q, row] = queries_and_row(g, x, inputs.positions);
    let kinds = [
        (OVERLAPPING, inputs.overlapping, KEPT_ROWS),
        (OVERLAPPING, inputs.keys, KEPT_KEYS),
        (LONG, inputs.long, KEPT_ROWS),
    ];
    let ratio = g.kind().compressed;
    for (_, rows, kept) in kinds.into_iter().filter(|&(of, ..)| of == ratio) {
        compress(g, x, &rows, &kept);
    }
    let best = if ratio == OVERLAPPING { best_rows(g, x, narrow, inputs) } else { Id::NONE };
    let (q, cells) = window(g, q, row, &inputs.window, Cache::Compressed(Part::Raw));
    let attended = match ratio {
        OVERLAPPING => {
            let mask = open_mask(g, inputs.overlapping.mask, best);
            beside(g, q, cells, &inputs.window, mask)
        }
        LONG => beside(g, q, cells, &inputs.window, inputs.long.mask),
        _ => attend(g, q, cells, inputs.window.mask, inputs.window.k_rot),
    };
    project_groups(g, attended, inputs.positions)
}

/// Takes the turning back and projects the heads group by group.
fn project_groups(g: &mut Builder, attended: Id, positions: Id) -> Id {
    let heads = g.heads();
    let tokens = g.tokens();
    let x = g.reshape(attended, [heads.k, heads.q, tokens, 1]);
    let x = g.rope(x, positions, Id::NONE);
    let groups = g.number(Hyper::OutputGroupCount).max(1);
    let rank = g.number(Hyper::OutputLoraRank);
    let width = (heads.q / groups).saturating_mul(heads.k);
    let x = g.reshape(x, [width, groups, tokens, 1]);
    let x = g.permute(x, [0, 2, 1, 3]);
    let weight = g.weight(Role::AttnOutputA);
    // Stored flat, loaded group by group (`TENSOR_ALLOW_RESHAPE`).
    let shaped = Tensor::new(g.get(weight).kind, [width, rank, groups, 1]);
    if weight != Id::NONE {
        let tensor = g.get_mut(weight);
        (tensor.ne, tensor.nb) = (shaped.ne, shaped.nb);
    }
    let x = g.mul_mat(weight, x);
    let x = g.permute(x, [0, 2, 1, 3]);
    let x = g.cont_as(x, [rank.saturating_mul(groups), tokens, 1, 1]);
    g.project(Role::AttnOutputB, x)
}

/// Rotates where the cache is quantised, stores the window's row and returns the queries and all of
/// the window.
fn window(g: &mut Builder, mut q: Id, mut row: Id, input: &CacheInput, cache: Cache) -> (Id, Id) {
    if input.k_rot != Id::NONE {
        q = g.rotate(q, input.k_rot);
        row = g.rotate(row, input.k_rot);
    }
    g.expand(q);
    g.expand(row);
    let cache = g.cache(g.index(), cache);
    let stored = g.store_rows(cache, row, input.k_idxs);
    g.expand(stored);
    let heads = g.heads();
    (q, g.read_rows(cache, heads.k, heads.kv))
}

/// Attends over the window and the compressed rows beside it.
fn beside(g: &mut Builder, q: Id, window: Id, input: &CacheInput, mask: Id) -> Id {
    let cache = g.cache(g.index(), Cache::Compressed(Part::Rows));
    let heads = g.heads();
    let rows = g.read_rows(cache, heads.k, heads.kv);
    let all = g.concat(window, rows, 2);
    let mask = g.concat(input.mask, mask, 0);
    attend(g, q, all, mask, input.k_rot)
}

fn attend(g: &mut Builder, q: Id, cells: Id, mask: Id, rotation: Id) -> Id {
    let sinks = g.sinks();
    let extras = Extras { output: None, sinks, ..Extras::default() };
    let attended = g.multi_head(Qkv { q, k: cells, v: cells }, mask, extras);
    if rotation == Id::NONE { attended } else { g.rotate(attended, rotation) }
}

/// Returns the rows that the indexer picks.
fn best_rows(g: &mut Builder, x: Id, narrow: Id, inputs: &Inputs) -> Id {
    let (width, heads, tokens) = (g.indexer_width(), g.number(Hyper::IndexerHeads), g.tokens());
    let q = g.project(Role::IndexerQB, narrow);
    let q = g.reshape(q, [width, heads, tokens, 1]);
    let q = g.rope(q, inputs.positions, Id::NONE);
    let q = g.rotate(q, inputs.keys.rotation);
    let weights = g.project(Role::IndexerProj, x);
    let weights = g.scale(weights);
    let cache = g.cache(g.index(), Cache::Compressed(Part::Keys));
    let keys = g.read_rows(cache, width, 1);
    let (q, weights) = g.by_stream(q, weights, keys);
    let score = g.score_cells(q, keys, weights, inputs.keys.mask);
    let best = g.number(Hyper::IndexerTopK).min(g.get(score).ne[0]);
    let best = g.top_k(score, best);
    g.cont(best)
}

fn open_mask(g: &mut Builder, mask: Id, best: Id) -> Id {
    let kind = if g.flash() { F16 } else { F32 };
    let open = g.open_mask(mask, best, kind);
    g.add(open, mask)
}

/// The tensors that make rows of one kind.
#[derive(Clone, Copy)]
struct Kept {
    row: Role,
    gate: Role,
    places: Role,
    norm: Role,
    rows: Part,
    state: Part,
}

const KEPT_ROWS: Kept = Kept {
    row: Role::AttnCompressorKv,
    gate: Role::AttnCompressorGate,
    places: Role::AttnCompressorApe,
    norm: Role::AttnCompressorNorm,
    rows: Part::Rows,
    state: Part::State,
};

const KEPT_KEYS: Kept = Kept {
    row: Role::IndexerCompressorKv,
    gate: Role::IndexerCompressorGate,
    places: Role::IndexerCompressorApe,
    norm: Role::IndexerCompressorNorm,
    rows: Part::Keys,
    state: Part::KeyState,
};

/// Makes the rows that the micro-batch completes, and keeps the tokens of those it does not.
fn compress(g: &mut Builder, x: Id, inputs: &Rows, kept: &Kept) {
    let values = g.project(kept.row, x);
    let scores = g.project(kept.gate, x);
    let table = g.weight(kept.places);
    let places = g.get_rows(table, inputs.places);
    let scores = g.add(scores, places);
    let which = [Cache::Compressed(kept.state), Cache::Scores(kept.state)];
    let fresh = [values, scores];
    // What drafts that were taken back have changed is put in place first.
    let states = which.map(|which| match inputs.restored {
        Some([from, to]) => {
            let all = all_planes(g, which);
            let rows = g.get_rows(all, from);
            set_planes(g, which, rows, to)
        }
        None => all_planes(g, which),
    });
    let planes = g.snapshots();
    let mut sources = [Id::NONE; 2];
    for ((source, state), fresh) in sources.iter_mut().zip(states).zip(fresh) {
        let Tensor { ne, nb, .. } = *g.get(state);
        let old = g.view_2d(state, [ne[0], ne[1] / planes.max(1)], nb[1], 0);
        *source = g.concat(old, fresh, 1);
    }
    let mut made = make_rows(g, sources, inputs, kept);
    if inputs.rotation != Id::NONE {
        made = g.rotate(made, inputs.rotation);
    }
    let cache = g.cache(g.index(), Cache::Compressed(kept.rows));
    let stored = g.store_rows(cache, made, inputs.cells);
    g.expand(stored);
    if let Some([from, to]) = inputs.snapshots {
        let mut written = [Id::NONE; 2];
        for (index, written) in written.iter_mut().enumerate() {
            let source = g.concat(states[index], fresh[index], 1);
            let rows = g.get_rows(source, from);
            *written = set_planes(g, which[index], rows, to);
        }
        for written in written {
            g.expand(written);
        }
    }
    let [from, to] = inputs.kept;
    let stored = fresh.map(|fresh| g.get_rows(fresh, from));
    let mut written = [Id::NONE; 2];
    for ((written, rows), which) in written.iter_mut().zip(stored).zip(which) {
        *written = set_planes(g, which, rows, to);
    }
    for written in written {
        g.expand(written);
    }
}

/// Returns all rows of a state, those of every draft among them.
fn all_planes(g: &mut Builder, which: Cache) -> Id {
    let state = g.cache(g.index(), which);
    let Tensor { ne, nb, .. } = *g.get(state);
    g.view_2d(state, [ne[0], ne[1].saturating_mul(ne[2])], nb[1], 0)
}

/// Writes rows of a state.
fn set_planes(g: &mut Builder, which: Cache, rows: Id, to: Id) -> Id {
    let all = all_planes(g, which);
    g.set_rows(all, rows, to)
}

/// Makes rows from groups of tokens: their mean, weighted by the scores
/// (`build_hca_compressed_kv_from_state`, `build_overlap_compressed_kv_from_state`).
fn make_rows(g: &mut Builder, sources: [Id; 2], inputs: &Rows, kept: &Kept) -> Id {
    let ratio = u64::from(g.kind().compressed);
    let made = g.get(inputs.positions).ne[0];
    let columns = if g.kind().compressed == OVERLAPPING {
        overlap(g, sources, inputs, ratio.saturating_mul(made))
    } else {
        let width = g.get(sources[0]).ne[0];
        sources.map(|source| {
            let rows = g.get_rows(source, inputs.groups);
            g.reshape(rows, [width, ratio, made, 1])
        })
    };
    let [values, scores] = columns.map(|id| {
        let turned = g.permute(id, [1, 0, 2, 3]);
        g.cont(turned)
    });
    let weights = g.soft_max(scores, Id::NONE, Id::NONE);
    let rows = g.mul(values, weights);
    let rows = g.sum_rows(Op::SumRows, rows);
    let rows = g.permute(rows, [1, 0, 2, 3]);
    let rows = g.cont(rows);
    let rows = g.norm(Norm::Rms, rows, kept.norm);
    g.rope(rows, inputs.positions, Id::NONE)
}

/// Joins each group's second half with the first half of the group before it.
fn overlap(g: &mut Builder, sources: [Id; 2], inputs: &Rows, read: u64) -> [Id; 2] {
    let made = g.get(inputs.positions).ne[0];
    sources.map(|source| {
        // An empty row behind all others stands for what lies before the beginning.
        let width = g.get(source).ne[0];
        let row = g.view_1d(source, width, 0);
        let row = g.scale(row);
        let row = g.reshape(row, [width, 1, 1, 1]);
        let source = g.concat(source, row, 1);
        let rows = g.get_rows(source, inputs.groups);
        let Tensor { kind, nb, .. } = *g.get(rows);
        let half = width / 2;
        let mut part = |at: u64| {
            let part = g.view_2d(rows, [half, read], nb[1], at);
            let part = g.cont(part);
            g.reshape(part, [half, read / made.max(1), made, 1])
        };
        let before = part(0);
        let current = part(read.saturating_mul(nb[1]).saturating_add(row_bytes(kind, half)));
        g.concat(before, current, 1)
    })
}
