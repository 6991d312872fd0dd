//! instance: to come.
