//! What an architecture's name alone decides about its graph.

use super::super::hyper::Hyper;
use super::super::keys::clamp;
use super::super::structure::Structure;
use super::super::tensor::Role;
use super::Header;

/// Returns whether a batch is either tokens or embeddings, never both
/// (`llm_arch_supports_mixed_batch`).
pub(in crate::memory) fn has_separate_batches(architecture: &str) -> bool {
    matches!(architecture, "cogvlm" | "deepseek4" | "graniteswitch" | "eagle3" | "dflash" | "gemma4-assistant")
}

/// Returns whether a position is four numbers (multimodal rope, `llama_model_rope_type`).
pub(in crate::memory) fn has_sections(structure: &Structure) -> bool {
    match structure.architecture.as_str() {
        "qwen2vl" | "paddleocr" | "qwen3vl" | "qwen3vlmoe" | "qwen35" | "qwen35moe" | "clef" | "qwen4exp"
        | "qwen3tts" => true,
        "bailingmoe3" | "glm4" | "glm4moe" | "hunyuan_vl" => structure.hyper.number(Hyper::RopeSections) == 2,
        "dflash" => structure.hyper.number(Hyper::RopeSections) != 0,
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

/// Returns whether input embeddings are multiplied (`f_embedding_scale`): minicpm has a default.
pub(in crate::memory) fn scales_embeddings(structure: &Structure) -> bool {
    structure.hyper.float(Hyper::EmbeddingScale) != 0.0 || structure.architecture == "minicpm"
}

/// Returns whether both halves of a block are multiplied before they are added
/// (`f_residual_scale`): minicpm has a default.
pub(in crate::memory) fn scales_residuals(structure: &Structure) -> bool {
    structure.hyper.float(Hyper::ResidualScale) != 0.0 || structure.architecture == "minicpm"
}

/// Returns whether logits are multiplied (`f_logit_scale`): minicpm has a default.
pub(in crate::memory) fn scales_logits(structure: &Structure) -> bool {
    structure.hyper.float(Hyper::LogitScale) != 0.0 || structure.architecture == "minicpm"
}

/// Returns whether attention is biased by distance (`f_max_alibi_bias`). Of baichuan only the 13B
/// model is, which llama.cpp tells by its depth.
pub(in crate::memory) fn has_alibi(structure: &Structure) -> bool {
    match structure.architecture.as_str() {
        "bloom" | "jina-bert-v2" | "refact" => true,
        "baichuan" => structure.blocks == 40,
        "jais" | "mpt" => structure.hyper.float(Hyper::MaxAlibiBias) > 0.0,
        _ => false,
    }
}

/// Returns whether a block leaves queries and keys as they are where others turn them by rope
/// (`n_no_rope_layer_step`): each fourth, the first of four, or those that the header lists
/// (`rope_pattern`).
pub(in crate::memory) fn leaves_unturned(header: &Header, window: u32, block: usize) -> bool {
    match header.architecture {
        // Without a window only the last block is left.
        "llama4" if window == 0 => block + 1 == header.trunk,
        "afmoe" | "llama4" | "smollm3" => (block + 1).is_multiple_of(4),
        "smallthinker" => window != 0 && block.is_multiple_of(4),
        "granite_swa" => {
            let turned = header.keys.array("attention.rope_pattern");
            turned.is_some_and(|turned| turned.get(block) == Some(&0))
        }
        _ => false,
    }
}

/// The further parts of the input embeddings (deepstack).
#[derive(Debug, Default)]
pub(in crate::memory) struct Stacked {
    /// How many there are.
    pub(in crate::memory) parts: u32,
    /// Before which blocks one is added.
    pub(in crate::memory) blocks: Vec<bool>,
}

/// Returns the further parts of the input embeddings: Qwen3-VL's follow its first blocks, Granite's
/// stand before the blocks that the header maps them to, of which the first has its own already.
pub(in crate::memory) fn stacked(header: &Header) -> Stacked {
    match header.architecture {
        "granite" | "granite_swa" => {
            let map = header.keys.floats("deepstack_mapping").unwrap_or_default();
            let mut parts: Vec<f64> = map.iter().copied().filter(|&part| part >= 0.0).collect();
            parts.sort_by(f64::total_cmp);
            parts.dedup();
            let blocks = map.iter().enumerate().map(|(block, &part)| block > 0 && part >= 0.0).collect();
            Stacked { parts: clamp(parts.len() as u64), blocks }
        }
        "qwen3vl" | "qwen3vlmoe" | "qwen3tts" => {
            let parts = header.keys.number("n_deepstack_layers").unwrap_or(0);
            let blocks = (0..header.blocks).map(|block| (1..=parts as usize).contains(&block)).collect();
            Stacked { parts, blocks }
        }
        _ => Stacked::default(),
    }
}

/// Returns whether the model runs through its blocks several times.
pub(in crate::memory) fn is_looped(structure: &Structure) -> bool {
    matches!(structure.architecture.as_str(), "nanbeige" | "hrm_text")
}

/// Returns the block whose tensors a block uses: its own, but in models that run through their
/// blocks several times.
pub(in crate::memory) fn lender(structure: &Structure, block: u32) -> u32 {
    let number = |key: Hyper| structure.hyper.number(key);
    match structure.architecture.as_str() {
        "nanbeige" => block.checked_rem(structure.blocks / number(Hyper::NumLoops).max(1)).unwrap_or(block),
        // The low stack's tensors come first in the file, then the high one's, which ends a cycle.
        "hrm_text" => {
            let stack = number(Hyper::HrmLayersPerStack).max(1);
            let low_cycles = number(Hyper::HrmLCycles);
            let is_high = (block / stack).checked_rem(low_cycles.saturating_add(1)) == Some(low_cycles);
            block % stack + if is_high { stack } else { 0 }
        }
        _ => block,
    }
}

/// Returns whether the graph multiplies with the scale that a file has beside a matrix (`*_s` in
/// `llama_layer`, made for NVFP4): attention does with few exceptions, networks do where their
/// family hands it on.
pub(in crate::memory) fn applies_scale(structure: &Structure, role: Role) -> bool {
    let architecture = structure.architecture.as_str();
    match role {
        Role::FfnDown if architecture == "talkie" => true,
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

/// Returns whether rules of the graph go by a block's number, so that no block stands for others.
pub(in crate::memory) fn goes_by_number(structure: &Structure) -> bool {
    is_looped(structure)
        || matches!(
            structure.architecture.as_str(),
            "t5" | "t5encoder"
                | "wavtokenizer-dec"
                | "gemma3n"
                | "kimi-k3"
                | "rwkv6"
                | "rwkv6qwen2"
                | "rwkv7"
                | "arwkv7"
                | "eagle3"
                | "dflash"
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
