//! config_file: to come.
