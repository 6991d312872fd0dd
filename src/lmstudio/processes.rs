//! Which processes are LM Studio's back-end, which hold models, and which file they hold.
//!
//! Takes a table of processes as values. LM Studio's engines are known by the folder they lie in, not
//! by their name; a llama.cpp that was started by hand counts where its model lies in one of the models
//! folders. Paths are compared as text in parts, so that Windows' are understood on any system.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Asked, EngineFile, EngineKind, EngineProcess, Program, parse_command_line};

/// A chain of parents is followed so far.
const GENERATIONS: usize = 64;

/// One process as the system shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessRow {
    /// Its number.
    pub pid: u32,
    /// The process that started it.
    pub parent: Option<u32>,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// The name the system gives it, perhaps cut short.
    pub name: String,
    /// Its program, where that may be known.
    pub program: Option<PathBuf>,
    /// Its command line; empty where it may not be known, or does not matter.
    pub argv: Vec<OsString>,
    /// Its working folder, where that may be known.
    pub folder: Option<PathBuf>,
    /// Whether it is this user's.
    pub is_ours: bool,
}

/// Where processes of interest live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Premises {
    /// LM Studio's home, as named and with links resolved.
    pub homes: Vec<PathBuf>,
    /// The models folders, as named and with links resolved.
    pub models: Vec<PathBuf>,
}

/// A process that may be LM Studio's back-end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendProcess {
    /// Its number.
    pub pid: u32,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// Which program it is.
    pub program: Program,
}

/// What a table of processes shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sighted {
    /// The processes that may be LM Studio's back-end, the oldest first.
    pub backends: Vec<BackendProcess>,
    /// The processes that hold models, the oldest first.
    pub engines: Vec<EngineProcess>,
    /// What cannot be looked at, in words for the user.
    pub notes: Vec<String>,
}

/// Why a process is worth another look.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    Backend(Program),
    /// An engine in a runtime's folder.
    Server {
        runtime: String,
    },
    /// LM Studio's own node.
    Node,
    /// A program that may run llama.cpp.
    LlamaCpp,
}

/// Returns whether a process of this program or name is worth knowing its command line.
pub fn is_of_interest(program: Option<&Path>, name: &str, premises: &Premises) -> bool {
    role(program, name, premises).is_some()
}

/// Sorts a table of processes; `resolve` finds a file on disk and follows its links.
pub fn sight(
    rows: &[ProcessRow],
    premises: &Premises,
    mut resolve: impl FnMut(&Path) -> Option<EngineFile>,
) -> Sighted {
    let mut sighted = Sighted::default();
    for row in rows {
        let Some(role) = role(row.program.as_deref(), &row.name, premises) else { continue };
        if !row.is_ours {
            sighted.notes.extend(foreign(row, &role));
            continue;
        }
        match role {
            Role::Backend(_) if is_helper(&row.argv) => {}
            Role::Backend(program) => {
                sighted.backends.push(BackendProcess { pid: row.pid, started_ms: row.started_ms, program });
            }
            Role::Server { runtime } => {
                let asked = asked(row);
                let file = asked.model.as_deref().and_then(&mut resolve);
                sighted.engines.push(engine(row, EngineKind::Server, Some(runtime), asked, file));
            }
            Role::Node if row.argv.iter().any(|word| word.to_string_lossy().contains("llmworker.js")) => {
                sighted.engines.push(engine(row, EngineKind::Worker, None, Asked::default(), None));
            }
            Role::Node => {}
            Role::LlamaCpp => {
                let asked = asked(row);
                let Some(model) = &asked.model else { continue };
                let Some(file) = resolve(model) else { continue };
                let paths = [model, &file.path];
                let lies_within = |folder: &PathBuf| paths.iter().any(|path| is_below(path, folder));
                if premises.models.iter().any(lies_within) && paths.iter().any(|path| is_gguf(path)) {
                    sighted.engines.push(engine(row, EngineKind::ByHand, None, asked, Some(file)));
                }
            }
        }
    }
    drop_launchers(&mut sighted.engines, rows);
    drop_children(&mut sighted.backends, rows);
    sighted.backends.sort_by_key(|backend| (backend.started_ms, backend.pid));
    sighted.engines.sort_by_key(|engine| (engine.started_ms, engine.pid));
    sighted.notes.sort();
    sighted.notes.dedup();
    sighted
}

fn role(program: Option<&Path>, name: &str, premises: &Premises) -> Option<Role> {
    let path = program.map(parts).unwrap_or_default();
    let called = path.last().map_or(name, String::as_str);
    let called = called.strip_suffix(" (deleted)").unwrap_or(called).to_lowercase();
    let called = called.strip_suffix(".exe").unwrap_or(&called);
    for home in &premises.homes {
        let Some(rest) = below(&path, home) else { continue };
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        match rest.as_slice() {
            ["extensions", "backends", runtime, .., _] if *runtime != "vendor" => {
                return Some(Role::Server { runtime: (*runtime).to_owned() });
            }
            ["llmster", .., last] if last.to_lowercase().starts_with("llmster") => {
                return Some(Role::Backend(Program::Llmster));
            }
            [".internal", "utils", last] if last.to_lowercase().starts_with("node") => return Some(Role::Node),
            _ => {}
        }
    }
    match called {
        "llmster" => Some(Role::Backend(Program::Llmster)),
        "lm-studio" | "lm studio" => Some(Role::Backend(Program::App)),
        "bionic" => Some(Role::Backend(Program::Bionic)),
        // Another engine with a format and a command line of its own.
        _ if called.starts_with("koboldcpp") => None,
        "server" | "main" => Some(Role::LlamaCpp),
        _ if called.contains("llama") || called.starts_with("python") || called.starts_with("pypy") => {
            Some(Role::LlamaCpp)
        }
        _ => None,
    }
}

/// Says what cannot be known of another user's process, where it is certain to matter.
fn foreign(row: &ProcessRow, role: &Role) -> Option<String> {
    let what = match role {
        Role::Backend(Program::Bionic) | Role::Node => return None,
        Role::Backend(_) => "LM Studio",
        Role::Server { .. } => "an engine of LM Studio",
        Role::LlamaCpp if row.name.starts_with("llama-server") || row.name.starts_with("llama-cli") => "a llama.cpp",
        Role::LlamaCpp => return None,
    };
    Some(format!("{what} of another user runs (process {}); what it holds cannot be read", row.pid))
}

/// Returns whether a process is one of an app's many, not the app.
fn is_helper(argv: &[OsString]) -> bool {
    argv.iter().skip(1).any(|word| word.to_string_lossy().starts_with("--type="))
}

fn engine(
    row: &ProcessRow,
    kind: EngineKind,
    runtime: Option<String>,
    asked: Asked,
    file: Option<EngineFile>,
) -> EngineProcess {
    EngineProcess { pid: row.pid, started_ms: row.started_ms, kind, runtime, asked, file }
}

/// Returns what a command line asks for, its paths made whole.
fn asked(row: &ProcessRow) -> Asked {
    let mut asked = parse_command_line(&row.argv);
    let whole = |path: &mut Option<PathBuf>| {
        if let (Some(path), Some(folder)) = (path, &row.folder)
            && path.is_relative()
        {
            *path = folder.join(&path);
        }
    };
    whole(&mut asked.model);
    whole(&mut asked.projector);
    whole(&mut asked.draft_model);
    asked
}

/// A script that starts an engine with its own arguments holds no model itself.
fn drop_launchers(engines: &mut Vec<EngineProcess>, rows: &[ProcessRow]) {
    let parents = parents(rows);
    let mut launchers = BTreeSet::new();
    for engine in engines.iter() {
        for above in ancestors(engine.pid, &parents) {
            let is_same =
                |other: &&EngineProcess| other.pid == above && other.file == engine.file && engine.file.is_some();
            launchers.extend(engines.iter().find(is_same).map(|launcher| launcher.pid));
        }
    }
    engines.retain(|engine| engine.kind != EngineKind::ByHand || !launchers.contains(&engine.pid));
}

/// A back-end's children of the same program are parts of it.
fn drop_children(backends: &mut Vec<BackendProcess>, rows: &[ProcessRow]) {
    let parents = parents(rows);
    let programs: BTreeMap<u32, Program> = backends.iter().map(|backend| (backend.pid, backend.program)).collect();
    backends.retain(|backend| {
        !ancestors(backend.pid, &parents).iter().any(|above| programs.get(above) == Some(&backend.program))
    });
}

fn parents(rows: &[ProcessRow]) -> BTreeMap<u32, u32> {
    rows.iter().filter_map(|row| Some((row.pid, row.parent?))).collect()
}

fn ancestors(pid: u32, parents: &BTreeMap<u32, u32>) -> Vec<u32> {
    let chain = std::iter::successors(parents.get(&pid).copied(), |above| parents.get(above).copied());
    chain.take(GENERATIONS).filter(|above| *above != pid).collect()
}

fn is_gguf(path: &Path) -> bool {
    parts(path).last().is_some_and(|name| name.to_lowercase().ends_with(".gguf"))
}

/// Returns whether a path lies below a folder.
pub(super) fn is_below(path: &Path, folder: &Path) -> bool {
    below(&parts(path), folder).is_some_and(|rest| !rest.is_empty())
}

/// Returns the parts of a path that lie below a folder, if it does.
fn below<'a>(path: &'a [String], folder: &Path) -> Option<&'a [String]> {
    let folder = parts(folder);
    let head = path.get(..folder.len()).filter(|_| !folder.is_empty())?;
    let is_windows = folder.first().is_some_and(|first| first.ends_with(':'));
    let is_same =
        |(one, other): (&String, &String)| one == other || (is_windows && one.to_lowercase() == other.to_lowercase());
    let lies_within = head.iter().zip(&folder).all(is_same) && !path.iter().any(|part| part == "..");
    lies_within.then(|| &path[folder.len()..])
}

/// Returns the parts of a path, of a Windows path on any system.
pub(super) fn parts(path: &Path) -> Vec<String> {
    let text = path.to_string_lossy();
    let text = text.strip_prefix(r"\\?\").unwrap_or(&text);
    let is_windows = cfg!(windows) || text.starts_with(r"\\") || text.get(1..3) == Some(r":\");
    let is_separator = |letter: char| letter == '/' || (is_windows && letter == '\\');
    text.split(is_separator).filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
