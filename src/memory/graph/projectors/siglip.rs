//! SigLIP towers with a small projector behind them.

use super::Family;
use super::clip::{Clip, Pair, Vit};
use crate::memory::graph::feed_forward::Norm;
use crate::memory::graph::tensor::Id;

/// Returns what builds the graph of a projector of this family.
pub(super) fn of(name: &str) -> Option<Family> {
    Some(match name {
        "gemma3" => gemma3,
        "idefics3" => idefics3,
        "lfm2" => lfm2,
        "janus_pro" => janus_pro,
        "phi4" => phi4,
        _ => return None,
    })
}

/// Gemma 3: pools squares of patches, then multiplies with a matrix that it has to transpose first.
fn gemma3(g: &mut Clip) {
    let positions = g.need("v.position_embd.weight");
    let x = tower(g, positions);
    let (side, merge, embedding) = (g.columns(), g.sizes().merge, g.sizes().embedding);
    let x = g.transpose(x);
    let x = g.cont_as(x, [side, side, embedding, 1]);
    let x = g.pool_2d(x, merge, merge);
    let pooled = g.get(x).ne[0];
    let x = g.reshape(x, [pooled.saturating_mul(pooled), embedding, 1, 1]);
    let x = g.cont_transposed(x);
    let weight = g.need("mm.soft_emb_norm.weight");
    let x = g.norm(Norm::Rms, x, Pair { weight, bias: Id::NONE });
    let matrix = g.need("mm.input_projection.weight");
    let matrix = g.cont_transposed(matrix);
    let x = g.mul_mat(matrix, x);
    g.expand(x);
}

/// Idefics 3 and `SmolVLM`: joins squares of patches and multiplies with one matrix.
fn idefics3(g: &mut Clip) {
    let positions = g.need("v.position_embd.weight");
    let x = tower(g, positions);
    let x = g.merged(x, g.sizes().merge);
    let matrix = g.need("mm.model.fc.weight");
    let x = g.product(matrix, x);
    g.expand(x);
}

/// LFM2-VL: any size of image, so positions are stretched.
fn lfm2(g: &mut Clip) {
    let positions = g.stretched_positions();
    let x = tower(g, positions);
    let mut x = g.merged(x, g.sizes().merge);
    let norm = g.pair("mm.input_norm");
    if norm.weight == Id::NONE {
        x = g.add_if(x, norm.bias);
    } else {
        x = g.norm(Norm::Layer, x, norm);
    }
    let x = g.feed_two(x, "mm.1", "mm.2");
    g.expand(x);
}

/// Janus Pro: one token a patch.
fn janus_pro(g: &mut Clip) {
    let positions = g.need("v.position_embd.weight");
    let x = tower(g, positions);
    let x = g.feed_two(x, "mm.0", "mm.1");
    g.expand(x);
}

/// Phi 4: one token a patch, and stretched positions.
fn phi4(g: &mut Clip) {
    let positions = g.stretched_positions();
    let x = tower(g, positions);
    let x = g.feed_two(x, "mm.0", "mm.2");
    g.expand(x);
}

fn tower(g: &mut Clip, positions: Id) -> Id {
    let x = g.patched();
    let patches = g.patches();
    g.transform(x, patches, &mut Vit { positions, ..Vit::new(Norm::Layer) })
}
