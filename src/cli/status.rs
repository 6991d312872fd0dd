//! `fitwatch status` and `recheck`: how the machine and the library stand, in a few lines.

use std::collections::BTreeMap;

use super::args::Format;
use super::ask;
use super::exit::Exit;
use super::facts::Facts;
use super::failure::Failure;
use super::print::{columns, print, print_json};
use super::text::{safe, safe_path};
use super::words;
use crate::engine::Request;
use crate::fit::Verdict;
use crate::library::RootState;
use crate::report::{Report, RootReport};

/// Runs the command; `request` is answered by a report.
pub(super) fn run(request: &Request, format: Format) -> Result<Exit, Failure> {
    let report = ask::report(request)?;
    if format.json {
        print_json(&report)?;
    } else {
        print(&render(&report, columns()))?;
    }
    Ok(Exit::Yes)
}

/// Returns the report in a few lines.
pub(super) fn render(report: &Report, columns: Option<usize>) -> String {
    let mut facts = Facts::new(columns);
    let version = safe(&report.version);
    let state = if report.live { "is running" } else { "is not running: this is from a single scan" };
    facts.heading(&format!("fitwatch {version} {state}"));
    words::loaded(&mut facts, report);
    facts.fact("models", &models(report));
    facts.fact("RAM", &words::memory(&report.machine.memory));
    for gpu in &report.machine.devices {
        facts.fact("GPU", &format!("{}: {}", safe(&gpu.name), words::device(gpu)));
    }
    for gpu in &report.machine.unknown {
        facts.fact("GPU", &format!("{}: memory unknown: {}", safe(&gpu.name), safe(&gpu.reason)));
    }
    if report.machine.devices.is_empty() && report.machine.unknown.is_empty() {
        facts.fact("GPU", "none was found");
    }
    for root in &report.library.roots {
        facts.fact("folder", &folder(root, report.live));
    }
    if !report.library.home_exists {
        facts.fact("LM Studio", &lm_studio_missing(report));
    } else if let Some(backend) = &report.lm_studio {
        facts.fact("LM Studio", &words::backend(backend));
    }
    if let Some(span) = report.alerts.paused_for {
        facts.fact("alerts", &format!("paused for {span}"));
    }
    for problem in &report.problems {
        facts.fact("problem", &format!("{}: {}", safe(&problem.part), safe(&problem.message)));
        if let Some(hint) = &problem.hint {
            facts.fact("", &safe(hint));
        }
    }
    facts.text
}

/// Says that LM Studio is not there, and where it was looked for.
pub(super) fn lm_studio_missing(report: &Report) -> String {
    match &report.library.home {
        Some(home) => format!("not found; fitwatch looked at {}", safe_path(&home.path)),
        None => "not found".into(),
    }
}

/// Returns a folder with its state and, where anybody watches it, how.
pub(super) fn folder(root: &RootReport, is_live: bool) -> String {
    let path = safe_path(&root.root.path);
    match &root.state {
        RootState::Pending => format!("{path} (not read yet)"),
        RootState::Present if !is_live => path,
        RootState::Missing if !is_live => format!("{path} (not there)"),
        RootState::Present => format!("{path} ({})", safe(&root.watch)),
        RootState::Missing => format!("{path} (not there; it is watched for)"),
        RootState::Unreadable { reason } => format!("{path} (unreadable: {})", safe(reason)),
    }
}

/// Returns how many models have which verdict.
fn models(report: &Report) -> String {
    let mut verdicts: BTreeMap<Verdict, usize> = BTreeMap::new();
    for fit in report.models.iter().filter_map(|model| model.fit.as_ref()) {
        *verdicts.entry(fit.now.verdict).or_default() += 1;
    }
    let judged: usize = verdicts.values().sum();
    let mut parts: Vec<String> =
        verdicts.iter().map(|(verdict, number)| format!("{number} {}", words::short(*verdict))).collect();
    if judged < report.models.len() {
        parts.push(format!("{} without a verdict", report.models.len() - judged));
    }
    let busy = if report.library.busy { " (still reading)" } else { "" };
    match report.models.len() {
        0 => format!("none was found{busy}"),
        number => format!("{number}: {}{busy}", parts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::example;
    use crate::lmstudio::{Activity, Program, RunningBackend, Whereabouts};
    use crate::report::{Problem, example_instance};
    use crate::units::Span;

    #[test]
    fn a_status_reads_like_this() {
        let mut report = example::report();
        report.alerts.paused_for = Some(Span::minutes(25));
        let hint = Some("start one".into());
        report.problems.push(Problem { part: "tray".into(), message: "no tray host".into(), hint });
        assert_eq!(
            anstream::adapter::strip_str(&render(&report, None)).to_string(),
            "\
fitwatch 0.1.0 is running
models           4: 2 full GPU, 1 too large, 1 without a verdict
RAM              21.0 of 33.5 GB available
GPU              RTX 4090: 22.1 of 25.8 GB free
folder           /home/user/.lmstudio/models (notifications)
alerts           paused for 25 min
problem          tray: no tray host
                 start one
"
        );
    }

    #[test]
    fn loaded_models_stand_first() {
        let mut report = example::report();
        let mut remote = example_instance();
        remote.id = "gpt-oss-120b".into();
        remote.whereabouts = Whereabouts::Elsewhere("c0ffee".into());
        (remote.settings, remote.needs, remote.estimate, remote.ttl) = (None, Vec::new(), None, None);
        remote.activity = Some(Activity::Generating);
        report.loaded = vec![example_instance(), remote];
        report.loaded_unknown = Some("LM Studio requires an API token".into());
        report.lm_studio = Some(RunningBackend {
            program: Program::Llmster,
            version: Some("0.4.25".into()),
            internal_port: Some(41_343),
            ..RunningBackend::default()
        });
        let text = anstream::adapter::strip_str(&render(&report, None)).to_string();
        let loaded = "\
fitwatch 0.1.0 is running
loaded           zephyr: context 16384, 4 at a time; 7.1 GB of RTX 4090 and 410 MB of RAM; idle for 3 min
                 LM Studio estimates 9.9 GB, with little confidence
                 LM Studio unloads it after 1 h without use
loaded           gpt-oss-120b: on another machine; generating
loaded           not known: LM Studio requires an API token
models ";
        assert!(text.starts_with(loaded), "{text}");
        assert!(text.contains("LM Studio        runs (llmster 0.4.25, port 41343)\n"), "{text}");
    }

    #[test]
    fn a_single_scan_does_not_claim_to_watch() {
        let mut report = example::report();
        report.live = false;
        let text = render(&report, None);
        assert!(text.contains("is not running: this is from a single scan"), "{text}");
        assert!(text.contains("models\n") && !text.contains("notifications"), "{text}");
    }
}
