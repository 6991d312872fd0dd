//! The files of one folder, and what they make together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::names::{is_projector_name, shown};
use super::{FileIdentity, FileRole, FoundFile, ModelFile, Stamp};
use crate::gguf::ShardName;
use crate::units::Moment;

/// A file as last seen.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) found: FoundFile,
    pub(super) role: FileRole,
    /// When its present stamp was first seen.
    pub(super) steady_since: Moment,
    /// Whether two looks have seen the same stamp.
    pub(super) is_settled: bool,
}

impl Seen {
    pub(super) fn stamp(&self) -> Stamp {
        Stamp { bytes: self.found.bytes, modified_ms: self.found.modified_ms }
    }

    pub(super) fn is_link(&self) -> bool {
        self.found.path != self.found.target
    }

    fn model_file(&self) -> ModelFile {
        ModelFile { path: self.found.path.clone(), stamp: self.stamp() }
    }
}

/// The files of a folder by path.
pub(super) type Files = BTreeMap<PathBuf, Box<Seen>>;

/// One folder with files that concern the library.
#[derive(Debug, Default)]
pub(super) struct Folder {
    /// Boxed: most folders hold one file, and a map has room for eleven.
    pub(super) files: Files,
    pub(super) units: Vec<Unit>,
}

/// Files that make one model, projector or drafter.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unit {
    /// Where its first file is, or will be; of an MLX model its folder.
    pub(super) key: PathBuf,
    pub(super) format: Format,
    /// Its name to show.
    pub(super) name: String,
    /// Its files in order; those that still arrive come last.
    pub(super) files: Vec<ModelFile>,
    /// Shards that are neither there nor arriving.
    pub(super) missing: Missing,
    /// Whether some of it still grows, or has changed a moment ago.
    pub(super) is_arriving: bool,
    /// When the youngest of its files took its present stamp.
    pub(super) steady_since: Moment,
    /// What tells it from the same unit reached by another path.
    pub(super) identity: FileIdentity,
    pub(super) is_link: bool,
    pub(super) is_named_projector: bool,
}

impl Unit {
    /// Returns whether its header can be read.
    pub(super) fn is_whole(&self) -> bool {
        self.format == Format::Gguf && !self.is_arriving && self.missing.numbers.is_empty()
    }
}

/// What a unit's files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Gguf,
    Mlx,
}

/// Shards that are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// The first of them.
    pub(super) numbers: Vec<u32>,
    /// How many more there are.
    pub(super) more: u64,
}

/// A file name can claim 99,999 shards; so many numbers are kept.
const MISSING_KEPT: usize = 64;

impl Folder {
    /// Works out what the files make together.
    pub(super) fn group(&mut self, folder: &Path) {
        self.units = gguf_units(folder, &self.files);
        self.units.extend(mlx_unit(folder, &self.files));
        self.units.sort_by(|one, other| one.key.cmp(&other.key));
        self.units.shrink_to_fit();
    }

    /// Returns when the first unsettled file took its present stamp.
    pub(super) fn unsettled_since(&self) -> Option<Moment> {
        self.files.values().filter(|seen| !seen.is_settled).map(|seen| seen.steady_since).min()
    }
}

/// A GGUF file that is there, or arriving.
struct Piece<'a> {
    seen: &'a Seen,
    is_partial: bool,
}

fn gguf_units(folder: &Path, files: &Files) -> Vec<Unit> {
    let mut single: BTreeMap<String, Vec<Piece>> = BTreeMap::new();
    let mut sharded: BTreeMap<(String, u32), BTreeMap<u32, Vec<Piece>>> = BTreeMap::new();
    for (path, seen) in files {
        let Some(file_name) = path.file_name() else { continue };
        let (name, is_partial) = match &seen.role {
            FileRole::Gguf => (file_name.to_string_lossy().into_owned(), false),
            FileRole::Partial { finished, .. } if is_gguf(finished) => (finished.clone(), true),
            FileRole::Partial { .. } | FileRole::Safetensors | FileRole::MlxConfig | FileRole::Foreign => continue,
        };
        let piece = Piece { seen, is_partial };
        match ShardName::parse(&name) {
            Some(shard) => {
                sharded.entry((shard.stem, shard.count)).or_default().entry(shard.number).or_default().push(piece);
            }
            None => single.entry(name).or_default().push(piece),
        }
    }
    let mut units = Vec::new();
    for (name, pieces) in single {
        // Names that are no text can look alike: each file stays a unit of its own.
        let (partial, whole): (Vec<Piece>, Vec<Piece>) = pieces.into_iter().partition(|piece| piece.is_partial);
        let stem = shown(Path::new(&name).file_stem().unwrap_or_default());
        if whole.is_empty() {
            units.extend(unit(folder.join(&name), stem, &partial, Missing::default()));
            continue;
        }
        let is_pending = partial.iter().any(|piece| leaves_unfinished(piece, &whole));
        for piece in whole {
            let key = piece.seen.found.path.clone();
            units.extend(
                unit(key, stem.clone(), &[piece], Missing::default())
                    .map(|unit| Unit { is_arriving: unit.is_arriving || is_pending, ..unit }),
            );
        }
    }
    for ((stem, count), shards) in sharded {
        units.extend(sharded_unit(folder, &stem, count, shards));
    }
    units
}

/// Returns whether a partial file says that the file of the finished name is not finished: a
/// control file does, and so does any beside an empty placeholder.
fn leaves_unfinished(partial: &Piece, whole: &[Piece]) -> bool {
    let is_control = matches!(partial.seen.role, FileRole::Partial { is_control: true, .. });
    is_control || whole.iter().any(|piece| piece.seen.found.bytes.0 == 0)
}

fn sharded_unit(folder: &Path, stem: &str, count: u32, shards: BTreeMap<u32, Vec<Piece>>) -> Option<Unit> {
    let numbers: Vec<u32> = (1..=count).filter(|number| !shards.contains_key(number)).take(MISSING_KEPT).collect();
    let absent = u64::from(count).saturating_sub(shards.len() as u64);
    let missing = Missing { more: absent.saturating_sub(numbers.len() as u64), numbers };
    let mut whole = Vec::new();
    let mut partial = Vec::new();
    for pieces in shards.into_values() {
        let (still, mut there): (Vec<Piece>, Vec<Piece>) = pieces.into_iter().partition(|piece| piece.is_partial);
        let is_pending = still.iter().any(|piece| leaves_unfinished(piece, &there));
        if there.is_empty() || is_pending {
            partial.extend(still);
        }
        // Two spellings of one name (`.gguf`, `.GGUF`) are one shard.
        there.truncate(1);
        whole.append(&mut there);
    }
    let first = whole.iter().find(|piece| file_name_is_first(piece));
    let key = match first {
        Some(piece) => piece.seen.found.path.clone(),
        None => folder.join(format!("{stem}-00001-of-{count:05}.gguf")),
    };
    whole.append(&mut partial);
    unit(key, shown(stem.as_ref()), &whole, missing)
}

fn file_name_is_first(piece: &Piece) -> bool {
    let name = piece.seen.found.path.file_name().and_then(|name| name.to_str());
    name.and_then(ShardName::parse).is_some_and(|shard| shard.number == 1)
}

fn unit(key: PathBuf, name: String, pieces: &[Piece], missing: Missing) -> Option<Unit> {
    let first = pieces.first()?;
    Some(Unit {
        key,
        format: Format::Gguf,
        is_named_projector: is_projector_name(&name),
        name,
        files: pieces.iter().map(|piece| piece.seen.model_file()).collect(),
        missing,
        is_arriving: pieces.iter().any(|piece| piece.is_partial || !piece.seen.is_settled),
        steady_since: pieces.iter().map(|piece| piece.seen.steady_since).max().unwrap_or_default(),
        identity: first.seen.found.identity,
        is_link: pieces.iter().any(|piece| piece.seen.is_link()),
    })
}

/// An MLX model is its folder: a `config.json` and at least one file of weights.
fn mlx_unit(folder: &Path, files: &Files) -> Option<Unit> {
    files.values().find(|seen| seen.role == FileRole::MlxConfig)?;
    let weights: Vec<&Seen> =
        files.values().map(Box::as_ref).filter(|seen| seen.role == FileRole::Safetensors).collect();
    let first = weights.first()?;
    let is_partial = |seen: &Seen| matches!(&seen.role, FileRole::Partial { finished, .. } if !is_gguf(finished));
    Some(Unit {
        key: folder.to_owned(),
        format: Format::Mlx,
        name: shown(folder.file_name().unwrap_or(folder.as_os_str())),
        files: weights.iter().map(|seen| seen.model_file()).collect(),
        missing: Missing::default(),
        is_arriving: weights.iter().any(|seen| !seen.is_settled) || files.values().any(|seen| is_partial(seen)),
        steady_since: weights.iter().map(|seen| seen.steady_since).max().unwrap_or_default(),
        identity: first.found.identity,
        is_link: weights.iter().any(|seen| seen.is_link()),
        is_named_projector: false,
    })
}

fn is_gguf(finished: &str) -> bool {
    finished.to_ascii_lowercase().ends_with(".gguf")
}
