//! The tray as a value: icon, tooltip and menu, built from a [`Report`].
//!
//! Equal reports make equal trays; the back-end in [`crate::host`] shows one and skips one equal
//! to the last. The menu keeps its shape while only numbers change, so that an open menu is
//! updated in place.

mod icon;
mod menu;
mod status;

use std::time::Duration;

use crate::library::ModelId;
use crate::report::Report;

pub use icon::{Icon, pixels};
pub use status::status_notice;

/// What the tray shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tray {
    /// The icon.
    pub icon: Icon,
    /// One line of state.
    pub tooltip: String,
    /// The menu's rows.
    pub rows: Vec<Row>,
}

/// One row of the menu. Its text is plain: a back-end escapes what its system treats specially.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Text that cannot be chosen.
    Text(String),
    /// A line between groups.
    Separator,
    /// Something that can be chosen.
    Item {
        /// Its text.
        text: String,
        /// What choosing it does.
        action: Action,
    },
    /// A row that opens further rows.
    Submenu {
        /// Its text.
        text: String,
        /// Its rows.
        rows: Vec<Row>,
    },
}

/// What can be chosen in the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say how things stand: a click on the icon itself.
    ShowStatus,
    /// Show a model's bill.
    ShowModel(ModelId),
    /// Unload a loaded model.
    Unload(String),
    /// Silence alerts.
    Pause(Duration),
    /// End the silence.
    Resume,
    /// Scan and sample anew.
    Recheck,
    /// Open the config file.
    OpenSettings,
    /// Open the log.
    OpenLog,
    /// Say what fitwatch is.
    About,
    /// End fitwatch.
    Quit,
}

/// Builds the tray of a report.
pub fn tray(report: &Report) -> Tray {
    Tray { icon: status::icon(report), tooltip: status::tooltip(report), rows: menu::rows(report) }
}

impl Action {
    /// Returns the action as text, for back-ends that know their rows by text alone.
    pub fn to_text(&self) -> String {
        match self {
            Action::ShowStatus => "status".into(),
            Action::ShowModel(id) => format!("model {}", id.0),
            Action::Unload(instance) => format!("unload {instance}"),
            Action::Pause(span) => format!("pause {}", span.as_secs()),
            Action::Resume => "resume".into(),
            Action::Recheck => "recheck".into(),
            Action::OpenSettings => "settings".into(),
            Action::OpenLog => "log".into(),
            Action::About => "about".into(),
            Action::Quit => "quit".into(),
        }
    }

    /// Returns the action of a text made by [`Action::to_text`].
    pub fn from_text(text: &str) -> Option<Action> {
        let (verb, object) = text.split_once(' ').unwrap_or((text, ""));
        match verb {
            "status" => Some(Action::ShowStatus),
            "model" => Some(Action::ShowModel(ModelId(object.into()))),
            "unload" => Some(Action::Unload(object.into())),
            "pause" => object.parse().ok().map(|seconds| Action::Pause(Duration::from_secs(seconds))),
            "resume" => Some(Action::Resume),
            "recheck" => Some(Action::Recheck),
            "settings" => Some(Action::OpenSettings),
            "log" => Some(Action::OpenLog),
            "about" => Some(Action::About),
            "quit" => Some(Action::Quit),
            _ => None,
        }
    }
}

impl Row {
    /// Returns whether `other` differs in its texts alone, so that it can be shown in place.
    pub fn has_shape_of(&self, other: &Row) -> bool {
        match (self, other) {
            (Row::Text(_), Row::Text(_)) | (Row::Separator, Row::Separator) => true,
            (Row::Item { action, .. }, Row::Item { action: other, .. }) => action == other,
            (Row::Submenu { rows, .. }, Row::Submenu { rows: other, .. }) => have_same_shape(rows, other),
            _ => false,
        }
    }
}

/// Returns whether two menus differ in their texts alone.
pub fn have_same_shape(rows: &[Row], other: &[Row]) -> bool {
    rows.len() == other.len() && rows.iter().zip(other).all(|(row, other)| row.has_shape_of(other))
}

#[cfg(test)]
mod tests;
