//! The files and bodies that tell where a back-end listens.

use std::path::Path;

use fitwatch::lmstudio::{
    InternalServer, Status, UserServer, internal_folders, is_greeting, parse_internal_server, parse_status,
    parse_user_server,
};

use crate::fixture;

#[test]
fn the_internal_server_is_a_process_and_a_port() {
    let server = parse_internal_server(&fixture("http-server.json"));
    assert_eq!(server, Some(InternalServer { pid: Some(48_213), port: Some(41_343) }));
}

#[test]
fn the_users_server_is_on_the_loopback_unless_it_listens_elsewhere_only() {
    let server = parse_user_server(&fixture("http-server-config.json"));
    assert_eq!(server, Some(UserServer { port: 1_234, interface: None }));
}

#[test]
fn a_status_names_package_and_version() {
    let status = parse_status(fixture("probe-lms-status.json").as_bytes());
    let expected = Status { package: Some("lmstudio".into()), version: Some("0.4.25".into()) };
    assert_eq!(status, Some(expected));
    assert!(is_greeting(fixture("probe-lmstudio-greeting.json").as_bytes()));
    assert!(!is_greeting(fixture("probe-lms-status.json").as_bytes()));
}

#[test]
fn apps_that_share_the_home_keep_files_of_their_own() {
    let folders = internal_folders(Path::new("/h"), &["bionic".into()]);
    assert_eq!(folders, [Path::new("/h/.internal"), Path::new("/h/apps/bionic/.internal")]);
}
