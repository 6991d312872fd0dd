//! Events in, effects out: everything fitwatch decides.
//!
//! The host waits for an [`Event`] or the deadline, hands it over with the time, drains the
//! [`Effect`]s and waits again. The engine never blocks, never fails and reads no clock, file,
//! socket or device; equal inputs give equal outputs, so a day runs in a test.

mod event;

pub use event::{Effect, Event, LmStudioRead, Open, Reply, Request, RequestId};
