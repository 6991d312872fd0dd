//! Kimi Linear and Kimi K3: blocks of Kimi's delta attention, some of latent attention instead, none
//! with rope.

use crate::memory::graph::attention::{AttentionInput, Extras};
use crate::memory::graph::feed_forward::{Activation, DENSE, Experts, Gating, Matrices, Norm, SHARED};
use crate::memory::graph::kda::Decay;
use crate::memory::graph::model::Builder;
use crate::memory::graph::recurrent::StateInput;
use crate::memory::graph::tensor::{Id, Op, Tensor};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

use super::Family;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "kimi-linear" => linear,
        "kimi-k3" => k3,
        _ => return None,
    })
}

/// The inputs of a model with states and a cache of latent rows (`build_inp_mem_hybrid_k`). llama.cpp
/// loads no other Kimi: the header must name the lengths of MLA.
fn inputs(g: &mut Builder) -> (StateInput, AttentionInput) {
    (g.state_input(), g.keys_input())
}

/// Kimi Linear.
fn linear(g: &mut Builder) {
    let mut x = g.embeddings();
    let (state, input) = inputs(g);
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        g.expand(normed);
        let mixed = if g.kind().recurrent {
            g.kda(&state, normed, Decay::Softplus)
        } else {
            latent(g, &input, normed, Extras::default())
        };
        let [mixed, residual] = g.keep_outputs(ids, [mixed, x]);
        let mixed = g.add(mixed, residual);
        let normed = g.norm(Norm::Rms, mixed, Role::FfnNorm);
        let fed = if g.has(Role::FfnGateInp) {
            let how = Experts { normalises: true, ..by_header(g) };
            g.routed_and_shared(normed, how)
        } else {
            g.swiglu(normed)
        };
        x = g.add(fed, mixed);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    g.finish(logits);
}

/// Kimi K3: residuals of many blocks before are mixed into each part of a block, and experts work at
/// a smaller width.
fn k3(g: &mut Builder) {
    let mut x = g.embeddings();
    let (state, input) = inputs(g);
    let ids = g.output_ids();
    let every = g.number(Hyper::AttnResBlockSize);
    let decay = if g.float(Hyper::KdaGateLowerBound) == 0.0 { Decay::Softplus } else { Decay::Bounded };
    let mut bank = Bank(Id::NONE);
    for &block in g.blocks() {
        g.enter(Some(block));
        let score = g.weight(Role::AttnResScore);
        let mixed = bank.mix(g, x, score);
        let banks = u64::from(block).checked_rem(every) == Some(0);
        if banks {
            bank.push(g, x);
        }
        let normed = g.norm(Norm::Rms, mixed, Role::AttnNorm);
        g.expand(normed);
        let attended = if g.kind().recurrent { g.kda(&state, normed, decay) } else { gated_latent(g, &input, normed) };
        let residual = if banks { attended } else { g.add(x, attended) };
        let score = g.weight(Role::FfnResScore);
        let mixed = bank.mix(g, residual, score);
        let normed = g.norm(Norm::Rms, mixed, Role::FfnNorm);
        let fed = if g.has(Role::FfnGateInp) { latent_experts(g, normed) } else { network(g, DENSE, normed) };
        x = g.add(residual, fed);
    }
    g.enter(None);
    let score = g.output_weight(Role::OutputResScore, Suffix::Weight);
    let mixed = bank.mix(g, x, score);
    let kept = g.get_rows(mixed, ids);
    let normed = g.output_norm(Norm::Rms, kept);
    let logits = g.logits(normed);
    g.finish(logits);
}

/// Latent attention without rope.
fn latent(g: &mut Builder, input: &AttentionInput, x: Id, extras: Extras) -> Id {
    let q = g.latent_queries(x);
    let (row, apart) = g.latent_row(x, Id::NONE, Id::NONE);
    let qkv = g.absorbed(q, row, apart, Id::NONE);
    let v_mla = g.weight(Role::AttnVB);
    g.attend(input, qkv, Extras { v_mla, ..extras })
}

/// Latent attention with a gate before its output projection.
fn gated_latent(g: &mut Builder, input: &AttentionInput, x: Id) -> Id {
    let mut attended = latent(g, input, x, Extras::no_output());
    if g.has(Role::AttnGate) {
        let gate = g.project(Role::AttnGate, x);
        let gate = g.unary(Op::Sigmoid, gate);
        attended = g.mul(attended, gate);
    }
    g.project(Role::AttnOutput, attended)
}

/// How experts are chosen, as the header says.
fn by_header(g: &Builder) -> Experts {
    let scale = g.float(Hyper::ExpertWeightsScale);
    Experts {
        gating: Gating::from_header(g.number(Hyper::ExpertGatingFunc), Gating::Sigmoid),
        normalises: g.number(Hyper::ExpertWeightsNorm) != 0,
        scales: scale != 0.0 && (scale - 1.0).abs() > f32::EPSILON,

        ..Experts::default()
    }
}

/// A network whose gate is a situ.
fn network(g: &mut Builder, with: Matrices, x: Id) -> Id {
    let gate = g.project(with.gate, x);
    let up = g.project(with.up, x);
    let active = g.situ(gate, up);
    g.project(with.down, active)
}

/// Experts at a smaller width, beside those that every token uses at the full one.
fn latent_experts(g: &mut Builder, x: Id) -> Id {
    let narrow = if g.has(Role::FfnRoutedDown) { g.project(Role::FfnRoutedDown, x) } else { x };
    let scores = g.project(Role::FfnGateInp, x);
    let how = Experts { activation: Activation::Situ, scores, ..by_header(g) };
    let routed = g.experts(narrow, how);
    let mut routed = g.norm_if(Norm::Rms, routed, Role::FfnRoutedNorm);
    if g.has(Role::FfnRoutedUp) {
        routed = g.project(Role::FfnRoutedUp, routed);
    }
    if !g.has(Role::FfnGateShexp) {
        return routed;
    }
    let shared = network(g, SHARED, x);
    g.add(routed, shared)
}

/// The residuals that are kept from block to block (`res_push`), absent before the first.
struct Bank(Id);

impl Bank {
    fn push(&mut self, g: &mut Builder, x: Id) {
        let (width, tokens) = (g.embedding(), g.tokens());
        let kept = g.reshape(x, [width, 1, tokens, 1]);
        self.0 = if self.0 == Id::NONE { kept } else { g.concat(self.0, kept, 1) };
    }

    /// Mixes a residual with those that are kept, by scores (`res_mix`).
    fn mix(&self, g: &mut Builder, x: Id, score: Id) -> Id {
        if self.0 == Id::NONE {
            return x;
        }
        let [_, count, tokens, _] = g.get(self.0).ne;
        let [of_kept, of_x] = [self.0, x].map(|from| {
            let normed = g.unary(Op::RmsNorm, from);
            let weighted = g.mul(normed, score);
            g.sum_rows(Op::SumRows, weighted)
        });
        let of_kept = g.reshape(of_kept, [count, tokens, 1, 1]);
        let scores = g.concat(of_kept, of_x, 0);
        let shares = g.soft_max(scores, Id::NONE, Id::NONE);
        let Tensor { nb, .. } = *g.get(shares);
        let [of_kept, of_x] = [(count, 0), (1, count.saturating_mul(nb[0]))].map(|(rows, at)| {
            let part = g.view_2d(shares, [rows, tokens], nb[1], at);
            g.cont(part)
        });
        let width = g.embedding();
        let mixed = g.other(Op::Dsv4HcPre, [width, tokens, 1, 1], &[self.0, of_kept]);
        let own = g.mul(x, of_x);
        g.add(mixed, own)
    }
}
