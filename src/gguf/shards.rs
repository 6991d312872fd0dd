//! Files that belong together: `name-00001-of-00003.gguf`.

use std::collections::HashSet;

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
        let (name, extension) = file_name.rsplit_once('.')?;
        if !extension.eq_ignore_ascii_case("gguf") {
            return None;
        }
        let (name, count) = name.rsplit_once("-of-")?;
        let (stem, number) = name.rsplit_once('-')?;
        let (number, count) = (five_digits(number)?, five_digits(count)?);
        let is_shard = !stem.is_empty() && (1..=count).contains(&number);
        is_shard.then(|| ShardName { stem: stem.to_owned(), number, count })
    }
}

fn five_digits(text: &str) -> Option<u32> {
    let is_number = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Why shards do not make one model.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum JoinError {
    /// No shard was given.
    #[error("no shard to join")]
    Empty,
    /// A shard says that there are more or fewer shards than there are.
    #[error("shard {position} says there are {stated} shards, but {given} are here")]
    Count {
        /// The shard's place among those given, from 1.
        position: usize,
        /// The number of shards it states.
        stated: u64,
        /// The number of shards given.
        given: usize,
    },
    /// A shard says that it is another one.
    #[error("shard {position} says it is shard {stated}")]
    Number {
        /// The shard's place among those given, from 1.
        position: usize,
        /// The number it states, from 1.
        stated: u64,
    },
    /// The first shard says that there are more or fewer tensors than there are.
    #[error("the shards hold {given} tensors, but the first says {stated}")]
    TensorCount {
        /// The number of tensors stated.
        stated: u64,
        /// The number of tensors in all shards.
        given: usize,
    },
    /// Two shards hold a tensor of the same name.
    #[error("shard {position} repeats tensor {name:?}")]
    DuplicateTensor {
        /// The second shard's place among those given, from 1.
        position: usize,
        /// The tensor's name.
        name: Box<str>,
    },
}

/// Joins the headers of all shards, first shard first, into one: metadata of the first, tensors
/// of all.
///
/// Each tensor's offset still counts from its own shard's data.
///
/// # Errors
/// Returns what is inconsistent where the shards say so themselves.
pub fn join_shards(shards: Vec<Header>) -> Result<Header, JoinError> {
    check_statements(&shards)?;
    let mut names = HashSet::new();
    for (position, shard) in (1..).zip(&shards) {
        for tensor in &shard.tensors {
            if !names.insert(&*tensor.name) {
                return Err(JoinError::DuplicateTensor { position, name: tensor.name.clone() });
            }
        }
    }
    let mut shards = shards.into_iter();
    let mut joined = shards.next().ok_or(JoinError::Empty)?;
    for (position, shard) in (2..).zip(shards) {
        joined.tensors.extend(shard.tensors);
        joined.file_bytes = joined.file_bytes.saturating_add(shard.file_bytes);
        joined.notes.extend(shard.notes.into_iter().map(|note| format!("shard {position}: {note}")));
    }
    Ok(joined)
}

/// Compares what the shards say about the split with what is there.
fn check_statements(shards: &[Header]) -> Result<(), JoinError> {
    let first = shards.first().ok_or(JoinError::Empty)?;
    for (position, shard) in (1..).zip(shards) {
        let stated = shard.metadata.unsigned("split.count");
        // llama.cpp writes 0 into a file that was merged again.
        if let Some(stated) = stated.filter(|stated| *stated != 0 && *stated != shards.len() as u64) {
            return Err(JoinError::Count { position, stated, given: shards.len() });
        }
    }
    for (position, shard) in (1..).zip(shards) {
        let stated = shard.metadata.unsigned("split.no").map(|number| number.saturating_add(1));
        if let Some(stated) = stated.filter(|stated| *stated != position as u64) {
            return Err(JoinError::Number { position, stated });
        }
    }
    let given = shards.iter().map(|shard| shard.tensors.len()).sum();
    match first.metadata.unsigned("split.tensors.count") {
        Some(stated) if stated != given as u64 => Err(JoinError::TensorCount { stated, given }),
        _ => Ok(()),
    }
}
