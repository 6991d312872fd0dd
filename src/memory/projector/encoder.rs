//! One encoder of a projector file, as llama.cpp's loader sees it (`clip_model_loader`).

use std::collections::HashMap;

use super::image;
use super::{ImageLimits, Modality};
use crate::gguf::{Header, Tensor, TensorType};

/// More than any encoder has of each; larger figures are not a projector's.
const MOST_BLOCKS: u32 = 512;
const MOST_HEADS: u64 = 1 << 12;
const MOST_WIDTH: u64 = 1 << 20;
const MOST_IMAGE: u64 = 8_192;
const MOST_MERGE: u64 = 64;
/// Most elements of a tensor's dimension, so that the product of three fits.
const MOST_ELEMENTS: u64 = 1 << 20;

/// The tensors of a file by name.
pub(in crate::memory) type Tensors<'a> = HashMap<&'a str, &'a Tensor>;

/// An encoder: where its keys and tensors are, and what is reserved for.
#[derive(Clone, Copy, Debug)]
pub(in crate::memory) struct Encoder<'a> {
    header: &'a Header,
    tensors: &'a Tensors<'a>,
    pub(in crate::memory) modality: Modality,
    /// The projector's type in llama.cpp's words.
    pub(in crate::memory) name: &'a str,
    pub(in crate::memory) sizes: Sizes,
}

/// The sizes that every graph of an encoder is built from (`clip_hparams`, `clip_graph`).
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::memory) struct Sizes {
    /// Width of an activation.
    pub(in crate::memory) embedding: u64,
    /// Width of a feed-forward network's hidden layer.
    pub(in crate::memory) feed_forward: u64,
    pub(in crate::memory) blocks: u64,
    pub(in crate::memory) heads: u64,
    pub(in crate::memory) heads_kv: u64,
    /// Width of a head.
    pub(in crate::memory) head: u64,
    /// Pixels of a patch in each direction.
    pub(in crate::memory) patch: u64,
    /// Patches that become one token, in each direction.
    pub(in crate::memory) merge: u64,
    /// Pixels of the image that is reserved for, or frames of sound.
    pub(in crate::memory) width: u64,
    /// Pixels of the image that is reserved for, or mel bins of sound.
    pub(in crate::memory) height: u64,
}

impl<'a> Encoder<'a> {
    /// Returns the encoder of a modality, or nothing where its sizes are missing or out of range.
    pub(super) fn new(
        header: &'a Header,
        tensors: &'a Tensors<'a>,
        modality: Modality,
        limits: ImageLimits,
    ) -> Option<Encoder<'a>> {
        let name = projector_type(header, modality)?;
        let mut encoder = Encoder { header, tensors, modality, name, sizes: Sizes::default() };
        let heads = encoder.number("attention.head_count");
        let embedding = encoder.number("embedding_length");
        let own = encoder.number("attention.head_dim");
        encoder.sizes = Sizes {
            embedding,
            feed_forward: encoder.number("feed_forward_length"),
            blocks: encoder.number("block_count"),
            heads,
            heads_kv: encoder.find("attention.head_count_kv").unwrap_or(heads),
            head: if own > 0 { own } else { embedding.checked_div(heads).unwrap_or(0) },
            patch: 1,
            merge: 1,
            width: 0,
            height: 0,
        };
        image::reserved(&mut encoder, limits);
        encoder.is_sane().then_some(encoder)
    }

    fn is_sane(&self) -> bool {
        let sizes = &self.sizes;
        let within = |number: u64, most: u64| (1..=most).contains(&number);
        within(sizes.embedding, MOST_WIDTH)
            && sizes.feed_forward <= MOST_WIDTH
            && sizes.blocks <= u64::from(MOST_BLOCKS)
            && sizes.heads <= MOST_HEADS
            && sizes.heads_kv <= MOST_HEADS
            && sizes.head <= MOST_WIDTH
            && within(sizes.patch, MOST_IMAGE)
            && within(sizes.merge, MOST_MERGE)
            && within(sizes.width, MOST_IMAGE.saturating_mul(4))
            && within(sizes.height, MOST_IMAGE.saturating_mul(4))
            && self.tensors.values().all(|tensor| tensor.dims.iter().all(|&dim| within(dim, MOST_ELEMENTS)))
    }

    /// Returns an integer of the encoder's own keys, 0 where it is missing.
    pub(in crate::memory) fn number(&self, key: &str) -> u64 {
        self.find(key).unwrap_or(0)
    }

    /// Returns an integer of the encoder's own keys.
    pub(in crate::memory) fn find(&self, key: &str) -> Option<u64> {
        self.header.metadata.unsigned(&self.key(key))
    }

    /// Returns whether a floating-point key is above 0.
    pub(in crate::memory) fn is_positive(&self, key: &str) -> bool {
        self.header.metadata.float(&self.key(key)).is_some_and(|number| number > 0.0)
    }

    /// Returns an integer under `clip.` alone.
    pub(in crate::memory) fn common(&self, key: &str) -> Option<u64> {
        self.header.metadata.unsigned(&format!("clip.{key}"))
    }

    /// Returns whether a flag under `clip.` alone is set.
    pub(in crate::memory) fn has_flag(&self, key: &str) -> bool {
        self.header.metadata.bool(&format!("clip.{key}")).unwrap_or(false)
    }

    /// Returns the elements of an array of the encoder's own keys, no more than it can have blocks.
    pub(in crate::memory) fn list(&self, key: &str) -> &'a [f64] {
        let list = self.header.metadata.numbers(&self.key(key)).unwrap_or_default();
        list.get(..MOST_BLOCKS as usize).unwrap_or(list)
    }

    /// Returns whether an array of the encoder's own keys has an element.
    pub(in crate::memory) fn lists(&self, key: &str, element: u64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "block numbers are small")]
        self.list(key).contains(&(element as f64))
    }

    fn key(&self, key: &str) -> String {
        format!("clip.{}.{key}", self.modality.key())
    }

    /// Returns the type and shape of a tensor.
    pub(in crate::memory) fn tensor(&self, name: &str) -> Option<(TensorType, [u64; 4])> {
        self.tensors.get(name).map(|tensor| (tensor.kind, tensor.dims))
    }
}

/// Returns the type of the projector of a modality, Qwen 2.5 Omni's replaced by what it stands for.
pub(super) fn projector_type(header: &Header, modality: Modality) -> Option<&str> {
    let own = format!("clip.{}.projector_type", modality.key());
    let mut names = ["clip.projector_type", own.as_str()].into_iter().filter_map(|key| header.metadata.text(key));
    match (names.find(|name| !name.is_empty())?, modality) {
        ("qwen2.5o", Modality::Vision) => Some("qwen2.5vl_merger"),
        ("qwen2.5o", _) => Some("qwen2a"),
        (name, _) => Some(name),
    }
}
