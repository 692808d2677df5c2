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

#[cfg(test)]
mod tests;

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

    /// Whether this is the stream of a relay.
    pub(crate) fn hears(&self, from: ProcessId, stream: u64) -> bool {
        self.inlets.get(&from).is_some_and(|inlet| inlet.stream == stream)
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

    /// Whether no snapshot is under way.
    pub(crate) fn takes_none(&self) -> bool {
        self.taking.is_none() && self.rows_at_store.is_empty()
    }

    /// Whether the relay that a snapshot is taken from sends nothing, though nothing of it waits for the store.
    fn is_silent(&self, now: Instant, taking: &Taking) -> bool {
        self.rows_at_store.is_empty() && now >= taking.heard_at + limits::SNAPSHOT_SILENCE
    }

    /// Asks one of those that offer a snapshot for it, if none is under way and one is needed.
    fn choose(&mut self, now: Instant, out: &mut Outputs) {
        if !self.takes_none() {
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
        let waited = self.rows_at_store.len();
        if waited > 0 {
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
        // The sender's next part could not come before there was room for it.
        if let Some(taking) = self.taking.as_mut().filter(|_| self.rows_at_store.len() < waited) {
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
