//! The process table: which processes are LM Studio's, and which hold models.
//!
//! A look at all processes asks little of each and keeps nothing of those that do not matter; a
//! look at those that are known reads one line of each. What a process is for is told by
//! [`crate::lmstudio::sight`]; command lines go there and nowhere else.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod others;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
use self::linux as system;
#[cfg(not(target_os = "linux"))]
use self::others as system;
use crate::host::walk::identity;
use crate::lmstudio::{Ask, BackendProcess, EngineFile, EngineProcess, Premises, Said, Scan, Sighted, sight};
use crate::units::Bytes;

/// Looks at the process table.
#[derive(Debug)]
pub struct ProcessProbe {
    table: system::Table,
    seen: Option<Seen>,
}

/// What a look at the process table brought.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// The processes that hold models, the oldest first.
    pub engines: Said<Vec<EngineProcess>>,
    /// The processes that may be LM Studio's back-end, the oldest first.
    pub backends: Vec<BackendProcess>,
    /// What cannot be looked at, in words for the user.
    pub notes: Vec<String>,
}

/// What the last look at all processes found, less what has ended since.
#[derive(Debug)]
struct Seen {
    premises: Premises,
    sighted: Sighted,
    /// What tells a process from a later one of the same number, in the system's own measure.
    starts: BTreeMap<u32, u64>,
}

impl ProcessProbe {
    /// Returns a probe of the processes that the `proc` file system at this path shows; other
    /// systems have no such thing and show their own.
    pub fn new(proc: PathBuf) -> ProcessProbe {
        ProcessProbe { table: system::Table::new(proc), seen: None }
    }

    /// Looks at the processes. Blocks for some milliseconds where all are looked at.
    pub fn look(&mut self, ask: &Ask) -> Look {
        let looked = match (ask.scan, &mut self.seen) {
            (Scan::Known, Some(seen)) => {
                let running = self.table.running(&seen.starts);
                seen.starts.retain(|pid, _| running.contains(pid));
                seen.sighted.engines.retain(|engine| running.contains(&engine.pid));
                seen.sighted.backends.retain(|backend| running.contains(&backend.pid));
                Ok(())
            }
            (Scan::Known | Scan::All, _) => self.look_at_all(ask),
        };
        match (looked, &self.seen) {
            (Ok(()), Some(Seen { sighted, .. })) => Look {
                engines: Said::Is(sighted.engines.clone()),
                backends: sighted.backends.clone(),
                notes: sighted.notes.clone(),
            },
            (Ok(()), None) => Look { engines: Said::NotAsked, backends: Vec::new(), notes: Vec::new() },
            (Err(reason), _) => Look { engines: Said::Failed(reason), backends: Vec::new(), notes: Vec::new() },
        }
    }

    fn look_at_all(&mut self, ask: &Ask) -> Result<(), String> {
        let premises = match self.seen.take() {
            Some(Seen { premises, .. }) if is_same_place(&premises, ask) => premises,
            _ => premises(ask),
        };
        let rows = self.table.rows(&premises).map_err(|reason| format!("the processes cannot be read: {reason}"))?;
        let sighted = sight(&rows.rows, &premises, resolved);
        let is_kept = |pid: &u32| {
            sighted.engines.iter().any(|engine| engine.pid == *pid)
                || sighted.backends.iter().any(|backend| backend.pid == *pid)
        };
        let starts = rows.starts.into_iter().filter(|(pid, _)| is_kept(pid)).collect();
        self.seen = Some(Seen { premises, sighted, starts });
        Ok(())
    }
}

impl Default for ProcessProbe {
    /// Returns a probe of this machine's processes.
    fn default() -> ProcessProbe {
        ProcessProbe::new(PathBuf::from("/proc"))
    }
}

/// A table of the processes that may matter, and what tells each from a later one of its number.
struct Rows {
    rows: Vec<crate::lmstudio::ProcessRow>,
    starts: BTreeMap<u32, u64>,
}

/// Folders as named come first, in the order of the question.
fn is_same_place(premises: &Premises, ask: &Ask) -> bool {
    premises.homes.first() == Some(&ask.home) && premises.models.get(..ask.models.len()) == Some(ask.models.as_slice())
        // A folder that could not be resolved may have come.
        && premises.models.len() == 2 * ask.models.len()
        && premises.homes.len() == 2
}

/// Returns the folders as named, and with links resolved.
fn premises(ask: &Ask) -> Premises {
    let both = |named: &[PathBuf]| {
        let resolved = named.iter().filter_map(|path| path.canonicalize().ok());
        named.iter().cloned().chain(resolved).collect()
    };
    Premises { homes: both(std::slice::from_ref(&ask.home)), models: both(&ask.models) }
}

/// Returns a regular file with its links resolved.
fn resolved(path: &Path) -> Option<EngineFile> {
    if !path.is_absolute() {
        return None;
    }
    let path = path.canonicalize().ok()?;
    let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
    Some(EngineFile { identity: identity(&path, &metadata), bytes: Bytes(metadata.len()), path })
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
