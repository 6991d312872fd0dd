//! One running fitwatch a user, held by an OS lock.
//!
//! The system releases the lock when the process ends, however it ends: no stale lock is left
//! after a kill. The file itself stays, because removing it would let two processes lock two files.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::places::Places;

/// Proof that this process is the user's one running fitwatch. Dropping it lets another one start.
#[derive(Debug)]
pub struct Instance {
    _lock: File,
}

/// Why this process may not be the running fitwatch.
#[derive(Debug, Error)]
pub enum InstanceError {
    /// Another one runs.
    #[error("fitwatch is running already")]
    Running,
    /// The lock file cannot be used.
    #[error("cannot lock {}: {source}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Instance {
    /// Becomes the running fitwatch, or says that there is one. [`Places::prepare`] comes first.
    pub fn acquire(places: &Places) -> Result<Instance, InstanceError> {
        let path = places.lock();
        let file = match OpenOptions::new().create(true).truncate(false).write(true).open(&path) {
            Ok(file) => file,
            Err(source) => return Err(InstanceError::Lock { path, source }),
        };
        match file.try_lock() {
            Ok(()) => Ok(Instance { _lock: file }),
            Err(TryLockError::WouldBlock) => Err(InstanceError::Running),
            Err(TryLockError::Error(source)) => Err(InstanceError::Lock { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_is_refused_until_the_first_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        places.prepare().unwrap();
        let first = Instance::acquire(&places).unwrap();
        assert!(matches!(Instance::acquire(&places), Err(InstanceError::Running)));
        drop(first);
        Instance::acquire(&places).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let error = Instance::acquire(&Places::under(folder.path())).unwrap_err();
        assert!(error.to_string().contains("instance.lock"), "{error}");
    }
}
