//! What happens in a watched folder is seen, whatever notifications leave out.

use std::fs;
use std::io::Write;
use std::time::Duration;

use fitwatch::host::watch::Options;
use fitwatch::library::{Library, RootState};

use crate::rig::{Rig, ids, is_ready, model, rename, word};

const ID: &str = "maker/model-GGUF/model.gguf";

fn is_empty(library: &Library) -> bool {
    library.models().is_empty()
}

#[test]
fn a_file_written_into_a_new_nested_folder_becomes_a_model() {
    let mut rig = Rig::new();
    rig.watch();
    // All at once: notifications of the inner folder and of the file are lost.
    rig.put(ID);
    rig.until("the model is ready", |library| is_ready(library, ID));
    // The new folders are watched too.
    rig.put("maker/model-GGUF/deeper/still/other.gguf");
    rig.until("the other is ready", |library| is_ready(library, "maker/model-GGUF/deeper/still/other.gguf"));
    rig.run_for(Duration::from_millis(200));
    rig.put("maker/model-GGUF/deeper/still/third.gguf");
    rig.until("the third is ready", |library| is_ready(library, "maker/model-GGUF/deeper/still/third.gguf"));
}

#[test]
fn a_finished_file_renamed_in_is_a_model_soon() {
    let mut rig = Rig::new();
    let aside = rig.folder.path().join("aside.gguf");
    fs::write(&aside, model()).unwrap();
    let path = rig.place(ID);
    rig.watch();
    rename(&aside, &path);
    let took = rig.until("the model is ready", |library| is_ready(library, ID));
    assert!(took < Duration::from_secs(3), "took {took:?}");
}

#[test]
fn a_download_is_shown_while_it_grows_and_judged_when_it_is_renamed() {
    let mut rig = Rig::new();
    let partial = rig.place("maker/model-GGUF/downloading_model.gguf.part");
    let path = rig.place(ID);
    rig.watch();
    let bytes = model();
    let mut file = fs::File::create(&partial).unwrap();
    for part in bytes.chunks(bytes.len() / 4) {
        file.write_all(part).unwrap();
        rig.run_for(Duration::from_millis(400));
        assert!(rig.library.models().iter().all(|model| word(model) == "downloading"), "{:?}", rig.states());
    }
    rig.until("the download is shown", |library| ids(library) == [ID]);
    drop(file);
    rename(&partial, &path);
    rig.until("the model is ready", |library| is_ready(library, ID));
    assert_eq!(rig.states(), [(ID.to_owned(), "ready")]);
}

#[test]
fn a_file_that_grows_under_its_final_name_is_never_judged() {
    let mut rig = Rig::new();
    let path = rig.place(ID);
    rig.watch();
    let bytes = model();
    let mut file = fs::File::create(&path).unwrap();
    // Full length from the start, as some downloaders do: only the stamps tell.
    file.set_len(bytes.len() as u64).unwrap();
    for part in bytes.chunks(bytes.len() / 6) {
        file.write_all(part).unwrap();
        rig.run_for(Duration::from_millis(450));
        assert!(rig.library.models().iter().all(|model| word(model) == "downloading"), "{:?}", rig.states());
    }
    assert_eq!(rig.headers_read, 0);
    drop(file);
    rig.until("the model is ready", |library| is_ready(library, ID));
}

#[test]
fn a_tree_renamed_in_and_out_brings_and_takes_its_models() {
    let mut rig = Rig::new();
    rig.watch();
    let aside = rig.folder.path().join("aside");
    fs::create_dir_all(aside.join("one-GGUF/deep")).unwrap();
    fs::write(aside.join("one-GGUF/one.gguf"), model()).unwrap();
    fs::write(aside.join("one-GGUF/deep/two.gguf"), model()).unwrap();
    rename(&aside, &rig.root.join("maker"));
    rig.until("both are ready", |library| {
        is_ready(library, "maker/one-GGUF/one.gguf") && is_ready(library, "maker/one-GGUF/deep/two.gguf")
    });
    rename(&rig.root.join("maker/one-GGUF"), &rig.root.join("maker/other-GGUF"));
    rig.until("both have moved", |library| {
        ids(library) == ["maker/other-GGUF/deep/two.gguf", "maker/other-GGUF/one.gguf"]
    });
    // What was moved is watched where it is now.
    rig.run_for(Duration::from_millis(300));
    rig.put("maker/other-GGUF/deep/three.gguf");
    rig.until("the third is ready", |library| is_ready(library, "maker/other-GGUF/deep/three.gguf"));
    rename(&rig.root.join("maker"), &aside);
    rig.until("all are gone", is_empty);
}

#[test]
fn a_root_deleted_and_made_again_is_watched_again() {
    let mut rig = Rig::new();
    rig.put(ID);
    rig.watch();
    assert!(is_ready(&rig.library, ID), "{:?}", rig.states());
    for _ in 0..3 {
        fs::remove_dir_all(&rig.root).unwrap();
        rig.until("the models are gone", is_empty);
        rig.until("the root is missing", |library| library.roots()[0].1 == RootState::Missing);
        rig.until_rig("it is waited for", |rig| rig.watch == "waiting for the folder");
        rig.put(ID);
        rig.until("the model is back", |library| is_ready(library, ID));
    }
    rig.run_for(Duration::from_millis(300));
    rig.put("maker/model-GGUF/other.gguf");
    rig.until("the other is ready", |library| is_ready(library, "maker/model-GGUF/other.gguf"));
}

#[test]
fn a_root_replaced_in_one_stroke_is_watched_again() {
    let mut rig = Rig::new();
    rig.put(ID);
    rig.watch();
    let old = rig.folder.path().join("old");
    rename(&rig.root, &old);
    rig.put("maker/model-GGUF/new.gguf");
    rig.until("the new one has come", |library| ids(library) == ["maker/model-GGUF/new.gguf"]);
    rig.run_for(Duration::from_millis(300));
    rig.put("maker/model-GGUF/newer.gguf");
    rig.until("the newer is ready", |library| is_ready(library, "maker/model-GGUF/newer.gguf"));
    // What happens in the folder that was moved away concerns nobody.
    fs::write(old.join("maker/model-GGUF/stray.gguf"), model()).unwrap();
    rig.run_for(Duration::from_millis(500));
    assert_eq!(rig.library.models().len(), 2, "{:?}", rig.states());
}

#[test]
fn a_missing_root_is_seen_when_it_comes_with_the_folders_above_it() {
    let mut rig = Rig::new();
    rig.root = rig.root.join("home/.lmstudio/models");
    rig.watch();
    assert_eq!(rig.library.roots()[0].1, RootState::Missing);
    fs::create_dir_all(rig.root.parent().unwrap()).unwrap();
    rig.run_for(Duration::from_millis(300));
    fs::create_dir(&rig.root).unwrap();
    rig.until_rig("it is watched", |rig| rig.watch == "notifications");
    rig.put(ID);
    rig.until("the model is ready", |library| is_ready(library, ID));
}

#[test]
fn a_polled_folder_shows_what_changed_without_a_notification() {
    let mut rig = Rig::new();
    let check_every = Duration::from_millis(200);
    rig.watch_with(Options { check_every, is_polled: |_| Some("network folder"), ..Options::default() });
    assert_eq!(rig.watch, "polling (network folder)");
    let path = rig.put(ID);
    rig.until("the model is ready", |library| is_ready(library, ID));
    fs::remove_file(path).unwrap();
    rig.until("it is gone", is_empty);
}

#[test]
fn a_check_that_is_nearly_due_is_made_along_with_other_work() {
    let mut rig = Rig::new();
    let check_every = Duration::from_secs(4);
    rig.watch_with(Options { check_every, is_polled: |_| Some("network folder"), ..Options::default() });
    rig.put("a/b/one.gguf");
    rig.wake();
    rig.run_for(Duration::from_millis(2_500));
    assert!(rig.library.models().is_empty(), "a check that is not nearly due waits");
    rig.wake();
    let waited = rig.until("the file is seen", |library| !library.models().is_empty());
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}

#[test]
fn a_folder_with_too_many_folders_is_polled() {
    let mut rig = Rig::new();
    for number in 0..20 {
        fs::create_dir(rig.root.join(number.to_string())).unwrap();
    }
    let check_every = Duration::from_millis(200);
    rig.watch_with(Options { check_every, folders: 10, ..Options::default() });
    assert_eq!(rig.watch, "polling (more than 10 folders)");
    rig.put(ID);
    rig.until("the model is ready", |library| is_ready(library, ID));
}

#[test]
fn folders_that_come_later_can_be_too_many_too() {
    let mut rig = Rig::new();
    let check_every = Duration::from_millis(200);
    rig.watch_with(Options { check_every, folders: 10, ..Options::default() });
    assert_eq!(rig.watch, "notifications");
    for number in 0..20 {
        fs::create_dir(rig.root.join(number.to_string())).unwrap();
    }
    rig.until_rig("it is polled", |rig| rig.watch == "polling (more than 10 folders)");
    rig.put(ID);
    rig.until("the model is ready", |library| is_ready(library, ID));
}

#[test]
fn reading_does_not_make_events_that_lead_to_reading() {
    let mut rig = Rig::new();
    rig.put(ID);
    rig.watch();
    let revision = rig.library.revision();
    let (read, walks) = (rig.headers_read, rig.walks);
    for _ in 0..5 {
        fs::read(rig.root.join(ID)).unwrap();
        fs::read_dir(&rig.root).unwrap().count();
    }
    // Longer than a burst may last: events without end would end in a walk.
    rig.run_for(Duration::from_millis(2_600));
    assert_eq!((rig.library.revision(), rig.headers_read, rig.walks), (revision, read, walks));
}

#[cfg(unix)]
mod links {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_linked_folder_is_watched_whether_it_was_there_or_comes() {
        let mut rig = Rig::new();
        let elsewhere = rig.folder.path().join("elsewhere");
        fs::create_dir_all(elsewhere.join("one-GGUF")).unwrap();
        fs::create_dir_all(elsewhere.join("two-GGUF")).unwrap();
        symlink(elsewhere.join("one-GGUF"), rig.place("maker/one-GGUF")).unwrap();
        rig.watch();
        fs::write(elsewhere.join("one-GGUF/one.gguf"), model()).unwrap();
        rig.until("the first is ready", |library| is_ready(library, "maker/one-GGUF/one.gguf"));
        symlink(elsewhere.join("two-GGUF"), rig.root.join("maker/two-GGUF")).unwrap();
        rig.run_for(Duration::from_millis(300));
        fs::write(elsewhere.join("two-GGUF/two.gguf"), model()).unwrap();
        rig.until("the second is ready", |library| is_ready(library, "maker/two-GGUF/two.gguf"));
    }

    #[test]
    fn a_root_that_is_a_link_is_followed_to_another_folder() {
        let mut rig = Rig::new();
        let (one, two) = (rig.folder.path().join("one"), rig.folder.path().join("two"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        fs::remove_dir(&rig.root).unwrap();
        symlink(&one, &rig.root).unwrap();
        rig.watch();
        rig.put(ID);
        rig.until("the model is ready", |library| is_ready(library, ID));
        fs::remove_file(&rig.root).unwrap();
        rig.until_rig("it is waited for", |rig| rig.watch == "waiting for the folder");
        symlink(&two, &rig.root).unwrap();
        rig.until_rig("it is watched", |rig| rig.watch == "notifications");
        rig.until("the model is gone", is_empty);
        rig.put("maker/two-GGUF/two.gguf");
        rig.until("the other is ready", |library| is_ready(library, "maker/two-GGUF/two.gguf"));
    }

    #[test]
    fn a_file_that_a_link_leads_to_is_seen_growing_and_going() {
        let mut rig = Rig::new();
        let target = rig.folder.path().join("blob");
        fs::write(&target, &model()[..100]).unwrap();
        symlink(&target, rig.place(ID)).unwrap();
        rig.watch();
        assert_eq!(rig.states(), [(ID.to_owned(), "downloading")]);
        fs::write(&target, model()).unwrap();
        rig.until("the model is ready", |library| is_ready(library, ID));
        fs::remove_file(&target).unwrap();
        rig.until("it is gone", is_empty);
    }

    #[test]
    fn a_folder_that_may_not_be_read_does_not_spoil_the_watch() {
        use std::os::unix::fs::PermissionsExt;
        let mut rig = Rig::new();
        let closed = rig.root.join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        rig.watch();
        rig.put(ID);
        rig.until("the model is ready", |library| is_ready(library, ID));
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn loops_and_dangling_links_come_and_go_without_harm() {
        let mut rig = Rig::new();
        rig.put(ID);
        rig.watch();
        symlink(&rig.root, rig.root.join("maker/loop")).unwrap();
        symlink("nowhere", rig.root.join("maker/dangling.gguf")).unwrap();
        symlink("self", rig.root.join("maker/self")).unwrap();
        rig.put("maker/model-GGUF/other.gguf");
        rig.until("the other is ready", |library| is_ready(library, "maker/model-GGUF/other.gguf"));
        assert_eq!(ids(&rig.library), [ID, "maker/model-GGUF/other.gguf"]);
    }
}
