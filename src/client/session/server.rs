//! The server: which process requests go to, whom to try when it is no good, and who stands by.

use std::time::Duration;

use crate::client::options::Standby;
use crate::client::session::conn::{Conn, Punctual, Serving};
use crate::client::session::{ConnId, Login, LostNotice, Notice, Output, Outputs, Picture, Session};
use crate::id::{Epoch, HostId, ProcessId};
use crate::time::Instant;

/// Connections that race to become the server.
const CANDIDATES_MAX: usize = 3;
/// A process that was no good is left alone for this long; it doubles each time.
const AVOID: Duration = Duration::from_millis(25);
/// So often at most: 0.8 s.
const AVOID_DOUBLINGS_MAX: u32 = 5;

/// While there is nowhere to go, this often somebody is asked anew: a change may have been told to nobody.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Who serves on a host, as far as known; the newest epoch is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Belief {
    epoch: Epoch,
    serving: Option<ProcessId>,
}

/// A process that was no good lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Avoided {
    until: Instant,
    times: u32,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Left,
    /// It may be tried again; how often it was no good is still remembered.
    Over,
}

impl Avoided {
    pub(super) fn ends(&self) -> Option<Instant> {
        (self.phase == Phase::Left).then_some(self.until)
    }

    pub(super) fn is_over(&self, at: Instant) -> bool {
        self.phase == Phase::Left && self.until <= at
    }

    pub(super) fn note_end(&mut self, at: Instant) {
        if self.is_over(at) {
            self.phase = Phase::Over;
        }
    }
}

impl Session {
    /// Leaves a process alone for a while.
    pub(super) fn avoid(&mut self, at: Instant, process: ProcessId) {
        let times = self.avoided.get(&process).map_or(0, |avoided| avoided.times);
        self.avoid_for(at, process, AVOID * (1 << times.min(AVOID_DOUBLINGS_MAX)));
    }

    /// Leaves a process alone for this long.
    pub(super) fn avoid_for(&mut self, at: Instant, process: ProcessId, wait: Duration) {
        let times = self.avoided.get(&process).map_or(0, |avoided| avoided.times);
        let until = at + wait;
        self.avoided.insert(process, Avoided { until, times: times + 1, phase: Phase::Left });
        self.picture = Picture::Changed;
    }

    /// It has answered well.
    pub(super) fn trust_again(&mut self, process: ProcessId) {
        if !self.avoided.is_empty() && self.avoided.remove(&process).is_some() {
            self.picture = Picture::Changed;
        }
    }

    pub(super) fn is_avoided(&self, process: ProcessId) -> bool {
        self.avoided.get(&process).is_some_and(|avoided| avoided.phase == Phase::Left)
    }

    /// Takes in who serves on a host. A process that takes over is worth a try, whatever it was before.
    pub(super) fn believe(&mut self, host: HostId, serving: Option<ProcessId>, epoch: Epoch) {
        let belief = self.beliefs.entry(host).or_insert(Belief { epoch: Epoch::ZERO, serving: None });
        if epoch < belief.epoch {
            return;
        }
        let newer = epoch > belief.epoch;
        *belief = Belief { epoch, serving };
        if let Some(process) = serving.filter(|_| newer) {
            self.avoided.remove(&process);
        }
        self.picture = Picture::Changed;
    }

    /// A process tells of its own duty.
    pub(super) fn on_serving(&mut self, at: Instant, id: ConnId, serving: Serving, epoch: Epoch) {
        let Some((process, Some(host))) = self.conns.get(&id).map(|conn| (conn.process, conn.host())) else { return };
        let believed = self.beliefs.get(&host).copied();
        match serving {
            Serving::Begins => {
                if believed.is_none_or(|belief| epoch >= belief.epoch) {
                    self.avoided.remove(&process);
                }
                self.believe(host, Some(process), epoch);
            }
            Serving::Ends => {
                if believed.is_some_and(|belief| belief.serving == Some(process)) {
                    self.believe(host, None, epoch);
                }
                if self.server == Some(id) {
                    self.avoid(at, process);
                    self.want_search();
                }
            }
        }
    }

    /// Acts on the picture: makes connections be what they should be. The only place that chooses.
    pub(super) fn settle(&mut self, at: Instant, out: &mut Outputs) {
        if self.assignment.is_none() || self.director.is_none() {
            self.want_search();
        }
        self.search_on(at, out);
        if self.config.login == Login::Person {
            self.settle_server(at, out);
            self.settle_standby(at, out);
            self.settle_lookout(at, out);
            let lost = self.good_server().is_none() && self.candidates.is_empty();
            self.ask_at = lost.then(|| self.ask_at.unwrap_or(at + ASK_AGAIN));
        }
        self.send_waiting(at, out);
        self.open_waiting_feeds(at, out);
        // What was decided here is not news.
        self.picture = Picture::Settled;
    }

    fn settle_server(&mut self, at: Instant, out: &mut Outputs) {
        if self.server.is_some_and(|id| self.is_good(id)) {
            for id in std::mem::take(&mut self.candidates) {
                self.close_unused(id, out);
            }
            return self.tell_found(out);
        }
        // The first candidate that has answered wins, whichever is preferred by now.
        let ready = self.candidates.iter().copied().find(|id| self.is_good(*id));
        if let Some(id) = ready {
            return self.switch_to(at, id, out);
        }
        let Some(process) = self.choose() else { return };
        match self.conn_to(process) {
            Some(id) if self.is_good(id) => self.switch_to(at, id, out),
            Some(id) => {
                self.candidates.insert(id);
            }
            None if self.candidates.len() < CANDIDATES_MAX => {
                let dialed = self.dial(at, process, out);
                self.candidates.extend(dialed);
            }
            None => {}
        }
    }

    /// The server, if requests may go there now.
    pub(super) fn good_server(&self) -> Option<ConnId> {
        self.server.filter(|id| self.is_good(*id))
    }

    /// Whether the caller lets this host be used.
    pub(super) fn may_use(&self, host: HostId) -> bool {
        self.config.via.is_none_or(|via| via == host)
    }

    /// Whether requests may go here, and nowhere better.
    fn is_good(&self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get(&id) else { return false };
        let Some(host) = conn.host() else { return false };
        let serves = self.beliefs.get(&host).is_none_or(|belief| belief.serving.is_none_or(|p| p == conn.process));
        conn.is_trusted()
            && serves
            && self.may_use(host)
            && !self.is_avoided(conn.process)
            && self.is_ready_enough(host, conn)
    }

    /// Whether clients may go to this host, or could not go anywhere better. A director that knows of no primary there may
    /// not reach the host, which for it is down; who has a connection that answers knows better, and would leave what it
    /// has seen for a host that is cut off with the director. If that connection is silent as well, the director is right.
    fn is_ready_enough(&self, host: HostId, conn: &Conn) -> bool {
        let Some(assignment) = &self.assignment else { return true };
        let ready = assignment
            .hosts
            .iter()
            .any(|one| one.host == host && (one.ready || one.serving.is_none() && conn.answers()));
        ready
            || self.config.via.is_some()
            || !assignment.hosts.iter().any(|other| other.ready && self.primary_of(other.host).is_some())
    }

    /// A host's primary, if it may be tried now.
    fn primary_of(&self, host: HostId) -> Option<ProcessId> {
        let process = self.beliefs.get(&host)?.serving?;
        (self.addrs.contains_key(&process) && !self.is_avoided(process)).then_some(process)
    }

    /// Whom to try: of the present host if it can be, for it holds all that was seen here; else in the order of the
    /// assignment. Hosts that are not ready, and a server that is silent, come last.
    fn choose(&self) -> Option<ProcessId> {
        let assignment = self.assignment.as_ref()?;
        let present = self.server_last.map(|(host, _)| host);
        let silent = self.server.and_then(|id| self.conns.get(&id)).filter(|conn| !conn.is_trusted());
        let rank = |index: usize, host: HostId, ready: bool, process: ProcessId| {
            let is_silent = silent.is_some_and(|conn| conn.process == process);
            (!ready, is_silent, present != Some(host), index)
        };
        assignment
            .hosts
            .iter()
            .enumerate()
            .filter(|(_, host)| self.may_use(host.host))
            .filter_map(|(index, host)| {
                let process = self.primary_of(host.host)?;
                Some((rank(index, host.host, host.ready, process), process))
            })
            .min()
            .map(|(_, process)| process)
    }

    /// Whether another host could be tried with a request that `host` refuses.
    pub(super) fn has_other_host(&self, refusing: &[HostId]) -> bool {
        self.assignment.as_ref().is_some_and(|assignment| {
            assignment.hosts.iter().any(|other| {
                other.ready
                    && !refusing.contains(&other.host)
                    && self.may_use(other.host)
                    && self.beliefs.get(&other.host).is_some_and(|belief| belief.serving.is_some())
            })
        })
    }

    /// Makes this connection the server: everything unanswered is asked again here, with the same ids.
    fn switch_to(&mut self, at: Instant, id: ConnId, out: &mut Outputs) {
        let Some((process, Some(host))) = self.conns.get(&id).map(|conn| (conn.process, conn.host())) else { return };
        let before = self.server.replace(id);
        let waits = self.config.standby == Standby::Next && !self.config.standby_after.is_zero();
        self.standby_from = waits.then(|| at + self.config.standby_after);
        let candidates = std::mem::take(&mut self.candidates);
        let moved = self.server_last.is_some_and(|last| last != (host, process));
        if moved || self.lost == LostNotice::Told {
            out.push(Output::Notice(Notice::Moved { host, process }));
        }
        self.lost = LostNotice::Untold;
        self.server_last = Some((host, process));
        if let Some(before) = before.filter(|before| *before != id) {
            self.take_all_back(before);
            self.close_feed_streams(before, out);
            self.close_unused(before, out);
        }
        for other in candidates {
            self.close_unused(other, out);
        }
    }

    /// The server that was silent has answered after all.
    fn tell_found(&mut self, out: &mut Outputs) {
        if let (LostNotice::Told, Some((host, process))) = (self.lost, self.server_last) {
            self.lost = LostNotice::Untold;
            out.push(Output::Notice(Notice::Moved { host, process }));
        }
    }

    /// Tells people once that another way is looked for.
    pub(super) fn tell_lost(&mut self, out: &mut Outputs) {
        if self.lost == LostNotice::Untold {
            self.lost = LostNotice::Told;
            out.push(Output::Notice(Notice::Reconnecting));
        }
    }

    /// Attempts that take long are no longer waited for alone.
    pub(super) fn watch_candidates(&mut self, at: Instant) {
        let late: Vec<_> = self
            .candidates
            .iter()
            .filter(|id| self.conns.get(id).and_then(|conn| conn.late_at()).is_some_and(|late| late <= at))
            .copied()
            .collect();
        for id in late {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.punctual = Punctual::Late;
                let process = conn.process;
                self.avoid(at, process);
                self.want_search();
            }
        }
    }

    /// Whether other connections than the server's are worth their handshakes: it has been good for a while.
    pub(super) fn may_keep_more(&self) -> bool {
        self.config.standby == Standby::Next && self.standby_from.is_none() && self.good_server().is_some()
    }

    /// Keeps a second connection, to whoever would take over: its "I serve now" then costs no handshake. In a crowd
    /// whose server dies, handshakes are most of the pause.
    fn settle_standby(&mut self, at: Instant, out: &mut Outputs) {
        if !self.may_keep_more() {
            return;
        }
        let Some(next) = self.next_in_line() else { return };
        let kept = self.standby.and_then(|id| self.conns.get(&id)).map(|conn| conn.process);
        if kept == Some(next) {
            return;
        }
        let before = self.standby.take();
        self.standby = self.conn_to(next).or_else(|| self.dial(at, next, out));
        if let Some(before) = before {
            self.close_unused(before, out);
        }
    }

    /// The primary of the first other host that is ready.
    pub(super) fn primary_elsewhere(&self, host: Option<HostId>) -> Option<ProcessId> {
        let hosts = self.assignment.iter().flat_map(|assignment| &assignment.hosts);
        hosts.filter(|other| Some(other.host) != host && other.ready).find_map(|other| self.primary_of(other.host))
    }

    /// The sibling of the server that would take over, else another host's primary.
    fn next_in_line(&self) -> Option<ProcessId> {
        let (host, process) = self.server_last?;
        let hosts = &self.assignment.as_ref()?.hosts;
        let siblings = hosts.iter().filter(|one| one.host == host).flat_map(|one| &one.processes).map(|one| one.id);
        let others = hosts.iter().filter(|one| one.host != host).filter_map(|one| self.primary_of(one.host));
        siblings.chain(others).find(|next| *next != process && self.addrs.contains_key(next) && !self.is_avoided(*next))
    }
}
