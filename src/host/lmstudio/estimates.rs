//! LM Studio's own estimates: asked for once for a model and its settings, beside the rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use super::http::Patience;
use super::link::{CallError, Link};
use super::sockets::Way;
use crate::lmstudio::{
    Endpoint, LoadedModel, Namespace, OwnEstimate, can_be_estimated, estimate_parameter, parse_estimate,
};

/// What is known, by what was asked, and the one that is being asked for.
#[derive(Debug, Default)]
pub(super) struct Estimates {
    known: BTreeMap<String, Option<OwnEstimate>>,
    asking: Option<JoinHandle<(String, Result<OwnEstimate, CallError>)>>,
    /// This back-end has none.
    is_unknown: bool,
}

impl Estimates {
    /// Forgets everything: another back-end is asked from now on.
    pub(super) fn forget(&mut self) {
        *self = Estimates::default();
    }

    /// Adds the estimates that are known, and begins to ask for one that is not.
    pub(super) async fn add(&mut self, models: &mut [LoadedModel], way: &Way, patience: Duration) {
        self.take().await;
        let mut wanted = BTreeSet::new();
        for model in models.iter_mut().filter(|model| can_be_estimated(model)) {
            let Some(key) = model.key.as_deref().filter(|_| model.load.context_length.is_some()) else { continue };
            let parameter = estimate_parameter(key, &model.load);
            let question = parameter.to_string();
            model.estimate = self.known.get(&question).copied().flatten();
            if !self.known.contains_key(&question) && self.asking.is_none() && !self.is_unknown {
                let patience = Patience { answer: patience, ..way.patience };
                let way = Way { patience, ..way.clone() };
                let asked = question.clone();
                self.asking = Some(tokio::spawn(async move { (asked, ask(&way, &parameter).await) }));
            }
            wanted.insert(question);
        }
        self.known.retain(|question, _| wanted.contains(question));
    }

    /// Takes what has come.
    async fn take(&mut self) {
        if let Some(asking) = self.asking.take_if(|asking| asking.is_finished())
            && let Ok((question, answer)) = asking.await
        {
            self.is_unknown |= answer == Err(CallError::Unknown);
            self.known.insert(question, answer.ok());
        }
    }
}

impl Drop for Estimates {
    fn drop(&mut self) {
        if let Some(asking) = &self.asking {
            asking.abort();
        }
    }
}

async fn ask(way: &Way, parameter: &Value) -> Result<OwnEstimate, CallError> {
    let mut link = Link::open(way.address, Namespace::Llm, &way.credentials, way.patience).await?;
    let estimate = link.call(Endpoint::EstimateModelUsage, Some(parameter), parse_estimate).await;
    link.close().await;
    estimate
}
