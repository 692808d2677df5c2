//! What a host tells of itself besides its record: since version 2, on streams, as a heartbeat has no room for more.

use serde::{Deserialize, Serialize};

use crate::id::{EntryId, HostId};
use crate::time::Hlc;
use crate::wire::client::ClusterStatus;

/// Two hosts whose logs differ, though they should hold the same entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    /// The last entry of the block whose digests differ.
    pub upto: EntryId,
    /// The host that holds other entries there than the one that tells.
    pub with: HostId,
}

/// What a host's primary tells of its host; its relay passes it on to the other hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// Which host.
    pub host: HostId,
    /// A newer report of a host replaces an older one.
    pub at: Hlc,
    /// The newest wire version that every process of the host understands, as far as they are up.
    pub wire: u16,
    /// Posts of an earlier time are not kept.
    pub trim: Hlc,
    /// Where its log differs from others'.
    pub differing: Vec<Difference>,
}

/// The whole cluster as one process knows it, with what hosts report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// What version 1 told.
    pub status: ClusterStatus,
    /// Of each host that has reported, the newest.
    pub hosts: Vec<HostReport>,
}
