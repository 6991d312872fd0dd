//! The decoder that most dense models share: llama's blocks, each attention and a network behind
//! norms, with what differs between architectures as values.
//!
//! What the file shows by itself is not described: biases, gates, scales, experts, rope factors,
//! norms of heads, learned positions.

use crate::memory::architecture;
use crate::memory::graph::attention::{AttentionInput, Extras, Qkv};
use crate::memory::graph::feed_forward::{Activation, DENSE, Experts, GateType, Matrices, Norm, SHARED};
use crate::memory::graph::model::Builder;
use crate::memory::graph::tensor::{F32, Id, Op};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

/// How a decoder is built.
#[derive(Clone, Copy)]
pub(super) struct Decoder {
    /// The norm of activations.
    pub(super) norm: Norm,
    /// The norm of queries and keys, where the file has its weights.
    pub(super) head_norm: Norm,
    /// Whether queries and keys are normed after rope has turned them, not before.
    pub(super) turns_first: bool,
    /// Whether rope turns the queries and keys of the block under way.
    pub(super) turns: fn(&Builder) -> bool,
    /// Whether queries are scaled by themselves, not with the products.
    pub(super) scales_queries: bool,
    /// What the network does between its matrices.
    pub(super) activation: Activation,
    /// The first half of a block: returns what attention gives.
    pub(super) attention: fn(&Decoder, &mut Builder, &Inputs, Parts) -> Id,
    /// The second half: the network, and the sum of everything.
    pub(super) join: fn(&Decoder, &mut Builder, Parts) -> Id,
}

/// Llama and most of what came after it.
pub(super) const LLAMA: Decoder = Decoder {
    norm: Norm::Rms,
    head_norm: Norm::Rms,
    turns_first: false,
    turns: |_| true,
    scales_queries: false,
    activation: Activation::Silu,
    attention: |how, g, inputs, parts| how.attend(g, inputs, parts.normed),
    join: Decoder::in_turn,
};

/// The manner of GPT-2 and what came before llama: layer norms, and gelu without a gate. Positions
/// by rope.
pub(super) const GPT: Decoder =
    Decoder { norm: Norm::Layer, head_norm: Norm::Layer, activation: Activation::Gelu, ..LLAMA };

/// The inputs that every block reads.
#[derive(Clone, Copy)]
pub(super) struct Inputs {
    attention: AttentionInput,
    positions: Id,
    /// What queries are multiplied with, by position (mistral 3), absent elsewhere.
    temperature: Id,
}

/// What the halves of a block start from.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    /// What the block was given.
    pub(super) x: Id,
    /// The same, with the rows that the last block leaves out.
    pub(super) whole: Id,
    /// The same, normed.
    pub(super) normed: Id,
    /// What the first block was given.
    pub(super) first: Id,
    /// What attention gave; absent before it, and in blocks without attention.
    pub(super) attended: Id,
}

impl Decoder {
    /// Builds the whole model.
    pub(super) fn build(&self, g: &mut Builder) {
        let x = g.embeddings();
        let x = self.blocks(g, x);
        let logits = self.logits(g, x);
        g.finish(logits);
    }

    /// Builds the blocks, the last of which keeps only the rows that are put out.
    pub(super) fn blocks(&self, g: &mut Builder, x: Id) -> Id {
        let ids = g.output_ids();
        self.blocks_with(g, x, ids)
    }

    /// As [`Decoder::blocks`] with the numbers of the rows; without them all are kept.
    pub(super) fn blocks_with(&self, g: &mut Builder, x: Id, ids: Id) -> Id {
        let inputs = Inputs::new(g);
        let mut x = inputs.place(g, x);
        let first = x;
        for &block in g.blocks() {
            g.enter(Some(block));
            if g.kind().deepstack {
                let more = g.deepstack();
                x = g.add(x, more);
            }
            let normed = g.norm(self.norm, x, Role::AttnNorm);
            let parts = Parts { x, whole: x, normed, first, attended: Id::NONE };
            let attended = (self.attention)(self, g, &inputs, parts);
            let [kept, normed, first, attended] = g.keep_outputs(ids, [x, normed, first, attended]);
            x = (self.join)(self, g, Parts { x: kept, whole: x, normed, first, attended });
        }
        x
    }

    /// Builds the last norm and the logits.
    pub(super) fn logits(&self, g: &mut Builder, x: Id) -> Id {
        let normed = g.output_norm(self.norm, x);
        let logits = g.logits(normed);
        if architecture::scales_logits(g.plan.structure) { g.scale(logits) } else { logits }
    }

    /// Attention; where the file has a gate or a norm for its result, these come before the last
    /// projection (spark 2.5, muse-glimmer and hrm; bitnet).
    pub(super) fn attend(&self, g: &mut Builder, inputs: &Inputs, normed: Id) -> Id {
        let qkv = g.qkv(normed);
        let qkv = self.turn(g, inputs, qkv);
        if !g.has(Role::AttnGate) && !g.has(Role::AttnSubNorm) {
            return g.attend(&inputs.attention, qkv, Extras::default());
        }
        let mut attended = g.attend(&inputs.attention, qkv, Extras::no_output());
        if g.has(Role::AttnGate) {
            let gate = g.project(Role::AttnGate, normed);
            let gate = g.unary(Op::Sigmoid, gate);
            attended = open(g, attended, gate);
        }
        attended = g.norm_if(self.norm, attended, Role::AttnSubNorm);
        g.project_biased(Role::AttnOutput, attended)
    }

    /// Norms queries and keys and turns them by their positions.
    fn turn(&self, g: &mut Builder, inputs: &Inputs, Qkv { q, k, v }: Qkv) -> Qkv {
        let (norms, turns) = (g.has(Role::AttnQNorm), (self.turns)(g));
        let factors = g.rope_factors();
        let [mut q, k] = [(q, Role::AttnQNorm), (k, Role::AttnKNorm)].map(|(mut x, norm)| {
            if norms && !self.turns_first {
                x = g.norm(self.head_norm, x, norm);
            }
            if turns {
                x = g.rope(x, inputs.positions, factors);
            }
            if norms && self.turns_first {
                x = g.norm(self.head_norm, x, norm);
            }
            x
        });
        if self.scales_queries {
            q = g.scale(q);
        }
        if inputs.temperature != Id::NONE {
            q = g.mul(q, inputs.temperature);
        }
        Qkv { q, k, v }
    }

    /// The usual second half: residual, norm, network, residual.
    pub(super) fn in_turn(&self, g: &mut Builder, Parts { x, mut attended, .. }: Parts) -> Id {
        let scales = architecture::scales_residuals(g.plan.structure);
        if scales {
            attended = g.scale(attended);
        }
        let sum = g.add(attended, x);
        let normed = g.norm(self.norm, sum, Role::FfnNorm);
        let mut fed = self.network(g, normed);
        if scales {
            fed = g.scale(fed);
        }
        g.add(fed, sum)
    }

    /// The network, of experts where the block has some; where the file has a norm for what goes
    /// into the last matrix, with that (bitnet).
    pub(super) fn network(&self, g: &mut Builder, normed: Id) -> Id {
        if g.has(Role::FfnGateInp) {
            let scale = g.float(Hyper::ExpertWeightsScale);
            let scales = scale != 0.0 && (scale - 1.0).abs() > f32::EPSILON;
            let fed = g.experts(normed, Experts { scales, ..Experts::default() });
            if !g.has(Role::FfnUpShexp) {
                return fed;
            }
            let shared = g.feed_forward(normed, SHARED, self.activation, GateType::Parallel);
            return g.add(fed, shared);
        }
        if !g.has(Role::FfnSubNorm) {
            return g.feed_forward(normed, DENSE, self.activation, GateType::Parallel);
        }
        // No file has a matrix of the role `Other`: the network ends before `down`.
        let open_ended = Matrices { down: Role::Other, ..DENSE };
        let active = g.feed_forward(normed, open_ended, self.activation, GateType::Parallel);
        let active = g.norm(self.norm, active, Role::FfnSubNorm);
        g.project(Role::FfnDown, active)
    }
}

impl Inputs {
    /// Returns the inputs of a model: without a memory, attention looks at the batch alone. So does
    /// llama's embedding model, although it has a cache.
    pub(super) fn new(g: &mut Builder) -> Inputs {
        let alone = !g.plan.structure.memory.any || g.architecture() == "llama-embed";
        let attention = if alone { g.batch_input() } else { g.attention_input() };
        let positions = g.positions();
        let tokens = g.tokens();
        let tempered = g.float(Hyper::AttentionTemperatureScale) != 0.0;
        let temperature = if tempered { g.input(F32, [1, 1, tokens, 1]) } else { Id::NONE };
        Inputs { attention, positions, temperature }
    }

    /// Norms the embeddings (bloom) and adds learned positions (gpt2, starcoder, mpt), where the
    /// file has tensors for it.
    fn place(&self, g: &mut Builder, mut x: Id) -> Id {
        if g.has_global(Role::TokenEmbdNorm) {
            // With the first block, not with the inputs: it is pinned there.
            g.enter(Some(0));
            let weight = g.first_weight(Role::TokenEmbdNorm, Suffix::Weight);
            let bias = g.first_weight(Role::TokenEmbdNorm, Suffix::Bias);
            x = g.norm_with(Norm::Layer, x, weight, bias);
        }
        if g.has_global(Role::PositionEmbd) {
            let table = g.input_weight(Role::PositionEmbd);
            let rows = g.get_rows(table, self.positions);
            x = g.add(x, rows);
        }
        x
    }
}

/// Opens a gate for each element that attention gave, or one for each head.
fn open(g: &mut Builder, attended: Id, gate: Id) -> Id {
    let (flat, gates) = (g.get(attended).ne, g.get(gate).ne[0]);
    if gates == flat[0] || gates == 0 {
        return g.mul(attended, gate);
    }
    let heads = g.reshape(attended, [flat[0] / gates, gates, flat[1], 1]);
    let gate = g.reshape(gate, [1, gates, flat[1], 1]);
    let opened = g.mul(heads, gate);
    g.reshape(opened, [flat[0], flat[1], 1, 1])
}
