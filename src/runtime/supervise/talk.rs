//! What a child says to its supervisor: one JSON object a line on its standard output.

use std::io::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::ProcessId;

/// Set in a child's environment: somebody listens to its standard output.
pub(crate) const SUPERVISED: &str = "GAGGLE_SUPERVISED";
/// Set in a child's environment: the pid of its supervisor, with which it ends.
pub(crate) const PARENT: &str = "GAGGLE_PARENT";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Wish {
    /// A process of my host died: start it again.
    Restart {
        /// Which.
        restart: ProcessId,
        /// How long to wait first.
        after_ms: u64,
    },
    /// I have my port and my store: failures from now on are no failures to start.
    Ready {
        /// Who says so.
        ready: ProcessId,
    },
}

impl Wish {
    /// The wish that `Output::Restart` stands for.
    pub(crate) fn restart(process: ProcessId, after: Duration) -> Self {
        Self::Restart { restart: process, after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Says it. A supervisor that is gone takes us along, so nobody is told that it could not be reached.
    pub(crate) fn say(&self) {
        if let Ok(line) = serde_json::to_string(self) {
            let mut stdout = std::io::stdout().lock();
            let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        }
    }

    /// Understands a line; other lines are nobody's.
    pub(crate) fn hear(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_one_line_of_json() {
        let wish = Wish::restart("W5".parse().unwrap(), Duration::from_millis(100));
        assert_eq!(serde_json::to_string(&wish).unwrap(), r#"{"restart":"W5","after_ms":100}"#);
        assert_eq!(Wish::hear(r#"{"restart":"W5","after_ms":100}"#), Some(wish));
        assert_eq!(Wish::hear(r#"{"ready":"W5"}"#), Some(Wish::Ready { ready: "W5".parse().unwrap() }));
        assert_eq!(Wish::hear("hello"), None);
    }
}
