//! What a walk of a real disk finds, links and oddities included.

use std::fs;
use std::time::{Duration, Instant};

use fitwatch::host::walk::walk;
use fitwatch::library::RootState;

use crate::rig::{Rig, ids, projector};

#[test]
fn several_publishers_at_any_depth_are_found() {
    let mut rig = Rig::new();
    for below in ["top.gguf", "one/level.gguf", "maker/model/file.gguf", "other/model/deep/er/file.GGUF"] {
        rig.put(below);
    }
    rig.scan();
    let mut found: Vec<String> = rig.states().into_iter().map(|(id, state)| format!("{id} {state}")).collect();
    found.sort();
    assert_eq!(
        found,
        [
            "maker/model/file.gguf ready",
            "one/level.gguf ready",
            "other/model/deep/er/file.GGUF ready",
            "top.gguf ready"
        ]
    );
    let notes = |id: &str| rig.library.models().iter().find(|model| model.id.0 == id).unwrap().notes.clone();
    assert!(notes("top.gguf")[0].contains("may not index"));
    assert!(notes("one/level.gguf")[0].contains("may not index"));
    assert!(notes("maker/model/file.gguf").is_empty());
}

#[test]
fn a_projector_is_attached_to_the_models_beside_it_and_is_none_itself() {
    let mut rig = Rig::new();
    rig.put("maker/vision/small.gguf");
    rig.put("maker/vision/large.gguf");
    rig.put("maker/plain/plain.gguf");
    fs::write(rig.place("maker/vision/mmproj-f16.gguf"), projector()).unwrap();
    rig.scan();
    let with: Vec<(&str, bool)> =
        rig.library.models().iter().map(|model| (model.id.0.as_str(), model.projector.is_some())).collect();
    let expected =
        [("maker/plain/plain.gguf", false), ("maker/vision/large.gguf", true), ("maker/vision/small.gguf", true)];
    assert_eq!(with, expected);
}

#[test]
fn a_root_that_is_missing_or_no_folder_says_so() {
    let rig = Rig::new();
    let missing = rig.root.join("missing");
    assert_eq!(walk(&missing, &missing).state, RootState::Missing);
    let file = rig.put("file.gguf");
    assert!(matches!(walk(&file, &file).state, RootState::Unreadable { .. }));
    assert_eq!(walk(&file.join("below"), &file.join("below")).state, RootState::Missing);
    let under = walk(&rig.root, &missing);
    assert_eq!((under.state, under.files.len()), (RootState::Present, 0), "a folder that is gone has nothing in it");
}

#[test]
fn very_many_foreign_files_cost_little_and_are_not_kept() {
    let mut rig = Rig::new();
    rig.put("maker/model/file.gguf");
    let foreign = rig.root.join("foreign");
    for folder in 0..20 {
        let folder = foreign.join(folder.to_string());
        fs::create_dir_all(&folder).unwrap();
        for file in 0..1_000 {
            fs::File::create(folder.join(format!("{file}.json"))).unwrap();
        }
    }
    let start = Instant::now();
    let listing = walk(&rig.root, &rig.root);
    assert_eq!(listing.files.len(), 1);
    assert!(start.elapsed() < Duration::from_secs(2), "took {:?}", start.elapsed());
    rig.scan();
    assert_eq!(ids(&rig.library), ["maker/model/file.gguf"]);
}

#[test]
fn folders_too_deep_are_left_out_with_a_note() {
    let mut rig = Rig::new();
    let deep = vec!["d"; 40].join("/");
    rig.put(&format!("{deep}/model.gguf"));
    rig.put("maker/model/file.gguf");
    rig.scan();
    assert_eq!(ids(&rig.library), ["maker/model/file.gguf"]);
    assert!(rig.library.notes()[0].contains("too deep"), "{:?}", rig.library.notes());
}

#[test]
fn deleted_models_in_a_disks_trash_are_gone() {
    let mut rig = Rig::new();
    rig.put(".Trash-1000/files/model.gguf");
    rig.put("$RECYCLE.BIN/model.gguf");
    rig.scan();
    assert!(rig.library.models().is_empty(), "{:?}", rig.states());
}

#[cfg(unix)]
mod links {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use fitwatch::library::Listing;

    use super::*;

    #[test]
    fn a_model_reached_by_several_links_is_one_and_its_real_path_counts() {
        let mut rig = Rig::new();
        let real = rig.put("maker/zz-real/model.gguf");
        symlink(&real, rig.place("a/b/model.gguf")).unwrap();
        symlink(rig.root.join("maker/zz-real"), rig.place("maker/aa-link")).unwrap();
        rig.scan();
        assert_eq!(ids(&rig.library), ["maker/zz-real/model.gguf"]);
    }

    #[test]
    fn a_hard_link_is_counted_once_under_its_first_shortest_name() {
        let mut rig = Rig::new();
        let first = rig.put("maker/model/long/model.gguf");
        fs::hard_link(&first, rig.place("maker/model/z.gguf")).unwrap();
        fs::hard_link(&first, rig.place("maker/model/a.gguf")).unwrap();
        rig.scan();
        assert_eq!(ids(&rig.library), ["maker/model/a.gguf"]);
        fs::remove_file(rig.root.join("maker/model/a.gguf")).unwrap();
        rig.scan();
        assert_eq!(ids(&rig.library), ["maker/model/z.gguf"]);
    }

    #[test]
    fn links_to_files_and_folders_outside_are_followed() {
        let mut rig = Rig::new();
        let outside = rig.folder.path().join("outside");
        fs::create_dir_all(outside.join("deep")).unwrap();
        let blob = outside.join("blob-without-extension");
        fs::write(&blob, crate::rig::model()).unwrap();
        fs::copy(&blob, outside.join("deep/two.gguf")).unwrap();
        symlink(&blob, rig.place("maker/one/one.gguf")).unwrap();
        symlink(&outside, rig.place("maker/linked")).unwrap();
        rig.scan();
        assert_eq!(ids(&rig.library), ["maker/linked/deep/two.gguf", "maker/one/one.gguf"]);
    }

    #[test]
    fn loops_and_dangling_links_end_the_walk_of_nothing() {
        let mut rig = Rig::new();
        rig.put("maker/model/file.gguf");
        rig.put("other/model/file.gguf");
        for number in 0..12 {
            let folder = rig.root.join(format!("loop{number}"));
            fs::create_dir(&folder).unwrap();
            for other in 0..12 {
                symlink(rig.root.join(format!("loop{other}")), folder.join(format!("to{other}"))).unwrap();
            }
        }
        symlink(&rig.root, rig.root.join("maker/up")).unwrap();
        symlink("self", rig.root.join("maker/self")).unwrap();
        symlink("nowhere", rig.root.join("maker/dangling.gguf")).unwrap();
        let start = Instant::now();
        rig.scan();
        assert_eq!(ids(&rig.library), ["maker/model/file.gguf", "other/model/file.gguf"]);
        // A walk of one folder does not follow a link up and list everything again.
        let part = walk(&rig.root, &rig.root.join("maker"));
        assert_eq!(part.files.len(), 1, "{part:?}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn hostile_names_are_listed_and_shown_harmlessly() {
        let mut rig = Rig::new();
        let names: [&[u8]; 4] =
            [b"line\nbreak.gguf", b"\xff\xfe.gguf", "\u{202e}fugg.gguf".as_bytes(), b"\x1b[2J.gguf"];
        for name in names {
            let folder = rig.place("maker/model/x");
            fs::write(folder.with_file_name(OsStr::from_bytes(name)), crate::rig::model()).unwrap();
        }
        rig.scan();
        assert_eq!(rig.library.models().len(), 4, "{:?}", rig.states());
        assert!(rig.states().iter().all(|(id, state)| *state == "ready" && !id.chars().any(char::is_control)));
    }

    #[test]
    fn pipes_are_not_listed() {
        let mut rig = Rig::new();
        let pipe = rig.place("maker/model/pipe.gguf");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        rig.scan();
        assert!(rig.library.models().is_empty());
    }

    #[test]
    fn a_walk_says_where_links_lead() {
        let rig = Rig::new();
        let real = rig.put("maker/model/file.gguf");
        symlink(&real, rig.place("maker/other/link.gguf")).unwrap();
        let Listing { files, .. } = walk(&rig.root, &rig.root);
        assert_eq!(files[0].target, files[0].path);
        assert_eq!(files[1].target, real);
        assert_eq!(files[0].identity, files[1].identity);
    }
}
