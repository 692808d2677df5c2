//! The topology: who is in the cluster, parsed and checked once. No I/O: it parses a `&str`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::{HostId, ProcessId};

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
    /// Entries that each host keeps in its log even when every host has them.
    pub log_entries_kept: u64,
    /// Entries above which the log is cut although a host may lack them (it then takes a snapshot).
    pub log_entries_max: u64,
}

impl Topology {
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
