//! Desktop notifications: shows [`Notice`]s, replaces the one of the same topic, takes them back.
//!
//! It promises never to delay the caller: a task of its own shows them one after the other, each
//! under a time limit, and of several that wait for one topic only the last is shown. A machine
//! without a notification server is a problem of the part `notifications`, cleared by the next
//! notice that is shown or by a server that comes. When to say anything is left to
//! [`crate::alerts`].

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod native;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::events::Events;
use super::part::Part;
use crate::alerts::Notice;
#[cfg(target_os = "linux")]
use linux::serve;
#[cfg(not(target_os = "linux"))]
use native::serve;

/// How many topics may wait; the oldest gives way.
const WAITING: usize = 16;

/// Shows notices. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Notifier {
    queue: Arc<Queue>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    Show(Notice),
    Close(String),
}

/// Commands that wait, at most one a topic.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<VecDeque<Command>>,
    arrived: Notify,
}

impl Notifier {
    /// Starts the task that shows notices, on the current tokio runtime.
    pub fn spawn(events: Events) -> Notifier {
        let queue = Arc::new(Queue::default());
        tokio::spawn(serve(Arc::clone(&queue), Part::new("notifications", events)));
        Notifier { queue }
    }

    /// Shows a notice, in place of an open one of the same topic.
    pub fn show(&self, notice: Notice) {
        self.queue.push(Command::Show(notice));
    }

    /// Takes back the notice of a topic, if one is open.
    pub fn close(&self, topic: &str) {
        self.queue.push(Command::Close(topic.into()));
    }
}

impl Command {
    fn topic(&self) -> &str {
        match self {
            Command::Show(notice) => &notice.topic,
            Command::Close(topic) => topic,
        }
    }
}

impl Queue {
    fn push(&self, command: Command) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|other| other.topic() != command.topic());
        if waiting.len() == WAITING {
            waiting.pop_front();
        }
        waiting.push_back(command);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Waits for the next command.
    async fn next(&self) -> Command {
        loop {
            let command = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if let Some(command) = command {
                return command;
            }
            self.arrived.notified().await;
        }
    }
}

/// Tells the engine how it went.
fn tell(part: &mut Part, outcome: Result<(), String>) {
    match outcome {
        Ok(()) => part.works(),
        Err(message) => part.fails(message, "Start a notification server such as dunst; fitwatch goes on without"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_several_commands_for_one_topic_the_last_is_done() {
        let queue = Queue::default();
        queue.push(Command::Show(notice("a", "first")));
        queue.push(Command::Show(notice("b", "other")));
        queue.push(Command::Show(notice("a", "second")));
        queue.push(Command::Close("b".into()));
        assert_eq!(queue.next().await, Command::Show(notice("a", "second")));
        assert_eq!(queue.next().await, Command::Close("b".into()));
    }

    #[tokio::test]
    async fn a_server_that_hangs_fills_no_memory() {
        let queue = Queue::default();
        for topic in 0..1_000 {
            queue.push(Command::Show(notice(&topic.to_string(), "")));
        }
        assert_eq!(queue.waiting.lock().unwrap().len(), WAITING);
        assert_eq!(queue.next().await, Command::Show(notice("984", "")));
    }

    fn notice(topic: &str, title: &str) -> Notice {
        Notice { topic: topic.into(), title: title.into(), body: String::new() }
    }
}
