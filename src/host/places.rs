//! Where fitwatch keeps its things: the XDG folders, and the native ones on macOS and Windows.
//!
//! | what | Linux | macOS | Windows |
//! | --- | --- | --- | --- |
//! | config | `$XDG_CONFIG_HOME/fitwatch/config.toml` | `~/Library/Application Support/fitwatch/config.toml` | `%APPDATA%\fitwatch\config\config.toml` |
//! | state | `$XDG_STATE_HOME/fitwatch/state.json` | `~/Library/Application Support/fitwatch/state.json` | `%LOCALAPPDATA%\fitwatch\data\state.json` |
//! | logs | `$XDG_STATE_HOME/fitwatch/logs` | `~/Library/Logs/fitwatch` | `%LOCALAPPDATA%\fitwatch\data\logs` |
//! | socket, lock | `$XDG_RUNTIME_DIR/fitwatch` | `run` beside the state | `run` beside the state |
//!
//! `FITWATCH_CONFIG` names another config file. Nothing is made before [`Places::prepare`].

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use directories::{BaseDirs, ProjectDirs};
use thiserror::Error;

use crate::report::Problem;

/// Names another config file than the usual one.
pub const CONFIG_VARIABLE: &str = "FITWATCH_CONFIG";

/// The folders and files fitwatch reads and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The config file.
    pub config: PathBuf,
    /// The folder of logs.
    pub logs: PathBuf,
    /// The state file.
    pub state: PathBuf,
    /// The folder of the control socket and the instance lock, readable by the user alone.
    pub runtime: PathBuf,
}

/// Why fitwatch has no place for its things.
#[derive(Debug, Error)]
pub enum PlacesError {
    /// The user has no home folder.
    #[error("the user has no home folder")]
    NoHome,
    /// A folder cannot be made or made private.
    #[error("cannot use the folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The runtime folder belongs to somebody else.
    #[error("the folder {} belongs to another user", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
}

impl Places {
    /// Returns the places of the present user.
    pub fn find() -> Result<Places, PlacesError> {
        let project = ProjectDirs::from("", "", "fitwatch").ok_or(PlacesError::NoHome)?;
        let state = project.state_dir().unwrap_or(project.data_local_dir()).to_owned();
        let config = env::var_os(CONFIG_VARIABLE)
            .filter(|path| !path.is_empty())
            .map_or_else(|| project.config_dir().join("config.toml"), PathBuf::from);
        let logs = match user_home() {
            Some(home) if cfg!(target_os = "macos") => home.join("Library/Logs/fitwatch"),
            _ => state.join("logs"),
        };
        let runtime = runtime_folder(&project).unwrap_or_else(|| state.join("run"));
        Ok(Places { config, logs, state: state.join("state.json"), runtime })
    }

    /// Returns places that all lie under one folder.
    pub fn under(folder: &Path) -> Places {
        Places {
            config: folder.join("config/config.toml"),
            logs: folder.join("state/logs"),
            state: folder.join("state/state.json"),
            runtime: folder.join("run"),
        }
    }

    /// Makes the runtime folder, for the user alone, and the folder of the state file.
    ///
    /// A state folder that cannot be made is no error here: fitwatch runs without memory then, and
    /// says so when it wants to write.
    pub fn prepare(&self) -> Result<(), PlacesError> {
        let in_folder = |source| PlacesError::Folder { path: self.runtime.clone(), source };
        make_private(&self.runtime).map_err(in_folder)?;
        if !belongs_to_user(&self.runtime).map_err(in_folder)? {
            return Err(PlacesError::Foreign { path: self.runtime.clone() });
        }
        if let Some(folder) = self.state.parent() {
            let _ = make_private(folder);
        }
        Ok(())
    }

    /// Returns the file that one running fitwatch a user holds locked.
    pub fn lock(&self) -> PathBuf {
        self.runtime.join("instance.lock")
    }

    /// Returns the control socket, on systems where it is a file.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }
}

impl PlacesError {
    /// Returns the error in words for the user.
    pub fn problem(&self) -> Problem {
        let hint = match self {
            PlacesError::NoHome => "set HOME".to_owned(),
            PlacesError::Folder { path, .. } => format!("make {} a folder that you can write to", path.display()),
            PlacesError::Foreign { .. } => "set XDG_RUNTIME_DIR to a folder of your own".to_owned(),
        };
        Problem { part: "places".into(), message: self.to_string(), hint: Some(hint) }
    }
}

/// Returns the user's home folder.
pub fn user_home() -> Option<PathBuf> {
    BaseDirs::new().map(|folders| folders.home_dir().to_owned())
}

/// Returns the path with a leading `~` replaced by the home folder.
pub fn expand(path: &Path, home: &Path) -> PathBuf {
    match path.strip_prefix("~") {
        Ok(rest) if rest.as_os_str().is_empty() => home.to_owned(),
        Ok(rest) => home.join(rest),
        Err(_) => path.to_owned(),
    }
}

/// Returns the folder that the session offers for sockets.
fn runtime_folder(project: &ProjectDirs) -> Option<PathBuf> {
    if let Some(folder) = project.runtime_dir()
        && folder.parent().is_some_and(Path::is_dir)
    {
        return Some(folder.to_owned());
    }
    // A shell without XDG_RUNTIME_DIR (cron, su) must still meet the instance that the session
    // started.
    #[cfg(target_os = "linux")]
    {
        let folder = PathBuf::from(format!("/run/user/{}", rustix::process::getuid().as_raw()));
        if belongs_to_user(&folder).unwrap_or(false) {
            return Some(folder.join("fitwatch"));
        }
    }
    None
}

#[cfg(unix)]
fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mode = fs::metadata(folder)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn make_private(folder: &Path) -> io::Result<()> {
    // Folders under %LOCALAPPDATA% are the user's own by inheritance.
    fs::create_dir_all(folder)
}

#[cfg(target_os = "linux")]
fn belongs_to_user(folder: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;

    // Not followed: a link in a place that others can write to would lead anywhere.
    let metadata = fs::symlink_metadata(folder)?;
    Ok(metadata.is_dir() && metadata.uid() == rustix::process::getuid().as_raw())
}

#[cfg(not(target_os = "linux"))]
fn belongs_to_user(folder: &Path) -> io::Result<bool> {
    // The folder lies in the user's own library there, and `make_private` has just changed it.
    Ok(fs::symlink_metadata(folder)?.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_is_the_home_only_where_it_leads() {
        let home = Path::new("/home/ada");
        assert_eq!(expand(Path::new("~"), home), Path::new("/home/ada"));
        assert_eq!(expand(Path::new("~/models"), home), Path::new("/home/ada/models"));
        assert_eq!(expand(Path::new("/srv/~/models"), home), Path::new("/srv/~/models"));
        assert_eq!(expand(Path::new("~bob/models"), home), Path::new("~bob/models"));
    }

    #[cfg(unix)]
    #[test]
    fn the_runtime_folder_is_made_for_the_user_alone_also_where_it_was_open() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        let mode = || fs::metadata(&places.runtime).unwrap().permissions().mode() & 0o777;
        places.prepare().unwrap();
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&places.runtime, fs::Permissions::from_mode(0o755)).unwrap();
        places.prepare().unwrap();
        assert_eq!(mode(), 0o700);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_runtime_folder_that_is_a_link_or_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), &places.runtime).unwrap();
        assert!(matches!(places.prepare(), Err(PlacesError::Foreign { .. })));
        fs::remove_file(&places.runtime).unwrap();
        fs::write(&places.runtime, "").unwrap();
        let error = places.prepare().unwrap_err();
        assert!(matches!(error, PlacesError::Folder { .. }));
        assert!(error.problem().hint.is_some_and(|hint| hint.starts_with("make ")));
    }
}
