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
    let groups = Groups::new(graph, nodes);
    let count = groups.all.len();
    let mut order = Vec::with_capacity(nodes.len());
    let mut take = |at: usize| order.extend(groups.all[at].nodes.clone());
    let mut taken = vec![false; count];
    // Those that run side by side, and those before the one looked at that still have to wait.
    let (mut running, mut waiting) = (Touched::new(graph), Touched::new(graph));
    for at in 0..count {
        if taken[at] {
            continue;
        }
        if !groups.all[at].is_view && !running.is_free(groups.touches(at)) {
            waiting.clear();
            waiting.touch(groups.touches(at));
            for (ahead, taken) in taken.iter_mut().enumerate().take(at + FORWARD).skip(at + 1) {
                if *taken {
                    continue;
                }
                let Group { is_view, is_movable, .. } = groups.all[ahead];
                if !is_movable {
                    break;
                }
                let touches = groups.touches(ahead);
                if (is_view || running.is_free(touches)) && waiting.is_free(touches) {
                    running.touch(touches);
                    take(ahead);
                    *taken = true;
                } else {
                    waiting.touch(touches);
                }
            }
            running.clear();
        }
        running.touch(groups.touches(at));
        take(at);
    }
    order
}

/// The nodes that move together, and what they touch.
struct Groups {
    all: Vec<Group>,
    touches: Vec<Touch>,
}

struct Group {
    nodes: Range<u32>,
    touches: Range<u32>,
    is_view: bool,
    is_movable: bool,
}

/// A tensor that a group reads from outside or writes; views count as what they are of.
#[derive(Clone, Copy)]
struct Touch {
    base: Id,
    writes: bool,
}

impl Groups {
    fn new(graph: &Graph, nodes: &[Id]) -> Groups {
        let mut groups = Groups { all: Vec::with_capacity(nodes.len()), touches: Vec::with_capacity(4 * nodes.len()) };
        let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        let base = |id: Id| graph.get(id).view_of.get().unwrap_or(id);
        let mut at = 0;
        while at < nodes.len() {
            let rest = Rest { graph, nodes };
            let op = rest.op(at);
            let length = if op.is_view() { 1 } else { packed(rest, at) };
            let members = &nodes[at..at + length];
            let first = groups.touches.len();
            for &member in members {
                let sources = graph.get(member).sources().iter().copied();
                let outside = sources.filter(|source| !members.contains(source));
                groups.touches.extend(outside.map(|source| Touch { base: base(source), writes: false }));
                groups.touches.push(Touch { base: base(member), writes: true });
            }
            groups.all.push(Group {
                nodes: number(at)..number(at + length),
                touches: number(first)..number(groups.touches.len()),
                is_view: op.is_view(),
                is_movable: is_movable(op),
            });
            at += length;
        }
        groups
    }

    fn touches(&self, at: usize) -> &[Touch] {
        let Range { start, end } = self.all[at].touches;
        &self.touches[start as usize..end as usize]
    }
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

/// Which tensors a set of groups reads and writes (`ggml_mem_ranges`).
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

    fn touch(&mut self, touches: &[Touch]) {
        for touch in touches {
            let (read, written) = &mut self.rounds[touch.base.index()];
            *(if touch.writes { written } else { read }) = self.round;
        }
    }

    /// Returns whether a group neither reads what the set writes nor writes what it touches.
    fn is_free(&self, touches: &[Touch]) -> bool {
        touches.iter().all(|touch| {
            let (read, written) = self.rounds[touch.base.index()];
            written != self.round && !(touch.writes && read == self.round)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_that_need_not_wait_goes_before_a_norm_that_must() {
        let mut graph = Graph::default();
        let [wide, narrow] = [64, 32].map(|rows| graph.constant(TensorType(8), [64, rows, 1, 1]));
        let scales = graph.constant(F32, [64, 1, 1, 1]);
        let x = graph.constant(F32, [64, 8, 1, 1]);
        let product = graph.mul_mat(wide, x);
        let norm = graph.unary(Op::RmsNorm, product);
        let normed = graph.mul(norm, scales);
        let other = graph.mul_mat(narrow, x);
        graph.expand(normed);
        graph.expand(other);
        let mut kept = Vec::new();
        optimise(&mut graph, 0..4, &mut kept);
        assert_eq!(graph.nodes, [product, other, norm, normed]);
        let until = |tensor| kept.iter().find(|kept| kept.tensor == tensor).map(|kept| kept.until);
        assert_eq!(until(product), Some(3), "what the norm reads stays until its weight is applied");
        assert_eq!(until(norm), None);
    }

    #[test]
    fn nodes_computed_as_one_move_together() {
        let mut graph = Graph::default();
        let x = graph.constant(F32, [64, 8, 1, 1]);
        let weight = graph.constant(TensorType(8), [64, 64, 1, 1]);
        let product = graph.mul_mat(weight, x);
        let sum = graph.add(product, x);
        let norm = graph.unary(Op::RmsNorm, sum);
        let scales = graph.constant(F32, [64, 1, 1, 1]);
        let normed = graph.mul(norm, scales);
        graph.expand(normed);
        let group = |graph: &Graph| packed(Rest { graph, nodes: &graph.nodes }, 0);
        assert_eq!(group(&graph), 4);
        let also = graph.unary(Op::Sqr, product);
        graph.expand(also);
        assert_eq!(group(&graph), 1, "another reads the product");
    }
}
