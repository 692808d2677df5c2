//! `gaggle status --json`, read as a script would read it.

use std::collections::BTreeMap;

use gaggle::id::{HostId, Origin, Seq, Vector};
use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Status {
    pub(crate) degraded: bool,
    pub(crate) alarms: Vec<String>,
    pub(crate) hosts: Vec<Host>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) serving: Option<String>,
    pub(crate) epoch: u64,
    pub(crate) sessions: u32,
    pub(crate) digest: String,
    /// None while it has not said.
    pub(crate) wire: Option<u16>,
    pub(crate) trimmed_before: Option<String>,
    pub(crate) vector: BTreeMap<String, u64>,
    pub(crate) entries: u64,
    pub(crate) processes: Vec<Process>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Process {
    pub(crate) id: String,
    pub(crate) up: bool,
    pub(crate) pid: i32,
    pub(crate) duties: Vec<String>,
}

impl Host {
    /// How far it holds an origin's log.
    pub(crate) fn seq(&self, origin: Origin) -> u64 {
        self.vector.get(&origin.to_string()).copied().unwrap_or(0)
    }

    /// Whether it holds all of this. An origin of a former incarnation is named no more once every host has it; what it
    /// held counts still.
    pub(crate) fn holds(&self, vector: &Vector) -> bool {
        let renewed = |host: HostId| self.vector.keys().any(|named| named.starts_with(&format!("{host}.")));
        let held = |(origin, seq): (Origin, Seq)| match self.seq(origin) {
            0 => renewed(origin.host),
            found => found >= seq.0,
        };
        self.entries >= vector.iter().map(|(_, seq)| seq.0).sum() && vector.iter().all(held)
    }
}

impl Status {
    pub(crate) fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).unwrap()
    }

    pub(crate) fn process(&self, id: &str) -> &Process {
        self.processes().find(|process| process.id == id).unwrap()
    }

    pub(crate) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.hosts.iter().flat_map(|host| &host.processes)
    }

    /// What a process does, in words.
    pub(crate) fn duties(&self, id: &str) -> String {
        let duties = &self.process(id).duties;
        if duties.is_empty() { "stands by".to_owned() } else { duties.join(" and ") }
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_healthy(&self) -> bool {
        !self.degraded && self.alarms.is_empty()
    }

    /// Whether all hosts hold the same entries and the same state.
    pub(crate) fn is_converged(&self) -> bool {
        let first = &self.hosts[0];
        self.hosts.iter().all(|host| host.vector == first.vector && host.digest == first.digest)
    }
}
