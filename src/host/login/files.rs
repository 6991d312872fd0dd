//! What is installed, as text: the shipped files with the program's own path in them.

use std::path::Path;

use super::{Kind, LABEL, LoginError};

const DESKTOP_UNIT: &str = include_str!("../../../systemd/fitwatch.service");
const SERVER_UNIT: &str = include_str!("../../../systemd/fitwatch-server.service");
const AUTOSTART: &str = include_str!("fitwatch.desktop");
const LAUNCH_AGENT: &str = include_str!("../../../launchd/local.fitwatch.plist");

/// Returns the file (or, on Windows, the command line) that starts the program at login.
pub(super) fn text(kind: Kind, program: &Path) -> Result<String, LoginError> {
    let unusable = || LoginError::Program { path: program.to_owned() };
    let program = program.to_str().filter(|path| !path.contains(char::is_control)).ok_or_else(unusable)?;
    Ok(match kind {
        Kind::DesktopUnit => with_line(DESKTOP_UNIT, "ExecStart=", &format!("{} run", unit_word(program))),
        Kind::ServerUnit => with_line(SERVER_UNIT, "ExecStart=", &format!("{} run --no-tray", unit_word(program))),
        Kind::Autostart => with_line(AUTOSTART, "Exec=", &format!("{} run", desktop_word(program))),
        Kind::LaunchAgent => LAUNCH_AGENT.replace("/usr/local/bin/fitwatch", &xml_text(program)),
        // Without conhost a console window would open at login and stay.
        Kind::RunKey => format!("conhost.exe --headless \"{program}\" run"),
    })
}

/// Returns the program that an installed file starts, as far as it is readable.
pub(super) fn program_in(kind: Kind, text: &str) -> Option<String> {
    let word = |line: &str| {
        let quoted = line.strip_prefix('"').and_then(|rest| rest.split_once("\" ")).map(|(word, _)| word);
        quoted.or_else(|| line.split_whitespace().next()).map(str::to_owned)
    };
    match kind {
        Kind::DesktopUnit | Kind::ServerUnit => {
            text.lines().find_map(|line| line.strip_prefix("ExecStart=")).and_then(word)
        }
        Kind::Autostart => text.lines().find_map(|line| line.strip_prefix("Exec=")).and_then(word),
        Kind::LaunchAgent => {
            let arguments = text.split_once("<array>")?.1;
            let program = arguments.split_once("<string>")?.1.split_once("</string>")?.0;
            Some(program.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
        }
        Kind::RunKey => text.split('"').nth(1).map(str::to_owned),
    }
}

/// Returns the name of the file.
pub(super) fn name(kind: Kind) -> String {
    match kind {
        Kind::DesktopUnit | Kind::ServerUnit => "fitwatch.service".to_owned(),
        Kind::Autostart => "fitwatch.desktop".to_owned(),
        Kind::LaunchAgent => format!("{LABEL}.plist"),
        Kind::RunKey => "fitwatch".to_owned(),
    }
}

fn with_line(text: &str, key: &str, value: &str) -> String {
    let replaced = |line: &str| if line.starts_with(key) { format!("{key}{value}\n") } else { format!("{line}\n") };
    text.lines().map(replaced).collect()
}

/// Writes a word for `ExecStart=`, see systemd.service(5) and systemd.syntax(7).
fn unit_word(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{escaped}\"")
}

/// Writes a word for `Exec=`: quoted by the rules of the key, then escaped as any string of the file.
fn desktop_word(word: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in word.chars() {
        if matches!(letter, '"' | '`' | '$' | '\\') {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted.push('"');
    quoted.replace('\\', "\\\\").replace('%', "%%")
}

fn xml_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_starts_the_program_it_was_installed_with() {
        for kind in Kind::ALL {
            let text = text(kind, Path::new("/opt/fit watch/fitwatch")).unwrap();
            assert_eq!(text.matches("/opt/fit watch/fitwatch").count(), 1, "{kind:?}: {text}");
            assert_eq!(program_in(kind, &text).as_deref(), Some("/opt/fit watch/fitwatch"), "{kind:?}");
            assert!(!text.contains("/usr/local/bin") && !text.contains("%h"), "{kind:?}: {text}");
        }
    }

    #[test]
    fn a_strange_path_is_written_by_the_rules_of_each_file() {
        let path = Path::new("/a \"b\"/50%/$HOME/c\\d/<&>");
        let line = |kind, key: &str| {
            let text = text(kind, path).unwrap();
            text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned)
        };
        assert_eq!(line(Kind::DesktopUnit, "ExecStart=").as_deref(), Some(r#""/a \"b\"/50%%/$$HOME/c\\d/<&>" run"#));
        assert_eq!(line(Kind::Autostart, "Exec=").as_deref(), Some(r#""/a \\"b\\"/50%%/\\$HOME/c\\\\d/<&>" run"#));
        let plist = text(Kind::LaunchAgent, path).unwrap();
        assert!(plist.contains("<string>/a \"b\"/50%/$HOME/c\\d/&lt;&amp;&gt;</string>"), "{plist}");
    }

    #[test]
    fn a_path_that_would_add_lines_is_refused() {
        for kind in Kind::ALL {
            assert!(matches!(text(kind, Path::new("/a\nExecStart=/bin/sh")), Err(LoginError::Program { .. })));
        }
    }

    #[test]
    fn the_units_differ_only_in_what_a_server_has_not() {
        let settings = |text: &str| -> Vec<String> {
            let own = |line: &&str| {
                !line.starts_with('#')
                    && !["PartOf=", "After=", "WantedBy=", "ExecStart="].iter().any(|key| line.starts_with(key))
            };
            text.lines().filter(own).map(str::to_owned).collect()
        };
        assert_eq!(settings(DESKTOP_UNIT), settings(SERVER_UNIT));
        assert!(SERVER_UNIT.contains("WantedBy=default.target") && !SERVER_UNIT.contains("graphical"));
    }
}
