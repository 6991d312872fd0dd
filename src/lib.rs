//! fitwatch: which language models fit this machine now, and which loaded one has spilled.
//!
//! The modules in reading order; each may use those above it, never those below:
//!
//! | module | holds | promises |
//! | --- | --- | --- |
//! | [`units`] | bytes, moments, spans, shares | no number without its unit, no wrapped sum |
//! | [`paths`] | paths as text | one odd name never costs a whole answer |
//! | [`config`] | the TOML schema, defaults and checks | text in, [`config::Config`] or an error with its line out |
//! | [`gguf`] | what a model file says about itself | no file makes it panic, hang or grow |
//! | [`memory`] | the bill | pure, total, the sum of its lines |
//! | [`library`] | which models there are | disk truth only; a growing file is never judged |
//! | [`machine`] | what the machine has | a number is a reading, unknown is never zero |
//! | [`lmstudio`] | what LM Studio's files, interfaces and processes say | reads a white-list; changes nothing but by the user's word |
//! | [`fit`] | the verdict | swap never counts, devices are never summed |
//! | [`report`] | the state as one value | what tray, tables and JSON show |
//! | [`alerts`] | what is worth saying, and when | the rate rules hold for any input |
//! | [`tray`] | menu and icon as values | equal state, equal picture |
//! | [`engine`] | events in, effects out | pure: equal inputs, equal outputs |
//! | [`host`] | the machine itself | everything that blocks, fails or has a clock |
//! | [`cli`] | one file a command | stdout is data, stderr is talk, the exit code is the answer |

pub mod paths;
pub mod units;

pub mod config;
pub mod gguf;
pub mod memory;

pub mod library;
pub mod lmstudio;
pub mod machine;

pub mod fit;

pub mod report;

pub mod alerts;
pub mod tray;

pub mod engine;

pub mod cli;
pub mod host;
