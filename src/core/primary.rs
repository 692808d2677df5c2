//! The primary: takes writes, waits for their copies, answers reads when their token is held.
//!
//! Order of events for a write: `Persist` -> `Persisted` -> copies -> `Reply` (P1). Nothing is answered or shown before
//! the store has persisted it. A write that has not got its copies after `COPIES_WAIT` is answered with how many there
//! are. Requests of one connection are taken in order, also while one of them waits for its token.
//!
//! Invariants: `standing.vector` never falls; every request that came in is answered or handed back (`NotServing`)
//! exactly once. What a primary holds in memory it learnt in its own epoch: promotion starts from the store.

use std::collections::{BTreeMap, VecDeque};

use crate::core::copies::Copies;
use crate::core::feeds::{Feeds, Lack};
use crate::core::io::{Output, Outputs};
use crate::core::retention::{Clocks, Retention, Trimming};
use crate::core::sink::{Sink, Writes};
use crate::error::{ErrorCode, Refusal};
use crate::id::{ClientId, EntryId, Epoch, HostId, Origin, PublicKey, Token, UserId, Vector};
use crate::limits;
use crate::service::intake::{Accepted, IntakeResult, WriteOp, WriteRequest};
use crate::service::ledger::{Committed, Standing, Write, WriteId, Wrote};
use crate::service::query::Query;
use crate::time::{Instant, Now};
use crate::topology::{AckLevel, PostsKept};
use crate::wire::client::{Request, RequestBody, Response, ServerFrame, Written};

/// A request and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) client: ClientId,
    pub(crate) key: PublicKey,
    pub(crate) request: Request,
}

/// A write that the store has, waiting for copies.
#[derive(Debug)]
struct Owed {
    client: ClientId,
    number: u64,
    accepted: Accepted,
    level: AckLevel,
}

/// A write at the store.
#[derive(Debug, Clone, Copy)]
struct Sent {
    client: ClientId,
    number: u64,
    level: AckLevel,
}

/// Numbers of writes under one epoch.
#[derive(Debug)]
struct Numbers {
    epoch: Epoch,
    next: u64,
}

impl Writes for Numbers {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn next_id(&mut self) -> WriteId {
        self.next += 1;
        WriteId(self.next)
    }
}

/// What a host's primary knows and owes.
#[derive(Debug)]
pub(crate) struct Primary {
    host: HostId,
    level: AckLevel,
    numbers: Numbers,
    standing: Standing,
    pub(crate) copies: Copies,
    pub(crate) sink: Sink,
    pub(crate) feeds: Feeds,
    at_store: BTreeMap<WriteId, Sent>,
    owed: BTreeMap<EntryId, Vec<Owed>>,
    owed_count: usize,
    /// When the entries up to this vector should have their copies.
    due: VecDeque<(Instant, Vector)>,
    /// Requests that wait for their token, in order of arrival.
    waiting: VecDeque<(Instant, Ask)>,
    waiting_of: BTreeMap<ClientId, usize>,
    /// The last write was refused for want of room; asked again at this time.
    full_until: Option<Instant>,
    /// The incarnation that the store has not begun yet: no write goes to it before, as the old one's seqs may be taken.
    beginning: Option<Origin>,
    retention: Retention,
    /// Asked of the store, which may not have done it yet.
    cut: Vector,
    trimming: Trimming,
    /// A step of taking out what nobody holds any more is at the store.
    sweep: Option<WriteId>,
    /// Where an origin ends is on its way to the store.
    retiring: Option<WriteId>,
}

/// Copies that a write waits for. A name is claimed at every host that can be had, so that it can be claimed twice only
/// during a partition: whoever learns that a login is done finds the name taken, whichever host he asks.
fn level_of(op: &WriteOp, asked: AckLevel) -> AckLevel {
    match op {
        WriteOp::Register { .. } => AckLevel::All,
        WriteOp::Join { .. } | WriteOp::Leave { .. } | WriteOp::Post { .. } => asked,
    }
}

/// What a primary needs to be told at its start.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) host: HostId,
    /// Hosts of the topology, this one included.
    pub(crate) hosts: Vec<HostId>,
    pub(crate) level: AckLevel,
    pub(crate) retention: Retention,
    pub(crate) posts: PostsKept,
    /// Numbers of writes start here, so that those of an earlier term cannot be taken for this one's.
    pub(crate) first_write: u64,
    /// So do those of reads for feeds.
    pub(crate) first_feed_read: u64,
}

impl Primary {
    /// A primary of this epoch, as the store stands.
    pub(crate) fn new(now: Now, post: Post, standing: Standing) -> Self {
        let place = post.hosts.iter().filter(|host| **host < post.host).count();
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        let trimming = Trimming::new(now.mono, post.posts, place, standing.trim);
        let copies = Copies::new(post.host, post.hosts, post.level, standing.vector.clone());
        let mut primary = Self {
            host: post.host,
            level: post.level,
            numbers: Numbers { epoch: standing.epoch, next: post.first_write },
            sink: Sink::new(&standing),
            standing,
            copies,
            feeds: Feeds::new(post.first_feed_read),
            at_store: BTreeMap::new(),
            owed: BTreeMap::new(),
            owed_count: 0,
            due: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_of: BTreeMap::new(),
            full_until: None,
            beginning: None,
            retention: post.retention,
            cut: Vector::new(),
            trimming,
            sweep: None,
            retiring: None,
        };
        primary.copies.on_retired(&primary.standing.retired);
        primary.expect_copies(now);
        primary
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.numbers.epoch
    }

    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(crate) fn writable(&self) -> bool {
        self.full_until.is_none()
    }

    /// Where the numbers of the next term may start.
    pub(crate) fn last_write(&self) -> u64 {
        self.numbers.next
    }

    /// Begins a new incarnation.
    pub(crate) fn begin(&mut self, origin: Origin, out: &mut Outputs) {
        self.beginning = Some(origin);
        self.persist(Write::Begin(origin), out);
    }

    /// Whether the store knows the incarnation that goes on here.
    pub(crate) fn begun(&self) -> bool {
        self.beginning.is_none()
    }

    /// Has something else than a request committed.
    pub(crate) fn persist(&mut self, write: Write, out: &mut Outputs) -> WriteId {
        let (id, epoch) = (self.numbers.next_id(), self.numbers.epoch);
        out.push(Output::Persist { id, epoch, write });
        id
    }

    /// The parts that the sink's calls need side by side.
    pub(crate) fn sink(&mut self) -> (&mut Sink, &mut dyn Writes) {
        (&mut self.sink, &mut self.numbers)
    }

    /// A person asks.
    pub(crate) fn on_request(&mut self, now: Now, ask: Ask, out: &mut Outputs) {
        let queued = self.waiting_of.contains_key(&ask.client);
        let is_write = matches!(ask.request.body, RequestBody::Write { .. });
        if is_write && self.beginning.is_some() && self.full_until.is_some() {
            self.refuse(ask.client, ask.request.number, self.disk_full(), out);
        } else if !queued && self.beginning.is_none() && self.copies.shown().covers(&ask.request.token.vector) {
            self.perform(ask, out);
        } else if self.waiting.len() >= limits::TOKEN_WAITS_MAX {
            let refusal = Refusal::new(ErrorCode::Busy, "too many requests wait at this host: try again in a moment");
            self.refuse(ask.client, ask.request.number, refusal, out);
        } else {
            *self.waiting_of.entry(ask.client).or_default() += 1;
            self.waiting.push_back((now.mono, ask));
        }
    }

    fn perform(&mut self, ask: Ask, out: &mut Outputs) {
        let Ask { client, key, request } = ask;
        let (number, user) = (request.number, UserId::of(&key));
        let query = match request.body {
            RequestBody::Write { id, op, ack } => {
                let level = level_of(&op, ack.unwrap_or(self.level));
                return self.write(Sent { client, number, level }, WriteRequest { key, id, op }, out);
            }
            RequestBody::WhoAmI => Query::WhoAmI { user },
            RequestBody::List { part, after } => Query::List { user, part, after },
            RequestBody::Timeline { of, limit, mut since, before } => {
                since.iter_mut().for_each(|since| self.copies.retired().complete(since));
                Query::Timeline { user, of, limit: limit.min(limits::TIMELINE_POSTS_MAX), since, before }
            }
            RequestBody::Assign | RequestBody::Status | RequestBody::Report | RequestBody::Drain { .. } => {
                debug_assert!(false, "answered by the node");
                return;
            }
        };
        out.push(Output::Query { client, number, shown: self.copies.shown().clone(), query });
    }

    fn write(&mut self, sent: Sent, request: WriteRequest, out: &mut Outputs) {
        if self.at_store.len() + self.owed_count >= limits::WRITES_WAITING_MAX {
            let refusal = Refusal::new(ErrorCode::Busy, "too many writes wait at this host: try again in a moment");
            return self.refuse(sent.client, sent.number, refusal, out);
        }
        let id = self.numbers.next_id();
        self.at_store.insert(id, sent);
        out.push(Output::Persist { id, epoch: self.numbers.epoch, write: Write::Request(request) });
    }

    /// The store has committed a batch. Returns whether anything new is there for the relay.
    pub(crate) fn on_committed(&mut self, now: Now, committed: Committed, out: &mut Outputs) {
        let Committed { outcomes, standing, proved } = committed;
        assert!(standing.vector.covers(&self.standing.vector), "the store went back");
        self.standing = standing;
        self.beginning.take_if(|origin| self.standing.origin == Some(*origin));
        if self.full_until.take().is_some()
            && let Some(origin) = self.beginning
        {
            self.persist(Write::Begin(origin), out);
        }
        self.copies.on_retired(&self.standing.retired);
        self.copies.on_proved(&proved);
        self.copies.on_committed(&self.standing.vector);
        for (id, wrote) in &outcomes {
            if let (Some(sent), Wrote::Request(result)) = (self.at_store.remove(id), wrote) {
                self.on_outcome(sent, result.clone(), out);
            }
        }
        self.expect_copies(now);
        self.sink.on_persisted(now.mono, &outcomes, &self.standing, &mut self.numbers, out);
        self.on_shown(out);
        self.shorten_log(out);
        self.sweep.take_if(|step| outcomes.iter().any(|(id, _)| id == step));
        self.retiring.take_if(|write| outcomes.iter().any(|(id, _)| id == write));
        self.sweep_lost(out);
        self.trimming.on_committed(now.mono, self.standing.trim);
    }

    /// Has the log cut below what it need not hold.
    fn shorten_log(&mut self, out: &mut Outputs) {
        self.cut.merge(&self.standing.cut);
        if let Some(cut) = self.copies.next_cut(self.retention, &self.cut) {
            self.cut.merge(&cut);
            self.persist(Write::Cut(cut), out);
        }
    }

    /// Has rows taken out that a snapshot told of, and that nobody holds any more.
    fn sweep_lost(&mut self, out: &mut Outputs) {
        let told = &self.standing.ahead;
        let idle = self.sweep.is_none() && self.begun() && self.writable() && self.sink.takes_none();
        if !told.is_empty() && idle && self.copies.nobody_has(told) {
            self.sweep = Some(self.persist(Write::Sweep, out));
        }
    }

    /// Has it said where an origin of an earlier incarnation ends, once every host holds all of it. To be called while
    /// every host understands such an entry.
    pub(crate) fn retire_ended(&mut self, out: &mut Outputs) {
        let idle = self.retiring.is_none() && self.begun() && self.writable();
        let ended = self.standing.origin.filter(|_| idle).and_then(|present| self.copies.ended(present));
        if let Some((origin, last)) = ended {
            self.retiring = Some(self.persist(Write::Retire { origin, last }, out));
        }
    }

    /// Whether a look for posts to remove is due.
    pub(crate) fn trim_is_due(&self, now: Instant) -> bool {
        self.trimming.is_due(now)
    }

    /// Has posts removed that need not be kept, if a look for them is due.
    pub(crate) fn trim_posts(&mut self, now: Now, clocks: Clocks, out: &mut Outputs) {
        let keep = self.trimming.on_timeout(now, clocks);
        if let Some(keep) = keep.filter(|_| self.begun() && self.writable()) {
            self.persist(Write::Trim(keep), out);
        }
    }

    /// Notes when what is held should have its copies, whoever made it: who made it may be silent by now.
    fn expect_copies(&mut self, now: Now) {
        let held = &self.standing.vector;
        let waits = !self.copies.shown().covers(held) || !self.owed.is_empty();
        if waits && self.due.back().is_none_or(|(_, vector)| vector != held) {
            self.due.push_back((now.mono + limits::COPIES_WAIT, held.clone()));
        }
    }

    fn on_outcome(&mut self, sent: Sent, result: IntakeResult, out: &mut Outputs) {
        match result {
            Err(refusal) => self.refuse(sent.client, sent.number, refusal, out),
            Ok(accepted) => {
                let entry = accepted.entry;
                let Sent { client, number, level } = sent;
                let owed = Owed { client, number, accepted, level };
                if self.copies.settles(entry, level) {
                    self.acknowledge(owed, out);
                } else {
                    self.owed.entry(entry).or_default().push(owed);
                    self.owed_count += 1;
                }
            }
        }
    }

    fn acknowledge(&self, owed: Owed, out: &mut Outputs) {
        let Owed { client, number, accepted, level } = owed;
        let mut token = self.token();
        token.vector.raise(accepted.entry.origin, accepted.entry.seq);
        let copies = self.copies.count(accepted.entry);
        let written = Written { accepted, copies, ack: level, host: self.host };
        let result = Ok(Response::Written(written));
        out.push(Output::Reply { client, frame: ServerFrame::Response { number, token, result } });
    }

    /// What an answer of now has seen.
    pub(crate) fn token(&self) -> Token {
        let mut vector = self.copies.shown().clone();
        self.copies.shorten(&mut vector);
        Token { vector, hlc: self.standing.hlc }
    }

    /// A refusal of the caller's making: its token is returned as far as it is shown here.
    pub(crate) fn refuse(&self, client: ClientId, number: u64, refusal: Refusal, out: &mut Outputs) {
        let frame = ServerFrame::Response { number, token: self.token(), result: Err(refusal) };
        out.push(Output::Reply { client, frame });
    }

    /// Another host told what it holds durably.
    pub(crate) fn on_copies(&mut self, host: HostId, vector: &Vector, out: &mut Outputs) {
        self.copies.on_held(host, vector);
        let mut settled = Vec::new();
        for (origin, seq) in vector.iter() {
            let first = EntryId { origin, seq: crate::id::Seq::ZERO };
            let range = self.owed.range_mut(first..=EntryId { origin, seq });
            for (entry, owed) in range {
                let copies = &self.copies;
                settled.extend(owed.extract_if(.., |owed| copies.settles(*entry, owed.level)));
            }
        }
        self.owed_count -= settled.len();
        if !settled.is_empty() {
            self.owed.retain(|_, owed| !owed.is_empty());
        }
        for owed in settled {
            self.acknowledge(owed, out);
        }
        self.on_shown(out);
        self.sweep_lost(out);
    }

    /// More may be shown: requests that waited for it go on, and feeds move.
    fn on_shown(&mut self, out: &mut Outputs) {
        let mut still: BTreeMap<ClientId, usize> = BTreeMap::new();
        for (since, ask) in std::mem::take(&mut self.waiting) {
            // Of each client only the first is looked at: the others wait behind it, and there may be a thousand.
            let first = self.beginning.is_none() && !still.contains_key(&ask.client);
            if first && self.copies.shown().covers(&ask.request.token.vector) {
                self.perform(ask, out);
            } else {
                *still.entry(ask.client).or_default() += 1;
                self.waiting.push_back((since, ask));
            }
        }
        self.waiting_of = still;
        self.feeds.pump(&self.copies, out);
    }

    /// The store has no room. The writes of this batch are handed back; room is asked for again later.
    pub(crate) fn on_full(&mut self, now: Now, writes: &[WriteId], out: &mut Outputs) {
        self.full_until = Some(now.mono + limits::SIBLING_SILENCE);
        self.cut.clone_from(&self.standing.cut);
        self.sweep.take_if(|step| writes.contains(step));
        self.retiring.take_if(|write| writes.contains(write));
        for id in writes {
            if let Some(sent) = self.at_store.remove(id) {
                self.refuse(sent.client, sent.number, self.disk_full(), out);
            }
        }
        if self.beginning.is_some() {
            for (_, ask) in std::mem::take(&mut self.waiting) {
                self.refuse(ask.client, ask.request.number, self.disk_full(), out);
            }
            self.waiting_of.clear();
        }
        self.sink.close_all(out);
    }

    fn disk_full(&self) -> Refusal {
        let message = format!("the disk of {} is full and nothing was stored: free some space", self.host);
        Refusal::new(ErrorCode::DiskFull, message)
    }

    /// Does what is due: copies that did not come, tokens that are not held, room asked for again. `up` tells of other
    /// hosts.
    pub(crate) fn on_timeout(&mut self, now: Now, up: impl Fn(HostId) -> bool, out: &mut Outputs) {
        while let Some((_, held)) = self.due.pop_front_if(|(at, _)| now.mono >= *at) {
            self.on_copies_missed(&held, out);
        }
        if self.full_until.is_some_and(|at| now.mono >= at) {
            self.full_until = Some(now.mono + limits::SIBLING_SILENCE);
            self.persist(self.beginning.map_or(Write::Cut(Vector::new()), Write::Begin), out);
        }
        let mut late = Vec::new();
        while let Some((_, ask)) = self.waiting.pop_front_if(|(since, _)| now.mono >= *since + limits::TOKEN_WAIT) {
            late.push(ask);
        }
        for ask in late {
            self.on_token_missed(now, ask, &up, out);
        }
        let lack = |wanted: &Vector| self.copies.lack(wanted, &up);
        let behind = self.behind();
        self.feeds.on_timeout(now.mono, &self.copies, lack, &behind, out);
    }

    /// What a client that has seen more than this host holds is told.
    fn behind(&self) -> Refusal {
        Refusal::new(ErrorCode::Behind, format!("{} is behind what you have seen: ask another host", self.host))
    }

    /// What waits for copies of entries up to this vector has waited long enough.
    fn on_copies_missed(&mut self, held: &Vector, out: &mut Outputs) {
        let mut late = Vec::new();
        for (entry, owed) in std::mem::take(&mut self.owed) {
            if held.holds(entry) {
                late.extend(owed.into_iter().map(|owed| (entry, owed)));
            } else {
                self.owed.insert(entry, owed);
            }
        }
        self.owed_count -= late.len();
        for (origin, seq) in held.iter() {
            let newest = EntryId { origin, seq };
            if !self.copies.shown().holds(newest) {
                self.copies.on_missed(newest, self.level);
            }
        }
        for (entry, owed) in late {
            self.copies.on_missed(entry, owed.level);
            self.acknowledge(owed, out);
        }
        self.on_shown(out);
    }

    /// The host does not hold what the token names. Entries that it holds, but may not show yet, are worth more time.
    fn on_token_missed(&mut self, now: Now, ask: Ask, up: impl Fn(HostId) -> bool, out: &mut Outputs) {
        let Ask { client, request, .. } = &ask;
        let lack = self.copies.lack(&request.token.vector, up);
        if lack == Lack::Soon {
            self.waiting.push_back((now.mono, ask));
            return;
        }
        if let Some(count) = self.waiting_of.get_mut(client) {
            *count -= 1;
            if *count == 0 {
                self.waiting_of.remove(client);
            }
        }
        if lack == Lack::Elsewhere {
            return self.refuse(*client, request.number, self.behind(), out);
        }
        let own = self.copies.own();
        let mut token = Token { vector: Vector::new(), hlc: request.token.hlc };
        let mut gaps = Vec::new();
        for (origin, seq) in request.token.vector.iter() {
            let held = own.get(origin).min(seq);
            token.vector.set(origin, held);
            if held < seq {
                gaps.push((EntryId { origin, seq: held.next() }, EntryId { origin, seq }));
            }
        }
        let frame = ServerFrame::Response { number: request.number, token, result: Ok(Response::Missing { gaps }) };
        out.push(Output::Reply { client: *client, frame });
    }

    /// A client is gone: nothing is owed to it. Its writes go on.
    pub(crate) fn on_client_closed(&mut self, client: ClientId) {
        self.waiting.retain(|(_, ask)| ask.client != client);
        self.waiting_of.remove(&client);
        self.feeds.on_client_closed(client);
    }

    /// This process is not the primary any more: everybody is sent to the one that is.
    pub(crate) fn step_down(mut self, refusal: &Refusal, out: &mut Outputs) {
        self.sink.close_all(out);
        self.feeds.end_all(refusal, out);
        let at_store = std::mem::take(&mut self.at_store);
        let owed = std::mem::take(&mut self.owed);
        let waiting = std::mem::take(&mut self.waiting);
        let unanswered = at_store.values().map(|sent| (sent.client, sent.number));
        let unanswered = unanswered.chain(owed.values().flatten().map(|owed| (owed.client, owed.number)));
        let unanswered = unanswered.chain(waiting.iter().map(|(_, ask)| (ask.client, ask.request.number)));
        for (client, number) in unanswered {
            let result = Err(refusal.clone());
            let frame = ServerFrame::Response { number, token: Token::default(), result };
            out.push(Output::Reply { client, frame });
        }
    }

    /// When `on_timeout` is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let copies = self.due.front().map(|(at, _)| *at);
        let tokens = self.waiting.front().map(|(since, _)| *since + limits::TOKEN_WAIT);
        let own = copies.into_iter().chain(tokens).chain(self.full_until);
        own.chain(self.feeds.poll_timeout()).chain(self.trimming.poll_timeout()).min()
    }

    /// What must always hold.
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.owed_count, self.owed.values().map(Vec::len).sum::<usize>());
        assert!(self.copies.own().covers(self.copies.shown()), "shown before it is held");
        assert_eq!(self.waiting.len(), self.waiting_of.values().sum::<usize>());
    }
}

#[cfg(test)]
mod tests;
