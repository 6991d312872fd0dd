//! The tray icon: shows [`Tray`] values and hands back what is chosen in the menu.
//!
//! [`run_ui`] owns the main thread until it is told to quit. It promises to go on without a tray:
//! where there is no session bus or no tray host it says so as a problem of the part `tray`, and
//! the icon comes when they do. What the menu holds is left to [`crate::tray`].

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(windows, target_os = "macos"))]
mod native;
mod view;

use tray_icon::menu::MenuEvent;

use super::events::Events;
use crate::engine::Event;
use crate::tray::{Action, Tray};

#[cfg(target_os = "linux")]
pub use linux::run_ui;
#[cfg(any(windows, target_os = "macos"))]
pub use native::run_ui;

/// What the main thread is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UiMessage {
    /// Show this tray; of several that wait only the last one is shown.
    Show(Box<Tray>),
    /// Take the icon away and return from [`run_ui`].
    Quit,
}

/// Sends what is chosen in the menu to the engine. The process has one handler: the first stays.
fn listen_to_menu(events: Events) {
    MenuEvent::set_event_handler(Some(move |event: MenuEvent| {
        if let Some(action) = Action::from_text(&event.id().0) {
            events.post(Event::Chosen(action));
        }
    }));
}
