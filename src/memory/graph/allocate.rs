//! The room a graph needs: ggml's best-fit allocator run over it (`ggml-alloc.c`).
//!
//! Nodes are walked in order. Each result takes the smallest gap that is large enough, or the place
//! of a source that nothing else reads any more; what has no reader left is given back. The buffer
//! is as large as the highest end ever reached.

use super::backend::Backends;
use super::schedule::Scheduled;
use super::tensor::{BackendId, Graph, Id};

/// One buffer while the graph is walked: the gaps in it, by address. The last gap has no end.
#[derive(Debug)]
struct Buffer {
    alignment: u64,
    gaps: Vec<Gap>,
    peak: u64,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    offset: u64,
    size: u64,
}

/// Larger than any buffer.
const ENDLESS: u64 = u64::MAX / 2;

impl Buffer {
    fn new(alignment: u64) -> Buffer {
        Buffer { alignment, gaps: vec![Gap { offset: 0, size: ENDLESS }], peak: 0 }
    }

    fn padded(&self, size: u64) -> u64 {
        size.checked_next_multiple_of(self.alignment).unwrap_or(u64::MAX).min(ENDLESS / 2)
    }

    /// Takes room (`ggml_dyn_tallocr_alloc`): the smallest gap that fits, the later of two alike,
    /// the endless one only where no other fits.
    fn take(&mut self, size: u64) -> u64 {
        let (last, inner) = self.gaps.split_last().map_or((0, &[][..]), |(_, inner)| (inner.len(), inner));
        let mut best = last;
        let mut least = u64::MAX;
        for (index, gap) in inner.iter().enumerate() {
            if gap.size >= size && gap.size <= least {
                (best, least) = (index, gap.size);
            }
        }
        let gap = &mut self.gaps[best];
        let offset = gap.offset;
        gap.offset = gap.offset.saturating_add(size);
        gap.size = gap.size.saturating_sub(size);
        if gap.size == 0 && best != last {
            self.gaps.remove(best);
        }
        self.peak = self.peak.max(offset.saturating_add(size));
        offset
    }

    /// Gives room back (`ggml_dyn_tallocr_free_bytes`): joins it with the first gap that it touches,
    /// and that one with a gap that it touches then.
    ///
    /// Room of no size is given back too, as ggml does: it may become a gap of its own, and stand
    /// between two others that would have joined.
    fn give(&mut self, offset: u64, size: u64) {
        let end = offset.saturating_add(size);
        for index in 0..self.gaps.len() {
            let gap = self.gaps[index];
            if gap.end() == offset {
                self.gaps[index].size = gap.size.saturating_add(size);
                self.join(index);
                return;
            }
            if gap.offset == end {
                self.gaps[index] = Gap { offset, size: gap.size.saturating_add(size) };
                if let Some(before) = index.checked_sub(1) {
                    self.join(before);
                }
                return;
            }
        }
        // Gaps of no size may leave the list out of order, so it is not searched by halves.
        let at = self.gaps.iter().position(|gap| gap.offset >= offset).unwrap_or(self.gaps.len());
        self.gaps.insert(at, Gap { offset, size });
    }

    /// Joins a gap with the one behind it, if they touch.
    fn join(&mut self, index: usize) {
        let Some(&next) = self.gaps.get(index + 1) else { return };
        let gap = &mut self.gaps[index];
        if gap.end() == next.offset {
            gap.size = gap.size.saturating_add(next.size);
            self.gaps.remove(index + 1);
        }
    }
}

impl Gap {
    const fn end(&self) -> u64 {
        self.offset.saturating_add(self.size)
    }
}

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
    offset: u64,
    size: u64,
}

/// Returns the bytes that each back-end's compute buffer needs.
pub(super) fn allocate(graph: &Graph, scheduled: &Scheduled, backends: &Backends) -> Vec<u64> {
    let mut walk = Walk {
        graph,
        backends,
        buffers: backends.iter().map(|backend| Buffer::new(backends.alignment(backend))).collect(),
        states: vec![State::default(); graph.tensors.len()],
    };
    walk.run(scheduled);
    walk.buffers.iter().map(|buffer| buffer.peak).collect()
}

struct Walk<'a> {
    graph: &'a Graph,
    backends: &'a Backends,
    buffers: Vec<Buffer>,
    states: Vec<State>,
}

impl Walk<'_> {
    /// Walks the graph (`ggml_gallocr_alloc_graph_impl`).
    fn run(&mut self, scheduled: &Scheduled) {
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
        for step in &scheduled.steps {
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
        let offset = buffer.take(size);
        let state = &mut self.states[id.index()];
        (state.backend, state.offset, state.size) = (backend, offset, size);
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
            buffer.give(state.offset.saturating_add(size), state.size - size);
        }
        let taken = &mut self.states[id.index()];
        (taken.backend, taken.offset, taken.size) = (state.backend, state.offset, size);
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
        self.buffers[usize::from(state.backend)].give(state.offset, state.size);
        self.states[id.index()].holds = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_gap_that_fits_is_taken_and_gaps_join() {
        let mut buffer = Buffer::new(32);
        let places: Vec<u64> = [64, 32, 96, 32, 40].iter().map(|&size| buffer.take(buffer.padded(size))).collect();
        assert_eq!(places, [0, 64, 96, 192, 224]);
        assert_eq!(buffer.peak, 288, "sizes are rounded up to the alignment");
        buffer.give(0, 64);
        buffer.give(96, 96);
        assert_eq!(buffer.take(64), 0, "the gap of 64 fits better than the one of 96");
        buffer.give(0, 64);
        buffer.give(64, 32);
        assert_eq!(buffer.gaps.len(), 2, "three neighbours are one gap: {:?}", buffer.gaps);
        assert_eq!(buffer.take(192), 0);
        assert_eq!(buffer.peak, 288);
        assert_eq!(buffer.take(buffer.padded(33)), 288, "where nothing fits the buffer grows");
        assert_eq!(buffer.peak, 352);
    }
}
