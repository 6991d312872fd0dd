//! The command line: one file a command.
//!
//! stdout is data, stderr is talk, the exit code is the answer (the closed list is in `exit.rs`
//! and in `--help`). A question goes to the running fitwatch, else to a single scan (`ask.rs`).
//! Rendering is pure: it takes reports and bills and returns text, wide or narrow, in which every
//! name from outside is made harmless (`text.rs`).

mod args;
mod ask;
mod bill;
pub mod cases;
mod completions;
mod config;
mod doctor;
mod estimate;
#[cfg(test)]
mod example;
mod exit;
mod facts;
mod failure;
mod file;
mod given;
mod list;
mod login;
mod print;
mod projector;
mod run;
mod show;
mod sizes;
mod status;
mod table;
mod tell;
mod text;
mod unload;
mod words;

use std::process::ExitCode;

use clap::Parser as _;

use crate::engine::Request;
use args::{Arguments, Command, ConfigCommand, RunArguments};
use exit::Exit;
use failure::Failure;
use print::{print_json, talk};

/// Runs the command that the process was started with and returns its answer.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A reader that is gone needs no help text.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Yes }.into();
        }
    };
    let command = arguments.command.unwrap_or(Command::Run(RunArguments::default()));
    let wants_json = wants_json(&command);
    match answer(command) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if wants_json {
                // Where stdout itself is what failed, stderr is left to say so.
                let _ = print_json(&failure.form());
            }
            say(&failure);
            failure.exit().into()
        }
    }
}

fn answer(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Run(arguments) => run::run(arguments),
        Command::Status(format) => status::run(&Request::Report, format),
        Command::List(arguments) => list::run(&arguments),
        Command::Show(arguments) => show::run(&arguments),
        Command::Estimate(arguments) => estimate::run(&arguments),
        Command::Doctor(format) => doctor::run(format),
        Command::Config(command) => config::run(command),
        Command::Install(arguments) => login::install(arguments),
        Command::Uninstall(arguments) => login::uninstall(arguments),
        Command::Unload { instance, format } => unload::run(instance, format),
        Command::Pause { duration } => tell::pause(duration),
        Command::Resume => tell::resume(),
        Command::Recheck(format) => status::run(&Request::Recheck, format),
        Command::Quit => tell::quit(),
        Command::Completions { shell } => completions::run(shell),
    }
}

const fn wants_json(command: &Command) -> bool {
    match command {
        Command::Status(format)
        | Command::Doctor(format)
        | Command::Recheck(format)
        | Command::Unload { format, .. }
        | Command::Config(ConfigCommand::Check { format, .. } | ConfigCommand::Show(format)) => format.json,
        Command::List(arguments) => arguments.format.json,
        Command::Show(arguments) => arguments.format.json,
        Command::Estimate(arguments) => arguments.format.json,
        Command::Config(ConfigCommand::Path)
        | Command::Run(_)
        | Command::Install(_)
        | Command::Uninstall(_)
        | Command::Pause { .. }
        | Command::Resume
        | Command::Quit
        | Command::Completions { .. } => false,
    }
}

/// Says on stderr what failed and what to do.
fn say(failure: &Failure) {
    let style = anstyle::AnsiColor::Red.on_default().bold();
    talk(&format!("{style}error:{style:#} {failure}"));
    if let Some(hint) = failure.hint() {
        talk(&format!("  hint: {hint}"));
    }
}
