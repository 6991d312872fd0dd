//! The library's state machine.
//!
//! ```text
//!  file seen ──► unsettled ──(same stamp at two looks, 1 s apart)──► settled ──► header wanted
//!      │             ▲                                                  │             │
//!      │             └───────────────(its stamp changed)────────────────┘             ▼
//!      └──(at the first walk of its root, or known by a remembered header)──►   Ready, Unreadable
//!                                                                              or cut: Downloading
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::catalogue::{Catalogue, Claim, Claims, Place, Rank, Row};
use super::draw;
use super::folder::{Files, Folder, Seen, Unit};
use super::headers::{HeaderOutcome, HeaderRead, Headers, Remembered};
use super::schedule::Schedule;
use super::{FileIdentity, FileRole, FoundFile, Listing, Model, ModelFile, ModelId, Root, RootState};
use crate::units::{Moment, Span};

/// Two looks this far apart must see the same stamp before a file is settled.
const SETTLE: Span = Span::seconds(1);

/// The models of all roots.
#[derive(Debug, Default)]
pub struct Library {
    roots: Vec<Held>,
    headers: Headers,
    catalogue: Catalogue,
    claims: Claims,
    /// The paths of each file that has any, to notice a change through another path.
    twins: BTreeMap<FileIdentity, Vec<Place>>,
    /// Folders to draw anew at a moment: a cut file that no longer counts as downloading.
    expiries: BTreeSet<(Moment, usize, PathBuf)>,
    revision: u64,
}

/// A root and what is known under it.
#[derive(Debug)]
struct Held {
    root: Root,
    rank: Rank,
    state: RootState,
    schedule: Schedule,
    folders: BTreeMap<PathBuf, Folder>,
    /// What walks could not enter, by the folder walked.
    notes: BTreeMap<PathBuf, Vec<String>>,
}

/// What the library wants from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Walk a root, or one folder under it.
    Scan {
        /// The root.
        root: PathBuf,
        /// The folder to walk.
        under: PathBuf,
    },
    /// Read the header of these files, which make one model or projector.
    ReadHeader {
        /// The files, first shard first.
        files: Vec<ModelFile>,
    },
}

/// The folders whose models have to be drawn anew.
type Touched = BTreeSet<Place>;

impl Library {
    /// Returns an empty library that trusts remembered headers of files with unchanged stamps.
    pub fn new(remembered: Remembered) -> Library {
        Library { headers: Headers::new(remembered), ..Library::default() }
    }

    /// Sets the folders to hold; models of others leave.
    pub fn set_roots(&mut self, roots: Vec<Root>, now: Moment) {
        let mut named = BTreeSet::new();
        let roots: Vec<Root> = roots.into_iter().filter(|root| named.insert(root.path.clone())).collect();
        if roots.iter().eq(self.roots.iter().map(|held| &held.root)) {
            return;
        }
        let mut old: BTreeMap<PathBuf, Held> =
            std::mem::take(&mut self.roots).into_iter().map(|held| (held.root.path.clone(), held)).collect();
        for (place, root) in roots.into_iter().enumerate() {
            let rank = Rank(root.origin, place);
            let held = old.remove(&root.path).unwrap_or_else(|| Held::new(&root, rank, now));
            self.roots.push(Held { root, rank, ..held });
        }
        self.revision += 1;
        self.redraw_everything(now);
    }

    /// Takes note that something happened at a path.
    pub fn dirty(&mut self, path: &Path, now: Moment) {
        let role = path.file_name().map_or(FileRole::Foreign, FileRole::of);
        let is_doubted = self.headers.doubt(path);
        for held in &mut self.roots {
            let root = held.root.path.as_path();
            let folder = match path.parent() {
                // The root itself, or a folder above it.
                _ if root.starts_with(path) => root,
                _ if !path.starts_with(root) => continue,
                _ if held.state != RootState::Present => root,
                Some(parent) if !role.is_foreign() => parent,
                // Whatever it is, it may be a folder, new or gone, with anything in it.
                _ => path,
            };
            held.schedule.dirty(folder, now);
        }
        if is_doubted {
            self.redraw_folder_of(path, now);
        }
    }

    /// Takes note that anything may have happened anywhere: every root is wanted anew.
    pub fn rescan(&mut self, now: Moment) {
        for held in &mut self.roots {
            held.schedule.whole(now);
        }
        for path in self.headers.doubt_failures() {
            self.redraw_folder_of(&path, now);
        }
    }

    /// Takes in what a walk found.
    pub fn listed(&mut self, listing: Listing, now: Moment) {
        let Some(place) = self.roots.iter().position(|held| held.root.path == listing.root) else { return };
        let is_present = listing.state == RootState::Present;
        let held = &mut self.roots[place];
        held.schedule.walked(&listing.under, is_present, now);
        // A root that is gone takes everything under it along, wherever the walk began.
        let under = if is_present { listing.under } else { listing.root };
        if !under.starts_with(&held.root.path) {
            return;
        }
        let is_first_walk = held.state == RootState::Pending && under == held.root.path;
        if held.state != listing.state && (held.state != RootState::Pending || is_first_walk || !is_present) {
            held.state = listing.state;
            self.revision += 1;
        }
        self.take_notes(place, &under, listing.notes);
        let touched = self.take_files(place, &under, listing.files, is_first_walk, now);
        self.redraw(&touched, now);
        if is_present && under == self.roots[place].root.path {
            self.forget_headers();
        }
    }

    /// Takes in a header.
    pub fn header_read(&mut self, read: HeaderRead, now: Moment) {
        let is_cut = matches!(read.outcome, HeaderOutcome::Cut { .. });
        let Some(path) = self.headers.read(read) else { return };
        if is_cut && let Some(folder) = path.parent() {
            // It may have grown since it was listed, and nobody need have said so.
            for held in self.roots.iter_mut().filter(|held| held.folders.contains_key(folder)) {
                held.schedule.look(folder, now.after(SETTLE));
            }
        }
        self.redraw_folder_of(&path, now);
    }

    /// Returns what is wanted now; each want is returned once.
    pub fn wants(&mut self, now: Moment) -> Vec<Want> {
        self.expire(now);
        let mut wants = Vec::new();
        for held in &mut self.roots {
            let root = &held.root.path;
            let started = held.schedule.start_due(now);
            wants.extend(started.into_iter().map(|under| Want::Scan { root: root.clone(), under }));
        }
        wants.extend(self.headers.start_wanted().into_iter().map(|files| Want::ReadHeader { files }));
        wants
    }

    /// Returns when `wants` has something to say next, if nothing else happens.
    pub fn deadline(&self) -> Option<Moment> {
        let walks = self.roots.iter().filter_map(|held| held.schedule.deadline());
        let expiry = self.expiries.first().map(|(at, ..)| *at);
        let headers = self.headers.is_any_wanted().then_some(Moment(0));
        walks.chain(expiry).chain(headers).min()
    }

    /// Returns the models, sorted by id; projectors and drafters are not among them.
    pub fn models(&self) -> &[Model] {
        self.catalogue.models()
    }

    /// Returns the model of an id.
    pub fn model(&self, id: &ModelId) -> Option<&Model> {
        self.catalogue.model(id)
    }

    /// Returns the models that a file belongs to, or a folder is, under this path or any other that leads
    /// to the same file; shards are files of their model.
    pub fn models_of(&self, path: &Path, identity: Option<FileIdentity>) -> Vec<ModelId> {
        let mut found = BTreeSet::new();
        let folder_of = |place: usize, path: &Path| self.roots[place].folders.get(path.parent()?);
        let mut paths: Vec<(usize, &Path)> = (0..self.roots.len()).map(|place| (place, path)).collect();
        let here =
            (0..self.roots.len()).filter_map(|place| Some(folder_of(place, path)?.files.get(path)?.found.identity));
        let identities: BTreeSet<FileIdentity> = here.chain(identity).collect();
        let twins = identities.iter().filter_map(|identity| self.twins.get(identity)).flatten();
        paths.extend(twins.map(|(place, path)| (*place, path.as_path())));
        for (place, path) in paths {
            let folders = [folder_of(place, path), self.roots[place].folders.get(path)];
            let units = folders.into_iter().flatten().flat_map(|folder| &folder.units);
            let units = units.filter(|unit| unit.key == path || unit.files.iter().any(|file| file.path == path));
            let counting = units.filter_map(|unit| self.claims.first(unit.identity));
            found.extend(counting.filter_map(|claim| Some(self.catalogue.at(&claim.key)?.id.clone())));
        }
        found.into_iter().collect()
    }

    /// Returns the roots and their state.
    pub fn roots(&self) -> Vec<(Root, RootState)> {
        self.roots.iter().map(|held| (held.root.clone(), held.state.clone())).collect()
    }

    /// Returns what walks could not enter, in words for the user.
    pub fn notes(&self) -> Vec<String> {
        self.roots.iter().flat_map(|held| held.notes.values().flatten().cloned()).collect()
    }

    /// Returns whether a walk that was asked for, or a header, is still outstanding.
    pub fn is_busy(&self) -> bool {
        self.headers.is_any_outstanding() || self.roots.iter().any(|held| held.schedule.is_asked())
    }

    /// Returns what to keep over a restart: headers of files that are there, and of those in
    /// folders that are away for now.
    pub fn remembered(&self) -> Remembered {
        self.headers.remembered(|files| self.may_come_back(files))
    }

    /// Returns a number that changes whenever `models` or `roots` would return something else.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

impl Held {
    fn new(root: &Root, rank: Rank, now: Moment) -> Held {
        Held {
            root: root.clone(),
            rank,
            state: RootState::Pending,
            schedule: Schedule::new(root.path.clone(), now),
            folders: BTreeMap::new(),
            notes: BTreeMap::new(),
        }
    }

    fn known_under(&self, under: &Path) -> Vec<PathBuf> {
        let range = self.folders.range::<Path, _>((Bound::Included(under), Bound::Unbounded));
        range.map(|(folder, _)| folder).take_while(|folder| folder.starts_with(under)).cloned().collect()
    }

    fn claim(&self, folder: &Path, unit: &Unit) -> Claim {
        Claim {
            is_incomplete: !unit.missing.numbers.is_empty(),
            rank: self.rank,
            is_link: unit.is_link,
            length: Claim::length_of(&unit.key),
            key: unit.key.clone(),
            folder: (self.rank.1, folder.to_owned()),
        }
    }
}

/// Taking in files.
impl Library {
    fn take_notes(&mut self, place: usize, under: &Path, notes: Vec<String>) {
        let held = &mut self.roots[place];
        let known = held.notes.clone();
        held.notes.retain(|walked, _| !walked.starts_with(under));
        if !notes.is_empty() {
            held.notes.insert(under.to_owned(), notes);
        }
        self.revision += u64::from(self.roots[place].notes != known);
    }

    /// Replaces what is known under a folder and returns the folders that are others now.
    fn take_files(
        &mut self,
        place: usize,
        under: &Path,
        files: Vec<FoundFile>,
        is_first_walk: bool,
        now: Moment,
    ) -> Touched {
        let mut found: BTreeMap<PathBuf, Vec<FoundFile>> =
            self.roots[place].known_under(under).into_iter().map(|folder| (folder, Vec::new())).collect();
        for file in files {
            let Some(parent) = file.path.parent().filter(|parent| parent.starts_with(under)) else { continue };
            match found.get_mut(parent) {
                Some(files) => files.push(file),
                None => drop(found.insert(parent.to_owned(), vec![file])),
            }
        }
        let mut touched = Touched::new();
        for (folder, files) in found {
            self.take_folder(place, folder, files, is_first_walk, now, &mut touched);
        }
        touched
    }

    fn take_folder(
        &mut self,
        place: usize,
        path: PathBuf,
        files: Vec<FoundFile>,
        is_first_walk: bool,
        now: Moment,
        touched: &mut Touched,
    ) {
        let mut folder = self.roots[place].folders.remove(&path).unwrap_or_default();
        let old = std::mem::take(&mut folder.files);
        for found in files {
            let role = found.path.file_name().map_or(FileRole::Foreign, FileRole::of);
            if !role.is_foreign() {
                let seen = self.see(found, role, &old, is_first_walk, now);
                folder.files.insert(seen.found.path.clone(), Box::new(seen));
            }
        }
        if folder.files != old {
            self.follow_twins(place, &old, &folder.files, now);
            let units = std::mem::take(&mut folder.units);
            folder.group(&path);
            self.claim_anew(place, &path, &units, &folder.units, touched);
        }
        let held = &mut self.roots[place];
        if let Some(since) = folder.unsettled_since() {
            held.schedule.look(&path, since.after(SETTLE).max(now));
        }
        if !folder.files.is_empty() {
            held.folders.insert(path, folder);
        }
    }

    /// Compares a file with what was seen of it before.
    fn see(&self, found: FoundFile, role: FileRole, old: &Files, is_first_walk: bool, now: Moment) -> Seen {
        let mut seen = Seen { role, steady_since: now, is_settled: false, found };
        match old.get(&seen.found.path).filter(|before| before.stamp() == seen.stamp()) {
            Some(before) => {
                seen.steady_since = before.steady_since;
                seen.is_settled = before.is_settled || now.since(before.steady_since) >= SETTLE;
            }
            None => {
                seen.is_settled = is_first_walk
                    || self.headers.vouch_for(&seen.found.path, seen.stamp())
                    || self.has_settled_twin(&seen, old);
            }
        }
        seen
    }

    /// A file that was renamed or linked has settled under its other name.
    fn has_settled_twin(&self, seen: &Seen, old: &Files) -> bool {
        let twins = self.twins.get(&seen.found.identity).into_iter().flatten();
        let mut twins = twins.filter_map(|(place, path)| match self.roots[*place].folders.get(path.parent()?) {
            Some(folder) => folder.files.get(path),
            None => old.get(path),
        });
        twins.any(|twin| twin.is_settled && twin.stamp() == seen.stamp())
    }

    /// A file that vanished or changed has done so under its other names too, of which nothing is heard.
    fn follow_twins(&mut self, place: usize, old: &Files, new: &Files, now: Moment) {
        for (path, before) in old {
            let after = new.get(path);
            if after
                .is_some_and(|after| after.stamp() == before.stamp() && after.found.identity == before.found.identity)
            {
                continue;
            }
            let Some(twins) = self.twins.get_mut(&before.found.identity) else { continue };
            if after.is_none_or(|after| after.found.identity != before.found.identity) {
                twins.retain(|(other, twin)| (*other, twin) != (place, path));
            }
            for (other, twin) in twins.iter().filter(|(_, twin)| twin != path) {
                if let Some(folder) = twin.parent() {
                    self.roots[*other].schedule.look(folder, now.after(SETTLE));
                }
            }
            if twins.is_empty() {
                self.twins.remove(&before.found.identity);
            }
        }
        for (path, after) in new {
            if old.get(path).is_none_or(|before| before.found.identity != after.found.identity) {
                add_twin(&mut self.twins, after.found.identity, (place, path.clone()));
            }
        }
    }

    /// Replaces the claims of a folder's units; the folders of others that win or lose are touched.
    fn claim_anew(&mut self, place: usize, folder: &Path, old: &[Unit], new: &[Unit], touched: &mut Touched) {
        let held = &self.roots[place];
        for unit in old {
            self.headers.withdraw(&unit.files);
            touched.extend(self.claims.remove(unit.identity, &held.claim(folder, unit)));
        }
        for unit in new {
            touched.extend(self.claims.add(unit.identity, held.claim(folder, unit)));
        }
        touched.insert((place, folder.to_owned()));
    }

    /// Forgets headers of what a walk of a whole root did not find.
    fn forget_headers(&mut self) {
        let mut headers = std::mem::take(&mut self.headers);
        headers.retain(|files| self.may_come_back(files));
        self.headers = headers;
    }

    fn may_come_back(&self, files: &[ModelFile]) -> bool {
        let Some(first) = files.first() else { return false };
        let mut holders = self.roots.iter().filter(|held| first.path.starts_with(&held.root.path)).peekable();
        if holders.peek().is_none() {
            return self.roots.is_empty();
        }
        holders.any(|held| {
            let folder = first.path.parent().and_then(|folder| held.folders.get(folder));
            held.state != RootState::Present
                || folder.is_some_and(|folder| folder.units.iter().any(|unit| unit.files == files))
        })
    }
}

/// Drawing models.
impl Library {
    fn redraw_everything(&mut self, now: Moment) {
        self.claims = Claims::default();
        self.twins.clear();
        self.expiries.clear();
        let mut touched = Touched::new();
        for (place, held) in self.roots.iter().enumerate() {
            for (path, folder) in &held.folders {
                for unit in &folder.units {
                    self.claims.add(unit.identity, held.claim(path, unit));
                }
                for seen in folder.files.values() {
                    add_twin(&mut self.twins, seen.found.identity, (place, seen.found.path.clone()));
                }
                touched.insert((place, path.clone()));
            }
        }
        let come = self.draw(&touched, now);
        self.catalogue.replace_all(come);
    }

    fn redraw_folder_of(&mut self, path: &Path, now: Moment) {
        let Some(folder) = path.parent() else { return };
        let places = (0..self.roots.len()).filter(|place| self.roots[*place].folders.contains_key(folder));
        let touched = places.map(|place| (place, folder.to_owned())).collect();
        self.redraw(&touched, now);
    }

    fn redraw(&mut self, touched: &Touched, now: Moment) {
        let come = self.draw(touched, now);
        if self.catalogue.replace(touched, come) {
            self.revision += 1;
        }
    }

    fn draw(&mut self, touched: &Touched, now: Moment) -> Vec<(Row, Model)> {
        let Library { roots, headers, claims, expiries, .. } = self;
        let mut rows = Vec::new();
        for (place, path) in touched {
            let held = &roots[*place];
            let Some(folder) = held.folders.get(path) else { continue };
            for unit in &folder.units {
                follow_header(headers, unit);
                if let Some(at) = draw::expiry(unit, headers).filter(|at| *at > now) {
                    expiries.insert((at, *place, path.clone()));
                }
            }
            for (unit, model) in draw::models(&held.root, &folder.units, headers, now) {
                let claim = held.claim(path, unit);
                if claims.is_first(unit.identity, &claim) {
                    let plain_id = model.id.0.clone();
                    let root_name = draw::root_name(&held.root.path);
                    rows.push((
                        Row { key: claim.key, folder: claim.folder, rank: held.rank, plain_id, root_name },
                        model,
                    ));
                }
            }
        }
        rows
    }

    fn expire(&mut self, now: Moment) {
        let mut touched = Touched::new();
        while self.expiries.first().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, place, path)) = self.expiries.pop_first() else { break };
            touched.insert((place, path));
        }
        if !touched.is_empty() {
            self.redraw(&touched, now);
        }
    }
}

/// Adds a path of a file; nearly every file has one.
fn add_twin(twins: &mut BTreeMap<FileIdentity, Vec<Place>>, identity: FileIdentity, twin: Place) {
    let paths = twins.entry(identity).or_insert_with(|| Vec::with_capacity(1));
    if let Err(at) = paths.binary_search(&twin) {
        paths.insert(at, twin);
    }
}

/// Asks for a unit's header once all of it is there and settled.
fn follow_header(headers: &mut Headers, unit: &Unit) {
    if unit.is_whole() {
        headers.want(&unit.files);
    } else {
        headers.withdraw(&unit.files);
    }
}

#[cfg(test)]
mod random;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
