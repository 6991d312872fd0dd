//! watch: to come.
