//! `fitwatch run`: watches in the foreground. A second start shows how the first one stands.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::args::RunArguments;
use super::ask;
use super::exit::Exit;
use super::failure::Failure;
use super::print::{columns, print, talk};
use super::status;
use crate::engine::{Reply, Request};
use crate::host::instance::InstanceError;
use crate::host::login::notify_ready;
use crate::host::run::{Options, RunError, run as watch};
use crate::report::Problem;

/// How long a fitwatch that has just started may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the command.
pub(super) fn run(arguments: RunArguments) -> Result<Exit, Failure> {
    match watch(ask::places()?, Options { tray: !arguments.no_tray }) {
        Ok(()) => Ok(Exit::Yes),
        Err(RunError::Instance(InstanceError::Running)) => show_first(),
        Err(RunError::Places(error)) => Err(Failure::Problem(error.problem())),
        Err(error @ (RunError::Instance(_) | RunError::Runtime(_))) => {
            Err(Failure::Problem(Problem { part: "start".into(), message: error.to_string(), hint: None }))
        }
    }
}

/// Shows the status of the fitwatch that runs already.
fn show_first() -> Result<Exit, Failure> {
    talk("fitwatch is running already; this is how it stands");
    let asked = Instant::now();
    loop {
        match ask::daemon(&Request::Report)? {
            Some(Reply::Report(report)) => {
                print(&status::render(&report, columns()))?;
                // A unit that was started beside it ends well, or systemd would try again and again.
                notify_ready("another fitwatch runs already");
                return Ok(Exit::Yes);
            }
            Some(_) => return Err(Failure::Refused("it answered something else".into())),
            // It holds its lock but does not listen yet, or not any more.
            None if asked.elapsed() < PATIENCE => sleep(Duration::from_millis(100)),
            None => return Err(Failure::Refused("it does not listen".into())),
        }
    }
}
