//! The list of models: sorted by id, each id once, each model once.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::path::{Path, PathBuf};

use super::{FileIdentity, Model, ModelId, Origin};

/// A model and what orders it.
#[derive(Debug)]
pub(super) struct Row {
    /// Where its first file is, or will be.
    pub(super) key: PathBuf,
    /// The folder it was drawn from.
    pub(super) folder: Place,
    pub(super) rank: Rank,
    /// Its id, were there no other of that name.
    pub(super) plain_id: String,
    /// What goes before the id where another has it.
    pub(super) root_name: String,
}

type Entries = Vec<(Row, Model)>;

/// A folder, by the number of its root and its path.
pub(super) type Place = (usize, PathBuf);

/// Which root comes first: LM Studio's own know their models by plain ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(pub(super) Origin, pub(super) usize);

/// The models.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    rows: Vec<Row>,
    models: Vec<Model>,
    /// Where in the list a folder's models stand.
    positions: BTreeMap<Place, Vec<usize>>,
}

impl Catalogue {
    pub(super) fn models(&self) -> &[Model] {
        &self.models
    }

    pub(super) fn model(&self, id: &ModelId) -> Option<&Model> {
        let position = self.models.binary_search_by(|model| model.id.cmp(id)).ok()?;
        self.models.get(position)
    }

    /// Returns the model whose first file, or folder, this is.
    pub(super) fn at(&self, key: &Path) -> Option<&Model> {
        let position = self.rows.iter().position(|row| row.key == key)?;
        self.models.get(position)
    }

    /// Replaces the models of some folders and returns whether the list is another one now.
    pub(super) fn replace(&mut self, folders: &BTreeSet<Place>, come: Vec<(Row, Model)>) -> bool {
        let old: BTreeMap<&PathBuf, usize> = folders
            .iter()
            .filter_map(|folder| self.positions.get(folder))
            .flatten()
            .map(|position| (&self.rows[*position].key, *position))
            .collect();
        if old.is_empty() && come.is_empty() {
            return false;
        }
        let positions: Option<Vec<usize>> = come.iter().map(|(row, _)| old.get(&row.key).copied()).collect();
        match positions.filter(|positions| positions.len() == old.len()) {
            Some(positions) if self.stand_for_the_same(&positions, &come) => {
                let pairs = positions.into_iter().zip(come);
                pairs.fold(false, |is_changed, (position, (_, model))| self.replace_one(position, model) || is_changed)
            }
            _ => {
                self.rebuild(|row| folders.contains(&row.folder), come);
                true
            }
        }
    }

    /// Replaces the whole list.
    pub(super) fn replace_all(&mut self, come: Vec<(Row, Model)>) {
        self.rebuild(|_| true, come);
    }

    /// Returns whether rows may be replaced where they stand: nothing that orders or names them differs.
    fn stand_for_the_same(&self, positions: &[usize], come: &[(Row, Model)]) -> bool {
        positions.iter().zip(come).all(|(position, (row, _))| {
            let old = &self.rows[*position];
            old.folder == row.folder && old.plain_id == row.plain_id
        })
    }

    fn replace_one(&mut self, position: usize, model: Model) -> bool {
        let old = &mut self.models[position];
        let new = Model { id: old.id.clone(), ..carry_on(model, old) };
        let is_changed = *old != new;
        *old = new;
        is_changed
    }

    fn rebuild(&mut self, is_replaced: impl Fn(&Row) -> bool, come: Vec<(Row, Model)>) {
        let old = std::mem::take(&mut self.rows).into_iter().zip(std::mem::take(&mut self.models));
        let (left, mut entries): (Entries, Entries) = old.partition(|(row, _)| is_replaced(row));
        let left: BTreeMap<PathBuf, Model> = left.into_iter().map(|(row, model)| (row.key, model)).collect();
        entries.extend(come.into_iter().map(|(row, model)| match left.get(&row.key) {
            Some(old) => (row, carry_on(model, old)),
            None => (row, model),
        }));
        name_apart(&mut entries);
        entries.sort_by(|(_, one), (_, other)| one.id.cmp(&other.id));
        (self.rows, self.models) = entries.into_iter().unzip();
        self.positions.clear();
        for (position, row) in self.rows.iter().enumerate() {
            match self.positions.get_mut(&row.folder) {
                Some(positions) => positions.push(position),
                None => drop(self.positions.insert(row.folder.clone(), vec![position])),
            }
        }
    }
}

/// Keeps the moment at which a state began.
fn carry_on(model: Model, old: &Model) -> Model {
    let is_same = discriminant(&model.state) == discriminant(&old.state);
    Model { since: if is_same { old.since } else { model.since }, ..model }
}

/// Gives every model an id of its own; the first of a name keeps it plain.
fn name_apart(entries: &mut [(Row, Model)]) {
    entries.sort_by(|(one, _), (other, _)| {
        (&one.plain_id, one.rank, &one.key).cmp(&(&other.plain_id, other.rank, &other.key))
    });
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut later = Vec::new();
    for (position, (row, model)) in entries.iter_mut().enumerate() {
        if taken.insert(row.plain_id.clone()) {
            model.id = ModelId(row.plain_id.clone());
        } else {
            later.push(position);
        }
    }
    for position in later {
        let (row, model) = &mut entries[position];
        let prefixed = format!("{}/{}", row.root_name, row.plain_id);
        let mut id = prefixed.clone();
        let mut number = 2;
        while !taken.insert(id.clone()) {
            id = format!("{prefixed} ({number})");
            number += 1;
        }
        model.id = ModelId(id);
    }
}

/// Who stands for a unit that can be reached by several paths: its claims, sorted.
#[derive(Debug, Default)]
pub(super) struct Claims(BTreeMap<FileIdentity, Vec<Claim>>);

/// One path to a unit; the least claim is the one that counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) is_incomplete: bool,
    pub(super) rank: Rank,
    pub(super) is_link: bool,
    /// Folders, then bytes: a shorter path comes first.
    pub(super) length: (usize, usize),
    pub(super) key: PathBuf,
    pub(super) folder: Place,
}

impl Claims {
    /// Adds a claim and returns the folders of the others, one of which may have lost.
    pub(super) fn add(&mut self, identity: FileIdentity, claim: Claim) -> Vec<Place> {
        // Nearly every unit has one claim: room for just that one.
        let claims = self.0.entry(identity).or_insert_with(|| Vec::with_capacity(1));
        let others = claims.iter().map(|other| other.folder.clone()).collect();
        if let Err(at) = claims.binary_search(&claim) {
            claims.insert(at, claim);
        }
        others
    }

    /// Withdraws a claim and returns the folders of the others, one of which may have won.
    pub(super) fn remove(&mut self, identity: FileIdentity, claim: &Claim) -> Vec<Place> {
        let Some(claims) = self.0.get_mut(&identity) else { return Vec::new() };
        claims.retain(|other| other != claim);
        let others = claims.iter().map(|other| other.folder.clone()).collect();
        if claims.is_empty() {
            self.0.remove(&identity);
        }
        others
    }

    /// Returns the claim that counts.
    pub(super) fn first(&self, identity: FileIdentity) -> Option<&Claim> {
        self.0.get(&identity)?.first()
    }

    /// Returns whether a claim is the one that counts.
    pub(super) fn is_first(&self, identity: FileIdentity, claim: &Claim) -> bool {
        self.first(identity) == Some(claim)
    }
}

impl Claim {
    /// Measures a path.
    pub(super) fn length_of(path: &Path) -> (usize, usize) {
        (path.components().count(), path.as_os_str().len())
    }
}
