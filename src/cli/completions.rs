//! `fitwatch completions SHELL`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::args::Arguments;
use super::exit::Exit;
use super::failure::Failure;
use super::print::print;

/// Runs the command.
pub(super) fn run(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "fitwatch", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Yes)
}
