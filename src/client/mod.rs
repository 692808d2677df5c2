//! The client library: a session that keeps every request until it is answered, and a QUIC shell around it.
//!
//! [`session`] is pure and decides everything: whom to ask for an assignment, where to connect, when a server is too
//! silent, what to ask again. The shell dials, reads and writes, and decides nothing. [`Client`] is what programs use.
//!
//! Invariants: a request keeps its id until its caller has an answer; an answer is given once; the token never falls,
//! and names what an answer took into account before the caller sees that answer; a feed tells no post twice and
//! leaves none out. The session's tests stand in `session/tests.rs`, the shell's in `tests.rs`. What the requests mean
//! is the service's business, and where profiles live the command line's.

mod error;
mod handle;
mod options;
pub mod session;
mod shell;
mod streams;
#[cfg(test)]
mod tests;

pub use error::ClientError;
pub use handle::{Client, Feed, Me, Notices, TimelinePage, TimelineRequest, new_request_id};
pub use options::{ClientOptions, Entrance, Standby};
pub use session::Notice;

// What this interface is spoken in: its callers need no other room.
pub use crate::net::certs::CertBook;
pub use crate::net::{Identity, IdentityError};
pub use crate::service::entry::Stamp;
pub use crate::service::intake::WriteOp;
pub use crate::service::query::{ListPart, ShownPost};
pub use crate::wire::client::{ClusterStatus, HostStatus, ProcessStatus, Written};
pub use crate::wire::heartbeat::{Duty, Life};
pub use crate::wire::report::{ClusterReport, HostReport};
