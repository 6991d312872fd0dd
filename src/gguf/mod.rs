//! What a GGUF file says about itself: typed metadata and the tensor table.
//!
//! The reader promises that no file, however hostile, makes it panic, hang or take more memory
//! than its [`Limits`]: every count and length is checked against the limits and the bytes left
//! in the file before anything is stored. It reads headers only, never a weight. What a header
//! means for memory is left to [`crate::memory`].

mod header;
mod reader;
mod shards;
mod tensor_type;

pub use header::{Header, Metadata, Tensor, Value};
pub use reader::{HeaderError, HeaderProblem, Limits, read_header};
pub use shards::{JoinError, ShardName, join_shards};
pub use tensor_type::TensorType;
