//! Norms and feed-forward networks, dense and of experts (`build_norm`, `build_ffn`,
//! `build_moe_ffn` in `llama-graph.cpp`).

use super::model::Builder;
use super::ops::{self, Glu};
use super::tensor::{F32, I32, Id, Op, Tensor};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

/// The kinds of norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Norm {
    /// Mean and deviation (`LLM_NORM`).
    Layer,
    /// Root mean square (`LLM_NORM_RMS`).
    Rms,
    /// By groups (`LLM_NORM_GROUP`).
    Group,
}

/// The activations of a feed-forward network, llama.cpp's `llm_ffn_op_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    Silu,
    Gelu,
    Relu,
    ReluSqr,
    Swiglu,
    Geglu,
    SwigluOai,
    Situ,
}

/// How the gate is fed, llama.cpp's `llm_ffn_gate_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GateType {
    /// From what `up` gave.
    Sequential,
    /// From the input, beside `up`.
    Parallel,
}

/// How experts are chosen, llama.cpp's `llama_expert_gating_func_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gating {
    Softmax,
    Sigmoid,
    SoftmaxWeight,
    SqrtSoftplus,
}

impl Gating {
    /// Returns the gating that the header names (`expert_gating_func`), or a default.
    pub(super) fn from_header(number: u64, default: Gating) -> Gating {
        match number {
            1 => Gating::Softmax,
            2 => Gating::Sigmoid,
            3 => Gating::SoftmaxWeight,
            4 => Gating::SqrtSoftplus,
            _ => default,
        }
    }
}

/// The roles of a feed-forward network's matrices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrices {
    pub(super) up: Role,
    pub(super) gate: Role,
    pub(super) down: Role,
}

/// The usual dense network.
pub(super) const DENSE: Matrices = Matrices { up: Role::FfnUp, gate: Role::FfnGate, down: Role::FfnDown };

/// The experts that every token uses.
pub(super) const SHARED: Matrices =
    Matrices { up: Role::FfnUpShexp, gate: Role::FfnGateShexp, down: Role::FfnDownShexp };

/// llama.cpp's `LLAMA_MAX_EXPERTS`.
const MOST_EXPERTS: u64 = 1_024;

/// The usual experts, each token using some.
pub(super) const ROUTED: Matrices = Matrices { up: Role::FfnUpExps, gate: Role::FfnGateExps, down: Role::FfnDownExps };

/// How a network of experts differs from the usual.
#[derive(Clone, Copy, Debug)]
pub(super) struct Experts {
    pub(super) matrices: Matrices,
    pub(super) activation: Activation,
    pub(super) gating: Gating,
    /// The chosen experts' weights are made to sum up to one.
    pub(super) normalises: bool,
    /// The weights are multiplied with a number other than 0 and 1.
    pub(super) scales: bool,
    /// The scores, where the model computes them itself.
    pub(super) scores: Id,
    /// The experts, where the model does not choose them by score.
    pub(super) chosen: Id,
    /// The tokens are weighted before the experts, not their results (llama 4).
    pub(super) weights_first: bool,
}

impl Default for Experts {
    fn default() -> Experts {
        Experts {
            matrices: ROUTED,
            activation: Activation::Silu,
            gating: Gating::Softmax,
            normalises: true,
            scales: false,
            scores: Id::NONE,
            chosen: Id::NONE,
            weights_first: false,
        }
    }
}

impl Builder<'_> {
    /// Norms with a weight, and a bias where there is one (`build_norm`). Either may be absent.
    pub(super) fn norm_with(&mut self, norm: Norm, x: Id, weight: Id, bias: Id) -> Id {
        let mut normed = match norm {
            Norm::Layer => self.unary(Op::Norm, x),
            Norm::Rms => self.unary(Op::RmsNorm, x),
            Norm::Group => {
                let ne = self.get(x).ne;
                let columns = self.reshape(x, [ne[0], 1, ne[1], 1]);
                let normed = self.unary(Op::GroupNorm, columns);
                self.reshape(normed, [ne[0], ne[1], 1, 1])
            }
        };
        if weight != Id::NONE || bias != Id::NONE {
            self.pin_to_block(normed);
        }
        if weight != Id::NONE {
            normed = self.mul(normed, weight);
        }
        self.add_if(normed, bias)
    }

    /// Norms with the weight and bias of a role of the block under way.
    pub(super) fn norm(&mut self, norm: Norm, x: Id, role: Role) -> Id {
        let (weight, bias) = (self.weight(role), self.bias(role));
        self.norm_with(norm, x, weight, bias)
    }

    /// As [`Builder::norm`] where the block has the weight, else returns what was given.
    pub(super) fn norm_if(&mut self, norm: Norm, x: Id, role: Role) -> Id {
        if self.has(role) { self.norm(norm, x, role) } else { x }
    }

    /// As [`Builder::norm_if`], but left to the scheduler where it runs (`build_norm` without a block).
    pub(super) fn loose_norm_if(&mut self, norm: Norm, x: Id, role: Role) -> Id {
        if !self.has(role) {
            return x;
        }
        let (weight, bias) = (self.weight(role), self.bias(role));
        let block = self.block.take();
        let normed = self.norm_with(norm, x, weight, bias);
        self.block = block;
        normed
    }

    /// The norm before the output layer, outside the blocks.
    pub(super) fn output_norm(&mut self, norm: Norm, x: Id) -> Id {
        self.enter(None);
        let weight = self.output_weight(Role::OutputNorm, Suffix::Weight);
        let bias = self.output_weight(Role::OutputNorm, Suffix::Bias);
        self.norm_with(norm, x, weight, bias)
    }

    /// The usual gated network: swiglu, the gate beside `up`.
    pub(super) fn swiglu(&mut self, x: Id) -> Id {
        self.feed_forward(x, DENSE, Activation::Silu, GateType::Parallel)
    }

    /// A dense feed-forward network (`build_ffn`).
    pub(super) fn feed_forward(&mut self, x: Id, with: Matrices, activation: Activation, fed: GateType) -> Id {
        let up = if self.has(with.up) { self.feed_part(with.up, x) } else { x };
        let gated = self.has(with.gate);
        let beside = gated && fed == GateType::Parallel;
        let gate = match fed {
            _ if !gated => up,
            GateType::Sequential => self.feed_part(with.gate, up),
            GateType::Parallel => self.feed_part(with.gate, x),
        };
        let mut joined = beside;
        let activated = match activation {
            Activation::Silu if beside && self.kind().clamps_shared => self.limited(gate, up, false),
            Activation::Silu | Activation::Gelu | Activation::Relu if beside => self.glu(Glu::Plain, gate, up),
            Activation::SwigluOai => self.glu(Glu::SwigluOai, gate, up),
            Activation::Silu => {
                joined = false;
                self.unary(Op::Silu, gate)
            }
            Activation::Gelu => {
                joined = false;
                let active = self.unary(Op::Unary, gate);
                let scales = self.tensor(Role::FfnAct, Suffix::Scale);
                if scales == Id::NONE { active } else { self.binary(Op::Div, active, scales) }
            }
            Activation::Relu => {
                joined = false;
                self.unary(Op::Unary, gate)
            }
            Activation::ReluSqr => {
                joined = false;
                let active = self.unary(Op::Unary, gate);
                self.unary(Op::Sqr, active)
            }
            Activation::Swiglu | Activation::Geglu | Activation::Situ => {
                joined = false;
                self.glu(Glu::Plain, gate, Id::NONE)
            }
        };
        let active = if beside && !joined { self.mul(activated, up) } else { activated };
        if self.has(with.down) { self.feed_part(with.down, active) } else { active }
    }

    /// Multiplies with a matrix and adds bias, then scale: the other order than attention's.
    fn feed_part(&mut self, role: Role, x: Id) -> Id {
        let weight = self.weight(role);
        let mut product = self.mul_mat(weight, x);
        let bias = self.bias(role);
        product = self.add_if(product, bias);
        let scale = self.scale_of(role);
        if scale == Id::NONE { product } else { self.mul(product, scale) }
    }

    /// A swiglu whose halves are limited.
    fn limited(&mut self, gate: Id, up: Id, experts: bool) -> Id {
        if crate::memory::architecture::fuses_limits(self.plan.structure, experts) {
            return self.glu(Glu::SwigluClamp, gate, up);
        }
        let up = self.clamp(up);
        let active = self.unary(Op::Silu, gate);
        let active = self.clamp(active);
        self.mul(active, up)
    }

    /// A network of experts with those that every token uses, where the block has some, and their
    /// gate, where they have one.
    pub(super) fn routed_and_shared(&mut self, x: Id, how: Experts) -> Id {
        let routed = self.experts(x, how);
        if !self.has(Role::FfnUpShexp) {
            return routed;
        }
        let shared = self.shared_experts(x, how.activation);
        self.add(routed, shared)
    }

    /// The experts that every token uses, with their gate where they have one.
    pub(super) fn shared_experts(&mut self, x: Id, activation: Activation) -> Id {
        let shared = self.feed_forward(x, SHARED, activation, GateType::Parallel);
        if !self.has(Role::FfnGateInpShexp) {
            return shared;
        }
        // Qwen 2 divides a silu by its input to get a sigmoid.
        let logits = self.project(Role::FfnGateInpShexp, x);
        let open = self.unary(Op::Silu, logits);
        let open = self.binary(Op::Div, open, logits);
        self.mul(shared, open)
    }

    /// A network of experts (`build_moe_ffn`).
    pub(super) fn experts(&mut self, x: Id, how: Experts) -> Id {
        let Tensor { ne, .. } = *self.get(x);
        let (width, tokens) = (ne[0], ne[1]);
        let down = self.weight(how.matrices.down);
        let count = if down == Id::NONE { 0 } else { self.get(down).ne[2] };
        let used = u64::from(self.kind().experts_used).min(count).min(MOST_EXPERTS);
        let (mut weights, chosen) = self.choose(x, how, [count, used], tokens);
        if how.gating == Gating::SoftmaxWeight {
            weights = self.reshape(weights, [used, tokens, 1, 1]);
            weights = self.soft_max(weights, Id::NONE, Id::NONE);
            weights = self.reshape(weights, [1, used, tokens, 1]);
        }
        if how.normalises {
            weights = self.reshape(weights, [used, tokens, 1, 1]);
            let sum = self.sum_rows(Op::SumRows, weights);
            let sum = self.clamp(sum);
            weights = self.binary(Op::Div, weights, sum);
            weights = self.reshape(weights, [1, used, tokens, 1]);
        }
        if how.scales {
            weights = self.scale(weights);
        }
        self.expand(weights);
        let mut x = self.reshape(x, [width, 1, tokens, 1]);
        if how.weights_first {
            x = self.repeat(x, [width, used, tokens, 1]);
            x = self.mul(x, weights);
        }
        let active = self.expert_activations(x, chosen, how);
        let mut results = self.expert_part(how.matrices.down, active, chosen);
        if !how.weights_first {
            results = self.mul(results, weights);
        }
        self.sum_experts(results, used)
    }

    /// Adds up the results of a token's experts.
    pub(super) fn sum_experts(&mut self, results: Id, used: u64) -> Id {
        self.expand(results);
        let Tensor { ne, nb, .. } = *self.get(results);
        let mut views = Vec::new();
        for expert in 0..used {
            let view = self.view_2d(results, [ne[0], ne[2]], nb[2], expert.saturating_mul(nb[1]));
            self.expand(view);
            views.push(view);
        }
        let mut views = views.into_iter();
        let Some(first) = views.next() else { return results };
        if used == 1 {
            return self.cont(first);
        }
        let mut sum = first;
        for view in views {
            sum = self.add(sum, view);
            self.expand(sum);
        }
        sum
    }

    /// Chooses `used` of `count` experts for each token: returns their weights and their numbers.
    fn choose(&mut self, x: Id, how: Experts, [count, used]: [u64; 2], tokens: u64) -> (Id, Id) {
        let mut logits = how.scores;
        if logits == Id::NONE {
            logits = self.project(Role::FfnGateInp, x);
        }
        let bias = self.bias(Role::FfnGateInp);
        logits = self.add_if(logits, bias);
        let probabilities = match how.gating {
            Gating::Softmax => self.soft_max(logits, Id::NONE, Id::NONE),
            Gating::Sigmoid => self.unary(Op::Sigmoid, logits),
            Gating::SoftmaxWeight => logits,
            Gating::SqrtSoftplus => {
                let active = self.unary(Op::Softplus, logits);
                self.unary(Op::Sqrt, active)
            }
        };
        let mut ranks = probabilities;
        // Only the choice is biased, not the weights (`exp_probs_b`). Hunyuan V3 stores it without a
        // suffix.
        let bias = self.bias(Role::ExpProbsB);
        let bias = if bias == Id::NONE { self.tensor(Role::ExpProbsB, Suffix::Other) } else { bias };
        ranks = self.add_if(ranks, bias);
        match self.architecture() {
            "llama4" => ranks = logits,
            "grovemoe" => ranks = self.unary(Op::Sigmoid, logits),
            _ => {}
        }
        let experts = self.get(ranks).ne[0];
        let groups = self.number(Hyper::ExpertGroups);
        if groups > 1 && tokens > 0 {
            ranks = self.best_groups(ranks, groups, experts, tokens);
        }
        let mut chosen = match how.chosen.get() {
            Some(chosen) => chosen,
            None => self.argsort_top_k(ranks, used),
        };
        let all = self.get(probabilities).ne[0];
        // Grove's smaller experts belong to groups of the router's.
        if self.architecture() == "grovemoe" && count != experts {
            chosen = self.cast(chosen, F32);
            chosen = self.scale(chosen);
            chosen = self.cast(chosen, I32);
        }
        let column = self.reshape(probabilities, [1, all, tokens, 1]);
        (self.get_rows(column, chosen), chosen)
    }

    /// Masks all but the best groups of experts out (DeepSeek V3).
    fn best_groups(&mut self, ranks: Id, groups: u64, experts: u64, tokens: u64) -> Id {
        let each = experts / groups;
        let grouped = self.reshape(ranks, [each, groups, tokens, 1]);
        let best = self.argsort_top_k(grouped, 2.min(each));
        let column = self.reshape(grouped, [1, each, groups, tokens]);
        let scores = self.get_rows(column, best);
        let ne = self.get(scores).ne;
        let scores = self.reshape(scores, [ne[1], ne[2], ne[3], 1]);
        let scores = self.sum_rows(Op::SumRows, scores);
        let ne = self.get(scores).ne;
        let scores = self.reshape(scores, [ne[1], ne[2], 1, 1]);
        let used = self.number(Hyper::ExpertGroupsUsed);
        let chosen = self.argsort_top_k(scores, used);
        let kept = self.get_rows(grouped, chosen);
        let masked = self.unary(Op::Fill, grouped);
        let masked = self.set_rows(masked, kept, chosen);
        self.reshape(masked, [experts, tokens, 1, 1])
    }

    /// Returns what the experts' gates let through.
    fn expert_activations(&mut self, x: Id, chosen: Id, how: Experts) -> Id {
        let Experts { matrices, activation, .. } = how;
        let fused = self.has(Role::FfnGateUpExps);
        let apart = self.has(matrices.gate);
        let (gate, up) = if fused {
            let both = self.expert_part(Role::FfnGateUpExps, x, chosen);
            let Tensor { ne, nb, .. } = *self.get(both);
            let half = ne[0] / 2;
            let mut part = |at: u64| self.view_3d(both, [half, ne[1], ne[2]], [nb[1], nb[2]], at);
            (part(0), part(half.saturating_mul(nb[0])))
        } else {
            let up = self.expert_part(matrices.up, x, chosen);
            let gate = if apart { self.expert_part(matrices.gate, x, chosen) } else { up };
            (gate, up)
        };
        let gated = fused || apart;
        match activation {
            Activation::Silu if apart && self.kind().clamps_experts => self.limited(gate, up, true),
            Activation::Silu | Activation::Gelu | Activation::Relu if gated => self.glu(Glu::Plain, gate, up),
            Activation::SwigluOai => self.glu(Glu::SwigluOai, gate, up),
            Activation::Situ => self.situ(gate, up),
            Activation::Silu => self.unary(Op::Silu, gate),
            Activation::ReluSqr => {
                let active = self.unary(Op::Unary, gate);
                self.unary(Op::Sqr, active)
            }
            _ => self.unary(Op::Unary, gate),
        }
    }

    /// `situ(gate, up)`: both squeezed by a tanh, the gate by a sigmoid too.
    pub(super) fn situ(&mut self, gate: Id, mut up: Id) -> Id {
        let squeezed = self.scale(gate);
        let squeezed = self.unary(Op::Unary, squeezed);
        let squeezed = self.scale(squeezed);
        let open = self.unary(Op::Sigmoid, gate);
        let active = self.mul(squeezed, open);
        if self.float(Hyper::SituLinearBeta) > 0.0 {
            up = self.scale(up);
            up = self.unary(Op::Unary, up);
            up = self.scale(up);
        }
        self.mul(active, up)
    }

    /// Multiplies with the matrices of the chosen experts (`build_lora_mm_id`), with scale and bias.
    pub(super) fn expert_part(&mut self, role: Role, x: Id, chosen: Id) -> Id {
        let weight = self.weight(role);
        let mut product = self.mul_mat_id(weight, x, chosen);
        if role == Role::FfnDownExps && self.architecture() == "mistral4" {
            self.get_mut(product).detail = ops::EXACT_INPUT;
        }
        // A merged matrix has the scale of the experts' `up`.
        let scale = self.scale_of(if role == Role::FfnGateUpExps { Role::FfnUpExps } else { role });
        if scale != Id::NONE {
            let experts = self.get(scale).ne[0];
            let tokens = self.get(x).ne[2];
            let scale = self.reshape(scale, [1, experts, 1, 1]);
            let scale = self.repeat(scale, [1, experts, tokens, 1]);
            let scale = self.get_rows(scale, chosen);
            product = self.mul(product, scale);
        }
        let bias = self.bias(role);
        if bias == Id::NONE { product } else { self.add_id(product, bias, chosen) }
    }
}
