//! Which duties a node has: claims of others, the verdicts of its elections, and what follows from them.

use crate::core::election::{Election, Standing, Verdict};
use crate::core::io::Outputs;
use crate::core::mesh::Willing;
use crate::core::node::{Node, Phase};
use crate::id::{Epoch, ProcessId};
use crate::time::Now;
use crate::wire::heartbeat::Duty;

impl Node {
    pub(crate) fn election(&mut self, duty: Duty) -> Option<&mut Election> {
        match duty {
            Duty::Serve => Some(&mut self.elections.serve),
            Duty::Relay => Some(&mut self.elections.relay),
            Duty::Direct => self.elections.direct.as_mut(),
        }
    }

    pub(crate) fn on_coordinator(&mut self, now: Now, from: ProcessId, duty: Duty, epoch: Epoch, out: &mut Outputs) {
        let heeds = self.heeds_claim(now, from, duty);
        let Some(election) = self.election(duty).filter(|_| heeds) else { return };
        let verdict = election.on_coordinator(from, epoch, out);
        self.on_verdict(now, duty, verdict, out);
    }

    /// Whether a claim is to be followed or answered. One of a sibling that is not known to live yet, or is drained, is
    /// not: whoever follows it finds it gone, takes the duty and claims it at once, and is answered with a claim, without
    /// end; and all of a host that starts do so together, ever more of them. It claims again when it is known to live, and
    /// gives its duties up when it knows of who is not drained. Only a primary gives way at once.
    pub(crate) fn heeds_claim(&self, now: Now, from: ProcessId, duty: Duty) -> bool {
        let gone = self.mesh.is_down(from) || (self.mesh.is_drained(from) && !self.is_last_resort(now, duty));
        !gone || (duty == Duty::Serve && self.elections.serve.leads())
    }

    /// Whether this process was drained, and so was everybody else who could have the duty: then they take it again,
    /// which is better than nobody. A master of another host that lives counts as willing: what it said of itself would be
    /// hard to keep true over its runs, and whoever finds nobody to direct may ask any process.
    fn is_last_resort(&self, now: Now, duty: Duty) -> bool {
        let others = match (duty, &self.elections.direct) {
            (Duty::Direct, Some(direct)) => {
                let others = direct.order().iter().filter(|process| **process != self.config.me);
                others.into_iter().any(|process| self.mesh.standing(now.mono, *process) == Standing::Fit)
            }
            (Duty::Direct, None) | (Duty::Serve | Duty::Relay, _) => self.successor_lives(now),
        };
        self.phase == Phase::Running && self.mesh.willing == Willing::No && !others
    }

    /// Looks at every election, and does what follows from it.
    pub(crate) fn decide(&mut self, now: Now, out: &mut Outputs) {
        for duty in [Duty::Serve, Duty::Relay, Duty::Direct] {
            let drained = self.is_last_resort(now, duty);
            if self.mesh.willing == Willing::No && !drained {
                self.resign_unless_serving(now, duty);
            }
            let mesh = &self.mesh;
            let standing = |process| {
                if drained { mesh.ability(now.mono, process) } else { mesh.standing(now.mono, process) }
            };
            let verdict = match duty {
                Duty::Serve => self.elections.serve.evaluate(now.mono, &standing, out),
                Duty::Relay => self.elections.relay.evaluate(now.mono, &standing, out),
                Duty::Direct => {
                    let Some(direct) = &mut self.elections.direct else { continue };
                    direct.evaluate(now.mono, &standing, out)
                }
            };
            self.on_verdict(now, duty, verdict, out);
        }
        self.wish_restarts(now, out);
        self.relay_views(now, out);
        self.push_routes(now, out);
        self.leave_if_done(now, out);
    }

    pub(crate) fn on_verdict(&mut self, now: Now, duty: Duty, verdict: Verdict, out: &mut Outputs) {
        match (duty, verdict) {
            (_, Verdict::Same) => {}
            (Duty::Serve, Verdict::Won) => self.take_epoch(now, out),
            (Duty::Serve, Verdict::Lost | Verdict::Follow) => {
                // It has a newer epoch, and the kernel will show it soon: taking the duty back at once would not last.
                if self.elections.serve.leader().is_some_and(|leader| self.mesh.is_down(leader)) {
                    self.elections.serve.defer(now.mono);
                }
                self.step_down(out);
                self.tell_primary_copies(out);
            }
            (Duty::Relay, Verdict::Won) => {
                self.elections.relay.announce(Epoch::ZERO, out);
                self.begin_relay(now, out);
            }
            (Duty::Relay, Verdict::Lost) => self.end_relay(),
            (Duty::Relay, Verdict::Follow) => self.nudge_relay(out),
            (Duty::Direct, Verdict::Won) => {
                if let Some(direct) = &mut self.elections.direct {
                    direct.announce(Epoch::ZERO, out);
                }
            }
            (Duty::Direct, Verdict::Lost | Verdict::Follow) => {}
        }
    }

    /// A process of this host ended: its duties are free.
    pub(crate) fn on_gone(&mut self, process: ProcessId) {
        self.elections.serve.on_gone(process);
        self.elections.relay.on_gone(process);
        if let Some(direct) = &mut self.elections.direct {
            direct.on_gone(process);
        }
        self.restarts.on_gone(process);
    }

    pub(crate) fn on_unwilling(&mut self, from: ProcessId) {
        if let Some(sibling) = self.mesh.siblings.get_mut(&from) {
            sibling.willing = Willing::No;
        }
        if let Some(direct) = &mut self.elections.direct {
            direct.on_gone(from);
        }
        self.elections.relay.on_gone(from);
        // The primary serves until its successor has the epoch: its clients meet a pause of one commit.
        self.elections.serve.on_gone(from);
    }
}

#[cfg(test)]
mod tests;
