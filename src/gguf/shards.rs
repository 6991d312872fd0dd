//! Files that belong together: `name-00001-of-00003.gguf`.

use std::collections::{BTreeSet, HashSet};

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
    /// A shard that must be there is not.
    #[error("shard {number} of {count} is missing")]
    Missing {
        /// The first missing shard's number, from 1.
        number: u64,
        /// The number of shards there must be.
        count: u64,
    },
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
    check_counts(shards)?;
    for (position, shard) in (1..).zip(shards) {
        if let Some(stated) = number(shard).filter(|stated| *stated != position as u64) {
            return Err(JoinError::Number { position, stated });
        }
    }
    let given = shards.iter().map(|shard| shard.tensors.len()).sum();
    match first.metadata.unsigned("split.tensors.count") {
        Some(stated) if stated != given as u64 => Err(JoinError::TensorCount { stated, given }),
        _ => Ok(()),
    }
}

fn check_counts(shards: &[Header]) -> Result<(), JoinError> {
    let given = shards.len();
    for (position, shard) in (1..).zip(shards) {
        let stated = shard.metadata.unsigned("split.count");
        // llama.cpp writes 0 into a file that was merged again.
        let Some(stated) = stated.filter(|stated| *stated != 0 && *stated != given as u64) else { continue };
        let numbers: Option<BTreeSet<u64>> = shards.iter().map(number).collect();
        let missing = numbers.and_then(|numbers| (1..=stated).find(|number| !numbers.contains(number)));
        return Err(match missing {
            Some(number) => JoinError::Missing { number, count: stated },
            None => JoinError::Count { position, stated, given },
        });
    }
    Ok(())
}

/// Returns which shard this is by its own words, from 1.
fn number(shard: &Header) -> Option<u64> {
    shard.metadata.unsigned("split.no").map(|number| number.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{Metadata, Tensor, TensorType, Value};
    use crate::units::Bytes;

    #[test]
    fn a_shard_name_is_taken_apart() {
        let name = ShardName::parse("Big-Model-Q4_K_M-00002-of-00011.gguf");
        assert_eq!(name, Some(ShardName { stem: "Big-Model-Q4_K_M".to_owned(), number: 2, count: 11 }));
        assert!(ShardName::parse("ä-00001-of-00001.GGUF").is_some());
    }

    #[test]
    fn a_name_that_only_looks_like_a_shard_is_none() {
        for name in [
            "model.gguf",
            "model-00001-of-00003.safetensors",
            "model-00001-of-00003",
            "-00001-of-00003.gguf",
            "00001-of-00003.gguf",
            "model-00000-of-00003.gguf",
            "model-00004-of-00003.gguf",
            "model-1-of-3.gguf",
            "model-+0001-of-00003.gguf",
            "model-00001-of-000003.gguf",
            "model-０００１-of-00003.gguf",
            ".gguf",
            "",
        ] {
            assert_eq!(ShardName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn shards_join_into_one_header() {
        let shards = vec![shard(0, 2, &["a", "b"]), shard(1, 2, &["c"])];
        let joined = join_shards(shards).expect("the shards agree");
        let names: Vec<&str> = joined.tensors.iter().map(|tensor| &*tensor.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(joined.file_bytes, Bytes(2_000));
        assert_eq!(joined.notes, ["note of 0", "shard 2: note of 1"]);
        assert_eq!(joined.metadata.unsigned("split.no"), Some(0));
    }

    #[test]
    fn a_file_that_was_never_split_joins_alone() {
        let mut whole = shard(0, 1, &["a"]);
        whole.metadata = Metadata::default();
        assert_eq!(join_shards(vec![whole.clone()]), Ok(whole));
        let merged = shard(0, 0, &["a"]);
        assert_eq!(join_shards(vec![merged.clone()]), Ok(merged));
        assert_eq!(join_shards(Vec::new()), Err(JoinError::Empty));
    }

    #[test]
    fn a_missing_shard_is_named() {
        let shards = vec![shard(0, 3, &["a"]), shard(2, 3, &["b"])];
        assert_eq!(join_shards(shards), Err(JoinError::Missing { number: 2, count: 3 }));
        assert_eq!(join_shards(vec![shard(1, 2, &[])]), Err(JoinError::Missing { number: 1, count: 2 }));
        let hostile = vec![shard(0, u64::MAX, &[])];
        assert_eq!(join_shards(hostile), Err(JoinError::Missing { number: 2, count: u64::MAX }));
    }

    #[test]
    fn a_shard_of_another_split_is_refused() {
        let shards = vec![shard(0, 2, &["a"]), shard(1, 1, &["b"])];
        assert_eq!(join_shards(shards), Err(JoinError::Count { position: 2, stated: 1, given: 2 }));
    }

    #[test]
    fn shards_in_the_wrong_order_are_refused() {
        let shards = vec![shard(1, 2, &["a"]), shard(0, 2, &["b"])];
        assert_eq!(join_shards(shards), Err(JoinError::Number { position: 1, stated: 2 }));
    }

    #[test]
    fn a_tensor_in_two_shards_is_refused() {
        let shards = vec![shard(0, 2, &["a"]), shard(1, 2, &["a"])];
        assert_eq!(join_shards(shards), Err(JoinError::DuplicateTensor { position: 2, name: "a".into() }));
    }

    #[test]
    fn too_few_tensors_are_noticed() {
        let mut first = shard(0, 2, &["a"]);
        first.metadata.0.insert("split.tensors.count".into(), Value::Signed(3));
        let shards = vec![first, shard(1, 2, &["b"])];
        assert_eq!(join_shards(shards), Err(JoinError::TensorCount { stated: 3, given: 2 }));
    }

    fn shard(number: u64, count: u64, names: &[&str]) -> Header {
        let mut metadata = Metadata::default();
        metadata.0.insert("split.no".into(), Value::Unsigned(number));
        metadata.0.insert("split.count".into(), Value::Unsigned(count));
        let tensor = |name: &&str| Tensor {
            name: (*name).into(),
            kind: TensorType::F32,
            dims: [1; 4],
            offset: 0,
            bytes: Bytes(4),
        };
        Header {
            version: 3,
            metadata,
            tensors: names.iter().map(tensor).collect(),
            alignment: 32,
            data_offset: 512,
            file_bytes: Bytes(1_000),
            notes: vec![format!("note of {number}")],
        }
    }
}
