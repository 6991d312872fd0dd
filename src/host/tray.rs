//! tray: to come.
