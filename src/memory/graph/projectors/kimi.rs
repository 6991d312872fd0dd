//! Towers with both learned positions and turned queries and keys, whose patches are joined before
//! a network: Kimi's and `PaddleOCR`'s.

use super::Family;
use super::clip::{Clip, Vit};
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::tensor::{F32, Id, row_bytes};

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    Some(match name {
        "kimivl" => kimi_vl,
        "kimik25" => kimi_k25,
        "paddleocr" => paddle_ocr,
        _ => return None,
    })
}

/// Kimi VL.
fn kimi_vl(g: &mut Clip) {
    let patches = g.patches();
    let (rows, columns) = (g.positions(patches), g.positions(patches));
    let positions = g.stretched_positions();
    let x = g.patched();
    let mut turn = |g: &mut Clip, x: Id| g.rope_2d(x, columns, rows);
    let x = g.transform(x, patches, &mut Vit { positions, turn: Some(&mut turn), ..Vit::new(Norm::Layer) });
    joined(g, x);
}

/// Kimi K2.5, whose table of positions has a row and a column.
fn kimi_k25(g: &mut Clip) {
    let patches = g.patches();
    let (rows, columns) = (g.positions(patches), g.positions(patches));
    let learned = grid_positions(g);
    let x = g.patched();
    let x = g.add(x, learned);
    let mut turn = |g: &mut Clip, x: Id| g.rope_2d(x, columns, rows);
    let x = g.transform(x, patches, &mut Vit { turn: Some(&mut turn), ..Vit::new(Norm::Layer) });
    joined(g, x);
}

/// `PaddleOCR`: four positions for each patch, and the norm before patches are joined.
fn paddle_ocr(g: &mut Clip) {
    let patches = g.patches();
    let positions = g.positions(patches.saturating_mul(4));
    let learned = g.stretched_positions();
    let x = g.patched();
    let mut turn = |g: &mut Clip, x: Id| g.rope(x, positions, Id::NONE);
    let mut vit = Vit { positions: learned, turn: Some(&mut turn), ..Vit::new(Norm::Layer) };
    let x = g.transform(x, patches, &mut vit);
    let norm = g.needed("mm.input_norm");
    let x = g.norm(Norm::Layer, x, norm);
    let x = g.merged(x, g.sizes().merge);
    let x = g.feed_two(x, "mm.1", "mm.2");
    g.expand(x);
}

/// Joins patches, norms each of them, and projects what they became.
fn joined(g: &mut Clip, x: Id) {
    let (embedding, merge) = (g.sizes().embedding, g.sizes().merge.max(1));
    let x = g.merged(x, merge);
    let [wide, tokens, ..] = g.get(x).ne;
    let square = merge.saturating_mul(merge);
    let x = g.view_2d(x, [embedding, tokens.saturating_mul(square)], row_bytes(F32, embedding), 0);
    let norm = g.needed("mm.input_norm");
    let x = g.norm(Norm::Layer, x, norm);
    let x = g.view_2d(x, [wide, tokens], row_bytes(F32, wide), 0);
    let x = g.feed_two(x, "mm.1", "mm.2");
    g.expand(x);
}

/// Returns the positions of a grid, stretched where the image has another
/// (`resize_position_embeddings_3d`).
fn grid_positions(g: &mut Clip) -> Id {
    let table = g.need("v.position_embd.weight");
    let (columns, rows, embedding) = (g.columns(), g.rows_of_patches(), g.sizes().embedding);
    let flat = [embedding, columns.saturating_mul(rows), 1, 1];
    let [_, width, height, _] = g.get(table).ne;
    if (columns, rows) == (width, height) {
        return g.cont_as(table, flat);
    }
    let x = g.permute(table, [2, 1, 0, 3]);
    let x = g.interpolate(x, [rows, columns, embedding, 1]);
    let x = g.permute(x, [2, 1, 0, 3]);
    g.cont_as(x, flat)
}
