//! The real program under watch: what it says to its service manager, and what the kernel says of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fitwatch::engine::{Reply, Request};
use fitwatch::fit::Verdict;
use fitwatch::host::control::ask;
use fitwatch::host::places::Places;
use fitwatch::report::{Report, StateReport};

/// How long anything may take before the run is given up.
const PATIENCE: Duration = Duration::from_mins(1);
/// Bursts of work closer together than this are one wake-up.
const APART: Duration = Duration::from_millis(250);
/// How often the kernel is asked whether a thread has run.
const LOOK: Duration = Duration::from_millis(20);

/// A running fitwatch in a home of its own.
pub(crate) struct Daemon {
    child: Child,
    started: Instant,
    status: UnixDatagram,
    places: Places,
}

/// What a quiet stretch of time has cost.
#[derive(Debug)]
pub(crate) struct Quiet {
    /// Processor time as a share of one core, in percent.
    pub(crate) percent: f64,
    /// Bursts of work, however many threads take part, in a minute.
    pub(crate) wakes: f64,
    /// Voluntary context switches of all threads in a minute.
    pub(crate) switches: f64,
    /// How far the machine's free memory has moved, which raises the pace of samples.
    pub(crate) moved: u64,
}

/// Resident memory in bytes.
#[derive(Debug)]
pub(crate) struct Resident {
    pub(crate) all: u64,
    pub(crate) anonymous: u64,
}

impl Daemon {
    /// Starts the program; `bus` is the session bus on which to show a tray.
    pub(crate) fn start(home: &Path, bus: Option<&str>) -> Daemon {
        let runtime = home.join("run");
        fs::create_dir_all(&runtime).expect("a runtime folder");
        let socket = home.with_file_name("notify");
        // The socket of the run before.
        let _ = fs::remove_file(&socket);
        let status = UnixDatagram::bind(&socket).expect("a socket for the status");
        let mut command = program(home, &["run"]);
        command.env("NOTIFY_SOCKET", &socket).stdout(Stdio::null()).stderr(Stdio::null());
        match bus {
            Some(address) => command.env("DBUS_SESSION_BUS_ADDRESS", address),
            None => command.arg("--no-tray"),
        };
        let started = Instant::now();
        let child = command.spawn().expect("the program starts");
        let places = Places { runtime: runtime.join("fitwatch"), ..Places::under(home) };
        Daemon { child, started, status, places }
    }

    /// Returns how long after the start the line under the icon said that so many models are judged.
    pub(crate) fn first_list(&self, models: usize) -> Duration {
        self.judged(models) - self.started
    }

    /// Waits until the line under the icon says that so many models are judged.
    pub(crate) fn judged(&self, models: usize) -> Instant {
        self.said(&format!(" of {models} models fit"))
    }

    /// Waits until the line under the icon says something.
    pub(crate) fn said(&self, words: &str) -> Instant {
        let mut buffer = [0; 4_096];
        loop {
            self.status.set_read_timeout(Some(PATIENCE)).expect("a time limit");
            let length = match self.status.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("fitwatch never said {words}: {error}"),
            };
            if String::from_utf8_lossy(&buffer[..length]).contains(words) {
                return Instant::now();
            }
        }
    }

    /// Returns the report and how long it took.
    pub(crate) fn report(&self) -> (Report, Duration) {
        let asked = Instant::now();
        match ask(&self.places, &Request::Report, PATIENCE) {
            Ok(Reply::Report(report)) => (*report, asked.elapsed()),
            other => panic!("no report: {other:?}"),
        }
    }

    /// Checks that all models are judged and nothing is under way.
    pub(crate) fn expect_judged(&self, models: usize) {
        let (report, _) = self.report();
        let judged = report.models.iter().filter(|model| model.state == StateReport::Judged).count();
        assert_eq!((judged, report.library.busy), (models, false));
    }

    /// Returns how many models fit fully.
    pub(crate) fn fitting(&self) -> usize {
        let verdicts = self.report().0.models.into_iter().filter_map(|model| Some(model.fit?.now.verdict));
        verdicts.filter(|verdict| matches!(verdict, Verdict::FullGpu | Verdict::CpuOnly)).count()
    }

    /// Ends the program and waits until it is gone.
    pub(crate) fn quit(mut self) {
        ask(&self.places, &Request::Quit, PATIENCE).expect("it answers");
        self.child.wait().expect("it ends");
    }

    pub(crate) fn resident(&self) -> Resident {
        let status = self.read("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of /proc/PID/status");
            line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").parse::<u64>().expect("a number") * 1_024
        };
        Resident { all: field("VmRSS"), anonymous: field("RssAnon") }
    }

    /// Watches a stretch of time in which nothing happens.
    pub(crate) fn quiet(&self, span: Duration) -> Quiet {
        let (begin, processor, free) = (Instant::now(), self.processor_seconds(), free_memory());
        let (mut switches, mut wakes, mut moved) = (0, 0_u32, 0);
        let mut threads = self.switches();
        let mut last_burst: Option<Instant> = None;
        while begin.elapsed() < span {
            sleep(LOOK);
            let now = self.switches();
            // A thread that was not there before has woken up for each of its switches.
            let more: u64 =
                now.iter().map(|(thread, count)| count - threads.get(thread).unwrap_or(&0).min(count)).sum();
            let is_new = now.keys().any(|thread| !threads.contains_key(thread));
            if more > 0 || is_new || now.len() < threads.len() {
                switches += more;
                wakes += u32::from(last_burst.is_none_or(|at| at.elapsed() > APART));
                last_burst = Some(Instant::now());
            }
            threads = now;
            moved = moved.max(free.abs_diff(free_memory()));
        }
        let seconds = begin.elapsed().as_secs_f64();
        Quiet {
            percent: (self.processor_seconds() - processor) / seconds * 100.0,
            wakes: f64::from(wakes) / seconds * 60.0,
            switches: switches as f64 / seconds * 60.0,
            moved,
        }
    }

    /// Returns each thread's voluntary context switches.
    fn switches(&self) -> BTreeMap<String, u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("the program runs");
        let count = |task: fs::DirEntry| {
            // A thread may end between the two looks.
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            Some((task.file_name().to_string_lossy().into_owned(), line.trim().parse().ok()?))
        };
        tasks.filter_map(Result::ok).filter_map(count).collect()
    }

    fn processor_seconds(&self) -> f64 {
        let stat = self.read("stat");
        let (_, fields) = stat.rsplit_once(") ").expect("the name in brackets");
        // utime and stime are the fields 14 and 15; the ones after the name begin at 3.
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        // Linux counts them in hundredths of a second for every program, whatever its own clock.
        ticks as f64 / 100.0
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).expect("the program runs")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Only one that did not quit is still there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a command of the real program in a home of its own.
pub(crate) fn program(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fitwatch"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command.env("HOME", home).env("XDG_RUNTIME_DIR", home.join("run"));
    // Without it the session's own bus would be found.
    command.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    command
}

fn free_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1_024
}
