//! Heartbeats (datagrams of at most 1,000 bytes) and the status of a host that they spread.

use serde::{Deserialize, Serialize};

use crate::id::{Digest, Epoch, HostId, ProcessId, Vector};
use crate::time::{Hlc, Wall};

/// What a process may be elected for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Duty {
    /// Tell clients where to go.
    Direct,
    /// Be the host's primary: take writes.
    Serve,
    /// Move the host's log to others.
    Relay,
}

/// What a neighbour is known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Life {
    /// It runs.
    Up,
    /// It was stopped (SIGSTOP) and may go on.
    Stopped,
    /// It died.
    Dead,
    /// It said goodbye, and is not to be restarted.
    Left,
}

/// One process in its host's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Which.
    pub id: ProcessId,
    /// How it is.
    pub life: Life,
    /// Its operating system's number; 0 if unknown.
    pub pid: u32,
}

/// Whether a primary can do for clients what they ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fitness {
    /// It can.
    Ready,
    /// It lacks entries that other hosts have, and is fetching them.
    CatchingUp,
    /// It had no room when it last tried to write.
    DiskFull,
}

/// The status of a host, as its relay composes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Which host.
    pub host: HostId,
    /// A newer record of a host replaces an older one.
    pub version: Hlc,
    /// The author's wall clock, to compare clocks.
    pub wall: Wall,
    /// The primary.
    pub serving: Option<ProcessId>,
    /// The relay.
    pub relaying: Option<ProcessId>,
    /// The director, if it is of this host.
    pub directing: Option<ProcessId>,
    /// The primary's epoch.
    pub epoch: Epoch,
    /// Whether clients may be sent to the primary.
    pub fitness: Fitness,
    /// Clients logged in.
    pub sessions: u32,
    /// What the host holds durably.
    pub vector: Vector,
    /// The digest at that vector.
    pub digest: Digest,
    /// Entries that it ever applied.
    pub entries: u64,
    /// Bytes of its store.
    pub disk_bytes: u64,
    /// A hash of the topology file that the author has read.
    pub topology: u32,
    /// Its processes.
    pub processes: Vec<ProcessRecord>,
}

/// What a primary tells its siblings of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimaryStatus {
    /// Its epoch.
    pub epoch: Epoch,
    /// Whether clients may be sent to it.
    pub fitness: Fitness,
    /// Clients logged in.
    pub sessions: u32,
    /// What it holds durably.
    pub vector: Vector,
    /// The digest at that vector.
    pub digest: Digest,
    /// Entries that its host ever applied.
    pub entries: u64,
    /// Bytes of its store.
    pub disk_bytes: u64,
}

/// What a host's relay knows of a host, its own or another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// The newest record.
    pub record: HostRecord,
    /// Whether its relay is heard of.
    pub up: bool,
}

/// One heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Drawn at random when the sender started, so that a restart is seen.
    pub run: u64,
    /// The sender's clock.
    pub hlc: Hlc,
    /// The duties that the sender holds.
    pub duties: Vec<Duty>,
    /// The sender's epoch, if it serves; the newest that it knows, otherwise.
    pub epoch: Epoch,
    /// The sender knows that its host has not been down since the store's incarnation was settled.
    pub warm: bool,
    /// Inside a host, from the primary.
    pub primary: Option<PrimaryStatus>,
    /// From a relay: to other relays its own host's record; to its siblings its view of one host in turn.
    pub view: Option<HostView>,
}
