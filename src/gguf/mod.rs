//! What a GGUF file says about itself: typed metadata and the tensor table.
//!
//! The reader promises that no file, however hostile, makes it panic, hang or take more memory
//! than its [`Limits`]: every count and length is checked against the limits and the bytes left
//! in the file before anything is stored. It reads headers only, never a weight. What a header
//! means for memory is left to [`crate::memory`].

mod cursor;
mod file_type;
mod header;
mod metadata;
mod problem;
mod reader;
mod shards;
mod tensor_table;
mod tensor_type;

pub use file_type::file_type_name;
pub use header::{Header, Metadata, Tensor, Value};
pub use problem::{HeaderError, HeaderProblem};
pub use reader::{Limits, read_header};
pub use shards::{JoinError, ShardName, join_shards};
pub use tensor_type::TensorType;
