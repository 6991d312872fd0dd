//! probes: to come.
