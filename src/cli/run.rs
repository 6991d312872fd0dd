//! `fitwatch run`: watches in the foreground. A second start shows how the first one stands.

use super::args::RunArguments;
use super::ask;
use super::exit::Exit;
use super::failure::Failure;
use super::print::{columns, print, talk};
use super::status;
use crate::engine::{Reply, Request};

/// Runs the command.
pub(super) fn run(arguments: RunArguments) -> Result<Exit, Failure> {
    if let Some(Reply::Report(report)) = ask::daemon(&Request::Report)? {
        talk("fitwatch is running already; this is how it stands");
        print(&status::render(&report, columns()))?;
        return Ok(Exit::Yes);
    }
    ask::watch(!arguments.no_tray)
}
