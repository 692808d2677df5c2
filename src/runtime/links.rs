//! Our connections to other processes: what the driver holds of them, and the task that keeps each of them.
//!
//! Each process dials each process that it talks to, and sends only on connections that it dialed: nobody has to
//! decide which of two connections counts. A link has two streams, so that bulk never delays an election, and counts
//! as up only when the other side's `Hello` has come. A link that is lost is dialed again while the node keeps sending.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::event::Event;
use super::shared::Shared;
use crate::core::io::Input;
use crate::id::ProcessId;
use crate::limits;
use crate::net::{CloseCode, FrameReader, FrameSender, FrameWriter, Link, SendError};
use crate::wire::frame;
use crate::wire::heartbeat::Heartbeat;
use crate::wire::peer::{Lane, PeerHello, PeerMessage};

/// The first and the longest pause between attempts to connect.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long what was written last may travel before the connection is closed.
const LINGER: Duration = Duration::from_millis(100);

/// The byte that begins a stream between processes.
pub(super) const fn lane_byte(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 0,
        Lane::Bulk => 1,
    }
}

/// Where messages to a peer go while its link is up.
#[derive(Debug)]
pub(super) struct Lanes {
    control: FrameSender,
    bulk: FrameSender,
    link: Link,
    /// The newest version that the peer and we understand.
    version: u16,
    run: u64,
    serial: u64,
}

/// One peer, as the driver knows it.
#[derive(Debug)]
struct Peer {
    /// The node wants to send: the keeper may dial.
    wanted: Arc<Notify>,
    /// The peer has just shown itself: what the keeper waits for is out of date.
    again: Arc<Notify>,
    lanes: Option<Lanes>,
    /// The newest run that dialed us.
    arrived: Option<u64>,
}

/// All links of a process: the driver's end.
pub(super) struct Links {
    shared: Arc<Shared>,
    peers: BTreeMap<ProcessId, Peer>,
    trimmed: Trimmed,
}

/// Whether a heartbeat was ever too long: one line in the log is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trimmed {
    Never,
    Logged,
}

impl Links {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, peers: BTreeMap::new(), trimmed: Trimmed::Never }
    }

    /// Sends, or has a connection made; an overflow ends the link.
    pub(super) fn send(&mut self, to: ProcessId, message: &PeerMessage) -> Option<Input> {
        let peer = self.want(to)?;
        let lanes = peer.lanes.as_ref()?;
        if message.since() > lanes.version {
            debug_assert!(false, "{to} does not know {message:?}");
            tracing::error!(peer = %to, ?message, "not sent: the peer does not know such a message");
            return None;
        }
        let lane = match message.lane() {
            Lane::Control => &lanes.control,
            Lane::Bulk => &lanes.bulk,
        };
        match lane.try_send(message) {
            // A link that has ended will be told of by its keeper.
            Ok(()) | Err(SendError::Ended) => None,
            Err(SendError::Full) => {
                tracing::warn!(peer = %to, "too much waits for a peer: its link starts anew");
                self.close(to, CloseCode::TooSlow)
            }
            Err(SendError::Frame(error)) => {
                tracing::error!(peer = %to, %error, "a message cannot be sent");
                None
            }
        }
    }

    /// Sends a heartbeat, or has a connection made.
    pub(super) fn beat(&mut self, to: ProcessId, heartbeat: Heartbeat) {
        let Some(link) = self.want(to).and_then(|peer| peer.lanes.as_ref()).map(|lanes| lanes.link.clone()) else {
            return;
        };
        let Some(bytes) = self.encode_beat(heartbeat) else { return };
        if let Err(error) = link.send_datagram(bytes) {
            tracing::debug!(peer = %to, %error, "a heartbeat was not sent");
        }
    }

    fn encode_beat(&mut self, heartbeat: Heartbeat) -> Option<Vec<u8>> {
        let (bytes, left_out) = encode_beat(heartbeat)?;
        if left_out > 0 && self.trimmed == Trimmed::Never {
            self.trimmed = Trimmed::Logged;
            tracing::warn!(
                "heartbeats are too long for a datagram: they are sent without processes, without a view, or bare"
            );
        }
        Some(bytes)
    }

    /// A link came up.
    pub(super) fn on_up(&mut self, id: ProcessId, hello: PeerHello, lanes: Lanes) -> Option<Input> {
        let peer = self.peers.get_mut(&id)?;
        peer.lanes = Some(lanes);
        Some(Input::PeerUp { peer: id, hello })
    }

    /// A link broke; told once.
    pub(super) fn on_down(&mut self, id: ProcessId, serial: u64) -> Option<Input> {
        let peer = self.peers.get_mut(&id)?;
        peer.lanes.take_if(|lanes| lanes.serial == serial)?;
        Some(Input::PeerDown { peer: id })
    }

    /// The peer dialed us: if it is a new run, our link to the old one is worth nothing.
    pub(super) fn on_arrived(&mut self, id: ProcessId, run: u64) -> Option<Input> {
        let peer = self.peers.get_mut(&id)?;
        let news = peer.arrived != Some(run);
        peer.arrived = Some(run);
        let up_to = peer.lanes.as_ref().map(|lanes| lanes.run);
        if !news || up_to == Some(run) {
            return None;
        }
        // Once for each run: two processes that start together must not chase each other's attempts.
        peer.wanted.notify_one();
        peer.again.notify_one();
        self.close(id, CloseCode::Replaced)
    }

    /// The kernel says that this process is gone.
    pub(super) fn cut(&mut self, id: ProcessId) -> Option<Input> {
        self.close(id, CloseCode::Goodbye)
    }

    fn close(&mut self, id: ProcessId, code: CloseCode) -> Option<Input> {
        let lanes = self.peers.get_mut(&id)?.lanes.take()?;
        lanes.link.close(code, "");
        Some(Input::PeerDown { peer: id })
    }

    /// The peer, whose keeper now knows that it is wanted.
    fn want(&mut self, id: ProcessId) -> Option<&Peer> {
        if !self.peers.contains_key(&id) {
            let addr = self.shared.topology.process(id)?.addr;
            let (wanted, again) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let keeper = Keeper {
                shared: Arc::clone(&self.shared),
                id,
                addr,
                wanted: Arc::clone(&wanted),
                again: Arc::clone(&again),
                said: String::new(),
            };
            self.shared.tasks.spawn(keeper.run());
            self.peers.insert(id, Peer { wanted, again, lanes: None, arrived: None });
        }
        let peer = self.peers.get(&id)?;
        if peer.lanes.is_none() {
            peer.wanted.notify_one();
        }
        Some(peer)
    }
}

/// Keeps the link to one peer. States: idle until wanted, dialing, up, pausing after a failure.
struct Keeper {
    shared: Arc<Shared>,
    id: ProcessId,
    addr: SocketAddr,
    wanted: Arc<Notify>,
    again: Arc<Notify>,
    /// The last failure in the log: the same one is not told twice.
    said: String,
}

/// A link that is up, and the writers of its lanes.
struct Opened {
    hello: PeerHello,
    lanes: Lanes,
    control: FrameWriter<quinn::SendStream>,
    bulk: FrameWriter<quinn::SendStream>,
}

impl Keeper {
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        // Boxed by the tracker once for each peer; cancelled wherever it stands, which closes its connection.
        tokio::select! {
            () = shared.cancel.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        let again = Arc::clone(&self.again);
        let mut pause = PAUSE;
        for serial in 1_u64.. {
            self.wanted.notified().await;
            let opened = tokio::select! {
                biased;
                () = again.notified() => {
                    pause = PAUSE;
                    self.wanted.notify_one();
                    continue;
                }
                opened = timeout(limits::CONNECT_WAIT, self.open(serial)) => opened,
            };
            match opened {
                Ok(Ok(opened)) => {
                    pause = PAUSE;
                    self.said.clear();
                    if self.hold(opened).await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(Err(error)) => self.say(error),
                Err(_) => self.say(format!("{} does not answer", self.addr)),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                () = again.notified() => {
                    pause = PAUSE;
                    self.wanted.notify_one();
                }
            }
        }
    }

    fn say(&mut self, error: String) {
        if error != self.said {
            tracing::debug!(peer = %self.id, error, "not connected");
        }
        self.said = error;
    }

    /// Connects, and says and hears `Hello`.
    async fn open(&self, serial: u64) -> Result<Opened, String> {
        let key = self.shared.key_of(self.id).ok_or_else(|| format!("no certs/{}.pub yet", self.id))?;
        let link = self.shared.endpoint.dial_peer(self.addr, key).await.map_err(text)?;
        let mut first = Vec::new();
        frame::encode(&self.shared.hello, limits::FRAME_BYTES_MAX, &mut first).map_err(text)?;
        let control = open_lane(&link, Lane::Control, &first).await?;
        let answer = link.accept_uni().await.map_err(text)?;
        let hello: PeerHello = FrameReader::new(answer).read_within(limits::CONNECT_WAIT).await.map_err(text)?;
        let version = check_hello(&hello, &self.shared.hello).map_err(|(code, reason)| {
            link.close(code, reason);
            reason.to_owned()
        })?;
        let bulk = open_lane(&link, Lane::Bulk, &[]).await?;
        let (control, control_writer) = FrameWriter::new(control, limits::PEER_FRAMES_WAITING_MAX);
        let (bulk, bulk_writer) = FrameWriter::new(bulk, limits::PEER_FRAMES_WAITING_MAX);
        let lanes = Lanes { control, bulk, link, version, run: hello.run, serial };
        Ok(Opened { hello, lanes, control: control_writer, bulk: bulk_writer })
    }

    /// Writes until the link ends, from whichever side. Fails when the driver is gone.
    async fn hold(&self, opened: Opened) -> Result<(), ()> {
        let Opened { hello, lanes, control, bulk } = opened;
        let (peer, serial, link) = (self.id, lanes.serial, lanes.link.clone());
        self.shared.events.send(Event::LinkUp { peer, hello, lanes }).await.map_err(|_| ())?;
        tokio::select! {
            written = async { tokio::try_join!(control.run(), bulk.run()) } => match written {
                // The driver dropped its ends: what it said last may still arrive.
                Ok(_) => { let _ = timeout(LINGER, link.closed()).await; }
                Err(error) => tracing::debug!(%peer, %error, "a lane broke"),
            },
            end = link.closed() => tracing::debug!(%peer, %end, "a link ended"),
        }
        link.close(CloseCode::Goodbye, "");
        self.shared.events.send(Event::LinkDown { peer, serial }).await.map_err(|_| ())
    }
}

/// The version to speak, if the other side is one of us.
pub(super) fn check_hello(hello: &PeerHello, ours: &PeerHello) -> Result<u16, (CloseCode, &'static str)> {
    if hello.cluster != ours.cluster {
        return Err((CloseCode::WrongCluster, "another cluster"));
    }
    ours.versions.common(hello.versions).ok_or((CloseCode::Version, "no common wire version"))
}

/// A heartbeat that fits its datagram, and how much had to be left out for that. What keeps its sender from being taken
/// for dead always fits.
fn encode_beat(mut heartbeat: Heartbeat) -> Option<(Vec<u8>, usize)> {
    let leave_out: [fn(&mut Heartbeat); 4] = [
        |_| {},
        |heartbeat| heartbeat.view.iter_mut().for_each(|view| view.record.processes.clear()),
        |heartbeat| heartbeat.view = None,
        |heartbeat| heartbeat.primary = None,
    ];
    leave_out.iter().enumerate().find_map(|(left_out, shorten)| {
        shorten(&mut heartbeat);
        let bytes = frame::encode_body(&heartbeat).ok()?;
        (bytes.len() <= limits::HEARTBEAT_BYTES_MAX).then_some((bytes, left_out))
    })
}

/// Opens a stream and writes what begins it: the other side sees nothing of a stream before its first byte.
async fn open_lane(link: &Link, lane: Lane, first: &[u8]) -> Result<quinn::SendStream, String> {
    let mut stream = link.open_uni().await.map_err(text)?;
    let priority = match lane {
        Lane::Control => 1,
        Lane::Bulk => 0,
    };
    stream.set_priority(priority).map_err(text)?;
    stream.write_all(&[lane_byte(lane)]).await.map_err(text)?;
    stream.write_all(first).await.map_err(text)?;
    Ok(stream)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests;
