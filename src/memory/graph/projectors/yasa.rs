//! Reka's Yasa 2: `ConvNeXt` V2, convolutions in stages.

use super::Family;
use super::clip::{Clip, Pair};
use crate::memory::graph::convolve::Steps;
use crate::memory::graph::tensor::{Id, Op};

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    (name == "yasa2").then_some(yasa)
}

/// More stages, and more blocks of a stage, than there are.
const MOST: u64 = 256;

/// Side of the grid of tokens.
const SIDE: u64 = 8;

fn yasa(g: &mut Clip) {
    let raw = g.raw(3);
    let kernel = g.needed("v.patch_embd");
    let patch = g.sizes().patch;
    let x = g.conv_2d(kernel.weight, raw, Steps::of(patch));
    let x = by_channel(g, Op::Add, x, kernel.bias);
    let norm = g.pair("v.patch_ln");
    let mut x = channel_norm(g, x, norm);
    for stage in 0..MOST {
        let down = g.pair(&format!("v.stage.{stage}.down.conv"));
        if down.weight != Id::NONE {
            let norm = g.pair(&format!("v.stage.{stage}.down.ln"));
            x = channel_norm(g, x, norm);
            x = g.conv_2d(down.weight, x, Steps::of(2));
            x = by_channel(g, Op::Add, x, down.bias);
        }
        let blocks =
            (0..MOST).take_while(|block| g.encoder.tensor(&format!("v.stage.{stage}.blk.{block}.dw.weight")).is_some());
        let blocks = blocks.count();
        if blocks == 0 && down.weight == Id::NONE {
            break;
        }
        for block in 0..blocks {
            x = one_block(g, &format!("v.stage.{stage}.blk.{block}"), x);
        }
    }
    let [width, height, channels, images] = g.get(x).ne;
    let places = width.saturating_mul(height);
    let x = g.reshape(x, [places, channels, images, 1]);
    let mut x = g.cont_permuted(x, [1, 0, 2, 3]);
    let learned = g.find("v.vision_pos_embed");
    if learned != Id::NONE && g.get(learned).ne[1] == places {
        let ne = g.get(learned).ne;
        let learned = g.reshape(learned, [ne[0], ne[1], 1, 1]);
        x = g.add(x, learned);
    }
    let x = g.cont_permuted(x, [1, 0, 2, 3]);
    let ne = g.get(x).ne;
    let x = g.reshape(x, [width, height, ne[1], ne[2]]);
    let window = |size: u64| (size / SIDE.min(size).max(1)).max(1);
    let x = g.pool_2d(x, window(width), window(height));
    let ne = g.get(x).ne;
    let x = g.reshape(x, [ne[0].saturating_mul(ne[1]), ne[2], ne[3], 1]);
    let x = g.cont_permuted(x, [1, 0, 2, 3]);
    let x = g.feed_two(x, "mm.0", "mm.2");
    g.expand(x);
}

/// A convolution of each channel, then two matrices over the channels with a norm over all places
/// between them.
fn one_block(g: &mut Clip, at: &str, input: Id) -> Id {
    let kernel = g.needed(&format!("{at}.dw"));
    let x = g.conv_2d_dw(kernel.weight, input, Steps::of(1).padded(3));
    let x = by_channel(g, Op::Add, x, kernel.bias);
    let norm = g.pair(&format!("{at}.ln"));
    let x = channel_norm(g, x, norm);
    let x = over_channels(g, x, &format!("{at}.pw1"));
    let x = g.unary(Op::Unary, x);
    let norm = g.pair(&format!("{at}.grn"));
    let x = place_norm(g, x, norm);
    let x = over_channels(g, x, &format!("{at}.pw2"));
    g.add(input, x)
}

/// Multiplies the channels of each place with a matrix.
fn over_channels(g: &mut Clip, x: Id, name: &str) -> Id {
    let [width, height, channels, images] = g.get(x).ne;
    let x = g.reshape(x, [width.saturating_mul(height), channels, images, 1]);
    let x = g.cont_permuted(x, [1, 0, 2, 3]);
    let matrix = g.needed(name);
    let mut x = g.mul_mat(matrix.weight, x);
    if matrix.bias != Id::NONE {
        let rows = g.get(matrix.bias).ne[0];
        let bias = g.reshape(matrix.bias, [rows, 1, 1, 1]);
        x = g.add(x, bias);
    }
    let channels = g.get(x).ne[0];
    let x = g.cont_permuted(x, [1, 0, 2, 3]);
    g.reshape(x, [width, height, channels, images])
}

/// A norm over the channels of each place, step by step (`layer_norm_channels`).
fn channel_norm(g: &mut Clip, x: Id, pair: Pair) -> Id {
    let x = g.cont_permuted(x, [2, 1, 0, 3]);
    let mean = g.sum_rows(Op::Mean, x);
    let x = g.binary(Op::Sub, x, mean);
    let squares = g.mul(x, x);
    let deviation = g.sum_rows(Op::Mean, squares);
    let deviation = g.unary(Op::Clamp, deviation);
    let deviation = g.unary(Op::Sqrt, deviation);
    let x = g.binary(Op::Div, x, deviation);
    let x = g.cont_permuted(x, [2, 1, 0, 3]);
    let x = by_channel(g, Op::Mul, x, pair.weight);
    by_channel(g, Op::Add, x, pair.bias)
}

/// A norm over all places of each channel (`convnext_grn`).
fn place_norm(g: &mut Clip, x: Id, pair: Pair) -> Id {
    let [width, height, channels, images] = g.get(x).ne;
    let squares = g.mul(x, x);
    let flat = g.reshape(squares, [width.saturating_mul(height), channels, 1, images]);
    let lengths = g.sum_rows(Op::SumRows, flat);
    let lengths = g.unary(Op::Sqrt, lengths);
    let mean = g.cont_permuted(lengths, [1, 0, 2, 3]);
    let mean = g.sum_rows(Op::Mean, mean);
    let mean = g.unary(Op::Clamp, mean);
    let shares = g.binary(Op::Div, lengths, mean);
    let shares = g.cont_permuted(shares, [0, 2, 1, 3]);
    let normed = g.mul(x, shares);
    let normed = by_channel(g, Op::Mul, normed, pair.weight);
    let normed = by_channel(g, Op::Add, normed, pair.bias);
    g.add(x, normed)
}

/// Adds or multiplies one number a channel, where there are some.
fn by_channel(g: &mut Clip, op: Op, x: Id, numbers: Id) -> Id {
    if numbers == Id::NONE {
        return x;
    }
    let channels = g.get(numbers).ne[0];
    let numbers = g.reshape(numbers, [1, 1, channels, 1]);
    g.binary(op, x, numbers)
}
