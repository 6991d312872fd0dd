//! Everything that reached the stand-in.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;
use serde_json::Value;

/// One thing that somebody asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// Where it came in.
    pub port: Port,
    /// `GET`, `POST`, … over HTTP; `WS` opens a websocket, `AUTH` is its first frame; then `RPC`,
    /// `CHANNEL`, `SIGNAL`, `KEEPALIVE` and `FRAME` for what is none of these. `BYTES` is no HTTP at all.
    pub kind: String,
    /// The path, the namespace (`/llm`) or the endpoint (`llm.listLoaded`).
    pub name: String,
    /// The body or parameter; of an `AUTH` who it says it is.
    pub parameter: Value,
    /// Whether it brought the token.
    pub authorization: Authorization,
    /// What it would do to a real LM Studio.
    pub nature: Nature,
}

/// The two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Port {
    /// The internal one, for the websocket.
    Internal,
    /// The one that the user switches on.
    User,
}

/// What a caller brought to prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Authorization {
    /// Nothing, or a guest's name.
    Absent,
    /// The token.
    Right,
    /// Another token.
    Wrong,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Nature {
    /// It reads.
    Reads,
    /// It unloads an instance.
    Unloads,
    /// It loads, infers, or is not known to be harmless.
    Forbidden,
}

/// What may be read: nothing here wakes, loads or changes anything.
const READS: [&str; 29] = [
    "GET /lms-status",
    "GET /lmstudio-greeting",
    "GET /api/v1/models",
    "GET /api/v0/models",
    "GET /api/v0/models/*",
    "GET /v1/models",
    "WS /llm",
    "WS /embedding",
    "WS /system",
    "WS /repository",
    "AUTH /llm",
    "AUTH /embedding",
    "AUTH /system",
    "AUTH /repository",
    "RPC llm.listLoaded",
    "RPC llm.getModelInfo",
    "RPC llm.getLoadConfig",
    "RPC llm.getInstanceProcessingState",
    "RPC llm.estimateModelUsage",
    "RPC embedding.listLoaded",
    "RPC embedding.getModelInfo",
    "RPC embedding.getLoadConfig",
    "RPC embedding.getInstanceProcessingState",
    "RPC embedding.estimateModelUsage",
    "RPC system.listDownloadedModels",
    "RPC system.info",
    "RPC system.version",
    "RPC repository.lmLinkStatus",
    "KEEPALIVE *",
];

/// What unloads.
const UNLOADS: [&str; 3] = ["POST /api/v1/models/unload", "RPC llm.unloadModel", "RPC embedding.unloadModel"];

impl Call {
    /// Returns what it asked for: `GET /api/v1/models`, `RPC llm.listLoaded`.
    pub fn what(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }
}

impl Display for Call {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.port, self.kind, self.name)
    }
}

impl Display for Port {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Port::Internal => "internal",
            Port::User => "user",
        })
    }
}

/// Returns what a call does.
pub(crate) fn nature(kind: &str, name: &str) -> Nature {
    let what = format!("{kind} {name}");
    let is_in = |list: &[&str]| list.iter().any(|one| crate::scenario::matches(one, &what));
    if is_in(&UNLOADS) {
        Nature::Unloads
    } else if is_in(&READS) {
        Nature::Reads
    } else {
        Nature::Forbidden
    }
}
