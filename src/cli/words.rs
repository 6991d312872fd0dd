//! Verdicts, states and readings in words, the same in every command.

use std::path::Path;

use anstyle::{AnsiColor, Style};

use super::facts::Facts;
use super::text::{safe, safe_path, thousands};
use crate::fit::{Judgement, Verdict};
use crate::lmstudio::{Program, RunningBackend, Whereabouts};
use crate::machine::{Device, DeviceMemory, MemorySample, Picture, Reading};
use crate::memory::{FlashAttention, GpuLayers, Kind, Settings};
use crate::report::{ModelReport, Report, StateReport};
use crate::units::Bytes;

/// The name of main memory among pools.
pub(super) const RAM: &str = "RAM";

/// Returns the verdict in few words, for narrow places and sums.
pub(super) const fn short(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::FullGpu => "full GPU",
        Verdict::PartialGpu => "partial GPU",
        Verdict::CpuOnly => "CPU only",
        Verdict::TooLarge => "too large",
        Verdict::Unknown => "not known",
    }
}

/// Returns the colour of a verdict: the one place where colour says something.
pub(super) const fn colour(verdict: Verdict) -> Style {
    match verdict {
        Verdict::FullGpu => AnsiColor::Green.on_default(),
        Verdict::PartialGpu => AnsiColor::Yellow.on_default(),
        Verdict::CpuOnly => AnsiColor::Cyan.on_default(),
        Verdict::TooLarge => AnsiColor::Red.on_default(),
        Verdict::Unknown => Style::new().dimmed(),
    }
}

/// Returns the verdict's label in its colour.
pub(super) fn coloured(verdict: Verdict) -> String {
    let style = colour(verdict);
    format!("{style}{}{style:#}", verdict.label())
}

/// Returns how a model is placed where it is split: `33 of 49 layers on the GPU`.
pub(super) fn placement(judgement: &Judgement) -> Option<String> {
    if judgement.verdict != Verdict::PartialGpu {
        return None;
    }
    let layers = format!("{} of {} layers on the GPU", judgement.gpu_layers, judgement.layers);
    Some(match judgement.cpu_moe {
        0 => layers,
        1 => format!("{layers}, experts of 1 block in RAM"),
        blocks => format!("{layers}, experts of {blocks} blocks in RAM"),
    })
}

/// Returns how much is to spare or missing: `3.2 GB spare`, `1.1 GB short`.
pub(super) fn margin(judgement: &Judgement) -> String {
    let amount = Bytes(judgement.spare.unsigned_abs());
    match judgement.verdict {
        Verdict::Unknown => String::new(),
        _ if judgement.spare < 0 => format!("{amount} short"),
        _ => format!("{amount} spare"),
    }
}

/// Returns what a model needs of all GPUs together and of RAM. Only for showing: whether it fits
/// is decided pool by pool.
pub(super) fn needs(judgement: &Judgement) -> (Bytes, Bytes) {
    let sum = |is_ram: bool| -> Bytes {
        judgement.pools.iter().filter(|pool| (&*pool.name == RAM) == is_ram).map(|pool| pool.need).sum()
    };
    (sum(false), sum(true))
}

/// Returns the state of a model that has no verdict.
pub(super) fn state(model: &ModelReport) -> String {
    match &model.state {
        StateReport::Downloading => "downloading".into(),
        StateReport::Incomplete { missing } => {
            let numbers: Vec<String> = missing.iter().take(8).map(u32::to_string).collect();
            let more = if missing.len() > numbers.len() { ", …" } else { "" };
            format!("incomplete: shard {}{more} missing", numbers.join(", "))
        }
        StateReport::Reading => "being read".into(),
        StateReport::Judged => Verdict::Unknown.label().into(),
        StateReport::Unreadable { reason } => format!("unreadable: {}", safe(reason)),
        StateReport::NotJudged { reason } => format!("not judged: {}", safe(reason)),
    }
}

/// Returns which LM Studio runs: `runs (llmster 0.4.25, port 41343)`.
pub(super) fn backend(backend: &RunningBackend) -> String {
    let program = match backend.program {
        Program::Unknown => None,
        Program::App => Some("app"),
        Program::Llmster => Some("llmster"),
        Program::Bionic => Some("Bionic"),
    };
    let version = backend.version.as_deref().map(|version| safe(version).into_owned());
    let name: Vec<String> = program.map(str::to_owned).into_iter().chain(version).collect();
    let port = match backend.internal_port.or(backend.user_port) {
        Some(port) => format!("port {port}"),
        None => "no port of it answers".into(),
    };
    let words: Vec<String> = [name.join(" "), port].into_iter().filter(|word| !word.is_empty()).collect();
    format!("runs ({})", words.join(", "))
}

/// Adds the loaded models, each with what it needs and does.
pub(super) fn loaded(facts: &mut Facts, report: &Report) {
    for instance in &report.loaded {
        let elsewhere =
            matches!(instance.whereabouts, Whereabouts::Elsewhere(_)).then(|| "on another machine".to_owned());
        let words = [instance.settings_in_words(), elsewhere, instance.needs_in_words(), instance.activity_in_words()];
        let words: Vec<String> = words.into_iter().flatten().collect();
        facts.fact("loaded", &safe(&format!("{}: {}", instance.id, words.join("; "))));
        for line in [instance.estimate_in_words(), instance.ttl_in_words()].into_iter().flatten() {
            facts.fact("", &safe(&line));
        }
        for note in &instance.notes {
            facts.fact("", &safe(note));
        }
    }
    if let Some(reason) = &report.loaded_unknown {
        facts.fact("loaded", &format!("not known: {}", safe(reason)));
    }
}

/// Returns RAM and GPUs in one line.
pub(super) fn machine(picture: &Picture) -> String {
    let mut parts = vec![format!("RAM {}", memory(&picture.memory))];
    parts.extend(picture.devices.iter().map(|gpu| format!("{} {}", safe(&gpu.name), device(gpu))));
    parts.extend(
        picture.unknown.iter().map(|gpu| format!("{} GPU memory unknown: {}", safe(&gpu.name), safe(&gpu.reason))),
    );
    parts.join(" · ")
}

/// Returns how RAM stands: `21.0 of 33.5 GB available`.
pub(super) fn memory(reading: &Reading<MemorySample>) -> String {
    told(reading, |memory| format!("{} available", of(memory.available, memory.total)))
}

/// Returns how a GPU's memory stands: `22.1 of 25.8 GB free`.
pub(super) fn device(device: &Device) -> String {
    told(&device.memory, |memory: &DeviceMemory| format!("{} free", of(memory.free, memory.total)))
}

/// Returns two sizes with the unit once where it is the same.
pub(super) fn of(part: Bytes, whole: Bytes) -> String {
    let (part, whole) = (part.to_string(), whole.to_string());
    match (part.split_once(' '), whole.split_once(' ')) {
        (Some((number, unit)), Some((_, other))) if unit == other => format!("{number} of {whole}"),
        _ => format!("{part} of {whole}"),
    }
}

fn told<T>(reading: &Reading<T>, words: impl Fn(&T) -> String) -> String {
    match reading {
        Reading::Pending => "not read yet".into(),
        Reading::Fresh { value } => words(value),
        Reading::Stale { value, reason, .. } => format!("{} when last seen ({})", words(value), safe(reason)),
        Reading::Unavailable { reason } => format!("memory unknown: {}", safe(reason)),
    }
}

/// Returns a count with its noun: `1 model`, `60 models`.
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Returns a model's files with their size.
pub(super) fn files(path: &Path, files: usize, bytes: Bytes) -> String {
    let path = safe_path(path);
    let size = format!("{bytes}, {} bytes", thousands(bytes.0));
    match files {
        0 | 1 => format!("{path} ({size})"),
        files => format!("{path} and {} ({size})", count(files - 1, "further shard")),
    }
}

/// Returns what is known about a model in one line.
pub(super) fn model(
    architecture: Option<&str>,
    kind: Option<Kind>,
    number: Option<u64>,
    quantisation: Option<&str>,
    context_train: Option<u32>,
) -> String {
    let kind = kind.map(|kind| match kind {
        Kind::Language => "language model",
        Kind::Embedding => "embedding model",
        Kind::Projector => "projector",
        Kind::Drafter => "drafter",
    });
    let parts = [
        architecture.map(|name| safe(name).into_owned()),
        kind.map(str::to_owned),
        number.map(parameters),
        quantisation.map(|name| safe(name).into_owned()),
        context_train.map(|tokens| format!("trained for {} tokens", thousands(tokens.into()))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Returns a number of parameters as people say it: `7.6 B parameters`.
fn parameters(number: u64) -> String {
    match number {
        1_000_000_000.. => format!("{:.1} B parameters", number as f64 / 1e9),
        _ => format!("{:.0} M parameters", number as f64 / 1e6),
    }
}

/// Returns the settings in one line, the usual left out.
pub(super) fn settings(settings: &Settings) -> String {
    let usual = Settings::default();
    let mut parts = vec![match settings.context {
        0 => "the model's own context".to_owned(),
        context => format!("context {}", thousands(context.into())),
    }];
    parts.push(match settings.gpu_layers {
        GpuLayers::All => "all layers on GPUs".to_owned(),
        GpuLayers::Count(layers) => format!("{layers} layers on GPUs"),
    });
    match settings.cpu_moe {
        0 => {}
        u32::MAX => parts.push("all experts in RAM".to_owned()),
        blocks => parts.push(format!("experts of {blocks} blocks in RAM")),
    }
    parts.push(format!("K {} V {}", settings.cache_type_k.name(), settings.cache_type_v.name()));
    parts.push(format!("batch {}/{}", settings.batch, settings.ubatch));
    let cache = if settings.unified_kv { "one cache" } else { "a cache each" };
    parts.push(match settings.parallel {
        1 => "1 slot".to_owned(),
        slots => format!("{slots} slots with {cache}"),
    });
    match settings.flash_attention {
        FlashAttention::On => parts.push("flash attention on".into()),
        FlashAttention::Off => parts.push("flash attention off".into()),
        FlashAttention::Auto => {}
    }
    let odd = [
        (settings.offload_kv != usual.offload_kv, "cache in RAM"),
        (settings.swa_full != usual.swa_full, "full sliding-window caches"),
        (settings.mmap != usual.mmap, "weights not mapped"),
        (settings.embeddings != usual.embeddings, "embeddings"),
        (settings.mtp != usual.mtp, "MTP blocks loaded"),
    ];
    parts.extend(odd.into_iter().filter(|(is_odd, _)| *is_odd).map(|(_, word)| word.to_owned()));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{UnknownGpu, Vendor};
    use crate::units::Moment;

    #[test]
    fn the_unit_is_named_once_where_it_is_the_same() {
        assert_eq!(of(Bytes(21_000_000_000), Bytes(33_500_000_000)), "21.0 of 33.5 GB");
        assert_eq!(of(Bytes(210_000_000), Bytes(33_500_000_000)), "210 MB of 33.5 GB");
    }

    #[test]
    fn an_unknown_number_is_never_shown_as_zero() {
        let gpu = |name: &str, memory| Device { id: "0".into(), name: name.into(), vendor: Vendor::Nvidia, memory };
        let value = DeviceMemory {
            total: Bytes(24_000_000_000),
            free: Bytes(23_000_000_000),
            used: Bytes(1_000_000_000),
            reserved: Bytes::ZERO,
        };
        let picture = Picture {
            memory: Reading::Pending,
            devices: vec![
                gpu("A", Reading::Fresh { value }),
                gpu("B", Reading::Stale { value, at: Moment(7), reason: "it sleeps".into() }),
                gpu("C", Reading::Unavailable { reason: "driver lost".into() }),
            ],
            unknown: vec![UnknownGpu { id: "1".into(), name: "Intel Arc".into(), reason: "no driver\u{1b}[2J".into() }],
            problems: Vec::new(),
            driver: None,
        };
        assert_eq!(
            machine(&picture),
            "RAM not read yet · A 23.0 of 24.0 GB free · B 23.0 of 24.0 GB free when last seen (it sleeps) · \
             C memory unknown: driver lost · Intel Arc GPU memory unknown: no driver\\u{1b}[2J"
        );
    }
}
