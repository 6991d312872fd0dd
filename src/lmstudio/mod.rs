//! What LM Studio's files say: home, models folder, saved settings, runtime.
//!
//! Formats are not a contract: every parse is tolerant, reads a white-list of keys and never a
//! token, key, chat or prompt. Reading the files is left to [`crate::host`].

mod effective;
mod home;
mod loose;
mod runtime;
mod saved;
mod settings;

pub use effective::{SettingsBasis, SettingsFor, settings_for};
pub use home::{Home, HomeBasis, ModelsFolder, models_folder, old_layout, pointer_file, resolve_home};
pub use runtime::{Runtime, parse_build, parse_preferences};
pub use saved::{LoadSettings, parse_model_config};
pub use settings::{AppSettings, DefaultContext, parse_settings};
