//! A node as its host's relay, and what every node keeps of other hosts.
//!
//! The relay streams its host's log to the others ([`crate::core::source`]), tells its primary what they hold, composes
//! its host's record, and judges whether other hosts are up. What others steer by is passed on at once; the rest rides
//! on heartbeats, one host in turn.

use crate::core::election::Election;
use crate::core::io::{Output, Outputs, ReadId};
use crate::core::mesh::{self, Changed, ViewSource};
use crate::core::node::Node;
use crate::core::source::{Reads, Source};
use crate::id::{HostId, ProcessId, Vector};
use crate::service::blocks::LogDigest;
use crate::service::ledger::{LogChunk, Standing};
use crate::service::snapshot::Chunk;
use crate::time::Now;
use crate::wire::heartbeat::{Fitness, Heartbeat, HostRecord, HostView, Life, PrimaryStatus, ProcessRecord};
use crate::wire::peer::PeerMessage;

/// A relay's time in office.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) source: Source,
    /// What was last told at once of this host.
    told: Option<HostRecord>,
}

/// Numbers of reads for replication; those for feeds are far above.
struct Numbers<'a>(&'a mut u64);

impl Reads for Numbers<'_> {
    fn next_read(&mut self) -> ReadId {
        *self.0 += 1;
        ReadId(*self.0)
    }
}

impl Node {
    /// The election is won. Another relay may still send: that does no harm.
    pub(crate) fn begin_relay(&mut self, now: Now, out: &mut Outputs) {
        let others: Vec<HostId> = self.others().collect();
        let salt = self.config.run & 0xffff_ffff;
        let mut source = Source::new(self.host, others.iter().copied(), salt, self.config.block, now.mono);
        self.reports.versions().for_each(|(peer, version)| source.on_version(peer, version));
        self.mesh.on_relay_begins(now.mono, others.into_iter());
        self.relay = Some(Relay { source, told: None });
        self.retarget(now, out);
        // The store may hold more than anybody will nudge about: ask it.
        self.next_read += 1;
        let me = self.config.me;
        self.recalls.insert(ReadId(self.next_read), me);
        out.push(Output::ReadLog { read: ReadId(self.next_read), after: Vec::new(), bytes_max: 0 });
    }

    /// Another process relays now, or this one leaves.
    pub(crate) fn end_relay(&mut self) {
        self.relay = None;
        self.mesh.on_relay_ends();
    }

    /// Streams go to whoever serves each other host.
    fn retarget(&mut self, now: Now, out: &mut Outputs) {
        let Some(relay) = &mut self.relay else { return };
        for (host, view) in &self.mesh.views {
            let serving = view.record.serving.filter(|_| view.up);
            relay.source.on_serving(now.mono, *host, serving, out);
        }
        relay.source.pump_all(now.mono, &mut Numbers(&mut self.next_read), out);
    }

    /// The primary has committed.
    pub(crate) fn on_nudge(&mut self, now: Now, vector: &Vector, out: &mut Outputs) {
        let Some(relay) = &mut self.relay else { return };
        relay.source.on_committed(now.mono, vector, &mut Numbers(&mut self.next_read), out);
    }

    /// As the primary: tells the relay what is committed.
    pub(crate) fn nudge_relay(&self, out: &mut Outputs) {
        let (Some(term), Some(relay)) = (self.serving.term(), self.elections.relay.leader()) else { return };
        let vector = term.primary.standing().vector.clone();
        out.push(Output::Send { to: relay, message: PeerMessage::Committed { epoch: term.primary.epoch(), vector } });
    }

    /// As the relay: tells a new primary what other hosts hold.
    pub(crate) fn tell_primary_copies(&self, out: &mut Outputs) {
        let (Some(relay), Some(primary)) = (&self.relay, self.elections.serve.leader()) else { return };
        for (host, vector) in relay.source.held() {
            let message = PeerMessage::Copies { host, vector: vector.clone() };
            out.push(Output::Send { to: primary, message });
        }
    }

    /// As the primary: a relay tells what another host holds.
    pub(crate) fn on_copies(&mut self, now: Now, host: HostId, vector: &Vector, out: &mut Outputs) {
        let _ = now;
        if let Some(term) = self.serving.term_mut() {
            term.primary.on_copies(host, vector, out);
        }
    }

    /// As the relay: a receiver says what it holds.
    pub(crate) fn on_held(&mut self, now: Now, from: ProcessId, stream: u64, vector: Vector, out: &mut Outputs) {
        let Some(relay) = &mut self.relay else { return };
        let reads = &mut Numbers(&mut self.next_read);
        let copy = vector.clone();
        let Some(host) = relay.source.on_held(now.mono, from, stream, vector, reads, out) else { return };
        if let Some(primary) = self.elections.serve.leader() {
            out.push(Output::Send { to: primary, message: PeerMessage::Copies { host, vector: copy } });
        }
    }

    /// As the relay: a receiver lost the stream.
    pub(crate) fn on_stream_closed(&mut self, now: Now, from: ProcessId, stream: u64) {
        if let Some(relay) = &mut self.relay {
            relay.source.on_closed(now.mono, from, stream);
        }
    }

    /// As the relay: a receiver wants the snapshot that was offered.
    pub(crate) fn on_snapshot_wanted(
        &mut self,
        now: Now,
        from: ProcessId,
        stream: u64,
        at: Vec<u8>,
        out: &mut Outputs,
    ) {
        if let Some(relay) = &mut self.relay {
            relay.source.on_snapshot_wanted(now.mono, from, stream, at, &mut Numbers(&mut self.next_read), out);
        }
    }

    /// As the relay: a receiver has a part of the snapshot.
    pub(crate) fn on_snapshot_held(&mut self, now: Now, from: ProcessId, stream: u64, out: &mut Outputs) {
        if let Some(relay) = &mut self.relay {
            relay.source.on_snapshot_held(now.mono, from, stream, &mut Numbers(&mut self.next_read), out);
        }
    }

    /// The tables were read for another host's stream.
    pub(crate) fn on_snapshot_read(
        &mut self,
        now: Now,
        read: ReadId,
        chunk: Chunk,
        standing: Standing,
        out: &mut Outputs,
    ) {
        if let Some(relay) = &mut self.relay {
            let reads = &mut Numbers(&mut self.next_read);
            relay.source.on_snapshot_read(now.mono, read, chunk, standing.vector, reads, out);
        }
    }

    /// The log was read: for another host's stream, or to tell what is held.
    pub(crate) fn on_log_read(&mut self, now: Now, read: ReadId, chunk: LogChunk, out: &mut Outputs) {
        match self.recalls.remove(&read) {
            Some(me) if me == self.config.me => self.on_nudge(now, &chunk.standing.vector, out),
            Some(to) => {
                out.push(Output::Send { to, message: PeerMessage::Recalled { vector: chunk.standing.vector } });
            }
            None => {
                let hlc = self.hlc;
                let Some(relay) = &mut self.relay else { return };
                relay.source.on_log_read(now.mono, read, chunk, hlc, &mut Numbers(&mut self.next_read), out);
            }
        }
    }

    /// The digests of the log were read for another host's stream.
    pub(crate) fn on_digests_read(&mut self, read: ReadId, digests: &[LogDigest], out: &mut Outputs) {
        if let Some(relay) = &mut self.relay {
            relay.source.on_digests_read(read, digests, &mut Numbers(&mut self.next_read), out);
        }
    }

    /// Timeouts of the relay: streams that are stuck, hosts that are silent.
    pub(crate) fn relay_timeout(&mut self, now: Now, out: &mut Outputs) {
        let Some(relay) = &mut self.relay else { return };
        relay.source.on_timeout(now.mono, &mut Numbers(&mut self.next_read), out);
        for host in self.mesh.silent_hosts(now.mono) {
            tracing::info!(%host, "silent: taken for down");
            self.pass_view_on(now, host, out);
        }
    }

    /// A word on another host.
    pub(crate) fn on_view(&mut self, now: Now, from: ProcessId, view: HostView, out: &mut Outputs) {
        let Some(of) = self.config.topology.process(from).map(|process| process.host) else { return };
        let host = view.record.host;
        if self.config.topology.host(host).is_none() || from == self.config.me {
            return;
        }
        self.hlc = self.hlc.max(view.record.version);
        let changed = if of == self.host {
            if self.elections.relay.leader() != Some(from) {
                return;
            }
            self.mesh.on_view(view, ViewSource::OwnRelay)
        } else if of == host {
            self.people.note_clock(host, view.record.wall, now);
            let news = self.mesh.on_view(view, ViewSource::Itself);
            let heard = if self.relay.is_some() { self.mesh.on_far_relay(now.mono, host) } else { Changed::No };
            if news == Changed::Yes { news } else { heard }
        } else {
            // Only a host itself, and this host's own relay, are believed.
            return;
        };
        if changed == Changed::Yes {
            self.pass_view_on(now, host, out);
        }
    }

    /// As the relay: what has changed goes to the siblings at once, and the streams follow.
    fn pass_view_on(&mut self, now: Now, host: HostId, out: &mut Outputs) {
        if self.relay.is_none() {
            return;
        }
        self.retarget(now, out);
        if let Some(view) = self.mesh.views.get(&host) {
            let message = PeerMessage::View(view.clone());
            out.extend(self.mesh.living().map(|to| Output::Send { to, message: message.clone() }));
        }
    }

    /// As the relay: when what others steer by changes at this host, it tells the other relays at once.
    pub(crate) fn relay_views(&mut self, now: Now, out: &mut Outputs) {
        let Some(told) = self.relay.as_ref().map(|relay| relay.told.as_ref().map(mesh::routing)) else { return };
        let record = self.own_record(now);
        if told == Some(mesh::routing(&record)) {
            return;
        }
        let message = PeerMessage::View(HostView { record: record.clone(), up: true });
        let relays = self.mesh.views.values().filter_map(|view| view.record.relaying);
        out.extend(relays.map(|to| Output::Send { to, message: message.clone() }));
        if let Some(relay) = &mut self.relay {
            relay.told = Some(record);
        }
    }

    /// A link is up: as the relay, begin where the receiver stands, and tell a sibling what is known.
    pub(crate) fn relay_peer_up(&mut self, now: Now, peer: ProcessId, out: &mut Outputs) {
        let version = self.reports.version_of(peer);
        let Some(relay) = &mut self.relay else { return };
        relay.source.on_version(peer, version);
        relay.source.on_link(now.mono, peer, out);
        if self.mesh.siblings.contains_key(&peer) {
            for view in self.mesh.views.values() {
                out.push(Output::Send { to: peer, message: PeerMessage::View(view.clone()) });
            }
        } else {
            let view = HostView { record: self.own_record(now), up: true };
            out.push(Output::Send { to: peer, message: PeerMessage::View(view) });
        }
    }

    /// As the relay: a beat for every other host, to its relay if it is known, else to each of its processes in turn.
    pub(crate) fn beat_relays(&mut self, now: Now, mut heartbeat: Heartbeat, turn: u32, out: &mut Outputs) {
        heartbeat.view = Some(HostView { record: self.own_record(now), up: true });
        let turn = usize::try_from(turn / 4).unwrap_or(0);
        for host in self.others() {
            let known = self.mesh.views.get(&host).filter(|view| view.up).and_then(|view| view.record.relaying);
            let order = mesh::relay_order(&self.config.topology, host);
            let to = known.or_else(|| order.get(turn % order.len().max(1)).copied());
            out.extend(to.map(|to| Output::Beat { to, heartbeat: heartbeat.clone() }));
        }
    }

    /// As the relay: one other host's view for the siblings, in turn.
    pub(crate) fn view_in_turn(&mut self) -> Option<HostView> {
        self.relay.as_ref()?;
        let count = self.mesh.views.len();
        self.people.turn = self.people.turn.wrapping_add(1);
        self.mesh.views.values().nth(self.people.turn % count.max(1)).cloned()
    }

    /// The host's record as this process sees it.
    pub(crate) fn own_record(&mut self, now: Now) -> HostRecord {
        self.hlc = self.hlc.tick(now.wall);
        let serving = self.elections.serve.leader();
        let status = self.primary_status_at(now).or_else(|| self.told_by_primary(serving));
        let mut record = HostRecord {
            host: self.host,
            version: self.hlc,
            wall: now.wall,
            serving: status.as_ref().and(serving),
            relaying: self.elections.relay.leader(),
            directing: self.own_director(now),
            epoch: self.elections.serve.epoch(),
            fitness: Fitness::CatchingUp,
            sessions: 0,
            vector: Vector::new(),
            digest: crate::id::Digest::default(),
            entries: 0,
            disk_bytes: 0,
            topology: self.config.topology_hash,
            processes: self.process_records(),
        };
        if let Some(status) = status {
            record.fitness = status.fitness;
            record.sessions = status.sessions;
            record.vector = status.vector;
            record.digest = status.digest;
            record.entries = status.entries;
            record.disk_bytes = status.disk_bytes;
        }
        record
    }

    /// What the primary told of itself, or told before it became silent: better than nothing.
    fn told_by_primary(&self, serving: Option<ProcessId>) -> Option<PrimaryStatus> {
        let (from, status) = self.mesh.primary.as_ref()?;
        let mut status = status.clone();
        if Some(*from) != serving {
            // A successor that has announced itself serves from the same store.
            serving?;
            status.sessions = 0;
            status.epoch = self.elections.serve.epoch();
        }
        Some(status)
    }

    fn own_director(&self, now: Now) -> Option<ProcessId> {
        let near = |id: &ProcessId| *id == self.config.me || self.mesh.siblings.contains_key(id);
        match &self.elections.direct {
            Some(direct) => direct.leader().filter(near),
            None => self.mesh.director(now.mono).filter(near),
        }
    }

    fn process_records(&self) -> Vec<ProcessRecord> {
        let me = ProcessRecord { id: self.config.me, life: Life::Up, pid: self.config.pid };
        let siblings = self.mesh.siblings.iter();
        let siblings = siblings.map(|(id, sibling)| ProcessRecord { id: *id, life: sibling.life, pid: sibling.pid });
        let mut records: Vec<ProcessRecord> = siblings.collect();
        records.push(me);
        records.sort_by_key(|record| record.id);
        records
    }

    /// The director, wherever it is.
    pub(crate) fn director(&self, now: Now) -> Option<ProcessId> {
        let elected = self.elections.direct.as_ref().and_then(Election::leader);
        elected.or_else(|| self.mesh.director(now.mono))
    }
}
