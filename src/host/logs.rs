//! logs: to come.
