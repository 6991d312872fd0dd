//! state: to come.
