//! Where fitwatch keeps its things: the XDG folders, and the native ones on macOS and Windows.

use std::path::PathBuf;

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
