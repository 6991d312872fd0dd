//! `fitwatch config`: where the config file lies, whether it is right, what is in force.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{ConfigCommand, Format};
use super::ask::places;
use super::exit::Exit;
use super::failure::Failure;
use super::print::{print, print_json, talk};
use super::text::{safe, safe_path};
use crate::config::{self, Config, ConfigError, Parsed};
use crate::host::config_file::{self, ReadError};
use crate::report::SCHEMA;

/// The JSON form of a check.
#[derive(Debug, Serialize)]
struct CheckForm<'a> {
    schema: u32,
    path: &'a Path,
    exists: bool,
    ok: bool,
    error: Option<ErrorForm<'a>>,
    warnings: &'a [String],
}

#[derive(Debug, Serialize)]
struct ErrorForm<'a> {
    line: usize,
    column: usize,
    message: &'a str,
    hint: Option<&'a str>,
}

/// The JSON form of the settings in force.
#[derive(Debug, Serialize)]
struct ShowForm<'a> {
    schema: u32,
    path: &'a Path,
    config: &'a Config,
    warnings: &'a [String],
}

/// Runs the command.
pub(super) fn run(command: ConfigCommand) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Path => {
            // Written as it is: scripts hand it on.
            print(&format!("{}\n", places()?.config.display()))?;
            Ok(Exit::Yes)
        }
        ConfigCommand::Check { file, format } => check(file, format),
        ConfigCommand::Show(format) => show(format),
    }
}

fn check(file: Option<PathBuf>, format: Format) -> Result<Exit, Failure> {
    let is_named = file.is_some();
    let path = match file {
        Some(file) => file,
        None => places()?.config,
    };
    let exists = path.as_os_str() == "-" || path.exists();
    if is_named && !exists {
        return Err(Failure::NoSuchFile(path));
    }
    let parsed = read(&path)?;
    let no_warnings = Vec::new();
    let (error, warnings) = match &parsed {
        Ok(parsed) => (None, &parsed.warnings),
        Err(error) => (Some(error), &no_warnings),
    };
    let ok = error.is_none() && warnings.is_empty();
    if format.json {
        let error = error.map(|error| ErrorForm {
            line: error.line,
            column: error.column,
            message: &error.message,
            hint: error.hint.as_deref(),
        });
        print_json(&CheckForm { schema: SCHEMA, path: &path, exists, ok, error, warnings })?;
    } else {
        print(&render(&path, exists, error, warnings))?;
    }
    Ok(if ok { Exit::Yes } else { Exit::Unwell })
}

/// Returns what a check found, in the form `file:line:column: what`.
fn render(path: &Path, exists: bool, error: Option<&ConfigError>, warnings: &[String]) -> String {
    let path = safe_path(path);
    let mut text = String::new();
    if let Some(error) = error {
        let _ = writeln!(text, "{path}:{}:{}: {}", error.line, error.column, safe(&error.message));
        if let Some(hint) = &error.hint {
            let _ = writeln!(text, "  hint: {}", safe(hint));
        }
    }
    for warning in warnings {
        let _ = writeln!(text, "{path}: {}", safe(warning));
    }
    if text.is_empty() {
        let state = if exists { "is right" } else { "is not there: the defaults are in force" };
        let _ = writeln!(text, "{path} {state}");
    }
    text
}

fn show(format: Format) -> Result<Exit, Failure> {
    let path = places()?.config;
    let parsed = read(&path)?.map_err(|error| Failure::Unreadable {
        path: path.clone(),
        reason: error.to_string(),
        hint: error.hint.clone(),
    })?;
    if format.json {
        let (config, warnings) = (&parsed.config, parsed.warnings.as_slice());
        print_json(&ShowForm { schema: SCHEMA, path: &path, config, warnings })?;
    } else {
        for warning in &parsed.warnings {
            talk(&format!("warning: {}", safe(warning)));
        }
        print(&parsed.config.to_toml())?;
    }
    Ok(Exit::Yes)
}

fn read(path: &Path) -> Result<Result<Parsed, ConfigError>, Failure> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        let read = std::io::stdin().lock().take(1 << 20).read_to_string(&mut text);
        read.map_err(|error| Failure::file(path, &error))?;
        return Ok(config::parse(&text));
    }
    match config_file::read(path) {
        Ok(parsed) => Ok(Ok(parsed)),
        Err(ReadError::Config { source, .. }) => Ok(Err(source)),
        Err(ReadError::File { path, source }) => Err(Failure::file(&path, &source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_error_is_shown_with_its_place_and_hint() {
        let error = ConfigError { line: 3, column: 7, message: "bad\u{1b}".into(), hint: Some("write it so".into()) };
        assert_eq!(
            render(Path::new("c.toml"), true, Some(&error), &[]),
            "c.toml:3:7: bad\\u{1b}\n  hint: write it so\n"
        );
    }

    #[test]
    fn a_missing_config_is_not_called_right() {
        assert_eq!(render(Path::new("c.toml"), true, None, &[]), "c.toml is right\n");
        assert_eq!(render(Path::new("c.toml"), false, None, &[]), "c.toml is not there: the defaults are in force\n");
    }
}
