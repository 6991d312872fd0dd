//! The library over a disk made of values: each rule as a scenario.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::simulation::{Content, Simulation, language, projector};
use super::*;
use crate::library::{ModelState, Origin, Stamp};
use crate::memory::Kind;
use crate::units::Bytes;

const ID: &str = "maker/repo/model.gguf";

#[test]
fn models_found_at_start_are_read_and_judged_at_once() {
    let mut sim = Simulation::with(&[ID, "other/repo/b.gguf"]);
    sim.start();
    assert_eq!(sim.now, Moment(0), "nothing had to settle");
    assert_eq!(sim.shown(), ["maker/repo/model.gguf ready", "other/repo/b.gguf ready"]);
    let model = sim.library.model(&ModelId(ID.into())).unwrap();
    assert_eq!(model.publisher.as_deref(), Some("maker"));
    assert_eq!(model.repository.as_deref(), Some("repo"));
    assert_eq!(model.name, "model");
}

#[test]
fn a_file_that_comes_later_is_judged_after_two_equal_looks() {
    let mut sim = Simulation::with(&[]);
    sim.start();
    sim.write(ID, 100);
    sim.run_for(Span(299));
    assert!(sim.shown().is_empty(), "a burst is waited out");
    sim.run_for(Span(1));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf downloading"]);
    sim.run_for(Span(999));
    assert_eq!(sim.reads, 0);
    sim.run_for(Span(1));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf ready"]);
}

#[test]
fn two_looks_in_quick_succession_settle_nothing() {
    let mut sim = Simulation::with(&[]);
    sim.start();
    sim.write(ID, 100);
    sim.run_for(Span(400));
    // Something else makes for another look, 0.6 s after the first.
    sim.touch(ID);
    sim.run_for(Span(600));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf downloading"]);
    sim.run_for(Span(300));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf ready"]);
}

#[test]
fn a_growing_file_is_not_judged() {
    let mut sim = Simulation::with(&[]);
    sim.start();
    for bytes in 1..100 {
        sim.write(ID, bytes);
        sim.run_for(Span(700));
        assert!(sim.shown().iter().all(|shown| shown == "maker/repo/model.gguf downloading"));
    }
    assert_eq!(sim.reads, 0);
    sim.run_for(Span::seconds(2));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf ready"]);
}

#[test]
fn a_file_that_grows_unheard_is_not_judged_either() {
    let mut sim = Simulation::with(&[]);
    sim.start();
    sim.write(ID, 1);
    for bytes in 2..50 {
        sim.run_for(Span(900));
        sim.write_unheard(ID, bytes);
    }
    assert_eq!(sim.reads, 0);
    sim.run_for(Span::seconds(3));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf ready"]);
}

#[test]
fn a_model_that_changes_is_downloading_again() {
    let mut sim = Simulation::with(&[ID]);
    sim.start();
    sim.write(ID, 999);
    sim.run_for(Span(300));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf downloading"]);
    sim.run_for(Span::seconds(1));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf ready"]);
    assert_eq!(sim.reads, 2);
}

#[test]
fn a_cut_file_is_downloading_while_it_grows_and_incomplete_when_it_stopped() {
    let mut sim = Simulation::with(&[]);
    sim.put(ID, 10, Content::Cut);
    sim.start();
    assert_eq!(sim.shown(), ["maker/repo/model.gguf downloading"]);
    sim.run_for(Span::minutes(4));
    sim.put(ID, 20, Content::Cut);
    sim.run_for(Span::minutes(4));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf downloading"]);
    sim.run_for(Span::minutes(2));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf unreadable: incomplete: cut"]);
    sim.put(ID, 30, Content::Model(Kind::Language));
    sim.run_for(Span::seconds(2));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf ready"]);
}

#[test]
fn an_unreadable_file_says_why_and_is_read_again_when_asked() {
    let mut sim = Simulation::with(&[]);
    sim.put(ID, 10, Content::Bad);
    sim.start();
    assert_eq!(sim.shown(), ["maker/repo/model.gguf unreadable: bad"]);
    sim.disk.content.insert(sim.path(ID), Content::Model(Kind::Language));
    sim.run_for(Span::minutes(1));
    assert_eq!(sim.reads, 1, "nothing was said about it");
    // A permission came back: the stamp is the same, and only somebody's word tells.
    sim.touch(ID);
    assert_eq!(sim.shown(), ["maker/repo/model.gguf unreadable: bad"], "what is known is shown meanwhile");
    sim.run_for(Span::seconds(2));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf ready"]);
}

#[test]
fn what_a_downloader_writes_is_shown_under_its_final_name() {
    let mut sim = Simulation::with(&[]);
    sim.start();
    sim.write("maker/repo/downloading_model.gguf.part", 10);
    sim.run_for(Span::minutes(20));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf downloading"]);
    assert_eq!(sim.reads, 0);
    sim.rename("maker/repo/downloading_model.gguf.part", ID);
    sim.run_for(Span(300));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf ready"], "it had settled under its other name");
}

#[test]
fn a_file_of_the_final_name_counts_but_not_beside_a_control_file_or_when_empty() {
    let mut sim = Simulation::with(&[ID, "m/a/x.gguf", "m/a/x.gguf.aria2", "m/b/downloading_model.gguf.part"]);
    sim.put("m/c/empty.gguf", 0, Content::Cut);
    sim.put("m/c/empty.gguf.part", 5, Content::Cut);
    sim.put("maker/repo/downloading_model.gguf.part", 5, Content::Cut);
    sim.start();
    let expected = [
        "m/a/x.gguf downloading",
        "m/b/model.gguf downloading",
        "m/c/empty.gguf downloading",
        "maker/repo/model.gguf ready",
    ];
    assert_eq!(sim.shown(), expected);
}

#[test]
fn shards_are_one_model_named_by_the_first() {
    let names =
        ["maker/repo/m-00001-of-00003.gguf", "maker/repo/m-00002-of-00003.gguf", "maker/repo/m-00003-of-00003.gguf"];
    let mut sim = Simulation::with(&names);
    sim.start();
    assert_eq!(sim.shown(), ["maker/repo/m-00001-of-00003.gguf ready"]);
    let model = &sim.library.models()[0];
    assert_eq!((model.name.as_str(), model.files.len(), model.bytes()), ("m", 3, Bytes(300)));
    assert_eq!(sim.reads, 1, "all shards are read together");
}

#[test]
fn missing_shards_are_named_wherever_they_are_missing() {
    let mut sim = Simulation::with(&["maker/repo/m-00002-of-00004.gguf", "maker/other/m-00001-of-00004.gguf"]);
    sim.start();
    let missing: Vec<(&str, &ModelState)> =
        sim.library.models().iter().map(|model| (model.id.0.as_str(), &model.state)).collect();
    let expected = [
        ("maker/other/m-00001-of-00004.gguf", &ModelState::Incomplete { missing: vec![2, 3, 4] }),
        ("maker/repo/m-00001-of-00004.gguf", &ModelState::Incomplete { missing: vec![1, 3, 4] }),
    ];
    assert_eq!(missing, expected);
    sim.write("maker/repo/m-00001-of-00004.gguf", 10);
    sim.write("maker/repo/downloading_m-00003-of-00004.gguf.part", 10);
    sim.run_for(Span::seconds(3));
    assert_eq!(sim.shown()[1], "maker/repo/m-00001-of-00004.gguf downloading", "shard 4 may come after shard 3");
    sim.write("maker/repo/m-00004-of-00004.gguf", 10);
    sim.run_for(Span::seconds(3));
    assert_eq!(sim.shown()[1], "maker/repo/m-00001-of-00004.gguf downloading");
    sim.rename("maker/repo/downloading_m-00003-of-00004.gguf.part", "maker/repo/m-00003-of-00004.gguf");
    sim.run_for(Span::seconds(3));
    assert_eq!(sim.shown()[1], "maker/repo/m-00001-of-00004.gguf ready");
}

#[test]
fn a_name_that_claims_very_many_shards_costs_little() {
    let mut sim = Simulation::with(&["maker/repo/m-00001-of-99999.gguf"]);
    sim.start();
    let model = &sim.library.models()[0];
    let ModelState::Incomplete { missing } = &model.state else { panic!("{:?}", model.state) };
    assert_eq!(missing.len(), 64);
    assert!(model.notes.iter().any(|note| note.contains("99934 more")), "{:?}", model.notes);
}

#[test]
fn the_largest_projector_is_attached_to_every_model_beside_it() {
    let mut sim = Simulation::with(&[ID, "maker/repo/second.gguf", "maker/alone/third.gguf"]);
    sim.put("maker/repo/mmproj-f16.gguf", 50, Content::Projector(500));
    sim.put("maker/repo/mmproj-f32.gguf", 40, Content::Projector(900));
    // A projector by its header alone.
    sim.put("maker/alone/vision.gguf", 60, Content::Projector(60));
    sim.put("maker/embedding/embed.gguf", 60, Content::Model(Kind::Embedding));
    sim.put("maker/embedding/mmproj.gguf", 60, Content::Projector(60));
    sim.start();
    let with: Vec<(&str, Option<u64>)> = sim
        .library
        .models()
        .iter()
        .map(|model| (model.id.0.as_str(), model.projector.as_ref().map(|(_, projector)| projector.weights.0)))
        .collect();
    let expected = [
        ("maker/alone/third.gguf", Some(60)),
        ("maker/embedding/embed.gguf", None),
        ("maker/repo/model.gguf", Some(900)),
        ("maker/repo/second.gguf", Some(900)),
    ];
    assert_eq!(with, expected);
    assert!(sim.library.model(&ModelId(ID.into())).unwrap().notes[0].contains("2 projectors"));
    sim.remove("maker/repo/mmproj-f32.gguf");
    sim.run_for(Span::seconds(1));
    let model = sim.library.model(&ModelId(ID.into())).unwrap();
    assert_eq!(model.projector.as_ref().unwrap().1.weights, Bytes(500));
    assert!(model.notes.is_empty());
}

#[test]
fn a_projector_called_after_one_model_is_not_given_to_another() {
    let mut sim = Simulation::with(&["maker/repo/gemma-3-4b-Q4_K_M.gguf", "maker/repo/llama-3.1-8b-Q4_K_M.gguf"]);
    sim.put("maker/repo/mmproj-gemma-3-4b-F16.gguf", 50, Content::Projector(500));
    sim.start();
    let weights = |sim: &Simulation| -> Vec<Option<u64>> {
        let models = sim.library.models().iter();
        models.map(|model| model.projector.as_ref().map(|(_, projector)| projector.weights.0)).collect()
    };
    assert_eq!(weights(&sim), [Some(500), None]);
    sim.put("maker/repo/mmproj-F16.gguf", 40, Content::Projector(900));
    sim.run_for(Span::seconds(3));
    assert_eq!(weights(&sim), [Some(500), Some(900)], "its own comes before a larger one for any");
    assert!(sim.library.models().iter().all(|model| model.notes.is_empty()));
}

#[test]
fn a_projector_still_to_come_is_no_model_and_is_named() {
    let mut sim = Simulation::with(&[ID]);
    sim.start();
    sim.write("maker/repo/downloading_mmproj-f16.gguf.part", 10);
    sim.run_for(Span::seconds(3));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf ready"]);
    assert!(sim.library.models()[0].notes[0].contains("still downloading"));
    sim.put("maker/repo/mmproj-bad.gguf", 7, Content::Bad);
    sim.run_for(Span::seconds(3));
    assert_eq!(sim.shown(), ["maker/repo/mmproj-bad.gguf unreadable: bad", "maker/repo/model.gguf ready"]);
    assert!(sim.library.models()[1].notes.iter().any(|note| note.contains("cannot be read")));
    assert!(sim.library.models()[0].projector.is_none());
}

#[test]
fn drafters_are_set_apart() {
    let mut sim = Simulation::with(&[ID]);
    sim.put("maker/repo/MTP/mtp-model.gguf", 50, Content::Model(Kind::Drafter));
    sim.start();
    assert_eq!(sim.shown(), ["maker/repo/model.gguf ready"]);
}

#[test]
fn a_file_reached_twice_is_one_model_with_its_real_path_first() {
    let mut sim = Simulation::with(&["maker/repo/deep/real.gguf", "a/b/other.gguf"]);
    sim.link("maker/repo/deep/real.gguf", "a/link.gguf");
    sim.hard_link("maker/repo/deep/real.gguf", "maker/repo/hard.gguf");
    sim.start();
    assert_eq!(sim.shown(), ["a/b/other.gguf ready", "maker/repo/hard.gguf ready"]);
    sim.remove("maker/repo/hard.gguf");
    sim.run_for(Span::seconds(1));
    assert_eq!(sim.shown(), ["a/b/other.gguf ready", "maker/repo/deep/real.gguf ready"]);
    sim.remove("maker/repo/deep/real.gguf");
    sim.run_for(Span::seconds(3));
    assert_eq!(sim.shown(), ["a/b/other.gguf ready"], "the link leads nowhere now, of which nobody was told");
}

#[test]
fn linked_shards_are_one_model_and_the_complete_set_counts() {
    let mut sim = Simulation::with(&["long/path/m-00001-of-00002.gguf", "long/path/m-00002-of-00002.gguf"]);
    sim.link("long/path/m-00001-of-00002.gguf", "a/b/m-00001-of-00002.gguf");
    sim.start();
    assert_eq!(sim.shown(), ["long/path/m-00001-of-00002.gguf ready"]);
}

#[test]
fn a_change_through_one_hard_link_is_seen_under_the_other() {
    let mut sim = Simulation::with(&["maker/repo/a.gguf"]);
    sim.hard_link("maker/repo/a.gguf", "maker/other/a-long-name.gguf");
    sim.start();
    assert_eq!(sim.shown(), ["maker/repo/a.gguf ready"]);
    sim.write("maker/other/a-long-name.gguf", 7);
    sim.run_for(Span::seconds(4));
    assert_eq!(sim.library.models()[0].bytes(), Bytes(7));
}

#[test]
fn an_mlx_folder_is_one_model_that_is_not_judged() {
    let mut sim = Simulation::with(&[]);
    for (name, bytes) in
        [("config.json", 1), ("model-00001-of-00002.safetensors", 10), ("model-00002-of-00002.safetensors", 20)]
    {
        sim.put(&format!("maker/mlx/{name}"), bytes, Content::Bad);
    }
    sim.put("maker/no-weights/config.json", 1, Content::Bad);
    sim.put("maker/no-config/model.safetensors", 1, Content::Bad);
    sim.start();
    assert_eq!(sim.shown(), ["maker/mlx not judged"]);
    let model = &sim.library.models()[0];
    assert_eq!((model.bytes(), model.publisher.as_deref(), model.name.as_str()), (Bytes(30), Some("maker"), "mlx"));
    assert!(model.notes.is_empty());
    sim.write("maker/mlx/model-00003-of-00003.safetensors.part", 5);
    sim.run_for(Span::seconds(3));
    assert_eq!(sim.shown(), ["maker/mlx downloading"]);
}

#[test]
fn two_roots_may_hold_the_same_names() {
    let mut sim = Simulation::with(&[ID]);
    let bundled = sim.add_root("/bundled-models", Origin::Bundled);
    let extra = sim.add_root("/extra", Origin::Config);
    sim.disk.put(&bundled.join(ID), 5, Content::Model(Kind::Embedding));
    sim.disk.put(&extra.join(ID), 5, Content::Model(Kind::Language));
    sim.start();
    let expected = [format!("bundled-models/{ID} ready"), format!("extra/{ID} ready"), format!("{ID} ready")];
    assert_eq!(sim.shown(), expected);
    // Whoever comes first by the order of roots keeps the plain name, whatever happens when.
    sim.remove(ID);
    sim.run_for(Span::seconds(3));
    assert_eq!(sim.shown(), [format!("extra/{ID} ready"), format!("{ID} ready")]);
    assert_eq!(sim.library.model(&ModelId(ID.into())).unwrap().origin, Origin::Bundled);
}

#[test]
fn roots_inside_each_other_show_each_model_once() {
    let mut sim = Simulation::with(&[ID]);
    let inner = sim.path("maker");
    sim.roots.push(Root { path: inner, origin: Origin::Config });
    sim.start();
    assert_eq!(sim.shown(), ["maker/repo/model.gguf ready"]);
    sim.remove(ID);
    sim.run_for(Span::seconds(3));
    assert!(sim.shown().is_empty());
}

#[test]
fn a_root_that_leaves_the_list_takes_its_models_along() {
    let mut sim = Simulation::with(&[ID]);
    let extra = sim.add_root("/extra", Origin::Config);
    sim.disk.put(&extra.join("a/b/c.gguf"), 5, Content::Model(Kind::Language));
    sim.start();
    assert_eq!(sim.library.models().len(), 2);
    let since = sim.library.model(&ModelId(ID.into())).unwrap().since;
    sim.run_for(Span::seconds(10));
    sim.roots.pop();
    sim.start();
    assert_eq!(sim.shown(), ["maker/repo/model.gguf ready"]);
    assert_eq!((sim.reads, sim.library.models()[0].since), (2, since), "what stays is not read again");
}

#[test]
fn a_root_that_vanishes_takes_its_models_and_brings_them_back_unread() {
    let mut sim = Simulation::with(&[ID]);
    sim.start();
    let away = std::mem::take(&mut sim.disk.files);
    sim.disk.is_root_missing = true;
    sim.library.dirty(Path::new("/models"), sim.now);
    sim.run_for(Span::seconds(1));
    assert!(sim.shown().is_empty());
    assert_eq!(sim.library.roots()[0].1, RootState::Missing);
    assert_eq!(sim.library.remembered().0.len(), 1, "it may come back");
    sim.disk.files = away;
    sim.disk.is_root_missing = false;
    sim.run_for(Span::minutes(3));
    assert_eq!(sim.shown(), ["maker/repo/model.gguf ready"], "found without a notification");
    assert_eq!(sim.reads, 1);
}

#[test]
fn a_restart_reads_no_header_of_an_unchanged_file() {
    let mut sim = Simulation::with(&[ID, "maker/repo/changed.gguf", "maker/repo/gone.gguf"]);
    sim.put("maker/repo/mmproj.gguf", 5, Content::Projector(9));
    sim.put("maker/bad/bad.gguf", 5, Content::Bad);
    sim.start();
    let text = serde_json::to_string(&sim.library.remembered()).unwrap();
    let mut next = Simulation { disk: sim.disk.clone(), ..Simulation::with(&[]) };
    next.library = Library::new(serde_json::from_str(&text).unwrap());
    next.disk.put(&next.path("maker/repo/changed.gguf"), 77, Content::Model(Kind::Language));
    next.disk.remove(&next.path("maker/repo/gone.gguf"));
    next.start();
    assert_eq!(next.reads, 2, "the changed file, and the bad one, which may have got better");
    let expected =
        ["maker/bad/bad.gguf unreadable: bad", "maker/repo/changed.gguf ready", "maker/repo/model.gguf ready"];
    assert_eq!(next.shown(), expected);
    assert_eq!(next.library.remembered().0.len(), 3, "what is gone is not kept");
    assert!(next.library.models()[2].projector.is_some());
}

#[test]
fn a_result_for_an_older_file_is_not_taken_for_the_newer() {
    let mut sim = Simulation::with(&[ID]);
    sim.start();
    let old = sim.library.models()[0].files.clone();
    sim.write(ID, 999);
    sim.run_for(Span(300));
    sim.library.header_read(HeaderRead { files: old, outcome: HeaderOutcome::Model(language()) }, sim.now);
    assert_eq!(sim.shown(), ["maker/repo/model.gguf downloading"]);
    let stranger = ModelFile { path: "/elsewhere/x.gguf".into(), stamp: Stamp { bytes: Bytes(1), modified_ms: 1 } };
    sim.library
        .header_read(HeaderRead { files: vec![stranger], outcome: HeaderOutcome::Projector(projector(1)) }, sim.now);
    sim.library.header_read(HeaderRead { files: vec![], outcome: HeaderOutcome::Projector(projector(1)) }, sim.now);
    assert_eq!(sim.library.models().len(), 1);
}

#[test]
fn the_revision_grows_only_when_something_shows() {
    let mut sim = Simulation::with(&[ID]);
    sim.start();
    let revision = sim.library.revision();
    sim.touch(ID);
    sim.library.rescan(sim.now);
    sim.library.set_roots(sim.roots.clone(), sim.now);
    sim.run_for(Span::minutes(40));
    assert_eq!(sim.library.revision(), revision);
    sim.write(ID, 999);
    sim.run_for(Span::seconds(2));
    assert!(sim.library.revision() > revision);
}

#[test]
fn it_is_busy_until_what_was_asked_for_is_known() {
    let mut sim = Simulation::with(&[ID]);
    assert!(!sim.library.is_busy());
    sim.library.set_roots(sim.roots.clone(), sim.now);
    assert!(sim.library.is_busy());
    sim.start();
    assert!(!sim.library.is_busy());
    sim.library.rescan(sim.now);
    assert!(sim.library.is_busy());
    sim.run_for(Span(0));
    assert!(!sim.library.is_busy());
}

#[test]
fn a_quiet_library_wakes_nobody() {
    let mut sim = Simulation::with(&[ID, "maker/repo/downloading_x.gguf.part"]);
    sim.put("maker/bad/bad.gguf", 5, Content::Bad);
    sim.start();
    sim.run_for(Span::minutes(1));
    let wakes = sim.wakes;
    sim.run_for(Span::minutes(600));
    assert_eq!(sim.wakes - wakes, 20, "the half-hourly scans alone");
}

#[test]
fn a_thousand_models_are_taken_in_quickly() {
    let names: Vec<String> = (0..1_000).map(|number| format!("maker{}/repo{number}/model.gguf", number % 7)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut sim = Simulation::with(&names);
    let start = std::time::Instant::now();
    sim.start();
    let first = start.elapsed();
    assert_eq!(sim.reads, 1_000);
    sim.library.rescan(sim.now);
    let start = std::time::Instant::now();
    sim.run_for(Span(0));
    let again = start.elapsed();
    // Unoptimised and on a busy machine; the point is that nothing is quadratic.
    assert!(first.as_millis() < 2_000 && again.as_millis() < 500, "{first:?}, {again:?}");
}

#[test]
fn notes_of_a_walk_are_kept_until_it_is_walked_again() {
    let mut sim = Simulation::with(&[ID]);
    sim.disk.notes = vec!["cannot read the folder".into()];
    sim.start();
    assert_eq!(sim.library.notes(), ["cannot read the folder"]);
    sim.disk.notes.clear();
    sim.library.rescan(sim.now);
    sim.run_for(Span(0));
    assert!(sim.library.notes().is_empty());
}

#[test]
fn a_listing_of_strangers_changes_nothing() {
    let mut sim = Simulation::with(&[ID]);
    sim.start();
    let revision = sim.library.revision();
    let found = sim.disk.listing(Path::new("/models"), Path::new("/models")).files;
    for (root, under) in [("/elsewhere", "/elsewhere"), ("/models", "/elsewhere"), ("/models", "/models/maker/other")] {
        let listing = Listing {
            root: root.into(),
            under: under.into(),
            state: RootState::Present,
            files: found.clone(),
            notes: Vec::new(),
        };
        sim.library.listed(listing, sim.now);
    }
    assert_eq!((sim.shown(), sim.library.revision()), (vec![format!("{ID} ready")], revision));
}

#[test]
fn names_that_cannot_be_shown_still_tell_two_files_apart() {
    let mut sim = Simulation::with(&["maker/repo/a\n.gguf", "maker/repo/a\t.gguf"]);
    sim.start();
    let ids: Vec<&str> = sim.library.models().iter().map(|model| model.id.0.as_str()).collect();
    assert_eq!(ids, ["maker/repo/a\u{FFFD}.gguf", "models/maker/repo/a\u{FFFD}.gguf"]);
}

#[test]
fn a_header_is_asked_for_once() {
    let mut sim = Simulation::with(&[ID]);
    sim.library.set_roots(sim.roots.clone(), sim.now);
    let root = PathBuf::from("/models");
    assert_eq!(sim.library.wants(sim.now), [Want::Scan { root: root.clone(), under: root.clone() }]);
    sim.library.listed(sim.disk.listing(&root, &root), sim.now);
    let wants = sim.library.wants(sim.now);
    assert!(matches!(wants.as_slice(), [Want::ReadHeader { .. }]));
    sim.touch(ID);
    sim.library.listed(sim.disk.listing(&root, &root), sim.now);
    assert_eq!(sim.library.wants(sim.now), []);
    let Want::ReadHeader { files } = wants[0].clone() else { panic!("{wants:?}") };
    sim.library.header_read(HeaderRead { files, outcome: HeaderOutcome::Model(Arc::clone(&language())) }, sim.now);
    assert_eq!(sim.shown(), [format!("{ID} ready")]);
}
