//! `fitwatch show MODEL`: one model's bill line by line, its verdicts and what would help.

use std::path::Path;

use super::args::ShowArguments;
use super::exit::Exit;
use super::facts::Facts;
use super::failure::Failure;
use super::print::{columns, print, print_json};
use super::text::{safe, safe_path};
use super::{ask, words};
use crate::report::{Detail, ModelReport, StateReport};

/// Runs the command.
pub(super) fn run(arguments: &ShowArguments) -> Result<Exit, Failure> {
    let detail = ask::detail(meant(&arguments.model))?;
    if arguments.format.json {
        print_json(&detail)?;
    } else {
        print(&render(&detail, columns()))?;
    }
    Ok(exit(&detail.model))
}

/// Returns what is asked for; a path that exists is made whole, since the answer may come from
/// another process.
fn meant(model: &str) -> String {
    let path = Path::new(model);
    match std::path::absolute(path) {
        Ok(whole) if path.exists() => whole.to_string_lossy().into_owned(),
        _ => model.to_owned(),
    }
}

fn exit(model: &ModelReport) -> Exit {
    match (&model.fit, &model.state) {
        (Some(fit), _) => Exit::from(fit.now.verdict),
        (None, StateReport::Unreadable { .. } | StateReport::NotJudged { .. }) => Exit::Unreadable,
        (None, _) => Exit::Unknown,
    }
}

/// Returns the model in detail as text.
fn render(detail: &Detail, columns: Option<usize>) -> String {
    let model = &detail.model;
    let mut facts = Facts::new(columns);
    facts.heading(&safe(&model.name));
    facts.fact("id", &safe(&model.id.0));
    facts.fact("file", &words::files(&model.path, model.files, model.bytes));
    let (architecture, quantisation) = (model.architecture.as_deref(), model.quantisation.as_deref());
    facts.fact("model", &words::model(architecture, model.kind, model.parameters, quantisation, model.context_train));
    if let Some(projector) = &model.projector {
        facts.fact("projector", &safe_path(projector));
    }
    if let Some(settings) = &model.settings {
        facts.settings(settings);
    }
    if let Some(bill) = &detail.bill {
        facts.bill(bill, &detail.gpus);
    }
    match &model.fit {
        Some(fit) => facts.verdicts(fit),
        None => facts.fact("state", &words::state(model)),
    }
    facts.advice(&detail.advice);
    let assumptions = model.settings.iter().flat_map(|settings| &settings.assumptions);
    facts.points("Assumed", assumptions.chain(detail.bill.iter().flat_map(|bill| &bill.assumptions)));
    facts.points("Notes", &model.notes);
    facts.text
}
