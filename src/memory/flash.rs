//! What becomes of the wish for flash attention.

use super::structure::Structure;
use super::{FlashAttention, Settings};

/// Returns what llama.cpp makes of the wish: Grok does without, a quantised V cache cannot do
/// without (`llama_init_from_model`).
pub(super) fn wished(structure: &Structure, settings: &Settings) -> FlashAttention {
    match settings.flash_attention {
        _ if structure.architecture == "grok" => FlashAttention::Off,
        FlashAttention::Auto if settings.cache_type_v.is_quantised() => FlashAttention::On,
        wished => wished,
    }
}
