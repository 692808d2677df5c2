//! The one place where this room reads the clocks.

use std::time::{Duration, SystemTime};

use crate::time::{Instant, Now, Wall};

/// Turns the machine's clocks into the plain words' clocks. The monotonic one starts at zero with the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "the shell's only reading of the monotonic clock")]
    pub(crate) fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// Both clocks.
    #[expect(clippy::disallowed_methods, reason = "the shell's only reading of the wall clock")]
    pub(crate) fn now(&self) -> Now {
        let mono = Instant::from_micros(micros(self.start.elapsed()));
        // A wall clock before 1970 is broken: zero, and the hybrid clock goes on from what it has seen.
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(Wall(0), |age| Wall(micros(age)));
        Now { mono, wall }
    }

    /// The monotonic clock in the async runtime's words.
    pub(crate) fn tokio_now(&self) -> tokio::time::Instant {
        self.tokio(self.now().mono)
    }

    /// The moment in the async runtime's words.
    pub(crate) fn tokio(&self, at: Instant) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + Duration::from_micros(at.as_micros()))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
