//! Answers one request without a daemon: the same engine over a single scan.

use std::path::Path;
use std::sync::mpsc;

use super::places::Places;
use super::probes::{Probes, Roots};
use super::{clock, config_file, headers, lmstudio, state, walk};
use crate::config::Config;
use crate::engine::{Effect, Engine, Event, Reply, Request, RequestId};
use crate::library::ModelFile;

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
    let mut probes = Probes::new(config.machine.nvml_library, Roots::default());
    let mut read = 0;
    while engine.is_busy() {
        let (events, wanted) = perform(&mut engine, &mut probes, user_home);
        if events.is_empty() && wanted.is_empty() {
            break;
        }
        for event in events {
            engine.handle(event, clock::now());
        }
        let total = read + wanted.len();
        read_headers(wanted, |event| {
            read += 1;
            progress(read, total);
            engine.handle(event, clock::now());
        });
    }
    answer_of(&mut engine, request)
}

/// Performs the effects that a single scan needs. Returns what came of them, and the headers
/// that are wanted.
fn perform(engine: &mut Engine, probes: &mut Probes, user_home: &Path) -> (Vec<Event>, Vec<Vec<ModelFile>>) {
    let (mut events, mut wanted) = (Vec::new(), Vec::new());
    while let Some(effect) = engine.next_effect() {
        match effect {
            Effect::Scan { root, under } => events.push(Event::Listed(walk::walk(&root, &under))),
            Effect::ReadHeader { files } => wanted.push(files),
            Effect::Sample => events.push(Event::Sampled(probes.sample())),
            Effect::ReadLmStudio { config } => {
                events.push(Event::LmStudioRead(Box::new(lmstudio::read(&config, user_home))));
            }
            // A single scan watches, shows, says and keeps nothing.
            Effect::AskLoaded(_)
            | Effect::Unload { .. }
            | Effect::Watch { .. }
            | Effect::ShowTray(_)
            | Effect::Notify(_)
            | Effect::CloseNotice { .. }
            | Effect::Answer { .. }
            | Effect::Remember(_)
            | Effect::Open(_)
            | Effect::End => {}
        }
    }
    (events, wanted)
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

/// Asks the engine and takes its answer.
fn answer_of(engine: &mut Engine, request: Request) -> Reply {
    engine.handle(Event::Asked { id: RequestId(0), request }, clock::now());
    let mut reply = None;
    while let Some(effect) = engine.next_effect() {
        if let Effect::Answer { reply: answer, .. } = effect {
            reply = Some(answer);
        }
    }
    match reply {
        Some(Reply::Report(mut report)) => {
            report.live = false;
            Reply::Report(report)
        }
        Some(reply) => reply,
        None => Reply::Refused { message: "that needs a running fitwatch: start it with `fitwatch`".into() },
    }
}
