//! What the stand-in is: which LM Studio, with which models, and which of them are loaded.
//!
//! Models and instances are written in LM Studio's own words, so that rows of a real
//! `lms ls --json` or `lms ps --json` can be put in as they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One LM Studio, as a test wants it.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own in LM Studio")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// The version it says it has; from it follows which interfaces it has, see [`Scenario::of_version`].
    pub version: String,
    /// The build number.
    pub build: u32,
    /// What `/lms-status` names.
    pub package: String,
    /// Whether it is the headless daemon.
    pub is_daemon: bool,
    /// The one API token that is right.
    pub token: Option<String>,
    /// Whether it answers only those who bring the token.
    pub requires_token: bool,
    /// Whether the internal server wants it too; the user's server always does.
    pub guards_internal: bool,
    /// Whether models are loaded when they are asked for: off, lists other than v1 show the loaded ones only.
    pub just_in_time: bool,
    /// Whether the user's HTTP server is on.
    pub user_server: bool,
    /// The internal server's port; any free one where there is none.
    pub internal_port: Option<u16>,
    /// The user server's port; any free one where there is none.
    pub user_port: Option<u16>,
    /// Routes (`/api/v1/models`) and endpoints (`llm.getLoadConfig`) that this version does not have; a `*` at the end stands for any rest.
    pub without: Vec<String>,
    /// This machine's own name among LM Link's devices; none where it takes no part.
    pub device: Option<String>,
    /// The downloaded models.
    pub models: Vec<Model>,
    /// The loaded instances.
    pub loaded: Vec<Instance>,
    /// Files under the home that are written besides LM Studio's own, or in their place: text as it is, the rest as JSON.
    pub files: BTreeMap<String, Value>,
}

/// A downloaded model, as `system.listDownloadedModels` tells of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Model {
    /// `llm` or `embedding`.
    pub r#type: String,
    /// Its key.
    pub model_key: String,
    /// `gguf`, `safetensors`, …
    pub format: String,
    /// A name to show.
    pub display_name: String,
    /// Who published it.
    pub publisher: String,
    /// Its file or folder below the models folder; the key of a virtual model.
    pub path: String,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// The concrete model's identifier; the path where it is empty.
    pub indexed_model_identifier: String,
    /// The LM Link device that has it; this one where there is none.
    pub device_identifier: Option<String>,
    /// `8B`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params_string: Option<String>,
    /// The architecture in LM Studio's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// The quantisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
    /// The keys of its variants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variants: Option<Vec<String>>,
    /// The variant that the key stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selected_variant: Option<String>,
    /// Whether it sees images; a language model only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vision: Option<bool>,
    /// Whether it calls tools; a language model only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_for_tool_use: Option<bool>,
    /// The context it was trained for.
    pub max_context_length: u32,
    /// `capabilities.reasoning` of REST v1, which the websocket does not tell.
    #[serde(skip_serializing)]
    pub reasoning: Option<Value>,
    /// Whatever else the websocket's rows shall carry.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A quantisation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantization {
    /// `Q4_K_M`.
    pub name: String,
    /// Bits a weight.
    pub bits: u32,
}

/// A loaded instance: what it adds to its model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Instance {
    /// The model's key.
    pub model_key: String,
    /// Its identifier; the key, or `key:2` and so on, where it is empty.
    pub identifier: String,
    /// Its reference; made up where it is empty.
    pub instance_reference: String,
    /// The LM Link device that it runs on; this one where there is none.
    pub device_identifier: Option<String>,
    /// How long it stays loaded without being used.
    pub ttl_ms: Option<u64>,
    /// When it was last used, in milliseconds since 1970.
    pub last_used_time: Option<u64>,
    /// Tokens of context.
    pub context_length: u32,
    /// `idle`, `processingPrompt`, `generating`, `computingEmbedding`; `idle` where it is empty.
    pub status: String,
    /// Requests that wait.
    pub queued: u32,
    /// The settings in effect; the context is added where it is missing.
    pub load_config: Vec<Field>,
    /// Whatever else the websocket's row shall carry.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// One load setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// `llm.load.contextLength`.
    pub key: String,
    /// Its value, of any shape.
    pub value: Value,
}

/// The scenarios that come with the stand-in, by name.
const NAMED: [(&str, &str); 4] = [
    ("everyday", include_str!("../scenarios/everyday.json")),
    ("nothing-loaded", include_str!("../scenarios/nothing-loaded.json")),
    ("many-loaded", include_str!("../scenarios/many-loaded.json")),
    ("empty", "{}"),
];

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            version: "0.4.25".into(),
            build: 1,
            package: "lmstudio".into(),
            is_daemon: false,
            token: None,
            requires_token: false,
            guards_internal: true,
            just_in_time: true,
            user_server: true,
            internal_port: None,
            user_port: None,
            without: Vec::new(),
            device: None,
            models: Vec::new(),
            loaded: Vec::new(),
            files: BTreeMap::new(),
        }
    }
}

impl Scenario {
    /// Returns a scenario that comes with the stand-in.
    pub fn named(name: &str) -> Scenario {
        let found = NAMED.iter().find(|(named, _)| *named == name);
        let (_, text) =
            found.unwrap_or_else(|| panic!("no scenario is named {name}: {:?}", NAMED.map(|(name, _)| name)));
        Scenario::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Returns the scenario that a text describes.
    pub fn parse(text: &str) -> Result<Scenario, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Returns it as an older or newer version: without the interfaces that one does not have.
    #[must_use]
    pub fn of_version(mut self, version: &str) -> Scenario {
        // REST v0 came with 0.3.6 and v1 with 0.4.0; what the endpoints of the websocket came with
        // is not written down anywhere, but the states and the estimate are the newest of them.
        const SINCE: [((u32, u32, u32), &str); 9] = [
            ((0, 3, 6), "/api/v0/*"),
            ((0, 3, 27), "llm.estimateModelUsage"),
            ((0, 3, 27), "embedding.estimateModelUsage"),
            ((0, 4, 0), "/api/v1/*"),
            ((0, 4, 0), "llm.getInstanceProcessingState"),
            ((0, 4, 0), "embedding.getInstanceProcessingState"),
            ((0, 4, 0), "system.info"),
            ((0, 4, 0), "/lms-status"),
            ((0, 4, 0), "repository.lmLinkStatus"),
        ];
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        let own = (next(), next(), next());
        self.without.extend(SINCE.iter().filter(|(since, _)| own < *since).map(|(_, name)| (*name).to_owned()));
        version.clone_into(&mut self.version);
        self
    }

    /// Returns it with a token that everybody has to bring.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Scenario {
        self.token = Some(token.to_owned());
        self.requires_token = true;
        self
    }

    /// Tells whether this version has a route or endpoint.
    pub(crate) fn has(&self, name: &str) -> bool {
        !self.without.iter().any(|without| matches(without, name))
    }

    /// Returns the two halves of the token, as the websocket wants them.
    pub(crate) fn token_halves(&self) -> Option<(&str, &str)> {
        self.token.as_deref()?.strip_prefix("sk-lm-")?.split_once(':')
    }
}

/// Tells whether a pattern means a name: `*` at the end stands for any rest.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}
