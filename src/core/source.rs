//! The sending end of replication, at a relay: one host's log to the primary of each other host.
//!
//! The relay reads its host's store itself; the primary only nudges it. For every other host it keeps one stream: it
//! asks the receiver where it stands (`Open`, `Held`), sends its own host's entries at once, and other origins' entries
//! when the receiver has lacked them for a while, so that one live path between hosts is enough, or at once when nobody
//! serves at their host: what that host said last, perhaps to this one only, all others wait for. When the log no longer
//! has what is lacked, the tables are offered instead. The receiver, whom several may offer them, says from which key on
//! it wants them; they are sent a part at a time, a few parts ahead of its word, each with the vector at which it was
//! read; and then the log goes on after what all parts held (the rules are idempotent, so a fuzzy snapshot is enough).
//!
//! Two relays of one host do no harm: they only send twice. Everything in flight is bounded.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::core::io::{Output, Outputs, ReadId};
use crate::id::{HostId, Origin, ProcessId, Seq, Vector};
use crate::limits;
use crate::service::blocks::LogDigest;
use crate::service::ledger::LogChunk;
use crate::service::snapshot::{Chunk, Part};
use crate::time::{Hlc, Instant};
use crate::wire::REPORTS;
use crate::wire::peer::PeerMessage;

/// The stream to one other host.
#[derive(Debug)]
struct Outlet {
    /// The process that serves there.
    to: Option<ProcessId>,
    stream: u64,
    state: State,
    reading: Option<ReadId>,
    /// What the receiver holds durably.
    held: Vector,
    /// What was sent, or is held.
    sent: Vector,
    /// The last entries of each batch that is not acknowledged.
    in_flight: VecDeque<Vector>,
    /// Other origins' entries that the receiver lacked when last looked.
    mark: Option<(Instant, Vector)>,
    /// Up to where the receiver was told digests of what it holds.
    told: Vector,
    /// Digests that are being read for it, up to these places.
    telling: Option<(ReadId, Vector)>,
    /// The last answer, or the last attempt.
    heard_at: Instant,
    /// When something in flight was last acknowledged, or nothing was in flight.
    moved_at: Instant,
    /// How long a receiver that talks may acknowledge nothing of what is in flight.
    patience: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Nobody to talk to, or not asked yet.
    Closed,
    /// `Open` was sent.
    Opening,
    /// Entries flow.
    Streaming,
    /// The log no longer has what is lacked, before these places; the receiver may want a snapshot.
    Offering { cut: Vector },
    /// Parts flow: the next begins at this key, and so many are not acknowledged. Without a key, all are sent.
    Snapshot { at: Option<Vec<u8>>, unheld: usize },
}

/// A relay's streams to all other hosts.
#[derive(Debug)]
pub(crate) struct Source {
    host: HostId,
    outlets: BTreeMap<HostId, Outlet>,
    reads: BTreeMap<ReadId, HostId>,
    /// What the host's store is known to hold.
    committed: Vector,
    next_stream: u64,
    /// Entries of a block of the log.
    block: u64,
    /// Processes that understand digests.
    comparing: BTreeSet<ProcessId>,
}

/// Hands out the numbers of reads.
pub(crate) trait Reads {
    /// The next number.
    fn next_read(&mut self) -> ReadId;
}

impl Source {
    /// A relay that has not begun. `salt` keeps the stream numbers of successive relays apart.
    pub(crate) fn new(host: HostId, others: impl Iterator<Item = HostId>, salt: u64, block: u64, now: Instant) -> Self {
        let outlet = || Outlet {
            to: None,
            stream: 0,
            state: State::Closed,
            reading: None,
            held: Vector::new(),
            sent: Vector::new(),
            in_flight: VecDeque::new(),
            mark: None,
            told: Vector::new(),
            telling: None,
            heard_at: now,
            moved_at: now,
            patience: limits::REPLICATION_STANDSTILL,
        };
        Self {
            host,
            outlets: others.map(|other| (other, outlet())).collect(),
            reads: BTreeMap::new(),
            committed: Vector::new(),
            next_stream: salt << 16,
            block,
            comparing: BTreeSet::new(),
        }
    }

    /// What a host is known to hold.
    pub(crate) fn held(&self) -> impl Iterator<Item = (HostId, &Vector)> {
        self.outlets.iter().filter(|(_, outlet)| outlet.stream != 0).map(|(host, outlet)| (*host, &outlet.held))
    }

    /// Who serves another host, or that nobody does.
    pub(crate) fn on_serving(&mut self, now: Instant, host: HostId, to: Option<ProcessId>, out: &mut Outputs) {
        let Some(outlet) = self.outlets.get_mut(&host) else { return };
        if outlet.to != to {
            outlet.to = to;
            outlet.patience = limits::REPLICATION_STANDSTILL;
            self.open(now, host, out);
        }
    }

    /// A process has said what it understands.
    pub(crate) fn on_version(&mut self, peer: ProcessId, version: u16) {
        if version >= REPORTS {
            self.comparing.insert(peer);
        } else {
            self.comparing.remove(&peer);
        }
    }

    /// The link to this process is up (anew): what was sent before may be lost.
    pub(crate) fn on_link(&mut self, now: Instant, peer: ProcessId, out: &mut Outputs) {
        let host = self.outlets.iter().find(|(_, outlet)| outlet.to == Some(peer)).map(|(host, _)| *host);
        if let Some(host) = host {
            self.open(now, host, out);
        }
    }

    fn open(&mut self, now: Instant, host: HostId, out: &mut Outputs) {
        let Some(outlet) = self.outlets.get_mut(&host) else { return };
        outlet.state = State::Closed;
        outlet.reading = None;
        outlet.in_flight.clear();
        outlet.mark = None;
        (outlet.told, outlet.telling) = (Vector::new(), None);
        (outlet.heard_at, outlet.moved_at) = (now, now);
        if let Some(to) = outlet.to {
            self.next_stream += 1;
            outlet.stream = self.next_stream;
            outlet.state = State::Opening;
            out.push(Output::Send { to, message: PeerMessage::Open { stream: outlet.stream } });
        }
    }

    /// The store of this host holds more.
    pub(crate) fn on_committed(&mut self, now: Instant, vector: &Vector, reads: &mut dyn Reads, out: &mut Outputs) {
        self.committed.merge(vector);
        self.pump_all(now, reads, out);
    }

    /// Sends each host what it lacks and may be sent by now.
    pub(crate) fn pump_all(&mut self, now: Instant, reads: &mut dyn Reads, out: &mut Outputs) {
        for host in self.outlets.keys().copied().collect::<Vec<_>>() {
            self.pump(now, host, reads, out);
        }
    }

    /// Hosts at which nobody serves, as far as known here: they send nothing themselves.
    fn mute(&self) -> Vec<HostId> {
        self.outlets.iter().filter(|(_, outlet)| outlet.to.is_none()).map(|(host, _)| *host).collect()
    }

    /// Whose stream this is, if it is still the current one.
    fn host_of(&self, from: ProcessId, stream: u64) -> Option<HostId> {
        self.outlets
            .iter()
            .find(|(_, outlet)| outlet.to == Some(from) && outlet.stream == stream)
            .map(|(host, _)| *host)
    }

    /// The receiver says what it holds. Returns whose vector it is.
    pub(crate) fn on_held(
        &mut self,
        now: Instant,
        from: ProcessId,
        stream: u64,
        vector: Vector,
        reads: &mut dyn Reads,
        out: &mut Outputs,
    ) -> Option<HostId> {
        let host = self.host_of(from, stream)?;
        let outlet = self.outlets.get_mut(&host)?;
        outlet.heard_at = now;
        if let State::Offering { cut } = &outlet.state
            && !vector.covers(cut)
        {
            outlet.held = vector;
            return Some(host);
        }
        if matches!(outlet.state, State::Opening | State::Offering { .. }) {
            outlet.state = State::Streaming;
            outlet.sent = vector.clone();
            // Whoever is behind now is not served better by another relay in a moment: the stream brings all of it,
            // in one causal order.
            outlet.mark = Some((now - limits::FORWARD_AFTER, foreign(&self.committed, self.host)));
        }
        outlet.sent.merge(&vector);
        outlet.held = vector;
        outlet.on_acknowledged(now);
        self.pump(now, host, reads, out);
        Some(host)
    }

    /// The receiver lost the stream: begin anew, a little later (see `on_timeout`).
    pub(crate) fn on_closed(&mut self, now: Instant, from: ProcessId, stream: u64) {
        if let Some(outlet) = self.host_of(from, stream).and_then(|host| self.outlets.get_mut(&host)) {
            outlet.state = State::Closed;
            outlet.heard_at = now;
        }
    }

    /// The receiver wants the snapshot that was offered, from this key on.
    pub(crate) fn on_snapshot_wanted(
        &mut self,
        now: Instant,
        from: ProcessId,
        stream: u64,
        at: Vec<u8>,
        reads: &mut dyn Reads,
        out: &mut Outputs,
    ) {
        let Some(host) = self.host_of(from, stream) else { return };
        let Some(outlet) = self.outlets.get_mut(&host) else { return };
        if matches!(outlet.state, State::Offering { .. }) {
            outlet.heard_at = now;
            outlet.state = State::Snapshot { at: Some(at), unheld: 0 };
            self.pump(now, host, reads, out);
        }
    }

    /// The receiver has a part on its disk.
    pub(crate) fn on_snapshot_held(
        &mut self,
        now: Instant,
        from: ProcessId,
        stream: u64,
        reads: &mut dyn Reads,
        out: &mut Outputs,
    ) {
        let Some(host) = self.host_of(from, stream) else { return };
        let Some(outlet) = self.outlets.get_mut(&host) else { return };
        outlet.heard_at = now;
        let State::Snapshot { at, unheld } = &mut outlet.state else { return };
        *unheld = unheld.saturating_sub(1);
        if at.is_none() && *unheld == 0 {
            // Next it tells what it holds now.
            outlet.state = State::Opening;
        } else {
            self.pump(now, host, reads, out);
        }
    }

    /// Reads the digests of blocks that the receiver has acknowledged, unless it was told.
    fn tell_digests(&mut self, host: HostId, reads: &mut dyn Reads, out: &mut Outputs) {
        let Some(outlet) = self.outlets.get_mut(&host) else { return };
        let idle = outlet.state == State::Streaming && outlet.telling.is_none();
        if !idle || outlet.to.is_none_or(|to| !self.comparing.contains(&to)) {
            return;
        }
        let both = self.committed.iter().map(|(origin, seq)| (origin, seq.min(outlet.held.get(origin))));
        let whole = both.map(|(origin, seq)| (origin, Seq(seq.0 - seq.0 % self.block)));
        let upto = whole.filter(|(origin, seq)| *seq > outlet.told.get(*origin));
        let upto: Vector = upto.take(limits::LOG_DIGESTS_ORIGINS_MAX).collect();
        if !upto.is_empty() {
            let read = reads.next_read();
            let after = upto.iter().map(|(origin, _)| (origin, outlet.told.get(origin))).collect();
            outlet.telling = Some((read, upto));
            out.push(Output::ReadDigests { read, after });
        }
    }

    /// Digests were read: tell them.
    pub(crate) fn on_digests_read(
        &mut self,
        read: ReadId,
        digests: &[LogDigest],
        reads: &mut dyn Reads,
        out: &mut Outputs,
    ) {
        let asked = |outlet: &Outlet| outlet.telling.as_ref().is_some_and(|(asked, _)| *asked == read);
        let Some((host, outlet)) = self.outlets.iter_mut().find(|(_, outlet)| asked(outlet)) else { return };
        let (Some((_, upto)), Some(to)) = (outlet.telling.take(), outlet.to) else { return };
        outlet.told.merge(&upto);
        let digests: Vec<LogDigest> = digests.iter().filter(|digest| upto.holds(digest.upto)).copied().collect();
        if !digests.is_empty() && self.comparing.contains(&to) {
            out.push(Output::Send { to, message: PeerMessage::Digests { stream: outlet.stream, digests } });
        }
        let host = *host;
        self.tell_digests(host, reads, out);
    }

    /// Reads what the receiver lacks, if nothing is being read and there is room in flight.
    fn pump(&mut self, now: Instant, host: HostId, reads: &mut dyn Reads, out: &mut Outputs) {
        self.tell_digests(host, reads, out);
        let mute = self.mute();
        let Some(outlet) = self.outlets.get_mut(&host).filter(|outlet| outlet.reading.is_none()) else { return };
        if let State::Snapshot { at: Some(at), unheld } = &outlet.state
            && *unheld < limits::SNAPSHOT_PARTS_IN_FLIGHT_MAX
        {
            let read = reads.next_read();
            outlet.reading = Some(read);
            self.reads.insert(read, host);
            out.push(Output::ReadSnapshot { read, at: at.clone() });
        }
        if outlet.state != State::Streaming || outlet.crowded() {
            return;
        }
        // What others lack may be what the receiver waits for: it may go beyond the usual bound, up to twice that.
        let full = outlet.in_flight.len() >= limits::BATCHES_IN_FLIGHT_MAX;
        let lacked = outlet.lacked_long(now, self.host, &self.committed);
        let after: Vec<(Origin, Seq)> = self
            .committed
            .iter()
            .filter(|(origin, seq)| *seq > outlet.sent.get(*origin))
            .filter(|(origin, _)| {
                (origin.host == self.host && !full)
                    || lacked.get(*origin) > Seq::ZERO
                    || (origin.host != host && mute.contains(&origin.host))
            })
            .map(|(origin, _)| (origin, outlet.sent.get(origin)))
            .collect();
        if after.is_empty() {
            return;
        }
        let read = reads.next_read();
        outlet.reading = Some(read);
        self.reads.insert(read, host);
        out.push(Output::ReadLog { read, after, bytes_max: limits::BATCH_BYTES_MAX });
    }

    /// The log was read: send it on.
    pub(crate) fn on_log_read(
        &mut self,
        now: Instant,
        read: ReadId,
        chunk: LogChunk,
        hlc: Hlc,
        reads: &mut dyn Reads,
        out: &mut Outputs,
    ) {
        let Some(host) = self.reads.remove(&read) else { return };
        self.committed.merge(&chunk.standing.vector);
        let Some(outlet) = self.outlets.get_mut(&host).filter(|outlet| outlet.reading == Some(read)) else { return };
        outlet.reading = None;
        let Some(to) = outlet.to else { return };
        if !chunk.cut.is_empty() {
            outlet.heard_at = now;
            return outlet.offer(chunk.standing.cut, out);
        }
        if chunk.runs.is_empty() {
            return;
        }
        let mut last = Vector::new();
        for run in &chunk.runs {
            last.raise(run.origin, run.last());
        }
        outlet.sent.merge(&last);
        if outlet.in_flight.is_empty() {
            outlet.moved_at = now;
        }
        outlet.in_flight.push_back(last);
        let message = PeerMessage::Batch { stream: outlet.stream, hlc, runs: chunk.runs };
        out.push(Output::Send { to, message });
        self.pump(now, host, reads, out);
    }

    /// A part of the tables was read at this vector: send it on.
    pub(crate) fn on_snapshot_read(
        &mut self,
        now: Instant,
        read: ReadId,
        chunk: Chunk,
        vector: Vector,
        reads: &mut dyn Reads,
        out: &mut Outputs,
    ) {
        let Some(host) = self.reads.remove(&read) else { return };
        self.committed.merge(&vector);
        let Some(outlet) = self.outlets.get_mut(&host).filter(|outlet| outlet.reading == Some(read)) else { return };
        outlet.reading = None;
        let (State::Snapshot { at, unheld }, Some(to)) = (&mut outlet.state, outlet.to) else { return };
        *unheld += 1;
        if *unheld == 1 {
            outlet.heard_at = now;
        }
        let begins = std::mem::replace(at, chunk.next.clone()).unwrap_or_default();
        let part = Part { at: begins, bytes: chunk.bytes, next: chunk.next, vector };
        out.push(Output::Send { to, message: PeerMessage::SnapshotRows { stream: outlet.stream, part } });
        self.pump(now, host, reads, out);
    }

    /// Opens anew what is closed or silent, and looks for what was lacked for long.
    pub(crate) fn on_timeout(&mut self, now: Instant, reads: &mut dyn Reads, out: &mut Outputs) {
        for host in self.outlets.keys().copied().collect::<Vec<_>>() {
            if self.outlets.get(&host).is_some_and(|outlet| outlet.due().is_some_and(|at| now >= at)) {
                let stuck = self.outlets.get(&host).is_some_and(|outlet| outlet.stuck(now));
                if stuck {
                    if let Some(outlet) = self.outlets.get_mut(&host) {
                        outlet.warn_of_standstill(now, host);
                    }
                    self.open(now, host, out);
                } else if let Some(outlet) = self.outlets.get_mut(&host).filter(|outlet| outlet.offers()) {
                    outlet.heard_at = now;
                    outlet.offer_again(out);
                } else {
                    self.pump(now, host, reads, out);
                }
            }
        }
    }

    /// When `on_timeout` is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.outlets.values().filter_map(Outlet::due).min()
    }
}

/// A closed stream is opened anew after this, so that a receiver that refuses is not asked in a loop.
const REOPEN: Duration = Duration::from_millis(50);

/// What of a vector other hosts made.
fn foreign(vector: &Vector, me: HostId) -> Vector {
    vector.iter().filter(|(origin, _)| origin.host != me).collect()
}

impl Outlet {
    /// Entries of other origins that the receiver has lacked for `FORWARD_AFTER`. What its own host made it has.
    fn lacked_long(&mut self, now: Instant, me: HostId, committed: &Vector) -> Vector {
        let lacks = |mark: &Vector, held: &Vector| -> Vector {
            mark.iter().filter(|(origin, seq)| *seq > held.get(*origin)).collect()
        };
        match self.mark.take() {
            None => {
                let mark = foreign(committed, me);
                if !self.held.covers(&mark) {
                    self.mark = Some((now, mark));
                }
                Vector::new()
            }
            Some((_, mark)) if self.held.covers(&mark) => self.lacked_long(now, me, committed),
            Some((at, mark)) if now < at + limits::FORWARD_AFTER => {
                self.mark = Some((at, mark));
                Vector::new()
            }
            Some((at, mark)) => {
                let lacked = lacks(&mark, &self.held);
                self.mark = Some((at, mark));
                lacked
            }
        }
    }

    /// Offers a snapshot, because the log begins after these places.
    fn offer(&mut self, cut: Vector, out: &mut Outputs) {
        self.state = State::Offering { cut };
        self.offer_again(out);
    }

    fn offer_again(&self, out: &mut Outputs) {
        if let (State::Offering { cut }, Some(to)) = (&self.state, self.to) {
            let message = PeerMessage::SnapshotOffer { stream: self.stream, cut: cut.clone() };
            out.push(Output::Send { to, message });
        }
    }

    fn offers(&self) -> bool {
        matches!(self.state, State::Offering { .. })
    }

    /// Whether nothing more may be sent before something is acknowledged.
    fn crowded(&self) -> bool {
        self.in_flight.len() >= 2 * limits::BATCHES_IN_FLIGHT_MAX
    }

    /// The receiver holds more than before, or told only that it lives.
    fn on_acknowledged(&mut self, now: Instant) {
        let before = self.in_flight.len();
        self.in_flight.retain(|last| !self.held.covers(last));
        if self.in_flight.len() == before {
            return;
        }
        self.moved_at = now;
        if self.in_flight.is_empty() {
            self.patience = limits::REPLICATION_STANDSTILL;
        }
    }

    /// Whether the receiver talks, and has acknowledged nothing of what is in flight for too long.
    fn stands_still(&self, now: Instant) -> bool {
        self.state == State::Streaming && !self.in_flight.is_empty() && now >= self.moved_at + self.patience
    }

    /// A stream stands still, which operators should know of, and is about to be opened anew.
    ///
    /// Its receiver should not let it: this is for what nobody has thought of. But it may also be in the right, because
    /// it waits for entries of a host that it is cut off from, or its link is slow and what was sent has not come yet.
    /// To send all of that again does not help then, and on a slow link it is behind what is on its way already. So
    /// each time the patience doubles, until all that was sent is acknowledged.
    fn warn_of_standstill(&mut self, now: Instant, host: HostId) {
        if self.stands_still(now) && now < self.heard_at + limits::REPLICATION_SILENCE {
            let (batches, held, first) = (self.in_flight.len(), &self.held, self.in_flight.front());
            let seconds = self.patience.as_secs();
            tracing::warn!(
                %host, to = ?self.to, batches, ?first, ?held,
                "the receiver talks, but acknowledged nothing of what is in flight for {seconds} s: sent again"
            );
            self.patience = (self.patience * 2).min(limits::REPLICATION_STANDSTILL_MAX);
        }
    }

    /// Whether the receiver should have answered long ago.
    fn stuck(&self, now: Instant) -> bool {
        match &self.state {
            State::Closed => self.to.is_some() && now >= self.heard_at + REOPEN,
            State::Opening => now >= self.heard_at + limits::FORWARD_AFTER,
            State::Streaming => {
                let silent = !self.in_flight.is_empty() && now >= self.heard_at + limits::REPLICATION_SILENCE;
                silent || self.stands_still(now)
            }
            State::Offering { .. } => false,
            State::Snapshot { unheld, .. } => *unheld > 0 && now >= self.heard_at + limits::COPIES_WAIT * 10,
        }
    }

    /// When something is due.
    fn due(&self) -> Option<Instant> {
        self.to?;
        match &self.state {
            State::Closed => Some(self.heard_at + REOPEN),
            State::Opening => Some(self.heard_at + limits::FORWARD_AFTER),
            State::Streaming => {
                let silence = (self.heard_at + limits::REPLICATION_SILENCE).min(self.moved_at + self.patience);
                let silence = (!self.in_flight.is_empty()).then_some(silence);
                // What was sent waits for the receiver's word, and what came after the mark for the next mark.
                let idle = self.reading.is_none() && !self.crowded();
                let unsent = self.mark.as_ref().filter(|(_, mark)| idle && !self.sent.covers(mark));
                silence.into_iter().chain(unsent.map(|(at, _)| *at + limits::FORWARD_AFTER)).min()
            }
            State::Offering { .. } => Some(self.heard_at + limits::SNAPSHOT_SILENCE),
            State::Snapshot { unheld, .. } => (*unheld > 0).then(|| self.heard_at + limits::COPIES_WAIT * 10),
        }
    }
}
