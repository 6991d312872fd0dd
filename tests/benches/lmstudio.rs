//! What it costs to ask a running LM Studio: processor time of a round, and memory.
//!
//! ```sh
//! cargo bench --bench lmstudio
//! ```
//!
//! The scripted LM Studio runs on a thread of its own, whose time is not counted.
#![cfg_attr(not(target_os = "linux"), allow(unused))]
#![expect(clippy::print_stdout, reason = "it is there to print figures")]
#![allow(clippy::unwrap_used, reason = "a bench whose ground cannot be laid fails")]

#[cfg(target_os = "linux")]
#[path = "../lmstudio/scripted.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod scripted;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the cost is measured on Linux");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::path::Path;
    use std::process::{Child, Command};
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use fitwatch::host::lmstudio::{Asker, Limits};
    use fitwatch::host::probes::processes::ProcessProbe;
    use fitwatch::lmstudio::{Ask, Said, Scan};
    use rustix::time::{ClockId, clock_gettime};
    use serde_json::{Value, json};

    use super::scripted::{Act, Script, Scripted};

    const ROUNDS: u32 = 2_000;

    pub(super) fn main() {
        let before = resident();
        let socket = cost(false);
        println!("a round by websocket, one model: {socket:.0} µs");
        println!("resident memory, grown since the start: {:.1} MB", (resident() - before) / 1e6);
        println!("a round by REST, 200 models known, one loaded: {:.0} µs", cost(true));
        println!("every 2 s that is {:.4} % of a core by websocket; 0.2 % is allowed", socket / 2e6 * 100.0);
        look_at_processes();
    }

    /// Measures looks at the process table with 300 more processes than the machine has anyway.
    fn look_at_processes() {
        const LOOKS: u32 = 200;
        let home = tempfile::tempdir().unwrap();
        let mut sleepers: Vec<Child> = (0..300).map(|_| Command::new("sleep").arg("1000").spawn().unwrap()).collect();
        let mut probe = ProcessProbe::default();
        for scan in [Scan::All, Scan::Known] {
            let ask = Ask { home: home.path().to_owned(), scan, ..Ask::default() };
            probe.look(&ask);
            let began = Instant::now();
            for _ in 0..LOOKS {
                probe.look(&ask);
            }
            println!("a look at processes, {scan:?}: {:.0} µs", began.elapsed().as_secs_f64() * 1e6 / f64::from(LOOKS));
        }
        for sleeper in &mut sleepers {
            sleeper.kill().unwrap();
            sleeper.wait().unwrap();
        }
    }

    /// Returns the processor time of a round in microseconds.
    fn cost(by_rest: bool) -> f64 {
        let (port, ports) = mpsc::channel();
        let (look, looks) = mpsc::channel::<mpsc::Sender<f64>>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Scripted::start(Script { has_no_socket: by_rest, ..script() }).await;
                port.send(server.port).unwrap();
                loop {
                    while let Ok(answer) = looks.try_recv() {
                        answer.send(seconds(ClockId::ThreadCPUTime)).unwrap();
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        });
        let port = ports.recv().unwrap();
        let home = tempfile::tempdir().unwrap();
        write_files(home.path(), port);
        let ask = Ask { home: home.path().to_owned(), ..Ask::default() };
        let limits = Limits { longest_pause: Duration::from_mins(10), ..Limits::default() };
        let mut asker = Asker::within(limits, None);
        let server_time = || {
            let (answer, answers) = mpsc::channel();
            look.send(answer).unwrap();
            answers.recv().unwrap()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for _ in 0..20 {
                asker.round(&ask).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let began = (seconds(ClockId::ProcessCPUTime), server_time());
        runtime.block_on(async {
            for _ in 0..ROUNDS {
                let round = asker.round(&ask).await;
                let said = if by_rest { round.rest } else { round.socket };
                assert!(matches!(said, Said::Is(models) if models.len() == 1));
            }
        });
        let ended = (seconds(ClockId::ProcessCPUTime), server_time());
        (ended.0 - began.0 - (ended.1 - began.1)) / f64::from(ROUNDS) * 1e6
    }

    fn write_files(home: &Path, port: u16) {
        let folder = home.join(".internal");
        fs::create_dir_all(&folder).unwrap();
        let server = json!({ "host": "127.0.0.1", "pid": std::process::id(), "port": port });
        fs::write(folder.join("http-server.json"), server.to_string()).unwrap();
        fs::write(folder.join("http-server-config.json"), json!({ "port": port }).to_string()).unwrap();
    }

    fn script() -> Script {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lmstudio");
        let fixture =
            |name: &str| -> Value { serde_json::from_str(&fs::read_to_string(fixtures.join(name)).unwrap()).unwrap() };
        let session = fixture("ws-protocol-transcript.json");
        let result = |entry: usize| Act::Json(session[entry]["frame"]["result"].clone());
        let mut rest = fixture("api-v1-models-one-loaded.json");
        let models = rest["models"].as_array_mut().unwrap();
        let idle = models[0].clone();
        models.resize(200, idle);
        Script::default()
            .http("/lms-status", Act::Json(json!({ "package": "lmstudio", "version": "0.4.25" })))
            .http("/lmstudio-greeting", Act::Json(json!({ "lmstudio": true })))
            .http("/api/v1/models", Act::Json(rest))
            .call("llm.listLoaded", result(4))
            .call("embedding.listLoaded", Act::Json(json!([])))
            .call("llm.getLoadConfig", result(6))
            .call("llm.estimateModelUsage", result(8))
            .call("llm.getInstanceProcessingState", result(10))
    }

    fn seconds(clock: ClockId) -> f64 {
        let time = clock_gettime(clock);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    }

    /// Returns the resident memory in bytes.
    fn resident() -> f64 {
        let status = fs::read_to_string("/proc/self/statm").unwrap();
        status.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 4_096.0
    }
}
