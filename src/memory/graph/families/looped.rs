//! Models that run through their blocks several times: the weights are shared, the caches are not.

use super::Family;
use super::decoder::{Decoder, Inputs, LLAMA, Parts};
use crate::memory::graph::model::Builder;
use crate::memory::graph::tensor::Id;
use crate::memory::hyper::Hyper;
use crate::memory::tensor::{Role, Suffix};

/// Returns what builds the graph of an architecture of this family.
pub(super) fn of(architecture: &str) -> Option<Family> {
    Some(match architecture {
        "nanbeige" => |g| Decoder { join: nanbeige_join, ..LLAMA }.build(g),
        "hrm_text" => hrm_text,
        _ => return None,
    })
}

/// Nanbeige: llama, with the last norm between the rounds too unless the header says no.
fn nanbeige_join(how: &Decoder, g: &mut Builder, parts: Parts) -> Id {
    let x = how.in_turn(g, parts);
    let round = u64::from(g.plan.structure.blocks) / g.number(Hyper::NumLoops).max(1);
    let ends = (u64::from(g.index()) + 1).checked_rem(round) == Some(0);
    if !ends || g.is_last() || g.number(Hyper::SkipLoopFinalNorm) != 0 {
        return x;
    }
    let weight = g.output_weight(Role::OutputNorm, Suffix::Weight);
    g.norm_with(how.norm, x, weight, Id::NONE)
}

/// HRM: two states, a low one that goes through a stack of blocks some times, then a high one that
/// goes through another stack once, and all of that again. No norm has a weight.
fn hrm_text(g: &mut Builder) {
    let stack = u32::try_from(g.number(Hyper::HrmLayersPerStack)).unwrap_or(1).max(1);
    let low_cycles = u32::try_from(g.number(Hyper::HrmLCycles)).unwrap_or(0);
    let mut high = g.embeddings();
    let inputs = Inputs::new(g);
    let ids = g.output_ids();
    let mut low = g.first_weight(Role::HrmInit, Suffix::Other);
    let mut x = high;
    for &block in g.blocks() {
        g.enter(Some(block));
        if block % stack == 0 {
            x = g.add(high, low);
        }
        let normed = g.norm(LLAMA.norm, x, Role::AttnNorm);
        let attended = LLAMA.attend(g, &inputs, normed);
        x = LLAMA.in_turn(g, Parts { x, whole: x, normed, first: x, attended });
        if block % stack == stack - 1 {
            x = g.norm_with(LLAMA.norm, x, Id::NONE, Id::NONE);
            let is_high = (block / stack).checked_rem(low_cycles.saturating_add(1)) == Some(low_cycles);
            *(if is_high { &mut high } else { &mut low }) = x;
        }
    }
    let [x] = g.keep_outputs(ids, [high]);
    let logits = g.logits(x);
    g.finish(logits);
}
