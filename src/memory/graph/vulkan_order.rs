//! The order in which Vulkan computes the nodes of a split, and what it keeps meanwhile
//! (`ggml_vk_graph_optimize`).
//!
//! Vulkan runs nodes at once that do not depend on each other, so it brings such nodes together: from
//! the first that is left it looks a few nodes ahead. Nodes that it computes as one stay as they are.

use std::ops::Range;

use super::fusion::Kept;
use super::tensor::{F16, F32, Graph, Id, Op, Tensor};

/// Changes the order of the nodes of a split, and adds what has to be kept.
pub(super) fn optimise(graph: &mut Graph, split: Range<usize>, kept: &mut Vec<Kept>) {
    let Some(nodes) = graph.nodes.get(split.clone()) else { return };
    let first = kept.len();
    let mut sorter = Sorter {
        graph,
        nodes,
        waits: waits(graph, nodes),
        has_top_k: nodes.iter().any(|&id| graph.get(id).op == Op::TopK),
        used: vec![false; nodes.len()],
        done: vec![false; graph.tensors.len()],
        order: Vec::with_capacity(nodes.len()),
        current: Vec::with_capacity(AHEAD),
    };
    sorter.run(kept);
    let order = sorter.order;
    let mut places = vec![split.start; order.len()];
    for (place, &at) in (split.start..).zip(&order) {
        places[at] = place;
    }
    let ordered: Vec<Id> = order.iter().map(|&at| nodes[at]).collect();
    for kept in &mut kept[first..] {
        kept.until = places[kept.until];
    }
    graph.nodes[split].copy_from_slice(&ordered);
}

/// How far Vulkan looks ahead for nodes to compute at once (`NUM_TO_CHECK`), and for one to be computed
/// with another.
const AHEAD: usize = 20;
const NEAR: usize = 15;

/// A router, by how its weights come about: what is read is kept until the last, or the factor behind.
const ROUTERS: [&[Op]; 5] = [
    &[
        Op::SoftMax,
        Op::Reshape,
        Op::Argsort,
        Op::View,
        Op::GetRows,
        Op::Reshape,
        Op::SumRows,
        Op::Clamp,
        Op::Div,
        Op::Reshape,
    ],
    &[
        Op::Unary,
        Op::Reshape,
        Op::Add,
        Op::Argsort,
        Op::View,
        Op::GetRows,
        Op::Reshape,
        Op::SumRows,
        Op::Clamp,
        Op::Div,
        Op::Reshape,
    ],
    &[
        Op::Unary,
        Op::Sqrt,
        Op::Reshape,
        Op::Add,
        Op::Argsort,
        Op::View,
        Op::GetRows,
        Op::Reshape,
        Op::SumRows,
        Op::Clamp,
        Op::Div,
        Op::Reshape,
    ],
    &[Op::SoftMax, Op::Reshape, Op::Argsort, Op::View, Op::GetRows],
    &[Op::Argsort, Op::View, Op::GetRows, Op::Reshape, Op::SoftMax, Op::Reshape],
];

/// Other nodes that stay together.
const GROUPS: [&[Op]; 7] = [
    TOP_K,
    &[Op::RmsNorm, Op::Mul, Op::Add, Op::Mul],
    &[Op::RmsNorm, Op::Mul, Op::Add],
    &[Op::RmsNorm, Op::Mul, Op::Rope, Op::View, Op::SetRows],
    &[Op::RmsNorm, Op::View, Op::SetRows],
    &[Op::Rope, Op::View, Op::SetRows],
    GATED_STREAMS,
];

/// The weights of hyper-connections and their use: here too what is read is kept until the last.
const GATED_STREAMS: &[Op] = &[Op::Scale, Op::Unary, Op::Scale, Op::Dsv4HcPost];

/// The choice of an indexer, which no node may be taken out of.
const TOP_K: &[Op] = &[Op::GetRows, Op::Permute, Op::Cont, Op::Cpy, Op::Reshape, Op::Add, Op::TopK];

/// Nodes near one, by how many places they are before it.
#[derive(Clone, Copy, Default)]
struct Near(u32);

/// The nodes near the last one that touched a tensor, and touched it too.
#[derive(Clone, Copy, Default)]
struct Recent {
    last: usize,
    near: Near,
}

impl Near {
    const fn has(self, places_before: usize) -> bool {
        self.0 >> places_before & 1 == 1
    }

    /// Returns those from `first` on, given where the node itself is.
    fn from(self, first: usize, at: usize) -> impl Iterator<Item = usize> {
        let mut left = self.0 & ((2u32 << (at - first)) - 1);
        std::iter::from_fn(move || {
            let places = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            at.checked_sub(places).filter(|_| places < 32)
        })
    }
}

impl Recent {
    /// Returns those of the nodes that are near one further on.
    const fn near(self, at: usize) -> u32 {
        let further = at - self.last;
        if further < AHEAD { (self.near.0 << further) & ((1 << AHEAD) - 1) } else { 0 }
    }

    fn add(&mut self, at: usize) {
        *self = Recent { last: at, near: Near(self.near(at) | 1) };
    }
}

/// Returns for each node which of those near before it have to be computed before: it reads or overwrites
/// what they write, or overwrites what they read. A view only waits for what it is of.
fn waits(graph: &Graph, nodes: &[Id]) -> Vec<Near> {
    /// By tensor: who computes it, who writes it, views of it among them or not, and who reads it.
    #[derive(Clone, Copy, Default)]
    struct Touched {
        itself: Recent,
        written: Recent,
        computed: Recent,
        read: Recent,
    }
    let mut touched = vec![Touched::default(); graph.tensors.len()];
    let base = |id: Id| graph.get(id).view_of.get().unwrap_or(id);
    let mut all = Vec::with_capacity(nodes.len());
    for (at, &id) in nodes.iter().enumerate() {
        let tensor = graph.get(id);
        let written = base(id).index();
        let mut before = touched[written].written.near(at);
        for &source in tensor.sources() {
            before |= touched[source.index()].itself.near(at);
            if !tensor.op.is_view() {
                before |= touched[base(source).index()].computed.near(at);
            }
        }
        touched[id.index()].itself.add(at);
        touched[written].written.add(at);
        if !tensor.op.is_view() {
            before |= touched[written].read.near(at);
            touched[written].computed.add(at);
            for &source in tensor.sources() {
                touched[base(source).index()].read.add(at);
            }
        }
        all.push(Near(before));
    }
    all
}

struct Sorter<'a> {
    graph: &'a Graph,
    nodes: &'a [Id],
    /// By node: before which of the nodes near it it must not be computed.
    waits: Vec<Near>,
    has_top_k: bool,
    /// By node: it has its place, or will have it with the nodes under way.
    used: Vec<bool>,
    /// By tensor: it has its place.
    done: Vec<bool>,
    order: Vec<usize>,
    /// The nodes under way, which are computed at once.
    current: Vec<usize>,
}

impl Sorter<'_> {
    fn run(&mut self, kept: &mut Vec<Kept>) {
        let mut first = 0;
        while first < self.nodes.len() {
            if self.used[first] {
                first += 1;
            } else if let Some(length) = self.group_at(first) {
                self.keep_sources(first, length, kept);
                self.current.extend(first..first + length);
                self.place();
            } else {
                self.current.push(first);
                self.gather(first);
                self.gather_views(first);
                self.place();
            }
        }
    }

    fn get(&self, at: usize) -> &Tensor {
        self.graph.get(self.nodes[at])
    }

    fn op(&self, at: usize) -> Op {
        self.nodes.get(at).map_or(Op::None, |&id| self.graph.get(id).op)
    }

    /// Gives the nodes under way their places.
    fn place(&mut self) {
        for &at in &self.current {
            self.used[at] = true;
            self.done[self.nodes[at].index()] = true;
        }
        self.order.append(&mut self.current);
    }

    fn matches(&self, group: &[Op], at: usize) -> bool {
        let is = |op: Op, wanted: Op| op == wanted || (wanted == Op::Unary && op.is_unary());
        at + group.len() <= self.nodes.len()
            && (at..).zip(group).all(|(at, &wanted)| !self.used[at] && is(self.op(at), wanted))
    }

    /// Returns how many nodes from one on stay together, if any do.
    fn group_at(&self, at: usize) -> Option<usize> {
        let op = self.op(at);
        if !op.is_unary() && !matches!(op, Op::SoftMax | Op::Argsort | Op::GetRows | Op::RmsNorm | Op::Rope | Op::Scale)
        {
            return None;
        }
        let group = ROUTERS.iter().chain(&GROUPS).find(|group| self.matches(group, at))?;
        Some(group.len())
    }

    /// Keeps what a router reads until its last node, or the factor behind it, and what gates streams.
    fn keep_sources(&self, at: usize, length: usize, kept: &mut Vec<Kept>) {
        let routes = ROUTERS.iter().any(|router| router.len() == length && self.matches(router, at));
        if !routes && !self.matches(GATED_STREAMS, at) {
            return;
        }
        let last = at + length - 1;
        let until = last + usize::from(routes && self.op(last + 1) == Op::Scale);
        for (index, &node) in self.nodes[at..=last].iter().enumerate() {
            let outside = |source: &Id| !self.nodes[at..at + index].contains(source);
            kept.extend(
                self.graph.get(node).sources().iter().copied().filter(outside).map(|tensor| Kept { tensor, until }),
            );
        }
    }

    /// Takes nodes ahead that depend on none that is left, or on the last taken in a way that Vulkan
    /// computes as one.
    fn gather(&mut self, first: usize) {
        for at in first + 1..self.nodes.len().min(first + AHEAD) {
            if self.used[at] || self.op(at).is_view() {
                continue;
            }
            let mut before = self.waits[at].from(first, at);
            if before.any(|before| !self.used[before] && !self.continues(at, before)) {
                continue;
            }
            if self.group_at(at).is_none() && !self.is_in_top_k(at) {
                self.current.push(at);
                self.pull(at);
            }
        }
    }

    fn is_in_top_k(&self, at: usize) -> bool {
        self.has_top_k
            && (0..TOP_K.len()).any(|back| TOP_K[back] == self.op(at) && at >= back && self.matches(TOP_K, at - back))
    }

    /// Returns whether a node may be computed together with the last taken, which it reads.
    fn continues(&self, at: usize, before: usize) -> bool {
        if self.current.last() != Some(&before) {
            return false;
        }
        let (from, to) = (self.op(before), self.op(at));
        if to == Op::Mul && (from == Op::RmsNorm || from.is_unary()) {
            return (before + 1..at).all(|between| self.used[between] || self.op(between).is_view());
        }
        let joins =
            matches!((from, to), (Op::MulMat | Op::Add | Op::SsmConv, Op::Add) | (Op::MulMatId, Op::AddId | Op::Mul));
        at == before + 1 && (joins || (from == Op::SsmConv && to.is_unary()))
    }

    /// Takes a node that is near and meets what `fits` asks, together with the last taken.
    fn take_near(&mut self, at: usize, fits: impl Fn(&Self, usize) -> bool) -> Option<usize> {
        let near = (at + 1..self.nodes.len().min(at + NEAR)).find(|&near| fits(self, near))?;
        self.current.push(near);
        self.used[near] = true;
        Some(near)
    }

    /// Takes the nodes that are computed together with the one just taken.
    fn pull(&mut self, at: usize) {
        let id = self.nodes[at];
        let before = at.checked_sub(1).map_or(Op::None, |before| self.op(before));
        let is_leaf = |g: &Graph, source: Id| source.get().is_none_or(|source| g.get(source).op == Op::None);
        let is_ready =
            |s: &Self, source: Id| is_leaf(s.graph, source) || s.done.get(source.index()).copied().unwrap_or(false);
        let mut turned = at;
        if (before, self.op(at)) == (Op::RmsNorm, Op::Mul) {
            let rope = self.take_near(at, |s, near| {
                let [x, positions, factors, ..] = s.get(near).sources;
                s.op(near) == Op::Rope && x == id && is_leaf(s.graph, positions) && is_leaf(s.graph, factors)
            });
            turned = rope.unwrap_or(at);
        }
        if matches!(self.op(turned), Op::Rope | Op::RmsNorm) {
            self.pull_store(turned);
        }
        let second_ready = |s: &Self, near: usize, op: Op| {
            let [x, other, ..] = s.get(near).sources;
            s.op(near) == op && x == id && is_ready(s, other)
        };
        match (before, self.op(at)) {
            (Op::MulMatId, Op::AddId) => {
                self.take_near(at, |s, near| second_ready(s, near, Op::Mul));
            }
            (Op::MulMat, Op::Add) => {
                self.take_near(at, |s, near| second_ready(s, near, Op::Add));
            }
            (Op::SsmConv, Op::Add) => {
                self.take_near(at, |s, near| s.op(near).is_unary() && s.get(near).sources[0] == id);
            }
            (_, Op::Sigmoid | Op::Silu | Op::Softplus) => {
                self.take_near(at, |s, near| {
                    let [x, y, ..] = s.get(near).sources;
                    let other = if x == id { y } else { x };
                    s.op(near) == Op::Mul && (x == id || y == id) && is_ready(s, other) && s.multiplies(at, near)
                });
            }
            _ => {}
        }
    }

    /// Takes the write to a cache that a rope or norm ends in.
    fn pull_store(&mut self, turned: usize) {
        let ahead = turned + 1..self.nodes.len().min(turned + NEAR);
        let reads = |at: usize, op: Op, from: usize| {
            self.op(at) == op && !self.used[at] && self.get(at).sources[0] == self.nodes[from]
        };
        let Some(view) = ahead.clone().find(|&at| reads(at, Op::View, turned)) else { return };
        let Some(store) = ahead.clone().find(|&at| at > view && reads(at, Op::SetRows, view)) else { return };
        let is_inner = |at: usize| self.get(at).uses == 1 && !self.get(at).is_output;
        let elided = is_inner(turned) && is_inner(view) && self.get(view).view_of == self.nodes[turned];
        let waits =
            |at: usize| !self.used[at] && at != view && !self.op(at).is_view() && self.waits[store].has(store - at);
        if elided && !(turned + 1..store).any(waits) {
            self.current.extend([view, store]);
            self.used[view] = true;
            self.used[store] = true;
        }
    }

    /// Returns whether an activation is multiplied in one go (`ggml_vk_can_fuse_unary_mul`).
    fn multiplies(&self, unary: usize, product: usize) -> bool {
        let (active, result) = (self.get(unary), self.get(product));
        let [x, y, ..] = result.sources;
        let is_first = x == self.nodes[unary];
        let Some(other) = (if is_first { y } else { x }).get().map(|id| self.graph.get(id)) else { return false };
        let Some(from) = active.sources[0].get().map(|id| self.graph.get(id)) else { return false };
        let kinds = matches!(active.kind, F32 | F16) && active.kind == result.kind && other.kind == active.kind;
        let repeats = |small: &Tensor, large: &Tensor| {
            small.ne.iter().zip(large.ne).all(|(&small, large)| small != 0 && large.is_multiple_of(small))
        };
        let fits = if is_first { repeats(other, active) } else { repeats(active, other) };
        kinds && other.is_contiguous_from(1) && from.is_contiguous_from(1) && fits
    }

    /// Takes the views ahead whose sources have their places, unless that would part two sums, or a sum
    /// and a norm.
    fn gather_views(&mut self, first: usize) {
        if self.current.last().is_some_and(|&last| self.op(last) == Op::Add) {
            return;
        }
        for at in first + 1..self.nodes.len().min(first + AHEAD) {
            if self.used[at] || !self.op(at).is_view() {
                continue;
            }
            let mut before = self.waits[at].from(first, at);
            if !before.any(|before| !self.used[before] && !self.current.contains(&before)) {
                self.current.push(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::TensorType;
    use crate::memory::graph::tensor::I64;

    #[test]
    fn nodes_that_need_not_wait_come_together_and_a_rope_brings_its_store() {
        let mut graph = Graph::default();
        let x = graph.constant(F32, [64, 8, 1, 1]);
        let positions = graph.constant(I64, [8, 1, 1, 1]);
        let cache = graph.constant(F16, [64, 128, 1, 1]);
        let weight = graph.constant(TensorType(8), [64, 64, 1, 1]);
        let product = graph.mul_mat(weight, x);
        let active = graph.unary(Op::Silu, product);
        let turned = graph.rope(x, positions, Id::NONE);
        let other = graph.mul_mat(weight, x);
        let view = graph.view_2d(turned, [64, 8], 256, 0);
        let stored = graph.set_rows(cache, view, positions);
        for id in [product, active, turned, other, stored] {
            graph.expand(id);
        }
        optimise(&mut graph, 0..6, &mut Vec::new());
        assert_eq!(graph.nodes, [product, turned, view, stored, other, active]);
    }

    #[test]
    fn what_a_router_reads_stays_until_the_factor_behind_it() {
        let mut graph = Graph::default();
        let logits = graph.constant(F32, [64, 8, 1, 1]);
        let probabilities = graph.soft_max(logits, Id::NONE, Id::NONE);
        let chosen = graph.argsort_top_k(probabilities, 4);
        let column = graph.reshape(probabilities, [1, 64, 8, 1]);
        let weights = graph.get_rows(column, chosen);
        let scaled = graph.scale(weights);
        graph.expand(scaled);
        let mut kept = Vec::new();
        optimise(&mut graph, 0..6, &mut kept);
        assert_eq!(kept, [Kept { tensor: logits, until: 5 }]);
        assert_eq!(graph.nodes.last(), Some(&scaled));
    }
}
