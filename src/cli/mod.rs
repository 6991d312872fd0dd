//! cli.

pub mod cases;
