//! Starts the processes of some hosts as children of this one, and starts them again when they ask for it.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::id::{HostId, ProcessId};
use crate::topology::Topology;

/// What `gaggle up` starts.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// The topology's file, handed to the children.
    pub topology_path: PathBuf,
    /// The same, parsed.
    pub topology: Topology,
    /// Whose processes are started; all hosts' if empty.
    pub hosts: Vec<HostId>,
}

/// What happens to the children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildEvent {
    /// It was started.
    Started {
        /// Which.
        id: ProcessId,
        /// Its operating system's number.
        pid: u32,
    },
    /// It ended.
    Died {
        /// Which.
        id: ProcessId,
        /// How: `exit status: 0`, `signal: 9 (SIGKILL)`.
        how: String,
    },
    /// It will be started again after this pause.
    Restarting {
        /// Which.
        id: ProcessId,
        /// The pause.
        after: Duration,
    },
    /// A line that it logged. Dropped rather than waited for when nobody takes it.
    Line {
        /// Which.
        id: ProcessId,
        /// Without the line's end.
        text: String,
    },
    /// It could not start at all (ports taken, a broken folder): everything is being stopped. The last event.
    Failed {
        /// Which.
        id: ProcessId,
        /// Its own words.
        message: String,
    },
}

/// Owns the children; they end with it.
#[derive(Debug)]
pub struct Supervisor {}

impl Supervisor {
    /// Starts the children from a thread of its own and returns at once; the receiver tells what becomes of them.
    pub fn start(options: UpOptions) -> std::io::Result<(Self, mpsc::Receiver<ChildEvent>)> {
        let _ = options;
        unimplemented!()
    }

    /// SIGTERM to all, three seconds, SIGKILL; returns when none is left.
    pub async fn stop(self) {
        unimplemented!()
    }
}
