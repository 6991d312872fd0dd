//! Processes as macOS and Windows show them, through sysinfo. Nothing is kept between two looks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind, get_current_pid};

use super::Rows;
use crate::lmstudio::{Premises, ProcessRow, is_of_interest};

/// The processes of this machine.
#[derive(Debug)]
pub(super) struct Table;

impl Table {
    pub(super) fn new(_proc: PathBuf) -> Table {
        Table
    }

    /// Returns all processes; those that may matter with their command lines.
    #[expect(clippy::unused_self, reason = "the Linux table keeps something")]
    pub(super) fn rows(&mut self, premises: &Premises) -> Result<Rows, String> {
        let once = UpdateKind::OnlyIfNotSet;
        let little = ProcessRefreshKind::nothing().with_exe(once).with_user(once).without_tasks();
        let mut system = System::new().map_err(|error| error.to_string())?;
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, little);
        let us = get_current_pid().ok().and_then(|pid| system.process(pid)?.user_id().cloned());
        let of_interest: Vec<Pid> =
            system.processes().values().filter(|process| matters(process, premises)).map(Process::pid).collect();
        let more = little.with_cmd(once).with_cwd(once);
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&of_interest), false, more);
        let mut found = Rows { rows: Vec::new(), starts: BTreeMap::new() };
        for process in system.processes().values() {
            let row = row(process, us.as_ref());
            found.starts.insert(row.pid, process.start_time());
            found.rows.push(row);
        }
        found.rows.sort_by_key(|row| row.pid);
        Ok(found)
    }

    /// Returns which of the processes still run.
    #[expect(clippy::unused_self, reason = "the Linux table keeps something")]
    pub(super) fn running(&mut self, starts: &BTreeMap<u32, u64>) -> BTreeSet<u32> {
        let Ok(mut system) = System::new() else { return BTreeSet::new() };
        let pids: Vec<Pid> = starts.keys().map(|pid| Pid::from_u32(*pid)).collect();
        let little = ProcessRefreshKind::nothing().without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&pids), true, little);
        let is_same = |pid: u32, started: u64| {
            system.process(Pid::from_u32(pid)).is_some_and(|process| process.start_time() == started)
        };
        starts.iter().filter(|(pid, started)| is_same(**pid, **started)).map(|(pid, _)| *pid).collect()
    }
}

fn matters(process: &Process, premises: &Premises) -> bool {
    is_of_interest(process.exe(), &process.name().to_string_lossy(), premises)
}

fn row(process: &Process, us: Option<&sysinfo::Uid>) -> ProcessRow {
    ProcessRow {
        pid: process.pid().as_u32(),
        parent: process.parent().map(Pid::as_u32),
        started_ms: process.start_time().saturating_mul(1_000),
        name: process.name().to_string_lossy().into_owned(),
        program: process.exe().map(PathBuf::from),
        argv: process.cmd().to_vec(),
        folder: process.cwd().map(PathBuf::from),
        is_ours: us.is_some() && process.user_id() == us,
    }
}
