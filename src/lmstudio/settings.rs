//! `settings.json`, by white-list.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What fitwatch reads of `settings.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSettings {
    /// `downloadsFolder`.
    pub downloads_folder: Option<PathBuf>,
    /// `defaultContextLength`.
    pub default_context: Option<DefaultContext>,
    /// `modelLoadingGuardrails.mode` as LM Studio's interface names it (`Strict`).
    pub guardrail: Option<String>,
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
    let _ = text;
    todo!()
}
