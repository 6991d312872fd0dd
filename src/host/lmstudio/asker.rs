//! Asks a running LM Studio what is loaded, and unloads on the user's word.
//!
//! ```text
//!   files with a living process ─┐
//!   a process that was seen ─────┴─► ports ─► websocket: listLoaded, once per instance getLoadConfig
//!                                             │ cannot say, or leaves something out
//!                                             └─► REST v1 ─ unknown there ─► REST v0
//! ```
//!
//! Nothing is started or woken, nothing but this machine is dialled, and each call is one of
//! [`Route`] or [`Endpoint`](crate::lmstudio::Endpoint). What fails is left alone for longer each
//! time; what hangs costs a time limit. The processes are asked by others.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::discovery::Discovery;
use super::estimates::Estimates;
use super::hints::{self, Hints};
use super::http::{self, HttpError, Patience};
use super::link::{CallError, Credentials};
use super::pause::Pause;
use super::sockets::{SocketRound, Sockets, Way};
use crate::lmstudio::{
    ApiToken, Ask, INTERNAL_PORTS, LoadedModel, RestAnswer, Round, Route, Said, Unloaded, parse_models_v0,
    parse_models_v1, parse_unload, unload_body,
};

/// The environment variable that LM Studio's own clients read a token from.
const TOKEN_VARIABLE: &str = "LM_API_TOKEN";

/// How long to wait for LM Studio, and how often to bother it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The usual ports of the internal interface.
    pub ports: Vec<u16>,
    /// For a port to show that it is LM Studio's.
    pub probe: Duration,
    /// For an answer.
    pub answer: Duration,
    /// For LM Studio's own estimate, which nothing waits for.
    pub estimate: Duration,
    /// To an unload, which may have to wait for what the model is doing.
    pub unload: Duration,
    /// After a first failure.
    pub pause: Duration,
    /// After many, and between looks at what may have come up meanwhile.
    pub longest_pause: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            ports: INTERNAL_PORTS.to_vec(),
            probe: Duration::from_millis(500),
            answer: Duration::from_secs(2),
            estimate: Duration::from_secs(20),
            unload: Duration::from_secs(30),
            pause: Duration::from_secs(2),
            longest_pause: Duration::from_mins(1),
        }
    }
}

/// Asks LM Studio. Keeps its connections and what needs to be asked only once.
#[derive(Debug)]
pub struct Asker {
    limits: Limits,
    guest: Credentials,
    /// The token that the environment names.
    environment: Option<ApiToken>,
    reading: Option<JoinHandle<Hints>>,
    /// What the files said last.
    hints: Hints,
    discovery: Discovery,
    sockets: Sockets,
    socket_pause: Pause,
    has_no_v1: bool,
    rest_pause: Pause,
    estimates: Estimates,
}

impl Default for Asker {
    fn default() -> Asker {
        Asker::new()
    }
}

impl Asker {
    /// Returns one that takes the usual care, with the token that the environment names.
    pub fn new() -> Asker {
        let token = std::env::var(TOKEN_VARIABLE).ok();
        Asker::within(Limits::default(), token.as_deref().and_then(ApiToken::parse))
    }

    /// Returns one within other limits, with this token unless a round names another.
    pub fn within(limits: Limits, token: Option<ApiToken>) -> Asker {
        let pause = Pause::new(limits.pause, limits.longest_pause);
        Asker {
            guest: Credentials::guest(),
            environment: token,
            reading: None,
            hints: Hints::default(),
            discovery: Discovery::new(pause),
            sockets: Sockets::new(pause),
            socket_pause: pause,
            has_no_v1: false,
            rest_pause: pause,
            estimates: Estimates::default(),
            limits,
        }
    }

    /// Asks once. Takes as long as the limits allow, never fails and changes nothing.
    pub async fn round(&mut self, ask: &Ask) -> Round {
        let mut round = Round { at_ms: now_ms(), ..Round::default() };
        if ask.processes_only {
            self.forget();
            (round.socket, round.rest) = (Said::Absent, Said::Absent);
            return round;
        }
        match self.look(ask).await {
            Look::Hangs => {
                round.socket = Said::Failed("the files in its home cannot be read in time".into());
                round.backend = self.discovery.running();
                return round;
            }
            Look::Nothing => {
                (round.socket, round.rest) = (Said::Absent, Said::Absent);
                return round;
            }
            Look::Hints => {}
        }
        let mut asked = self.ask_socket().await;
        if asked == Socket::Said(Said::Absent) && self.discovery.internal.is_some() {
            // It may be on another port by now.
            self.sockets.close();
            self.discovery.lose_internal();
            self.discover().await;
            asked = self.ask_socket().await;
        }
        let has_said_all = matches!(asked, Socket::Told { lacks_settings: false, .. });
        round.socket = match asked {
            Socket::Told { models, .. } => Said::Is(models),
            Socket::Said(said) => said,
        };
        if !has_said_all {
            round.rest = self.ask_rest().await;
        }
        round.backend = self.discovery.running();
        round
    }

    /// Unloads an instance, because the user said so.
    pub async fn unload(&mut self, ask: &Ask, identifier: &str) -> Unloaded {
        if ask.processes_only {
            return failed("the config says not to ask LM Studio");
        }
        if self.look(ask).await != Look::Hints {
            return failed("LM Studio does not run");
        }
        let by_socket = match self.way() {
            Some(way) => self.unload_by_socket(&way, identifier).await,
            None => Err(CallError::Absent),
        };
        match by_socket {
            Ok(unloaded) => unloaded,
            Err(error) => self.unload_by_rest(identifier, &error).await,
        }
    }

    /// Reads the files and looks for the back-end where they hint at one.
    async fn look(&mut self, ask: &Ask) -> Look {
        let Some(hints) = self.read_hints(ask).await else { return Look::Hangs };
        let is_another = hints.servers != self.hints.servers || hints.token != self.hints.token;
        if is_another || !hints.is_any() {
            self.forget();
        }
        self.hints = hints;
        if !self.hints.is_any() {
            return Look::Nothing;
        }
        self.discover().await;
        Look::Hints
    }

    /// Reads the files, on a thread that may hang; while it does, no other one is sent after it.
    async fn read_hints(&mut self, ask: &Ask) -> Option<Hints> {
        let mut reading = self.reading.take().unwrap_or_else(|| {
            let ask = ask.clone();
            tokio::task::spawn_blocking(move || hints::read(&ask))
        });
        let Ok(read) = timeout(self.limits.answer, &mut reading).await else {
            self.reading = Some(reading);
            return None;
        };
        read.ok()
    }

    async fn discover(&mut self) {
        let patience = self.patience(self.limits.probe);
        let changed = self.discovery.look(&self.hints, &self.limits.ports, &self.credentials(), patience).await;
        if changed.internal {
            self.socket_pause.reset();
        }
        if changed.user {
            self.rest_pause.reset();
        }
    }

    /// Forgets everything that was learned about the back-end.
    fn forget(&mut self) {
        self.discovery.forget();
        self.sockets.forget();
        self.socket_pause.reset();
        self.has_no_v1 = false;
        self.rest_pause.reset();
        self.estimates.forget();
    }

    /// Asks the websocket; over the user's server where the internal interface is not to be found.
    async fn ask_socket(&mut self) -> Socket {
        let Some(way) = self.way() else { return Socket::Said(Said::Absent) };
        if !self.socket_pause.is_over() {
            return Socket::Said(Said::NotAsked);
        }
        match self.sockets.loaded(&way).await {
            Ok(SocketRound { mut models, lacks_settings }) => {
                self.socket_pause.reset();
                self.estimates.add(&mut models, &way, self.limits.estimate).await;
                Socket::Told { models, lacks_settings }
            }
            Err(error) => {
                self.sockets.close();
                self.socket_pause.failed();
                Socket::Said(said(error))
            }
        }
    }

    /// Asks the user's server.
    async fn ask_rest(&mut self) -> Said<Vec<LoadedModel>> {
        let Some(address) = self.discovery.user else { return Said::Absent };
        if !self.rest_pause.is_over() {
            return Said::NotAsked;
        }
        let patience = self.patience(self.limits.answer);
        let mut answer = Ok(RestAnswer::NoSuchRoute);
        if !self.has_no_v1 {
            let body = http::ask(address, Route::ModelsV1, self.token(), patience).await;
            answer = body.map(|body| parse_models_v1(&body));
            self.has_no_v1 = answer == Ok(RestAnswer::NoSuchRoute);
        }
        if answer == Ok(RestAnswer::NoSuchRoute) {
            let body = http::ask(address, Route::ModelsV0, self.token(), patience).await;
            answer = body.map(|body| parse_models_v0(&body));
        }
        if matches!(answer, Ok(RestAnswer::Is(_))) {
            self.rest_pause.reset();
        } else {
            self.rest_pause.failed();
        }
        match answer {
            Ok(RestAnswer::Is(models)) => Said::Is(models),
            Ok(RestAnswer::NoSuchRoute) => Said::Absent,
            Ok(RestAnswer::Refused) => Said::Refused,
            Ok(RestAnswer::Error(words)) => Said::Failed(rejection(words)),
            Ok(RestAnswer::Garbage) => Said::Failed(NOT_UNDERSTOOD.into()),
            Err(HttpError::Absent) => {
                self.discovery.lose_user();
                Said::Absent
            }
            Err(HttpError::Failed(reason)) => Said::Failed(reason.into()),
        }
    }

    async fn unload_by_socket(&mut self, way: &Way, identifier: &str) -> Result<Unloaded, CallError> {
        let Some((namespace, instance)) = self.sockets.find(way, identifier).await? else {
            return Ok(Unloaded::NotLoaded);
        };
        if instance.model.device.is_some() {
            return Ok(failed("it is loaded on another device: unload it there"));
        }
        match self.sockets.unload(way, namespace, identifier).await {
            Ok(()) => Ok(Unloaded::Done),
            Err(CallError::Unknown) => Err(CallError::Unknown),
            // It may have been under way: LM Studio itself says what became of it.
            Err(error) => match self.sockets.find(way, identifier).await {
                Ok(None) if matches!(error, CallError::Rejected(_)) => Ok(Unloaded::NotLoaded),
                Ok(None) => Ok(Unloaded::Done),
                Ok(Some(_)) | Err(_) => Ok(failed(&reason(error))),
            },
        }
    }

    /// Unloads by REST, because the websocket could not even be asked.
    async fn unload_by_rest(&mut self, identifier: &str, socket: &CallError) -> Unloaded {
        let Some(address) = self.discovery.user else { return failed(&reason(socket.clone())) };
        let patience = self.patience(self.limits.answer);
        let listed = http::ask(address, Route::ModelsV1, self.token(), patience).await;
        match listed.map(|body| parse_models_v1(&body)) {
            Ok(RestAnswer::Is(models)) if models.iter().any(|model| model.identifier == identifier) => {}
            Ok(RestAnswer::Is(_)) => return Unloaded::NotLoaded,
            Ok(answer) => return failed(&unanswered(answer)),
            Err(error) => return failed(&reason(error.into())),
        }
        let patience = self.patience(self.limits.unload);
        let sent = http::change(address, Route::UnloadV1, self.token(), unload_body(identifier), patience).await;
        match sent.map(|body| parse_unload(&body)) {
            Ok(RestAnswer::Is(())) => Unloaded::Done,
            Ok(answer) => failed(&unanswered(answer)),
            Err(error) => failed(&reason(error.into())),
        }
    }

    fn way(&self) -> Option<Way> {
        let address = self.discovery.internal.or(self.discovery.user)?;
        let patience = self.patience(self.limits.answer);
        Some(Way { address, credentials: self.credentials(), patience, unload: self.limits.unload })
    }

    fn token(&self) -> Option<&ApiToken> {
        self.hints.token.as_ref().or(self.environment.as_ref())
    }

    fn credentials(&self) -> Credentials {
        self.token().map_or_else(|| self.guest.clone(), Credentials::of)
    }

    fn patience(&self, answer: Duration) -> Patience {
        Patience { connection: self.limits.probe, answer }
    }
}

const NOT_UNDERSTOOD: &str = "its answer is not understood";
const WANTS_TOKEN: &str = "LM Studio requires an API token";

/// What the files hint at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// They cannot be read in time.
    Hangs,
    /// No back-end.
    Nothing,
    /// One.
    Hints,
}

/// What the websocket says.
#[derive(Debug, PartialEq)]
enum Socket {
    Told { models: Vec<LoadedModel>, lacks_settings: bool },
    Said(Said<Vec<LoadedModel>>),
}

fn said(error: CallError) -> Said<Vec<LoadedModel>> {
    match error {
        CallError::Absent => Said::Absent,
        CallError::Refused => Said::Refused,
        error => Said::Failed(reason(error)),
    }
}

/// Returns why a call brought nothing, in words.
fn reason(error: CallError) -> String {
    match error {
        CallError::Absent => "LM Studio does not answer".into(),
        CallError::Refused => WANTS_TOKEN.into(),
        CallError::Unknown => "this version of LM Studio does not offer it".into(),
        CallError::Rejected(words) => rejection(words),
        CallError::NotUnderstood => NOT_UNDERSTOOD.into(),
        CallError::Closed => "it hangs up without an answer".into(),
        CallError::Failed(reason) => reason.into(),
    }
}

fn unanswered<T>(answer: RestAnswer<T>) -> String {
    match answer {
        RestAnswer::Is(_) | RestAnswer::Garbage => NOT_UNDERSTOOD.into(),
        RestAnswer::NoSuchRoute => reason(CallError::Unknown),
        RestAnswer::Refused => WANTS_TOKEN.into(),
        RestAnswer::Error(words) => rejection(words),
    }
}

fn rejection(words: Option<String>) -> String {
    words.map_or_else(|| "it answers with an error".into(), |words| format!("it answers: {words}"))
}

fn failed(reason: &str) -> Unloaded {
    Unloaded::Failed { reason: reason.into() }
}

/// Returns the time in milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
