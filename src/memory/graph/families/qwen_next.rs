//! Qwen3-Next and Qwen 3.5: three blocks of a gated delta net, then one of gated attention.

use crate::memory::graph::attention::{AttentionInput, Extras, Qkv};
use crate::memory::graph::delta_net::Delta;
use crate::memory::graph::feed_forward::{Activation, Experts, GateType, Norm, SHARED};
use crate::memory::graph::mamba::Mamba;
use crate::memory::graph::model::{Builder, Cache};
use crate::memory::graph::recurrent::StateInput;
use crate::memory::graph::tensor::{F32, Id, Op, Tensor};
use crate::memory::tensor::{Role, Suffix};

use super::Family;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "qwen3next" => qwen3next,
        "qwen35" | "qwen35moe" => qwen35,
        _ => return None,
    })
}

/// Qwen3-Next: older files hold what goes into the delta net in one matrix, key head by key head.
fn qwen3next(g: &mut Builder) {
    decoder(g, gated_attention, next_linear);
}

/// Qwen 3.5: as before with beta and alpha apart.
fn qwen35(g: &mut Builder) {
    decoder(g, gated_attention, linear);
}

/// One of a family's two kinds of block, on its inputs and a normed activation.
type Mixer<Input> = fn(&mut Builder, &Input, Id) -> Id;

/// Attention's inputs with the positions.
pub(super) struct Attended {
    pub(super) input: AttentionInput,
    pub(super) positions: Id,
}

fn decoder(g: &mut Builder, attention: Mixer<Attended>, linear: Mixer<StateInput>) {
    let mut x = g.embeddings();
    let (state, input) = g.hybrid_input();
    let attended = Attended { input, positions: g.positions() };
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        g.expand(normed);
        let mixed = if g.kind().recurrent { linear(g, &state, normed) } else { attention(g, &attended, normed) };
        let mixed = g.add(mixed, x);
        let normed = g.norm(Norm::Rms, mixed, Role::PostAttentionNorm);
        let fed = network(g, normed);
        x = g.add(fed, mixed);
    }
    // Drafts continue from the rows of all tokens, so rows are picked after the norm.
    let normed = g.output_norm(Norm::Rms, x);
    g.set_output(normed);
    let kept = g.get_rows(normed, ids);
    let embedding = embedding(g, kept);
    g.set_embedding(embedding);
    let logits = g.vocabulary(kept);
    g.finish(logits);
}

/// Returns the embedding that is put out: the rows projected, where the file has a matrix for it.
fn embedding(g: &mut Builder, kept: Id) -> Id {
    let matrix = g.output_weight(Role::ClsOutput, Suffix::Weight);
    if matrix == Id::NONE {
        return kept;
    }
    let projected = g.mul_mat(matrix, kept);
    let bias = g.output_weight(Role::ClsOutput, Suffix::Bias);
    let projected = g.add_if(projected, bias);
    g.expand(projected);
    projected
}

/// A dense network, or experts beside a shared one that a gate lets through.
pub(super) fn network(g: &mut Builder, x: Id) -> Id {
    if !g.has(Role::FfnGateInp) {
        return g.swiglu(x);
    }
    let chosen = g.experts(x, Experts::default());
    if !g.has(Role::FfnUpShexp) {
        return chosen;
    }
    let shared = g.feed_forward(x, SHARED, Activation::Silu, GateType::Parallel);
    let gate = g.project(Role::FfnGateInpShexp, x);
    let gate = g.unary(Op::Sigmoid, gate);
    let shared = g.mul(shared, gate);
    g.add(chosen, shared)
}

/// Attention whose query projection holds a gate beside each head.
pub(super) fn gated_attention(g: &mut Builder, attended: &Attended, x: Id) -> Id {
    gated(g, attended.positions, x, |g, qkv| g.attend(&attended.input, qkv, Extras::no_output()))
}

/// As [`gated_attention`] with attention itself given.
pub(super) fn gated(g: &mut Builder, positions: Id, x: Id, attend: impl FnOnce(&mut Builder, Qkv) -> Id) -> Id {
    let (heads, tokens) = (g.heads(), g.tokens());
    let [both, k, v] = flat(g, x);
    let size = g.get(both).nb[0];
    let head = heads.k.saturating_mul(2).saturating_mul(size);
    let strides = [head, head.saturating_mul(heads.q)];
    let [q, gate] =
        [0, heads.k.saturating_mul(size)].map(|at| g.view_3d(both, [heads.k, heads.q, tokens], strides, at));
    let q = g.norm(Norm::Rms, q, Role::AttnQNorm);
    let k = g.reshape(k, [heads.k, heads.kv, tokens, 1]);
    let k = g.norm(Norm::Rms, k, Role::AttnKNorm);
    let gate = g.cont_as(gate, [heads.k.saturating_mul(heads.q), tokens, 1, 1]);
    let v = g.reshape(v, [heads.v, heads.kv, tokens, 1]);
    let q = g.rope(q, positions, Id::NONE);
    let k = g.rope(k, positions, Id::NONE);
    let mixed = attend(g, Qkv { q, k, v });
    let gate = g.unary(Op::Sigmoid, gate);
    let mixed = g.mul(mixed, gate);
    g.project(Role::AttnOutput, mixed)
}

/// Projects to queries, keys and values, each flat; one matrix may hold them all.
fn flat(g: &mut Builder, x: Id) -> [Id; 3] {
    let heads = g.heads();
    if !g.has(Role::AttnQkv) {
        return [Role::AttnQ, Role::AttnK, Role::AttnV].map(|role| g.project_biased(role, x));
    }
    let all = g.project_biased(Role::AttnQkv, x);
    let (tokens, Tensor { nb, .. }) = (g.tokens(), *g.get(all));
    let q = heads.k.saturating_mul(heads.q).saturating_mul(2);
    let k = heads.k.saturating_mul(heads.kv);
    let v = heads.v.saturating_mul(heads.kv);
    [(q, 0), (k, q), (v, q.saturating_add(k))].map(|(width, at)| {
        let part = g.view_2d(all, [width, tokens], nb[1], at.saturating_mul(nb[0]));
        g.cont(part)
    })
}

/// Qwen 3.5's delta net.
fn linear(g: &mut Builder, input: &StateInput, x: Id) -> Id {
    linear_with(g, Some(input), x, USUAL)
}

/// As [`linear`] with its differences given; without `input` the states begin empty.
pub(super) fn linear_with(g: &mut Builder, input: Option<&StateInput>, x: Id, net: Net) -> Id {
    let (mixed, z) = projections(g, x);
    let gates = gates(g, x);
    delta_block(g, input, net, [mixed, z], gates)
}

/// Projects to what is convolved and to the gate of the result.
fn projections(g: &mut Builder, x: Id) -> (Id, Id) {
    let mixed = g.project(Role::AttnQkv, x);
    let mixed = g.by_sequence(mixed);
    (mixed, g.project(Role::AttnGate, x))
}

/// Projects to the gate of the state and to beta.
fn gates(g: &mut Builder, x: Id) -> [Id; 2] {
    let (heads, tokens, slots) = (g.mamba_sizes().heads, g.sequence_tokens(), g.sequences());
    let beta = g.project(Role::SsmBeta, x);
    let beta = g.reshape(beta, [1, heads, tokens, slots]);
    let beta = g.unary(Op::Sigmoid, beta);
    let alpha = g.project(Role::SsmAlpha, x);
    let alpha = g.reshape(alpha, [heads, tokens, slots, 1]);
    [decay(g, alpha), beta]
}

/// Turns alpha into the gate of the state.
fn decay(g: &mut Builder, alpha: Id) -> Id {
    let [heads, tokens, slots, _] = g.get(alpha).ne;
    let bias = g.bias(Role::SsmDt);
    let biased = g.add(alpha, bias);
    let soft = g.unary(Op::Softplus, biased);
    let a = g.bare(Role::SsmA);
    let gate = g.mul(soft, a);
    g.reshape(gate, [1, heads, tokens, slots])
}

/// Qwen3-Next's delta net.
fn next_linear(g: &mut Builder, input: &StateInput, x: Id) -> Id {
    let sizes = g.mamba_sizes();
    let (tokens, slots) = (g.sequence_tokens(), g.sequences());
    let (mixed, z) = if g.has(Role::AttnQkv) { projections(g, x) } else { joined_projections(g, sizes, x) };
    let each = sizes.heads / sizes.groups.max(1);
    let both = g.project(Role::SsmBa, x);
    let both = g.reshape(both, [each.saturating_mul(2), sizes.groups, tokens, slots]);
    let Tensor { nb, .. } = *g.get(both);
    let [beta, alpha] = [0, each]
        .map(|at| g.view(both, [each, sizes.groups, tokens, slots], [nb[1], nb[2], nb[3]], at.saturating_mul(nb[0])));
    let beta = g.cont(beta);
    let beta = g.unary(Op::Sigmoid, beta);
    let alpha = g.cont_as(alpha, [sizes.heads, tokens, slots, 1]);
    let gate = decay(g, alpha);
    let beta = g.reshape(beta, [1, sizes.heads, tokens, slots]);
    delta_block(g, Some(input), Net { repeats: true, ..USUAL }, [mixed, z], [gate, beta])
}

/// As [`projections`] of older files: for each key head its query, key, values and gates.
fn joined_projections(g: &mut Builder, sizes: Mamba, x: Id) -> (Id, Id) {
    let (groups, tokens, slots) = (sizes.groups, g.sequence_tokens(), g.sequences());
    let key = sizes.state;
    let value = sizes.head().saturating_mul(sizes.heads) / groups.max(1);
    let width = key.saturating_add(value).saturating_mul(2);
    let joined = g.project(Role::SsmIn, x);
    let joined = g.reshape(joined, [width, groups, tokens, slots]);
    let Tensor { nb, .. } = *g.get(joined);
    let mut at = 0u64;
    let [q, k, v, z] = [key, key, value, value].map(|width| {
        let part = g.view(joined, [width, groups, tokens, slots], [nb[1], nb[2], nb[3]], at.saturating_mul(nb[0]));
        at = at.saturating_add(width);
        part
    });
    let z = g.cont(z);
    let [q, k, v] = [(q, key), (k, key), (v, value)]
        .map(|(part, width)| g.cont_as(part, [width.saturating_mul(groups), tokens, slots, 1]));
    let mixed = g.concat(q, k, 0);
    (g.concat(mixed, v, 0), z)
}

/// How one delta net differs from another.
#[derive(Clone, Copy)]
pub(super) struct Net {
    /// Queries and keys are repeated, each as often as it has values. Elsewhere the operation takes
    /// them as they are.
    pub(super) repeats: bool,
    /// The activation of the gate behind it.
    pub(super) gate: Op,
    /// The convolution's columns are copied before they are written back.
    pub(super) copies: bool,
}

/// Qwen 3.5's.
pub(super) const USUAL: Net = Net { repeats: false, gate: Op::Silu, copies: false };

/// What the delta nets share from the convolution on. Without `input` the states begin empty and are
/// not kept.
pub(super) fn delta_block(
    g: &mut Builder,
    input: Option<&StateInput>,
    net: Net,
    [mixed, z]: [Id; 2],
    [gate, beta]: [Id; 2],
) -> Id {
    let sizes = g.mamba_sizes();
    let (tokens, slots, head) = (g.sequence_tokens(), g.sequences(), sizes.head());
    let shape = [sizes.taps, sizes.channels()];
    let (window, state) = match input {
        Some(input) => {
            let window = if net.copies {
                g.copied_window(input, Cache::R, mixed, shape)
            } else {
                g.convolution_window(input, mixed, shape)
            };
            (window, g.delta_state(input, head, sizes.heads))
        }
        None => empty_states(g, sizes, mixed),
    };
    let kernel = g.weight(Role::SsmConv1d);
    let convolved = g.ssm_conv(window, kernel);
    let convolved = g.unary(Op::Silu, convolved);
    let [q, k, v] = g.delta_heads(convolved, sizes);
    let [q, k] = [q, k].map(|part| {
        let part = g.unit_norm(part);
        if !net.repeats || sizes.groups == sizes.heads {
            return part;
        }
        let [each, rows] = [sizes.heads / sizes.groups.max(1), tokens.saturating_mul(slots)];
        let column = g.reshape(part, [sizes.state, 1, sizes.groups, rows]);
        let repeated = g.repeat(column, [sizes.state, each, sizes.groups, rows]);
        g.reshape(repeated, [sizes.state, sizes.groups.saturating_mul(each), tokens, slots])
    });
    let delta = Delta { q, k, v, gate, beta };
    let attended = if input.is_some() { g.delta_attention(delta, state) } else { g.delta_net(delta, state, 1).0 };
    let normed = g.gated_norm(attended, z, net.gate);
    let normed = g.reshape(normed, [head.saturating_mul(sizes.heads), tokens, slots, 1]);
    let out = g.project(Role::SsmOut, normed);
    g.by_token(out)
}

/// Returns a window and a state that begin with nothing.
fn empty_states(g: &mut Builder, sizes: Mamba, mixed: Id) -> (Id, Id) {
    let (slots, head) = (g.sequences(), sizes.head());
    let [before, state] = [[sizes.taps, sizes.channels(), slots, 1], [head, head, sizes.heads, slots]].map(|shape| {
        let room = g.constant(F32, shape);
        g.unary(Op::Fill, room)
    });
    let turned = g.transpose(mixed);
    (g.concat(before, turned, 0), state)
}
