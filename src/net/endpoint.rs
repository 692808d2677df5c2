//! One UDP socket: a process's, which accepts and dials, or a client's, which dials for any number of people.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn::crypto::rustls::HandshakeData;
use quinn::{
    AsyncUdpSocket, ClientConfig, ConnectError, Connection, ConnectionError, Endpoint, EndpointConfig, Incoming,
    ServerConfig, TransportConfig,
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::id::PublicKey;
use crate::limits;
use crate::net::close::{CloseCode, LinkEnd};
use crate::net::identity::Identity;
use crate::net::link::{Alpn, Link};
use crate::net::socket::{self, BindError};
use crate::net::{tls, transport};

/// Handshakes under way at most, of those that have proved their address too: each costs a millisecond of CPU, so
/// more than a second's worth is refused at once and tries elsewhere.
const HANDSHAKES_PROVED_MAX: usize = 16 * limits::HANDSHAKES_MAX;
/// Room for processes' own connections, both ways, above the clients'.
const PEER_LINKS_MAX: usize = 2 * limits::HOSTS_MAX * limits::HOST_PROCESSES_MAX;
/// Established connections that wait for [`NodeEndpoint::accept`].
const ACCEPTED_WAITING_MAX: usize = 256;
/// The first eight bytes of a derived secret name this process's connection ids.
const CONNECTION_IDS: &str = "quic connection ids";
const RESETS: &str = "quic stateless resets";
const RETRIES: &str = "quic retry tokens";

/// A connection that did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody answered in time.
    #[error("{addr} does not answer")]
    Silence {
        /// Where.
        addr: SocketAddr,
    },
    /// The other side is not who was expected, or proved nothing.
    #[error("{addr} does not have the expected key: {why}")]
    WrongIdentity {
        /// Where.
        addr: SocketAddr,
        /// What TLS says.
        why: String,
    },
    /// The other side speaks another protocol, or another version of it.
    #[error("{addr} speaks another protocol: {why}")]
    Version {
        /// Where.
        addr: SocketAddr,
        /// What TLS or QUIC says.
        why: String,
    },
    /// The other side has no room now.
    #[error("{addr} is busy")]
    Busy {
        /// Where.
        addr: SocketAddr,
    },
    /// The other side ended the connection before it stood.
    #[error("{addr} refused: {end}")]
    Refused {
        /// Where.
        addr: SocketAddr,
        /// How.
        end: LinkEnd,
    },
    /// This endpoint cannot dial: it is closed, or the address is not one, or the key cannot be used.
    #[error("cannot dial {addr}: {why}")]
    Here {
        /// Where.
        addr: SocketAddr,
        /// Why.
        why: String,
    },
}

/// A process's endpoint. Clones share it; dropping the last ends its accepting.
#[derive(Debug, Clone)]
pub struct NodeEndpoint {
    endpoint: Endpoint,
    identity: Identity,
    accepted: Arc<Mutex<mpsc::Receiver<Link>>>,
    expected: Arc<OnceLock<BTreeSet<SocketAddr>>>,
    _acceptor: Arc<AbortOnDropHandle<()>>,
}

impl NodeEndpoint {
    /// Listens for processes and clients. Needs a tokio runtime.
    pub fn bind(addr: SocketAddr, identity: Identity) -> Result<Self, BindError> {
        Self::over(socket::bind(addr)?, identity)
    }

    /// Listens on a socket that somebody else has made, as a simulated network does. Needs a tokio runtime.
    pub fn over(socket: Arc<dyn AsyncUdpSocket>, identity: Identity) -> Result<Self, BindError> {
        let server = server_config(&identity).map_err(BindError::Tls)?;
        let endpoint = socket::endpoint(socket, endpoint_config(&identity), Some(server))?;
        let (sender, accepted) = mpsc::channel(ACCEPTED_WAITING_MAX);
        let expected = Arc::new(OnceLock::new());
        let accepting = accept_all(endpoint.clone(), sender, Arc::clone(&expected));
        #[expect(clippy::disallowed_methods, reason = "its handle ends it with the endpoint")]
        let acceptor = AbortOnDropHandle::new(tokio::spawn(accepting));
        Ok(Self {
            endpoint,
            identity,
            accepted: Arc::new(Mutex::new(accepted)),
            expected,
            _acceptor: Arc::new(acceptor),
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.endpoint.local_addr().ok()
    }

    /// This process's key.
    pub fn public_key(&self) -> PublicKey {
        self.identity.public_key()
    }

    /// Where other processes listen, and dial from: they are let in when crowds of clients are refused. Only the
    /// first call counts.
    pub fn expect_peers(&self, addrs: impl IntoIterator<Item = SocketAddr>) {
        self.expected.get_or_init(|| addrs.into_iter().collect());
    }

    /// The next established connection; none when the endpoint is closed. Whether its key may do what its ALPN says
    /// is the caller's to decide. Cancel-safe.
    pub async fn accept(&self) -> Option<Link> {
        self.accepted.lock().await.recv().await
    }

    /// Connects to another process, which must have this key.
    pub async fn dial_peer(&self, addr: SocketAddr, pinned: PublicKey) -> Result<Link, DialError> {
        dial(&self.endpoint, addr, Alpn::Peer, Some(pinned), Some(&self.identity)).await
    }

    /// Closes every connection and accepts no more.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.endpoint.close(code.into(), reason.as_bytes());
    }

    /// Waits, but not longer than `wait`, until the other sides know of the end.
    pub async fn wait_closed(&self, wait: Duration) {
        // A side that does not answer learns of the end by a reset or by its own idle time.
        let _ = timeout(wait, self.endpoint.wait_idle()).await;
    }
}

/// A client's endpoint. Clones share it.
#[derive(Debug, Clone)]
pub struct ClientEndpoint {
    endpoint: Endpoint,
}

impl ClientEndpoint {
    /// A socket that reaches both IPv6 and IPv4, or IPv4 alone where there is no IPv6. Needs a tokio runtime.
    pub fn bind() -> Result<Self, BindError> {
        let both = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
        Self::bind_at(both).or_else(|_| Self::bind_at(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)))
    }

    /// A socket at this address.
    pub fn bind_at(addr: SocketAddr) -> Result<Self, BindError> {
        Self::over(socket::bind(addr)?)
    }

    /// Dials from a socket that somebody else has made. Needs a tokio runtime.
    pub fn over(socket: Arc<dyn AsyncUdpSocket>) -> Result<Self, BindError> {
        Ok(Self { endpoint: socket::endpoint(socket, EndpointConfig::default(), None)? })
    }

    /// Connects to a process, which must have the pinned key if one is given, as `identity`, or anonymously.
    pub async fn dial(
        &self,
        addr: SocketAddr,
        pinned: Option<PublicKey>,
        identity: Option<&Identity>,
    ) -> Result<Link, DialError> {
        dial(&self.endpoint, addr, Alpn::Client, pinned, identity).await
    }

    /// Closes every connection.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.endpoint.close(code.into(), reason.as_bytes());
    }

    /// Waits, but not longer than `wait`, until the other sides know of the end.
    pub async fn wait_closed(&self, wait: Duration) {
        // As above: who does not answer learns of it anyhow.
        let _ = timeout(wait, self.endpoint.wait_idle()).await;
    }
}

/// Keys that a restarted process has again: it answers packets of its predecessor's connections with stateless
/// resets, so that their other ends know at once, and not after the idle time, that they must dial anew.
fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let resets = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &identity.derive(RESETS));
    let mut config = EndpointConfig::new(Arc::new(resets));
    let secret = identity.derive(CONNECTION_IDS);
    let ids = secret.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

fn server_config(identity: &Identity) -> Result<ServerConfig, String> {
    let key = identity.certified().map_err(|error| error.to_string())?;
    let tokens = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&identity.derive(RETRIES));
    let mut config = ServerConfig::new(Arc::new(tls::accepting(key)?), Arc::new(tokens));
    config.transport_config(transport::accepting());
    Ok(config)
}

async fn dial(
    endpoint: &Endpoint,
    addr: SocketAddr,
    alpn: Alpn,
    pinned: Option<PublicKey>,
    identity: Option<&Identity>,
) -> Result<Link, DialError> {
    let here = |why: String| DialError::Here { addr, why };
    let key = identity.map(Identity::certified).transpose().map_err(|error| here(error.to_string()))?;
    let crypto = tls::dialing(alpn, pinned, key).map_err(here)?;
    let transport = match alpn {
        Alpn::Peer => transport::peer(),
        Alpn::Client => transport::client(),
    };
    let connection = connect(endpoint, addr, crypto, transport).await?;
    let peer_key = proved_key(&connection);
    Ok(Link::new(connection, alpn, peer_key))
}

pub(crate) async fn connect(
    endpoint: &Endpoint,
    addr: SocketAddr,
    crypto: quinn::crypto::rustls::QuicClientConfig,
    transport: Arc<TransportConfig>,
) -> Result<Connection, DialError> {
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport);
    let connecting = endpoint
        .connect_with(config, addr, tls::SERVER_NAME)
        .map_err(|error: ConnectError| DialError::Here { addr, why: error.to_string() })?;
    match timeout(limits::CONNECT_WAIT, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(dial_error(addr, error)),
        Err(_) => Err(DialError::Silence { addr }),
    }
}

/// TLS alert 120 (RFC 7301), as QUIC carries it (RFC 9001, 4.8).
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;
/// QUIC's own CONNECTION_REFUSED.
const CONNECTION_REFUSED: u64 = 0x2;
/// Any TLS alert.
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;

/// Sorts the ends of a handshake by what the caller can do about them.
fn dial_error(addr: SocketAddr, error: ConnectionError) -> DialError {
    let number = match &error {
        ConnectionError::TransportError(error) => Some(u64::from(error.code)),
        ConnectionError::ConnectionClosed(close) => Some(u64::from(close.error_code)),
        ConnectionError::TimedOut
        | ConnectionError::VersionMismatch
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => None,
    };
    let found_here = matches!(error, ConnectionError::TransportError(_));
    let why = error.to_string();
    match (number, error) {
        (_, ConnectionError::TimedOut) => DialError::Silence { addr },
        (_, ConnectionError::VersionMismatch) | (Some(NO_APPLICATION_PROTOCOL), _) => DialError::Version { addr, why },
        (Some(CONNECTION_REFUSED), _) => DialError::Busy { addr },
        (Some(code), _) if found_here && CRYPTO_ERRORS.contains(&code) => DialError::WrongIdentity { addr, why },
        (_, ConnectionError::LocallyClosed | ConnectionError::CidsExhausted) => DialError::Here { addr, why },
        (_, error) => DialError::Refused { addr, end: error.into() },
    }
}

/// Takes every first packet at once and hands it to a task of its own: nothing here waits for one connection.
async fn accept_all(endpoint: Endpoint, accepted: mpsc::Sender<Link>, expected: Arc<OnceLock<BTreeSet<SocketAddr>>>) {
    let clients = Arc::new(Semaphore::new(limits::CLIENTS_MAX));
    let mut handshakes = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            Some(_) = handshakes.join_next() => continue,
        };
        let Some(incoming) = incoming else { return };
        let load = Load {
            handshakes: handshakes.len(),
            connections: endpoint.open_connections(),
            client_room: clients.available_permits(),
        };
        let addr = incoming.remote_address();
        let origin = match (incoming.may_retry(), expected.get().is_some_and(|expected| expected.contains(&addr))) {
            (true, _) => Origin::Claimed,
            (false, false) => Origin::Proved,
            (false, true) => Origin::Expected,
        };
        match admit(load, origin) {
            Admission::Accept => {
                handshakes.spawn(shake_hands(incoming, Arc::clone(&clients), accepted.clone()));
            }
            // It cannot fail: only what has not proved its address is asked to.
            Admission::Retry => drop(incoming.retry()),
            Admission::Refuse => incoming.refuse(),
        }
    }
}

/// What is going on when a first packet comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) handshakes: usize,
    pub(crate) connections: usize,
    pub(crate) client_room: usize,
}

/// What is known of a first packet's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Anybody may have written it there.
    Claimed,
    /// Shown by an answer to a Retry.
    Proved,
    /// Shown, and a process of the topology listens there.
    Expected,
}

/// What happens to a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Accept,
    Retry,
    Refuse,
}

/// Retry stops a flood of forged addresses; a crowd of true clients is refused above the limits; and a process of the
/// topology comes through both, so that a crowd after a failure does not keep the hosts apart.
pub(crate) fn admit(load: Load, origin: Origin) -> Admission {
    let pressed = load.handshakes >= limits::HANDSHAKES_MAX || load.client_room == 0;
    let full = load.connections >= limits::CLIENTS_MAX + PEER_LINKS_MAX || load.handshakes >= HANDSHAKES_PROVED_MAX;
    match origin {
        Origin::Claimed if pressed || full => Admission::Retry,
        Origin::Proved if full => Admission::Refuse,
        Origin::Claimed | Origin::Proved | Origin::Expected => Admission::Accept,
    }
}

/// One handshake, from the accepting side.
async fn shake_hands(incoming: Incoming, clients: Arc<Semaphore>, accepted: mpsc::Sender<Link>) {
    let addr = incoming.remote_address();
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => return tracing::debug!(%addr, %error, "a first packet was no good"),
    };
    let connection = match timeout(limits::CONNECT_WAIT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%addr, %error, "a handshake failed"),
        Err(_) => return tracing::debug!(%addr, "a handshake took too long"),
    };
    let peer_key = proved_key(&connection);
    let refuse = |code: CloseCode, reason: &str| connection.close(code.into(), reason.as_bytes());
    let link = match agreed_alpn(&connection) {
        Some(Alpn::Peer) if peer_key.is_none() => {
            return refuse(CloseCode::WrongIdentity, "a process must show its key");
        }
        Some(Alpn::Peer) => Link::new(connection, Alpn::Peer, peer_key),
        Some(Alpn::Client) => match clients.try_acquire_owned() {
            Ok(room) => Link::new(connection, Alpn::Client, peer_key).with_room(room),
            Err(_) => return refuse(CloseCode::Busy, "too many clients"),
        },
        None => return refuse(CloseCode::Version, "no protocol was agreed on"),
    };
    // Fails only when the endpoint is gone, and the connection with it.
    let _ = accepted.send(link).await;
}

fn agreed_alpn(connection: &Connection) -> Option<Alpn> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    let name = data.protocol?;
    [Alpn::Peer, Alpn::Client].into_iter().find(|alpn| alpn.name() == name)
}

/// The key that the other side has proved. The verifiers have seen to possession.
fn proved_key(connection: &Connection) -> Option<PublicKey> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    tls::key_of(chain.first()?)
}
