//! Golden bytes: one message of every form that crosses, by the version in which it first did.
//!
//! `tests/formats/wire-N.txt` holds those of version N, a line each, in hex. They are what this build writes, and they
//! decode to what was meant: an older version's bytes are read for ever. A change of a line is a new version, never a
//! new expectation; `GAGGLE_FORMATS_WRITE=1` writes the newest file only.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::client::{
    AssignedHost, AssignedProcess, Assignment, ClientFrame, ClusterStatus, FeedFrame, HostStatus, ProcessStatus,
    Request, RequestBody, Response, ServerFrame, Written,
};
use super::heartbeat::{Duty, Fitness, Heartbeat, HostRecord, HostView, Life, PrimaryStatus, ProcessRecord};
use super::peer::{PeerHello, PeerMessage};
use super::report::{ClusterReport, Difference, HostReport};
use super::{VERSION, Versions, frame};
use crate::error::{ErrorCode, Refusal};
use crate::id::{Digest, EntryId, Epoch, HostId, Origin, ProcessId, Seq, Token, Vector};
use crate::service::blocks::LogDigest;
use crate::service::entry::{Entry, Op, Stamp};
use crate::service::intake::{Accepted, WriteOp};
use crate::service::ledger::EntryRun;
use crate::service::query::{Answer, ListPart, ShownPost};
use crate::service::snapshot::Part;
use crate::time::{Hlc, Wall};
use crate::topology::{AckLevel, Role};

/// Whether these bytes mean the message.
type Reads = Box<dyn Fn(&[u8]) -> bool>;

/// A message as it is kept: its line, and whether the bytes of a line mean it.
struct Sample {
    version: u16,
    line: String,
    reads: Reads,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn sample<T: Serialize + DeserializeOwned + PartialEq + 'static>(version: u16, name: &str, message: T) -> Sample {
    let line = format!("{name} {}", hex(&frame::encode_body(&message).unwrap()));
    let reads = move |bytes: &[u8]| frame::decode_body::<T>(bytes).as_ref() == Ok(&message);
    Sample { version, line, reads: Box::new(reads) }
}

fn host() -> HostId {
    "h1".parse().unwrap()
}

fn process() -> ProcessId {
    "W1".parse().unwrap()
}

fn origin() -> Origin {
    Origin { host: host(), incarnation: 7 }
}

fn entry(seq: u64) -> EntryId {
    EntryId { origin: origin(), seq: Seq(seq) }
}

fn vector() -> Vector {
    [(origin(), Seq(300))].into_iter().collect()
}

fn token() -> Token {
    Token { vector: vector(), hlc: Hlc(400) }
}

fn view() -> HostView {
    let record = HostRecord {
        host: host(),
        version: Hlc(500),
        wall: Wall(600),
        serving: Some(process()),
        relaying: None,
        directing: None,
        epoch: Epoch(2),
        fitness: Fitness::CatchingUp,
        sessions: 3,
        vector: vector(),
        digest: Digest(1 << 100),
        entries: 300,
        disk_bytes: 700,
        topology: 800,
        processes: vec![ProcessRecord { id: process(), life: Life::Up, pid: 900 }],
    };
    HostView { record, up: true }
}

fn peers() -> Vec<Sample> {
    let (stream, epoch, duty) = (300, Epoch(2), Duty::Relay);
    let part = Part { at: vec![1, 2], bytes: vec![3], next: Some(vec![4, 5]), vector: vector() };
    let run = EntryRun { origin: origin(), from: Seq(300), entries: vec![vec![6, 7]] };
    let difference = Difference { upto: entry(2_048), with: "h2".parse().unwrap() };
    let digest = LogDigest { upto: entry(2_048), digest: Digest(1 << 100) };
    let messages = [
        PeerMessage::Election { duty: Duty::Direct },
        PeerMessage::Alive { duty: Duty::Serve },
        PeerMessage::Coordinator { duty, epoch },
        PeerMessage::Goodbye,
        PeerMessage::Drained,
        PeerMessage::Drain,
        PeerMessage::View(view()),
        PeerMessage::Committed { epoch, vector: vector() },
        PeerMessage::Copies { host: host(), vector: vector() },
        PeerMessage::Open { stream },
        PeerMessage::Held { stream, epoch, vector: vector() },
        PeerMessage::Closed { stream },
        PeerMessage::Batch { stream, hlc: Hlc(500), runs: vec![run] },
        PeerMessage::Snapshot { stream, chunk: vec![8] },
        PeerMessage::SnapshotDone { stream, vector: vector() },
        PeerMessage::SnapshotHeld { stream },
        PeerMessage::Recall,
        PeerMessage::Recalled { vector: vector() },
        PeerMessage::SnapshotOffer { stream, cut: vector() },
        PeerMessage::SnapshotWanted { stream, at: vec![1, 2] },
        PeerMessage::SnapshotRows { stream, part },
        PeerMessage::Report(report(vec![difference])),
        PeerMessage::Digests { stream, digests: vec![digest] },
    ];
    let of = |message: PeerMessage| {
        let name = format!("{message:?}");
        let name: String = name.chars().take_while(|letter| letter.is_alphanumeric()).collect();
        sample(message.since(), &format!("peer {name}"), message)
    };
    messages.into_iter().map(of).collect()
}

fn report(differing: Vec<Difference>) -> HostReport {
    HostReport { host: host(), at: Hlc(500), wire: 2, trim: Hlc(600), differing }
}

fn beats() -> Vec<Sample> {
    let primary = PrimaryStatus {
        epoch: Epoch(2),
        fitness: Fitness::DiskFull,
        sessions: 3,
        vector: vector(),
        digest: Digest(1 << 100),
        entries: 300,
        disk_bytes: 700,
    };
    let duties = vec![Duty::Direct, Duty::Serve, Duty::Relay];
    let (run, hlc, epoch) = (300, Hlc(400), Epoch(2));
    let beat = Heartbeat { run, hlc, duties, epoch, warm: true, primary: Some(primary), view: Some(view()) };
    let versions = Versions { oldest: 1, newest: 1 };
    let hello = PeerHello { versions, cluster: "c".into(), run: 300, pid: 400, topology: 500 };
    vec![sample(1, "beat", beat), sample(1, "hello", hello)]
}

fn clients() -> Vec<Sample> {
    let id = || "r1".parse().unwrap();
    let write = |op, ack| RequestBody::Write { id: id(), op, ack };
    let stamp = Stamp { hlc: Hlc(500), origin: origin() };
    let bodies = [
        ("Assign", RequestBody::Assign),
        ("Status", RequestBody::Status),
        ("Drain", RequestBody::Drain { process: process() }),
        ("Write.Register", write(WriteOp::Register { name: "Ann".parse().unwrap() }, None)),
        ("Write.Join", write(WriteOp::Join { name: "bob".into() }, Some(AckLevel::Host))),
        ("Write.Leave", write(WriteOp::Leave { name: "bob".into() }, Some(AckLevel::Peer))),
        ("Write.Post", write(WriteOp::Post { text: "hé".parse().unwrap() }, Some(AckLevel::All))),
        ("WhoAmI", RequestBody::WhoAmI),
        ("List", RequestBody::List { part: ListPart::JoinedBy, after: "ann".into() }),
        (
            "Timeline",
            RequestBody::Timeline { of: Some("ann".into()), limit: 20, since: Some(vector()), before: Some(stamp) },
        ),
        ("Report", RequestBody::Report),
    ];
    let of = |(name, body)| {
        let frame = ClientFrame::Request(Request { number: 300, token: token(), body });
        sample(frame.since(), &format!("client Request.{name}"), frame)
    };
    let mut samples: Vec<Sample> = bodies.into_iter().map(of).collect();
    samples.push(sample(1, "client Hello", ClientFrame::Hello { versions: Versions { oldest: 1, newest: 1 } }));
    samples.push(sample(1, "client Follow", ClientFrame::Follow { token: token(), since: vector() }));
    samples
}

fn status() -> ClusterStatus {
    let process = ProcessStatus {
        id: process(),
        role: Role::Connector,
        addr: "127.0.0.1:6001".parse().unwrap(),
        life: Life::Left,
        pid: 900,
        duties: vec![Duty::Serve],
    };
    let host = HostStatus {
        name: host(),
        up: true,
        serving: Some(process.id),
        relaying: None,
        directing: None,
        epoch: Epoch(2),
        sessions: 3,
        vector: vector(),
        digest: Digest(1 << 100),
        entries: 300,
        lag: 4,
        disk_bytes: 700,
        processes: vec![process],
    };
    ClusterStatus { cluster: "c".into(), alarms: vec!["a".into()], hosts: vec![host] }
}

fn assignment() -> Assignment {
    let processes = vec![AssignedProcess { id: process(), addr: "[::1]:6001".parse().unwrap() }];
    let host = AssignedHost { host: host(), serving: None, epoch: Epoch(2), ready: true, processes };
    Assignment { director: Some(process()), hosts: vec![host] }
}

fn post() -> ShownPost {
    let stamp = Stamp { hlc: Hlc(500), origin: origin() };
    let (id, author, text) = ("r1".parse().unwrap(), "ann".into(), "hé".into());
    ShownPost { id, author, stamp, seq: Seq(300), text, cursor: vector() }
}

fn answers() -> Vec<(u16, &'static str, Result<Response, Refusal>)> {
    let name = "ann".to_owned();
    let accepted = Accepted { entry: entry(300), hlc: Hlc(500), user: crate::id::UserId([9; 16]), name: name.clone() };
    let written = Written { accepted, copies: 2, ack: AckLevel::Peer, host: host() };
    let key = crate::id::PublicKey([8; 32]);
    let who = Answer::WhoAmI { name: name.clone(), registered: "Ann".parse().unwrap(), key, hlc: Hlc(500) };
    let names = Answer::Names { names: vec![name], next: Some("b".into()) };
    let posts = Answer::Posts { posts: vec![post()], more: true, cursor: vector() };
    let report = ClusterReport { status: status(), hosts: vec![report(Vec::new())] };
    vec![
        (1, "Assigned", Ok(Response::Assigned(assignment()))),
        (1, "Status", Ok(Response::Status(Box::new(status())))),
        (1, "Draining", Ok(Response::Draining)),
        (1, "Written", Ok(Response::Written(written))),
        (1, "Answer.WhoAmI", Ok(Response::Answer(who))),
        (1, "Answer.Names", Ok(Response::Answer(names))),
        (1, "Answer.Posts", Ok(Response::Answer(posts))),
        (1, "Missing", Ok(Response::Missing { gaps: vec![(entry(1), entry(300))] })),
        (1, "Refused", Err(Refusal::new(ErrorCode::Busy, "soon"))),
        (2, "Report", Ok(Response::Report(Box::new(report)))),
    ]
}

fn servers() -> Vec<Sample> {
    let of = |(version, name, result)| {
        let frame = ServerFrame::Response { number: 300, token: token(), result };
        sample(version, &format!("server Response.{name}"), frame)
    };
    let mut samples: Vec<Sample> = answers().into_iter().map(of).collect();
    let versions = Versions { oldest: 1, newest: 1 };
    let hello = ServerFrame::Hello { versions, cluster: "c".into(), process: process(), host: host() };
    samples.push(sample(1, "server Hello", hello));
    samples.push(sample(1, "server Assigned", ServerFrame::Assigned(assignment())));
    samples.push(sample(1, "server Serving", ServerFrame::Serving { serving: true, epoch: Epoch(2) }));
    let items = FeedFrame::Items { posts: vec![post()], cursor: vector(), token: token() };
    samples.push(sample(1, "feed Items", items));
    samples.push(sample(1, "feed Ended", FeedFrame::Ended(Refusal::new(ErrorCode::Behind, "ask"))));
    samples
}

/// Entries cross as they are kept; those of the first version are golden where they are made.
fn entries() -> Vec<Sample> {
    let (origin, op) = (origin(), Op::Retire { origin: Origin { incarnation: 6, ..origin() }, last: Seq(300) });
    let (user, request) = (crate::id::UserId::NOBODY, crate::id::RequestId::of_retirement());
    let entry = Entry { id: EntryId { origin, seq: Seq(5) }, hlc: Hlc(500), user, request, after: vector(), op };
    vec![sample(3, "entry Retire", entry)]
}

fn file(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/formats/wire-{version}.txt"))
}

#[test]
fn every_form_has_the_bytes_of_its_version_and_is_read_from_them() {
    let samples = [peers(), beats(), clients(), servers(), entries()].into_iter().flatten().collect::<Vec<_>>();
    for version in 1..=VERSION {
        let of_version: Vec<&Sample> = samples.iter().filter(|sample| sample.version == version).collect();
        let lines: Vec<&str> = of_version.iter().map(|sample| sample.line.as_str()).collect();
        if version == VERSION && std::env::var_os("GAGGLE_FORMATS_WRITE").is_some() {
            std::fs::write(file(version), lines.join("\n") + "\n").unwrap();
        }
        let kept = std::fs::read_to_string(file(version)).unwrap();
        assert_eq!(kept.lines().collect::<Vec<_>>(), lines, "version {version}: see the top of this file");
        for (line, sample) in kept.lines().zip(of_version) {
            let bytes = unhex(line.rsplit(' ').next().unwrap());
            assert!((sample.reads)(&bytes), "{line}");
        }
    }
}

#[test]
fn a_build_that_is_told_so_understands_what_an_older_one_did() {
    let old = Versions::upto(1);
    assert_eq!((old.common(Versions::OURS), Versions::OURS.common(old)), (Some(1), Some(1)));
    assert!(old.knows(1) && !old.knows(super::REPORTS) && Versions::OURS.knows(VERSION));
    assert_eq!(Versions::upto(0), old);
    assert_eq!(Versions::upto(u16::MAX), Versions::OURS);
    assert_eq!(Versions { oldest: VERSION + 1, newest: VERSION + 2 }.common(Versions::OURS), None);
}
