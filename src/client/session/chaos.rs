//! A session in a world that does everything that is legal, from a seed; then in one that is well.
//!
//! Checked after every input: the session's own invariants; that nothing is sent where nothing stands; that a call is
//! answered once; that time moves on. And at the end, when all is well: that everything was answered, and that the
//! feed told each post once and left none out. A failure names its seed.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::error::{ErrorCode, Refusal};
use crate::id::{Epoch, Origin, Seq};
use crate::service::entry::Stamp;
use crate::service::intake::{Accepted, WriteOp};
use crate::time::Hlc;
use crate::topology::AckLevel;
use crate::wire::Versions;
use crate::wire::client::{AssignedHost, AssignedProcess, Written};

const SEEDS: u64 = 100;
const STEPS: u64 = 300;
const NAMES: [(&str, &str); 5] = [("A1", "a"), ("A2", "a"), ("B1", "b"), ("B2", "b"), ("C1", "c")];

/// What a connection looks like from the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Dialed,
    Connected,
    Greeted,
}

struct World {
    session: Session,
    seed: u64,
    chance: u64,
    micros: u64,
    conns: BTreeMap<ConnId, (ProcessId, Side)>,
    requests: Vec<(ConnId, crate::wire::client::Request)>,
    stream: Option<(StreamId, u64)>,
    asked: BTreeSet<CallId>,
    answered: BTreeSet<CallId>,
    told: Vec<u64>,
    posts: u64,
    epoch: u64,
    health: Health,
}

/// Whether the world does what it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Ill,
    Well,
}

fn post(seq: u64) -> ShownPost {
    let origin = Origin { host: "a".parse().unwrap(), incarnation: 1 };
    ShownPost {
        id: format!("p{seq}").parse().unwrap(),
        author: "bob".into(),
        stamp: Stamp { hlc: Hlc(seq), origin },
        seq: Seq(seq),
        text: "x".into(),
        cursor: cursor(seq),
    }
}

fn cursor(seq: u64) -> Vector {
    [(Origin { host: "a".parse().unwrap(), incarnation: 1 }, Seq(seq))].into_iter().collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let standby = if seed.is_multiple_of(2) { Standby::None } else { Standby::Next };
        let addr = |index: usize| SocketAddr::from(([127, 0, 0, 1], u16::try_from(index).unwrap() + 1));
        let session = Session::new(SessionConfig {
            entrances: NAMES.iter().enumerate().map(|(i, (name, _))| (name.parse().unwrap(), addr(i))).collect(),
            first: None,
            via: None,
            token: Token::default(),
            standby,
            standby_after: Duration::from_millis(seed % 5 * 100),
            login: Login::Person,
        });
        Self {
            session,
            seed,
            chance: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            micros: 0,
            conns: BTreeMap::new(),
            requests: Vec::new(),
            stream: None,
            asked: BTreeSet::new(),
            answered: BTreeSet::new(),
            told: Vec::new(),
            posts: 0,
            epoch: 1,
            health: Health::Ill,
        }
    }

    /// Marsaglia's xorshift: enough to choose by.
    fn draw(&mut self, below: u64) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % below
    }

    fn now(&self) -> Now {
        Now { mono: Instant::from_micros(self.micros), ..Now::default() }
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.session.handle_input(self.now(), input, &mut out);
        self.take(out);
    }

    fn pass(&mut self, micros: u64) {
        let end = self.micros + micros;
        let mut at_once = 0;
        while let Some(due) = self.session.poll_timeout().filter(|due| due.as_micros() <= end) {
            at_once = if due.as_micros() > self.micros { 0 } else { at_once + 1 };
            assert!(at_once < 10, "seed {}: stuck at {due:?}", self.seed);
            self.micros = self.micros.max(due.as_micros());
            let mut out = Vec::new();
            self.session.handle_timeout(self.now(), &mut out);
            self.take(out);
        }
        self.micros = end;
    }

    fn take(&mut self, out: Outputs) {
        let seed = self.seed;
        self.session.check_invariants();
        for output in out {
            match output {
                Output::Dial { conn, process, .. } => {
                    assert!(self.conns.insert(conn, (process, Side::Dialed)).is_none(), "seed {seed}: {conn:?} again");
                }
                Output::Close { conn } => {
                    assert!(self.conns.remove(&conn).is_some(), "seed {seed}: {conn:?} is not there to be closed");
                    self.requests.retain(|(on, _)| *on != conn);
                }
                Output::Send { conn, frame } => {
                    let side = self.conns.get(&conn).map(|(_, side)| *side);
                    let stands = matches!(side, Some(Side::Connected | Side::Greeted));
                    assert!(stands, "seed {seed}: sent on {conn:?}, which is {side:?}");
                    if let ClientFrame::Request(request) = frame {
                        self.requests.push((conn, request));
                    }
                }
                Output::OpenFeed { conn, stream, frame, .. } => {
                    let side = self.conns.get(&conn).map(|(_, side)| *side);
                    assert_eq!(side, Some(Side::Greeted), "seed {seed}: a feed on {conn:?}");
                    let ClientFrame::Follow { since, .. } = frame else { panic!("seed {seed}: {frame:?}") };
                    let (_, from) = since.iter().next().unwrap_or((post(1).stamp.origin, Seq::ZERO));
                    self.stream = Some((stream, from.0));
                }
                Output::CloseFeed { .. } => self.stream = None,
                Output::FeedPosts { posts, .. } => self.told.extend(posts.iter().map(|post| post.seq.0)),
                Output::FeedRefused { error, .. } => panic!("seed {seed}: {error}"),
                Output::Answer { call, .. } => {
                    assert!(self.asked.contains(&call), "seed {seed}: nobody asked {call:?}");
                    assert!(self.answered.insert(call), "seed {seed}: {call:?} is answered twice");
                }
                Output::Notice(_) => {}
            }
        }
    }

    fn assignment(&mut self) -> Assignment {
        let mut hosts = Vec::new();
        for name in ["a", "b", "c"] {
            let of: Vec<_> =
                NAMES.iter().filter(|(_, host)| *host == name).map(|(id, _)| id.parse().unwrap()).collect();
            let well = self.health == Health::Well;
            let pick = if well { 0 } else { usize::try_from(self.draw(4)).unwrap() };
            let addr = SocketAddr::from(([127, 0, 0, 1], 1));
            hosts.push(AssignedHost {
                host: name.parse().unwrap(),
                serving: of.get(pick).or(of.first()).copied().filter(|_| pick != 3),
                epoch: Epoch(self.epoch),
                ready: well || self.draw(4) > 0,
                processes: of.into_iter().map(|id| AssignedProcess { id, addr }).collect(),
            });
        }
        Assignment { director: None, hosts }
    }

    fn some_conn(&mut self, side: Side) -> Option<(ConnId, ProcessId)> {
        let of: Vec<_> = self.conns.iter().filter(|(_, (_, at))| *at == side).map(|(id, (p, _))| (*id, *p)).collect();
        let index = usize::try_from(self.draw(of.len().max(1) as u64)).unwrap();
        of.get(index).copied()
    }

    fn drop_conn(&mut self, conn: ConnId) -> Trouble {
        self.conns.remove(&conn);
        self.requests.retain(|(on, _)| *on != conn);
        Trouble { kind: TroubleKind::Network, why: "cut".into() }
    }

    fn respond(&mut self, index: usize, refusal: Option<ErrorCode>) {
        let (conn, request) = self.requests.remove(index);
        let result = match (refusal, &request.body) {
            (Some(code), _) => Err(Refusal::new(code, "no")),
            (None, RequestBody::Assign) => Ok(Response::Assigned(self.assignment())),
            (None, RequestBody::Write { .. }) => {
                let entry = EntryId { origin: post(1).stamp.origin, seq: Seq(1) };
                let accepted = Accepted { entry, hlc: Hlc(1), user: crate::id::UserId([0; 16]), name: "ann".into() };
                let ack = AckLevel::Peer;
                Ok(Response::Written(Written { accepted, copies: 1, ack, host: "a".parse().unwrap() }))
            }
            (None, _) if self.draw(4) == 0 => Ok(Response::Missing {
                gaps: vec![(
                    EntryId { origin: post(1).stamp.origin, seq: Seq(1) },
                    EntryId { origin: post(1).stamp.origin, seq: Seq(9) },
                )],
            }),
            (None, _) => Err(Refusal::new(ErrorCode::NotRegistered, "no")),
        };
        let frame = ServerFrame::Response { number: request.number, token: Token::default(), result };
        self.input(Input::Frame { conn, frame });
    }

    fn connect(&mut self, conn: ConnId) {
        self.conns.get_mut(&conn).unwrap().1 = Side::Connected;
        self.input(Input::Connected { conn });
    }

    fn greet(&mut self, conn: ConnId, process: ProcessId) {
        self.conns.get_mut(&conn).unwrap().1 = Side::Greeted;
        let host = NAMES.iter().find(|(name, _)| process == name.parse().unwrap()).unwrap().1.parse().unwrap();
        let frame = ServerFrame::Hello { versions: Versions::OURS, cluster: "c".into(), process, host };
        self.input(Input::Frame { conn, frame });
    }

    fn feed_on(&mut self) {
        if let Some((stream, at)) = self.stream.filter(|(_, at)| *at < self.posts) {
            self.stream = Some((stream, at + 1));
            let frame = FeedFrame::Items { posts: vec![post(at + 1)], cursor: cursor(at + 1), token: Token::default() };
            self.input(Input::FeedFrame { feed: FeedKey(0), stream, frame });
        }
    }

    fn call(&mut self) {
        let call = CallId(self.asked.len() as u64);
        self.asked.insert(call);
        let op = WriteOp::Post { text: "x".parse().unwrap() };
        let write = RequestBody::Write { id: format!("w{}", call.0).parse().unwrap(), op, ack: None };
        let body = if self.draw(2) == 0 { write } else { RequestBody::WhoAmI };
        let deadline = Instant::from_micros(self.micros + 60_000_000);
        self.input(Input::Call { call, body, deadline });
    }

    fn step(&mut self) {
        match self.draw(14) {
            0 | 1 => self.call(),
            2 | 3 => self.some_conn(Side::Dialed).map_or((), |(conn, _)| self.connect(conn)),
            4 | 5 => self.some_conn(Side::Connected).map_or((), |(conn, process)| self.greet(conn, process)),
            6 => {
                if let Some((conn, _)) = self.some_conn(Side::Dialed) {
                    let trouble = self.drop_conn(conn);
                    self.input(Input::ConnectFailed { conn, trouble });
                }
            }
            7 => {
                if let Some((conn, _)) = self.some_conn(Side::Greeted) {
                    let trouble = self.drop_conn(conn);
                    self.input(Input::Disconnected { conn, trouble });
                }
            }
            8 | 9 if !self.requests.is_empty() => {
                let index = usize::try_from(self.draw(self.requests.len() as u64)).unwrap();
                let code = usize::try_from(self.draw(ErrorCode::ALL.len() as u64 * 2)).unwrap();
                self.respond(index, ErrorCode::ALL.get(code).copied());
            }
            10 => {
                if let Some((conn, _)) = self.some_conn(Side::Greeted) {
                    self.epoch += self.draw(2);
                    let assignment = self.assignment();
                    self.input(Input::Frame { conn, frame: ServerFrame::Assigned(assignment) });
                }
            }
            11 => {
                if let Some((conn, _)) = self.some_conn(Side::Greeted) {
                    self.epoch += self.draw(2);
                    let frame = ServerFrame::Serving { serving: self.draw(2) == 0, epoch: Epoch(self.epoch) };
                    self.input(Input::Frame { conn, frame });
                }
            }
            12 => {
                self.posts += 1;
                self.feed_on();
            }
            _ => {
                let micros = self.draw(200_000);
                self.pass(micros);
            }
        }
    }

    /// Everything works: within ten seconds, long before any deadline, everything is answered and told.
    fn heal(&mut self) {
        self.health = Health::Well;
        self.epoch += 1;
        let end = self.micros + 10_000_000;
        while self.micros < end && (self.answered != self.asked || (self.told.len() as u64) < self.posts) {
            while let Some((conn, _)) = self.some_conn(Side::Dialed) {
                self.connect(conn);
            }
            while let Some((conn, process)) = self.some_conn(Side::Connected) {
                self.greet(conn, process);
            }
            while !self.requests.is_empty() {
                self.respond(0, None);
            }
            self.feed_on();
            self.pass(5_000);
        }
    }
}

#[test]
fn whatever_happens_every_call_is_answered_once_and_every_post_told_once() {
    for seed in 1..=SEEDS {
        let mut world = World::new(seed);
        world.input(Input::Start);
        world.input(Input::FeedWant { feed: FeedKey(0), since: Vector::new() });
        for _ in 0..STEPS {
            world.step();
        }
        world.heal();
        assert_eq!(world.answered, world.asked, "seed {seed}");
        assert!(world.session.served_by().is_some(), "seed {seed}");
        let all: Vec<_> = (1..=world.posts).collect();
        assert_eq!(world.told, all, "seed {seed}");
    }
}
