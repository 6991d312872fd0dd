//! The run: one measurement after the other, then the table.

use std::fs::{self, File};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use fitwatch::gguf::{Limits, read_header};
use fitwatch::memory::{Backend, Devices, EngineProfile, Gpu, GpuLayers, Settings, Structure, bill};
use fitwatch::units::Bytes;

use crate::daemon::{Daemon, program};
use crate::desktop::Desktop;
use crate::engine::{Judged, swings};
use crate::library;

const MODELS: usize = 1_000;
/// A start has settled after this long: threads have ended, everything is written.
const SETTLED: Duration = Duration::from_secs(30);
/// Files must keep still for so long before they are judged.
const SETTLE_MS: f64 = 1_000.0;
/// A machine whose free memory moves by this is sampled more often, which is an event.
const MOVED: u64 = 250_000_000;

pub(crate) fn main() -> ExitCode {
    let options = Options::parse();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let home = folder.path().join("home");
    let models = home.join(".lmstudio/models");
    library::write(&models, MODELS, options.full_every);
    let mut table = Table::default();

    if !options.tray_only {
        fast(&models, &mut table);
        without_tray(&home, &models, &options, &mut table);
    }
    with_tray(folder.path(), &home, &options, &mut table);

    table.print();
    if table.is_broken() && !options.report_only { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

struct Options {
    report_only: bool,
    tray_only: bool,
    quiet: Duration,
    full_every: usize,
}

impl Options {
    fn parse() -> Options {
        let words: Vec<String> = std::env::args().collect();
        let number = |name: &str, usual: u64| {
            let value = words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
            value.map_or(usual, |value| value.parse().expect("a whole number"))
        };
        Options {
            tray_only: words.iter().any(|word| word == "--tray-only"),
            report_only: words.iter().any(|word| word == "--report-only"),
            quiet: Duration::from_secs(number("--quiet-seconds", 60)),
            full_every: usize::try_from(number("--full-every", 20)).expect("a small number").max(1),
        }
    }
}

/// What needs no process of its own.
fn fast(models: &Path, table: &mut Table) {
    let file = library::write_model(&models.with_file_name("apart"), "8b.gguf", &shape("llama-3.1-8b-Q4_K_M"), true);
    table.row("header of an 8B model", Some(1.5), median(50, || time(|| read(&file))), "ms");
    table.row("one bill, the dearest of the sample", Some(20.0), dearest_bill(), "µs");
    for gpus in [1, 2] {
        let mut judged = Judged::new(models, gpus);
        assert!(judged.report().models.iter().filter(|model| model.fit.is_some()).count() == MODELS);
        let mut times: Vec<f64> = swings().map(|free| ms(judged.change(free))).collect();
        let ceiling = (gpus == 1).then_some(5.0);
        let coldest = times.iter().copied().fold(0.0, f64::max);
        times.sort_by(f64::total_cmp);
        table.row(&format!("hardware change, {gpus} GPU, median"), ceiling, times[times.len() / 2], "ms");
        table.row(&format!("hardware change, {gpus} GPU, slowest"), None, coldest, "ms");
    }
}

/// A first start, without a tray: everything is read.
fn without_tray(home: &Path, models: &Path, options: &Options, table: &mut Table) {
    let daemon = Daemon::start(home, None);
    table.row("start → first full list, warm page cache", Some(1_000.0), ms(daemon.first_list(MODELS)), "ms");
    daemon.expect_judged(MODELS);
    quiet(&daemon, "after reading all headers, no tray", options, table);
    table.row("report over the control socket", None, ms(daemon.report().1), "ms");
    table.row("fitwatch list", None, median(5, || time(|| list(home))), "ms");

    let apart = models.with_file_name("apart");
    let finished = library::write_model(&apart, "new.gguf", &shape("qwen2.5-0.5b-Q8_0"), true);
    let folder = models.join("publisher-new/new-GGUF");
    fs::create_dir_all(&folder).expect("a folder");
    let fitting = daemon.fitting();
    let begin = Instant::now();
    fs::rename(finished, folder.join("new.gguf")).expect("a rename");
    // Its row comes first, as a download; the small model fits once it is judged.
    let judged = ms(daemon.said(&format!("{} of {} models fit", fitting + 1, MODELS + 1)) - begin);
    table.row("file finished → menu, settling included", None, judged, "ms");
    table.row("file finished → menu, after it settled", Some(500.0), judged - SETTLE_MS, "ms");
    fs::remove_dir_all(folder).expect("a folder that can be removed");
    daemon.judged(MODELS);
    daemon.quit();
    let state = fs::metadata(home.join(".local/state/fitwatch/state.json")).expect("a state file").len();
    table.row("state file", None, state as f64 / 1e6, "MB");
}

/// A second start, with a tray where there is a bus: headers are remembered.
fn with_tray(folder: &Path, home: &Path, options: &Options, table: &mut Table) {
    let first = |_: usize| {
        let daemon = Daemon::start(home, None);
        let time = ms(daemon.first_list(MODELS));
        daemon.quit();
        time
    };
    // Writes what the next ones remember.
    first(0);
    let mut times: Vec<f64> = (0..5).map(first).collect();
    times.sort_by(f64::total_cmp);
    table.row("start → first full list, remembered headers", Some(100.0), times[2], "ms");
    let Some(desktop) = Desktop::start(folder) else {
        table.row("with a tray: skipped, dbus-daemon is not there", None, 0.0, "");
        return;
    };
    let daemon = Daemon::start(home, Some(&desktop.address));
    table.row("the same with a tray", None, ms(daemon.first_list(MODELS)), "ms");
    daemon.expect_judged(MODELS);
    quiet(&daemon, "from remembered headers, with a tray", options, table);
    daemon.quit();
}

/// Watches a daemon that has nothing to do.
fn quiet(daemon: &Daemon, when: &str, options: &Options, table: &mut Table) {
    std::thread::sleep(SETTLED.min(options.quiet));
    let quiet = daemon.quiet(options.quiet);
    let resident = daemon.resident();
    table.row(&format!("resident memory, {when}"), Some(20.0), resident.all as f64 / 1e6, "MB");
    table.row("  of it anonymous", None, resident.anonymous as f64 / 1e6, "MB");
    let is_steady = quiet.moved < MOVED;
    table.row(&format!("CPU, {when}"), is_steady.then_some(0.05), quiet.percent, "%");
    table.row(&format!("wake-ups, {when}"), is_steady.then_some(2.0), quiet.wakes, "a minute");
    table.row("  context switches of all threads", None, quiet.switches, "a minute");
    if !is_steady {
        table.row("  not held to it: free memory moved by", None, quiet.moved as f64 / 1e6, "MB");
    }
}

fn read(path: &Path) {
    let file = File::open(path).expect("the file is there");
    let bytes = file.metadata().expect("the file is there").len();
    std::hint::black_box(read_header(file, bytes, &Limits::default()).expect("a good header"));
}

fn list(home: &Path) {
    let listed = program(home, &["list", "--json"]).stdout(Stdio::null()).status();
    assert!(listed.is_ok_and(|status| status.code().is_some()), "fitwatch list failed");
}

/// Returns the longest time of one bill among the measured shapes.
fn dearest_bill() -> f64 {
    let gpu = |index: u32| Gpu { name: format!("CUDA{index}"), memory: Bytes::GIB.saturating_mul(24), overhead: None };
    let devices = Devices { backend: Backend::Cuda, gpus: (0..2).map(gpu).collect() };
    let profile = EngineProfile::server();
    let settings = Settings { gpu_layers: GpuLayers::Count(20), ..Settings::default() };
    let structures = library::all_shapes();
    let structures = structures.iter().filter_map(|shape| serde_json::from_value::<Structure>(shape.clone()).ok());
    let times = structures
        .map(|structure| median(101, || time(|| drop(bill(&structure, None, &settings, &devices, &profile)))));
    times.fold(0.0, f64::max) * 1_000.0
}

fn shape(name: &str) -> serde_json::Value {
    let shapes = library::shapes();
    shapes.into_iter().find(|(known, _)| known == name).expect("a shape of the sample").1
}

fn time(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    ms(begin.elapsed())
}

fn median(times: usize, work: impl FnMut() -> f64) -> f64 {
    let mut all: Vec<f64> = std::iter::repeat_with(work).take(times).collect();
    all.sort_by(f64::total_cmp);
    all[times / 2]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What was measured.
#[derive(Default)]
struct Table(Vec<Row>);

struct Row {
    what: String,
    ceiling: Option<f64>,
    measured: f64,
    unit: &'static str,
}

impl Table {
    fn row(&mut self, what: &str, ceiling: Option<f64>, measured: f64, unit: &'static str) {
        println!("{what}: {measured:.3} {unit}");
        self.0.push(Row { what: what.to_owned(), ceiling, measured, unit });
    }

    fn is_broken(&self) -> bool {
        self.0.iter().any(Row::is_broken)
    }

    fn print(&self) {
        println!("\n{:<68} {:>10} {:>12}", "what", "ceiling", "measured");
        for row in &self.0 {
            let ceiling = row.ceiling.map_or_else(String::new, |ceiling| format!("{ceiling}"));
            let mark = if row.is_broken() { "  BROKEN" } else { "" };
            println!("{:<68} {ceiling:>10} {:>12.3} {}{mark}", row.what, row.measured, row.unit);
        }
    }
}

impl Row {
    fn is_broken(&self) -> bool {
        self.ceiling.is_some_and(|ceiling| self.measured > ceiling)
    }
}
