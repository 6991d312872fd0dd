//! The image, or the sound, that llama.cpp reserves a projector's compute buffer for.
//!
//! Models that take any size of image get a smaller one than the largest, so that loading does not
//! fail for want of memory that most images never need (`load_hparams` in `clip.cpp`).

use super::encoder::Encoder;
use super::{ImageLimits, Modality};

/// Frames of sound that are reserved for: 30 seconds (`warmup_audio_size`).
pub(super) const FRAMES: u64 = 3_000;

/// How the side of the image follows from the header.
#[derive(Clone, Copy, Debug)]
enum Side {
    /// Images are always `image_size` wide and high.
    Image,
    /// A given number of pixels.
    Pixels(u64),
    /// As many tokens, a square (`set_warmup_n_tokens`).
    Tokens(u64),
    /// The most tokens allowed, a square (`set_limit_image_tokens`).
    MostTokens(u64),
}

/// How many patches become a token in each direction, where the header may say otherwise.
#[derive(Clone, Copy, Debug)]
enum Merge {
    Always(u64),
    /// `projector.scale_factor`, or else this.
    Scale(u64),
    /// `spatial_merge_size`, or else this.
    Spatial(u64),
}

/// Sets the patch, the merge and the image or sound of an encoder.
pub(super) fn reserved(encoder: &mut Encoder, limits: ImageLimits) {
    if encoder.modality != Modality::Vision {
        encoder.sizes.width = FRAMES;
        // Gemma 4's encoder-free audio takes frames of 640 samples in place of mel bins.
        let raw = encoder.name == "gemma4ua";
        encoder.sizes.height = if raw { 640 } else { encoder.number("num_mel_bins") };
        return;
    }
    let (merge, side) = preset(encoder.name);
    let merge = match merge {
        Merge::Always(merge) => merge,
        Merge::Scale(merge) => encoder.find("projector.scale_factor").unwrap_or(merge),
        Merge::Spatial(merge) => encoder.find("spatial_merge_size").unwrap_or(merge),
    };
    let patch = encoder.number("patch_size");
    (encoder.sizes.patch, encoder.sizes.merge) = match encoder.name {
        // The convolution itself merges the patches.
        "gemma4uv" => (patch.saturating_mul(merge), 1),
        "deepseekocr" | "deepseekocr2" => (16, merge),
        _ => (patch, merge),
    };
    let token = encoder.sizes.patch.saturating_mul(encoder.sizes.merge);
    let side = match side {
        Side::Image => encoder.number("image_size"),
        Side::Pixels(pixels) => pixels,
        Side::Tokens(tokens) => limits.square(limits.block(encoder.name, tokens)).saturating_mul(token),
        Side::MostTokens(tokens) => most_pixels(encoder).unwrap_or_else(|| {
            let tokens = if limits.max_tokens > 0 { u64::from(limits.max_tokens) } else { tokens };
            tokens.saturating_mul(token).saturating_mul(token).isqrt()
        }),
    };
    (encoder.sizes.width, encoder.sizes.height) = (side, side);
}

/// Kimi K2.5's header may name the most pixels, which then holds whatever is asked for.
fn most_pixels(encoder: &Encoder) -> Option<u64> {
    let named = |key: &str| encoder.find(key).filter(|&pixels| pixels > 0);
    let both = named("image_min_pixels").and(named("image_max_pixels"))?;
    (encoder.name == "kimik25").then(|| both.isqrt())
}

impl ImageLimits {
    /// Returns the side of a square of tokens, no more than are allowed.
    fn square(self, tokens: u64) -> u64 {
        let most = u64::from(self.max_tokens);
        if most > 0 && tokens > most { most.isqrt().max(1) } else { tokens.isqrt() }
    }

    /// DeepSeek V4 limits the whole block of an image's tokens, 384 where nothing is asked for.
    fn block(self, name: &str, tokens: u64) -> u64 {
        if name != "deepseek4v" {
            return tokens;
        }
        let most = if self.max_tokens > 0 { u64::from(self.max_tokens).max(16) } else { 384 };
        let side = tokens.min(most).isqrt();
        side.saturating_mul(side)
    }
}

/// Returns what holds for a type of projector.
fn preset(name: &str) -> (Merge, Side) {
    match name {
        "gemma3nv" | "llama4" | "internvl" | "nemotron_v2_vl" | "idefics3" => (Merge::Scale(1), Side::Image),
        "gemma4v" | "gemma4uv" => (Merge::Scale(3), Side::Tokens(256)),
        "gemma3" | "minicpmv4_6" | "step3vl" => (Merge::Scale(4), Side::Image),
        "lfm2" => (Merge::Scale(1), Side::MostTokens(256)),
        "kimik25" => (Merge::Scale(1), Side::MostTokens(4_096)),
        "kimivl" | "deepseek4v" => (Merge::Scale(1), Side::Tokens(256)),
        "dots_ocr" => (Merge::Scale(1), Side::Tokens(46 * 46)),
        "phi4" => (Merge::Always(1), Side::Tokens(256)),
        "pixtral" | "lightonocr" => (Merge::Spatial(1), Side::Tokens(256)),
        "dots3note_v" => (Merge::Spatial(1), Side::Tokens(46 * 46)),
        "qwen2vl_merger" | "qwen2.5vl_merger" | "qwen3vl_merger" | "ling3vl" | "mimovl" | "glm4v" | "glm5v"
        | "exaone4_5" => (Merge::Spatial(2), Side::Tokens(46 * 46)),
        "minimax_m3" | "youtuvl" => (Merge::Spatial(2), Side::Tokens(256)),
        "muse-glimmer" | "hunyuanvl" => (Merge::Spatial(2), Side::Tokens(32 * 32)),
        "paddleocr" => (Merge::Always(2), Side::Tokens(28 * 28)),
        "deepseekocr" | "deepseekocr2" => (Merge::Always(1), Side::Pixels(1_024)),
        _ => (Merge::Always(1), Side::Image),
    }
}
