//! From the units of one folder to the models shown.

use std::path::Path;
use std::sync::Arc;

use super::folder::{Format, Unit};
use super::headers::Headers;
use super::names::parts_below;
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
    let findings: Vec<Finding> = units.iter().map(|unit| finding(unit, headers, now)).collect();
    let projectors = Projectors::choose(units.iter().zip(&findings));
    let found = units.iter().zip(findings).filter_map(|(unit, finding)| match finding {
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
    chosen: Option<(ModelFile, Arc<Projector>)>,
    notes: Vec<String>,
}

impl Projectors {
    /// Chooses among what a folder holds; the largest makes the bill a safe one.
    fn choose<'a>(findings: impl Iterator<Item = (&'a Unit, &'a Finding)>) -> Projectors {
        let mut projectors = Projectors::default();
        let mut found = Vec::new();
        for (unit, finding) in findings {
            match finding {
                Finding::Projector(file, projector) => {
                    found.push((projector.weights, file.stamp.bytes, &unit.name, file, projector));
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
        // Of equals the first by name, whatever the order of the walk.
        found.sort_by(|one, other| (other.0, other.1, one.2).cmp(&(one.0, one.1, other.2)));
        if let Some((_, _, name, file, projector)) = found.first() {
            projectors.chosen = Some(((*file).clone(), Arc::clone(projector)));
            if found.len() > 1 {
                projectors
                    .notes
                    .push(format!("{} projectors lie beside it; the largest, {name}, is counted", found.len()));
            }
        }
        projectors
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
    if takes_projector {
        notes.extend(projectors.notes.iter().cloned());
    }
    Model {
        id: ModelId(plain_id(&root.path, &parts)),
        name: unit.name.clone(),
        publisher: parts.first().filter(|_| is_placed).cloned(),
        repository: parts.get(1).filter(|_| is_placed).cloned(),
        origin: root.origin,
        files: unit.files.clone(),
        projector: projectors.chosen.clone().filter(|_| takes_projector),
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
