//! What reaches the driver: the core's inputs, and the ends of channels that lead back out.

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::links::Lanes;
use crate::core::io::{Input, Rank};
use crate::id::{ClientId, FeedId, ProcessId, PublicKey, Token, Vector};
use crate::net::FrameSender;
use crate::wire::client::{FeedFrame, Request};
use crate::wire::peer::PeerHello;

/// One happening for the driver. Whoever sends several sends them over the same channel, so their order holds.
#[derive(Debug)]
pub(super) enum Event {
    /// Straight to the node.
    Input(Input),
    /// Our connection to a peer is ready to send.
    LinkUp {
        /// To whom.
        peer: ProcessId,
        /// What it said.
        hello: PeerHello,
        /// Where messages go.
        lanes: Lanes,
    },
    /// Our connection to a peer broke.
    LinkDown {
        /// To whom.
        peer: ProcessId,
        /// Which of our connections to it.
        serial: u64,
    },
    /// A peer connected to us and said who it is: an older connection of ours leads nowhere.
    PeerArrived {
        /// Who.
        peer: ProcessId,
        /// Its run.
        run: u64,
    },
    /// A client's connection said `Hello`.
    ClientOpened {
        /// Which.
        client: ClientId,
        /// Its proven key.
        key: Option<PublicKey>,
        /// What it may do.
        rank: Rank,
        /// Where its replies go; the connection ends when this is dropped.
        frames: FrameSender,
    },
    /// A client asks.
    Asked {
        /// Who.
        client: ClientId,
        /// What.
        request: Request,
        /// Its place in the queue, of few that its connection has; given back when the driver takes it.
        place: OwnedSemaphorePermit,
    },
    /// A client opened a feed.
    FeedOpened {
        /// Whose.
        client: ClientId,
        /// Which.
        feed: FeedId,
        /// What the client has seen.
        token: Token,
        /// Where it begins.
        since: Vector,
        /// Where its frames go; the stream ends when this is dropped.
        frames: mpsc::Sender<FeedFrame>,
    },
    /// Nothing more is worth waiting for: a second signal.
    Abort,
}
