//! The one way into the engine: a bounded channel of events.
//!
//! A sender that cannot wait (a watcher's callback, a menu click) never blocks and never loses:
//! where the channel is full, what it had to say turns into [`Event::EverythingDirty`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::engine::{Event, Reply, Request};

/// How many events may wait for the engine.
const CAPACITY: usize = 1_024;

/// What arrives at the main loop.
#[derive(Debug)]
pub enum Incoming {
    /// An event for the engine.
    Event(Event),
    /// A request whose answer somebody waits for.
    Asked {
        /// What is asked.
        request: Request,
        /// Where the answer goes.
        answer: oneshot::Sender<Reply>,
    },
}

/// The sending side; cheap to clone.
#[derive(Clone, Debug)]
pub struct Events {
    sender: mpsc::Sender<Incoming>,
    overflowed: Arc<AtomicBool>,
}

/// The receiving side.
#[derive(Debug)]
pub struct Inbox {
    receiver: mpsc::Receiver<Incoming>,
    overflowed: Arc<AtomicBool>,
}

/// Returns both sides of a new channel.
pub fn channel() -> (Events, Inbox) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let overflowed = Arc::new(AtomicBool::new(false));
    (Events { sender, overflowed: Arc::clone(&overflowed) }, Inbox { receiver, overflowed })
}

impl Events {
    /// Hands an event over without waiting; a full channel turns it into a rescan.
    pub fn post(&self, event: Event) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.sender.try_send(Incoming::Event(event)) {
            self.overflowed.store(true, Ordering::Release);
        }
    }

    /// Hands an event over and waits for room. For results that nobody would ask for again.
    pub async fn deliver(&self, event: Event) {
        // A closed channel means that the process ends: nobody is left to hear.
        let _ = self.sender.send(Incoming::Event(event)).await;
    }

    /// Hands an event over from a thread that may block.
    pub fn deliver_blocking(&self, event: Event) {
        let _ = self.sender.blocking_send(Incoming::Event(event));
    }

    /// Asks the engine something and waits for the answer; `None` once the process ends.
    pub async fn ask(&self, request: Request) -> Option<Reply> {
        let (answer, reply) = oneshot::channel();
        self.sender.send(Incoming::Asked { request, answer }).await.ok()?;
        reply.await.ok()
    }
}

impl Inbox {
    /// Waits for the next arrival; `None` once every sender is gone.
    pub async fn next(&mut self) -> Option<Incoming> {
        if self.overflowed.swap(false, Ordering::AcqRel) {
            return Some(Incoming::Event(Event::EverythingDirty));
        }
        self.receiver.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_channel_turns_into_a_rescan() {
        let (events, mut inbox) = channel();
        for _ in 0..=CAPACITY {
            events.post(Event::DeadlineReached);
        }
        assert!(matches!(inbox.next().await, Some(Incoming::Event(Event::EverythingDirty))));
        for _ in 0..CAPACITY {
            assert!(matches!(inbox.next().await, Some(Incoming::Event(Event::DeadlineReached))));
        }
    }
}
