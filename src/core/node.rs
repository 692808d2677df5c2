//! The node: one process's decisions.

use crate::core::io::{Input, Outputs};
use crate::id::{Epoch, HostId, ProcessId};
use crate::time::{Instant, Now};
use crate::topology::Topology;
use crate::wire::heartbeat::Duty;

/// What a node is told at its start.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Who is in the cluster.
    pub topology: Topology,
    /// A hash of the topology file.
    pub topology_hash: u32,
    /// Which process this is.
    pub me: ProcessId,
    /// Drawn at random for this start.
    pub run: u64,
    /// The operating system's number of this process.
    pub pid: u32,
    /// Seeds every choice that the node makes by chance.
    pub seed: u64,
}

/// Plain data about a node, for tests and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Which process.
    pub me: ProcessId,
    /// Its host.
    pub host: HostId,
    /// The duties that it holds.
    pub duties: Vec<Duty>,
    /// Its epoch if it serves, else the newest that it knows.
    pub epoch: Epoch,
}

/// One process's decisions.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
}

impl Node {
    /// A node that knows nothing yet.
    pub fn new(config: NodeConfig, now: Now) -> Self {
        let _ = now;
        Self { config }
    }

    /// Takes an input.
    pub fn handle_input(&mut self, now: Now, input: Input, out: &mut Outputs) {
        let _ = (now, input, out, &self.config);
        unimplemented!()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Outputs) {
        let _ = (now, out);
        unimplemented!()
    }

    /// When something is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        unimplemented!()
    }

    /// What it is doing.
    pub fn snapshot(&self) -> NodeStatus {
        unimplemented!()
    }
}
