//! Whether flash attention ends up on.

use super::place::{Device, Places};
use super::structure::{BlockKind, Structure};
use super::{Backend, FlashAttention, Settings};

/// Returns what llama.cpp makes of the wish: Grok does without, a quantised V cache cannot do
/// without (`llama_init_from_model`).
pub(super) fn wished(structure: &Structure, settings: &Settings) -> FlashAttention {
    match settings.flash_attention {
        _ if structure.architecture == "grok" => FlashAttention::Off,
        FlashAttention::Auto if settings.cache_type_v.is_quantised() => FlashAttention::On,
        wished => wished,
    }
}

/// Returns whether flash attention ends up on. Asked for, it is; `auto` switches it off for the
/// whole model where the GPU lacks a kernel for the heads, or where one block's attention lands on
/// another device than its weights (`resolve_fused_ops` in `llama-context.cpp`).
pub(super) fn flash_attention(structure: &Structure, settings: &Settings, backend: Backend, places: &Places) -> bool {
    match wished(structure, settings) {
        FlashAttention::On => true,
        FlashAttention::Off => false,
        FlashAttention::Auto => {
            !lacks_kernel(structure, settings, backend, places) && !is_stranded(structure, settings, places)
        }
    }
}

/// Returns whether the scheduler splits attention from its block in a hybrid: where the last block
/// in host memory has attention and the next, on a GPU, has none; or where the cache stays in host
/// memory altogether. The first was seen with lfm2 and nemotron-nano; the second not with every
/// hybrid, so there the bill errs on the high side.
pub(super) fn is_stranded(structure: &Structure, settings: &Settings, places: &Places) -> bool {
    if places.on_gpus() == 0 || !structure.kinds.iter().any(|kind| kind.recurrent) {
        return false;
    }
    if !settings.offload_kv {
        return structure.kinds.iter().any(|kind| kind.cached);
    }
    let mut blocks = (0u32..).zip(structure.block_kinds()).peekable();
    while let Some((block, kind)) = blocks.next() {
        let Some(&(next, following)) = blocks.peek() else { break };
        let crosses = places.layer(block) == Device::Host && places.layer(next) != Device::Host;
        if crosses {
            return kind.cached && !following.cached;
        }
    }
    false
}

/// Returns whether a GPU has a block whose heads its flash attention does not know.
fn lacks_kernel(structure: &Structure, settings: &Settings, backend: Backend, places: &Places) -> bool {
    if !matches!(backend, Backend::Cuda | Backend::Rocm) {
        return false;
    }
    if !structure.kinds.iter().any(|kind| kind.cached && !has_kernel(structure, kind)) {
        return false;
    }
    let mut blocks = places.layers().zip(structure.block_kinds());
    blocks.any(|(place, kind)| {
        (!settings.offload_kv || place != Device::Host) && kind.cached && !has_kernel(structure, kind)
    })
}

/// Returns whether CUDA has a kernel for the heads (`ggml_cuda_get_best_fattn_kernel`).
fn has_kernel(structure: &Structure, kind: &BlockKind) -> bool {
    let (head_k, head_v) = (kind.head_k, kind.head_v);
    let group = kind.heads.checked_div(kind.heads_kv).unwrap_or(0);
    if structure.memory.keys_only {
        // Values are the first part of the keys: 512 of 576, 256 of 320.
        return (head_k == 576 && group >= 2) || (head_k == 320 && group.is_multiple_of(32));
    }
    match head_k {
        0 => true,
        40 | 64 | 72 | 80 | 96 | 112 | 128 | 256 => head_v == head_k,
        192 => head_v == 128 && group.is_multiple_of(8),
        320 => head_v == 256 && group.is_multiple_of(32),
        512 => head_v == head_k && group >= 2,
        576 => head_v == 512 && group >= 2,
        _ => false,
    }
}
