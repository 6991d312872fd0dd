//! `fitwatch list`: the models, what they need and whether they fit.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::args::ListArguments;
use super::ask;
use super::exit::Exit;
use super::facts::Facts;
use super::failure::Failure;
use super::print::{columns, print, print_json};
use super::table::{Cell, Column, Table};
use super::text::{safe, safe_path, thousands, wrap};
use super::words;
use crate::engine::Request;
use crate::fit::{Judgement, Verdict};
use crate::library::RootState;
use crate::machine::Picture;
use crate::report::{InstanceReport, LibraryReport, ModelReport, Report, SCHEMA};

/// The JSON form of a list.
#[derive(Debug, Serialize)]
struct ListForm<'a> {
    schema: u32,
    live: bool,
    loaded: &'a [InstanceReport],
    models: Vec<&'a ModelReport>,
    machine: &'a Picture,
    library: &'a LibraryReport,
}

/// Runs the command.
pub(super) fn run(arguments: &ListArguments) -> Result<Exit, Failure> {
    let report = ask::report(&Request::Report)?;
    let models = chosen(&report, arguments);
    if arguments.format.json {
        let (machine, library) = (&report.machine, &report.library);
        let loaded = &report.loaded;
        print_json(&ListForm { schema: SCHEMA, live: report.live, loaded, models: models.clone(), machine, library })?;
    } else {
        print(&render(&report, &models, columns()))?;
    }
    Ok(if models.is_empty() { Exit::NotFound } else { Exit::Yes })
}

/// Returns the models that were asked for, by verdict and name.
fn chosen<'a>(report: &'a Report, arguments: &ListArguments) -> Vec<&'a ModelReport> {
    let words: Vec<String> = arguments.words.iter().map(|word| word.to_lowercase()).collect();
    let is_meant = |model: &&ModelReport| {
        let parts = [Some(model.id.0.as_str()), Some(&model.name), model.architecture.as_deref()];
        let text = parts.into_iter().chain([model.quantisation.as_deref()]).flatten().collect::<Vec<_>>().join(" ");
        let text = text.to_lowercase();
        let verdicts = &arguments.verdict;
        words.iter().all(|word| text.contains(word))
            && (verdicts.is_empty()
                || verdict(model).is_some_and(|verdict| verdicts.iter().any(|name| name.verdict() == verdict)))
    };
    let mut models: Vec<&ModelReport> = report.models.iter().filter(is_meant).collect();
    models.sort_by_cached_key(|model| {
        let verdict = verdict(model);
        (Reverse(verdict.is_some()), verdict, model.name.to_lowercase(), &model.id)
    });
    models
}

fn verdict(model: &ModelReport) -> Option<Verdict> {
    model.fit.as_ref().map(|fit| fit.now.verdict)
}

/// Returns the list as text.
fn render(report: &Report, models: &[&ModelReport], columns: Option<usize>) -> String {
    let mut facts = Facts::new(columns);
    words::loaded(&mut facts, report);
    if !facts.text.is_empty() {
        facts.text.push('\n');
    }
    let mut text = facts.text;
    if report.models.is_empty() {
        text.push_str(&nowhere(report));
    } else if models.is_empty() {
        let _ = writeln!(text, "None of {} matches.", words::count(report.models.len(), "model"));
    } else {
        text.push_str(&table(models).render(columns));
    }
    text.push('\n');
    text.push_str(&wrap(&words::machine(&report.machine), columns, 2));
    text.push('\n');
    let caveats: Vec<&str> =
        models.iter().filter_map(|model| model.fit.as_ref()).filter_map(|fit| fit.now.caveat.as_deref()).collect();
    if let Some(caveat) = caveats.first().filter(|first| caveats.iter().all(|caveat| caveat == *first)) {
        text.push_str(&wrap(&safe(caveat), columns, 2));
        text.push('\n');
    }
    text
}

/// Says where no model was found.
fn nowhere(report: &Report) -> String {
    let mut text = String::from("No model was found. fitwatch looked here:\n");
    for root in &report.library.roots {
        let state = match &root.state {
            RootState::Pending => "not read yet".into(),
            RootState::Present => "no model in it".into(),
            RootState::Missing => "not there".into(),
            RootState::Unreadable { reason } => format!("unreadable: {}", safe(reason)),
        };
        text.extend(["  ", &safe_path(&root.root.path), " (", &state, ")\n"]);
    }
    if report.library.roots.is_empty() {
        text.push_str("  nowhere: LM Studio's home is not known\n");
    }
    if !report.library.home_exists {
        text.push_str("LM Studio was not found. Other folders can be named under [library] in the config file.\n");
    }
    text
}

/// Where the columns that come and go stand.
const GPU: usize = 3;
const AFTER_VERDICT: usize = 6;

fn table(models: &[&ModelReport]) -> Table {
    let mut namesakes: BTreeMap<&str, usize> = BTreeMap::new();
    for model in models {
        *namesakes.entry(&model.name).or_default() += 1;
    }
    let differs = |model: &ModelReport| model.fit.as_ref().is_some_and(|fit| fit.now.verdict != fit.machine.verdict);
    let is_busy = models.iter().any(|model| differs(model));
    let uses_gpus = models.iter().filter_map(|model| model.fit.as_ref()).any(|fit| words::needs(&fit.now).0.0 > 0);
    let mut columns = vec![
        Column::left("MODEL").elastic(),
        Column::left("QUANT").leaves(3),
        Column::right("SIZE").leaves(2),
        Column::right("GPU").leaves(4),
        Column::right("RAM").leaves(4),
        Column::left(if is_busy { "RIGHT NOW" } else { "VERDICT" }),
        Column::right("MARGIN").leaves(1),
        Column::right("CONTEXT").leaves(5),
        Column::right("UP TO").leaves(6),
    ];
    if is_busy {
        columns.insert(AFTER_VERDICT, Column::left("ON THIS MACHINE").leaves(5));
    }
    if !uses_gpus {
        columns.remove(GPU);
    }
    let mut table = Table::new(columns);
    for model in models {
        let name = if namesakes[model.name.as_str()] > 1 { &model.id.0 } else { &model.name };
        let quantisation = model.quantisation.as_deref().map(safe).unwrap_or_default();
        let mut cells = vec![Cell::from(safe(name)), Cell::from(quantisation), Cell::from(model.bytes.to_string())];
        cells.extend(judged(model));
        if is_busy {
            let best = model.fit.as_ref().filter(|_| differs(model)).map(|fit| fit.machine.verdict);
            cells.insert(AFTER_VERDICT, best.map(|best| Cell::from(words::short(best))).unwrap_or_default());
        }
        if !uses_gpus {
            cells.remove(GPU);
        }
        table.row(cells);
    }
    table
}

/// Returns the cells from the needs on.
fn judged(model: &ModelReport) -> [Cell; 6] {
    let Some(fit) = &model.fit else {
        let state = words::state(model);
        let first = state.split(':').next().unwrap_or_default().to_owned();
        let state = Cell::from(state).or_short(first).styled(words::colour(Verdict::Unknown));
        return [Cell::default(), Cell::default(), state, Cell::default(), Cell::default(), Cell::default()];
    };
    let (gpu, ram) = words::needs(&fit.now);
    let verdict = fit.now.verdict;
    let gpu = if gpu.0 == 0 { "–".into() } else { gpu.to_string() };
    let context = model.settings.as_ref().map(|settings| match settings.settings.context {
        0 => model.context_train.unwrap_or(0),
        context => context,
    });
    let tokens = |tokens: Option<u32>| tokens.map(|tokens| thousands(tokens.into())).unwrap_or_default();
    [
        Cell::from(gpu),
        Cell::from(ram.to_string()),
        words_of(&fit.now).styled(words::colour(verdict)),
        margin(&fit.now),
        Cell::from(tokens(context)),
        Cell::from(tokens(fit.largest_context)),
    ]
}

/// Returns the verdict, of a split model with how it is split.
fn words_of(judgement: &Judgement) -> Cell {
    let verdict = judgement.verdict;
    let (long, short) = (verdict.label(), words::short(verdict));
    if verdict != Verdict::PartialGpu {
        return Cell::from(long).or_short(short);
    }
    let layers = (judgement.gpu_layers, judgement.layers);
    match judgement.cpu_moe {
        0 => Cell::from(format!("{long} ({} of {} layers)", layers.0, layers.1))
            .or_short(format!("{short} {}/{}", layers.0, layers.1)),
        blocks => {
            let experts = format!("experts of {} in RAM", words::count(blocks as usize, "block"));
            let layers = if layers.0 < layers.1 { format!("{}/{}, ", layers.0, layers.1) } else { String::new() };
            Cell::from(format!("{long} ({layers}{experts})")).or_short(format!("{short}, experts"))
        }
    }
}

/// Returns the margin; what is missing for full offload is named as that.
fn margin(judgement: &Judgement) -> Cell {
    let margin = words::margin(judgement);
    match judgement.verdict {
        Verdict::PartialGpu if judgement.spare < 0 => Cell::from(format!("{margin} of full")).or_short(margin),
        _ => Cell::from(margin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::VerdictName;
    use crate::cli::example;

    #[test]
    fn the_best_verdict_comes_first_then_the_name() {
        let report = example::report();
        assert_eq!(names(&report, &ListArguments::default()), ["alpaca", "zephyr", "huge", "new"]);
    }

    #[test]
    fn words_and_verdicts_narrow_the_list() {
        let report = example::report();
        let words = |words: &[&str]| ListArguments {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            ..ListArguments::default()
        };
        assert_eq!(names(&report, &words(&["ZEPH", "q4"])), ["zephyr"]);
        assert_eq!(names(&report, &words(&["zeph", "huge"])), [""; 0]);
        let too_large = ListArguments { verdict: vec![VerdictName::TooLarge], ..ListArguments::default() };
        assert_eq!(names(&report, &too_large), ["huge"]);
    }

    #[test]
    fn a_list_reads_like_this() {
        assert_eq!(
            list(&example::report(), None),
            "\
MODEL   QUANT      SIZE     GPU     RAM  RIGHT NOW                  ON THIS MACHINE         MARGIN  CONTEXT   UP TO
alpaca  Q4_K_M   4.0 GB  5.9 GB  390 MB  Full GPU offload possible                   16.0 GB spare    4,096  32,768
zephyr  Q4_K_M   5.0 GB  5.9 GB  390 MB  Full GPU offload possible                   15.2 GB spare    4,096  32,768
huge    Q4_K_M  50.0 GB  5.9 GB  390 MB  Likely too large           partial GPU       2.9 GB short    4,096
new              1.0 GB                  downloading

RAM 21.0 of 33.5 GB available · RTX 4090 22.1 of 25.8 GB free
"
        );
    }

    #[test]
    fn a_split_model_says_how_it_is_split_and_what_is_missing_for_full_offload() {
        let mut report = example::report();
        report.models.retain(|model| model.name == "huge");
        let mut row = |layers: u32, blocks: u32, columns| {
            let mut fit = example::fit(Verdict::PartialGpu, Verdict::PartialGpu, -2_900_000_000);
            (fit.now.gpu_layers, fit.now.layers, fit.now.cpu_moe) = (layers, 33, blocks);
            report.models[0].fit = Some(fit);
            list(&report, columns).lines().nth(1).unwrap_or_default().to_owned()
        };
        let split = row(20, 0, None);
        assert!(split.contains("Partial GPU offload possible (20 of 33 layers)  2.9 GB short of full"), "{split}");
        assert!(row(33, 1, None).contains("possible (experts of 1 block in RAM)"));
        assert!(row(20, 8, None).contains("possible (20/33, experts of 8 blocks in RAM)"));
        assert!(row(20, 0, Some(70)).contains("partial GPU 20/33  2.9 GB short"), "{}", row(20, 0, Some(70)));
    }

    #[test]
    fn a_narrow_list_keeps_model_and_verdict() {
        let text = list(&example::report(), Some(30));
        assert!(text.starts_with("MODEL   RIGHT NOW\nalpaca  full GPU\n"), "{text}");
    }

    #[test]
    fn columns_that_say_nothing_are_left_out() {
        let mut report = example::report();
        report.models.retain(|model| model.name == "new");
        let text = list(&report, None);
        assert!(!text.contains("GPU  ") && !text.contains("MACHINE"), "{text}");
    }

    #[test]
    fn namesakes_are_told_apart_by_their_ids() {
        let mut report = example::report();
        report.models[1].name = "alpaca".into();
        let text = list(&report, None);
        assert!(text.contains("publisher/alpaca-GGUF/alpaca.gguf"), "{text}");
        assert!(text.contains("publisher/zephyr-GGUF/zephyr.gguf"), "{text}");
    }

    #[test]
    fn a_hostile_name_cannot_write_to_the_terminal() {
        let mut report = example::report();
        report.models[1].name = "evil\u{1b}[2J\u{202e}\nname".into();
        report.models[1].quantisation = Some("Q\u{7}".into());
        let text = list(&report, None);
        assert!(text.contains(r"evil\u{1b}[2J\u{202e}\u{a}name"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
    }

    #[test]
    fn an_empty_list_says_where_it_looked() {
        let mut report = example::report();
        report.models.clear();
        report.library.home_exists = false;
        report.library.roots[0].state = RootState::Missing;
        let text = list(&report, None);
        assert!(text.contains("/home/user/.lmstudio/models (not there)"), "{text}");
        assert!(text.contains("LM Studio was not found"), "{text}");
    }

    fn names(report: &Report, arguments: &ListArguments) -> Vec<String> {
        chosen(report, arguments).into_iter().map(|model| model.name.clone()).collect()
    }

    fn list(report: &Report, columns: Option<usize>) -> String {
        let text = render(report, &chosen(report, &ListArguments::default()), columns);
        anstream::adapter::strip_str(&text).to_string()
    }
}
