use std::path::PathBuf;

use super::*;
use crate::fit::{Fit, IfUnloaded, Judgement, Verdict};
use crate::library::{Origin, Root, RootState};
use crate::lmstudio::Whereabouts;
use crate::machine::{Device, DeviceMemory, MemorySample, Picture, Reading, UnknownGpu, Vendor};
use crate::report::{
    AlertReport, LibraryReport, ModelReport, Problem, RootReport, SCHEMA, StateReport, example_instance,
};
use crate::units::{Bytes, Moment, Span};

#[test]
fn the_menu_says_how_many_fit_and_groups_the_models() {
    let tray = tray(&report(vec![
        judged("a", judgement(Verdict::FullGpu, 2_100_000_000, "NVIDIA GeForce RTX 4090")),
        judged("b", judgement(Verdict::PartialGpu, 0, "NVIDIA GeForce RTX 4090")),
        judged("c", judgement(Verdict::TooLarge, -3_200_000_000, "RAM")),
    ]));
    assert_eq!(tray.icon, Icon::Ready);
    assert_eq!(tray.tooltip, "1 of 3 models fits fully");
    let expected = "\
1 of 3 models fits fully
--
Full GPU offload possible (1)
a  Q4_K_M · 4.9 GB · 2.1 GB to spare [model a]
Partial GPU offload possible (1)
b  Q4_K_M · 4.9 GB · 33 of 65 layers on GPU [model b]
Likely too large (1)
c  Q4_K_M · 4.9 GB · 3.2 GB short of RAM [model c]
--
RAM: 21.0 of 33.5 GB used
RTX 4090: 9.1 of 25.8 GB used
--
Pause alerts
  15 minutes [pause 900]
  1 hour [pause 3600]
  8 hours [pause 28800]
Re-check now [recheck]
Settings file [settings]
Log [log]
About [about]
Quit [quit]
";
    assert_eq!(drawn(&tray.rows), expected);
}

#[test]
fn what_this_machine_could_hold_is_said_where_it_differs() {
    let now = judgement(Verdict::PartialGpu, 0, "NVIDIA GeForce RTX 4090");
    let machine = judgement(Verdict::FullGpu, 1, "NVIDIA GeForce RTX 4090");
    let text = model_text(&judged_twice("a", now, machine.clone()));
    assert_eq!(text, "a  Q4_K_M · 4.9 GB · 33 of 65 layers on GPU · fits fully when RTX 4090 is free");
    let now = judgement(Verdict::TooLarge, -1_000_000_000, "RAM");
    assert!(
        model_text(&judged_twice("a", now.clone(), machine)).ends_with("1.0 GB short of RAM · fits when RAM is free")
    );
    let machine = judgement(Verdict::PartialGpu, 0, "RAM");
    assert!(model_text(&judged_twice("a", now, machine)).ends_with("fits partly when RAM is free"));
}

#[test]
fn experts_left_in_ram_are_said() {
    let mut now = judgement(Verdict::PartialGpu, 0, "RTX 4090");
    now.gpu_layers = 65;
    now.cpu_moe = 12;
    assert_eq!(model_text(&judged("a", now)), "a  Q4_K_M · 4.9 GB · experts of 12 layers in RAM");
}

#[test]
fn models_that_are_not_judged_are_listed_with_the_reason() {
    let state = |name: &str, state| ModelReport { state, ..model(name) };
    let tray = tray(&report(vec![
        state("a", StateReport::Downloading),
        state("b", StateReport::Incomplete { missing: vec![2] }),
        state("c", StateReport::Unreadable { reason: "bad magic at offset 0".into() }),
        state("d", StateReport::NotJudged { reason: "MLX folder".into() }),
    ]));
    assert_eq!(tray.icon, Icon::Empty);
    let menu = drawn(&tray.rows);
    for line in [
        "Downloading or incomplete (2)\na  Q4_K_M · 4.9 GB · downloading [model a]\nb  Q4_K_M · 4.9 GB · 1 part missing",
        "Unreadable (1)\nc  Q4_K_M · 4.9 GB · bad magic at offset 0",
        "Not judged (1)\nd  Q4_K_M · 4.9 GB · MLX folder",
    ] {
        assert!(menu.contains(line), "{line}\nis not in\n{menu}");
    }
}

#[test]
fn groups_open_into_the_menu_as_long_as_there_is_room() {
    let fitting =
        |count: usize| (0..count).map(|index| judged(&format!("fits-{index}"), judgement(Verdict::FullGpu, 1, "RAM")));
    let large = |count: usize| {
        (0..count).map(|index| judged(&format!("large-{index}"), judgement(Verdict::TooLarge, -1, "RAM")))
    };
    let opened = |models: Vec<ModelReport>| {
        let rows = tray(&report(models)).rows;
        assert_rows_within_limit(&rows);
        rows.iter().filter(|row| matches!(row, Row::Item { action: Action::ShowModel(_), .. })).count()
    };
    assert_eq!(opened(fitting(3).chain(large(2)).collect()), 5, "a handful is there at a glance");
    assert_eq!(opened(fitting(3).chain(large(12)).collect()), 3, "what fits comes first");
    assert_eq!(opened(fitting(12).chain(large(2)).collect()), 2, "a long group leaves room for a short one");
    assert_eq!(opened(fitting(30).collect()), 0);
}

#[test]
fn headers_being_read_are_counted() {
    let mut models = vec![judged("a", judgement(Verdict::FullGpu, 1, "RAM")), model("b"), model("c")];
    models[1].state = StateReport::Reading;
    models[2].state = StateReport::Reading;
    assert_eq!(tray(&report(models)).tooltip, "Reading headers: 1 of 3 done");
}

#[test]
fn with_no_models_the_menu_says_where_it_looks() {
    let mut report = report(Vec::new());
    assert_eq!(tray(&report).tooltip, "No models yet: looking in /home/user/.lmstudio/models");
    report.library.roots[0].state = RootState::Missing;
    assert_eq!(tray(&report).tooltip, "No models yet: looking in /home/user/.lmstudio/models (not there yet)");
    report.library.busy = true;
    assert_eq!(tray(&report).tooltip, "Looking for models in /home/user/.lmstudio/models");
    report.library.roots.clear();
    assert_eq!(tray(&report).tooltip, "No models yet: looking for LM Studio");
    assert_eq!(tray(&report).icon, Icon::Empty);
}

#[test]
fn the_icon_shows_the_best_there_is() {
    let icon = |verdicts: &[Verdict]| {
        let models = verdicts.iter().map(|verdict| judged("a", judgement(*verdict, 0, "RAM"))).collect();
        tray(&report(models)).icon
    };
    assert_eq!(icon(&[Verdict::TooLarge, Verdict::FullGpu]), Icon::Ready);
    assert_eq!(icon(&[Verdict::CpuOnly]), Icon::Ready);
    assert_eq!(icon(&[Verdict::TooLarge, Verdict::PartialGpu]), Icon::Partly);
    assert_eq!(icon(&[Verdict::TooLarge]), Icon::Empty);
    assert_eq!(icon(&[]), Icon::Empty);
}

#[test]
fn what_cannot_be_measured_is_shown_as_such() {
    let mut report = report(vec![judged("a", judgement(Verdict::FullGpu, 1, "RAM"))]);
    report.machine.unknown.push(UnknownGpu { id: "i".into(), name: "Intel UHD".into(), reason: "not read yet".into() });
    assert_eq!(tray(&report).icon, Icon::Ready, "a second GPU beside a measured one");
    assert!(drawn(&tray(&report).rows).contains("\nGPU memory unknown: Intel UHD (not read yet)\n"));
    report.machine.devices.clear();
    assert_eq!(tray(&report).icon, Icon::CannotMeasure);
    report.machine.unknown.clear();
    assert_eq!(tray(&report).icon, Icon::Ready);
    assert!(drawn(&tray(&report).rows).contains("\nGPU: none found\n"));
    report.machine.memory = Reading::Unavailable { reason: "no /proc".into() };
    assert_eq!(tray(&report).icon, Icon::CannotMeasure);
    assert!(drawn(&tray(&report).rows).contains("\nRAM unknown: no /proc\n"));
}

#[test]
fn a_sleeping_gpu_keeps_its_last_numbers_and_says_so() {
    let mut report = report(Vec::new());
    let Reading::Fresh { value } = report.machine.devices[0].memory.clone() else { panic!() };
    report.machine.devices[0].memory = Reading::Stale { value, at: Moment(0), reason: "asleep".into() };
    assert!(drawn(&tray(&report).rows).contains("RTX 4090: 9.1 of 25.8 GB used (asleep)"));
    report.machine.devices[0].memory = Reading::Unavailable { reason: "GPU is lost".into() };
    assert!(drawn(&tray(&report).rows).contains("GPU memory unknown: RTX 4090 (GPU is lost)"));
}

#[test]
fn a_pause_shows_in_icon_tooltip_and_menu() {
    let mut report = report(Vec::new());
    report.alerts = AlertReport { paused_for: Some(Span::minutes(42)) };
    let tray = tray(&report);
    assert_eq!(tray.icon, Icon::Paused);
    assert!(tray.tooltip.ends_with(", alerts paused"));
    assert!(drawn(&tray.rows).contains("Resume alerts, paused for 42 min [resume]"));
}

#[test]
fn problems_are_named() {
    let mut report = report(Vec::new());
    let problem = Problem { part: "notifications".into(), message: "no server".into(), hint: None };
    report.problems.push(problem.clone());
    assert!(drawn(&tray(&report).rows).contains("Problem with notifications: run fitwatch doctor"));
    report.problems.push(problem);
    assert!(drawn(&tray(&report).rows).contains("2 problems: run fitwatch doctor"));
}

#[test]
fn no_level_has_more_than_twenty_rows() {
    let mut models: Vec<ModelReport> =
        (0..56).map(|index| judged(&format!("m{index:02}"), judgement(Verdict::FullGpu, 1, "RAM"))).collect();
    for verdict in [Verdict::PartialGpu, Verdict::CpuOnly, Verdict::TooLarge] {
        models.push(judged("x", judgement(verdict, 0, "RAM")));
    }
    models.push(ModelReport { state: StateReport::Downloading, ..model("y") });
    models.push(ModelReport { state: StateReport::Unreadable { reason: "bad".into() }, ..model("z") });
    models.push(ModelReport { state: StateReport::Reading, ..model("w") });
    let mut report = report(models);
    report.problems.push(Problem { part: "nvml".into(), message: "lost".into(), hint: None });
    for gpus in [1, 2, 3, 30] {
        report.machine.devices = vec![report.machine.devices[0].clone(); gpus];
        for loaded in [0, 1, 3, 50] {
            report.loaded = vec![example_instance(); loaded];
            report.loaded_unknown = (loaded == 3).then(|| "a token is missing".into());
            let rows = tray(&report).rows;
            assert_rows_within_limit(&rows);
            assert!(loaded == 0 || drawn(&rows).contains(&format!("Loaded ({loaded})\n")), "{}", drawn(&rows));
        }
        report.loaded.clear();
        let rows = tray(&report).rows;
        assert!(drawn(&rows).contains("  and 37 more: run fitwatch list\n"), "{}", drawn(&rows));
        assert!(drawn(&rows).ends_with("Quit [quit]\n"));
    }
}

#[test]
fn changed_numbers_keep_the_shape_and_a_changed_model_does_not() {
    let before = report(vec![judged("a", judgement(Verdict::FullGpu, 2_100_000_000, "RTX 4090"))]);
    let mut after = before.clone();
    after.models[0].fit.as_mut().unwrap().now.spare = 5;
    after.machine.memory = Reading::Pending;
    let (before, after) = (tray(&before).rows, tray(&after).rows);
    assert_ne!(before, after);
    assert!(have_same_shape(&before, &after));

    let other = tray(&report(vec![judged("b", judgement(Verdict::FullGpu, 2_100_000_000, "RTX 4090"))])).rows;
    assert!(!have_same_shape(&before, &other), "a click must never reach another model");
    assert!(!have_same_shape(&before, &tray(&report(Vec::new())).rows));
}

#[test]
fn loaded_models_stand_first_with_what_they_need_and_a_way_to_unload_them() {
    let mut report = report(vec![judged("a", judgement(Verdict::FullGpu, 1, "RAM"))]);
    let mut remote = example_instance();
    remote.id = "gpt-oss\u{202e}".into();
    remote.whereabouts = Whereabouts::Elsewhere("c0ffee".into());
    (remote.settings, remote.needs, remote.estimate, remote.ttl) = (None, Vec::new(), None, None);
    (remote.model, remote.can_unload) = (None, false);
    remote.notes = vec!["runs on another machine".into()];
    report.loaded = vec![example_instance(), remote];
    let expected = "\
1 of 1 model fits fully
--
Loaded
zephyr  context 16384 · 7.1 GB of RTX 4090 · idle for 3 min
  context 16384, 4 at a time
  needs 7.1 GB of RTX 4090 and 410 MB of RAM
  LM Studio estimates 9.9 GB, with little confidence
  LM Studio unloads it after 1 h without use
  What it needs [model publisher/zephyr-GGUF/zephyr.gguf]
  Unload [unload zephyr]
gpt-oss  on another machine · idle for 3 min
  runs on another machine
--
";
    assert!(drawn(&tray(&report).rows).starts_with(expected), "{}", drawn(&tray(&report).rows));
}

#[test]
fn a_model_says_without_which_loaded_one_it_would_fit() {
    let now = judgement(Verdict::PartialGpu, 0, "RTX 4090");
    let mut model = judged_twice("a", now, judgement(Verdict::FullGpu, 1, "RTX 4090"));
    let mut without = |instances: &[&str], verdict| {
        let instances = instances.iter().map(|&instance| instance.to_owned()).collect();
        model.fit.as_mut().unwrap().if_unloaded = Some(IfUnloaded { instances, verdict, spare: 1 });
        model_text(&model)
    };
    assert!(without(&["b"], Verdict::FullGpu).ends_with(" · fits fully without b"));
    assert!(without(&["b", "c", "d"], Verdict::PartialGpu).ends_with(" · fits partly without b and 2 more"));
}

#[test]
fn equal_reports_make_equal_trays() {
    let report = report(vec![judged("a", judgement(Verdict::FullGpu, 1, "RAM"))]);
    assert_eq!(tray(&report), tray(&report.clone()));
}

#[test]
fn a_quantisation_that_the_name_tells_is_not_told_twice() {
    let text = model_text(&judged("m-q4_k_m", judgement(Verdict::FullGpu, 1_000_000_000, "RAM")));
    assert_eq!(text, "m-q4_k_m  4.9 GB · 1.0 GB to spare");
}

#[test]
fn names_from_files_cannot_play_tricks() {
    let text = model_text(&ModelReport {
        name: "a\nb\u{202e}c\t&_".into(),
        ..judged("a", judgement(Verdict::FullGpu, 0, "RAM"))
    });
    assert!(text.starts_with("a bc &_  Q4_K_M"), "{text}");
    let long = model_text(&ModelReport { name: "x".repeat(500), ..judged("a", judgement(Verdict::FullGpu, 0, "RAM")) });
    assert!(long.chars().count() < 100, "{long}");
}

#[test]
fn models_of_one_name_are_told_apart() {
    let mut models = vec![
        judged("one/a", judgement(Verdict::FullGpu, 1, "RAM")),
        judged("two/a", judgement(Verdict::FullGpu, 1, "RAM")),
    ];
    for (model, publisher) in models.iter_mut().zip(["one", "two"]) {
        model.name = "a".into();
        model.publisher = Some(publisher.into());
    }
    let menu = drawn(&tray(&report(models)).rows);
    assert!(menu.contains("\none/a  Q4") && menu.contains("\ntwo/a  Q4"), "{menu}");
}

#[test]
fn models_are_sorted_by_name_whoever_published_them() {
    let mut models = vec![
        judged("lab/Zeta", judgement(Verdict::FullGpu, 1, "RAM")),
        judged("other/alpha", judgement(Verdict::FullGpu, 9, "RAM")),
        judged("third/Beta", judgement(Verdict::FullGpu, 5, "RAM")),
    ];
    for model in &mut models {
        model.name = model.id.0.split_once('/').unwrap().1.into();
    }
    let menu = drawn(&tray(&report(models)).rows);
    let place = |name: &str| menu.find(&format!("\n{name}  ")).unwrap();
    assert!(place("alpha") < place("Beta") && place("Beta") < place("Zeta"), "{menu}");
}

#[test]
fn the_status_notice_says_what_the_menu_says() {
    let report = report(vec![judged("a", judgement(Verdict::FullGpu, 1, "RAM"))]);
    let notice = status_notice(&report);
    assert_eq!(notice.title, "1 of 1 model fits fully");
    assert_eq!(notice.body, "RAM: 21.0 of 33.5 GB used\nRTX 4090: 9.1 of 25.8 GB used");
}

#[test]
fn actions_survive_as_text() {
    for action in [
        Action::ShowStatus,
        Action::ShowModel(ModelId("publisher/my model/a b.gguf".into())),
        Action::Unload("qwen3 8b:2".into()),
        Action::Pause(Duration::from_mins(15)),
        Action::Resume,
        Action::Recheck,
        Action::OpenSettings,
        Action::OpenLog,
        Action::About,
        Action::Quit,
    ] {
        assert_eq!(Action::from_text(&action.to_text()), Some(action));
    }
    for text in ["", "pause", "pause x", "1", "Quit"] {
        assert_eq!(Action::from_text(text), None, "{text}");
    }
}

/// Returns the menu as text: submenus indented, actions in brackets.
fn drawn(rows: &[Row]) -> String {
    draw(rows, "")
}

fn draw(rows: &[Row], indent: &str) -> String {
    let drawn = rows.iter().map(|row| match row {
        Row::Text(text) => format!("{indent}{text}\n"),
        Row::Separator => format!("{indent}--\n"),
        Row::Item { text, action } => format!("{indent}{text} [{}]\n", action.to_text()),
        Row::Submenu { text, rows } => format!("{indent}{text}\n{}", draw(rows, &format!("{indent}  "))),
    });
    drawn.collect()
}

fn assert_rows_within_limit(rows: &[Row]) {
    assert!(rows.len() <= 22, "{} rows", rows.len());
    for row in rows {
        if let Row::Submenu { rows, .. } = row {
            assert_rows_within_limit(rows);
        }
    }
}

/// Returns the text of a model's row.
fn model_text(model: &ModelReport) -> String {
    for row in tray(&report(vec![model.clone()])).rows {
        if let Row::Item { text, action: Action::ShowModel(_) } = row {
            return text;
        }
    }
    panic!("no row")
}

fn report(models: Vec<ModelReport>) -> Report {
    Report {
        schema: SCHEMA,
        version: "0".into(),
        live: true,
        lm_studio: None,
        loaded: Vec::new(),
        loaded_unknown: None,
        models,
        machine: Picture {
            memory: Reading::Fresh {
                value: MemorySample {
                    total: Bytes(33_500_000_000),
                    available: Bytes(12_500_000_000),
                    ..MemorySample::default()
                },
            },
            devices: vec![Device {
                id: "0".into(),
                name: "NVIDIA GeForce RTX 4090".into(),
                vendor: Vendor::Nvidia,
                memory: Reading::Fresh {
                    value: DeviceMemory {
                        total: Bytes(25_800_000_000),
                        free: Bytes(16_700_000_000),
                        ..DeviceMemory::default()
                    },
                },
            }],
            unknown: Vec::new(),
            problems: Vec::new(),
            driver: None,
        },
        library: LibraryReport {
            home: None,
            home_exists: true,
            roots: vec![RootReport {
                root: Root { path: "/home/user/.lmstudio/models".into(), origin: Origin::LmStudio },
                state: RootState::Present,
                watch: "notifications".into(),
            }],
            busy: false,
            guardrail: None,
        },
        alerts: AlertReport::default(),
        problems: Vec::new(),
        notes: Vec::new(),
    }
}

fn judged(name: &str, now: Judgement) -> ModelReport {
    judged_twice(name, now.clone(), now)
}

fn judged_twice(name: &str, now: Judgement, machine: Judgement) -> ModelReport {
    ModelReport { fit: Some(Fit { now, machine, largest_context: None, if_unloaded: None }), ..model(name) }
}

fn model(name: &str) -> ModelReport {
    ModelReport {
        id: ModelId(name.into()),
        name: name.into(),
        publisher: None,
        path: PathBuf::from(name),
        files: 1,
        bytes: Bytes(4_920_739_232),
        state: StateReport::Judged,
        architecture: None,
        quantisation: Some("Q4_K_M".into()),
        parameters: None,
        kind: None,
        context_train: None,
        projector: None,
        settings: None,
        fit: None,
        notes: Vec::new(),
    }
}

fn judgement(verdict: Verdict, spare: i64, binding: &str) -> Judgement {
    Judgement {
        verdict,
        gpu_layers: 33,
        layers: 65,
        cpu_moe: 0,
        spare,
        binding: binding.into(),
        pools: Vec::new(),
        caveat: None,
    }
}
