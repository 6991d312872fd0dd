//! The room a graph needs: ggml's best-fit allocator run over it (`ggml-alloc.c`).
//!
//! Nodes are walked in order. Each result takes room in its back-end's [`Buffer`], or the place of a
//! source that nothing else reads any more; what has no reader left is given back.

use super::backend::Backends;
use super::room::{Buffer, Spot, mix};
use super::schedule::{Scheduled, Step};
use super::tensor::{BackendId, Graph, Home, Id, Tensor};

/// What is known of a tensor while the graph is walked.
#[derive(Clone, Copy, Debug)]
struct State {
    /// Readers that are still to come.
    readers: u32,
    /// Views of it that are still to be read.
    views: u32,
    /// The tensor that it is a view of.
    view_of: Id,
    holding: Holding,
    backend: u8,
    /// Its place among those that hold room.
    listed: usize,
    spot: Spot,
    size: u64,
}

/// Whether a tensor holds room in its back-end's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holding {
    /// It needs none: it lies elsewhere, or is a view.
    Never,
    /// It does not yet, or no more.
    No,
    /// It does.
    Yes,
}

impl State {
    fn new(tensor: &Tensor) -> State {
        let needs = tensor.home == Home::Graph && !tensor.is_view();
        State {
            readers: tensor.readers,
            views: tensor.views,
            view_of: tensor.view_of,
            holding: if needs { Holding::No } else { Holding::Never },
            backend: 0,
            listed: 0,
            spot: Spot::default(),
            size: 0,
        }
    }
}

/// What a graph needs.
#[derive(Debug)]
pub(super) struct Room {
    /// Bytes of each back-end's compute buffer.
    pub(super) bytes: Vec<u64>,
    /// What the buffers were like as each block began, as numbers that are the same where the gaps
    /// are, and the tensors that lie between them.
    pub(super) begun: Vec<u64>,
}

/// Finds room for a graph.
pub(super) fn allocate(graph: &Graph, scheduled: &Scheduled, backends: Backends) -> Room {
    let mut walk = Walk {
        graph,
        backends,
        buffers: backends.iter().map(|backend| backends.room(backend)).collect(),
        states: graph.tensors.iter().map(State::new).collect(),
        held: Vec::with_capacity(32),
    };
    let begun = walk.run(scheduled);
    Room { bytes: walk.buffers.iter().map(Buffer::peak).collect(), begun }
}

struct Walk<'a> {
    graph: &'a Graph,
    backends: Backends,
    buffers: Vec<Buffer>,
    states: Vec<State>,
    /// The tensors that hold room, in no order.
    held: Vec<Id>,
}

impl Walk<'_> {
    /// Walks the graph (`ggml_gallocr_alloc_graph_impl`).
    fn run(&mut self, scheduled: &Scheduled) -> Vec<u64> {
        for &(leaf, backend) in &scheduled.leafs {
            self.place(leaf, backend.0);
        }
        let mut begun = Vec::with_capacity(scheduled.begun.len());
        let mut done = 0;
        for &(first, staying) in &scheduled.begun {
            self.compute(scheduled, scheduled.steps.get(done..first).unwrap_or_default());
            begun.push(self.fingerprint(staying));
            done = done.max(first);
        }
        self.compute(scheduled, scheduled.steps.get(done..).unwrap_or_default());
        begun
    }

    /// Makes room for what each step computes, and gives back what nothing reads any more.
    fn compute(&mut self, scheduled: &Scheduled, steps: &[Step]) {
        for step in steps {
            // What it reads has room by now: leafs from the beginning, results since they were computed.
            if let Some(id) = step.tensor.get() {
                self.place(id, step.backend.0);
            }
            for &source in scheduled.sources(self.graph, step) {
                self.was_read(source);
            }
        }
    }

    /// Returns a number for the gaps, for the tensors in between in the order they were made, and for the
    /// copies that stay from the beginning to the end, of which each block may need more.
    fn fingerprint(&self, staying: usize) -> u64 {
        let gaps = self.buffers.iter().fold(staying as u64, |number, buffer| buffer.mixed(number));
        let mut held = self.held.clone();
        held.sort_unstable();
        let held = held.iter().map(|id| &self.states[id.index()]);
        held.fold(gaps, |number, state| state.spot.mixed(mix(number, u64::from(state.backend)), state.size))
    }

    /// Makes room for a tensor unless it has some.
    #[inline]
    fn place(&mut self, id: Id, backend: u8) {
        if self.states[id.index()].holding == Holding::No {
            self.make_room(id, backend);
        }
    }

    /// Makes room for a tensor (`ggml_gallocr_allocate_node`).
    fn make_room(&mut self, id: Id, backend: u8) {
        let tensor = self.graph.get(id);
        if tensor.op.is_inplace() {
            for &source in tensor.sources() {
                if self.takes_over(id, tensor, source) {
                    return;
                }
            }
        }
        let buffer = &mut self.buffers[usize::from(backend)];
        let size = buffer.padded(self.backends.allocated(BackendId(backend), self.graph, id));
        let spot = buffer.take(size);
        self.hold(id, backend, spot, size);
    }

    /// Notes which room a tensor holds.
    fn hold(&mut self, id: Id, backend: u8, spot: Spot, size: u64) {
        let state = &mut self.states[id.index()];
        (state.holding, state.backend, state.spot, state.size) = (Holding::Yes, backend, spot, size);
        state.listed = self.held.len();
        self.held.push(id);
    }

    /// Puts a result where a source lies that nothing else reads.
    fn takes_over(&mut self, id: Id, result: &Tensor, source: Id) -> bool {
        let state = self.states[source.index()];
        let free = state.holding == Holding::Yes && state.readers == 1 && state.views == 0;
        if !free || source == id {
            return false;
        }
        let from = self.graph.get(source);
        if from.is_output || result.kind != from.kind || result.ne != from.ne || result.nb != from.nb {
            return false;
        }
        self.release(source);
        // A back-end may have given the source more than its elements need.
        let buffer = &mut self.buffers[usize::from(state.backend)];
        let size = buffer.padded(self.backends.allocated(BackendId(state.backend), self.graph, id)).min(state.size);
        if state.size > size {
            buffer.give(state.spot.after(size), state.size - size);
        }
        self.hold(id, state.backend, state.spot, size);
        true
    }

    /// Notes that a tensor holds its room no more, and returns what it held.
    fn release(&mut self, id: Id) -> State {
        let state = &mut self.states[id.index()];
        state.holding = Holding::No;
        let state = *state;
        self.held.swap_remove(state.listed);
        if let Some(moved) = self.held.get(state.listed) {
            self.states[moved.index()].listed = state.listed;
        }
        state
    }

    /// Notes that a tensor was read, and gives its room back after the last time.
    #[inline]
    fn was_read(&mut self, id: Id) {
        let state = &mut self.states[id.index()];
        state.readers = state.readers.saturating_sub(1);
        if state.readers != 0 || state.views != 0 {
            return;
        }
        match state.view_of.get() {
            Some(of) => {
                let state = &mut self.states[of.index()];
                state.views = state.views.saturating_sub(1);
                if state.views == 0 && state.readers == 0 {
                    self.give_back(of);
                }
            }
            None => self.give_back(id),
        }
    }

    fn give_back(&mut self, id: Id) {
        if self.states[id.index()].holding != Holding::Yes || self.graph.get(id).is_output {
            return;
        }
        let state = self.release(id);
        self.buffers[usize::from(state.backend)].give(state.spot, state.size);
    }
}
