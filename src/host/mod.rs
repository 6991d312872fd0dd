//! The machine itself: everything that has a clock, blocks or fails.
//!
//! Each file is one border. Blocking work runs on tokio's blocking threads; every finding becomes
//! an [`Event`](crate::engine::Event) on one bounded channel ([`events`]). A part that fails says
//! so as a [`Problem`](crate::report::Problem) and the rest goes on.

mod alarm;
#[cfg(target_os = "linux")]
mod bus;
pub mod clock;
pub mod events;
mod part;

pub mod headers;
pub mod walk;
pub mod watch;

pub mod lmstudio;
pub mod probes;

pub mod notifications;
#[cfg(feature = "tray")]
pub mod tray;

pub mod config_file;
pub mod control;
pub mod instance;
pub mod login;
pub mod logs;
pub mod places;
pub mod state;

pub mod once;
pub mod run;
pub mod signals;
