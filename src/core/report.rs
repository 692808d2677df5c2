//! A node's account of the whole cluster, for `status`: what is known, and what is wrong.

use crate::core::node::Node;
use crate::id::{EntryId, HostId, Vector};
use crate::limits;
use crate::time::Now;
use crate::wire::client::{ClusterStatus, HostStatus, ProcessStatus};
use crate::wire::heartbeat::{Duty, Fitness, HostRecord, HostView, Life};
use crate::wire::report::ClusterReport;

impl Node {
    /// The whole cluster as this process knows it.
    pub(crate) fn cluster_status(&mut self, now: Now) -> ClusterStatus {
        let views = self.host_views(now);
        let everything = all_entries(views.iter().map(|view| &view.record));
        let mut hosts = Vec::new();
        let mut alarms = Vec::new();
        for spec in self.config.topology.hosts.clone() {
            let known = views.iter().find(|view| view.record.host == spec.id);
            let status = self.host_status(spec.id, known, everything);
            self.host_alarms(&status, known.map(|view| &view.record), &mut alarms);
            hosts.push(status);
        }
        let masters = self.config.topology.has_masters();
        if masters && hosts.iter().all(|host| host.directing.is_none()) {
            alarms.push("no master directs: any process answers clients meanwhile".into());
        }
        digest_alarms(&views, &mut alarms);
        for (one, other, EntryId { origin, seq }) in self.reports.differences(self.host) {
            alarms.push(format!(
                "{one} and {other} hold different entries of {origin} in the block that ends at {}",
                seq.0
            ));
        }
        for (host, skew) in self.people.skewed(now) {
            alarms.push(format!("the clock of {host} differs from {}'s by {} ms", self.host, skew / 1_000));
        }
        ClusterStatus { cluster: self.config.topology.cluster.clone(), alarms, hosts }
    }

    /// The same, and what hosts report.
    pub(crate) fn cluster_report(&mut self, now: Now) -> ClusterReport {
        let status = self.cluster_status(now);
        if let Some(own) = self.own_report(now) {
            self.reports.learn(now.mono, own);
        }
        ClusterReport { status, hosts: self.reports.last(now.mono).collect() }
    }

    fn host_status(&self, name: HostId, known: Option<&HostView>, everything: u64) -> HostStatus {
        let spec = self.config.topology.host(name).map(|spec| spec.processes.clone()).unwrap_or_default();
        let up = known.is_some_and(|view| view.up);
        let record = known.map(|view| &view.record);
        let live = record.filter(|_| up);
        let duties = |id| {
            let held = |holder: Option<_>| holder == Some(id);
            let mut duties = Vec::new();
            duties.extend(held(live.and_then(|r| r.directing)).then_some(Duty::Direct));
            duties.extend(held(live.and_then(|r| r.serving)).then_some(Duty::Serve));
            duties.extend(held(live.and_then(|r| r.relaying)).then_some(Duty::Relay));
            duties
        };
        let processes = spec.into_iter().map(|p| {
            let told = live.and_then(|record| record.processes.iter().find(|process| process.id == p.id));
            ProcessStatus {
                id: p.id,
                role: p.role,
                addr: p.addr,
                life: told.map_or(Life::Dead, |told| told.life),
                pid: told.map_or(0, |told| told.pid),
                duties: duties(p.id),
            }
        });
        let vector = record.map(|r| r.vector.clone()).unwrap_or_default();
        HostStatus {
            name,
            up,
            serving: live.and_then(|r| r.serving),
            relaying: live.and_then(|r| r.relaying),
            directing: live.and_then(|r| r.directing),
            epoch: record.map(|r| r.epoch).unwrap_or_default(),
            sessions: live.map_or(0, |r| r.sessions),
            lag: everything.saturating_sub(record.map_or(0, |r| r.entries)),
            vector,
            digest: record.map(|r| r.digest).unwrap_or_default(),
            entries: record.map_or(0, |r| r.entries),
            disk_bytes: record.map_or(0, |r| r.disk_bytes),
            processes: processes.collect(),
        }
    }

    fn host_alarms(&self, status: &HostStatus, record: Option<&HostRecord>, alarms: &mut Vec<String>) {
        let name = status.name;
        if !status.up {
            alarms.push(format!("{name} is down or cannot be reached"));
            return;
        }
        if status.serving.is_none() {
            alarms.push(format!("{name} has no primary"));
        }
        if status.relaying.is_none() {
            alarms.push(format!("{name} has no relay"));
        }
        for process in &status.processes {
            let word = match process.life {
                Life::Up => continue,
                Life::Stopped => "is stopped",
                Life::Dead => "is dead",
                Life::Left => "has left",
            };
            alarms.push(format!("{} of {name} {word}", process.id));
        }
        let Some(record) = record else { return };
        if record.topology != self.config.topology_hash {
            alarms.push(format!("{name} runs with another topology file than {}", self.host));
        }
        if status.lag > limits::LAG_ALARM {
            alarms.push(format!("{name} lacks {} entries that other hosts hold", status.lag));
        }
        match record.fitness {
            Fitness::DiskFull => alarms.push(format!("the disk of {name} is full: free some space")),
            Fitness::CatchingUp if record.serving.is_some() => alarms.push(format!("{name} is catching up")),
            Fitness::CatchingUp | Fitness::Ready => {}
        }
    }
}

/// How many entries there are, as far as is known: those that vectors name, and those that all of them imply.
fn all_entries<'a>(records: impl Iterator<Item = &'a HostRecord> + Clone) -> u64 {
    let named = |vector: &Vector| vector.iter().fold(0, |sum: u64, (_, seq)| sum.saturating_add(seq.0));
    let mut everything = Vector::new();
    records.clone().for_each(|record| everything.merge(&record.vector));
    let implied = records.map(|record| record.entries.saturating_sub(named(&record.vector))).min();
    named(&everything).saturating_add(implied.unwrap_or(0))
}

/// Hosts that hold the same entries must hold the same state.
fn digest_alarms(views: &[HostView], alarms: &mut Vec<String>) {
    for (index, HostView { record: one, .. }) in views.iter().enumerate() {
        for HostView { record: other, .. } in &views[index + 1..] {
            if !one.vector.is_empty() && one.vector == other.vector && one.digest != other.digest {
                alarms.push(format!("{} and {} hold the same entries and different state", one.host, other.host));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{at, first};
    use crate::id::{Origin, Seq};

    #[test]
    fn entries_that_a_vector_only_implies_are_not_lacked() {
        let record = |named: &[(u32, u64)], entries| {
            let origin = |incarnation| Origin { host: "a".parse().unwrap(), incarnation };
            let vector = named.iter().map(|(incarnation, seq)| (origin(*incarnation), Seq(*seq))).collect();
            HostRecord { vector, entries, ..first().own_record(at(1)) }
        };
        let all = |records: &[HostRecord]| all_entries(records.iter());
        let (whole, short, empty) = (record(&[(1, 9), (2, 3)], 12), record(&[(2, 3)], 12), record(&[], 0));
        assert_eq!(all(&[whole.clone(), whole.clone()]), 12);
        assert_eq!(all(&[short.clone(), short.clone()]), 12);
        assert_eq!(all(&[whole.clone(), short]), 12, "who does not know yet that it may be left out");
        assert_eq!(all(&[whole, empty]), 12, "and who has lost its disk");
        assert_eq!(all(&[]), 0);
    }
}
