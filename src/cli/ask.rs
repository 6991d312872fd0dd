//! One question, one answer: from the running fitwatch, else from a single scan.

use std::cell::RefCell;
use std::time::Duration;

use super::failure::Failure;
use super::print::{Progress, talk};
use super::text::safe;
use crate::config::Config;
use crate::engine::{Reply, Request};
use crate::host::control::{AskError, ask};
use crate::host::instance::{Instance, InstanceError};
use crate::host::places::{Places, user_home};
use crate::host::probes::{Probes, Roots};
use crate::host::{clock, config_file, once};
use crate::lmstudio::Unloaded;
use crate::machine::{Machine, Picture};
use crate::report::{Detail, Report};

/// How long the running fitwatch may take for an answer that needs no scan.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a scan may take: folders on a network are slow.
const SCAN_PATIENCE: Duration = Duration::from_mins(5);

/// Returns where fitwatch keeps its things.
pub(super) fn places() -> Result<Places, Failure> {
    Places::find().map_err(|error| Failure::Problem(error.problem()))
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

/// Unloads a loaded model and returns which one, with what became of it.
pub(super) fn unload(instance: String) -> Result<(String, Unloaded), Failure> {
    match answer(&Request::Unload { instance })? {
        Reply::Unloaded { instance, outcome } => Ok((instance, outcome)),
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
    let patience = if *request == Request::Recheck { SCAN_PATIENCE } else { PATIENCE };
    match ask(&places()?, request, patience) {
        Ok(reply) => Ok(Some(reply)),
        Err(AskError::NoDaemon) => Ok(None),
        Err(error) => Err(Failure::Unanswered(error)),
    }
}

/// Returns whether a fitwatch runs, whether or not it answers.
pub(super) fn is_running() -> Result<bool, Failure> {
    Ok(matches!(Instance::acquire(&places()?), Err(InstanceError::Running)))
}

/// Returns the config in force; a broken file is warned of and the defaults are used.
pub(super) fn config() -> Config {
    let Ok(places) = Places::find() else {
        return Config::default();
    };
    match config_file::read(&places.config) {
        Ok(parsed) => parsed.config,
        Err(error) => {
            talk(&format!("warning: {}; the defaults are used", safe(&error.to_string())));
            Config::default()
        }
    }
}

/// Returns the machine as it is now.
pub(super) fn picture(config: &Config) -> Picture {
    let mut probes = Probes::new(config.machine.nvml_library.clone(), Roots::default());
    let mut machine = Machine::default();
    machine.sampled(&probes.sample(), clock::now());
    machine.picture().clone()
}

/// Returns the answer to a question about models and machine.
fn answer(request: &Request) -> Result<Reply, Failure> {
    match daemon(request) {
        Ok(Some(reply)) => return Ok(reply),
        Ok(None) => {}
        // The question has an answer all the same.
        Err(failure @ Failure::Unanswered(_)) => talk(&format!("warning: {failure}; scanning once instead")),
        Err(failure) => return Err(failure),
    }
    // A single scan is as new as can be.
    let request = if *request == Request::Recheck { Request::Report } else { request.clone() };
    let progress = RefCell::new(Progress::new());
    let home = user_home().unwrap_or_default();
    Ok(once::answer(&places()?, &home, request, |done, total| progress.borrow_mut().update(done, total)))
}

/// Returns what an answer means that nobody hoped for.
fn unexpected(reply: Reply) -> Failure {
    match reply {
        Reply::NoSuchModel { asked, nearest } => {
            Failure::NoSuchModel { asked, nearest: nearest.into_iter().map(|id| id.0).collect() }
        }
        Reply::Refused { message } => Failure::Refused(message),
        Reply::NoSuchInstance { asked, loaded } => Failure::NoSuchInstance { asked, loaded },
        Reply::Report(_) | Reply::Detail(_) | Reply::Unloaded { .. } | Reply::Done => {
            Failure::Refused("it answered something else".into())
        }
    }
}
