//! tray.
