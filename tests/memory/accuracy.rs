//! How near the bill is to what llama.cpp allocates, by family of models and placement of layers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::{env, fs};

use fitwatch::memory::{BlockKind, GpuLayers, Structure};

use super::truth::{Case, PARTS, cases, headers};

/// Architectures that are billed by what their tensors show, not yet by their own graph.
const NOT_EXACT: [&str; 0] = [];

/// The README, whose table is between the two lines.
const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
const BEGIN: &str = "<!-- accuracy: made by `UPDATE_README=1 cargo test --test memory accuracy_table` -->\n";
const END: &str = "<!-- accuracy: end -->\n";

#[test]
fn every_device_is_billed_to_the_byte() {
    let mut wrong = Vec::new();
    let mut inexact = BTreeSet::new();
    let all = billed();
    for Billed { case, architecture, truth, billed, .. } in &all {
        for device in truth.keys().chain(billed.keys()).collect::<BTreeSet<_>>() {
            let (truth, billed) = (bytes(truth, device), bytes(billed, device));
            for (part, (truth, billed)) in PARTS.iter().zip(truth.into_iter().zip(billed)) {
                if NOT_EXACT.contains(&architecture.as_str()) {
                    inexact.extend((truth != billed).then_some(architecture.as_str()));
                } else if truth != billed {
                    let Case { id, header, .. } = case;
                    wrong.push(format!("{id} {header}, {part} on {device}: {billed} billed, {truth} allocated"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(inexact, BTreeSet::from(NOT_EXACT), "what is exact by now needs no exception");
}

#[test]
fn accuracy_table() {
    let table = format!("{BEGIN}{}{END}", table(&billed()));
    let readme = fs::read_to_string(README).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let made = format!("{before}{table}{after}");
    if env::var_os("UPDATE_README").is_some() {
        fs::write(README, &made).unwrap();
        return;
    }
    assert!(readme == made, "README.md does not show the table as it is:\n{table}");
}

/// A case with what llama.cpp allocated and what is billed, by device and part.
#[expect(clippy::struct_field_names, reason = "what is billed, beside the truth")]
struct Billed {
    case: Case,
    architecture: String,
    family: &'static str,
    placement: &'static str,
    truth: BTreeMap<String, [u64; 5]>,
    billed: BTreeMap<String, [u64; 5]>,
}

fn billed() -> Vec<Billed> {
    let headers = headers();
    let structures: BTreeMap<&str, Structure> =
        headers.iter().map(|(name, header)| (name.as_str(), Structure::from_header(header).unwrap())).collect();
    let bill = |case: Case| {
        let structure = &structures[case.header.as_str()];
        let family = family(structure);
        let is_projector = family == PROJECTORS;
        let placement = placement(&case, structure);
        let billed = if is_projector { case.billed_projector(&headers[&case.header]) } else { case.billed(structure) };
        // Every projector has the same architecture, so its type tells more.
        let architecture = if is_projector { case.header.clone() } else { structure.architecture.clone() };
        Billed { truth: case.devices.clone(), case, architecture, family, placement, billed }
    };
    cases().into_iter().map(bill).collect()
}

fn bytes(devices: &BTreeMap<String, [u64; 5]>, device: &str) -> [u64; 5] {
    devices.get(device).copied().unwrap_or_default()
}

const PROJECTORS: &str = "projectors";
const FAMILIES: [&str; 7] = [
    "dense",
    "mixture of experts",
    "sliding window",
    "hybrid, recurrent",
    "MLA, sparse attention",
    "encoders, diffusion",
    PROJECTORS,
];
const PLACEMENTS: [&str; 5] = ["all on one GPU", "part on one GPU", "experts on CPU", "several GPUs", "no GPU"];

fn family(structure: &Structure) -> &'static str {
    let any = |is: fn(&BlockKind) -> bool| structure.kinds.iter().any(is);
    if structure.architecture == "clip" {
        PROJECTORS
    } else if !structure.memory.any {
        "encoders, diffusion"
    } else if any(|kind| kind.recurrent) {
        "hybrid, recurrent"
    } else if structure.memory.keys_only || any(|kind| kind.indexed || kind.compressed > 0) {
        "MLA, sparse attention"
    } else if structure.memory.windowed {
        "sliding window"
    } else if structure.has_experts() {
        "mixture of experts"
    } else {
        "dense"
    }
}

fn placement(case: &Case, structure: &Structure) -> &'static str {
    let settings = case.settings();
    let is_part = matches!(settings.gpu_layers, GpuLayers::Count(count) if count < structure.layers());
    match case.gpus.len() {
        0 => "no GPU",
        1 if structure.architecture == "clip" => "all on one GPU",
        1 if settings.cpu_moe > 0 => "experts on CPU",
        1 if is_part => "part on one GPU",
        1 => "all on one GPU",
        _ => "several GPUs",
    }
}

/// Devices of a group of loads, with how far off their totals are.
#[derive(Default)]
struct Group {
    exact: usize,
    /// Errors as shares of the true bytes.
    errors: Vec<f64>,
}

impl Group {
    fn of<'a>(billed: impl Iterator<Item = &'a Billed>) -> Group {
        let mut group = Group::default();
        for Billed { truth, billed, .. } in billed {
            let whole: u64 = truth.values().flatten().sum();
            for device in truth.keys().chain(billed.keys()).collect::<BTreeSet<_>>() {
                let (truth, billed) = (bytes(truth, device), bytes(billed, device));
                group.exact += usize::from(truth == billed);
                let (truth, billed): (u64, u64) = (truth.iter().sum(), billed.iter().sum());
                // As in the tables' own score, a few MiB beside a GPU are judged by the whole load.
                let measure = if truth < 64 << 20 { whole } else { truth };
                group.errors.push(billed.abs_diff(truth) as f64 / measure as f64);
            }
        }
        group.errors.sort_by(f64::total_cmp);
        group
    }

    fn error(&self, percent: usize) -> String {
        let at = (self.errors.len() * percent / 100).min(self.errors.len().saturating_sub(1));
        match self.errors.get(at) {
            None => String::new(),
            Some(0.0) => "0".to_owned(),
            Some(error) => format!("{:.2} %", (100.0 * error).max(0.01)),
        }
    }

    fn count(&self) -> String {
        match self.errors.len() {
            0 => "–".to_owned(),
            devices if devices == self.exact => format!("{devices}"),
            devices => format!("{} of {devices}", self.exact),
        }
    }
}

/// Returns the table: devices that are exact to the byte, and errors of a device's total.
fn table(billed: &[Billed]) -> String {
    let mut text = String::new();
    let row = |text: &mut String, cells: Vec<String>| writeln!(text, "| {} |", cells.join(" | ")).unwrap();
    let heads = [["devices exact to the byte"].as_slice(), &PLACEMENTS, &["median error", "95th percentile", "worst"]];
    row(&mut text, heads.concat().into_iter().map(str::to_owned).collect());
    row(&mut text, vec!["---".to_owned(); 9]);
    for family in FAMILIES {
        let of_family = || billed.iter().filter(|billed| billed.family == family);
        let names: BTreeSet<&str> = of_family().map(|billed| billed.architecture.as_str()).collect();
        let group = |placement: &str| Group::of(of_family().filter(|billed| billed.placement == placement)).count();
        let all = Group::of(of_family());
        let mut cells = vec![format!("{family} ({})", names.len())];
        cells.extend(PLACEMENTS.map(group));
        cells.extend([50, 95, 100].map(|percent| all.error(percent)));
        row(&mut text, cells);
    }
    let group = |placement: &str| Group::of(billed.iter().filter(|billed| billed.placement == placement));
    let groups: Vec<Group> = PLACEMENTS.into_iter().map(group).collect();
    let all = Group::of(billed.iter());
    let mut cells = vec!["**all**".to_owned()];
    cells.extend(groups.iter().map(Group::count));
    cells.extend([50, 95, 100].map(|percent| all.error(percent)));
    row(&mut text, cells);
    let mut cells = vec!["worst error".to_owned()];
    cells.extend(groups.iter().chain([&all]).map(|group| group.error(100)));
    cells.extend([String::new(), String::new()]);
    row(&mut text, cells);
    writeln!(
        text,
        "\n{} devices in {} loads of {} files, {} exact to the byte in weights, KV cache, state, compute and output \
         buffer. In brackets: architectures, or types of projectors.",
        all.errors.len(),
        billed.len(),
        billed.iter().map(|billed| billed.case.header.as_str()).collect::<BTreeSet<_>>().len(),
        all.exact,
    )
    .unwrap();
    text
}
