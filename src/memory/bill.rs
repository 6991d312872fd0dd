//! The bill and its lines.

use serde::{Deserialize, Serialize};

use super::cache::{kv_cache, recurrent_state};
use super::draft::{DRAFTS, Draft, drafts};
use super::graph;
use super::place::{Device, Places};
use super::sizes::Sizes;
use super::weights::{repacking, weights};
use super::{Backend, Build, Devices, EngineProfile, FlashAttention, Overhead, Projector, Settings, Structure};
use crate::units::Bytes;

/// What a model takes, by pool and part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// The lines; their sum is the bill. At most one for each pool, part and basis.
    pub lines: Vec<Line>,
    /// Where the layers were placed.
    pub placement: Placement,
    /// What the back-end adds on each GPU, and how far off that may be.
    pub overhead: Option<Overhead>,
    /// The engine profile's name.
    pub profile: String,
    /// What the bill assumes, in words for the user.
    pub assumptions: Vec<String>,
}

/// One line of a bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Where the bytes are.
    pub pool: Pool,
    /// What they are.
    pub part: Part,
    /// How many they are.
    pub bytes: Bytes,
    /// How they are known.
    pub basis: Basis,
}

/// Where bytes are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The GPU of this index in [`Devices::gpus`].
    Gpu(u16),
    /// Main memory.
    Host,
}

/// What bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The model's weights.
    Weights,
    /// Weights repacked for the CPU; where mmap is on their mapped pages can be dropped.
    RepackedWeights,
    /// The KV cache.
    KvCache,
    /// The recurrent state.
    RecurrentState,
    /// The compute buffer.
    Compute,
    /// The output buffer.
    Output,
    /// A projector's weights.
    Projector,
    /// A projector's compute buffer.
    ProjectorCompute,
    /// What the back-end adds outside llama.cpp's accounting (CUDA context and the like).
    Backend,
}

/// How a line is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// To the byte.
    Exact,
    /// Measured on this machine.
    Measured,
    /// By a formula checked against llama.cpp.
    Formula,
    /// A documented guess.
    Guess,
}

/// Where layers were placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Layers on GPUs, the output layer counted as one.
    pub gpu_layers: u32,
    /// All layers, the output layer counted as one.
    pub layers: u32,
    /// Layers on each GPU, in [`Devices::gpus`] order.
    pub by_gpu: Vec<u32>,
    /// Blocks whose experts stay in host memory.
    pub cpu_moe: u32,
    /// Context cells in all after llama.cpp's rounding.
    pub context: u32,
    /// Whether flash attention ends up on.
    pub flash_attention: bool,
}

/// Draws up the bill of a load.
pub fn bill(
    structure: &Structure,
    projector: Option<&Projector>,
    settings: &Settings,
    devices: &Devices,
    profile: &EngineProfile,
) -> Bill {
    let places = Places::new(structure.blocks, settings, devices);
    let sizes = Sizes::new(structure, settings, profile);
    let backend = if places.gpus() == 0 { Backend::None } else { devices.backend };
    let mut lines = Lines::default();

    let weights = weights(structure, settings, backend, profile, &places);
    // The mapped pages that were repacked are not counted again: nothing reads them any more, and
    // the kernel drops them first.
    lines.spread(Part::Weights, Basis::Exact, &weights.gpus, weights.host);
    lines.add(Pool::Host, Part::RepackedWeights, Basis::Exact, weights.repacked);

    let draft = Draft::new(structure, settings, &sizes);
    let mut cache = kv_cache(structure, settings, backend, profile.build, &places, &sizes);
    if let Some(draft) = &draft {
        cache.add_all(&draft.cache(structure, backend, &places));
    }
    lines.spread(Part::KvCache, Basis::Exact, &cache.gpus, cache.host);
    let state = recurrent_state(structure, settings, backend, &places, &sizes);
    // How much is drafted at once is a setting that a bill does not know.
    let drafted = if draft.is_some() { Basis::Formula } else { Basis::Exact };
    lines.spread(Part::RecurrentState, drafted, &state.gpus, state.host);

    let load = graph::Load {
        structure,
        settings,
        places: &places,
        sizes: &sizes,
        backend,
        repacks: repacking(backend, profile, &places),
        build: profile.build,
    };
    let computed = graph::compute(&load, draft.as_ref());
    lines.spread(Part::Compute, computed.basis, &computed.buffers.gpus, computed.buffers.host);
    lines.add(Pool::Host, Part::Output, drafted, output(structure, settings, &sizes, draft.as_ref()));

    if let Some(projector) = projector {
        lines.0.extend(projector.lines(backend, settings.flash_attention));
    }
    let usual = Overhead::usual(backend);
    for (gpu, device) in devices.gpus.iter().take(places.gpus()).enumerate() {
        if let Some(added) = device.overhead.map(Overhead::measured).or(usual) {
            lines.add(gpu_pool(gpu), Part::Backend, added.basis, added.bytes);
        }
    }
    let first = devices.gpus.first().filter(|_| places.gpus() > 0);
    let overhead = first.and_then(|gpu| gpu.overhead.map(Overhead::measured).or(usual));

    let mut by_gpu = vec![0; devices.gpus.len()];
    for place in places.layers() {
        if let Device::Gpu(gpu) = place {
            by_gpu[gpu] += 1;
        }
    }
    Bill {
        lines: lines.0,
        placement: Placement {
            gpu_layers: places.on_gpus(),
            layers: structure.layers(),
            by_gpu,
            cpu_moe: settings.cpu_moe.min(structure.blocks),
            context: u32::try_from(sizes.context()).unwrap_or(u32::MAX),
            flash_attention: computed.flash_attention,
        },
        overhead,
        profile: profile.name.clone(),
        assumptions: assumptions(structure, projector, settings, backend, profile, overhead),
    }
}

/// Lines in the order they are drawn up, without empty ones.
#[derive(Default)]
struct Lines(Vec<Line>);

impl Lines {
    fn add(&mut self, pool: Pool, part: Part, basis: Basis, bytes: Bytes) {
        if bytes != Bytes::ZERO {
            self.0.push(Line { pool, part, bytes, basis });
        }
    }

    fn spread(&mut self, part: Part, basis: Basis, gpus: &[Bytes], host: Bytes) {
        for (gpu, &bytes) in gpus.iter().enumerate() {
            self.add(gpu_pool(gpu), part, basis, bytes);
        }
        self.add(Pool::Host, part, basis, host);
    }
}

fn gpu_pool(gpu: usize) -> Pool {
    Pool::Gpu(u16::try_from(gpu).unwrap_or(u16::MAX))
}

/// Returns the output buffer: a row of logits a slot, and an embedding where asked for
/// (`output_reserve` in `llama-context.cpp`). It grows when more rows are asked for, as to check drafts.
/// Those start from the hidden states of the whole batch.
fn output(structure: &Structure, settings: &Settings, sizes: &Sizes, draft: Option<&Draft>) -> Bytes {
    let dimensions = &structure.dimensions;
    // T5's decoder reads what its encoder put out.
    let embeds = settings.embeddings || structure.architecture == "t5";
    let embedding = if embeds { u64::from(dimensions.embedding_out) } else { 0 };
    let row = Bytes(u64::from(dimensions.vocabulary)).saturating_add(Bytes(embedding)).saturating_mul(4);
    let rows = row.saturating_mul(sizes.outputs(drafts(structure, settings)));
    let Some(draft) = draft else { return rows };
    let states = Bytes(u64::from(dimensions.embedding_out)).saturating_mul(4).saturating_mul(sizes.batch);
    rows.saturating_add(states).saturating_add(draft.output(structure))
}

/// Says what the bill takes for granted.
fn assumptions(
    structure: &Structure,
    projector: Option<&Projector>,
    settings: &Settings,
    backend: Backend,
    profile: &EngineProfile,
    overhead: Option<Overhead>,
) -> Vec<String> {
    let mut assumptions = structure.notes.clone();
    assumptions.extend(projector.into_iter().flat_map(|projector| projector.notes.iter().cloned()));
    if let Some(Overhead { bytes, least, most, basis: Basis::Guess }) = overhead {
        let name = backend.name();
        assumptions.push(format!("{name} takes about {bytes} on each GPU beside the model ({least} to {most} seen)"));
    }
    if profile.build < Build::OLDEST {
        assumptions
            .push(format!("builds of llama.cpp before {} may reserve some percent more or less", Build::OLDEST.0));
    }
    if drafts(structure, settings) != 0 {
        assumptions.push(format!("multi-token prediction drafts up to {DRAFTS} tokens at once"));
    }
    if settings.cache_type_v.is_quantised() && settings.flash_attention == FlashAttention::Off {
        assumptions.push("a quantised V cache needs flash attention: the engine will refuse this load".into());
    }
    assumptions
}

impl Bill {
    /// Returns everything in one pool.
    pub fn pool(&self, pool: Pool) -> Bytes {
        self.lines.iter().filter(|line| line.pool == pool).map(|line| line.bytes).sum()
    }

    /// Returns one part over all pools.
    pub fn part(&self, part: Part) -> Bytes {
        self.lines.iter().filter(|line| line.part == part).map(|line| line.bytes).sum()
    }

    /// Returns everything on GPUs.
    pub fn gpus(&self) -> Bytes {
        self.lines.iter().filter(|line| line.pool != Pool::Host).map(|line| line.bytes).sum()
    }

    /// Returns the sum of all lines.
    pub fn total(&self) -> Bytes {
        self.lines.iter().map(|line| line.bytes).sum()
    }
}

impl Part {
    /// Returns the part's name in bills and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Weights => "weights",
            Part::RepackedWeights => "repacked weights",
            Part::KvCache => "KV cache",
            Part::RecurrentState => "recurrent state",
            Part::Compute => "compute buffer",
            Part::Output => "output buffer",
            Part::Projector => "projector",
            Part::ProjectorCompute => "projector compute",
            Part::Backend => "back-end overhead",
        }
    }
}
