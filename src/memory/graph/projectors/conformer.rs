//! Conformers: encoders of sound whose blocks have a convolution over time between attention and the
//! second of two half networks.

use super::Family;
use super::clip::{Act, Clip, Mlp, Pair};
use crate::memory::graph::convolve::Steps;
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::tensor::{F32, Id, Op, Tensor};

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    Some(match name {
        "lfm2a" => lfm2_audio,
        "parakeet" => parakeet,
        "gemma4a" => gemma4_audio,
        _ => return None,
    })
}

/// LFM2 Audio.
fn lfm2_audio(g: &mut Clip) {
    let frames = g.sizes().width;
    let halved = |count: u64| count.div_ceil(2);
    let distances = halved(halved(halved(frames))).saturating_mul(2).saturating_sub(1);
    let places = g.input(F32, [512, distances, 1, 1]);
    g.expand(places);
    let raw = g.raw(1);
    let x = g.cont_transposed(raw);
    let x = subsampled(g, x);
    let ne = g.get(x).ne;
    let x = g.reshape(x, [ne[0].saturating_mul(ne[1]), ne[2], 1, 1]);
    let out = g.needed("a.pre_encode.out");
    let mut x = g.linear(x, out);
    for block in 0..g.sizes().blocks {
        let at = format!("a.blk.{block}");
        let residual = half_network(g, &at, "", x, x);
        let norm = g.needed(&format!("{at}.ln1"));
        let normed = g.norm(Norm::Layer, residual, norm);
        let attended = lfm2_attention(g, &at, normed, places);
        let residual = g.add(residual, attended);
        let norm = g.needed(&format!("{at}.norm_conv"));
        let normed = g.norm(Norm::Layer, residual, norm);
        let first = g.needed(&format!("{at}.conv_pw1"));
        let x_wide = g.linear(normed, first);
        let gated = gated(g, x_wide, false);
        let gated = g.cont_transposed(gated);
        // Padding on the right, turned to the left, and again on the right.
        let padded = g.pad(gated, [4, 0, 0, 0]);
        let rolled = g.unary(Op::Roll, padded);
        let padded = g.pad(rolled, [4, 0, 0, 0]);
        let kernel = g.needed(&format!("{at}.conv_dw"));
        let convolved = g.ssm_conv(padded, kernel.weight);
        let convolved = g.add_if(convolved, kernel.bias);
        let norm = g.needed(&format!("{at}.conv_norm"));
        let normed = g.mul(convolved, norm.weight);
        let normed = g.add_if(normed, norm.bias);
        let normed = g.unary(Op::Silu, normed);
        let second = g.needed(&format!("{at}.conv_pw2"));
        let convolved = g.linear(normed, second);
        let residual = g.add(residual, convolved);
        let residual = half_network(g, &at, "_1", residual, residual);
        let norm = g.needed(&format!("{at}.ln2"));
        x = g.norm(Norm::Layer, residual, norm);
    }
    let norm = g.needed("mm.a.mlp.0");
    let x = g.norm(Norm::Layer, x, norm);
    let x = g.feed_two(x, "mm.a.mlp.1", "mm.a.mlp.3");
    g.expand(x);
}

/// A network whose result counts half. `which` is what stands behind its tensors' names.
fn half_network(g: &mut Clip, at: &str, which: &str, x: Id, residual: Id) -> Id {
    let norm = g.needed(&format!("{at}.ffn_norm{which}"));
    let normed = g.norm(Norm::Layer, x, norm);
    let [up, down] = ["ffn_up", "ffn_down"].map(|name| g.needed(&format!("{at}.{name}{which}")));
    let fed = g.feed(normed, Mlp { up, gate: Pair::NONE, down }, Act::Smooth);
    let fed = g.scale(fed);
    g.add(residual, fed)
}

/// The convolutions that leave one frame of eight.
fn subsampled(g: &mut Clip, x: Id) -> Id {
    let parakeet = g.encoder.name == "parakeet";
    let half = Steps::of(2).padded(1);
    let first = g.needed("a.conv1d.0");
    let x = g.conv_2d(first.weight, x, half);
    let mut x = g.add_if(x, first.bias);
    x = relu(g, x, parakeet);
    for (depthwise, pointwise) in [(2, 3), (5, 6)] {
        let pair = g.needed(&format!("a.conv1d.{depthwise}"));
        x = g.conv_2d_dw_direct(pair.weight, x, half);
        x = g.add_if(x, pair.bias);
        let pair = g.needed(&format!("a.conv1d.{pointwise}"));
        x = if parakeet {
            g.conv_2d(pair.weight, x, Steps::of(1))
        } else {
            g.conv_2d_direct(pair.weight, x, Steps::of(1))
        };
        x = g.add_if(x, pair.bias);
        x = relu(g, x, parakeet);
    }
    g.cont_permuted(x, [0, 2, 1, 3])
}

/// LFM2 writes the result over its source.
fn relu(g: &mut Clip, x: Id, apart: bool) -> Id {
    if apart { g.unary(Op::Unary, x) } else { g.unary_inplace(x) }
}

/// One half of each row, gated by the sigmoid of the other.
fn gated(g: &mut Clip, x: Id, copies: bool) -> Id {
    let Tensor { ne, nb, .. } = *g.get(x);
    let half = ne[0] / 2;
    let second = g.view_2d(x, [half, ne[1]], nb[1], half.saturating_mul(nb[0]));
    let second = if copies { g.cont(second) } else { second };
    let gate = g.unary(Op::Sigmoid, second);
    let first = g.view_2d(x, [half, ne[1]], nb[1], 0);
    g.mul(first, gate)
}

fn lfm2_attention(g: &mut Clip, at: &str, x: Id, places: Id) -> Id {
    let (head, heads) = (g.sizes().head, g.sizes().heads);
    let part = |g: &mut Clip, name: &str| {
        let pair = g.needed(&format!("{at}.{name}"));
        let x = g.linear(x, pair);
        let count = g.get(x).ne[1];
        g.reshape(x, [head, heads, count, 1])
    };
    let q = part(g, "attn_q");
    let [content, place] = ["pos_bias_u", "pos_bias_v"].map(|name| {
        let bias = g.need(&format!("{at}.{name}"));
        let biased = g.add(q, bias);
        g.permute(biased, [0, 2, 1, 3])
    });
    let k = part(g, "attn_k");
    let k = g.cont_permuted(k, [0, 2, 1, 3]);
    let v = part(g, "attn_v");
    let v = g.cont_permuted(v, [1, 2, 0, 3]);
    let by_content = g.mul_mat(content, k);
    let by_content = g.cont_permuted(by_content, [1, 0, 2, 3]);
    let matrix = g.need(&format!("{at}.linear_pos.weight"));
    let p = g.product(matrix, places);
    let distances = g.get(p).ne[1];
    let p = g.reshape(p, [head, heads, distances, 1]);
    let p = g.permute(p, [0, 2, 1, 3]);
    let by_place = g.mul_mat(place, p);
    let by_place = g.cont_permuted(by_place, [1, 0, 2, 3]);
    // Shifts each row by one more, so that distances become positions.
    let [length, asked, many, _] = g.get(by_place).ne;
    let padded = g.pad(by_place, [1, 0, 0, 0]);
    let padded = g.reshape(padded, [asked, length + 1, many, 1]);
    let nb = g.get(padded).nb;
    let shifted = g.view_3d(padded, [asked, length, many], [nb[1], nb[2]], nb[0].saturating_mul(asked));
    let shifted = g.cont_as(shifted, [length, asked, many, 1]);
    let Tensor { ne, nb, .. } = *g.get(shifted);
    let seen = g.get(by_content).ne[0];
    let shifted = g.view_3d(shifted, [seen, ne[1], ne[2]], [nb[1], nb[2]], 0);
    let scores = g.add(by_content, shifted);
    let scores = g.scale(scores);
    let weights = g.soft_max(scores, Id::NONE, Id::NONE);
    let x = g.mul_mat(weights, v);
    let x = g.permute(x, [2, 0, 1, 3]);
    let ne = g.get(x).ne;
    let x = g.cont_as(x, [ne[0].saturating_mul(ne[1]), ne[2], 1, 1]);
    let output = g.needed(&format!("{at}.attn_out"));
    g.linear(x, output)
}

/// NVIDIA's Parakeet. The sound that is reserved for is short enough to be looked at as a whole.
fn parakeet(g: &mut Clip) {
    let width = g.sizes().embedding;
    let raw = g.raw(1);
    let x = g.cont_transposed(raw);
    let x = subsampled(g, x);
    let [bins, channels, frames, _] = g.get(x).ne;
    let x = g.reshape(x, [bins.saturating_mul(channels), frames, 1, 1]);
    let out = g.needed("a.pre_encode.out");
    let mut x = g.linear(x, out);
    let mask = g.input(F32, [frames, frames, 1, 1]);
    let window = frames.saturating_mul(2).saturating_sub(1);
    let (freqs, distances) = (g.input(F32, [width / 2, 1, 1, 1]), g.input(F32, [1, window, 1, 1]));
    let freqs = g.repeat(freqs, [width / 2, window, 1, 1]);
    let angles = g.mul(freqs, distances);
    let waves = [(); 2].map(|()| {
        let wave = g.unary(Op::Other, angles);
        g.reshape(wave, [1, width / 2, window, 1])
    });
    let places = g.concat(waves[0], waves[1], 0);
    let places = g.cont(places);
    let places = g.reshape(places, [width, window, 1, 1]);
    for block in 0..g.sizes().blocks {
        x = parakeet_block(g, &format!("a.blk.{block}"), x, mask, places);
    }
    let weight = g.need("mm.a.norm_pre.weight");
    let x = g.norm(Norm::Rms, x, Pair { weight, bias: Id::NONE });
    let [up, down] = ["mm.a.mlp.1", "mm.a.mlp.2"].map(|name| g.needed(name).unbiased());
    let x = g.feed(x, Mlp { up, gate: Pair::NONE, down }, Act::ReluSqr);
    g.expand(x);
}

fn parakeet_block(g: &mut Clip, at: &str, x: Id, mask: Id, places: Id) -> Id {
    let network = |g: &mut Clip, x: Id, which: &str| {
        let norm = g.needed(&format!("{at}.ffn_norm{which}"));
        let normed = g.norm(Norm::Layer, x, norm);
        let [up, down] = ["ffn_up", "ffn_down"].map(|name| g.needed(&format!("{at}.{name}{which}")).unbiased());
        let fed = g.feed(normed, Mlp { up, gate: Pair::NONE, down }, Act::Smooth);
        let fed = g.scale(fed);
        g.add(x, fed)
    };
    let x = network(g, x, "");
    let norm = g.needed(&format!("{at}.ln1"));
    let normed = g.norm(Norm::Layer, x, norm);
    let attended = parakeet_attention(g, at, normed, mask, places);
    let x = g.add(x, attended);

    let norm = g.needed(&format!("{at}.norm_conv"));
    let normed = g.norm(Norm::Layer, x, norm);
    let first = g.need(&format!("{at}.conv_pw1.weight"));
    let wide = g.product(first, normed);
    let Tensor { ne, nb, .. } = *g.get(wide);
    let half = ne[0] / 2;
    let signal = g.view_2d(wide, [half, ne[1]], nb[1], 0);
    let gate = g.view_2d(wide, [half, ne[1]], nb[1], half.saturating_mul(nb[0]));
    let gate = g.unary(Op::Sigmoid, gate);
    let gated = g.mul(signal, gate);
    let gated = g.cont_transposed(gated);
    let edge = g.encoder.number("conv_kernel_size").saturating_sub(1) / 2;
    let padded = g.pad(gated, [edge.saturating_mul(2), 0, 0, 0]);
    let kernel = g.need(&format!("{at}.conv_dw.weight"));
    let convolved = g.ssm_conv(padded, kernel);
    let (mean, variance) = (g.need(&format!("{at}.conv_norm_mean")), g.need(&format!("{at}.conv_norm_var")));
    let centred = g.binary(Op::Sub, convolved, mean);
    let deviation = g.unary(Op::Sqrt, variance);
    let normed = g.binary(Op::Div, centred, deviation);
    let norm = g.needed(&format!("{at}.conv_norm"));
    let normed = g.mul(normed, norm.weight);
    let normed = g.add_if(normed, norm.bias);
    let normed = g.unary(Op::Silu, normed);
    let second = g.need(&format!("{at}.conv_pw2.weight"));
    let convolved = g.product(second, normed);
    let x = g.add(x, convolved);

    let x = network(g, x, "_1");
    let norm = g.needed(&format!("{at}.ln2"));
    g.norm(Norm::Layer, x, norm)
}

fn parakeet_attention(g: &mut Clip, at: &str, x: Id, mask: Id, places: Id) -> Id {
    let (head, heads, width) = (g.sizes().head, g.sizes().heads, g.sizes().embedding);
    let frames = g.get(x).ne[1];
    let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(|name| {
        let matrix = g.need(&format!("{at}.{name}.weight"));
        let x = g.product(matrix, x);
        g.reshape(x, [head, heads, frames, 1])
    });
    let matrix = g.need(&format!("{at}.linear_pos.weight"));
    let p = g.product(matrix, places);
    let window = g.get(places).ne[1];
    let p = g.reshape(p, [head, heads, window, 1]);
    let p = g.cont_permuted(p, [0, 2, 1, 3]);
    let [content, place] = ["pos_bias_u", "pos_bias_v"].map(|name| {
        let bias = g.need(&format!("{at}.{name}"));
        g.add(q, bias)
    });
    let k = g.permute(k, [0, 2, 1, 3]);
    let content = g.permute(content, [0, 2, 1, 3]);
    let by_content = g.mul_mat(k, content);
    let place = g.cont_permuted(place, [0, 2, 1, 3]);
    let by_place = g.mul_mat(p, place);
    let [length, asked, many, _] = g.get(by_place).ne;
    let padded = g.pad(by_place, [1, 0, 0, 0]);
    let padded = g.reshape(padded, [asked, length + 1, many, 1]);
    let padded = g.cont(padded);
    let nb = g.get(padded).nb;
    let from = nb[0].saturating_mul(length / 2 + 1);
    let shifted = g.view_3d(padded, [asked, length, many], [length.saturating_mul(4), nb[2]], from);
    let shifted = g.cont(shifted);
    let nb = g.get(shifted).nb;
    let [seen, asked, ..] = g.get(by_content).ne;
    let shifted = g.view_3d(shifted, [seen, asked, many], [nb[1], nb[2]], 0);
    let shifted = g.cont(shifted);
    let scores = g.add(by_content, shifted);
    let scores = g.scale(scores);
    let scores = g.add(scores, mask);
    let weights = g.soft_max(scores, Id::NONE, Id::NONE);
    let v = g.cont_permuted(v, [1, 2, 0, 3]);
    let x = g.mul_mat(weights, v);
    let x = g.permute(x, [2, 0, 1, 3]);
    let x = g.cont_as(x, [width, frames, 1, 1]);
    let matrix = g.need(&format!("{at}.attn_out.weight"));
    g.product(matrix, x)
}

/// Gemma 4's audio: attention within chunks of twelve frames and the twelve before them.
fn gemma4_audio(g: &mut Clip) {
    g.clamps = true;
    let raw = g.raw(1);
    let mut x = g.cont_transposed(raw);
    for number in 0..2 {
        let pair = g.needed(&format!("a.conv1d.{number}"));
        x = g.conv_2d(pair.weight, x, Steps::of(2).padded(1));
        x = g.add_if(x, pair.bias);
        let weight = g.find(&format!("a.conv1d.{number}.norm.weight"));
        if weight != Id::NONE {
            x = g.cont_permuted(x, [1, 2, 0, 3]);
            x = g.norm(Norm::Layer, x, Pair { weight, bias: Id::NONE });
            x = g.cont_permuted(x, [2, 0, 1, 3]);
        }
        x = g.unary(Op::Unary, x);
    }
    let x = g.cont_permuted(x, [1, 2, 0, 3]);
    let ne = g.get(x).ne;
    let x = g.reshape(x, [ne[0].saturating_mul(ne[1]), ne[2], 1, 1]);
    let input = g.needed("a.input_projection");
    let mut x = g.linear(x, input);
    let frames = g.get(x).ne[1];
    let chunks = Chunks { frames, count: frames.div_ceil(Chunks::FRAMES) };
    let wide = g.sizes().heads.saturating_mul(g.sizes().head);
    let places = g.input(F32, [wide, Chunks::DISTANCES, 1, 1]);
    let mask = g.input(F32, [Chunks::SEEN, Chunks::FRAMES, chunks.count, 1]);
    for block in 0..g.sizes().blocks {
        x = gemma4_block(g, &format!("a.blk.{block}"), x, &chunks, places, mask);
    }
    let out = g.pair("a.pre_encode.out");
    if out.weight != Id::NONE {
        x = g.linear(x, out);
    }
    let weight = g.find("mm.a.soft_emb_norm.weight");
    let mut x = g.norm(Norm::Rms, x, Pair { weight, bias: Id::NONE });
    let matrix = g.find("mm.a.input_projection.weight");
    if matrix != Id::NONE {
        x = g.product(matrix, x);
    }
    g.expand(x);
}

/// The frames of sound in chunks.
struct Chunks {
    frames: u64,
    count: u64,
}

impl Chunks {
    /// Frames of a chunk, and as many before it that it looks at.
    const FRAMES: u64 = 12;
    const SEEN: u64 = 24;
    const DISTANCES: u64 = 13;
}

fn gemma4_block(g: &mut Clip, at: &str, x: Id, chunks: &Chunks, places: Id, mask: Id) -> Id {
    let residual = gemma4_network(g, at, "", x, x);
    let norm = ["attn_pre_norm", "ln1"].map(|name| g.find(&format!("{at}.{name}.weight")));
    let norm = if norm[0] == Id::NONE { norm[1] } else { norm[0] };
    let normed =
        if norm == Id::NONE { residual } else { g.norm(Norm::Rms, residual, Pair { weight: norm, bias: Id::NONE }) };
    let attended = gemma4_attention(g, at, normed, chunks, places, mask);
    let attended = normed_if(g, attended, &format!("{at}.attn_post_norm.weight"));
    let residual = g.add(residual, attended);

    // The file has the names of the two norms of the convolution the wrong way round.
    let weight = g.find(&format!("{at}.conv_norm.weight"));
    let mut residual = residual;
    if weight != Id::NONE {
        let normed = g.norm(Norm::Rms, residual, Pair { weight, bias: Id::NONE });
        let first = g.need(&format!("{at}.conv_pw1.weight"));
        let wide = g.product(first, normed);
        let gated = gated(g, wide, true);
        let gated = g.cont_transposed(gated);
        let padded = g.pad(gated, [4, 0, 0, 0]);
        let kernel = g.needed(&format!("{at}.conv_dw"));
        let convolved = g.ssm_conv(padded, kernel.weight);
        let convolved = g.add_if(convolved, kernel.bias);
        let convolved = normed_if(g, convolved, &format!("{at}.norm_conv.weight"));
        let convolved = g.unary(Op::Silu, convolved);
        let second = g.need(&format!("{at}.conv_pw2.weight"));
        let convolved = g.product(second, convolved);
        residual = g.add(residual, convolved);
    }
    let residual = gemma4_network(g, at, "_1", residual, residual);
    normed_if(g, residual, &format!("{at}.ln2.weight"))
}

fn gemma4_network(g: &mut Clip, at: &str, which: &str, x: Id, residual: Id) -> Id {
    let weight = g.need(&format!("{at}.ffn_norm{which}.weight"));
    let normed = g.norm(Norm::Rms, x, Pair { weight, bias: Id::NONE });
    let [up, down] = ["ffn_up", "ffn_down"].map(|name| g.needed(&format!("{at}.{name}{which}")).unbiased());
    let fed = g.feed(normed, Mlp { up, gate: Pair::NONE, down }, Act::Smooth);
    let fed = normed_if(g, fed, &format!("{at}.ffn_post_norm{which}.weight"));
    let fed = g.scale(fed);
    g.add(residual, fed)
}

fn normed_if(g: &mut Clip, x: Id, weight: &str) -> Id {
    let weight = g.find(weight);
    if weight == Id::NONE { x } else { g.norm(Norm::Rms, x, Pair { weight, bias: Id::NONE }) }
}

fn gemma4_attention(g: &mut Clip, at: &str, x: Id, chunks: &Chunks, places: Id, mask: Id) -> Id {
    let (head, heads) = (g.sizes().head, g.sizes().heads);
    let (frames, count) = (chunks.frames, chunks.count);
    let padded = count.saturating_mul(Chunks::FRAMES);
    let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(|name| {
        let matrix = g.need(&format!("{at}.{name}.weight"));
        let x = g.product(matrix, x);
        g.reshape(x, [head, heads, frames, 1])
    });
    let [q, k] = [(q, "per_dim_scale"), (k, "per_dim_k_scale")].map(|(x, name)| {
        let x = g.scale(x);
        let scale = g.find(&format!("{at}.{name}.weight"));
        if scale == Id::NONE {
            return x;
        }
        let scale = g.reshape(scale, [head, 1, 1, 1]);
        g.mul(x, scale)
    });
    let q = g.pad(q, [0, 0, padded - frames, 0]);
    let q = g.reshape(q, [head, heads, Chunks::FRAMES, count]);
    let q = g.cont_permuted(q, [0, 3, 1, 2]);
    // Chunks of keys and values overlap: a view steps on by one chunk and takes in two.
    let seen = Chunks::SEEN.saturating_mul(count);
    let overlapping = |g: &mut Clip, x: Id| {
        let x = g.pad(x, [0, 0, seen.saturating_sub(frames), 0]);
        let nb = g.get(x).nb;
        let strides = [nb[1], nb[2], nb[2].saturating_mul(Chunks::FRAMES)];
        let x = g.view(x, [head, heads, Chunks::SEEN, count], strides, 0);
        g.cont(x)
    };
    let k = overlapping(g, k);
    let k = g.cont_permuted(k, [0, 3, 1, 2]);
    let v = overlapping(g, v);
    let v = g.cont_permuted(v, [1, 3, 0, 2]);
    let mut scores = g.mul_mat(k, q);
    let matrix = g.find(&format!("{at}.attn_k_rel.weight"));
    if matrix != Id::NONE {
        let p = g.mul_mat(matrix, places);
        let p = g.reshape(p, [head, heads, Chunks::DISTANCES, 1]);
        let p = g.cont_permuted(p, [0, 2, 1, 3]);
        let flat = g.reshape(q, [head, padded, heads, 1]);
        let by_place = g.mul_mat(p, flat);
        let by_place = g.reshape(by_place, [Chunks::DISTANCES, Chunks::FRAMES, count, heads]);
        let by_place = g.pad(by_place, [Chunks::SEEN + 1 - Chunks::DISTANCES, 0, 0, 0]);
        let by_place = g.reshape(by_place, [(Chunks::SEEN + 1) * Chunks::FRAMES, count, heads, 1]);
        let nb = g.get(by_place).nb;
        let by_place = g.view_3d(by_place, [Chunks::FRAMES * Chunks::SEEN, count, heads], [nb[1], nb[2]], 0);
        let by_place = g.cont(by_place);
        let by_place = g.reshape(by_place, [Chunks::SEEN, Chunks::FRAMES, count, heads]);
        scores = g.add(scores, by_place);
    }
    let scores = g.scale(scores);
    let scores = g.unary(Op::Unary, scores);
    let scores = g.scale(scores);
    let scores = g.add(scores, mask);
    let weights = g.soft_max(scores, Id::NONE, Id::NONE);
    let x = g.mul_mat(v, weights);
    let x = g.cont_permuted(x, [0, 2, 3, 1]);
    let wide = head.saturating_mul(heads);
    let mut x = g.cont_as(x, [wide, padded, 1, 1]);
    if padded > frames {
        let row = g.get(x).nb[1];
        x = g.view_2d(x, [wide, frames], row, 0);
        x = g.cont(x);
    }
    let output = g.needed(&format!("{at}.attn_out"));
    g.linear(x, output)
}
