//! The graphs of projectors, one small module a family of encoders (`models/*.cpp` of `mtmd`).
//!
//! Each is built for the image or sound that llama.cpp reserves for, and then scheduled and
//! allocated like a language model's.

mod clip;
mod conformer;
mod deepseek_ocr;
mod gemma4;
mod glm4v;
mod granite;
mod kimi;
mod llava;
mod minicpmv;
mod mobilenet;
mod pixtral;
mod qwen_vl;
mod siglip;
mod speaker;
mod tokens;
mod whisper;
mod yasa;

use self::clip::Clip;
use super::allocate;
use super::backend::Backends;
use super::schedule;
use super::tensor::{BackendId, Graph, Op};
use crate::memory::projector::Encoder;
use crate::memory::{Backend, FlashAttention};

/// Builds the graph of an encoder.
type Family = fn(&mut Clip);

/// Each family module's table, from a projector's type to what builds its graph.
const TABLES: &[fn(&str) -> Option<Family>] = &[
    conformer::of,
    deepseek_ocr::of,
    gemma4::of,
    glm4v::of,
    granite::of,
    kimi::of,
    llava::of,
    minicpmv::of,
    mobilenet::of,
    pixtral::of,
    qwen_vl::of,
    siglip::of,
    speaker::of,
    tokens::of,
    whisper::of,
    yasa::of,
];

/// More nodes than any graph of an encoder has; llama.cpp has no room for more
/// (`clip_ctx::max_nodes`).
const MOST_NODES: usize = 8_192;

/// What the graph of an encoder needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::memory) struct Computed {
    /// The buffer of the device that has the weights.
    pub(in crate::memory) device: u64,
    /// The buffer in main memory beside it, 0 where the weights are there too.
    pub(in crate::memory) host: u64,
}

/// The graphs of an encoder, with flash attention and without.
pub(in crate::memory) struct Graphs {
    flash: Graph,
    plain: Graph,
}

impl Graphs {
    /// Builds the graphs of an encoder, or nothing where no family describes its type or the file
    /// lacks one of its tensors.
    pub(in crate::memory) fn build(encoder: &Encoder) -> Option<Graphs> {
        let family = TABLES.iter().find_map(|of| of(encoder.name))?;
        let build = |flash: bool| {
            // The first back-end has the weights, whichever it is.
            let mut clip = Clip::new(encoder, BackendId(0), flash);
            family(&mut clip);
            (!clip.lacks && clip.graph.nodes.len() <= MOST_NODES).then_some(clip.graph)
        };
        Some(Graphs { flash: build(true)?, plain: build(false)? })
    }

    /// Returns what they need on a back-end.
    pub(in crate::memory) fn compute(&self, backend: Backend, flash: FlashAttention) -> Computed {
        let backends = Backends::new(backend, usize::from(backend != Backend::None));
        match flash {
            FlashAttention::On => allocated(&self.flash, backends),
            FlashAttention::Off => allocated(&self.plain, backends),
            FlashAttention::Auto => {
                let first = allocated(&self.flash, backends);
                if self.has_kernels(backends) {
                    return first;
                }
                // Flash attention is switched off and the buffers are reserved again; they never
                // shrink.
                let second = allocated(&self.plain, backends);
                Computed { device: first.device.max(second.device), host: first.host.max(second.host) }
            }
        }
    }

    /// Returns whether the device can compute every flash attention.
    fn has_kernels(&self, backends: Backends) -> bool {
        let graph = &self.flash;
        let mut attentions = graph.nodes.iter().filter(|&&id| graph.get(id).op == Op::FlashAttnExt);
        attentions.all(|&id| backends.supports(BackendId(0), graph, id))
    }
}

fn allocated(graph: &Graph, backends: Backends) -> Computed {
    let mut graph = graph.clone();
    let scheduled = schedule::schedule(&mut graph, backends, 1);
    let room = allocate::allocate(&graph, &scheduled, backends);
    let at = |index: usize| room.bytes.get(index).copied().unwrap_or(0);
    Computed { device: at(0), host: if backends.gpus() == 0 { 0 } else { at(1) } }
}
