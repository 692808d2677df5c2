//! UDP sockets with buffers large enough for a burst.
//!
//! This is the seam below which the world may be another: an endpoint stands on any [`AsyncUdpSocket`], the machine's,
//! made here, or one of a simulated network (`tests/turmoil`), and takes the time from tokio's clock, which a test may
//! hold in its hand.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, Runtime, ServerConfig, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};

use crate::limits;

/// An endpoint that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there.
    #[error("{addr} is in use; is this process running already? Stop it, or give it another address in the topology")]
    InUse {
        /// Where.
        addr: SocketAddr,
    },
    /// This machine has no such address.
    #[error("{addr} is not an address of this machine; correct it in the topology, or start the process elsewhere")]
    NotHere {
        /// Where.
        addr: SocketAddr,
    },
    /// The operating system refuses.
    #[error("cannot listen on {addr}: {source}")]
    Refused {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// TLS cannot be set up with this key.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// Binds, and asks for [`limits::SOCKET_BUFFER_BYTES`] in both directions. The kernel may give less
/// (`net.core.rmem_max`); that costs throughput, not correctness, so it is only noted.
pub(crate) fn bind(addr: SocketAddr) -> Result<Arc<dyn AsyncUdpSocket>, BindError> {
    open(addr).and_then(|socket| TokioRuntime.wrap_udp_socket(socket)).map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            BindError::InUse { addr }
        } else if source.kind() == io::ErrorKind::AddrNotAvailable {
            BindError::NotHere { addr }
        } else {
            BindError::Refused { addr, source }
        }
    })
}

/// QUIC over a socket, whosever it is.
pub(crate) fn endpoint(
    socket: Arc<dyn AsyncUdpSocket>,
    config: EndpointConfig,
    server: Option<ServerConfig>,
) -> Result<Endpoint, BindError> {
    let addr = socket.local_addr().unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))
        .map_err(|source| BindError::Refused { addr, source })
}

fn open(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    let granted = socket
        .set_recv_buffer_size(limits::SOCKET_BUFFER_BYTES)
        .and_then(|()| socket.set_send_buffer_size(limits::SOCKET_BUFFER_BYTES))
        .and_then(|()| socket.recv_buffer_size())
        .unwrap_or(0);
    if granted < limits::SOCKET_BUFFER_BYTES {
        tracing::debug!(granted, wanted = limits::SOCKET_BUFFER_BYTES, "small socket buffers: raise net.core.rmem_max");
    }
    socket.bind(&addr.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
