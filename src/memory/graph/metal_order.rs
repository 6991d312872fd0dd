//! The order in which Metal computes the nodes of a split, and what it keeps meanwhile
//! (`ggml_backend_metal_graph_optimize`).
//!
//! Metal runs nodes side by side that do not touch each other's results. Where the next node would
//! have to wait, it looks ahead for others that need not, and computes those first. Nodes that it
//! computes as one move together.

use std::ops::Range;

use super::cuda::has_whole_rows;
use super::fusion::{Kept, Rest};
use super::tensor::{F16, F32, Graph, Home, Id, Op, Tensor};
use crate::gguf::TensorType;

/// Changes the order of the nodes of a split, and adds what has to be kept.
pub(super) fn optimise(graph: &mut Graph, split: Range<usize>, kept: &mut Vec<Kept>) {
    let Some(nodes) = graph.nodes.get(split.clone()) else { return };
    let first = kept.len();
    keep_sources(Rest { graph, nodes }, kept);
    let order = reorder(graph, nodes);
    let ordered: Vec<Id> = order.iter().map(|&at| nodes[at as usize]).collect();
    let mut places = vec![0; ordered.len()];
    for (place, &at) in (split.start..).zip(&order) {
        places[at as usize] = place;
    }
    for kept in &mut kept[first..] {
        kept.until = places[kept.until];
    }
    graph.nodes[split].copy_from_slice(&ordered);
}

/// Keeps what groups of nodes read from outside until the last of them; whether they will be computed
/// as one does not matter yet (`ggml_metal_fusion_add_alloc_deps`).
fn keep_sources(rest: Rest, kept: &mut Vec<Kept>) {
    let mut at = 0;
    while at < rest.nodes.len() {
        let length = look_alike(rest, at);
        let group = rest.nodes.get(at..at + length).unwrap_or_default();
        let until = at + length - 1;
        for (index, &node) in group.iter().enumerate().filter(|_| length > 1) {
            let outside = |source: &Id| !group[..index].contains(source);
            kept.extend(
                rest.graph.get(node).sources().iter().copied().filter(outside).map(|tensor| Kept { tensor, until }),
            );
        }
        at += length;
    }
}

/// Returns how many nodes from one on have the operations of a group that Metal knows, views among
/// them (`ggml_metal_fusion_match_raw_pattern`).
fn look_alike(rest: Rest, at: usize) -> usize {
    let op = |further: usize| rest.op(at + further);
    let run = |from: usize, of: Op| (from..rest.nodes.len()).take_while(|&further| op(further) == of).count();
    match op(0) {
        Op::Norm | Op::RmsNorm => match (op(1), op(2)) {
            (Op::Mul, Op::Add) => 3,
            (Op::Mul | Op::Scale, _) => 2,
            _ => 1,
        },
        Op::Add => run(0, Op::Add).min(7),
        Op::GatedDeltaNet if op(1) == Op::Cpy => 2,
        Op::SsmConv if op(1).is_unary() => 2,
        Op::MulMat if op(1) == Op::Add => 2,
        Op::Mul => {
            let views = run(1, Op::View);
            let sums = (2..=8).contains(&views) && run(1 + views, Op::Add) + 1 >= views;
            if sums { 2 * views } else { 1 }
        }
        Op::SoftMax => {
            let begins = [Op::Reshape, Op::Argsort, Op::View, Op::GetRows];
            let normalises = [Op::Reshape, Op::SumRows, Op::Clamp, Op::Div, Op::Reshape];
            let follow = |from: usize, ops: &[Op]| (from..).zip(ops).all(|(further, &of)| op(further) == of);
            match (follow(1, &begins), follow(5, &normalises)) {
                (false, _) => 1,
                (true, false) => 5 + usize::from(op(5) == Op::Scale),
                (true, true) => 10 + usize::from(op(10) == Op::Scale),
            }
        }
        _ => 1,
    }
}

/// The most nodes that are computed as one (`GGML_METAL_FUSION_MAX`).
const MOST_FUSED: usize = 16;

/// Returns how many nodes from one on move together, views between them among them
/// (`ggml_metal_fusion_max`).
fn packed(rest: Rest, at: usize) -> usize {
    let (mut next, mut length, mut total) = (at, 1, 0);
    while total < MOST_FUSED
        && let Some((count, last)) = fused(rest, next, MOST_FUSED - total)
    {
        total += count;
        length = last - at + 1;
        let Some(following) = computed_after(rest, last) else { break };
        next = following;
    }
    length.min(MOST_FUSED)
}

/// Returns the next node that is no view.
fn computed_after(rest: Rest, at: usize) -> Option<usize> {
    (at + 1..rest.nodes.len()).find(|&next| !rest.op(next).is_view())
}

/// Returns of the longest group that Metal computes as one how many nodes are no views, `room` at most,
/// and the place of the last (`ggml_metal_fusion_next`).
fn fused(rest: Rest, at: usize, room: usize) -> Option<(usize, usize)> {
    let here = Rest { nodes: &rest.nodes[at..], ..rest };
    let first = here.get(0)?;
    // A chain: each node reads the one before and has its shape, and nothing else reads that.
    let joins = |before: usize, next: usize, fits: &dyn Fn(Id, &Tensor) -> bool| {
        let (Some(from), Some(to)) = (rest.get(before), rest.get(next)) else { return false };
        let id = rest.id(before);
        to.sources[..2].contains(&id) && from.ne == to.ne && rest.is_inner(before, 1) && fits(id, to)
    };
    let weighs = |id: Id, to: &Tensor| {
        let weight = to.sources[1].get().map(|id| rest.graph.get(id));
        let fits = |weight: &Tensor| weight.ne[0] == first.ne[0] && has_whole_rows(weight);
        to.kind == F32 && to.sources[0] == id && weight.is_some_and(fits)
    };
    let next = computed_after(rest, at);
    match first.op {
        Op::Norm | Op::RmsNorm => {
            let next = next.filter(|_| room >= 2)?;
            match rest.op(next) {
                Op::Scale => joins(at, next, &|id, to| to.sources[0] == id && to.kind == F32).then_some((2, next)),
                Op::Mul if joins(at, next, &weighs) => {
                    let last = computed_after(rest, next).filter(|_| room >= 3);
                    let last = last.filter(|&last| rest.op(last) == Op::Add && joins(next, last, &weighs));
                    Some(last.map_or((2, next), |last| (3, last)))
                }
                _ => None,
            }
        }
        Op::Add => {
            let (mut last, mut count) = (at, 1);
            let layout =
                |id: Id| id.get().map(|id| rest.graph.get(id)).map(|tensor| (tensor.kind, tensor.ne, tensor.nb));
            while count < room.min(7)
                && let Some(next) = computed_after(rest, last).filter(|&next| rest.op(next) == Op::Add)
                && let added = rest.get(last).map_or(Id::NONE, |last| last.sources[1])
                && joins(last, next, &|id, to| to.sources[0] == id && layout(to.sources[1]) == layout(added))
            {
                (last, count) = (next, count + 1);
            }
            (count > 1).then_some((count, last))
        }
        Op::SsmConv => {
            let next = next.filter(|&next| room >= 2 && rest.op(next) == Op::Silu)?;
            joins(at, next, &|_, to| to.kind == F32 && has_whole_rows(to)).then_some((2, next))
        }
        Op::GatedDeltaNet => {
            let next = next.filter(|&next| room >= 2 && rest.op(next) == Op::Cpy)?;
            let from = rest.get(next).map(|copy| copy.sources[0]).filter(|&from| from != Id::NONE)?;
            let from = rest.graph.get(from);
            // The states behind the output, as they go to the cache.
            let scores = rest.graph.get(first.sources[2]).elements().saturating_mul(4);
            let is_tail = from.op == Op::View && from.view_of == here.id(0) && from.offset == scores;
            (is_tail && from.is_contiguous()).then_some((2, next))
        }
        Op::MulMat => {
            let next = next.filter(|&next| room >= 2 && rest.op(next) == Op::Add)?;
            let [a, b, ..] = first.sources.map(|id| id.get().map(|id| rest.graph.get(id)));
            let multiplies = a.is_some_and(|a| has_small_kernel(a.kind)) && b.is_some_and(|b| b.kind == F32);
            let adds = |id: Id, to: &Tensor| {
                let [x, y, ..] = to.sources;
                let other = rest.graph.get(if x == id { y } else { x });
                let base = other.view_of.get().map_or(other, |base| rest.graph.get(base));
                x != y && other.kind == F32 && to.kind == F32 && !matches!(base.home, Home::Weights(_))
            };
            (multiplies && joins(at, next, &adds)).then_some((2, next))
        }
        Op::SoftMax => {
            let router = here.router().filter(|router| !router.is_biased && router.experts <= 1024)?;
            let computed = |further: &usize| !here.op(*further).is_view();
            let count = (0..router.nodes).filter(computed).count();
            let last = (0..router.nodes).rev().find(computed)?;
            (count <= room).then_some((count, at + last))
        }
        Op::Mul => {
            let sum = here.weighted_sum().filter(|sum| sum.scales.is_none() && sum.nodes <= 16)?;
            let count = sum.nodes / 2;
            (count <= room).then_some((count, at + sum.nodes - 1))
        }
        _ => None,
    }
}

/// Returns whether Metal multiplies a few rows with such weights in a way that takes a sum along
/// (`ggml_metal_mul_mv_mma_type_supported`).
fn has_small_kernel(kind: TensorType) -> bool {
    matches!(kind, F32 | F16) || matches!(kind.0, 2 | 3 | 6 | 7 | 8 | 12 | 13 | 14)
}

/// How far Metal looks ahead.
const FORWARD: usize = 64;

/// Returns the new order of the nodes (`ggml_metal_graph_optimize_reorder`).
fn reorder(graph: &Graph, nodes: &[Id]) -> Vec<u32> {
    let mut groups = Vec::with_capacity(nodes.len());
    let mut at = 0;
    while at < nodes.len() {
        let rest = Rest { graph, nodes };
        let length = if rest.op(at).is_view() { 1 } else { packed(rest, at) };
        groups.push(at..at + length);
        at += length;
    }
    let mut order = Vec::with_capacity(nodes.len());
    let mut take = |group: &Range<usize>| order.extend(group.clone().filter_map(|at| u32::try_from(at).ok()));
    let mut taken = vec![false; groups.len()];
    // Those that run side by side, and those before the one looked at that still have to wait.
    let (mut running, mut waiting) = (Touched::new(graph), Touched::new(graph));
    for (index, group) in groups.iter().enumerate() {
        if taken[index] {
            continue;
        }
        let is_view = |group: &Range<usize>| graph.get(nodes[group.start]).op.is_view();
        if !is_view(group) && !running.is_free(graph, &nodes[group.clone()]) {
            waiting.clear();
            waiting.touch(graph, &nodes[group.clone()]);
            let ahead = groups.iter().enumerate().skip(index + 1).take(FORWARD - 1);
            for (further, other) in ahead {
                if taken[further] {
                    continue;
                }
                if !is_movable(graph.get(nodes[other.start]).op) {
                    break;
                }
                let members = &nodes[other.clone()];
                let is_free = is_view(other) || running.is_free(graph, members);
                if is_free && waiting.is_free(graph, members) {
                    running.touch(graph, members);
                    take(other);
                    taken[further] = true;
                } else {
                    waiting.touch(graph, members);
                }
            }
            running.clear();
        }
        running.touch(graph, &nodes[group.clone()]);
        take(group);
    }
    order
}

/// Returns whether others may be computed before an operation, and it before others.
const fn is_movable(op: Op) -> bool {
    op.is_view()
        || op.is_unary()
        || matches!(
            op,
            Op::MulMat
                | Op::MulMatId
                | Op::Rope
                | Op::Norm
                | Op::RmsNorm
                | Op::GroupNorm
                | Op::L2Norm
                | Op::SumRows
                | Op::SsmConv
                | Op::SsmScan
                | Op::Clamp
                | Op::Mul
                | Op::Add
                | Op::Sub
                | Op::Div
                | Op::Glu
                | Op::Scale
                | Op::GetRows
                | Op::SetRows
                | Op::Set
                | Op::Cpy
                | Op::Cont
                | Op::Repeat
        )
}

/// Which tensors a set of nodes reads and writes, views as what they are of (`ggml_mem_ranges`).
struct Touched {
    /// By tensor, the last round in which it was read, and written.
    rounds: Vec<(u32, u32)>,
    round: u32,
}

impl Touched {
    fn new(graph: &Graph) -> Touched {
        Touched { rounds: vec![(0, 0); graph.tensors.len()], round: 1 }
    }

    fn clear(&mut self) {
        self.round += 1;
    }

    fn touch(&mut self, graph: &Graph, members: &[Id]) {
        for_each_touched(graph, members, |base, writes| {
            let (read, written) = &mut self.rounds[base.index()];
            *(if writes { written } else { read }) = self.round;
            true
        });
    }

    /// Returns whether nodes neither read what the set writes nor write what it touches.
    fn is_free(&self, graph: &Graph, members: &[Id]) -> bool {
        for_each_touched(graph, members, |base, writes| {
            let (read, written) = self.rounds[base.index()];
            written != self.round && !(writes && read == self.round)
        })
    }
}

/// Goes through what nodes computed as one read from outside and write, until `visit` says no.
fn for_each_touched(graph: &Graph, members: &[Id], mut visit: impl FnMut(Id, bool) -> bool) -> bool {
    let base = |id: Id| graph.get(id).view_of.get().unwrap_or(id);
    members.iter().all(|&member| {
        let mut outside = graph.get(member).sources().iter().copied().filter(|source| !members.contains(source));
        outside.all(|source| visit(base(source), false)) && visit(base(member), true)
    })
}
