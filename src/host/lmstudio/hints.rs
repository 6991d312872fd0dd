//! The files that hint at a running back-end, and the token that the user gives.
//!
//! Small files, read anew in every round: what they say changes with every start of LM Studio.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};

use super::{POINTER_LIMIT as SMALL, read_text, read_whole};
use crate::lmstudio::{
    ApiToken, Ask, InternalServer, UserServer, internal_folders, parse_internal_server, parse_pid_lock,
    parse_user_server,
};

/// Nobody has more apps beside LM Studio.
const MOST_APPS: usize = 16;

/// What hints at a back-end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hints {
    /// The back-ends whose processes live, with the app whose files name them.
    pub(super) servers: Vec<(Option<String>, InternalServer)>,
    /// A process that a lock file names lives.
    pub(super) locked_by: Option<u32>,
    /// Somebody has seen a process that looks like LM Studio's.
    pub(super) is_seen: bool,
    /// Where the user's HTTP server was last; nothing where a file cannot be understood just now.
    pub(super) user: Option<UserServer>,
    /// The token, where the user gives one.
    pub(super) token: Option<ApiToken>,
}

impl Hints {
    /// Tells whether a back-end may be running.
    pub(super) fn is_any(&self) -> bool {
        !self.servers.is_empty() || self.locked_by.is_some() || self.is_seen
    }
}

/// Reads them. Blocks.
pub(super) fn read(ask: &Ask) -> Hints {
    let apps = apps(&ask.home);
    let mut hints = Hints { is_seen: ask.is_seen, ..Hints::default() };
    let mut user = Some(UserServer::default());
    for (index, folder) in internal_folders(&ask.home, &apps).into_iter().enumerate() {
        let app = index.checked_sub(1).and_then(|index| apps.get(index)).cloned();
        let small = |name: &str| read_text(&folder.join(name), SMALL).ok();
        // Half of a file would look as if LM Studio had ended.
        let server = read_whole(&folder.join("http-server.json"), SMALL, |text| {
            let server = parse_internal_server(text);
            (server, server.is_some())
        });
        if let Ok(Some(server)) = server
            && server.pid.is_some_and(is_alive)
        {
            hints.servers.push((app, server));
        }
        if hints.locked_by.is_none() {
            let pid = small("llmster-pid.lock").as_deref().and_then(parse_pid_lock);
            hints.locked_by = pid.filter(|pid| is_alive(*pid));
        }
        if let Some(text) = small("http-server-config.json") {
            let read = parse_user_server(&text);
            // An app's own file counts where that app is the only one that runs.
            if index == 0 || hints.servers.len() == 1 && hints.servers[0].0.is_some() {
                user = read;
            }
        }
    }
    hints.user = user;
    hints.token = ask.token_file.as_deref().and_then(token);
    hints
}

/// Returns where the user's HTTP server is dialled: on the loopback, or at the one address of this
/// machine that it listens on.
pub(super) fn user_address(server: UserServer) -> SocketAddrV4 {
    let own = server.interface.filter(|address| is_own(*address));
    SocketAddrV4::new(own.unwrap_or(Ipv4Addr::LOCALHOST), server.port)
}

/// Returns the file that a process runs.
pub(super) fn executable(pid: u32) -> Option<PathBuf> {
    #[cfg(target_os = "linux")]
    {
        fs::read_link(format!("/proc/{pid}/exe")).ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

        let (mut system, pid) = (System::new().ok()?, Pid::from_u32(pid));
        let executable = ProcessRefreshKind::nothing().with_exe(UpdateKind::Always);
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, executable);
        system.process(pid)?.exe().map(Path::to_owned)
    }
}

/// Tells whether a process runs, also another user's.
fn is_alive(pid: u32) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Pid, test_kill_process};

        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| matches!(test_kill_process(pid), Ok(()) | Err(rustix::io::Errno::PERM)))
    }
    #[cfg(not(target_os = "linux"))]
    {
        use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

        let (Ok(mut system), pid) = (System::new(), Pid::from_u32(pid)) else { return false };
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, ProcessRefreshKind::nothing());
        system.process(pid).is_some()
    }
}

/// Returns the names of the apps that share LM Studio's home.
fn apps(home: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(home.join("apps")) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().take(MOST_APPS).filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Reads a token. A file that holds none is as good as no file: LM Studio itself says whether it wants one.
fn token(path: &Path) -> Option<ApiToken> {
    ApiToken::parse(&read_text(path, SMALL).ok()?)
}

/// Tells whether an address is this machine's: only such a one can be bound.
fn is_own(address: Ipv4Addr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}
