//! The small copy of the truth: headers of GGUF files and what llama.cpp allocated for them.

#![allow(dead_code, reason = "each user takes what it needs")]

use std::collections::BTreeMap;

use fitwatch::gguf::{Header, Metadata, Tensor, TensorType, Value};
use fitwatch::memory::{
    Backend, Bill, Build, CacheType, Devices, Engine, EngineProfile, FlashAttention, Gpu, GpuLayers, ImageLimits, Kind,
    LogitRows, Part, Pool, Projector, Settings, Structure, bill,
};
use fitwatch::units::Bytes;
use serde::Deserialize;
use serde_json::Value as Json;

/// Returns the headers of the sample by name.
pub(crate) fn headers() -> BTreeMap<String, Header> {
    let read = |line: &str| {
        let file: File = serde_json::from_str(line).unwrap();
        (file.name.clone(), file.header())
    };
    include_str!("../fixtures/truth/headers.jsonl").lines().map(read).collect()
}

/// Returns the structures of the sample's models by name.
pub(crate) fn structures() -> BTreeMap<String, Structure> {
    let structures = headers().into_iter().map(|(name, header)| (name, Structure::from_header(&header).unwrap()));
    structures.filter(|(_, structure)| structure.kind != Kind::Projector).collect()
}

/// Returns the structure of one model of the sample.
pub(crate) fn structure(name: &str) -> Structure {
    let mut lines = include_str!("../fixtures/truth/headers.jsonl").lines();
    let line = lines.find(|line| line.contains(&format!("{{\"name\":\"{name}\","))).unwrap();
    Structure::from_header(&serde_json::from_str::<File>(line).unwrap().header()).unwrap()
}

/// Returns the loads of the sample.
pub(crate) fn cases() -> Vec<Case> {
    include_str!("../fixtures/truth/cases.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A header as `sample.py` writes it.
#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the keys of the sample")]
struct File {
    name: String,
    architecture: String,
    file_bytes: u64,
    /// Tokens of the vocabulary.
    tokens: u64,
    /// Metadata; a key that begins with a point follows the architecture's name.
    metadata: BTreeMap<String, Json>,
    /// Tensors of one shape: `blk.0-3,7.attn_q.weight 12 64x64`.
    tensors: Vec<String>,
}

impl File {
    fn header(&self) -> Header {
        let full = |key: &str| {
            if key.starts_with('.') { format!("{}{key}", self.architecture).into() } else { Box::<str>::from(key) }
        };
        let metadata = self.metadata.iter().map(|(key, kept)| (full(key), value(kept)));
        let mut metadata: BTreeMap<Box<str>, Value> = metadata.collect();
        metadata.insert("general.architecture".into(), Value::Text(self.architecture.as_str().into()));
        if self.tokens > 0 {
            metadata.insert("tokenizer.ggml.tokens".into(), Value::Skipped(self.tokens));
        }
        Header {
            version: 3,
            metadata: Metadata(metadata),
            tensors: self.tensors.iter().flat_map(|line| tensors(line)).collect(),
            alignment: 32,
            data_offset: 0,
            file_bytes: Bytes(self.file_bytes),
            notes: Vec::new(),
        }
    }
}

fn value(kept: &Json) -> Value {
    // A GGUF file keeps 32 bits of a float.
    let float = |number: &Json| f64::from(number.to_string().parse::<f32>().unwrap());
    match kept {
        Json::Bool(flag) => Value::Bool(*flag),
        Json::String(text) => Value::Text(text.as_str().into()),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Value::Unsigned(number),
            (None, Some(number)) => Value::Signed(number),
            (None, None) => Value::Float(float(kept)),
        },
        Json::Array(elements) => {
            let number =
                |element: &Json| element.as_bool().map_or_else(|| float(element), |flag| f64::from(u8::from(flag)));
            Value::Numbers(elements.iter().map(number).collect())
        }
        Json::Object(_) | Json::Null => Value::Skipped(kept["skipped"].as_u64().unwrap()),
    }
}

fn tensors(line: &str) -> Vec<Tensor> {
    let mut parts = line.split(' ');
    let (name, kind, sizes) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let kind = TensorType(kind.parse().unwrap());
    let mut dims = [1; 4];
    for (dim, size) in dims.iter_mut().zip(sizes.split('x')) {
        *dim = size.parse().unwrap();
    }
    let rows: u64 = dims[1..].iter().product();
    let bytes = kind.row_bytes(dims[0]).unwrap_or_default().saturating_mul(rows);
    let is_range = |part: &&str| part.starts_with(|letter: char| letter.is_ascii_digit()) && part.contains(['-', ',']);
    let names = match name.split('.').find(is_range) {
        Some(range) => numbers(range).map(|number| name.replace(range, &number.to_string())).collect(),
        None => vec![name.to_owned()],
    };
    names.into_iter().map(|name| Tensor { name: name.into(), kind, dims, offset: 0, bytes }).collect()
}

/// Returns the numbers of `0-3,7`.
fn numbers(ranges: &str) -> impl Iterator<Item = u32> {
    ranges.split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse::<u32>().unwrap()..=last.parse().unwrap()
    })
}

/// One load and what llama.cpp allocated for it.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the keys of the tables")]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) header: String,
    pub(crate) gpus: BTreeMap<String, u64>,
    n_gpu_layers: i64,
    n_cpu_moe: u32,
    cpu_repack: bool,
    n_ctx: u32,
    n_batch: u32,
    n_ubatch: u32,
    n_parallel: u32,
    kv_unified: bool,
    type_k: String,
    type_v: String,
    flash_attn: String,
    offload_kqv: bool,
    swa_full: bool,
    n_outputs_max: u32,
    embeddings: bool,
    image_max_tokens: u32,
    /// Bytes of each device, in the order of [`PARTS`].
    pub(crate) devices: BTreeMap<String, [u64; 5]>,
}

/// The parts of a device, as the tables tell them apart.
pub(crate) const PARTS: [&str; 5] = ["weights", "KV cache", "state", "compute buffer", "output"];

impl Default for Case {
    /// Returns what `sample.py` leaves out.
    fn default() -> Case {
        Case {
            id: String::new(),
            header: String::new(),
            gpus: BTreeMap::new(),
            n_gpu_layers: -1,
            n_cpu_moe: 0,
            cpu_repack: true,
            n_ctx: 4_096,
            n_batch: 2_048,
            n_ubatch: 512,
            n_parallel: 1,
            kv_unified: false,
            type_k: "f16".into(),
            type_v: "f16".into(),
            flash_attn: "auto".into(),
            offload_kqv: true,
            swa_full: false,
            n_outputs_max: 0,
            embeddings: false,
            image_max_tokens: 0,
            devices: BTreeMap::new(),
        }
    }
}

impl Case {
    /// Returns the settings of the load.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            context: self.n_ctx,
            batch: self.n_batch,
            ubatch: self.n_ubatch,
            parallel: self.n_parallel,
            unified_kv: self.kv_unified,
            cache_type_k: CacheType::from_name(&self.type_k).unwrap(),
            cache_type_v: CacheType::from_name(&self.type_v).unwrap(),
            flash_attention: self.flash_attention(),
            gpu_layers: u32::try_from(self.n_gpu_layers).map_or(GpuLayers::All, GpuLayers::Count),
            cpu_moe: self.n_cpu_moe,
            offload_kv: self.offload_kqv,
            swa_full: self.swa_full,
            mmap: false,
            embeddings: self.embeddings,
            mtp: false,
        }
    }

    fn flash_attention(&self) -> FlashAttention {
        match self.flash_attn.as_str() {
            "on" => FlashAttention::On,
            "off" => FlashAttention::Off,
            _ => FlashAttention::Auto,
        }
    }

    /// Returns the devices of the load.
    pub(crate) fn machine(&self) -> Devices {
        let gpu = |(name, memory): (&String, &u64)| Gpu { name: name.clone(), memory: Bytes(*memory), overhead: None };
        let gpus: Vec<Gpu> = self.gpus.iter().map(gpu).collect();
        Devices { backend: if gpus.is_empty() { Backend::None } else { Backend::Cuda }, gpus }
    }

    /// Returns how the engine was started.
    pub(crate) fn profile(&self) -> EngineProfile {
        EngineProfile {
            name: "case".into(),
            engine: Engine::Library,
            build: Build::NEWEST,
            logit_rows: LogitRows::Count(self.n_outputs_max),
            cpu_repack: self.cpu_repack,
        }
    }

    /// Returns the bill of the load of a model.
    pub(crate) fn bill(&self, structure: &Structure) -> Bill {
        bill(structure, None, &self.settings(), &self.machine(), &self.profile())
    }

    /// Returns what the load of a model is billed, by device and part.
    pub(crate) fn billed(&self, structure: &Structure) -> BTreeMap<String, [u64; 5]> {
        let bill = self.bill(structure);
        let gpus: Vec<&String> = self.gpus.keys().collect();
        let mut devices: BTreeMap<String, [u64; 5]> = BTreeMap::new();
        for line in &bill.lines {
            let name = match line.pool {
                Pool::Host => "CPU",
                Pool::Gpu(index) => gpus[usize::from(index)].as_str(),
            };
            let part = match line.part {
                Part::Weights | Part::RepackedWeights | Part::Projector => 0,
                Part::KvCache => 1,
                Part::RecurrentState => 2,
                Part::Compute | Part::ProjectorCompute => 3,
                Part::Output => 4,
                Part::Backend => continue,
            };
            devices.entry(name.to_owned()).or_default()[part] += line.bytes.0;
        }
        devices
    }

    /// Returns what a projector alone is billed, by device and part.
    pub(crate) fn billed_projector(&self, header: &Header) -> BTreeMap<String, [u64; 5]> {
        let limits = ImageLimits { max_tokens: self.image_max_tokens };
        let projector = Projector::with_limits(header, limits).unwrap();
        let backend = self.machine().backend;
        let buffers = projector.computed(backend, self.flash_attention()).unwrap();
        let name = if self.gpus.is_empty() { "CPU" } else { "CUDA0" };
        let mut devices = BTreeMap::from([(name.to_owned(), [projector.weights.0, 0, 0, buffers.device.0, 0])]);
        if buffers.host != Bytes::ZERO {
            devices.entry("CPU".to_owned()).or_default()[3] += buffers.host.0;
        }
        devices
    }
}
