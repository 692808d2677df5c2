//! One process of the topology, from its start to its goodbye.

use std::path::PathBuf;

use crate::id::ProcessId;
use crate::topology::Topology;

/// What a process is started with.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Who is in the cluster.
    pub topology: Topology,
    /// The folder that the topology's `data` and `certs` are relative to: the file's own.
    pub base: PathBuf,
    /// Which process this is.
    pub id: ProcessId,
}

/// Why a process did not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The topology has no such process: a usage error.
    #[error("the topology has no process {0}: `gaggle node` takes one of its ids")]
    UnknownProcess(ProcessId),
    /// A process with this id runs already.
    #[error("{id} runs already, as pid {pid}: stop it first")]
    Running {
        /// Which.
        id: ProcessId,
        /// Its operating system's number.
        pid: u32,
    },
    /// Ports, folders, keys or the operating system refused.
    #[error("{0}")]
    Start(String),
    /// It ran, and cannot go on.
    #[error("{0}")]
    Failed(String),
}

impl RunError {
    /// The exit status of the command.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::UnknownProcess(_) => 2,
            Self::Running { .. } | Self::Start(_) | Self::Failed(_) => 1,
        }
    }
}

/// Runs a process of the topology until it said goodbye (SIGTERM) or cannot go on. Blocks; logs to standard error.
pub fn run_node(options: NodeOptions) -> Result<(), RunError> {
    let _ = options;
    unimplemented!()
}
