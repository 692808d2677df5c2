//! The one place where this room reads the clocks.

use std::time::{Duration, SystemTime};

use tokio::time::Instant as TokioInstant;

use crate::time::{Instant, Now, Wall};

/// Turns the machine's clocks into the plain words' clocks. The monotonic one starts at zero with the process;
/// it is tokio's, and so the machine's, unless a test holds tokio's in its hand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: TokioInstant,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self { start: TokioInstant::now() }
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
    pub(crate) fn tokio_now(&self) -> TokioInstant {
        self.tokio(self.now().mono)
    }

    /// The moment in the async runtime's words.
    pub(crate) fn tokio(&self, at: Instant) -> TokioInstant {
        self.start + Duration::from_micros(at.as_micros())
    }
}

/// Whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
