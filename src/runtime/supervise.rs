//! Starts the processes of some hosts as children of this one, and starts them again when they ask for it.
//!
//! The primary of each host decides about restarts and says so in a line on its standard output; this room carries it
//! out. Only when nobody of a host lives to decide does it act by itself. One thread owns everything here: the kernel
//! sends the parent-death signal when the *thread* that started a child ends, so that thread lives as long as they do.

mod family;
mod talk;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::id::{HostId, ProcessId};
use crate::topology::Topology;
use family::Family;

pub(crate) use talk::{PARENT, SUPERVISED, Wish};

/// Events that wait for whoever started us; log lines above this are dropped.
const EVENTS_WAITING_MAX: usize = 4_096;
/// How long children have to say goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

/// What `gaggle up` starts.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// The topology's file, handed to the children.
    pub topology_path: PathBuf,
    /// The same, parsed.
    pub topology: Topology,
    /// Whose processes are started; all hosts' if empty.
    pub hosts: Vec<HostId>,
    /// Words before the command of a host's processes (`nsenter ...`), which give it a place of its own on this machine.
    /// They must become the process, not start it: its pid, and whose child it is, have to stay.
    pub before: BTreeMap<HostId, Vec<OsString>>,
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
    /// It has its port and its store.
    Ready {
        /// Which.
        id: ProcessId,
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
        /// Its exit status, if it came that far.
        status: Option<i32>,
        /// Its own words.
        message: String,
    },
}

/// What a drill does to children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Continue,
}

/// A blow for some children, and who waits for it.
#[derive(Debug)]
struct Strike {
    ids: Vec<ProcessId>,
    blow: Blow,
    struck: oneshot::Sender<std::io::Result<()>>,
}

/// Owns the children; they end with it.
#[derive(Debug)]
pub struct Supervisor {
    stop: oneshot::Sender<()>,
    strikes: mpsc::Sender<Strike>,
    stopped: oneshot::Receiver<()>,
}

impl Supervisor {
    /// Starts the children from a thread of its own and returns at once; the receiver tells what becomes of them.
    pub fn start(options: UpOptions) -> std::io::Result<(Self, mpsc::Receiver<ChildEvent>)> {
        Self::start_program(std::env::current_exe()?, options)
    }

    /// As `start`, with another program than this one.
    fn start_program(program: PathBuf, options: UpOptions) -> std::io::Result<(Self, mpsc::Receiver<ChildEvent>)> {
        let (events, inbox) = mpsc::channel(EVENTS_WAITING_MAX);
        let (stop, stop_wanted) = oneshot::channel();
        let (strikes, struck) = mpsc::channel(1);
        let (done, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("supervisor".into()).spawn(move || {
            runtime.block_on(Family::new(program, &options, events).run(stop_wanted, struck));
            let _ = done.send(());
        })?;
        Ok((Self { stop, strikes, stopped }, inbox))
    }

    /// Does this to some children, and to nobody else: a signal goes through the pidfd that was opened when the child
    /// was started. One that has ended is an error.
    pub async fn strike(&self, ids: Vec<ProcessId>, blow: Blow) -> std::io::Result<()> {
        let (struck, done) = oneshot::channel();
        let gone = || std::io::Error::other("the supervisor has ended");
        self.strikes.send(Strike { ids, blow, struck }).await.map_err(|_| gone())?;
        done.await.map_err(|_| gone())?
    }

    /// SIGTERM to all, three seconds, SIGKILL; returns when none is left.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        // An error means that the thread is gone, and the kernel has ended the children with it.
        let _ = self.stopped.await;
    }
}

#[cfg(test)]
mod tests;
