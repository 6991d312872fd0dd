//! The bill: what llama.cpp allocates for a model, by device and part. The heart of fitwatch.
//!
//! A [`Structure`] holds what the bill needs of a header, compactly enough to keep a thousand of
//! them. [`bill()`] turns a structure, [`Settings`], [`Devices`] and an [`EngineProfile`] into a
//! [`Bill`]. Everything here is pure, total (no panic for any header) and saturating. What fits
//! where is left to [`crate::fit`].

mod architecture;
mod bill;
mod buffer;
mod cache;
mod compressed;
mod devices;
mod draft;
mod flash;
mod graph;
mod hyper;
mod keys;
mod overhead;
mod place;
mod profile;
mod projector;
mod read;
mod settings;
mod sizes;
mod structure;
mod tensor;
mod weights;

pub use bill::{Basis, Bill, Line, Part, Placement, Pool, bill};
pub use buffer::BufferKind;
pub use devices::{Backend, Devices, Gpu};
pub use hyper::{Hyper, Hyperparameters};
pub use overhead::Overhead;
pub use profile::{Build, Change, Engine, EngineProfile, LogitRows, UnknownProfile};
pub use projector::{ImageLimits, Projector, ProjectorBuffers};
pub use settings::{CacheType, FlashAttention, GpuLayers, Settings};
pub use structure::{BlockKind, Dimensions, Kind, Memory, Structure, StructureError};
pub use tensor::{Cpu, Home, Role, Suffix, TensorShape};
