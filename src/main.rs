//! Parses the arguments, runs one command and exits with its answer.

use std::process::ExitCode;

fn main() -> ExitCode {
    fitwatch::cli::main()
}
