//! What a vision or audio projector takes.
//!
//! A projector file holds an encoder of images, one of sound, or both, each with weights and a
//! compute buffer of its own. llama.cpp reserves the buffers when it loads the file, for an image of
//! a set size (`mtmd_get_memory_usage`); [`super::graph`] builds the same graphs. They are built
//! when the header is read, for every back-end, so that a bill only has to look them up.

mod encoder;
mod image;

use serde::{Deserialize, Serialize};

use self::encoder::{Tensors, projector_type};
use super::bill::{Basis, Bill, Line, Part, Placement, Pool};
use super::graph::projectors;
use super::{Backend, Devices, EngineProfile, FlashAttention, StructureError, read};
use crate::gguf::{Header, Tensor};
use crate::units::Bytes;

pub(super) use self::encoder::{Encoder, Sizes};

/// What the bill needs of a projector file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Projector {
    /// The projector's type in llama.cpp's words, where the file names it.
    pub projector_type: Option<String>,
    /// Bytes of its weights as llama.cpp counts them.
    pub weights: Bytes,
    /// Its compute buffers on each kind of device; none where nothing is known of the encoders.
    pub buffers: Vec<ProjectorBuffers>,
    /// How the buffers are known.
    pub basis: Basis,
    /// What they are for, and what is left out, in words for the user.
    pub notes: Vec<String>,
}

/// The compute buffers of a projector in one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectorBuffers {
    /// The back-end that it runs on.
    pub backend: Backend,
    /// The flash attention setting.
    pub flash_attention: FlashAttention,
    /// The buffer beside the weights.
    pub device: Bytes,
    /// The buffer in main memory, where the weights are elsewhere.
    pub host: Bytes,
}

/// How many tokens an image may have (`--image-max-tokens`), where the engine is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageLimits {
    /// Most tokens of an image, 0 for the model's own limit.
    pub max_tokens: u32,
}

/// What an encoder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Modality {
    /// Images.
    Vision,
    /// Sound that is listened to.
    Audio,
    /// Sound that is made.
    Speech,
}

impl Modality {
    const ALL: [Modality; 3] = [Modality::Vision, Modality::Audio, Modality::Speech];

    /// Returns what its keys have behind `clip.`.
    const fn key(self) -> &'static str {
        match self {
            Modality::Vision => "vision",
            Modality::Audio => "audio",
            Modality::Speech => "gen.audio",
        }
    }

    /// Returns what the encoder is called.
    const fn encoder(self) -> &'static str {
        match self {
            Modality::Vision => "vision encoder",
            Modality::Audio => "audio encoder",
            Modality::Speech => "speech decoder",
        }
    }

    /// Returns what its tensors' names begin with.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Modality::Vision => "v",
            Modality::Audio => "a",
            Modality::Speech => "a.gen.code",
        }
    }

    /// Returns whether a file says that it has such an encoder.
    fn is_named(self, header: &Header) -> bool {
        let flag = match self {
            Modality::Vision => "clip.has_vision_encoder",
            Modality::Audio => "clip.has_audio_encoder",
            Modality::Speech => "clip.has_gen_audio_encoder",
        };
        header.metadata.bool(flag).unwrap_or(false)
    }

    /// Returns the encoders of a file that are loaded.
    fn loaded(header: &Header) -> Vec<Modality> {
        // Gemma 3n's files hold an encoder of sound that llama.cpp does not use yet.
        let vision_alone = projector_type(header, Modality::Vision) == Some("gemma3nv");
        let is_loaded = |modality: &Modality| *modality != Modality::Audio || !vision_alone;
        let named = Modality::ALL.into_iter().filter(|modality| modality.is_named(header));
        let named: Vec<Modality> = named.filter(is_loaded).collect();
        if !named.is_empty() {
            return named;
        }
        // llama.cpp refuses a file that names none; the keys still show what it is for.
        let has_keys =
            |modality: &Modality| header.metadata.get(&format!("clip.{}.embedding_length", modality.key())).is_some();
        Modality::ALL.into_iter().filter(has_keys).collect()
    }
}

/// The back-ends that buffers are known for; ROCm's are CUDA's.
const BACKENDS: [Backend; 5] = [Backend::None, Backend::Cuda, Backend::Vulkan, Backend::Metal, Backend::Rpc];

/// The flash attention settings.
const FLASH: [FlashAttention; 3] = [FlashAttention::On, FlashAttention::Off, FlashAttention::Auto];

impl Projector {
    /// Takes from a projector's header what the bill needs.
    pub fn from_header(header: &Header) -> Result<Projector, StructureError> {
        Projector::with_limits(header, ImageLimits::default())
    }

    /// As [`Projector::from_header`] for an engine that is told how large images may be.
    pub fn with_limits(header: &Header, limits: ImageLimits) -> Result<Projector, StructureError> {
        let structure = read::structure(header)?;
        let mut loaded = Modality::loaded(header);
        let tensors: Tensors = header.tensors.iter().map(|tensor| (&*tensor.name, tensor)).collect();
        let mut projector = Projector {
            projector_type: Modality::ALL.into_iter().find_map(|modality| stated_type(header, modality)),
            weights: loaded.iter().map(|&modality| weights(header, modality, &loaded)).sum(),
            buffers: Vec::new(),
            basis: Basis::Exact,
            notes: structure.notes,
        };
        if loaded.is_empty() {
            // Nothing says what it is for; most are for images.
            projector.weights = header.tensors.iter().map(|tensor| tensor.bytes).sum();
            loaded.push(Modality::Vision);
        }
        for modality in loaded {
            if modality == Modality::Speech {
                projector.notes.push("the buffer for making sound is taken when it is first used".into());
                continue;
            }
            let encoder = Encoder::new(header, &tensors, modality, limits);
            if let Some((encoder, buffers)) = encoder.and_then(|encoder| Some((encoder, built(&encoder)?))) {
                projector.add(&buffers);
                projector.notes.push(reserved_for(&encoder));
            } else {
                projector.basis = Basis::Guess;
                projector.add(&guessed(header, modality));
                projector.notes.push(format!(
                    "the buffer of the projector's {} is a guess: its type is not known well enough",
                    modality.encoder()
                ));
            }
        }
        Ok(projector)
    }

    /// Adds the buffers of an encoder, which stay beside those of the others.
    fn add(&mut self, buffers: &[ProjectorBuffers]) {
        if self.buffers.is_empty() {
            self.buffers = buffers.to_vec();
            return;
        }
        for (sum, more) in self.buffers.iter_mut().zip(buffers) {
            sum.device = sum.device.saturating_add(more.device);
            sum.host = sum.host.saturating_add(more.host);
        }
    }

    /// Returns the compute buffers on a back-end.
    pub fn computed(&self, backend: Backend, flash_attention: FlashAttention) -> Option<&ProjectorBuffers> {
        let backend = if backend == Backend::Rocm { Backend::Cuda } else { backend };
        let fits =
            |buffers: &&ProjectorBuffers| (buffers.backend, buffers.flash_attention) == (backend, flash_attention);
        self.buffers.iter().find(fits)
    }

    /// Returns the bill of the projector without a model: on the first GPU, or in RAM.
    pub fn bill(&self, devices: &Devices, profile: &EngineProfile) -> Bill {
        let backend = if devices.gpus.is_empty() { Backend::None } else { devices.backend };
        Bill {
            lines: self.lines(backend, FlashAttention::Auto),
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

    /// Returns what the projector adds to a bill: it goes onto the first GPU as a whole.
    pub(super) fn lines(&self, backend: Backend, flash_attention: FlashAttention) -> Vec<Line> {
        let pool = if backend == Backend::None { Pool::Host } else { Pool::Gpu(0) };
        let (device, host) =
            self.computed(backend, flash_attention).map(|buffers| (buffers.device, buffers.host)).unwrap_or_default();
        let lines = [
            Line { pool, part: Part::Projector, bytes: self.weights, basis: Basis::Exact },
            Line { pool, part: Part::ProjectorCompute, bytes: device, basis: self.basis },
            Line { pool: Pool::Host, part: Part::ProjectorCompute, bytes: host, basis: self.basis },
        ];
        lines.into_iter().filter(|line| line.bytes != Bytes::ZERO).collect()
    }
}

fn every_setting() -> impl Iterator<Item = (Backend, FlashAttention)> {
    BACKENDS.into_iter().flat_map(|backend| FLASH.into_iter().map(move |flash| (backend, flash)))
}

/// Returns the buffers of an encoder in every setting, or nothing where its graph is not known.
fn built(encoder: &Encoder) -> Option<Vec<ProjectorBuffers>> {
    let graphs = projectors::Graphs::build(encoder)?;
    let buffers = every_setting().map(|(backend, flash_attention)| {
        let computed = graphs.compute(backend, flash_attention);
        let (device, host) = (Bytes(computed.device), Bytes(computed.host));
        ProjectorBuffers { backend, flash_attention, device, host }
    });
    Some(buffers.collect())
}

/// Says what the buffers of an encoder are for.
fn reserved_for(encoder: &Encoder) -> String {
    let Sizes { width, height, .. } = encoder.sizes;
    let what = match encoder.modality {
        Modality::Vision => format!("an image of {width} by {height} pixels"),
        Modality::Audio | Modality::Speech => "30 s of sound".to_owned(),
    };
    format!("the projector's buffer is for {what}, as the engine reserves it; it grows with larger ones")
}

fn stated_type(header: &Header, modality: Modality) -> Option<String> {
    let own = format!("clip.{}.projector_type", modality.key());
    ["clip.projector_type", own.as_str()].into_iter().find_map(|key| header.metadata.text(key)).map(str::to_owned)
}

/// Returns the bytes of the weights that an encoder loads (`load_tensors` in `clip.cpp`).
fn weights(header: &Header, modality: Modality, loaded: &[Modality]) -> Bytes {
    let is_alone = loaded.len() == 1;
    let kind = projector_type(header, modality).unwrap_or_default();
    let blocks = header.metadata.unsigned(&format!("clip.{}.block_count", modality.key())).unwrap_or(0);
    let loads = |tensor: &&Tensor| {
        let name = &*tensor.name;
        let own = owner(name) == modality || (is_alone && !owner(name).is_named(header));
        !is_read_only_once(name) && (own || is_for_all(name, blocks) || borrows(kind, name))
    };
    header.tensors.iter().filter(loads).map(|tensor| tensor.bytes).sum()
}

/// Returns whether an encoder of sound loads a tensor that is named as one of images are.
fn borrows(kind: &str, name: &str) -> bool {
    match kind {
        "parakeet" => name.starts_with("mm.model.mlp."),
        "glma" => matches!(name, "v.boi" | "v.eoi"),
        _ => false,
    }
}

/// Returns whether a tensor holds numbers that are read while the file is loaded and then let go:
/// Gemma 4's limits, Parakeet's filters.
fn is_read_only_once(name: &str) -> bool {
    let limits = [".input_max", ".input_min", ".output_max", ".output_min"];
    limits.iter().any(|end| name.ends_with(end)) || matches!(name, "a.mel_filters" | "a.window")
}

/// Returns whether a tensor is looked for whatever the modality, so that each encoder of a file with
/// several has a copy.
fn is_for_all(name: &str, blocks: u64) -> bool {
    let deep = name.strip_prefix("v.deepstack.").and_then(|rest| rest.split_once('.'));
    let deep = deep.and_then(|(block, _)| block.parse::<u64>().ok());
    name == "v.class_embd"
        || name.starts_with("v.patch_embd.")
        || name.starts_with("v.norm_embd.")
        || deep.is_some_and(|block| block < blocks)
}

/// Returns which encoder a tensor is of, as its name has it.
fn owner(name: &str) -> Modality {
    if name.starts_with("a.gen.") {
        Modality::Speech
    } else if name.starts_with("a.") || name.starts_with("mm.a.") {
        Modality::Audio
    } else {
        Modality::Vision
    }
}

/// Patches of the largest image that is reserved for where any size of image is taken: 46 by 46
/// tokens of 2 by 2 patches, as Qwen's, GLM's and others have it.
const USUAL_PATCHES: u64 = 92 * 92;

/// As many patches as there may be; every encoder known has fewer.
const MOST_PATCHES: u64 = 128 * 128;

/// Returns a guess at the buffers of an encoder whose graph is not known, on the high side of those
/// that are: twice a block's hidden layer (gate, up and their product where there is a gate) and six
/// activations, in f32, for each patch; without flash attention the products of all queries and keys
/// as well. Sound often begins with convolutions, which take up to five times as much.
fn guessed(header: &Header, modality: Modality) -> Vec<ProjectorBuffers> {
    let number = |key: &str| header.metadata.unsigned(&format!("clip.{}.{key}", modality.key())).unwrap_or(0);
    let side = number("image_size").checked_div(number("patch_size")).unwrap_or(0);
    let (positions, factor) = match modality {
        Modality::Vision => (side.saturating_mul(side).clamp(USUAL_PATCHES, MOST_PATCHES), 2),
        Modality::Audio | Modality::Speech => (image::FRAMES, 5),
    };
    let is_gated = header.tensors.iter().any(|tensor| tensor.name.contains(".ffn_gate."));
    let hidden = number("feed_forward_length").saturating_mul(if is_gated { 3 } else { 1 });
    let width = hidden.saturating_add(number("embedding_length").saturating_mul(6));
    let block = Bytes(positions).saturating_mul(width).saturating_mul(4 * factor);
    let products =
        Bytes(positions).saturating_mul(positions).saturating_mul(number("attention.head_count")).saturating_mul(4);
    let buffers = every_setting().map(|(backend, flash_attention)| {
        let products = if flash_attention == FlashAttention::Off { products } else { Bytes::ZERO };
        let device = block.saturating_add(products);
        ProjectorBuffers { backend, flash_attention, device, host: Bytes::ZERO }
    });
    buffers.collect()
}
