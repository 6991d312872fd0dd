//! `fitwatch unload`: the one thing that fitwatch ever changes in LM Studio, on the user's word.

use serde::Serialize;

use super::args::Format;
use super::ask;
use super::exit::Exit;
use super::failure::Failure;
use super::print::{print_json, talk};
use super::text::safe;
use crate::lmstudio::Unloaded;
use crate::report::SCHEMA;

/// The JSON form of the outcome.
#[derive(Debug, Serialize)]
struct UnloadForm<'a> {
    schema: u32,
    instance: &'a str,
    #[serde(flatten)]
    outcome: &'a Unloaded,
}

/// Runs the command.
pub(super) fn run(asked: String, format: Format) -> Result<Exit, Failure> {
    let (instance, outcome) = ask::unload(asked)?;
    if format.json {
        print_json(&UnloadForm { schema: SCHEMA, instance: &instance, outcome: &outcome })?;
    }
    match outcome {
        Unloaded::Done => {
            talk(&format!("{} is unloaded", safe(&instance)));
            Ok(Exit::Yes)
        }
        Unloaded::NotLoaded => {
            talk(&format!("{} is not loaded any more", safe(&instance)));
            Ok(Exit::NotFound)
        }
        Unloaded::Failed { .. } if format.json => Ok(Exit::Failed),
        Unloaded::Failed { reason } => Err(Failure::NotUnloaded { instance, reason }),
    }
}
