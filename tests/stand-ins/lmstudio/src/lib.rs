//! A stand-in for LM Studio at its outermost border: the files under its home, its internal server
//! and the user's HTTP server, for tests.
//!
//! | module | holds |
//! | --- | --- |
//! | [`scenario`] | which LM Studio it is, which models it has and which are loaded |
//! | [`faults`] | what goes wrong, where, and how often |
//! | [`record`] | everything that reached it |
//! | `world` | what each interface says of the models |
//! | `home` | the files |
//! | `http`, `socket` | the two sides of both servers |
//! | [`control`] | orders as data, for scripts |
//!
//! It runs on a thread of its own, so that a test may be blocking or not. It never loads and never
//! infers: what asks for that is refused and on record as forbidden.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::{AbortHandle, JoinSet};

pub mod control;
pub mod faults;
mod home;
mod http;
pub mod record;
pub mod scenario;
mod socket;
mod world;

pub use faults::{Fault, Trouble};
pub use home::DEAD_PID;
pub use record::{Authorization, Call, Nature, Port};
pub use scenario::{Field, Instance, Model, Scenario};
pub use world::ESTIMATED_BYTES_A_TOKEN;

use home::Home;
use world::World;

/// The ports that LM Studio's internal server takes the first free of.
pub const INTERNAL_PORTS: [u16; 5] = [41_343, 52_993, 16_141, 39_414, 22_931];

/// A running stand-in; it ends when it is dropped.
#[derive(Debug)]
pub struct StandIn {
    /// LM Studio's home, `.lmstudio` in [`StandIn::user_home`].
    pub home: PathBuf,
    /// The home folder of the user whose LM Studio it is.
    pub user_home: PathBuf,
    /// The internal server's port; the last one where it is stopped.
    pub internal_port: u16,
    /// The user server's port; the last one where it is off.
    pub user_port: u16,
    shared: Arc<Shared>,
    internal: Option<Listening>,
    user: Option<Listening>,
    runtime: Option<Runtime>,
    /// Deleted with it.
    folder: Option<TempDir>,
}

/// What the connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    world: Mutex<World>,
    calls: Mutex<Vec<Call>>,
    faults: Mutex<Vec<Fault>>,
    clients: Mutex<HashMap<String, (String, u32)>>,
    connections: AtomicU64,
    sent: AtomicU64,
}

/// A server that accepts connections.
#[derive(Debug)]
struct Listening {
    task: AbortHandle,
    ended: mpsc::Receiver<()>,
}

impl StandIn {
    /// Starts one with a home of its own.
    pub fn start(scenario: Scenario) -> StandIn {
        let folder = tempfile::tempdir().expect("a folder for the home");
        // The system's folder may be behind a link, and LM Studio resolves those.
        let user_home = folder.path().canonicalize().expect("a folder that is there");
        let mut stand_in = StandIn::start_in(&user_home, scenario);
        stand_in.folder = Some(folder);
        stand_in
    }

    /// Starts one in the home folder of a user.
    pub fn start_in(user_home: &Path, scenario: Scenario) -> StandIn {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let home = user_home.join(".lmstudio");
        Home(home.clone()).furnish(&scenario);
        let shared = Arc::new(Shared {
            world: Mutex::new(World::new(scenario)),
            calls: Mutex::default(),
            faults: Mutex::default(),
            clients: Mutex::default(),
            connections: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        let mut stand_in = StandIn {
            home,
            user_home: user_home.to_owned(),
            internal_port: 0,
            user_port: 0,
            shared,
            internal: None,
            user: None,
            runtime: Some(runtime.expect("a runtime")),
            folder: None,
        };
        stand_in.start_again();
        stand_in
    }

    /// Starts both servers after [`StandIn::stop`], on ports of their own choice as at first, and writes the files.
    pub fn start_again(&mut self) {
        let (internal, user, is_on) = {
            let world = self.shared.world();
            (world.scenario.internal_port, world.scenario.user_port, world.scenario.user_server)
        };
        let (listening, port) = self.listen(Port::Internal, internal.unwrap_or(0));
        (self.internal, self.internal_port) = (Some(listening), port);
        self.files().write_http_server(std::process::id(), port);
        self.switch_user_server(false);
        if self.user_port == 0 {
            // One that is off has a port all the same.
            self.user_port = user.unwrap_or_else(free_port);
        }
        self.files().write_http_server_config(&self.shared.world().scenario, self.user_port);
        if is_on {
            self.switch_user_server(true);
        }
    }

    /// Stops both servers at once and leaves the files as they are, as a crash does.
    pub fn stop(&mut self) {
        for listening in [self.internal.take(), self.user.take()].into_iter().flatten() {
            listening.end();
        }
    }

    /// Stops both servers, and takes the file away that names the internal one.
    pub fn quit(&mut self) {
        self.stop();
        self.files().remove(".internal/http-server.json");
    }

    /// Stops it and starts it again: other ports, other references, nothing loaded that is not loaded again.
    pub fn restart(&mut self) {
        self.stop();
        self.shared.world().scenario.loaded.clear();
        self.start_again();
    }

    /// Switches the user's HTTP server on or off.
    pub fn switch_user_server(&mut self, is_on: bool) {
        if let Some(listening) = self.user.take() {
            listening.end();
        }
        if is_on {
            let wanted = self.shared.world().scenario.user_port.unwrap_or(0);
            let (listening, port) = self.listen(Port::User, wanted);
            (self.user, self.user_port) = (Some(listening), port);
            self.files().write_http_server_config(&self.shared.world().scenario, port);
        }
    }

    /// Loads an instance and returns its identifier.
    pub fn load(&self, instance: Instance) -> String {
        self.shared.world().load(instance)
    }

    /// Unloads an instance, as LM Studio does by itself or its user does; tells whether there was one.
    pub fn unload(&self, identifier: &str) -> bool {
        self.shared.world().unload(identifier)
    }

    /// Changes an instance; there must be one of that name.
    pub fn change(&self, identifier: &str, change: impl FnOnce(&mut Instance)) {
        change(self.shared.world().instance(identifier).expect("an instance of that name"));
    }

    /// Changes the scenario while it runs: the version, the token, the models.
    pub fn reconsider(&self, change: impl FnOnce(&mut Scenario)) {
        change(&mut self.shared.world().scenario);
    }

    /// Returns the scenario as it stands, the loaded instances with their names.
    pub fn scenario(&self) -> Scenario {
        self.shared.world().scenario.clone()
    }

    /// Makes something go wrong; what was made so before goes first.
    pub fn fault(&self, on: &str, trouble: Trouble) {
        self.add_fault(Fault::new(on, trouble));
    }

    /// Makes something go wrong for a number of times.
    pub fn add_fault(&self, fault: Fault) {
        lock(&self.shared.faults).push(fault);
    }

    /// Makes a whole server answer like another program's.
    pub fn foreign(&self, port: Port, body: &str) {
        self.fault(&format!("{port} * *"), Trouble::Answer { status: 200, body: body.into() });
    }

    /// Makes everything right again.
    pub fn mend(&self) {
        lock(&self.shared.faults).clear();
    }

    /// Returns everything that reached it.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.calls).clone()
    }

    /// Returns everything that reached it as words: `internal RPC llm.listLoaded`.
    pub fn heard(&self) -> Vec<String> {
        self.calls().iter().map(ToString::to_string).collect()
    }

    /// Returns the calls that do not only read.
    pub fn not_reading(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.nature != Nature::Reads).collect()
    }

    /// Forgets what reached it.
    pub fn forget(&self) {
        lock(&self.shared.calls).clear();
        self.shared.connections.store(0, Ordering::Relaxed);
        self.shared.sent.store(0, Ordering::Relaxed);
    }

    /// Returns how many connections were opened.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Returns how many bytes it has sent; what lies in the system's buffers counts.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Writes a file under LM Studio's home: text as it is, the rest as JSON.
    pub fn write(&self, name: &str, content: &Value) {
        self.files().write(name, content);
    }

    /// Writes where the internal server is said to listen.
    pub fn write_http_server(&self, pid: u32, port: u16) {
        self.files().write_http_server(pid, port);
    }

    /// Cuts a file in its middle, as one that is still being written looks.
    pub fn cut(&self, name: &str) {
        self.files().cut(name);
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) {
        self.files().remove(name);
    }

    fn files(&self) -> Home {
        Home(self.home.clone())
    }

    fn listen(&self, port: Port, wanted: u16) -> (Listening, u16) {
        let runtime = self.runtime.as_ref().expect("a runtime as long as it lives");
        let listener = bind(wanted);
        let number = listener.local_addr().expect("a listener has an address").port();
        let _inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener that does not block");
        let (end, ended) = mpsc::channel();
        let shared = self.shared.clone();
        let task = runtime.spawn(async move {
            // Dropped from below: the listener and the connections are gone when this is.
            let _end = end;
            let listener = listener;
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                        let _ = stream.set_nodelay(true);
                        shared.connections.fetch_add(1, Ordering::Relaxed);
                        connections.spawn(http::serve(stream, port, shared.clone()));
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        (Listening { task: task.abort_handle(), ended }, number)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop();
        if let Some(runtime) = self.runtime.take() {
            // A test may be asynchronous itself and must not wait here.
            runtime.shutdown_background();
        }
    }
}

impl Listening {
    fn end(self) {
        self.task.abort();
        // Until then a new connection might still be taken.
        let _ = self.ended.recv_timeout(Duration::from_secs(10));
    }
}

impl Shared {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    pub(crate) fn note(&self, call: Call) {
        lock(&self.calls).push(call);
    }

    pub(crate) fn count(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn trouble(&self, port: Port, kind: &str, name: &str) -> Option<Trouble> {
        faults::take(&mut lock(&self.faults), port, kind, name)
    }

    /// Lets a client in: the first passkey that an identifier comes with is its own as long as it is connected.
    pub(crate) fn enter(&self, identifier: &str, passkey: &str) -> bool {
        let mut clients = lock(&self.clients);
        let (own, connections) = clients.entry(identifier.to_owned()).or_insert_with(|| (passkey.to_owned(), 0));
        let is_own = own == passkey;
        *connections += u32::from(is_own);
        is_own
    }

    pub(crate) fn leave(&self, identifier: &str) {
        let mut clients = lock(&self.clients);
        if let Some((_, connections)) = clients.get_mut(identifier) {
            *connections = connections.saturating_sub(1);
            if *connections == 0 {
                clients.remove(identifier);
            }
        }
    }
}

fn bind(port: u16) -> TcpListener {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap_or_else(|error| panic!("port {port}: {error}"));
    listener.set_nonblocking(true).expect("a listener that does not block");
    listener
}

fn free_port() -> u16 {
    bind(0).local_addr().expect("a listener has an address").port()
}

/// A test that panics while it holds something must not hide behind the next one's panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
