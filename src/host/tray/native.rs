//! macOS and Windows: the icon lives in the native event loop of the main thread.

use std::sync::mpsc::Receiver;
use std::thread;

use winit::application::ApplicationHandler;
use winit::error::EventLoopError;
use winit::event::WindowEvent;
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoop};
use winit::window::WindowId;

use super::view::View;
use super::{UiMessage, listen_to_menu};
use crate::host::events::Events;
use crate::host::part::Part;

/// What a user can do about it.
const HINT: &str = "Restart fitwatch, or run it without a tray: fitwatch run --no-tray";

/// Shows what `receiver` says until it says quit, or until nobody is left to say anything.
pub fn run_ui(receiver: Receiver<UiMessage>, events: Events) {
    listen_to_menu(events.clone());
    let mut pump = Pump { part: Part::new("tray", events), view: None };
    let event_loop = match event_loop() {
        Ok(event_loop) => event_loop,
        Err(error) => {
            pump.part.fails(error.to_string(), HINT);
            // Without an event loop the process goes on until it is told to end.
            while let Ok(UiMessage::Show(_)) = receiver.recv() {}
            return;
        }
    };
    event_loop.set_control_flow(ControlFlow::Wait);
    let proxy = event_loop.create_proxy();
    let forwarder = thread::Builder::new().name("tray".into()).spawn(move || {
        while let Ok(UiMessage::Show(tray)) = receiver.recv() {
            if proxy.send_event(UiMessage::Show(tray)).is_err() {
                return;
            }
        }
        // A loop that has ended already needs no word of it.
        let _ = proxy.send_event(UiMessage::Quit);
    });
    let outcome = match forwarder {
        Ok(_) => event_loop.run_app(&mut pump).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(reason) = outcome {
        pump.part.fails(reason, HINT);
    }
}

/// Builds the event loop of a program that has an icon and no windows.
fn event_loop() -> Result<EventLoop<UiMessage>, EventLoopError> {
    let mut builder = EventLoop::with_user_event();
    #[cfg(target_os = "macos")]
    {
        use winit::platform::macos::{ActivationPolicy, EventLoopBuilderExtMacOS};

        builder
            .with_activation_policy(ActivationPolicy::Accessory)
            .with_default_menu(false)
            .with_activate_ignoring_other_apps(false);
    }
    builder.build()
}

/// What the event loop calls.
struct Pump {
    part: Part,
    view: Option<View>,
}

impl ApplicationHandler<UiMessage> for Pump {
    fn resumed(&mut self, _: &ActiveEventLoop) {}

    fn window_event(&mut self, _: &ActiveEventLoop, _: WindowId, _: WindowEvent) {}

    fn user_event(&mut self, event_loop: &ActiveEventLoop, message: UiMessage) {
        let UiMessage::Show(tray) = message else {
            self.view = None;
            event_loop.exit();
            return;
        };
        let shown = match &mut self.view {
            Some(view) => view.show(&tray),
            None => View::new(&tray).map(|view| {
                self.view = Some(view);
                self.part.works();
            }),
        };
        if let Err(reason) = shown {
            self.view = None;
            self.part.fails(reason, HINT);
        }
    }
}
