//! The receiving end of replication, at a primary: entries of other hosts, in causal order, once.
//!
//! Each relay that sends has a stream, named by the number in its `Open`; the answer says what is held durably, and so
//! resuming, catching up and first joining are one mechanism. A run that the store finds to depend on what is not held
//! yet waits here (bounded); the store checks that inside its transaction (P4). Nothing is acknowledged that the store
//! has not reported as persisted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::core::io::{Output, Outputs};
use crate::id::{EntryId, Epoch, Origin, ProcessId, Vector};
use crate::limits;
use crate::service::ledger::{EntryRun, Write, WriteId, Wrote};
use crate::wire::peer::PeerMessage;

/// One relay's stream.
#[derive(Debug)]
struct Inlet {
    stream: u64,
    /// At the store, in order.
    persisting: VecDeque<(WriteId, Item)>,
    /// Runs that wait for this entry, or, without one, for those of the same origin before them.
    waiting: VecDeque<(Option<EntryId>, EntryRun)>,
    /// What was last acknowledged.
    told: Option<Vector>,
}

#[derive(Debug)]
enum Item {
    Run(EntryRun),
    Rows,
    Adopt,
}

/// All streams into this host.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    inlets: BTreeMap<ProcessId, Inlet>,
}

/// Hands out the numbers of writes.
pub(crate) trait Writes {
    /// The epoch to write under.
    fn epoch(&self) -> Epoch;

    /// The next number.
    fn next_id(&mut self) -> WriteId;
}

impl Sink {
    /// A relay asks where this host stands.
    pub(crate) fn on_open(&mut self, from: ProcessId, stream: u64, epoch: Epoch, vector: &Vector, out: &mut Outputs) {
        let told = Some(vector.clone());
        self.inlets.insert(from, Inlet { stream, persisting: VecDeque::new(), waiting: VecDeque::new(), told });
        let message = PeerMessage::Held { stream, epoch, vector: vector.clone() };
        out.push(Output::Send { to: from, message });
    }

    /// Forgets a relay whose link broke; it opens anew.
    pub(crate) fn on_down(&mut self, from: ProcessId) {
        self.inlets.remove(&from);
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
        from: ProcessId,
        stream: u64,
        runs: Vec<EntryRun>,
        writes: &mut dyn Writes,
        out: &mut Outputs,
    ) {
        let Some(inlet) = self.inlet(from, stream, out) else { return };
        if inlet.waiting.len() + runs.len() > limits::RUNS_WAITING_MAX {
            return self.close(from, out);
        }
        let behind: BTreeSet<Origin> = inlet.waiting.iter().map(|(_, before)| before.origin).collect();
        for run in runs {
            if behind.contains(&run.origin) {
                inlet.waiting.push_back((None, run));
            } else {
                // Never behind another origin's: it may hold the very entries that those wait for.
                inlet.persist(run, writes, out);
            }
        }
    }

    /// A part of a snapshot came.
    pub(crate) fn on_snapshot(
        &mut self,
        from: ProcessId,
        stream: u64,
        part: SnapshotPart,
        writes: &mut dyn Writes,
        out: &mut Outputs,
    ) {
        let Some(inlet) = self.inlet(from, stream, out) else { return };
        let (id, epoch) = (writes.next_id(), writes.epoch());
        let (item, write) = match part {
            SnapshotPart::Rows(chunk) => (Item::Rows, Write::Rows(chunk)),
            SnapshotPart::Done(vector) => (Item::Adopt, Write::Adopt(vector)),
        };
        inlet.persisting.push_back((id, item));
        out.push(Output::Persist { id, epoch, write });
    }

    /// The store committed: `outcomes` may hold some of ours. Acknowledges, and tries again what waited.
    pub(crate) fn on_persisted(
        &mut self,
        outcomes: &[(WriteId, Wrote)],
        held: &Vector,
        writes: &mut dyn Writes,
        out: &mut Outputs,
    ) {
        let mut broken = Vec::new();
        for (from, inlet) in &mut self.inlets {
            if inlet.on_outcomes(*from, outcomes, out) == Health::Broken {
                broken.push(*from);
            }
        }
        for from in broken {
            self.close(from, out);
        }
        let streams: Vec<ProcessId> = self.inlets.keys().copied().collect();
        for from in streams {
            if let Some(inlet) = self.inlets.get_mut(&from) {
                inlet.retry(held, writes, out);
                inlet.tell(from, held, writes.epoch(), out);
            }
        }
    }

    fn close(&mut self, from: ProcessId, out: &mut Outputs) {
        if let Some(inlet) = self.inlets.remove(&from) {
            out.push(Output::Send { to: from, message: PeerMessage::Closed { stream: inlet.stream } });
        }
    }

    /// This process serves no more: every relay is to look for its successor.
    pub(crate) fn close_all(&mut self, out: &mut Outputs) {
        while let Some(from) = self.inlets.keys().next().copied() {
            self.close(from, out);
        }
    }
}

/// A part of a snapshot.
#[derive(Debug)]
pub(crate) enum SnapshotPart {
    /// Rows.
    Rows(Vec<u8>),
    /// The end: this vector is held now.
    Done(Vector),
}

#[derive(Debug, PartialEq, Eq)]
enum Health {
    Sound,
    Broken,
}

impl Inlet {
    fn persist(&mut self, run: EntryRun, writes: &mut dyn Writes, out: &mut Outputs) {
        let (id, epoch) = (writes.next_id(), writes.epoch());
        self.persisting.push_back((id, Item::Run(run.clone())));
        out.push(Output::Persist { id, epoch, write: Write::Run(run) });
    }

    fn on_outcomes(&mut self, from: ProcessId, outcomes: &[(WriteId, Wrote)], out: &mut Outputs) -> Health {
        let mut blocked = Vec::new();
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
                (Item::Run(run), Wrote::Waits { on }) => blocked.push((Some(*on), run)),
                (Item::Rows, _) => {
                    let message = PeerMessage::SnapshotHeld { stream: self.stream };
                    out.push(Output::Send { to: from, message });
                }
                (Item::Run(_) | Item::Adopt, _) => {}
            }
        }
        for waiting in blocked.into_iter().rev() {
            self.waiting.push_front(waiting);
        }
        Health::Sound
    }

    /// Hands runs to the store again whose dependency is held now, or that need not wait for those before them.
    fn retry(&mut self, held: &Vector, writes: &mut dyn Writes, out: &mut Outputs) {
        let mut behind = BTreeSet::new();
        for (on, run) in std::mem::take(&mut self.waiting) {
            if behind.contains(&run.origin) || on.is_some_and(|on| !held.holds(on)) {
                behind.insert(run.origin);
                self.waiting.push_back((on, run));
            } else {
                self.persist(run, writes, out);
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
