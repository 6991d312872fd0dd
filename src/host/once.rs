//! Answers one request without a daemon: the same engine over a single scan.

use std::path::Path;
use std::sync::mpsc;

use tokio::runtime::Runtime;

use super::lmstudio::Rounds;
use super::places::Places;
use super::probes::{Probes, Roots};
use super::{clock, config_file, headers, lmstudio, state, walk};
use crate::config::Config;
use crate::engine::{Effect, Engine, Event, Reply, Request, RequestId};
use crate::library::ModelFile;
use crate::lmstudio::Unloaded;
use crate::units::Span;

/// Scans once and answers. `progress` hears of headers read and wanted.
pub fn answer(places: &Places, user_home: &Path, request: Request, progress: impl Fn(usize, usize)) -> Reply {
    let mut engine = Engine::new(env!("CARGO_PKG_VERSION"), state::peek(&places.state));
    let config = match config_file::event(&places.config) {
        Event::ConfigRead { config, warnings } => {
            engine.handle(Event::ConfigRead { config: config.clone(), warnings }, clock::now());
            config
        }
        rejected => {
            // The problem stands beside the default config that is used in its place.
            engine.handle(Event::ConfigRead { config: Config::default(), warnings: Vec::new() }, clock::now());
            engine.handle(rejected, clock::now());
            Config::default()
        }
    };
    let probes = Probes::new(config.machine.nvml_library, Roots::default());
    let mut scan = Scan { engine, probes, user_home, rounds: Rounds::default(), runtime: None, reply: None };
    scan.read_all(progress);
    scan.look_again();
    scan.engine.handle(Event::Asked { id: RequestId(0), request }, clock::now());
    scan.perform_all();
    match scan.reply {
        Some(Reply::Report(mut report)) => {
            report.live = false;
            Reply::Report(report)
        }
        Some(reply) => reply,
        None => Reply::Refused { message: "that needs a running fitwatch: start it with `fitwatch`".into() },
    }
}

/// A single scan.
struct Scan<'a> {
    engine: Engine,
    probes: Probes,
    user_home: &'a Path,
    rounds: Rounds,
    runtime: Option<Runtime>,
    reply: Option<Reply>,
}

impl Scan<'_> {
    /// Reads folders, headers, LM Studio's files and the machine.
    fn read_all(&mut self, progress: impl Fn(usize, usize)) {
        let mut read = 0;
        while self.engine.is_busy() {
            let (events, wanted) = self.perform();
            if events.is_empty() && wanted.is_empty() {
                break;
            }
            for event in events {
                self.engine.handle(event, clock::now());
            }
            let total = read + wanted.len();
            read_headers(wanted, |event| {
                read += 1;
                progress(read, total);
                self.engine.handle(event, clock::now());
            });
        }
        self.perform_all();
    }

    /// Asks once more for loaded models whose file is in doubt: the first answer came before the library
    /// was read.
    fn look_again(&mut self) {
        self.engine.handle(Event::DeadlineReached, clock::now());
        if self.engine.report(clock::now()).loaded.iter().any(|instance| instance.model.is_none()) {
            self.engine.handle(Event::DeadlineReached, clock::now().after(Span::seconds(2)));
        }
        self.perform_all();
    }

    /// Performs effects until none is left.
    fn perform_all(&mut self) {
        loop {
            let (events, _) = self.perform();
            if events.is_empty() {
                return;
            }
            for event in events {
                self.engine.handle(event, clock::now());
            }
        }
    }

    /// Performs the effects that a single scan needs. Returns what came of them, and the headers
    /// that are wanted.
    fn perform(&mut self) -> (Vec<Event>, Vec<Vec<ModelFile>>) {
        let (mut events, mut wanted) = (Vec::new(), Vec::new());
        while let Some(effect) = self.engine.next_effect() {
            match effect {
                Effect::Scan { root, under } => events.push(Event::Listed(walk::walk(&root, &under))),
                Effect::ReadHeader { files } => wanted.push(files),
                Effect::Sample => events.push(Event::Sampled(self.probes.sample())),
                Effect::ReadLmStudio { config } => {
                    events.push(Event::LmStudioRead(Box::new(lmstudio::read(&config, self.user_home))));
                }
                Effect::AskLoaded(ask) => {
                    let round = self.wait(async |rounds| rounds.ask(*ask).await).unwrap_or_default();
                    events.push(Event::LoadedAsked(Box::new(round)));
                }
                Effect::Unload { ask, instance } => {
                    let outcome = self.wait(async |rounds| rounds.unload(*ask, &instance).await);
                    let failed =
                        || Unloaded::Failed { reason: "the system gives no resources to ask LM Studio".into() };
                    events.push(Event::Unloaded { instance, outcome: outcome.unwrap_or_else(failed) });
                }
                Effect::Answer { reply, .. } => self.reply = Some(reply),
                // A single scan watches, shows, says and keeps nothing.
                Effect::Watch { .. }
                | Effect::ShowTray(_)
                | Effect::Notify(_)
                | Effect::CloseNotice { .. }
                | Effect::Remember(_)
                | Effect::Open(_)
                | Effect::End => {}
            }
        }
        (events, wanted)
    }

    /// Waits for what is asked of LM Studio; nothing where no event loop can be had.
    fn wait<T>(&mut self, work: impl AsyncFnOnce(&mut Rounds) -> T) -> Option<T> {
        if self.runtime.is_none() {
            self.runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok();
        }
        Some(self.runtime.as_ref()?.block_on(work(&mut self.rounds)))
    }
}

/// Reads headers on all cores and hands each result over as it comes.
fn read_headers(wanted: Vec<Vec<ModelFile>>, mut take: impl FnMut(Event)) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(wanted.len());
    let queue = std::sync::Mutex::new(wanted.into_iter());
    let (sender, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, queue) = (sender.clone(), &queue);
            scope.spawn(move || {
                loop {
                    let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                    let Some(files) = next else { return };
                    if sender.send(Event::HeaderRead(Box::new(headers::read(&files)))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        results.into_iter().for_each(&mut take);
    });
}
