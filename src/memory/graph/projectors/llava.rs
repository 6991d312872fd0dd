//! LLaVA's tower, which stops before its last block, and the projectors that go with it.

use super::Family;
use super::clip::{Act, Clip};
use crate::memory::graph::convolve::Steps;
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::ops::Glu;
use crate::memory::graph::tensor::{Id, Op};

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    Some(match name {
        "mlp" => mlp,
        "ldp" => ldp,
        "ldpv2" => ldp_v2,
        "adapter" => glm_edge,
        _ => return None,
    })
}

/// Side of the grid of patches that `MobileVLM`'s projectors are made for.
const MOBILE_SIDE: u64 = 24;

/// LLaVA: one matrix or two; with norms between them where the file has a fourth tensor (Yi).
fn mlp(g: &mut Clip) {
    let x = rows(g);
    let first = g.needed("mm.0");
    let mut x = g.linear(x, first);
    let third = g.pair("mm.3");
    if third.weight == Id::NONE {
        x = g.unary(Op::Unary, x);
        let second = g.pair("mm.2");
        if second.weight != Id::NONE {
            x = g.linear(x, second);
        }
    } else {
        let norm = g.needed("mm.1");
        x = g.norm(Norm::Layer, x, norm);
        x = g.unary(Op::Unary, x);
        x = g.linear(x, third);
        let norm = g.needed("mm.4");
        x = g.norm(Norm::Layer, x, norm);
    }
    g.expand(x);
}

/// `MobileVLM`: two blocks of a mobile network, the second halving the grid.
fn ldp(g: &mut Clip) {
    let x = rows(g);
    let x = two_matrices(g, x, "mm.model.mlp.1", "mm.model.mlp.3");
    let x = on_grid(g, x);
    let first = mobile_block(g, x, 1, Steps::of(1).padded(1));
    let first = g.cont_permuted(first, [2, 0, 1, 3]);
    let first = g.add(x, first);
    let x = mobile_block(g, first, 2, Steps::of(2).padded(1));
    let ne = g.get(x).ne;
    let x = g.reshape(x, [ne[0], ne[1].saturating_mul(ne[2]), ne[3], 1]);
    g.expand(x);
}

/// `MobileVLM` V2: pooling, and a convolution that tells where a token stands.
fn ldp_v2(g: &mut Clip) {
    let x = rows(g);
    let x = two_matrices(g, x, "mm.model.mlp.0", "mm.model.mlp.2");
    let x = on_grid(g, x);
    let x = g.pool_2d(x, 2, 2);
    let peg = g.needed("mm.model.peg.0");
    let place = g.conv_2d_dw(peg.weight, x, Steps::of(1).padded(1));
    let place = g.cont_permuted(place, [1, 2, 0, 3]);
    let place = g.add_if(place, peg.bias);
    let x = g.cont_permuted(x, [1, 2, 0, 3]);
    let x = g.add(place, x);
    let ne = g.get(x).ne;
    let x = g.reshape(x, [ne[0], ne[1].saturating_mul(ne[2]), ne[3], 1]);
    g.expand(x);
}

/// GLM-Edge: a convolution that halves the grid, a gated network, tokens before and after.
fn glm_edge(g: &mut Clip) {
    let x = tower(g);
    let side = g.get(x).ne[1].isqrt();
    let x = g.permute(x, [1, 0, 2, 3]);
    let channels = g.get(x).ne[1];
    let x = g.cont_as(x, [side, side, channels, 1]);
    let convolution = g.needed("adapter.conv");
    let x = g.conv_2d(convolution.weight, x, Steps::of(2));
    let ne = g.get(x).ne;
    let x = g.reshape(x, [ne[0].saturating_mul(ne[1]), ne[2], 1, 1]);
    let x = g.cont_permuted(x, [1, 0, 2, 3]);
    let x = g.add_if(x, convolution.bias);
    let [first, up, gate, down] = ["linear", "dense_h_to_4h", "gate", "dense_4h_to_h"]
        .map(|name| g.need(&format!("adapter.linear.{name}.weight")));
    let x = g.product(first, x);
    let norm = g.needed("adapter.linear.norm1");
    let x = g.norm(Norm::Layer, x, norm);
    let x = g.unary_inplace(x);
    let gate = g.product(gate, x);
    let up = g.product(up, x);
    let x = g.glu(Glu::Plain, gate, up);
    let x = g.product(down, x);
    let (begin, end) = (g.need("adapter.boi"), g.need("adapter.eoi"));
    let x = g.concat(begin, x, 1);
    let x = g.concat(x, end, 1);
    g.expand(x);
}

/// Returns the rows of the patches, the class token's left out.
fn rows(g: &mut Clip) -> Id {
    let x = tower(g);
    let ne = g.get(x).ne;
    let x = g.reshape(x, [ne[0], ne[1], 1, 1]);
    let patches = g.patches();
    let ids = g.positions(patches);
    g.get_rows(x, ids)
}

/// The tower up to the last block but one, or to the deepest block whose result is asked for; where
/// several are asked for, they are laid side by side (Granite).
fn tower(g: &mut Clip) -> Id {
    let class = g.find("v.class_embd");
    let positions = g.patches().saturating_add(u64::from(class != Id::NONE));
    let mut x = g.patched();
    if class != Id::NONE {
        x = g.concat(x, class, 1);
    }
    let ids = g.positions(positions);
    let table = g.need("v.position_embd.weight");
    let learned = g.get_rows(table, ids);
    x = g.add(x, learned);
    let pre = g.pair("v.pre_ln");
    if pre.weight != Id::NONE {
        x = g.norm(Norm::Layer, x, pre);
    }
    let blocks = g.sizes().blocks;
    let usual = if g.encoder.name == "adapter" { blocks } else { blocks.saturating_sub(1) };
    let deepest = (0..=blocks).rev().find(|&block| g.encoder.lists("feature_layer", block));
    let last = deepest.unwrap_or(usual);
    let mut kept = Vec::new();
    for block in 0..last {
        if g.encoder.lists("feature_layer", block) {
            kept.push(x);
        }
        let at = format!("v.blk.{block}");
        let norm = g.pair(&format!("{at}.ln1"));
        let normed = g.norm(Norm::Layer, x, norm);
        let qkv = g.project(&at, normed, Norm::Layer, positions, 1);
        let output = g.needed(&format!("{at}.attn_out"));
        let attended = g.attend(output, qkv, Id::NONE);
        x = g.add(attended, x);
        let norm = g.pair(&format!("{at}.ln2"));
        let normed = g.norm(Norm::Layer, x, norm);
        let mlp = g.mlp(&at);
        let fed = g.feed(normed, mlp, Act::Smooth);
        x = g.add(x, fed);
    }
    let post = g.pair("v.post_ln");
    if post.weight != Id::NONE {
        x = g.norm(Norm::Layer, x, post);
    }
    if g.encoder.lists("feature_layer", last) {
        kept.push(x);
    }
    kept.into_iter().reduce(|side, other| g.concat(side, other, 0)).unwrap_or(x)
}

fn two_matrices(g: &mut Clip, x: Id, first: &str, second: &str) -> Id {
    let (first, second) = (g.needed(first), g.needed(second));
    let x = g.linear(x, first);
    let x = g.unary(Op::Unary, x);
    g.linear(x, second)
}

/// Lays rows out as a grid with the channels last.
fn on_grid(g: &mut Clip, x: Id) -> Id {
    let x = g.permute(x, [1, 0, 2, 3]);
    let ne = g.get(x).ne;
    g.cont_as(x, [MOBILE_SIDE, MOBILE_SIDE, ne[1], ne[2]])
}

/// A depthwise convolution, a gate over all places, a pointwise convolution: each with its norm.
fn mobile_block(g: &mut Clip, x: Id, number: u32, steps: Steps) -> Id {
    let at = |part: &str| format!("mm.model.mb_block.{number}.block.{part}");
    let kernel = g.need(&at("0.0.weight"));
    let x = g.conv_2d_dw(kernel, x, steps);
    let x = g.cont_permuted(x, [1, 2, 0, 3]);
    let norm = g.needed(&at("0.1"));
    let x = g.norm(Norm::Layer, x, norm);
    let x = g.cont_permuted(x, [2, 0, 1, 3]);
    let swished = g.unary(Op::Unary, x);
    let [width, height, channels, images] = g.get(swished).ne;
    let gate = g.pool_2d(swished, width, height);
    let gate = g.reshape(gate, [channels, images, 1, 1]);
    let (first, second) = (g.needed(&at("1.fc1")), g.needed(&at("1.fc2")));
    let gate = g.linear(gate, first);
    let gate = g.unary(Op::Unary, gate);
    let gate = g.linear(gate, second);
    let gate = g.unary(Op::Unary, gate);
    let ne = g.get(gate).ne;
    let gate = g.reshape(gate, [1, 1, ne[0], ne[1]]);
    let x = g.mul(swished, gate);
    let x = g.reshape(x, [width.saturating_mul(height), channels, images, 1]);
    let x = g.cont_permuted(x, [1, 0, 2, 3]);
    let matrix = g.need(&at("2.0.weight"));
    let x = g.product(matrix, x);
    let ne = g.get(x).ne;
    let x = g.reshape(x, [ne[0], width, height, ne[3]]);
    let norm = g.needed(&at("2.1"));
    g.norm(Norm::Layer, x, norm)
}
