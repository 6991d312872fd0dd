//! LFM 2: blocks of a short gated convolution, some of attention instead.

use crate::memory::graph::attention::{Extras, Qkv};
use crate::memory::graph::feed_forward::{Experts, Gating, Norm};
use crate::memory::graph::model::{Builder, Cache};
use crate::memory::graph::recurrent::StateInput;
use crate::memory::graph::tensor::{Id, Tensor};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

use super::Family;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    matches!(architecture, "lfm2" | "lfm2moe").then_some(lfm2 as Family)
}

/// LFM 2, dense or with experts from some block on. The norm before the output layer is called
/// `token_embd_norm`.
fn lfm2(g: &mut Builder) {
    let mut x = g.embeddings();
    g.expand(x);
    let (state, input) = g.hybrid_input();
    let positions = g.positions();
    let ids = g.output_ids();
    let gating = Gating::from_header(g.number(Hyper::ExpertGatingFunc), Gating::Softmax);
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let mixed = if g.kind().recurrent {
            short_convolution(g, &state, normed)
        } else {
            let Qkv { q, k, v } = g.qkv(normed);
            let q = g.norm(Norm::Rms, q, Role::AttnQNorm);
            let k = g.norm(Norm::Rms, k, Role::AttnKNorm);
            let q = g.rope(q, positions, Id::NONE);
            let k = g.rope(k, positions, Id::NONE);
            g.attend(&input, Qkv { q, k, v }, Extras::default())
        };
        let [mixed, residual] = g.keep_outputs(ids, [mixed, x]);
        let mixed = g.add(residual, mixed);
        let normed = g.norm(Norm::Rms, mixed, Role::FfnNorm);
        let fed = if g.has(Role::FfnGateInp) {
            g.experts(normed, Experts { gating, ..Experts::default() })
        } else {
            g.swiglu(normed)
        };
        x = g.add(mixed, fed);
    }
    g.enter(None);
    let weight = g.output_weight(Role::TokenEmbdNorm, Suffix::Weight);
    let normed = g.norm_with(Norm::Rms, x, weight, Id::NONE);
    if g.plan.settings.embeddings {
        // The only language models without logits then.
        g.finish_embedding(normed);
        return;
    }
    let logits = g.logits(normed);
    g.finish(logits);
}

/// A gated convolution over the last tokens, which are all that the block remembers.
fn short_convolution(g: &mut Builder, input: &StateInput, x: Id) -> Id {
    let taps = g.number(Hyper::ShortconvLCache).saturating_sub(1);
    let (tokens, slots, width) = (g.sequence_tokens(), g.sequences(), g.embedding());
    let x = g.by_sequence(x);
    let parts = g.project(Role::ShortconvInProj, x);
    let Tensor { ne, nb, .. } = *g.get(parts);
    let third = ne[0] / 3;
    let [b, c, x] = [0, 1, 2].map(|part: u64| {
        let at = part.saturating_mul(third).saturating_mul(nb[0]);
        g.view_3d(parts, [third, ne[1], ne[2]], [nb[1], nb[2]], at)
    });
    let gated = g.mul(b, x);
    let turned = g.transpose(gated);
    let before = g.load_state(input, Cache::R);
    let before = g.reshape(before, [taps, width, slots, 1]);
    // A token's window ends with it, or has it in the middle where it sees tokens after it. In the
    // latter nothing can be taken back.
    let (window, snapshots) = if g.plan.structure.memory.causal {
        (g.concat(before, turned, 0), g.snapshots())
    } else {
        (centered_window(g, before, turned), 1)
    };
    for number in 0..snapshots.min(tokens) {
        let last = g.last_taps(window, taps, number);
        g.store_snapshot(Cache::R, last, taps.saturating_mul(width), number);
    }
    let kernel = g.weight(Role::ShortconvConv);
    let convolved = g.ssm_conv(window, kernel);
    let gated = g.mul(c, convolved);
    let out = g.project(Role::ShortconvOutProj, gated);
    g.by_token(out)
}

/// Puts half of the remembered tokens before the others, and as many empty ones behind.
fn centered_window(g: &mut Builder, before: Id, turned: Id) -> Id {
    let Tensor { ne, nb, .. } = *g.get(before);
    let half = ne[0] / 2;
    let at = ne[0].saturating_sub(half).saturating_mul(nb[0]);
    let left = g.view_3d(before, [half, ne[1], ne[2]], [nb[1], nb[2]], at);
    let left = g.cont(left);
    let joined = g.concat(left, turned, 0);
    g.pad(joined, [half, 0, 0, 0])
}
