//! The library on a real file system: what a walk finds, and what the watcher notices.

mod disk;
mod headers;
mod rig;
mod watching;
#[path = "../gguf/writer.rs"]
#[expect(dead_code, reason = "the reader's own tests use more of it")]
mod writer;
