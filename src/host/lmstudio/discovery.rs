//! Finds the running back-end's two servers on this machine.
//!
//! A port counts only with LM Studio's own body on it: the file that names it may be old, and the
//! port another program's. Where nothing answers, the ports are left alone for longer each time.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::hints::{self, Hints};
use super::http::{self, HttpError, Patience};
use super::link::{CallError, Credentials, Link};
use super::pause::Pause;
use crate::lmstudio::{
    BackendInfo, Endpoint, InternalServer, Namespace, Route, RunningBackend, Signs, Status, UserServer, is_greeting,
    parse_info, parse_status, ports, program,
};

/// Where the servers are, and which back-end they belong to.
#[derive(Debug)]
pub(super) struct Discovery {
    /// The internal interface, where it answers.
    pub(super) internal: Option<SocketAddrV4>,
    /// The user's HTTP server, where it answers.
    pub(super) user: Option<SocketAddrV4>,
    backend: RunningBackend,
    /// Where the user's server is said to be.
    said: UserServer,
    internal_pause: Pause,
    user_pause: Pause,
}

/// What a look has found anew.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changed {
    pub(super) internal: bool,
    pub(super) user: bool,
}

impl Discovery {
    pub(super) fn new(pause: Pause) -> Discovery {
        Discovery {
            internal: None,
            user: None,
            backend: RunningBackend::default(),
            said: UserServer::default(),
            internal_pause: pause,
            user_pause: pause,
        }
    }

    /// Forgets the back-end: it has ended, or another one has begun.
    pub(super) fn forget(&mut self) {
        self.internal_pause.reset();
        *self = Discovery::new(self.internal_pause);
    }

    /// Gives the internal interface up, so that it is looked for at once.
    pub(super) fn lose_internal(&mut self) {
        self.internal = None;
        self.internal_pause.reset();
    }

    /// Gives the user's server up.
    pub(super) fn lose_user(&mut self) {
        self.user = None;
        self.user_pause.failed();
    }

    /// Returns the back-end where one of its servers answers.
    pub(super) fn running(&self) -> Option<RunningBackend> {
        (self.internal.is_some() || self.user.is_some()).then(|| RunningBackend {
            internal_port: self.internal.map(|address| address.port()),
            user_port: self.user.map(|address| address.port()),
            ..self.backend.clone()
        })
    }

    /// Looks for what is not known, as far as it is time to.
    pub(super) async fn look(
        &mut self,
        hints: &Hints,
        usual: &[u16],
        credentials: &Credentials,
        patience: Patience,
    ) -> Changed {
        let mut changed = Changed::default();
        if self.internal.is_none() && self.internal_pause.is_over() {
            changed.internal = self.find_internal(hints, usual, credentials, patience).await;
        }
        if let Some(said) = hints.user
            && said != self.said
        {
            self.said = said;
            self.user = None;
            self.user_pause.reset();
        }
        if self.user_pause.is_over() {
            changed.user = self.find_user(patience).await;
        }
        changed
    }

    async fn find_internal(
        &mut self,
        hints: &Hints,
        usual: &[u16],
        credentials: &Credentials,
        patience: Patience,
    ) -> bool {
        let named = hints.servers.iter().filter_map(|(_, server)| server.port);
        for port in ports(named, usual) {
            let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
            let Some(status) = status(address, patience).await else { continue };
            let info = info(address, credentials, patience).await;
            self.backend = describe(hints, port, &status, &info);
            self.internal = Some(address);
            self.internal_pause.reset();
            return true;
        }
        self.internal_pause.failed();
        false
    }

    async fn find_user(&mut self, patience: Patience) -> bool {
        let address = hints::user_address(self.said);
        let body = http::ask(address, Route::Greeting, None, patience).await;
        let was_known = self.user.is_some();
        self.user = body.is_ok_and(|body| is_greeting(&body)).then_some(address);
        if self.user.is_some() {
            // What is up may go, but whoever asks it notices that.
            self.user_pause.rest();
        } else {
            self.user_pause.failed();
        }
        self.user.is_some() && !was_known
    }
}

/// Returns what a port says of itself where it is LM Studio's.
async fn status(address: SocketAddrV4, patience: Patience) -> Option<Status> {
    match http::ask(address, Route::Status, None, patience).await {
        Ok(body) => {
            if let Some(status) = parse_status(&body) {
                return Some(status);
            }
        }
        // What does not answer at all is not asked twice.
        Err(HttpError::Absent | HttpError::Failed(_)) => return None,
    }
    // Clients of other versions know it by this.
    let body = http::ask(address, Route::Greeting, None, patience).await.ok()?;
    is_greeting(&body).then(Status::default)
}

/// Asks the back-end who it is, over a websocket of its own.
async fn info(address: SocketAddrV4, credentials: &Credentials, patience: Patience) -> BackendInfo {
    let asked = async {
        let mut link = Link::open(address, Namespace::System, credentials, patience).await?;
        let mut info = link.call(Endpoint::Info, None, parse_info).await;
        if info == Err(CallError::Unknown) {
            info = link.call(Endpoint::Version, None, parse_info).await;
        }
        link.close().await;
        info
    };
    asked.await.unwrap_or_default()
}

fn describe(hints: &Hints, port: u16, status: &Status, info: &BackendInfo) -> RunningBackend {
    let is_here = |(_, server): &&(Option<String>, InternalServer)| server.port == Some(port);
    let named = hints.servers.iter().find(is_here).or(hints.servers.first());
    let pid = info.pid.or(named.and_then(|(_, server)| server.pid)).or(hints.locked_by);
    let executable = pid.and_then(hints::executable);
    let signs = Signs {
        executable: executable.as_deref(),
        is_daemon: info.is_daemon,
        package: status.package.as_deref(),
        app: named.and_then(|(app, _)| app.as_deref()),
    };
    let version = status.version.clone().or_else(|| info.version.clone());
    RunningBackend { program: program(signs), pid, version, ..RunningBackend::default() }
}
