//! Orders as data: a line of JSON each, for scripts and for scenarios that are files.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::faults::Fault;
use crate::scenario::{Instance, Scenario};
use crate::{DEAD_PID, StandIn};

/// Something that the stand-in is told to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Order {
    /// Load an instance.
    Load {
        /// Which.
        instance: Instance,
    },
    /// Unload one.
    Unload {
        /// Its identifier.
        identifier: String,
    },
    /// Let one be at something.
    State {
        /// Its identifier.
        identifier: String,
        /// `idle`, `generating`, …
        status: String,
        /// Requests that wait.
        #[serde(default)]
        queued: u32,
    },
    /// Let something go wrong.
    Fault {
        /// What.
        #[serde(flatten)]
        fault: Fault,
    },
    /// Make everything right again.
    Mend,
    /// Tell what reached it.
    Calls,
    /// Forget what reached it.
    Forget,
    /// Stop both servers and leave the files.
    Stop,
    /// Stop both servers and take the file away that names the internal one.
    Quit,
    /// Start them again.
    Start,
    /// Stop, unload everything, start.
    Restart,
    /// Switch the user's server.
    UserServer {
        /// On or off.
        on: bool,
    },
    /// Write a file under the home.
    Write {
        /// Its name.
        file: String,
        /// Text as it is, the rest as JSON.
        content: Value,
    },
    /// Cut a file in its middle.
    Cut {
        /// Its name.
        file: String,
    },
    /// Remove a file.
    Remove {
        /// Its name.
        file: String,
    },
    /// Let `http-server.json` name a process that does not live.
    DeadPid,
    /// Tell the ports and folders.
    Where,
    /// Tell the scenario as it stands.
    Scenario,
}

impl StandIn {
    /// Does what it is told and returns what there is to say.
    pub fn obey(&mut self, order: Order) -> Value {
        match order {
            Order::Load { instance } => return json!({ "identifier": self.load(instance) }),
            Order::Unload { identifier } => return json!({ "unloaded": self.unload(&identifier) }),
            Order::State { identifier, status, queued } => self.change(&identifier, |instance| {
                (instance.status, instance.queued) = (status, queued);
            }),
            Order::Fault { fault } => self.add_fault(fault),
            Order::Mend => self.mend(),
            Order::Calls => {
                return json!({ "calls": self.calls(), "connections": self.connections(), "sent": self.sent() });
            }
            Order::Forget => self.forget(),
            Order::Stop => self.stop(),
            Order::Quit => self.quit(),
            Order::Start => self.start_again(),
            Order::Restart => self.restart(),
            Order::UserServer { on } => self.switch_user_server(on),
            Order::Write { file, content } => self.write(&file, &content),
            Order::Cut { file } => self.cut(&file),
            Order::Remove { file } => self.remove(&file),
            Order::DeadPid => self.write_http_server(DEAD_PID, self.internal_port),
            Order::Where => {}
            Order::Scenario => return scenario(&self.scenario()),
        }
        json!({
            "home": self.home,
            "user_home": self.user_home,
            "pid": std::process::id(),
            "internal_port": self.internal_port,
            "user_port": self.user_port,
        })
    }
}

fn scenario(scenario: &Scenario) -> Value {
    json!(scenario)
}
