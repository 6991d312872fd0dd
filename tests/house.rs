//! The house rules that matter, as tests: pure modules stay pure, the top level stays as agreed, a
//! file fits in one reading, and nothing names the machine it was written on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The pure modules in reading order; each may use those before it, and none after it.
const PURE: [&str; 13] = [
    "units", "paths", "config", "gguf", "memory", "library", "machine", "lmstudio", "fit", "report", "alerts", "tray",
    "engine",
];

/// What a pure module must not name: the machine, and the time.
const IMPURE: [&str; 14] = [
    "crate::host",
    "crate::cli",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "tokio::",
    "sysinfo::",
    "tracing::",
];

#[test]
fn pure_modules_name_no_clock_file_socket_thread_or_environment() {
    let mut found = Vec::new();
    for file in sources().iter().filter(|file| module(file).is_some_and(|name| PURE.contains(&name.as_str()))) {
        for (number, line) in code_lines(file) {
            for word in IMPURE {
                if line.contains(word) || names_grouped(&line, word) {
                    found.push(format!("{}:{number}: {word}", file.display()));
                }
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn dependencies_point_up_the_code_map() {
    // LM Studio's files name a model's settings, the library its projectors: they lean on the
    // bill's types, and the report on everything that is shown. The order is that of `lib.rs`.
    let order = |name: &str| PURE.iter().position(|pure| *pure == name);
    let mut found = Vec::new();
    for file in sources() {
        let Some(place) = module(&file).as_deref().and_then(order) else { continue };
        for (number, line) in code_lines(&file) {
            for used in line.split("crate::").skip(1) {
                let name: String =
                    used.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                if order(&name).is_some_and(|used| used > place) {
                    found.push(format!("{}:{number}: crate::{name}", file.display()));
                }
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_code_map_lists_every_module_in_order() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .filter(|name| PURE.contains(name))
        .collect();
    assert_eq!(declared.iter().collect::<BTreeSet<_>>(), PURE.iter().collect::<BTreeSet<_>>());
    for name in fs::read_dir(root().join("src")).unwrap().map(|entry| entry.unwrap().path()) {
        let name = name.file_stem().unwrap().to_str().unwrap().to_owned();
        let is_listed = lib.contains(&format!("[`{name}`]")) || ["lib", "main", "icons"].contains(&name.as_str());
        assert!(is_listed, "src/{name} is missing in the code map of src/lib.rs");
    }
}

#[test]
fn the_top_level_is_as_agreed() {
    let agreed = ["Cargo.lock", "Cargo.toml", "README.md", "config", "launchd", "src", "systemd", "target", "tests"];
    let found: Vec<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && !name.starts_with("LICENSE") && !agreed.contains(&name.as_str()))
        .collect();
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_file_fits_in_one_reading_and_opens_with_what_it_is_for() {
    let tests = files_under(&root().join("tests"));
    for file in sources().into_iter().chain(tests).filter(|file| file.extension().is_some_and(|kind| kind == "rs")) {
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().count();
        assert!(lines <= 900, "{} has {lines} lines", file.display());
        // A file of tests is part of the module it tests.
        let is_told = text.starts_with("//!") || file.file_stem().is_some_and(|name| name == "tests");
        assert!(is_told, "{} does not say what it is for", file.display());
    }
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    // Put together here, or this file would name them too.
    let places = ["root", "work", "home/runner"].map(|name| format!("/{name}/"));
    let mut found = Vec::new();
    for folder in ["src", "config", "systemd", "launchd", "tests", "README.md"] {
        for file in files_under(&root().join(folder)) {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            for place in places.iter().filter(|place| text.contains(*place)) {
                found.push(format!("{}: {place}", file.display()));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

/// Returns the lines of code with their numbers: no comments, and nothing from the tests on, which
/// may use what they like.
fn code_lines(file: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(file).unwrap();
    if file.file_stem().is_some_and(|name| name == "tests") {
        return Vec::new();
    }
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default().to_owned()))
        .collect()
}

/// Tells whether a line imports `std::fs` as `use std::{fs, …}`.
fn names_grouped(line: &str, word: &str) -> bool {
    let Some((path, name)) = word.rsplit_once("::") else { return false };
    let Some((_, group)) = line.split_once(&format!("{path}::{{")) else { return false };
    group.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|part| part == name)
}

/// Returns the top module of a source file.
fn module(file: &Path) -> Option<String> {
    let below = file.strip_prefix(root().join("src")).ok()?;
    Some(below.components().next()?.as_os_str().to_str()?.trim_end_matches(".rs").to_owned())
}

fn sources() -> Vec<PathBuf> {
    let sources = files_under(&root().join("src"));
    let sources: Vec<PathBuf> =
        sources.into_iter().filter(|file| file.extension().is_some_and(|kind| kind == "rs")).collect();
    assert!(sources.len() > 20, "the sources were not found");
    sources
}

fn files_under(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    // What a build has left, and what Python has.
    entries.retain(|entry| !["target", "__pycache__"].iter().any(|name| entry.ends_with(name)));
    entries.sort();
    entries.iter().flat_map(|entry| files_under(entry)).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
