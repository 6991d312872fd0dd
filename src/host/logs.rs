//! The log: a file a day in the logs folder, quiet by default.
//!
//! Where the journal listens (a systemd unit) it gets the log and no file is written; on a terminal
//! the log is shown as well. `FITWATCH_LOG` overrides the config with a `tracing` filter
//! (`debug`, `fitwatch::host=trace`). Nothing secret is ever handed to the log: fitwatch reads no
//! token, key, chat or prompt. Paths and model names do stand in it.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::{env, fs, panic};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::places::Places;
use crate::report::Problem;

/// Overrides the config's level with a `tracing` filter.
pub const LOG_VARIABLE: &str = "FITWATCH_LOG";

/// So many days stay.
const DAYS: usize = 7;
/// Lines that may wait for the disk. The queue is memory from the start, and the usual
/// 128,000 lines would be a quarter of all that fitwatch may take.
const WAITING_LINES: usize = 1_024;

/// The running log; dropping it writes what still waits.
#[derive(Debug)]
pub struct Logs {
    folder: Option<PathBuf>,
    filter: reload::Handle<EnvFilter, Registry>,
    _writer: Option<WorkerGuard>,
}

/// Where the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    /// To files in the logs folder.
    pub file: bool,
    /// To stderr: a terminal, or the journal.
    pub stderr: bool,
}

impl Targets {
    /// Returns where the log of a daemon goes that was started like this process.
    pub fn of_process() -> Targets {
        let journal = stderr_is_journal();
        Targets { file: !journal, stderr: journal || io::stderr().is_terminal() }
    }
}

/// Starts the log of this process, once. A folder that cannot be written to costs the file, not
/// the daemon: the problem says so, and stderr is logged to instead.
pub fn start(places: &Places, level: &str, targets: Targets) -> (Logs, Option<Problem>) {
    let (file, problem) = match targets.file.then(|| open(&places.logs)) {
        Some(Ok(file)) => (Some(file), None),
        Some(Err(problem)) => (None, Some(problem)),
        None => (None, None),
    };
    let (writer, guard) = file.map_or((None, None), |(writer, guard)| (Some(writer), Some(guard)));
    let folder = writer.is_some().then(|| places.logs.clone());
    let to_file = writer.map(|writer| fmt::layer().with_ansi(false).with_writer(writer).boxed());
    // The journal and a person at a terminal know what time it is.
    let to_stderr = (targets.stderr || problem.is_some())
        .then(|| fmt::layer().with_ansi(false).without_time().with_writer(io::stderr).boxed());
    let (filter, handle) = reload::Layer::new(filter(level));
    // Only the first log of a process can be installed; tests start several.
    let _ = tracing_subscriber::registry().with(filter).with(to_file).with(to_stderr).try_init();
    log_panics();
    (Logs { folder, filter: handle, _writer: guard }, problem)
}

impl Logs {
    /// Changes the level.
    pub fn set_level(&self, level: &str) {
        // Fails only where the log was never installed.
        let _ = self.filter.reload(filter(level));
    }

    /// Returns the folder of the log files, where there are any.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Returns the newest log file.
    pub fn newest(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(self.folder.as_ref()?).ok()?;
        // The day is part of the name, so that the last name is the newest.
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
            .max()
    }
}

fn open(folder: &Path) -> Result<(NonBlocking, WorkerGuard), Problem> {
    // The appender would say on stderr that it finds no folder to look for old logs in.
    let made = fs::create_dir_all(folder).map_err(|error| error.to_string());
    let appender = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("fitwatch")
        .filename_suffix("log")
        .max_log_files(DAYS)
        .build(folder)
        .map_err(|error| made.err().unwrap_or_else(|| error.to_string()))
        .map_err(|error| Problem {
            part: "log".into(),
            message: format!("cannot write the log in {}: {error}", folder.display()),
            hint: Some("make the folder one that you can write to".into()),
        })?;
    Ok(NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).thread_name("log").finish(appender))
}

/// fitwatch's own lines at the level, those of its libraries only where they warn.
fn filter(level: &str) -> EnvFilter {
    if let Ok(text) = env::var(LOG_VARIABLE)
        && let Ok(filter) = EnvFilter::builder().parse(&text)
    {
        return filter;
    }
    let libraries = if level == "error" { "error" } else { "warn" };
    EnvFilter::builder().parse_lossy(format!("{libraries},fitwatch={level}"))
}

/// A panic is written to the log as well as to stderr, where nobody may be looking.
fn log_panics() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        tracing::error!("{info}");
        before(info);
    }));
}

/// Tells whether stderr leads to the journal: systemd names the stream, and a redirected stderr
/// of a child is another one.
#[cfg(target_os = "linux")]
fn stderr_is_journal() -> bool {
    let Some(stream) = env::var("JOURNAL_STREAM").ok() else { return false };
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(not(target_os = "linux"))]
fn stderr_is_journal() -> bool {
    false
}
