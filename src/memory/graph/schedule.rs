//! Which back-end computes what, and what is copied between them: ggml's scheduler
//! (`ggml_backend_sched_split_graph` in `ggml-backend.cpp`).
//!
//! Weights and caches draw the operations on them to their back-end, the GPUs spread from there to
//! what has no such tie, and wherever the back-end changes a split begins, before which the
//! tensors that it reads from elsewhere are copied.

use std::ops::Range;

use super::backend::Backends;
use super::tensor::{BackendId, Graph, Home, Id, Op, Tensor};
use crate::memory::Change;

/// Most sources that a node has (`GGML_MAX_SRC`).
const MOST_SOURCES: usize = 10;

/// Inputs of a split before another is begun (`GGML_SCHED_MAX_SPLIT_INPUTS`).
const ROOM_OF_INPUTS: usize = 30;

/// A graph ready to be allocated.
#[derive(Debug, Default)]
pub(super) struct Scheduled {
    /// What is computed or kept, in order.
    pub(super) steps: Vec<Step>,
    /// Inputs, and copies that stay, with the back-end each lies on.
    pub(super) leafs: Vec<(Id, BackendId)>,
    /// How many steps there were as each block began, in order, and how many copies that stay.
    pub(super) begun: Vec<(usize, usize)>,
    /// The tensors that each dependency keeps, one list after the other.
    kept: Vec<Id>,
}

/// A node of the graph, a copy, or a mere dependency.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The tensor, none for a dependency.
    pub(super) tensor: Id,
    pub(super) backend: BackendId,
    /// What a dependency keeps, as a range of [`Scheduled::kept`].
    kept: (u32, u32),
}

impl Scheduled {
    /// Returns what a step reads.
    pub(super) fn sources<'a>(&'a self, graph: &'a Graph, step: &Step) -> &'a [Id] {
        match step.tensor.get() {
            Some(id) => graph.get(id).sources(),
            None => self.kept.get(step.kept.0 as usize..step.kept.1 as usize).unwrap_or_default(),
        }
    }

    fn compute(&mut self, tensor: Id, backend: BackendId) {
        self.steps.push(Step { tensor, backend, kept: (0, 0) });
    }

    fn keep(&mut self, graph: &mut Graph, tensors: &[Id], backend: BackendId) {
        let length = |kept: &Vec<Id>| u32::try_from(kept.len()).unwrap_or(u32::MAX);
        let from = length(&self.kept);
        self.kept.extend(tensors);
        self.steps.push(Step { tensor: Id::NONE, backend, kept: (from, length(&self.kept)) });
        for &tensor in tensors {
            graph.get_mut(tensor).readers += 1;
        }
    }
}

/// One run of nodes on one back-end.
#[derive(Debug)]
struct Split {
    backend: BackendId,
    nodes: Range<usize>,
    /// What is copied before it, as a range of [`Copies::all`].
    inputs: Range<usize>,
}

/// Schedules a graph; `copies` is how many micro-batches are under way at once.
pub(super) fn schedule(graph: &mut Graph, backends: Backends, copies: u32) -> Scheduled {
    let mut places = Places::assign(graph, backends);
    let (splits, copied) = split(graph, backends, &mut places, copies);
    collect(graph, &splits, &places, &copied, copies, backends)
}

/// Returns the back-end of each fused operation of a graph, in order.
pub(super) fn fused_places(graph: &Graph, backends: Backends) -> Vec<Option<BackendId>> {
    let places = Places::assign(graph, backends);
    graph.fused.iter().map(|fused| places.get(fused.tensor)).collect()
}

/// The back-end of each tensor, as far as it is known.
struct Places {
    backends: Backends,
    of: Vec<Option<BackendId>>,
}

impl Places {
    fn get(&self, id: Id) -> Option<BackendId> {
        self.of.get(id.index()).copied().flatten()
    }

    fn set(&mut self, id: Id, backend: BackendId) {
        self.of[id.index()] = Some(backend);
    }

    /// Runs the passes that give every node a back-end.
    fn assign(graph: &Graph, backends: Backends) -> Places {
        let mut places = Places { backends, of: vec![None; graph.tensors.len()] };
        for &(id, backend) in &graph.pinned {
            if backends.supports(backend, graph, id) {
                places.set(id, backend);
            }
        }
        if backends.gpus() == 0 {
            places.of.fill(Some(backends.cpu()));
            return places;
        }
        for &leaf in &graph.leafs {
            places.draw(graph, leaf);
        }
        // Views follow what they are of.
        let mut nodes: Vec<Id> = Vec::with_capacity(graph.nodes.len());
        let mut left = 0;
        for &id in &graph.nodes {
            let drawn = places.draw(graph, id);
            if !graph.get(id).op.is_view() {
                nodes.push(id);
                left += usize::from(!drawn);
            }
        }
        for all in [false, true] {
            if left > 0 {
                left -= places.expand(graph, nodes.iter(), all);
            }
            if left > 0 {
                left -= places.expand(graph, nodes.iter().rev(), all);
            }
        }
        if left > 0 {
            places.settle(graph, &nodes);
        }
        places.complete(graph);
        places
    }

    /// Gives a tensor the back-end that it is drawn to, unless it has one, and returns whether it has one
    /// then.
    #[inline]
    fn draw(&mut self, graph: &Graph, id: Id) -> bool {
        if self.get(id).is_none() {
            self.of[id.index()] = self.drawn_to(graph, id);
        }
        self.get(id).is_some()
    }

    /// Returns the back-end that a tensor's own buffer, its input flag or its weights ask for
    /// (`ggml_backend_sched_backend_id_from_cur`).
    fn drawn_to(&self, graph: &Graph, id: Id) -> Option<BackendId> {
        let tensor = graph.get(id);
        let base = tensor.view_of.get().unwrap_or(id);
        if let Some(home) = graph.get(base).home.backend() {
            return self.backends.supports(home, graph, id).then_some(home);
        }
        let cpu = self.backends.cpu();
        if tensor.is_input {
            return Some(cpu);
        }
        // Factors and sinks are too small to draw a whole rope or attention to them.
        if matches!(tensor.op, Op::Rope | Op::FlashAttnExt) {
            return None;
        }
        for &source in tensor.sources() {
            let Home::Weights(home) = graph.get(source).home else { continue };
            if home == cpu
                && let Some(gpu) = self.backends.offloads_to(graph, id)
            {
                return Some(gpu);
            }
            return self.backends.supports(home, graph, id).then_some(home);
        }
        None
    }

    /// Spreads back-ends to their neighbours without one, only GPUs unless `all`, and returns to how
    /// many.
    fn expand<'i>(&mut self, graph: &Graph, nodes: impl Iterator<Item = &'i Id>, all: bool) -> usize {
        let cpu = self.backends.cpu();
        let (mut current, mut count) = (None, 0);
        for &id in nodes {
            match (self.get(id), current) {
                (Some(backend), _) => current = (all || backend != cpu).then_some(backend),
                (None, Some(backend)) if self.backends.supports(backend, graph, id) => {
                    self.set(id, backend);
                    count += 1;
                }
                (None, _) => {}
            }
        }
        count
    }

    /// Gives what no neighbour could compute to the back-end that has most of its sources.
    fn settle(&mut self, graph: &Graph, nodes: &[Id]) {
        for &id in nodes {
            if self.get(id).is_some() {
                continue;
            }
            let mut best: Option<(usize, BackendId)> = None;
            for backend in self.backends.iter().filter(|&backend| self.backends.supports(backend, graph, id)) {
                let near = graph.get(id).sources().iter().filter(|&&source| {
                    let base = graph.get(source).view_of.get();
                    let known = self.get(source).is_some() || base.is_some_and(|base| self.get(base).is_some());
                    known && self.is_at(graph, source, backend)
                });
                let near = near.count();
                if best.is_none_or(|(most, _)| near > most) {
                    best = Some((near, backend));
                }
            }
            if let Some((_, backend)) = best {
                self.set(id, backend);
            }
        }
    }

    /// Gives sources and views the back-end of what they belong to.
    fn complete(&mut self, graph: &Graph) {
        for &id in &graph.nodes {
            let tensor = graph.get(id);
            if self.get(id).is_none()
                && let Some(backend) = tensor.view_of.get().and_then(|base| self.get(base))
            {
                self.set(id, backend);
            }
            let current = self.get(id);
            for &source in tensor.sources() {
                if self.get(source).is_some() {
                    continue;
                }
                let backend = match graph.get(source).view_of.get() {
                    Some(base) => self.get(base),
                    None => current,
                };
                if let Some(backend) = backend {
                    self.set(source, backend);
                }
            }
            if self.get(id).is_none()
                && let Some(backend) = self.backends.iter().find(|&backend| self.backends.supports(backend, graph, id))
            {
                self.set(id, backend);
            }
        }
    }

    /// Returns whether a back-end can read a tensor where it lies
    /// (`ggml_backend_sched_buffer_supported`).
    fn is_at(&self, graph: &Graph, id: Id, backend: BackendId) -> bool {
        let base = graph.get(id).view_of.get();
        let home = graph.get(base.unwrap_or(id)).home.backend();
        let at = home.or_else(|| self.get(id)).or_else(|| base.and_then(|base| self.get(base)));
        at == Some(backend)
    }
}

/// The copies of tensors on back-ends that read them from elsewhere.
struct Copies {
    all: Vec<Copied>,
    /// By back-end and tensor, the first of the copies; nothing for back-ends without copies.
    on: Vec<Vec<Id>>,
    /// How many copies each has.
    each: u32,
}

/// What is copied to a back-end.
struct Copied {
    of: Id,
    first: Id,
    /// The place of the node that it was copied for.
    made: usize,
}

impl Copies {
    fn find(&self, id: Id, backend: BackendId) -> Option<Id> {
        self.on[usize::from(backend.0)].get(id.index())?.get()
    }

    fn add(&mut self, copied: Copied, backend: BackendId) {
        let on = &mut self.on[usize::from(backend.0)];
        if on.len() <= copied.of.index() {
            on.resize(copied.of.index() + 1, Id::NONE);
        }
        on[copied.of.index()] = copied.first;
        self.all.push(copied);
    }
}

/// Cuts the graph where the back-end changes, or where new weights are copied to it, and makes each
/// split read copies of what lies elsewhere.
fn split(graph: &mut Graph, backends: Backends, places: &mut Places, copies: u32) -> (Vec<Split>, Copies) {
    let mut copied = Copies { all: Vec::new(), on: backends.iter().map(|_| Vec::new()).collect(), each: copies };
    if backends.gpus() == 0 {
        return (vec![Split { backend: backends.cpu(), nodes: 0..graph.nodes.len(), inputs: 0..0 }], copied);
    }
    let nodes = std::mem::take(&mut graph.nodes);
    let first = nodes.iter().find(|&&id| !graph.get(id).op.is_view());
    let first = first.and_then(|&id| places.get(id)).unwrap_or(backends.cpu());
    let mut splits: Vec<Split> = Vec::with_capacity(8);
    let mut current = Split { backend: first, nodes: 0..0, inputs: 0..0 };
    let room = if backends.has(Change::LongSplits) { usize::MAX } else { ROOM_OF_INPUTS };
    // A node that begins below may still go beyond, which doubles the room of its split.
    let mut most = room;
    for (index, &id) in nodes.iter().enumerate() {
        let node = graph.get(id);
        if node.op.is_view() {
            continue;
        }
        let backend = places.get(id).unwrap_or(backends.cpu());
        // Weights copied before are given back when a new split begins.
        let renews = backend == current.backend
            && copied.all.len() > current.inputs.start
            && node.sources().iter().any(|&source| {
                matches!(graph.get(source).home, Home::Weights(home) if home != backend)
                    && places.get(source) != Some(backend)
            });
        let overflows = backend == current.backend
            && copied.all.len() - current.inputs.start >= most
            && node.sources().iter().any(|&source| {
                places.get(source) != Some(backend)
                    && copied.find(source, backend).is_none()
                    && !places.is_at(graph, source, backend)
            });
        if backend != current.backend || renews || overflows {
            (current.nodes.end, current.inputs.end) = (index, copied.all.len());
            most = room;
            let next = Split { backend, nodes: index..index, inputs: current.inputs.end..current.inputs.end };
            splits.push(std::mem::replace(&mut current, next));
        }
        for position in 0..graph.get(id).sources().len() {
            let source = graph.get(id).sources[position];
            if places.get(source) == Some(backend) || places.is_at(graph, source, backend) {
                continue;
            }
            let copy = copied.find(source, backend).unwrap_or_else(|| {
                if copied.all.len() - current.inputs.start >= most {
                    most = most.saturating_mul(2);
                }
                let first = duplicate(graph, source, copies, copies > 1);
                places.of.resize(graph.tensors.len(), Some(backend));
                copied.add(Copied { of: source, first, made: index }, backend);
                first
            });
            graph.get_mut(id).sources[position] = copy;
            graph.get_mut(copy).readers += 1;
            let source = graph.get_mut(source);
            source.readers = source.readers.saturating_sub(1);
        }
    }
    (current.nodes.end, current.inputs.end) = (nodes.len(), copied.all.len());
    splits.push(current);
    graph.nodes = nodes;
    (splits, copied)
}

/// Adds copies of a tensor with its strides (`ggml_dup_tensor_layout`) and returns the first. Those
/// that stay are not given back while the next micro-batch is prepared.
fn duplicate(graph: &mut Graph, of: Id, copies: u32, stays: bool) -> Id {
    let Tensor { kind, ne, nb, .. } = *graph.get(of);
    let mut copy = Tensor::strided(kind, ne, nb);
    (copy.is_input, copy.is_output) = (stays, stays);
    let first = graph.push(copy);
    for _ in 1..copies {
        graph.push(copy);
    }
    first
}

/// Lines up copies, nodes and dependencies in the order they are allocated.
fn collect(
    graph: &mut Graph,
    splits: &[Split],
    places: &Places,
    copied: &Copies,
    copies: u32,
    backends: Backends,
) -> Scheduled {
    let inputs = copied.all.len();
    let mut scheduled = Scheduled {
        steps: Vec::with_capacity(graph.nodes.len() + 2 * inputs + 16),
        leafs: Vec::with_capacity(graph.leafs.len()),
        begun: Vec::with_capacity(graph.begun.len()),
        kept: Vec::with_capacity(inputs),
    };
    let cpu = backends.cpu();
    if copies > 1 {
        // Every input has a copy for each micro-batch under way, the original among them.
        for leaf in 0..graph.leafs.len() {
            let leaf = graph.leafs[leaf];
            if !graph.get(leaf).is_input {
                continue;
            }
            let backend = places.get(leaf).unwrap_or(cpu);
            scheduled.leafs.push((leaf, backend));
            let first = duplicate(graph, leaf, copies - 1, true);
            scheduled.leafs.extend((0..copies - 1).map(|extra| (first.after(extra), backend)));
            graph.get_mut(leaf).is_output = true;
        }
        for split in splits {
            for input in &copied.all[split.inputs.clone()] {
                scheduled.leafs.extend((0..copied.each).map(|extra| (input.first.after(extra), split.backend)));
            }
        }
    }
    let leafs = graph.leafs.iter().map(|&leaf| (leaf, places.get(leaf).unwrap_or(cpu)));
    scheduled.leafs.extend(leafs);
    let mut kept = Vec::new();
    for split in splits {
        backends.optimise(split.backend, graph, split.nodes.clone(), &mut kept);
    }
    kept.sort_by_key(|kept| kept.until);
    let mut kept = kept.as_slice();
    let begins = std::mem::take(&mut graph.begun);
    let mut begun = begins.iter().map(|&(_, begun)| begun).peekable();
    for split in splits {
        for input in &copied.all[split.inputs.clone()] {
            scheduled.keep(graph, &[input.of], places.get(input.of).unwrap_or(cpu));
            scheduled.compute(input.first, split.backend);
        }
        for index in split.nodes.clone() {
            while begun.next_if_eq(&index).is_some() {
                let staying = if copies > 1 { copied.all.partition_point(|copied| copied.made < index) } else { 0 };
                scheduled.begun.push((scheduled.steps.len(), staying));
            }
            let node = graph.nodes[index];
            scheduled.compute(node, places.get(node).unwrap_or(split.backend));
            if kept.first().is_some_and(|kept| kept.until == index) {
                let until = kept.partition_point(|kept| kept.until == index);
                let (over, others) = kept.split_at(until);
                let mut once: Vec<Id> = Vec::with_capacity(until);
                for kept in over {
                    if !once.contains(&kept.tensor) {
                        once.push(kept.tensor);
                    }
                }
                // A dependency is a node with sources, and gives them back before the next one does.
                for kept in once.chunks(MOST_SOURCES) {
                    scheduled.keep(graph, kept, split.backend);
                }
                kept = others;
            }
        }
    }
    scheduled
}
