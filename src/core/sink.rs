//! The receiving end of replication, at a primary: entries of other hosts, in causal order, once.
//!
//! Each relay that sends has a stream, named by the number in its `Open`; the answer says what is held durably, and so
//! resuming, catching up and first joining are one mechanism. A run that the store finds to depend on what is not held
//! yet waits here (bounded); the store checks that inside its transaction (P4). Nothing is acknowledged that the store
//! has not reported as persisted.
//!
//! Snapshots are offered, by as many relays as find their log cut, and taken from one at a time: two would only be merged
//! twice. The store keeps with the rows how far they go ([`Cursor`]), so whoever is primary after a break goes on from
//! there, with whichever relay offers first, if that one's log reaches back to what the finished snapshot will claim.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::core::io::{Output, Outputs};
use crate::id::{EntryId, Epoch, Origin, ProcessId, Vector};
use crate::limits;
use crate::service::ledger::{EntryRun, Standing, Write, WriteId, Wrote};
use crate::service::snapshot::{Cursor, Part};
use crate::time::Instant;
use crate::wire::peer::PeerMessage;

/// One relay's stream.
#[derive(Debug)]
struct Inlet {
    stream: u64,
    /// At the store, in order.
    persisting: VecDeque<(WriteId, Item)>,
    /// Runs that wait for this entry, or, without one, for those of the same origin before them; by their place in line.
    waiting: BTreeMap<u64, (Option<EntryId>, EntryRun)>,
    /// The place in line of the run that comes next. A run keeps its place however often the store hands it back: one
    /// that comes back later than those after it must not stand behind them, because they wait for it.
    next_place: u64,
    /// What was last acknowledged.
    told: Option<Vector>,
    /// A snapshot can be had; this is where the sender's log begins.
    offer: Option<Vector>,
}

#[derive(Debug)]
enum Item {
    /// With its place in line.
    Run(u64, EntryRun),
    Rows(Place),
}

/// Where in a snapshot a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Within,
    Last,
}

/// The relay that a snapshot is taken from.
#[derive(Debug)]
struct Taking {
    from: ProcessId,
    heard_at: Instant,
}

/// All streams into this host.
#[derive(Debug)]
pub(crate) struct Sink {
    inlets: BTreeMap<ProcessId, Inlet>,
    taking: Option<Taking>,
    /// Parts of a snapshot at the store, whoever sent them: the cursor moves when they are done.
    rows_at_store: BTreeSet<WriteId>,
    /// How far a snapshot is merged in.
    cursor: Option<Cursor>,
    held: Vector,
}

/// Hands out the numbers of writes.
pub(crate) trait Writes {
    /// The epoch to write under.
    fn epoch(&self) -> Epoch;

    /// The next number.
    fn next_id(&mut self) -> WriteId;
}

impl Sink {
    /// No streams, and a store that stands so.
    pub(crate) fn new(standing: &Standing) -> Self {
        Self {
            inlets: BTreeMap::new(),
            taking: None,
            rows_at_store: BTreeSet::new(),
            cursor: standing.snapshot.clone(),
            held: standing.vector.clone(),
        }
    }

    /// A relay asks where this host stands.
    pub(crate) fn on_open(
        &mut self,
        now: Instant,
        from: ProcessId,
        stream: u64,
        (epoch, vector): (Epoch, &Vector),
        out: &mut Outputs,
    ) {
        let told = Some(vector.clone());
        let (persisting, waiting) = (VecDeque::new(), BTreeMap::new());
        self.inlets.insert(from, Inlet { stream, persisting, waiting, next_place: 0, told, offer: None });
        let message = PeerMessage::Held { stream, epoch, vector: vector.clone() };
        out.push(Output::Send { to: from, message });
        self.stop_taking(now, from, out);
    }

    /// The link to a relay is up: what it was told before is lost. It may have opened its stream over a link of its own
    /// just before, and would wait for the answer.
    pub(crate) fn on_up(&mut self, from: ProcessId, epoch: Epoch, out: &mut Outputs) {
        if let Some(inlet) = self.inlets.get_mut(&from) {
            inlet.told = None;
            inlet.tell(from, &self.held, epoch, out);
        }
    }

    /// Forgets a relay whose link broke; it opens anew.
    pub(crate) fn on_down(&mut self, now: Instant, from: ProcessId, out: &mut Outputs) {
        self.inlets.remove(&from);
        self.stop_taking(now, from, out);
    }

    /// No more comes from this relay: another one's offer may be taken.
    fn stop_taking(&mut self, now: Instant, from: ProcessId, out: &mut Outputs) {
        if self.taking.take_if(|taking| taking.from == from).is_some() {
            self.choose(now, out);
        }
    }

    fn inlet(&mut self, from: ProcessId, stream: u64, out: &mut Outputs) -> Option<&mut Inlet> {
        let known = self.inlets.get(&from).is_some_and(|inlet| inlet.stream == stream);
        if !known {
            out.push(Output::Send { to: from, message: PeerMessage::Closed { stream } });
            return None;
        }
        self.inlets.get_mut(&from)
    }

    /// Entries came.
    pub(crate) fn on_batch(
        &mut self,
        now: Instant,
        from: ProcessId,
        stream: u64,
        runs: Vec<EntryRun>,
        writes: &mut dyn Writes,
        out: &mut Outputs,
    ) {
        let Some(inlet) = self.inlet(from, stream, out) else { return };
        if inlet.waiting.len() + runs.len() > limits::RUNS_WAITING_MAX {
            return self.close(now, from, out);
        }
        let behind: BTreeSet<Origin> = inlet.waiting.values().map(|(_, before)| before.origin).collect();
        for run in runs {
            let place = inlet.next_place;
            inlet.next_place += 1;
            if behind.contains(&run.origin) {
                inlet.waiting.insert(place, (None, run));
            } else {
                // Never behind another origin's: it may hold the very entries that those wait for.
                inlet.persist(place, run, writes, out);
            }
        }
    }

    /// A relay offers a snapshot; its log begins after `cut`. Who needs none says so: what the relay was told last may
    /// have crossed its look at its log, and nothing else would end its offers.
    pub(crate) fn on_offer(
        &mut self,
        now: Instant,
        from: ProcessId,
        stream: u64,
        cut: Vector,
        epoch: Epoch,
        out: &mut Outputs,
    ) {
        let held = self.held.clone();
        let Some(inlet) = self.inlet(from, stream, out) else { return };
        if held.covers(&cut) {
            inlet.told = None;
            inlet.tell(from, &held, epoch, out);
        } else {
            inlet.offer = Some(cut);
        }
        if self.taking.as_ref().is_some_and(|taking| taking.from == from || self.is_silent(now, taking)) {
            // It sends no more; it may have died, or its link. Whoever offers now is alive.
            self.taking = None;
        }
        self.choose(now, out);
    }

    /// Whether the relay that a snapshot is taken from sends nothing, though nothing of it waits for the store.
    fn is_silent(&self, now: Instant, taking: &Taking) -> bool {
        self.rows_at_store.is_empty() && now >= taking.heard_at + limits::SNAPSHOT_SILENCE
    }

    /// Asks one of those that offer a snapshot for it, if none is under way and one is needed.
    fn choose(&mut self, now: Instant, out: &mut Outputs) {
        if self.taking.is_some() || !self.rows_at_store.is_empty() {
            return;
        }
        let (held, cursor) = (&self.held, self.cursor.as_ref());
        for (from, inlet) in &mut self.inlets {
            let Some(cut) = inlet.offer.take().filter(|cut| !held.covers(cut)) else { continue };
            // At the end the log must go on after what the rows hold: else those that are here are of no use.
            let mut claimed = held.clone();
            claimed.merge(cursor.map_or(&Vector::new(), |cursor| &cursor.vector));
            let at = cursor.filter(|_| claimed.covers(&cut)).map(|cursor| cursor.at.clone()).unwrap_or_default();
            out.push(Output::Send { to: *from, message: PeerMessage::SnapshotWanted { stream: inlet.stream, at } });
            self.taking = Some(Taking { from: *from, heard_at: now });
            return;
        }
    }

    /// A part of a snapshot came.
    pub(crate) fn on_rows(
        &mut self,
        now: Instant,
        from: ProcessId,
        stream: u64,
        part: Part,
        writes: &mut dyn Writes,
        out: &mut Outputs,
    ) {
        if self.inlet(from, stream, out).is_none() {
            return;
        }
        let Some(taking) = self.taking.as_mut().filter(|taking| taking.from == from) else {
            // It was given up, and another one is asked.
            return self.close(now, from, out);
        };
        taking.heard_at = now;
        if self.rows_at_store.len() >= limits::SNAPSHOT_PARTS_IN_FLIGHT_MAX {
            return self.close(now, from, out);
        }
        let Some(inlet) = self.inlets.get_mut(&from) else { return };
        let (id, epoch) = (writes.next_id(), writes.epoch());
        let place = if part.next.is_some() { Place::Within } else { Place::Last };
        inlet.persisting.push_back((id, Item::Rows(place)));
        self.rows_at_store.insert(id);
        out.push(Output::Persist { id, epoch, write: Write::Rows(part) });
    }

    /// The store committed: `outcomes` may hold some of ours. Acknowledges, and tries again what waited.
    pub(crate) fn on_persisted(
        &mut self,
        now: Instant,
        outcomes: &[(WriteId, Wrote)],
        standing: &Standing,
        writes: &mut dyn Writes,
        out: &mut Outputs,
    ) {
        let held = &standing.vector;
        self.held.clone_from(held);
        self.cursor.clone_from(&standing.snapshot);
        if !self.rows_at_store.is_empty() {
            for (id, _) in outcomes {
                self.rows_at_store.remove(id);
            }
        }
        let (mut broken, mut finished) = (Vec::new(), None);
        for (from, inlet) in &mut self.inlets {
            match inlet.on_outcomes(*from, outcomes, out) {
                Health::Sound => {}
                Health::Finished => finished = Some(*from),
                Health::Broken => broken.push(*from),
            }
        }
        for from in broken {
            self.close(now, from, out);
        }
        if let Some(from) = finished {
            self.taking.take_if(|taking| taking.from == from);
        }
        if let Some(taking) = &mut self.taking {
            taking.heard_at = now;
        }
        self.choose(now, out);
        let streams: Vec<ProcessId> = self.inlets.keys().copied().collect();
        for from in streams {
            if let Some(inlet) = self.inlets.get_mut(&from) {
                inlet.retry(held, writes, out);
                inlet.tell(from, held, writes.epoch(), out);
            }
        }
    }

    fn close(&mut self, now: Instant, from: ProcessId, out: &mut Outputs) {
        if let Some(inlet) = self.inlets.remove(&from) {
            out.push(Output::Send { to: from, message: PeerMessage::Closed { stream: inlet.stream } });
        }
        self.stop_taking(now, from, out);
    }

    /// This process serves no more: every relay is to look for its successor.
    pub(crate) fn close_all(&mut self, out: &mut Outputs) {
        for (from, inlet) in std::mem::take(&mut self.inlets) {
            out.push(Output::Send { to: from, message: PeerMessage::Closed { stream: inlet.stream } });
        }
        self.taking = None;
        self.rows_at_store.clear();
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Health {
    Sound,
    /// The last part of a snapshot is merged in.
    Finished,
    Broken,
}

impl Inlet {
    fn persist(&mut self, place: u64, run: EntryRun, writes: &mut dyn Writes, out: &mut Outputs) {
        let (id, epoch) = (writes.next_id(), writes.epoch());
        self.persisting.push_back((id, Item::Run(place, run.clone())));
        out.push(Output::Persist { id, epoch, write: Write::Run(run) });
    }

    fn on_outcomes(&mut self, from: ProcessId, outcomes: &[(WriteId, Wrote)], out: &mut Outputs) -> Health {
        let mut health = Health::Sound;
        for (id, wrote) in outcomes {
            if self.persisting.front().is_none_or(|(first, _)| first != id) {
                continue;
            }
            let Some((_, item)) = self.persisting.pop_front() else { continue };
            match (item, wrote) {
                (_, Wrote::Refused(reason)) => {
                    tracing::warn!(%from, reason, "entries refused");
                    return Health::Broken;
                }
                (Item::Run(place, run), Wrote::Waits { on }) => {
                    self.waiting.insert(place, (Some(*on), run));
                }
                (Item::Rows(place), _) => {
                    let message = PeerMessage::SnapshotHeld { stream: self.stream };
                    out.push(Output::Send { to: from, message });
                    if place == Place::Last {
                        // The sender goes on from what is held now, even if that has not moved.
                        self.told = None;
                        health = Health::Finished;
                    }
                }
                (Item::Run(..), _) => {}
            }
        }
        health
    }

    /// Hands runs to the store again whose dependency is held now, or that need not wait for those before them.
    fn retry(&mut self, held: &Vector, writes: &mut dyn Writes, out: &mut Outputs) {
        let mut behind = BTreeSet::new();
        for (place, (on, run)) in std::mem::take(&mut self.waiting) {
            if behind.contains(&run.origin) || on.is_some_and(|on| !held.holds(on)) {
                behind.insert(run.origin);
                self.waiting.insert(place, (on, run));
            } else {
                self.persist(place, run, writes, out);
            }
        }
    }

    fn tell(&mut self, from: ProcessId, held: &Vector, epoch: Epoch, out: &mut Outputs) {
        if self.told.as_ref() == Some(held) {
            return;
        }
        self.told = Some(held.clone());
        let message = PeerMessage::Held { stream: self.stream, epoch, vector: held.clone() };
        out.push(Output::Send { to: from, message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Digest, Seq};
    use crate::time::Hlc;

    /// Numbers of writes from 1 on.
    struct Counter(u64);

    impl Writes for Counter {
        fn epoch(&self) -> Epoch {
            Epoch(1)
        }

        fn next_id(&mut self) -> WriteId {
            self.0 += 1;
            WriteId(self.0)
        }
    }

    /// A sink with two relays that have opened streams 1 and 2.
    struct Rig {
        sink: Sink,
        writes: Counter,
        now: Instant,
        standing: Standing,
    }

    fn origin() -> Origin {
        Origin { host: "a".parse().unwrap(), incarnation: 1 }
    }

    fn upto(seq: u64) -> Vector {
        [(origin(), Seq(seq))].into_iter().collect()
    }

    fn run(seq: u64) -> EntryRun {
        EntryRun { origin: origin(), from: Seq(seq), entries: vec![vec![0]] }
    }

    fn write(id: u64, run: EntryRun) -> Output {
        Output::Persist { id: WriteId(id), epoch: Epoch(1), write: Write::Run(run) }
    }

    fn relay(stream: u64) -> ProcessId {
        format!("C{stream}").parse().unwrap()
    }

    fn part(at: &[u8], next: Option<&[u8]>) -> Part {
        Part { at: at.to_vec(), bytes: vec![0], next: next.map(<[u8]>::to_vec), vector: upto(9) }
    }

    fn wanted(stream: u64, at: &[u8]) -> Output {
        Output::Send { to: relay(stream), message: PeerMessage::SnapshotWanted { stream, at: at.to_vec() } }
    }

    fn persist(id: u64, part: Part) -> Output {
        Output::Persist { id: WriteId(id), epoch: Epoch(1), write: Write::Rows(part) }
    }

    impl Rig {
        fn new(cursor: Option<(&[u8], u64)>) -> Self {
            let standing = Standing {
                epoch: Epoch(1),
                origin: None,
                vector: Vector::new(),
                hlc: Hlc::ZERO,
                digest: Digest::default(),
                entries: 0,
                cut: Vector::new(),
                snapshot: cursor.map(|(at, seq)| Cursor { at: at.to_vec(), vector: upto(seq) }),
                trim: Hlc::ZERO,
                disk_bytes: 0,
            };
            let sink = Sink::new(&standing);
            let mut rig = Self { sink, writes: Counter(0), now: Instant::from_micros(0), standing };
            for stream in [1, 2] {
                rig.open(stream);
            }
            rig
        }

        fn open(&mut self, stream: u64) -> Outputs {
            let mut out = Outputs::new();
            self.sink.on_open(self.now, relay(stream), stream, (Epoch(1), &self.standing.vector), &mut out);
            out
        }

        fn offer(&mut self, stream: u64, cut: u64) -> Outputs {
            let mut out = Outputs::new();
            self.sink.on_offer(self.now, relay(stream), stream, upto(cut), Epoch(1), &mut out);
            out
        }

        fn rows(&mut self, stream: u64, part: Part) -> Outputs {
            let mut out = Outputs::new();
            self.sink.on_rows(self.now, relay(stream), stream, part, &mut self.writes, &mut out);
            out
        }

        /// The store has done this write, and the snapshot goes on at `next`.
        fn persisted(&mut self, id: u64, next: Option<&[u8]>) -> Outputs {
            self.standing.snapshot = next.map(|at| Cursor { at: at.to_vec(), vector: upto(9) });
            if next.is_none() {
                self.standing.vector = upto(9);
            }
            let mut out = Outputs::new();
            let outcomes = [(WriteId(id), Wrote::Done)];
            self.sink.on_persisted(self.now, &outcomes, &self.standing, &mut self.writes, &mut out);
            out
        }

        /// Entries of `a`, in runs of one.
        fn batch(&mut self, seqs: std::ops::RangeInclusive<u64>) -> Outputs {
            let mut out = Outputs::new();
            let runs = seqs.map(run).collect();
            self.sink.on_batch(self.now, relay(1), 1, runs, &mut self.writes, &mut out);
            out
        }

        /// The store has done this write so, and holds so many entries of `a`; returns what is written next.
        fn wrote(&mut self, id: u64, wrote: Wrote, held: u64) -> Outputs {
            self.standing.vector = if held == 0 { Vector::new() } else { upto(held) };
            let mut out = Outputs::new();
            self.sink.on_persisted(self.now, &[(WriteId(id), wrote)], &self.standing, &mut self.writes, &mut out);
            out.retain(|output| matches!(output, Output::Persist { .. }));
            out
        }

        fn down(&mut self, stream: u64) -> Outputs {
            let mut out = Outputs::new();
            self.sink.on_down(self.now, relay(stream), &mut out);
            out
        }
    }

    #[test]
    fn a_run_that_comes_back_late_does_not_stand_before_those_that_it_waits_for() {
        let mut rig = Rig::new(None);
        let lacked = EntryId { origin: Origin { host: "b".parse().unwrap(), incarnation: 1 }, seq: Seq(1) };
        let before = |seq| EntryId { origin: origin(), seq: Seq(seq) };
        assert_eq!(rig.batch(1..=2), [write(1, run(1)), write(2, run(2))]);
        // The first has to wait, and the second, which was at the store in another transaction, for the first.
        assert_eq!(rig.wrote(1, Wrote::Waits { on: lacked }, 0), []);
        assert_eq!(rig.batch(3..=3), [], "behind the first");
        assert_eq!(rig.wrote(2, Wrote::Waits { on: before(1) }, 0), []);
        rig.standing.vector.raise(lacked.origin, lacked.seq);
        let mut out = Outputs::new();
        rig.sink.on_persisted(rig.now, &[], &rig.standing, &mut rig.writes, &mut out);
        assert_eq!(out.first(), Some(&write(3, run(1))), "what it waited for is here");
        assert_eq!(rig.wrote(3, Wrote::Done, 1), [write(4, run(2)), write(5, run(3))]);
    }

    #[test]
    fn a_relay_whose_link_was_not_up_is_told_again() {
        let mut rig = Rig::new(None);
        let told = Output::Send {
            to: relay(1),
            message: PeerMessage::Held { stream: 1, epoch: Epoch(1), vector: Vector::new() },
        };
        assert_eq!(rig.open(1), std::slice::from_ref(&told), "and lost, if there was no link yet");
        let mut out = Outputs::new();
        rig.sink.on_up(relay(1), Epoch(1), &mut out);
        assert_eq!(out, [told]);
        rig.sink.on_up(relay(3), Epoch(1), &mut out);
        assert_eq!(out.len(), 1, "who has no stream is told nothing");
    }

    #[test]
    fn of_two_that_offer_one_is_asked_and_its_end_is_told() {
        let mut rig = Rig::new(None);
        assert_eq!(rig.offer(1, 5), [wanted(1, &[])]);
        assert_eq!(rig.offer(2, 5), []);
        assert_eq!(rig.rows(1, part(&[], None)), [persist(1, part(&[], None))]);
        let held = |stream| PeerMessage::Held { stream, epoch: Epoch(1), vector: upto(9) };
        let expected = [
            Output::Send { to: relay(1), message: PeerMessage::SnapshotHeld { stream: 1 } },
            Output::Send { to: relay(1), message: held(1) },
            Output::Send { to: relay(2), message: held(2) },
        ];
        assert_eq!(rig.persisted(1, None), expected, "nobody is asked for what is held");
    }

    #[test]
    fn an_offer_that_is_not_needed_is_answered_with_what_is_held() {
        let mut rig = Rig::new(None);
        rig.standing.vector = upto(9);
        let mut out = Outputs::new();
        rig.sink.on_persisted(rig.now, &[], &rig.standing, &mut rig.writes, &mut out);
        let held = PeerMessage::Held { stream: 1, epoch: Epoch(1), vector: upto(9) };
        assert!(out.contains(&Output::Send { to: relay(1), message: held.clone() }));
        // Its offer was on the way.
        assert_eq!(rig.offer(1, 5), [Output::Send { to: relay(1), message: held }]);
    }

    #[test]
    fn a_broken_snapshot_goes_on_with_another_once_the_store_has_done_what_it_was_given() {
        let mut rig = Rig::new(None);
        rig.offer(1, 5);
        rig.rows(1, part(&[], Some(&[7])));
        assert_eq!(rig.offer(2, 5), []);
        assert_eq!(rig.down(1), [], "where it goes on is not known yet");
        assert_eq!(rig.persisted(1, Some(&[7])), [wanted(2, &[7])]);
    }

    #[test]
    fn a_successor_goes_on_where_the_store_stands_if_the_log_reaches_back_to_it() {
        assert_eq!(Rig::new(Some((&[7], 5))).offer(2, 5), [wanted(2, &[7])]);
        assert_eq!(Rig::new(Some((&[7], 4))).offer(2, 5), [wanted(2, &[])], "rows of no use: it begins anew");
    }

    #[test]
    fn a_silent_sender_is_given_up_when_another_offers() {
        let mut rig = Rig::new(None);
        rig.offer(1, 5);
        rig.now = rig.now + limits::SNAPSHOT_SILENCE;
        assert_eq!(rig.offer(2, 5), [wanted(2, &[])]);
        let closed = Output::Send { to: relay(1), message: PeerMessage::Closed { stream: 1 } };
        assert_eq!(rig.rows(1, part(&[], None)), [closed], "what it sends after all is not taken");
    }

    #[test]
    fn more_than_may_be_in_flight_closes_the_stream() {
        let mut rig = Rig::new(None);
        rig.offer(1, 5);
        for _ in 0..limits::SNAPSHOT_PARTS_IN_FLIGHT_MAX {
            assert!(matches!(rig.rows(1, part(&[], Some(&[7])))[..], [Output::Persist { .. }]));
        }
        let closed = Output::Send { to: relay(1), message: PeerMessage::Closed { stream: 1 } };
        assert_eq!(rig.rows(1, part(&[], Some(&[7]))), [closed]);
    }
}
