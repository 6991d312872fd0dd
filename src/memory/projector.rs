//! What a vision or audio projector takes.

use serde::{Deserialize, Serialize};

use super::bill::{Basis, Bill, Line, Part, Placement, Pool};
use super::read;
use super::{Devices, EngineProfile, StructureError};
use crate::gguf::Header;
use crate::units::Bytes;

/// What the bill needs of a projector file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Projector {
    /// The projector's type in llama.cpp's words, where the file names it.
    pub projector_type: Option<String>,
    /// Bytes of its weights as the file holds them.
    pub weights: Bytes,
    /// Compute buffer for the largest image, a documented estimate.
    pub compute: Bytes,
    /// Where `compute` comes from.
    pub notes: Vec<String>,
}

impl Projector {
    /// Takes from a projector's header what the bill needs.
    pub fn from_header(header: &Header) -> Result<Projector, StructureError> {
        let structure = read::structure(header)?;
        let weights = header.tensors.iter().map(|tensor| tensor.bytes).sum();
        let projector_type = ["clip.projector_type", "clip.vision.projector_type", "clip.audio.projector_type"]
            .into_iter()
            .find_map(|key| header.metadata.text(key))
            .map(str::to_owned);
        let mut notes = structure.notes;
        let vision = Encoder::of(header, "clip.vision");
        let patches = vision.patches(projector_type.as_deref());
        let mut compute = vision.compute(patches);
        if patches > 0 {
            notes.push(format!("the projector's buffer is a guess for an image of {patches} patches"));
        }
        let audio = Encoder::of(header, "clip.audio");
        if audio.embedding > 0 {
            compute = compute.max(audio.compute(AUDIO_FRAMES));
            notes.push("the projector's buffer is a guess for 30 s of sound".into());
        }
        Ok(Projector { projector_type, weights, compute, notes })
    }

    /// Returns the bill of the projector without a model: on the first GPU, or in RAM.
    pub fn bill(&self, devices: &Devices, profile: &EngineProfile) -> Bill {
        let pool = if devices.gpus.is_empty() { Pool::Host } else { Pool::Gpu(0) };
        Bill {
            lines: self.lines(pool).collect(),
            placement: Placement {
                gpu_layers: 0,
                layers: 0,
                by_gpu: vec![0; devices.gpus.len()],
                cpu_moe: 0,
                context: 0,
                flash_attention: false,
            },
            overhead: None,
            profile: profile.name.clone(),
            assumptions: self.notes.clone(),
        }
    }

    /// Returns what the projector adds to a bill.
    pub(super) fn lines(&self, pool: Pool) -> impl Iterator<Item = Line> {
        let lines = [
            Line { pool, part: Part::Projector, bytes: self.weights, basis: Basis::Exact },
            Line { pool, part: Part::ProjectorCompute, bytes: self.compute, basis: Basis::Guess },
        ];
        lines.into_iter().filter(|line| line.bytes != Bytes::ZERO)
    }
}

/// Frames of the 30 s that audio encoders work on at a time.
const AUDIO_FRAMES: u64 = 3_000;

/// The sizes of an image or sound encoder.
struct Encoder {
    embedding: u64,
    feed_forward: u64,
    gated: bool,
    image: u64,
    patch: u64,
    merge: u64,
}

impl Encoder {
    fn of(header: &Header, prefix: &str) -> Encoder {
        let number = |key: &str| header.metadata.unsigned(&format!("{prefix}.{key}")).unwrap_or(0);
        Encoder {
            embedding: number("embedding_length"),
            feed_forward: number("feed_forward_length"),
            gated: header.tensors.iter().any(|tensor| tensor.name.contains(".ffn_gate.")),
            image: number("image_size"),
            patch: number("patch_size"),
            merge: number("spatial_merge_size"),
        }
    }

    /// Returns the patches of the largest image that llama.cpp reserves for (`clip.cpp`).
    fn patches(&self, projector_type: Option<&str>) -> u64 {
        let side = self.image.checked_div(self.patch).unwrap_or(0);
        let whole = side.saturating_mul(side);
        match projector_type {
            // Any size of image, up to 4096 tokens of 2 by 2 patches.
            Some("qwen2vl_merger" | "qwen2.5vl_merger" | "qwen3vl_merger") => {
                let merge = if self.merge == 0 { 2 } else { self.merge };
                merge.saturating_mul(merge).saturating_mul(4_096)
            }
            // The buffer starts at a warm-up image of 256 tokens of 2 by 2 patches.
            Some("pixtral" | "lightonocr") => 1_024,
            // One image of fixed size; what is tiled is encoded tile by tile.
            _ => whole.min(16_384),
        }
    }

    /// Returns the activations of one block: the hidden layer (gate, up and their product where
    /// there is a gate) and four activations, in f32. Gemma 3's 121 MiB come out as 139.
    fn compute(&self, patches: u64) -> Bytes {
        let hidden = self.feed_forward.saturating_mul(if self.gated { 3 } else { 1 });
        let width = hidden.saturating_add(self.embedding.saturating_mul(4));
        Bytes(patches).saturating_mul(width).saturating_mul(4)
    }
}
