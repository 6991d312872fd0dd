//! What is loaded of an MTP block that nobody asked for.

use crate::memory::tensor::{Role, TensorShape};

/// Returns whether an MTP block's tensor is loaded where MTP is off. llama.cpp skips these blocks
/// (`TENSOR_SKIP`), but some architectures ask for parts of them without that flag
/// (`load_arch_tensors`).
pub(in crate::memory) fn is_always_loaded(architecture: &str, tensor: &TensorShape) -> bool {
    let shares_head =
        || matches!(tensor.role, Role::NextnEmbedTokens | Role::NextnSharedHeadHead | Role::NextnSharedHeadNorm);
    match architecture {
        "deepseek32" | "glm-dsa" => tensor.role == Role::ExpProbsB,
        "cohere2moe" => shares_head(),
        "hy_v3" => shares_head() || is_feed_forward(tensor.role),
        "step35" => {
            let attends = matches!(tensor.role, Role::AttnQNorm | Role::AttnKNorm | Role::AttnGate);
            attends || shares_head() || is_feed_forward(tensor.role)
        }
        _ => false,
    }
}

/// Returns whether a tensor is of a feed-forward network, dense or of experts; its norm is not.
const fn is_feed_forward(role: Role) -> bool {
    matches!(
        role,
        Role::FfnGate
            | Role::FfnDown
            | Role::FfnUp
            | Role::FfnGateInp
            | Role::ExpProbsB
            | Role::FfnGateExps
            | Role::FfnDownExps
            | Role::FfnUpExps
            | Role::FfnGateUpExps
            | Role::FfnGateShexp
            | Role::FfnDownShexp
            | Role::FfnUpShexp
    )
}
