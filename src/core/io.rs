//! What goes into a node and what comes out of it: the whole border between decisions and effects.

use std::time::Duration;

use crate::id::{ClientId, Epoch, FeedId, HostId, Origin, ProcessId, PublicKey, Seq, Token, UserId, Vector};
use crate::service::blocks::{Compared, LogDigest};
use crate::service::feed::FeedStep;
use crate::service::ledger::{Committed, Fenced, LogChunk, Standing, Write, WriteId};
use crate::service::query::{Query, QueryResult};
use crate::service::snapshot::Chunk;
use crate::wire::client::{FeedFrame, Request, ServerFrame};
use crate::wire::heartbeat::{Heartbeat, Life};
use crate::wire::peer::{PeerHello, PeerMessage};

/// A read under way, numbered by the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// Why the store did not commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreTrouble {
    /// A newer epoch was taken.
    Fenced(Fenced),
    /// No room; nothing was stored.
    Full,
    /// The store cannot be believed any more.
    Failed(String),
}

/// What a client's key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// Nothing but what everybody may.
    Person,
    /// It is the key of one of the cluster's processes, so whoever proves it runs one of the cluster's machines.
    Operator,
}

/// What happens to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Our connection to this process is proven and its `Hello` was read: `Send` reaches it from now on.
    PeerUp {
        /// Who.
        peer: ProcessId,
        /// What it said.
        hello: PeerHello,
    },
    /// Our connection to this process broke; messages sent since the last answer may be lost.
    PeerDown {
        /// Who.
        peer: ProcessId,
    },
    /// A message on a stream; each lane of each sender is in order.
    Peer {
        /// Who sent it: the proven key.
        from: ProcessId,
        /// What.
        message: PeerMessage,
    },
    /// A datagram.
    Heartbeat {
        /// Who sent it: the proven key.
        from: ProcessId,
        /// What.
        heartbeat: Heartbeat,
    },
    /// The kernel tells of a process of this host. Every sibling that is found or not found at start is told once
    /// before anything else, then every change.
    Sibling {
        /// Who.
        process: ProcessId,
        /// How it is now.
        life: Life,
        /// Its operating system's number, 0 if it has none.
        pid: u32,
    },
    /// A client's connection is open; its key, if it showed one, is proven.
    ClientOpened {
        /// Which.
        client: ClientId,
        /// Who.
        key: Option<PublicKey>,
        /// What that key may do.
        rank: Rank,
    },
    /// A request of a client.
    Client {
        /// Which.
        client: ClientId,
        /// What.
        request: Request,
    },
    /// A client opened a feed.
    FeedOpened {
        /// Whose.
        client: ClientId,
        /// Numbered by the shell.
        feed: FeedId,
        /// What the client has seen.
        token: Token,
        /// Where the feed begins.
        since: Vector,
    },
    /// The feed's last frame was handed to the network: it can take another.
    FeedWritten {
        /// Which.
        feed: FeedId,
    },
    /// The client closed the feed, or its stream broke.
    FeedClosed {
        /// Which.
        feed: FeedId,
    },
    /// A client's connection is gone, and its feeds with it.
    ClientClosed {
        /// Which.
        client: ClientId,
    },
    /// The answer to `TakeEpoch`.
    EpochTaken(Result<Standing, StoreTrouble>),
    /// The answer to one or more `Persist`, in order.
    Persisted {
        /// Which.
        writes: Vec<WriteId>,
        /// What became of them, all together.
        result: Result<Committed, StoreTrouble>,
    },
    /// The answer to `ReadLog`.
    LogRead {
        /// Which.
        read: ReadId,
        /// What was found.
        chunk: LogChunk,
    },
    /// The answer to `ReadSnapshot`.
    SnapshotRead {
        /// Which.
        read: ReadId,
        /// What was found.
        chunk: Chunk,
        /// The state in the same transaction.
        standing: Standing,
    },
    /// The answer to `ReadDigests`.
    DigestsRead {
        /// Which.
        read: ReadId,
        /// What was found.
        digests: Vec<LogDigest>,
    },
    /// The answer to `CompareDigests`.
    DigestsCompared {
        /// Who told them.
        with: HostId,
        /// What was found.
        compared: Compared,
    },
    /// The answer to `Query`.
    QueryDone {
        /// Whose.
        client: ClientId,
        /// The request's number.
        number: u64,
        /// The epoch in the transaction that answered.
        epoch: Epoch,
        /// The answer.
        result: QueryResult,
    },
    /// The answer to `ReadFeeds`.
    FeedsRead {
        /// Which.
        read: ReadId,
        /// The epoch in the transaction that answered.
        epoch: Epoch,
        /// What each feed is told.
        steps: Vec<FeedStep>,
        /// The cursor reached.
        cursor: Vector,
    },
    /// SIGTERM: hand the duties over and leave.
    Terminate,
}

/// What a node wants done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a message, if there is a connection; start one if not (this message is then lost).
    Send {
        /// To whom.
        to: ProcessId,
        /// What.
        message: PeerMessage,
    },
    /// Send a datagram, if there is a connection; start one if not.
    Beat {
        /// To whom.
        to: ProcessId,
        /// What.
        heartbeat: Heartbeat,
    },
    /// Send a frame on a client's request stream.
    Reply {
        /// To whom.
        client: ClientId,
        /// What.
        frame: ServerFrame,
    },
    /// Send a frame on a feed's stream; `FeedWritten` tells when it can take another.
    Feed {
        /// To whom.
        feed: FeedId,
        /// What.
        frame: FeedFrame,
    },
    /// Take the store's next epoch (it may wait for the lock without a limit); answered by `EpochTaken`.
    TakeEpoch,
    /// Commit under this epoch; what waits together is committed together. Answered by `Persisted`.
    Persist {
        /// Which.
        id: WriteId,
        /// The fence.
        epoch: Epoch,
        /// What.
        write: Write,
    },
    /// Read entries after these places; answered by `LogRead`.
    ReadLog {
        /// Which.
        read: ReadId,
        /// After which places, in order.
        after: Vec<(Origin, Seq)>,
        /// At most so many bytes.
        bytes_max: usize,
    },
    /// Read a chunk of the tables; answered by `SnapshotRead`.
    ReadSnapshot {
        /// Which.
        read: ReadId,
        /// Where it begins.
        at: Vec<u8>,
    },
    /// Read the digests of the log after these places; answered by `DigestsRead`.
    ReadDigests {
        /// Which.
        read: ReadId,
        /// After which places.
        after: Vec<(Origin, Seq)>,
    },
    /// Compare digests of the log with those that are here; answered by `DigestsCompared`.
    CompareDigests {
        /// Who told them.
        with: HostId,
        /// The digests.
        told: Vec<LogDigest>,
    },
    /// Answer a query; answered by `QueryDone`.
    Query {
        /// Whose.
        client: ClientId,
        /// The request's number.
        number: u64,
        /// What may be shown.
        shown: Vector,
        /// What is asked.
        query: Query,
    },
    /// Walk the log for feeds; answered by `FeedsRead`.
    ReadFeeds {
        /// Which.
        read: ReadId,
        /// From where.
        from: Vector,
        /// How far.
        shown: Vector,
        /// For whom.
        feeds: Vec<(FeedId, UserId)>,
    },
    /// Have a dead process of this host started again after this pause, by whoever supervises it.
    Restart {
        /// Which.
        process: ProcessId,
        /// How long to wait first.
        after: Duration,
    },
    /// End a stopped or hung process of this host that holds the store's lock.
    Kill {
        /// Which.
        process: ProcessId,
    },
    /// End this process: all is handed over, or it cannot go on.
    Exit {
        /// Why, if something is wrong.
        failure: Option<String>,
    },
}

/// The ordered list of what a node wants done.
pub type Outputs = Vec<Output>;
