//! What CUDA keeps longer than the graph itself would, because it computes several nodes as one
//! (`ggml_backend_cuda_graph_optimize`); ROCm is the same source.
//!
//! Three groups of nodes are looked for, all of them parts of a network of experts: the two gates
//! of routed and shared experts, the weighted sum of the experts' results, and the router.

use std::ops::Range;

use super::tensor::{F32, Graph, Home, Id, Op, Tensor};
use crate::memory::{Build, Change};

/// A tensor that must not be given back before another is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) tensor: Id,
    /// The place of the other among the graph's nodes.
    pub(super) until: usize,
}

/// Looks at the nodes of a split: may change their order, and adds what has to be kept.
pub(super) fn optimise(graph: &mut Graph, split: Range<usize>, kept: &mut Vec<Kept>, build: Build) {
    if build.has(Change::JoinedExperts) {
        join_shared_experts(graph, split.clone(), kept);
    }
    let nodes = graph.nodes.get(split.clone()).unwrap_or_default();
    let mut at = 0;
    while let Some(&first) = nodes.get(at) {
        let rest = Rest { graph, nodes: &nodes[at..] };
        at += match graph.get(first).op {
            Op::Mul if build.has(Change::KeptExperts) => weighted_sum(rest, split.start + at, kept),
            Op::SoftMax | Op::Sigmoid | Op::Softplus if build.has(Change::KeptRouters) => {
                router(rest, split.start + at, kept)
            }
            _ => 1,
        };
    }
}

/// Moves the shared expert's gate to that of the routed ones where both can be computed at once
/// (`ggml_cuda_match_shared_expert`).
fn join_shared_experts(graph: &mut Graph, split: Range<usize>, kept: &mut Vec<Kept>) {
    let routes = graph.nodes.get(split.clone()).unwrap_or_default();
    if !routes.iter().any(|&id| graph.get(id).op == Op::MulMatId) {
        return;
    }
    let mut at = split.start;
    while at + 5 < split.end {
        let rest = Rest { graph, nodes: &graph.nodes[at..split.end] };
        let Some(up) = rest.gate(0, Op::MulMatId) else {
            at += 1;
            continue;
        };
        let starts_another = |at| rest.op(at) == Op::MulMatId && rest.op(at + 1) == Op::MulMatId;
        let end = rest.nodes.len() - 2;
        let shared = (3..end).take_while(|&at| !starts_another(at)).find(|&at| rest.fits_shared(up, at));
        let Some(shared) = shared else {
            at += 1;
            continue;
        };
        let [_, input, ids, ..] = graph.get(up).sources;
        graph.nodes[at + 3..at + shared + 3].rotate_right(3);
        kept.extend([input, ids].map(|tensor| Kept { tensor, until: at + 5 }));
        at += 6;
    }
}

/// Keeps the results of the experts and their weights until they are summed up, and returns how many
/// nodes that takes (`ggml_cuda_match_moe_weighted_reduction`).
fn weighted_sum(rest: Rest, at: usize, kept: &mut Vec<Kept>) -> usize {
    let Some(sum) = rest.weighted_sum() else { return 1 };
    let until = at + sum.nodes - 1;
    let kept_too = [sum.experts, sum.weights].into_iter().chain(sum.scales);
    kept.extend(kept_too.map(|tensor| Kept { tensor, until }));
    sum.nodes
}

/// Keeps everything that a router reads or computes until the node behind it, and returns how many
/// nodes it has (`ggml_cuda_topk_moe_fusion`).
fn router(rest: Rest, at: usize, kept: &mut Vec<Kept>) -> usize {
    let Some(router) = rest.router() else { return 1 };
    // The numbers of experts that there is a kernel for (`ggml_cuda_should_use_topk_moe`).
    let has_kernel = match router.experts {
        288 | 576 => true,
        experts => experts <= 512 && experts.is_power_of_two(),
    };
    if !has_kernel {
        return 1;
    }
    let until = at + router.nodes;
    for &node in &rest.nodes[..router.nodes] {
        let sources = rest.graph.get(node).sources();
        kept.extend([node].iter().chain(sources).copied().map(|tensor| Kept { tensor, until }));
    }
    router.nodes
}

/// The most experts whose results are summed up in one go (`MOE_WEIGHTED_REDUCTION_MAX_EXPERTS`).
const MOST_SUMMED: usize = 15;

/// A weighted sum of experts.
pub(super) struct WeightedSum {
    experts: Id,
    weights: Id,
    /// Factors that the results are multiplied with before.
    pub(super) scales: Option<Id>,
    pub(super) nodes: usize,
}

/// A router: it chooses experts for each token.
pub(super) struct Router {
    pub(super) experts: u64,
    /// A bias moves the choice but not the weights.
    pub(super) is_biased: bool,
    pub(super) nodes: usize,
}

/// The nodes of a split from one of them on.
#[derive(Clone, Copy)]
pub(super) struct Rest<'a> {
    pub(super) graph: &'a Graph,
    pub(super) nodes: &'a [Id],
}

impl<'a> Rest<'a> {
    pub(super) fn id(&self, at: usize) -> Id {
        self.nodes.get(at).copied().unwrap_or(Id::NONE)
    }

    pub(super) fn get(&self, at: usize) -> Option<&'a Tensor> {
        self.nodes.get(at).map(|&id| self.graph.get(id))
    }

    pub(super) fn op(&self, at: usize) -> Op {
        self.get(at).map_or(Op::None, |tensor| tensor.op)
    }

    /// Returns whether a node is an operation whose source at `index` is `source`.
    fn reads(&self, at: usize, op: Op, index: usize, source: Id) -> bool {
        self.get(at).is_some_and(|tensor| tensor.op == op && tensor.sources[index] == source)
    }

    /// Returns whether a node is read by so many others and by nobody outside the graph, so that its
    /// result need not exist once they are computed with it (`ggml_can_fuse_subgraph_ext`).
    pub(super) fn is_inner(&self, at: usize, uses: u32) -> bool {
        self.get(at).is_some_and(|tensor| tensor.uses == uses && !tensor.is_output)
    }

    /// Returns the `up` of two products and the gate over them
    /// (`ggml_cuda_should_fuse_mul_mat`).
    fn gate(&self, at: usize, product: Op) -> Option<Id> {
        if self.op(at) != product || self.op(at + 1) != product || self.op(at + 2) != Op::Glu {
            return None;
        }
        let gated = self.get(at + 2)?;
        let [gate, up, ..] = gated.sources;
        let pair = [self.id(at), self.id(at + 1)];
        if (pair != [gate, up] && pair != [up, gate]) || !self.is_inner(at, 1) || !self.is_inner(at + 1, 1) {
            return None;
        }
        let [gate_from, up_from] = [gate, up].map(|id| self.graph.get(id).sources);
        let [a, b] = [gate_from[0], up_from[0]].map(|id| self.graph.get(id));
        let alike = a.kind == b.kind && a.ne == b.ne && a.nb == b.nb;
        (alike && gate_from[1..3] == up_from[1..3]).then_some(up)
    }

    /// Returns whether the shared expert at `at` can be computed with the routed ones here, whose
    /// second product is `up`.
    fn fits_shared(&self, up: Id, at: usize) -> bool {
        if self.op(at) != Op::MulMat {
            return false;
        }
        let Some(shared_up) = self.gate(at, Op::MulMat) else { return false };
        let (Some(routed), Some(shared)) = (self.get(2), self.get(at + 2)) else { return false };
        let [weight, input, ..] = self.graph.get(up).sources.map(|id| (id, id.get().map(|id| self.graph.get(id))));
        let [shared_weight, shared_input, ..] = self.graph.get(shared_up).sources;
        let (Some(weight), Some(input)) = (weight.1, input.1) else { return false };
        let is_matrix = |tensor: &Tensor| tensor.ne[2] == 1 && tensor.ne[3] == 1;
        let (other, other_input) = (self.graph.get(shared_weight), self.graph.get(shared_input));
        let weights = matches!(weight.home, Home::Weights(_))
            && weight.kind.is_quantised()
            && weight.kind == other.kind
            && weight.ne[..2] == other.ne[..2]
            && weight.nb[1] == other.nb[1]
            && weight.ne[3] == 1
            && other.op == Op::None
            && is_matrix(other)
            && other.is_contiguous();
        let inputs = input.op == Op::Reshape
            && input.sources[0] == shared_input
            && input.ne[1] == 1
            && input.ne[3] == 1
            && input.is_contiguous()
            && is_matrix(other_input)
            && other_input.is_contiguous();
        weights && inputs && routed.detail == shared.detail && routed.is_contiguous() && shared.is_contiguous()
    }

    /// Returns the weighted sum that begins here: a product, or two, then a view and a sum an expert.
    pub(super) fn weighted_sum(&self) -> Option<WeightedSum> {
        let first = self.get(0).filter(|first| first.kind == F32 && first.is_contiguous())?;
        let (raw, factors) = self.split_product(first)?;
        let (mut experts, mut weights, mut scales, mut products) = (raw, factors, None, 1);
        if let Some(second) = self.get(1).filter(|second| second.op == Op::Mul && second.is_contiguous())
            && second.kind == F32
            && let Some((scaled, route)) = self.split_product(second)
            && scaled == self.id(0)
        {
            (experts, weights, scales, products) = (raw, route, Some(factors), 2);
        }
        let weighted = self.get(products - 1)?;
        let used = weighted.ne[1];
        let used = usize::try_from(used).ok().filter(|used| (2..=MOST_SUMMED).contains(used))?;
        let from = self.id(products - 1);
        let plane = [weighted.ne[0], weighted.ne[2].saturating_mul(weighted.ne[3]), 1, 1];
        let end = products + 2 * used - 1;
        let (mut views, mut viewed, mut added) = ([Id::NONE; MOST_SUMMED], 0, 0);
        for at in products..end {
            let node = self.get(at)?;
            let fits = match node.op {
                Op::View if viewed < used => {
                    let offset = weighted.nb[1].saturating_mul(viewed as u64);
                    views[viewed] = self.id(at);
                    viewed += 1;
                    node.sources[0] == from && (node.ne, node.nb[1], node.offset) == (plane, weighted.nb[2], offset)
                }
                Op::Add if added + 1 < viewed => {
                    let sum = if added == 0 { views[0] } else { self.id(at - 1) };
                    added += 1;
                    node.sources[..2] == [sum, views[added]]
                }
                _ => false,
            };
            if !fits || (at + 1 < end && !self.is_inner(at, 1)) {
                return None;
            }
        }
        let inner =
            self.is_inner(products - 1, u32::try_from(used).unwrap_or(0)) && (products == 1 || self.is_inner(0, 1));
        inner.then_some(WeightedSum { experts, weights, scales, nodes: end })
    }

    /// Returns how many nodes the router has that begins here: probabilities, the choice of the best,
    /// their weights, which may be normalised and scaled.
    pub(super) fn router(&self) -> Option<Router> {
        let first = self.get(0)?;
        let mut at = 0;
        match first.op {
            // Masked and sunk ones belong to attention.
            Op::SoftMax if first.sources[1..3] == [Id::NONE; 2] => {}
            Op::Sigmoid => {}
            Op::Softplus if self.reads(1, Op::Sqrt, 0, self.id(0)) && self.is_inner(0, 1) => at = 1,
            _ => return None,
        }
        let (probabilities, column) = (self.id(at), self.id(at + 1));
        let mut ranks = probabilities;
        let follows = |at: usize, op: Op| self.reads(at, op, 0, self.id(at - 1));
        if !follows(at + 1, Op::Reshape) || !self.is_inner(at, 2) || !self.is_inner(at + 1, 1) {
            return None;
        }
        at += 2;
        if self.reads(at, Op::Add, 0, probabilities) && self.is_inner(at, 1) {
            ranks = self.id(at);
            at += 1;
        }
        if !self.reads(at, Op::Argsort, 0, ranks) || !self.is_inner(at, 1) || !follows(at + 1, Op::View) {
            return None;
        }
        let chosen = self.get(at + 1)?;
        at += 2;
        if !self.reads(at, Op::GetRows, 0, column) || !self.reads(at, Op::GetRows, 1, self.id(at - 1)) {
            return None;
        }
        let mut last = at;
        let mut scales = follows(at + 1, Op::Scale);
        if self.op(at + 1) == Op::Reshape {
            let sums = follows(at + 1, Op::Reshape) && follows(at + 2, Op::SumRows) && follows(at + 3, Op::Clamp);
            let [rows, sum] = [self.id(at + 1), self.id(at + 3)];
            let divides = self.reads(at + 4, Op::Div, 0, rows) && self.reads(at + 4, Op::Div, 1, sum);
            if sums && divides && follows(at + 5, Op::Reshape) {
                if !self.is_inner(at + 1, 2) || ![at, at + 2, at + 3, at + 4].iter().all(|&at| self.is_inner(at, 1)) {
                    return None;
                }
                last = at + 5;
                scales = follows(at + 6, Op::Scale);
            }
        }
        if scales {
            if !self.is_inner(last, 1) {
                return None;
            }
            last += 1;
        }
        let experts = chosen.nb[1].checked_div(chosen.nb[0])?;
        let is_dense = |id: Id| self.graph.get(id).is_contiguous();
        let dense = is_dense(first.sources[0]) && is_dense(self.id(last));
        dense.then_some(Router { experts, is_biased: ranks != probabilities, nodes: last + 1 })
    }

    /// Returns what a product of f32 spreads weights over, and the weights: one for each row.
    fn split_product(&self, product: &Tensor) -> Option<(Id, Id)> {
        let [a, b, ..] = product.sources;
        let is_dense = |tensor: &Tensor| tensor.kind == F32 && tensor.is_contiguous();
        let matches = |full: Id, weights: Id| {
            let (full, weights) = (self.graph.get(full), self.graph.get(weights));
            let each_row = weights.ne[0] == 1 && weights.ne[1..] == product.ne[1..];
            each_row && full.ne == product.ne && is_dense(full) && is_dense(weights)
        };
        if a == Id::NONE || b == Id::NONE {
            return None;
        }
        if matches(a, b) { Some((a, b)) } else { matches(b, a).then_some((b, a)) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ops::Glu;
    use super::super::tensor::{BackendId, I32};
    use super::*;
    use crate::gguf::TensorType;

    /// A network of 64 experts, 4 of them chosen, over 8 tokens; with a shared expert if asked for.
    /// Returns the graph, the chosen experts' weights, their results and the sum.
    fn experts(shares: bool) -> (Graph, [Id; 3]) {
        let mut graph = Graph::default();
        let weight = |graph: &mut Graph, ne| {
            let id = graph.constant(TensorType(8), ne);
            graph.get_mut(id).home = Home::Weights(BackendId(0));
            id
        };
        let [gate, up] = [[256, 128, 64, 1]; 2].map(|ne| weight(&mut graph, ne));
        let down = weight(&mut graph, [128, 256, 64, 1]);
        let [shared_gate, shared_up] = [[256, 128, 1, 1]; 2].map(|ne| weight(&mut graph, ne));
        let x = graph.constant(F32, [256, 8, 1, 1]);
        let logits = graph.constant(F32, [64, 8, 1, 1]);

        let probabilities = graph.soft_max(logits, Id::NONE, Id::NONE);
        let chosen = graph.argsort_top_k(probabilities, 4);
        let column = graph.reshape(probabilities, [1, 64, 8, 1]);
        let weights = graph.get_rows(column, chosen);
        let input = graph.reshape(x, [256, 1, 8, 1]);
        let [gate, up] = [gate, up].map(|weight| graph.mul_mat_id(weight, input, chosen));
        let active = graph.glu(Glu::Plain, gate, up);
        let results = graph.mul_mat_id(down, active, chosen);
        let weighted = graph.mul(results, weights);
        for id in [weights, up, weighted] {
            graph.expand(id);
        }
        let Tensor { nb, .. } = *graph.get(weighted);
        let views = [0, 1, 2, 3].map(|expert| graph.view_2d(weighted, [256, 8], nb[2], expert * nb[1]));
        for view in views {
            graph.expand(view);
        }
        let mut sum = views[0];
        for view in &views[1..] {
            sum = graph.add(sum, *view);
            graph.expand(sum);
        }
        if shares {
            let [gate, up] = [shared_gate, shared_up].map(|weight| graph.mul_mat(weight, x));
            let active = graph.glu(Glu::Plain, gate, up);
            graph.expand(active);
        }
        (graph, [weights, results, sum])
    }

    fn kept_until(graph: &mut Graph, node: Id) -> Vec<Id> {
        let mut kept = Vec::new();
        let all = 0..graph.nodes.len();
        optimise(graph, all, &mut kept, Build::NEWEST);
        kept.iter().filter(|kept| graph.nodes[kept.until] == node).map(|kept| kept.tensor).collect()
    }

    #[test]
    fn experts_and_their_weights_stay_until_they_are_summed_up() {
        let (mut graph, [weights, results, sum]) = experts(false);
        assert_eq!(kept_until(&mut graph, sum), [results, weights]);
    }

    #[test]
    fn a_router_stays_until_the_node_behind_it() {
        let (mut graph, [weights, ..]) = experts(false);
        let behind = graph.nodes.iter().position(|&node| node == weights).map(|at| graph.nodes[at + 1]);
        let kept = kept_until(&mut graph, behind.unwrap());
        let logits = graph.get(graph.nodes[0]).sources[0];
        assert!(kept.contains(&logits) && kept.contains(&weights), "{kept:?}");
    }

    #[test]
    fn a_router_that_something_else_reads_is_computed_node_by_node() {
        let (mut graph, [weights, ..]) = experts(false);
        let probabilities = graph.nodes[0];
        let also = graph.scale(probabilities);
        graph.expand(also);
        let behind = graph.nodes.iter().position(|&node| node == weights).map(|at| graph.nodes[at + 1]);
        assert!(kept_until(&mut graph, behind.unwrap()).is_empty());
    }

    #[test]
    fn the_shared_expert_is_computed_beside_the_routed_ones() {
        let (mut graph, _) = experts(true);
        let last = *graph.nodes.last().unwrap();
        let kept = kept_until(&mut graph, last);
        let at = graph.nodes.iter().position(|&node| node == last);
        let routed = graph.nodes.iter().position(|&node| graph.get(node).op == Op::Glu);
        assert_eq!(at, routed.map(|routed| routed + 3));
        let kinds: Vec<TensorType> = kept.iter().map(|&id| graph.get(id).kind).collect();
        assert_eq!(kinds, [F32, I32], "the input and the chosen experts stay until then");
    }
}
