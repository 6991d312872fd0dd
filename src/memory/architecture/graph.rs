//! What an architecture's name alone decides about its graph.

use super::super::hyper::Hyper;
use super::super::structure::Structure;
use super::super::tensor::Role;

/// Returns whether a batch is either tokens or embeddings, never both
/// (`llm_arch_supports_mixed_batch`).
pub(in crate::memory) fn has_separate_batches(architecture: &str) -> bool {
    matches!(
        architecture,
        "cogvlm" | "deepseek4" | "graniteswitch" | "eagle3" | "dflash" | "gemma4-assistant"
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

/// Returns whether the graph multiplies with the scale that a file has beside a matrix (`*_s` in
/// `llama_layer`, made for NVFP4): attention does with few exceptions, networks do where their
/// family hands it on.
pub(in crate::memory) fn applies_scale(structure: &Structure, role: Role) -> bool {
    let architecture = structure.architecture.as_str();
    match role {
        Role::FfnUp
        | Role::FfnGate
        | Role::FfnDown
        | Role::FfnUpShexp
        | Role::FfnGateShexp
        | Role::FfnDownShexp
        | Role::FfnUpExps
        | Role::FfnGateExps
        | Role::FfnDownExps => matches!(
            architecture,
            "bitnet"
                | "clef"
                | "cohere2"
                | "cohere2moe"
                | "deepseek32"
                | "dflash"
                | "dots3note"
                | "gemma4"
                | "glm-dsa"
                | "hy_v3"
                | "llama"
                | "llama-embed"
                | "mellum"
                | "mistral3"
                | "nanbeige"
                | "nemotron_h"
                | "nemotron_h_moe"
                | "qwen3"
                | "qwen35"
                | "qwen35moe"
                | "qwen3moe"
                | "qwen3next"
                | "qwen4exp"
        ),
        Role::AttnGate => matches!(architecture, "clef" | "qwen35" | "qwen35moe" | "qwen3next" | "qwen4exp"),
        Role::AttnQ | Role::AttnK | Role::AttnV | Role::AttnQkv => architecture != "mimo2",
        Role::FfnUpChexps | Role::FfnGateChexps | Role::FfnDownChexps => false,
        _ => true,
    }
}

/// Returns whether recurrent states can go back by a few tokens (`llm_arch_supports_rs_rollback`).
pub(in crate::memory) fn takes_states_back(architecture: &str) -> bool {
    matches!(
        architecture,
        "kimi-k3"
            | "qwen35"
            | "qwen35moe"
            | "qwen4exp"
            | "deepseek4"
            | "glm5-next"
            | "nemotron_h"
            | "nemotron_h_moe"
            | "lfm2"
            | "lfm2moe"
            | "bailingmoe3"
    )
}

/// Returns whether `ssm_a` is what Mamba's scan decays states by (`LLM_TENSOR_SSM_A`); elsewhere it is
/// a mere factor (`LLM_TENSOR_SSM_A_NOSCAN`).
pub(in crate::memory) fn scans_states(architecture: &str) -> bool {
    matches!(
        architecture,
        "mamba" | "mamba2" | "jamba" | "granitehybrid" | "falcon-h1" | "nemotron_h" | "nemotron_h_moe" | "plamo2"
    )
}

/// Returns the width of what is put out as an embedding where the architecture decides it
/// (`n_embd_out_impl`).
pub(in crate::memory) fn put_out(structure: &Structure) -> Option<u32> {
    match structure.architecture.as_str() {
        // One score a token.
        "clef" => Some(1),
        "qwen4exp" => {
            let streams = structure.hyper.number(Hyper::HyperConnections);
            Some(structure.dimensions.embedding.saturating_mul(streams))
        }
        _ => None,
    }
}
