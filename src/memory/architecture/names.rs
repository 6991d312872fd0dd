//! The architectures that llama.cpp knows, by name.

/// Every architecture of `LLM_ARCH_NAMES` in `llama-arch.cpp`.
const KNOWN: &[&str] = &[
    "afmoe",
    "apertus",
    "arcee",
    "arctic",
    "arwkv7",
    "baichuan",
    "bailingmoe",
    "bailingmoe2",
    "bailingmoe3",
    "bert",
    "bitnet",
    "bloom",
    "chameleon",
    "chatglm",
    "clef",
    "clip",
    "codeshell",
    "cogvlm",
    "cohere2",
    "cohere2moe",
    "command-r",
    "dbrx",
    "deci",
    "deepseek",
    "deepseek2",
    "deepseek2-ocr",
    "deepseek32",
    "deepseek4",
    "dflash",
    "dots1",
    "dots3note",
    "dream",
    "eagle3",
    "ernie4_5",
    "ernie4_5-moe",
    "eurobert",
    "exaone",
    "exaone-moe",
    "exaone4",
    "falcon",
    "falcon-h1",
    "gemma",
    "gemma-embedding",
    "gemma2",
    "gemma3",
    "gemma3n",
    "gemma4",
    "gemma4-assistant",
    "glm-dsa",
    "glm4",
    "glm4moe",
    "glm5-next",
    "gpt-oss",
    "gpt2",
    "gptj",
    "gptneox",
    "granite",
    "granite_swa",
    "granitehybrid",
    "granitemoe",
    "graniteswitch",
    "grok",
    "grovemoe",
    "hrm_text",
    "hunyuan-dense",
    "hunyuan-moe",
    "hunyuan_vl",
    "hy_v3",
    "hy_v4",
    "internlm2",
    "jais",
    "jais2",
    "jamba",
    "jina-bert-v2",
    "jina-bert-v3",
    "kimi-k3",
    "kimi-linear",
    "laguna",
    "lfm2",
    "lfm2moe",
    "llada",
    "llada-moe",
    "llama",
    "llama-embed",
    "llama4",
    "maincoder",
    "mamba",
    "mamba2",
    "maple",
    "mellum",
    "mimo2",
    "minicpm",
    "minicpm3",
    "minimax-01",
    "minimax-m2",
    "minimax-m3",
    "mistral3",
    "mistral4",
    "modern-bert",
    "mpt",
    "muse-glimmer",
    "nanbeige",
    "nemotron",
    "nemotron_h",
    "nemotron_h_moe",
    "neo-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "olmo",
    "olmo2",
    "olmoe",
    "openelm",
    "orion",
    "paddleocr",
    "pangu-embedded",
    "phi2",
    "phi3",
    "phimoe",
    "plamo",
    "plamo2",
    "plamo3",
    "plm",
    "pockettts",
    "qwen",
    "qwen2",
    "qwen2moe",
    "qwen2vl",
    "qwen3",
    "qwen35",
    "qwen35moe",
    "qwen3moe",
    "qwen3next",
    "qwen3tts",
    "qwen3vl",
    "qwen3vlmoe",
    "qwen4exp",
    "refact",
    "rnd1",
    "rwkv6",
    "rwkv6qwen2",
    "rwkv7",
    "seed_oss",
    "smallthinker",
    "smollm3",
    "spark2_5",
    "stablelm",
    "starcoder",
    "starcoder2",
    "step35",
    "t5",
    "t5encoder",
    "talkie",
    "wavtokenizer-dec",
    "xverse",
];

/// Returns whether llama.cpp knows the architecture.
pub(in crate::memory) fn is_known(architecture: &str) -> bool {
    KNOWN.contains(&architecture)
}

/// Returns whether the architecture only embeds or scores text.
pub(in crate::memory) fn is_encoder(architecture: &str) -> bool {
    !has_output_layer(architecture) || matches!(architecture, "clef" | "gemma-embedding" | "llama-embed" | "t5encoder")
}

/// Returns whether the model ends in logits over the vocabulary: its token embedding serves as
/// output layer where it has none of its own.
pub(in crate::memory) fn has_output_layer(architecture: &str) -> bool {
    !matches!(
        architecture,
        "bert"
            | "eurobert"
            | "jina-bert-v2"
            | "jina-bert-v3"
            | "modern-bert"
            | "neo-bert"
            | "nomic-bert"
            | "nomic-bert-moe"
    )
}

/// Returns whether a part of the model runs ahead of the rest over a whole batch
/// (`llama_model_has_encoder`): then every token of a batch may be put out.
pub(in crate::memory) fn has_encoder(architecture: &str) -> bool {
    matches!(architecture, "t5" | "t5encoder" | "eagle3" | "dflash")
}

/// Returns whether files of this architecture only help another model to speculate.
pub(in crate::memory) fn is_drafter(architecture: &str) -> bool {
    matches!(architecture, "eagle3" | "dflash" | "gemma4-assistant")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_name_is_written_once_and_in_order() {
        assert!(KNOWN.is_sorted_by(|one, next| one < next), "sorted, without doubles");
        assert!(is_known("gpt-oss") && !is_known("gpt-ossx"));
    }
}
