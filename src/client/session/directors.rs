//! Finding a director: the one that answered last is asked first, the others join in one by one, as RFC 8305 does.
//!
//! A director tells of the hosts that it reaches, which need not be those that the client reaches: one that is cut off with
//! its host knows of no other. So where it knows of nowhere to go, those that it calls down are asked, before that is
//! believed.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::client::session::calls::CallKey;
use crate::client::session::conn::{Ask, Asked, Conn, ConnState};
use crate::client::session::{ConnId, Outputs, Picture, Session};
use crate::error::Refusal;
use crate::id::{HostId, ProcessId, Token};
use crate::limits;
use crate::time::Instant;
use crate::wire::client::{Assignment, RequestBody, Response};

/// Processes asked at once: the dead ones among them are waited for, so that a whole dead host may be among them.
const ASKED_MAX: usize = limits::HOST_PROCESSES_MAX;
/// Half of how long attempts are left alone in the first round; it doubles.
const FIRST_PATIENCE: Duration = Duration::from_millis(250);
/// The pause after everybody was asked in vain; it doubles.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// So often at most: one second and a half.
const ROUND_DOUBLINGS_MAX: u32 = 4;
/// A host that was asked for a second opinion is not asked again for this long, whatever it said.
const OPINION_LASTS: Duration = Duration::from_secs(2);

/// A search for somebody who says where to go.
#[derive(Debug)]
pub(super) struct Search {
    queue: VecDeque<ProcessId>,
    pub(super) asked: BTreeSet<ConnId>,
    pub(super) next_at: Instant,
    stage: Stage,
    scope: Scope,
    rounds: u32,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// All entrances, until one has answered.
    Everybody,
    /// Processes of hosts that the director calls down, once each.
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody has been asked in this round.
    Fresh,
    Asking,
    /// Everybody has been asked.
    Waiting,
}

impl Session {
    /// Begins a search, when the picture is next acted upon, unless one is under way.
    pub(super) fn want_search(&mut self) {
        let asked = match self.search.take() {
            Some(search) if search.scope == Scope::Everybody => return self.search = Some(search),
            Some(search) => search.asked,
            None => BTreeSet::new(),
        };
        let (queue, next_at) = (VecDeque::new(), Instant::default());
        self.search = Some(Search { queue, asked, next_at, stage: Stage::Fresh, scope: Scope::Everybody, rounds: 0 });
        self.picture = Picture::Changed;
    }

    /// Looks for a second opinion where the director knows of no host to go to, those that refuse left out: whether some
    /// host that it calls down has still to say. If none has, the director is right for us.
    pub(super) fn seeks_opinion(&mut self, at: Instant, refusing: &[HostId]) -> bool {
        if self.search.is_some() {
            return true;
        }
        self.opinions.retain(|_, asked| at < *asked + OPINION_LASTS);
        let hosts = self.assignment.iter().flat_map(|assignment| &assignment.hosts);
        let down = hosts.filter(|one| {
            one.serving.is_none()
                && !refusing.contains(&one.host)
                && !self.opinions.contains_key(&one.host)
                && self.may_use(one.host)
        });
        let (hosts, queues): (Vec<_>, Vec<_>) = down.map(|one| (one.host, &one.processes)).unzip();
        let queue: VecDeque<_> =
            queues.into_iter().flatten().map(|one| one.id).filter(|id| self.addrs.contains_key(id)).collect();
        self.opinions.extend(hosts.into_iter().map(|host| (host, at)));
        if queue.is_empty() {
            return false;
        }
        let asked = BTreeSet::new();
        self.search = Some(Search { queue, asked, next_at: at, stage: Stage::Asking, scope: Scope::Down, rounds: 0 });
        self.picture = Picture::Changed;
        true
    }

    /// Asks the next one if it is time.
    pub(super) fn search_on(&mut self, at: Instant, out: &mut Outputs) {
        let Some(search) = &mut self.search else { return };
        if search.next_at > at {
            return;
        }
        match search.stage {
            Stage::Fresh => self.begin_round(at, out),
            Stage::Asking => self.ask_next(at, out),
            Stage::Waiting => {
                // Whoever has not answered by now is asked anew, over a new connection.
                let asked = std::mem::take(&mut search.asked);
                let scope = search.scope;
                self.search.take_if(|_| scope == Scope::Down);
                for id in asked {
                    self.close_unused(id, out);
                }
                if scope == Scope::Everybody {
                    self.begin_round(at, out);
                }
            }
        }
    }

    fn begin_round(&mut self, at: Instant, out: &mut Outputs) {
        let order = self.search_order();
        let trusted = self.director.filter(|id| self.conns.get(id).is_some_and(|conn| conn.is_trusted()));
        let Some(search) = &mut self.search else { return };
        search.queue = order;
        search.stage = Stage::Asking;
        search.rounds += 1;
        match trusted {
            Some(id) => {
                search.asked.insert(id);
                search.next_at = at + limits::DIRECTOR_STAGGER;
                self.ask_assignment(at, id, out);
            }
            None => self.ask_next(at, out),
        }
    }

    /// Who directs as far as known, who answered last, and then the entrances as they were given.
    fn search_order(&self) -> VecDeque<ProcessId> {
        let told = self.assignment.as_ref().and_then(|assignment| assignment.director);
        let mut order = VecDeque::new();
        let entrances = self.config.entrances.iter().map(|(process, _)| *process);
        for process in told.into_iter().chain(self.director_last).chain(self.config.first).chain(entrances) {
            if self.addrs.contains_key(&process) && !order.contains(&process) {
                order.push_back(process);
            }
        }
        order
    }

    fn ask_next(&mut self, at: Instant, out: &mut Outputs) {
        let Some(search) = &mut self.search else { return };
        search.next_at = at + limits::DIRECTOR_STAGGER;
        if search.asked.len() >= ASKED_MAX && !search.queue.is_empty() {
            // A place is free once an attempt has failed, at the latest when its time is up.
            search.next_at = at + limits::CONNECT_WAIT;
            return;
        }
        let Some(process) = search.queue.pop_front() else {
            let pause = ROUND_PAUSE * (1 << search.rounds.min(ROUND_DOUBLINGS_MAX));
            search.stage = Stage::Waiting;
            // A cluster that comes up now is met soon; one behind a slow path gets its time in a later round.
            let patience = limits::CONNECT_WAIT.min(FIRST_PATIENCE * (1 << search.rounds.min(ROUND_DOUBLINGS_MAX)));
            search.next_at = at + if search.asked.is_empty() { pause } else { patience };
            return;
        };
        match self.conn_to(process) {
            Some(id) => {
                let fresh = self.search.as_mut().is_some_and(|search| search.asked.insert(id));
                if fresh && self.conns.get(&id).is_some_and(|conn| conn.state != ConnState::Dialing) {
                    self.ask_assignment(at, id, out);
                }
            }
            None => {
                let dialed = self.dial(at, process, out);
                if let (Some(search), Some(id)) = (&mut self.search, dialed) {
                    search.asked.insert(id);
                }
            }
        }
    }

    pub(super) fn ask_assignment(&mut self, at: Instant, id: ConnId, out: &mut Outputs) {
        let token = Token::default();
        self.send(at, id, Asked::Assign, Ask { token, body: RequestBody::Assign }, out);
    }

    /// One of those asked is gone, or does not know: the next one need not wait.
    pub(super) fn search_lost(&mut self, at: Instant, id: ConnId, out: &mut Outputs) {
        let Some(search) = &mut self.search else { return };
        if !search.asked.remove(&id) {
            return;
        }
        match search.stage {
            Stage::Fresh => {}
            Stage::Asking => self.ask_next(at, out),
            Stage::Waiting if search.asked.is_empty() => {
                let pause = ROUND_PAUSE * (1 << search.rounds.min(ROUND_DOUBLINGS_MAX));
                search.next_at = search.next_at.min(at + pause);
            }
            Stage::Waiting => {}
        }
    }

    pub(super) fn on_assign_answer(
        &mut self,
        at: Instant,
        id: ConnId,
        result: Result<Response, Refusal>,
        out: &mut Outputs,
    ) {
        let Ok(Response::Assigned(assignment)) = result else {
            self.better.take_if(|better| *better == id);
            self.search_lost(at, id, out);
            return self.close_unused(id, out);
        };
        // The first answer wins; what comes later is worth less than the changes that the winner will tell.
        let (asked, scope) = match self.search.take() {
            Some(search) => (search.asked, search.scope),
            None if self.better == Some(id) => (BTreeSet::new(), Scope::Everybody),
            None => return self.close_unused(id, out),
        };
        let before = self.director.replace(id);
        self.director_last = self.conns.get(&id).map(|conn| conn.process);
        let elected = assignment.director.filter(|elected| self.director_last != Some(*elected));
        let is_elected = |id: &ConnId| self.conns.get(id).is_some_and(|conn| Some(conn.process) == elected);
        let attempt = asked.iter().copied().find(is_elected);
        let attempt_before = std::mem::replace(&mut self.better, attempt);
        self.adopt(at, assignment, out);
        let present = self.server_last.map(|(host, _)| host);
        if scope == Scope::Down && self.primary_elsewhere(present).is_some() {
            // Worth asking for again, should somebody cut off be believed once more.
            self.opinions.clear();
        }
        for other in asked.into_iter().chain(before).chain(attempt_before).filter(|other| *other != id) {
            self.close_unused(other, out);
        }
        self.take_back_from_silent();
    }

    /// A host that dies takes a director of its own along, and its clients would hear of the death from nobody. So
    /// another host's primary is asked to tell instead, calmly: it knows of each host's death as soon as any process
    /// does, and whoever has to move there needs no handshake.
    pub(super) fn settle_lookout(&mut self, at: Instant, out: &mut Outputs) {
        if !self.may_keep_more() || self.config.via.is_some() || self.search.is_some() || self.better.is_some() {
            return;
        }
        let of = |id: ConnId| self.conns.get(&id).and_then(Conn::host);
        let Some(host) = self.good_server().and_then(of).filter(|host| self.director.and_then(of) == Some(*host))
        else {
            return;
        };
        let Some(elsewhere) = self.primary_elsewhere(Some(host)) else { return };
        self.better = self.conn_to(elsewhere).or_else(|| self.dial(at, elsewhere, out));
        if let Some(id) =
            self.better.filter(|id| self.conns.get(id).is_some_and(|conn| conn.state != ConnState::Dialing))
        {
            self.ask_assignment(at, id, out);
        }
    }

    /// Takes in an assignment, or a change of it.
    pub(super) fn adopt(&mut self, at: Instant, assignment: Assignment, out: &mut Outputs) {
        for host in &assignment.hosts {
            self.believe(host.host, host.serving, host.epoch);
            for process in &host.processes {
                // The live cluster knows better than what was written down, but only keys that are pinned are dialed.
                if let Some(addr) = self.addrs.get_mut(&process.id) {
                    *addr = process.addr;
                }
            }
        }
        tracing::trace!(at = at.as_micros(), hosts = assignment.hosts.len(), "a new assignment");
        self.assignment = Some(assignment);
        self.picture = Picture::Changed;
        self.probe_if_called_down(at, out);
        self.answer_assigns(out);
    }

    /// Somebody else tells who directs. The director that we hold has lost the duty then, and most likely its life,
    /// which nothing that is asked of it would show: without this, a change would be told to nobody.
    pub(super) fn on_other_director(&mut self, told: Option<ProcessId>, out: &mut Outputs) {
        let Some(told) = told.filter(|told| self.addrs.contains_key(told)) else { return };
        let Some(before) = self.assignment.as_mut().and_then(|assignment| assignment.director.replace(told)) else {
            return;
        };
        let Some(held) = self.director.filter(|id| self.conns.get(id).is_some_and(|conn| conn.process == before))
        else {
            return;
        };
        if before != told {
            self.director = None;
            self.close_unused(held, out);
            self.want_search();
        }
    }

    /// Answers the callers who wait for an assignment.
    pub(super) fn answer_assigns(&mut self, out: &mut Outputs) {
        let Some(assignment) = self.assignment.clone() else { return };
        let waiting: Vec<CallKey> =
            self.calls.iter().filter(|(_, call)| call.body == RequestBody::Assign).map(|(key, _)| *key).collect();
        for key in waiting {
            self.finish(key, Ok(Response::Assigned(assignment.clone())), out);
        }
    }
}
