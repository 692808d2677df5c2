//! The end of a simulation: what the world looks like then, for the judge ([`super::history::end`]).

use std::collections::BTreeSet;

use gaggle::core::node::Node;
use gaggle::id::{EntryId, HostId, Origin, ProcessId, Seq, UserId};
use gaggle::service::blocks;
use gaggle::service::query::{self, Answer, Query};
use gaggle::topology::Role;
use gaggle::wire::RETIREMENTS;
use gaggle::wire::heartbeat::Duty;

use super::Mutant;
use super::history::end::{Moment, Shown};
use super::history::{Breach, Promise, Verdict};
use super::world::{Proc, State, World};

impl World {
    /// How the cluster is now.
    pub(crate) fn moment(&self) -> Moment {
        let down = self.procs.iter().filter(|proc| proc.state != State::Running);
        let waiting = self.people.iter().enumerate();
        let standings = self.disks.iter().map(|disk| disk.standing.as_ref());
        let held = standings.map(|standing| standing.map(|standing| (standing.vector.clone(), standing.digest)));
        Moment {
            down: down.map(|proc| (proc.id, format!("{:?}", proc.state))).collect(),
            unwilling: self.unwilling(),
            duties: self.duties(),
            waiting: waiting
                .filter_map(|(index, person)| {
                    let call = person.call.as_ref()?;
                    Some((index, call.asked.id.clone(), format!("{call:?}, at {:?}", person.conn)))
                })
                .collect(),
            held: held.collect(),
            unended: self.unended(),
        }
    }

    /// Origins that are no host's present one, and of which a host does not know that they have ended.
    fn unended(&self) -> Vec<(usize, Origin)> {
        if self.procs.iter().any(|proc| !proc.versions.knows(RETIREMENTS)) {
            return Vec::new();
        }
        let standings = self.disks.iter().map(|disk| disk.standing.as_ref()).enumerate();
        let standings: Vec<_> = standings.filter_map(|(host, standing)| Some((host, standing?))).collect();
        let present = |origin| standings.iter().any(|(_, standing)| standing.origin == Some(origin));
        let unended = standings.iter().flat_map(|(host, standing)| {
            let former = standing.vector.iter().filter(|(origin, _)| !present(*origin));
            let unsaid = former.filter(|(origin, last)| !standing.retired.ends(*origin, *last));
            unsaid.map(|(origin, _)| (*host, origin))
        });
        unended.collect()
    }

    /// Each host serves and relays; one master directs, or in a cluster without masters one process of each host.
    fn duties(&self) -> Vec<(String, Duty, Vec<ProcessId>)> {
        let mut duties = Vec::new();
        let masters = self.topology.has_masters();
        for host in 0..self.disks.len() {
            let directs = [Duty::Direct].into_iter().filter(|_| !masters);
            for duty in [Duty::Serve, Duty::Relay].into_iter().chain(directs) {
                duties.push((format!("host {host}"), duty, self.holders(duty, |at| at == host)));
            }
        }
        if masters {
            let holders = self.holders(Duty::Direct, |_| true);
            // No master knows of those of other hosts that they are drained: when all are, nobody need direct.
            let mut willing = self.masters().filter(|proc| !proc.drained).peekable();
            let hosts: BTreeSet<usize> = self.masters().map(|proc| proc.host).collect();
            if willing.peek().is_some() || hosts.len() == 1 || holders.len() > 1 {
                duties.push(("the cluster".to_owned(), Duty::Direct, holders));
            }
        }
        duties
    }

    fn masters(&self) -> impl Iterator<Item = &Proc> {
        let is_master = |id| self.topology.process(id).is_some_and(|spec| spec.role == Role::Master);
        self.procs.iter().filter(move |proc| is_master(proc.id))
    }

    /// Who was drained, and has a duty that another of those that can have it would take.
    fn unwilling(&self) -> Vec<(ProcessId, Duty)> {
        let masters = self.topology.has_masters();
        let mut unwilling = Vec::new();
        for (host, duty) in
            (0..self.disks.len()).flat_map(|host| [Duty::Serve, Duty::Relay, Duty::Direct].map(|duty| (host, duty)))
        {
            let willing = |proc: &Proc| proc.state == State::Running && !proc.drained;
            let others = if masters && duty == Duty::Direct {
                self.masters().any(willing)
            } else {
                self.procs.iter().any(|proc| proc.host == host && willing(proc))
            };
            let drained = |id: &ProcessId| self.procs.iter().any(|proc| proc.id == *id && proc.drained);
            let holders = self.holders(duty, |at| at == host).into_iter();
            unwilling.extend(holders.filter(|id| others && drained(id)).map(|id| (id, duty)));
        }
        unwilling
    }

    fn holders(&self, duty: Duty, at: impl Fn(usize) -> bool) -> Vec<ProcessId> {
        let holds = |node: &Node| node.snapshot().duties.contains(&duty);
        let procs = self.procs.iter().filter(|proc| at(proc.host) && proc.node.as_ref().is_some_and(holds));
        procs.map(|proc| proc.id).collect()
    }

    /// P5: a node that finds another host's log to differ is right.
    pub(crate) fn blame_differences(&self, host: usize, with: HostId, differing: &[EntryId]) -> Verdict {
        // Its entries differ from those of others, and it is there to show what that leads to.
        if differing.is_empty() || self.is(Mutant::NoCausalGate) {
            return Ok(());
        }
        let what = format!("the logs of host {host} and of {with} differ in the blocks up to {differing:?}");
        Err(Breach { promise: Promise::P5, what })
    }

    /// In the end the logs of all hosts are compared, whether nodes told each other of those blocks or not.
    fn compare_logs(&self) -> Verdict {
        for host in 0..self.disks.len() {
            let rows = self.seen_rows(host);
            let after: Vec<_> = self.disks[host].vector().iter().map(|(origin, _)| (origin, Seq::ZERO)).collect();
            let digests = blocks::digests(&rows, &after);
            for other in host + 1..self.disks.len() {
                let compared = blocks::compare(&self.seen_rows(other), &digests);
                self.blame_differences(other, self.topology.hosts[host].id, &compared.differing)?;
            }
        }
        Ok(())
    }

    /// Has the judge look at what the hosts show in the end.
    pub(crate) fn check_end(&mut self) {
        let shown: Vec<Shown> = (0..self.disks.len()).map(|host| self.shown(host)).collect();
        let verdict = self.compare_logs().and_then(|()| self.history.on_end(&shown));
        self.judge(verdict);
    }

    fn shown(&self, host: usize) -> Shown {
        let mut shown = Shown { host, ..Shown::default() };
        let rows = self.seen_rows(host);
        let held = self.disks[host].vector();
        for (index, person) in self.history.people.iter().enumerate() {
            let user = UserId::of(&person.key);
            let limit = gaggle::limits::ANSWER_POSTS_MAX;
            let query = Query::Timeline { user, of: None, limit, since: None, before: None };
            let timeline = query::answer(&rows, &held, &query).map(|answer| match answer {
                Answer::Posts { posts, .. } => posts.into_iter().map(|post| post.id).collect(),
                Answer::WhoAmI { .. } | Answer::Names { .. } => Vec::new(),
            });
            shown.timelines.insert(index, timeline);
            let answer = query::answer(&rows, &held, &Query::WhoAmI { user });
            if let Ok(Answer::WhoAmI { name, registered, .. }) = answer {
                shown.names.insert(index, (name, registered.folded()));
            }
        }
        shown
    }
}
