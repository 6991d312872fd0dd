//! The daemon's main loop: waits, hands one event to the engine, performs its effects.
//!
//! With a tray the main thread is the UI pump and the loop runs beside it; without one the loop
//! has the main thread. Either way it is one thread of tokio's; what blocks goes to its few
//! blocking threads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

use super::alarm::Alarm;
use super::events::{Events, Inbox, Incoming};
use super::instance::{Instance, InstanceError};
use super::logs::{Logs, Targets};
use super::notifications::Notifier;
use super::places::{Places, PlacesError};
use super::probes::{Probes, Roots};
use super::signals::{Signal, Signals};
use super::watch::Watcher;
use super::{clock, config_file, control, events, headers, lmstudio, login, logs, places, state, walk};
use crate::config::Config;
use crate::engine::{Effect, Engine, Event, Open, Reply, RequestId};
use crate::lmstudio::Program;
use crate::report::Problem;
use crate::tray::Tray;
use crate::units::Span;

/// How the daemon is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Show a tray icon where there is a tray.
    pub tray: bool,
}

/// Why the daemon could not start.
#[derive(Debug, Error)]
pub enum RunError {
    /// A folder of ours cannot be used.
    #[error(transparent)]
    Places(#[from] PlacesError),
    /// Another fitwatch of this user runs already, or that cannot be told.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The runtime could not be started.
    #[error("cannot start the event loop: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Threads for what blocks: two walk or read headers, one samples, one is spare.
const BLOCKING_THREADS: usize = 4;

/// Longer than the usual pace of samples, so that one thread stays for them and none wakes up to end.
const THREAD_KEPT: Duration = Duration::from_secs(45);

/// At the end, how long to wait for a walk or a probe that hangs on a dead disk or driver.
const PATIENCE: Duration = Duration::from_secs(2);

/// A deadline missed by more than this means that the machine slept.
const SLEPT: Span = Span::seconds(60);

/// Runs the daemon until it is told to end.
pub fn run(places: Places, options: Options) -> Result<(), RunError> {
    places.prepare()?;
    let instance = Instance::acquire(&places)?;
    let config = config_file::event(&places.config);
    let level = match &config {
        Event::ConfigRead { config, .. } => config.log.level.clone(),
        _ => Config::default().log.level,
    };
    let (logs, problem) = logs::start(&places, &level, Targets::of_process());
    let (events, inbox) = events::channel();
    if let Some(problem) = problem {
        events.post(Event::PartChanged { part: "log", problem: Some(problem) });
    }
    events.post(config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(THREAD_KEPT)
        .build()?;
    run_with_ui(runtime, inbox, Start { events, places, instance, logs }, options);
    Ok(())
}

/// What the main loop starts from.
struct Start {
    events: Events,
    places: Places,
    instance: Instance,
    logs: Logs,
}

#[cfg(feature = "tray")]
fn run_with_ui(runtime: tokio::runtime::Runtime, inbox: Inbox, start: Start, options: Options) {
    use super::tray::{UiMessage, run_ui};

    if !options.tray {
        run_without_ui(runtime, inbox, start);
        return;
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let events = start.events.clone();
    let core = std::thread::Builder::new().name("core".into()).spawn(move || {
        runtime.block_on(main_loop(inbox, start, |tray| {
            // A closed channel means that the UI has ended; the engine hears of that otherwise.
            let _ = sender.send(UiMessage::Show(tray));
        }));
        runtime.shutdown_timeout(PATIENCE);
        let _ = sender.send(UiMessage::Quit);
    });
    match core {
        Ok(core) => {
            run_ui(receiver, events);
            let _ = core.join();
        }
        Err(error) => tracing::error!("cannot start the core thread: {error}"),
    }
}

#[cfg(not(feature = "tray"))]
fn run_with_ui(runtime: tokio::runtime::Runtime, inbox: Inbox, start: Start, _: Options) {
    run_without_ui(runtime, inbox, start);
}

fn run_without_ui(runtime: tokio::runtime::Runtime, inbox: Inbox, start: Start) {
    runtime.block_on(main_loop(inbox, start, |_| {}));
    runtime.shutdown_timeout(PATIENCE);
}

/// Runs the engine until an [`Effect::End`].
async fn main_loop(mut inbox: Inbox, start: Start, show_tray: impl Fn(Box<Tray>)) {
    let (remembered, problem) = state::load(&start.places.state);
    let mut engine = Engine::new(env!("CARGO_PKG_VERSION"), remembered);
    if let Some(problem) = problem {
        tracing::warn!("{}", problem.message);
        engine.handle(Event::PartChanged { part: state::FOUND, problem: Some(problem) }, clock::now());
    }
    let mut host = Host::start(start, show_tray);
    let mut signals = Signals::new();
    let mut alarm = Alarm::new();
    loop {
        let deadline = engine.deadline();
        tokio::select! {
            arrival = inbox.next() => match arrival {
                Some(Incoming::Event(event)) => {
                    host.look_at(&event);
                    engine.handle(event, clock::now());
                }
                Some(Incoming::Asked { request, answer }) => {
                    let id = host.waiting(answer);
                    engine.handle(Event::Asked { id, request }, clock::now());
                }
                None => return,
            },
            () = alarm.rings_at(deadline) => {
                let now = clock::now();
                let slept = deadline.is_some_and(|deadline| now.since(deadline) > SLEPT);
                engine.handle(if slept { Event::EverythingDirty } else { Event::DeadlineReached }, now);
            }
            signal = signals.next() => match signal {
                Signal::End => engine.handle(Event::EndRequested, clock::now()),
                Signal::Reload => host.read_config(),
            },
        }
        while let Some(effect) = engine.next_effect() {
            if effect == Effect::End {
                login::notify_stopping();
                host.finish_saving().await;
                return;
            }
            host.perform(effect);
        }
    }
}

/// What performs effects.
struct Host<S> {
    events: Events,
    places: Arc<Places>,
    show_tray: S,
    watcher: Watcher,
    notifier: Notifier,
    probes: Arc<Mutex<Probes>>,
    nvml_library: Option<PathBuf>,
    logs: Logs,
    answers: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    last_request: u64,
    saving: Option<tokio::task::JoinHandle<()>>,
    lm_studio: Arc<Mutex<lmstudio::Follower>>,
    rounds: Arc<tokio::sync::Mutex<lmstudio::Rounds>>,
    _config_watch: Option<config_file::Watch>,
    _instance: Instance,
}

impl<S: Fn(Box<Tray>)> Host<S> {
    fn start(start: Start, show_tray: S) -> Host<S> {
        let Start { events, places, instance, logs } = start;
        serve_control(&events, &places, &instance);
        Host {
            watcher: Watcher::new(events.clone()),
            notifier: Notifier::spawn(events.clone()),
            probes: Arc::new(Mutex::new(Probes::new(None, Roots::default()))),
            nvml_library: None,
            lm_studio: Arc::new(Mutex::new(lmstudio::Follower::new(places::user_home().unwrap_or_default(), {
                let events = events.clone();
                move || events.post(Event::LmStudioChanged)
            }))),
            rounds: Arc::default(),
            answers: BTreeMap::new(),
            last_request: 0,
            saving: None,
            _config_watch: watch_config(&events, &places),
            _instance: instance,
            places: Arc::new(places),
            logs,
            events,
            show_tray,
        }
    }

    /// Takes from an event on its way to the engine what the host itself needs to know.
    fn look_at(&mut self, event: &Event) {
        if let Event::LoadedAsked(round) = event
            && let Some(backend) = &round.backend
        {
            self.follow(backend.program);
        }
        if let Event::ConfigRead { config, .. } = event {
            self.logs.set_level(&config.log.level);
            if self.nvml_library != config.machine.nvml_library {
                self.nvml_library.clone_from(&config.machine.nvml_library);
                // New ones beside the old: a sample under way may take its time with those.
                self.probes = Arc::new(Mutex::new(Probes::new(self.nvml_library.clone(), Roots::default())));
            }
        }
    }

    /// Has the files of the program that runs read, where it has files of its own.
    fn follow(&self, program: Program) {
        // A reading under way has the lock; the next round comes soon.
        let runs_another = self.lm_studio.try_lock().is_ok_and(|mut follower| follower.runs(program));
        if runs_another {
            self.events.post(Event::LmStudioChanged);
        }
    }

    /// Reads the config anew and hands it over.
    fn read_config(&self) {
        let (events, places) = (self.events.clone(), Arc::clone(&self.places));
        spawn_blocking(move || events.deliver_blocking(config_file::event(&places.config)));
    }

    /// Remembers who waits for an answer.
    fn waiting(&mut self, answer: oneshot::Sender<Reply>) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.answers.insert(id, answer);
        id
    }

    fn perform(&mut self, effect: Effect) {
        let events = self.events.clone();
        match effect {
            Effect::Watch { roots } => self.watcher.watch(roots),
            Effect::Scan { root, under } => {
                spawn_blocking(move || events.deliver_blocking(Event::Listed(walk::walk(&root, &under))));
            }
            Effect::ReadHeader { files } => {
                spawn_blocking(move || events.deliver_blocking(Event::HeaderRead(Box::new(headers::read(&files)))));
            }
            Effect::Sample => {
                self.watcher.is_awake();
                let probes = Arc::clone(&self.probes);
                spawn_blocking(move || events.deliver_blocking(Event::Sampled(lock(&probes).sample())));
            }
            Effect::ReadLmStudio { config } => {
                let lm_studio = Arc::clone(&self.lm_studio);
                spawn_blocking(move || {
                    let read = lock(&lm_studio).read(&config);
                    events.deliver_blocking(Event::LmStudioRead(Box::new(read)));
                });
            }
            Effect::AskLoaded(ask) => {
                let rounds = Arc::clone(&self.rounds);
                tokio::spawn(async move {
                    let round = rounds.lock().await.ask(*ask).await;
                    events.deliver(Event::LoadedAsked(Box::new(round))).await;
                });
            }
            Effect::Unload { ask, instance } => {
                let rounds = Arc::clone(&self.rounds);
                tokio::spawn(async move {
                    let outcome = rounds.lock().await.unload(*ask, &instance).await;
                    events.deliver(Event::Unloaded { instance, outcome }).await;
                });
            }
            Effect::ShowTray(tray) => {
                // Only the first makes the unit ready; the others change its status.
                login::notify_ready(&tray.tooltip);
                (self.show_tray)(tray);
            }
            Effect::Notify(notice) => self.notifier.show(notice),
            Effect::CloseNotice { topic } => self.notifier.close(&topic),
            Effect::Answer { id, reply } => {
                if let Some(answer) = self.answers.remove(&id) {
                    // Whoever asked may have gone in the meantime.
                    let _ = answer.send(reply);
                }
            }
            Effect::Remember(remembered) => {
                let places = Arc::clone(&self.places);
                self.saving = Some(tokio::task::spawn_blocking(move || {
                    let problem = state::save(&places.state, &remembered).err().map(|error| error.problem());
                    events.post(Event::PartChanged { part: "state", problem });
                }));
            }
            Effect::Open(what) => self.open(&what),
            // The main loop ends on it.
            Effect::End => {}
        }
    }

    /// Waits until the state that is being written is on disk.
    async fn finish_saving(&mut self) {
        if let Some(saving) = self.saving.take() {
            // Only a panic in the writer makes this fail; the log has it then.
            let _ = saving.await;
        }
    }

    fn open(&self, what: &Open) {
        let path = match what {
            Open::Settings => self.places.config.clone(),
            Open::Log => self.logs.newest().unwrap_or_else(|| self.places.logs.clone()),
        };
        let events = self.events.clone();
        spawn_blocking(move || {
            if let Err(error) = open_path(&path) {
                let problem = Problem {
                    part: "open".into(),
                    message: format!("cannot open {}: {error}", path.display()),
                    hint: Some("open it by hand".into()),
                };
                events.deliver_blocking(Event::PartChanged { part: "open", problem: Some(problem) });
            }
        });
    }
}

/// Opens a file or folder with the user's program for it.
fn open_path(path: &Path) -> std::io::Result<()> {
    match login::open_outside_unit(&path.to_string_lossy()) {
        Some(mut command) => command.status().map(drop),
        None => open::that_detached(path),
    }
}

/// Serves the control socket. Without it the daemon goes on: only the commands cannot reach it.
fn serve_control(events: &Events, places: &Places, instance: &Instance) {
    match control::Server::bind(places, instance) {
        Ok(server) => {
            tokio::spawn(server.serve(events.clone()));
        }
        Err(error) => {
            let problem = Problem {
                part: "control".into(),
                message: format!("commands cannot reach this fitwatch: {error}"),
                hint: Some("check the rights of the folder that `fitwatch doctor` names".into()),
            };
            events.post(Event::PartChanged { part: "control", problem: Some(problem) });
        }
    }
}

/// Watches the config file. Without the watch a change waits for SIGHUP or the next start.
fn watch_config(events: &Events, places: &Places) -> Option<config_file::Watch> {
    let (events, path) = (events.clone(), places.config.clone());
    let watched = config_file::watch(&places.config, move || events.deliver_blocking(config_file::event(&path)));
    watched.inspect_err(|error| tracing::warn!("the config file is not watched: {error}")).ok()
}

fn spawn_blocking(work: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(work);
}

/// Locks what only a panic elsewhere could have poisoned; the probes hold no half-made state.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
