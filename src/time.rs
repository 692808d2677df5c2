//! Time as an argument: the core and the service read no clock.
//!
//! `Instant` is a newtype over microseconds because std's cannot be built from a number, and the simulator's clock
//! starts at zero. `Hlc` is the hybrid logical clock of Kulkarni et al. (2014): wall microseconds in the upper 52
//! bits, a counter in the lower 12, so that stamps stay close to the time that people see and never fall.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Monotonic time in microseconds since an arbitrary start (of the process, or of the simulation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Instant(u64);

impl Instant {
    /// From microseconds since the start.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the start.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time that has passed since `earlier`; zero if it is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// A time that is measured again and again: its mean and deviation, as TCP estimates its round trips (Jacobson 1988,
/// RFC 6298), in whole microseconds: no floats in decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    mean_us: u64,
    deviation_us: u64,
}

impl Estimate {
    /// From one measurement, or from what is expected.
    pub fn new(first: Duration) -> Self {
        let mean_us = whole_micros(first);
        Self { mean_us, deviation_us: mean_us / 2 }
    }

    /// It was measured again.
    pub fn measure(&mut self, measured: Duration) {
        let measured_us = whole_micros(measured);
        let error_us = measured_us.abs_diff(self.mean_us);
        self.deviation_us = (self.deviation_us * 3 + error_us) / 4;
        self.mean_us = (self.mean_us * 7 + measured_us) / 8;
    }

    /// It was at most this: that tells something if it is below the mean, and nothing of its deviation but that it may
    /// be smaller.
    pub fn bound(&mut self, most: Duration) {
        let most_us = whole_micros(most);
        if let Some(error_us) = self.mean_us.checked_sub(most_us) {
            self.deviation_us = (self.deviation_us * 3 + error_us.min(self.deviation_us)) / 4;
            self.mean_us = (self.mean_us * 7 + most_us) / 8;
        }
    }

    /// So many deviations above the mean.
    pub fn above(self, deviations: u64) -> Duration {
        Duration::from_micros(self.mean_us.saturating_add(deviations.saturating_mul(self.deviation_us)))
    }
}

/// Far more than any limit, and small enough to be added up.
const MICROS_MAX: u64 = u32::MAX as u64;

fn whole_micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).map_or(MICROS_MAX, |micros| micros.min(MICROS_MAX))
}

/// Wall time in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Wall(pub u64);

/// Both clocks, read once by the shell for each input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For timeouts.
    pub mono: Instant,
    /// For stamps.
    pub wall: Wall,
}

/// A hybrid logical clock: the first half of a stamp.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Hlc(pub u64);

/// The bits of the counter below the microseconds.
const COUNTER_BITS: u32 = 12;

impl Hlc {
    /// Before all stamps.
    pub const ZERO: Self = Self(0);

    /// The smallest stamp at this wall time.
    pub const fn at(wall: Wall) -> Self {
        Self(wall.0 << COUNTER_BITS)
    }

    /// The stamp of a new entry: above this one, and not below the wall. (At the end of time it stands still: others'
    /// clocks come in with their messages, and none of them may end a process.)
    #[must_use]
    pub fn tick(self, wall: Wall) -> Self {
        Self(self.0.saturating_add(1)).max(Self::at(wall))
    }

    /// The time that people are shown.
    pub const fn wall(self) -> Wall {
        Wall(self.0 >> COUNTER_BITS)
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.wall().0, self.0 & ((1 << COUNTER_BITS) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_falls_back_never_takes_stamps_with_it() {
        let first = Hlc::ZERO.tick(Wall(1_000));
        let second = first.tick(Wall(10));
        assert!(second > first);
        assert_eq!(second.wall(), Wall(1_000));
        assert_eq!(second.tick(Wall(2_000)), Hlc::at(Wall(2_000)));
    }

    #[test]
    fn an_estimate_follows_what_is_measured_and_what_only_bounds_it_lowers_it() {
        let ms = Duration::from_millis;
        let mut way = Estimate::new(ms(2));
        way.bound(ms(500));
        assert_eq!(way, Estimate::new(ms(2)), "it says nothing");
        way.measure(ms(200));
        assert!(way.above(4) > ms(200), "a single long one is seen: {way:?}");
        for _ in 0..50 {
            way.measure(ms(200));
        }
        assert!(way.above(4) > ms(195) && way.above(4) < ms(210), "{way:?}");
        for _ in 0..50 {
            let before = way.above(4);
            way.bound(ms(2));
            assert!(way.above(4) <= before, "{way:?}");
        }
        assert!(way.above(4) < ms(10), "{way:?}");
    }
}
