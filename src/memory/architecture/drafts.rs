//! Models that draft for themselves by their MTP (`NextN`) blocks.

use super::super::structure::Structure;
use super::super::tensor::{Role, Suffix};
use super::super::{Build, Change};

/// Returns whether llama.cpp drafts with a model's MTP blocks: whether they are in the file and the
/// architecture has a graph for them (`LLM_GRAPH_TYPE_DECODER_MTP`).
pub(in crate::memory) fn drafts_itself(structure: &Structure) -> bool {
    let has_graph = match structure.architecture.as_str() {
        // Theirs knows the cache of latent rows alone.
        "deepseek2" | "deepseek32" | "glm-dsa" | "bailingmoe3" => structure.memory.keys_only,
        "cohere2moe" | "deepseek4" | "glm4moe" | "hy_v3" | "mimo2" | "nemotron_h_moe" | "qwen35" | "qwen35moe"
        | "qwen3next" | "qwen4exp" | "step35" => true,
        _ => false,
    };
    let joins = |tensor: &super::super::tensor::TensorShape| tensor.role == Role::NextnEhProj;
    has_graph && structure.kinds.iter().any(|kind| kind.mtp && structure.layout(kind).iter().any(joins))
}

/// Returns whether a build keeps a cache for MTP blocks although the model does not draft for itself.
pub(in crate::memory) fn caches_drafting(architecture: &str, build: Build) -> bool {
    let is_told_apart = matches!(
        architecture,
        "deepseek32"
            | "deepseek4"
            | "glm-dsa"
            | "hy_v3"
            | "mimo2"
            | "nemotron_h_moe"
            | "qwen35"
            | "qwen35moe"
            | "qwen3next"
            | "step35"
    );
    !is_told_apart && !build.has(Change::TrunkCaches)
}

/// Returns whether a tensor of an MTP block is loaded even where the model does not draft for itself:
/// llama.cpp asks for some as if they belonged to any block (`TENSOR_NOT_REQUIRED` without
/// `TENSOR_SKIP` in `load_arch_tensors`).
pub(in crate::memory) fn loads_anyway(architecture: &str, role: Role, suffix: Suffix) -> bool {
    let is_head = || matches!(role, Role::NextnEmbedTokens | Role::NextnSharedHeadHead | Role::NextnSharedHeadNorm);
    let is_network = || {
        matches!(
            role,
            Role::FfnGate
                | Role::FfnUp
                | Role::FfnDown
                | Role::FfnGateInp
                | Role::ExpProbsB
                | Role::FfnGateExps
                | Role::FfnUpExps
                | Role::FfnDownExps
                | Role::FfnGateShexp
                | Role::FfnUpShexp
                | Role::FfnDownShexp
        )
    };
    let is_attention = || {
        let is_factor = matches!(role, Role::RopeFreqs | Role::RopeFactorsLong | Role::RopeFactorsShort);
        is_factor || matches!(role, Role::AttnQNorm | Role::AttnKNorm | Role::AttnGate)
    };
    match architecture {
        "deepseek32" | "glm-dsa" => role == Role::ExpProbsB && suffix == Suffix::Bias,
        "cohere2moe" => is_head(),
        "hy_v3" => is_head() || is_network() || role == Role::FfnGateUpExps,
        "step35" => is_head() || is_network() || is_attention(),
        _ => false,
    }
}
