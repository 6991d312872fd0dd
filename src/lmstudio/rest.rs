//! What the REST interfaces answer: version 1, version 0, and the bodies that are no answer.
//!
//! The status code means nothing (an unknown route is answered with 200), so the body decides.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::loose::{Rows, amount, boolean, count, plain, text};
use super::saved::MOST_SESSIONS;
use super::{LoadSettings, LoadedKind, LoadedModel};
use crate::units::Bytes;

/// Nobody has more than this loaded.
const MOST_INSTANCES: usize = 256;
/// Errors and the like are shorter.
pub(super) const SMALL: usize = 64 << 10;

/// What a body says.
#[derive(Clone, Debug, PartialEq)]
pub enum RestAnswer<T> {
    /// This.
    Is(T),
    /// LM Studio does not know the route.
    NoSuchRoute,
    /// It wants an API token, or another one.
    Refused,
    /// It is an error, in LM Studio's words where they are harmless.
    Error(Option<String>),
    /// It is not understood.
    Garbage,
}

/// Reads the answer to [`Route::ModelsV1`](super::Route::ModelsV1): the loaded instances.
pub fn parse_models_v1(body: &[u8]) -> RestAnswer<Vec<LoadedModel>> {
    rows(body, "models")
        .map(|rows| limited(rows.values().flat_map(|row| v1_instances(&row)).collect(), |model| &model.identifier))
}

/// Reads the answer to [`Route::ModelsV0`](super::Route::ModelsV0): the loaded models.
pub fn parse_models_v0(body: &[u8]) -> RestAnswer<Vec<LoadedModel>> {
    rows(body, "data")
        .map(|rows| limited(rows.values().filter_map(|row| v0_instance(&row)).collect(), |model| &model.identifier))
}

/// Returns the body of [`Route::UnloadV1`](super::Route::UnloadV1).
pub fn unload_body(identifier: &str) -> String {
    json!({ "instance_id": identifier }).to_string()
}

/// Reads the answer to [`Route::UnloadV1`](super::Route::UnloadV1).
pub fn parse_unload(body: &[u8]) -> RestAnswer<()> {
    answer(body, |object| text(object.get("instance_id")).map(|_| ()))
}

/// Tells whether a body says that an API token is wanted, or another one.
pub fn is_refused(body: &[u8]) -> bool {
    answer(body, |_| Some(())) == RestAnswer::Refused
}

impl<T> RestAnswer<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> RestAnswer<U> {
        match self {
            RestAnswer::Is(value) => RestAnswer::Is(change(value)),
            RestAnswer::NoSuchRoute => RestAnswer::NoSuchRoute,
            RestAnswer::Refused => RestAnswer::Refused,
            RestAnswer::Error(words) => RestAnswer::Error(words),
            RestAnswer::Garbage => RestAnswer::Garbage,
        }
    }
}

/// Returns the rows of a list, unread: most are of models that are not loaded.
fn rows<'a>(body: &'a [u8], key: &str) -> RestAnswer<Rows<'a>> {
    #[derive(Deserialize)]
    struct Lists<'a> {
        #[serde(borrow)]
        models: Option<&'a RawValue>,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }

    let lists: Option<Lists<'a>> = serde_json::from_slice(body).ok();
    let list = lists.and_then(|lists| if key == "models" { lists.models } else { lists.data });
    match list.and_then(|list| serde_json::from_str(list.get()).ok()) {
        Some(rows) => RestAnswer::Is(rows),
        None => answer(body, |_| None),
    }
}

/// Reads a body that is a small object.
fn answer<T>(body: &[u8], read: impl FnOnce(&Value) -> Option<T>) -> RestAnswer<T> {
    let object = if body.len() <= SMALL { serde_json::from_slice::<Value>(body).ok() } else { None };
    let Some(object @ Value::Object(_)) = object else { return RestAnswer::Garbage };
    match object.get("error") {
        None | Some(Value::Null) => read(&object).map_or(RestAnswer::Garbage, RestAnswer::Is),
        Some(error) => match words(error) {
            (_, Some(message)) if message.starts_with("Unexpected endpoint") => RestAnswer::NoSuchRoute,
            (kinds, _) if kinds.iter().flatten().any(|kind| is_refusal(kind)) => RestAnswer::Refused,
            (_, message) => RestAnswer::Error(message.and_then(plain)),
        },
    }
}

/// Returns an error's code and type, and its message; some errors are the message alone.
fn words(error: &Value) -> ([Option<&str>; 2], Option<&str>) {
    let word = |key: &str| error.get(key).and_then(Value::as_str);
    ([word("code"), word("type")], error.as_str().or_else(|| word("message")).map(str::trim_start))
}

/// Tells whether an error's code or type is about the token. The type of a wrong one is `invalid_request`,
/// as of anything else.
fn is_refusal(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    ["api_key", "api_token", "unauthorized", "authentication"].iter().any(|word| kind.contains(word))
}

/// Returns the loaded instances of a row of version 1.
fn v1_instances(row: &Value) -> Vec<LoadedModel> {
    let Some(instances) = row.get("loaded_instances").and_then(Value::as_array) else { return Vec::new() };
    let key = text(row.get("key"));
    let model = LoadedModel {
        key: key.clone(),
        name: text(row.get("display_name")),
        kind: text(row.get("type")).and_then(|kind| loaded_kind(&kind)),
        format: text(row.get("format")),
        variant: text(row.get("selected_variant")),
        bytes: row.get("size_bytes").and_then(amount).map(Bytes),
        architecture: text(row.get("architecture")),
        quantisation: row.get("quantization").and_then(quantisation),
        ..LoadedModel::default()
    };
    let instances = instances.iter().filter_map(|instance| {
        let identifier = text(instance.get("id")).or_else(|| key.clone())?;
        let load = instance.get("config").map(v1_settings).unwrap_or_default();
        Some(LoadedModel { identifier, context: load.context_length, load, ..model.clone() })
    });
    instances.collect()
}

fn v1_settings(config: &Value) -> LoadSettings {
    let whole = |key: &str| config.get(key).and_then(count);
    let truth = |key: &str| config.get(key).and_then(boolean);
    LoadSettings {
        context_length: whole("context_length"),
        batch: whole("eval_batch_size"),
        parallel: whole("parallel").filter(|slots| *slots <= MOST_SESSIONS),
        flash_attention: truth("flash_attention"),
        offload_kv_cache_to_gpu: truth("offload_kv_cache_to_gpu"),
        ..LoadSettings::default()
    }
}

/// Returns a row of version 0 where it is loaded. Its `id` is the model's key.
fn v0_instance(row: &Value) -> Option<LoadedModel> {
    let is_loaded = row.get("state").and_then(Value::as_str).is_some_and(|state| state.trim() == "loaded");
    let identifier = text(row.get("id")).filter(|_| is_loaded)?;
    let context = row.get("loaded_context_length").and_then(count);
    Some(LoadedModel {
        key: Some(identifier.clone()),
        identifier,
        kind: text(row.get("type")).and_then(|kind| loaded_kind(&kind)),
        format: text(row.get("compatibility_type")),
        architecture: text(row.get("arch")),
        quantisation: row.get("quantization").and_then(quantisation),
        context,
        load: LoadSettings { context_length: context, ..LoadSettings::default() },
        ..LoadedModel::default()
    })
}

/// Returns the kind in the word of any interface: a model that sees is `llm` in some and `vlm` in
/// others.
pub(super) fn loaded_kind(word: &str) -> Option<LoadedKind> {
    match word {
        "llm" | "vlm" => Some(LoadedKind::Language),
        "embedding" | "embeddings" => Some(LoadedKind::Embedding),
        _ => None,
    }
}

/// Returns the quantisation's name, which is wrapped in some interfaces and bare in others.
pub(super) fn quantisation(value: &Value) -> Option<String> {
    text(Some(value.get("name").unwrap_or(value)))
}

/// Keeps each identifier once: some versions have told of an instance twice.
pub(super) fn limited<T>(mut instances: Vec<T>, identifier: impl Fn(&T) -> &String) -> Vec<T> {
    let mut seen = BTreeSet::new();
    instances.retain(|instance| seen.len() < MOST_INSTANCES && seen.insert(identifier(instance).clone()));
    instances
}
