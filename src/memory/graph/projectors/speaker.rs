//! Encoders of a speaker's voice, for models that speak.

use super::Family;
use super::clip::{Act, Clip, Mlp, Pair, Qkv};
use crate::memory::graph::convolve::Steps;
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::tensor::{F32, Id, Op, Tensor};

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    Some(match name {
        "qwen3tts_spkenc" => qwen3_tts,
        "pockettts_spkenc" => pocket_tts,
        _ => return None,
    })
}

/// Parts that a block of Qwen 3 TTS cuts its channels into, and the dilation of each block.
const PARTS: u64 = 8;
const DILATIONS: [u64; 3] = [2, 3, 4];

/// Qwen 3 TTS: `ECAPA-TDNN`, convolutions over time with a gate over all of it.
fn qwen3_tts(g: &mut Clip) {
    let raw = g.raw(1);
    let ne = g.get(raw).ne;
    let x = g.reshape(raw, [ne[0], ne[1], 1, 1]);
    let x = g.cont_transposed(x);
    let x = convolved(g, x, "a.conv1d.0", 1);
    let mut x = g.unary(Op::Unary, x);
    let mut results = Vec::new();
    for (block, dilation) in (1..).zip(DILATIONS) {
        x = voice_block(g, &format!("a.blk.{block}"), x, dilation);
        results.push(x);
    }
    let all = results.into_iter().reduce(|side, other| g.concat(side, other, 0)).unwrap_or(x);
    let x = convolved(g, all, "a.conv_out", 1);
    let x = g.unary(Op::Unary, x);
    let x = statistics(g, x);
    let x = convolved(g, x, "mm.a.fc", 1);
    let width = g.get(x).ne[0];
    let x = g.reshape(x, [width, 1, 1, 1]);
    let x = g.cont(x);
    g.expand(x);
}

/// A convolution over time that keeps its length; channels lie first (`conv1d_same`).
fn convolved(g: &mut Clip, x: Id, name: &str, dilation: u64) -> Id {
    let pair = g.needed(name);
    let [kernel, channels, out, _] = g.get(pair.weight).ne;
    let edge = kernel.saturating_sub(1).saturating_mul(dilation) / 2;
    let mut x = g.cont_transposed(x);
    if edge > 0 {
        x = g.pad(x, [edge.saturating_mul(2), 0, 0, 0]);
    }
    let length = g.get(x).ne[0];
    let x = g.reshape(x, [length, channels, 1, 1]);
    let shape = g.constant(F32, [kernel, channels, 1, 1]);
    let x = g.im2col_1d_by(shape, x, Steps::of(1).dilated(dilation), F32);
    let rows = g.get(x).ne[1];
    let row = kernel.saturating_mul(channels);
    let x = g.reshape(x, [row, rows, 1, 1]);
    let matrix = g.reshape(pair.weight, [row, out, 1, 1]);
    let x = g.mul_mat(matrix, x);
    if pair.bias == Id::NONE {
        return x;
    }
    let bias = g.reshape(pair.bias, [out, 1, 1, 1]);
    g.add(x, bias)
}

fn voice_block(g: &mut Clip, at: &str, input: Id, dilation: u64) -> Id {
    let x = convolved(g, input, &format!("{at}.conv_pw1"), 1);
    let x = g.unary(Op::Unary, x);
    let x = in_parts(g, at, x, dilation);
    let x = convolved(g, x, &format!("{at}.conv_pw2"), 1);
    let x = g.unary(Op::Unary, x);
    let gate = over_time(g, x);
    let gate = convolved(g, gate, &format!("{at}.se_conv1"), 1);
    let gate = g.unary(Op::Unary, gate);
    let gate = convolved(g, gate, &format!("{at}.se_conv2"), 1);
    let gate = g.unary(Op::Sigmoid, gate);
    let x = g.mul(x, gate);
    g.add(x, input)
}

/// Convolves one part of the channels after the other, each with the result of the one before.
fn in_parts(g: &mut Clip, at: &str, x: Id, dilation: u64) -> Id {
    let Tensor { ne: [channels, length, ..], nb, .. } = *g.get(x);
    let part = channels / PARTS;
    let mut all = Id::NONE;
    let mut before = Id::NONE;
    for number in 0..PARTS {
        let from = number.saturating_mul(part).saturating_mul(nb[0]);
        let own = g.view_2d(x, [part, length], nb[1], from);
        let mut own = g.cont(own);
        if number >= 1 {
            own = if number >= 2 { g.add(own, before) } else { own };
            own = convolved(g, own, &format!("{at}.res2.{}", number - 1), dilation);
            own = g.unary(Op::Unary, own);
            before = own;
        }
        all = if all == Id::NONE { own } else { g.concat(all, own, 0) };
    }
    all
}

/// The mean over time.
fn over_time(g: &mut Clip, x: Id) -> Id {
    let x = g.cont_transposed(x);
    let mean = g.sum_rows(Op::Mean, x);
    g.cont_transposed(mean)
}

/// Mean and deviation over time, weighted by attention (`attentive_stats_pool`).
fn statistics(g: &mut Clip, x: Id) -> Id {
    let shape = g.get(x).ne;
    let mean = over_time(g, x);
    let mean = g.repeat(mean, shape);
    let centred = g.binary(Op::Sub, x, mean);
    let squares = g.unary(Op::Sqr, centred);
    let variance = over_time(g, squares);
    let variance = g.scale(variance);
    let deviation = g.unary(Op::Sqrt, variance);
    let deviation = g.repeat(deviation, shape);
    let all = g.concat(x, mean, 0);
    let all = g.concat(all, deviation, 0);
    let scores = convolved(g, all, "a.asp_tdnn", 1);
    let scores = g.unary(Op::Unary, scores);
    let scores = g.unary(Op::Unary, scores);
    let scores = convolved(g, scores, "a.asp_attn", 1);
    let scores = g.cont_transposed(scores);
    let weights = g.soft_max(scores, Id::NONE, Id::NONE);
    let weights = g.cont_transposed(weights);
    let weighted = g.mul(weights, x);
    let weighted = g.cont_transposed(weighted);
    let mean = g.sum_rows(Op::Mean, weighted);
    let mean = g.scale(mean);
    let mean = g.cont_transposed(mean);
    let all = g.repeat(mean, shape);
    let centred = g.binary(Op::Sub, x, all);
    let squares = g.unary(Op::Sqr, centred);
    let squares = g.mul(weights, squares);
    let squares = g.cont_transposed(squares);
    let variance = g.sum_rows(Op::Mean, squares);
    let variance = g.scale(variance);
    let variance = g.cont_transposed(variance);
    let variance = g.scale(variance);
    let deviation = g.unary(Op::Sqrt, variance);
    g.concat(mean, deviation, 0)
}

/// Steps of Pocket TTS's convolutions, and of the last that brings frames to the model's rate.
const STRIDES: [u64; 3] = [4, 5, 6];
const DOWNSAMPLE: u64 = 16;

/// Pocket TTS: causal convolutions over the waveform, then a small transformer.
fn pocket_tts(g: &mut Clip) {
    let raw = g.raw(1);
    let ne = g.get(raw).ne;
    let x = g.reshape(raw, [ne[0], ne[1], 1, 1]);
    let kernel = g.needed("a.seanet.conv_in");
    let mut x = causal(g, x, kernel, 1, false);
    for (stage, stride) in (0..).zip(STRIDES) {
        let [first, second, scale] =
            ["res_conv1", "res_conv2", "scale_conv"].map(|name| g.needed(&format!("a.seanet.blk.{stage}.{name}")));
        let hidden = g.unary(Op::Unary, x);
        let hidden = causal(g, hidden, first, 1, false);
        let hidden = g.unary(Op::Unary, hidden);
        let hidden = causal(g, hidden, second, 1, false);
        x = g.add(x, hidden);
        x = g.unary(Op::Unary, x);
        x = causal(g, x, scale, stride, false);
    }
    let x = g.unary(Op::Unary, x);
    let kernel = g.needed("a.seanet.conv_out");
    let x = causal(g, x, kernel, 1, false);
    let mut x = g.cont_transposed(x);
    let frames = g.get(x).ne[1];
    let positions = g.positions(frames);
    let mask = g.square_mask(frames);
    let (head, heads) = (g.sizes().head, g.sizes().heads);
    for block in 0..g.sizes().blocks {
        let at = format!("a.blk.{block}");
        let norm = g.needed(&format!("{at}.ln1"));
        let normed = g.norm(Norm::Layer, x, norm);
        let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(|name| {
            let matrix = g.need(&format!("{at}.{name}.weight"));
            let x = g.product(matrix, normed);
            g.reshape(x, [head, heads, frames, 1])
        });
        let (q, k) = (g.rope(q, positions, Id::NONE), g.rope(k, positions, Id::NONE));
        let output = g.needed(&format!("{at}.attn_out")).unbiased();
        let attended = g.attend(output, Qkv { q, k, v }, mask);
        let scale = g.need(&format!("{at}.ls1.weight"));
        let attended = g.mul(attended, scale);
        x = g.add(attended, x);
        let norm = g.needed(&format!("{at}.ln2"));
        let normed = g.norm(Norm::Layer, x, norm);
        let [up, down] = ["ffn_up", "ffn_down"].map(|name| g.needed(&format!("{at}.{name}")).unbiased());
        let fed = g.feed(normed, Mlp { up, gate: Pair::NONE, down }, Act::Smooth);
        let scale = g.need(&format!("{at}.ls2.weight"));
        let fed = g.mul(fed, scale);
        x = g.add(fed, x);
    }
    let x = g.cont_transposed(x);
    let kernel = g.needed("a.downsample.conv").unbiased();
    let x = causal(g, x, kernel, DOWNSAMPLE, true);
    let x = g.cont_transposed(x);
    let matrix = g.need("a.speaker_proj.weight");
    let x = g.product(matrix, x);
    g.expand(x);
}

/// A convolution that looks back only; `repeats` pads with the first frame instead of nothing
/// (`conv1d` in `pockettts-seanet.cpp`).
fn causal(g: &mut Clip, x: Id, kernel: Pair, stride: u64, repeats: bool) -> Id {
    let [reach, _, out, _] = g.get(kernel.weight).ne;
    let Tensor { ne: [length, channels, ..], nb, .. } = *g.get(x);
    let before = reach.saturating_sub(stride);
    let frames = (length + before).saturating_sub(reach).div_ceil(stride);
    let after = (frames.saturating_mul(stride) + reach).saturating_sub(before + length);
    let x = if repeats && before > 0 {
        let first = g.view_2d(x, [1, channels], nb[1], 0);
        let first = g.repeat(first, [before, channels, 1, 1]);
        let x = g.concat(first, x, 0);
        g.pad(x, [after, 0, 0, 0])
    } else {
        g.pad(x, [before + after, 0, 0, 0])
    };
    let x = g.conv_1d_by(kernel.weight, x, Steps::of(stride));
    let ne = g.get(x).ne;
    let x = g.reshape(x, [ne[0], ne[1], 1, 1]);
    if kernel.bias == Id::NONE {
        return x;
    }
    let bias = g.reshape(kernel.bias, [1, out, 1, 1]);
    g.add(x, bias)
}
