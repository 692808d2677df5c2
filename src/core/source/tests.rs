//! A relay's streams, driven by hand.

use super::*;
use crate::core::testing::standing;
use crate::id::{Digest, EntryId};
use crate::service::ledger::{EntryRun, Standing};

struct Counter(u64);

impl Reads for Counter {
    fn next_read(&mut self) -> ReadId {
        self.0 += 1;
        ReadId(self.0)
    }
}

/// A relay of `a` with a stream to `b`, whose primary holds nothing; the log of `a` begins after 5 of 9 entries.
struct Rig {
    source: Source,
    reads: Counter,
    stream: u64,
    now: Instant,
}

const BEGUN: Instant = Instant::from_micros(1);

fn origin() -> Origin {
    Origin { host: "a".parse().unwrap(), incarnation: 1 }
}

fn upto(seq: u64) -> Vector {
    [(origin(), Seq(seq))].into_iter().collect()
}

fn primary() -> ProcessId {
    "W1".parse().unwrap()
}

fn send(message: PeerMessage) -> Output {
    Output::Send { to: primary(), message }
}

fn key(number: usize) -> Vec<u8> {
    vec![u8::try_from(number).unwrap()]
}

fn read(read: u64, at: Vec<u8>) -> Output {
    Output::ReadSnapshot { read: ReadId(read), at }
}

impl Rig {
    /// A stream that has just offered a snapshot.
    fn offering() -> Self {
        let (b, mut out) = ("b".parse().unwrap(), Outputs::new());
        let mut rig = Self {
            source: Source::new("a".parse().unwrap(), [b].into_iter(), 1, 4, BEGUN),
            reads: Counter(0),
            stream: 0,
            now: BEGUN,
        };
        rig.source.on_serving(BEGUN, b, Some(primary()), &mut out);
        let [Output::Send { message: PeerMessage::Open { stream }, .. }] = out[..] else { panic!("{out:?}") };
        rig.stream = stream;
        rig.source.on_committed(BEGUN, &upto(9), &mut rig.reads, &mut out);
        assert_eq!(
            rig.held(0),
            [Output::ReadLog {
                read: ReadId(1),
                after: vec![(origin(), Seq::ZERO)],
                bytes_max: limits::BATCH_BYTES_MAX,
            }]
        );
        assert_eq!(rig.log_read(1), [send(PeerMessage::SnapshotOffer { stream, cut: upto(5) })]);
        rig
    }

    fn held(&mut self, seq: u64) -> Outputs {
        let mut out = Outputs::new();
        let vector = if seq == 0 { Vector::new() } else { upto(seq) };
        self.source.on_held(self.now, primary(), self.stream, vector, &mut self.reads, &mut out);
        out
    }

    /// The log was read, and does not have what was asked for.
    fn log_read(&mut self, read: u64) -> Outputs {
        let standing = Standing { vector: upto(9), cut: upto(5), ..standing(1, Some(origin())) };
        let chunk = LogChunk { runs: Vec::new(), cut: vec![origin()], standing };
        let mut out = Outputs::new();
        self.source.on_log_read(self.now, ReadId(read), chunk, Hlc::ZERO, &mut self.reads, &mut out);
        out
    }

    fn wanted(&mut self, at: Vec<u8>) -> Outputs {
        let mut out = Outputs::new();
        self.source.on_snapshot_wanted(self.now, primary(), self.stream, at, &mut self.reads, &mut out);
        out
    }

    fn tables_read(&mut self, read: u64, next: Option<Vec<u8>>) -> Outputs {
        let mut out = Outputs::new();
        let chunk = Chunk { bytes: vec![0], rows: 0, next };
        self.source.on_snapshot_read(self.now, ReadId(read), chunk, upto(9), &mut self.reads, &mut out);
        out
    }

    fn part_held(&mut self) -> Outputs {
        let mut out = Outputs::new();
        self.source.on_snapshot_held(self.now, primary(), self.stream, &mut self.reads, &mut out);
        out
    }

    fn rows(&self, at: Vec<u8>, next: Option<Vec<u8>>) -> Output {
        let part = Part { at, bytes: vec![0], next, vector: upto(9) };
        send(PeerMessage::SnapshotRows { stream: self.stream, part })
    }
}

#[test]
fn parts_are_sent_ahead_from_the_key_asked_for_and_then_the_log_goes_on() {
    let mut rig = Rig::offering();
    assert_eq!(rig.wanted(key(1)), [read(2, key(1))]);
    let ahead = limits::SNAPSHOT_PARTS_IN_FLIGHT_MAX;
    for number in 1..=ahead {
        let mut expected = vec![rig.rows(key(number), Some(key(number + 1)))];
        if number < ahead {
            expected.push(read(2 + number as u64, key(number + 1)));
        }
        assert_eq!(rig.tables_read(1 + number as u64, Some(key(number + 1))), expected);
    }
    let last = 2 + ahead as u64;
    assert_eq!(rig.part_held(), [read(last, key(ahead + 1))]);
    assert_eq!(rig.tables_read(last, None), [rig.rows(key(ahead + 1), None)]);
    for _ in 0..ahead {
        assert_eq!(rig.part_held(), []);
    }
    let after = vec![(origin(), Seq(8))];
    let log = Output::ReadLog { read: ReadId(last + 1), after, bytes_max: limits::BATCH_BYTES_MAX };
    assert_eq!(rig.held(8), [log]);
}

#[test]
fn an_offer_is_repeated_until_it_is_taken_or_not_needed() {
    let mut rig = Rig::offering();
    let (due, mut out) = (BEGUN + limits::SNAPSHOT_SILENCE, Outputs::new());
    assert_eq!(rig.source.poll_timeout(), Some(due));
    rig.source.on_timeout(due, &mut rig.reads, &mut out);
    assert_eq!(out, [send(PeerMessage::SnapshotOffer { stream: rig.stream, cut: upto(5) })]);
    assert_eq!(rig.held(4), [], "another brings it a part of what it lacks");
    assert!(matches!(rig.held(5)[..], [Output::ReadLog { .. }]), "the log has the rest");
    assert_eq!(rig.wanted(Vec::new()), [], "too late");
}

impl Rig {
    /// A stream whose receiver has acknowledged 5 of 9 entries, and 6 of `b`; the other 4 of `a` are in flight.
    fn in_flight() -> Self {
        let mut rig = Self::offering();
        assert!(matches!(rig.held(5)[..], [Output::ReadLog { .. }]));
        rig.sent(6);
        rig
    }

    /// The log holds what was asked for: 4 entries.
    fn sent(&mut self, from: u64) {
        let run = EntryRun { origin: origin(), from: Seq(from), entries: vec![vec![0]; 4] };
        let standing = Standing { vector: upto(9), ..standing(1, Some(origin())) };
        let chunk = LogChunk { runs: vec![run], cut: Vec::new(), standing };
        let (read, mut out) = (ReadId(self.reads.0), Outputs::new());
        self.source.on_log_read(self.now, read, chunk, Hlc::ZERO, &mut self.reads, &mut out);
        assert!(matches!(out[..], [Output::Send { message: PeerMessage::Batch { .. }, .. }, ..]), "{out:?}");
    }

    /// For so many seconds the receiver tells of entries of its own and acknowledges nothing; returns what is opened
    /// anew, and after how many seconds.
    fn talk(&mut self, seconds: u64) -> Vec<u64> {
        let mut opened = Vec::new();
        for second in 1..=seconds {
            let mut out = Outputs::new();
            self.now = self.now + Duration::from_millis(900);
            let mut vector = upto(5);
            vector.raise(Origin { host: "b".parse().unwrap(), incarnation: 1 }, Seq(second));
            self.source.on_held(self.now, primary(), self.stream, vector, &mut self.reads, &mut out);
            self.now = self.now + Duration::from_millis(100);
            self.source.on_timeout(self.now, &mut self.reads, &mut out);
            for output in out {
                if let Output::Send { message: PeerMessage::Open { stream }, .. } = output {
                    opened.push(second);
                    self.stream = stream;
                    assert!(matches!(self.held(5)[..], [Output::ReadLog { .. }]));
                    self.sent(6);
                }
            }
        }
        opened
    }
}

#[test]
fn a_stream_that_stands_still_is_opened_anew_though_its_receiver_talks_but_ever_more_rarely() {
    let mut rig = Rig::in_flight();
    assert_eq!(rig.talk(80), [10, 30, 70]);
    // It was not stuck after all: what it is sent next has the first patience again.
    rig.held(9);
    rig.source.on_committed(rig.now, &upto(13), &mut rig.reads, &mut Outputs::new());
    rig.sent(10);
    assert_eq!(rig.talk(15), [10]);
}

#[test]
fn a_stream_that_moves_is_not_opened_anew() {
    let mut rig = Rig::in_flight();
    assert_eq!(rig.talk(9), [0; 0]);
    rig.source.on_committed(rig.now, &upto(13), &mut rig.reads, &mut Outputs::new());
    rig.sent(10);
    rig.held(9);
    assert_eq!(rig.talk(9), [0; 0]);
}

#[test]
fn what_a_host_said_last_is_passed_on_as_soon_as_nobody_serves_there() {
    let (b, c, mut out) = ("b".parse().unwrap(), "c".parse().unwrap(), Outputs::new());
    let mut source = Source::new("a".parse().unwrap(), [b, c].into_iter(), 1, 4, BEGUN);
    let (reads, second) = (&mut Counter(0), "W2".parse().unwrap());
    source.on_serving(BEGUN, b, Some(primary()), &mut out);
    source.on_serving(BEGUN, c, Some(second), &mut out);
    let [Output::Send { message: PeerMessage::Open { stream }, .. }, _] = out[..] else { panic!("{out:?}") };
    source.on_held(BEGUN, primary(), stream, Vector::new(), reads, &mut out);
    out.clear();
    let said = Origin { host: c, incarnation: 1 };
    source.on_committed(BEGUN, &[(said, Seq(3))].into_iter().collect(), reads, &mut out);
    assert_eq!(out, [], "c sends it itself");
    source.on_serving(BEGUN, c, None, &mut out);
    source.pump_all(BEGUN, reads, &mut out);
    let after = vec![(said, Seq::ZERO)];
    assert_eq!(out, [Output::ReadLog { read: ReadId(1), after, bytes_max: limits::BATCH_BYTES_MAX }]);
}

/// A stream to `b`, which understands this version of the wire, over which all 9 entries flow.
fn streaming(version: u16) -> Rig {
    let mut rig = Rig::offering();
    rig.source.on_version(primary(), version);
    rig
}

fn digest(seq: u64) -> LogDigest {
    LogDigest { upto: EntryId { origin: origin(), seq: Seq(seq) }, digest: Digest(u128::from(seq)) }
}

/// Which digests a stream asks for.
fn asked(out: &Outputs) -> Vec<(ReadId, Vec<(Origin, Seq)>)> {
    let asked = out.iter().filter_map(|output| {
        if let Output::ReadDigests { read, after } = output { Some((*read, after.clone())) } else { None }
    });
    asked.collect()
}

#[test]
fn digests_of_what_is_acknowledged_are_told_once_and_anew_over_a_new_stream() {
    let mut rig = streaming(REPORTS);
    let out = rig.held(7);
    let [(read, after)] = &asked(&out)[..] else { panic!("{out:?}") };
    assert_eq!(after, &[(origin(), Seq::ZERO)]);
    let told = |rig: &mut Rig, read, digests: &[LogDigest]| {
        let mut out = Outputs::new();
        rig.source.on_digests_read(read, digests, &mut rig.reads, &mut out);
        out
    };
    // The store holds more blocks than the receiver has acknowledged.
    let message = PeerMessage::Digests { stream: rig.stream, digests: vec![digest(4)] };
    assert_eq!(told(&mut rig, *read, &[digest(4), digest(8)]), [send(message)]);
    assert_eq!(asked(&rig.held(7)), [], "it was told");
    let out = rig.held(9);
    let [(read, after)] = &asked(&out)[..] else { panic!("{out:?}") };
    assert_eq!(after, &[(origin(), Seq(4))]);
    assert_eq!(told(&mut rig, *read, &[]), [], "a block that has no digest is passed over");
    assert_eq!(asked(&rig.held(9)), []);
    let mut out = Outputs::new();
    rig.source.on_link(rig.now, primary(), &mut out);
    let [Output::Send { message: PeerMessage::Open { stream }, .. }] = out[..] else { panic!("{out:?}") };
    rig.stream = stream;
    assert_eq!(asked(&rig.held(9)).len(), 1);
}

#[test]
fn who_does_not_know_digests_is_told_none() {
    let mut rig = streaming(REPORTS - 1);
    assert_eq!(asked(&rig.held(9)), []);
}
