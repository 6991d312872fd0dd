//! What LM Studio's files say: home, models folder, saved settings, runtime.
//!
//! Formats are not a contract: every parse is tolerant, reads a white-list of keys and never a
//! token, key, chat or prompt. Reading the files is left to [`crate::host`].

mod answers;
mod command_line;
mod effective;
mod home;
mod hub;
mod index;
mod instances;
mod loose;
mod mapping;
mod pace;
mod processes;
mod runtime;
mod saved;
mod settings;

pub use answers::{
    Activity, Ask, Asked, EngineFile, EngineKind, EngineProcess, LoadedKind, LoadedModel, OwnEstimate, Program, Round,
    RunningBackend, Said, Scan, Unloaded,
};
pub use command_line::parse_command_line;
pub use effective::{Layers, SettingsBasis, SettingsFor, loaded_settings, saved_for, settings_for};
pub use home::{Home, HomeBasis, ModelsFolder, models_folder, old_layout, pointer_file, resolve_home};
pub use hub::{Hub, VirtualModel, parse_virtual_model};
pub use index::{IndexHint, IndexHints, parse_index};
pub use instances::{Instance, Instances, Source, Whereabouts};
pub use mapping::{Mapping, Shelves, mapping};
pub use pace::{Pace, Standing};
pub use processes::{BackendProcess, Premises, ProcessRow, Sighted, is_of_interest, sight};
pub use runtime::{
    Accelerator, HardwareSettings, Manifest, Runtime, SelectedRuntime, accelerator_of, parse_build, parse_hardware,
    parse_manifest, parse_preferences,
};
pub use saved::{LoadSettings, parse_model_config};
pub use settings::{AppSettings, DefaultContext, parse_settings};
