//! The clock: milliseconds that never run backwards and count sleep where the system can tell.

use crate::units::Moment;

/// Returns the present moment.
#[cfg(target_os = "linux")]
pub fn now() -> Moment {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let millis = u64::try_from(time.tv_nsec / 1_000_000).unwrap_or(0);
    Moment(seconds.saturating_mul(1_000).saturating_add(millis))
}

/// Returns the present moment.
#[cfg(not(target_os = "linux"))]
pub fn now() -> Moment {
    use std::sync::OnceLock;
    use std::time::Instant;

    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    Moment(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_passes_and_never_runs_backwards() {
        let first = super::now();
        std::thread::sleep(std::time::Duration::from_millis(5));
        let second = super::now();
        assert!(second > first, "{second:?} is not after {first:?}");
    }
}
