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
    if let Some(mode) = detail.guardrail.as_deref().filter(|mode| *mode != "OFF") {
        facts.fact("guardrail", &format!("LM Studio's own is {}: it may refuse to load what fits", safe(mode)));
    }
    facts.advice(&detail.advice);
    let assumptions = model.settings.iter().flat_map(|settings| &settings.assumptions);
    facts.points("Assumed", assumptions.chain(detail.bill.iter().flat_map(|bill| &bill.assumptions)));
    facts.points("Notes", &model.notes);
    facts.text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::example;
    use crate::fit::Verdict;

    #[test]
    fn a_model_reads_like_this() {
        let text = render(&example::detail(), None);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "\
zephyr
id               publisher/zephyr-GGUF/zephyr.gguf
file             /models/publisher/zephyr-GGUF/zephyr.gguf (5.0 GB, 5,000,000,000 bytes)
model            llama, language model, 7.2 B parameters, Q4_K_M, trained for 32,768 tokens
settings         context 4,096, all layers on GPUs, K f16 V f16, batch 512/512, 4 slots with one cache (as saved in LM Studio)
engine           server, 33 of 33 layers on GPUs

RTX 4090
  weights            4.7 GB  4,671,766,528  exact
  compute buffer     113 MB    113,264,656  formula
  back-end overhead  472 MB    471,859,200  guess
  total              5.3 GB  5,256,890,384
RAM
  weights            350 MB    350,060,544  exact
  total              350 MB    350,060,544
all together         5.6 GB  5,606,950,928

verdict          Full GPU offload possible: 15.2 GB spare in RTX 4090
                   RTX 4090: needs 5.9 of 21.1 GB to be had
                   RAM: needs 390 MB of 19.0 GB to be had
up to            a context of 32,768 tokens fits fully right now
guardrail        LM Studio's own is Strict: it may refuse to load what fits

What would help
  - close the game

Assumed
  - cuda takes about 472 MB
"
        );
    }

    #[test]
    fn both_verdicts_are_shown_where_they_differ() {
        let mut detail = example::detail();
        detail.model.fit = Some(example::fit(Verdict::TooLarge, Verdict::FullGpu, -1));
        let text = anstream::adapter::strip_str(&render(&detail, None)).to_string();
        assert!(text.contains("right now        Likely too large: 1 B short in RTX 4090"), "{text}");
        assert!(text.contains("on this machine  Full GPU offload possible"), "{text}");
    }

    #[test]
    fn the_exit_code_is_the_verdict() {
        let model = |now| example::model("a", 1, Some(example::fit(now, Verdict::FullGpu, 0)));
        assert_eq!(exit(&model(Verdict::FullGpu)), Exit::Yes);
        assert_eq!(exit(&model(Verdict::PartialGpu)), Exit::Partial);
        assert_eq!(exit(&model(Verdict::CpuOnly)), Exit::CpuOnly);
        assert_eq!(exit(&model(Verdict::TooLarge)), Exit::TooLarge);
        assert_eq!(exit(&example::model("a", 1, None)), Exit::Unknown);
        let mut broken = example::model("a", 1, None);
        broken.state = StateReport::Unreadable { reason: "cut".into() };
        assert_eq!(exit(&broken), Exit::Unreadable);
    }
}
