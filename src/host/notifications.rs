//! notifications: to come.
