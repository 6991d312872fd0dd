//! LM Studio's files: finds them, reads them within limits, notices when they change.
//!
//! Only reads, and only the files named here; a missing or broken one means LM Studio's defaults
//! and a note, never an error. What the texts mean is left to [`crate::lmstudio`].

mod follow;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

pub use follow::Follower;

use crate::config::Config;
use crate::engine::LmStudioRead;
use crate::library::{Origin, Root};
use crate::lmstudio::{
    AppSettings, Home, HomeBasis, LoadSettings, Runtime, models_folder, old_layout, parse_build, parse_model_config,
    parse_preferences, parse_settings, pointer_file, resolve_home,
};
use crate::memory::Build;

const POINTER_LIMIT: u64 = 64 << 10;
const SETTINGS_LIMIT: u64 = 4 << 20;
const RUNTIME_LIMIT: u64 = 1 << 20;
const MODEL_CONFIG_LIMIT: u64 = 1 << 20;
/// Limits on the folder with per-model files.
const MODEL_CONFIGS: usize = 5_000;
const MODEL_CONFIG_ENTRIES: usize = 50_000;
const MODEL_CONFIG_DEPTH: usize = 16;
/// A broken file that changed this short a time ago is being written, and read again.
const BEING_WRITTEN: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(50);

/// Reads LM Studio's files. Blocks.
pub fn read(config: &Config, user_home: &Path) -> LmStudioRead {
    let mut notes = Vec::new();
    let user_home = resolved(user_home);
    let home = find_home(config, &user_home, &mut notes);
    let settings = read_settings(&home, &user_home, &mut notes);
    let roots = roots(config, &user_home, &home, &settings);
    let saved = read_saved(&model_configs(&home), &mut notes);
    let exists = home.path.is_dir();
    let build = read_build(&home);
    LmStudioRead { home: Some((home, exists)), roots, settings, saved, build, notes }
}

/// Returns the build of llama.cpp that the selected runtime has, if its folder tells.
fn read_build(home: &Home) -> Option<Build> {
    let whole = |runtime: Option<Runtime>| {
        let is_whole = runtime.is_some();
        (runtime, is_whole)
    };
    let runtime = read_whole(&preferences(home), RUNTIME_LIMIT, |text| whole(parse_preferences(text))).ok()??;
    let folder = home.path.join("extensions").join("backends").join(runtime.folder());
    let text = read_text(&folder.join("display-data.json"), RUNTIME_LIMIT).ok()?;
    parse_build(&text, &runtime)
}

/// Returns the file that names the selected runtimes.
fn preferences(home: &Home) -> PathBuf {
    home.path.join(".internal").join("backend-preferences-v1.json")
}

/// Returns the files and folders whose change means that LM Studio's files are to be read again.
/// The last one is a folder whose whole content counts.
pub fn watched(read: &LmStudioRead, user_home: &Path) -> Vec<PathBuf> {
    let user_home = resolved(user_home);
    let Some((home, _)) = &read.home else { return Vec::new() };
    let mut paths = Vec::new();
    if home.basis != HomeBasis::Config {
        paths.extend([pointer_file(&user_home), old_layout(&user_home)]);
    }
    paths.extend([home.path.clone(), home.path.join("settings.json"), preferences(home), model_configs(home)]);
    paths
}

/// Returns the folder with the per-model files.
fn model_configs(home: &Home) -> PathBuf {
    home.path.join(".internal").join("user-concrete-model-default-config")
}

fn find_home(config: &Config, user_home: &Path, notes: &mut Vec<String>) -> Home {
    if let Some(path) = &config.library.lm_studio_home {
        return Home { path: expanded(path, user_home), basis: HomeBasis::Config };
    }
    let pointer = pointer_file(user_home);
    let text = match read_text(&pointer, POINTER_LIMIT) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            notes.push(format!("LM Studio's pointer file {} cannot be read: {error}", pointer.display()));
            None
        }
    };
    let home = resolve_home(user_home, text.as_deref(), old_layout(user_home).is_dir());
    if text.is_some() && home.basis != HomeBasis::PointerFile {
        notes.push(format!("LM Studio's pointer file {} names no folder; it is passed over", pointer.display()));
    }
    home
}

fn read_settings(home: &Home, user_home: &Path, notes: &mut Vec<String>) -> AppSettings {
    let mut path = home.path.join("settings.json");
    if cfg!(windows) && !path.exists() {
        // Very old versions kept it here.
        path = user_home.join("AppData").join("Roaming").join("LM Studio").join("settings.json");
    }
    let parsed = read_whole(&path, SETTINGS_LIMIT, |text| {
        let (settings, odd) = parse_settings(text);
        let is_whole = odd.is_empty();
        ((settings, odd), is_whole)
    });
    match parsed {
        Ok((settings, odd)) => {
            notes.extend(odd);
            settings
        }
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                notes.push(format!("{} cannot be read: {error}", path.display()));
            }
            AppSettings::default()
        }
    }
}

/// Returns the folders to hold, each once.
fn roots(config: &Config, user_home: &Path, home: &Home, settings: &AppSettings) -> Vec<Root> {
    let mut roots = vec![Root { path: models_folder(home, settings).path, origin: Origin::LmStudio }];
    if config.library.bundled_models {
        let path = home.path.join(".internal").join("bundled-models");
        roots.push(Root { path, origin: Origin::Bundled });
    }
    let extra = config.library.extra_folders.iter().map(|folder| expanded(folder, user_home));
    roots.extend(extra.map(|path| Root { path, origin: Origin::Config }));
    let mut seen = BTreeSet::new();
    roots.retain(|root| seen.insert(resolved(&root.path)));
    roots
}

/// Reads every per-model file; the key is its path without the ending.
fn read_saved(folder: &Path, notes: &mut Vec<String>) -> BTreeMap<String, LoadSettings> {
    let mut saved = BTreeMap::new();
    let Ok(folder) = folder.canonicalize() else { return saved };
    let mut found = ModelConfigs { top: folder.clone(), files: Vec::new(), entries: 0 };
    found.collect(&folder, MODEL_CONFIG_DEPTH);
    if found.is_full() {
        notes.push("LM Studio's folder of per-model settings is too large to read as a whole".into());
    }
    for path in found.files {
        let Some(key) = key(&folder, &path) else { continue };
        let parsed = read_whole(&path, MODEL_CONFIG_LIMIT, |text| {
            let parsed = parse_model_config(text);
            let is_whole = parsed.is_ok();
            (parsed, is_whole)
        });
        match parsed.map_err(|error| error.to_string()).flatten() {
            Ok(settings) => {
                saved.insert(key, settings);
            }
            Err(error) => notes.push(format!("LM Studio's saved settings for {key} are passed over: {error}")),
        }
    }
    saved
}

/// The per-model files found so far.
struct ModelConfigs {
    top: PathBuf,
    files: Vec<PathBuf>,
    entries: usize,
}

impl ModelConfigs {
    /// Collects regular files that end in `.json` and lie inside the folder, links resolved.
    fn collect(&mut self, folder: &Path, depth: usize) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        let mut entries: Vec<_> = entries.flatten().take(MODEL_CONFIG_ENTRIES).collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if self.is_full() {
                return;
            }
            self.entries += 1;
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth > 0 {
                self.collect(&path, depth - 1);
            } else if path.extension().is_some_and(|ending| ending == "json")
                && path.canonicalize().is_ok_and(|target| target.starts_with(&self.top) && target.is_file())
            {
                self.files.push(path);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.files.len() >= MODEL_CONFIGS || self.entries >= MODEL_CONFIG_ENTRIES
    }
}

/// Returns `publisher/repository/file.gguf` of a per-model file.
fn key(folder: &Path, path: &Path) -> Option<String> {
    let path = path.with_extension("");
    let parts = path.strip_prefix(folder).ok()?.iter().map(|part| part.to_str());
    Some(parts.collect::<Option<Vec<&str>>>()?.join("/"))
}

/// Reads and parses a file, again where it is broken because LM Studio is just writing it. The
/// second value `parse` returns says whether the text is whole.
fn read_whole<T>(path: &Path, limit: u64, parse: impl Fn(&str) -> (T, bool)) -> io::Result<T> {
    let mut attempt = 1;
    loop {
        let (parsed, is_whole) = parse(&read_text(path, limit)?);
        let age = fs::metadata(path)?.modified().ok().and_then(|modified| modified.elapsed().ok());
        if is_whole || attempt == ATTEMPTS || age.is_none_or(|age| age > BEING_WRITTEN) {
            return Ok(parsed);
        }
        attempt += 1;
        thread::sleep(PAUSE);
    }
}

/// Returns the text of a regular file, unless it is larger than the limit.
fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is no UTF-8 text"))
}

/// Returns a path with a leading `~` replaced.
fn expanded(path: &Path, user_home: &Path) -> PathBuf {
    match path.strip_prefix("~") {
        Ok(rest) => user_home.join(rest),
        Err(_) => path.to_owned(),
    }
}

/// Returns the path with its links resolved, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    // On Windows that would turn it into a form that nobody wants to see.
    if cfg!(windows) { path.to_owned() } else { path.canonicalize().unwrap_or_else(|_| path.to_owned()) }
}
