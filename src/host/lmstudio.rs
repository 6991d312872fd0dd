//! lmstudio: to come.
