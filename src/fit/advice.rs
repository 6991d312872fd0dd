//! What would make a model fit better. Every line is computed: only what is enough is offered.

use super::{Advice, Judgement, Plan, Supply, Verdict, judge, largest_context};
use crate::memory::{CacheType, FlashAttention, GpuLayers, Settings};
use crate::units::Bytes;

/// The smallest context worth advising.
const USEFUL_CONTEXT: u32 = 2_048;

/// Returns the changes that make a model fit fully, or at all, the least painful first; nothing
/// for a model that fits fully as it is.
pub fn advice(plan: &Plan, supply: &Supply, judgement: &Judgement) -> Vec<Advice> {
    if matches!(judgement.verdict, Verdict::FullGpu | Verdict::Unknown)
        || (judgement.verdict == Verdict::CpuOnly && supply.gpus.is_empty())
    {
        return Vec::new();
    }
    let everything = Settings { gpu_layers: GpuLayers::All, cpu_moe: 0, ..plan.settings().clone() };
    let mut lines = Vec::new();
    lines.extend(all_layers(plan, supply, &everything));
    lines.extend(smaller_context(plan, supply, &everything));
    lines.extend(smaller_cache(plan, supply, &everything));
    if plan.has_projector() {
        lines.extend(offer(&plan.without_projector(), supply, everything, |spare| {
            format!("without the vision projector it fits fully with {spare} to spare")
        }));
    }
    lines
}

/// Offers all layers on the GPU where the settings ask for fewer.
fn all_layers(plan: &Plan, supply: &Supply, everything: &Settings) -> Option<Advice> {
    if plan.settings() == everything {
        return None;
    }
    offer(plan, supply, everything.clone(), |spare| format!("all layers on the GPU fit with {spare} to spare"))
}

/// Offers the largest context that fits fully.
fn smaller_context(plan: &Plan, supply: &Supply, everything: &Settings) -> Option<Advice> {
    let context = largest_context(&plan.with(everything.clone()), supply)?;
    if context < USEFUL_CONTEXT || context >= everything.context {
        return None;
    }
    let settings = Settings { context, ..everything.clone() };
    offer(plan, supply, settings, |spare| format!("a context of {context} tokens fits fully with {spare} to spare"))
}

/// Offers the widest quantised cache that is enough. K and V are of one type, of those that every
/// CUDA build has kernels for; V needs flash attention.
fn smaller_cache(plan: &Plan, supply: &Supply, everything: &Settings) -> Option<Advice> {
    if everything.cache_type_k != CacheType::F16 || everything.cache_type_v != CacheType::F16 {
        return None;
    }
    [CacheType::Q8_0, CacheType::Q4_0].into_iter().find_map(|cache_type| {
        let settings = Settings {
            cache_type_k: cache_type,
            cache_type_v: cache_type,
            flash_attention: FlashAttention::On,
            ..everything.clone()
        };
        offer(plan, supply, settings, |spare| {
            format!("K and V cache as {} (with flash attention) fit fully with {spare} to spare", cache_type.name())
        })
    })
}

/// Returns the advice if the change is enough: full offload, or RAM where there is no GPU.
fn offer(plan: &Plan, supply: &Supply, settings: Settings, text: impl Fn(Bytes) -> String) -> Option<Advice> {
    let judgement = judge(&mut plan.with(settings.clone()), supply);
    let is_enough = match judgement.verdict {
        Verdict::FullGpu => true,
        Verdict::CpuOnly => supply.gpus.is_empty(),
        Verdict::PartialGpu | Verdict::TooLarge | Verdict::Unknown => false,
    };
    let spare = Bytes(u64::try_from(judgement.spare).unwrap_or(0));
    is_enough.then(|| Advice { text: text(spare), settings, spare: judgement.spare })
}
