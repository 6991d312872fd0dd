use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::lmstudio::EngineKind;

const RUNTIME: &str = "llama.cpp-linux-x86_64-avx2-2.31.0";

/// A home, a models folder and a `proc` file system.
struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new() -> Machine {
        let machine = Machine { folder: tempfile::tempdir().unwrap() };
        for folder in ["proc", "home/extensions/backends", "models/acme/Tiny"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        fs::write(machine.path("models/acme/Tiny/tiny.gguf"), "GGUF").unwrap();
        fs::write(machine.path("proc/stat"), "cpu 1 2 3\nbtime 1700000000\n").unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    fn model(&self) -> String {
        self.path("models/acme/Tiny/tiny.gguf").display().to_string()
    }

    fn ask(&self, scan: Scan) -> Ask {
        Ask { home: self.path("home"), models: vec![self.path("models")], scan, ..Ask::default() }
    }

    fn process(&self, pid: u32, program: &Path, argv: &[&str], started: u64) {
        let folder = self.path("proc").join(pid.to_string());
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        symlink(program, folder.join("exe")).unwrap();
        symlink(self.path("models"), folder.join("cwd")).unwrap();
        fs::write(folder.join("cmdline"), argv.iter().flat_map(|word| [word, "\0"]).collect::<String>()).unwrap();
        fs::write(folder.join("comm"), "a (b) c\n").unwrap();
        let line = format!("{pid} (a (b) c) S 1 {} {started} 9 9\n", vec!["0"; 17].join(" "));
        fs::write(folder.join("stat"), line).unwrap();
    }

    fn server(&self) -> PathBuf {
        self.path(&format!("home/extensions/backends/{RUNTIME}/llama-server"))
    }

    fn probe(&self) -> ProcessProbe {
        ProcessProbe::new(self.path("proc"))
    }
}

fn engines(look: &Look) -> Vec<(u32, EngineKind)> {
    let Said::Is(engines) = &look.engines else { panic!("{look:?}") };
    engines.iter().map(|engine| (engine.pid, engine.kind)).collect()
}

#[test]
fn engines_are_found_and_followed_until_they_end() {
    let machine = Machine::new();
    machine.process(40, &machine.server(), &["x", "--model", &machine.model(), "-c", "512"], 200);
    machine.process(41, Path::new("/usr/bin/llama-server"), &["x", "-m", "acme/Tiny/tiny.gguf"], 100);
    machine.process(42, Path::new("/usr/bin/less"), &["less", &machine.model()], 100);
    let mut probe = machine.probe();
    let look = probe.look(&machine.ask(Scan::Known));
    assert_eq!(engines(&look), [(41, EngineKind::ByHand), (40, EngineKind::Server)]);
    let Said::Is(found) = &look.engines else { unreachable!() };
    assert_eq!(found[1].started_ms, 1_700_000_002_000);
    assert_eq!((found[1].asked.context, found[1].runtime.as_deref()), (Some(512), Some(RUNTIME)));
    assert_eq!(found[0].file, found[1].file);

    machine.process(43, &machine.server(), &["x"], 300);
    assert_eq!(engines(&probe.look(&machine.ask(Scan::Known))).len(), 2, "a new one is not looked for");
    assert_eq!(engines(&probe.look(&machine.ask(Scan::All))).len(), 3);
    fs::remove_dir_all(machine.path("proc/41")).unwrap();
    // Another process has taken the number.
    machine.process(40, Path::new("/usr/bin/less"), &["less"], 900);
    assert_eq!(engines(&probe.look(&machine.ask(Scan::Known))), [(43, EngineKind::Server)]);
}

#[test]
fn a_process_that_has_ended_and_waits_for_its_parent_is_gone() {
    let machine = Machine::new();
    machine.process(40, &machine.server(), &["x", "--model", &machine.model()], 200);
    let mut probe = machine.probe();
    assert_eq!(engines(&probe.look(&machine.ask(Scan::All))).len(), 1);
    let stat = machine.path("proc/40/stat");
    fs::write(&stat, fs::read_to_string(&stat).unwrap().replace(") S ", ") Z ")).unwrap();
    assert_eq!(engines(&probe.look(&machine.ask(Scan::Known))), []);
    assert_eq!(engines(&probe.look(&machine.ask(Scan::All))), []);
}

#[test]
fn a_model_is_found_through_links_of_the_folder_and_the_file() {
    let machine = Machine::new();
    symlink(machine.path("models"), machine.path("linked")).unwrap();
    symlink(machine.path("models/acme/Tiny/tiny.gguf"), machine.path("alias")).unwrap();
    let through = [machine.path("linked/acme/Tiny/tiny.gguf"), machine.path("alias")];
    for (pid, model) in (50..).zip(&through) {
        machine.process(pid, Path::new("/usr/bin/llama-cli"), &["x", "-m", &model.display().to_string()], 1);
    }
    let look = machine.probe().look(&Ask { models: vec![machine.path("linked")], ..machine.ask(Scan::All) });
    assert_eq!(engines(&look), [(50, EngineKind::ByHand), (51, EngineKind::ByHand)]);
    let Said::Is(found) = look.engines else { unreachable!() };
    assert!(found.iter().all(|engine| engine.file == found[0].file));
}

#[test]
fn a_table_that_is_broken_costs_only_what_is_broken() {
    let machine = Machine::new();
    machine.process(40, &machine.server(), &["x", "--model", &machine.model()], 200);
    for (pid, line) in [(60, ""), (61, "61 (x"), (62, "62 (x) S"), (63, "63 (x) S a b c")] {
        machine.process(pid, &machine.server(), &["x"], 1);
        fs::write(machine.path(&format!("proc/{pid}/stat")), line).unwrap();
    }
    for name in ["self", "4x", "99999999999", "-1"] {
        fs::create_dir_all(machine.path("proc").join(name)).unwrap();
    }
    fs::create_dir_all(machine.path("proc/70")).unwrap();
    assert_eq!(engines(&machine.probe().look(&machine.ask(Scan::All))), [(40, EngineKind::Server)]);
    let look = ProcessProbe::new(machine.path("nowhere")).look(&machine.ask(Scan::All));
    assert!(matches!(&look.engines, Said::Failed(reason) if reason.contains("cannot be read")), "{look:?}");
}

#[test]
fn a_models_folder_that_comes_later_is_noticed() {
    let machine = Machine::new();
    machine.process(40, Path::new("/usr/bin/llama-server"), &["x", "-m", &machine.model()], 200);
    let ask = Ask { models: vec![machine.path("later")], ..machine.ask(Scan::All) };
    let mut probe = machine.probe();
    assert_eq!(engines(&probe.look(&ask)), []);
    symlink(machine.path("models"), machine.path("later")).unwrap();
    assert_eq!(engines(&probe.look(&ask)), [(40, EngineKind::ByHand)]);
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a copy of the shell under another name; it waits for its input and takes any argument.
fn start(program: &Path, arguments: &[&str]) -> Running {
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::copy("/bin/sh", program).unwrap();
    let mut command = Command::new(program);
    command.args(["-c", "read line"]).args(arguments).stdin(Stdio::piped());
    Running(command.spawn().unwrap())
}

#[test]
fn real_processes_are_found_in_the_real_table() {
    let machine = Machine::new();
    let model = machine.model();
    let arguments =
        ["--model", &model, "--ctx-size", "4096", "--api-key", "SECRET", "--n-gpu-layers", "999999", "--no-mmap"];
    let server = start(&machine.server(), &arguments);
    let by_hand = start(&machine.path("bin/llama-server"), &arguments);
    let backend = start(&machine.path("home/llmster/0.0.23-1/llmster"), &[]);
    let mut probe = ProcessProbe::default();
    let patience = Instant::now() + Duration::from_secs(10);
    let look = loop {
        let look = probe.look(&machine.ask(Scan::All));
        if engines(&look).len() == 2 && !look.backends.is_empty() || Instant::now() > patience {
            break look;
        }
    };
    let Said::Is(found) = &look.engines else { panic!("{look:?}") };
    let of = |pid: u32| found.iter().find(|engine| engine.pid == pid).unwrap_or_else(|| panic!("{look:?}"));
    assert_eq!(of(server.0.id()).kind, EngineKind::Server);
    assert_eq!(of(by_hand.0.id()).kind, EngineKind::ByHand);
    for engine in found {
        assert_eq!((engine.asked.context, engine.asked.gpu_layers), (Some(4_096), Some(999_999)));
        assert_eq!((engine.asked.mmap, engine.file.as_ref().unwrap().bytes), (Some(false), Bytes(4)));
        let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let age = age.saturating_sub(u128::from(engine.started_ms));
        assert!(age < 60_000, "{age} ms old");
    }
    assert_eq!(look.backends.iter().map(|one| one.pid).collect::<Vec<_>>(), [backend.0.id()]);
    assert!(!format!("{look:?}").contains("SECRET"));
    drop((server, backend));
    let look = probe.look(&machine.ask(Scan::Known));
    assert_eq!((engines(&look), look.backends.len()), (vec![(by_hand.0.id(), EngineKind::ByHand)], 0));
}
