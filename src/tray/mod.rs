//! The tray as a value: icon, tooltip and menu, built from a [`Report`].
//!
//! Equal reports make equal trays; the back-end in [`crate::host`] shows one and skips one equal
//! to the last. The menu keeps its shape while only numbers change, so that an open menu is
//! updated in place.

use std::time::Duration;

use crate::library::ModelId;
use crate::report::Report;

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

/// The icon's state; each has a shape of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Icon {
    /// Models are known and at least one fits.
    Ready,
    /// Nothing to judge: no models folder, or no model.
    Empty,
    /// Alerts are paused.
    Paused,
    /// Something that matters cannot be measured.
    CannotMeasure,
}

/// One row of the menu.
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
    /// Show a model's bill.
    ShowModel(ModelId),
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
    let _ = report;
    todo!()
}
