//! LM Studio's files and interfaces: what is read, what is left alone, what is noticed.
#![expect(clippy::unwrap_used, reason = "a test whose ground cannot be laid fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use fitwatch::config::Config;
use fitwatch::engine::LmStudioRead;
use fitwatch::host::lmstudio::{Follower, read, watched};
use fitwatch::library::Origin;
use fitwatch::lmstudio::{
    AppSettings, DefaultContext, HomeBasis, LoadSettings, SettingsBasis, parse_model_config, parse_settings,
    settings_for,
};
use fitwatch::memory::{
    Build, CacheType, Dimensions, FlashAttention, GpuLayers, Hyperparameters, Kind, Memory, Settings, Structure,
};
use fitwatch::units::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;

mod asker;
mod backend_files;
mod changes;
mod effective_settings;
mod frames;
mod loaded_settings;
mod more_files;
mod on_disk;
mod per_model_file;
mod rest;
mod scripted;
mod settings_json;
mod stand_in;

const SAVED: &str = ".internal/user-concrete-model-default-config";

/// A user's home folder.
struct User {
    folder: TempDir,
    home: PathBuf,
}

impl User {
    fn new() -> User {
        let folder = tempfile::tempdir().unwrap();
        let top = if cfg!(windows) { folder.path().to_owned() } else { folder.path().canonicalize().unwrap() };
        let home = top.join("robin");
        fs::create_dir(&home).unwrap();
        User { folder, home }
    }

    fn home(&self) -> &Path {
        assert!(self.folder.path().exists());
        &self.home
    }

    fn path(&self, name: &str) -> PathBuf {
        match name.strip_prefix("../") {
            Some(name) => self.home.with_file_name(name),
            None => self.home.join(name),
        }
    }

    fn write(&self, name: &str, text: &str) {
        let path = if name.starts_with(".internal") { self.path(".lmstudio").join(name) } else { self.path(name) };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self) -> LmStudioRead {
        read(&plain(), self.home())
    }
}

/// Returns a config that adds no folder of its own.
fn plain() -> Config {
    let mut config = Config::default();
    config.library.bundled_models = false;
    config
}

fn roots(found: &LmStudioRead) -> Vec<(PathBuf, Origin)> {
    found.roots.iter().map(|root| (root.path.clone(), root.origin)).collect()
}

fn fields(fields: &Value) -> LoadSettings {
    parse_model_config(&json!({ "load": { "fields": fields } }).to_string()).unwrap()
}

fn fixture(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lmstudio").join(name)).unwrap()
}

fn structure_of(blocks: u32) -> Structure {
    Structure {
        architecture: "llama".into(),
        kind: Kind::Language,
        blocks,
        context_train: 131_072,
        file_bytes: Bytes(4_000_000_000),
        quantisation: None,
        parameters: 8_000_000_000,
        notes: Vec::new(),
        dimensions: Dimensions::default(),
        memory: Memory::default(),
        hyper: Hyperparameters::default(),
        globals: Vec::new(),
        layouts: Vec::new(),
        kinds: Vec::new(),
        pattern: Vec::new(),
    }
}
