//! The config file: reading it, and noticing that it has changed.
//!
//! A missing file is the default config. [`watch`] calls back only where the text is another than
//! before, however an editor or a dotfile manager wrote it: in place, by rename, through a link,
//! with the folder made only later. What a bad text means is left to the engine.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use thiserror::Error;

use crate::config::{self, ConfigError, Parsed};
use crate::engine::Event;
use crate::report::Problem;

/// No config is longer; something else lies there.
const MOST_BYTES: u64 = 1 << 20;
/// Editors write in several steps; this long nothing more must happen.
const QUIET: Duration = Duration::from_millis(150);
/// A file that never comes to rest is read all the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the config file cannot be used.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its text is no config.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why, with its place.
        source: ConfigError,
    },
}

/// Reads the config file; a file that is not there is the default config.
pub fn read(path: &Path) -> Result<Parsed, ReadError> {
    let text = match text(path) {
        Ok(text) => text.unwrap_or_default(),
        Err(source) => return Err(ReadError::File { path: path.to_owned(), source }),
    };
    config::parse(&text).map_err(|source| ReadError::Config { path: path.to_owned(), source })
}

/// Reads the config file and says so to the engine.
pub fn event(path: &Path) -> Event {
    match read(path) {
        Ok(Parsed { config, warnings }) => Event::ConfigRead { config, warnings },
        Err(error) => Event::ConfigRejected { problem: error.problem() },
    }
}

impl ReadError {
    /// Returns the error in words for the user.
    pub fn problem(&self) -> Problem {
        let hint = match self {
            ReadError::File { .. } => Some("make the file readable text, or remove it".to_owned()),
            ReadError::Config { source, .. } => source.hint.clone(),
        };
        Problem { part: "config".into(), message: self.to_string(), hint }
    }
}

/// A watched config file; dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    touch: SyncSender<()>,
    ended: Arc<AtomicBool>,
}

/// Calls back whenever the text of the config file has changed.
pub fn watch(path: &Path, on_change: impl Fn() + Send + 'static) -> notify::Result<Watch> {
    // One touch that waits stands for all that come: a busy folder fills no memory.
    let (touch, touches) = mpsc::sync_channel(1);
    let mut watched = Watched::new(path, touch.clone())?;
    // Before the thread runs, so that no change from now on is missed.
    watched.arm()?;
    let last = seen(path);
    let (path, ended) = (path.to_owned(), Arc::new(AtomicBool::new(false)));
    let watch = Watch { touch, ended: Arc::clone(&ended) };
    let work = move || follow(&path, watched, &touches, &ended, last, on_change);
    thread::Builder::new().name("config-watch".into()).spawn(work)?;
    Ok(watch)
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Full is as good: a touch that waits wakes the thread as well.
        let _ = self.touch.try_send(());
    }
}

fn follow(
    path: &Path,
    mut watched: Watched,
    touches: &Receiver<()>,
    ended: &AtomicBool,
    mut last: Seen,
    on_change: impl Fn(),
) {
    while touches.recv().is_ok() {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && !ended.load(Ordering::Acquire) {
            if touches.recv_timeout(QUIET) == Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        if ended.load(Ordering::Acquire) {
            return;
        }
        // First the watch, then the text: a change in between is an event again.
        if let Err(error) = watched.arm() {
            tracing::warn!("the config file is not watched any more: {error}");
        }
        let now = seen(path);
        if now != last {
            last = now;
            on_change();
        }
    }
}

/// The folders that are watched for the sake of one file.
struct Watched {
    path: PathBuf,
    watcher: RecommendedWatcher,
    folders: BTreeSet<PathBuf>,
    /// The names in those folders that lead to the file. Names, not paths: some systems report a
    /// path under another one of its spellings.
    names: Arc<Mutex<BTreeSet<OsString>>>,
}

impl Watched {
    fn new(path: &Path, touch: SyncSender<()>) -> notify::Result<Watched> {
        let names = Arc::new(Mutex::new(BTreeSet::new()));
        let known = Arc::clone(&names);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| matters(&event, &known.lock().unwrap_or_else(PoisonError::into_inner))) {
                let _ = touch.try_send(());
            }
        })?;
        Ok(Watched { path: path.to_owned(), watcher, folders: BTreeSet::new(), names })
    }

    /// Watches what has to be watched now, and no more.
    fn arm(&mut self) -> notify::Result<()> {
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names(&self.path);
        // Every time anew: a folder that was removed and made again has the same path and no watch.
        for folder in std::mem::take(&mut self.folders) {
            let _ = self.watcher.unwatch(&folder);
        }
        for folder in folders(&self.path) {
            self.watcher.watch(&folder, RecursiveMode::NonRecursive)?;
            self.folders.insert(folder);
        }
        Ok(())
    }
}

/// Tells whether an event may be about the file. The home folder may be among the watched ones, and
/// much happens there.
fn matters(event: &notify::Event, names: &BTreeSet<OsString>) -> bool {
    // Reading the file is an event as well, and must not lead to reading it again.
    let is_change = !matches!(event.kind, EventKind::Access(_));
    let leads_there = |path: &PathBuf| path.file_name().is_none_or(|name| names.contains(name));
    event.need_rescan() || is_change && (event.paths.is_empty() || event.paths.iter().any(leads_there))
}

/// Returns the names of the file, of what it links to and of all folders above.
fn names(path: &Path) -> BTreeSet<OsString> {
    let target = path.canonicalize().ok();
    [Some(path), target.as_deref()].into_iter().flatten().flat_map(Path::iter).map(OsString::from).collect()
}

/// Returns the folders in which a change of the file shows: where it lies, or would once the folders
/// above are made; and behind a link, where the file itself lies.
fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let nearest = path.ancestors().skip(1).find(|folder| folder.is_dir()).map(Path::to_owned);
    let target = path.canonicalize().ok().and_then(|target| target.parent().map(Path::to_owned));
    nearest.into_iter().chain(target).collect()
}

/// What two looks at the file are compared by.
type Seen = Result<Option<String>, io::ErrorKind>;

fn seen(path: &Path) -> Seen {
    text(path).map_err(|error| error.kind())
}

/// Returns the text of a file, `None` where there is no file.
fn text(path: &Path) -> io::Result<Option<String>> {
    let not_usable = |message| io::Error::new(io::ErrorKind::InvalidData, message);
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // A pipe or a device there would never end.
    if !file.metadata()?.is_file() {
        return Err(not_usable("it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(not_usable("it is longer than 1 MiB"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| not_usable("it is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_missing_file_is_the_default_and_a_bad_one_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert_eq!(read(&path).unwrap().config, Config::default());

        fs::write(&path, "[log]\nlevel = 'loud'\n").unwrap();
        let Event::ConfigRejected { problem } = event(&path) else { panic!("a bad config was taken") };
        assert!(problem.message.contains("config.toml: line 2, column 9"), "{}", problem.message);
        assert_eq!(problem.hint.as_deref(), Some("write it like `level = \"info\"`"));

        for bad in [vec![0xff; 4], vec![b'#'; 1 + usize::try_from(MOST_BYTES).unwrap()]] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(read(&path), Err(ReadError::File { .. })));
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(read(&path), Err(ReadError::File { .. })));
    }

    #[test]
    fn every_way_of_changing_the_file_is_noticed_once_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fitwatch/config.toml");
        let changes = Changes::of(&path);

        fs::create_dir(folder.path().join("fitwatch")).unwrap();
        fs::write(&path, "# made with its folder").unwrap();
        changes.one("made with its folder");
        fs::write(&path, "# written in place").unwrap();
        changes.one("written in place");
        fs::write(path.with_extension("new"), "# renamed over").unwrap();
        fs::rename(path.with_extension("new"), &path).unwrap();
        changes.one("renamed over");
        fs::write(&path, "# renamed over").unwrap();
        fs::write(path.with_extension("bak"), "another file").unwrap();
        read(&path).unwrap();
        changes.none("the same text, another file, a reader");
        fs::remove_dir_all(folder.path().join("fitwatch")).unwrap();
        changes.one("removed with its folder");
        fs::create_dir(folder.path().join("fitwatch")).unwrap();
        changes.none("only the folder");
        fs::remove_dir(folder.path().join("fitwatch")).unwrap();
        changes.none("the empty folder goes again");
        fs::create_dir(folder.path().join("fitwatch")).unwrap();
        fs::write(&path, "# back again").unwrap();
        changes.one("back again");
        fs::remove_dir_all(folder.path().join("fitwatch")).unwrap();
        fs::create_dir(folder.path().join("fitwatch")).unwrap();
        fs::write(&path, "# another folder of the same name").unwrap();
        changes.one("another folder of the same name");
        fs::write(&path, "# in the other folder").unwrap();
        changes.one("in the other folder");
    }

    #[cfg(unix)]
    #[test]
    fn a_change_behind_a_link_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (dotfiles, config) = (folder.path().join("dotfiles"), folder.path().join("config"));
        fs::create_dir(&dotfiles).unwrap();
        fs::create_dir(&config).unwrap();
        fs::write(dotfiles.join("fitwatch.toml"), "# one").unwrap();
        std::os::unix::fs::symlink(dotfiles.join("fitwatch.toml"), config.join("config.toml")).unwrap();
        let changes = Changes::of(&config.join("config.toml"));
        fs::write(dotfiles.join("fitwatch.toml"), "# two").unwrap();
        changes.one("behind the link");
    }

    #[test]
    fn what_else_happens_in_a_watched_folder_does_not_matter() {
        let names = names(Path::new("/home/ada/.config/fitwatch/config.toml"));
        let change = |path: &str| {
            notify::Event::new(EventKind::Modify(notify::event::ModifyKind::Any)).add_path(PathBuf::from(path))
        };
        assert!(matters(&change("/home/ada/.config"), &names));
        assert!(matters(&change("/home/ada/.config/fitwatch/config.toml"), &names));
        assert!(!matters(&change("/home/ada/.bash_history"), &names));
        assert!(!matters(&change("/home/ada/.config/fitwatch/config.toml.swp"), &names));
        assert!(matters(&notify::Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan), &names));
        let read = notify::Event::new(EventKind::Access(notify::event::AccessKind::Any));
        assert!(!matters(&read.add_path("/home/ada/.config/fitwatch/config.toml".into()), &names));
    }

    #[test]
    fn a_dropped_watch_is_silent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let Changes { receiver, watch } = Changes::of(&path);
        drop(watch);
        fs::write(&path, "# unseen").unwrap();
        // The sender lives in the thread: its end shows that the thread has gone.
        assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Err(RecvTimeoutError::Disconnected));
    }

    struct Changes {
        receiver: Receiver<()>,
        watch: Watch,
    }

    impl Changes {
        fn of(path: &Path) -> Changes {
            let (sender, receiver) = mpsc::channel();
            Changes { receiver, watch: watch(path, move || sender.send(()).unwrap()).unwrap() }
        }

        fn one(&self, what: &str) {
            assert_eq!(self.receiver.recv_timeout(Duration::from_secs(10)), Ok(()), "{what}");
            self.none(what);
        }

        fn none(&self, what: &str) {
            assert_eq!(self.receiver.recv_timeout(QUIET * 4), Err(RecvTimeoutError::Timeout), "{what}");
        }
    }
}
