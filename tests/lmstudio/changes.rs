//! What is noticed while it happens.

use fitwatch::lmstudio::Program;

use super::*;

#[test]
fn an_installation_is_noticed_step_by_step() {
    let user = User::new();
    let (mut follower, changes) = follow(&user);
    assert!(!follower.read(&plain()).home.unwrap().1);
    quiet(&changes);

    fs::create_dir_all(user.path(".lmstudio")).unwrap();
    noticed(&changes, "the home came");
    assert!(follower.read(&plain()).home.unwrap().1);
    quiet(&changes);

    user.write(".lmstudio/settings.json", &json!({ "downloadsFolder": user.path("disk") }).to_string());
    noticed(&changes, "the settings came");
    assert_eq!(roots(&follower.read(&plain())), [(user.path("disk"), Origin::LmStudio)]);
    quiet(&changes);

    user.write(&format!("{SAVED}/acme/tiny/tiny.gguf.json"), &fixture("per-model-config.gguf.json"));
    noticed(&changes, "a model's settings came");
    assert_eq!(follower.read(&plain()).saved.len(), 1);
    quiet(&changes);

    user.write(&format!("{SAVED}/other/new/new.gguf.json"), &fixture("per-model-config.gguf.json"));
    noticed(&changes, "another model's settings came");
    assert_eq!(follower.read(&plain()).saved.len(), 2);
    quiet(&changes);

    user.write(".lmstudio-home-pointer", &user.path("moved").display().to_string());
    noticed(&changes, "the pointer came");
    assert_eq!(follower.read(&plain()).home.unwrap().0.path, user.path("moved"));
}

#[test]
fn a_home_that_is_deleted_and_comes_back_is_noticed() {
    let user = User::new();
    user.write(".lmstudio/settings.json", "{}");
    let (mut follower, changes) = follow(&user);
    follower.read(&plain());
    quiet(&changes);
    fs::remove_dir_all(user.path(".lmstudio")).unwrap();
    noticed(&changes, "the home went");
    assert!(!follower.read(&plain()).home.unwrap().1);
    quiet(&changes);
    fs::create_dir(user.path(".lmstudio")).unwrap();
    noticed(&changes, "the home came back");
    follower.read(&plain());
    quiet(&changes);
    user.write(".lmstudio/settings.json", &json!({ "downloadsFolder": user.path("disk") }).to_string());
    noticed(&changes, "settings in the new home");
    assert_eq!(roots(&follower.read(&plain())), [(user.path("disk"), Origin::LmStudio)]);
}

#[test]
fn a_home_that_is_swapped_for_another_between_two_looks_is_followed() {
    let user = User::new();
    user.write(".lmstudio/settings.json", "{}");
    let (mut follower, changes) = follow(&user);
    follower.read(&plain());
    fs::rename(user.path(".lmstudio"), user.path("old")).unwrap();
    fs::create_dir(user.path(".lmstudio")).unwrap();
    noticed(&changes, "the home was swapped");
    follower.read(&plain());
    quiet(&changes);
    user.write(".lmstudio/settings.json", "{\"defaultContextLength\": 777}");
    noticed(&changes, "settings in the new home");
    let settings = follower.read(&plain()).settings;
    assert_eq!(settings.default_context, Some(DefaultContext::Tokens(777)));
}

#[test]
fn other_traffic_and_our_own_reading_are_not_noticed() {
    let user = User::new();
    user.write(".lmstudio/settings.json", "{}");
    user.write(&format!("{SAVED}/acme/tiny.json"), "{}");
    user.write(".cache/mesa/a", "x");
    let (mut follower, changes) = follow(&user);
    follower.read(&plain());
    quiet(&changes);
    for name in
        [".bash_history", ".lmstudio/credentials", ".lmstudio/.internal/cache.json", ".cache/mesa/b", ".cache/thumbs/a"]
    {
        user.write(name, "x");
    }
    follower.read(&plain());
    assert!(changes.recv_timeout(Duration::from_millis(300)).is_err(), "something was noticed");
}

#[test]
fn what_is_watched_follows_the_home() {
    let user = User::new();
    let paths = watched(&user.read(), user.home());
    let wanted = [".lmstudio-home-pointer", ".cache/lm-studio", ".lmstudio", ".lmstudio/settings.json"];
    assert_eq!(paths[..4], wanted.map(|name| user.path(name)));
    assert_eq!(paths.last(), Some(&user.path(".lmstudio").join(SAVED)), "all that lies in it counts");
    let mut config = plain();
    config.library.lm_studio_home = Some(user.path("mine"));
    let paths = watched(&read(&config, user.home()), user.home());
    assert_eq!(paths[0], user.path("mine"), "the pointer does not matter where the config names the home");
    assert!(paths.iter().all(|path| path.starts_with(user.path("mine"))), "{paths:?}");
}

fn follow(user: &User) -> (Follower, Receiver<()>) {
    let (sender, receiver) = channel();
    let changed = move || sender.send(()).expect("the test still listens");
    (Follower::new(user.home().to_owned(), changed), receiver)
}

fn noticed(changes: &Receiver<()>, what: &str) {
    assert!(changes.recv_timeout(Duration::from_secs(5)).is_ok(), "not noticed: {what}");
    quiet(changes);
}

/// Waits until nothing more is said of what has already happened.
fn quiet(changes: &Receiver<()>) {
    let start = Instant::now();
    while changes.recv_timeout(Duration::from_millis(80)).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5), "no end of changes");
    }
}

#[test]
fn a_virtual_model_and_another_runtime_are_noticed() {
    let user = User::new();
    fs::create_dir_all(user.path(".lmstudio/.internal")).unwrap();
    let (mut follower, changes) = follow(&user);
    follower.read(&plain());
    quiet(&changes);
    user.write(".lmstudio/hub/models/qwen/qwen3-8b/model.yaml", "base: a/b\n");
    noticed(&changes, "a virtual model came");
    assert_eq!(follower.read(&plain()).hub.models().len(), 1);
    quiet(&changes);
    user.write(".lmstudio/hub/models/qwen/qwen3-8b/model.yaml", "base: a/c\n");
    noticed(&changes, "a virtual model changed");
    follower.read(&plain());
    quiet(&changes);
    user.write(".internal/hardware-config.json", "{}");
    noticed(&changes, "hardware settings came");
    follower.read(&plain());
    quiet(&changes);
    assert!(!follower.runs(Program::App) && follower.runs(Program::Bionic) && follower.runs(Program::App));
}
