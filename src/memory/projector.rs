//! What a vision or audio projector takes.

use serde::{Deserialize, Serialize};

use super::StructureError;
use super::buffer::BufferKind;
use super::read;
use crate::gguf::Header;
use crate::units::Bytes;

/// What the bill needs of a projector file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Projector {
    /// The projector's type in llama.cpp's words, where the file names it.
    pub projector_type: Option<String>,
    /// Bytes of its weights as allocated on a GPU.
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
        let tensors = structure.globals.iter().chain(structure.layouts.iter().flatten());
        let weights = tensors.map(|tensor| tensor.allocated(BufferKind::HOST)).sum();
        let projector_type = header
            .metadata
            .text("clip.projector_type")
            .or_else(|| header.metadata.text("clip.vision.projector_type"))
            .map(str::to_owned);
        Ok(Projector { projector_type, weights, compute: Bytes::ZERO, notes: structure.notes })
    }
}
