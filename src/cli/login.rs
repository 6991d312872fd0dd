//! `fitwatch install` and `uninstall`: starting at login.

use super::exit::Exit;
use super::failure::Failure;

/// Starts fitwatch at login from now on.
pub(super) fn install() -> Result<Exit, Failure> {
    Err(Failure::Host("starting at login is not built in yet".into()))
}

/// No longer starts fitwatch at login.
pub(super) fn uninstall() -> Result<Exit, Failure> {
    Err(Failure::Host("starting at login is not built in yet".into()))
}
