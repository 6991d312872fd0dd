//! The menu's rows.
//!
//! Every level has a bounded number of them. Models are sorted by name, never by a number, so that
//! rows stay where they are while numbers change. Words, not signs: a screen reader reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::status::{self, verdict};
use super::{Action, Row};
use crate::alerts::text::{counted, elided, outcome, short_device, tidy};
use crate::fit::{Fit, Verdict};
use crate::lmstudio::Whereabouts;
use crate::machine::{Device, DeviceMemory, Reading};
use crate::report::{InstanceReport, ModelReport, Report, StateReport};
use crate::units::Bytes;

/// The most rows of the menu itself.
const TOP: usize = 22;
/// The most rows of a submenu.
const ROWS: usize = 20;
/// How many GPUs have rows of their own at the top level.
const GPU_ROWS: usize = 2;
/// How many loaded models have rows of their own at the top level.
const LOADED_ROWS: usize = 3;
/// The longest line about a loaded model, in characters.
const LINE: usize = 90;
/// The longest name of a model, in characters.
const NAME: usize = 44;
/// The longest name of a loaded model in another one's row, in characters.
const SHORT_NAME: usize = 24;
/// The longest reason, in characters.
const REASON: usize = 70;

/// Returns the menu of a report.
pub(super) fn rows(report: &Report) -> Vec<Row> {
    let mut rows = vec![Row::Text(status::line(report))];
    rows.extend(problem_line(report).map(Row::Text));
    rows.push(Row::Separator);
    let commands = commands(report);
    let groups = groups(report);
    // RAM, GPUs and two separators have their place in any case.
    let loaded = loaded(report, TOP.saturating_sub(rows.len() + groups.len() + commands.len() + 4));
    if !loaded.is_empty() {
        rows.extend(loaded);
        rows.push(Row::Separator);
    }
    let machine = machine_rows(report, TOP.saturating_sub(rows.len() + groups.len() + 1 + commands.len()));
    if !groups.is_empty() {
        let room = TOP.saturating_sub(rows.len() + 1 + machine.len() + commands.len());
        rows.extend(opened(groups, room));
        rows.push(Row::Separator);
    }
    rows.extend(machine);
    rows.extend(commands);
    rows
}

/// Returns the loaded models, each with what is known of it and a row that unloads it; behind one row
/// where there is no room for each.
fn loaded(report: &Report, room: usize) -> Vec<Row> {
    let unknown = report.loaded_unknown.iter().map(|reason| Row::Text(elided(reason, REASON)));
    let rows: Vec<Row> = report.loaded.iter().map(instance_row).chain(unknown).collect();
    if rows.is_empty() {
        return rows;
    }
    if rows.len() <= LOADED_ROWS && rows.len() < room {
        return [Row::Text("Loaded".into())].into_iter().chain(rows).collect();
    }
    let text = format!("Loaded ({})", report.loaded.len());
    vec![Row::Submenu { text, rows: limited(&rows, Row::clone, "fitwatch status") }]
}

fn instance_row(instance: &InstanceReport) -> Row {
    let context = instance.settings.as_ref().map(|settings| settings.settings.context).filter(|context| *context > 0);
    let elsewhere = matches!(instance.whereabouts, Whereabouts::Elsewhere(_)).then(|| "on another machine".to_owned());
    let largest = instance.needs.iter().max_by_key(|pool| pool.bytes);
    let needs = largest.map(|pool| format!("{} of {}", pool.bytes, short_device(&pool.name)));
    let words = [context.map(|context| format!("context {context}")), elsewhere, needs, instance.activity_in_words()];
    let words: Vec<String> = words.into_iter().flatten().collect();
    let lines = [
        instance.settings_in_words(),
        instance.needs_in_words().map(|needs| format!("needs {needs}")),
        instance.estimate_in_words(),
        instance.ttl_in_words(),
    ];
    let lines = lines.into_iter().flatten().chain(instance.notes.iter().cloned());
    let mut rows: Vec<Row> = lines.map(|line| Row::Text(elided(&line, LINE))).collect();
    if let Some(model) = &instance.model {
        rows.push(Row::Item { text: "What it needs".into(), action: Action::ShowModel(model.clone()) });
    }
    if instance.can_unload {
        rows.push(Row::Item { text: "Unload".into(), action: Action::Unload(instance.id.clone()) });
    }
    Row::Submenu { text: format!("{}  {}", elided(&instance.id, NAME), tidy(&words.join(" · "))), rows }
}

/// Opens groups into the menu itself, the best fitting first, as long as there is room for all:
/// who has a handful of models sees them at a glance.
fn opened(groups: Vec<Row>, room: usize) -> Vec<Row> {
    let mut left = room.saturating_sub(groups.len());
    let mut opened = Vec::new();
    for group in groups {
        match group {
            Row::Submenu { text, rows } if rows.len() <= left => {
                left -= rows.len();
                opened.push(Row::Text(text));
                opened.extend(rows);
            }
            closed => opened.push(closed),
        }
    }
    opened
}

/// Returns the rows of RAM and GPUs, the GPUs behind one row where there is no room for each.
fn machine_rows(report: &Report, room: usize) -> Vec<Row> {
    let lines = machine_lines(report);
    let (memory, gpus) = lines.split_at(1);
    let mut rows: Vec<Row> = memory.iter().cloned().map(Row::Text).collect();
    if gpus.len() <= GPU_ROWS && rows.len() + gpus.len() <= room {
        rows.extend(gpus.iter().cloned().map(Row::Text));
    } else {
        let text = format!("GPUs ({})", gpus.len());
        rows.push(Row::Submenu { text, rows: limited(gpus, |line| Row::Text(line.clone()), "fitwatch status") });
    }
    rows
}

/// Returns what the machine has and what of it is used: RAM first, then every GPU.
pub(super) fn machine_lines(report: &Report) -> Vec<String> {
    let machine = &report.machine;
    let memory = match &machine.memory {
        Reading::Pending => "RAM: not read yet".into(),
        Reading::Fresh { value } | Reading::Stale { value, .. } => {
            let used = value.total.saturating_sub(value.available);
            format!("RAM: {}", usage(used, value.total))
        }
        Reading::Unavailable { reason } => format!("RAM unknown: {}", elided(reason, REASON)),
    };
    let mut lines = vec![memory];
    lines.extend(machine.devices.iter().map(device_line));
    lines.extend(machine.unknown.iter().map(|gpu| unknown_line(&gpu.name, &gpu.reason)));
    if lines.len() == 1 && machine.memory != Reading::Pending {
        lines.push("GPU: none found".into());
    }
    lines
}

/// Returns the line that says that something does not work.
pub(super) fn problem_line(report: &Report) -> Option<String> {
    match report.problems.as_slice() {
        [] => None,
        [problem] => Some(format!("Problem with {}: run fitwatch doctor", tidy(&problem.part))),
        several => Some(format!("{} problems: run fitwatch doctor", several.len())),
    }
}

/// Returns what is known about a model besides its name. A quantisation that the name tells already
/// is not told twice.
fn model_words(model: &ModelReport) -> String {
    let name = model.name.to_lowercase();
    let quantisation = model.quantisation.iter().map(|quantisation| tidy(quantisation));
    let mut words: Vec<String> =
        quantisation.filter(|quantisation| !name.contains(&quantisation.to_lowercase())).collect();
    words.push(model.bytes.to_string());
    words.extend(state_words(model));
    words.join(" · ")
}

/// Returns the models, a submenu for each group that has any.
fn groups(report: &Report) -> Vec<Row> {
    let mut groups: BTreeMap<Group, Vec<&ModelReport>> = BTreeMap::new();
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for model in &report.models {
        groups.entry(Group::of(model)).or_default().push(model);
        *names.entry(&model.name).or_default() += 1;
    }
    let row = |model: &ModelReport| {
        let name = match &model.publisher {
            // Two models of one name are told apart by who published them.
            Some(publisher) if names[model.name.as_str()] > 1 => format!("{publisher}/{}", model.name),
            _ => model.name.clone(),
        };
        let text = format!("{}  {}", elided(&name, NAME), model_words(model));
        Row::Item { text, action: Action::ShowModel(model.id.clone()) }
    };
    groups
        .into_iter()
        .map(|(group, mut models)| {
            models.sort_by_cached_key(|model| (model.name.to_lowercase(), &model.id));
            Row::Submenu {
                text: format!("{} ({})", group.label(), models.len()),
                rows: limited(&models, |model| row(model), "fitwatch list"),
            }
        })
        .collect()
}

/// Returns the rows that do something.
fn commands(report: &Report) -> Vec<Row> {
    let item = |text: &str, action| Row::Item { text: text.into(), action };
    let minutes = |minutes: u64| Action::Pause(Duration::from_secs(minutes * 60));
    let alerts = match report.alerts.paused_for {
        Some(span) => item(&format!("Resume alerts, paused for {span}"), Action::Resume),
        None => Row::Submenu {
            text: "Pause alerts".into(),
            rows: vec![item("15 minutes", minutes(15)), item("1 hour", minutes(60)), item("8 hours", minutes(8 * 60))],
        },
    };
    vec![
        Row::Separator,
        alerts,
        item("Re-check now", Action::Recheck),
        item("Settings file", Action::OpenSettings),
        item("Log", Action::OpenLog),
        item("About", Action::About),
        item("Quit", Action::Quit),
    ]
}

/// Returns at most [`ROWS`] rows, the last of which says how many are left out and who shows them.
fn limited<T>(things: &[T], row: impl Fn(&T) -> Row, command: &str) -> Vec<Row> {
    if things.len() <= ROWS {
        return things.iter().map(row).collect();
    }
    let (shown, left_out) = things.split_at(ROWS - 1);
    let overflow = format!("and {} more: run {command}", left_out.len());
    shown.iter().map(row).chain([Row::Text(overflow)]).collect()
}

/// A group of models in the menu, in the menu's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Judged(Verdict),
    Downloading,
    Unreadable,
    NotJudged,
}

impl Group {
    fn of(model: &ModelReport) -> Group {
        match &model.state {
            StateReport::Downloading | StateReport::Incomplete { .. } => Group::Downloading,
            StateReport::Unreadable { .. } => Group::Unreadable,
            StateReport::Reading | StateReport::NotJudged { .. } => Group::NotJudged,
            StateReport::Judged => match verdict(model) {
                Some(Verdict::Unknown) | None => Group::NotJudged,
                Some(verdict) => Group::Judged(verdict),
            },
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Group::Judged(verdict) => verdict.label(),
            Group::Downloading => "Downloading or incomplete",
            Group::Unreadable => "Unreadable",
            Group::NotJudged => "Not judged",
        }
    }
}

/// Returns the words for a model's state.
fn state_words(model: &ModelReport) -> Vec<String> {
    match &model.state {
        StateReport::Judged => match &model.fit {
            Some(fit) => fit_words(fit),
            None => vec!["not judged yet".into()],
        },
        StateReport::Downloading => vec!["downloading".into()],
        StateReport::Incomplete { missing } => vec![format!("{} missing", counted(missing.len(), "part"))],
        StateReport::Reading => vec!["reading its header".into()],
        StateReport::Unreadable { reason } | StateReport::NotJudged { reason } => vec![elided(reason, REASON)],
    }
}

/// Returns what a fit comes to now and, where that differs, at this machine's best.
fn fit_words(fit: &Fit) -> Vec<String> {
    let mut words = vec![outcome(&fit.now)];
    if let Some(without) = without_words(fit) {
        words.push(without);
    } else if fit.machine.verdict < fit.now.verdict {
        let pool = short_device(&fit.now.binding);
        words.push(match fit.machine.verdict {
            Verdict::FullGpu if fit.now.verdict == Verdict::PartialGpu => format!("fits fully when {pool} is free"),
            Verdict::FullGpu | Verdict::CpuOnly => format!("fits when {pool} is free"),
            Verdict::PartialGpu => format!("fits partly when {pool} is free"),
            Verdict::TooLarge => "too large for this machine".into(),
            Verdict::Unknown => "not known yet".into(),
        });
    }
    words
}

/// Returns how a fit gets better without loaded models: `fits fully without qwen3-8b`.
fn without_words(fit: &Fit) -> Option<String> {
    let unloaded = fit.if_unloaded.as_ref()?;
    let fits = match unloaded.verdict {
        Verdict::FullGpu => "fits fully",
        Verdict::PartialGpu => "fits partly",
        Verdict::CpuOnly | Verdict::TooLarge | Verdict::Unknown => "fits",
    };
    let (first, more) = unloaded.instances.split_first()?;
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    Some(format!("{fits} without {}{more}", elided(first, SHORT_NAME)))
}

/// Returns the line of a GPU.
fn device_line(device: &Device) -> String {
    let name = short_device(&device.name);
    let used = |memory: &DeviceMemory| usage(memory.total.saturating_sub(memory.free), memory.total);
    match &device.memory {
        Reading::Pending => format!("{name}: not read yet"),
        Reading::Fresh { value } => format!("{name}: {}", used(value)),
        Reading::Stale { value, reason, .. } => format!("{name}: {} ({})", used(value), elided(reason, REASON)),
        Reading::Unavailable { reason } => unknown_line(&device.name, reason),
    }
}

fn unknown_line(name: &str, reason: &str) -> String {
    format!("GPU memory unknown: {} ({})", short_device(name), elided(reason, REASON))
}

/// Returns used and total bytes in one unit: `9.1 of 25.8 GB used`.
fn usage(used: Bytes, total: Bytes) -> String {
    const GIGABYTE: f64 = 1e9;
    format!("{:.1} of {:.1} GB used", used.0 as f64 / GIGABYTE, total.0 as f64 / GIGABYTE)
}
