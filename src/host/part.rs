//! How a part of the host stands, told to the engine once.

use super::events::Events;
use crate::engine::Event;
use crate::report::Problem;

/// A part of the host that may work or not.
#[derive(Debug)]
pub(super) struct Part {
    name: &'static str,
    events: Events,
    /// What the engine was told last.
    told: Option<Result<(), Problem>>,
}

impl Part {
    /// Returns a part of which nothing is known yet.
    pub(super) const fn new(name: &'static str, events: Events) -> Part {
        Part { name, events, told: None }
    }

    /// Says that the part works.
    pub(super) fn works(&mut self) {
        self.tell(Ok(()));
    }

    /// Says what is wrong with the part and what to do about it.
    pub(super) fn fails(&mut self, message: impl Into<String>, hint: &str) {
        self.tell(Err(Problem { part: self.name.into(), message: message.into(), hint: Some(hint.into()) }));
    }

    fn tell(&mut self, state: Result<(), Problem>) {
        if self.told.as_ref() != Some(&state) {
            self.events.post(Event::PartChanged { part: self.name, problem: state.clone().err() });
            self.told = Some(state);
        }
    }
}
