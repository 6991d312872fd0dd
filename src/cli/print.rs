//! Where answers go: stdout is data, stderr is talk.
//!
//! A reader that has seen enough (`fitwatch list | head -1`) is no failure: what it does not
//! want is dropped. Colours leave where they would not be seen, and with `NO_COLOR`.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::failure::Failure;
use super::text::safe_json;

/// How long work goes on before its progress is shown.
const PATIENCE: Duration = Duration::from_millis(300);

/// Prints text on stdout.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Failure::Output),
    }
}

/// Prints a value as JSON on stdout.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value).map_err(|error| Failure::Output(error.into()))?;
    print(&(safe_json(&json) + "\n"))
}

/// Says something on stderr; nobody listening is no reason to stop.
pub(super) fn talk(text: &str) {
    let mut stderr = anstream::stderr().lock();
    let _ = writeln!(stderr, "{text}");
}

/// Returns the terminal's width where stdout is one.
pub(super) fn columns() -> Option<usize> {
    terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0)).filter(|&width| width > 0)
}

/// Shows how far long work has come, on stderr where that is a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Returns progress that is not shown yet.
    pub(super) fn new() -> Progress {
        Progress { started: Instant::now(), bar: None }
    }

    /// Takes note of how far the work has come.
    pub(super) fn update(&mut self, done: usize, total: usize) {
        if self.bar.is_none() && self.started.elapsed() > PATIENCE {
            // indicatif draws on terminals only.
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("reading models {bar:30} {pos} of {len}") {
                bar.set_style(style);
            }
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
