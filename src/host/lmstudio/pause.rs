//! How long to leave something alone that has failed: longer each time, up to a limit.

use std::time::Duration;

use tokio::time::Instant;

/// A pause that grows while failures go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    first: Duration,
    longest: Duration,
    failures: u32,
    ends: Option<Instant>,
}

impl Pause {
    /// Returns one that has not begun.
    pub(super) fn new(first: Duration, longest: Duration) -> Pause {
        Pause { first, longest, failures: 0, ends: None }
    }

    /// Tells whether it is time to try.
    pub(super) fn is_over(&self) -> bool {
        self.ends.is_none_or(|end| Instant::now() >= end)
    }

    /// Begins the next pause.
    pub(super) fn failed(&mut self) {
        let length = self.first.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        self.ends = Some(Instant::now() + length);
    }

    /// Begins the longest pause: what there was to learn is known.
    pub(super) fn rest(&mut self) {
        self.ends = Some(Instant::now() + self.longest);
    }

    /// Forgets all failures.
    pub(super) fn reset(&mut self) {
        *self = Pause::new(self.first, self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_grows_to_its_limit_and_ends_with_success() {
        let seconds = Duration::from_secs;
        let mut pause = Pause::new(seconds(2), seconds(10));
        for length in [2, 4, 8, 10, 10] {
            assert!(pause.is_over());
            pause.failed();
            tokio::time::advance(seconds(length - 1)).await;
            assert!(!pause.is_over(), "{length}");
            tokio::time::advance(seconds(1)).await;
        }
        pause.failed();
        pause.reset();
        assert!(pause.is_over());
        pause.failed();
        tokio::time::advance(seconds(2)).await;
        assert!(pause.is_over());
    }
}
