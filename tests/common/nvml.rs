//! Builds the stand-in for NVIDIA's library.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Compiles the stand-in into a folder of its own.
pub(crate) fn compile(arguments: &[&str]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libnvidia-ml.so.1");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-ins/fake_nvml.rs");
    let mut command = Command::new(rustc);
    command.args(["--edition", "2024", "--crate-type", "cdylib", "--crate-name", "fake_nvml", "-o"]);
    let output = command.arg(&library).args(arguments).arg(source).output().expect("rustc runs where cargo does");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (folder, library)
}
