//! The state file: header results kept over a restart, so that a start reads no headers.
//!
//! Nothing in it is precious. A file that is broken or from a newer fitwatch is set aside and said
//! once; one from an older fitwatch is passed over, because its reader knew less. Writing is
//! atomic: another start sees the old file or the new one, whatever happens in between.

use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use crate::library::Remembered;
use crate::report::Problem;

/// The version of the file's form.
const VERSION: u32 = 2;
/// More than ten thousand models take; a longer file is not ours.
const MOST_BYTES: u64 = 256 << 20;

/// Why the state could not be written.
#[derive(Debug, Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct SaveError {
    /// The state file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// What a problem with the file that was there at the start is told as. It stands beside one with
/// writing, which the next good write clears.
pub const FOUND: &str = "old state";

/// Reads the state; a file that is not there is an empty state, one that cannot be used is set aside.
pub fn load(path: &Path) -> (Remembered, Option<Problem>) {
    match found(path) {
        Ok(headers) => (headers, None),
        Err(LoadError::File(error)) => (Remembered::default(), Some(not_readable(path, &error))),
        Err(LoadError::Content(reason)) => (Remembered::default(), Some(set_aside(path, &reason))),
    }
}

/// Reads the state and leaves the file alone, whatever is in it.
pub fn peek(path: &Path) -> Remembered {
    found(path).unwrap_or_default()
}

/// Why a state cannot be used.
enum LoadError {
    File(io::Error),
    Content(String),
}

fn found(path: &Path) -> Result<Remembered, LoadError> {
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Remembered::default()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(LoadError::Content(error.to_string())),
        Err(error) => return Err(LoadError::File(error)),
    };
    // The whole first: reading only the head would scan a long file twice in the usual case.
    let error = match serde_json::from_str::<StateRead>(&text) {
        Ok(state) if state.version == VERSION && state.written_by == WRITTEN_BY => return Ok(state.headers),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    };
    match (serde_json::from_str::<Head>(&text), error) {
        (Ok(head), _) if head.version > VERSION => Err(LoadError::Content("it comes from a newer fitwatch".into())),
        (Ok(head), _) if head.version < VERSION || head.written_by != WRITTEN_BY => Ok(Remembered::default()),
        (Ok(_), error) => Err(LoadError::Content(error.unwrap_or_default())),
        (Err(error), _) => Err(LoadError::Content(error.to_string())),
    }
}

/// Writes the state in place of the old one.
pub fn save(path: &Path, headers: &Remembered) -> Result<(), SaveError> {
    let in_file = |source| SaveError { path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(in_file)?;
    // The file is in the same folder, so that the rename cannot cross file systems; it is removed
    // where anything fails.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(in_file)?;
    let mut writer = BufWriter::new(file.as_file_mut());
    let state = StateWrite { version: VERSION, written_by: WRITTEN_BY, headers };
    serde_json::to_writer(&mut writer, &state).map_err(|error| in_file(error.into()))?;
    writer.flush().map_err(in_file)?;
    drop(writer);
    file.as_file().sync_all().map_err(in_file)?;
    file.persist(path).map_err(|error| in_file(error.error))?;
    // The rename itself is kept over a power failure only once the folder is written as well.
    #[cfg(unix)]
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(in_file)?;
    Ok(())
}

impl SaveError {
    /// Returns the error in words for the user.
    pub fn problem(&self) -> Problem {
        let hint = match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space on that disk",
            _ => "make its folder one that you can write to",
        };
        Problem { part: "state".into(), message: self.to_string(), hint: Some(hint.to_owned()) }
    }
}

const WRITTEN_BY: &str = env!("CARGO_PKG_VERSION");

#[derive(Deserialize)]
struct Head {
    version: u32,
    #[serde(default)]
    written_by: String,
}

#[derive(Deserialize)]
struct StateRead {
    version: u32,
    written_by: String,
    headers: Remembered,
}

#[derive(Serialize)]
struct StateWrite<'a> {
    version: u32,
    written_by: &'a str,
    #[serde(serialize_with = "nameable")]
    headers: &'a Remembered,
}

/// Leaves out files whose names are no text, which JSON cannot hold: their headers are read anew.
fn nameable<S: Serializer>(headers: &Remembered, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(headers.0.iter().filter(|(files, _)| files.iter().all(|file| file.path.to_str().is_some())))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = fs::File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
    }
    Ok(text)
}

fn not_readable(path: &Path, error: &io::Error) -> Problem {
    let hint = "make the file readable; until then every start reads all headers anew".to_owned();
    let message = format!("cannot read {}: {error}", path.display());
    Problem { part: FOUND.into(), message, hint: Some(hint) }
}

fn set_aside(path: &Path, reason: &str) -> Problem {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".bad-{seconds}"));
    let aside = path.with_file_name(name);
    let (what, hint) = match fs::rename(path, &aside) {
        Ok(()) => (format!("was set aside as {}", aside.display()), "delete it, or send it with a report"),
        Err(error) => (format!("could not be set aside ({error})"), "delete the file"),
    };
    let message = format!("the state file {} cannot be used ({reason}) and {what}", path.display());
    Problem { part: FOUND.into(), message, hint: Some(hint.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::{HeaderOutcome, ModelFile, Stamp};
    use crate::units::Bytes;

    #[test]
    fn what_is_remembered_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/state.json");
        assert_eq!(load(&path), (Remembered::default(), None));
        save(&path, &remembered(3)).unwrap();
        save(&path, &remembered(2)).unwrap();
        assert_eq!(load(&path), (remembered(2), None));
        assert_eq!(names(path.parent().unwrap()), ["state.json"], "nothing is left beside it");
    }

    #[test]
    fn a_broken_or_newer_file_is_set_aside_once() {
        let newer = format!("{{\"version\":{},\"headers\":{{\"form\":\"unheard of\"}}}}", VERSION + 1);
        let wrong_inside = format!("{{\"version\":{VERSION},\"written_by\":\"{WRITTEN_BY}\",\"headers\":7}}");
        let cut = "{\"version\":1,\"headers\":[[";
        for bad in [newer.as_bytes(), wrong_inside.as_bytes(), cut.as_bytes(), b"", b"null", b"\xff\xfe\0", b"[[[["] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state.json");
            fs::write(&path, bad).unwrap();
            assert_eq!(peek(&path), Remembered::default());
            assert_eq!(names(folder.path()), ["state.json"], "a look leaves it where it is");
            let (state, problem) = load(&path);
            assert_eq!(state, Remembered::default());
            assert!(problem.is_some_and(|problem| problem.message.contains("set aside")), "{bad:?}");
            let left = names(folder.path());
            assert!(left.len() == 1 && left[0].starts_with("state.json.bad-"), "{left:?}");
            assert_eq!(load(&path), (Remembered::default(), None), "the second start says nothing");
        }
    }

    #[test]
    fn a_file_of_an_older_fitwatch_is_passed_over_in_silence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        save(&path, &remembered(1)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(&format!("\"{WRITTEN_BY}\""), "\"0.0.1\"")).unwrap();
        assert_eq!(load(&path), (Remembered::default(), None));
        assert!(path.exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_failed_write_keeps_the_old_state_and_leaves_nothing_behind() {
        // A folder in the file's place refuses the rename, as a full disk refuses the write: for any user.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        fs::create_dir_all(path.join("inside")).unwrap();
        let error = save(&path, &remembered(1)).unwrap_err();
        assert!(error.problem().message.contains("state.json"));
        assert!(error.problem().hint.is_some());
        assert_eq!(names(folder.path()), ["state.json"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_name_that_is_no_text_does_not_cost_the_others_their_memory() {
        use std::os::unix::ffi::OsStringExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let mut headers = remembered(2);
        headers.0[0].0[0].path = std::ffi::OsString::from_vec(b"/models/\xff.gguf".to_vec()).into();
        save(&path, &headers).unwrap();
        headers.0.remove(0);
        assert_eq!(load(&path), (headers, None));
    }

    #[test]
    fn a_full_disk_is_named_with_what_to_do() {
        let error = SaveError { path: "/full/state.json".into(), source: io::ErrorKind::StorageFull.into() };
        assert_eq!(error.problem().hint.as_deref(), Some("free some space on that disk"));
    }

    fn remembered(models: u64) -> Remembered {
        let file = |number| ModelFile {
            path: format!("/models/publisher/model-{number}.gguf").into(),
            stamp: Stamp { bytes: Bytes(number), modified_ms: number },
        };
        let outcome = HeaderOutcome::Unreadable { reason: "not a GGUF file".into() };
        Remembered((0..models).map(|number| (vec![file(number)], outcome.clone())).collect())
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}
