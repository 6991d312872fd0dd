//! walk: to come.
