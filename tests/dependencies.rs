//! The dependency policy of `.deny.toml` held against `Cargo.lock`: licences, sources, bans. What
//! needs the advisory database is left to `cargo deny`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

#[test]
fn every_dependency_has_an_allowed_licence() {
    let policy = policy();
    let allowed = words(&policy["licenses"]["allow"]);
    let mut refused = Vec::new();
    for package in packages() {
        let licence = package["license"].as_str().unwrap_or("none named");
        if !allows(&allowed, licence) {
            refused.push(format!("{}: {licence}", name(&package)));
        }
    }
    assert_eq!(refused, Vec::<String>::new());
}

#[test]
fn every_dependency_comes_from_an_allowed_registry() {
    let policy = policy();
    let allowed: Vec<String> =
        words(&policy["sources"]["allow-registry"]).iter().map(|registry| format!("registry+{registry}")).collect();
    // What has no source lies here: fitwatch itself, and its stand-ins.
    let own = |package: &Json| {
        package["source"].is_null() && Path::new(package["manifest_path"].as_str().unwrap()).starts_with(root())
    };
    let refused: Vec<String> = packages()
        .iter()
        .filter(|package| {
            !own(package)
                && !package["source"].as_str().is_some_and(|source| allowed.iter().any(|registry| registry == source))
        })
        .map(|package| format!("{}: {}", name(package), package["source"]))
        .collect();
    assert_eq!(refused, Vec::<String>::new());
}

#[test]
fn no_banned_crate_is_depended_on() {
    let policy = policy();
    let bans = policy["bans"]["deny"].as_array().unwrap();
    assert!(!bans.is_empty());
    let mut found = Vec::new();
    for package in packages() {
        for ban in bans {
            let ban = ban["crate"].as_str().unwrap();
            if is_banned(ban, package["name"].as_str().unwrap(), package["version"].as_str().unwrap()) {
                found.push(format!("{} ({ban})", name(&package)));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allowed: Vec<String> = ["MIT", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"].map(String::from).to_vec();
    for (expression, is_allowed) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
        ("MIT AND GPL-3.0 OR Unicode-3.0", true),
        ("MIT AND (GPL-3.0 OR Apache-2.0)", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("none named", false),
        ("", false),
    ] {
        assert_eq!(allows(&allowed, expression), is_allowed, "{expression}");
    }
}

#[test]
fn bans_end_where_their_versions_end() {
    assert!(is_banned("blocking@>=1.7.0", "blocking", "1.7.0"));
    assert!(is_banned("blocking@>=1.7.0", "blocking", "1.10.1"));
    assert!(is_banned("blocking@>=1.7.0", "blocking", "2.0.0-rc.1"));
    assert!(!is_banned("blocking@>=1.7.0", "blocking", "1.6.2"));
    assert!(!is_banned("blocking@>=1.7.0", "unblocking", "1.7.0"));
    assert!(is_banned("gtk", "gtk", "0.18.0"));
    assert!(!is_banned("gtk", "gtk-sys", "0.18.0"));
}

/// Tells whether a licence expression can be met with the allowed licences: `OR` binds less than
/// `AND`, and the old `/` means `OR`.
fn allows(allowed: &[String], expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    let met = any(allowed, &mut rest);
    met && rest.is_empty()
}

fn any(allowed: &[String], words: &mut &[&str]) -> bool {
    let mut met = all(allowed, words);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        met |= all(allowed, words);
    }
    met
}

fn all(allowed: &[String], words: &mut &[&str]) -> bool {
    let mut met = one(allowed, words);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        met &= one(allowed, words);
    }
    met
}

fn one(allowed: &[String], words: &mut &[&str]) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let met = any(allowed, words);
            let closed = words.first() == Some(&")");
            *words = words.get(1..).unwrap_or_default();
            met && closed
        }
        [licence, "WITH", exception, rest @ ..] => {
            *words = rest;
            allowed.contains(&format!("{licence} WITH {exception}"))
        }
        [licence, rest @ ..] => {
            *words = rest;
            allowed.iter().any(|allowed| allowed == licence)
        }
        [] => false,
    }
}

/// Reads a ban as `name` or `name@>=version`, the two forms that the policy uses.
fn is_banned(ban: &str, name: &str, version: &str) -> bool {
    let Some((banned, from)) = ban.split_once('@') else { return ban == name };
    let from = from.strip_prefix(">=").expect("a ban names the first banned version");
    let numbers = |version: &str| -> Vec<u64> {
        version.split(['-', '+']).next().unwrap_or_default().split('.').map(|part| part.parse().unwrap()).collect()
    };
    banned == name && numbers(version) >= numbers(from)
}

fn packages() -> Vec<Json> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Json = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().clone();
    assert!(packages.len() > 100, "only {} packages", packages.len());
    packages
}

fn policy() -> toml::Table {
    fs::read_to_string(root().join(".deny.toml")).unwrap().parse().unwrap()
}

fn words(list: &toml::Value) -> Vec<String> {
    let words: Vec<String> = list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect();
    assert!(!words.is_empty());
    words
}

fn name(package: &Json) -> String {
    format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap())
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
