//! The tray and notifications on a private session bus, with stand-ins for the panel and the
//! notification server.

#![cfg(all(target_os = "linux", feature = "tray"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bus;
mod icon;
mod notifications;
