//! `settings.json`, by white-list.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::SelectedRuntime;
use super::loose::{boolean, count, white_listed};
use crate::units::Span;

/// The keys fitwatch looks at. The file holds tokens as well.
const KEYS: &[&str] = &["downloadsFolder", "defaultContextLength", "modelLoadingGuardrails", "developer"];

/// What fitwatch reads of `settings.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSettings {
    /// `downloadsFolder`.
    pub downloads_folder: Option<PathBuf>,
    /// `defaultContextLength`.
    pub default_context: Option<DefaultContext>,
    /// `modelLoadingGuardrails.mode` as LM Studio's interface names it (`Strict`).
    pub guardrail: Option<String>,
    /// How long a model stays that a request had loaded: `developer.jitModelTTL`; zero is for good.
    pub jit_ttl: Option<Span>,
    /// `developer.unloadPreviousJITModelOnLoad`: such a model makes room for the next one.
    pub unloads_previous: Option<bool>,
    /// The selected runtime, which other files tell of.
    pub runtime: Option<SelectedRuntime>,
}

/// The default context length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultContext {
    /// As long as the model was trained for.
    Max,
    /// A number of tokens.
    Tokens(u32),
}

/// Reads the settings; what is missing, blank, of the wrong type or unreadable is left out.
/// The second value says, in words, what could not be understood.
pub fn parse_settings(text: &str) -> (AppSettings, Vec<String>) {
    let values = match white_listed(text, KEYS) {
        Ok(values) => values,
        Err(error) => return (AppSettings::default(), vec![format!("LM Studio's settings.json is {error}")]),
    };
    let mut notes = Vec::new();
    let mut read = |key: &str, understood: bool| {
        if !understood && values.get(key).is_some_and(|value| !value.is_null()) {
            notes.push(format!("{key} in LM Studio's settings.json is not understood; the default is assumed"));
        }
    };
    let downloads_folder = values.get("downloadsFolder");
    let is_blank = downloads_folder.and_then(Value::as_str).is_some_and(|folder| folder.trim().is_empty());
    let downloads_folder = downloads_folder.and_then(folder);
    read("downloadsFolder", downloads_folder.is_some() || is_blank);
    let default_context = values.get("defaultContextLength").and_then(default_context);
    read("defaultContextLength", default_context.is_some());
    let guardrail = values.get("modelLoadingGuardrails").and_then(guardrail);
    read("modelLoadingGuardrails", guardrail.is_some());
    let developer = values.get("developer");
    let jit_ttl = developer.and_then(|developer| jit_ttl(developer.get("jitModelTTL")?));
    let unloads_previous = developer.and_then(|developer| boolean(developer.get("unloadPreviousJITModelOnLoad")?));
    let settings =
        AppSettings { downloads_folder, default_context, guardrail, jit_ttl, unloads_previous, runtime: None };
    (settings, notes)
}

/// Returns a folder where the value is an absolute path.
fn folder(value: &Value) -> Option<PathBuf> {
    let path = PathBuf::from(value.as_str()?.trim());
    path.is_absolute().then_some(path)
}

/// Returns the default context of `{"type": "custom" | "max", "value": …}`.
fn default_context(value: &Value) -> Option<DefaultContext> {
    match value.get("type").and_then(Value::as_str) {
        // "max" carries a value too: the last custom one.
        Some("max") => Some(DefaultContext::Max),
        Some("custom") => value.get("value").and_then(count).map(DefaultContext::Tokens),
        _ => count(value).map(DefaultContext::Tokens),
    }
}

/// Returns the time of `{"enabled": …, "ttlSeconds": …}`.
fn jit_ttl(value: &Value) -> Option<Span> {
    match value.get("enabled").and_then(boolean) {
        Some(false) => Some(Span(0)),
        _ => value.get("ttlSeconds").and_then(count).map(|seconds| Span::seconds(seconds.into())),
    }
}

/// Returns the guardrail's mode in the words of LM Studio's interface; an unknown one as it is
/// written, where it is a plain word.
fn guardrail(value: &Value) -> Option<String> {
    let mode = value.get("mode")?.as_str()?;
    let name = match mode {
        "off" => "OFF",
        "low" => "Relaxed",
        "medium" => "Balanced",
        "high" => "Strict",
        "custom" => "Custom",
        word if word.len() <= 16 && word.chars().all(|letter| letter.is_ascii_alphabetic()) => word,
        _ => return None,
    };
    Some(name.to_owned()).filter(|name| !name.is_empty())
}
