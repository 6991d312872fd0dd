//! Processes as Linux shows them under `/proc`.
//!
//! Of most processes only the owner and the program are looked at; a command line, for which the kernel
//! has to reach into the process's own memory, is read where the program may matter.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Rows;
use crate::lmstudio::{Premises, ProcessRow, is_of_interest};

/// A command line longer than this is read so far.
const COMMAND_LINE: u64 = 256 << 10;

/// A line of `/proc/PID/stat` is shorter.
const LINE: u64 = 4 << 10;

/// Parents are followed so far.
const GENERATIONS: usize = 64;

/// The processes under a `proc` file system.
#[derive(Debug)]
pub(super) struct Table {
    proc: PathBuf,
    /// When the machine started, in milliseconds since 1970; the kernel corrects it with its clock.
    booted_ms: Option<u64>,
}

/// What the kernel says of a process in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    name: String,
    is_running: bool,
    parent: u32,
    /// Clock ticks since the machine started.
    started: u64,
}

impl Table {
    pub(super) fn new(proc: PathBuf) -> Table {
        Table { proc, booted_ms: None }
    }

    /// Returns the processes that may matter, and the parents of those.
    pub(super) fn rows(&mut self, premises: &Premises) -> io::Result<Rows> {
        let us = rustix::process::geteuid().as_raw();
        let mut found = Rows { rows: Vec::new(), starts: BTreeMap::new() };
        for entry in fs::read_dir(&self.proc)? {
            let Ok(entry) = entry else { continue };
            let Some(pid) = number(&entry.file_name()) else { continue };
            let folder = entry.path();
            let Ok(metadata) = fs::metadata(&folder) else { continue };
            let is_ours = us == 0 || metadata.uid() == us;
            let program = if is_ours { fs::read_link(folder.join("exe")).ok() } else { None };
            if is_ours && program.is_none() {
                // The kernel's own, or one that is about to end.
                continue;
            }
            let name = if is_ours { String::new() } else { name(&folder) };
            if !is_of_interest(program.as_deref(), &name, premises) {
                continue;
            }
            let Some(line) = line(&folder) else { continue };
            if !line.is_running {
                continue;
            }
            found.starts.insert(pid, line.started);
            found.rows.push(ProcessRow {
                pid,
                parent: Some(line.parent),
                started_ms: self.moment(line.started),
                name: line.name,
                program,
                argv: if is_ours { argv(&folder) } else { Vec::new() },
                folder: if is_ours { fs::read_link(folder.join("cwd")).ok() } else { None },
                is_ours,
            });
        }
        self.add_parents(&mut found.rows);
        Ok(found)
    }

    /// Returns which of the processes still run.
    pub(super) fn running(&mut self, starts: &BTreeMap<u32, u64>) -> BTreeSet<u32> {
        let is_same = |pid: u32, started: u64| {
            line(&self.proc.join(pid.to_string())).is_some_and(|line| line.is_running && line.started == started)
        };
        starts.iter().filter(|(pid, started)| is_same(**pid, **started)).map(|(pid, _)| *pid).collect()
    }

    /// Adds the processes that lead from one of interest to another.
    fn add_parents(&self, rows: &mut Vec<ProcessRow>) {
        let mut known: BTreeSet<u32> = rows.iter().map(|row| row.pid).collect();
        let mut wanted: Vec<u32> = rows.iter().filter(|row| row.is_ours).filter_map(|row| row.parent).collect();
        for _ in 0..GENERATIONS {
            wanted.retain(|pid| *pid > 1 && known.insert(*pid));
            let lines = wanted.iter().filter_map(|pid| Some((*pid, line(&self.proc.join(pid.to_string()))?.parent)));
            let lines: Vec<(u32, u32)> = lines.collect();
            wanted = lines.iter().map(|(_, parent)| *parent).collect();
            rows.extend(lines.into_iter().map(|(pid, parent)| ProcessRow {
                pid,
                parent: Some(parent),
                is_ours: true,
                ..ProcessRow::default()
            }));
            if wanted.is_empty() {
                return;
            }
        }
    }

    /// Returns a moment of the machine's running time in milliseconds since 1970.
    fn moment(&mut self, ticks: u64) -> u64 {
        let booted = *self.booted_ms.get_or_insert_with(|| booted_ms(&self.proc).unwrap_or(0));
        let a_second = rustix::param::clock_ticks_per_second().max(1);
        booted.saturating_add(ticks.saturating_mul(1_000) / a_second)
    }
}

fn number(name: &OsStr) -> Option<u32> {
    name.to_str().filter(|name| name.starts_with(|digit: char| digit.is_ascii_digit()))?.parse().ok()
}

fn name(folder: &Path) -> String {
    let name = read(&folder.join("comm"), LINE).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end().to_owned()
}

fn argv(folder: &Path) -> Vec<OsString> {
    let bytes = read(&folder.join("cmdline"), COMMAND_LINE).unwrap_or_default();
    let words = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if words.is_empty() {
        return Vec::new();
    }
    words.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).to_owned()).collect()
}

fn line(folder: &Path) -> Option<Line> {
    parse_line(&String::from_utf8_lossy(&read(&folder.join("stat"), LINE).ok()?))
}

/// Reads `4711 (name) S 1 …`; the name may hold anything, a bracket too.
fn parse_line(text: &str) -> Option<Line> {
    let (head, tail) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    Some(Line {
        name: name.to_owned(),
        is_running: !matches!(*fields.first()?, "Z" | "X" | "x"),
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

fn booted_ms(proc: &Path) -> Option<u64> {
    let text = read(&proc.join("stat"), 4 << 20).ok()?;
    let text = String::from_utf8_lossy(&text);
    let seconds: u64 = text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    seconds.checked_mul(1_000)
}

fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
