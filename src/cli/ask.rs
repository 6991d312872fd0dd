//! One question, one answer: from the running fitwatch, else from a single scan.

use super::exit::Exit;
use super::failure::Failure;
use super::print::talk;
use super::text::safe;
use crate::config::Config;
use crate::engine::{Reply, Request};
use crate::host::config_file;
use crate::host::places::Places;
use crate::machine::{Machine, Picture};
use crate::report::{Detail, Report};

/// Returns the answer to a question about models and machine.
pub(super) fn answer(request: &Request) -> Result<Reply, Failure> {
    match daemon(request)? {
        Some(reply) => Ok(reply),
        None => once(request),
    }
}

/// Returns the whole report.
pub(super) fn report(request: &Request) -> Result<Box<Report>, Failure> {
    match answer(request)? {
        Reply::Report(report) => Ok(report),
        other => Err(unexpected(other)),
    }
}

/// Returns one model with its bill.
pub(super) fn detail(model: String) -> Result<Box<Detail>, Failure> {
    match answer(&Request::Show { model })? {
        Reply::Detail(detail) => Ok(detail),
        other => Err(unexpected(other)),
    }
}

/// Tells the running fitwatch to do something.
pub(super) fn tell(request: &Request) -> Result<(), Failure> {
    match daemon(request)? {
        Some(Reply::Done) => Ok(()),
        Some(other) => Err(unexpected(other)),
        None => Err(Failure::NotRunning),
    }
}

/// Returns the running fitwatch's answer, or nothing where none runs.
pub(super) fn daemon(request: &Request) -> Result<Option<Reply>, Failure> {
    let _ = request;
    Ok(None)
}

/// Returns whether a fitwatch runs.
pub(super) fn is_running() -> Result<bool, Failure> {
    Ok(false)
}

/// Watches until asked to quit.
pub(super) fn watch(tray: bool) -> Result<Exit, Failure> {
    let _ = tray;
    Err(Failure::Host("the watch is not built in yet".into()))
}

/// Returns the config in force; a broken file is warned of and the defaults are used.
pub(super) fn config() -> Config {
    let read = Places::find().map(|places| config_file::read(&places.config));
    match read {
        Ok(Ok(parsed)) => parsed.config,
        Ok(Err(error)) => {
            talk(&format!("warning: {}; the defaults are used", safe(&error.to_string())));
            Config::default()
        }
        Err(_) => Config::default(),
    }
}

/// Returns the machine as it is now.
pub(super) fn picture(config: &Config) -> Picture {
    let _ = config;
    Machine::default().picture().clone()
}

/// Returns the answer of a single scan.
fn once(request: &Request) -> Result<Reply, Failure> {
    let _ = request;
    Err(Failure::Host("a single scan is not built in yet".into()))
}

/// Returns what an answer means that nobody hoped for.
fn unexpected(reply: Reply) -> Failure {
    match reply {
        Reply::NoSuchModel { asked, nearest } => {
            Failure::NoSuchModel { asked, nearest: nearest.into_iter().map(|id| id.0).collect() }
        }
        Reply::Refused { message } => Failure::Refused(message),
        Reply::Report(_) | Reply::Detail(_) | Reply::Done => {
            Failure::Refused("it answered something else; are there two versions of fitwatch?".into())
        }
    }
}
