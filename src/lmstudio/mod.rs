//! lmstudio.
