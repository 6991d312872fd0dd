//! One round of asking: the processes, LM Studio's interfaces, and its index where a key is in doubt.

use std::sync::{Arc, Mutex, PoisonError};

use super::asker::Asker;
use super::read_index;
use crate::host::probes::processes::{Look, ProcessProbe};
use crate::lmstudio::{Ask, Round, RunningBackend, Said, Unloaded};

/// Asks all sides, and keeps what they need to be asked again.
#[derive(Debug, Default)]
pub struct Rounds {
    asker: Asker,
    processes: Arc<Mutex<ProcessProbe>>,
}

impl Rounds {
    /// Asks once. Never fails: a side that cannot be asked says so.
    pub async fn ask(&mut self, ask: Ask) -> Round {
        let look = self.look(&ask).await;
        let ask = Ask { is_seen: !look.backends.is_empty(), ..ask };
        let mut round = self.asker.round(&ask).await;
        if round.backend.is_none() {
            // It runs, though none of its ports answers.
            round.backend = look.backends.first().map(|backend| RunningBackend {
                program: backend.program,
                pid: Some(backend.pid),
                ..RunningBackend::default()
            });
        }
        (round.processes, round.notes) = (look.engines, look.notes);
        if !ask.in_doubt.is_empty() {
            self.look_up(ask, &mut round).await;
        }
        round
    }

    /// Unloads an instance, because the user said so.
    pub async fn unload(&mut self, ask: Ask, instance: &str) -> Unloaded {
        let look = self.look(&ask).await;
        let ask = Ask { is_seen: !look.backends.is_empty(), ..ask };
        self.asker.unload(&ask, instance).await
    }

    async fn look(&self, ask: &Ask) -> Look {
        let (ask, probe) = (ask.clone(), Arc::clone(&self.processes));
        let look = move || probe.lock().unwrap_or_else(PoisonError::into_inner).look(&ask);
        tokio::task::spawn_blocking(look).await.unwrap_or_else(|_| Look {
            engines: Said::Failed("looking at them was broken off".into()),
            backends: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// Looks up in LM Studio's index what nothing else tells.
    async fn look_up(&self, ask: Ask, round: &mut Round) {
        let program = round.backend.as_ref().map(|backend| backend.program).unwrap_or_default();
        let read = move || read_index(&ask.home, program, &ask.in_doubt);
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(hints)) => round.hints = hints,
            // It is a hint at best: without it the answer is "cannot tell".
            Ok(Err(reason)) => tracing::debug!("LM Studio's index is of no help: {reason}"),
            Err(_) => {}
        }
    }
}
