//! A node towards clients: who is connected, where they should go, and their requests.
//!
//! Every process directs whoever asks, from what it knows; the elected director is asked first, so that its count of
//! assignments that no host has reported yet is the best there is. Only the primary answers the rest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::core::feeds;
use crate::core::io::{Output, Outputs, Rank, ReadId};
use crate::core::mesh;
use crate::core::node::Node;
use crate::core::primary::Ask;
use crate::error::{ErrorCode, Refusal};
use crate::id::{ClientId, Epoch, FeedId, HostId, ProcessId, PublicKey, Token, UserId, Vector};
use crate::limits;
use crate::service::feed::FeedStep;
use crate::service::query::{Answer, QueryResult};
use crate::time::{Instant, Now, Wall};
use crate::topology::Role;
use crate::wire::client::{
    AssignedHost, AssignedProcess, Assignment, FeedFrame, Request, RequestBody, Response, ServerFrame,
};
use crate::wire::heartbeat::{Fitness, HostView};
use crate::wire::peer::PeerMessage;

/// One client's connection.
#[derive(Debug)]
struct Client {
    key: Option<PublicKey>,
    rank: Rank,
    session: Session,
}

/// Whether a person is served on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    /// It only asked where to go, or nothing.
    None,
    /// It has logged in or asked as a person.
    Open,
}

/// What clients steer by, of one host.
type Route = (HostId, Option<ProcessId>, Epoch, Fit);
/// What clients steer by, for each host.
type Routes = Vec<Route>;

/// How fit a host is for new clients; better comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It serves and has workers.
    Good,
    /// It serves, but has no workers: only when no other host serves.
    Copy,
    /// It is up, and behind or full.
    Poor,
    /// It is down, or has no primary.
    Down,
}

/// All clients of a process.
#[derive(Debug, Default)]
pub(crate) struct People {
    clients: BTreeMap<ClientId, Client>,
    watchers: BTreeSet<ClientId>,
    routes: Routes,
    /// Hosts that are up and lack a primary, and until when nobody is told.
    vacant: BTreeMap<HostId, Option<Instant>>,
    /// Who directed when it was last known.
    director: Option<ProcessId>,
    /// Assignments that the hosts' records may not show yet.
    assigned: VecDeque<(Instant, HostId)>,
    /// Other hosts' clocks less this one's, in microseconds, when their records last came in.
    skews: BTreeMap<HostId, (Instant, i64)>,
    pub(crate) turn: usize,
}

impl People {
    /// A client has connected.
    pub(crate) fn open(&mut self, client: ClientId, key: Option<PublicKey>, rank: Rank) {
        self.clients.insert(client, Client { key, rank, session: Session::None });
    }

    /// When a vacancy has lasted long enough to be told.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.vacant.values().flatten().min().copied()
    }

    /// A host that is up elects its next primary within milliseconds: its clients, told of the vacancy, would all dial
    /// another host for nothing. So it is kept from them for a moment, and mostly they hear of the successor alone.
    fn note_vacancies(&mut self, now: Instant, views: &[HostView]) {
        for HostView { record, up } in views {
            if *up && record.serving.is_none() {
                let until = self.vacant.entry(record.host).or_insert(Some(now + limits::SUCCESSION_WAIT));
                until.take_if(|until| *until <= now);
            } else {
                self.vacant.remove(&record.host);
            }
        }
    }

    /// What was told of a host before its vacancy, while that is kept.
    fn route_before(&self, host: HostId) -> Option<&Route> {
        self.vacant.get(&host).copied().flatten()?;
        self.routes.iter().find(|route| route.0 == host)
    }

    /// Connections on which a person is served.
    pub(crate) fn sessions(&self) -> u32 {
        let open = self.clients.values().filter(|client| client.session == Session::Open).count();
        u32::try_from(open).unwrap_or(u32::MAX)
    }

    /// Every connection.
    pub(crate) fn greeted(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.clients.keys().copied()
    }

    /// Compares another host's clock with this one's.
    pub(crate) fn note_clock(&mut self, host: HostId, theirs: Wall, ours: Now) {
        let micros = |wall: Wall| i64::try_from(wall.0).unwrap_or(i64::MAX);
        self.skews.insert(host, (ours.mono, micros(theirs).saturating_sub(micros(ours.wall))));
    }

    /// Hosts whose clocks are too far off. An old comparison does not count: a process that relays no more hears no
    /// other host, and would otherwise raise its last alarm for ever.
    pub(crate) fn skewed(&self, now: Now) -> impl Iterator<Item = (HostId, i64)> + '_ {
        let max = i64::try_from(limits::CLOCK_SKEW_MAX.as_micros()).unwrap_or(i64::MAX);
        let fresh = move |at: Instant| now.mono.since(at) <= limits::CLOCK_SKEW_MEMORY;
        let far = move |(at, skew): (Instant, i64)| fresh(at) && skew.abs() > max;
        self.skews.iter().filter(move |(_, noted)| far(**noted)).map(|(host, (_, skew))| (*host, *skew))
    }

    /// Assignments to a host in the last second.
    fn unreported(&self, host: HostId) -> u32 {
        let count = self.assigned.iter().filter(|(_, assigned)| *assigned == host).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

/// How long an assignment may be unreported: a record spreads within this.
const REPORTED_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// Refuses tokens and cursors that no cluster gives out.
fn check_lengths(vectors: [Option<&Vector>; 2]) -> Result<(), Refusal> {
    let longest = vectors.into_iter().flatten().map(Vector::len).max().unwrap_or(0);
    if longest <= limits::TOKEN_ORIGINS_MAX {
        return Ok(());
    }
    let message = format!("a token or cursor names {longest} origins, more than {}", limits::TOKEN_ORIGINS_MAX);
    Err(Refusal::new(ErrorCode::BadRequest, message))
}

impl Node {
    /// A client asks.
    pub(crate) fn on_client(&mut self, now: Now, client: ClientId, request: Request, out: &mut Outputs) {
        // The token's clock is a client's word: what the whole cluster steers by (versions of records) follows clocks of
        // processes only, or one client could set it to the end of time. Stamps need it not: the store gives them above
        // all that it holds, and the request waits until that is what the token has seen.
        let number = request.number;
        let since = if let RequestBody::Timeline { since, .. } = &request.body { since.as_ref() } else { None };
        if let Err(refusal) = check_lengths([Some(&request.token.vector), since]) {
            return self.respond(client, number, Err(refusal), out);
        }
        let response = match &request.body {
            RequestBody::Assign => {
                if self.people.watchers.is_empty() {
                    self.people.routes = self.current_routes(now);
                }
                let first_time = self.people.watchers.insert(client);
                let assignment = self.assignment(now);
                // Who asks again is no further session: counting each time, one client could make this list endless.
                if let Some(first) = assignment.hosts.first().filter(|_| first_time) {
                    self.people.assigned.push_back((now.mono, first.host));
                }
                Ok(Response::Assigned(assignment))
            }
            RequestBody::Status => Ok(Response::Status(Box::new(self.cluster_status(now)))),
            RequestBody::Report => Ok(Response::Report(Box::new(self.cluster_report(now)))),
            RequestBody::Drain { process } => self.drain_process(client, *process, out),
            RequestBody::Write { .. }
            | RequestBody::WhoAmI
            | RequestBody::List { .. }
            | RequestBody::Timeline { .. } => return self.on_person(now, client, request, out),
        };
        self.respond(client, number, response, out);
    }

    fn respond(&self, client: ClientId, number: u64, result: Result<Response, Refusal>, out: &mut Outputs) {
        let frame = ServerFrame::Response { number, token: Token::default(), result };
        out.push(Output::Reply { client, frame });
    }

    fn on_person(&mut self, now: Now, client: ClientId, request: Request, out: &mut Outputs) {
        let number = request.number;
        let Some(person) = self.people.clients.get_mut(&client) else { return };
        let Some(key) = person.key else {
            let refusal = Refusal::new(ErrorCode::NotLoggedIn, "this needs a profile: run `gaggle login NAME` first");
            return self.respond(client, number, Err(refusal), out);
        };
        person.session = Session::Open;
        match self.serving.term_mut().filter(|term| term.settled()) {
            Some(term) => term.primary.on_request(now, Ask { client, key, request }, out),
            None => {
                let message = format!("{} does not serve {} now: ask another process", self.config.me, self.host);
                self.respond(client, number, Err(Refusal::new(ErrorCode::NotServing, message)), out);
            }
        }
    }

    fn drain_process(&self, client: ClientId, process: ProcessId, out: &mut Outputs) -> Result<Response, Refusal> {
        if self.people.clients.get(&client).is_none_or(|one| one.rank != Rank::Operator) {
            let message = "only who has a private key of the cluster's processes may drain one: ask on their machine";
            return Err(Refusal::new(ErrorCode::NotOperator, message));
        }
        if process != self.config.me && !self.mesh.siblings.contains_key(&process) {
            let message = format!("{process} is not a process of {}: ask a process of its own host", self.host);
            return Err(Refusal::new(ErrorCode::UnknownProcess, message));
        }
        out.push(Output::Send { to: process, message: PeerMessage::Drain });
        Ok(Response::Draining)
    }

    /// The store has answered a query.
    pub(crate) fn on_query_done(
        &mut self,
        now: Now,
        client: ClientId,
        number: u64,
        epoch: Epoch,
        result: QueryResult,
        out: &mut Outputs,
    ) {
        let Some(term) = self.serving.term() else {
            let message = format!("{} no longer serves: ask again", self.config.me);
            return self.respond(client, number, Err(Refusal::new(ErrorCode::NotServing, message)), out);
        };
        if epoch > term.primary.epoch() {
            // Somebody else serves: what was read may be newer than what this process knows to be shown.
            let message = format!("{} no longer serves: ask again", self.config.me);
            self.respond(client, number, Err(Refusal::new(ErrorCode::NotServing, message)), out);
            return self.deposed(now, epoch, out);
        }
        let mut result = result;
        if let Ok(Answer::Posts { posts, cursor, .. }) = &mut result {
            let cursors = posts.iter_mut().map(|post| &mut post.cursor).chain([cursor]);
            cursors.for_each(|cursor| term.primary.copies.shorten_line(cursor));
        }
        let frame = ServerFrame::Response { number, token: term.primary.token(), result: result.map(Response::Answer) };
        out.push(Output::Reply { client, frame });
    }

    /// A client wants a live feed.
    pub(crate) fn on_feed_opened(
        &mut self,
        now: Now,
        client: ClientId,
        feed: FeedId,
        token: Token,
        since: Vector,
        out: &mut Outputs,
    ) {
        let me = self.config.me;
        let end = |code, message: String| Output::Feed { feed, frame: FeedFrame::Ended(Refusal::new(code, message)) };
        if let Err(refusal) = check_lengths([Some(&token.vector), Some(&since)]) {
            out.push(Output::Feed { feed, frame: FeedFrame::Ended(refusal) });
            return;
        }
        let Some(key) = self.people.clients.get(&client).and_then(|person| person.key) else {
            out.push(end(ErrorCode::NotLoggedIn, "a feed needs a profile: run `gaggle login NAME` first".into()));
            return;
        };
        let Some(term) = self.serving.term_mut().filter(|term| term.settled()) else {
            out.push(end(ErrorCode::NotServing, format!("{me} does not serve: ask another process")));
            return;
        };
        if !feeds::room_for_feed(&term.primary.feeds, client) {
            out.push(end(ErrorCode::Busy, format!("more than {} feeds on a connection", limits::CLIENT_FEEDS_MAX)));
            return;
        }
        let primary = &mut term.primary;
        primary.feeds.open(now.mono, feed, (client, UserId::of(&key)), token.vector, since);
        primary.feeds.pump(&primary.copies, out);
        if let Some(person) = self.people.clients.get_mut(&client) {
            person.session = Session::Open;
        }
    }

    /// A feed can take more.
    pub(crate) fn on_feed_written(&mut self, feed: FeedId, out: &mut Outputs) {
        if let Some(term) = self.serving.term_mut() {
            let primary = &mut term.primary;
            primary.feeds.on_written(feed);
            primary.feeds.pump(&primary.copies, out);
        }
    }

    /// A feed is closed.
    pub(crate) fn on_feed_closed(&mut self, feed: FeedId) {
        if let Some(term) = self.serving.term_mut() {
            term.primary.feeds.on_closed(feed);
        }
    }

    /// The log was walked for feeds.
    pub(crate) fn on_feeds_read(
        &mut self,
        now: Now,
        read: ReadId,
        epoch: Epoch,
        steps: Vec<FeedStep>,
        cursor: &Vector,
        out: &mut Outputs,
    ) {
        let Some(term) = self.serving.term_mut() else { return };
        if epoch > term.primary.epoch() {
            return self.deposed(now, epoch, out);
        }
        let primary = &mut term.primary;
        let hlc = primary.standing().hlc;
        primary.feeds.on_read(read, steps, cursor, &primary.copies, hlc, out);
        primary.feeds.pump(&primary.copies, out);
    }

    /// A client is gone.
    pub(crate) fn on_client_closed(&mut self, client: ClientId) {
        self.people.clients.remove(&client);
        self.people.watchers.remove(&client);
        if let Some(term) = self.serving.term_mut() {
            term.primary.on_client_closed(client);
        }
    }

    /// Records of all hosts, this one's own first-hand, and whether each is up.
    pub(crate) fn host_views(&mut self, now: Now) -> Vec<HostView> {
        let own = HostView { record: self.own_record(now), up: true };
        self.mesh.views.values().cloned().chain(std::iter::once(own)).collect()
    }

    fn fit(&self, view: &HostView) -> Fit {
        let record = &view.record;
        let workers = self.config.topology.host(record.host);
        let workers = workers.is_some_and(|spec| spec.processes.iter().any(|p| p.role == Role::Worker));
        match (record.serving.filter(|_| view.up), record.fitness) {
            (None, _) => Fit::Down,
            (Some(_), Fitness::CatchingUp | Fitness::DiskFull) => Fit::Poor,
            (Some(_), Fitness::Ready) if workers || !self.any_workers() => Fit::Good,
            (Some(_), Fitness::Ready) => Fit::Copy,
        }
    }

    fn any_workers(&self) -> bool {
        self.config.topology.processes().any(|process| process.role == Role::Worker)
    }

    /// Where a client is to go: the fittest and least loaded host first.
    pub(crate) fn assignment(&mut self, now: Now) -> Assignment {
        while self.people.assigned.pop_front_if(|(at, _)| now.mono >= *at + REPORTED_AFTER).is_some() {}
        let mut ranked: Vec<(Fit, u32, AssignedHost)> = Vec::new();
        for view in self.host_views(now) {
            let fit = self.fit(&view);
            let HostView { record, up } = view;
            let load = record.sessions.saturating_add(self.people.unreported(record.host));
            let order = mesh::serve_order(&self.config.topology, record.host);
            let processes = order.into_iter().filter_map(|id| self.config.topology.process(id));
            let host = AssignedHost {
                host: record.host,
                serving: record.serving.filter(|_| up),
                epoch: record.epoch,
                ready: fit <= Fit::Copy,
                processes: processes.map(|p| AssignedProcess { id: p.id, addr: p.addr }).collect(),
            };
            ranked.push((fit, load, host));
        }
        ranked.sort_by_key(|(fit, load, host)| (*fit, *load, host.host));
        Assignment { director: self.director(now), hosts: ranked.into_iter().map(|(_, _, host)| host).collect() }
    }

    fn current_routes(&mut self, now: Now) -> Routes {
        let views = self.host_views(now);
        self.people.note_vacancies(now.mono, &views);
        let route = |view: &HostView| {
            let record = &view.record;
            let before = self.people.route_before(record.host).copied();
            before.unwrap_or((record.host, record.serving.filter(|_| view.up), record.epoch, self.fit(view)))
        };
        views.iter().map(route).collect()
    }

    /// Tells those who asked `Assign` when what they steer by has changed, and everybody when another directs: who
    /// asked the one before would hear of no change any more, and not notice.
    pub(crate) fn push_routes(&mut self, now: Now, out: &mut Outputs) {
        let director = self.director(now);
        if director.is_some() && self.people.director != director {
            let known = self.people.director.is_some();
            self.people.director = director;
            if known {
                let frame = ServerFrame::Assigned(self.assignment(now));
                let all = self.people.greeted();
                out.extend(all.map(|client| Output::Reply { client, frame: frame.clone() }));
            }
        }
        if self.people.watchers.is_empty() {
            self.people.vacant.clear();
            return;
        }
        let routes = self.current_routes(now);
        if routes == self.people.routes {
            return;
        }
        self.people.routes = routes;
        let assignment = self.assignment(now);
        let frame = ServerFrame::Assigned(assignment);
        let watchers = self.people.watchers.iter();
        out.extend(watchers.map(|client| Output::Reply { client: *client, frame: frame.clone() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::io::Input;
    use crate::core::testing::{at, first, id, standing};
    use crate::id::Origin;
    use crate::service::ledger::Standing;
    use crate::time::Hlc;
    use crate::wire::heartbeat::{Duty, Heartbeat, Life, PrimaryStatus};

    fn served(epoch: u64) -> Standing {
        standing(epoch, Some(Origin { host: "a".parse().unwrap(), incarnation: 1 }))
    }

    /// W1, of whom a client has asked the way to W2, the primary.
    fn followed() -> Node {
        let mut node = first();
        let mut give = |ms, input| {
            let mut out = Vec::new();
            node.handle_input(at(ms), input, &mut out);
            told(&out)
        };
        give(1, Input::Sibling { process: id("W2"), life: Life::Up, pid: 2 });
        let Standing { epoch, vector, digest, entries, disk_bytes, .. } = served(4);
        let primary =
            PrimaryStatus { epoch, fitness: Fitness::Ready, sessions: 1, vector, digest, entries, disk_bytes };
        let heartbeat = Heartbeat {
            run: 1,
            hlc: Hlc::ZERO,
            duties: vec![Duty::Serve],
            epoch,
            warm: true,
            primary: Some(primary),
            view: None,
        };
        give(2, Input::Heartbeat { from: id("W2"), heartbeat });
        let (client, number, token) = (ClientId(9), 1, Token::default());
        give(3, Input::ClientOpened { client, key: None, rank: Rank::Person });
        let request = Request { number, token, body: RequestBody::Assign };
        assert_eq!(give(4, Input::Client { client, request }), [Some(id("W2"))]);
        node
    }

    /// Who serves, as clients are told.
    fn told(out: &Outputs) -> Vec<Option<ProcessId>> {
        let frames =
            out.iter().filter_map(|output| if let Output::Reply { frame, .. } = output { Some(frame) } else { None });
        let assignments = frames.filter_map(|frame| {
            if let ServerFrame::Assigned(assignment)
            | ServerFrame::Response { result: Ok(Response::Assigned(assignment)), .. } = frame
            {
                Some(assignment.hosts[0].serving)
            } else {
                None
            }
        });
        assignments.collect()
    }

    #[test]
    fn clients_hear_of_a_successor_and_not_of_the_vacancy_before_it() {
        let mut node = followed();
        let mut out = Vec::new();
        node.handle_input(at(10), Input::Sibling { process: id("W2"), life: Life::Dead, pid: 0 }, &mut out);
        assert!(out.contains(&Output::TakeEpoch), "{out:?}");
        assert_eq!(told(&out), []);
        out.clear();
        node.handle_input(at(20), Input::EpochTaken(Ok(served(5))), &mut out);
        node.handle_timeout(at(100), &mut out);
        assert_eq!(told(&out), [Some(id("W1"))]);
    }

    #[test]
    fn only_an_operator_drains() {
        let drain = |rank| {
            let (mut node, mut out) = (followed(), Vec::new());
            let (client, number, token) = (ClientId(10), 1, Token::default());
            node.handle_input(at(5), Input::ClientOpened { client, key: None, rank }, &mut out);
            let request = Request { number, token, body: RequestBody::Drain { process: id("W2") } };
            out.clear();
            node.handle_input(at(6), Input::Client { client, request }, &mut out);
            out.contains(&Output::Send { to: id("W2"), message: PeerMessage::Drain })
        };
        assert_eq!((drain(Rank::Person), drain(Rank::Operator)), (false, true));
    }

    #[test]
    fn who_asks_the_way_again_and_again_is_one_session_to_come() {
        let mut node = followed();
        let host = node.host;
        let coming = |node: &Node| node.people.unreported(host);
        assert_eq!(coming(&node), 1);
        let ask = |node: &mut Node, client: u64| {
            let (client, token, mut out) = (ClientId(client), Token::default(), Vec::new());
            let request = Request { number: 2, token, body: RequestBody::Assign };
            node.handle_input(at(5), Input::Client { client, request }, &mut out);
            assert_eq!(told(&out), [Some(id("W2"))], "it is answered each time");
        };
        (0..3).for_each(|_| ask(&mut node, 9));
        assert_eq!(coming(&node), 1);
        node.handle_input(
            at(5),
            Input::ClientOpened { client: ClientId(10), key: None, rank: Rank::Person },
            &mut Vec::new(),
        );
        (0..3).for_each(|_| ask(&mut node, 10));
        assert_eq!(coming(&node), 2, "another client is another session");
    }

    #[test]
    fn clients_hear_of_a_vacancy_that_lasts() {
        let mut node = followed();
        let mut out = Vec::new();
        node.handle_input(at(10), Input::Sibling { process: id("W2"), life: Life::Dead, pid: 0 }, &mut out);
        assert!(node.poll_timeout().is_some_and(|at| at <= Instant::from_micros(50_000)));
        node.handle_timeout(at(49), &mut out);
        assert_eq!(told(&out), []);
        node.handle_timeout(at(50), &mut out);
        node.handle_timeout(at(60), &mut out);
        assert_eq!(told(&out), [None]);
    }

    #[test]
    fn a_clock_that_is_compared_no_more_raises_no_alarm() {
        let (mut people, host): (People, HostId) = (People::default(), "a".parse().unwrap());
        let skewed = |people: &People, ms| people.skewed(at(ms)).collect::<Vec<_>>();
        people.note_clock(host, Wall(70_000_000), at(10_000));
        assert_eq!(skewed(&people, 11_000), [(host, 60_000_000)]);
        assert_eq!(skewed(&people, 13_000), []);
        people.note_clock(host, Wall(14_000_000), at(14_000));
        assert_eq!(skewed(&people, 14_000), []);
    }
}
