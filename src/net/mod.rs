//! QUIC endpoints, identity and pinned keys, framing: it moves bytes and names the key that sent them.
//!
//! Invariants: every connection is TLS 1.3 and its server has proved an Ed25519 key; a connection between processes
//! has proved one at both ends; a frame is allocated only as its bytes arrive. Nothing here trusts a certificate's
//! dates, names or issuer: [`identity`] makes a fresh self-signed certificate at every start, and only the key counts.
//! What a key may do is decided by the caller from [`Link::alpn`] and [`Link::peer_key`].
//!
//! A [`Link`] is one connection. The dialing side's handshake ends before the other side has looked at its key, so a
//! peer counts as up only when its `Hello` has come. Tests stand in `tests.rs`.

pub mod certs;
pub mod close;
pub mod endpoint;
pub mod framing;
pub mod identity;
pub mod link;
mod socket;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

pub use certs::{CertBook, CertError, Refreshed};
pub use close::{CloseCode, LinkEnd};
pub use endpoint::{ClientEndpoint, DialError, NodeEndpoint};
pub use framing::{FrameReader, FrameSender, FrameWriter, ReadError, SendError, WriteError};
pub use identity::{Identity, IdentityError};
pub use link::{Alpn, DatagramError, Link, OpenError};
pub use socket::BindError;

pub use quinn::{RecvStream, SendStream};
