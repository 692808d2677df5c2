//! The node: one process's decisions, joined from the parts of this room.
//!
//! Call order: `handle_input` for what happens, `handle_timeout` when `poll_timeout` is reached; both append to the
//! outputs, which the shell performs in order. The node reads no clock and draws chance only from its seed, so that a
//! run replays. This file holds the state, the dispatch and the timers; what a node does as a primary stands in
//! `serve`, as a relay in `relay`, for clients in `people`, and for `status` in `report`.
//!
//! Invariant: a message of a node to itself takes the same path as one from another process.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::core::election::{Claims, Election};
use crate::core::io::{Input, Output, Outputs, ReadId};
use crate::core::mesh::{self, Gone, Mesh, Willing};
use crate::core::people::People;
use crate::core::relay::Relay;
use crate::core::reports::Reports;
use crate::core::serve::{Restarts, Serving};
use crate::id::{Epoch, HostId, ProcessId};
use crate::limits;
use crate::time::{Hlc, Instant, Now};
use crate::topology::{Role, Topology};
use crate::wire::Versions;
use crate::wire::heartbeat::{Duty, Heartbeat};
use crate::wire::peer::PeerMessage;

/// What a node is told at its start.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Who is in the cluster.
    pub topology: Topology,
    /// A hash of the topology file.
    pub topology_hash: u32,
    /// Which process this is.
    pub me: ProcessId,
    /// Drawn at random for this start.
    pub run: u64,
    /// The operating system's number of this process.
    pub pid: u32,
    /// Seeds every choice that the node makes by chance.
    pub seed: u64,
    /// What this process understands: nothing newer is written, nor expected.
    pub versions: Versions,
    /// Entries of the log that have one digest: the same everywhere, and in its store.
    pub block: u64,
}

/// Plain data about a node, for tests and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Which process.
    pub me: ProcessId,
    /// Its host.
    pub host: HostId,
    /// The duties that it holds.
    pub duties: Vec<Duty>,
    /// Its epoch if it serves, else the newest that it knows.
    pub epoch: Epoch,
}

/// Whether the node is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No.
    Running,
    /// It has said goodbye, and waits for its successors until then.
    Leaving { until: Instant },
    /// `Exit` was given out.
    Gone,
}

/// Which processes take part in which duty.
#[derive(Debug)]
pub(crate) struct Elections {
    pub(crate) serve: Election,
    pub(crate) relay: Election,
    /// None in a process that may not direct.
    pub(crate) direct: Option<Election>,
}

/// When the next heartbeats of each kind are due.
#[derive(Debug, Clone, Copy)]
struct Beats {
    siblings: Instant,
    relays: Instant,
    masters: Instant,
    turn: u32,
}

/// One process's decisions.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) host: HostId,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) hlc: Hlc,
    pub(crate) warm: Warm,
    pub(crate) phase: Phase,
    pub(crate) mesh: Mesh,
    pub(crate) elections: Elections,
    pub(crate) serving: Serving,
    pub(crate) relay: Option<Relay>,
    pub(crate) restarts: Restarts,
    pub(crate) people: People,
    pub(crate) reports: Reports,
    /// Reads of the store's standing for those who asked `Recall`.
    pub(crate) recalls: BTreeMap<ReadId, ProcessId>,
    pub(crate) next_read: u64,
    pub(crate) last_write: u64,
    pub(crate) last_feed_read: u64,
    beats: Beats,
    /// When timeouts were last looked at: silences that were suspicious then are not news.
    looked_at: Instant,
}

/// Whether this process knows that its host has not been down since the incarnation was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Warm {
    /// It does.
    Yes,
    /// It does not.
    No,
}

impl Node {
    /// A node that knows nothing yet. The process must be in the topology.
    pub fn new(config: NodeConfig, now: Now) -> Self {
        let me = config.me;
        let topology = &config.topology;
        let host = topology.process(me).map(|process| process.host);
        assert!(host.is_some(), "{me} is not in the topology");
        let host = host.unwrap_or(topology.hosts[0].id);
        let at = now.mono;
        let direct = mesh::direct_order(topology, host);
        let elections = Elections {
            serve: Election::new(Duty::Serve, me, mesh::serve_order(topology, host), at),
            relay: Election::new(Duty::Relay, me, mesh::relay_order(topology, host), at),
            direct: direct.contains(&me).then(|| Election::new(Duty::Direct, me, direct, at)),
        };
        Self {
            host,
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            hlc: Hlc::ZERO,
            warm: Warm::No,
            phase: Phase::Running,
            mesh: Mesh::new(topology, me, host, at),
            elections,
            serving: Serving::No,
            relay: None,
            restarts: Restarts::default(),
            people: People::default(),
            reports: Reports::new(config.versions, at),
            recalls: BTreeMap::new(),
            next_read: 0,
            last_write: 0,
            last_feed_read: 0,
            looked_at: at,
            beats: Beats { siblings: at, relays: at, masters: at, turn: 0 },
            config,
        }
    }

    /// Takes an input.
    pub fn handle_input(&mut self, now: Now, input: Input, out: &mut Outputs) {
        if self.phase == Phase::Gone {
            return;
        }
        let first = out.len();
        self.notice_own_pause(now);
        self.dispatch(now, input, out);
        self.settle(now, first, out);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Outputs) {
        if self.phase == Phase::Gone {
            return;
        }
        let first = out.len();
        self.notice_own_pause(now);
        self.looked_at = now.mono;
        self.beat(now, out);
        self.elections.serve.on_timeout(now.mono);
        self.elections.relay.on_timeout(now.mono);
        if let Some(direct) = &mut self.elections.direct {
            direct.on_timeout(now.mono);
        }
        self.serve_timeout(now, out);
        self.relay_timeout(now, out);
        self.decide(now, out);
        self.settle(now, first, out);
    }

    /// Heartbeats alone make a timeout every `HEARTBEAT_SIBLINGS`: a longer gap means that this process did not run.
    fn notice_own_pause(&mut self, now: Now) {
        if now.mono >= self.looked_at + limits::HEARTBEAT_SIBLINGS * 2 {
            self.mesh.on_own_pause(now.mono);
            self.looked_at = now.mono;
        }
    }

    /// When something is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.phase == Phase::Gone {
            return None;
        }
        let masters = self.is_master().then_some(self.beats.masters);
        let relays = self.relay.as_ref().map(|_| self.beats.relays);
        let leaving = match self.phase {
            Phase::Leaving { until } => Some(until),
            Phase::Running | Phase::Gone => None,
        };
        let elections = [
            self.elections.serve.poll_timeout(),
            self.elections.relay.poll_timeout(),
            self.elections.direct.as_ref().and_then(Election::poll_timeout),
        ];
        let parts = [
            Some(self.beats.siblings),
            masters,
            relays,
            leaving,
            self.serving.poll_timeout(),
            self.relay.as_ref().and_then(|relay| relay.source.poll_timeout()),
            self.restarts.poll_timeout(),
            self.people.poll_timeout(),
            self.mesh.poll_timeout(self.looked_at),
        ];
        parts.into_iter().chain(elections).flatten().min()
    }

    /// What it is doing.
    pub fn snapshot(&self) -> NodeStatus {
        NodeStatus { me: self.config.me, host: self.host, duties: self.duties(), epoch: self.elections.serve.epoch() }
    }

    /// What must always hold; for tests and the simulator.
    pub fn check_invariants(&self) {
        if let Some(term) = self.serving.term() {
            term.primary.check_invariants();
            assert!(self.elections.serve.leads(), "serves without the duty");
        }
        assert_eq!(self.relay.is_some(), self.elections.relay.leads(), "relays without the duty, or the reverse");
    }

    fn dispatch(&mut self, now: Now, input: Input, out: &mut Outputs) {
        match input {
            Input::PeerUp { peer, hello } => {
                self.reports.on_up(peer, hello.versions);
                self.on_peer_up(now, peer, hello.run, out);
                self.decide(now, out);
            }
            Input::PeerDown { peer } => {
                self.reports.on_down(peer);
                if let Some(term) = self.serving.term_mut() {
                    term.primary.sink.on_down(now.mono, peer, out);
                }
            }
            Input::Peer { from, message } => self.on_message(now, from, message, out),
            Input::Heartbeat { from, heartbeat } => {
                self.on_heartbeat(now, from, heartbeat, out);
                self.decide(now, out);
            }
            Input::Sibling { process, life, pid } => {
                if self.mesh.on_life(now, process, life, pid) == Gone::Yes {
                    self.on_gone(process);
                }
                self.decide(now, out);
            }
            Input::ClientOpened { client, key, rank } => self.people.open(client, key, rank),
            Input::Client { client, request } => self.on_client(now, client, request, out),
            Input::FeedOpened { client, feed, token, since } => {
                self.on_feed_opened(now, client, feed, token, since, out)
            }
            Input::FeedWritten { feed } => self.on_feed_written(feed, out),
            Input::FeedClosed { feed } => self.on_feed_closed(feed),
            Input::ClientClosed { client } => self.on_client_closed(client),
            Input::EpochTaken(result) => {
                self.on_epoch_taken(now, result, out);
                self.decide(now, out);
            }
            Input::Persisted { writes, result } => self.on_persisted(now, &writes, result, out),
            Input::LogRead { read, chunk } => self.on_log_read(now, read, chunk, out),
            Input::SnapshotRead { read, chunk, standing } => self.on_snapshot_read(now, read, chunk, standing, out),
            Input::DigestsRead { read, digests } => self.on_digests_read(read, &digests, out),
            Input::DigestsCompared { with, compared } => self.on_digests_compared(with, compared),
            Input::QueryDone { client, number, epoch, result } => {
                self.on_query_done(now, client, number, epoch, result, out);
            }
            Input::FeedsRead { read, epoch, steps, cursor } => {
                self.on_feeds_read(now, read, epoch, steps, &cursor, out);
            }
            Input::Terminate => self.on_terminate(now, out),
        }
    }

    /// Takes this node's messages to itself out of the outputs and handles them, until there are none.
    fn settle(&mut self, now: Now, first: usize, out: &mut Outputs) {
        // A message to oneself may cause another, but no chain is longer than nudge, read, copies, nudge.
        for _ in 0..16 {
            let me = self.config.me;
            let mine: Vec<Output> =
                out.extract_if(first.., |output| matches!(output, Output::Send { to, .. } if *to == me)).collect();
            if mine.is_empty() {
                return;
            }
            for output in mine {
                if let Output::Send { message, .. } = output {
                    self.on_message(now, me, message, out);
                }
            }
        }
        debug_assert!(false, "messages to oneself go round in circles");
    }

    fn on_message(&mut self, now: Now, from: ProcessId, message: PeerMessage, out: &mut Outputs) {
        let decides = bears_on_duties(&message);
        if decides && self.is_far_master(from) {
            self.mesh.on_far_master(now.mono, from);
        }
        match message {
            PeerMessage::Election { duty } => {
                let fit = self.mesh.standing(now.mono, self.config.me);
                if let Some(election) = self.election(duty) {
                    election.on_election(now.mono, from, fit, out);
                }
            }
            PeerMessage::Alive { duty } => {
                if let Some(election) = self.election(duty) {
                    election.on_alive(now.mono, from);
                }
            }
            PeerMessage::Coordinator { duty, epoch } => self.on_coordinator(now, from, duty, epoch, out),
            PeerMessage::Goodbye | PeerMessage::Drained => self.on_unwilling(from),
            PeerMessage::Drain => self.on_drain(now, out),
            PeerMessage::View(view) => self.on_view(now, from, view, out),
            PeerMessage::Committed { vector, .. } => self.on_nudge(now, &vector, out),
            PeerMessage::Copies { host, vector } => self.on_copies(now, host, &vector, out),
            PeerMessage::Open { stream } => self.on_open(now, from, stream, out),
            PeerMessage::Batch { stream, hlc, runs } => self.on_batch(now, from, (stream, hlc), runs, out),
            PeerMessage::Snapshot { stream, .. } | PeerMessage::SnapshotDone { stream, .. } => {
                out.push(Output::Send { to: from, message: PeerMessage::Closed { stream } });
            }
            PeerMessage::SnapshotOffer { stream, cut } => self.on_snapshot_offer(now, from, stream, cut, out),
            PeerMessage::SnapshotWanted { stream, at } => self.on_snapshot_wanted(now, from, stream, at, out),
            PeerMessage::SnapshotRows { stream, part } => self.on_snapshot_rows(now, from, stream, part, out),
            PeerMessage::Held { stream, vector, .. } => self.on_held(now, from, stream, vector, out),
            PeerMessage::Closed { stream } => self.on_stream_closed(now, from, stream),
            PeerMessage::SnapshotHeld { stream } => self.on_snapshot_held(now, from, stream, out),
            PeerMessage::Recall => self.on_recall(from, out),
            PeerMessage::Recalled { vector } => self.on_recalled(now, from, vector, out),
            PeerMessage::Report(report) => self.on_report(now, from, report),
            PeerMessage::Digests { stream, digests } => self.on_digests(from, stream, digests, out),
        }
        if decides {
            self.decide(now, out);
        }
    }

    fn on_peer_up(&mut self, now: Now, peer: ProcessId, run: u64, out: &mut Outputs) {
        if self.mesh.on_run(peer, run) == Gone::Yes {
            self.on_gone(peer);
        }
        for election in [&self.elections.serve, &self.elections.relay].into_iter().chain(&self.elections.direct) {
            election.greet(peer, out);
        }
        if self.mesh.willing == Willing::No {
            out.push(Output::Send { to: peer, message: PeerMessage::Drained });
        }
        self.relay_peer_up(now, peer, out);
        self.recall_peer_up(peer, out);
        // What the two told each other before the link was up is lost.
        if self.elections.relay.leader() == Some(peer) {
            self.nudge_relay(out);
        }
        if self.elections.serve.leader() == Some(peer) {
            self.tell_primary_copies(out);
        }
        if let Some(term) = self.serving.term_mut() {
            let epoch = term.primary.epoch();
            term.primary.sink.on_up(peer, epoch, out);
        }
    }

    fn on_heartbeat(&mut self, now: Now, from: ProcessId, heartbeat: Heartbeat, out: &mut Outputs) {
        self.hlc = self.hlc.max(heartbeat.hlc);
        let sibling = self.mesh.siblings.contains_key(&from);
        if sibling && self.mesh.on_run(from, heartbeat.run) == Gone::Yes {
            self.on_gone(from);
        }
        if let Some(primary) = &heartbeat.primary
            && sibling
        {
            // Mends a nudge that was lost.
            self.on_nudge(now, &primary.vector, out);
        }
        if sibling && heartbeat.warm {
            self.warm = Warm::Yes;
        }
        if sibling || self.is_far_master(from) {
            self.mesh.on_heartbeat(now.mono, from, &heartbeat);
            for duty in [Duty::Serve, Duty::Relay, Duty::Direct] {
                let claims = if heartbeat.duties.contains(&duty) { Claims::Yes } else { Claims::No };
                let epoch = if duty == Duty::Serve { heartbeat.epoch } else { Epoch::ZERO };
                let heeds = self.heeds_claim(now, from, duty);
                let Some(election) = self.election(duty).filter(|_| heeds) else { continue };
                let verdict = election.on_heartbeat(from, claims, epoch, out);
                self.on_verdict(now, duty, verdict, out);
            }
        }
        if let Some(view) = heartbeat.view {
            self.on_view(now, from, view, out);
        }
    }

    /// Whether this process and the other are masters of different hosts.
    fn is_far_master(&self, other: ProcessId) -> bool {
        let far = |process: &crate::topology::ProcessSpec| process.role == Role::Master && process.host != self.host;
        self.is_master() && self.config.topology.process(other).is_some_and(far)
    }

    pub(crate) fn is_master(&self) -> bool {
        self.config.topology.process(self.config.me).is_some_and(|process| process.role == Role::Master)
    }

    /// The duties that this process holds.
    pub(crate) fn duties(&self) -> Vec<Duty> {
        let direct = self.elections.direct.as_ref().is_some_and(Election::leads);
        let held =
            [(Duty::Direct, direct), (Duty::Serve, self.serving.term().is_some()), (Duty::Relay, self.relay.is_some())];
        held.into_iter().filter(|(_, holds)| *holds).map(|(duty, _)| duty).collect()
    }

    pub(crate) fn others(&self) -> impl Iterator<Item = HostId> + '_ {
        self.config.topology.hosts.iter().map(|host| host.id).filter(|host| *host != self.host)
    }

    fn heartbeat(&self, now: Now) -> Heartbeat {
        Heartbeat {
            run: self.config.run,
            hlc: self.hlc.max(Hlc::at(now.wall)),
            duties: self.duties(),
            epoch: self.elections.serve.epoch(),
            warm: self.warm == Warm::Yes,
            primary: None,
            view: None,
        }
    }

    /// Sends the heartbeats that are due.
    fn beat(&mut self, now: Now, out: &mut Outputs) {
        self.beats.turn = self.beats.turn.wrapping_add(1);
        if now.mono >= self.beats.siblings {
            self.beats.siblings = now.mono + limits::HEARTBEAT_SIBLINGS;
            let mut heartbeat = self.heartbeat(now);
            heartbeat.primary = self.primary_status_at(now);
            heartbeat.view = self.view_in_turn();
            out.extend(self.mesh.living().map(|to| Output::Beat { to, heartbeat: heartbeat.clone() }));
            self.tell_reports(now, out);
        }
        if self.is_master() && now.mono >= self.beats.masters {
            self.beats.masters = now.mono + limits::HEARTBEAT_MASTERS;
            let heartbeat = self.heartbeat(now);
            let far = |p: &&crate::topology::ProcessSpec| p.role == Role::Master && p.host != self.host;
            let far = self.config.topology.processes().filter(far).map(|p| p.id);
            out.extend(far.map(|to| Output::Beat { to, heartbeat: heartbeat.clone() }));
        }
        if self.relay.is_some() && now.mono >= self.beats.relays {
            self.beats.relays = now.mono + limits::HEARTBEAT_RELAYS;
            let heartbeat = self.heartbeat(now);
            self.beat_relays(now, heartbeat, self.beats.turn, out);
        }
    }
}

/// Whether a message can change who works, or what others steer by. Replication is too frequent to ask every time.
fn bears_on_duties(message: &PeerMessage) -> bool {
    match message {
        PeerMessage::Election { .. }
        | PeerMessage::Alive { .. }
        | PeerMessage::Coordinator { .. }
        | PeerMessage::Goodbye
        | PeerMessage::Drained
        | PeerMessage::Drain
        | PeerMessage::View(_)
        | PeerMessage::Recalled { .. } => true,
        PeerMessage::Committed { .. }
        | PeerMessage::Copies { .. }
        | PeerMessage::Open { .. }
        | PeerMessage::Held { .. }
        | PeerMessage::Closed { .. }
        | PeerMessage::Batch { .. }
        | PeerMessage::Snapshot { .. }
        | PeerMessage::SnapshotDone { .. }
        | PeerMessage::SnapshotHeld { .. }
        | PeerMessage::SnapshotOffer { .. }
        | PeerMessage::SnapshotWanted { .. }
        | PeerMessage::SnapshotRows { .. }
        | PeerMessage::Recall
        | PeerMessage::Report(_)
        | PeerMessage::Digests { .. } => false,
    }
}
