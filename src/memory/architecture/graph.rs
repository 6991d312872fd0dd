//! What an architecture's name alone decides about its graph.

use super::super::hyper::Hyper;
use super::super::structure::Structure;

/// Returns whether a batch is either tokens or embeddings, never both
/// (`llm_arch_supports_mixed_batch`).
pub(in crate::memory) fn has_separate_batches(architecture: &str) -> bool {
    matches!(
        architecture,
        "cogvlm" | "deepseek4" | "granite-switch" | "eagle3" | "dflash" | "gemma4-assistant"
    )
}

/// Returns whether a position is four numbers (multimodal rope, `llama_model_rope_type`).
pub(in crate::memory) fn has_sections(structure: &Structure) -> bool {
    match structure.architecture.as_str() {
        "qwen2vl" | "paddleocr" | "qwen3vl" | "qwen3vlmoe" | "qwen35" | "qwen35moe" | "clef" | "qwen4exp"
        | "qwen3tts" => true,
        "glm4" | "glm4moe" | "hunyuan_vl" | "dflash" => structure.hyper.number(Hyper::RopeSections) != 0,
        _ => false,
    }
}

/// Returns whether products of queries and keys are squeezed between limits (`attn_soft_cap`).
pub(in crate::memory) fn caps_attention(structure: &Structure) -> bool {
    structure.architecture == "gemma2"
}

/// Returns whether a swiglu's limits are part of the operation (`ggml_swiglu_clamp`), in a network of
/// experts or in another.
pub(in crate::memory) fn fuses_limits(structure: &Structure, experts: bool) -> bool {
    match structure.architecture.as_str() {
        "deepseek4" | "glm5-next" => true,
        "dflash" => structure.hyper.number(Hyper::HyperConnections) != 0,
        "maple" | "hy_v4" => experts,
        _ => false,
    }
}
