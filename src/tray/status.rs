//! How things stand, in an icon and a line.

use super::Icon;
use super::menu;
use crate::alerts::Notice;
use crate::alerts::text::{counted, elided};
use crate::fit::Verdict;
use crate::library::RootState;
use crate::machine::Reading;
use crate::report::{ModelReport, Report, StateReport};

/// Returns the state the icon shows.
pub(super) fn icon(report: &Report) -> Icon {
    if report.alerts.paused_for.is_some() {
        // What the user did themselves comes first: they look for its trace.
        return Icon::Paused;
    }
    if cannot_measure(report) {
        return Icon::CannotMeasure;
    }
    match report.models.iter().filter_map(verdict).min() {
        Some(Verdict::FullGpu | Verdict::CpuOnly) => Icon::Ready,
        Some(Verdict::PartialGpu) => Icon::Partly,
        Some(Verdict::TooLarge | Verdict::Unknown) | None => Icon::Empty,
    }
}

/// Returns the line a pointer over the icon shows.
pub(super) fn tooltip(report: &Report) -> String {
    let line = line(report);
    if report.alerts.paused_for.is_some() { format!("{line}, alerts paused") } else { line }
}

/// Returns how things stand in one line.
pub(super) fn line(report: &Report) -> String {
    let total = report.models.len();
    let reading = report.models.iter().filter(|model| model.state == StateReport::Reading).count();
    if total == 0 {
        return looking(report);
    }
    if reading > 0 {
        return format!("Reading headers: {} of {total} done", total - reading);
    }
    let verdicts: Vec<Verdict> = report.models.iter().filter_map(verdict).collect();
    let fitting = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::FullGpu | Verdict::CpuOnly)).count();
    let verb = if fitting == 1 { "fits" } else { "fit" };
    if verdicts.iter().all(|verdict| *verdict == Verdict::Unknown) {
        format!("{}, none judged yet", counted(total, "model"))
    } else if verdicts.iter().any(|verdict| matches!(verdict, Verdict::FullGpu | Verdict::PartialGpu)) {
        format!("{fitting} of {} {verb} fully", counted(total, "model"))
    } else {
        format!("{fitting} of {} {verb}", counted(total, "model"))
    }
}

/// Returns how things stand as a notice, for a click on the icon.
pub fn status_notice(report: &Report) -> Notice {
    let mut lines = menu::machine_lines(report);
    lines.extend(menu::problem_line(report));
    Notice { topic: "status".into(), title: elided(&line(report), 44), body: lines.join("\n") }
}

/// Returns the verdict for right now of a model that was judged.
pub(super) fn verdict(model: &ModelReport) -> Option<Verdict> {
    match &model.state {
        StateReport::Judged => Some(model.fit.as_ref().map_or(Verdict::Unknown, |fit| fit.now.verdict)),
        StateReport::Downloading
        | StateReport::Incomplete { .. }
        | StateReport::Reading
        | StateReport::Unreadable { .. }
        | StateReport::NotJudged { .. } => None,
    }
}

/// Returns whether a number that verdicts rest on cannot be had.
fn cannot_measure(report: &Report) -> bool {
    let machine = &report.machine;
    let is_gpu_unknown = if machine.devices.is_empty() {
        !machine.unknown.is_empty()
    } else {
        machine.devices.iter().any(|device| matches!(device.memory, Reading::Unavailable { .. }))
    };
    matches!(machine.memory, Reading::Unavailable { .. }) || is_gpu_unknown
}

/// Returns where models are looked for, while there are none.
fn looking(report: &Report) -> String {
    let library = &report.library;
    let Some(first) = library.roots.first() else {
        return "No models yet: looking for LM Studio".into();
    };
    let path = elided(&first.root.path.display().to_string(), 60);
    let more = match library.roots.len() - 1 {
        0 => String::new(),
        more => format!(" and {}", counted(more, "more folder")),
    };
    let missing = if first.state == RootState::Missing { " (not there yet)" } else { "" };
    if library.busy {
        format!("Looking for models in {path}{more}")
    } else {
        format!("No models yet: looking in {path}{missing}{more}")
    }
}
