//! Files that belong together: `name-00001-of-00003.gguf`.

use thiserror::Error;

use super::Header;

/// The parts of a shard's file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShardName {
    /// What stands before the number.
    pub stem: String,
    /// The shard's number, from 1.
    pub number: u32,
    /// How many shards there are.
    pub count: u32,
}

impl ShardName {
    /// Returns the parts of a file name such as `name-00001-of-00003.gguf`, or nothing for a
    /// file that is no shard.
    pub fn parse(file_name: &str) -> Option<ShardName> {
        let _ = file_name;
        todo!()
    }
}

/// Why shards do not make one model.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum JoinError {
    /// No shard was given.
    #[error("no shard to join")]
    Empty,
}

/// Joins the headers of all shards, first shard first, into one: metadata of the first, tensors
/// of all.
pub fn join_shards(shards: Vec<Header>) -> Result<Header, JoinError> {
    let _ = shards;
    todo!()
}
