//! One connection as the session sees it, and what comes and goes on it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::session::calls::CallKey;
use crate::client::session::{ConnId, Output, Outputs, Picture, Session, Trouble, TroubleKind};
use crate::id::{HostId, ProcessId, Token};
use crate::limits;
use crate::time::{Estimate, Instant};
use crate::wire::client::{ClientFrame, Request, RequestBody, Response, ServerFrame};
use crate::wire::{REPORTS, Versions};

/// A server that is silent while something is asked is asked for a sign of life first: one that only waits (for
/// copies, or for a token) gives it, and is not suspected.
const PROBE_AFTER: Duration = Duration::from_millis(150);
const _: () = assert!(PROBE_AFTER.as_millis() * 2 <= limits::SERVER_SILENCE.as_millis());
/// A server of feeds that has said nothing for this long is asked for a sign of life: nobody else would notice.
const FEED_PROBE: Duration = Duration::from_secs(1);

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnState {
    /// No connection yet.
    Dialing,
    /// Our `Hello` is sent.
    Greeting {
        /// When.
        from: Instant,
    },
    /// Its `Hello` has come.
    Open {
        /// The process's host.
        host: HostId,
        /// The newest version that both sides understand.
        version: u16,
    },
}

/// Whether feeds depend on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feeds {
    None,
    Some,
}

/// What is believed of a connection while something is asked on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Trusted,
    /// Silent; it has been asked for a sign of life.
    Probed,
    /// Silent for longer: another way is looked for.
    Suspect,
}

/// What a request number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Call(CallKey),
    Assign,
    /// For a sign of life.
    Probe,
    /// Whether it holds what was seen.
    Token,
}

/// A request that is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnderWay {
    pub(super) asked: Asked,
    from: Instant,
}

/// Whether an attempt has been given up as the only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Punctual {
    InTime,
    Late,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) process: ProcessId,
    pub(super) state: ConnState,
    pub(super) trust: Trust,
    pub(super) punctual: Punctual,
    pub(super) under_way: BTreeMap<u64, UnderWay>,
    next_number: u64,
    since: Instant,
    heard: Instant,
    /// Since when something has been asked and nothing heard.
    waiting_from: Instant,
    /// How long it takes to answer what need not wait: the way to it and back. Known once it has greeted.
    way: Option<Estimate>,
}

impl Conn {
    fn new(process: ProcessId, at: Instant) -> Self {
        Self {
            process,
            state: ConnState::Dialing,
            trust: Trust::Trusted,
            punctual: Punctual::InTime,
            under_way: BTreeMap::new(),
            next_number: 0,
            since: at,
            heard: at,
            waiting_from: at,
            way: None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, ConnState::Open { .. })
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.trust != Trust::Suspect
    }

    pub(super) fn host(&self) -> Option<HostId> {
        match self.state {
            ConnState::Open { host, .. } => Some(host),
            ConnState::Dialing | ConnState::Greeting { .. } => None,
        }
    }

    /// The question in a form that the other side understands.
    pub(super) fn worded(&self, body: RequestBody) -> RequestBody {
        match (self.state, &body) {
            (ConnState::Open { version, .. }, RequestBody::Report) if version < REPORTS => RequestBody::Status,
            _ => body,
        }
    }

    /// When an attempt that has not come far is no longer waited for alone.
    pub(super) fn late_at(&self) -> Option<Instant> {
        (!self.is_open() && self.punctual == Punctual::InTime).then(|| self.since + limits::SERVER_SILENCE)
    }

    /// When its silence means something next.
    pub(super) fn next_look(&self, feeds: Feeds) -> Option<Instant> {
        if !self.is_open() {
            return None;
        }
        match self.trust {
            Trust::Suspect => None,
            Trust::Trusted if self.under_way.is_empty() => (feeds == Feeds::Some).then(|| self.heard + FEED_PROBE),
            Trust::Trusted => Some(self.waiting_from + PROBE_AFTER),
            Trust::Probed => Some(self.waiting_from + self.patience()),
        }
    }

    /// A sign of life is not expected earlier than this after it was asked for (four deviations, as RFC 6298 waits).
    fn answers_within(&self) -> Duration {
        self.way.map_or(Duration::ZERO, |way| way.above(4))
    }

    /// A longer silence is suspicious. By a fixed bound, those who are far away would look for another way at each request.
    fn patience(&self) -> Duration {
        (PROBE_AFTER + self.answers_within()).clamp(limits::SERVER_SILENCE, limits::SERVER_SILENCE_MAX)
    }

    /// Whether it can be believed to answer: a probe says little of one that is too far away to have answered anything
    /// by then.
    pub(super) fn answers(&self) -> bool {
        match self.trust {
            Trust::Trusted => true,
            Trust::Probed => self.answers_within() > PROBE_AFTER,
            Trust::Suspect => false,
        }
    }

    /// What need not wait was answered.
    fn measure_way(&mut self, took: Duration) {
        match &mut self.way {
            Some(way) => way.measure(took),
            None => self.way = Some(Estimate::new(took)),
        }
    }

    /// Takes a request out that was answered, and learns of the way from it. What may have waited, for copies or for its
    /// token, only bounds it; but without that, what a slow moment has taught would be believed until the next one.
    fn answered(&mut self, at: Instant, number: u64) -> Option<Asked> {
        let UnderWay { asked, from } = self.under_way.remove(&number)?;
        let took = at.since(from);
        match (asked, &mut self.way) {
            (Asked::Assign | Asked::Probe, _) => self.measure_way(took),
            (Asked::Call(_) | Asked::Token, Some(way)) => way.bound(took),
            (Asked::Call(_) | Asked::Token, None) => {}
        }
        Some(asked)
    }

    /// Takes a number for a request that is about to be sent.
    pub(super) fn number(&mut self, at: Instant, asked: Asked) -> u64 {
        if self.under_way.is_empty() {
            self.waiting_from = at;
        }
        self.next_number += 1;
        self.under_way.insert(self.next_number, UnderWay { asked, from: at });
        self.next_number
    }
}

impl Session {
    /// Dials a process, unless it is not among the entrances.
    pub(super) fn dial(&mut self, at: Instant, process: ProcessId, out: &mut Outputs) -> Option<ConnId> {
        let addr = *self.addrs.get(&process)?;
        let conn = ConnId(self.fresh());
        self.conns.insert(conn, Conn::new(process, at));
        out.push(Output::Dial { conn, process, addr });
        Some(conn)
    }

    /// The best connection to this process: one that stands, else one that is being made.
    pub(super) fn conn_to(&self, process: ProcessId) -> Option<ConnId> {
        let mut to = self.conns.iter().filter(|(_, conn)| conn.process == process && conn.is_trusted());
        let all: Vec<_> = to.by_ref().collect();
        all.iter().find(|(_, conn)| conn.is_open()).or(all.first()).map(|(id, _)| **id)
    }

    pub(super) fn send(&mut self, at: Instant, id: ConnId, asked: Asked, request: Ask, out: &mut Outputs) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let number = conn.number(at, asked);
        let request = Request { number, token: request.token, body: request.body };
        out.push(Output::Send { conn: id, frame: ClientFrame::Request(request) });
    }

    /// A question that any living process answers at once, whatever it waits for.
    fn probe(&mut self, at: Instant, id: ConnId, out: &mut Outputs) {
        self.send(at, id, Asked::Probe, Ask { token: Token::default(), body: RequestBody::WhoAmI }, out);
    }

    /// A question that is answered once what was seen is held, or with what is missing.
    pub(super) fn ask_for_token(&mut self, at: Instant, id: ConnId, token: Token, out: &mut Outputs) {
        self.send(at, id, Asked::Token, Ask { token, body: RequestBody::WhoAmI }, out);
    }

    pub(super) fn on_connected(&mut self, at: Instant, id: ConnId, out: &mut Outputs) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.state = ConnState::Greeting { from: at };
        conn.heard = at;
        out.push(Output::Send { conn: id, frame: ClientFrame::Hello { versions: Versions::OURS } });
        // Without waiting for the answer: it costs nobody anything, and saves a round trip.
        if self.better == Some(id) || self.search.as_ref().is_some_and(|search| search.asked.contains(&id)) {
            self.ask_assignment(at, id, out);
        }
    }

    pub(super) fn on_frame(&mut self, at: Instant, id: ConnId, frame: ServerFrame, out: &mut Outputs) {
        if !self.conns.contains_key(&id) {
            return;
        }
        self.heard(at, id);
        match frame {
            ServerFrame::Hello { versions, cluster: _, process, host } => {
                self.on_hello(at, id, versions, process, host, out);
            }
            ServerFrame::Response { number, token, result } => {
                let Some(asked) = self.conns.get_mut(&id).and_then(|conn| conn.answered(at, number)) else {
                    return;
                };
                match asked {
                    Asked::Call(key) => self.on_answer(at, id, key, token, result, out),
                    Asked::Assign => self.on_assign_answer(at, id, result, out),
                    Asked::Probe => {}
                    Asked::Token => {
                        if let Ok(Response::Missing { gaps }) = result
                            && self.server == Some(id)
                        {
                            self.on_missing(at, id, token, gaps, out);
                        }
                    }
                }
            }
            ServerFrame::Assigned(assignment) => {
                if self.director == Some(id) {
                    self.adopt(at, assignment, out);
                } else {
                    self.on_other_director(assignment.director, out);
                }
            }
            ServerFrame::Serving { serving, epoch } => {
                let news = if serving { Serving::Begins } else { Serving::Ends };
                self.on_serving(at, id, news, epoch);
            }
        }
    }

    fn on_hello(
        &mut self,
        at: Instant,
        id: ConnId,
        versions: Versions,
        process: ProcessId,
        host: HostId,
        out: &mut Outputs,
    ) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(version) = versions.common(Versions::OURS) else {
            let why = format!("it speaks wire versions {} to {}", versions.oldest, versions.newest);
            return self.give_up(at, id, Trouble { kind: TroubleKind::Protocol, why }, out);
        };
        if conn.process != process {
            let why = format!("the process at its address calls itself {process}");
            return self.give_up(at, id, Trouble { kind: TroubleKind::Identity, why }, out);
        }
        if let ConnState::Greeting { from } = conn.state {
            conn.measure_way(at.since(from));
        }
        conn.state = ConnState::Open { host, version };
        if conn.punctual == Punctual::Late {
            self.avoided.remove(&process);
        }
        self.picture = Picture::Changed;
    }

    /// Closes a connection that is no good, and goes on as if it had ended by itself.
    fn give_up(&mut self, at: Instant, id: ConnId, trouble: Trouble, out: &mut Outputs) {
        out.push(Output::Close { conn: id });
        self.on_disconnected(at, id, trouble, out);
    }

    /// A sign of life: whatever was suspected was wrong.
    pub(super) fn heard(&mut self, at: Instant, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.heard = at;
        conn.waiting_from = at;
        if conn.trust != Trust::Trusted {
            self.picture = Picture::Changed;
        }
        conn.trust = Trust::Trusted;
    }

    pub(super) fn on_connect_failed(&mut self, at: Instant, id: ConnId, trouble: Trouble, out: &mut Outputs) {
        let Some(conn) = self.conns.get(&id) else { return };
        let process = conn.process;
        self.avoid(at, process);
        self.fail_calls_to_process(at, process, &trouble, out);
        self.on_disconnected(at, id, trouble, out);
    }

    pub(super) fn on_disconnected(&mut self, at: Instant, id: ConnId, trouble: Trouble, out: &mut Outputs) {
        let Some(process) = self.conns.get(&id).map(|conn| conn.process) else { return };
        tracing::debug!(%process, why = %trouble.why, "a connection ended");
        self.trouble = Some((process, trouble));
        if self.server == Some(id) {
            // Its process is gone or leaving; whoever knows that it is back says so with a newer epoch.
            self.avoid(at, process);
            self.tell_lost(out);
        }
        if self.server == Some(id) || self.director == Some(id) {
            self.want_search();
        }
        self.forget(id, out);
        self.picture = Picture::Changed;
        self.search_lost(at, id, out);
    }

    /// Closes a connection unless something still needs it.
    pub(super) fn close_unused(&mut self, id: ConnId, out: &mut Outputs) {
        let needed = self.server == Some(id)
            || self.director == Some(id)
            || self.better == Some(id)
            || self.standby == Some(id)
            || self.candidates.contains(&id)
            || self.search.as_ref().is_some_and(|search| search.asked.contains(&id))
            || self.is_asked_by_calls(id);
        if !needed && self.conns.contains_key(&id) {
            out.push(Output::Close { conn: id });
            self.forget(id, out);
        }
    }

    /// Takes a connection out of everything; what was under way on it waits for another.
    fn forget(&mut self, id: ConnId, out: &mut Outputs) {
        let Some(conn) = self.conns.remove(&id) else { return };
        self.candidates.remove(&id);
        for place in [&mut self.server, &mut self.director, &mut self.better, &mut self.standby] {
            if *place == Some(id) {
                *place = None;
            }
        }
        for under_way in conn.under_way.into_values() {
            if let Asked::Call(key) = under_way.asked {
                self.take_back(key, id);
            }
        }
        self.take_feeds_back(id, out);
    }

    pub(super) fn feeds_on(&self, id: ConnId) -> Feeds {
        if self.server == Some(id) && !self.feeds.is_empty() { Feeds::Some } else { Feeds::None }
    }

    /// The director calls the server's host down. Feeds ask nothing, and would notice that it is right a second later: so
    /// the server is asked for a sign of life.
    pub(super) fn probe_if_called_down(&mut self, at: Instant, out: &mut Outputs) {
        let Some(id) = self.server.filter(|id| self.feeds_on(*id) == Feeds::Some) else { return };
        let Some(conn) = self.conns.get(&id).filter(|conn| conn.under_way.is_empty()) else { return };
        let hosts = self.assignment.iter().flat_map(|assignment| &assignment.hosts);
        if hosts.filter(|one| one.serving.is_none()).any(|one| Some(one.host) == conn.host()) {
            self.probe(at, id, out);
        }
    }

    /// Looks at every silence that has lasted.
    pub(super) fn watch_connections(&mut self, at: Instant, out: &mut Outputs) {
        let due: Vec<_> = self
            .conns
            .iter()
            .filter(|(id, conn)| conn.next_look(self.feeds_on(**id)).is_some_and(|look| look <= at))
            .map(|(id, conn)| (*id, conn.trust, conn.under_way.is_empty()))
            .collect();
        for (id, trust, idle) in due {
            match trust {
                Trust::Trusted => {
                    self.probe(at, id, out);
                    // An idle connection's wait begins with this question, another's goes on.
                    if !idle {
                        self.set_trust(id, Trust::Probed);
                        self.picture = Picture::Changed;
                    }
                }
                Trust::Probed => self.suspect(id, out),
                Trust::Suspect => {}
            }
        }
    }

    fn set_trust(&mut self, id: ConnId, trust: Trust) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.trust = trust;
        }
    }

    fn suspect(&mut self, id: ConnId, out: &mut Outputs) {
        self.set_trust(id, Trust::Suspect);
        if let Some(conn) = self.conns.get(&id) {
            let why = format!("silent for {} ms", conn.patience().as_millis());
            self.trouble = Some((conn.process, Trouble { kind: TroubleKind::Network, why }));
        }
        if self.server == Some(id) {
            self.tell_lost(out);
        }
        if self.better == Some(id) {
            self.better = None;
            self.close_unused(id, out);
        }
        // An attempt that nobody needs is no reason to look for another way.
        if self.conns.contains_key(&id) {
            self.want_search();
        }
        self.picture = Picture::Changed;
    }
}

/// What is sent with a number.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) token: Token,
    pub(super) body: RequestBody,
}

/// What a process says of its own duty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Serving {
    Begins,
    Ends,
}
