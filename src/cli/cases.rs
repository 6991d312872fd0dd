//! `estimate --cases`: bills many loads, one JSON object a line in, one a line out.
//!
//! A case has the keys of a row of the truth tables plus `path`, the GGUF; unknown keys are ignored.
//! A case that cannot be billed answers with its error and the run goes on.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gguf::{Header, Limits, ShardName, join_shards, read_header};
use crate::memory::{
    Backend, Bill, Build, CacheType, Change, Devices, Engine, EngineProfile, FlashAttention, Gpu, GpuLayers,
    ImageLimits, Kind, LogitRows, Part, Pool, Projector, Settings, Structure, bill,
};
use crate::units::Bytes;

/// Bills every case of `input` and returns how many could not be billed.
pub fn run(input: impl BufRead, mut output: impl Write) -> io::Result<usize> {
    let mut library = Library::default();
    let mut failed = 0;
    for line in input.lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let answer = answer(&line, &mut library).unwrap_or_else(|error| {
            failed += 1;
            Answer { id: id_of(&line), devices: None, error: Some(error) }
        });
        serde_json::to_writer(&mut output, &answer)?;
        output.write_all(b"\n")?;
    }
    Ok(failed)
}

/// A case as it is read. Every key has the default of a plain run, so a short case is a case.
#[derive(Debug, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "the keys of the tables")]
struct Case {
    id: Value,
    path: Option<PathBuf>,
    backend: String,
    gpus: Vec<CaseGpu>,
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
    offload_kqv: bool,
    swa_full: bool,
    flash_attn: String,
    n_outputs_max: u32,
    build: u32,
    embeddings: bool,
    mtp: u32,
    on_gpu: bool,
    image_max_tokens: u32,
}

#[derive(Debug, Deserialize)]
struct CaseGpu {
    name: String,
    memory_bytes: u64,
}

impl Default for Case {
    fn default() -> Case {
        Case {
            id: Value::Null,
            path: None,
            backend: "cuda".into(),
            gpus: Vec::new(),
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
            offload_kqv: true,
            swa_full: false,
            flash_attn: "auto".into(),
            n_outputs_max: 0,
            build: Build::NEWEST.0,
            embeddings: false,
            mtp: 0,
            on_gpu: true,
            image_max_tokens: 0,
        }
    }
}

/// A case as it is answered.
#[derive(Debug, Serialize)]
struct Answer {
    id: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<BTreeMap<String, DeviceBytes>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What llama.cpp accounts for on one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the keys of the tables")]
struct DeviceBytes {
    model_bytes: Bytes,
    kv_bytes: Bytes,
    rs_bytes: Bytes,
    compute_bytes: Bytes,
    output_bytes: Bytes,
}

fn answer(line: &str, library: &mut Library) -> Result<Answer, String> {
    let case: Case = serde_json::from_str(line).map_err(|error| format!("not a case: {error}"))?;
    let path = case.path.clone().ok_or("the case has no path")?;
    let structure = match library.model(&path)? {
        Model::Language(structure) => structure,
        Model::Projector(header) => {
            let devices = projected(header, &case)?;
            return Ok(Answer { id: case.id, devices: Some(devices), error: None });
        }
    };
    let (settings, devices, profile) = (settings(&case)?, devices(&case)?, profile(&case));
    let bill = bill(structure, None, &settings, &devices, &profile);
    Ok(Answer { id: case.id, devices: Some(by_device(&bill, &devices)), error: None })
}

fn settings(case: &Case) -> Result<Settings, String> {
    let cache = |name: &str| CacheType::from_name(name).ok_or_else(|| format!("unknown cache type {name}"));
    Ok(Settings {
        context: case.n_ctx,
        batch: case.n_batch,
        ubatch: case.n_ubatch,
        parallel: case.n_parallel,
        unified_kv: case.kv_unified,
        cache_type_k: cache(&case.type_k)?,
        cache_type_v: cache(&case.type_v)?,
        flash_attention: flash_attention(case)?,
        // A negative count means all, as for llama.cpp.
        gpu_layers: u32::try_from(case.n_gpu_layers).map_or(GpuLayers::All, GpuLayers::Count),
        cpu_moe: case.n_cpu_moe,
        offload_kv: case.offload_kqv,
        swa_full: case.swa_full,
        // The tables count allocated weights; mapped ones are the same bytes.
        mmap: false,
        embeddings: case.embeddings,
        mtp: case.mtp != 0,
    })
}

fn flash_attention(case: &Case) -> Result<FlashAttention, String> {
    match case.flash_attn.as_str() {
        "on" => Ok(FlashAttention::On),
        "off" => Ok(FlashAttention::Off),
        "auto" => Ok(FlashAttention::Auto),
        other => Err(format!("unknown flash attention setting {other}")),
    }
}

fn devices(case: &Case) -> Result<Devices, String> {
    let backend = match case.backend.as_str() {
        "none" => return Ok(Devices::none()),
        "cuda" => Backend::Cuda,
        "rocm" => Backend::Rocm,
        "vulkan" => Backend::Vulkan,
        "metal" => Backend::Metal,
        "rpc" => Backend::Rpc,
        other => return Err(format!("unknown back-end {other}")),
    };
    let gpu = |gpu: &CaseGpu| Gpu { name: gpu.name.clone(), memory: Bytes(gpu.memory_bytes), overhead: None };
    Ok(Devices { backend, gpus: case.gpus.iter().map(gpu).collect() })
}

fn profile(case: &Case) -> EngineProfile {
    let build = Build(case.build);
    // Before there was a limit, rows were reserved for all tokens.
    let rows = if build.has(Change::SlotRows) { case.n_outputs_max } else { 0 };
    EngineProfile {
        name: "case".into(),
        engine: Engine::Library,
        build,
        logit_rows: LogitRows::Count(rows),
        cpu_repack: case.cpu_repack,
    }
}

/// Returns what llama.cpp accounts for, by device: what the back-end adds is left out.
fn by_device(bill: &Bill, devices: &Devices) -> BTreeMap<String, DeviceBytes> {
    let mut found: BTreeMap<String, DeviceBytes> = BTreeMap::new();
    for line in &bill.lines {
        let name = match line.pool {
            Pool::Host => "CPU".to_owned(),
            Pool::Gpu(gpu) => {
                devices.gpus.get(usize::from(gpu)).map_or_else(|| format!("GPU{gpu}"), |gpu| gpu.name.clone())
            }
        };
        let device = found.entry(name).or_default();
        let sum = match line.part {
            Part::Weights | Part::RepackedWeights | Part::Projector => &mut device.model_bytes,
            Part::KvCache => &mut device.kv_bytes,
            Part::RecurrentState => &mut device.rs_bytes,
            Part::Compute | Part::ProjectorCompute => &mut device.compute_bytes,
            Part::Output => &mut device.output_bytes,
            Part::Backend => continue,
        };
        *sum = sum.saturating_add(line.bytes);
    }
    found
}

/// Returns a case's id even where the rest of the line is no case.
fn id_of(line: &str) -> Value {
    let row: Result<Value, _> = serde_json::from_str(line);
    row.ok().and_then(|row| row.get("id").cloned()).unwrap_or(Value::Null)
}

/// Returns a projector's bytes on its device, and in RAM beside it.
fn projected(header: &Header, case: &Case) -> Result<BTreeMap<String, DeviceBytes>, String> {
    let limits = ImageLimits { max_tokens: case.image_max_tokens };
    let projector = Projector::with_limits(header, limits).map_err(|error| error.to_string())?;
    let backend = if case.on_gpu { Backend::Cuda } else { Backend::None };
    let buffers = projector.computed(backend, flash_attention(case)?);
    let (device, host) = buffers.map(|buffers| (buffers.device, buffers.host)).unwrap_or_default();
    let bytes = DeviceBytes { model_bytes: projector.weights, compute_bytes: device, ..DeviceBytes::default() };
    let mut devices = BTreeMap::from([(if case.on_gpu { "CUDA0" } else { "CPU" }.to_owned(), bytes)]);
    if host != Bytes::ZERO {
        devices.insert("CPU".to_owned(), DeviceBytes { compute_bytes: host, ..DeviceBytes::default() });
    }
    Ok(devices)
}

/// Models by path: many cases share a file.
#[derive(Default)]
struct Library(HashMap<PathBuf, Result<Model, String>>);

/// What a file turned out to hold.
enum Model {
    Language(Structure),
    Projector(Header),
}

impl Library {
    fn model(&mut self, path: &Path) -> Result<&Model, String> {
        let known = self.0.entry(path.to_owned()).or_insert_with(|| read(path));
        known.as_ref().map_err(Clone::clone)
    }
}

fn read(path: &Path) -> Result<Model, String> {
    let mut headers = Vec::new();
    for part in parts(path) {
        headers.push(header(&part).map_err(|error| format!("{}: {error}", part.display()))?);
    }
    let header = join_shards(headers).map_err(|error| error.to_string())?;
    let structure = Structure::from_header(&header).map_err(|error| error.to_string())?;
    if structure.kind == Kind::Projector {
        return Ok(Model::Projector(header));
    }
    Ok(Model::Language(structure))
}

/// Returns the file, or all shards where the file is one of several.
fn parts(path: &Path) -> Vec<PathBuf> {
    let shard = path.file_name().and_then(|name| name.to_str()).and_then(ShardName::parse);
    let Some(shard) = shard else {
        return vec![path.to_owned()];
    };
    let name = |number: u32| format!("{}-{number:05}-of-{:05}.gguf", shard.stem, shard.count);
    (1..=shard.count).map(|number| path.with_file_name(name(number))).collect()
}

fn header(path: &Path) -> Result<Header, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let bytes = file.metadata().map_err(|error| error.to_string())?.len();
    read_header(BufReader::new(file), bytes, &Limits::default()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &str) -> (usize, Vec<Value>) {
        let mut output = Vec::new();
        let failed = run(input.as_bytes(), &mut output).unwrap();
        let text = String::from_utf8(output).unwrap();
        (failed, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// Writes a GGUF of two small blocks without tensors.
    fn tiny() -> tempfile::NamedTempFile {
        let mut bytes = Vec::new();
        bytes.extend(b"GGUF");
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        bytes.extend(4u64.to_le_bytes());
        let mut key = |key: &str, kind: u32, value: &[u8]| {
            bytes.extend((key.len() as u64).to_le_bytes());
            bytes.extend(key.as_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        };
        key("general.architecture", 8, b"\x05\0\0\0\0\0\0\0llama");
        key("llama.block_count", 4, &2u32.to_le_bytes());
        key("llama.embedding_length", 4, &64u32.to_le_bytes());
        key("llama.attention.head_count", 4, &4u32.to_le_bytes());
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn a_case_is_answered_by_device_and_unknown_keys_are_ignored() {
        let file = tiny();
        let case = serde_json::json!({
            "id": "one", "path": file.path(), "n_ctx": 256, "n_gpu_layers": 2, "new_key": [1],
            "gpus": [{"name": "CUDA0", "memory_bytes": 1 << 30}],
        });
        let (failed, answers) = lines(&format!("{case}\n\n"));
        assert_eq!((failed, answers.len()), (0, 1));
        // One of two blocks is on the GPU: K and V of 256 cells, 64 wide, two bytes an element.
        let cache = |device: &str| answers[0]["devices"][device]["kv_bytes"].as_u64();
        assert_eq!((cache("CUDA0"), cache("CPU")), (Some(65_536), Some(65_536)));
    }

    #[test]
    fn a_case_that_cannot_be_billed_says_why_and_the_run_goes_on() {
        let file = tiny();
        let good = serde_json::json!({"id": 7, "path": file.path(), "backend": "none"});
        let input = format!(
            "{{\"id\": \"a\"}}\nnot json\n{{\"id\": \"b\", \"path\": \"/nowhere/x.gguf\"}}\n\
             {{\"id\": \"c\", \"path\": {:?}, \"type_k\": \"q9\"}}\n{good}\n",
            file.path()
        );
        let (failed, answers) = lines(&input);
        assert_eq!((failed, answers.len()), (4, 5));
        let ids: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).collect();
        assert_eq!(ids, [&Value::from("a"), &Value::Null, &Value::from("b"), &Value::from("c"), &Value::from(7)]);
        assert!(answers[3]["error"].as_str().unwrap().contains("q9"));
        assert!(answers[4]["devices"]["CPU"].is_object() && answers[4].get("error").is_none());
    }
}
