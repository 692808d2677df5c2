//! What a client decides, as a pure state machine.

use std::net::SocketAddr;

use crate::client::error::ClientError;
use crate::id::{EntryId, HostId, ProcessId, Vector};
use crate::service::query::ShownPost;
use crate::time::Instant;
use crate::wire::client::{ClientFrame, FeedFrame, RequestBody, Response, ServerFrame};

/// A connection, numbered by the session; numbers are not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId(pub u64);
/// A caller's request, numbered by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);
/// A caller's feed, numbered by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedKey(pub u64);
/// One of the streams that a feed has had, numbered by the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// What a person may want to know, while requests go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The server is silent or gone; another way is looked for.
    Reconnecting,
    /// Another process answers now.
    Moved {
        /// Of which host.
        host: HostId,
        /// Which.
        process: ProcessId,
    },
    /// What this person has seen, and no host in reach holds: origin, and the first and last seq.
    Missing {
        /// Each run of entries.
        gaps: Vec<(EntryId, EntryId)>,
    },
}
