use serde_json::json;

use super::*;
use crate::library::FileIdentity;
use crate::units::Bytes;

const RUNTIME: &str = "llama.cpp-linux-x86_64-nvidia-cuda12-avx2-2.31.0";
const MODEL: &str = "/data/models/acme/Tiny-GGUF/tiny-Q4_K_M.gguf";

fn premises() -> Premises {
    Premises {
        homes: vec!["/home/robin/.lmstudio".into(), "/disk/robin/.lmstudio".into()],
        models: vec!["/data/models".into(), "/disk/models".into()],
    }
}

fn row(pid: u32, program: &str, argv: &[&str]) -> ProcessRow {
    ProcessRow {
        pid,
        parent: Some(1),
        started_ms: u64::from(pid),
        program: Some(program.into()),
        argv: argv.iter().map(OsString::from).collect(),
        is_ours: true,
        ..ProcessRow::default()
    }
}

/// Every file is there; those under `/link` lead to the models folder.
fn on_disk(path: &Path) -> Option<EngineFile> {
    let text = path.to_string_lossy();
    let path = PathBuf::from(text.replace("/link/", "/disk/models/"));
    (!text.contains("gone")).then_some(EngineFile { path, identity: FileIdentity(1, 2), bytes: Bytes(3) })
}

fn sighted(rows: &[ProcessRow]) -> Sighted {
    sight(rows, &premises(), on_disk)
}

fn kinds(rows: &[ProcessRow]) -> Vec<(u32, EngineKind)> {
    sighted(rows).engines.iter().map(|engine| (engine.pid, engine.kind)).collect()
}

#[test]
fn an_engine_of_lm_studio_is_known_by_its_folder_whatever_its_name() {
    for program in [
        format!("/home/robin/.lmstudio/extensions/backends/{RUNTIME}/llama-server"),
        format!("/home/robin/.lmstudio/extensions/backends/{RUNTIME}/bin/patched"),
        format!("/disk/robin/.lmstudio/extensions/backends/{RUNTIME}/llama-server (deleted)"),
    ] {
        let found = sighted(&[row(7, &program, &["llama-server", "--model", MODEL, "--api-key", "SECRET"])]);
        let engine = &found.engines[0];
        assert_eq!((engine.kind, engine.runtime.as_deref()), (EngineKind::Server, Some(RUNTIME)), "{program}");
        assert_eq!(engine.asked.model.as_deref(), Some(Path::new(MODEL)));
        assert_eq!(engine.file.as_ref().map(|file| file.bytes), Some(Bytes(3)));
        assert!(!format!("{found:?}{}", json!(found.engines)).contains("SECRET"));
    }
    let vendored = "/home/robin/.lmstudio/extensions/backends/vendor/python/bin/helper";
    assert_eq!(kinds(&[row(7, vendored, &["helper"])]), []);
}

#[test]
fn windows_paths_are_understood_with_their_spaces_and_cases() {
    let premises =
        Premises { homes: vec![r"C:\Users\Robin Smith\.lmstudio".into()], models: vec![r"D:\My Models".into()] };
    let rows = [
        row(1, r"C:\Users\robin smith\AppData\Local\Programs\LM Studio\LM Studio.exe", &["LM Studio.exe"]),
        row(
            2,
            r"c:\users\Robin Smith\.lmstudio\extensions\backends\llama.cpp-win-x86_64-avx2-2.31.0\llama-server.exe",
            &["x"],
        ),
        row(3, r"C:\llama\llama-server.exe", &["llama-server.exe", "-m", r"d:\my models\a\b\c d.gguf"]),
        row(4, r"C:\llama\llama-server.exe", &["llama-server.exe", "-m", r"D:\Others\c.gguf"]),
        row(
            5,
            r"C:\Users\Robin Smith\.lmstudio\.internal\utils\node.exe",
            &["node", "-e", r"require('C:\\x\\llmworker.js')"],
        ),
    ];
    let found = sight(&rows, &premises, on_disk);
    assert_eq!(found.backends.iter().map(|one| (one.pid, one.program)).collect::<Vec<_>>(), [(1, Program::App)]);
    let engines: Vec<(u32, EngineKind)> = found.engines.iter().map(|engine| (engine.pid, engine.kind)).collect();
    assert_eq!(engines, [(2, EngineKind::Server), (3, EngineKind::ByHand), (5, EngineKind::Worker)]);
}

#[test]
fn the_old_generations_worker_is_known_by_its_script() {
    let node = "/home/robin/.lmstudio/.internal/utils/node";
    let worker = row(9, node, &["node", "-e", r#"require("/opt/LM-Studio/resources/app/.webpack/lib/llmworker.js")"#]);
    let other = row(10, node, &["node", "/opt/x/systemresourcesworker.js"]);
    let found = sighted(&[worker, other]);
    assert_eq!(found.engines.len(), 1);
    assert_eq!((found.engines[0].pid, found.engines[0].kind), (9, EngineKind::Worker));
    assert_eq!(found.engines[0].asked, Asked::default());
}

#[test]
fn the_back_ends_are_known_by_name_and_place_and_their_helpers_are_not() {
    for (program, expected) in [
        ("/opt/LM-Studio/lm-studio", Program::App),
        ("/tmp/.mount_LM-Stuabc/lm-studio", Program::App),
        ("/Applications/LM Studio.app/Contents/MacOS/LM Studio", Program::App),
        ("/home/robin/.lmstudio/llmster/0.0.23-1/llmster", Program::Llmster),
        ("/opt/Bionic/bionic", Program::Bionic),
        ("/Applications/Bionic.app/Contents/MacOS/Bionic", Program::Bionic),
    ] {
        let found = sighted(&[row(5, program, &["x", "--run-as-service"])]);
        assert_eq!(found.backends.first().map(|one| one.program), Some(expected), "{program}");
        assert_eq!(sighted(&[row(5, program, &["x", "--type=renderer"])]).backends, []);
    }
    for other in [
        "/Applications/LM Studio.app/Contents/Frameworks/LM Studio Helper.app/Contents/MacOS/LM Studio Helper",
        "/usr/bin/lmlink-connector",
        "/home/robin/.lmstudio/bin/lms",
    ] {
        assert_eq!(sighted(&[row(5, other, &["x"])]).backends, [], "{other}");
    }
    let parent = row(5, "/home/robin/.lmstudio/llmster/1/llmster", &["llmster"]);
    let child = ProcessRow { parent: Some(5), ..row(6, "/home/robin/.lmstudio/llmster/1/llmster", &["llmster"]) };
    assert_eq!(sighted(&[child, parent]).backends.len(), 1);
}

#[test]
fn a_llama_cpp_started_by_hand_counts_where_its_model_is_the_librarys() {
    for program in ["/usr/bin/llama-server", "/x/llama-cli", "/usr/bin/python3.12", "/x/build/bin/main"] {
        assert_eq!(kinds(&[row(3, program, &["x", "--model", MODEL])]), [(3, EngineKind::ByHand)], "{program}");
    }
    for (program, model) in [
        ("/usr/bin/koboldcpp", MODEL),
        ("/usr/bin/koboldcpp-linux-x64-llama", MODEL),
        ("/usr/bin/less", MODEL),
        ("/usr/bin/llama-server", "/elsewhere/tiny.gguf"),
        ("/usr/bin/llama-server", "/data/models/../elsewhere/tiny.gguf"),
        ("/usr/bin/llama-server", "/data/models/acme/gone.gguf"),
        ("/usr/bin/python3", "/data/models/acme/config.json"),
        ("/usr/bin/llama-server", "/data/models"),
    ] {
        assert_eq!(kinds(&[row(3, program, &["x", "--model", model])]), [], "{program} {model}");
    }
    let through_a_link = row(3, "/usr/bin/llama-server", &["x", "-m", "/link/acme/tiny.gguf"]);
    assert_eq!(kinds(&[through_a_link]), [(3, EngineKind::ByHand)]);
}

#[test]
fn a_relative_model_is_looked_for_where_the_process_works() {
    let row = ProcessRow {
        folder: Some("/data/models/acme".into()),
        ..row(3, "/usr/bin/llama-server", &["x", "-m", "Tiny-GGUF/tiny.gguf", "--mmproj", "p.gguf"])
    };
    let found = sighted(&[row]);
    assert_eq!(found.engines[0].asked.model.as_deref(), Some(Path::new("/data/models/acme/Tiny-GGUF/tiny.gguf")));
    assert_eq!(found.engines[0].asked.projector.as_deref(), Some(Path::new("/data/models/acme/p.gguf")));
}

#[test]
fn a_script_that_starts_an_engine_is_not_one_itself() {
    let launcher = row(3, "/usr/bin/python3", &["python3", "serve.py", "--model", MODEL]);
    let shell = ProcessRow { parent: Some(3), ..row(4, "/bin/sh", &["sh"]) };
    let engine = ProcessRow { parent: Some(4), ..row(5, "/usr/bin/llama-server", &["x", "-m", MODEL]) };
    assert_eq!(kinds(&[launcher.clone(), shell, engine.clone()]), [(5, EngineKind::ByHand)]);
    let apart = ProcessRow { parent: Some(1), ..engine };
    assert_eq!(kinds(&[launcher, apart]).len(), 2);
}

#[test]
fn parents_that_go_round_in_a_circle_end() {
    let one = ProcessRow { parent: Some(4), ..row(3, "/usr/bin/llama-server", &["x", "-m", MODEL]) };
    let other = ProcessRow { parent: Some(3), ..row(4, "/bin/sh", &["sh"]) };
    assert_eq!(kinds(&[one, other]), [(3, EngineKind::ByHand)]);
}

#[test]
fn what_another_user_runs_is_said_and_not_read() {
    let foreign = |name: &str| ProcessRow { name: name.into(), is_ours: false, pid: 8, ..ProcessRow::default() };
    for (name, what) in [("llmster", "LM Studio"), ("lm-studio", "LM Studio"), ("llama-server", "a llama.cpp")] {
        let found = sighted(&[foreign(name)]);
        assert_eq!((found.backends.len(), found.engines.len()), (0, 0));
        assert!(found.notes[0].starts_with(what) && found.notes[0].contains("another user"), "{:?}", found.notes);
    }
    assert_eq!(sighted(&[foreign("python3"), foreign("bionic"), foreign("main")]).notes, Vec::<String>::new());
}

#[test]
fn a_row_that_tells_nothing_is_no_engine() {
    assert_eq!(sighted(&[ProcessRow::default(), row(0, "", &[]), row(1, "/", &[""])]), Sighted::default());
}
