//! Towers with class tokens beside the patches, and others that fit nowhere else.

use super::Family;
use super::clip::{Act, Clip, Mlp, Pair, Qkv, Vit};
use crate::memory::graph::convolve::Steps;
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::ops::Glu;
use crate::memory::graph::tensor::{F32, Id, Op, row_bytes};

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    Some(match name {
        "internvl" => internvl,
        "nemotron_v2_vl" => nemotron,
        "llama4" => llama4,
        "cogvlm" => cogvlm,
        "muse-glimmer" => muse_glimmer,
        _ => return None,
    })
}

/// `InternVL`: a class token after the patches, dropped behind the tower. The largest tower norms by
/// root mean square.
fn internvl(g: &mut Clip) {
    let (patches, embedding) = (g.patches(), g.sizes().embedding);
    let x = g.patched();
    let class = g.need("v.class_embd");
    let width = g.get(class).ne[0];
    let class = g.repeat(class, [width, 1, 1, 1]);
    let x = g.concat(x, class, 1);
    let positions = g.need("v.position_embd.weight");
    let norm = if embedding == 3_200 && g.sizes().blocks == 45 { Norm::Rms } else { Norm::Layer };
    let x = g.transform(x, patches + 1, &mut Vit { positions, ..Vit::new(norm) });
    let nb = g.get(x).nb;
    let x = g.view_3d(x, [embedding, patches, 1], [nb[1], nb[2]], 0);
    let x = g.cont(x);
    let x = shuffled(g, x);
    let x = g.permute(x, [0, 2, 1, 3]);
    let ne = g.get(x).ne;
    let x = g.cont_as(x, [ne[0], ne[1].saturating_mul(ne[2]), ne[3], 1]);
    let norm = g.needed("mm.model.mlp.0");
    let x = g.norm(Norm::Layer, x, norm);
    let x = g.feed_two(x, "mm.model.mlp.1", "mm.model.mlp.3");
    g.expand(x);
}

/// Nemotron Nano V2 VL: several registers before the patches.
fn nemotron(g: &mut Clip) {
    let (patches, embedding) = (g.patches(), g.sizes().embedding);
    let class = g.need("v.class_embd");
    let registers = g.get(class).ne[1];
    let x = g.patched();
    let positions = g.need("v.position_embd.weight");
    let x = g.add(x, positions);
    let x = g.concat(class, x, 1);
    let x = g.transform(x, patches.saturating_add(registers), &mut Vit::new(Norm::Layer));
    let row = row_bytes(F32, embedding);
    let x = g.view_2d(x, [embedding, patches], row, registers.saturating_mul(row));
    let x = g.merged(x, g.sizes().merge);
    let weight = g.need("mm.model.mlp.0.weight");
    let x = g.norm(Norm::Rms, x, Pair { weight, bias: Id::NONE });
    let [up, down] = ["mm.model.mlp.1", "mm.model.mlp.3"].map(|name| g.needed(name).unbiased());
    let x = g.feed(x, Mlp { up, gate: Pair::NONE, down }, Act::ReluSqr);
    g.expand(x);
}

/// Llama 4: patches are unfolded and multiplied with a matrix, and turned by row and column.
fn llama4(g: &mut Clip) {
    let (patches, patch, embedding, merge) = (g.patches(), g.sizes().patch, g.sizes().embedding, g.sizes().merge);
    let positions = patches + 1;
    let (rows, columns) = (g.positions(positions), g.positions(positions));
    let raw = g.raw(3);
    let matrix = g.need("v.patch_embd.weight");
    let kernel = g.reshape(matrix, [patch, patch, 3, embedding]);
    let x = g.im2col(kernel, raw, Steps::of(patch), F32);
    let x = g.product(matrix, x);
    let x = g.reshape(x, [embedding, patches, 1, 1]);
    let class = g.need("v.class_embd");
    let x = g.concat(x, class, 1);
    let learned = g.need("v.position_embd.weight");
    let mut turn = |g: &mut Clip, x: Id| g.rope_2d(x, columns, rows);
    let mut vit = Vit { positions: learned, turn: Some(&mut turn), ..Vit::new(Norm::Layer) };
    let x = g.transform(x, positions, &mut vit);
    let x = g.view_2d(x, [embedding, patches], row_bytes(F32, embedding), 0);
    let x = shuffled(g, x);
    let square = merge.saturating_mul(merge).max(1);
    let x = g.cont_as(x, [embedding.saturating_mul(square), patches / square, 1, 1]);
    let mut x = x;
    for matrix in ["mm.model.mlp.1.weight", "mm.model.mlp.2.weight"] {
        let matrix = g.need(matrix);
        x = g.product(matrix, x);
        x = g.unary(Op::Unary, x);
    }
    let matrix = g.need("mm.model.fc.weight");
    let x = g.product(matrix, x);
    g.expand(x);
}

/// `CogVLM`: norms behind attention and network, gated projector, tokens before and after the image.
fn cogvlm(g: &mut Clip) {
    let (patches, embedding) = (g.patches(), g.sizes().embedding);
    let (head, heads) = (g.sizes().head, g.sizes().heads);
    let positions = patches + 1;
    let x = g.patched();
    let class = g.need("v.class_embd");
    let x = g.concat(x, class, 1);
    let learned = g.need("v.position_embd.weight");
    let mut x = g.add(x, learned);
    for block in 0..g.sizes().blocks {
        let at = format!("v.blk.{block}");
        let fused = g.needed(&format!("{at}.attn_qkv"));
        let qkv = g.linear(x, fused);
        let [q, k, v] = [0, 1, 2].map(|n| g.heads_of(qkv, head, heads, positions, 1, embedding.saturating_mul(n)));
        let output = g.needed(&format!("{at}.attn_out"));
        let attended = g.attend(output, Qkv { q, k, v }, Id::NONE);
        let norm = g.pair(&format!("{at}.ln1"));
        let attended = g.norm(Norm::Layer, attended, norm);
        x = g.add(attended, x);
        let mlp = g.mlp(&at);
        let fed = g.feed(x, mlp, Act::Smooth);
        let norm = g.pair(&format!("{at}.ln2"));
        let fed = g.norm(Norm::Layer, fed, norm);
        x = g.add(fed, x);
    }
    let x = g.view_2d(x, [embedding, patches], row_bytes(F32, embedding), 0);
    let matrix = g.need("mm.model.fc.weight");
    let x = g.product(matrix, x);
    let norm = g.needed("mm.post_fc_norm");
    let x = g.norm(Norm::Layer, x, norm);
    let x = g.unary_inplace(x);
    let [up, gate, down] = ["mm.up.weight", "mm.gate.weight", "mm.down.weight"].map(|name| g.need(name));
    let up = g.product(up, x);
    let gate = g.product(gate, x);
    let x = g.glu(Glu::Plain, gate, up);
    let x = g.product(down, x);
    framed(g, x);
}

/// Muse Glimmer: patches in the order of windows, three blocks of four look at their window only.
fn muse_glimmer(g: &mut Clip) {
    let (patches, merge, embedding) = (g.patches(), g.sizes().merge.max(1), g.sizes().embedding);
    let [columns, rows, order, back, squares] = [(); 5].map(|()| g.positions(patches));
    let mask = g.square_mask(patches);
    let x = g.patched();
    let positions = g.stretched_positions();
    let x = g.add(x, positions);
    let x = g.get_rows(x, order);
    let blocks = g.sizes().blocks;
    let windowed = |block: u64| if block + 1 == blocks || (block + 1).is_multiple_of(4) { Id::NONE } else { mask };
    let mut turn = |g: &mut Clip, x: Id| g.rope_2d(x, columns, rows);
    let mut vit = Vit { turn: Some(&mut turn), mask: &windowed, ..Vit::new(Norm::Layer) };
    let x = g.transform(x, patches, &mut vit);
    let x = g.get_rows(x, back);
    let x = g.get_rows(x, squares);
    let (square, tokens) =
        (merge.saturating_mul(merge), (g.columns() / merge).saturating_mul(g.rows_of_patches() / merge));
    let x = g.reshape(x, [embedding, square, tokens, 1]);
    let x = g.cont_permuted(x, [1, 0, 2, 3]);
    let mut x = g.reshape(x, [embedding.saturating_mul(square), tokens, 1, 1]);
    for matrix in ["mm.0.weight", "mm.1.weight"] {
        let matrix = g.need(matrix);
        x = g.product(matrix, x);
        x = g.unary(Op::Unary, x);
    }
    let matrix = g.need("mm.2.weight");
    let x = g.product(matrix, x);
    g.expand(x);
}

/// Joins squares of patches, so far as `InternVL` and Llama 4 do it alike.
fn shuffled(g: &mut Clip, x: Id) -> Id {
    let (columns, rows, merge) = (g.columns(), g.rows_of_patches(), g.sizes().merge.max(1));
    let wide = g.sizes().embedding.saturating_mul(merge);
    let x = g.reshape(x, [wide, rows / merge, columns, 1]);
    let x = g.permute(x, [0, 2, 1, 3]);
    g.cont_as(x, [wide.saturating_mul(merge), rows / merge, columns / merge, 1])
}

/// Puts the tokens that begin and end an image around it.
pub(super) fn framed(g: &mut Clip, x: Id) {
    let (begin, end) = (g.need("v.boi"), g.need("v.eoi"));
    let x = g.concat(begin, x, 1);
    let x = g.concat(x, end, 1);
    g.expand(x);
}
