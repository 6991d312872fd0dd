//! Tensors as the bill sees them: role, element type and shape, without their names.

use serde::{Deserialize, Serialize};

use super::buffer::BufferKind;
use crate::gguf::TensorType;
use crate::units::Bytes;

/// One tensor of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "TensorRow", into = "TensorRow")]
pub struct TensorShape {
    /// What the tensor is for.
    pub role: Role,
    /// Which of the role's tensors it is.
    pub suffix: Suffix,
    /// Its element type.
    pub kind: TensorType,
    /// Elements in each dimension, the row length first; unused dimensions are 1.
    pub dims: [u32; 4],
}

/// A tensor as it is remembered on disk: a short row instead of a map with four long keys.
type TensorRow = (Role, Suffix, TensorType, [u32; 4]);

/// What stands behind the role in a tensor's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Suffix {
    /// `.weight`.
    Weight,
    /// `.bias`.
    Bias,
    /// `.scale`: what a product is multiplied with (BitNet, NVFP4).
    Scale,
    /// `.input_scale` or nothing.
    Other,
    /// `.lora_a`: the first half of an adapter that is part of the model.
    LoraA,
    /// `.lora_b`: the second half.
    LoraB,
}

/// Where llama.cpp keeps a tensor that stands outside the blocks (`LLM_TENSOR_INFOS` in
/// `llama-arch.cpp`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Looked up by row on the CPU: always host memory.
    Input,
    /// With the first block.
    FirstBlock,
    /// With the output layer.
    Output,
    /// One copy in every buffer that holds a block using it.
    EveryBlock,
    /// Known to llama.cpp but never loaded.
    Unused,
}

impl TensorShape {
    /// Returns the bytes of the data alone.
    pub fn bytes(&self) -> Bytes {
        let rows = self.dims[1..].iter().fold(1u64, |rows, &dim| rows.saturating_mul(u64::from(dim)));
        row_bytes(self.kind, u64::from(self.dims[0])).saturating_mul(rows)
    }

    /// Returns the bytes that the tensor takes in a buffer of the given kind.
    pub fn allocated(&self, buffer: BufferKind) -> Bytes {
        buffer.allocated(self.kind, u64::from(self.dims[0]), self.bytes())
    }

    /// Returns the number of elements.
    pub fn elements(&self) -> u64 {
        self.dims.iter().fold(1u64, |elements, &dim| elements.saturating_mul(u64::from(dim)))
    }

    /// Returns whether `--n-cpu-moe` moves the tensor: every suffix counts, as its pattern looks
    /// for the role alone (`LLM_FFN_EXPS_REGEX` in `common.h`).
    pub fn is_expert(&self) -> bool {
        self.role.is_expert()
    }

    /// Returns whether a CPU without GPU beside it keeps the tensor repacked, given that it is
    /// multiplied with activations (`ggml_repack_get_optimal_repack_type` in `repack.cpp`).
    pub fn is_repacked(&self, cpu: Cpu) -> bool {
        let adapts = matches!(self.suffix, Suffix::LoraA | Suffix::LoraB);
        let matrices = if self.is_expert() || adapts { self.dims[2] > 1 } else { self.dims[2] <= 1 };
        let rows = u64::from(self.dims[1]);
        (adapts || self.suffix == Suffix::Weight)
            && matrices
            && self.dims[3] <= 1
            && rows > 1
            && cpu.repacks(self.kind, rows)
    }
}

const Q4_0: TensorType = TensorType(2);
const Q8_0: TensorType = TensorType(8);
const Q4_K: TensorType = TensorType(12);
const Q5_K: TensorType = TensorType(13);
const Q6_K: TensorType = TensorType(14);
const IQ4_NL: TensorType = TensorType(20);
const MXFP4: TensorType = TensorType(39);

/// The instruction set whose repacked layouts apply. Both stand for the usual machine: x86 with
/// AVX2, Arm with dot products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpu {
    /// x86-64 with AVX2.
    X86,
    /// 64-bit Arm with `dotprod` and `i8mm`.
    Arm,
}

impl Cpu {
    /// Returns whether a matrix of so many rows has a layout for the CPU.
    pub(super) fn repacks(self, kind: TensorType, rows: u64) -> bool {
        match (self, kind) {
            (_, Q4_K) | (Cpu::X86, Q4_0 | IQ4_NL | MXFP4) | (Cpu::Arm, Q5_K | Q6_K) => rows.is_multiple_of(8),
            (Cpu::Arm, Q4_0 | IQ4_NL | MXFP4 | Q8_0) => rows.is_multiple_of(4),
            _ => false,
        }
    }
}

/// Returns the bytes of a row. A row that is no whole number of blocks is rounded up: llama.cpp
/// refuses such a file, the bill stays on the safe side. An unknown type counts a byte an element.
pub(super) fn row_bytes(kind: TensorType, elements: u64) -> Bytes {
    let (block, bytes) = kind.block().unwrap_or((1, 1));
    // Most tensors of a graph are of floats, and a division is dear.
    let blocks = if block <= 1 { elements } else { elements.div_ceil(block) };
    Bytes(blocks).saturating_mul(bytes)
}

impl From<TensorRow> for TensorShape {
    fn from((role, suffix, kind, dims): TensorRow) -> TensorShape {
        TensorShape { role, suffix, kind, dims }
    }
}

impl From<TensorShape> for TensorRow {
    fn from(tensor: TensorShape) -> TensorRow {
        (tensor.role, tensor.suffix, tensor.kind, tensor.dims)
    }
}

/// Declares the roles once: variant and the name between `blk.N.` and the suffix.
macro_rules! roles {
    ($($role:ident = $name:literal,)*) => {
        /// What a tensor is for, named as in llama.cpp's `LLM_TENSOR_NAMES`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "the names are llama.cpp's own")]
        pub enum Role {
            $(#[serde(rename = $name)] $role,)*
            #[serde(rename = "other")]
            Other,
        }

        impl Role {
            /// Returns the role of a name, [`Role::Other`] for one not listed.
            pub fn from_name(name: &str) -> Role {
                match name {
                    $($name => Role::$role,)*
                    _ => Role::Other,
                }
            }
        }
    };
}

roles! {
    TokenEmbd = "token_embd",
    PositionEmbd = "position_embd",
    TokenTypes = "token_types",
    TokenEmbdNorm = "token_embd_norm",
    PerLayerTokenEmbd = "per_layer_token_embd",
    PerLayerModelProj = "per_layer_model_proj",
    PerLayerProjNorm = "per_layer_proj_norm",
    Output = "output",
    OutputNorm = "output_norm",
    RopeFreqs = "rope_freqs",
    RopeFactorsLong = "rope_factors_long",
    RopeFactorsShort = "rope_factors_short",
    MaskedEmbdCentroids = "masked_embd_centroids",
    MaskedEmbdOrdering = "masked_embd_ordering",
    AttnNorm = "attn_norm",
    AttnNorm2 = "attn_norm_2",
    AttnQ = "attn_q",
    AttnK = "attn_k",
    AttnV = "attn_v",
    AttnQkv = "attn_qkv",
    AttnGate = "attn_gate",
    AttnOutput = "attn_output",
    AttnO = "attn_o",
    EncAttnNorm = "enc.attn_norm",
    EncAttnQ = "enc.attn_q",
    EncAttnK = "enc.attn_k",
    EncAttnV = "enc.attn_v",
    EncAttnO = "enc.attn_o",
    EncAttnRelB = "enc.attn_rel_b",
    EncFfnNorm = "enc.ffn_norm",
    EncFfnGate = "enc.ffn_gate",
    EncFfnUp = "enc.ffn_up",
    EncFfnDown = "enc.ffn_down",
    AttnOutputNorm = "attn_output_norm",
    AttnQNorm = "attn_q_norm",
    AttnKNorm = "attn_k_norm",
    AttnSinks = "attn_sinks",
    AttnQA = "attn_q_a",
    AttnQB = "attn_q_b",
    AttnQANorm = "attn_q_a_norm",
    AttnKvAMqa = "attn_kv_a_mqa",
    AttnKvANorm = "attn_kv_a_norm",
    AttnKvB = "attn_kv_b",
    AttnKB = "attn_k_b",
    AttnVB = "attn_v_b",
    AttnSubNorm = "attn_sub_norm",
    PostAttentionNorm = "post_attention_norm",
    CrossAttnRelB = "cross_attn_rel_b",
    FfnNorm = "ffn_norm",
    FfnGate = "ffn_gate",
    FfnUp = "ffn_up",
    FfnDown = "ffn_down",
    FfnSubNorm = "ffn_sub_norm",
    FfnGateInp = "ffn_gate_inp",
    FfnGateInpShexp = "ffn_gate_inp_shexp",
    FfnGateExps = "ffn_gate_exps",
    FfnUpExps = "ffn_up_exps",
    FfnDownExps = "ffn_down_exps",
    FfnGateUpExps = "ffn_gate_up_exps",
    FfnGateChexps = "ffn_gate_chexps",
    FfnUpChexps = "ffn_up_chexps",
    FfnDownChexps = "ffn_down_chexps",
    FfnGateShexp = "ffn_gate_shexp",
    FfnUpShexp = "ffn_up_shexp",
    FfnDownShexp = "ffn_down_shexp",
    ExpProbsB = "exp_probs_b",
    PostFfwNorm = "post_ffw_norm",
    PostFfwNorm1 = "post_ffw_norm_1",
    PostFfwNorm2 = "post_ffw_norm_2",
    PreFfwNorm2 = "pre_ffw_norm_2",
    LayerOutputNorm = "layer_output_norm",
    LayerOutputScale = "layer_output_scale",
    InpGate = "inp_gate",
    Proj = "proj",
    PostNorm = "post_norm",
    AltupProj = "altup_proj",
    AltupUnembdProj = "altup_unembd_proj",
    AltupCorrectCoef = "altup_correct_coef",
    AltupCorrectScale = "altup_correct_scale",
    AltupPredictCoef = "altup_predict_coef",
    AltupRouter = "altup_router",
    AltupRouterNorm = "altup_router_norm",
    LaurelL = "laurel_l",
    LaurelR = "laurel_r",
    LaurelPostNorm = "laurel_post_norm",
    SsmIn = "ssm_in",
    SsmX = "ssm_x",
    SsmDt = "ssm_dt",
    SsmA = "ssm_a",
    SsmD = "ssm_d",
    SsmConv1d = "ssm_conv1d",
    SsmNorm = "ssm_norm",
    SsmOut = "ssm_out",
    SsmBa = "ssm_ba",
    SsmAlpha = "ssm_alpha",
    SsmBeta = "ssm_beta",
    ShortconvConv = "shortconv.conv",
    ShortconvInProj = "shortconv.in_proj",
    ShortconvOutProj = "shortconv.out_proj",
    TimeMixKey = "time_mix_key",
    TimeMixValue = "time_mix_value",
    TimeMixReceptance = "time_mix_receptance",
    TimeMixOutput = "time_mix_output",
    TimeMixLerpFused = "time_mix_lerp_fused",
    ChannelMixKey = "channel_mix_key",
    ChannelMixValue = "channel_mix_value",
    ChannelMixReceptance = "channel_mix_receptance",
    IndexerK = "indexer.attn_k",
    IndexerQB = "indexer.attn_q_b",
    IndexerProj = "indexer.proj",
    IndexerKNorm = "indexer.k_norm",
    NextnEhProj = "nextn.eh_proj",
    NextnEnorm = "nextn.enorm",
    NextnHnorm = "nextn.hnorm",
    NextnEmbedTokens = "nextn.embed_tokens",
    NextnSharedHeadHead = "nextn.shared_head_head",
    NextnSharedHeadNorm = "nextn.shared_head_norm",
    NextnPreProjection = "nextn.pre_projection",
    HrmInit = "hrm.z_l_init",
    Conv1d = "conv1d",
    ConvDw = "dw",
    ConvGamma = "gamma",
    ConvNorm = "norm",
    ConvPw1 = "pw1",
    ConvPw2 = "pw2",
    PosNetConv1 = "conv1",
    PosNetConv2 = "conv2",
    PosNetNorm1 = "norm1",
    PosNetNorm2 = "norm2",
    AttnCompressorApe = "attn_compressor_ape",
    AttnCompressorGate = "attn_compressor_gate",
    AttnCompressorKv = "attn_compressor_kv",
    AttnCompressorNorm = "attn_compressor_norm",
    AttnConvBase = "attn_conv_base",
    AttnConvProj = "attn_conv_proj",
    AttnKv = "attn_kv",
    AttnOutputA = "attn_output_a",
    AttnOutputB = "attn_output_b",
    AttnRelB = "attn_rel_b",
    AttnResScore = "attn_res_score",
    AttnRotEmbd = "attn_rot_embd",
    ChannelMixLerpK = "channel_mix_lerp_k",
    ChannelMixLerpR = "channel_mix_lerp_r",
    Cls = "cls",
    ClsNorm = "cls.norm",
    ClsOutput = "cls.output",
    ConfProj = "conf_proj",
    CrossAttnK = "cross_attn_k",
    CrossAttnNorm = "cross_attn_norm",
    CrossAttnNormKv = "cross_attn_norm_kv",
    CrossAttnO = "cross_attn_o",
    CrossAttnQ = "cross_attn_q",
    CrossAttnV = "cross_attn_v",
    D2t = "d2t",
    DecOutputNorm = "dec.output_norm",
    DecisionFieldNorm = "decision.field_norm",
    DecisionHiddenNorm = "decision.hidden_norm",
    DecisionOptionNorm = "decision.option_norm",
    DecisionOptionSummaryNorm = "decision.option_summary_norm",
    DecisionProjGlobal = "decision.proj_global",
    DecisionProjMemory = "decision.proj_memory",
    DecisionProjOptionContext = "decision.proj_option_context",
    DecisionProjOptionLexical = "decision.proj_option_lexical",
    DecisionProjOptionQuestion = "decision.proj_option_question",
    DecisionProjQuestion = "decision.proj_question",
    DecisionScales = "decision.scales",
    DecisionScorer = "decision.scorer",
    DecisionScorerOut = "decision.scorer_out",
    DecAttnK = "dec.attn_k",
    DecAttnNorm = "dec.attn_norm",
    DecAttnO = "dec.attn_o",
    DecAttnQ = "dec.attn_q",
    DecAttnV = "dec.attn_v",
    DecCrossAttnK = "dec.cross_attn_k",
    DecCrossAttnNorm = "dec.cross_attn_norm",
    DecCrossAttnNormKv = "dec.cross_attn_norm_kv",
    DecCrossAttnO = "dec.cross_attn_o",
    DecCrossAttnQ = "dec.cross_attn_q",
    DecCrossAttnV = "dec.cross_attn_v",
    DecFfnDown = "dec.ffn_down",
    DecFfnNorm = "dec.ffn_norm",
    DecFfnUp = "dec.ffn_up",
    Dense2 = "dense_2",
    Dense3 = "dense_3",
    EncOutputNorm = "enc.output_norm",
    ExpProbsBVl = "exp_probs_b_vl",
    Fc = "fc",
    FfnAct = "ffn.act",
    FfnConvBase = "ffn_conv_base",
    FfnConvProj = "ffn_conv_proj",
    FfnGateTid2eid = "ffn_gate_tid2eid",
    FfnLatentDown = "ffn_latent_down",
    FfnLatentUp = "ffn_latent_up",
    FfnNormExps = "ffn_norm_exps",
    FfnResScore = "ffn_res_score",
    FfnRoutedDown = "ffn_routed_down",
    FfnRoutedNorm = "ffn_routed_norm",
    FfnRoutedUp = "ffn_routed_up",
    HcAttnBase = "hc_attn_base",
    HcAttnDown = "hc_attn_down",
    HcAttnFn = "hc_attn_fn",
    HcAttnInject = "hc_attn_inject",
    HcAttnNorm = "hc_attn_norm",
    HcAttnScale = "hc_attn_scale",
    HcAttnUp = "hc_attn_up",
    HcFfnBase = "hc_ffn_base",
    HcFfnDown = "hc_ffn_down",
    HcFfnFn = "hc_ffn_fn",
    HcFfnInject = "hc_ffn_inject",
    HcFfnNorm = "hc_ffn_norm",
    HcFfnScale = "hc_ffn_scale",
    HcFfnUp = "hc_ffn_up",
    IndexerKProj = "indexer.k_proj",
    IndexerQNorm = "indexer.q_norm",
    IndexerQProj = "indexer.q_proj",
    IndexerCompressorApe = "indexer_compressor_ape",
    IndexerCompressorGate = "indexer_compressor_gate",
    IndexerCompressorKv = "indexer_compressor_kv",
    IndexerCompressorNorm = "indexer_compressor_norm",
    MarkovW1 = "markov_w1",
    MarkovW2 = "markov_w2",
    NextnHcHeadDown = "nextn.hc_head_down",
    NextnHcHeadNorm = "nextn.hc_head_norm",
    NextnHcHeadUp = "nextn.hc_head_up",
    NextnPostProjection = "nextn.post_projection",
    OutputHcBase = "output_hc_base",
    OutputHcDown = "output_hc_down",
    OutputHcFn = "output_hc_fn",
    OutputHcNorm = "output_hc_norm",
    OutputHcScale = "output_hc_scale",
    OutputHcUp = "output_hc_up",
    OutputResScore = "output_res_score",
    PleConv1d = "ple_conv1d",
    PleKey = "ple_key",
    PleNormConv = "ple_norm_conv",
    PleNormKey = "ple_norm_key",
    PleNormQuery = "ple_norm_query",
    PleValue = "ple_value",
    SelectorHidden = "selector_hidden",
    SelectorPredecessor = "selector_predecessor",
    SelectorSuccessor = "selector_successor",
    SsmBNorm = "ssm_b_norm",
    SsmCNorm = "ssm_c_norm",
    SsmConv1dK = "ssm_conv1d_k",
    SsmConv1dQ = "ssm_conv1d_q",
    SsmConv1dV = "ssm_conv1d_v",
    SsmDtNorm = "ssm_dt_norm",
    SsmFA = "ssm_f_a",
    SsmFB = "ssm_f_b",
    SsmG = "ssm_g",
    SsmGA = "ssm_g_a",
    SsmGB = "ssm_g_b",
    TimeMixA0 = "time_mix_a0",
    TimeMixA1 = "time_mix_a1",
    TimeMixA2 = "time_mix_a2",
    TimeMixDecay = "time_mix_decay",
    TimeMixDecayW1 = "time_mix_decay_w1",
    TimeMixDecayW2 = "time_mix_decay_w2",
    TimeMixFirst = "time_mix_first",
    TimeMixG1 = "time_mix_g1",
    TimeMixG2 = "time_mix_g2",
    TimeMixGate = "time_mix_gate",
    TimeMixKA = "time_mix_k_a",
    TimeMixKK = "time_mix_k_k",
    TimeMixLerpG = "time_mix_lerp_g",
    TimeMixLerpK = "time_mix_lerp_k",
    TimeMixLerpR = "time_mix_lerp_r",
    TimeMixLerpV = "time_mix_lerp_v",
    TimeMixLerpW = "time_mix_lerp_w",
    TimeMixLerpX = "time_mix_lerp_x",
    TimeMixLn = "time_mix_ln",
    TimeMixRK = "time_mix_r_k",
    TimeMixV0 = "time_mix_v0",
    TimeMixV1 = "time_mix_v1",
    TimeMixV2 = "time_mix_v2",
    TimeMixW0 = "time_mix_w0",
    TimeMixW1 = "time_mix_w1",
    TimeMixW2 = "time_mix_w2",
    VisAttnOutput = "vis_attn_output",
    VisAttnQkv = "vis_attn_qkv",
    VisDown = "vis_down",
    VisGate = "vis_gate",
    VisUp = "vis_up",
}

impl Role {
    /// Returns whether the tensor holds routed experts.
    pub const fn is_expert(self) -> bool {
        matches!(
            self,
            Role::FfnGateExps
                | Role::FfnUpExps
                | Role::FfnDownExps
                | Role::FfnGateUpExps
                | Role::FfnGateChexps
                | Role::FfnUpChexps
                | Role::FfnDownChexps
        )
    }

    /// Returns where a tensor outside the blocks lives. What is not listed goes with the output
    /// layer, as most of llama.cpp's heads and projections do.
    pub const fn home(self) -> Home {
        match self {
            // The last are 64-bit integers, which GPUs cannot look up.
            Role::TokenEmbd | Role::PositionEmbd | Role::TokenTypes | Role::PerLayerTokenEmbd | Role::D2t => {
                Home::Input
            }
            Role::TokenEmbdNorm
            | Role::PerLayerModelProj
            | Role::PerLayerProjNorm
            | Role::NextnPreProjection
            | Role::HrmInit
            | Role::Conv1d => Home::FirstBlock,
            Role::RopeFreqs | Role::RopeFactorsLong | Role::RopeFactorsShort => Home::EveryBlock,
            Role::MaskedEmbdCentroids | Role::MaskedEmbdOrdering => Home::Unused,
            _ => Home::Output,
        }
    }
}
