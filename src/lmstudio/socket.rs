//! The websocket's frames: what is sent, and what the answers mean.
//!
//! A socket speaks of one [`Namespace`](super::Namespace). The first frame each way authenticates;
//! after that calls and results carry the same number. An endpoint that LM Studio does not know is
//! answered with a warning that names it, and with nothing at all after five of those.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::loose::{Rows, amount, boolean, count, plain, text};
use super::rest::{SMALL, limited, loaded_kind, quantisation};
use super::saved::fields;
use super::{Activity, Endpoint, LoadSettings, LoadedKind, LoadedModel, OwnEstimate};
use crate::units::{Bytes, Span};

/// Returns the frame that authenticates; it comes first.
pub fn authentication(identifier: &str, passkey: &str) -> String {
    json!({ "authVersion": 1, "clientIdentifier": identifier, "clientPasskey": passkey }).to_string()
}

/// Reads the answer to [`authentication`]: whether this client is let in. `None` where it is no answer.
pub fn parse_authentication(frame: &str) -> Option<bool> {
    boolean(serde_json::from_str::<Value>(frame).ok()?.get("success")?)
}

/// Returns the frame that calls an endpoint.
pub fn call(endpoint: Endpoint, number: u64, parameter: Option<&Value>) -> String {
    let mut frame = json!({ "type": "rpcCall", "endpoint": endpoint.name(), "callId": number });
    // A call without a parameter has none; `null` would be one.
    if let (Some(parameter), Some(frame)) = (parameter, frame.as_object_mut()) {
        frame.insert("parameter".into(), parameter.clone());
    }
    frame.to_string()
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A call's result.
    Result {
        /// The call's number.
        number: u64,
        /// The result, unread; nothing where there is none.
        result: Option<&'a str>,
    },
    /// A call failed.
    Error {
        /// The call's number.
        number: u64,
        /// Why, in LM Studio's words where they are harmless.
        words: Option<String>,
    },
    /// A call was not understood, or its endpoint is not known.
    Warning {
        /// What about.
        warning: String,
    },
    /// Something that no call waits for.
    Other,
}

/// Reads a frame; `None` where it is none.
pub fn parse_frame(frame: &str) -> Option<Frame<'_>> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(rename = "type")]
        kind: Option<Value>,
        #[serde(rename = "callId")]
        number: Option<Value>,
        #[serde(borrow)]
        result: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
        warning: Option<Value>,
    }

    let raw: Raw<'_> = serde_json::from_str(frame).ok()?;
    let number = raw.number.as_ref().and_then(amount);
    Some(match (raw.kind.as_ref()?.as_str()?, number) {
        ("rpcResult", Some(number)) => Frame::Result { number, result: raw.result.map(RawValue::get) },
        ("rpcError", Some(number)) => Frame::Error { number, words: raw.error.and_then(error_words) },
        ("communicationWarning", _) => {
            Frame::Warning { warning: raw.warning.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned() }
        }
        _ => Frame::Other,
    })
}

/// Tells whether a warning is about an endpoint; those that follow an endpoint's name with other
/// letters are about another one.
pub fn warns_of(warning: &str, endpoint: Endpoint) -> bool {
    let name = endpoint.name();
    warning.match_indices(name).any(|(start, _)| {
        let is_letter = |letter: char| letter.is_alphanumeric();
        !warning[..start].ends_with(is_letter) && !warning[start + name.len()..].starts_with(is_letter)
    })
}

/// An instance as the websocket tells of it.
#[derive(Clone, Debug, PartialEq)]
pub struct SocketInstance {
    /// What other calls name it by. Its settings stay the same as long as this does.
    pub reference: Option<String>,
    /// The rest.
    pub model: LoadedModel,
}

/// Reads the result of [`Endpoint::ListLoaded`].
pub fn parse_list_loaded(result: &str) -> Option<Vec<SocketInstance>> {
    let rows: Rows<'_> = serde_json::from_str(result).ok()?;
    let instances = rows.values().filter_map(|row| instance(&row)).collect();
    Some(limited(instances, |instance: &SocketInstance| &instance.model.identifier))
}

/// Returns the parameter that names an instance.
pub fn specifier(instance: &SocketInstance) -> Value {
    match &instance.reference {
        Some(reference) => json!({ "type": "instanceReference", "instanceReference": reference }),
        None => json!({ "type": "query", "query": { "identifier": instance.model.identifier } }),
    }
}

/// Reads the result of [`Endpoint::GetLoadConfig`].
pub fn parse_load_config(result: &str) -> Option<LoadSettings> {
    let config: Value = serde_json::from_str(result).ok()?;
    config.get("fields").is_some().then(|| fields(Some(&config)))?
}

/// Reads the result of [`Endpoint::GetInstanceProcessingState`].
pub fn parse_activity(result: &str) -> Option<Activity> {
    let state: Value = serde_json::from_str(result).ok()?;
    let status = text(state.get("status"))?;
    Some(match status.as_str() {
        "idle" => Activity::Idle,
        "processingPrompt" => Activity::ProcessingPrompt,
        "generating" => Activity::Generating,
        "computingEmbedding" => Activity::ComputingEmbedding,
        _ => Activity::Other(plain(&status)?),
    })
}

/// Returns the parameter of [`Endpoint::EstimateModelUsage`] for a model loaded with these settings.
pub fn estimate_parameter(key: &str, load: &LoadSettings) -> Value {
    let checked = |kind: &str| json!({ "checked": true, "value": kind });
    let known = [
        ("llm.load.contextLength", load.context_length.map(Value::from)),
        ("llm.load.numParallelSessions", load.parallel.map(Value::from)),
        ("llm.load.useUnifiedKvCache", load.unified_kv.map(Value::from)),
        ("llm.load.offloadKVCacheToGpu", load.offload_kv_cache_to_gpu.map(Value::from)),
        ("llm.load.numCpuExpertLayersRatio", load.cpu_expert_ratio.map(ratio)),
        ("llm.load.llama.acceleration.offloadRatio", load.offload_ratio.map(ratio)),
        ("llm.load.llama.evalBatchSize", load.batch.map(Value::from)),
        ("llm.load.llama.physicalBatchSize", load.ubatch.map(Value::from)),
        ("llm.load.llama.flashAttention", load.flash_attention.map(Value::from)),
        ("llm.load.llama.kCacheQuantizationType", load.cache_type_k.map(|kind| checked(kind.name()))),
        ("llm.load.llama.vCacheQuantizationType", load.cache_type_v.map(|kind| checked(kind.name()))),
        ("llm.load.llama.tryMmap", load.mmap.map(Value::from)),
    ];
    let known = known.into_iter().filter_map(|(key, value)| Some(json!({ "key": key, "value": value? })));
    let fields: Vec<Value> = known.collect();
    json!({
        "modelKey": key,
        "loadConfigStack": { "layers": [{ "layerName": "apiOverride", "config": { "fields": fields } }] },
    })
}

/// Reads the result of [`Endpoint::EstimateModelUsage`].
pub fn parse_estimate(result: &str) -> Option<OwnEstimate> {
    let usage: Value = serde_json::from_str(result).ok()?;
    let memory = usage.get("memory")?;
    Some(OwnEstimate {
        total: Bytes(memory.get("totalBytes").and_then(amount)?),
        gpu: Bytes(memory.get("totalVramBytes").and_then(amount)?),
        is_confident: memory.get("confidence").and_then(Value::as_str) == Some("high"),
        passes_guardrails: usage.get("passesGuardrails").and_then(boolean)?,
    })
}

/// What the back-end says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendInfo {
    /// Its process.
    pub pid: Option<u32>,
    /// Whether it is the daemon.
    pub is_daemon: Option<bool>,
    /// Its version.
    pub version: Option<String>,
}

/// Reads the result of [`Endpoint::Info`] or [`Endpoint::Version`].
pub fn parse_info(result: &str) -> Option<BackendInfo> {
    let info: Value = serde_json::from_str(result).ok()?;
    let info = info.as_object()?;
    Some(BackendInfo {
        pid: info.get("pid").and_then(count),
        is_daemon: info.get("isDaemon").and_then(boolean),
        version: text(info.get("version")),
    })
}

/// Reads the result of [`Endpoint::LmLinkStatus`]: this machine's own device.
pub fn parse_own_device(result: &str) -> Option<String> {
    text(serde_json::from_str::<Value>(result).ok()?.get("deviceIdentifier"))
}

/// Returns the parameter of [`Endpoint::UnloadModel`].
pub fn unload_parameter(identifier: &str) -> Value {
    json!({ "identifier": identifier })
}

fn instance(row: &Value) -> Option<SocketInstance> {
    let key = text(row.get("modelKey"));
    let time = |name: &str| row.get(name).and_then(amount);
    let model = LoadedModel {
        identifier: text(row.get("identifier")).or_else(|| key.clone())?,
        key,
        name: text(row.get("displayName")),
        kind: text(row.get("type")).and_then(|kind| loaded_kind(&kind)),
        format: text(row.get("format")),
        path: text(row.get("path")),
        indexed_identifier: text(row.get("indexedModelIdentifier")),
        variant: text(row.get("selectedVariant")),
        bytes: time("sizeBytes").map(Bytes),
        architecture: text(row.get("architecture")),
        quantisation: row.get("quantization").and_then(quantisation),
        device: row.get("deviceIdentifier").and_then(device),
        context: row.get("contextLength").and_then(count),
        ttl: time("ttlMs").map(Span),
        last_used_ms: time("lastUsedTime"),
        ..LoadedModel::default()
    };
    Some(SocketInstance { reference: text(row.get("instanceReference")), model })
}

/// Returns the device that a model runs on, `None` for this machine. What cannot be read is no
/// reason to take a model for one that runs here.
fn device(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(name) if name.trim().is_empty() => None,
        named => Some(text(Some(named)).unwrap_or_else(|| "unknown".into())),
    }
}

/// Returns a ratio as LM Studio writes it.
fn ratio(ratio: f64) -> Value {
    if ratio >= 1.0 { json!("max") } else { json!(ratio) }
}

/// Returns an error's title where it is harmless; its stack and its data are never looked at.
fn error_words(error: &RawValue) -> Option<String> {
    let error = error.get();
    let error: Value = if error.len() <= SMALL { serde_json::from_str(error).ok()? } else { return None };
    let title = ["title", "rootTitle"].into_iter().find_map(|key| error.get(key)?.as_str());
    plain(title.or_else(|| error.as_str())?)
}

/// Tells whether LM Studio can estimate what this takes: a language model in GGUF form that runs here.
pub fn can_be_estimated(model: &LoadedModel) -> bool {
    let is_gguf = model.format.as_deref().is_some_and(|format| format.eq_ignore_ascii_case("gguf"));
    is_gguf && model.kind == Some(LoadedKind::Language) && model.device.is_none()
}
