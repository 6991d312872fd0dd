//! The budgets: what fitwatch may cost, held against the real program on a library of 1,000 models.
//!
//! ```sh
//! cargo bench --bench budgets                       # fails where a ceiling is broken
//! cargo bench --bench budgets -- --report-only      # only says so
//! cargo bench --bench budgets -- --quiet-seconds 10 --full-every 1
//! ```
//!
//! The files have the measured shapes of real models, dense and with experts, 200 to 960 tensors
//! each, their weights holes. Every 20th has a tokenizer of full size (a header of 8 MB), the others
//! a small one: see `--full-every`. Nothing of the user's is read: home, runtime folder and session
//! bus are made for the run. It takes some four minutes, most of them spent waiting for quiet.
#![cfg_attr(not(target_os = "linux"), allow(unused))]
#![expect(clippy::print_stdout, reason = "it is there to print a table")]

#[cfg(target_os = "linux")]
#[path = "budgets/daemon.rs"]
mod daemon;
#[cfg(target_os = "linux")]
#[path = "budgets/desktop.rs"]
mod desktop;
#[cfg(target_os = "linux")]
#[path = "budgets/engine.rs"]
mod engine;
#[cfg(target_os = "linux")]
#[path = "budgets/library.rs"]
mod library;
#[cfg(target_os = "linux")]
#[path = "budgets/linux.rs"]
mod linux;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the budgets are measured on Linux");
}
