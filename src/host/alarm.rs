//! Waiting for a moment of our clock, with one wake-up of the machine.
//!
//! tokio's timers are wheels within wheels: half a minute costs up to three wake-ups, one a wheel.
//! Linux has a timer that counts sleep as our clock does, and rings as soon as a machine that slept
//! past the moment wakes.

use crate::units::Moment;

/// Rings at a moment.
#[derive(Debug)]
pub(super) struct Alarm {
    /// Without it (too many open files) tokio's timers do.
    #[cfg(target_os = "linux")]
    timer: Option<timer::Timer>,
}

impl Alarm {
    /// Returns an alarm that is not set. To be called within the runtime.
    pub(super) fn new() -> Alarm {
        Alarm {
            #[cfg(target_os = "linux")]
            timer: timer::Timer::new().inspect_err(|error| tracing::debug!("no timer: {error}")).ok(),
        }
    }

    /// Waits until a moment, or for ever. Giving up the wait loses nothing.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(clippy::needless_pass_by_ref_mut, reason = "the timer is set on Linux")
    )]
    pub(super) async fn rings_at(&mut self, moment: Option<Moment>) {
        #[cfg(target_os = "linux")]
        if let Some(timer) = &mut self.timer {
            match timer.rings_at(moment).await {
                Ok(()) => return,
                Err(error) => tracing::debug!("the timer failed: {error}"),
            }
            self.timer = None;
        }
        match moment {
            Some(moment) => tokio::time::sleep(moment.since(super::clock::now()).into()).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(target_os = "linux")]
mod timer {
    use std::fs::File;
    use std::io;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::net::unix::pipe::Receiver;

    use crate::units::Moment;

    #[derive(Debug)]
    pub(super) struct Timer {
        /// tokio's only safe way to wait for a descriptor that is no socket. A timer becomes ready and
        /// is read as a pipe is, which is all that the type makes use of.
        timer: Receiver,
        set: Option<Moment>,
    }

    impl Timer {
        pub(super) fn new() -> io::Result<Timer> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = File::from(timerfd_create(TimerfdClockId::Boottime, flags)?);
            Ok(Timer { timer: Receiver::from_file_unchecked(timer)?, set: None })
        }

        pub(super) async fn rings_at(&mut self, moment: Option<Moment>) -> io::Result<()> {
            if self.set != moment {
                self.set(moment)?;
            }
            loop {
                self.timer.readable().await?;
                // It says how often it rang; nothing where it was set anew meanwhile.
                match self.timer.try_read(&mut [0; 8]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                    Ok(_) => {
                        self.set = None;
                        return Ok(());
                    }
                }
            }
        }

        /// Sets it to a moment, which may have passed, or stops it.
        fn set(&mut self, moment: Option<Moment>) -> io::Result<()> {
            // Zero would stop it.
            let milliseconds = moment.map_or(0, |moment| moment.0.max(1));
            let at = Timespec {
                tv_sec: i64::try_from(milliseconds / 1_000).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(milliseconds % 1_000).unwrap_or(0) * 1_000_000,
            };
            let never_again = Timespec { tv_sec: 0, tv_nsec: 0 };
            let new = Itimerspec { it_interval: never_again, it_value: at };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &new)?;
            self.set = moment;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::host::clock;
    use crate::units::Span;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(60);

    #[tokio::test]
    async fn it_rings_not_before_its_moment_and_again_when_set_again() {
        let mut alarm = Alarm::new();
        for _ in 0..2 {
            let moment = clock::now().after(Span(50));
            timeout(LONG, alarm.rings_at(Some(moment))).await.unwrap();
            assert!(clock::now() >= moment);
        }
    }

    #[tokio::test]
    async fn a_moment_that_has_passed_rings_at_once() {
        let mut alarm = Alarm::new();
        timeout(LONG, alarm.rings_at(Some(Moment(0)))).await.unwrap();
        timeout(LONG, alarm.rings_at(Some(Moment(0)))).await.unwrap();
    }

    #[tokio::test]
    async fn a_wait_given_up_is_taken_up_again_and_another_moment_replaces_it() {
        let mut alarm = Alarm::new();
        let soon = clock::now().after(Span(200));
        assert!(timeout(SHORT, alarm.rings_at(Some(soon))).await.is_err());
        timeout(LONG, alarm.rings_at(Some(soon))).await.unwrap();
        assert!(clock::now() >= soon);
        assert!(timeout(SHORT, alarm.rings_at(Some(clock::now().after(Span(1))))).await.is_ok());
        let late = clock::now().after(Span::minutes(9));
        assert!(timeout(SHORT, alarm.rings_at(Some(late))).await.is_err());
        assert!(timeout(SHORT, alarm.rings_at(None)).await.is_err());
    }
}
