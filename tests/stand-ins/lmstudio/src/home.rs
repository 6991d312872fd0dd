//! The files that LM Studio keeps under its home.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::scenario::Scenario;

/// A process number that no system gives.
pub const DEAD_PID: u32 = 2_147_483_001;

/// The folder `.lmstudio`.
#[derive(Clone, Debug)]
pub(crate) struct Home(pub(crate) PathBuf);

impl Home {
    /// Writes what an installation has from the start.
    pub(crate) fn furnish(&self, scenario: &Scenario) {
        fs::create_dir_all(self.0.join("models")).expect("a models folder");
        self.write(
            "settings.json",
            &json!({
                "language": "en",
                "downloadsFolder": self.0.join("models"),
                "developer": {
                    "unloadPreviousJITModelOnLoad": true,
                    "jitModelTTL": { "enabled": true, "ttlSeconds": 3_600 },
                },
                "modelLoadingGuardrails": { "mode": "high", "customThresholdBytes": 4_294_967_296_u64 },
                "hfSearchToken": "hf_planted_search_token",
                "hfDownloadToken": "hf_planted_download_token",
                "defaultContextLength": { "type": "custom", "value": 8_192 },
            }),
        );
        // Nobody but LM Studio's own command may read it: a test looks for these words where they must not be.
        self.write(".internal/lms-key-2", &json!("planted-lms-key"));
        for (name, content) in &scenario.files {
            self.write(name, content);
        }
    }

    /// Writes where the internal server listens.
    pub(crate) fn write_http_server(&self, pid: u32, port: u16) {
        self.write(".internal/http-server.json", &json!({ "host": "127.0.0.1", "pid": pid, "port": port }));
    }

    /// Writes the settings of the user's server.
    pub(crate) fn write_http_server_config(&self, scenario: &Scenario, port: u16) {
        let config = json!({
            "autoStartOnLaunch": true,
            "port": port,
            "cors": false,
            "logSensitiveData": true,
            "logIncomingTokens": false,
            "verbose": true,
            "logLinesLimit": 500,
            "networkInterface": "127.0.0.1",
            "justInTimeModelLoading": scenario.just_in_time,
            "fileLoggingMode": "succinct",
        });
        self.write(".internal/http-server-config.json", &config);
    }

    /// Writes a file: text as it is, the rest as JSON.
    pub(crate) fn write(&self, name: &str, content: &Value) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).expect("a folder");
        let text = content.as_str().map_or_else(|| format!("{content:#}"), str::to_owned);
        fs::write(path, text).expect("a file");
    }

    /// Cuts a file in the middle, as one that is still being written looks.
    pub(crate) fn cut(&self, name: &str) {
        let text = fs::read(self.path(name)).expect("a file to cut");
        fs::write(self.path(name), &text[..text.len() / 2]).expect("a file");
    }

    pub(crate) fn remove(&self, name: &str) {
        // One that is gone already is as good.
        let _ = fs::remove_file(self.path(name));
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        assert!(!name.contains("..") && path.starts_with(&self.0), "{name} lies outside the home");
        path
    }
}
