//! What a client decides, as a pure state machine: no clock, no sockets, no async.
//!
//! It finds a director (`directors.rs`), chooses and changes the server (`server.rs`), keeps calls until they are
//! answered (`calls.rs`) and feeds until they are dropped (`feeds.rs`), and remembers what has been seen (`seen.rs`).
//!
//! Invariants: a call is answered exactly once, and with the same id over however many servers; a server that is only
//! silent is kept until another one has answered; whatever changes the picture only marks it, and [`Session::settle`]
//! alone acts on it, so that the order of events does not matter. Tests: `session/tests.rs`, and `session/chaos.rs` against
//! servers that do anything.

mod calls;
#[cfg(test)]
mod chaos;
mod conn;
mod directors;
mod feeds;
mod seen;
mod server;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::client::error::ClientError;
use crate::client::options::Standby;
use crate::client::session::calls::{Call, CallKey};
use crate::client::session::conn::{Conn, ConnState};
use crate::client::session::directors::Search;
use crate::client::session::feeds::Feed;
use crate::client::session::seen::Seen;
use crate::client::session::server::{Avoided, Belief};
use crate::id::{EntryId, HostId, ProcessId, Token, Vector};
use crate::service::query::ShownPost;
use crate::time::{Instant, Now};
use crate::wire::client::{Assignment, ClientFrame, FeedFrame, RequestBody, Response, ServerFrame};

/// A connection, numbered by the session; no number is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId(pub u64);
/// A caller's request, numbered by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);
/// A caller's feed, numbered by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedKey(pub u64);
/// One of the streams that a feed has had, numbered by the session; no number is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// What a person may want to know, while requests go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The server is silent or gone; another way is looked for.
    Reconnecting,
    /// Another process answers now.
    Moved {
        /// Of which host.
        host: HostId,
        /// Which.
        process: ProcessId,
    },
    /// What this person has seen, and no host in reach holds: origin, and the first and last seq.
    Missing {
        /// Each run of entries.
        gaps: Vec<(EntryId, EntryId)>,
    },
}

/// Whether the connections prove a person's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// No: only assignments, status and drain can be asked, and no server is connected to.
    Anonymous,
    /// Yes.
    Person,
}

/// What a session is told at its start.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Who may be asked, and where, in the order in which they join in. Others are never dialed.
    pub entrances: Vec<(ProcessId, SocketAddr)>,
    /// Asked before them.
    pub first: Option<ProcessId>,
    /// Use this host only.
    pub via: Option<HostId>,
    /// What has been seen in earlier sessions.
    pub token: Token,
    /// Whether to keep a second connection.
    pub standby: Standby,
    /// How long a server must have been good before that one is made: not for a single question, nor by a whole crowd in
    /// the moment after it has moved.
    pub standby_after: Duration,
    /// Whether a person asks.
    pub login: Login,
}

/// What kind of end a connection, or an attempt, came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    /// Silence, a reset, no room: it may be otherwise soon.
    Network,
    /// The process lacks the pinned key, or does not accept ours.
    Identity,
    /// Bytes or versions that are not understood.
    Protocol,
}

/// Why a connection ended or did not come to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What a program looks at.
    pub kind: TroubleKind,
    /// What a person reads.
    pub why: String,
}

/// What happens to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Begin. The first input.
    Start,
    /// A `Dial` succeeded and the request stream is open.
    Connected {
        /// Which.
        conn: ConnId,
    },
    /// A `Dial` failed. The connection is gone.
    ConnectFailed {
        /// Which.
        conn: ConnId,
        /// Why.
        trouble: Trouble,
    },
    /// A frame on the request stream.
    Frame {
        /// Of which connection.
        conn: ConnId,
        /// What.
        frame: ServerFrame,
    },
    /// A connection that stood is gone.
    Disconnected {
        /// Which.
        conn: ConnId,
        /// Why.
        trouble: Trouble,
    },
    /// A caller asks.
    Call {
        /// Answered with this.
        call: CallId,
        /// What.
        body: RequestBody,
        /// When to give up.
        deadline: Instant,
    },
    /// A caller wants a feed.
    FeedWant {
        /// Which.
        feed: FeedKey,
        /// It begins after this.
        since: Vector,
    },
    /// A frame on a feed's stream.
    FeedFrame {
        /// Which feed.
        feed: FeedKey,
        /// On which of its streams.
        stream: StreamId,
        /// What.
        frame: FeedFrame,
    },
    /// A feed's stream broke or could not be opened.
    FeedBroken {
        /// Which feed.
        feed: FeedKey,
        /// Which of its streams.
        stream: StreamId,
    },
    /// Nobody reads this feed any more.
    FeedDropped {
        /// Which.
        feed: FeedKey,
    },
}

/// What a session wants done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Connect; answered by `Connected` or `ConnectFailed`.
    Dial {
        /// Its number.
        conn: ConnId,
        /// To whom: one of the entrances.
        process: ProcessId,
        /// Where.
        addr: SocketAddr,
    },
    /// End a connection, or the attempt at one. Nothing more is to be told of it.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// Send a frame on the request stream.
    Send {
        /// Of which connection.
        conn: ConnId,
        /// What.
        frame: ClientFrame,
    },
    /// Open a stream for a feed, send this frame, and read.
    OpenFeed {
        /// On which connection.
        conn: ConnId,
        /// Which feed.
        feed: FeedKey,
        /// The stream's number.
        stream: StreamId,
        /// The `Follow`.
        frame: ClientFrame,
    },
    /// Close a feed's stream. What it still brings is ignored.
    CloseFeed {
        /// Which feed.
        feed: FeedKey,
        /// Which of its streams.
        stream: StreamId,
    },
    /// Give the feed's reader these posts; at most one for each `FeedFrame`.
    FeedPosts {
        /// Which.
        feed: FeedKey,
        /// Each is new to the reader; may be empty.
        posts: Vec<ShownPost>,
        /// Where the feed now stands.
        cursor: Vector,
    },
    /// The feed cannot be had. It is over.
    FeedRefused {
        /// Which.
        feed: FeedKey,
        /// Why.
        error: ClientError,
    },
    /// Answer a call.
    Answer {
        /// Which.
        call: CallId,
        /// With what.
        result: Result<Response, ClientError>,
    },
    /// Tell whoever listens.
    Notice(Notice),
}

/// The ordered list of what a session wants done.
pub type Outputs = Vec<Output>;

/// Whether the picture has changed since `settle` last acted on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Picture {
    Settled,
    Changed,
}

/// One client's decisions.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    seen: Seen,
    conns: BTreeMap<ConnId, Conn>,
    /// The next number of a connection, stream or call of our own.
    next: u64,
    /// Where each entrance is, as far as known.
    addrs: BTreeMap<ProcessId, SocketAddr>,
    assignment: Option<Assignment>,
    /// The connection on which changes of the assignment are told.
    director: Option<ConnId>,
    /// The attempt at a process that is better placed to tell, and replaces the one that does once it has answered: whoever
    /// directs, because only a director's own death is told to everybody; or, if that one would die with the server,
    /// a process of another host.
    better: Option<ConnId>,
    /// Who answered as director last.
    director_last: Option<ProcessId>,
    search: Option<Search>,
    /// Hosts that were asked for a second opinion, and when.
    opinions: BTreeMap<HostId, Instant>,
    /// When to ask anew where to go, while there is nowhere.
    ask_at: Option<Instant>,
    beliefs: BTreeMap<HostId, Belief>,
    avoided: BTreeMap<ProcessId, Avoided>,
    /// The connection to which requests go.
    server: Option<ConnId>,
    /// Who was the server last; outlives its connection.
    server_last: Option<(HostId, ProcessId)>,
    /// Connections that race to become the server.
    candidates: BTreeSet<ConnId>,
    standby: Option<ConnId>,
    /// Until when no standby is looked for.
    standby_from: Option<Instant>,
    /// Whether people were told that the server is lost, and not yet that there is another.
    lost: LostNotice,
    calls: BTreeMap<CallKey, Call>,
    deadlines: BTreeSet<(Instant, CallKey)>,
    pauses: BTreeSet<(Instant, CallKey)>,
    feeds: BTreeMap<FeedKey, Feed>,
    /// What went wrong last, for messages.
    trouble: Option<(ProcessId, Trouble)>,
    picture: Picture,
}

/// Whether people have been told of a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LostNotice {
    Untold,
    Told,
}

impl Session {
    /// A session that has done nothing yet; `Input::Start` begins it.
    pub fn new(config: SessionConfig) -> Self {
        Self {
            seen: Seen::new(config.token.clone()),
            addrs: config.entrances.iter().copied().collect(),
            config,
            conns: BTreeMap::new(),
            next: 0,
            assignment: None,
            director: None,
            better: None,
            director_last: None,
            search: None,
            opinions: BTreeMap::new(),
            ask_at: None,
            beliefs: BTreeMap::new(),
            avoided: BTreeMap::new(),
            server: None,
            server_last: None,
            candidates: BTreeSet::new(),
            standby: None,
            standby_from: None,
            lost: LostNotice::Untold,
            calls: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            pauses: BTreeSet::new(),
            feeds: BTreeMap::new(),
            trouble: None,
            picture: Picture::Settled,
        }
    }

    /// Takes an input.
    pub fn handle_input(&mut self, now: Now, input: Input, out: &mut Outputs) {
        let at = now.mono;
        match input {
            Input::Start => self.picture = Picture::Changed,
            Input::Connected { conn } => self.on_connected(at, conn, out),
            Input::ConnectFailed { conn, trouble } => self.on_connect_failed(at, conn, trouble, out),
            Input::Frame { conn, frame } => self.on_frame(at, conn, frame, out),
            Input::Disconnected { conn, trouble } => self.on_disconnected(at, conn, trouble, out),
            Input::Call { call, body, deadline } => self.on_call(at, call, body, deadline, out),
            Input::FeedWant { feed, since } => self.on_feed_want(at, feed, since, out),
            Input::FeedFrame { feed, stream, frame } => self.on_feed_frame(at, feed, stream, frame, out),
            Input::FeedBroken { feed, stream } => self.on_feed_broken(at, feed, stream),
            Input::FeedDropped { feed } => self.on_feed_dropped(feed, out),
        }
        self.settle_if_changed(at, out);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Outputs) {
        let at = now.mono;
        self.expire_calls(at, out);
        self.watch_connections(at, out);
        self.watch_candidates(at);
        if self.ask_at.is_some_and(|ask_at| ask_at <= at) {
            self.ask_at = None;
            if !self.seeks_opinion(at, &[]) {
                self.want_search();
            }
        }
        self.search_on(at, out);
        self.end_pauses(at, out);
        if self.standby_from.take_if(|from| *from <= at).is_some() {
            self.picture = Picture::Changed;
        }
        if self.avoided.values().any(|avoided| avoided.is_over(at)) {
            self.picture = Picture::Changed;
            for avoided in self.avoided.values_mut() {
                avoided.note_end(at);
            }
        }
        self.settle_if_changed(at, out);
    }

    /// When something is due next; early calls of `handle_timeout` do nothing.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let conns = self.conns.iter().filter_map(|(id, conn)| conn.next_look(self.feeds_on(*id)));
        let candidates = self.candidates.iter().filter_map(|id| self.conns.get(id)).filter_map(Conn::late_at);
        let calls = self.deadlines.first().into_iter().chain(self.pauses.first()).map(|(at, _)| *at);
        let avoided = self.avoided.values().filter_map(Avoided::ends);
        let feeds = self.feeds.values().filter_map(Feed::paused_until);
        let search = self.search.as_ref().map(|search| search.next_at);
        let rest = search.into_iter().chain(self.ask_at).chain(self.standby_from);
        conns.chain(candidates).chain(calls).chain(avoided).chain(feeds).chain(rest).min()
    }

    /// What has been seen by the calls that were answered, for the next session.
    pub fn token(&self) -> &Token {
        self.seen.token()
    }

    /// Whom to ask first next time.
    pub fn director(&self) -> Option<ProcessId> {
        self.assignment.as_ref().and_then(|assignment| assignment.director).or(self.director_last)
    }

    /// Who answers requests now.
    pub fn served_by(&self) -> Option<(HostId, ProcessId)> {
        let conn = self.conns.get(&self.server?)?;
        match conn.state {
            ConnState::Open { host, .. } => Some((host, conn.process)),
            ConnState::Dialing | ConnState::Greeting { .. } => None,
        }
    }

    /// Fails a test when what the session believes of itself does not hold together.
    pub fn check_invariants(&self) {
        let places = [self.server, self.director, self.better, self.standby];
        for id in places.into_iter().flatten().chain(self.candidates.iter().copied()) {
            assert!(self.conns.contains_key(&id), "{id:?} is used and not there");
        }
        assert!(self.server.is_none_or(|id| self.conns[&id].is_open()), "the server has not said Hello");
        assert_eq!(self.deadlines.len(), self.calls.len(), "each call has one deadline");
        let asked = self.search.iter().flat_map(|search| &search.asked);
        assert!(asked.into_iter().all(|id| self.conns.contains_key(id)), "somebody is asked who is not there");
        self.check_calls();
        assert!(self.search.is_some() || self.director.is_some() || self.next == 0, "nobody is asked where to go");
    }

    fn settle_if_changed(&mut self, at: Instant, out: &mut Outputs) {
        if self.picture == Picture::Changed {
            self.picture = Picture::Settled;
            self.settle(at, out);
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
