//! What LM Studio's files say: home, models folder, saved settings, runtime.
//!
//! Formats are not a contract: every parse is tolerant, reads a white-list of keys and never a
//! token, key, chat or prompt. Reading the files is left to [`crate::host`].

mod answers;
mod effective;
mod home;
mod instances;
mod loose;
mod pace;
mod runtime;
mod saved;
mod settings;

pub use answers::{
    Activity, Ask, Asked, EngineKind, EngineProcess, LoadedKind, LoadedModel, OwnEstimate, Program, Round,
    RunningBackend, Said, Scan, Unloaded,
};
pub use effective::{SettingsBasis, SettingsFor, loaded_settings, settings_for};
pub use home::{Home, HomeBasis, ModelsFolder, models_folder, old_layout, pointer_file, resolve_home};
pub use instances::{Instance, Instances, Mapping, Source, Whereabouts, mapping};
pub use pace::{Pace, Standing};
pub use runtime::{Runtime, parse_build, parse_preferences};
pub use saved::{LoadSettings, parse_model_config};
pub use settings::{AppSettings, DefaultContext, parse_settings};
