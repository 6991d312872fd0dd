//! `fitwatch quit`, `pause` and `resume`: what the running fitwatch is told.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::ask;
use super::exit::Exit;
use super::failure::Failure;
use super::print::talk;
use crate::engine::Request;
use crate::units::Span;

/// How long the running fitwatch may take to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked whether it is still there.
const STEP: Duration = Duration::from_millis(50);

/// Ends the running fitwatch and waits until it is gone.
pub(super) fn quit() -> Result<Exit, Failure> {
    ask::tell(&Request::Quit)?;
    let asked = Instant::now();
    while ask::is_running()? {
        if asked.elapsed() > PATIENCE {
            return Err(Failure::Refused(format!("it has not ended within {} s", PATIENCE.as_secs())));
        }
        sleep(STEP);
    }
    talk("fitwatch has ended");
    Ok(Exit::Yes)
}

/// Silences alerts.
pub(super) fn pause(span: Span) -> Result<Exit, Failure> {
    ask::tell(&Request::Pause { span })?;
    talk(&format!("alerts are paused for {span}"));
    Ok(Exit::Yes)
}

/// Ends the silence.
pub(super) fn resume() -> Result<Exit, Failure> {
    ask::tell(&Request::Resume)?;
    talk("alerts are no longer paused");
    Ok(Exit::Yes)
}
