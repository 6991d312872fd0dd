//! What one round of asking brought: who says which models are loaded, and with which settings.
//!
//! Every side is optional and none is trusted alone: the internal websocket, the REST interfaces
//! and the processes each tell what they can, and the rest of this module joins them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{IndexHints, LoadSettings};
use crate::library::FileIdentity;
use crate::memory::{CacheType, FlashAttention};
use crate::units::{Bytes, Span};

/// What is to be asked in a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// LM Studio's home.
    pub home: PathBuf,
    /// The models folders: a process that has a file in one of them open counts.
    pub models: Vec<PathBuf>,
    /// Which processes are looked at.
    pub scan: Scan,
    /// A process was seen that looks like LM Studio's: its ports are asked although no file names one.
    pub is_seen: bool,
    /// The file that holds an API token, where the user gives one.
    pub token_file: Option<PathBuf>,
    /// No port is asked.
    pub processes_only: bool,
    /// Keys that LM Studio's index is to be asked for: nothing else tells which files they mean.
    pub in_doubt: BTreeSet<String>,
}

/// Which processes a round looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scan {
    /// Whether those that are known still run.
    #[default]
    Known,
    /// All of this user's.
    All,
}

/// What became of an unload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Unloaded {
    /// LM Studio has unloaded it.
    Done,
    /// There is no such instance (any more).
    NotLoaded,
    /// It was not unloaded.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
}

/// What one round of asking brought.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// When it was asked, in milliseconds since 1970: LM Studio's own times are in the same clock.
    pub at_ms: u64,
    /// The back-end that answers; nothing where none runs.
    pub backend: Option<RunningBackend>,
    /// What the internal websocket says.
    pub socket: Said<Vec<LoadedModel>>,
    /// What REST v1 says, or v0 where there is no v1.
    pub rest: Said<Vec<LoadedModel>>,
    /// The processes that hold models.
    pub processes: Said<Vec<EngineProcess>>,
    /// What of the processes cannot be looked at, in words for the user.
    pub notes: Vec<String>,
    /// What LM Studio's index says of the keys that were in doubt.
    pub hints: IndexHints,
}

/// What one side says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "said", content = "what")]
pub enum Said<T> {
    /// It was not asked in this round: what it said before still counts.
    #[default]
    NotAsked,
    /// This.
    Is(T),
    /// It wants an API token, or another one.
    Refused,
    /// It is not there.
    Absent,
    /// It did not answer, or not in a form that is understood.
    Failed(String),
}

/// A running LM Studio.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningBackend {
    /// Which program it is.
    pub program: Program,
    /// Its process.
    pub pid: Option<u32>,
    /// Its version, where it tells.
    pub version: Option<String>,
    /// The port of the internal interface, where it answers.
    pub internal_port: Option<u16>,
    /// The port of the user's HTTP server, where it answers.
    pub user_port: Option<u16>,
}

/// The programs that may run as LM Studio's back-end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// It is not known which one.
    #[default]
    Unknown,
    /// The app.
    App,
    /// The headless daemon.
    Llmster,
    /// The sibling app.
    Bionic,
}

/// A loaded model as one interface tells of it; what that one does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadedModel {
    /// The instance's identifier: the model's key, with `:2` for a second instance.
    pub identifier: String,
    /// The model's key.
    pub key: Option<String>,
    /// A name to show.
    pub name: Option<String>,
    /// What it does.
    pub kind: Option<LoadedKind>,
    /// `gguf`, `safetensors`, or what else may come.
    pub format: Option<String>,
    /// The file within the models folder, or the key of a virtual model.
    pub path: Option<String>,
    /// `indexedModelIdentifier`.
    pub indexed_identifier: Option<String>,
    /// The variant, where several files serve the key: `publisher/name@q4_k_m`.
    pub variant: Option<String>,
    /// Bytes on disk.
    pub bytes: Option<Bytes>,
    /// The architecture in LM Studio's word.
    pub architecture: Option<String>,
    /// The quantisation's name.
    pub quantisation: Option<String>,
    /// The LM Link device that it runs on, another one than this machine; none is this machine, as far as
    /// the interface can tell.
    pub device: Option<String>,
    /// Tokens of context.
    pub context: Option<u32>,
    /// How long it stays loaded without being used.
    pub ttl: Option<Span>,
    /// When it was last used, in milliseconds since 1970.
    pub last_used_ms: Option<u64>,
    /// What it is doing.
    pub activity: Option<Activity>,
    /// The settings in effect, as far as the interface tells.
    pub load: LoadSettings,
    /// LM Studio's own estimate for these settings, where it was asked.
    pub estimate: Option<OwnEstimate>,
}

/// What a loaded model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadedKind {
    /// A language model, one that sees images included.
    Language,
    /// An embedding model.
    Embedding,
}

/// What an instance is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Nothing.
    Idle,
    /// It reads a prompt.
    ProcessingPrompt,
    /// It writes.
    Generating,
    /// It computes an embedding.
    ComputingEmbedding,
    /// Something that LM Studio calls so.
    Other(String),
}

/// LM Studio's own estimate of what a load takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnEstimate {
    /// All of it.
    pub total: Bytes,
    /// What of it lies in GPU memory.
    pub gpu: Bytes,
    /// Whether LM Studio itself calls it good.
    pub is_confident: bool,
    /// Whether its guardrail lets it pass.
    pub passes_guardrails: bool,
}

/// A process that holds a model, or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineProcess {
    /// Its number.
    pub pid: u32,
    /// When it began, in milliseconds since 1970: numbers are given anew.
    pub started_ms: u64,
    /// What kind of process it is.
    pub kind: EngineKind,
    /// LM Studio's runtime: the name of its folder.
    pub runtime: Option<String>,
    /// What its command line asks for; a shared worker's names no model.
    pub asked: Asked,
    /// The model's file as it was found on disk, links resolved.
    pub file: Option<EngineFile>,
}

/// The file that a process was started with, as it was found on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFile {
    /// Its path with links resolved.
    #[serde(serialize_with = "crate::paths::lossy")]
    pub path: PathBuf,
    /// What makes it the same file under another path.
    pub identity: FileIdentity,
    /// Its length.
    pub bytes: Bytes,
}

/// The kinds of process that hold models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// LM Studio's `llama-server`, one a model.
    Server,
    /// LM Studio's node worker, which may hold several models.
    Worker,
    /// A llama.cpp that was started by hand.
    ByHand,
}

/// What a command line asks for. A key, prompt or any other text in it is never kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The model's file.
    #[serde(serialize_with = "crate::paths::lossy_option")]
    pub model: Option<PathBuf>,
    /// The projector's file.
    #[serde(serialize_with = "crate::paths::lossy_option")]
    pub projector: Option<PathBuf>,
    /// Another model's file, which drafts for this one.
    #[serde(serialize_with = "crate::paths::lossy_option")]
    pub draft_model: Option<PathBuf>,
    /// `--ctx-size`; 0 is what the model was trained for.
    pub context: Option<u32>,
    /// `--batch-size`.
    pub batch: Option<u32>,
    /// `--ubatch-size`.
    pub ubatch: Option<u32>,
    /// `--parallel`.
    pub parallel: Option<u32>,
    /// `--kv-unified`.
    pub unified_kv: Option<bool>,
    /// `--n-gpu-layers`; more than there are means all.
    pub gpu_layers: Option<u32>,
    /// `--n-cpu-moe`, `--cpu-moe` as all.
    pub cpu_moe: Option<u32>,
    /// `--cache-type-k`.
    pub cache_type_k: Option<CacheType>,
    /// `--cache-type-v`.
    pub cache_type_v: Option<CacheType>,
    /// `--flash-attn`.
    pub flash_attention: Option<FlashAttention>,
    /// `--no-kv-offload`.
    pub offload_kv: Option<bool>,
    /// `--no-mmap`.
    pub mmap: Option<bool>,
    /// `--mlock`.
    pub mlock: Option<bool>,
    /// `--swa-full`.
    pub swa_full: Option<bool>,
    /// `--embeddings`.
    pub embeddings: Option<bool>,
    /// Multi-token prediction drafts (`--spec-type draft-mtp`).
    pub mtp: Option<bool>,
    /// `--fit`: the engine itself chooses what was not asked.
    pub fit: Option<bool>,
    /// Layers are spread in a way of their own (`--tensor-split`, `--split-mode`, `--main-gpu`, `--device`,
    /// `--override-tensor`).
    pub own_split: bool,
}
