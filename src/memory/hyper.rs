//! The hyperparameters that decide which graph a model has, beside its tensors.

use serde::{Deserialize, Serialize};

use super::keys::Keys;

/// Declares the hyperparameters once: name, key under the architecture's prefix, kind.
macro_rules! hyperparameters {
    ($($name:ident = $key:literal $kind:ident,)*) => {
        /// A hyperparameter, a key of the header.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "the keys are GGUF's own")]
        pub enum Hyper {
            $(#[serde(rename = $key)] $name,)*
        }

        impl Hyperparameters {
            /// Takes those that a header has.
            pub(super) fn read(keys: &Keys) -> Hyperparameters {
                let mut found = Vec::new();
                $(found.extend(value::$kind(keys, $key).map(|value| (Hyper::$name, value)));)*
                found.retain(|&(_, value)| value != 0);
                found.sort_unstable();
                found.shrink_to_fit();
                Hyperparameters(found)
            }
        }
    };
}

hyperparameters! {
    SituLinearBeta = "activation.situ_linear_beta" float,
    AttnLogitSoftcapping = "attn_logit_softcapping" float,
    AttentionScale = "attention.scale" float,
    AttentionTemperatureLength = "attention.temperature_length" number,
    AttentionTemperatureScale = "attention.temperature_scale" float,
    AttentionValueScale = "attention.value_scale" float,
    AttnResBlockSize = "attn_res.block_size" number,
    BlockSize = "block_size" number,
    BonusAnchor = "sample_from_anchor" denied,
    ClampKqv = "attention.clamp_kqv" float,
    ClassifierPooling = "classifier.pooling_type" number,
    ConvGroupSize = "conv_group_size" number,
    ConvKernelSize = "conv_kernel_size" number,
    ConvnextBlocks = "convnext.block_count" number,
    DecisionBlocks = "decision.block_count" number,
    DecisionHeads = "decision.head_count" number,
    DecisionRoutingBlocks = "decision.routing_block_count" number,
    DecoderBlockCount = "decoder_block_count" number,
    EmbeddingScale = "embedding_scale" float,
    ExpertCount = "expert_count" number,
    ExpertFeedForwardLength = "expert_feed_forward_length" number,
    ExpertGatingFunc = "expert_gating_func" number,
    ExpertGroups = "expert_group_count" number,
    ExpertGroupsUsed = "expert_group_used_count" number,
    ExpertLatentLength = "expert_latent_length" number,
    ExpertSharedCount = "expert_shared_count" number,
    ExpertSharedFeedForwardLength = "expert_shared_feed_forward_length" number,
    ExpertWeightsNorm = "expert_weights_norm" flag,
    ExpertWeightsScale = "expert_weights_scale" float,
    ExpertsPerGroup = "experts_per_group" number,
    FinalLogitSoftcapping = "final_logit_softcapping" float,
    FullAttentionInterval = "full_attention_interval" number,
    HrmLayersPerStack = "hrm.layers_per_stack" number,
    HrmLCycles = "hrm.l_cycles" number,
    HyperConnections = "hyper_connection.count" number,
    IndexerBlockSize = "attention.indexer.block_size" number,
    IndexerHeads = "attention.indexer.head_count" number,
    IndexerKeyLength = "attention.indexer.key_length" number,
    IndexerPool = "attention.indexer.kpool" number,
    IndexerTailLeft = "attention.indexer.kpool_select_tail" denied,
    IndexerTopK = "attention.indexer.top_k" number,
    HiddenActivationGelu = "hidden_activation" gelu,
    InterleaveMoeLayerStep = "interleave_moe_layer_step" number,
    KdaGateLowerBound = "kda.gate_lower_bound" float,
    KdaHeadDim = "kda.head_dim" number,
    KeyLengthMla = "attention.key_length_mla" number,
    KeyLengthMlaSwa = "attention.key_length_mla_swa" number,
    KvLoraRank = "attention.kv_lora_rank" number,
    KvLoraRankSwa = "attention.kv_lora_rank_swa" number,
    LayerNormRmsEpsilon = "attention.layer_norm_rms_epsilon" float,
    LeadingDenseBlocks = "leading_dense_block_count" number,
    LogitScale = "logit_scale" float,
    MaxAlibiBias = "attention.max_alibi_bias" float,
    MoeEveryNLayers = "moe_every_n_layers" number,
    NumLoops = "num_loops" number,
    NormBeforeFc = "norm_before_fc" flag,
    NormBeforeResidual = "norm_before_residual" flag,
    OutputGroupCount = "attention.output_group_count" number,
    PleConvKernel = "ple.conv_kernel" number,
    PleHeadsPerNgram = "ple.heads_per_ngram" number,
    PleLayer = "ple.layers" first,
    PleNgramSize = "ple.ngram_size" number,
    PosnetBlocks = "posnet.block_count" number,
    PoolingType = "pooling_type" number,
    QLoraRank = "attention.q_lora_rank" number,
    ResidualScale = "residual_scale" float,
    RescaleEveryNLayers = "rescale_every_n_layers" number,
    RopeDimensions = "rope.dimension_count" number,
    RopeDimensionsSwa = "rope.dimension_count_swa" number,
    RopeSections = "rope.dimension_sections" sections,
    RopeUntuned = "rope.scaling.finetuned" denied,
    RopeOriginalContext = "rope.scaling.original_context_length" number,
    RouterLogitSoftcapping = "router_logit_softcapping" float,
    SelectorRank = "selector_rank" number,
    SelectorTopK = "selector_top_k" number,
    ShortconvLCache = "shortconv.l_cache" number,
    SkipLoopFinalNorm = "skip_loop_final_norm" flag,
    SinkhornIterations = "hyper_connection.sinkhorn_iterations" number,
    HashLayers = "hash_layer_count" number,
    OutputLoraRank = "attention.output_lora_rank" number,
    SsmConvKernel = "ssm.conv_kernel" number,
    SsmDtBCRms = "ssm.dt_b_c_rms" flag,
    SsmGroupCount = "ssm.group_count" number,
    SsmInnerSize = "ssm.inner_size" number,
    SsmStateSize = "ssm.state_size" number,
    SsmTimeStepRank = "ssm.time_step_rank" number,
    SwinNorm = "swin_norm" flag,
    TimeDecayExtraDim = "time_decay_extra_dim" number,
    TimeMixExtraDim = "time_mix_extra_dim" number,
    TokenShiftCount = "token_shift_count" number,
    UseParallelResidual = "use_parallel_residual" flag,
    ValueLengthMla = "attention.value_length_mla" number,
    ValueLengthMlaSwa = "attention.value_length_mla_swa" number,
    WkvHeadSize = "wkv.head_size" number,
}

/// The hyperparameters of a model, without those that are 0 or missing: integers and flags as they
/// are, floats by their bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hyperparameters(Vec<(Hyper, u32)>);

impl Hyperparameters {
    /// Returns an integer or a flag, 0 where it is missing.
    pub fn number(&self, key: Hyper) -> u32 {
        let at = self.0.binary_search_by_key(&key, |&(key, _)| key);
        at.map_or(0, |at| self.0[at].1)
    }

    /// Returns a float, 0 where it is missing.
    pub fn float(&self, key: Hyper) -> f32 {
        f32::from_bits(self.number(key))
    }
}

/// How each kind of value is read.
mod value {
    use super::Keys;

    pub(super) fn number(keys: &Keys, key: &str) -> Option<u32> {
        keys.number(key)
    }

    /// 1 where only some section is not empty, 2 where the first two are not (`use_mrope`).
    pub(super) fn sections(keys: &Keys, key: &str) -> Option<u32> {
        keys.array(key).map(|sections| match sections.as_slice() {
            [first, second, ..] if *first > 0 && *second > 0 => 2,
            sections => u32::from(sections.iter().any(|&section| section != 0)),
        })
    }

    pub(super) fn flag(keys: &Keys, key: &str) -> Option<u32> {
        keys.flag(key).map(u32::from)
    }

    /// The first number of a list and one, so that none is 0.
    pub(super) fn first(keys: &Keys, key: &str) -> Option<u32> {
        keys.array(key).and_then(|list| list.first().map(|first| first.saturating_add(1)))
    }

    /// Whether a flag is there and not set.
    pub(super) fn denied(keys: &Keys, key: &str) -> Option<u32> {
        keys.flag(key).map(|flag| u32::from(!flag))
    }

    /// Whether an activation is one of the kinds of gelu.
    pub(super) fn gelu(keys: &Keys, key: &str) -> Option<u32> {
        keys.text(key).map(|name| u32::from(name.starts_with("gelu")))
    }

    pub(super) fn float(keys: &Keys, key: &str) -> Option<u32> {
        keys.float(key).map(f32::to_bits)
    }
}
