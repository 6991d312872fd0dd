//! Facts under each other, the way `show`, `status` and `estimate` set them.

use std::fmt::Write as _;

use super::text::{safe, thousands, wrap};
use super::{bill, words};
use crate::fit::{Advice, Fit, Judgement, Verdict};
use crate::lmstudio::{SettingsBasis, SettingsFor};
use crate::memory::Bill;
use crate::units::Bytes;

/// Facts as text.
#[derive(Debug)]
pub(super) struct Facts {
    /// The text so far.
    pub(super) text: String,
    columns: Option<usize>,
}

/// The column at which facts begin.
const INDENT: usize = 17;

impl Facts {
    /// Returns no facts, to be set for a terminal's width.
    pub(super) const fn new(columns: Option<usize>) -> Facts {
        Facts { text: String::new(), columns }
    }

    /// Adds a heading.
    pub(super) fn heading(&mut self, heading: &str) {
        let style = anstyle::Style::new().bold();
        let _ = writeln!(self.text, "{style}{heading}{style:#}");
    }

    /// Adds a fact under its name.
    pub(super) fn fact(&mut self, name: &str, fact: &str) {
        if !fact.is_empty() {
            let _ = writeln!(self.text, "{name:INDENT$}{}", wrap(fact, self.columns, INDENT));
        }
    }

    /// Adds the settings and where they come from.
    pub(super) fn settings(&mut self, settings: &SettingsFor) {
        let from = match settings.basis {
            SettingsBasis::Saved => "as saved in LM Studio",
            SettingsBasis::Defaults => "LM Studio's defaults",
            SettingsBasis::Given => "as given",
            SettingsBasis::CommandLine => "as its engine was asked",
            SettingsBasis::LoadConfig => "as LM Studio loaded it",
            SettingsBasis::Rest => "as far as LM Studio tells",
        };
        self.fact("settings", &format!("{} ({from})", words::settings(&settings.settings)));
    }

    /// Adds a bill between empty lines, with how it was drawn up above it.
    pub(super) fn bill(&mut self, bill: &Bill, gpus: &[String]) {
        let layers = &bill.placement;
        let profile = bill.profile.replace('@', " of llama.cpp build ");
        let engine = format!("{profile}, {} of {} layers on GPUs", layers.gpu_layers, layers.layers);
        self.fact("engine", &safe(&engine));
        let _ = writeln!(self.text, "\n{}", bill::render(bill, gpus, self.columns));
    }

    /// Adds both verdicts, or one where they are the same.
    pub(super) fn verdicts(&mut self, fit: &Fit) {
        if fit.now.verdict == fit.machine.verdict {
            self.verdict("verdict", &fit.now);
        } else {
            self.verdict("right now", &fit.now);
            self.verdict("on this machine", &fit.machine);
        }
        if let Some(context) = fit.largest_context {
            self.fact("up to", &format!("a context of {} tokens fits fully right now", thousands(context.into())));
        }
        if let Some(unloaded) = &fit.if_unloaded {
            let (label, spare) = (unloaded.verdict.label(), Bytes(unloaded.spare.unsigned_abs()));
            let margin = if unloaded.spare < 0 { "short" } else { "spare" };
            let without = unloaded.instances.join(" and ");
            self.fact("without", &safe(&format!("{without}: {label}, {spare} {margin}")));
        }
        if let Some(caveat) = &fit.now.caveat {
            self.fact("but", &safe(caveat));
        }
    }

    /// Adds one verdict with its margin and pools.
    pub(super) fn verdict(&mut self, name: &str, judgement: &Judgement) {
        let margin = words::margin(judgement);
        let goal = if judgement.verdict == Verdict::PartialGpu { " of full offload" } else { "" };
        let margin = match judgement.spare {
            _ if margin.is_empty() => margin,
            ..0 => format!(": {margin}{goal} in {}", safe(&judgement.binding)),
            0.. => format!(": {margin} in {}", safe(&judgement.binding)),
        };
        let placement = words::placement(judgement).map(|words| format!(" ({words})")).unwrap_or_default();
        // A coloured word is not counted when wrapping, so the line is set as it is.
        let _ = writeln!(self.text, "{name:INDENT$}{}{placement}{margin}", words::coloured(judgement.verdict));
        for pool in &judgement.pools {
            let words = format!("{}: needs {}", safe(&pool.name), words::of(pool.need, pool.available));
            let _ = writeln!(self.text, "{:INDENT$}  {words} to be had", "");
        }
    }

    /// Adds what would help.
    pub(super) fn advice(&mut self, advice: &[Advice]) {
        self.points("What would help", advice.iter().map(|advice| &advice.text));
    }

    /// Adds points under a heading, each on a line of its own, repeated ones once.
    pub(super) fn points<'a>(&mut self, heading: &str, points: impl IntoIterator<Item = &'a String>) {
        let mut seen: Vec<&str> = Vec::new();
        for point in points {
            if seen.contains(&point.as_str()) {
                continue;
            }
            if seen.is_empty() {
                let _ = writeln!(self.text, "\n{heading}");
            }
            seen.push(point);
            let _ = writeln!(self.text, "  - {}", wrap(&safe(point), self.columns, 4));
        }
    }
}
