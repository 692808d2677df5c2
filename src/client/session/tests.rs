//! Stories of a session: each input with the whole list of what it brings about.

mod far;
mod opinion;

use super::*;
use crate::error::{ErrorCode, Refusal};
use crate::id::{Epoch, Origin, Seq};
use crate::service::entry::Stamp;
use crate::service::intake::{Accepted, WriteOp};
use crate::time::Hlc;
use crate::topology::AckLevel;
use crate::wire::Versions;
use crate::wire::client::{AssignedHost, AssignedProcess, Request, Written};

fn id(name: &str) -> ProcessId {
    name.parse().unwrap()
}

fn host(name: &str) -> HostId {
    name.parse().unwrap()
}

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// M1 directs; W5 and W6 are of h3, W8 of h4.
const PROCESSES: [(&str, &str, u16); 4] = [("M1", "h1", 1), ("W5", "h3", 5), ("W6", "h3", 6), ("W8", "h4", 8)];

fn address_of(process: &str) -> SocketAddr {
    addr(PROCESSES.iter().find(|(name, _, _)| *name == process).unwrap().2)
}

fn assigned_host(name: &str, serving: &str, epoch: u64) -> AssignedHost {
    let of_host = PROCESSES.iter().filter(|(_, of, _)| *of == name);
    AssignedHost {
        host: host(name),
        serving: Some(id(serving)),
        epoch: Epoch(epoch),
        ready: true,
        processes: of_host.map(|(process, _, port)| AssignedProcess { id: id(process), addr: addr(*port) }).collect(),
    }
}

fn assignment(h3: (&str, u64)) -> Assignment {
    let hosts = vec![assigned_host("h3", h3.0, h3.1), assigned_host("h4", "W8", 1)];
    Assignment { director: Some(id("M1")), hosts }
}

fn origin(name: &str) -> Origin {
    Origin { host: host(name), incarnation: 1 }
}

fn entry(name: &str, seq: u64) -> EntryId {
    EntryId { origin: origin(name), seq: Seq(seq) }
}

fn token(name: &str, seq: u64) -> Token {
    Token { vector: vector(name, seq), hlc: Hlc(seq) }
}

fn vector(name: &str, seq: u64) -> Vector {
    [(origin(name), Seq(seq))].into_iter().collect()
}

fn post_body(request: &str) -> RequestBody {
    let op = WriteOp::Post { text: "hello".parse().unwrap() };
    RequestBody::Write { id: request.parse().unwrap(), op, ack: None }
}

fn written(name: &str, seq: u64, copies: u32) -> Response {
    let user = crate::id::UserId([0; 16]);
    let accepted = Accepted { entry: entry(name, seq), hlc: Hlc(seq), user, name: "ann".into() };
    Response::Written(Written { accepted, copies, ack: AckLevel::Peer, host: host(name) })
}

fn shown(name: &str, seq: u64, request: &str) -> ShownPost {
    ShownPost {
        id: request.parse().unwrap(),
        author: "bob".into(),
        stamp: Stamp { hlc: Hlc(seq), origin: origin(name) },
        seq: Seq(seq),
        text: "x".into(),
        cursor: vector(name, seq),
    }
}

/// A session and the time, in milliseconds.
struct Rig {
    session: Session,
    ms: u64,
}

impl Rig {
    fn new(change: impl FnOnce(&mut SessionConfig)) -> Self {
        let mut config = SessionConfig {
            entrances: PROCESSES.iter().map(|(name, _, port)| (id(name), addr(*port))).collect(),
            first: None,
            via: None,
            token: Token::default(),
            standby: Standby::None,
            standby_after: Duration::ZERO,
            login: Login::Person,
        };
        change(&mut config);
        Self { session: Session::new(config), ms: 0 }
    }

    fn now(&self) -> Now {
        Now { mono: Instant::from_micros(self.ms * 1_000), ..Now::default() }
    }

    fn input(&mut self, input: Input) -> Outputs {
        let mut out = Vec::new();
        self.session.handle_input(self.now(), input, &mut out);
        self.session.check_invariants();
        out
    }

    /// Lets time pass up to the next due moment, and over it.
    fn due(&mut self) -> Outputs {
        let at = self.session.poll_timeout().expect("nothing is due");
        self.ms = self.ms.max(at.as_micros().div_ceil(1_000));
        let mut out = Vec::new();
        self.session.handle_timeout(self.now(), &mut out);
        self.session.check_invariants();
        out
    }

    fn frame(&mut self, conn: u64, frame: ServerFrame) -> Outputs {
        self.input(Input::Frame { conn: ConnId(conn), frame })
    }

    fn hello(&mut self, conn: u64, process: &str) -> Outputs {
        let of = PROCESSES.iter().find(|(name, _, _)| *name == process).unwrap().1;
        let versions = Versions::OURS;
        let hello = ServerFrame::Hello { versions, cluster: "c".into(), process: id(process), host: host(of) };
        self.frame(conn, hello)
    }

    fn respond(&mut self, conn: u64, number: u64, token: Token, result: Result<Response, Refusal>) -> Outputs {
        self.frame(conn, ServerFrame::Response { number, token, result })
    }

    fn call(&mut self, call: u64, body: RequestBody) -> Outputs {
        let deadline = Instant::from_micros((self.ms + 5_000) * 1_000);
        self.input(Input::Call { call: CallId(call), body, deadline })
    }

    /// M1 (connection 1) has directed to W5 (connection 2), which serves.
    fn served(change: impl FnOnce(&mut SessionConfig)) -> Self {
        let mut rig = Self::new(change);
        assert_eq!(rig.input(Input::Start), [dial(1, "M1")]);
        let connected = rig.input(Input::Connected { conn: ConnId(1) });
        assert_eq!(connected, [hello(1), ask(1, 1, Token::default(), RequestBody::Assign)]);
        assert_eq!(rig.hello(1, "M1"), []);
        let assigned = Ok(Response::Assigned(assignment(("W5", 1))));
        assert_eq!(rig.respond(1, 1, Token::default(), assigned), [dial(2, "W5")]);
        assert_eq!(rig.input(Input::Connected { conn: ConnId(2) }), [hello(2)]);
        rig.hello(2, "W5");
        assert_eq!(rig.session.served_by(), Some((host("h3"), id("W5"))));
        rig
    }
}

fn dial(conn: u64, process: &str) -> Output {
    Output::Dial { conn: ConnId(conn), process: id(process), addr: address_of(process) }
}

fn close(conn: u64) -> Output {
    Output::Close { conn: ConnId(conn) }
}

fn hello(conn: u64) -> Output {
    Output::Send { conn: ConnId(conn), frame: ClientFrame::Hello { versions: Versions::OURS } }
}

fn ask(conn: u64, number: u64, token: Token, body: RequestBody) -> Output {
    Output::Send { conn: ConnId(conn), frame: ClientFrame::Request(Request { number, token, body }) }
}

fn answer(call: u64, response: Response) -> Output {
    Output::Answer { call: CallId(call), result: Ok(response) }
}

fn refused(code: ErrorCode) -> Result<Response, Refusal> {
    Err(Refusal::new(code, "no"))
}

fn trouble(why: &str) -> Trouble {
    Trouble { kind: TroubleKind::Network, why: why.into() }
}

fn follow(conn: u64, feed: u64, stream: u64, token: Token, since: Vector) -> Output {
    let frame = ClientFrame::Follow { token, since };
    Output::OpenFeed { conn: ConnId(conn), feed: FeedKey(feed), stream: StreamId(stream), frame }
}

fn items(posts: Vec<ShownPost>, cursor: Vector) -> FeedFrame {
    let token = Token { vector: cursor.clone(), hlc: Hlc::ZERO };
    FeedFrame::Items { posts, cursor, token }
}

#[test]
fn a_call_is_answered_by_the_assigned_server() {
    let mut rig = Rig::served(|config| config.token = token("h3", 1));
    assert_eq!(rig.call(1, post_body("a")), [ask(2, 1, token("h3", 1), post_body("a"))]);
    assert_eq!(rig.respond(2, 1, token("h3", 7), Ok(written("h3", 7, 2))), [answer(1, written("h3", 7, 2))]);
    assert_eq!(rig.session.token(), &token("h3", 7));
    assert_eq!(rig.call(2, RequestBody::WhoAmI), [ask(2, 2, token("h3", 7), RequestBody::WhoAmI)]);
    assert_eq!(rig.session.director(), Some(id("M1")));
}

#[test]
fn calls_made_before_there_is_a_server_wait_for_it() {
    let mut rig = Rig::new(|_| {});
    rig.input(Input::Start);
    assert_eq!(rig.call(1, post_body("a")), []);
    rig.input(Input::Connected { conn: ConnId(1) });
    rig.hello(1, "M1");
    assert_eq!(rig.call(2, RequestBody::Assign), []);
    let assigned = Response::Assigned(assignment(("W5", 1)));
    let out = rig.respond(1, 1, Token::default(), Ok(assigned.clone()));
    assert_eq!(out, [answer(2, assigned), dial(2, "W5")]);
    rig.input(Input::Connected { conn: ConnId(2) });
    assert_eq!(rig.hello(2, "W5"), [ask(2, 1, Token::default(), post_body("a"))]);
}

#[test]
fn the_director_that_answered_last_is_asked_first_and_the_others_join_in() {
    let mut rig = Rig::new(|config| config.first = Some(id("W8")));
    assert_eq!(rig.input(Input::Start), [dial(1, "W8")]);
    assert_eq!(rig.due(), [dial(2, "M1")]);
    assert_eq!(rig.ms, 30);
    // One that fails lets the next one join in at once.
    let failed = Input::ConnectFailed { conn: ConnId(1), trouble: trouble("gone") };
    assert_eq!(rig.input(failed), [dial(3, "W5")]);
    rig.input(Input::Connected { conn: ConnId(2) });
    rig.hello(2, "M1");
    // The first answer wins; the attempt at W5 becomes the one for requests.
    let out = rig.respond(2, 1, Token::default(), Ok(Response::Assigned(assignment(("W5", 1)))));
    assert_eq!(out, [close(3), dial(4, "W5")]);
}

#[test]
fn one_connection_serves_both_if_the_asked_process_is_the_assigned_one() {
    let mut rig = Rig::new(|config| config.first = Some(id("W5")));
    assert_eq!(rig.input(Input::Start), [dial(1, "W5")]);
    rig.input(Input::Connected { conn: ConnId(1) });
    rig.hello(1, "W5");
    rig.call(1, post_body("a"));
    let out = rig.respond(1, 1, Token::default(), Ok(Response::Assigned(assignment(("W5", 1)))));
    assert_eq!(out, [ask(1, 2, Token::default(), post_body("a"))]);
}

#[test]
fn a_silent_server_is_probed_and_then_left_once_another_has_answered() {
    let mut rig = Rig::served(|_| {});
    rig.call(1, post_body("a"));
    assert_eq!(rig.due(), [ask(2, 2, Token::default(), RequestBody::WhoAmI)]);
    assert_eq!(rig.ms, 150);
    // Suspected: the director is asked anew, and the next host is tried beside.
    let out = rig.due();
    assert_eq!(rig.ms, 300);
    let assign = ask(1, 2, Token::default(), RequestBody::Assign);
    assert_eq!(out, [Output::Notice(Notice::Reconnecting), assign, dial(3, "W8")]);
    assert_eq!(rig.input(Input::Connected { conn: ConnId(3) }), [hello(3)]);
    let moved = Output::Notice(Notice::Moved { host: host("h4"), process: id("W8") });
    assert_eq!(rig.hello(3, "W8"), [moved, close(2), ask(3, 1, Token::default(), post_body("a"))]);
    assert_eq!(rig.respond(3, 1, token("h4", 1), Ok(written("h4", 1, 2))), [answer(1, written("h4", 1, 2))]);
}

#[test]
fn a_server_that_only_waits_is_kept() {
    let mut rig = Rig::served(|_| {});
    rig.call(1, post_body("a"));
    rig.due();
    assert_eq!(rig.respond(2, 2, Token::default(), refused(ErrorCode::NotRegistered)), []);
    assert_eq!(rig.due(), [ask(2, 3, Token::default(), RequestBody::WhoAmI)]);
    assert_eq!(rig.ms, 300);
    assert_eq!(rig.respond(2, 1, Token::default(), Ok(written("h3", 1, 1))), [answer(1, written("h3", 1, 1))]);
}

#[test]
fn a_standby_that_serves_now_gets_everything_unanswered_at_once() {
    let mut rig = Rig::new(|config| config.standby = Standby::Next);
    rig.input(Input::Start);
    rig.input(Input::Connected { conn: ConnId(1) });
    rig.hello(1, "M1");
    rig.respond(1, 1, Token::default(), Ok(Response::Assigned(assignment(("W5", 1)))));
    rig.input(Input::Connected { conn: ConnId(2) });
    assert_eq!(rig.hello(2, "W5"), [dial(3, "W6")]);
    rig.input(Input::Connected { conn: ConnId(3) });
    assert_eq!(rig.hello(3, "W6"), []);
    rig.call(1, post_body("a"));
    rig.call(2, post_body("b"));
    // An old epoch is not believed.
    assert_eq!(rig.frame(3, ServerFrame::Serving { serving: true, epoch: Epoch(0) }), []);
    let out = rig.frame(3, ServerFrame::Serving { serving: true, epoch: Epoch(2) });
    let moved = Output::Notice(Notice::Moved { host: host("h3"), process: id("W6") });
    let again = [ask(3, 1, Token::default(), post_body("a")), ask(3, 2, Token::default(), post_body("b"))];
    // W5 is next in line now.
    assert_eq!(out, [vec![moved, close(2), dial(4, "W5")], again.to_vec()].concat());
}

#[test]
fn a_standby_is_dialed_when_the_server_has_been_good_for_a_while() {
    let mut rig = Rig::served(|config| {
        config.standby = Standby::Next;
        config.standby_after = Duration::from_millis(250);
    });
    rig.ms += 249;
    let mut out = Vec::new();
    rig.session.handle_timeout(rig.now(), &mut out);
    assert_eq!(out, []);
    assert_eq!(rig.due(), [dial(3, "W6")]);
    assert_eq!(rig.ms, 250);
}

#[test]
fn a_change_told_by_the_director_is_followed() {
    let mut rig = Rig::served(|_| {});
    rig.call(1, post_body("a"));
    assert_eq!(rig.frame(1, ServerFrame::Assigned(assignment(("W6", 2)))), [dial(3, "W6")]);
    // An older picture, from whoever, changes nothing.
    assert_eq!(rig.frame(1, ServerFrame::Assigned(assignment(("W5", 1)))), []);
    rig.input(Input::Connected { conn: ConnId(3) });
    let moved = Output::Notice(Notice::Moved { host: host("h3"), process: id("W6") });
    assert_eq!(rig.hello(3, "W6"), [moved, close(2), ask(3, 1, Token::default(), post_body("a"))]);
}

/// The other host serves, as the only one that the director knows of.
fn cut_off() -> Assignment {
    let mut told = assignment(("W5", 1));
    (told.hosts[0].serving, told.hosts[0].ready) = (None, false);
    told
}

#[test]
fn a_director_that_does_not_reach_the_server_is_not_followed_while_the_server_answers() {
    let mut rig = Rig::served(|_| {});
    assert_eq!(rig.frame(1, ServerFrame::Assigned(cut_off())), []);
    assert_eq!(rig.call(1, post_body("a")), [ask(2, 1, Token::default(), post_body("a"))]);
    // One that it does reach, and finds behind, is left.
    let mut behind = assignment(("W5", 1));
    behind.hosts[0].ready = false;
    assert_eq!(rig.frame(1, ServerFrame::Assigned(behind)), [dial(3, "W8")]);
}

#[test]
fn a_server_that_the_director_does_not_reach_is_left_as_soon_as_it_is_probed() {
    let mut rig = Rig::served(|_| {});
    rig.call(1, post_body("a"));
    rig.frame(1, ServerFrame::Assigned(cut_off()));
    let out = rig.due();
    assert_eq!((rig.ms, out.contains(&dial(3, "W8"))), (150, true), "{out:?}");
}

#[test]
fn a_server_that_is_silent_is_left_for_whom_the_director_reaches() {
    let mut rig = Rig::served(|_| {});
    rig.call(1, post_body("a"));
    rig.frame(1, ServerFrame::Assigned(cut_off()));
    let gone = rig.input(Input::Disconnected { conn: ConnId(2), trouble: trouble("lost") });
    assert!(gone.contains(&dial(3, "W8")), "{gone:?}");
}

#[test]
fn a_new_director_of_whom_the_server_tells_is_asked() {
    let mut rig = Rig::served(|_| {});
    // M1 has died: nothing is asked of it, so that its silence would not be noticed.
    let told = |director: &str| {
        let assignment = Assignment { director: Some(id(director)), ..assignment(("W5", 1)) };
        ServerFrame::Assigned(assignment)
    };
    assert_eq!(rig.frame(2, told("M1")), []);
    assert_eq!(rig.frame(2, told("W6")), [close(1), dial(3, "W6")]);
    rig.input(Input::Connected { conn: ConnId(3) });
    rig.hello(3, "W6");
    rig.respond(3, 1, Token::default(), Ok(Response::Assigned(assignment(("W5", 1)))));
    // Whom it tells of now is not the one that was lost.
    assert_eq!(rig.frame(2, told("W8")), []);
}

#[test]
fn whoever_directs_replaces_another_that_was_faster_to_answer() {
    let mut rig = Rig::new(|_| {});
    assert_eq!(rig.input(Input::Start), [dial(1, "M1")]);
    assert_eq!(rig.due(), [dial(2, "W5")]);
    rig.input(Input::Connected { conn: ConnId(2) });
    rig.hello(2, "W5");
    // M1 directs, and is still being connected to: W5's word is enough to go on.
    let assigned = || Ok(Response::Assigned(assignment(("W6", 1))));
    assert_eq!(rig.respond(2, 1, Token::default(), assigned()), [dial(3, "W6")]);
    let greeted = rig.input(Input::Connected { conn: ConnId(1) });
    assert_eq!(greeted, [hello(1), ask(1, 1, Token::default(), RequestBody::Assign)]);
    assert_eq!(rig.hello(1, "M1"), []);
    assert_eq!(rig.respond(1, 1, Token::default(), assigned()), [close(2)]);
}

#[test]
fn a_director_that_would_die_with_the_server_does_not_stay_the_one_who_tells() {
    let mut rig = Rig::new(|config| {
        config.standby = Standby::Next;
        config.first = Some(id("W6"));
    });
    let directed = |assignment: Assignment| Assignment { director: Some(id("W6")), ..assignment };
    let assigned = || Ok(Response::Assigned(directed(assignment(("W5", 1)))));
    assert_eq!(rig.input(Input::Start), [dial(1, "W6")]);
    rig.input(Input::Connected { conn: ConnId(1) });
    rig.hello(1, "W6");
    assert_eq!(rig.respond(1, 1, Token::default(), assigned()), [dial(2, "W5")]);
    rig.input(Input::Connected { conn: ConnId(2) });
    assert_eq!(rig.hello(2, "W5"), [dial(3, "W8")]);
    let greeted = rig.input(Input::Connected { conn: ConnId(3) });
    assert_eq!(greeted, [hello(3), ask(3, 1, Token::default(), RequestBody::Assign)]);
    rig.hello(3, "W8");
    assert_eq!(rig.respond(3, 1, Token::default(), assigned()), [], "W6 is kept: it stands by");
    // The whole host dies.
    rig.call(1, post_body("a"));
    rig.ms += 150;
    rig.due();
    let mut down = assignment(("W5", 1));
    (down.hosts[0].serving, down.hosts[0].ready) = (None, false);
    let out = rig.frame(3, ServerFrame::Assigned(down));
    assert!(out.contains(&ask(3, 2, Token::default(), post_body("a"))), "{out:?}");
}

#[test]
fn a_server_that_does_not_serve_is_left_and_the_caller_is_not_told() {
    let mut rig = Rig::served(|_| {});
    rig.call(1, post_body("a"));
    let out = rig.respond(2, 1, Token::default(), refused(ErrorCode::NotServing));
    assert_eq!(out, [ask(1, 2, Token::default(), RequestBody::Assign), dial(3, "W8")]);
}

#[test]
fn a_busy_server_is_asked_again_after_a_pause() {
    let mut rig = Rig::served(|_| {});
    rig.call(1, post_body("a"));
    assert_eq!(rig.respond(2, 1, Token::default(), refused(ErrorCode::Busy)), []);
    assert_eq!(rig.due(), [ask(2, 2, Token::default(), post_body("a"))]);
    assert_eq!(rig.ms, 10);
}

#[test]
fn what_cannot_be_helped_is_the_callers_answer() {
    let mut rig = Rig::served(|_| {});
    rig.call(1, post_body("a"));
    let refusal = Refusal::new(ErrorCode::IdReused, "no");
    let out = rig.respond(2, 1, Token::default(), Err(refusal.clone()));
    assert_eq!(out, [Output::Answer { call: CallId(1), result: Err(ClientError::Refused(refusal)) }]);
}

#[test]
fn a_full_disk_sends_elsewhere_and_is_told_when_all_are_full() {
    let mut rig = Rig::served(|_| {});
    rig.call(1, post_body("a"));
    assert_eq!(rig.respond(2, 1, Token::default(), refused(ErrorCode::DiskFull)), [dial(3, "W8")]);
    rig.input(Input::Connected { conn: ConnId(3) });
    rig.hello(3, "W8");
    let refusal = Refusal::new(ErrorCode::DiskFull, "no");
    let out = rig.respond(3, 1, Token::default(), Err(refusal.clone()));
    assert_eq!(out, [Output::Answer { call: CallId(1), result: Err(ClientError::Refused(refusal)) }]);
}

#[test]
fn a_write_that_was_sent_and_not_answered_is_unknown_and_one_that_was_not_is_not() {
    let mut rig = Rig::served(|config| config.via = Some(host("h3")));
    rig.call(1, post_body("a"));
    let gone = Input::Disconnected { conn: ConnId(2), trouble: trouble("reset") };
    let out = rig.input(gone);
    assert_eq!(out, [Output::Notice(Notice::Reconnecting), ask(1, 2, Token::default(), RequestBody::Assign)]);
    rig.call(2, post_body("b"));
    rig.ms = 5_000;
    let mut out = Vec::new();
    rig.session.handle_timeout(rig.now(), &mut out);
    let answers: Vec<_> = out.into_iter().filter(|output| matches!(output, Output::Answer { .. })).collect();
    let why = "W5: reset".to_owned();
    let unknown = ClientError::Unknown { id: "a".parse().unwrap(), why: why.clone() };
    let none = ClientError::NoProcess { why };
    let answer = |call, error| Output::Answer { call: CallId(call), result: Err(error) };
    assert_eq!(answers, [answer(1, unknown), answer(2, none)]);
}

#[test]
fn a_feed_goes_on_elsewhere_at_its_cursor_and_tells_nothing_twice() {
    let mut rig = Rig::served(|_| {});
    let (feed, since) = (FeedKey(9), vector("h3", 1));
    let out = rig.input(Input::FeedWant { feed, since: since.clone() });
    assert_eq!(out, [follow(2, 9, 3, Token::default(), since)]);
    let frame = items(vec![shown("h3", 2, "p"), shown("h3", 3, "q")], vector("h3", 4));
    let out = rig.input(Input::FeedFrame { feed, stream: StreamId(3), frame });
    let posts = vec![shown("h3", 2, "p"), shown("h3", 3, "q")];
    assert_eq!(out, [Output::FeedPosts { feed, posts, cursor: vector("h3", 4) }]);
    // The server goes; the feed follows to the new one.
    rig.frame(1, ServerFrame::Assigned(assignment(("W6", 2))));
    rig.input(Input::Connected { conn: ConnId(4) });
    let seen = Token { vector: vector("h3", 4), hlc: Hlc::ZERO };
    let moved = Output::Notice(Notice::Moved { host: host("h3"), process: id("W6") });
    let closed = Output::CloseFeed { feed, stream: StreamId(3) };
    assert_eq!(rig.hello(4, "W6"), [moved, closed, close(2), follow(4, 9, 5, seen, vector("h3", 4))]);
    // What the old stream still brings is not told; of the new one, only what is new: also not the same post as
    // another entry, as a write is that was offered again.
    let late = items(vec![shown("h3", 5, "r")], vector("h3", 5));
    assert_eq!(rig.input(Input::FeedFrame { feed, stream: StreamId(3), frame: late }), []);
    let posts = vec![shown("h3", 3, "q"), shown("h3", 5, "r"), shown("h3", 6, "p")];
    let frame = items(posts, vector("h3", 6));
    let out = rig.input(Input::FeedFrame { feed, stream: StreamId(5), frame });
    let posts = vec![shown("h3", 5, "r")];
    assert_eq!(out, [Output::FeedPosts { feed, posts, cursor: vector("h3", 6) }]);
}

#[test]
fn a_feeds_silent_server_is_probed_though_nothing_is_asked() {
    let mut rig = Rig::served(|_| {});
    rig.input(Input::FeedWant { feed: FeedKey(9), since: Vector::new() });
    assert_eq!(rig.due(), [ask(2, 1, Token::default(), RequestBody::WhoAmI)]);
    assert_eq!(rig.ms, 1_000);
    rig.due();
    assert_eq!(rig.due().first(), Some(&Output::Notice(Notice::Reconnecting)));
    assert_eq!(rig.ms, 1_300);
}

#[test]
fn what_is_missing_is_told_once_and_own_lost_writes_are_offered_again() {
    let mut rig = Rig::served(|config| config.via = Some(host("h3")));
    rig.call(1, post_body("a"));
    rig.respond(2, 1, token("h3", 7), Ok(written("h3", 7, 1)));
    rig.call(2, RequestBody::WhoAmI);
    let gaps = vec![(entry("h3", 6), entry("h3", 7))];
    let out = rig.respond(2, 2, token("h3", 5), Ok(Response::Missing { gaps: gaps.clone() }));
    let RequestBody::Write { id, op, .. } = post_body("a") else { unreachable!() };
    let again = RequestBody::Write { id, op, ack: Some(AckLevel::Peer) };
    let told = Output::Notice(Notice::Missing { gaps: gaps.clone() });
    let part = token("h3", 5);
    assert_eq!(out, [ask(2, 3, part.clone(), again), told, ask(2, 4, part.clone(), RequestBody::WhoAmI)]);
    // The full token is kept for later sessions; the offered write has its new place in both.
    assert_eq!(rig.session.token(), &token("h3", 7));
    rig.respond(2, 3, token("h4", 1), Ok(written("h4", 1, 2)));
    assert_eq!(rig.session.token().vector.get(origin("h4")), Seq(1));
    // It is not told again, and what has enough copies is not offered again.
    let out = rig.respond(2, 4, part.clone(), Ok(Response::Missing { gaps }));
    assert_eq!(out, [ask(2, 5, part, RequestBody::WhoAmI)]);
}

#[test]
fn what_one_host_lacks_is_asked_of_the_others_before_it_is_missing() {
    let mut rig = Rig::served(|config| config.token = token("h3", 7));
    rig.call(1, RequestBody::WhoAmI);
    let gaps = vec![(entry("h3", 6), entry("h3", 7))];
    let missing = || Ok(Response::Missing { gaps: gaps.clone() });
    assert_eq!(rig.respond(2, 1, token("h3", 5), missing()), [dial(3, "W8")]);
    rig.input(Input::Connected { conn: ConnId(3) });
    assert!(rig.hello(3, "W8").contains(&ask(3, 1, token("h3", 7), RequestBody::WhoAmI)), "with all that was seen");
    let out = rig.respond(3, 1, token("h3", 4), missing());
    assert!(out.contains(&Output::Notice(Notice::Missing { gaps })), "no other is left: {out:?}");
}

#[test]
fn an_anonymous_session_asks_any_process_and_drains_the_named_one() {
    let mut rig = Rig::new(|config| config.login = Login::Anonymous);
    rig.input(Input::Start);
    rig.input(Input::Connected { conn: ConnId(1) });
    rig.hello(1, "M1");
    assert_eq!(rig.respond(1, 1, Token::default(), Ok(Response::Assigned(assignment(("W5", 1))))), []);
    assert_eq!(rig.call(1, RequestBody::Status), [ask(1, 2, Token::default(), RequestBody::Status)]);
    let drain = RequestBody::Drain { process: id("W8") };
    assert_eq!(rig.call(2, drain.clone()), [dial(2, "W8")]);
    rig.input(Input::Connected { conn: ConnId(2) });
    assert_eq!(rig.hello(2, "W8"), [ask(2, 1, Token::default(), drain)]);
    let out = rig.respond(2, 1, Token::default(), Ok(Response::Draining));
    assert_eq!(out, [answer(2, Response::Draining), close(2)]);
    let refusal = Refusal::new(ErrorCode::NotLoggedIn, "this client was made without an identity");
    let refused = Output::Answer { call: CallId(3), result: Err(ClientError::Refused(refusal)) };
    assert_eq!(rig.call(3, post_body("a")), [refused]);
}

#[test]
fn a_process_that_calls_itself_another_is_left() {
    let mut rig = Rig::new(|_| {});
    rig.input(Input::Start);
    rig.input(Input::Connected { conn: ConnId(1) });
    assert_eq!(rig.hello(1, "W5"), [close(1), dial(2, "W5")]);
}

#[test]
fn everybody_is_asked_again_when_nobody_answered() {
    let mut rig = Rig::new(|_| {});
    rig.input(Input::Start);
    for conn in 1..=4 {
        rig.input(Input::ConnectFailed { conn: ConnId(conn), trouble: trouble("silence") });
    }
    let mut again = Vec::new();
    while again.is_empty() {
        again = rig.due();
    }
    assert_eq!((again, rig.ms), (vec![dial(5, "M1")], 200));
}
