//! `fitwatch install` and `uninstall`: starting at login.

use std::fmt::Write as _;

use super::args::{InstallArguments, UninstallArguments};
use super::exit::Exit;
use super::failure::Failure;
use super::print::{print, talk};
use super::text::{safe, safe_path};
use crate::host::login::{Kind, LoginError, Step, Surroundings, perform};
use crate::report::Problem;

/// Starts fitwatch at login from now on.
pub(super) fn install(arguments: InstallArguments) -> Result<Exit, Failure> {
    let surroundings = Surroundings::find().map_err(|error| failed(&error))?;
    let kind = kind(arguments, &surroundings)?;
    let steps = surroundings.install(kind, arguments.now).map_err(|error| failed(&error))?;
    if surroundings.is_build_folder() {
        let program = safe_path(&surroundings.program);
        talk(&format!("warning: {program} lies in a build folder; copy it elsewhere and install from there"));
    }
    if arguments.dry_run {
        return show(&steps);
    }
    perform(&steps).map_err(|error| failed(&error))?;
    let place = surroundings.installed().into_iter().find(|installed| installed.kind == kind);
    let place = place.map(|installed| format!(" ({})", safe(&installed.place))).unwrap_or_default();
    print(&format!("fitwatch starts at login from now on: {}{place}\n", kind.label()))?;
    if !arguments.now {
        talk("  hint: start it now with `fitwatch`, or wait for the next login");
    }
    if let Some(hint) = kind.hint() {
        talk(&format!("  hint: {hint}"));
    }
    Ok(Exit::Yes)
}

/// No longer starts fitwatch at login.
pub(super) fn uninstall(arguments: UninstallArguments) -> Result<Exit, Failure> {
    let surroundings = Surroundings::find().map_err(|error| failed(&error))?;
    let steps = surroundings.uninstall();
    if arguments.dry_run {
        return show(&steps);
    }
    if steps.is_empty() {
        print("fitwatch does not start at login: nothing to do\n")?;
        return Ok(Exit::Yes);
    }
    perform(&steps).map_err(|error| failed(&error))?;
    print("fitwatch no longer starts at login\n")?;
    Ok(Exit::Yes)
}

/// Returns how fitwatch is to be started.
fn kind(arguments: InstallArguments, surroundings: &Surroundings) -> Result<Kind, Failure> {
    let best = surroundings.best_kind();
    match best {
        Kind::DesktopUnit | Kind::ServerUnit | Kind::Autostart if arguments.no_tray => {
            if surroundings.has_systemd {
                Ok(Kind::ServerUnit)
            } else {
                Err(Failure::Usage("--no-tray needs a systemd that runs for the user".into()))
            }
        }
        Kind::LaunchAgent | Kind::RunKey if arguments.no_tray => {
            Err(Failure::Usage("--no-tray is for systemd; here fitwatch starts with the desktop".into()))
        }
        best => Ok(best),
    }
}

/// Prints what would be done.
fn show(steps: &[Step]) -> Result<Exit, Failure> {
    let mut text = String::new();
    for step in steps {
        let _ = writeln!(text, "{}", safe(&step.to_string()));
        if let Step::Write { text: content, .. } = step {
            for line in content.lines() {
                let _ = writeln!(text, "    {}", safe(line));
            }
        }
    }
    if text.is_empty() {
        text.push_str("nothing to do\n");
    }
    print(&text)?;
    Ok(Exit::Yes)
}

fn failed(error: &LoginError) -> Failure {
    Failure::Problem(Problem { part: "login".into(), message: error.to_string(), hint: None })
}
