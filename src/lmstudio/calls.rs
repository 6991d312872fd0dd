//! Every call that fitwatch may make to LM Studio: there is no other way to ask it for anything.
//!
//! All of them only read, but for the two that unload, which are made on the user's word alone.
//! Nothing here loads a model, starts or wakes anything, runs inference or reads a log.

/// A call over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// Is this LM Studio's internal interface? Names its version.
    Status,
    /// Is this LM Studio at all?
    Greeting,
    /// The models and their loaded instances (LM Studio 0.4.0 and later).
    ModelsV1,
    /// The models and whether they are loaded (LM Studio 0.3.6 and later).
    ModelsV0,
    /// Unloads an instance. Only on the user's word.
    UnloadV1,
}

/// A call over the websocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// The loaded instances of a namespace.
    ListLoaded,
    /// The settings an instance was loaded with.
    GetLoadConfig,
    /// What an instance is doing.
    GetInstanceProcessingState,
    /// LM Studio's own estimate of what a load takes.
    EstimateModelUsage,
    /// The back-end's process, version, and whether it is the daemon.
    Info,
    /// The back-end's version.
    Version,
    /// This machine's LM Link device.
    LmLinkStatus,
    /// Unloads an instance. Only on the user's word.
    UnloadModel,
}

/// What a websocket speaks of; each namespace has one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Namespace {
    /// Language models.
    Llm,
    /// Embedding models.
    Embedding,
    /// The back-end.
    System,
    /// Downloads and devices.
    Repository,
}

impl Route {
    /// All of them.
    pub const ALL: [Route; 5] = [Route::Status, Route::Greeting, Route::ModelsV1, Route::ModelsV0, Route::UnloadV1];

    /// Returns the HTTP method.
    pub const fn method(self) -> &'static str {
        match self {
            Route::Status | Route::Greeting | Route::ModelsV1 | Route::ModelsV0 => "GET",
            Route::UnloadV1 => "POST",
        }
    }

    /// Returns the path.
    pub const fn path(self) -> &'static str {
        match self {
            Route::Status => "/lms-status",
            Route::Greeting => "/lmstudio-greeting",
            Route::ModelsV1 => "/api/v1/models",
            Route::ModelsV0 => "/api/v0/models",
            Route::UnloadV1 => "/api/v1/models/unload",
        }
    }

    /// Tells whether the call changes something, so that only the user's word may cause it.
    pub const fn changes(self) -> bool {
        matches!(self, Route::UnloadV1)
    }
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Endpoint; 8] = [
        Endpoint::ListLoaded,
        Endpoint::GetLoadConfig,
        Endpoint::GetInstanceProcessingState,
        Endpoint::EstimateModelUsage,
        Endpoint::Info,
        Endpoint::Version,
        Endpoint::LmLinkStatus,
        Endpoint::UnloadModel,
    ];

    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Endpoint::ListLoaded => "listLoaded",
            Endpoint::GetLoadConfig => "getLoadConfig",
            Endpoint::GetInstanceProcessingState => "getInstanceProcessingState",
            Endpoint::EstimateModelUsage => "estimateModelUsage",
            Endpoint::Info => "info",
            Endpoint::Version => "version",
            Endpoint::LmLinkStatus => "lmLinkStatus",
            Endpoint::UnloadModel => "unloadModel",
        }
    }

    /// Returns the namespaces in which it may be called.
    pub const fn namespaces(self) -> &'static [Namespace] {
        match self {
            Endpoint::ListLoaded
            | Endpoint::GetLoadConfig
            | Endpoint::GetInstanceProcessingState
            | Endpoint::UnloadModel => &[Namespace::Llm, Namespace::Embedding],
            Endpoint::EstimateModelUsage => &[Namespace::Llm],
            Endpoint::Info | Endpoint::Version => &[Namespace::System],
            Endpoint::LmLinkStatus => &[Namespace::Repository],
        }
    }

    /// Tells whether the call changes something, so that only the user's word may cause it.
    pub const fn changes(self) -> bool {
        matches!(self, Endpoint::UnloadModel)
    }
}

impl Namespace {
    /// Returns its name, which is the websocket's path.
    pub const fn name(self) -> &'static str {
        match self {
            Namespace::Llm => "llm",
            Namespace::Embedding => "embedding",
            Namespace::System => "system",
            Namespace::Repository => "repository",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unloading_changes_anything_and_the_rest_is_known_to_read() {
        let routes: Vec<_> = Route::ALL.iter().filter(|route| !route.changes()).map(|route| route.path()).collect();
        assert_eq!(routes, ["/lms-status", "/lmstudio-greeting", "/api/v1/models", "/api/v0/models"]);
        assert!(Route::ALL.iter().all(|route| route.changes() != (route.method() == "GET")));
        let endpoints = Endpoint::ALL.iter().filter(|endpoint| !endpoint.changes()).map(|endpoint| endpoint.name());
        let known = [
            "listLoaded",
            "getLoadConfig",
            "getInstanceProcessingState",
            "estimateModelUsage",
            "info",
            "version",
            "lmLinkStatus",
        ];
        assert_eq!(endpoints.collect::<Vec<_>>(), known);
    }
}
