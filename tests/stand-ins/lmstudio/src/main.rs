//! The stand-in as a program: `lmstudio-stand-in [--scenario NAME|FILE] [--version V] [--token T] [--home FOLDER]
//! [--internal-port N] [--user-port N]`.
//!
//! Says on its first line where it is, then takes a line of JSON for each order
//! ([`Order`]) and answers each with one. Ends with its input.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lmstudio_stand_in::control::Order;
use lmstudio_stand_in::{Scenario, StandIn};
use serde_json::{Value, json};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "lmstudio-stand-in: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut scenario = Scenario::named("everyday");
    let mut version = None;
    let mut home = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{argument} wants a value"))?;
        match argument.as_str() {
            "--scenario" if Path::new(&value).extension().is_some() => {
                scenario = Scenario::parse(&std::fs::read_to_string(&value)?)?;
            }
            "--scenario" => scenario = Scenario::named(&value),
            "--version" => version = Some(value),
            "--token" => scenario = scenario.with_token(&value),
            "--home" => home = Some(PathBuf::from(value)),
            "--internal-port" => scenario.internal_port = Some(value.parse()?),
            "--user-port" => scenario.user_port = Some(value.parse()?),
            _ => return Err(format!("there is no {argument}").into()),
        }
    }
    if let Some(version) = version {
        scenario = scenario.of_version(&version);
    }
    let mut stand_in = match home {
        Some(home) => StandIn::start_in(&home.canonicalize()?, scenario),
        None => StandIn::start(scenario),
    };
    say(&stand_in.obey(Order::Where))?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let answer = match serde_json::from_str(&line) {
            Ok(order) => stand_in.obey(order),
            Err(error) => json!({ "error": error.to_string() }),
        };
        say(&answer)?;
    }
    Ok(())
}

fn say(answer: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{answer}")?;
    out.flush()
}
