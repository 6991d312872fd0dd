//! Towers that turn queries and keys by row and column, without learned positions: Pixtral and
//! those close to it.

use super::Family;
use super::clip::{Act, Clip, Mlp, Pair, Vit};
use crate::memory::graph::convolve::Steps;
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::tensor::{F32, Id, row_bytes};

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    Some(match name {
        "pixtral" | "lightonocr" => pixtral,
        "dots_ocr" | "dots3note_v" => dots_ocr,
        "deepseek4v" => deepseek4v,
        _ => return None,
    })
}

/// Pixtral, Mistral Small and `LightOnOCR`: with a patch merger where the file has one, and with a
/// token at the end of each row of the image where it has that.
fn pixtral(g: &mut Clip) {
    let (patches, merge) = (g.patches(), g.sizes().merge);
    let (rows, columns) = (g.positions(patches), g.positions(patches));
    let x = g.patched();
    let mut turn = |g: &mut Clip, x: Id| g.rope_2d(x, rows, columns);
    let mut x = g.transform(x, patches, &mut Vit { turn: Some(&mut turn), ..Vit::new(Norm::Rms) });
    let merger = g.find("mm.patch_merger.weight");
    if merger != Id::NONE {
        let weight = g.need("mm.input_norm.weight");
        x = g.norm(Norm::Rms, x, Pair { weight, bias: Id::NONE });
        x = unfolded(g, x, merge);
        x = g.product(merger, x);
    }
    let mlp = Mlp { up: g.needed("mm.1"), gate: Pair::NONE, down: g.needed("mm.2") };
    x = g.feed(x, mlp, Act::Smooth);
    let row_end = g.find("v.token_embd.img_break");
    if row_end != Id::NONE && g.encoder.name == "pixtral" {
        let (columns, rows) = (g.columns() / merge.max(1), g.rows_of_patches() / merge.max(1));
        let width = g.get(x).ne[0];
        let grid = g.reshape(x, [width, columns, rows, 1]);
        let ends = g.constant(F32, [width, 1, rows, 1]);
        let ends = g.scale(ends);
        let ends = g.add(ends, row_end);
        let joined = g.concat(grid, ends, 1);
        let tokens = columns.saturating_mul(rows).saturating_add(rows).saturating_sub(1);
        x = g.view_2d(joined, [width, tokens], row_bytes(F32, width), 0);
    }
    g.expand(x);
}

/// dots.ocr and dots3.note: four positions for each patch.
fn dots_ocr(g: &mut Clip) {
    let patches = g.patches();
    let positions = g.positions(patches.saturating_mul(4));
    let x = g.patched();
    let mut turn = |g: &mut Clip, x: Id| g.rope(x, positions, Id::NONE);
    let x = g.transform(x, patches, &mut Vit { turn: Some(&mut turn), ..Vit::new(Norm::Rms) });
    let norm = g.needed("mm.input_norm");
    let x = g.norm(Norm::Layer, x, norm);
    let x = g.merged(x, g.sizes().merge);
    let x = g.feed_two(x, "mm.0", "mm.2");
    g.expand(x);
}

/// DeepSeek V4: joins squares of three by three patches and puts the tokens in the order the
/// language model wants them, with four kinds of its own between them.
fn deepseek4v(g: &mut Clip) {
    let (patches, merge) = (g.patches(), g.sizes().merge.max(1));
    let positions = g.positions(patches.saturating_mul(4));
    let x = g.patched();
    let mut turn = |g: &mut Clip, x: Id| g.rope(x, positions, Id::NONE);
    let x = g.transform(x, patches, &mut Vit { turn: Some(&mut turn), ..Vit::new(Norm::Rms) });
    let x = unfolded(g, x, merge);
    let mut x = g.feed_two(x, "mm.1", "mm.2");
    let width = g.get(x).ne[0];
    for name in ["token_embd.img_start", "token_embd.img_end", "image_newline", "token_embd.img_pad"] {
        let token = g.need(&format!("v.{name}"));
        let token = g.reshape(token, [width, 1, 1, 1]);
        x = g.concat(x, token, 1);
    }
    let tokens = tokens(g.columns().div_ceil(merge), g.rows_of_patches().div_ceil(merge));
    let order = g.positions(tokens);
    let x = g.get_rows(x, order);
    g.expand(x);
}

/// Returns the tokens of an image of DeepSeek V4: rows in pairs, each with its end, in a frame
/// (`dsv4_get_block_layout`).
fn tokens(columns: u64, rows: u64) -> u64 {
    let (rows, row) = (rows + rows % 2, columns + 1);
    let odd = (rows / 2).saturating_mul(row) % 2;
    rows.saturating_mul(row).saturating_add(odd * 2 + 2)
}

/// Unfolds squares of patches: each becomes a row (`ggml_im2col` over a kernel of shape alone).
fn unfolded(g: &mut Clip, x: Id, merge: u64) -> Id {
    let (columns, rows, width) = (g.columns(), g.rows_of_patches(), g.sizes().embedding);
    let x = g.reshape(x, [width, columns, rows, 1]);
    let mut x = g.cont_permuted(x, [2, 0, 1, 3]);
    let short = |count: u64| count.next_multiple_of(merge.max(1)) - count;
    if g.encoder.name == "deepseek4v" && (short(columns) > 0 || short(rows) > 0) {
        x = g.pad(x, [short(columns), short(rows), 0, 0]);
    }
    let channels = g.get(x).ne[2];
    let kernel = g.view_3d(x, [merge, merge, channels], [0, 0], 0);
    let x = g.im2col(kernel, x, Steps::of(merge), F32);
    let ne = g.get(x).ne;
    g.reshape(x, [ne[0], ne[1].saturating_mul(ne[2]), 1, 1])
}
