//! A host's clocks, which run fast or slow and jump.

use gaggle::time::{Instant, Wall};

/// Wall time when a simulation begins.
const WALL_START: u64 = 1_700_000_000_000_000;
/// Parts per million.
const MILLION: i128 = 1_000_000;

/// The clocks of one host. The true time is that of the simulation.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clocks {
    /// The true time when the rate changed last, and what the clocks had counted by then.
    since: (u64, u64),
    /// How much faster than the true time they run, in parts per million; not -1,000,000.
    rate: i64,
    /// Of the wall clock alone.
    offset: i64,
}

impl Clocks {
    /// What the clocks have counted at a true time.
    fn counted(&self, clock: u64) -> u64 {
        let elapsed = clock.saturating_sub(self.since.0);
        if self.rate == 0 {
            // As below, without the division: mostly it is so.
            return self.since.1 + elapsed;
        }
        let elapsed = i128::from(elapsed);
        self.since.1 + u64::try_from(elapsed * (MILLION + i128::from(self.rate)) / MILLION).unwrap_or(0)
    }

    /// The first true time at which the clocks have counted so much.
    fn when(&self, counted: u64) -> u64 {
        let elapsed = counted.saturating_sub(self.since.1);
        if self.rate == 0 {
            return self.since.0 + elapsed;
        }
        let elapsed = i128::from(elapsed);
        let rate = MILLION + i128::from(self.rate);
        self.since.0 + u64::try_from((elapsed * MILLION + rate - 1) / rate).unwrap_or(0)
    }

    pub(crate) fn mono(&self, clock: u64, offset: u64) -> Instant {
        Instant::from_micros(self.counted(clock) + offset)
    }

    /// The true time at which the monotonic clock shows this.
    pub(crate) fn when_mono(&self, mono: Instant, offset: u64) -> u64 {
        self.when(mono.as_micros().saturating_sub(offset))
    }

    pub(crate) fn wall(&self, clock: u64) -> Wall {
        Wall((WALL_START + self.counted(clock)).saturating_add_signed(self.offset))
    }

    /// The wall clock is set to the true time and so much more.
    pub(crate) fn jump(&mut self, offset: i64) {
        self.offset = offset;
    }

    pub(crate) fn run_at(&mut self, rate: i64, clock: u64) {
        self.since = (clock, self.counted(clock));
        self.rate = rate;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_runs_at_its_rates_and_never_back() {
        let mut clocks = Clocks::default();
        assert_eq!(clocks.counted(1_000_000), 1_000_000);
        clocks.run_at(50_000, 1_000_000);
        assert_eq!(clocks.counted(2_000_000), 2_050_000);
        clocks.run_at(-50_000, 2_000_000);
        assert_eq!(clocks.counted(2_000_000), 2_050_000);
        assert_eq!(clocks.counted(3_000_000), 3_000_000);
    }

    #[test]
    fn a_timer_is_never_early() {
        for rate in [-50_000, -500, -1, 0, 1, 499, 50_000] {
            let mut clocks = Clocks::default();
            clocks.run_at(rate, 12_345);
            for counted in (12_345..2_000_000).step_by(7_919) {
                let at = clocks.when(counted);
                assert!(clocks.counted(at) >= counted, "{rate} {counted}");
                assert!(at == 12_345 || clocks.counted(at - 1) < counted, "{rate} {counted}");
            }
        }
    }
}
