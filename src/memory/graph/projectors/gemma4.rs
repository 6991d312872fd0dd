//! Gemma 4's encoders of images, with a tower and without one.

use super::Family;
use super::clip::{Clip, Pair, Vit};
use crate::memory::graph::convolve::Steps;
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::tensor::{F32, Id, Op, row_bytes};

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    Some(match name {
        "gemma4v" => tower,
        "gemma4uv" => unified_vision,
        "gemma4ua" => unified_audio,
        _ => return None,
    })
}

/// A tower that turns by row and column, and pools squares of patches.
fn tower(g: &mut Clip) {
    g.clamps = true;
    let (patches, patch, embedding, merge) =
        (g.patches(), g.sizes().patch, g.sizes().embedding, g.sizes().merge.max(1));
    let (width, height) = (g.columns(), g.rows_of_patches());
    let raw = g.raw(3);
    let x = g.scale(raw);
    let kernel = g.need("v.patch_embd.weight");
    let x = g.conv_2d(kernel, x, Steps::of(patch));
    let x = g.reshape(x, [patches, embedding, 1, 1]);
    let x = g.cont_transposed(x);
    let (columns, rows) = (g.positions(patches), g.positions(patches));
    let x = placed(g, x, columns, rows);
    let mut turn = |g: &mut Clip, x: Id| g.rope_2d(x, columns, rows);
    let x = g.transform(x, patches, &mut Vit { turn: Some(&mut turn), ..Vit::new(Norm::Rms) });
    let x = g.transpose(x);
    let x = g.cont_as(x, [width, height, embedding, 1]);
    let x = g.pool_2d(x, merge, merge);
    let x = g.reshape(x, [(width / merge).saturating_mul(height / merge), embedding, 1, 1]);
    let x = g.cont_transposed(x);
    let mut x = g.scale(x);
    let (shift, scale) = (g.find("v.std_bias"), g.find("v.std_scale"));
    if shift != Id::NONE && scale != Id::NONE {
        x = g.binary(Op::Sub, x, shift);
        x = g.mul(x, scale);
    }
    embedded(g, x, "mm.input_projection.weight");
}

/// Patches straight from pixels, each normed: no tower.
fn unified_vision(g: &mut Clip) {
    let (patches, patch) = (g.patches(), g.sizes().patch);
    let raw = g.raw(3);
    let kernel = g.constant(F32, [patch, patch, 3, 1]);
    let x = g.im2col(kernel, raw, Steps::of(patch), F32);
    let ne = g.get(x).ne;
    let x = g.reshape(x, [ne[0], ne[1].saturating_mul(ne[2]).saturating_mul(ne[3]), 1, 1]);
    let norm = g.needed("v.patch_norm.1");
    let x = g.norm(Norm::Layer, x, norm);
    let kernel = g.needed("v.patch_embd");
    let x = g.mul_mat(kernel.weight, x);
    let x = g.add_if(x, kernel.bias);
    let norm = g.needed("v.patch_norm.2");
    let x = g.norm(Norm::Layer, x, norm);
    let (columns, rows) = (g.positions(patches), g.positions(patches));
    let x = placed(g, x, columns, rows);
    let norm = g.needed("v.patch_norm.3");
    let x = g.norm(Norm::Layer, x, norm);
    embedded(g, x, "mm.input_projection.weight");
}

/// Frames of sound straight into the language model's width.
fn unified_audio(g: &mut Clip) {
    let raw = g.raw(1);
    let x = g.cont_permuted(raw, [1, 0, 2, 3]);
    embedded(g, x, "mm.a.input_projection.weight");
}

/// Adds the learned positions of columns and rows, which lie in one table.
fn placed(g: &mut Clip, x: Id, columns: Id, rows: Id) -> Id {
    let table = g.need("v.position_embd.weight");
    let (embedding, count, kind) = (g.sizes().embedding, g.get(table).ne[1], g.get(table).kind);
    let row = row_bytes(kind, embedding);
    let across = g.view_2d(table, [embedding, count], row, 0);
    let down = g.view_2d(table, [embedding, count], row, row.saturating_mul(count));
    let across = g.get_rows(across, columns);
    let down = g.get_rows(down, rows);
    let x = g.add(x, across);
    g.add(x, down)
}

/// Norms without a weight and projects.
fn embedded(g: &mut Clip, x: Id, matrix: &str) {
    let x = g.norm(Norm::Rms, x, Pair::NONE);
    let matrix = g.need(matrix);
    let x = g.product(matrix, x);
    g.expand(x);
}
