//! What a client is told at its start.

use std::net::SocketAddr;
use std::time::Duration;

use crate::id::{HostId, ProcessId, PublicKey, Token};
use crate::net::{ClientEndpoint, Identity};

/// A process that may be asked, with the key that it must prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entrance {
    /// Which.
    pub id: ProcessId,
    /// Where it was when this was written down; an assignment may know better.
    pub addr: SocketAddr,
    /// Its pinned key.
    pub key: PublicKey,
}

/// Whether a second, idle connection is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standby {
    /// One connection for requests.
    #[default]
    None,
    /// Another one to the process that would take over, once the first has been good for a moment: a failover then
    /// costs no handshake.
    Next,
}

/// What a client is told at its start.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Who asks; without one only `status` and `drain` can be asked.
    pub identity: Option<Identity>,
    /// Who may be asked, masters first: in this order they join in.
    pub entrances: Vec<Entrance>,
    /// The director that answered last, asked first.
    pub first: Option<ProcessId>,
    /// Use this host only.
    pub via: Option<HostId>,
    /// What this person has seen in earlier sessions.
    pub token: Token,
    /// How long a call waits for its answer, over however many processes.
    pub timeout: Duration,
    /// Whether a second connection is kept.
    pub standby: Standby,
    /// Shared by many clients of one program; else a socket of its own.
    pub endpoint: Option<ClientEndpoint>,
}

impl ClientOptions {
    /// Options with these ways in and nothing else: anonymous, 30 seconds of patience.
    pub fn new(entrances: Vec<Entrance>) -> Self {
        Self {
            identity: None,
            entrances,
            first: None,
            via: None,
            token: Token::default(),
            timeout: Duration::from_secs(30),
            standby: Standby::None,
            endpoint: None,
        }
    }
}
