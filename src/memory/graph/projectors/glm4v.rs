//! Towers whose projector begins with a convolution over the grid of patches.

use super::Family;
use super::clip::{Act, Clip, Mlp, Pair, Vit};
use crate::memory::graph::convolve::Steps;
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::tensor::{F32, Id, Op};

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    Some(match name {
        "glm4v" | "glm5v" => glm4v,
        "hunyuanvl" => hunyuan_vl,
        "step3vl" => step3_vl,
        _ => return None,
    })
}

/// GLM-4.xV and GLM-5V: Qwen's patches, learned positions where the file has some.
fn glm4v(g: &mut Clip) {
    let (patches, embedding, merge) = (g.patches(), g.sizes().embedding, g.sizes().merge.max(1));
    let positions = g.positions(patches.saturating_mul(4));
    let raw = g.raw(3);
    let [one, other] = ["v.patch_embd.weight", "v.patch_embd.weight.1"].map(|name| g.need(name));
    let steps = Steps::of(g.sizes().patch);
    let one = g.conv_2d(one, raw, steps);
    let other = g.conv_2d(other, raw, steps);
    let x = g.add(one, other);
    let x = g.permute(x, [1, 2, 0, 3]);
    let x = in_token_order(g, x);
    let bias = g.need("v.patch_embd.bias");
    let mut x = g.add(x, bias);
    let norm = g.pair("v.norm_embd");
    if norm.weight != Id::NONE {
        x = g.norm(Norm::Rms, x, norm);
    }
    let mut learned = Id::NONE;
    if g.find("v.position_embd.weight") != Id::NONE {
        learned = g.stretched_positions();
        learned = in_token_order(g, learned);
    }
    let mut turn = |g: &mut Clip, x: Id| g.rope(x, positions, Id::NONE);
    let mut vit = Vit { positions: learned, turn: Some(&mut turn), ..Vit::new(Norm::Rms) };
    let x = g.transform(x, patches, &mut vit);

    let tokens = patches / merge / merge;
    let x = g.reshape(x, [embedding, merge, merge, tokens]);
    let x = g.cont_permuted(x, [2, 0, 1, 3]);
    let merger = g.needed("mm.patch_merger");
    let x = g.conv_2d(merger.weight, x, Steps::of(merge));
    let width = g.get(x).ne[2];
    let x = g.reshape(x, [width, tokens, 1, 1]);
    let x = g.add_if(x, merger.bias);
    let matrix = g.need("mm.model.fc.weight");
    let x = g.product(matrix, x);
    let norm = g.needed("mm.post_norm");
    let x = g.norm(Norm::Layer, x, norm);
    let x = g.unary(Op::Unary, x);
    let mlp = Mlp { up: g.needed("mm.up"), gate: g.needed("mm.gate"), down: g.needed("mm.down") };
    let x = g.feed(x, mlp, Act::Smooth);
    g.expand(x);
}

fn in_token_order(g: &mut Clip, x: Id) -> Id {
    let (columns, rows, embedding) = (g.columns(), g.rows_of_patches(), g.sizes().embedding);
    let x = g.cont_as(x, [embedding * 2, columns / 2, rows, 1]);
    let x = g.reshape(x, [embedding * 2, columns / 2, 2, rows / 2]);
    let x = g.permute(x, [0, 2, 1, 3]);
    g.cont_as(x, [embedding, columns.saturating_mul(rows), 1, 1])
}

/// Hunyuan VL: two convolutions, a token at the end of each row, one before and one after the image.
fn hunyuan_vl(g: &mut Clip) {
    let (patches, embedding, merge) = (g.patches(), g.sizes().embedding, g.sizes().merge.max(1));
    let (columns, rows) = (g.columns(), g.rows_of_patches());
    let positions = g.input(F32, [embedding, patches, 1, 1]);
    let x = g.patched();
    let x = g.transform(x, patches, &mut Vit { positions, ..Vit::new(Norm::Layer) });
    let weight = g.need("mm.pre_norm.weight");
    let x = g.norm(Norm::Rms, x, Pair { weight, bias: Id::NONE });
    let x = g.reshape(x, [embedding, columns, rows, 1]);
    let mut x = g.cont_permuted(x, [2, 0, 1, 3]);
    for (name, steps, last) in [("mm.0", Steps::of(merge), false), ("mm.2", Steps::of(1), true)] {
        let pair = g.needed(name);
        x = g.conv_2d(pair.weight, x, steps);
        x = biased_channels(g, x, pair.bias);
        x = if last { x } else { g.unary(Op::Unary, x) };
    }
    let (columns, rows, channels) = (columns / merge, rows / merge, g.get(x).ne[2]);
    let end = g.need("v.image_newline");
    let end = g.reshape(end, [1, 1, channels, 1]);
    let end = g.repeat(end, [1, rows, channels, 1]);
    let x = g.concat(x, end, 0);
    let x = g.permute(x, [1, 2, 0, 3]);
    let x = g.cont_as(x, [channels, (columns + 1).saturating_mul(rows), 1, 1]);
    let matrix = g.needed("mm.model.fc");
    let x = g.linear(x, matrix);
    let (begin, end) = (g.need("mm.image_begin"), g.need("mm.image_end"));
    let [begin, end] = [begin, end].map(|token| {
        let width = g.get(token).ne[0];
        g.reshape(token, [width, 1, 1, 1])
    });
    let x = g.concat(begin, x, 1);
    let x = g.concat(x, end, 1);
    let weight = g.need("mm.post_norm.weight");
    let x = g.norm(Norm::Rms, x, Pair { weight, bias: Id::NONE });
    g.expand(x);
}

/// Adds a bias to the channels of an image.
fn biased_channels(g: &mut Clip, x: Id, bias: Id) -> Id {
    if bias == Id::NONE {
        return x;
    }
    let channels = g.get(bias).ne[0];
    let bias = g.reshape(bias, [1, 1, channels, 1]);
    g.add(x, bias)
}

/// Step 3 VL: two convolutions that halve the grid.
fn step3_vl(g: &mut Clip) {
    let (patches, embedding) = (g.patches(), g.sizes().embedding);
    let (rows, columns) = (g.positions(patches), g.positions(patches));
    let x = g.patched();
    let positions = g.stretched_positions();
    let mut turn = |g: &mut Clip, x: Id| g.rope_2d(x, columns, rows);
    let x = g.transform(x, patches, &mut Vit { positions, turn: Some(&mut turn), ..Vit::new(Norm::Layer) });
    let x = g.permute(x, [1, 0, 2, 3]);
    let (width, height) = (g.columns(), g.rows_of_patches());
    let mut x = g.cont_as(x, [width, height, embedding, 1]);
    for name in ["mm.0", "mm.1"] {
        let pair = g.needed(name);
        x = g.conv_2d(pair.weight, x, Steps::of(2).padded(1));
        if pair.bias != Id::NONE {
            let [width, height, channels, _] = g.get(x).ne;
            x = g.reshape(x, [width.saturating_mul(height), channels, 1, 1]);
            x = g.cont_transposed(x);
            x = g.add(x, pair.bias);
            x = g.cont_transposed(x);
            x = g.reshape(x, [width, height, channels, 1]);
        }
    }
    let [width, height, channels, images] = g.get(x).ne;
    let x = g.reshape(x, [width.saturating_mul(height), channels, images, 1]);
    let x = g.cont_permuted(x, [1, 0, 2, 3]);
    let matrix = g.need("mm.model.fc.weight");
    let x = g.mul_mat(matrix, x);
    g.expand(x);
}
