//! What the scheduler and the allocator ask about a back-end.

use std::ops::Range;

use super::fusion::{self, Kept};
use super::room::{Buffer, ENDLESS};
use super::tensor::{BackendId, Graph, Id, Op};
use super::{cuda, metal, metal_order, rocm, vulkan, vulkan_order};
use crate::memory::buffer::BufferKind;
use crate::memory::tensor::Cpu;
use crate::memory::{Backend, Build, Change};
use crate::units::Bytes;

/// The back-ends of a load: its GPUs in order, then the CPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backends {
    kind: Backend,
    gpus: u8,
    repacks: Option<Cpu>,
    build: Build,
}

/// From this many rows on an operation on weights in host memory is computed on a GPU
/// (`GGML_OP_OFFLOAD_MIN_BATCH`).
const OFFLOAD_ROWS: u64 = 32;

impl Backends {
    /// Returns the back-ends of `gpus` devices of a kind.
    pub(super) fn new(kind: Backend, gpus: usize) -> Backends {
        Backends { kind, gpus: u8::try_from(gpus).unwrap_or(u8::MAX - 1), repacks: None, build: Build::NEWEST }
    }

    /// Returns them beside a CPU that weights in host memory are laid out for.
    pub(super) const fn repacking(self, repacks: Option<Cpu>) -> Backends {
        Backends { repacks, ..self }
    }

    /// Returns them as a build has them.
    pub(super) const fn of_build(self, build: Build) -> Backends {
        Backends { build, ..self }
    }

    /// Returns whether the build has a change.
    pub(super) const fn has(self, change: Change) -> bool {
        self.build.has(change)
    }

    /// Returns the kind of the GPUs.
    pub(super) const fn kind(self) -> Backend {
        self.kind
    }

    /// Returns how many GPUs there are.
    pub(super) const fn gpus(self) -> u8 {
        self.gpus
    }

    /// Returns the CPU.
    pub(super) const fn cpu(self) -> BackendId {
        BackendId(self.gpus)
    }

    /// Returns every back-end in order.
    pub(super) fn iter(self) -> impl Iterator<Item = BackendId> + use<> {
        (0..=self.gpus).map(BackendId)
    }

    /// Returns the kind of buffer that a back-end computes in.
    fn buffer(self, backend: BackendId) -> BufferKind {
        if backend == self.cpu() { BufferKind::HOST } else { BufferKind::of(self.kind) }
    }

    /// Returns a back-end's compute buffer, empty.
    pub(super) fn room(self, backend: BackendId) -> Buffer {
        let alignment = self.buffer(backend).alignment();
        if self.kind == Backend::Vulkan {
            // Vulkan maps host memory at 64 bytes or more (`minMemoryMapAlignment`).
            return Buffer::new(alignment.max(64), vulkan::MOST_CHUNK);
        }
        Buffer::new(alignment, ENDLESS)
    }

    /// Returns the bytes that a back-end sets aside for a tensor (`get_alloc_size`).
    pub(super) fn allocated(self, backend: BackendId, graph: &Graph, id: Id) -> u64 {
        let tensor = graph.get(id);
        let bytes = match self.kind {
            _ if backend == self.cpu() => tensor.bytes(),
            Backend::Cuda | Backend::Rocm if tensor.op == Op::FlashAttnExt && self.has(Change::FlashScratch) => {
                match self.kind {
                    Backend::Rocm => rocm::flash_attention_bytes(graph, id),
                    _ => cuda::flash_attention_bytes(graph, id),
                }
            }
            Backend::Metal => metal::allocated(graph, id),
            Backend::Cuda | Backend::Rocm | Backend::Vulkan | Backend::Rpc | Backend::None => tensor.bytes(),
        };
        self.buffer(backend).filled(tensor.kind, tensor.ne[0], Bytes(bytes)).0
    }

    /// Returns whether a back-end can compute an operation.
    pub(super) fn supports(self, backend: BackendId, graph: &Graph, id: Id) -> bool {
        if backend == self.cpu() {
            return true;
        }
        match self.kind {
            Backend::Metal => metal::supports(graph, id),
            Backend::Vulkan => vulkan::supports(graph, id),
            // It says yes without asking the server.
            Backend::Rpc => true,
            Backend::Rocm => !self.is_elsewhere(backend, graph, id) && rocm::supports(graph, id),
            Backend::Cuda | Backend::None => !self.is_elsewhere(backend, graph, id) && cuda::supports(graph, id),
        }
    }

    /// Returns whether a source of an operation lies on another GPU, which CUDA then refuses to compute. A
    /// view does not count: it has no buffer before the graph is allocated.
    fn is_elsewhere(self, backend: BackendId, graph: &Graph, id: Id) -> bool {
        let mut homes = graph.get(id).sources().iter().filter_map(|&source| graph.get(source).home.backend());
        self.gpus > 1 && homes.any(|home| home != self.cpu() && home != backend)
    }

    /// Lets a back-end look at a split (`graph_optimize`): it may change the order of the nodes and keep
    /// tensors.
    pub(super) fn optimise(self, backend: BackendId, graph: &mut Graph, split: Range<usize>, kept: &mut Vec<Kept>) {
        match self.kind {
            _ if backend == self.cpu() => {}
            Backend::Cuda | Backend::Rocm => fusion::optimise(graph, split, kept, self.build),
            Backend::Metal => {
                let before = kept.len();
                metal_order::optimise(graph, split, kept);
                if !self.has(Change::MetalKeeps) {
                    kept.truncate(before);
                }
            }
            Backend::Vulkan => {
                let before = kept.len();
                vulkan_order::optimise(graph, split, kept);
                if !self.has(Change::VulkanKeeps) {
                    kept.truncate(before);
                }
            }
            Backend::Rpc | Backend::None => {}
        }
    }

    /// Returns the GPU that takes an operation on weights in host memory, if it is worth it.
    pub(super) fn offloads_to(self, graph: &Graph, id: Id) -> Option<BackendId> {
        if self.kind == Backend::Metal {
            let takes = metal::offloads(graph, id, OFFLOAD_ROWS, self.repacks);
            return (takes && self.supports(BackendId(0), graph, id)).then_some(BackendId(0));
        }
        if self.kind == Backend::Rpc {
            // Weights would cross the network with every batch.
            return None;
        }
        let tensor = graph.get(id);
        let rows = match tensor.op {
            Op::GetRows => 0,
            Op::MulMat => tensor.ne[1],
            Op::MulMatId | Op::Rope => tensor.ne[2],
            _ => tensor.rows(),
        };
        let mut gpus = self.iter().take(usize::from(self.gpus));
        gpus.find(|&gpu| rows >= OFFLOAD_ROWS && self.supports(gpu, graph, id))
    }
}
