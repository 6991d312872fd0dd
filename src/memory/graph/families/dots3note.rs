//! Dots 3 Note: latent attention, in windows with measures of their own or over the cells that an
//! indexer picks, and a gate for each head of its result.

use super::super::attention::{AttentionInput, Extras};
use super::super::feed_forward::Norm;
use super::super::model::Builder;
use super::super::tensor::{Id, Op};
use super::Family;
use super::moe::feed_by_header;
use crate::memory::tensor::Role;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    (architecture == "dots3note").then_some(build as Family)
}

fn build(g: &mut Builder) {
    let mut x = g.embeddings();
    let positions = g.positions();
    let sparse = g.sparse_input();
    let mut windowed = g.cache_input(true, false);
    windowed.k_rot = Id::NONE;
    let windowed = AttentionInput::Cache(windowed);
    let ids = g.output_ids();
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let narrow = g.narrow_queries(normed);
        let in_window = g.kind().windowed;
        let best = if in_window { Id::NONE } else { g.best_cells(normed, narrow, positions, &sparse) };
        let weight = g.weight(Role::AttnQB);
        let q = g.mul_mat(weight, narrow);
        let (row, turned) = g.latent_row(normed, positions, Id::NONE);
        let qkv = g.absorbed(q, row, turned, positions);
        let extras = Extras { v_mla: g.weight(Role::AttnVB), ..Extras::no_output() };
        let attended =
            if in_window { g.attend(&windowed, qkv, extras) } else { g.attend_best(&sparse.rows, qkv, extras, best) };
        let attended = g.gate_attention(attended, normed, Op::Sigmoid);
        let attended = g.project(Role::AttnOutput, attended);
        let [attended, residual] = g.keep_outputs(ids, [attended, x]);
        x = feed_by_header(g, attended, residual);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    g.finish(logits);
}
