//! What goes wrong, where, and how often.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::Port;
use crate::scenario::matches;

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Where: `internal GET /lms-status`, `user GET /api/v1/models`, `internal WS /llm` (the
    /// handshake), `internal AUTH /llm` (the first frame), `internal RPC llm.listLoaded`. `*` is any
    /// port or kind, and at the end of the name any rest.
    pub on: String,
    /// What.
    #[serde(flatten)]
    pub trouble: Trouble,
    /// How often it happens; always where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

/// What can go wrong. On a websocket the same happens with frames. What changes something does so
/// all the same where only the answer is spoilt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "trouble")]
pub enum Trouble {
    /// The right answer comes late.
    Delay {
        /// How late.
        ms: u64,
    },
    /// No answer ever, and the connection stays.
    Hang,
    /// The connection is reset.
    Reset,
    /// The connection is closed without an answer.
    Close,
    /// The answer breaks off in its middle, and the connection closes.
    Half,
    /// The answer breaks off in its middle, and the connection stays.
    HalfThenHang,
    /// What comes is not HTTP, or not JSON.
    Garbage,
    /// The right answer, blown up with white space to this size.
    Padded {
        /// Bytes in all.
        bytes: usize,
    },
    /// An answer that never ends; frames that have nothing to do with the call.
    Endless,
    /// An answer of one's own: the body with this status, or the result of the call.
    Answer {
        /// The status over HTTP.
        #[serde(default = "ok")]
        status: u16,
        /// Text as it is, anything else as JSON.
        body: Value,
    },
    /// Go and ask elsewhere.
    Redirect {
        /// Where.
        to: String,
    },
    /// These bytes, or this frame, as they are.
    Raw {
        /// Text.
        text: String,
    },
    /// The call fails: an `rpcError`, a status of 500.
    Error {
        /// Its title.
        title: String,
    },
    /// The answer to another call than this one comes first, under a number that nobody used.
    Astray,
}

impl Trouble {
    /// Tells whether the work itself is left undone, and not just its answer spoilt.
    pub(crate) fn leaves_undone(&self) -> bool {
        matches!(self, Trouble::Answer { .. } | Trouble::Redirect { .. } | Trouble::Raw { .. } | Trouble::Error { .. })
    }
}

fn ok() -> u16 {
    200
}

impl Fault {
    /// Returns a fault that always happens.
    pub fn new(on: &str, trouble: Trouble) -> Fault {
        Fault { on: on.to_owned(), trouble, times: None }
    }

    /// Returns it happening this often.
    #[must_use]
    pub fn times(mut self, times: u32) -> Fault {
        self.times = Some(times);
        self
    }

    fn is_on(&self, port: Port, kind: &str, name: &str) -> bool {
        let mut words = self.on.split(' ');
        let mut next = || words.next().unwrap_or("*");
        let is = |word: &str, what: &str| word == "*" || word == what;
        is(next(), &port.to_string()) && is(next(), kind) && matches(next(), name)
    }
}

/// Returns what goes wrong now with a call, and counts it.
pub(crate) fn take(faults: &mut [Fault], port: Port, kind: &str, name: &str) -> Option<Trouble> {
    let fault = faults.iter_mut().find(|fault| fault.times != Some(0) && fault.is_on(port, kind, name))?;
    if let Some(times) = &mut fault.times {
        *times -= 1;
    }
    Some(fault.trouble.clone())
}
