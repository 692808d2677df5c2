//! A simulated host's UDP socket, as quinn wants it.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use turmoil::net::UdpSocket;

type Readable = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// One datagram at a time, both ways; always writable.
pub(crate) struct SimSocket {
    socket: Arc<UdpSocket>,
    /// The wait for the next datagram, which must outlive the poll that began it.
    readable: Mutex<Option<Readable>>,
}

impl SimSocket {
    /// To be called on the simulated host that it belongs to.
    pub(crate) async fn bind(port: u16) -> io::Result<Arc<Self>> {
        let socket = Arc::new(UdpSocket::bind(("0.0.0.0", port)).await?);
        Ok(Arc::new(Self { socket, readable: Mutex::new(None) }))
    }
}

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimSocket").field(&self.socket).finish()
    }
}

impl AsyncUdpSocket for SimSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // As with a real socket, a datagram that cannot be sent is a lost one: an error would end the connection.
        let _ = self.socket.try_send_to(transmit.contents, transmit.destination);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut readable = self.readable.lock().unwrap();
        loop {
            if let Some(wait) = readable.as_mut() {
                let ended = ready!(wait.as_mut().poll(cx));
                *readable = None;
                ended?;
            }
            match self.socket.try_recv_from(&mut bufs[0]) {
                Ok((len, addr)) => {
                    (meta[0].addr, meta[0].len, meta[0].stride) = (addr, len, len);
                    return Poll::Ready(Ok(1));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let socket = Arc::clone(&self.socket);
                    *readable = Some(Box::pin(async move { socket.readable().await }));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Else quinn would leave the discovery of the path's MTU off.
    fn may_fragment(&self) -> bool {
        false
    }
}

/// A simulated socket never says that it would block.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
