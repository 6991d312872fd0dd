//! The engine alone, over a real library: how long a change of the hardware takes.

use std::path::Path;
use std::time::{Duration, Instant};

use fitwatch::config::Config;
use fitwatch::engine::{Effect, Engine, Event, LmStudioRead};
use fitwatch::host::{headers, walk};
use fitwatch::library::{Origin, Remembered, Root};
use fitwatch::machine::{DeviceMemory, DeviceSample, GpuProbe, MemorySample, Sample, Vendor};
use fitwatch::report::Report;
use fitwatch::units::{Bytes, Moment, Span};

const GB: u64 = 1_000_000_000;

/// An engine that has judged every model of a folder.
pub(crate) struct Judged {
    engine: Engine,
    now: Moment,
    gpus: usize,
}

impl Judged {
    /// Performs the engine's effects on a folder of models until it wants nothing more.
    pub(crate) fn new(models: &Path, gpus: usize) -> Judged {
        let mut judged = Judged { engine: Engine::new("0.0.0", Remembered::default()), now: Moment(1_000_000), gpus };
        judged.engine.handle(Event::ConfigRead { config: Config::default(), warnings: Vec::new() }, judged.now);
        let root = Root { path: models.to_owned(), origin: Origin::LmStudio };
        while let Some(effect) = judged.engine.next_effect() {
            let event = match effect {
                Effect::ReadLmStudio { .. } => {
                    Event::LmStudioRead(Box::new(LmStudioRead { roots: vec![root.clone()], ..LmStudioRead::default() }))
                }
                Effect::Scan { root, under } => Event::Listed(walk::walk(&root, &under)),
                Effect::ReadHeader { files } => Event::HeaderRead(Box::new(headers::read(&files))),
                Effect::Sample => Event::Sampled(sample(gpus, 23 * GB)),
                _ => continue,
            };
            judged.engine.handle(event, judged.now);
        }
        judged.change(23 * GB);
        judged
    }

    /// Returns how long the engine takes to judge and show everything when free GPU memory changes.
    pub(crate) fn change(&mut self, free: u64) -> Duration {
        self.now = self.now.after(Span::seconds(5));
        let event = Event::Sampled(sample(self.gpus, free));
        let begin = Instant::now();
        self.engine.handle(event, self.now);
        while let Some(effect) = self.engine.next_effect() {
            std::hint::black_box(effect);
        }
        begin.elapsed()
    }

    /// Returns a report.
    pub(crate) fn report(&self) -> Report {
        self.engine.report(self.now)
    }
}

/// Free memory that goes up and down as programs come and go, seldom the same twice.
pub(crate) fn swings() -> impl Iterator<Item = u64> {
    (0_u64..40).map(|step| (3 + step * 7 % 21) * GB + step * 1_000_003)
}

fn sample(gpus: usize, free: u64) -> Sample {
    let memory = DeviceMemory {
        total: Bytes(24 * GB),
        used: Bytes((24 * GB).saturating_sub(free)),
        free: Bytes(free),
        ..DeviceMemory::default()
    };
    let device = |number| DeviceSample {
        id: format!("GPU-{number}"),
        name: "NVIDIA GeForce RTX 4090".into(),
        vendor: Vendor::Nvidia,
        memory: Some(Ok(memory)),
    };
    let ram = MemorySample { total: Bytes(64 * GB), available: Bytes(50 * GB), ..MemorySample::default() };
    let devices = (0..gpus).map(device).collect();
    Sample { memory: Ok(ram), gpus: GpuProbe { devices, ..GpuProbe::default() } }
}
