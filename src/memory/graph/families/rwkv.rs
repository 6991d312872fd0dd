//! RWKV 6 and 7, and the Qwen models whose attention was replaced by theirs: each token is mixed with
//! the one before it, and a state a head takes the place of attention.

use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::model::{Builder, Cache};
use crate::memory::graph::recurrent::{StateInput, product};
use crate::memory::graph::tensor::{Id, Op, Tensor};
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

use super::Family;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "rwkv6" => rwkv6,
        "rwkv7" => rwkv7,
        "rwkv6qwen2" => rwkv6_qwen2,
        "arwkv7" => arwkv7,
        _ => return None,
    })
}

/// RWKV 6.
fn rwkv6(g: &mut Builder) {
    let every = g.number(Hyper::RescaleEveryNLayers);
    whole(
        g,
        |g, state, x, before, _| time_mix_6(g, state, x, before),
        |g, ids, [mixed, fed, normed, before]| {
            let [_, residual, normed, before] = g.keep_outputs(ids, [mixed, fed, normed, before]);
            let step = g.binary(Op::Sub, before, normed);
            let [key, receptance] =
                [Role::ChannelMixLerpK, Role::ChannelMixLerpR].map(|role| blend(g, step, role, normed));
            let open = g.project(Role::ChannelMixReceptance, receptance);
            let open = g.unary(Op::Sigmoid, open);
            let value = channel_value(g, key);
            let mixed = g.mul(open, value);
            let mixed = g.add(mixed, residual);
            let rescales = every != 0 && u64::from(g.index()).saturating_add(1).is_multiple_of(every);
            if rescales { g.scale(mixed) } else { mixed }
        },
    );
}

/// RWKV 7: no receptance in the channel mix, and the values of the first block flow into all others.
fn rwkv7(g: &mut Builder) {
    whole(g, time_mix_7, |g, ids, [_, fed, normed, before]| {
        let [residual, normed, before] = g.keep_outputs(ids, [fed, normed, before]);
        let step = g.binary(Op::Sub, before, normed);
        let key = blend(g, step, Role::ChannelMixLerpK, normed);
        let value = channel_value(g, key);
        g.add(value, residual)
    });
}

/// Qwen 2 with RWKV 6's time mix.
fn rwkv6_qwen2(g: &mut Builder) {
    grafted(g, |g, state, x, before, _| time_mix_6(g, state, x, before));
}

/// Qwen with RWKV 7's time mix.
fn arwkv7(g: &mut Builder) {
    grafted(g, time_mix_7);
}

/// Returns `step` weighted by a vector, added to `x`.
fn blend(g: &mut Builder, step: Id, role: Role, x: Id) -> Id {
    let weight = g.weight(role);
    let weighted = g.mul(step, weight);
    g.add(weighted, x)
}

/// The channel mix's network of squared relus.
fn channel_value(g: &mut Builder, key: Id) -> Id {
    let key = g.project(Role::ChannelMixKey, key);
    let key = g.unary(Op::Unary, key);
    let key = g.unary(Op::Sqr, key);
    g.project(Role::ChannelMixValue, key)
}

/// A time mix: on the state's inputs, the activation, that of the token before, and the values of
/// the first block, which are absent in it.
type TimeMix = fn(&mut Builder, &StateInput, Id, Id, &mut Id) -> Id;

/// RWKV's own shape: the state keeps the last token of both mixes. `channels` is given the time mix's
/// result, it and the residual, the second norm, and that of the token before.
fn whole(g: &mut Builder, time_mix: TimeMix, channels: impl Fn(&mut Builder, Id, [Id; 4]) -> Id) {
    let x = g.embeddings();
    let [weight, bias] = [Suffix::Weight, Suffix::Bias].map(|suffix| g.first_weight(Role::TokenEmbdNorm, suffix));
    g.enter(Some(0));
    let mut x = g.norm_with(Norm::Layer, x, weight, bias);
    let state = g.state_input();
    let ids = g.output_ids();
    let mut first = Id::NONE;
    for &block in g.blocks() {
        g.enter(Some(block));
        let residual = g.by_sequence(x);
        let shift = load_shift(g, &state);
        let Tensor { ne, nb, .. } = *g.get(shift);
        let [time, channel] =
            [0, ne[0].saturating_mul(nb[0])].map(|at| g.view_3d(shift, [ne[0], 1, ne[2]], [nb[1], nb[2]], at));
        let normed = g.norm(Norm::Layer, residual, Role::AttnNorm);
        let before = shifted(g, time, normed);
        let mixed = time_mix(g, &state, normed, before, &mut first);
        let fed = g.add(mixed, residual);
        let second = g.norm(Norm::Layer, fed, Role::AttnNorm2);
        let before = shifted(g, channel, second);
        let [time, channel] = [normed, second].map(|x| last_token(g, x));
        let shift = g.concat(time, channel, 1);
        store_shift(g, shift);
        let rows = [mixed, fed, second, before].map(|x| g.by_token(x));
        x = channels(g, ids, rows);
    }
    end(g, Norm::Layer, x);
}

/// The shape of a transformer whose attention is a time mix.
fn grafted(g: &mut Builder, time_mix: TimeMix) {
    let mut x = g.embeddings();
    let state = g.state_input();
    let ids = g.output_ids();
    let mut first = Id::NONE;
    for &block in g.blocks() {
        g.enter(Some(block));
        let residual = g.by_sequence(x);
        let shift = load_shift(g, &state);
        let normed = g.norm(Norm::Rms, residual, Role::AttnNorm);
        let before = shifted(g, shift, normed);
        let mixed = time_mix(g, &state, normed, before, &mut first);
        let last = last_token(g, normed);
        store_shift(g, last);
        let mixed = g.add(mixed, residual);
        let mixed = g.by_token(mixed);
        let [mixed] = g.keep_outputs(ids, [mixed]);
        let normed = g.norm(Norm::Rms, mixed, Role::FfnNorm);
        let fed = g.swiglu(normed);
        x = g.add(fed, mixed);
    }
    end(g, Norm::Rms, x);
}

fn end(g: &mut Builder, norm: Norm, x: Id) {
    let normed = g.output_norm(norm, x);
    let logits = g.logits(normed);
    g.finish(logits);
}

/// Reads the last tokens of the sequences (`build_rwkv_token_shift_load`).
fn load_shift(g: &mut Builder, input: &StateInput) -> Id {
    let shift = g.load_state(input, Cache::R);
    let (width, slots) = (g.embedding(), g.sequences());
    let count = g.get(shift).ne[0] / width.max(1);
    g.reshape(shift, [width, count, slots, 1])
}

/// Writes the last tokens back (`build_rwkv_token_shift_store`).
fn store_shift(g: &mut Builder, shift: Id) {
    let Tensor { ne, .. } = *g.get(shift);
    let width = ne[0].saturating_mul(ne[1]);
    let rows = g.view_1d(shift, width.saturating_mul(ne[2]), 0);
    g.store_state(Cache::R, rows, width);
}

/// Returns for each token the one before it, the first from the state.
fn shifted(g: &mut Builder, last: Id, x: Id) -> Id {
    let Tensor { ne, nb, .. } = *g.get(x);
    let others = g.view_3d(x, [ne[0], ne[1].saturating_sub(1), ne[2]], [nb[1], nb[2]], 0);
    g.concat(last, others, 1)
}

/// Returns a view of the last token of each sequence.
fn last_token(g: &mut Builder, x: Id) -> Id {
    let Tensor { ne, nb, .. } = *g.get(x);
    g.view_3d(x, [ne[0], 1, ne[2]], [nb[1], nb[2]], ne[1].saturating_sub(1).saturating_mul(nb[1]))
}

/// The sizes that time mixes share.
#[derive(Clone, Copy)]
struct Heads {
    width: u64,
    head: u64,
    count: u64,
    tokens: u64,
    slots: u64,
}

impl Heads {
    fn new(g: &Builder) -> Heads {
        let (width, head) = (g.embedding(), g.number(Hyper::WkvHeadSize));
        Heads { width, head, count: width / head.max(1), tokens: g.tokens(), slots: g.sequences() }
    }

    fn split(self, g: &mut Builder, x: Id) -> Id {
        g.reshape(x, [self.head, self.count, self.tokens, 1])
    }

    fn flat(self, g: &mut Builder, x: Id) -> Id {
        g.reshape(x, [self.width, self.tokens, 1, 1])
    }

    /// Returns a view of one of several activations that lie one after the other.
    fn part(self, g: &mut Builder, all: Id, number: u64) -> Id {
        let Tensor { nb, .. } = *g.get(all);
        let at = product(&[number, self.width, self.tokens, nb[0]]);
        g.view_2d(all, [self.width, self.tokens], nb[1], at)
    }

    /// Runs an operation that carries the state along, writes the new state back, and returns the
    /// activation.
    fn carry(self, g: &mut Builder, op: Op, sources: &[Id]) -> Id {
        let rows = self.tokens.saturating_add(self.head.saturating_mul(self.slots));
        let result = g.other(op, [self.head.saturating_mul(self.count), rows, 1, 1], sources);
        let elements = self.width.saturating_mul(self.tokens);
        let attended = g.view_1d(result, elements, 0);
        let state = self.width.saturating_mul(self.head);
        let at = elements.saturating_mul(g.get(result).nb[0]);
        let states = g.view_1d(result, state.saturating_mul(self.slots), at);
        g.store_state(Cache::S, states, state);
        attended
    }

    /// Norms head by head where the file has a norm.
    fn norm(self, g: &mut Builder, x: Id) -> Id {
        let (weight, bias) = (g.weight(Role::TimeMixLn), g.bias(Role::TimeMixLn));
        if weight == Id::NONE || bias == Id::NONE {
            return self.flat(g, x);
        }
        let heads = self.split(g, x);
        let normed = g.unary(Op::Norm, heads);
        let normed = self.flat(g, normed);
        let normed = g.mul(normed, weight);
        g.add(normed, bias)
    }
}

/// RWKV 6's time mix (`build_rwkv6_time_mix`). Without `time_mix_first` it is gated linear attention.
fn time_mix_6(g: &mut Builder, input: &StateInput, x: Id, before: Id) -> Id {
    let heads = Heads::new(g);
    let is_gated = !g.has(Role::TimeMixFirst);
    let step = g.binary(Op::Sub, before, x);
    let step = heads.flat(g, step);
    let x = heads.flat(g, x);
    let [decay, key, value, receptance, gate] = five_blends(g, heads, step, x);
    let [mut r, mut k, mut v] =
        [(Role::TimeMixReceptance, receptance), (Role::TimeMixKey, key), (Role::TimeMixValue, value)]
            .map(|(role, x)| g.project_biased(role, x));
    let gate = g.project(Role::TimeMixGate, gate);
    let gate = g.unary(if is_gated { Op::Sigmoid } else { Op::Silu }, gate);
    let shared = u64::from(g.kind().heads_kv);
    if shared != 0 && shared != heads.count {
        [k, v] = [k, v].map(|part| {
            let column = g.reshape(part, [heads.head, 1, shared, heads.tokens]);
            g.repeat(column, [heads.head, heads.count / shared, shared, heads.tokens])
        });
    }
    [k, v, r] = [k, v, r].map(|part| heads.split(g, part));
    let w = low_rank(g, [Role::TimeMixDecayW1, Role::TimeMixDecayW2], Some(Op::Unary), decay);
    let base = g.weight(Role::TimeMixDecay);
    let w = g.add(w, base);
    let w = g.unary(Op::Exp, w);
    let w = g.unary(Op::Unary, w);
    let w = g.unary(Op::Exp, w);
    let w = heads.split(g, w);
    if is_gated {
        let kept = g.mul(k, w);
        k = g.binary(Op::Sub, k, kept);
    }
    let state = g.load_state(input, Cache::S);
    let mut mixed = if is_gated {
        let mixed = heads.carry(g, Op::GatedLinearAttn, &[k, v, r, w, state]);
        heads.flat(g, mixed)
    } else {
        let first = g.weight(Role::TimeMixFirst);
        let mixed = heads.carry(g, Op::RwkvWkv6, &[k, v, r, first, w, state]);
        heads.norm(g, mixed)
    };
    mixed = g.mul(mixed, gate);
    let out = g.project(Role::TimeMixOutput, mixed);
    g.by_sequence(out)
}

/// Returns the five blends of a token with the one before it: for decay, key, value, receptance and
/// gate.
fn five_blends(g: &mut Builder, heads: Heads, step: Id, x: Id) -> [Id; 5] {
    let (width, tokens) = (heads.width, heads.tokens);
    let blended = blend(g, step, Role::TimeMixLerpX, x);
    let narrow = g.project(Role::TimeMixW1, blended);
    let narrow = g.unary(Op::Unary, narrow);
    let rank = g.get(narrow).ne[0] / 5;
    let narrow = g.reshape(narrow, [rank, 1, 5, tokens]);
    let narrow = g.permute(narrow, [0, 1, 3, 2]);
    let narrow = g.cont(narrow);
    let matrices = g.weight(Role::TimeMixW2);
    let shape = if matrices == Id::NONE { [0; 4] } else { g.get(matrices).ne };
    let matrices = g.reshape(matrices, [shape[0], shape[1], 1, 5]);
    let all = g.mul_mat(matrices, narrow);
    let fused = g.weight(Role::TimeMixLerpFused);
    if fused != Id::NONE {
        let [step, x] = [step, x].map(|part| g.reshape(part, [width, 1, tokens, 1]));
        let all = g.add(all, fused);
        let all = g.mul(all, step);
        let all = g.add(all, x);
        return [0, 1, 2, 3, 4].map(|number| heads.part(g, all, number));
    }
    let roles = [Role::TimeMixLerpW, Role::TimeMixLerpK, Role::TimeMixLerpV, Role::TimeMixLerpR, Role::TimeMixLerpG];
    let mut number = 0;
    roles.map(|role| {
        let part = heads.part(g, all, number);
        number += 1;
        let base = g.weight(role);
        let part = g.add(part, base);
        let part = g.mul(part, step);
        g.add(part, x)
    })
}

/// Multiplies with two narrow matrices, an activation between them where one is given.
fn low_rank(g: &mut Builder, [down, up]: [Role; 2], between: Option<Op>, x: Id) -> Id {
    let narrow = g.project(down, x);
    let narrow = between.map_or(narrow, |op| g.unary(op, narrow));
    g.project(up, narrow)
}

/// RWKV 7's time mix (`build_rwkv7_time_mix`).
fn time_mix_7(g: &mut Builder, input: &StateInput, x: Id, before: Id, first: &mut Id) -> Id {
    let heads = Heads::new(g);
    let is_gated = g.has(Role::TimeMixG1) && g.has(Role::TimeMixG2);
    let step = g.binary(Op::Sub, before, x);
    let [width, tokens, slots, _] = g.get(x).ne;
    let step = g.repeat(step, [width, tokens, slots, if is_gated { 6 } else { 5 }]);
    let all = blend(g, step, Role::TimeMixLerpFused, x);
    let [receptance, decay, key, value, rate, gate] = [0, 1, 2, 3, 4, 5].map(|number| heads.part(g, all, number));
    let r = g.project(Role::TimeMixReceptance, receptance);
    let w = low_rank(g, [Role::TimeMixW1, Role::TimeMixW2], Some(Op::Unary), decay);
    let w = biased_sigmoid(g, w, Role::TimeMixW0);
    let w = g.scale(w);
    let w = g.unary(Op::Exp, w);
    let k = g.project(Role::TimeMixKey, key);
    let mut v = g.project(Role::TimeMixValue, value);
    if *first == Id::NONE {
        *first = v;
    } else {
        let missing = g.binary(Op::Sub, *first, v);
        let share = low_rank(g, [Role::TimeMixV1, Role::TimeMixV2], None, value);
        let share = biased_sigmoid(g, share, Role::TimeMixV0);
        let share = g.mul(missing, share);
        v = g.add(v, share);
    }
    let rate = low_rank(g, [Role::TimeMixA1, Role::TimeMixA2], None, rate);
    let rate = biased_sigmoid(g, rate, Role::TimeMixA0);
    let removed = g.weight(Role::TimeMixKK);
    let removed = g.mul(k, removed);
    let removed = heads.split(g, removed);
    let removed = g.unary(Op::L2Norm, removed);
    let scaled = g.weight(Role::TimeMixKA);
    let scaled = g.mul(k, scaled);
    let added = g.mul(rate, scaled);
    let added = g.binary(Op::Sub, added, scaled);
    let k = g.add(k, added);
    let [r, w, k, v, rate] = [r, w, k, v, rate].map(|part| heads.split(g, part));
    let state = g.load_state(input, Cache::S);
    let negated = g.unary(Op::Unary, removed);
    let replaced = g.mul(removed, rate);
    let mixed = heads.carry(g, Op::RwkvWkv7, &[r, w, k, v, negated, replaced, state]);
    let mixed = heads.norm(g, mixed);
    let products = g.mul(k, r);
    let bonus = g.weight(Role::TimeMixRK);
    let bonus = g.reshape(bonus, [heads.head, heads.count, 1, 1]);
    let bonus = g.mul(products, bonus);
    let bonus = g.sum_rows(Op::SumRows, bonus);
    let bonus = g.mul(v, bonus);
    let bonus = heads.flat(g, bonus);
    let mut mixed = g.add(mixed, bonus);
    if is_gated {
        let open = low_rank(g, [Role::TimeMixG1, Role::TimeMixG2], Some(Op::Sigmoid), gate);
        mixed = g.mul(mixed, open);
    }
    let out = g.project(Role::TimeMixOutput, mixed);
    g.by_sequence(out)
}

fn biased_sigmoid(g: &mut Builder, x: Id, role: Role) -> Id {
    let bias = g.weight(role);
    let biased = g.add(x, bias);
    g.unary(Op::Sigmoid, biased)
}
