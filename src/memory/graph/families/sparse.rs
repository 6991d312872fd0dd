//! DeepSeek V3.2 and GLM 5: latent attention over the cells that an indexer picks.

use super::super::attention::Extras;
use super::super::feed_forward::Norm;
use super::super::model::Builder;
use super::super::tensor::Id;
use super::{Family, deepseek};
use crate::memory::tensor::Role;

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "deepseek32" | "glm-dsa" => deepseek32,
        _ => return None,
    })
}

/// DeepSeek V3.2: DeepSeek V3 with an indexer in every block. GLM 5.2: where a block has none, it
/// takes the cells of the last block that has one.
fn deepseek32(g: &mut Builder) {
    let mut x = g.embeddings();
    let positions = g.positions();
    let input = g.sparse_input();
    let ids = g.output_ids();
    let mut best = Id::NONE;
    for &block in g.blocks() {
        g.enter(Some(block));
        let normed = g.norm(Norm::Rms, x, Role::AttnNorm);
        let narrow = g.narrow_queries(normed);
        if g.kind().indexed || best == Id::NONE {
            best = g.best_cells(normed, narrow, positions, &input);
        }
        let weight = g.weight(Role::AttnQB);
        let q = g.mul_mat(weight, narrow);
        let (row, turned) = g.latent_row(normed, positions, Id::NONE);
        let qkv = g.absorbed(q, row, turned, positions);
        let v_mla = g.weight(Role::AttnVB);
        let attended = g.attend_best(&input.rows, qkv, Extras { v_mla, ..Extras::default() }, best);
        let [attended, residual] = g.keep_outputs(ids, [attended, x]);
        x = deepseek::network(g, attended, residual);
    }
    let normed = g.output_norm(Norm::Rms, x);
    let logits = g.logits(normed);
    g.finish(logits);
}
