//! What a primary takes from relays, in which order.

use super::*;
use crate::core::testing::standing;
use crate::id::Seq;

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
        let snapshot = cursor.map(|(at, seq)| Cursor { at: at.to_vec(), vector: upto(seq) });
        let standing = Standing { snapshot, ..standing(1, None) };
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
    let told =
        Output::Send { to: relay(1), message: PeerMessage::Held { stream: 1, epoch: Epoch(1), vector: Vector::new() } };
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
fn writes_of_others_are_no_sign_of_life_of_a_sender() {
    let mut rig = Rig::new(None);
    rig.offer(1, 5);
    rig.now = rig.now + limits::SNAPSHOT_SILENCE / 2;
    rig.wrote(77, Wrote::Done, 0);
    rig.now = rig.now + limits::SNAPSHOT_SILENCE / 2;
    assert_eq!(rig.offer(2, 5), [wanted(2, &[])]);
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

#[test]
fn a_relay_that_sends_more_runs_than_may_wait_is_asked_to_open_anew() {
    let mut rig = Rig::new(None);
    let max = u64::try_from(limits::RUNS_WAITING_MAX).unwrap();
    assert_eq!(rig.batch(1..=1), [write(1, run(1))]);
    let lacked = EntryId { origin: Origin { host: "b".parse().unwrap(), incarnation: 1 }, seq: Seq(1) };
    assert_eq!(rig.wrote(1, Wrote::Waits { on: lacked }, 0), []);
    assert_eq!(rig.batch(2..=max), [], "they wait behind the first");
    let closed = |stream| Output::Send { to: relay(stream), message: PeerMessage::Closed { stream } };
    assert_eq!(rig.batch(max + 1..=max + 1), [closed(1)]);
    // Nothing of it is kept, and the other relay is not disturbed.
    rig.open(1);
    assert_eq!(rig.batch(1..=1), [write(2, run(1))]);
    assert_eq!(rig.down(2), []);
}
