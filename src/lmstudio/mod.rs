//! What LM Studio's files say: home, models folder, saved settings.
//!
//! Formats are not a contract: every parse is tolerant, reads a white-list of keys and never a
//! token, key, chat or prompt. Reading the files is left to [`crate::host`].

mod home;
mod saved;
mod settings;

pub use home::{Home, HomeBasis, ModelsFolder, models_folder, resolve_home};
pub use saved::{LoadSettings, SettingsBasis, SettingsFor, parse_model_config, settings_for};
pub use settings::{AppSettings, DefaultContext, parse_settings};
