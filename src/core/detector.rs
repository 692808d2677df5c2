//! The detector of a link between hosts: silence is judged against the link's own mean and deviation.
//!
//! A wrong suspicion costs milliseconds, never data, so the bound may be tight; the floor keeps the gaps of a loaded machine
//! (150 ms are normal) from looking like deaths. Inside a host the kernel tells of deaths, and this is not used. Tests
//! stand below; the simulator shows what wrong suspicions cost.

use std::time::Duration;

use crate::limits;
use crate::time::{Estimate, Instant};

/// How one other host sounds.
#[derive(Debug, Clone)]
pub(crate) struct Detector {
    heard_at: Instant,
    gap: Estimate,
}

impl Detector {
    /// A link that was heard just now and is expected to be as regular as its interval.
    pub(crate) fn new(now: Instant, interval: Duration) -> Self {
        Self { heard_at: now, gap: Estimate::new(interval) }
    }

    /// A heartbeat came.
    pub(crate) fn on_heard(&mut self, now: Instant) {
        self.gap.measure(now.since(self.heard_at).min(limits::HOST_SILENCE_CEILING));
        self.heard_at = now;
    }

    /// Something else than a heartbeat came: it says that the other side lives, and nothing about its rhythm.
    pub(crate) fn on_sign_of_life(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// The listener itself was away: the gap says nothing about the link.
    pub(crate) fn on_own_pause(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// Longer silence than this is a death.
    pub(crate) fn patience(&self) -> Duration {
        self.gap.above(6).clamp(limits::HOST_SILENCE_FLOOR, limits::HOST_SILENCE_CEILING)
    }

    /// When the silence becomes suspicious, if nothing is heard until then.
    pub(crate) fn suspect_at(&self) -> Instant {
        self.heard_at + self.patience()
    }

    /// Whether the silence is suspicious.
    pub(crate) fn suspects(&self, now: Instant) -> bool {
        now >= self.suspect_at()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_millis(25);

    #[test]
    fn a_regular_link_is_suspected_at_the_floor() {
        let mut now = Instant::from_micros(0);
        let mut link = Detector::new(now, BEAT);
        for _ in 0..100 {
            now = now + BEAT;
            assert!(!link.suspects(now));
            link.on_heard(now);
        }
        assert_eq!(link.patience(), limits::HOST_SILENCE_FLOOR);
        assert!(!link.suspects(now + limits::HOST_SILENCE_FLOOR - Duration::from_micros(1)));
        assert!(link.suspects(now + limits::HOST_SILENCE_FLOOR));
    }

    #[test]
    fn an_irregular_link_is_given_more_time_and_earns_the_floor_back() {
        let mut now = Instant::from_micros(0);
        let mut link = Detector::new(now, BEAT);
        for turn in 0..40_u64 {
            now = now + Duration::from_millis(if turn % 4 == 0 { 140 } else { 10 });
            link.on_heard(now);
        }
        assert!(link.patience() > limits::HOST_SILENCE_FLOOR, "{:?}", link.patience());
        for _ in 0..200 {
            now = now + BEAT;
            link.on_heard(now);
        }
        assert_eq!(link.patience(), limits::HOST_SILENCE_FLOOR);
    }
}
