//! Which back-end runs, and where it listens: what its files say, and what a port must answer to be
//! LM Studio's.
//!
//! The files outlive a crash and the ports may belong to anybody: a file counts only with its
//! process alive, a port only with the right body.

use core::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Program;
use super::loose::{boolean, count, text, white_listed};

/// The ports of the internal interface, in the order in which LM Studio tries them.
pub const INTERNAL_PORTS: [u16; 5] = [41_343, 52_993, 16_141, 39_414, 22_931];

/// The port of the user's HTTP server unless another one is set.
pub const USER_PORT: u16 = 1_234;

/// `http-server.json`: the internal interface of the back-end that wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InternalServer {
    /// The back-end's process.
    pub pid: Option<u32>,
    /// The port.
    pub port: Option<u16>,
}

/// `http-server-config.json`: the user's HTTP server as it was last used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserServer {
    /// The port.
    pub port: u16,
    /// The one address it listens on; none is all of them, or the loopback.
    pub interface: Option<Ipv4Addr>,
}

impl Default for UserServer {
    fn default() -> UserServer {
        UserServer { port: USER_PORT, interface: None }
    }
}

/// Returns the folders that may hold a back-end's own files: LM Studio's, and those of the apps that
/// share its home.
pub fn internal_folders(home: &Path, apps: &[String]) -> Vec<PathBuf> {
    let own = home.join(".internal");
    let apps = apps.iter().map(|app| home.join("apps").join(app).join(".internal"));
    std::iter::once(own).chain(apps).collect()
}

/// Reads `http-server.json`.
pub fn parse_internal_server(file: &str) -> Option<InternalServer> {
    let values = white_listed(file, &["pid", "port"]).ok()?;
    let pid = values.get("pid").and_then(count);
    let port = values.get("port").and_then(port);
    (pid.is_some() || port.is_some()).then_some(InternalServer { pid, port })
}

/// Reads `http-server-config.json`; `None` where it is half-written or something else.
pub fn parse_user_server(file: &str) -> Option<UserServer> {
    let values = white_listed(file, &["port", "networkInterface"]).ok()?;
    let interface = text(values.get("networkInterface")).and_then(|interface| interface.parse().ok());
    Some(UserServer {
        port: values.get("port").and_then(port).unwrap_or(USER_PORT),
        interface: interface.filter(|address| is_one_of_a_lan(*address)),
    })
}

/// Reads `llmster-pid.lock`: the back-end's process, bare or as an object's `pid`.
pub fn parse_pid_lock(file: &str) -> Option<u32> {
    let value: Value = serde_json::from_str(file.trim_start_matches('\u{feff}').trim()).ok()?;
    value.get("pid").or(Some(&value)).and_then(count)
}

/// Returns the ports to ask for the internal interface: those that files name, then the usual ones.
pub fn ports(named: impl IntoIterator<Item = u16>, usual: &[u16]) -> Vec<u16> {
    let mut ports: Vec<u16> = Vec::new();
    for port in named.into_iter().chain(usual.iter().copied()) {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

/// What [`Route::Status`](super::Route::Status) answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The program's package.
    pub package: Option<String>,
    /// Its version.
    pub version: Option<String>,
}

/// Reads the answer to [`Route::Status`](super::Route::Status); `None` where it is none of LM Studio's.
pub fn parse_status(body: &[u8]) -> Option<Status> {
    let values = white_listed(str::from_utf8(body).ok()?, &["package", "version"]).ok()?;
    let status = Status { package: text(values.get("package")), version: text(values.get("version")) };
    // Other programs have a version too.
    (status.package.is_some() && status.version.is_some()).then_some(status)
}

/// Tells whether a body is LM Studio's answer to [`Route::Greeting`](super::Route::Greeting).
pub fn is_greeting(body: &[u8]) -> bool {
    let values = str::from_utf8(body).ok().and_then(|body| white_listed(body, &["lmstudio"]).ok());
    values.is_some_and(|values| values.get("lmstudio").and_then(boolean) == Some(true))
}

/// What tells which program a back-end is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs<'a> {
    /// The file that its process runs.
    pub executable: Option<&'a Path>,
    /// Whether it calls itself the daemon.
    pub is_daemon: Option<bool>,
    /// Its package.
    pub package: Option<&'a str>,
    /// The app in whose folder its files lie.
    pub app: Option<&'a str>,
}

/// Returns which program a back-end is.
pub fn program(signs: Signs<'_>) -> Program {
    let file = signs.executable.and_then(Path::file_name).map(|name| name.to_string_lossy().to_ascii_lowercase());
    let file = file.unwrap_or_default();
    let named = [Some(file.as_str()), signs.package, signs.app];
    let is_named = |name: &str| named.iter().flatten().any(|word| word.to_ascii_lowercase().starts_with(name));
    if is_named("bionic") {
        Program::Bionic
    } else if file.starts_with("llmster") || signs.is_daemon == Some(true) {
        Program::Llmster
    } else if file.starts_with("lm-studio") || file.starts_with("lm studio") || signs.is_daemon == Some(false) {
        Program::App
    } else if is_named("llmster") {
        Program::Llmster
    } else {
        Program::Unknown
    }
}

fn port(value: &Value) -> Option<u16> {
    u16::try_from(count(value)?).ok()
}

/// Tells whether an address can be one of this machine's in its own network; the loopback is dialled
/// as ever, and no name or public address is.
fn is_one_of_a_lan(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    // 100.64.0.0/10 is what Tailscale, and so LM Link, gives out.
    let is_shared = first == 100 && (64..128).contains(&second);
    let is_other_loopback = address.is_loopback() && address != Ipv4Addr::LOCALHOST;
    address.is_private() || address.is_link_local() || is_shared || is_other_loopback
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_port_is_asked_first_and_each_once() {
        assert_eq!(ports([], &INTERNAL_PORTS), INTERNAL_PORTS);
        assert_eq!(ports([16_141, 7, 7], &INTERNAL_PORTS), [16_141, 7, 41_343, 52_993, 39_414, 22_931]);
    }

    #[test]
    fn only_an_address_of_a_lan_is_dialled_instead_of_the_loopback() {
        let interface = |address: &str| {
            let text = serde_json::json!({ "port": "8080", "networkInterface": address }).to_string();
            let server = parse_user_server(&text).unwrap();
            assert_eq!(server.port, 8_080);
            server.interface.map(|address| address.to_string())
        };
        for lan in ["192.168.1.20", "10.0.0.3", "172.31.0.9", "169.254.7.7", "100.101.3.4", "127.0.0.2"] {
            assert_eq!(interface(lan).as_deref(), Some(lan));
        }
        for other in [
            "127.0.0.1",
            "0.0.0.0",
            "localhost",
            "::",
            "::1",
            "example.org",
            "8.8.8.8",
            "224.0.0.1",
            "255.255.255.255",
            "",
        ] {
            assert_eq!(interface(other), None, "{other}");
        }
    }

    #[test]
    fn half_a_file_is_none_and_odd_values_are_passed_over() {
        for text in ["", "{\"pid\": 48213, \"po", "[]", "null", "{}", "{\"pid\": 0, \"port\": 70000}"] {
            assert_eq!(parse_internal_server(text), None, "{text}");
        }
        let odd = parse_internal_server(r#"{"host": null, "pid": "48213", "port": "41343", "new": {}}"#);
        assert_eq!(odd, Some(InternalServer { pid: Some(48_213), port: Some(41_343) }));
        assert_eq!(parse_user_server("{\"port\": 80"), None);
        assert_eq!(parse_user_server("{\"port\": null}"), Some(UserServer::default()));
    }

    #[test]
    fn a_pid_lock_is_bare_or_wrapped() {
        for (text, pid) in [
            ("48213\n", Some(48_213)),
            ("\u{feff}\"48213\"", Some(48_213)),
            ("{\"pid\": 48213}", Some(48_213)),
            ("", None),
            ("-1", None),
            ("48213 x", None),
            ("[48213]", None),
        ] {
            assert_eq!(parse_pid_lock(text), pid, "{text}");
        }
    }

    #[test]
    fn a_status_and_a_greeting_are_known_by_their_bodies() {
        assert!(is_greeting(br#"{"lmstudio": true, "more": 1}"#));
        for other in ["{\"lmstudio\": false}", "{\"ok\": true}", "true", "", "<html>", "{\"lmstudio\": true"] {
            assert!(!is_greeting(other.as_bytes()), "{other}");
        }
        for other in
            ["{\"version\": \"1.0\"}", "{\"error\": \"Unexpected endpoint or method. (GET /lms-status)\"}", "[]"]
        {
            assert_eq!(parse_status(other.as_bytes()), None, "{other}");
        }
        assert!(!is_greeting(b"\xff\xfe") && parse_status(b"\xff\xfe").is_none());
    }

    #[test]
    fn the_program_is_told_by_its_file_and_its_own_words() {
        let of = |executable: Option<&str>, is_daemon, package, app| {
            program(Signs { executable: executable.map(Path::new), is_daemon, package, app })
        };
        assert_eq!(of(Some("/opt/LM-Studio/lm-studio"), None, Some("lmstudio"), None), Program::App);
        assert_eq!(of(Some("/tmp/.mount_LM-Stu1/lm-studio"), Some(false), None, None), Program::App);
        assert_eq!(of(Some("/Applications/LM Studio.app/Contents/MacOS/LM Studio"), None, None, None), Program::App);
        assert_eq!(of(Some("/home/robin/.lmstudio/llmster/0.0.23-1/llmster"), None, None, None), Program::Llmster);
        assert_eq!(of(Some("/opt/Bionic/bionic"), Some(false), None, None), Program::Bionic);
        // A folder of that name means nothing: it may be the user's.
        assert_eq!(of(Some("/home/bionic/x"), Some(true), None, None), Program::Llmster);
        assert_eq!(of(None, Some(false), None, Some("bionic")), Program::Bionic);
        assert_eq!(of(None, Some(false), Some("lmstudio"), None), Program::App);
        assert_eq!(of(None, None, Some("lmstudio"), None), Program::Unknown);
    }
}
