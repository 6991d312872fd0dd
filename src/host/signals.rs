//! Signals: what asks the process to end, and what asks it to read its config again.

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT, Ctrl-C, log-off.
    End,
    /// SIGHUP.
    Reload,
}

/// Waits for signals.
#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    unix: Option<[tokio::signal::unix::Signal; 3]>,
}

impl Signals {
    /// Takes the signals over from their defaults.
    #[cfg(unix)]
    pub fn new() -> Signals {
        use tokio::signal::unix::{SignalKind, signal};

        let all =
            || Ok([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?]);
        let taken: std::io::Result<_> = all();
        if let Err(error) = &taken {
            tracing::warn!("signals keep their defaults: {error}");
        }
        Signals { unix: taken.ok() }
    }

    /// Takes the signals over from their defaults.
    #[cfg(not(unix))]
    pub fn new() -> Signals {
        Signals {}
    }

    /// Waits for the next signal.
    #[cfg(unix)]
    pub async fn next(&mut self) -> Signal {
        let Some([terminate, interrupt, hangup]) = &mut self.unix else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => Signal::End,
            _ = interrupt.recv() => Signal::End,
            _ = hangup.recv() => Signal::Reload,
        }
    }

    /// Waits for the next signal.
    #[cfg(not(unix))]
    pub async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::End,
            Err(error) => {
                tracing::warn!("Ctrl-C keeps its default: {error}");
                std::future::pending().await
            }
        }
    }
}

impl Default for Signals {
    fn default() -> Signals {
        Signals::new()
    }
}
