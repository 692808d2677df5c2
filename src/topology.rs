//! The topology: who is in the cluster, parsed and checked once. No I/O: it parses a `&str`.
//!
//! Invariants of a [`Topology`]: 1 to `HOSTS_MAX` hosts of 1 to `HOST_PROCESSES_MAX` processes; every host's name,
//! process's id and address is there once. [`Topology::parse`] is the only way from text, and refuses everything else
//! with file, line and reason; its tests stand beside it.

mod parse;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{HostId, ProcessId};

pub use parse::TopologyError;

/// What a process is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Tells clients where to go.
    Master,
    /// Takes writes.
    Worker,
    /// Moves its host's log to the others.
    Connector,
}

/// How many copies a write waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckLevel {
    /// Fsynced on this host.
    Host,
    /// And on one more.
    #[default]
    Peer,
    /// On every host of the topology.
    All,
}

/// One process of the topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSpec {
    /// Its id, unique in the cluster.
    pub id: ProcessId,
    /// The host that it belongs to.
    pub host: HostId,
    /// What it is meant for.
    pub role: Role,
    /// Its UDP address.
    pub addr: SocketAddr,
}

/// One host of the topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// Its name, unique in the cluster.
    pub id: HostId,
    /// Its processes, in the order of the file; never empty.
    pub processes: Vec<ProcessSpec>,
}

/// A checked topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The cluster's name.
    pub cluster: String,
    /// Its hosts, in the order of the file; never empty.
    pub hosts: Vec<HostSpec>,
    /// The data folder, relative to the file; one folder below it for each host.
    pub data: PathBuf,
    /// The folder of public identities, relative to the file.
    pub certs: PathBuf,
    /// What writes wait for unless a request says otherwise.
    pub ack: AckLevel,
    /// Entries of each origin that a host keeps in its log even when every host has them.
    pub log_entries_kept: u64,
    /// Entries of an origin above which the log is cut although a host may lack them (it then takes a snapshot).
    pub log_entries_max: u64,
    /// Which posts are kept.
    pub posts: PostsKept,
}

/// Which posts are kept: all, unless an age or a count says otherwise; with both, those within both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PostsKept {
    /// Older ones are removed.
    pub max_age: Option<Duration>,
    /// Of more, the oldest are removed.
    pub max_count: Option<u64>,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Master => "master",
            Self::Worker => "worker",
            Self::Connector => "connector",
        })
    }
}

impl std::fmt::Display for AckLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Host => "host",
            Self::Peer => "peer",
            Self::All => "all",
        })
    }
}

impl Topology {
    /// A hash of what every host must agree on. The folders are left out: each machine may keep them elsewhere. So is
    /// the order of hosts and processes, which means nothing.
    pub fn hash(&self) -> u32 {
        let mut processes: Vec<_> =
            self.processes().map(|process| (process.host, process.id, process.role, process.addr)).collect();
        processes.sort_unstable();
        let meaning = (&self.cluster, self.ack, self.log_entries_kept, self.log_entries_max, processes);
        let mut bytes = postcard::to_stdvec(&meaning).unwrap_or_default();
        // A file that says nothing of posts has the hash that it had before anything could be said.
        if self.posts != PostsKept::default() {
            bytes.extend(postcard::to_stdvec(&self.posts).unwrap_or_default());
        }
        let mut first = [0; 4];
        first.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..4]);
        u32::from_le_bytes(first)
    }

    /// The host of this name.
    pub fn host(&self, id: HostId) -> Option<&HostSpec> {
        self.hosts.iter().find(|host| host.id == id)
    }

    /// The process with this id.
    pub fn process(&self, id: ProcessId) -> Option<&ProcessSpec> {
        self.processes().find(|process| process.id == id)
    }

    /// Every process, in the order of the file.
    pub fn processes(&self) -> impl Iterator<Item = &ProcessSpec> {
        self.hosts.iter().flat_map(|host| host.processes.iter())
    }

    /// Whether any process is a master: if none is, any process directs.
    pub fn has_masters(&self) -> bool {
        self.processes().any(|process| process.role == Role::Master)
    }
}
