//! What LM Studio's files and interfaces say: home, models folder, saved settings, runtime, and
//! which models are loaded.
//!
//! Formats are not a contract: every parse is tolerant, reads a white-list of keys and never a
//! token, key, chat or prompt. Reading the files and asking the interfaces is left to
//! [`crate::host`]; what may be asked at all is one list ([`Route`], [`Endpoint`]).

mod answers;
mod backend;
mod calls;
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
mod rest;
mod runtime;
mod saved;
mod settings;
mod socket;
mod token;

pub use answers::{
    Activity, Ask, Asked, EngineFile, EngineKind, EngineProcess, LoadedKind, LoadedModel, OwnEstimate, Program, Round,
    RunningBackend, Said, Scan, Unloaded,
};
pub use backend::{
    INTERNAL_PORTS, InternalServer, Signs, Status, USER_PORT, UserServer, internal_folders, is_greeting,
    parse_internal_server, parse_pid_lock, parse_status, parse_user_server, ports, program,
};
pub use calls::{Endpoint, Namespace, Route};
pub use command_line::parse_command_line;
pub use effective::{Layers, SettingsBasis, SettingsFor, loaded_settings, saved_for, settings_for};
pub use home::{Home, HomeBasis, ModelsFolder, models_folder, old_layout, pointer_file, resolve_home};
pub use hub::{Hub, VirtualModel, parse_virtual_model};
pub use index::{IndexHint, IndexHints, parse_index};
pub use instances::{Instance, Instances, Source, Whereabouts};
pub use mapping::{Mapping, Shelves, mapping};
pub use pace::{Pace, Standing};
pub use processes::{BackendProcess, Premises, ProcessRow, Sighted, is_of_interest, sight};
pub use rest::{RestAnswer, is_refused, parse_models_v0, parse_models_v1, parse_unload, unload_body};
pub use runtime::{
    Accelerator, HardwareSettings, Manifest, Runtime, SelectedRuntime, accelerator_of, parse_build, parse_hardware,
    parse_manifest, parse_preferences,
};
pub use saved::{LoadSettings, parse_model_config};
pub use settings::{AppSettings, DefaultContext, parse_settings};
pub use socket::{
    BackendInfo, Frame, SocketInstance, authentication, call, can_be_estimated, estimate_parameter, parse_activity,
    parse_authentication, parse_estimate, parse_frame, parse_info, parse_list_loaded, parse_load_config,
    parse_own_device, specifier, unload_parameter, warns_of,
};
pub use token::ApiToken;
