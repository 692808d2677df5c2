//! Bytes from anywhere: no decoder panics, whatever it is given, and no request of a client ends the process.
//!
//! Random bytes mostly fail at the first field, so valid messages are also changed in a few places: those get far into
//! the decoders, and many still decode. What decodes is handed on to whoever would take it (a node, a store), since a
//! value that its sender made up must not end a process either. `fuzz/` holds the same decoders for longer runs.

#![expect(clippy::unwrap_used, reason = "test code: these values are made here")]

use std::fmt::Debug;

use gaggle::core::io::{Input, Output, Rank};
use gaggle::core::node::{Node, NodeConfig};
use gaggle::error::{ErrorCode, Refusal};
use gaggle::id::{ClientId, EntryId, Epoch, FeedId, Origin, PublicKey, Seq, Token, UserId, Vector};
use gaggle::limits;
use gaggle::service::blocks::{self, Compared, LogDigest};
use gaggle::service::entry::{Entry, Op};
use gaggle::service::intake::WriteOp;
use gaggle::service::ledger::{EntryRun, Write, WriteId, WriterMark};
use gaggle::service::snapshot::Part;
use gaggle::store::{MemoryStore, Store};
use gaggle::time::{Hlc, Instant, Now, Wall};
use gaggle::topology::Topology;
use gaggle::wire::Versions;
use gaggle::wire::client::{ClientFrame, FeedFrame, Request, RequestBody, Response, ServerFrame};
use gaggle::wire::frame;
use gaggle::wire::heartbeat::{Duty, Fitness, Heartbeat, HostRecord, HostView, PrimaryStatus};
use gaggle::wire::peer::{PeerHello, PeerMessage};
use gaggle::wire::report::{Difference, HostReport};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

const TOPOLOGY: &str = include_str!("../topology/lenss.toml");

fn origin() -> Origin {
    Origin { host: "lenss3".parse().unwrap(), incarnation: 7 }
}

fn vector() -> Vector {
    [(origin(), Seq(9))].into_iter().collect()
}

fn token() -> Token {
    Token { vector: vector(), hlc: Hlc(77) }
}

fn key() -> PublicKey {
    PublicKey([1; 32])
}

fn request(body: RequestBody) -> ClientFrame {
    ClientFrame::Request(Request { number: 3, token: token(), body })
}

fn entry(seq: u64, op: Op) -> Entry {
    let user = UserId::of(&key());
    let id = EntryId { origin: origin(), seq: Seq(seq) };
    Entry { id, hlc: Hlc(seq), user, request: format!("r{seq}").parse().unwrap(), after: Vector::new(), op }
}

fn run() -> EntryRun {
    let name = "ann".parse().unwrap();
    let text = "hello".parse().unwrap();
    let entries = [entry(1, Op::Register { key: key(), name }), entry(2, Op::Post { text })];
    EntryRun { origin: origin(), from: Seq(1), entries: entries.iter().map(Entry::encode).collect() }
}

fn view() -> HostView {
    let record = HostRecord {
        host: origin().host,
        version: Hlc(5),
        wall: Wall(6),
        serving: Some("W5".parse().unwrap()),
        relaying: None,
        directing: None,
        epoch: Epoch(2),
        fitness: Fitness::Ready,
        sessions: 1,
        vector: vector(),
        digest: gaggle::id::Digest::default(),
        entries: 9,
        disk_bytes: 10,
        topology: 11,
        processes: Vec::new(),
    };
    HostView { record, up: true }
}

fn bytes<T: Serialize>(message: &T) -> Vec<u8> {
    frame::encode_body(message).unwrap()
}

/// One valid message of every kind, and of the variants that hold something.
fn samples() -> Vec<Vec<u8>> {
    let refusal = Refusal::new(ErrorCode::Busy, "in a moment");
    let write = WriteOp::Post { text: "hello".parse().unwrap() };
    let body = RequestBody::Write { id: "r1".parse().unwrap(), op: write, ack: None };
    let timeline = RequestBody::Timeline { of: Some("ann".into()), limit: 20, since: Some(vector()), before: None };
    let status = PrimaryStatus {
        epoch: Epoch(2),
        fitness: Fitness::Ready,
        sessions: 1,
        vector: vector(),
        digest: gaggle::id::Digest::default(),
        entries: 9,
        disk_bytes: 10,
    };
    let gaps = vec![(EntryId { origin: origin(), seq: Seq(1) }, EntryId { origin: origin(), seq: Seq(2) })];
    let response = ServerFrame::Response { number: 1, token: token(), result: Ok(Response::Missing { gaps }) };
    let beat = Heartbeat {
        run: 1,
        hlc: Hlc(2),
        duties: vec![Duty::Serve],
        epoch: Epoch(2),
        warm: true,
        primary: Some(status),
        view: Some(view()),
    };
    let digest = LogDigest { upto: EntryId { origin: origin(), seq: Seq(1_024) }, digest: gaggle::id::Digest(7) };
    let differing = vec![Difference { upto: digest.upto, with: "lenss4".parse().unwrap() }];
    let hello = PeerHello { versions: Versions::OURS, cluster: "lenss".into(), run: 1, pid: 2, topology: 3 };
    vec![
        bytes(&request(body)),
        bytes(&request(timeline)),
        bytes(&ClientFrame::Follow { token: token(), since: vector() }),
        bytes(&response),
        bytes(&ServerFrame::Serving { serving: true, epoch: Epoch(3) }),
        bytes(&FeedFrame::Items { posts: Vec::new(), cursor: vector(), token: token() }),
        bytes(&FeedFrame::Ended(refusal)),
        bytes(&hello),
        bytes(&beat),
        bytes(&PeerMessage::View(view())),
        bytes(&PeerMessage::Held { stream: 1, epoch: Epoch(1), vector: vector() }),
        bytes(&PeerMessage::Batch { stream: 1, hlc: Hlc(2), runs: vec![run()] }),
        bytes(&PeerMessage::SnapshotOffer { stream: 1, cut: vector() }),
        bytes(&PeerMessage::Report(HostReport { host: origin().host, at: Hlc(1), wire: 2, trim: Hlc(2), differing })),
        bytes(&PeerMessage::Digests { stream: 1, digests: vec![digest] }),
        bytes(&PeerMessage::SnapshotWanted { stream: 1, at: vec![7; 20] }),
        bytes(&PeerMessage::SnapshotRows { stream: 1, part: part(snapshot(), vector()) }),
        run().entries.remove(0),
        snapshot(),
        TOPOLOGY.as_bytes().to_vec(),
    ]
}

fn store() -> MemoryStore {
    let store = MemoryStore::new();
    let standing = store.take_epoch(&WriterMark { process: "W5".parse().unwrap(), pid: 1 }).unwrap();
    assert_eq!(standing.epoch, Epoch(1));
    store
}

fn commit(store: &MemoryStore, write: Write) {
    store.commit(Epoch(1), Wall(1), vec![(WriteId(1), write)]).unwrap();
}

/// A chunk of a small host's tables.
fn snapshot() -> Vec<u8> {
    let store = store();
    commit(&store, Write::Run(run()));
    let mut chunk = Vec::new();
    store.read(&mut |rows| chunk = gaggle::service::snapshot::read_chunk(rows, &[], 1 << 20).bytes).unwrap();
    chunk
}

/// A whole snapshot of these rows.
fn part(bytes: Vec<u8>, vector: Vector) -> Part {
    Part { at: Vec::new(), bytes, next: None, vector }
}

/// Decodes, and if that succeeds finds what was encoded again.
fn decode<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let message: T = frame::decode_body(bytes).ok()?;
    assert_eq!(frame::decode_body::<T>(&self::bytes(&message)).as_ref(), Ok(&message));
    Some(message)
}

/// Hands these bytes to everybody who reads bytes.
fn swallow(bytes: &[u8]) {
    if let Some(frame) = decode::<ClientFrame>(bytes) {
        drop(survive(frame));
    }
    decode::<ServerFrame>(bytes);
    decode::<FeedFrame>(bytes);
    decode::<PeerHello>(bytes);
    decode::<Heartbeat>(bytes);
    let store = store();
    commit(&store, Write::Run(run()));
    let message = decode::<PeerMessage>(bytes);
    if let Some(PeerMessage::Batch { runs, .. }) = message {
        runs.into_iter().for_each(|run| commit(&store, Write::Run(run)));
    } else if let Some(PeerMessage::Held { vector, .. }) = message {
        commit(&store, Write::Rows(part(Vec::new(), vector.clone())));
        commit(&store, Write::Cut(vector));
    } else if let Some(PeerMessage::SnapshotRows { part, .. }) = message {
        commit(&store, Write::Rows(part));
    } else if let Some(PeerMessage::Digests { digests, .. }) = message {
        store.read(&mut |rows| assert_eq!(blocks::compare(rows, &digests), Compared::default())).unwrap();
    }
    if let Ok(entry) = Entry::decode(bytes) {
        let run = EntryRun { origin: entry.id.origin, from: entry.id.seq, entries: vec![bytes.to_vec()] };
        commit(&store, Write::Run(run));
    }
    commit(&store, Write::Rows(part(bytes.to_vec(), Vector::new())));
    let _ = Topology::parse(&String::from_utf8_lossy(bytes), "lenss.toml");
}

/// A process that serves alone in its host takes this from a client, and goes on for a while. What it answers.
fn survive(frame: ClientFrame) -> Vec<Output> {
    let at = |ms: u64| Now { mono: Instant::from_micros(ms * 1_000), wall: Wall(1_700_000_000_000_000 + ms * 1_000) };
    let topology = Topology::parse(TOPOLOGY, "lenss.toml").unwrap();
    let me = "W5".parse().unwrap();
    let versions = Versions::OURS;
    let mut node =
        Node::new(NodeConfig { topology, topology_hash: 0, me, run: 1, pid: 1, seed: 1, versions, block: 4 }, at(0));
    let mut out = Vec::new();
    node.handle_timeout(at(400), &mut out);
    let standing = store().take_epoch(&WriterMark { process: me, pid: 1 }).unwrap();
    node.handle_input(at(500), Input::EpochTaken(Ok(standing)), &mut out);
    let client = ClientId(1);
    node.handle_input(at(500), Input::ClientOpened { client, key: Some(key()), rank: Rank::Person }, &mut out);
    for ms in [600, 2_000, 5_000] {
        match frame.clone() {
            ClientFrame::Hello { .. } => {}
            ClientFrame::Request(request) => node.handle_input(at(ms), Input::Client { client, request }, &mut out),
            ClientFrame::Follow { token, since } => {
                let feed = FeedId(ms);
                node.handle_input(at(ms), Input::FeedOpened { client, feed, token, since }, &mut out);
            }
        }
        for later in 1..4 {
            node.handle_timeout(at(ms + later * 400), &mut out);
        }
        node.check_invariants();
    }
    out
}

#[test]
fn every_sample_is_valid() {
    let samples = samples();
    let decoded = samples.iter().filter(|bytes| {
        frame::decode_body::<ClientFrame>(bytes).is_ok()
            || frame::decode_body::<ServerFrame>(bytes).is_ok()
            || frame::decode_body::<FeedFrame>(bytes).is_ok()
            || frame::decode_body::<PeerHello>(bytes).is_ok()
            || frame::decode_body::<Heartbeat>(bytes).is_ok()
            || frame::decode_body::<PeerMessage>(bytes).is_ok()
            || Entry::decode(bytes).is_ok()
            || Topology::parse(&String::from_utf8_lossy(bytes), "lenss.toml").is_ok()
            || **bytes == snapshot()
    });
    assert_eq!(decoded.count(), samples.len());
    samples.iter().for_each(|bytes| swallow(bytes));
}

#[test]
fn a_clients_clock_at_the_end_of_time_harms_nobody() {
    let token = Token { vector: Vector::new(), hlc: Hlc(u64::MAX) };
    let follow = ClientFrame::Follow { token: token.clone(), since: Vector::new() };
    drop(survive(follow));
    drop(survive(ClientFrame::Request(Request { number: u64::MAX, token, body: RequestBody::Status })));
}

#[test]
fn seqs_at_the_end_of_a_log_harm_nobody() {
    let far: Vector = [(origin(), Seq(u64::MAX))].into_iter().collect();
    drop(survive(ClientFrame::Follow { token: Token { vector: far.clone(), hlc: Hlc::ZERO }, since: far.clone() }));
    let body = RequestBody::WhoAmI;
    drop(survive(ClientFrame::Request(Request { number: 0, token: Token { vector: far, hlc: Hlc::ZERO }, body })));
}

/// So many origins, all unheard of.
fn origins(count: usize) -> Vector {
    let host = origin().host;
    (0..count).map(|n| (Origin { host, incarnation: u32::try_from(n).unwrap() }, Seq(1))).collect()
}

/// Whether this is refused as what no good client sends.
fn is_refused(frame: ClientFrame) -> bool {
    survive(frame).iter().any(|output| {
        if let Output::Reply { frame: ServerFrame::Response { result: Err(refusal), .. }, .. }
        | Output::Feed { frame: FeedFrame::Ended(refusal), .. } = output
        {
            refusal.code == ErrorCode::BadRequest
        } else {
            false
        }
    })
}

#[test]
fn a_token_or_cursor_of_more_origins_than_a_cluster_has_is_refused() {
    for (count, refused) in [(limits::TOKEN_ORIGINS_MAX, false), (limits::TOKEN_ORIGINS_MAX + 1, true)] {
        let (long, none) = (Token { vector: origins(count), hlc: Hlc::ZERO }, Token::default());
        let asked = |token: &Token, body| ClientFrame::Request(Request { number: 1, token: token.clone(), body });
        let since = Some(origins(count));
        let timeline = RequestBody::Timeline { of: None, limit: 20, since, before: None };
        let frames = [
            asked(&long, RequestBody::WhoAmI),
            asked(&none, timeline),
            ClientFrame::Follow { token: long.clone(), since: Vector::new() },
            ClientFrame::Follow { token: none.clone(), since: origins(count) },
        ];
        for frame in frames {
            assert!(bytes(&frame).len() <= limits::CLIENT_FRAME_BYTES_MAX);
            assert_eq!(is_refused(frame), refused, "{count}");
        }
    }
}

/// A change of some bytes: overwritten, cut off, or put in.
fn changed(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    for (at, kind, value) in changes {
        let at = at.index(bytes.len() + 1);
        match kind {
            0 => bytes.truncate(at),
            1 | 2 => bytes.insert(at, *value),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            // What a varint ends with, or goes on with.
            4 | 5 if at < bytes.len() => bytes[at] ^= 0x80,
            _ if at < bytes.len() => bytes[at] = *value,
            _ => {}
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        swallow(&bytes);
    }

    #[test]
    fn messages_with_a_few_changes_are_refused_or_read(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..12, any::<u8>()), 1..6),
    ) {
        swallow(&changed(which.get(&samples()).clone(), &changes));
    }
}
