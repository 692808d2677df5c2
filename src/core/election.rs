//! The bully election of one duty (Garcia-Molina 1982), by place.
//!
//! An election decides who works, never what is true: the store's fence guards the truth, so a wrong suspicion costs
//! milliseconds. Candidates stand in order of place, best first. Who finds the leader gone stands for the duty: it asks
//! the better placed that live, and wins at once when there are none. Inside a host the kernel says who lives, so the
//! usual election takes no message at all. A leader stays while it lives.
//!
//! What this leaves to others: who lives (the node asks [`crate::core::mesh`]), the epoch of `Serve` (the store), and
//! carrying the duty out. Invariant: `Leading` only when `leader` is this process.

use crate::core::io::{Output, Outputs};
use crate::id::{Epoch, ProcessId};
use crate::limits;
use crate::time::Instant;
use crate::wire::heartbeat::Duty;
use crate::wire::peer::PeerMessage;

/// What is known of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It lives and may hold the duty.
    Fit,
    /// It is stopped or silent: it may come back, so the duty is not moved again at once.
    Suspect,
    /// It is dead, gone, or drained.
    Gone,
}

/// What changed for this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Same,
    /// This process has won the duty.
    Won,
    /// This process has lost the duty to another.
    Lost,
    /// Another process has the duty now, or the same one anew.
    Follow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Just started: somebody may have the duty already.
    Listening { until: Instant },
    /// There is a leader, or this process may not stand.
    Following,
    /// Better placed processes were asked whether they live.
    Asking { until: Instant },
    /// This process has won, and takes the epoch: until it has that, it claims nothing. Clients would come and be sent
    /// away, and what the relay tells a new primary would meet none.
    Elected,
    /// One of them does, and should take over.
    Deferring { until: Instant },
    /// This process has the duty.
    Leading,
}

/// One duty's election, as one candidate sees it.
#[derive(Debug)]
pub(crate) struct Election {
    duty: Duty,
    me: ProcessId,
    /// Best place first.
    order: Vec<ProcessId>,
    state: State,
    leader: Option<ProcessId>,
    epoch: Epoch,
    /// When this process last moved the duty away from a suspect, without a death.
    moved_at: Option<Instant>,
    /// Heartbeats in a row in which the leader did not claim the duty.
    unclaimed: u32,
}

impl Election {
    /// A candidate that listens first. The best placed listens only if `hears` somebody could answer.
    pub(crate) fn new(duty: Duty, me: ProcessId, order: Vec<ProcessId>, now: Instant) -> Self {
        let state = State::Listening { until: now + limits::ELECTION_WAIT };
        Self { duty, me, order, state, leader: None, epoch: Epoch::ZERO, moved_at: None, unclaimed: 0 }
    }

    /// Who has the duty.
    pub(crate) fn leader(&self) -> Option<ProcessId> {
        self.leader
    }

    /// Whether this process has it, or has won it and takes the epoch.
    pub(crate) fn leads(&self) -> bool {
        matches!(self.state, State::Elected | State::Leading)
    }

    /// The newest epoch heard of.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The candidates, best placed first.
    pub(crate) fn order(&self) -> &[ProcessId] {
        &self.order
    }

    fn place(&self, process: ProcessId) -> usize {
        self.order.iter().position(|candidate| *candidate == process).unwrap_or(usize::MAX)
    }

    fn others(&self) -> impl Iterator<Item = ProcessId> + '_ {
        self.order.iter().copied().filter(|candidate| *candidate != self.me)
    }

    /// Looks at who lives, and stands for the duty if it is free. Call after every change and timeout.
    pub(crate) fn evaluate(
        &mut self,
        now: Instant,
        standing: &dyn Fn(ProcessId) -> Standing,
        out: &mut Outputs,
    ) -> Verdict {
        let mut cause = Cause::Free;
        if let Some(leader) = self.leader.filter(|leader| *leader != self.me) {
            match standing(leader) {
                Standing::Fit => return Verdict::Same,
                Standing::Suspect if self.held_at(now) => return Verdict::Same,
                Standing::Suspect => cause = Cause::Suspicion,
                Standing::Gone => {}
            }
            self.leader = None;
            self.state = State::Following;
        }
        if self.leads() {
            return Verdict::Same;
        }
        if standing(self.me) != Standing::Fit {
            self.state = State::Following;
            return Verdict::Same;
        }
        match self.state {
            State::Listening { until } if now < until && !self.alone(standing) => Verdict::Same,
            State::Asking { until } if now >= until => self.win(),
            State::Deferring { until } if now < until => Verdict::Same,
            State::Asking { .. } if !self.better(standing).is_empty() => Verdict::Same,
            State::Listening { .. }
            | State::Following
            | State::Asking { .. }
            | State::Deferring { .. }
            | State::Elected
            | State::Leading => self.stand(now, standing, cause, out),
        }
    }

    /// The best placed of a host in which nobody else lives need not listen.
    fn alone(&self, standing: &dyn Fn(ProcessId) -> Standing) -> bool {
        self.place(self.me) == 0 && self.others().all(|other| standing(other) == Standing::Gone)
    }

    fn better(&self, standing: &dyn Fn(ProcessId) -> Standing) -> Vec<ProcessId> {
        let place = self.place(self.me);
        self.order[..place.min(self.order.len())]
            .iter()
            .copied()
            .filter(|candidate| standing(*candidate) == Standing::Fit)
            .collect()
    }

    fn stand(
        &mut self,
        now: Instant,
        standing: &dyn Fn(ProcessId) -> Standing,
        cause: Cause,
        out: &mut Outputs,
    ) -> Verdict {
        if cause == Cause::Suspicion {
            self.moved_at = Some(now);
        }
        let better = self.better(standing);
        if better.is_empty() {
            return self.win();
        }
        let message = PeerMessage::Election { duty: self.duty };
        out.extend(better.into_iter().map(|to| Output::Send { to, message: message.clone() }));
        self.state = State::Asking { until: now + limits::ELECTION_WAIT };
        Verdict::Same
    }

    fn win(&mut self) -> Verdict {
        (self.state, self.leader) = match self.duty {
            Duty::Serve => (State::Elected, None),
            Duty::Direct | Duty::Relay => (State::Leading, Some(self.me)),
        };
        Verdict::Won
    }

    /// Whether the duty moved without a death so lately that it must not move again.
    fn held_at(&self, now: Instant) -> bool {
        self.moved_at.is_some_and(|moved_at| now < moved_at + limits::DUTY_HOLD)
    }

    /// Tells every other candidate that this process has the duty.
    pub(crate) fn announce(&mut self, epoch: Epoch, out: &mut Outputs) {
        self.epoch = self.epoch.max(epoch);
        let message = self.claim();
        out.extend(self.others().map(|to| Output::Send { to, message: message.clone() }));
    }

    fn claim(&self) -> PeerMessage {
        PeerMessage::Coordinator { duty: self.duty, epoch: self.epoch }
    }

    /// What a leader says to one that has just connected.
    pub(crate) fn greet(&self, peer: ProcessId, out: &mut Outputs) {
        if self.state == State::Leading && self.order.contains(&peer) {
            out.push(Output::Send { to: peer, message: self.claim() });
        }
    }

    /// Somebody stands for the duty.
    pub(crate) fn on_election(&mut self, now: Instant, from: ProcessId, fit: Standing, out: &mut Outputs) {
        if self.state == State::Leading {
            out.push(Output::Send { to: from, message: self.claim() });
        } else if fit == Standing::Fit && self.place(self.me) < self.place(from) {
            out.push(Output::Send { to: from, message: PeerMessage::Alive { duty: self.duty } });
            if matches!(self.state, State::Listening { .. }) {
                self.state = State::Listening { until: now };
            }
        }
    }

    /// A better placed process lives.
    pub(crate) fn on_alive(&mut self, now: Instant, from: ProcessId) {
        if matches!(self.state, State::Asking { .. }) && self.place(from) < self.place(self.me) {
            self.state = State::Deferring { until: now + limits::ELECTION_WAIT };
        }
    }

    /// Somebody says that it has the duty.
    pub(crate) fn on_coordinator(&mut self, from: ProcessId, epoch: Epoch, out: &mut Outputs) -> Verdict {
        if from == self.me || self.place(from) == usize::MAX {
            return Verdict::Same;
        }
        if self.leads() && !self.yields_to(from, epoch) {
            if self.state == State::Leading {
                out.push(Output::Send { to: from, message: self.claim() });
            }
            return Verdict::Same;
        }
        if self.duty == Duty::Serve && epoch < self.epoch {
            return Verdict::Same;
        }
        let verdict = match (self.leads(), self.leader == Some(from)) {
            (true, _) => Verdict::Lost,
            // A new term of the same process knows nothing of its last one.
            (false, true) if self.duty == Duty::Serve && epoch > self.epoch => Verdict::Follow,
            (false, true) => Verdict::Same,
            (false, false) => Verdict::Follow,
        };
        self.epoch = self.epoch.max(epoch);
        self.leader = Some(from);
        self.state = State::Following;
        self.unclaimed = 0;
        verdict
    }

    /// If two hold one duty, the newer epoch keeps `Serve`, and the better place the others.
    fn yields_to(&self, from: ProcessId, epoch: Epoch) -> bool {
        match self.duty {
            Duty::Serve => epoch > self.epoch,
            Duty::Direct | Duty::Relay => self.place(from) < self.place(self.me),
        }
    }

    /// A heartbeat of another candidate; `claims` whether it names this duty. Heals lost announcements.
    pub(crate) fn on_heartbeat(&mut self, from: ProcessId, claims: Claims, epoch: Epoch, out: &mut Outputs) -> Verdict {
        match claims {
            Claims::Yes => self.on_coordinator(from, epoch, out),
            Claims::No if self.leader == Some(from) => {
                // One such heartbeat may have been overtaken by the announcement; three in a row were not.
                self.unclaimed += 1;
                if self.unclaimed >= 3 {
                    self.leader = None;
                    self.unclaimed = 0;
                }
                Verdict::Same
            }
            Claims::No => Verdict::Same,
        }
    }

    /// The process of this name died or started anew: if it led, nobody does.
    pub(crate) fn on_gone(&mut self, process: ProcessId) {
        if self.leader == Some(process) && process != self.me {
            self.leader = None;
            self.state = State::Following;
        }
    }

    /// This process gives the duty up (it leaves, or was fenced by a newer epoch).
    pub(crate) fn resign(&mut self, now: Instant, newest: Epoch) {
        self.epoch = self.epoch.max(newest);
        if self.leads() {
            // Whoever is better informed announces itself; stand again only if nobody does.
            self.leader = None;
            self.state = State::Deferring { until: now + limits::ELECTION_WAIT };
        }
    }

    /// Whoever has the duty is not known to live yet: this process stands again only if it stays so.
    pub(crate) fn defer(&mut self, now: Instant) {
        self.leader = None;
        self.state = State::Deferring { until: now + limits::ELECTION_WAIT };
    }

    /// This process holds the newest epoch, whoever announced itself meanwhile.
    pub(crate) fn seize(&mut self) {
        self.state = State::Leading;
        self.leader = Some(self.me);
    }

    /// When `evaluate` is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Listening { until } | State::Asking { until } | State::Deferring { until } => Some(until),
            State::Following if self.leader.is_some() => self.moved_at.map(|at| at + limits::DUTY_HOLD),
            State::Following | State::Elected | State::Leading => None,
        }
    }

    /// Forgets the hold once it is over, so that it is not a timeout for ever.
    pub(crate) fn on_timeout(&mut self, now: Instant) {
        if self.moved_at.is_some() && !self.held_at(now) {
            self.moved_at = None;
        }
    }
}

/// Why a candidate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Nobody has the duty.
    Free,
    /// Whoever has it is stopped or silent, and may come back.
    Suspicion,
}

/// Whether a heartbeat claims a duty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claims {
    /// It does.
    Yes,
    /// It does not.
    No,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn id(name: &str) -> ProcessId {
        name.parse().unwrap()
    }

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    /// Three candidates; those not named are fit.
    fn standings(known: &[(&str, Standing)]) -> impl Fn(ProcessId) -> Standing {
        let known: BTreeMap<ProcessId, Standing> = known.iter().map(|(name, standing)| (id(name), *standing)).collect();
        move |process| known.get(&process).copied().unwrap_or(Standing::Fit)
    }

    fn candidate(name: &str) -> Election {
        Election::new(Duty::Serve, id(name), vec![id("W5"), id("W6"), id("W7")], at(0))
    }

    /// Wins and takes the epoch.
    fn serve(election: &mut Election, epoch: u64, out: &mut Outputs) {
        assert_eq!(election.evaluate(at(10), &standings(&[("W5", Standing::Gone)]), out), Verdict::Won);
        election.seize();
        election.announce(Epoch(epoch), out);
    }

    fn following(name: &str, leader: &str, epoch: u64) -> Election {
        let mut election = candidate(name);
        assert_eq!(election.on_coordinator(id(leader), Epoch(epoch), &mut Vec::new()), Verdict::Follow);
        election
    }

    #[test]
    fn the_best_placed_wins_at_once_when_nobody_else_lives() {
        let mut out = Vec::new();
        let alone = standings(&[("W6", Standing::Gone), ("W7", Standing::Gone)]);
        assert_eq!(candidate("W5").evaluate(at(1), &alone, &mut out), Verdict::Won);
        assert_eq!(out, vec![]);
    }

    /// Its claim would be answered with a claim for as long as the kernel has not shown it.
    #[test]
    fn a_claim_of_a_sibling_that_is_not_known_to_live_is_left_alone_until_it_is() {
        use crate::core::io::Input;
        use crate::core::testing::{at, first};
        use crate::wire::heartbeat::Life;

        let (mut node, mut out) = (first(), Vec::new());
        let claim = || {
            let message = PeerMessage::Coordinator { duty: Duty::Relay, epoch: Epoch::ZERO };
            Input::Peer { from: id("W2"), message }
        };
        node.handle_input(at(10), claim(), &mut out);
        let claims = |output: &Output| matches!(output, Output::Send { message, .. } if *message == node.elections.relay.claim());
        assert_eq!((node.elections.relay.leader(), out.iter().any(claims)), (None, false));
        node.handle_input(at(20), Input::Sibling { process: id("W2"), life: Life::Up, pid: 2 }, &mut out);
        node.handle_input(at(30), claim(), &mut out);
        assert_eq!(node.elections.relay.leader(), Some(id("W2")));
    }

    #[test]
    fn one_that_starts_listens_before_it_stands() {
        let mut out = Vec::new();
        let mut election = candidate("W6");
        assert_eq!(election.evaluate(at(1), &standings(&[]), &mut out), Verdict::Same);
        assert_eq!(out, vec![]);
        assert_eq!(election.evaluate(at(300), &standings(&[]), &mut out), Verdict::Same);
        let message = PeerMessage::Election { duty: Duty::Serve };
        assert_eq!(out, vec![Output::Send { to: id("W5"), message }]);
    }

    #[test]
    fn a_death_makes_the_next_best_win_without_a_message() {
        let mut out = Vec::new();
        let mut election = following("W6", "W5", 4);
        assert_eq!(election.evaluate(at(10), &standings(&[("W5", Standing::Gone)]), &mut out), Verdict::Won);
        assert_eq!(out, vec![]);
        let mut last = following("W7", "W5", 4);
        assert_eq!(last.evaluate(at(10), &standings(&[("W5", Standing::Gone)]), &mut out), Verdict::Same);
        assert_eq!(out.len(), 1, "it asks W6, which lives: {out:?}");
    }

    #[test]
    fn a_better_place_does_not_take_the_duty_from_a_living_leader() {
        let mut out = Vec::new();
        let mut election = following("W5", "W6", 2);
        for ms in [10, 500, 5_000] {
            assert_eq!(election.evaluate(at(ms), &standings(&[]), &mut out), Verdict::Same);
        }
        assert_eq!((out, election.leader()), (vec![], Some(id("W6"))));
    }

    #[test]
    fn without_a_death_the_duty_moves_at_most_once_in_the_hold() {
        let mut out = Vec::new();
        let suspect = standings(&[("W5", Standing::Suspect)]);
        let mut election = following("W6", "W5", 1);
        assert_eq!(election.evaluate(at(10), &suspect, &mut out), Verdict::Won);
        election.seize();
        election.announce(Epoch(2), &mut out);
        assert_eq!(election.on_coordinator(id("W5"), Epoch(3), &mut out), Verdict::Lost);
        assert_eq!(election.evaluate(at(1_000), &suspect, &mut out), Verdict::Same, "held");
        assert_eq!(election.poll_timeout(), Some(at(2_010)));
        assert_eq!(election.evaluate(at(2_010), &suspect, &mut out), Verdict::Won);
    }

    #[test]
    fn the_newer_epoch_keeps_the_duty_and_the_older_is_told() {
        let mut out = Vec::new();
        let mut election = following("W6", "W5", 4);
        serve(&mut election, 5, &mut out);
        out.clear();
        assert_eq!(election.on_coordinator(id("W5"), Epoch(4), &mut out), Verdict::Same);
        let message = PeerMessage::Coordinator { duty: Duty::Serve, epoch: Epoch(5) };
        assert_eq!(out, vec![Output::Send { to: id("W5"), message }]);
        assert_eq!(election.on_coordinator(id("W7"), Epoch(6), &mut out), Verdict::Lost);
    }

    #[test]
    fn a_winner_claims_nothing_before_it_has_the_epoch() {
        let mut out = Vec::new();
        let mut election = following("W6", "W5", 4);
        let dead = standings(&[("W5", Standing::Gone)]);
        assert_eq!(election.evaluate(at(10), &dead, &mut out), Verdict::Won);
        election.greet(id("W7"), &mut out);
        assert_eq!((election.leader(), &out), (None, &vec![]));
        election.on_election(at(11), id("W7"), Standing::Fit, &mut out);
        assert_eq!(out, vec![Output::Send { to: id("W7"), message: PeerMessage::Alive { duty: Duty::Serve } }]);
        assert_eq!(
            election.on_coordinator(id("W5"), Epoch(4), &mut out),
            Verdict::Same,
            "who wakes up holds nothing up"
        );
        assert_eq!(election.evaluate(at(12), &dead, &mut out), Verdict::Same);
        election.seize();
        assert_eq!((election.leader(), out.len()), (Some(id("W6")), 1));
    }

    #[test]
    fn a_new_term_of_the_same_leader_is_followed_anew() {
        let mut election = following("W7", "W5", 1);
        let mut hear = |epoch| election.on_coordinator(id("W5"), Epoch(epoch), &mut Vec::new());
        assert_eq!([hear(1), hear(2), hear(2)], [Verdict::Same, Verdict::Follow, Verdict::Same]);
    }

    #[test]
    fn an_answer_of_a_better_one_defers_and_its_silence_ends_that() {
        let mut out = Vec::new();
        let mut election = following("W7", "W5", 1);
        let dead = standings(&[("W5", Standing::Gone)]);
        election.evaluate(at(10), &dead, &mut out);
        election.on_alive(at(20), id("W6"));
        assert_eq!(election.evaluate(at(319), &dead, &mut out), Verdict::Same);
        assert_eq!(election.evaluate(at(320), &dead, &mut out), Verdict::Same, "asks once more");
        assert_eq!(election.evaluate(at(620), &dead, &mut out), Verdict::Won, "and then takes over");
    }

    #[test]
    fn a_leader_that_no_longer_claims_its_duty_is_let_go() {
        let mut out = Vec::new();
        let mut election = following("W6", "W5", 1);
        for _ in 0..3 {
            assert_eq!(election.leader(), Some(id("W5")));
            election.on_heartbeat(id("W5"), Claims::No, Epoch(1), &mut out);
        }
        assert_eq!(election.leader(), None);
    }
}
