//! Gemma 3n's encoder of images: `MobileNet` V5, convolutions in four stages.

use super::Family;
use super::clip::{Clip, Pair};
use crate::memory::graph::convolve::Steps;
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::tensor::{Id, Op, Tensor};

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    (name == "gemma3nv").then_some(mobilenet)
}

/// More blocks than a stage has.
const MOST_BLOCKS: u64 = 512;

/// Side of the grid of tokens.
const SIDE: u64 = 16;

fn mobilenet(g: &mut Clip) {
    let raw = g.raw(3);
    let x = padded_same(g, raw, 3, 2);
    let kernel = g.need("v.conv_stem.conv.weight");
    let x = g.conv_2d_direct(kernel, x, Steps::of(2));
    let bias = g.find("v.conv_stem.conv.bias");
    let x = g.add_if(x, bias);
    let x = channel_norm(g, x, "v.conv_stem.bn.weight");
    let mut x = g.unary(Op::Unary, x);

    let stages = stages(g);
    let last = stages.len().checked_sub(1);
    let mut features = Vec::new();
    for (number, &(stage, blocks)) in stages.iter().enumerate() {
        for block in 0..blocks {
            x = one_block(g, &format!("v.blk.{stage}.{block}"), x, if block == 0 { 2 } else { 1 });
        }
        // The last two of four stages are joined.
        if Some(number) == last || (stages.len() >= 4 && number == 2) {
            features.push(x);
        }
    }
    if !features.is_empty() {
        x = joined(g, &features);
    }
    let [width, height, channels, images] = g.get(x).ne;
    let x = g.permute(x, [2, 1, 0, 3]);
    let x = g.cont_permuted(x, [0, 2, 1, 3]);
    let x = g.reshape(x, [channels, width.saturating_mul(height), images, 1]);
    let x = g.cont(x);
    let x = g.scale(x);
    let weight = g.need("mm.soft_emb_norm.weight");
    let x = g.norm(Norm::Rms, x, Pair { weight, bias: Id::NONE });
    let matrix = g.need("mm.input_projection.weight");
    let x = g.product(matrix, x);
    let x = g.norm(Norm::Rms, x, Pair::NONE);
    g.expand(x);
}

/// Returns the stages that have blocks, each with their number.
fn stages(g: &Clip) -> Vec<(u64, u64)> {
    let has = |stage: u64, block: u64| {
        ["conv_exp", "dw_start.conv", "pw_exp.conv", "attn.query.proj"]
            .iter()
            .any(|name| g.encoder.tensor(&format!("v.blk.{stage}.{block}.{name}.weight")).is_some())
    };
    let count = |stage: u64| (0..MOST_BLOCKS).take_while(|&block| has(stage, block)).count() as u64;
    (0..4).map(|stage| (stage, count(stage))).filter(|&(_, blocks)| blocks > 0).collect()
}

/// Joins the last stages at the resolution of the first of them, then pools to the tokens.
fn joined(g: &mut Clip, features: &[Id]) -> Id {
    let [width, height, ..] = g.get(features[0]).ne;
    let mut all = Id::NONE;
    for &feature in features {
        let [own_width, own_height, channels, images] = g.get(feature).ne;
        let mut feature = feature;
        if own_width < width || own_height < height {
            let scale = width / own_width.max(1);
            let ne = [own_width.saturating_mul(scale), own_height.saturating_mul(scale), channels, images];
            feature = g.interpolate(feature, ne);
        }
        all = if all == Id::NONE { feature } else { g.concat(all, feature, 2) };
    }
    let mut x = all;
    let expand = g.find("v.msfa.ffn.pw_exp.conv.weight");
    if expand != Id::NONE {
        x = g.conv_2d_direct(expand, x, Steps::of(1));
        x = channel_norm(g, x, "v.msfa.ffn.pw_exp.bn.weight");
        x = g.unary(Op::Unary, x);
    }
    let project = g.find("v.msfa.ffn.pw_proj.conv.weight");
    if project != Id::NONE {
        x = g.conv_2d_direct(project, x, Steps::of(1));
        x = channel_norm(g, x, "v.msfa.ffn.pw_proj.bn.weight");
    }
    let width = g.get(x).ne[0];
    if width > SIDE {
        x = g.pool_2d(x, width / SIDE, width / SIDE);
    }
    channel_norm(g, x, "v.msfa.norm.weight")
}

fn one_block(g: &mut Clip, at: &str, x: Id, stride: u64) -> Id {
    let edge = g.find(&format!("{at}.conv_exp.weight"));
    let query = g.find(&format!("{at}.attn.query.proj.weight"));
    if edge != Id::NONE {
        edge_residual(g, at, x, edge, stride)
    } else if query != Id::NONE {
        attention(g, at, x, query)
    } else {
        inverted_residual(g, at, x, stride)
    }
}

/// Wide to narrow: an expanding convolution, then a pointwise one.
fn edge_residual(g: &mut Clip, at: &str, input: Id, kernel: Id, stride: u64) -> Id {
    let x = if stride == 2 {
        let padded = padded_same(g, input, 3, stride);
        g.conv_2d_direct(kernel, padded, Steps::of(stride))
    } else {
        g.conv_2d_direct(kernel, input, Steps::of(stride).padded(1))
    };
    let x = channel_norm(g, x, &format!("{at}.bn1.weight"));
    let x = g.unary(Op::Unary, x);
    let kernel = g.need(&format!("{at}.conv_pwl.weight"));
    let x = g.conv_2d_direct(kernel, x, Steps::of(1));
    let x = channel_norm(g, x, &format!("{at}.bn2.weight"));
    let (from, to) = (g.get(input).ne, g.get(x).ne);
    if stride == 1 && from[2] == to[2] && from[0] == to[0] { g.add(x, input) } else { x }
}

/// Narrow to wide to narrow, with convolutions of each channel between.
fn inverted_residual(g: &mut Clip, at: &str, input: Id, stride: u64) -> Id {
    let mut x = input;
    let start = g.find(&format!("{at}.dw_start.conv.weight"));
    if start != Id::NONE {
        let half = g.get(start).ne[0] / 2;
        x = g.conv_2d_dw(start, x, Steps::of(1).padded(half));
        x = channel_norm(g, x, &format!("{at}.dw_start.bn.weight"));
    }
    let expand = g.find(&format!("{at}.pw_exp.conv.weight"));
    if expand != Id::NONE {
        x = g.conv_2d_direct(expand, x, Steps::of(1));
        x = channel_norm(g, x, &format!("{at}.pw_exp.bn.weight"));
        x = g.unary(Op::Unary, x);
    }
    let middle = g.find(&format!("{at}.dw_mid.conv.weight"));
    if middle != Id::NONE {
        let kernel = g.get(middle).ne[0];
        x = if stride > 1 {
            let padded = padded_same(g, x, kernel, stride);
            g.conv_2d_dw(middle, padded, Steps::of(stride))
        } else {
            g.conv_2d_dw(middle, x, Steps::of(stride).padded(kernel / 2))
        };
        x = channel_norm(g, x, &format!("{at}.dw_mid.bn.weight"));
        x = g.unary(Op::Unary, x);
    }
    let project = g.find(&format!("{at}.pw_proj.conv.weight"));
    if project != Id::NONE {
        x = g.conv_2d_direct(project, x, Steps::of(1));
        x = channel_norm(g, x, &format!("{at}.pw_proj.bn.weight"));
    }
    let scale = g.find(&format!("{at}.layer_scale.gamma"));
    x = g.mul_if(x, scale);
    if g.get(input).ne[..3] == g.get(x).ne[..3] { g.add(x, input) } else { x }
}

/// Attention of many query heads over one head of keys and values, taken from a smaller image.
fn attention(g: &mut Clip, at: &str, input: Id, query: Id) -> Id {
    let x = channel_norm(g, input, &format!("{at}.norm.weight"));
    let q = g.conv_2d_direct(query, x, Steps::of(1));
    let [k, v] = ["key", "value"].map(|name| {
        let mut from = x;
        let down = g.find(&format!("{at}.attn.{name}.down_conv.weight"));
        if down != Id::NONE {
            let kernel = g.get(down).ne[0];
            from = padded_same(g, from, kernel, 2);
            from = g.conv_2d_dw(down, from, Steps::of(2));
            from = channel_norm(g, from, &format!("{at}.attn.{name}.norm.weight"));
        }
        let kernel = g.need(&format!("{at}.attn.{name}.proj.weight"));
        g.conv_2d_direct(kernel, from, Steps::of(1))
    });
    let Tensor { ne: [width, height, _, images], .. } = *g.get(x);
    let [across, down, head, _] = g.get(k).ne;
    let heads = g.get(q).ne[2] / head.max(1);
    let (places, seen) = (width.saturating_mul(height), across.saturating_mul(down));
    let wide = head.saturating_mul(heads);
    let q = g.reshape(q, [places, wide, images, 1]);
    let q = g.reshape(q, [places, head, heads, images]);
    let q = g.cont_permuted(q, [1, 0, 2, 3]);
    let k = g.reshape(k, [seen, head, images, 1]);
    let k = g.reshape(k, [seen, head, 1, images]);
    let k = g.cont_permuted(k, [1, 0, 2, 3]);
    let v = g.reshape(v, [seen, head, images, 1]);
    let v = g.reshape(v, [seen, head, 1, images]);
    let v = g.cont(v);
    let scores = g.mul_mat(k, q);
    let scores = g.scale(scores);
    let scores = g.soft_max(scores, Id::NONE, Id::NONE);
    let attended = g.mul_mat(v, scores);
    let attended = g.cont_permuted(attended, [1, 0, 2, 3]);
    let attended = g.reshape(attended, [places, wide, images, 1]);
    let attended = g.reshape(attended, [width, height, wide, images]);
    let attended = g.cont(attended);
    let kernel = g.need(&format!("{at}.attn.output.proj.weight"));
    let x = g.conv_2d_direct(kernel, attended, Steps::of(1));
    let (from, to) = (g.get(input).ne, g.get(x).ne);
    if from[0] != to[0] || from[2] != to[2] {
        return x;
    }
    let scale = g.find(&format!("{at}.layer_scale.gamma"));
    let x = g.mul_if(x, scale);
    g.add(x, input)
}

/// Norms over the channels of each place, where the file has the weight.
fn channel_norm(g: &mut Clip, x: Id, weight: &str) -> Id {
    let weight = g.find(weight);
    if weight == Id::NONE {
        return x;
    }
    let x = g.cont_permuted(x, [2, 1, 0, 3]);
    let x = g.norm(Norm::Rms, x, Pair { weight, bias: Id::NONE });
    g.cont_permuted(x, [2, 1, 0, 3])
}

/// Pads so that an image of any size is covered (`pad_same_2d`).
fn padded_same(g: &mut Clip, x: Id, kernel: u64, stride: u64) -> Id {
    let ne = g.get(x).ne;
    let short = |size: u64| {
        let covered = (size.div_ceil(stride).saturating_sub(1)).saturating_mul(stride).saturating_add(kernel);
        covered.saturating_sub(size)
    };
    let by = [short(ne[0]), short(ne[1]), 0, 0];
    if by == [0; 4] { x } else { g.pad(x, by) }
}
