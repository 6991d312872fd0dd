//! Which models there are: identity, shards, projectors, partial downloads, settling.
//!
//! The disk is the inventory. A [`Listing`] says what one walk of a folder found; [`Library`]
//! turns listings and header results into [`Model`]s and says what it wants next ([`Want`]).
//! It promises that a file that still grows is never judged, that a file reached by several links
//! is counted once, and that a vanished file takes its model with it. Walking folders, watching
//! them and reading headers is left to [`crate::host`].

mod catalogue;
mod draw;
mod folder;
mod headers;
mod listing;
mod model;
mod names;
mod schedule;
mod state;

pub use headers::{HeaderOutcome, HeaderRead, Remembered};
pub use listing::{FileIdentity, FoundFile, Listing, Origin, Root, RootState};
pub use model::{Model, ModelFile, ModelId, ModelState, Stamp};
pub use names::FileRole;
pub use state::{Library, Want};
