//! What hosts tell of themselves since version 2 of the wire, and which version everybody understands.
//!
//! A message is written in a form that its receiver understands: each process hears in `Hello` what a peer does, before
//! anything is sent to it, and keeps that as long as the link is up. What every process of a host understands, its
//! primary knows in this way, and tells in a [`HostReport`]: to its siblings, whose relay tells the other hosts' relays,
//! and those their siblings. Nothing here is urgent, so it is told at intervals, which also mends whatever was lost.
//!
//! Invariant: of a host that has not reported for a while, only the oldest version is believed.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::io::{Output, Outputs};
use crate::core::node::Node;
use crate::id::{EntryId, HostId, ProcessId};
use crate::limits;
use crate::service::blocks::Compared;
use crate::time::{Instant, Now};
use crate::wire::heartbeat::Life;
use crate::wire::peer::PeerMessage;
use crate::wire::report::{Difference, HostReport};
use crate::wire::{REPORTS, RETIREMENTS, VERSION_OLDEST, Versions};

/// What peers understand, and what hosts have reported.
#[derive(Debug)]
pub(crate) struct Reports {
    ours: Versions,
    /// The newest version in common with each peer whose link is up.
    peers: BTreeMap<ProcessId, u16>,
    /// Of each host the newest report, and when it came.
    known: BTreeMap<HostId, (Instant, HostReport)>,
    /// Where this host's log differs from others', as its primary found.
    differing: BTreeSet<Difference>,
    due: Instant,
}

impl Reports {
    /// Nothing is known.
    pub(crate) fn new(ours: Versions, now: Instant) -> Self {
        Self { ours, peers: BTreeMap::new(), known: BTreeMap::new(), differing: BTreeSet::new(), due: now }
    }

    /// A link is up, and the peer has said what it understands.
    pub(crate) fn on_up(&mut self, peer: ProcessId, theirs: Versions) {
        self.peers.insert(peer, self.ours.common(theirs).unwrap_or(VERSION_OLDEST));
    }

    /// A link broke.
    pub(crate) fn on_down(&mut self, peer: ProcessId) {
        self.peers.remove(&peer);
    }

    /// The newest version that a peer understands, as far as it has said so.
    pub(crate) fn version_of(&self, peer: ProcessId) -> u16 {
        self.peers.get(&peer).copied().unwrap_or(VERSION_OLDEST)
    }

    /// Whether a peer can be sent a form that there is since this version.
    pub(crate) fn knows(&self, peer: ProcessId, since: u16) -> bool {
        since <= self.version_of(peer)
    }

    /// The newest version in common with each peer whose link is up.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (ProcessId, u16)> + '_ {
        self.peers.iter().map(|(peer, version)| (*peer, *version))
    }

    /// Digests of this host's log were compared with another's. What differs is remembered until it is found to be the
    /// same: it is told to the siblings as well, so that a failover silences nothing.
    pub(crate) fn on_compared(&mut self, with: HostId, compared: Compared) {
        for upto in compared.same {
            self.differing.remove(&Difference { upto, with });
        }
        for upto in compared.differing {
            let news = self.differing.len() < limits::LOG_DIFFERENCES_MAX;
            if news && self.differing.insert(Difference { upto, with }) {
                tracing::error!(?upto, %with, "that host's log differs from ours in the block that ends here");
            }
        }
    }

    /// All pairs of hosts whose logs are known to differ, and where.
    pub(crate) fn differences(&self, own: HostId) -> BTreeSet<(HostId, HostId, EntryId)> {
        let others = self.known.values().filter(|(_, report)| report.host != own);
        let others = others.flat_map(|(_, report)| report.differing.iter().map(|one| (report.host, one)));
        let all = self.differing.iter().map(|one| (own, one)).chain(others);
        all.map(|(host, Difference { upto, with })| (host.min(*with), host.max(*with), *upto)).collect()
    }

    /// Takes a report in, unless it is old.
    pub(crate) fn learn(&mut self, now: Instant, report: HostReport) {
        if self.known.get(&report.host).is_none_or(|(_, known)| report.at > known.at) {
            self.known.insert(report.host, (now, report));
        }
    }

    /// Reports that are not out of date.
    fn fresh(&self, now: Instant) -> impl Iterator<Item = &HostReport> {
        let known = self.known.values();
        known.filter(move |(at, _)| now.since(*at) <= limits::REPORT_MEMORY).map(|(_, report)| report)
    }

    /// The last report of each host, one that is out of date with the oldest version.
    pub(crate) fn last(&self, now: Instant) -> impl Iterator<Item = HostReport> + '_ {
        self.known.values().map(move |(at, report)| {
            let fresh = now.since(*at) <= limits::REPORT_MEMORY;
            HostReport { wire: if fresh { report.wire } else { VERSION_OLDEST }, ..report.clone() }
        })
    }
}

impl Node {
    /// The newest version that every process of this host that is up understands.
    fn own_wire(&self) -> u16 {
        let up = self.mesh.siblings.iter().filter(|(_, sibling)| matches!(sibling.life, Life::Up | Life::Stopped));
        let newest = up.map(|(sibling, _)| self.reports.version_of(*sibling));
        newest.chain([self.reports.ours.newest]).min().unwrap_or(VERSION_OLDEST)
    }

    /// As the primary: what there is to tell of this host.
    pub(crate) fn own_report(&mut self, now: Now) -> Option<HostReport> {
        let trim = self.serving.term()?.primary.standing().trim;
        self.hlc = self.hlc.tick(now.wall);
        let differing = self.reports.differing.iter().copied().collect();
        Some(HostReport { host: self.host, at: self.hlc, wire: self.own_wire(), trim, differing })
    }

    /// Tells what is known, if that is due: the primary its siblings of its own host, the relay everybody of the rest.
    pub(crate) fn tell_reports(&mut self, now: Now, out: &mut Outputs) {
        if !self.reports.ours.knows(REPORTS) || now.mono < self.reports.due {
            return;
        }
        self.reports.due = now.mono + limits::REPORT_EVERY;
        if let Some(own) = self.own_report(now) {
            self.reports.learn(now.mono, own.clone());
            for sibling in self.mesh.living() {
                self.tell_report(sibling, &own, out);
            }
        }
        self.retire_ended(now, out);
        if self.relay.is_none() {
            return;
        }
        let relays = self.mesh.views.values().filter(|view| view.up).filter_map(|view| view.record.relaying);
        let relays: Vec<ProcessId> = relays.collect();
        for report in self.reports.fresh(now.mono) {
            if report.host == self.host {
                relays.iter().for_each(|relay| self.tell_report(*relay, report, out));
            } else {
                self.mesh.living().for_each(|sibling| self.tell_report(sibling, report, out));
            }
        }
    }

    /// As the primary: an entry of a new kind is made when every process of every host understands it.
    fn retire_ended(&mut self, now: Now, out: &mut Outputs) {
        let hosts = &self.config.topology.hosts;
        let ready =
            |host: HostId| self.reports.fresh(now.mono).any(|report| report.host == host && report.wire >= RETIREMENTS);
        let all_ready = hosts.iter().all(|host| ready(host.id));
        if let Some(term) = self.serving.term_mut().filter(|_| all_ready) {
            term.primary.retire_ended(out);
        }
    }

    fn tell_report(&self, to: ProcessId, report: &HostReport, out: &mut Outputs) {
        if self.reports.knows(to, REPORTS) {
            out.push(Output::Send { to, message: PeerMessage::Report(report.clone()) });
        }
    }

    /// A host reports, or this host's relay passes on what another one did.
    pub(crate) fn on_report(&mut self, now: Now, from: ProcessId, mut report: HostReport) {
        let of = self.config.topology.process(from).map(|process| process.host);
        let believed = match of {
            Some(of) if of == self.host && report.host == self.host => {
                self.elections.serve.leader() == Some(from) && from != self.config.me
            }
            Some(of) if of == self.host => {
                self.elections.relay.leader() == Some(from) && self.config.topology.host(report.host).is_some()
            }
            Some(of) => of == report.host,
            None => false,
        };
        if believed {
            report.differing.truncate(limits::LOG_DIFFERENCES_MAX);
            self.hlc = self.hlc.max(report.at);
            if report.host == self.host {
                self.reports.differing = report.differing.iter().copied().collect();
            }
            self.reports.learn(now.mono, report);
        }
    }
}

#[cfg(test)]
mod tests;
