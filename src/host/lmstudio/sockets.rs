//! The websockets that are kept open to one back-end, and what needs to be asked only once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::Patience;
use super::link::{CallError, Credentials, Link};
use super::pause::Pause;
use crate::lmstudio::{
    Activity, Endpoint, LoadSettings, LoadedModel, Namespace, SocketInstance, parse_activity, parse_list_loaded,
    parse_load_config, parse_own_device, specifier, unload_parameter,
};

/// The namespaces in which models are loaded.
const NAMESPACES: [Namespace; 2] = [Namespace::Llm, Namespace::Embedding];

/// How a back-end's websockets are reached.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) address: SocketAddrV4,
    pub(super) credentials: Credentials,
    pub(super) patience: Patience,
    /// How long an unload may take.
    pub(super) unload: Duration,
}

/// What the websockets say.
#[derive(Debug)]
pub(super) struct SocketRound {
    pub(super) models: Vec<LoadedModel>,
    /// The settings of an instance of this machine could not be had.
    pub(super) lacks_settings: bool,
}

/// The open websockets and what was learned over them.
#[derive(Debug)]
pub(super) struct Sockets {
    links: BTreeMap<Namespace, Link>,
    /// What this back-end does not know. It warns five times only, and is silent from then on.
    unknown: BTreeSet<(Namespace, Endpoint)>,
    /// The settings of each instance, by its reference.
    loads: BTreeMap<String, LoadSettings>,
    own_device: Option<String>,
    own_device_pause: Pause,
}

impl Sockets {
    pub(super) fn new(own_device_pause: Pause) -> Sockets {
        Sockets {
            links: BTreeMap::new(),
            unknown: BTreeSet::new(),
            loads: BTreeMap::new(),
            own_device: None,
            own_device_pause,
        }
    }

    /// Closes everything; what was learned stays.
    pub(super) fn close(&mut self) {
        self.links.clear();
    }

    /// Closes and forgets everything: another back-end is asked from now on.
    pub(super) fn forget(&mut self) {
        self.own_device_pause.reset();
        *self = Sockets::new(self.own_device_pause);
    }

    /// Asks for the loaded models. One namespace alone would look as if the other's were unloaded.
    pub(super) async fn loaded(&mut self, way: &Way) -> Result<SocketRound, CallError> {
        let mut found = Vec::new();
        for namespace in NAMESPACES {
            match self.list(way, namespace).await {
                Ok(instances) => found.extend(instances.into_iter().map(|instance| (namespace, instance))),
                Err(CallError::Unknown) if namespace == Namespace::Embedding => {}
                Err(error) => return Err(error),
            }
        }
        self.tell_own_device(way, &mut found).await;
        let mut lacks_settings = false;
        for (namespace, instance) in &mut found {
            if instance.model.device.is_some() {
                continue;
            }
            match self.settings(way, *namespace, instance).await? {
                Some(load) => instance.model.load = load,
                None => lacks_settings = true,
            }
            instance.model.activity = self.activity(way, *namespace, instance).await?;
        }
        let is_loaded =
            |reference: &String| found.iter().any(|(_, instance)| instance.reference.as_ref() == Some(reference));
        self.loads.retain(|reference, _| is_loaded(reference));
        Ok(SocketRound { models: found.into_iter().map(|(_, instance)| instance.model).collect(), lacks_settings })
    }

    /// Returns the namespace in which an instance is loaded, and the instance.
    pub(super) async fn find(
        &mut self,
        way: &Way,
        identifier: &str,
    ) -> Result<Option<(Namespace, SocketInstance)>, CallError> {
        let mut found = Vec::new();
        for namespace in NAMESPACES {
            let instances = match self.list(way, namespace).await {
                Err(CallError::Unknown) if namespace == Namespace::Embedding => continue,
                listed => listed?,
            };
            let named = instances.into_iter().filter(|instance| instance.model.identifier == identifier);
            found.extend(named.map(|instance| (namespace, instance)));
        }
        self.tell_own_device(way, &mut found).await;
        // One that runs here comes first.
        found.sort_by_key(|(_, instance)| instance.model.device.is_some());
        Ok(found.into_iter().next())
    }

    /// Unloads an instance, on the user's word.
    pub(super) async fn unload(&mut self, way: &Way, namespace: Namespace, identifier: &str) -> Result<(), CallError> {
        let link = self.link(way, namespace).await?;
        let unloaded = link.change(Endpoint::UnloadModel, &unload_parameter(identifier), way.unload).await;
        self.look_at(namespace, unloaded)
    }

    async fn list(&mut self, way: &Way, namespace: Namespace) -> Result<Vec<SocketInstance>, CallError> {
        self.call(way, namespace, Endpoint::ListLoaded, None, parse_list_loaded).await
    }

    /// Returns an instance's settings, asked for until they are told: they are fixed while it is loaded.
    async fn settings(
        &mut self,
        way: &Way,
        namespace: Namespace,
        instance: &SocketInstance,
    ) -> Result<Option<LoadSettings>, CallError> {
        if let Some(known) = instance.reference.as_ref().and_then(|reference| self.loads.get(reference)) {
            return Ok(Some(known.clone()));
        }
        let parameter = json!({ "specifier": specifier(instance) });
        let read = self.call(way, namespace, Endpoint::GetLoadConfig, Some(&parameter), parse_load_config).await;
        let load = optional(read)?;
        if let (Some(reference), Some(load)) = (&instance.reference, &load) {
            self.loads.insert(reference.clone(), load.clone());
        }
        Ok(load)
    }

    async fn activity(
        &mut self,
        way: &Way,
        namespace: Namespace,
        instance: &SocketInstance,
    ) -> Result<Option<Activity>, CallError> {
        let parameter = json!({ "specifier": specifier(instance), "throwIfNotFound": false });
        let endpoint = Endpoint::GetInstanceProcessingState;
        optional(self.call(way, namespace, endpoint, Some(&parameter), parse_activity).await)
    }

    /// Takes this machine's own LM Link device for what it is: this machine.
    async fn tell_own_device(&mut self, way: &Way, found: &mut [(Namespace, SocketInstance)]) {
        if self.own_device.is_none()
            && self.own_device_pause.is_over()
            && found.iter().any(|(_, instance)| instance.model.device.is_some())
        {
            let namespace = Namespace::Repository;
            let asked = self.call(way, namespace, Endpoint::LmLinkStatus, None, parse_own_device).await;
            self.own_device = asked.ok();
            self.own_device_pause.failed();
            if let Some(link) = self.links.remove(&namespace) {
                link.close().await;
            }
        }
        for (_, instance) in found {
            instance.model.device.take_if(|device| Some(&*device) == self.own_device.as_ref());
        }
    }

    /// Calls an endpoint that only reads, over the open link or a new one. A link that was closed
    /// since the last round is replaced once.
    pub(super) async fn call<T>(
        &mut self,
        way: &Way,
        namespace: Namespace,
        endpoint: Endpoint,
        parameter: Option<&Value>,
        read: fn(&str) -> Option<T>,
    ) -> Result<T, CallError> {
        if self.unknown.contains(&(namespace, endpoint)) {
            return Err(CallError::Unknown);
        }
        let mut was_open = self.links.contains_key(&namespace);
        loop {
            let called = self.link(way, namespace).await?.call(endpoint, parameter, read).await;
            let called = self.look_at(namespace, called);
            match called {
                Err(CallError::Closed) if was_open => was_open = false,
                Err(CallError::Unknown) => {
                    self.unknown.insert((namespace, endpoint));
                    return Err(CallError::Unknown);
                }
                called => return called,
            }
        }
    }

    async fn link(&mut self, way: &Way, namespace: Namespace) -> Result<&mut Link, CallError> {
        let link = match self.links.remove(&namespace) {
            Some(link) => link,
            None => Link::open(way.address, namespace, &way.credentials, way.patience).await?,
        };
        Ok(self.links.entry(namespace).or_insert(link))
    }

    /// Drops the link where a call has ended it.
    fn look_at<T>(&mut self, namespace: Namespace, called: Result<T, CallError>) -> Result<T, CallError> {
        if called.as_ref().err().is_some_and(CallError::ends_the_link) {
            self.links.remove(&namespace);
        }
        called
    }
}

/// Makes nothing of an answer that this back-end does not have.
fn optional<T>(called: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match called {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.ends_the_link() => Err(error),
        Err(_) => Ok(None),
    }
}
