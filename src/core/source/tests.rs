//! What a relay sends, and when.

use super::*;
use crate::id::{Digest, Epoch};
use crate::service::ledger::Standing;

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
}

const NOW: Instant = Instant::from_micros(1);

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
        let mut rig =
            Self { source: Source::new("a".parse().unwrap(), [b].into_iter(), 1, NOW), reads: Counter(0), stream: 0 };
        rig.source.on_serving(NOW, b, Some(primary()), &mut out);
        let [Output::Send { message: PeerMessage::Open { stream }, .. }] = out[..] else { panic!("{out:?}") };
        rig.stream = stream;
        rig.source.on_committed(NOW, &upto(9), &mut rig.reads, &mut out);
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
        self.source.on_held(NOW, primary(), self.stream, vector, &mut self.reads, &mut out);
        out
    }

    /// The log was read, and does not have what was asked for.
    fn log_read(&mut self, read: u64) -> Outputs {
        let standing = Standing {
            epoch: Epoch(1),
            origin: Some(origin()),
            vector: upto(9),
            hlc: Hlc::ZERO,
            digest: Digest::default(),
            entries: 9,
            cut: upto(5),
            snapshot: None,
            disk_bytes: 0,
        };
        let chunk = LogChunk { runs: Vec::new(), cut: vec![origin()], standing };
        let mut out = Outputs::new();
        self.source.on_log_read(NOW, ReadId(read), chunk, Hlc::ZERO, &mut self.reads, &mut out);
        out
    }

    fn wanted(&mut self, at: Vec<u8>) -> Outputs {
        let mut out = Outputs::new();
        self.source.on_snapshot_wanted(NOW, primary(), self.stream, at, &mut self.reads, &mut out);
        out
    }

    fn tables_read(&mut self, read: u64, next: Option<Vec<u8>>) -> Outputs {
        let mut out = Outputs::new();
        let chunk = Chunk { bytes: vec![0], rows: 0, next };
        self.source.on_snapshot_read(NOW, ReadId(read), chunk, upto(9), &mut self.reads, &mut out);
        out
    }

    fn part_held(&mut self) -> Outputs {
        let mut out = Outputs::new();
        self.source.on_snapshot_held(NOW, primary(), self.stream, &mut self.reads, &mut out);
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
fn what_a_host_said_last_is_passed_on_as_soon_as_nobody_serves_there() {
    let (b, c, mut out) = ("b".parse().unwrap(), "c".parse().unwrap(), Outputs::new());
    let mut source = Source::new("a".parse().unwrap(), [b, c].into_iter(), 1, NOW);
    let (reads, second) = (&mut Counter(0), "W2".parse().unwrap());
    source.on_serving(NOW, b, Some(primary()), &mut out);
    source.on_serving(NOW, c, Some(second), &mut out);
    let [Output::Send { message: PeerMessage::Open { stream }, .. }, _] = out[..] else { panic!("{out:?}") };
    source.on_held(NOW, primary(), stream, Vector::new(), reads, &mut out);
    out.clear();
    let said = Origin { host: c, incarnation: 1 };
    source.on_committed(NOW, &[(said, Seq(3))].into_iter().collect(), reads, &mut out);
    assert_eq!(out, [], "c sends it itself");
    source.on_serving(NOW, c, None, &mut out);
    source.pump_all(NOW, reads, &mut out);
    let after = vec![(said, Seq::ZERO)];
    assert_eq!(out, [Output::ReadLog { read: ReadId(1), after, bytes_max: limits::BATCH_BYTES_MAX }]);
}

#[test]
fn an_offer_is_repeated_until_it_is_taken_or_not_needed() {
    let mut rig = Rig::offering();
    let (due, mut out) = (NOW + limits::SNAPSHOT_SILENCE, Outputs::new());
    assert_eq!(rig.source.poll_timeout(), Some(due));
    rig.source.on_timeout(due, &mut rig.reads, &mut out);
    assert_eq!(out, [send(PeerMessage::SnapshotOffer { stream: rig.stream, cut: upto(5) })]);
    assert_eq!(rig.held(4), [], "another brings it a part of what it lacks");
    assert!(matches!(rig.held(5)[..], [Output::ReadLog { .. }]), "the log has the rest");
    assert_eq!(rig.wanted(Vec::new()), [], "too late");
}
