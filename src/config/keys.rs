//! The names of all keys, for hints: serde knows them too, but does not tell.

/// One key of the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The table it stands in.
    pub(super) section: &'static str,
    /// Its name.
    pub(super) name: &'static str,
    /// A value as it could be written.
    pub(super) example: &'static str,
}

/// Every key, in the order of the sample.
pub(super) const KEYS: [Key; 13] = [
    Key { section: "library", name: "lm_studio_home", example: "'~/.lmstudio'" },
    Key { section: "library", name: "extra_folders", example: "['~/models']" },
    Key { section: "library", name: "bundled_models", example: "true" },
    Key { section: "lm_studio", name: "ask", example: "true" },
    Key { section: "lm_studio", name: "api_token_file", example: "'~/.config/fitwatch/lm-studio-token'" },
    Key { section: "fit", name: "gpu_margin", example: "\"512 MiB\"" },
    Key { section: "fit", name: "gpu_margin_percent", example: "5" },
    Key { section: "fit", name: "ram_margin", example: "\"2 GB\"" },
    Key { section: "fit", name: "engine", example: "\"server\"" },
    Key { section: "notifications", name: "new_model", example: "true" },
    Key { section: "notifications", name: "no_longer_fits", example: "true" },
    Key { section: "machine", name: "nvml_library", example: "'~/lib/libnvidia-ml.so.1'" },
    Key { section: "log", name: "level", example: "\"info\"" },
];

/// Returns what an unknown name (`fit.gpu_margn`) was most likely meant to be.
pub(super) fn nearest(unknown: &str) -> Option<String> {
    let (section, name) = unknown.rsplit_once('.').unwrap_or(("", unknown));
    // A key in the wrong table (or in none) is a commoner slip than a letter in the wrong place.
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return Some(format!("{}.{}", key.section, key.name));
    }
    let whole = KEYS.iter().map(|key| format!("{}.{}", key.section, key.name));
    let sections = KEYS.iter().map(|key| key.section.to_owned());
    let names = KEYS.iter().filter(|key| section.is_empty() || key.section == section).map(|key| {
        // Compared without its table, or a long table name would make any two keys look alike.
        (strsim::jaro_winkler(&key.name.to_lowercase(), &name.to_lowercase()), format!("{}.{}", key.section, key.name))
    });
    let candidates = if section.is_empty() { sections.collect::<Vec<_>>() } else { whole.collect() };
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&candidate.to_lowercase(), &unknown.to_lowercase()) - 0.03, candidate))
        .chain(names)
        .filter(|(likeness, _)| *likeness >= 0.85)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_right_name_is_found_for_slips_and_wrong_tables() {
        for (unknown, meant) in [
            ("fit.gpu_margn", Some("fit.gpu_margin")),
            ("fit.gpu_margin_percentage", Some("fit.gpu_margin_percent")),
            ("fit.GPU_margin", Some("fit.gpu_margin")),
            ("level", Some("log.level")),
            ("log.extra_folders", Some("library.extra_folders")),
            ("notification", Some("notifications")),
            ("librarys", Some("library")),
            ("library.extra_folder", Some("library.extra_folders")),
            ("library.extra-folders", Some("library.extra_folders")),
            ("colour", None),
            ("fit.colour", None),
        ] {
            assert_eq!(nearest(unknown).as_deref(), meant, "{unknown}");
        }
    }
}
