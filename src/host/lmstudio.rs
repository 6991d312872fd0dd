//! LM Studio's files: finds them, reads them within limits, notices when they change. And the
//! running LM Studio: [`Asker`] asks it what is loaded.
//!
//! Only reads, and only the files named here; a missing or broken one means LM Studio's defaults
//! and a note, never an error. What the texts mean is left to [`crate::lmstudio`].

mod asker;
mod discovery;
mod estimates;
mod follow;
mod hints;
mod http;
mod link;
mod pause;
mod rounds;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

pub use asker::{Asker, Limits};
pub use follow::Follower;
pub use rounds::Rounds;

use crate::config::Config;
use crate::engine::LmStudioRead;
use crate::library::{Origin, Root};
use crate::lmstudio::{
    AppSettings, Home, HomeBasis, Hub, IndexHints, LoadSettings, Program, Runtime, SelectedRuntime, models_folder,
    old_layout, parse_build, parse_hardware, parse_index, parse_manifest, parse_model_config, parse_preferences,
    parse_settings, parse_virtual_model, pointer_file, resolve_home,
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
const INDEX_LIMIT: u64 = 32 << 20;
const VIRTUAL_MODEL_LIMIT: u64 = 256 << 10;
/// Limits on the folder with virtual models.
const VIRTUAL_MODELS: usize = 2_000;
const VIRTUAL_MODEL_ENTRIES: usize = 20_000;
/// So many of the paths that are watched are folders whose whole content counts; they come last.
const WITH_CONTENT: usize = 2;
/// A broken file that changed this short a time ago is being written, and read again.
const BEING_WRITTEN: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(50);

/// Reads LM Studio's files. Blocks.
pub fn read(config: &Config, user_home: &Path) -> LmStudioRead {
    read_as(config, user_home, Program::Unknown)
}

/// Reads LM Studio's files as the given program uses them. Blocks.
pub fn read_as(config: &Config, user_home: &Path, program: Program) -> LmStudioRead {
    let mut notes = Vec::new();
    let user_home = resolved(user_home);
    let home = find_home(config, &user_home, &mut notes);
    let mut settings = read_settings(&home, &user_home, &mut notes);
    let mut roots = roots(config, &user_home, &home, &settings);
    if let Some(own) = own_tree(&home, program) {
        let own_settings = own_settings(&own, &mut notes);
        if let Some(path) = &own_settings.downloads_folder {
            roots.insert(0, Root { path: path.clone(), origin: Origin::LmStudio });
            keep_each_once(&mut roots);
        }
        let downloads_folder = own_settings.downloads_folder.or(settings.downloads_folder);
        settings = AppSettings { downloads_folder, ..own_settings };
    }
    let saved = read_saved(&model_configs(&home, program), &mut notes);
    let hub = read_hub(&hub(&home), &mut notes);
    let exists = home.path.is_dir();
    let runtime = read_runtime(&home, program);
    let build = runtime.as_ref().and_then(|runtime| read_build(&home, runtime));
    settings.runtime = runtime.map(|runtime| selected(&home, program, &runtime));
    LmStudioRead { home: Some((home, exists)), roots, settings, program, saved, hub, build, notes }
}

/// Reads from LM Studio's index what it says of these keys. Blocks.
pub fn read_index(home: &Path, program: Program, keys: &BTreeSet<String>) -> Result<IndexHints, String> {
    let home = Home { path: home.to_owned(), basis: HomeBasis::Default };
    let path = internal(&home, program, "model-index-cache.json");
    let failed = |reason: String| format!("{} cannot be read: {reason}", path.display());
    let metadata = fs::metadata(&path).map_err(|error| failed(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > INDEX_LIMIT {
        return Err(failed(format!("it is no regular file of up to {INDEX_LIMIT} bytes")));
    }
    let file = File::open(&path).map_err(|error| failed(error.to_string()))?;
    parse_index(io::BufReader::new(file.take(INDEX_LIMIT)), keys).map_err(|error| failed(format!("it is {error}")))
}

/// Returns the folder where a program keeps files of its own, where it has one.
fn own_tree(home: &Home, program: Program) -> Option<PathBuf> {
    let folder = home.path.join("apps").join("bionic");
    (program == Program::Bionic && folder.is_dir()).then_some(folder)
}

/// Returns a file of the program's own `.internal`, else of the one that all share.
fn internal(home: &Home, program: Program, name: &str) -> PathBuf {
    let own = own_tree(home, program).map(|folder| folder.join(".internal").join(name));
    own.filter(|path| path.exists()).unwrap_or_else(|| home.path.join(".internal").join(name))
}

/// Returns the settings of a program with files of its own.
fn own_settings(folder: &Path, notes: &mut Vec<String>) -> AppSettings {
    let places = [folder.join("settings.json"), folder.join(".internal").join("settings.json")];
    places.iter().find(|path| path.exists()).map_or_else(AppSettings::default, |path| settings_in(path, notes))
}

/// Returns the runtime selected for GGUF files.
fn read_runtime(home: &Home, program: Program) -> Option<Runtime> {
    let whole = |runtime: Option<Runtime>| {
        let is_whole = runtime.is_some();
        (runtime, is_whole)
    };
    let path = internal(home, program, PREFERENCES);
    read_whole(&path, RUNTIME_LIMIT, |text| whole(parse_preferences(text))).ok()?
}

/// Returns what a runtime computes on, by its manifest or else its name, and what is set for it.
fn selected(home: &Home, program: Program, runtime: &Runtime) -> SelectedRuntime {
    let manifest = read_text(&manifest(home, runtime), RUNTIME_LIMIT).ok();
    let manifest = manifest.and_then(|text| parse_manifest(&text));
    let hardware = read_whole(&internal(home, program, HARDWARE), RUNTIME_LIMIT, |text| {
        let is_whole = text.trim_end().ends_with('}');
        (parse_hardware(text, runtime), is_whole)
    });
    SelectedRuntime {
        folder: runtime.folder(),
        accelerator: manifest.map_or_else(|| runtime.accelerator(), |manifest| manifest.accelerator),
        has_own_process: manifest.map(|manifest| manifest.has_own_process),
        hardware: hardware.ok().flatten().unwrap_or_default(),
    }
}

/// Returns the build of llama.cpp that a runtime has, if its folder tells.
fn read_build(home: &Home, runtime: &Runtime) -> Option<Build> {
    let path = manifest(home, runtime).with_file_name("display-data.json");
    parse_build(&read_text(&path, RUNTIME_LIMIT).ok()?, runtime)
}

/// Returns a runtime's own description.
fn manifest(home: &Home, runtime: &Runtime) -> PathBuf {
    home.path.join("extensions").join("backends").join(runtime.folder()).join("backend-manifest.json")
}

/// The file that names the selected runtimes.
const PREFERENCES: &str = "backend-preferences-v1.json";
/// The file with what is set for each runtime.
const HARDWARE: &str = "hardware-config.json";

/// Returns the files and folders whose change means that LM Studio's files are to be read again.
/// The last two are folders whose whole content counts.
pub fn watched(read: &LmStudioRead, user_home: &Path) -> Vec<PathBuf> {
    let user_home = resolved(user_home);
    let Some((home, _)) = &read.home else { return Vec::new() };
    let mut paths = Vec::new();
    if home.basis != HomeBasis::Config {
        paths.extend([pointer_file(&user_home), old_layout(&user_home)]);
    }
    paths.extend([home.path.clone(), home.path.join("settings.json")]);
    let mut trees = vec![home.path.clone()];
    if read.program == Program::Bionic {
        let own = home.path.join("apps").join("bionic");
        paths.extend([own.join("settings.json"), own.join(".internal").join("settings.json")]);
        trees.push(own);
    }
    for tree in trees {
        // The last two say that a back-end has started or moved: there may be something to ask.
        let names = [PREFERENCES, HARDWARE, "http-server.json", "http-server-config.json"];
        paths.extend(names.map(|name| tree.join(".internal").join(name)));
    }
    if let Some(runtime) = &read.settings.runtime {
        let folder = home.path.join("extensions").join("backends").join(&runtime.folder);
        paths.push(folder.join("backend-manifest.json"));
    }
    paths.extend([hub(home), model_configs(home, read.program)]);
    paths
}

/// Returns the folder with the per-model files.
fn model_configs(home: &Home, program: Program) -> PathBuf {
    let tree = own_tree(home, program).unwrap_or_else(|| home.path.clone());
    tree.join(".internal").join("user-concrete-model-default-config")
}

/// Returns the folder with the virtual models.
fn hub(home: &Home) -> PathBuf {
    home.path.join("hub").join("models")
}

/// Reads every `<owner>/<name>/model.yaml`.
fn read_hub(folder: &Path, notes: &mut Vec<String>) -> Hub {
    let mut found = BTreeMap::new();
    let mut entries = 0;
    for owner in names_in(folder, &mut entries) {
        for name in names_in(&folder.join(&owner), &mut entries) {
            if found.len() >= VIRTUAL_MODELS {
                notes.push("LM Studio's folder of virtual models is too large to read as a whole".into());
                return Hub::new(found);
            }
            let path = folder.join(&owner).join(&name).join("model.yaml");
            let parsed = read_whole(&path, VIRTUAL_MODEL_LIMIT, |text| {
                let parsed = parse_virtual_model(text);
                let is_whole = parsed.is_ok();
                (parsed, is_whole)
            });
            let key = format!("{owner}/{name}");
            match parsed {
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Ok(Ok(model)) => drop(found.insert(key, model)),
                Ok(Err(error)) => notes.push(format!("LM Studio's virtual model {key} is passed over: {error}")),
                Err(error) => notes.push(format!("LM Studio's virtual model {key} is passed over: {error}")),
            }
        }
    }
    Hub::new(found)
}

/// Returns the names in a folder that are text, in order.
fn names_in(folder: &Path, entries: &mut usize) -> Vec<String> {
    let Ok(read) = fs::read_dir(folder) else { return Vec::new() };
    let left = VIRTUAL_MODEL_ENTRIES.saturating_sub(*entries);
    let mut names: Vec<String> =
        read.flatten().take(left).filter_map(|entry| entry.file_name().into_string().ok()).collect();
    *entries += names.len();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
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
    settings_in(&path, notes)
}

fn settings_in(path: &Path, notes: &mut Vec<String>) -> AppSettings {
    let parsed = read_whole(path, SETTINGS_LIMIT, |text| {
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
    keep_each_once(&mut roots);
    roots
}

fn keep_each_once(roots: &mut Vec<Root>) {
    let mut seen = BTreeSet::new();
    roots.retain(|root| seen.insert(resolved(&root.path)));
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
