//! `fitwatch doctor`: everything fitwatch depends on, what is wrong and what to do.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::args::Format;
use super::ask::places;
use super::exit::Exit;
use super::failure::Failure;
use super::print::{columns, print, print_json};
use super::status::{folder, lm_studio_missing};
use super::text::{safe, safe_path, wrap};
use super::{ask, words};
use crate::config::Parsed;
use crate::engine::Request;
use crate::host::config_file::{self, ReadError};
use crate::host::login::{Installed, Surroundings};
use crate::host::places::Places;
use crate::library::{Origin, RootState};
use crate::lmstudio::HomeBasis;
use crate::machine::Reading;
use crate::report::{Report, SCHEMA};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    /// Which part.
    part: String,
    /// How it stands.
    state: State,
    /// What was found.
    message: String,
    /// What to do, beginning with a verb.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// How a part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// As it should be.
    Ok,
    /// Worth knowing, nothing is wrong.
    Note,
    /// Wrong.
    Problem,
}

/// The JSON form.
#[derive(Debug, Serialize)]
struct DoctorForm {
    schema: u32,
    ok: bool,
    checks: Vec<Check>,
}

/// Runs the command.
pub(super) fn run(format: Format) -> Result<Exit, Failure> {
    let places = places()?;
    let config = config_file::read(&places.config);
    // That the models cannot be read must not hide what else there is to say.
    let report = ask::report(&Request::Report);
    let mut checks = checks(&places, &config, places.config.exists(), report.as_deref());
    checks.extend(Surroundings::find().map(|surroundings| login(&surroundings.installed())));
    let ok = checks.iter().all(|check| check.state != State::Problem);
    if format.json {
        print_json(&DoctorForm { schema: SCHEMA, ok, checks })?;
    } else {
        print(&render(&checks, columns()))?;
    }
    Ok(if ok { Exit::Yes } else { Exit::Unwell })
}

fn checks(
    places: &Places,
    config: &Result<Parsed, ReadError>,
    config_exists: bool,
    report: Result<&Report, &Failure>,
) -> Vec<Check> {
    let mut checks = vec![config_check(places, config, config_exists)];
    checks.push(Check::ok("logs", safe_path(&places.logs)));
    checks.push(Check::ok("state", safe_path(&places.state)));
    match report {
        Ok(report) => {
            checks.push(running(places, report));
            checks.push(lm_studio(report));
            checks.extend(folders(report));
            checks.extend(machine(report));
            checks.extend(problems(report));
        }
        Err(failure) => {
            let hint = failure.hint();
            checks.push(Check { hint, ..Check::new("models", State::Problem, failure.to_string()) });
        }
    }
    checks
}

impl Check {
    fn new(part: &str, state: State, message: String) -> Check {
        Check { part: part.to_owned(), state, message, hint: None }
    }

    fn ok(part: &str, message: String) -> Check {
        Check::new(part, State::Ok, message)
    }

    fn with_hint(self, hint: impl Into<String>) -> Check {
        Check { hint: Some(hint.into()), ..self }
    }
}

fn config_check(places: &Places, config: &Result<Parsed, ReadError>, exists: bool) -> Check {
    let path = safe_path(&places.config);
    match config {
        Err(error) => {
            let problem = error.problem();
            let message = safe(&problem.message).into_owned();
            Check { hint: problem.hint, ..Check::new("config", State::Problem, message) }
        }
        Ok(parsed) if !parsed.warnings.is_empty() => {
            let warnings = parsed.warnings.join("; ");
            Check::new("config", State::Problem, format!("{path}: {}", safe(&warnings)))
                .with_hint("correct the file; `fitwatch config check` checks it")
        }
        Ok(_) if exists => Check::ok("config", path),
        Ok(_) => Check::ok("config", format!("{path} (not there: the defaults are in force)")),
    }
}

fn running(places: &Places, report: &Report) -> Check {
    let socket = safe_path(&places.runtime);
    if report.live {
        return Check::ok("fitwatch", format!("{} is running, to be asked in {socket}", safe(&report.version)));
    }
    Check::new("fitwatch", State::Note, format!("not running (nobody answers in {socket})"))
        .with_hint("start it with `fitwatch`, or at every login with `fitwatch install`")
}

/// Returns how fitwatch is started at login.
fn login(installed: &[Installed]) -> Check {
    let Some(first) = installed.first() else {
        return Check::new("login", State::Note, "fitwatch does not start at login".into())
            .with_hint("run `fitwatch install`");
    };
    let message = format!("{} ({})", first.kind.label(), safe(&first.place));
    let program = first.program.as_deref().filter(|program| !Path::new(program).exists());
    match (installed.len(), program) {
        (1, None) => Check::ok("login", message),
        (1, Some(program)) => {
            let message = format!("{message} starts {}, which is not there", safe(program));
            Check::new("login", State::Problem, message).with_hint("run `fitwatch install` again")
        }
        (number, _) => Check::new("login", State::Problem, format!("fitwatch is started in {number} ways"))
            .with_hint("run `fitwatch install`: it keeps one"),
    }
}

fn lm_studio(report: &Report) -> Check {
    let library = &report.library;
    let Some(home) = library.home.as_ref().filter(|_| library.home_exists) else {
        return Check::new("LM Studio", State::Note, lm_studio_missing(report))
            .with_hint("set library.lm_studio_home in the config if it lies elsewhere");
    };
    let basis = match home.basis {
        HomeBasis::Config => "the config names it",
        HomeBasis::PointerFile => "its pointer file names it",
        HomeBasis::OldLayout => "the layout of old versions",
        HomeBasis::Default => "the default",
    };
    let guardrail = library.guardrail.as_deref().map(|mode| format!(", guardrail {}", safe(mode))).unwrap_or_default();
    let runs = match &report.lm_studio {
        Some(backend) => format!("; it {}", words::backend(backend)),
        None => "; it does not run".into(),
    };
    let message = format!("{} ({basis}{guardrail}){runs}", safe_path(&home.path));
    match &report.loaded_unknown {
        None => Check::ok("LM Studio", message),
        Some(reason) => Check::new("LM Studio", State::Note, format!("{message}; {}", safe(reason)))
            .with_hint("name a file with an API token as lm_studio.api_token_file in the config if it wants one"),
    }
}

fn folders(report: &Report) -> Vec<Check> {
    let check = |root: &crate::report::RootReport| {
        let (state, hint) = match (&root.state, root.root.origin) {
            (RootState::Present | RootState::Pending, _) => (State::Ok, None),
            (RootState::Missing, Origin::Config) => {
                (State::Problem, Some("correct library.extra_folders in the config"))
            }
            (RootState::Missing, Origin::LmStudio | Origin::Bundled) => (State::Note, None),
            (RootState::Unreadable { .. }, _) => (State::Problem, Some("make the folder readable for you")),
        };
        Check { hint: hint.map(str::to_owned), ..Check::new("folder", state, folder(root, report.live)) }
    };
    report.library.roots.iter().map(check).collect()
}

fn machine(report: &Report) -> Vec<Check> {
    let machine = &report.machine;
    let state = |is_known: bool| if is_known { State::Ok } else { State::Problem };
    let mut checks = vec![Check::new("RAM", state(machine.memory.value().is_some()), words::memory(&machine.memory))];
    for gpu in &machine.devices {
        let is_known = !matches!(gpu.memory, Reading::Unavailable { .. });
        let message = format!("{}: {}", safe(&gpu.name), words::device(gpu));
        checks.push(Check::new("GPU", state(is_known), message));
    }
    for gpu in &machine.unknown {
        let message = format!("{}: memory unknown: {}", safe(&gpu.name), safe(&gpu.reason));
        checks.push(Check::new("GPU", State::Note, message));
    }
    if machine.devices.is_empty() && machine.unknown.is_empty() {
        checks.push(Check::new("GPU", State::Note, "none was found".into()));
    }
    if let Some(driver) = &machine.driver {
        checks.push(Check::ok("driver", safe(driver).into_owned()));
    }
    checks.extend(machine.problems.iter().map(|problem| Check::new("GPU", State::Problem, safe(problem).into_owned())));
    checks
}

fn problems(report: &Report) -> Vec<Check> {
    let check = |problem: &crate::report::Problem, state| Check {
        part: safe(&problem.part).into_owned(),
        state,
        message: safe(&problem.message).into_owned(),
        hint: problem.hint.clone(),
    };
    // The config was looked at anew, which may be news to a running fitwatch.
    let found = report.problems.iter().filter(|problem| problem.part != "config");
    let mut checks: Vec<Check> = found.map(|problem| check(problem, State::Problem)).collect();
    checks.extend(report.notes.iter().map(|note| check(note, State::Note)));
    if report.live && checks.is_empty() {
        checks.push(Check::ok("desktop", "tray, notifications and watcher report no problem".into()));
    }
    checks
}

/// Returns the checks as text, a mark before each.
fn render(checks: &[Check], columns: Option<usize>) -> String {
    const INDENT: usize = 24;
    let mut text = String::new();
    for check in checks {
        let (mark, style) = match check.state {
            State::Ok => ("ok", anstyle::AnsiColor::Green.on_default()),
            State::Note => ("note", anstyle::Style::new()),
            State::Problem => ("PROBLEM", anstyle::AnsiColor::Red.on_default()),
        };
        let message = wrap(&check.message, columns, INDENT);
        let _ = writeln!(text, "{style}{mark:7}{style:#}  {:14} {message}", check.part);
        if let Some(hint) = &check.hint {
            let _ = writeln!(text, "{:INDENT$}→ {}", "", wrap(&safe(hint), columns, INDENT + 2));
        }
    }
    let wrong = checks.iter().filter(|check| check.state == State::Problem).count();
    let _ = match wrong {
        0 => writeln!(text, "\nNothing is wrong."),
        wrong => writeln!(text, "\n{}.", words::count(wrong, "problem")),
    };
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cli::example;
    use crate::config::{Config, ConfigError};
    use crate::host::login::Kind;
    use crate::lmstudio::RunningBackend;
    use crate::machine::UnknownGpu;
    use crate::report::Problem;

    #[test]
    fn a_sound_machine_has_no_problem() {
        let found = look(&example::report());
        assert!(found.iter().all(|check| check.state == State::Ok), "{found:?}");
        assert!(render(&found, None).ends_with("\nNothing is wrong.\n"));
    }

    #[test]
    fn what_is_not_there_yet_is_a_note_and_not_a_problem() {
        let mut report = example::report();
        report.live = false;
        report.library.home_exists = false;
        report.library.roots[0].state = RootState::Missing;
        report.machine.devices.clear();
        let unknown = UnknownGpu { id: "1".into(), name: "Arc".into(), reason: "no driver".into() };
        report.machine.unknown.push(unknown);
        let found = look(&report);
        assert!(found.iter().all(|check| check.state != State::Problem), "{found:?}");
        let notes = found.iter().filter(|check| check.state == State::Note);
        assert_eq!(
            notes.map(|check| check.part.as_str()).collect::<Vec<_>>(),
            ["fitwatch", "LM Studio", "folder", "GPU"]
        );
    }

    #[test]
    fn what_cannot_be_learned_of_loaded_models_is_a_note() {
        let mut report = example::report();
        report.lm_studio = Some(RunningBackend { version: Some("0.4.25".into()), ..RunningBackend::default() });
        report.loaded_unknown = Some("LM Studio requires an API token".into());
        let found = look(&report);
        let check = found.iter().find(|check| check.part == "LM Studio").expect("a check");
        assert_eq!(check.state, State::Note);
        assert!(check.message.ends_with("; it runs (0.4.25, no port of it answers); LM Studio requires an API token"));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_do() {
        let mut report = example::report();
        report.library.roots[0].root.origin = Origin::Config;
        report.library.roots[0].state = RootState::Missing;
        report.machine.memory = Reading::Unavailable { reason: "no /proc".into() };
        let hint = Some("start a tray host".into());
        report.problems.push(Problem { part: "tray".into(), message: "no tray host".into(), hint });
        let problems: Vec<Check> = look(&report).into_iter().filter(|check| check.state == State::Problem).collect();
        assert_eq!(problems.iter().map(|check| check.part.as_str()).collect::<Vec<_>>(), ["folder", "RAM", "tray"]);
        assert!(render(&problems, None).contains("→ start a tray host\n"));
        assert!(render(&problems, None).ends_with("\n3 problems.\n"));
    }

    #[test]
    fn a_config_that_cannot_be_used_is_a_problem_with_its_hint() {
        let source = ConfigError { line: 2, column: 5, message: "no".into(), hint: Some("write yes".into()) };
        let path = PathBuf::from("/c.toml");
        let check = config_check(&places(), &Err(ReadError::Config { path, source }), true);
        assert_eq!((check.state, check.hint.as_deref()), (State::Problem, Some("write yes")));
        assert!(check.message.contains("line 2, column 5"), "{}", check.message);
        let parsed = Parsed { config: Config::default(), warnings: vec!["line 1: unknown key `x`".into()] };
        assert_eq!(config_check(&places(), &Ok(parsed), true).state, State::Problem);
    }

    #[test]
    fn two_ways_to_start_at_login_are_one_too_many() {
        let installed = |program: &str| Installed {
            kind: Kind::Autostart,
            place: "/autostart".into(),
            program: Some(program.into()),
        };
        let here = std::env::current_exe().unwrap().display().to_string();
        assert_eq!(login(&[]).state, State::Note);
        assert_eq!(login(&[installed(&here)]).state, State::Ok);
        assert_eq!(login(&[installed("/gone")]).state, State::Problem);
        assert_eq!(login(&[installed(&here), installed(&here)]).state, State::Problem);
    }

    fn look(report: &Report) -> Vec<Check> {
        let config = Ok(Parsed { config: Config::default(), warnings: Vec::new() });
        checks(&places(), &config, true, Ok(report))
    }

    fn places() -> Places {
        Places::under(Path::new("/home/user"))
    }
}
