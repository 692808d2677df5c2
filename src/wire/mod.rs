//! What crosses between processes, and between processes and clients: messages, frames, versions.
//!
//! Frames are a four-byte big-endian length and postcard bytes ([`frame`]). Entries cross as the service's canonical
//! bytes and are never re-encoded here. A message never changes once released: a new form is a new variant at the end
//! of its enum, sent only to those whose `Hello` knows its version. Each kind of message tells since which version there
//! is such a variant (`since`): the node asks that of a receiver before it sends, and the border checks it both ways, as
//! a build of that version would. Golden bytes in the tests guard every variant.

pub mod client;
pub mod frame;
pub mod heartbeat;
pub mod peer;
pub mod report;

#[cfg(test)]
mod golden;

use serde::{Deserialize, Serialize};

/// The wire version of this build.
pub const VERSION: u16 = 3;
/// The oldest wire version that this build understands.
pub const VERSION_OLDEST: u16 = 1;
/// Since this version hosts report on themselves ([`report`]) and compare digests of their logs.
pub const REPORTS: u16 = 2;
/// Since this version entries may say where an origin ends ([`crate::service::retired`]), and vectors name it no longer.
pub const RETIREMENTS: u16 = 3;
/// The ALPN of connections between processes.
pub const ALPN_PEER: &[u8] = b"gaggle-peer/1";
/// The ALPN of clients' connections.
pub const ALPN_CLIENT: &[u8] = b"gaggle-client/1";

/// The range of versions that one side understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

impl Versions {
    /// What this build understands.
    pub const OURS: Self = Self { oldest: VERSION_OLDEST, newest: VERSION };

    /// What an older build understands, or this one while it is told to write nothing newer.
    pub fn upto(newest: u16) -> Self {
        Self { newest: newest.clamp(VERSION_OLDEST, VERSION), ..Self::OURS }
    }

    /// Whether a form that there is since this version is understood.
    pub fn knows(self, since: u16) -> bool {
        since <= self.newest
    }

    /// The newest version that both sides understand.
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}
