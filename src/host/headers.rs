//! Reads the headers of a model's files and says what they are. Blocking.
//!
//! Nothing but a regular file is opened, a file that changed meanwhile is not judged, and a bug in
//! a parser is an unreadable file, not the end of fitwatch.

use std::fs::File;
use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use super::walk::stamp_of;
use crate::gguf::{Header, HeaderError, Limits, join_shards, read_header};
use crate::library::{HeaderOutcome, HeaderRead, ModelFile, Stamp};
use crate::memory::{Kind, Projector, Structure};

/// Reads the headers of files that make one model or projector, first shard first.
pub fn read(files: &[ModelFile]) -> HeaderRead {
    let outcome = catch_unwind(AssertUnwindSafe(|| outcome(files)))
        .unwrap_or_else(|_| Err(unreadable("the reader failed on this file, which is a bug in fitwatch".to_owned())));
    HeaderRead { files: files.to_vec(), outcome: outcome.unwrap_or_else(|failure| failure) }
}

fn outcome(files: &[ModelFile]) -> Result<HeaderOutcome, HeaderOutcome> {
    let mut headers = Vec::new();
    for (position, file) in files.iter().enumerate() {
        let place = if files.len() > 1 { format!("shard {}: ", position + 1) } else { String::new() };
        headers.push(read_file(file, &place)?);
    }
    let header = match headers.len() {
        1 => headers.remove(0),
        _ => join_shards(headers).map_err(|error| unreadable(error.to_string()))?,
    };
    let structure = Structure::from_header(&header).map_err(|error| unreadable(error.to_string()))?;
    match structure.kind {
        Kind::Projector => {
            let projector = Projector::from_header(&header).map_err(|error| unreadable(error.to_string()))?;
            Ok(HeaderOutcome::Projector(Arc::new(projector)))
        }
        Kind::Language | Kind::Embedding | Kind::Drafter => Ok(HeaderOutcome::Model(Arc::new(structure))),
    }
}

fn read_file(file: &ModelFile, place: &str) -> Result<Header, HeaderOutcome> {
    let failed = |error: std::io::Error| unreadable(format!("{place}cannot read the file: {error}"));
    // Opening a pipe would wait for its other end, and opening a device may set it off.
    let metadata = std::fs::metadata(&file.path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(unreadable(format!("{place}not a regular file")));
    }
    let opened = File::open(&file.path).map_err(failed)?;
    let before = stamp(&opened).map_err(failed)?;
    if before != file.stamp {
        return Err(changed(place));
    }
    let result = read_header(BufReader::with_capacity(1 << 16, &opened), before.bytes.0, &Limits::default());
    if stamp(&opened).map_err(failed)? != before {
        return Err(changed(place));
    }
    result.map_err(|error| refused(&error, place))
}

fn refused(error: &HeaderError, place: &str) -> HeaderOutcome {
    let reason = format!("{place}{error}");
    if error.problem.is_incomplete() { HeaderOutcome::Cut { reason } } else { unreadable(reason) }
}

fn changed(place: &str) -> HeaderOutcome {
    HeaderOutcome::Cut { reason: format!("{place}the file changes while it is read") }
}

fn unreadable(reason: String) -> HeaderOutcome {
    HeaderOutcome::Unreadable { reason }
}

fn stamp(file: &File) -> std::io::Result<Stamp> {
    Ok(stamp_of(&file.metadata()?))
}

/// Returns a file with its present stamp, for a caller that was given a path alone.
pub fn file(path: &Path) -> std::io::Result<ModelFile> {
    Ok(ModelFile { path: path.to_owned(), stamp: stamp_of(&std::fs::metadata(path)?) })
}
