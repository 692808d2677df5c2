//! One connection, and the key that the other side has proved.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, RecvStream, SendDatagramError, SendStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::id::PublicKey;
use crate::limits;
use crate::net::close::{CloseCode, LinkEnd};
use crate::wire::{ALPN_CLIENT, ALPN_PEER};

/// What kind of conversation was agreed on in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alpn {
    /// Between processes; both sides have proved a key.
    Peer,
    /// A client's; the client may be anonymous.
    Client,
}

impl Alpn {
    /// The name in the handshake.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Peer => ALPN_PEER,
            Self::Client => ALPN_CLIENT,
        }
    }
}

/// A datagram that was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// It is over the limit of heartbeats: our own mistake.
    #[error("a datagram of {length} bytes is over the limit of {max}")]
    TooLong {
        /// Its bytes.
        length: usize,
        /// What is allowed, or what fits this path.
        max: usize,
    },
    /// The other side does not take datagrams.
    #[error("the other side does not take datagrams")]
    Unsupported,
    /// The connection has ended.
    #[error("the connection has ended: {0}")]
    Ended(LinkEnd),
}

/// A stream that could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The other side has not allowed one more stream for [`limits::STREAM_WAIT`].
    #[error("no stream could be opened in {:?}", limits::STREAM_WAIT)]
    Silence,
    /// The connection has ended.
    #[error("the connection has ended: {0}")]
    Ended(#[from] LinkEnd),
}

/// One established connection. Clones share it; it stays open until it is closed or the last clone (and stream) is gone.
#[derive(Debug, Clone)]
pub struct Link {
    connection: Connection,
    alpn: Alpn,
    peer_key: Option<PublicKey>,
    /// Held by accepted clients' connections, which are counted.
    _room: Option<Arc<OwnedSemaphorePermit>>,
}

impl Link {
    pub(crate) fn new(connection: Connection, alpn: Alpn, peer_key: Option<PublicKey>) -> Self {
        Self { connection, alpn, peer_key, _room: None }
    }

    pub(crate) fn with_room(mut self, room: OwnedSemaphorePermit) -> Self {
        self._room = Some(Arc::new(room));
        self
    }

    /// What was agreed on.
    pub fn alpn(&self) -> Alpn {
        self.alpn
    }

    /// The key that the other side has proved; none for an anonymous client.
    pub fn peer_key(&self) -> Option<PublicKey> {
        self.peer_key
    }

    /// Where the other side is; it may move.
    pub fn remote_addr(&self) -> SocketAddr {
        let addr = self.connection.remote_address();
        SocketAddr::new(addr.ip().to_canonical(), addr.port())
    }

    /// The estimated round-trip time.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// A number that no other living connection of this endpoint has.
    pub fn number(&self) -> usize {
        self.connection.stable_id()
    }

    /// Opens a stream with two directions. The other side learns of it with the first bytes written.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), OpenError> {
        match timeout(limits::STREAM_WAIT, self.connection.open_bi()).await {
            Ok(opened) => opened.map_err(|error| OpenError::Ended(error.into())),
            Err(_) => Err(OpenError::Silence),
        }
    }

    /// Opens a stream from here to there.
    pub async fn open_uni(&self) -> Result<SendStream, OpenError> {
        match timeout(limits::STREAM_WAIT, self.connection.open_uni()).await {
            Ok(opened) => opened.map_err(|error| OpenError::Ended(error.into())),
            Err(_) => Err(OpenError::Silence),
        }
    }

    /// The next stream with two directions that the other side opens. Waits without limit; cancel-safe.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), LinkEnd> {
        self.connection.accept_bi().await.map_err(LinkEnd::from)
    }

    /// The next stream from there to here. Waits without limit; cancel-safe.
    pub async fn accept_uni(&self) -> Result<RecvStream, LinkEnd> {
        self.connection.accept_uni().await.map_err(LinkEnd::from)
    }

    /// Sends a heartbeat, at most [`limits::HEARTBEAT_BYTES_MAX`] long; never waits. When the buffer is full, the
    /// oldest unsent datagram makes room: an old heartbeat is worth less than a new one.
    pub fn send_datagram(&self, bytes: Vec<u8>) -> Result<(), DatagramError> {
        let length = bytes.len();
        let fits = self.connection.max_datagram_size().unwrap_or(limits::HEARTBEAT_BYTES_MAX);
        let max = fits.min(limits::HEARTBEAT_BYTES_MAX);
        if length > max {
            return Err(DatagramError::TooLong { length, max });
        }
        self.connection.send_datagram(bytes.into()).map_err(|error| match error {
            SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => DatagramError::Unsupported,
            SendDatagramError::TooLarge => DatagramError::TooLong { length, max },
            SendDatagramError::ConnectionLost(error) => DatagramError::Ended(error.into()),
        })
    }

    /// The next datagram. Waits without limit; cancel-safe. Check its length before decoding.
    pub async fn read_datagram(&self) -> Result<Vec<u8>, LinkEnd> {
        self.connection.read_datagram().await.map(Vec::from).map_err(LinkEnd::from)
    }

    /// Closes at once; what was not yet sent is dropped.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.connection.close(code.into(), reason.as_bytes());
    }

    /// Waits for the end and says how it came.
    pub async fn closed(&self) -> LinkEnd {
        self.connection.closed().await.into()
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<LinkEnd> {
        self.connection.close_reason().map(LinkEnd::from)
    }

    /// Bytes that only the two ends of this very connection know: what a person signs to prove a key over it.
    pub fn binding(&self, label: &[u8]) -> Option<[u8; 32]> {
        let mut bytes = [0; 32];
        self.connection.export_keying_material(&mut bytes, label, b"").ok().map(|()| bytes)
    }
}
