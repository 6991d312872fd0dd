//! Which model of the library a loaded one is, or a process holds.
//!
//! From the strongest sign to the weakest: the process's file, the file LM Studio names, the files its
//! virtual models and its index stand for, the repository, and last a name with its size. The first
//! that leads to a model of the library counts; one that leads to several says so, and where nothing
//! does the answer is that it cannot be told.

use std::collections::BTreeSet;

use super::{EngineKind, EngineProcess, Hub, IndexHints, Instance, LoadedModel, Whereabouts};
use crate::library::{Library, Model, ModelId, ModelState};
use crate::units::Bytes;

/// The model of the library that is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mapping {
    /// It cannot be told.
    #[default]
    None,
    /// This one.
    One(ModelId),
    /// One of these.
    Several(Vec<ModelId>),
}

impl Mapping {
    /// Returns the model, where it is certain.
    pub fn one(&self) -> Option<&ModelId> {
        match self {
            Mapping::One(id) => Some(id),
            Mapping::None | Mapping::Several(_) => None,
        }
    }

    /// Returns whether a model is meant, or may be.
    pub fn may_be(&self, id: &ModelId) -> bool {
        match self {
            Mapping::None => false,
            Mapping::One(one) => one == id,
            Mapping::Several(several) => several.contains(id),
        }
    }

    fn of(mut ids: Vec<ModelId>) -> Mapping {
        ids.sort();
        ids.dedup();
        match ids.len() {
            0 => Mapping::None,
            1 => ids.pop().map_or(Mapping::None, Mapping::One),
            _ => Mapping::Several(ids),
        }
    }
}

/// Where models are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Shelves<'a> {
    /// The library.
    pub library: &'a Library,
    /// The virtual models.
    pub hub: &'a Hub,
    /// What LM Studio's index said of the keys that were asked for.
    pub hints: &'a IndexHints,
}

/// Returns which model of the library an instance is.
pub fn mapping(instance: &Instance, shelves: Shelves<'_>) -> Mapping {
    // A model elsewhere is none of this library, though one of the same name may lie here.
    if matches!(instance.whereabouts, Whereabouts::Elsewhere(_)) {
        return Mapping::None;
    }
    let own_process = instance.process.as_ref().filter(|process| process.kind != EngineKind::Worker);
    let by_process = own_process.map(|process| map_process(process, shelves)).filter(|found| *found != Mapping::None);
    let by_name = || instance.model.as_ref().map_or(Mapping::None, |told| map_loaded(told, shelves));
    by_process.unwrap_or_else(by_name)
}

/// Returns the model whose file a process was started with.
pub(super) fn map_process(process: &EngineProcess, shelves: Shelves<'_>) -> Mapping {
    let Some(named) = &process.asked.model else { return Mapping::None };
    let identity = process.file.as_ref().map(|file| file.identity);
    let mut found = shelves.library.models_of(named, identity);
    if let Some(file) = &process.file {
        found.extend(shelves.library.models_of(&file.path, None));
    }
    Mapping::of(found)
}

/// Returns the model that an interface means.
pub(super) fn map_loaded(told: &LoadedModel, shelves: Shelves<'_>) -> Mapping {
    let steps: [fn(&LoadedModel, Shelves<'_>) -> Vec<ModelId>; 5] =
        [by_file, by_index, by_virtual_model, by_repository, by_name];
    Mapping::of(steps.into_iter().map(|step| step(told, shelves)).find(|found| !found.is_empty()).unwrap_or_default())
}

/// Returns what an interface calls the model, the strongest name first.
pub(super) fn names(told: &LoadedModel) -> impl Iterator<Item = &str> {
    let identifier = told.identifier.as_str();
    // `key:2` is the second instance of a key.
    let base = identifier.rsplit_once(':').filter(|(_, number)| number.parse::<u32>().is_ok());
    let names = [told.indexed_identifier.as_deref(), told.path.as_deref(), told.key.as_deref()];
    let last = Some(base.map_or(identifier, |(key, _)| key));
    names.into_iter().chain([last]).flatten().filter(|name| !name.is_empty())
}

fn by_file(told: &LoadedModel, shelves: Shelves<'_>) -> Vec<ModelId> {
    let named = [told.path.as_deref(), told.indexed_identifier.as_deref()];
    // A virtual model's path is its key; a folder of that name may hold something else.
    let files = named.into_iter().flatten().filter(|name| shelves.hub.get(name).is_none());
    files.map(|name| named_file(name, shelves)).find(|found| !found.is_empty()).unwrap_or_default()
}

/// Returns the model of `publisher/repository/file.gguf`, whatever the case.
fn named_file(name: &str, shelves: Shelves<'_>) -> Vec<ModelId> {
    let library = shelves.library;
    let name = name.replace('\\', "/");
    let id = ModelId(name.clone());
    if library.model(&id).is_some() {
        return vec![id];
    }
    let below_roots = library.roots().into_iter().flat_map(|(root, _)| library.models_of(&root.path.join(&name), None));
    let found: Vec<ModelId> = below_roots.collect();
    if !found.is_empty() {
        return found;
    }
    let wanted = name.to_lowercase();
    let same = library.models().iter().filter(|model| model.id.0.to_lowercase() == wanted);
    same.map(|model| model.id.clone()).collect()
}

fn by_index(told: &LoadedModel, shelves: Shelves<'_>) -> Vec<ModelId> {
    let hints = names(told).filter_map(|name| shelves.hints.get(name));
    hints
        .map(|hint| {
            let named = hint.identifier.as_deref().map(|name| named_file(name, shelves)).unwrap_or_default();
            let path = hint.path.as_deref().filter(|_| named.is_empty());
            path.map_or(named, |path| shelves.library.models_of(path, None))
        })
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

fn by_virtual_model(told: &LoadedModel, shelves: Shelves<'_>) -> Vec<ModelId> {
    let wanted: BTreeSet<String> = names(told).flat_map(|name| shelves.hub.repositories(name)).collect();
    in_repositories(&wanted, told, shelves)
}

fn by_repository(told: &LoadedModel, shelves: Shelves<'_>) -> Vec<ModelId> {
    let is_file = |name: &&str| shelves.hub.get(name).is_none() && name.matches('/').count() >= 2;
    let wanted = names(told).filter(is_file).filter_map(|name| {
        let mut parts = name.splitn(3, '/');
        Some(format!("{}/{}", parts.next()?, parts.next()?).to_lowercase())
    });
    in_repositories(&wanted.collect(), told, shelves)
}

fn in_repositories(wanted: &BTreeSet<String>, told: &LoadedModel, shelves: Shelves<'_>) -> Vec<ModelId> {
    let lies_there = |model: &&Model| match (&model.publisher, &model.repository) {
        (Some(publisher), Some(repository)) => wanted.contains(&format!("{publisher}/{repository}").to_lowercase()),
        _ => false,
    };
    if wanted.is_empty() {
        return Vec::new();
    }
    narrowed(shelves.library.models().iter().filter(lies_there).collect(), told)
}

/// A key alone: a name that is part of the file's or the repository's, and the size where it is told.
fn by_name(told: &LoadedModel, shelves: Shelves<'_>) -> Vec<ModelId> {
    let keys: BTreeSet<String> = names(told).map(plain_key).filter(|key| key.len() >= 3).collect();
    let is_called = |model: &&Model| {
        let own = [Some(&model.name), model.repository.as_ref()].into_iter().flatten().map(|name| letters(name));
        own.into_iter().any(|name| keys.iter().any(|key| name.contains(key.as_str())))
    };
    let fits = |model: &&Model| told.bytes.is_none_or(|bytes| has_size(model, bytes));
    narrowed(shelves.library.models().iter().filter(is_called).filter(fits).collect(), told)
}

/// Leaves those of the told format, size and quantisation, each as far as any is left.
fn narrowed(mut models: Vec<&Model>, told: &LoadedModel) -> Vec<ModelId> {
    models.retain(|model| told.format.as_deref().is_none_or(|format| has_format(model, format)));
    let mut keep = |fits: &dyn Fn(&Model) -> bool| {
        if models.iter().any(|model| fits(model)) {
            models.retain(|model| fits(model));
        }
    };
    if let Some(bytes) = told.bytes {
        keep(&|model| has_size(model, bytes));
    }
    let variant = names(told).find_map(|name| name.split_once('@')).map(|(_, variant)| variant);
    for quantisation in told.quantisation.as_deref().into_iter().chain(variant) {
        keep(&|model| has_quantisation(model, quantisation));
    }
    models.into_iter().map(|model| model.id.clone()).collect()
}

fn has_format(model: &Model, format: &str) -> bool {
    let is_gguf = !matches!(model.state, ModelState::NotJudged { .. });
    match format.to_ascii_lowercase().as_str() {
        "gguf" => is_gguf,
        "safetensors" | "mlx" => !is_gguf,
        _ => true,
    }
}

/// LM Studio's size may be that of all files, with or without the projector, or of the first shard.
fn has_size(model: &Model, bytes: Bytes) -> bool {
    let whole = model.bytes();
    let projector = model.projector.as_ref().map_or(Bytes::ZERO, |(file, _)| file.stamp.bytes);
    let first = model.files.first().map_or(Bytes::ZERO, |file| file.stamp.bytes);
    [Bytes(whole.0), Bytes(whole.0.saturating_add(projector.0)), first].contains(&bytes)
}

fn has_quantisation(model: &Model, quantisation: &str) -> bool {
    let header = match &model.state {
        ModelState::Ready(structure) => structure.quantisation.as_deref(),
        _ => None,
    };
    let wanted = letters(quantisation);
    header.is_some_and(|name| letters(name) == wanted) || letters(&model.id.0).contains(&wanted)
}

/// Returns the part of a key that names the model.
fn plain_key(key: &str) -> String {
    let key = key.split('@').next().unwrap_or(key);
    let last = key.rsplit('/').next().unwrap_or(key);
    let last = last.strip_prefix("text-embedding-").unwrap_or(last);
    letters(last.strip_suffix(".gguf").unwrap_or(last))
}

/// Returns the letters and digits of a name in lower case.
fn letters(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}
