//! A loaded model, and how it is told.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::library::ModelId;
use crate::lmstudio::{Activity, LoadedKind, OwnEstimate, SettingsFor, Source, Whereabouts};
use crate::memory::GpuLayers;
use crate::units::{Bytes, Span};

/// One loaded model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// LM Studio's identifier (`qwen3-8b:2`), or `pid 4711` of an engine that was started by hand.
    pub id: String,
    /// A short name to show.
    pub name: String,
    /// The model in the library; nothing where that cannot be told.
    pub model: Option<ModelId>,
    /// Where it runs.
    pub whereabouts: Whereabouts,
    /// Who tells of it.
    pub sources: Vec<Source>,
    /// What it does.
    pub kind: Option<LoadedKind>,
    /// Its format: `gguf`, `safetensors`.
    pub format: Option<String>,
    /// The process that holds it.
    pub process: Option<u32>,
    /// The settings it was loaded with, as far as they are known.
    pub settings: Option<Arc<SettingsFor>>,
    /// What it needs by the bill, pool by pool; empty where there is no bill.
    pub needs: Vec<PoolBytes>,
    /// What it is doing.
    pub activity: Option<Activity>,
    /// For how long it has not been used, in whole minutes.
    pub idle_for: Option<Span>,
    /// After how long without use LM Studio unloads it.
    pub ttl: Option<Span>,
    /// LM Studio's own estimate of what it takes.
    pub estimate: Option<OwnEstimate>,
    /// Whether it can be unloaded from here.
    pub can_unload: bool,
    /// Oddities worth a word.
    pub notes: Vec<String>,
}

/// Bytes of one pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolBytes {
    /// The name of a GPU, or `RAM`.
    pub name: Arc<str>,
    /// How many.
    pub bytes: Bytes,
}

impl InstanceReport {
    /// Returns what it needs, in words: `5.9 GB of RTX 4090 and 410 MB of RAM`.
    pub fn needs_in_words(&self) -> Option<String> {
        let pools: Vec<String> = self.needs.iter().map(|pool| format!("{} of {}", pool.bytes, pool.name)).collect();
        let (last, others) = pools.split_last()?;
        Some(if others.is_empty() { last.clone() } else { format!("{} and {last}", others.join(", ")) })
    }

    /// Returns how it was loaded, in words: `context 16384, 4 at a time, 20 layers on the GPU`.
    pub fn settings_in_words(&self) -> Option<String> {
        let settings = &self.settings.as_ref()?.settings;
        let mut words = vec![match settings.context {
            0 => "context as trained".into(),
            context => format!("context {context}"),
        }];
        if settings.parallel > 1 {
            words.push(format!("{} at a time", settings.parallel));
        }
        let (k, v) = (settings.cache_type_k.name(), settings.cache_type_v.name());
        match (k, v) {
            ("f16", "f16") => {}
            (k, v) if k == v => words.push(format!("{k} cache")),
            (k, v) => words.push(format!("{k} and {v} cache")),
        }
        match settings.gpu_layers {
            GpuLayers::All => {}
            GpuLayers::Count(0) => words.push("on the CPU".into()),
            GpuLayers::Count(layers) => words.push(format!("{layers} layers on the GPU")),
        }
        if settings.cpu_moe > 0 {
            words.push(format!("experts of {} blocks in RAM", settings.cpu_moe));
        }
        Some(words.join(", "))
    }

    /// Returns what it is doing, in words: `generating`, `idle for 3 min`.
    pub fn activity_in_words(&self) -> Option<String> {
        Some(match (self.activity.as_ref(), self.idle_for) {
            (Some(Activity::ProcessingPrompt), _) => "reading a prompt".into(),
            (Some(Activity::Generating), _) => "generating".into(),
            (Some(Activity::ComputingEmbedding), _) => "computing an embedding".into(),
            (Some(Activity::Other(word)), _) => word.clone(),
            (Some(Activity::Idle) | None, Some(span)) if span >= Span::minutes(1) => format!("idle for {span}"),
            (Some(Activity::Idle), _) => "idle".into(),
            (None, _) => return None,
        })
    }

    /// Returns LM Studio's own estimate, in words.
    pub fn estimate_in_words(&self) -> Option<String> {
        let estimate = self.estimate?;
        let doubt = if estimate.is_confident { "" } else { ", with little confidence" };
        Some(format!("LM Studio estimates {}{doubt}", estimate.total))
    }

    /// Returns when LM Studio unloads it by itself, in words.
    pub fn ttl_in_words(&self) -> Option<String> {
        self.ttl.map(|ttl| format!("LM Studio unloads it after {ttl} without use"))
    }
}

/// Returns a loaded model made by hand, for the tests of what is shown.
#[cfg(test)]
pub(crate) fn example() -> InstanceReport {
    use crate::lmstudio::SettingsBasis;
    use crate::memory::Settings;

    let settings = Settings { context: 16_384, parallel: 4, ..Settings::default() };
    let pool = |name: &str, bytes| PoolBytes { name: name.into(), bytes: Bytes(bytes) };
    InstanceReport {
        id: "zephyr".into(),
        name: "Zephyr 7B".into(),
        model: Some(ModelId("publisher/zephyr-GGUF/zephyr.gguf".into())),
        whereabouts: Whereabouts::Here,
        sources: vec![Source::Websocket, Source::Processes],
        kind: Some(LoadedKind::Language),
        format: Some("gguf".into()),
        process: Some(4_711),
        settings: Some(Arc::new(SettingsFor { settings, basis: SettingsBasis::Saved, assumptions: Vec::new() })),
        needs: vec![pool("RTX 4090", 7_100_000_000), pool("RAM", 410_000_000)],
        activity: Some(Activity::Idle),
        idle_for: Some(Span::minutes(3)),
        ttl: Some(Span::minutes(60)),
        estimate: Some(OwnEstimate {
            total: Bytes(9_900_000_000),
            gpu: Bytes(9_700_000_000),
            is_confident: false,
            passes_guardrails: true,
        }),
        can_unload: true,
        notes: Vec::new(),
    }
}
