//! Start at login: a systemd user unit, an XDG autostart entry, a LaunchAgent or a Run key.
//!
//! What is to be done is a list of [`Step`]s first, so that `--dry-run` shows exactly what
//! [`perform`] would do. Installing twice changes nothing, and installing one kind takes away the
//! others, or fitwatch would start twice. A running fitwatch is left alone.

mod files;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fmt, fs, io};

use directories::BaseDirs;
use thiserror::Error;

/// The name by which launchd knows fitwatch.
const LABEL: &str = "local.fitwatch";
const RUN_KEY: &str = r"HKCU\Software\Microsoft\Windows\CurrentVersion\Run";

/// A way to start at login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A systemd user unit that comes and goes with the desktop.
    DesktopUnit,
    /// A systemd user unit without a tray.
    ServerUnit,
    /// An XDG autostart entry, for desktops that do not tell systemd that they are there.
    Autostart,
    /// A macOS LaunchAgent.
    LaunchAgent,
    /// A value of the Windows Run key.
    RunKey,
}

/// What installing depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The program to start.
    pub program: PathBuf,
    /// The user's home folder.
    pub home: PathBuf,
    /// The user's config folder, `~/.config` on Linux.
    pub config_home: PathBuf,
    /// Whether the user's systemd runs.
    pub has_systemd: bool,
    /// Whether the desktop tells systemd that it is there.
    pub has_graphical_target: bool,
    /// Whether this is a desktop session at all.
    pub has_desktop: bool,
}

/// Something that is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// How it starts.
    pub kind: Kind,
    /// The file, or the registry value.
    pub place: String,
    /// The program it starts, where that can be told.
    pub program: Option<String>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write a file, with the folders above it.
    Write {
        /// The file.
        path: PathBuf,
        /// Its text.
        text: String,
    },
    /// Remove a file.
    Remove {
        /// The file.
        path: PathBuf,
    },
    /// Run a program of the system.
    Run {
        /// The program and its arguments.
        command: Vec<String>,
        /// Whether the rest goes on where it fails.
        may_fail: bool,
    },
}

/// Why fitwatch cannot be installed or taken away.
#[derive(Debug, Error)]
pub enum LoginError {
    /// The user has no home folder.
    #[error("the user has no home folder")]
    NoHome,
    /// The program cannot be started from this path.
    #[error("the program path {} cannot be written down", path.display())]
    Program {
        /// The path.
        path: PathBuf,
    },
    /// A file cannot be written or removed, or a program not be run.
    #[error("cannot {step}: {source}")]
    Failed {
        /// What was to be done.
        step: String,
        /// Why it was not.
        source: io::Error,
    },
    /// A program of the system ended with an error.
    #[error("cannot {step}: {output}")]
    Refused {
        /// What was to be done.
        step: String,
        /// What the program said.
        output: String,
    },
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 5] = [Kind::DesktopUnit, Kind::ServerUnit, Kind::Autostart, Kind::LaunchAgent, Kind::RunKey];

    /// Returns the kind in words.
    pub const fn label(self) -> &'static str {
        match self {
            Kind::DesktopUnit => "systemd user unit",
            Kind::ServerUnit => "systemd user unit without a tray",
            Kind::Autostart => "autostart entry",
            Kind::LaunchAgent => "LaunchAgent",
            Kind::RunKey => "Run key",
        }
    }

    /// Returns what else a user may want to do.
    pub const fn hint(self) -> Option<&'static str> {
        match self {
            Kind::ServerUnit => Some("run `loginctl enable-linger` to have it run while nobody is logged in"),
            Kind::DesktopUnit | Kind::Autostart | Kind::LaunchAgent | Kind::RunKey => None,
        }
    }

    const fn is_unit(self) -> bool {
        matches!(self, Kind::DesktopUnit | Kind::ServerUnit)
    }
}

impl Surroundings {
    /// Looks around.
    pub fn find() -> Result<Surroundings, LoginError> {
        let folders = BaseDirs::new().ok_or(LoginError::NoHome)?;
        let program = env::current_exe().ok().filter(|path| path.is_file());
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        // The socket that systemctl itself talks to.
        let has_systemd = folders.runtime_dir().is_some_and(|folder| folder.join("systemd/private").exists());
        Ok(Surroundings {
            program: program.ok_or_else(|| LoginError::Program { path: "fitwatch".into() })?,
            home: folders.home_dir().to_owned(),
            config_home: folders.config_dir().to_owned(),
            has_systemd,
            has_graphical_target: has_systemd && graphical_target_is_active(),
            has_desktop: ["WAYLAND_DISPLAY", "DISPLAY", "XDG_CURRENT_DESKTOP"].into_iter().any(is_set),
        })
    }

    /// Returns the kind that fits here best.
    pub const fn best_kind(&self) -> Kind {
        if cfg!(target_os = "macos") {
            Kind::LaunchAgent
        } else if cfg!(windows) {
            Kind::RunKey
        } else if self.has_graphical_target {
            Kind::DesktopUnit
        } else if self.has_systemd && !self.has_desktop {
            Kind::ServerUnit
        } else {
            Kind::Autostart
        }
    }

    /// Returns whether the program lies where the next build will replace or remove it.
    pub fn is_build_folder(&self) -> bool {
        self.program
            .parent()
            .is_some_and(|folder| folder.ends_with("target/release") || folder.ends_with("target/debug"))
    }

    /// Returns what is installed; more than one entry means that fitwatch starts twice.
    pub fn installed(&self) -> Vec<Installed> {
        let mut installed = Vec::new();
        for kind in [Kind::DesktopUnit, Kind::Autostart, Kind::LaunchAgent] {
            let path = self.path(kind);
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let kind = if kind.is_unit() && text.contains("--no-tray") { Kind::ServerUnit } else { kind };
            installed.push(Installed {
                kind,
                place: path.display().to_string(),
                program: files::program_in(kind, &text),
            });
        }
        if let Some(value) = run_key_value() {
            let program = files::program_in(Kind::RunKey, &value);
            installed.push(Installed { kind: Kind::RunKey, place: format!(r"{RUN_KEY}\fitwatch"), program });
        }
        installed
    }

    /// Returns what has to be done so that fitwatch starts at login in this way and no other.
    pub fn install(&self, kind: Kind, start_now: bool) -> Result<Vec<Step>, LoginError> {
        let text = files::text(kind, &self.program)?;
        let others = self.installed().into_iter().filter(|other| other.kind != kind);
        // A unit of the other kind has the same name: it is disabled, then overwritten.
        let mut steps: Vec<Step> = others.flat_map(|other| self.removal(other.kind)).collect();
        if kind == Kind::RunKey {
            steps.push(run(&["reg", "add", RUN_KEY, "/v", "fitwatch", "/t", "REG_SZ", "/d", &text, "/f"]));
            return Ok(steps);
        }
        let path = self.path(kind);
        steps.push(Step::Write { path: path.clone(), text });
        if kind.is_unit() && self.has_systemd {
            steps.push(run(&["systemctl", "--user", "daemon-reload"]));
            steps.push(run(&["systemctl", "--user", "enable", "fitwatch.service"]));
            if start_now {
                steps.push(run(&["systemctl", "--user", "restart", "fitwatch.service"]));
            }
        }
        if kind == Kind::LaunchAgent && start_now {
            let domain = format!("gui/{}", user_id(&self.home));
            steps.push(may_fail(run(&["launchctl", "bootout", &format!("{domain}/{LABEL}")])));
            steps.push(run(&["launchctl", "bootstrap", &domain, &path.display().to_string()]));
        }
        Ok(steps)
    }

    /// Returns what has to be done so that fitwatch does not start at login; nothing where it does not.
    pub fn uninstall(&self) -> Vec<Step> {
        self.installed().into_iter().flat_map(|installed| self.removal(installed.kind)).collect()
    }

    fn removal(&self, kind: Kind) -> Vec<Step> {
        let remove = Step::Remove { path: self.path(kind) };
        match kind {
            Kind::DesktopUnit | Kind::ServerUnit if self.has_systemd => vec![
                may_fail(run(&["systemctl", "--user", "disable", "fitwatch.service"])),
                remove,
                run(&["systemctl", "--user", "daemon-reload"]),
            ],
            Kind::DesktopUnit | Kind::ServerUnit | Kind::Autostart | Kind::LaunchAgent => vec![remove],
            Kind::RunKey => vec![run(&["reg", "delete", RUN_KEY, "/v", "fitwatch", "/f"])],
        }
    }

    fn path(&self, kind: Kind) -> PathBuf {
        let folder = match kind {
            Kind::DesktopUnit | Kind::ServerUnit => self.config_home.join("systemd/user"),
            Kind::Autostart => self.config_home.join("autostart"),
            Kind::LaunchAgent => self.home.join("Library/LaunchAgents"),
            Kind::RunKey => PathBuf::new(),
        };
        folder.join(files::name(kind))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Write { path, .. } => write!(f, "write {}", path.display()),
            Step::Remove { path } => write!(f, "remove {}", path.display()),
            Step::Run { command, .. } => write!(f, "run {}", command.join(" ")),
        }
    }
}

/// Does what the steps say, in order, up to the first that fails.
pub fn perform(steps: &[Step]) -> Result<(), LoginError> {
    steps.iter().try_for_each(perform_one)
}

/// Tells systemd, where it started fitwatch, that it serves now; the status is shown by
/// `systemctl status`.
pub fn notify_ready(status: &str) {
    #[cfg(target_os = "linux")]
    tell_systemd(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(status)]);
    #[cfg(not(target_os = "linux"))]
    let _ = status;
}

/// Tells systemd that fitwatch is ending.
pub fn notify_stopping() {
    #[cfg(target_os = "linux")]
    tell_systemd(&[sd_notify::NotifyState::Stopping]);
}

/// Returns a command that opens a file or page for the user outside the unit that fitwatch runs in,
/// whose memory limit and system call filter an editor would inherit. `None` where there is no unit.
pub fn open_outside_unit(target: &str) -> Option<Command> {
    let in_unit = cfg!(target_os = "linux") && env::var_os("INVOCATION_ID").is_some();
    in_unit.then(|| {
        let mut command = Command::new("systemd-run");
        command.args(["--user", "--quiet", "--collect", "--no-block", "--", "xdg-open", target]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    })
}

#[cfg(target_os = "linux")]
fn tell_systemd(states: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is nobody to tell, which is no error.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot tell systemd: {error}");
    }
}

fn perform_one(step: &Step) -> Result<(), LoginError> {
    let failed = |source| LoginError::Failed { step: step.to_string(), source };
    match step {
        Step::Write { path, text } => {
            let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
            folder.and_then(|()| fs::write(path, text)).map_err(failed)
        }
        Step::Remove { path } => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        },
        Step::Run { command, may_fail } => {
            let Some((program, arguments)) = command.split_first() else { return Ok(()) };
            let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(failed)?;
            if output.status.success() || *may_fail {
                return Ok(());
            }
            let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(LoginError::Refused { step: step.to_string(), output })
        }
    }
}

fn run(command: &[&str]) -> Step {
    Step::Run { command: command.iter().map(|&word| word.to_owned()).collect(), may_fail: false }
}

fn may_fail(step: Step) -> Step {
    match step {
        Step::Run { command, .. } => Step::Run { command, may_fail: true },
        other => other,
    }
}

fn graphical_target_is_active() -> bool {
    let status = Command::new("systemctl")
        .args(["--user", "is-active", "--quiet", "graphical-session.target"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

#[cfg(unix)]
fn user_id(home: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;

    fs::metadata(home).map_or(0, |metadata| metadata.uid())
}

#[cfg(not(unix))]
fn user_id(_home: &Path) -> u32 {
    0
}

#[cfg(windows)]
fn run_key_value() -> Option<String> {
    let output = Command::new("reg").args(["query", RUN_KEY, "/v", "fitwatch"]).stdin(Stdio::null()).output().ok()?;
    // `    fitwatch    REG_SZ    "C:\…\fitwatch.exe" run`
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.split_once("REG_SZ")).map(|(_, value)| value.trim().to_owned())
}

#[cfg(not(windows))]
const fn run_key_value() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kind_follows_what_the_session_has() {
        let folder = tempfile::tempdir().unwrap();
        for (systemd, target, desktop, kind) in [
            (true, true, true, Kind::DesktopUnit),
            (true, true, false, Kind::DesktopUnit),
            (true, false, true, Kind::Autostart),
            (true, false, false, Kind::ServerUnit),
            (false, false, true, Kind::Autostart),
            (false, false, false, Kind::Autostart),
        ] {
            let mut surroundings = surroundings(folder.path());
            surroundings.has_systemd = systemd;
            surroundings.has_graphical_target = target;
            surroundings.has_desktop = desktop;
            assert_eq!(surroundings.best_kind(), kind, "{surroundings:?}");
        }
    }

    #[test]
    fn installing_twice_is_installing_once_and_uninstalling_leaves_nothing() {
        for kind in [Kind::DesktopUnit, Kind::ServerUnit, Kind::Autostart, Kind::LaunchAgent] {
            let folder = tempfile::tempdir().unwrap();
            let surroundings = surroundings(folder.path());
            for _ in 0..2 {
                perform(&surroundings.install(kind, false).unwrap()).unwrap();
                let [installed] = &surroundings.installed()[..] else { panic!("not one") };
                assert_eq!((installed.kind, installed.program.as_deref()), (kind, Some("/opt/fitwatch")));
            }
            perform(&surroundings.uninstall()).unwrap();
            assert_eq!(surroundings.installed(), []);
            assert_eq!(surroundings.uninstall(), []);
        }
    }

    #[test]
    fn another_kind_takes_the_place_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let surroundings = surroundings(folder.path());
        for kind in [Kind::Autostart, Kind::DesktopUnit, Kind::ServerUnit, Kind::LaunchAgent, Kind::Autostart] {
            perform(&surroundings.install(kind, false).unwrap()).unwrap();
            let kinds: Vec<Kind> = surroundings.installed().into_iter().map(|installed| installed.kind).collect();
            assert_eq!(kinds, [kind]);
        }
    }

    #[test]
    fn the_steps_say_what_they_will_do() {
        let folder = tempfile::tempdir().unwrap();
        let mut surroundings = surroundings(folder.path());
        surroundings.has_systemd = true;
        let steps: Vec<String> =
            surroundings.install(Kind::DesktopUnit, true).unwrap().iter().map(ToString::to_string).collect();
        assert!(steps[0].starts_with("write ") && steps[0].ends_with("fitwatch.service"), "{steps:?}");
        assert_eq!(
            steps[1..],
            [
                "run systemctl --user daemon-reload",
                "run systemctl --user enable fitwatch.service",
                "run systemctl --user restart fitwatch.service"
            ]
        );
        assert!(!surroundings.path(Kind::DesktopUnit).exists(), "a list of steps does nothing");
    }

    #[test]
    fn a_step_that_fails_is_named_and_one_that_may_is_not() {
        let failing = if cfg!(windows) { run(&["reg", "query", "nonsense"]) } else { run(&["ls", "/nonsense"]) };
        let error = perform(std::slice::from_ref(&failing)).unwrap_err();
        assert!(matches!(error, LoginError::Refused { .. }) && error.to_string().contains("nonsense"), "{error}");
        perform(&[may_fail(failing)]).unwrap();
        let error = perform(&[run(&["fitwatch-no-such-program"])]).unwrap_err();
        assert!(matches!(error, LoginError::Failed { .. }), "{error}");
    }

    fn surroundings(folder: &Path) -> Surroundings {
        Surroundings {
            program: "/opt/fitwatch".into(),
            home: folder.to_owned(),
            config_home: folder.join(".config"),
            has_systemd: false,
            has_graphical_target: false,
            has_desktop: true,
        }
    }
}
