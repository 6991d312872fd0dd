//! Recurrent states, as every family with some shares them: inputs, what is read, what is written
//! back (`build_rs_inp`, `build_rs` and their like in `llama-graph.cpp`).
//!
//! A block's state lies in its cache as one row a slot. A micro-batch reads the rows of its
//! sequences, and writes the new ones over the first rows.

use super::attention::AttentionInput;
use super::model::{Builder, Cache};
use super::tensor::{I32, Id, Op, Tensor, row_bytes};
use crate::memory::Change;
use crate::memory::cache::snapshots;
use crate::memory::tensor::{Role, Suffix};

/// The inputs that blocks with a state read (`llm_graph_input_rs`).
#[derive(Clone, Copy, Debug)]
pub(super) struct StateInput {
    /// The rows that the states come from.
    pub(super) all: Id,
    /// Those of the micro-batch's sequences.
    main: Id,
    /// Those but the first; before builds gathered all at once, those that only move.
    tail: Id,
}

/// Returns the product of sizes.
pub(super) fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1, |product, &factor| product.saturating_mul(factor))
}

impl Builder<'_> {
    /// Returns the sequences that states are told apart by: all are one where none is kept.
    pub(super) fn sequences(&self) -> u64 {
        if self.plan.structure.memory.any { self.slots() } else { 1 }
    }

    /// Returns the tokens of each sequence of the micro-batch.
    pub(super) fn sequence_tokens(&self) -> u64 {
        self.tokens() / self.sequences().max(1)
    }

    /// Shapes the rows of a micro-batch sequence by sequence.
    pub(super) fn by_sequence(&mut self, x: Id) -> Id {
        let shape = [self.get(x).ne[0], self.sequence_tokens(), self.sequences(), 1];
        self.reshape(x, shape)
    }

    /// Shapes the rows of a micro-batch one after the other.
    pub(super) fn by_token(&mut self, x: Id) -> Id {
        let shape = [self.get(x).ne[0], self.tokens(), 1, 1];
        self.reshape(x, shape)
    }

    /// Returns the states that a sequence keeps, from its last tokens on: more than one where drafts
    /// may have to be taken back (`n_rs_seq`).
    pub(super) fn snapshots(&self) -> u64 {
        snapshots(self.plan.structure, self.plan.settings)
    }

    /// Returns the inputs of blocks with a state (`build_rs_inp`).
    pub(super) fn state_input(&mut self) -> StateInput {
        let slots = self.sequences();
        let all = self.input(I32, [slots, 1, 1, 1]);
        let main = self.view_1d(all, slots, 0);
        let before = if self.plan.build.has(Change::GatheredStates) { slots.min(1) } else { slots };
        let offset = before.saturating_mul(self.get(all).nb[0]);
        let tail = self.view_1d(all, slots - before, offset);
        StateInput { all, main, tail }
    }

    /// Returns the inputs of a model with caches and states (`build_inp_mem_hybrid`). A full and a
    /// windowed cache are not rotated there (`build_inp_mem_hybrid_iswa`).
    pub(super) fn hybrid_input(&mut self) -> (StateInput, AttentionInput) {
        let state = self.state_input();
        let mut attention = self.attention_input();
        if let AttentionInput::Windowed { full, windowed } = &mut attention {
            for cache in [full, windowed] {
                (cache.k_rot, cache.v_rot) = (Id::NONE, Id::NONE);
            }
        }
        (state, attention)
    }

    /// Returns the states of the micro-batch's sequences, gathered (`build_rs`).
    pub(super) fn load_state(&mut self, input: &StateInput, which: Cache) -> Id {
        let (cache, states) = self.cleared_states(which);
        if !self.plan.build.has(Change::GatheredStates) {
            let loaded = self.get_rows(states, input.main);
            self.expand(loaded);
            self.gather_others(input, cache, states);
            return loaded;
        }
        let gathered = self.get_rows(states, input.all);
        let [width, ..] = self.get(states).ne;
        let (slots, stride) = (self.sequences(), self.get(gathered).nb[1]);
        let loaded = self.view_2d(gathered, [width, slots], stride, 0);
        self.expand(loaded);
        self.move_others(cache, gathered, slots);
        loaded
    }

    /// As [`Builder::load_state`] with an operation that picks the states itself: it is given all of
    /// them and the rows to pick.
    pub(super) fn scan_state(
        &mut self,
        input: &StateInput,
        which: Cache,
        scan: impl FnOnce(&mut Self, Id, Id) -> Id,
    ) -> Id {
        let (cache, states) = self.cleared_states(which);
        if !self.plan.build.has(Change::GatheredStates) {
            let scanned = scan(self, states, input.main);
            self.expand(scanned);
            self.gather_others(input, cache, states);
            return scanned;
        }
        let gathered = self.get_rows(states, input.tail);
        let scanned = scan(self, states, input.main);
        self.expand(scanned);
        let before = self.sequences().saturating_sub(1);
        self.move_others(cache, gathered, before);
        scanned
    }

    /// Clears the first state, which sequences begin with, and returns the cache and its rows.
    fn cleared_states(&mut self, which: Cache) -> (Id, Id) {
        let cache = self.cache(self.index(), which);
        let shape = self.get(cache).ne;
        let states = self.reshape(cache, shape);
        let first = self.view_1d(states, shape[0], 0);
        let cleared = self.view_as(Op::Scale, first, &[first]);
        self.expand(cleared);
        (cache, states)
    }

    /// As [`Builder::move_others`] with a gather of their own.
    fn gather_others(&mut self, input: &StateInput, cache: Id, states: Id) {
        let gathered = self.get_rows(states, input.tail);
        self.move_others(cache, gathered, 0);
    }

    /// Moves the states of sequences that are not in the micro-batch. In a reserved graph all are in
    /// it, so nothing is left to move.
    fn move_others(&mut self, cache: Id, gathered: Id, before: u64) {
        let [width, ..] = self.get(cache).ne;
        let (slots, from, to) = (self.sequences(), self.get(gathered).nb[1], self.get(cache).nb[1]);
        let others = self.view_2d(gathered, [width, 0], from, before.saturating_mul(from));
        let place = self.view_2d(cache, [width, 0], to, slots.saturating_mul(to));
        let moved = self.cpy(others, place);
        self.expand(moved);
    }

    /// Writes a view of `width` elements a sequence back as new states, end to end.
    pub(super) fn store_state(&mut self, which: Cache, states: Id, width: u64) {
        let cache = self.cache(self.index(), which);
        let elements = width.saturating_mul(self.sequences());
        let place = self.view_1d(cache, elements, 0);
        let stored = self.cpy(states, place);
        self.expand(stored);
    }

    /// Writes a view of one state a sequence back as snapshot `number`.
    pub(super) fn store_snapshot(&mut self, which: Cache, states: Id, width: u64, number: u64) {
        let cache = self.cache(self.index(), which);
        let (slots, kind, stride) = (self.sequences(), self.get(cache).kind, self.get(cache).nb[1]);
        let offset = product(&[number, self.plan.sizes.slots, row_bytes(kind, width)]);
        let place = self.view_2d(cache, [width, slots], stride, offset);
        let stored = self.cpy(states, place);
        self.expand(stored);
    }

    /// Writes the states that stand behind an operation's result back, `newest` snapshots of `width`
    /// elements a sequence.
    pub(super) fn store_snapshots(&mut self, which: Cache, result: Id, width: u64, offset: u64) {
        let cache = self.cache(self.index(), which);
        let newest = self.snapshots().min(self.sequence_tokens());
        let slots = self.sequences();
        let row = row_bytes(self.get(result).kind, width);
        let states = self.view_3d(result, [width, slots, newest], [row, row.saturating_mul(slots)], offset);
        let Tensor { kind, nb, .. } = *self.get(cache);
        let snapshot = row_bytes(kind, width).saturating_mul(self.plan.sizes.slots);
        let place = self.view_3d(cache, [width, slots, newest], [nb[1], snapshot], 0);
        let stored = self.cpy(states, place);
        self.expand(stored);
    }

    /// Returns a vector that stands in the file without a suffix, or with the usual one.
    pub(super) fn bare(&mut self, role: Role) -> Id {
        let bare = self.tensor(role, Suffix::Other);
        if bare == Id::NONE { self.weight(role) } else { bare }
    }
}
