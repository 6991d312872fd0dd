//! From the units of one folder to the models shown.

use std::path::Path;
use std::sync::Arc;

use super::folder::{Format, Unit};
use super::headers::Headers;
use super::names::{is_called, parts_below, projector_stem};
use super::{HeaderOutcome, Model, ModelFile, ModelId, ModelState, Origin, Root};
use crate::memory::{Kind, Projector};
use crate::units::{Moment, Span};

/// A file that stays cut for so long without growing is called incomplete, not downloading.
const CUT_IS_FINAL: Span = Span::minutes(5);

/// LM Studio looks for `publisher/repository/file`.
const INDEXED_DEPTH: usize = 2;

/// Returns the models that the units of one folder show as; their ids may have to be set apart from
/// those of other folders.
pub(super) fn models<'a>(root: &Root, units: &'a [Unit], headers: &Headers, now: Moment) -> Vec<(&'a Unit, Model)> {
    let findings: Vec<(&Unit, Finding)> = units.iter().map(|unit| (unit, finding(unit, headers, now))).collect();
    let projectors = Projectors::gather(&findings);
    let found = findings.into_iter().filter_map(|(unit, finding)| match finding {
        Finding::Model(state) => Some((unit, model(root, unit, state, &projectors, now))),
        Finding::Projector(..) | Finding::ProjectorToCome | Finding::Apart => None,
    });
    found.collect()
}

/// Returns when a unit looks different by the passing of time alone: when a cut file is no longer
/// taken for one that still arrives.
pub(super) fn expiry(unit: &Unit, headers: &Headers) -> Option<Moment> {
    let is_cut = unit.is_whole() && matches!(headers.outcome(&unit.files), Some(HeaderOutcome::Cut { .. }));
    is_cut.then(|| cut_is_final(unit))
}

/// What a unit turned out to be.
#[derive(Debug)]
enum Finding {
    /// A model.
    Model(ModelState),
    /// A projector for the models beside it.
    Projector(ModelFile, Arc<Projector>),
    /// A projector that is not here yet.
    ProjectorToCome,
    /// A drafter or another part of a model.
    Apart,
}

/// Returns what a unit is, as far as its files and header tell.
fn finding(unit: &Unit, headers: &Headers, now: Moment) -> Finding {
    let state = match unit.format {
        _ if unit.is_arriving => ModelState::Downloading,
        Format::Mlx => ModelState::NotJudged { reason: "MLX models are listed, not judged yet".to_owned() },
        Format::Gguf if !unit.missing.numbers.is_empty() => {
            ModelState::Incomplete { missing: unit.missing.numbers.clone() }
        }
        Format::Gguf => return header_finding(unit, headers, now),
    };
    to_come(unit, state)
}

fn header_finding(unit: &Unit, headers: &Headers, now: Moment) -> Finding {
    let Some(outcome) = headers.outcome(&unit.files) else { return to_come(unit, ModelState::Reading) };
    match outcome {
        HeaderOutcome::Model(structure) => match structure.kind {
            Kind::Language | Kind::Embedding => Finding::Model(ModelState::Ready(Arc::clone(structure))),
            Kind::Projector | Kind::Drafter => Finding::Apart,
        },
        HeaderOutcome::Projector(projector) => match unit.files.first() {
            Some(file) => Finding::Projector(file.clone(), Arc::clone(projector)),
            None => Finding::Apart,
        },
        HeaderOutcome::Cut { .. } if now < cut_is_final(unit) => to_come(unit, ModelState::Downloading),
        HeaderOutcome::Cut { reason } => {
            Finding::Model(ModelState::Unreadable { reason: format!("incomplete: {reason}") })
        }
        HeaderOutcome::Unreadable { reason } => Finding::Model(ModelState::Unreadable { reason: reason.clone() }),
    }
}

fn cut_is_final(unit: &Unit) -> Moment {
    unit.steady_since.after(CUT_IS_FINAL)
}

/// A projector that is still to come is no model, as far as its name tells.
fn to_come(unit: &Unit, state: ModelState) -> Finding {
    if unit.is_named_projector { Finding::ProjectorToCome } else { Finding::Model(state) }
}

/// The projectors of one folder.
#[derive(Debug, Default)]
struct Projectors {
    /// Largest first: it makes the bill a safe one. Of equals the first by name.
    found: Vec<Found>,
    notes: Vec<String>,
}

/// A projector whose header was read.
#[derive(Debug)]
struct Found {
    name: String,
    /// Names of the models in the folder that it is called after.
    called_after: Vec<String>,
    file: ModelFile,
    projector: Arc<Projector>,
}

impl Projectors {
    /// Gathers what a folder holds.
    fn gather(findings: &[(&Unit, Finding)]) -> Projectors {
        let mut projectors = Projectors::default();
        for (unit, finding) in findings {
            match finding {
                Finding::Projector(file, projector) => {
                    let stem = projector_stem(&unit.name);
                    let models = findings.iter().filter(|(_, finding)| matches!(finding, Finding::Model(_)));
                    let names = models.map(|(model, _)| &model.name).filter(|name| is_called(name, &stem));
                    projectors.found.push(Found {
                        name: unit.name.clone(),
                        called_after: names.cloned().collect(),
                        file: file.clone(),
                        projector: Arc::clone(projector),
                    });
                }
                Finding::ProjectorToCome if unit.is_arriving => {
                    projectors
                        .notes
                        .push(format!("its projector {} is still downloading and is not counted yet", unit.name));
                }
                Finding::Model(ModelState::Unreadable { .. }) if unit.is_named_projector => {
                    projectors.notes.push(format!("its projector {} cannot be read and is not counted", unit.name));
                }
                Finding::Model(_) | Finding::ProjectorToCome | Finding::Apart => {}
            }
        }
        let size = |found: &Found| (found.projector.weights, found.file.stamp.bytes);
        projectors.found.sort_by(|one, other| (size(other), &one.name).cmp(&(size(one), &other.name)));
        projectors
    }

    /// Chooses for a model: of those called after it, else of those called after no model here.
    fn choose(&self, model: &str, notes: &mut Vec<String>) -> Option<(ModelFile, Arc<Projector>)> {
        notes.extend(self.notes.iter().cloned());
        let own = |found: &&Found| found.called_after.iter().any(|name| name == model);
        let mut candidates: Vec<&Found> = self.found.iter().filter(own).collect();
        if candidates.is_empty() {
            candidates = self.found.iter().filter(|found| found.called_after.is_empty()).collect();
        }
        let chosen = candidates.first()?;
        if candidates.len() > 1 {
            let count = candidates.len();
            notes.push(format!("{count} projectors lie beside it; the largest, {}, is counted", chosen.name));
        }
        Some((chosen.file.clone(), Arc::clone(&chosen.projector)))
    }
}

/// Returns the model a unit shows as.
fn model(root: &Root, unit: &Unit, state: ModelState, projectors: &Projectors, now: Moment) -> Model {
    let parts = parts_below(&root.path, &unit.key);
    let folders = if unit.format == Format::Mlx { parts.len() } else { parts.len().saturating_sub(1) };
    let is_placed = folders >= INDEXED_DEPTH;
    let takes_projector = unit.format == Format::Gguf
        && !unit.is_named_projector
        && !matches!(&state, ModelState::Ready(structure) if structure.kind == Kind::Embedding);
    let mut notes = Vec::new();
    if !is_placed && root.origin == Origin::LmStudio {
        notes.push("LM Studio may not index a file at this depth".to_owned());
    }
    if unit.missing.more > 0 && matches!(state, ModelState::Incomplete { .. }) {
        notes.push(format!("{} more shards are missing", unit.missing.more));
    }
    let projector = if takes_projector { projectors.choose(&unit.name, &mut notes) } else { None };
    Model {
        id: ModelId(plain_id(&root.path, &parts)),
        name: unit.name.clone(),
        publisher: parts.first().filter(|_| is_placed).cloned(),
        repository: parts.get(1).filter(|_| is_placed).cloned(),
        origin: root.origin,
        files: unit.files.clone(),
        projector,
        state,
        notes,
        since: now,
    }
}

fn plain_id(root: &Path, parts: &[String]) -> String {
    if parts.is_empty() { root_name(root) } else { parts.join("/") }
}

/// Returns a short name of a root.
pub(super) fn root_name(root: &Path) -> String {
    parts_below(Path::new(""), root).pop().unwrap_or_else(|| "/".to_owned())
}
