//! The weights, by device, to the byte.

use super::architecture;
use super::buffer::BufferKind;
use super::draft::drafts;
use super::graph;
use super::place::{Device, Places};
use super::structure::{BlockKind, Structure};
use super::tensor::{Cpu, Home, Role, Suffix, TensorShape};
use super::{Backend, EngineProfile, Settings};
use crate::units::Bytes;

/// The weights of a load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Weights {
    /// Bytes on each GPU.
    pub(super) gpus: Vec<Bytes>,
    /// Bytes in host memory, mapped or allocated.
    pub(super) host: Bytes,
    /// Bytes in host memory in a layout for the CPU, not in `host`.
    pub(super) repacked: Bytes,
}

/// What the tensors of one layout take, by buffer.
#[derive(Clone, Copy, Debug, Default)]
struct LayoutBytes {
    gpu: Bytes,
    gpu_experts: Bytes,
    host: HostBytes,
    host_experts: HostBytes,
    /// In host memory even where the layer is on a GPU, which cannot use it.
    beside_gpu: Bytes,
    beside_gpu_experts: Bytes,
}

/// Bytes in host memory.
#[derive(Clone, Copy, Debug, Default)]
struct HostBytes {
    plain: Bytes,
    repacked: Bytes,
}

/// Adds up the weights of a load.
pub(super) fn weights(
    structure: &Structure,
    settings: &Settings,
    backend: Backend,
    profile: &EngineProfile,
    places: &Places,
) -> Weights {
    let buffer = BufferKind::of(backend);
    let cpu = repacking(backend, profile, places);
    let usable = |tensor: &TensorShape| graph::is_usable(structure, backend, tensor);
    let bytes = |layout: &Vec<TensorShape>| layout_bytes(layout.iter(), buffer, cpu, usable);
    let layouts: Vec<LayoutBytes> = structure.layouts.iter().map(bytes).collect();
    let drafts = drafts(structure, settings) != 0;
    let mut sum = Weights { gpus: vec![Bytes::ZERO; places.gpus()], ..Weights::default() };
    for (block, kind) in (0u32..).zip(structure.block_kinds()) {
        let bytes = if kind.mtp && !drafts {
            let loaded =
                |tensor: &&TensorShape| architecture::loads_anyway(&structure.architecture, tensor.role, tensor.suffix);
            layout_bytes(structure.layout(kind).iter().filter(loaded), buffer, cpu, usable)
        } else {
            layouts.get(usize::from(kind.layout)).copied().unwrap_or_default()
        };
        let place = places.layer(block);
        sum.add(place, bytes.gpu, bytes.host);
        sum.add_beside(place, bytes.beside_gpu);
        let experts = if block < settings.cpu_moe { Device::Host } else { place };
        sum.add(experts, bytes.gpu_experts, bytes.host_experts);
        sum.add_beside(experts, bytes.beside_gpu_experts);
    }
    let has_embedding = structure.globals.iter().any(|tensor| tensor.role == Role::TokenEmbd);
    for tensor in &structure.globals {
        sum.add_global(structure, settings, places, tensor, buffer, cpu);
        // Without a token embedding (codeshell) the output matrix is loaded a second time for it.
        if tensor.role == Role::Output && tensor.suffix == Suffix::Weight && !has_embedding {
            sum.add_tensor(places.output(), tensor, buffer, cpu);
        }
    }
    sum.add_tied_output(structure, settings, places, buffer, cpu);
    sum
}

impl Weights {
    fn add(&mut self, place: Device, on_gpu: Bytes, on_host: HostBytes) {
        match place {
            Device::Gpu(gpu) => self.gpus[gpu] = self.gpus[gpu].saturating_add(on_gpu),
            Device::Host => {
                self.host = self.host.saturating_add(on_host.plain);
                self.repacked = self.repacked.saturating_add(on_host.repacked);
            }
        }
    }

    /// Adds what a GPU cannot use.
    fn add_beside(&mut self, place: Device, on_host: Bytes) {
        if place != Device::Host {
            self.host = self.host.saturating_add(on_host);
        }
    }

    fn add_tensor(&mut self, place: Device, tensor: &TensorShape, buffer: BufferKind, cpu: Option<Cpu>) {
        self.add(place, tensor.allocated(buffer), host_bytes(tensor, cpu));
    }

    /// Adds a tensor that stands outside the blocks.
    fn add_global(
        &mut self,
        structure: &Structure,
        settings: &Settings,
        places: &Places,
        tensor: &TensorShape,
        buffer: BufferKind,
        cpu: Option<Cpu>,
    ) {
        match home(structure, tensor) {
            // Looked up by row, never multiplied, so never repacked.
            Home::Input => self.add_tensor(Device::Host, tensor, buffer, None),
            Home::FirstBlock => self.add_tensor(places.layer(0), tensor, buffer, cpu),
            Home::Output => self.add_tensor(places.output(), tensor, buffer, cpu),
            Home::EveryBlock => {
                let mut copied = (vec![false; places.gpus()], false);
                let drafts = drafts(structure, settings) != 0
                    || architecture::loads_anyway(&structure.architecture, tensor.role, tensor.suffix);
                for (block, kind) in (0u32..).zip(structure.block_kinds()) {
                    let borrows = architecture::lender(structure, block) != block;
                    if borrows || !uses_rope_factors(structure, kind) || (kind.mtp && !drafts) {
                        continue;
                    }
                    let place = places.layer(block);
                    let known = match place {
                        Device::Gpu(gpu) => &mut copied.0[gpu],
                        Device::Host => &mut copied.1,
                    };
                    if !*known {
                        *known = true;
                        self.add_tensor(place, tensor, buffer, None);
                    }
                }
            }
            Home::Unused => {}
        }
    }

    /// Adds the second copy of the token embedding where it serves as output layer too.
    fn add_tied_output(
        &mut self,
        structure: &Structure,
        settings: &Settings,
        places: &Places,
        buffer: BufferKind,
        cpu: Option<Cpu>,
    ) {
        let find =
            |role: Role| structure.globals.iter().find(|tensor| tensor.role == role && tensor.suffix == Suffix::Weight);
        let (Some(embedding), None) = (find(Role::TokenEmbd), find(Role::Output)) else {
            return;
        };
        // bitnet multiplies with the one that the input reads.
        if !architecture::has_output_layer(&structure.architecture) || structure.architecture == "bitnet" {
            return;
        }
        let place = places.output();
        if place == Device::Host && host_bytes(embedding, cpu).repacked == Bytes::ZERO {
            // Same buffer, same name: one copy. gemma 3n and 4 ask for the output first, which
            // llama.cpp does not recognise; the second copy is then the same mapped pages.
            let twice = matches!(structure.architecture.as_str(), "gemma3n" | "gemma4") && !settings.mmap;
            if !twice {
                return;
            }
        }
        self.add_tensor(place, embedding, buffer, cpu);
    }
}

/// Returns the CPU whose repacked layouts are used. A back-end with pinned host memory keeps host
/// weights there as they are (`make_cpu_buft_list`); Metal and lent devices have none, and Metal always
/// an Arm beside it.
pub(super) fn repacking(backend: Backend, profile: &EngineProfile, places: &Places) -> Option<Cpu> {
    if !profile.cpu_repack {
        return None;
    }
    match backend {
        _ if places.gpus() == 0 => Some(Cpu::X86),
        Backend::Metal => Some(Cpu::Arm),
        Backend::Rpc => Some(Cpu::X86),
        Backend::None | Backend::Cuda | Backend::Rocm | Backend::Vulkan => None,
    }
}

fn layout_bytes<'a>(
    layout: impl Iterator<Item = &'a TensorShape>,
    buffer: BufferKind,
    cpu: Option<Cpu>,
    usable: impl Fn(&TensorShape) -> bool,
) -> LayoutBytes {
    let mut sum = LayoutBytes::default();
    for tensor in layout {
        let on_host = host_bytes(tensor, cpu);
        let (gpu, host, beside) = if tensor.is_expert() {
            (&mut sum.gpu_experts, &mut sum.host_experts, &mut sum.beside_gpu_experts)
        } else {
            (&mut sum.gpu, &mut sum.host, &mut sum.beside_gpu)
        };
        if usable(tensor) {
            *gpu = gpu.saturating_add(tensor.allocated(buffer));
        } else {
            *beside = beside.saturating_add(tensor.allocated(BufferKind::HOST));
        }
        host.plain = host.plain.saturating_add(on_host.plain);
        host.repacked = host.repacked.saturating_add(on_host.repacked);
    }
    sum
}

fn host_bytes(tensor: &TensorShape, cpu: Option<Cpu>) -> HostBytes {
    let bytes = tensor.allocated(BufferKind::HOST);
    if cpu.is_some_and(|cpu| tensor.is_repacked(cpu)) {
        HostBytes { plain: Bytes::ZERO, repacked: bytes }
    } else {
        HostBytes { plain: bytes, repacked: Bytes::ZERO }
    }
}

/// Returns where a tensor outside the blocks lives in this model.
fn home(structure: &Structure, tensor: &TensorShape) -> Home {
    // lfm2 calls its output norm so (`LLM_TENSOR_OUTPUT_NORM_LFM2`).
    if tensor.role == Role::TokenEmbdNorm && structure.architecture.starts_with("lfm2") {
        return Home::Output;
    }
    tensor.role.home()
}

/// Returns whether a block reads the rope factors: in gemma 4 only the global ones do.
fn uses_rope_factors(structure: &Structure, kind: &BlockKind) -> bool {
    !(structure.architecture.starts_with("gemma4") && kind.windowed)
}
