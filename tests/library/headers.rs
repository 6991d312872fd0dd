//! What the header reader makes of files.

use std::fs;

use fitwatch::host::headers::{file, read};
use fitwatch::library::{HeaderOutcome, ModelFile};

use crate::rig::{model, projector};

fn written(bytes: &[u8]) -> (tempfile::TempDir, ModelFile) {
    let folder = tempfile::tempdir().expect("a folder to test in");
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).expect("a file");
    let file = file(&path).expect("its stamp");
    (folder, file)
}

fn outcome(bytes: &[u8]) -> HeaderOutcome {
    let (_folder, file) = written(bytes);
    read(&[file]).outcome
}

#[test]
fn a_whole_model_is_a_model_and_a_clip_file_a_projector() {
    assert!(matches!(outcome(&model()), HeaderOutcome::Model(_)), "{:?}", outcome(&model()));
    assert!(matches!(outcome(&projector()), HeaderOutcome::Projector(_)), "{:?}", outcome(&projector()));
}

#[test]
fn a_file_that_ends_early_is_cut_wherever_it_ends() {
    let bytes = model();
    for length in [0, 1, 4, 20, 100, bytes.len() / 2, bytes.len() - 1] {
        assert!(matches!(outcome(&bytes[..length]), HeaderOutcome::Cut { .. }), "{length} bytes");
    }
}

#[test]
fn what_is_no_model_is_unreadable_with_a_reason_and_place() {
    let HeaderOutcome::Unreadable { reason } = outcome(b"PK\x03\x04 and no model at all, however long") else {
        panic!("it was read");
    };
    assert!(reason.contains("not a GGUF file") && reason.contains("byte 0"), "{reason}");
}

#[test]
fn a_file_that_changed_since_it_was_listed_is_not_judged() {
    let (_folder, file) = written(&model());
    fs::write(&file.path, [model(), vec![0; 32]].concat()).unwrap();
    assert!(matches!(read(&[file]).outcome, HeaderOutcome::Cut { .. }));
}

#[test]
fn what_vanished_or_is_no_regular_file_is_not_opened() {
    let (folder, file) = written(&model());
    fs::remove_file(&file.path).unwrap();
    assert!(matches!(read(std::slice::from_ref(&file)).outcome, HeaderOutcome::Unreadable { .. }));
    let folder_as_file = ModelFile { path: folder.path().to_owned(), ..file };
    assert!(matches!(read(&[folder_as_file]).outcome, HeaderOutcome::Unreadable { .. }));
    assert!(matches!(read(&[]).outcome, HeaderOutcome::Unreadable { .. }));
}

#[test]
#[cfg(unix)]
fn a_pipe_named_like_a_model_does_not_hold_the_reader() {
    let (folder, file) = written(&model());
    let pipe = folder.path().join("pipe.gguf");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let HeaderOutcome::Unreadable { reason } = read(&[ModelFile { path: pipe, ..file }]).outcome else {
        panic!("a pipe was read");
    };
    assert!(reason.contains("not a regular file"), "{reason}");
    let device = read(&[ModelFile { path: "/dev/zero".into(), ..fs_file() }]);
    assert!(matches!(device.outcome, HeaderOutcome::Unreadable { .. }));
}

#[cfg(unix)]
fn fs_file() -> ModelFile {
    written(b"").1
}

#[test]
fn shards_that_do_not_belong_together_are_unreadable() {
    let (_one, first) = written(&model());
    let (_two, second) = written(&model());
    let HeaderOutcome::Unreadable { reason } = read(&[first, second]).outcome else { panic!("they were joined") };
    assert!(reason.contains("repeats tensor"), "{reason}");
}
