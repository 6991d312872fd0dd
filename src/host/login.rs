//! login: to come.
