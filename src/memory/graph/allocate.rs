//! The room a graph needs: ggml's best-fit allocator run over it (`ggml-alloc.c`).
//!
//! Nodes are walked in order. Each result takes room in its back-end's [`Buffer`], or the place of a
//! source that nothing else reads any more; what has no reader left is given back.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::backend::Backends;
use super::room::{Buffer, Spot};
use super::schedule::Scheduled;
use super::tensor::{BackendId, Graph, Id};

/// What is known of a tensor while the graph is walked.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Readers that are still to come.
    readers: u32,
    /// Views of it that are still to be read.
    views: u32,
    /// It holds room in its back-end's buffer.
    holds: bool,
    backend: u8,
    spot: Spot,
    size: u64,
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
        states: vec![State::default(); graph.tensors.len()],
    };
    let begun = walk.run(scheduled);
    Room { bytes: walk.buffers.iter().map(Buffer::peak).collect(), begun }
}

struct Walk<'a> {
    graph: &'a Graph,
    backends: Backends,
    buffers: Vec<Buffer>,
    states: Vec<State>,
}

impl Walk<'_> {
    /// Walks the graph (`ggml_gallocr_alloc_graph_impl`).
    fn run(&mut self, scheduled: &Scheduled) -> Vec<u64> {
        for &(leaf, backend) in &scheduled.leafs {
            self.place(leaf, backend.0);
        }
        for step in &scheduled.steps {
            if let Some(id) = step.tensor.get() {
                let tensor = self.graph.get(id);
                if let Some(of) = tensor.view_of.get() {
                    self.states[of.index()].views += 1;
                }
                if tensor.is_input {
                    self.place(id, step.backend.0);
                }
            }
            for source in scheduled.sources(self.graph, step) {
                self.states[source.index()].readers += 1;
                if self.graph.get(source).is_input {
                    self.place(source, step.backend.0);
                }
            }
        }
        let mut begun = Vec::with_capacity(scheduled.begun.len());
        for (index, step) in scheduled.steps.iter().enumerate() {
            while let Some(&(first, staying)) = scheduled.begun.get(begun.len())
                && first == index
            {
                begun.push(self.fingerprint(staying));
            }
            for source in scheduled.sources(self.graph, step) {
                self.place(source, step.backend.0);
            }
            if let Some(id) = step.tensor.get() {
                self.place(id, step.backend.0);
            }
            for source in scheduled.sources(self.graph, step) {
                self.was_read(source);
            }
        }
        begun
    }

    /// Returns a number for the gaps, for the tensors in between, and for the copies that stay from the
    /// beginning to the end, of which each block may need more.
    fn fingerprint(&self, staying: usize) -> u64 {
        let mut hasher = DefaultHasher::new();
        staying.hash(&mut hasher);
        for buffer in &self.buffers {
            buffer.hash_gaps(&mut hasher);
        }
        for state in self.states.iter().filter(|state| state.holds) {
            (state.backend, state.spot, state.size).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Makes room for a tensor unless it has some (`ggml_gallocr_allocate_node`).
    fn place(&mut self, id: Id, backend: u8) {
        let tensor = self.graph.get(id);
        if tensor.home.backend().is_some() || tensor.is_view() || self.states[id.index()].holds {
            return;
        }
        self.states[id.index()].holds = true;
        if tensor.op.is_inplace() {
            for source in tensor.sources() {
                if self.takes_over(id, source) {
                    return;
                }
            }
        }
        let buffer = &mut self.buffers[usize::from(backend)];
        let size = buffer.padded(self.backends.allocated(BackendId(backend), self.graph, id));
        let spot = buffer.take(size);
        let state = &mut self.states[id.index()];
        (state.backend, state.spot, state.size) = (backend, spot, size);
    }

    /// Puts a result where a source lies that nothing else reads.
    fn takes_over(&mut self, id: Id, source: Id) -> bool {
        let (result, from) = (self.graph.get(id), self.graph.get(source));
        let state = self.states[source.index()];
        let free = state.holds && !from.is_output && state.readers == 1 && state.views == 0;
        let alike = result.kind == from.kind && result.ne == from.ne && result.nb == from.nb;
        if source == id || !free || !alike || from.is_view() {
            return false;
        }
        self.states[source.index()].holds = false;
        // A back-end may have given the source more than its elements need.
        let buffer = &mut self.buffers[usize::from(state.backend)];
        let size = buffer.padded(self.backends.allocated(BackendId(state.backend), self.graph, id)).min(state.size);
        if state.size > size {
            buffer.give(state.spot.after(size), state.size - size);
        }
        let taken = &mut self.states[id.index()];
        (taken.backend, taken.spot, taken.size) = (state.backend, state.spot, size);
        true
    }

    /// Notes that a tensor was read, and gives its room back after the last time.
    fn was_read(&mut self, id: Id) {
        let state = &mut self.states[id.index()];
        state.readers = state.readers.saturating_sub(1);
        if state.readers != 0 || state.views != 0 {
            return;
        }
        match self.graph.get(id).view_of.get() {
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
        let state = self.states[id.index()];
        if !state.holds || self.graph.get(id).is_output {
            return;
        }
        self.buffers[usize::from(state.backend)].give(state.spot, state.size);
        self.states[id.index()].holds = false;
    }
}
