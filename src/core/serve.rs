//! A node as its host's primary: taking the epoch, settling the incarnation, stepping down, restarting the dead.
//!
//! The epoch is taken in the store, after the election and before anything is served (P6). Waiting for the store's lock
//! has no timeout there, so it is watched from here: a stopped sibling that may hold the lock is killed at once, the
//! last primary after `LOCK_HOLDER_WAIT` if it runs or waits for the disk.
//!
//! The first primary after its whole host was down asks every host what it holds of its origin. Only if all answer, and
//! none holds more, does the origin go on; else it begins a new incarnation. Taking seqs again without this gives two
//! entries one name.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_chacha::rand_core::RngCore;

use crate::core::election;
use crate::core::io::{Output, Outputs, ReadId, StoreTrouble};
use crate::core::mesh::Willing;
use crate::core::node::{Node, Phase, Warm};
use crate::core::primary::{Post, Primary};
use crate::core::retention::{Clocks, Retention};
use crate::error::{ErrorCode, Refusal};
use crate::id::{Epoch, HostId, Origin, ProcessId, Vector};
use crate::limits;
use crate::service::blocks::{Compared, LogDigest};
use crate::service::ledger::{Committed, EntryRun, Standing, WriteId};
use crate::service::snapshot::Part;
use crate::time::{Hlc, Instant, Now};
use crate::wire::client::ServerFrame;
use crate::wire::heartbeat::{Duty, Fitness, HostView, Life, PrimaryStatus};
use crate::wire::peer::PeerMessage;

/// How far this process is from serving.
#[derive(Debug)]
pub(crate) enum Serving {
    /// It does not.
    No,
    /// It waits for the store's lock.
    Taking { since: Instant, next_look: Instant },
    /// It has the epoch.
    Yes(Box<Term>),
}

/// One primary's time in office.
#[derive(Debug)]
pub(crate) struct Term {
    pub(crate) primary: Primary,
    /// While the other hosts are asked what they hold.
    recall: Option<Recall>,
    /// Clients are sent here once this is held.
    wants: Vector,
    /// Until then at most.
    ready_by: Instant,
}

#[derive(Debug)]
struct Recall {
    until: Instant,
    ask_again: Instant,
    answers: BTreeMap<HostId, Vector>,
}

/// Other hosts are asked again after this, as their connections may not be up yet.
const RECALL_AGAIN: Duration = Duration::from_millis(50);
/// The lock is waited for this long before a stopped sibling is suspected of holding it.
const LOCK_LOOK: Duration = Duration::from_millis(20);
/// A host that could not catch up in this time takes clients all the same: tokens keep them safe.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);
/// How long a leaving process waits for its successors.
const HANDOVER_WAIT: Duration = Duration::from_millis(400);

impl Serving {
    /// The term, if this process is the primary.
    pub(crate) fn term(&self) -> Option<&Term> {
        match self {
            Self::Yes(term) => Some(term),
            Self::No | Self::Taking { .. } => None,
        }
    }

    /// The term, if this process is the primary.
    pub(crate) fn term_mut(&mut self) -> Option<&mut Term> {
        match self {
            Self::Yes(term) => Some(term),
            Self::No | Self::Taking { .. } => None,
        }
    }

    /// When something is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::No => None,
            Self::Taking { next_look, .. } => Some(*next_look),
            Self::Yes(term) => {
                let recall = term.recall.as_ref().map(|recall| recall.until.min(recall.ask_again));
                term.primary.poll_timeout().into_iter().chain(recall).min()
            }
        }
    }
}

impl Term {
    /// Whether requests are taken.
    pub(crate) fn settled(&self) -> bool {
        self.recall.is_none()
    }

    /// Whether clients should be sent here.
    fn fitness(&self, now: Now) -> Fitness {
        if !self.primary.writable() {
            return Fitness::DiskFull;
        }
        let standing = self.primary.standing();
        let whole = standing.snapshot.is_none() && standing.vector.covers(&self.wants);
        let caught_up = whole || now.mono >= self.ready_by;
        if self.settled() && caught_up { Fitness::Ready } else { Fitness::CatchingUp }
    }
}

impl Node {
    /// The election is won: now the store decides.
    pub(crate) fn take_epoch(&mut self, now: Now, out: &mut Outputs) {
        if matches!(self.serving, Serving::No) {
            self.serving = Serving::Taking { since: now.mono, next_look: now.mono + LOCK_LOOK };
            out.push(Output::TakeEpoch);
        }
    }

    /// The store has given the epoch, or cannot.
    pub(crate) fn on_epoch_taken(&mut self, now: Now, result: Result<Standing, StoreTrouble>, out: &mut Outputs) {
        let standing = match result {
            Ok(standing) => standing,
            Err(StoreTrouble::Failed(reason)) => return self.fail(reason, out),
            Err(StoreTrouble::Full | StoreTrouble::Fenced(_)) => {
                self.serving = Serving::No;
                return self.elections.serve.resign(now.mono, Epoch::ZERO);
            }
        };
        if self.mesh.willing == Willing::No && self.successor_lives(now) {
            // Drained or leaving meanwhile: whoever takes the next epoch is not held up by this one.
            self.serving = Serving::No;
            return self.elections.serve.resign(now.mono, standing.epoch);
        }
        // An epoch asked for before this process lost the duty for a moment may come after another one: what was
        // taken on under the older is handed back, or nobody would ever answer it.
        self.step_down(out);
        self.hlc = self.hlc.max(standing.hlc);
        let post = Post {
            host: self.host,
            hosts: self.config.topology.hosts.iter().map(|host| host.id).collect(),
            level: self.config.topology.ack,
            retention: Retention {
                kept: self.config.topology.log_entries_kept,
                max: self.config.topology.log_entries_max,
            },
            posts: self.config.topology.posts,
            first_write: self.last_write,
            first_feed_read: self.last_feed_read,
        };
        let epoch = standing.epoch;
        tracing::info!(?epoch, vector = ?standing.vector, "serving");
        let recall = Recall {
            until: now.mono + limits::RECALL_WAIT,
            ask_again: now.mono + RECALL_AGAIN,
            answers: BTreeMap::new(),
        };
        let term = Term {
            primary: Primary::new(now, post, standing),
            recall: (self.warm == Warm::No).then_some(recall),
            wants: Vector::new(),
            ready_by: now.mono + CATCH_UP_MAX,
        };
        self.serving = Serving::Yes(Box::new(term));
        self.elections.serve.seize();
        self.elections.serve.announce(epoch, out);
        self.tell_primary_copies(out);
        if self.warm == Warm::No {
            self.ask_recall(out);
        }
        self.settle_incarnation(now, out);
    }

    fn ask_recall(&self, out: &mut Outputs) {
        let answered = self.serving.term().and_then(|term| term.recall.as_ref()).map(|recall| &recall.answers);
        let Some(answered) = answered else { return };
        for host in self.others().filter(|host| !answered.contains_key(host)) {
            let known = self.mesh.views.get(&host).filter(|view| view.up).and_then(|view| view.record.serving);
            let all = self.config.topology.host(host).map(|spec| spec.processes.as_slice()).unwrap_or_default();
            let all = all.iter().map(|process| process.id).filter(|id| known.is_none_or(|known| known == *id));
            out.extend(all.map(|to| Output::Send { to, message: PeerMessage::Recall }));
        }
    }

    /// The link to a process that was asked in vain is up.
    pub(crate) fn recall_peer_up(&self, peer: ProcessId, out: &mut Outputs) {
        let asking = self.serving.term().is_some_and(|term| term.recall.is_some());
        if asking && !self.mesh.siblings.contains_key(&peer) {
            out.push(Output::Send { to: peer, message: PeerMessage::Recall });
        }
    }

    /// Another host's first primary asks what this host holds: the store itself answers.
    pub(crate) fn on_recall(&mut self, from: ProcessId, out: &mut Outputs) {
        self.next_read += 1;
        let read = ReadId(self.next_read);
        self.recalls.insert(read, from);
        out.push(Output::ReadLog { read, after: Vec::new(), bytes_max: 0 });
    }

    /// Another host has answered.
    pub(crate) fn on_recalled(&mut self, now: Now, from: ProcessId, vector: Vector, out: &mut Outputs) {
        let Some(host) = self.config.topology.process(from).map(|process| process.host) else { return };
        let Some(term) = self.serving.term_mut() else { return };
        term.primary.on_copies(host, &vector, out);
        if let Some(recall) = &mut term.recall {
            term.wants.merge(&vector);
            recall.answers.insert(host, vector);
            self.settle_incarnation(now, out);
        }
    }

    /// Opens for business once it is known whose seqs come next.
    fn settle_incarnation(&mut self, now: Now, out: &mut Outputs) {
        let all: Vec<HostId> = self.others().collect();
        let host = self.host;
        let fresh = self.rng.next_u32();
        let Some(term) = self.serving.term_mut() else { return };
        let standing = term.primary.standing();
        let mut begin = standing.origin.is_none();
        if let Some(recall) = &term.recall {
            let complete = all.iter().all(|other| recall.answers.contains_key(other));
            // A host that holds nothing yet has nothing to take twice; it still waits to hear what there is.
            if !complete && now.mono < recall.until {
                return;
            }
            if let Some(origin) = standing.origin {
                let held = standing.vector.get(origin);
                begin = !complete || recall.answers.values().any(|answer| answer.get(origin) > held);
            }
        }
        term.recall = None;
        if begin {
            let origin = Origin { host, incarnation: fresh };
            tracing::info!(%origin, "a new incarnation begins");
            term.primary.begin(origin, out);
        }
        self.note_settled();
        self.tell_clients_serving(out);
        self.nudge_relay(out);
    }

    /// From now on this host's next primaries need not ask: its origin goes on, or the store has begun a new one. Not
    /// before that: a sibling that thought so and took over would go on with the old origin (tests/models finds it).
    fn note_settled(&mut self) {
        if self.serving.term().is_some_and(|term| term.settled() && term.primary.begun()) {
            self.warm = Warm::Yes;
        }
    }

    /// What the store did with the writes.
    pub(crate) fn on_persisted(
        &mut self,
        now: Now,
        writes: &[WriteId],
        result: Result<Committed, StoreTrouble>,
        out: &mut Outputs,
    ) {
        match result {
            Ok(committed) => {
                self.hlc = self.hlc.max(committed.standing.hlc);
                let Some(term) = self.serving.term_mut() else { return };
                let was_full = !term.primary.writable();
                let bytes = committed.standing.disk_bytes;
                term.primary.on_committed(now, committed, out);
                self.end_stopped_readers(bytes, out);
                self.note_settled();
                self.nudge_relay(out);
                if was_full {
                    self.decide(now, out);
                }
            }
            Err(StoreTrouble::Fenced(fenced)) => {
                if self.serving.term().is_some_and(|term| term.primary.epoch() < fenced.newest) {
                    tracing::info!(newest = ?fenced.newest, "fenced");
                    self.deposed(now, fenced.newest, out);
                }
            }
            Err(StoreTrouble::Full) => {
                let Some(term) = self.serving.term_mut() else { return };
                term.primary.on_full(now, writes, out);
                self.decide(now, out);
            }
            Err(StoreTrouble::Failed(reason)) => self.fail(reason, out),
        }
    }

    /// A newer epoch exists in the store: whoever took it serves.
    pub(crate) fn deposed(&mut self, now: Now, newest: Epoch, out: &mut Outputs) {
        self.step_down(out);
        self.elections.serve.resign(now.mono, newest);
    }

    /// Hands everything that clients wait for back to them.
    pub(crate) fn step_down(&mut self, out: &mut Outputs) {
        if let Serving::Yes(term) = std::mem::replace(&mut self.serving, Serving::No) {
            self.last_write = term.primary.last_write();
            self.last_feed_read = term.primary.feeds.last_read();
            let message = format!("{} no longer serves: ask again", self.config.me);
            term.primary.step_down(&Refusal::new(ErrorCode::NotServing, message), out);
            self.tell_clients_serving(out);
        }
    }

    /// The store cannot be believed any more: the host rejoins as after a crash.
    fn fail(&mut self, reason: String, out: &mut Outputs) {
        self.phase = Phase::Gone;
        out.push(Output::Exit { failure: Some(reason) });
    }

    /// Tells every client whether this process serves.
    pub(crate) fn tell_clients_serving(&self, out: &mut Outputs) {
        let serving = self.serving.term().is_some_and(Term::settled);
        let epoch = self.elections.serve.epoch();
        let clients = self.people.greeted();
        out.extend(clients.map(|client| Output::Reply { client, frame: ServerFrame::Serving { serving, epoch } }));
    }

    /// What the primary tells its siblings of itself.
    pub(crate) fn primary_status_at(&self, now: Now) -> Option<PrimaryStatus> {
        let term = self.serving.term()?;
        let standing = term.primary.standing();
        let mut vector = standing.vector.clone();
        term.primary.copies.shorten(&mut vector);
        Some(PrimaryStatus {
            epoch: term.primary.epoch(),
            fitness: term.fitness(now),
            sessions: self.people.sessions(),
            vector,
            digest: standing.digest,
            entries: standing.entries,
            disk_bytes: standing.disk_bytes,
        })
    }

    /// Timeouts of the primary, or of the wait for the epoch.
    pub(crate) fn serve_timeout(&mut self, now: Now, out: &mut Outputs) {
        match &mut self.serving {
            Serving::No => {}
            Serving::Taking { since, next_look } if now.mono >= *next_look => {
                *next_look = now.mono + limits::PROC_LOOK;
                let hung = now.mono >= *since + limits::LOCK_HOLDER_WAIT;
                let last = self.mesh.primary.as_ref().map(|(process, _)| *process);
                for (process, sibling) in &self.mesh.siblings {
                    let stopped = sibling.life == Life::Stopped;
                    let holder = hung && sibling.life == Life::Up && Some(*process) == last;
                    if stopped || holder {
                        tracing::warn!(%process, "holds the store's lock: killed");
                        out.push(Output::Kill { process: *process });
                    }
                }
            }
            Serving::Taking { .. } => {}
            Serving::Yes(term) => {
                let views = &self.mesh.views;
                term.primary.on_timeout(now, |host| views.get(&host).is_some_and(|view| view.up), out);
                self.trim_posts(now, out);
                let Some(recall) = self.serving.term_mut().and_then(|term| term.recall.as_mut()) else { return };
                if now.mono >= recall.ask_again {
                    recall.ask_again = now.mono + RECALL_AGAIN;
                    self.ask_recall(out);
                }
                self.settle_incarnation(now, out);
            }
        }
    }

    /// Has the primary remove posts, if a look for them is due; it waits until it is known whose seqs come next.
    fn trim_posts(&mut self, now: Now, out: &mut Outputs) {
        let is_due = |term: &&Term| term.settled() && term.primary.trim_is_due(now.mono);
        if self.serving.term().filter(is_due).is_none() {
            return;
        }
        let clocks = self.clocks(now);
        if let Some(term) = self.serving.term_mut() {
            term.primary.trim_posts(now, clocks, out);
        }
    }

    /// What the other hosts that are up say of the time, and of what is to be kept: an older version refuses a file that
    /// speaks of that, so whoever has read this one knows what a trim is.
    fn clocks(&self, now: Now) -> Clocks {
        let mut clocks = if self.config.topology.hosts.len() > 1 { Clocks::Unknown } else { Clocks::Agree };
        for HostView { record, .. } in self.mesh.views.values().filter(|view| view.up) {
            let skew = Duration::from_micros(record.wall.0.abs_diff(now.wall.0));
            if record.topology != self.config.topology_hash || skew > limits::TRIM_SKEW_MAX {
                return Clocks::Differ;
            }
            clocks = Clocks::Agree;
        }
        clocks
    }

    /// This term, if it takes in what other hosts send; else their relay is told to look again.
    fn receiving(&mut self, from: ProcessId, stream: u64, out: &mut Outputs) -> Option<&mut Term> {
        let term = self.serving.term_mut().filter(|term| term.settled());
        if term.is_none() {
            out.push(Output::Send { to: from, message: PeerMessage::Closed { stream } });
        }
        term
    }

    /// Another host's relay asks where this host stands.
    pub(crate) fn on_open(&mut self, now: Now, from: ProcessId, stream: u64, out: &mut Outputs) {
        let Some(Term { primary, .. }) = self.receiving(from, stream, out) else { return };
        let (epoch, vector) = (primary.epoch(), primary.standing().vector.clone());
        primary.sink.on_open(now.mono, from, stream, (epoch, &vector), out);
    }

    /// Another host's relay sends entries.
    pub(crate) fn on_batch(
        &mut self,
        now: Now,
        from: ProcessId,
        (stream, hlc): (u64, Hlc),
        runs: Vec<EntryRun>,
        out: &mut Outputs,
    ) {
        self.hlc = self.hlc.max(hlc);
        let Some(Term { primary, .. }) = self.receiving(from, stream, out) else { return };
        let (sink, writes) = primary.sink();
        sink.on_batch(now.mono, from, stream, runs, writes, out);
    }

    /// Another host's relay offers a snapshot.
    pub(crate) fn on_snapshot_offer(&mut self, now: Now, from: ProcessId, stream: u64, cut: Vector, out: &mut Outputs) {
        let Some(Term { primary, .. }) = self.receiving(from, stream, out) else { return };
        let epoch = primary.epoch();
        primary.sink.on_offer(now.mono, from, stream, cut, epoch, out);
    }

    /// Another host's relay sends a part of a snapshot.
    pub(crate) fn on_snapshot_rows(&mut self, now: Now, from: ProcessId, stream: u64, part: Part, out: &mut Outputs) {
        let Some(Term { primary, .. }) = self.receiving(from, stream, out) else { return };
        let (sink, writes) = primary.sink();
        sink.on_rows(now.mono, from, stream, part, writes, out);
    }

    /// Another host's relay tells digests of what both hosts hold. Where they differ, nobody can tell who is right, and
    /// nothing mends it: operators must know.
    pub(crate) fn on_digests(&mut self, from: ProcessId, stream: u64, mut told: Vec<LogDigest>, out: &mut Outputs) {
        let Some(with) = self.config.topology.process(from).map(|process| process.host) else { return };
        if self.serving.term().is_some_and(|term| term.primary.sink.hears(from, stream)) {
            told.truncate(limits::LOG_DIGESTS_MAX);
            out.push(Output::CompareDigests { with, told });
        }
    }

    /// The store has compared them.
    pub(crate) fn on_digests_compared(&mut self, with: HostId, compared: Compared) {
        if self.serving.term().is_some() {
            self.reports.on_compared(with, compared);
        }
    }

    /// SIGTERM: hand the duties over and leave.
    pub(crate) fn on_terminate(&mut self, now: Now, out: &mut Outputs) {
        if self.phase == Phase::Running {
            self.phase = Phase::Leaving { until: now.mono + HANDOVER_WAIT };
            self.give_up_duties(now, PeerMessage::Goodbye, out);
            self.decide(now, out);
        }
    }

    /// An operator moves this process's duties and clients away.
    pub(crate) fn on_drain(&mut self, now: Now, out: &mut Outputs) {
        if self.mesh.willing == Willing::Yes {
            self.give_up_duties(now, PeerMessage::Drained, out);
        }
    }

    fn give_up_duties(&mut self, now: Now, word: PeerMessage, out: &mut Outputs) {
        self.mesh.willing = Willing::No;
        let masters = self.elections.direct.as_ref().map(|direct| direct.order().to_vec()).unwrap_or_default();
        let far = masters.into_iter().filter(|id| *id != self.config.me && !self.mesh.siblings.contains_key(id));
        // One that starts may have its link before the kernel has shown it: nothing would ever tell it.
        let near: Vec<ProcessId> = self.mesh.siblings.keys().copied().collect();
        out.extend(near.into_iter().chain(far).map(|to| Output::Send { to, message: word.clone() }));
        for duty in [Duty::Serve, Duty::Relay, Duty::Direct] {
            self.resign_unless_serving(now, duty);
        }
    }

    /// Leaves to others what they can take over at once; a primary serves until its successor has the epoch.
    pub(crate) fn resign_unless_serving(&mut self, now: Now, duty: Duty) {
        match duty {
            Duty::Serve => {}
            Duty::Relay if self.elections.relay.leads() => {
                self.elections.relay.resign(now.mono, Epoch::ZERO);
                self.end_relay();
            }
            Duty::Relay => {}
            Duty::Direct => {
                if let Some(direct) = &mut self.elections.direct {
                    direct.resign(now.mono, Epoch::ZERO);
                }
            }
        }
    }

    /// Whether another process of this host could take over.
    pub(crate) fn successor_lives(&self, now: Now) -> bool {
        self.mesh.siblings.keys().any(|process| self.mesh.standing(now.mono, *process) == election::Standing::Fit)
    }

    /// Leaves once the successors are there, or none can come.
    pub(crate) fn leave_if_done(&mut self, now: Now, out: &mut Outputs) {
        let Phase::Leaving { until } = self.phase else { return };
        let serves = !matches!(self.serving, Serving::No);
        if now.mono >= until || !serves || !self.successor_lives(now) {
            self.step_down(out);
            self.phase = Phase::Gone;
            out.push(Output::Exit { failure: None });
        }
    }
}

impl Node {
    /// The store has so many bytes now: ends siblings during whose stop it has grown by too many.
    fn end_stopped_readers(&mut self, bytes: u64, out: &mut Outputs) {
        for (process, sibling) in self.mesh.siblings.iter_mut().filter(|(_, sibling)| sibling.life == Life::Stopped) {
            let grown = bytes.saturating_sub(*sibling.stopped_at.get_or_insert(bytes));
            if grown > limits::STOPPED_GROWTH_MAX {
                tracing::warn!(%process, grown, "is stopped, and the store grows: killed");
                sibling.stopped_at = None;
                out.push(Output::Kill { process: *process });
            }
        }
    }
}

/// Which dead processes were wished back, and when the next wish is due.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    wished: BTreeMap<ProcessId, Instant>,
}

impl Restarts {
    /// A process ended: it may be wished back at once.
    pub(crate) fn on_gone(&mut self, process: ProcessId) {
        self.wished.remove(&process);
    }

    /// When a wish may be repeated.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.wished.values().copied().min()
    }
}

impl Node {
    /// The primary has the dead of its host started again, each with its own backoff.
    pub(crate) fn wish_restarts(&mut self, now: Now, out: &mut Outputs) {
        if self.serving.term().is_none() || self.phase != Phase::Running {
            self.restarts.wished.clear();
            return;
        }
        for (process, sibling) in &mut self.mesh.siblings {
            if sibling.life != Life::Dead {
                self.restarts.wished.remove(process);
                continue;
            }
            if self.restarts.wished.get(process).is_some_and(|again| now.mono < *again) {
                continue;
            }
            let doubled = |deaths: u32| limits::RESTART_BACKOFF * (1 << deaths.min(10));
            let after = sibling.deaths.checked_sub(1).map_or(Duration::ZERO, doubled);
            let after = after.min(limits::RESTART_BACKOFF_MAX);
            sibling.deaths += 1;
            self.restarts.wished.insert(*process, now.mono + after + limits::RESTART_BACKOFF_MAX);
            out.push(Output::Restart { process: *process, after });
        }
    }
}

#[cfg(test)]
mod tests;
