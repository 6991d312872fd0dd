//! The file that `estimate` is about: all its shards, one header, and what lies beside it.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::Failure;
use crate::gguf::{Header, HeaderProblem, Limits, ShardName, join_shards, read_header};
use crate::memory::{Kind, Projector, Structure};

/// A model on disk, read for an estimate.
#[derive(Debug)]
pub(super) struct ModelFiles {
    /// The first file.
    pub(super) path: PathBuf,
    /// How many files there are.
    pub(super) count: usize,
    /// What they hold.
    pub(super) structure: Arc<Structure>,
    /// What was understood only in part.
    pub(super) notes: Vec<String>,
}

impl ModelFiles {
    /// Reads the header of a file, or of all shards where it is one of them.
    pub(super) fn read(path: &Path) -> Result<ModelFiles, Failure> {
        let (paths, header) = read(path)?;
        let structure = Structure::from_header(&header).map_err(|error| unreadable(path, &error))?;
        let (count, path) = (paths.len(), paths.into_iter().next().unwrap_or_default());
        Ok(ModelFiles { path, count, structure: Arc::new(structure), notes: header.notes })
    }

    /// Returns whether the file is a part of models, no model of its own.
    pub(super) fn is_projector(&self) -> bool {
        self.structure.kind == Kind::Projector
    }
}

/// Reads a projector.
pub(super) fn read_projector(path: &Path) -> Result<Projector, Failure> {
    let (_, header) = read(path)?;
    let kind = Structure::from_header(&header).map(|structure| structure.kind);
    if kind.is_ok_and(|kind| kind != Kind::Projector) {
        return Err(Failure::Usage(format!("{} is no projector", path.display())));
    }
    Projector::from_header(&header).map_err(|error| unreadable(path, &error))
}

/// Returns the projector that lies beside a model; nothing where there are several to choose from.
pub(super) fn projector_beside(path: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")));
    let is_projector = |path: &PathBuf| {
        let is_gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        is_gguf && path.file_name().unwrap_or_default().to_string_lossy().to_lowercase().contains("mmproj")
    };
    let mut found = entries.ok()?.flatten().map(|entry| entry.path()).filter(is_projector);
    found.next().filter(|_| found.next().is_none())
}

fn read(path: &Path) -> Result<(Vec<PathBuf>, Header), Failure> {
    let paths = shards(path);
    let mut headers = Vec::with_capacity(paths.len());
    for path in &paths {
        headers.push(header(path)?);
    }
    let header = join_shards(headers).map_err(|error| unreadable(path, &error))?;
    Ok((paths, header))
}

/// Returns the file, or all shards where the file is one of several.
fn shards(path: &Path) -> Vec<PathBuf> {
    let Some(shard) = path.file_name().and_then(|name| name.to_str()).and_then(ShardName::parse) else {
        return vec![path.to_owned()];
    };
    let name = |number: u32| format!("{}-{number:05}-of-{:05}.gguf", shard.stem, shard.count);
    (1..=shard.count).map(|number| path.with_file_name(name(number))).collect()
}

fn header(path: &Path) -> Result<Header, Failure> {
    // Opening a pipe would wait for ever, so what it is comes first.
    let metadata = fs::metadata(path).map_err(|error| Failure::file(path, &error))?;
    if metadata.is_dir() {
        return Err(refused(path, &"it is a folder", "name the .gguf file in it"));
    }
    if !metadata.is_file() {
        return Err(refused(path, &"it is no regular file", "name a .gguf file"));
    }
    let file = File::open(path).map_err(|error| Failure::file(path, &error))?;
    read_header(BufReader::new(file), metadata.len(), &Limits::default()).map_err(|error| match &error.problem {
        HeaderProblem::Io(error) => Failure::file(path, error),
        HeaderProblem::Magic { .. } => refused(path, &error, "name a .gguf file"),
        problem if problem.is_incomplete() => refused(path, &error, "let its download end, or download it again"),
        _ => unreadable(path, &error),
    })
}

fn refused(path: &Path, reason: &impl ToString, hint: &str) -> Failure {
    Failure::Unreadable { path: path.to_owned(), reason: reason.to_string(), hint: Some(hint.into()) }
}

fn unreadable(path: &Path, reason: &impl ToString) -> Failure {
    refused(path, reason, "download it again if other programs refuse it too")
}
