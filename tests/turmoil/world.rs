//! Simulated hosts, and what an onlooker writes down of them.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use gaggle::id::PublicKey;
use gaggle::net::{
    ClientEndpoint, CloseCode, DialError, FrameReader, FrameSender, FrameWriter, Identity, Link, LinkEnd, NodeEndpoint,
};
use tokio::task::JoinHandle;
use turmoil::Sim;

use crate::socket::SimSocket;

/// Where processes listen.
pub(crate) const PORT: u16 = 4001;
/// Datagrams that a host's socket holds: as many as a real one's 4 MiB do.
const SOCKET_DATAGRAMS: usize = 3_000;
/// Between two heartbeats, and two frames.
pub(crate) const BEAT: Duration = Duration::from_millis(25);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(20);
/// A heartbeat's usual length. A packet much shorter is not answered by a stateless reset.
const BEAT_BYTES: usize = 100;
/// A frame's length differs with its number, up to several packets.
const FRAME_BYTES_MAX: usize = 5_000;

/// A world in which a datagram travels 1 to 5 ms, so that some overtake others.
pub(crate) fn world<'a>(seed: u64) -> Sim<'a> {
    turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(3_600))
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(5))
        .udp_capacity(SOCKET_DATAGRAMS)
        .build()
}

/// Lets simulated time pass until something holds, and says how much did; fails when it takes longer than `limit`.
pub(crate) fn pass_until(sim: &mut Sim<'_>, limit: Duration, what: &str, holds: impl Fn() -> bool) -> Duration {
    let start = sim.elapsed();
    while !holds() {
        assert!(sim.elapsed() - start < limit, "not within {limit:?}: {what}");
        sim.step().unwrap();
    }
    sim.elapsed() - start
}

/// Lets simulated time pass.
pub(crate) fn pass(sim: &mut Sim<'_>, time: Duration) {
    let end = sim.elapsed() + time;
    while sim.elapsed() < end {
        sim.step().unwrap();
    }
}

/// The simulated time, on a simulated host.
fn now() -> Duration {
    turmoil::sim_elapsed().unwrap()
}

/// What happened on a host, and when. It is the onlooker's: a crash of the host leaves it as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Diary(Rc<RefCell<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    ups: Vec<Duration>,
    failures: Vec<DialError>,
    ends: Vec<(Duration, LinkEnd)>,
    beats: Vec<(Duration, u64)>,
    frames: Vec<(Duration, u64)>,
}

impl Diary {
    /// How many links have stood.
    pub(crate) fn ups(&self) -> usize {
        self.0.borrow().ups.len()
    }

    /// The ends of links, in their order.
    pub(crate) fn ends(&self) -> Vec<(Duration, LinkEnd)> {
        self.0.borrow().ends.clone()
    }

    /// The attempts that failed, as people read them.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.0.borrow().failures.iter().map(ToString::to_string).collect()
    }

    /// The heartbeats that came, in their order.
    pub(crate) fn beats(&self) -> Vec<(Duration, u64)> {
        self.0.borrow().beats.clone()
    }

    /// The frames that came, in their order.
    pub(crate) fn frames(&self) -> Vec<(Duration, u64)> {
        self.0.borrow().frames.clone()
    }

    /// Whether heartbeats and frames have come since then.
    pub(crate) fn heard_since(&self, then: Duration) -> bool {
        let pages = self.0.borrow();
        let newer = |pages: &[(Duration, u64)]| pages.last().is_some_and(|(at, _)| *at > then);
        newer(&pages.beats) && newer(&pages.frames)
    }
}

/// A process's endpoint on the simulated host that calls.
pub(crate) async fn node(identity: Identity) -> NodeEndpoint {
    NodeEndpoint::over(SimSocket::bind(PORT).await.unwrap(), identity).unwrap()
}

/// A client's endpoint on the simulated host that calls.
pub(crate) async fn client() -> ClientEndpoint {
    ClientEndpoint::over(SimSocket::bind(0).await.unwrap()).unwrap()
}

/// Where the process of a simulated host listens.
pub(crate) fn addr_of(host: &str) -> SocketAddr {
    SocketAddr::new(turmoil::lookup(host), PORT)
}

/// A process that hears who comes. As in earnest, a newer link ends an older one, and waits until it has.
pub(crate) async fn listen(identity: Identity, diary: Diary) -> turmoil::Result {
    let node = node(identity).await;
    let mut older: Option<(Link, JoinHandle<()>)> = None;
    while let Some(link) = node.accept().await {
        if let Some((link, hearing)) = older.take() {
            link.close(CloseCode::Replaced, "");
            hearing.await?;
        }
        let hearing = tokio::task::spawn_local(hear(link.clone(), diary.clone()));
        older = Some((link, hearing));
    }
    Ok(())
}

/// Says which frame comes next, and writes down what comes on a link, until it ends.
async fn hear(link: Link, diary: Diary) {
    diary.0.borrow_mut().ups.push(now());
    let next = u64::try_from(diary.0.borrow().frames.len()).unwrap();
    let beats = async {
        while let Ok(beat) = link.read_datagram().await {
            let number = u64::from_be_bytes(*beat.first_chunk().unwrap());
            diary.0.borrow_mut().beats.push((now(), number));
        }
    };
    let frames = async {
        let Ok(stream) = link.open_uni().await else { return };
        let (sender, writer) = FrameWriter::new(stream, 1);
        // Fails only with the link, and then nothing comes either.
        let _ = sender.send(&next).await;
        drop(sender);
        let _ = writer.run().await;
        let Ok(stream) = link.accept_uni().await else { return };
        let mut reader = FrameReader::new(stream);
        while let Ok(Some((number, filler))) = reader.read::<(u64, Vec<u8>)>().await {
            assert_eq!(filler, filler_of(number));
            diary.0.borrow_mut().frames.push((now(), number));
        }
    };
    tokio::join!(beats, frames);
    let end = link.closed().await;
    diary.0.borrow_mut().ends.push((now(), end));
}

/// A process that keeps a link to the process of another host, with heartbeats and frames on it.
pub(crate) async fn keep(identity: Identity, host: &str, pinned: PublicKey, diary: Diary) -> turmoil::Result {
    let node = node(identity).await;
    loop {
        match node.dial_peer(addr_of(host), pinned).await {
            Ok(link) => {
                diary.0.borrow_mut().ups.push(now());
                let end = talk(&link).await;
                diary.0.borrow_mut().ends.push((now(), end));
            }
            Err(error) => {
                diary.0.borrow_mut().failures.push(error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Sends a heartbeat and a frame at each beat, until the link ends. Frames that were caught under way are lost with it:
/// the other side says where to go on, as in replication.
async fn talk(link: &Link) -> LinkEnd {
    let Ok(stream) = link.open_uni().await else { return link.closed().await };
    let Ok(next) = link.accept_uni().await else { return link.closed().await };
    let Ok(Some(next)) = FrameReader::new(next).read::<u64>().await else { return link.closed().await };
    let (frames, writer) = FrameWriter::new(stream, 1_000);
    let sending = async {
        for number in next.. {
            let mut beat = number.to_be_bytes().to_vec();
            beat.resize(BEAT_BYTES, 0);
            // Only fails when the link has ended, which is what is waited for.
            let _ = link.send_datagram(beat);
            let _ = send_frame(&frames, number).await;
            tokio::time::sleep(BEAT).await;
        }
    };
    tokio::select! {
        end = link.closed() => end,
        () = sending => unreachable!("numbers have no end"),
        _ = writer.run() => link.closed().await,
    }
}

/// A frame that says its number and whose other bytes follow from it.
async fn send_frame(frames: &FrameSender, number: u64) -> Result<(), gaggle::net::SendError> {
    frames.send(&(number, filler_of(number))).await
}

fn filler_of(number: u64) -> Vec<u8> {
    let length = usize::try_from(number * 997).unwrap() % FRAME_BYTES_MAX;
    vec![number.to_le_bytes()[0]; length]
}
