//! From the text of a topology file to a checked [`Topology`], or to the line that is wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_spanned::Spanned;

use super::{AckLevel, HostSpec, PostsKept, ProcessSpec, Role, Topology};
use crate::id::{HostId, ProcessId};
use crate::limits::{HOST_PROCESSES_MAX, HOSTS_MAX, POSTS_AGE_MIN};

/// Entries that a host keeps in its log unless told: some minutes of a busy cluster, so that a host that was
/// restarted catches up from the log and not by a snapshot.
const LOG_ENTRIES_KEPT: u64 = 100_000;
/// Entries above which the log is cut whoever lacks them, unless told: bounds the disk that a host that is gone costs.
const LOG_ENTRIES_MAX: u64 = 2_000_000;

/// Why a topology file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub struct TopologyError {
    file: String,
    line: usize,
    reason: String,
}

impl TopologyError {
    /// The line that is wrong, from 1.
    pub fn line(&self) -> usize {
        self.line
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTopology {
    cluster: Spanned<String>,
    #[serde(default = "default_data")]
    data: PathBuf,
    #[serde(default = "default_certs")]
    certs: PathBuf,
    #[serde(default)]
    ack: AckLevel,
    #[serde(default)]
    log: RawLog,
    #[serde(default)]
    posts: RawPosts,
    #[serde(default)]
    host: Vec<RawHost>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawLog {
    kept: Option<u64>,
    max: Option<Spanned<u64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawPosts {
    max_age: Option<Spanned<String>>,
    max_count: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHost {
    name: Spanned<String>,
    #[serde(default)]
    process: Vec<RawProcess>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProcess {
    id: Spanned<String>,
    role: Role,
    addr: Spanned<String>,
}

/// Reads `90d` or `36h`.
fn age(text: &str) -> Option<Duration> {
    let (number, hour) = (text.get(..text.len().checked_sub(1)?)?, 3_600);
    let unit = match text.as_bytes().last()? {
        b'd' => 24 * hour,
        b'h' => hour,
        _ => return None,
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = number.parse().ok().filter(|_| digits)?;
    Some(Duration::from_secs(u64::from(number) * unit))
}

fn default_data() -> PathBuf {
    "data".into()
}

fn default_certs() -> PathBuf {
    "certs".into()
}

/// The text under check, and what earlier lines have claimed.
struct Checker<'a> {
    text: &'a str,
    file: &'a str,
    hosts: BTreeMap<HostId, usize>,
    ids: BTreeMap<ProcessId, usize>,
    addrs: BTreeMap<SocketAddr, usize>,
}

impl Topology {
    /// Reads a topology file's text; `file_name` is only for the message.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, TopologyError> {
        let mut checker =
            Checker { text, file: file_name, hosts: BTreeMap::new(), ids: BTreeMap::new(), addrs: BTreeMap::new() };
        let raw: RawTopology = toml::from_str(text)
            .map_err(|error| checker.refuse(error.span().unwrap_or(0..0), one_line(error.message())))?;
        checker.topology(raw)
    }
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
}

impl Checker<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        let start = span.start.min(self.text.len());
        1 + self.text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count()
    }

    fn refuse(&self, span: Range<usize>, reason: impl Into<String>) -> TopologyError {
        TopologyError { file: self.file.to_owned(), line: self.line(&span), reason: reason.into() }
    }

    fn topology(&mut self, raw: RawTopology) -> Result<Topology, TopologyError> {
        let cluster = raw.cluster.get_ref();
        let is_word = cluster.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if cluster.is_empty() || cluster.len() > 32 || !is_word {
            let reason = format!("a cluster's name must be 1 to 32 letters, digits, '_' or '-', not {cluster:?}");
            return Err(self.refuse(raw.cluster.span(), reason));
        }
        let kept = raw.log.kept.unwrap_or(LOG_ENTRIES_KEPT);
        let max = raw.log.max.as_ref().map_or_else(|| LOG_ENTRIES_MAX.max(kept), |max| *max.get_ref());
        if let Some(stated) = &raw.log.max
            && max < kept
        {
            let reason = format!("the log's max ({max}) must not be below what is always kept ({kept})");
            return Err(self.refuse(stated.span(), reason));
        }
        let posts = self.posts(&raw.posts)?;
        if raw.host.is_empty() {
            return Err(self.refuse(0..0, "there is no [[host]]: name at least one, with its [[host.process]]"));
        }
        if let Some(host) = raw.host.get(HOSTS_MAX) {
            return Err(self.refuse(host.name.span(), format!("a topology has at most {HOSTS_MAX} hosts")));
        }
        let hosts = raw.host.iter().map(|host| self.host(host)).collect::<Result<_, _>>()?;
        Ok(Topology {
            cluster: cluster.clone(),
            hosts,
            data: raw.data,
            certs: raw.certs,
            ack: raw.ack,
            log_entries_kept: kept,
            log_entries_max: max,
            posts,
        })
    }

    fn posts(&self, raw: &RawPosts) -> Result<PostsKept, TopologyError> {
        let max_age = match &raw.max_age {
            None => None,
            Some(text) => {
                let age = age(text.get_ref());
                Some(age.filter(|age| *age >= POSTS_AGE_MIN).ok_or_else(|| {
                    let text = text.get_ref();
                    let reason =
                        "the age of posts must be whole days or hours, as \"90d\" or \"36h\", and an hour at least";
                    self.refuse(raw.max_age.as_ref().map_or(0..0, Spanned::span), format!("{reason}, not {text:?}"))
                })?)
            }
        };
        if let Some(count) = raw.max_count.as_ref().filter(|count| *count.get_ref() == 0) {
            return Err(self.refuse(count.span(), "the count of posts must not be 0: nobody would see any"));
        }
        Ok(PostsKept { max_age, max_count: raw.max_count.as_ref().map(|count| *count.get_ref()) })
    }

    fn host(&mut self, raw: &RawHost) -> Result<HostSpec, TopologyError> {
        let span = raw.name.span();
        let id: HostId = raw.name.get_ref().parse().map_err(|error| self.refuse(span.clone(), format!("{error}")))?;
        if let Some(line) = self.hosts.insert(id, self.line(&span)) {
            return Err(self.refuse(span, format!("the host {id} is there already, in line {line}")));
        }
        if raw.process.is_empty() {
            return Err(self.refuse(span, format!("the host {id} has no [[host.process]]: give it at least one")));
        }
        if let Some(process) = raw.process.get(HOST_PROCESSES_MAX) {
            let reason = format!("a host has at most {HOST_PROCESSES_MAX} processes, and {id} has more");
            return Err(self.refuse(process.id.span(), reason));
        }
        let processes = raw.process.iter().map(|process| self.process(id, process)).collect::<Result<_, _>>()?;
        Ok(HostSpec { id, processes })
    }

    fn process(&mut self, host: HostId, raw: &RawProcess) -> Result<ProcessSpec, TopologyError> {
        let span = raw.id.span();
        let id: ProcessId = raw.id.get_ref().parse().map_err(|error| self.refuse(span.clone(), format!("{error}")))?;
        if let Some(line) = self.ids.insert(id, self.line(&span)) {
            return Err(self.refuse(span, format!("the process {id} is there already, in line {line}")));
        }
        let span = raw.addr.span();
        let text = raw.addr.get_ref();
        let addr: SocketAddr = text.parse().map_err(|_| {
            self.refuse(span.clone(), format!("an address must be IP:PORT, as 127.0.0.1:6001, not {text:?}"))
        })?;
        // Others connect to this very address, so it must name a machine and a port.
        if addr.port() == 0 || addr.ip().is_unspecified() {
            return Err(self.refuse(span, format!("others cannot reach {addr}: name the machine's address and a port")));
        }
        if let Some(line) = self.addrs.insert(addr, self.line(&span)) {
            return Err(self.refuse(span, format!("the address {addr} is taken already, in line {line}")));
        }
        Ok(ProcessSpec { id, host, role: raw.role, addr })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "cluster = \"c\"\n[[host]]\nname = \"a\"\n[[host.process]]\nid = \"A1\"\nrole = \"worker\"\naddr = \"127.0.0.1:7001\"\n";

    fn refusal(text: &str) -> String {
        Topology::parse(text, "t.toml").unwrap_err().to_string()
    }

    fn process(id: &str, port: u16) -> String {
        format!("[[host.process]]\nid = \"{id}\"\nrole = \"worker\"\naddr = \"127.0.0.1:{port}\"\n")
    }

    #[test]
    fn the_smallest_file_has_defaults() {
        let topology = Topology::parse(SMALL, "t.toml").unwrap();
        assert_eq!(topology.ack, AckLevel::Peer);
        assert_eq!((topology.data, topology.certs), ("data".into(), "certs".into()));
        assert_eq!(topology.log_entries_kept, LOG_ENTRIES_KEPT);
        assert_eq!(topology.hosts.len(), 1);
        assert_eq!(topology.hosts[0].processes[0].id, "A1".parse().unwrap());
    }

    #[test]
    fn the_files_of_this_repository_are_right() {
        let lenss = Topology::parse(include_str!("../../topology/lenss.toml"), "lenss.toml").unwrap();
        let placed: Vec<String> = lenss
            .processes()
            .map(|process| format!("{} {} {} {}", process.host, process.id, process.role, process.addr.port()))
            .collect();
        assert_eq!(
            placed,
            [
                "lenss1 M1 master 6001",
                "lenss1 M2 master 6002",
                "lenss1 M3 master 6003",
                "lenss1 M4 connector 6004",
                "lenss3 W5 worker 6005",
                "lenss3 W6 worker 6006",
                "lenss3 W7 connector 6007",
                "lenss4 W8 worker 6008",
                "lenss4 W9 worker 6009",
                "lenss4 W10 connector 6010",
            ]
        );
        let spread = Topology::parse(include_str!("../../topology/spread.toml"), "spread.toml").unwrap();
        assert_eq!(spread.hosts.iter().map(|host| host.processes.len()).collect::<Vec<_>>(), [4, 4, 4]);
        assert_ne!(lenss.hash(), spread.hash());
    }

    #[test]
    fn unknown_keys_are_refused_where_they_stand() {
        assert!(refusal(&format!("colour = 1\n{SMALL}")).starts_with("t.toml:1: unknown field `colour`"));
        assert!(refusal(&format!("{SMALL}weight = 3\n")).starts_with("t.toml:8: unknown field `weight`"));
        assert!(refusal(&SMALL.replace("name = \"a\"", "name = \"a\"\nrack = 1")).starts_with("t.toml:4: "));
        assert!(refusal(&format!("{SMALL}[log]\nsize = 3\n")).starts_with("t.toml:9: unknown field `size`"));
    }

    #[test]
    fn doubles_are_refused_with_both_lines() {
        assert_eq!(
            refusal(&format!("{SMALL}{}", process("A1", 7002))),
            "t.toml:9: the process A1 is there already, in line 5"
        );
        assert_eq!(
            refusal(&format!("{SMALL}{}", process("A2", 7001))),
            "t.toml:11: the address 127.0.0.1:7001 is taken already, in line 7"
        );
        assert_eq!(
            refusal(&format!("{SMALL}[[host]]\nname = \"a\"\n{}", process("A2", 7002))),
            "t.toml:9: the host a is there already, in line 3"
        );
    }

    #[test]
    fn a_host_without_a_process_is_refused() {
        assert!(refusal(&format!("{SMALL}[[host]]\nname = \"b\"\n")).starts_with("t.toml:9: the host b has no "));
        assert!(refusal("cluster = \"c\"\n").starts_with("t.toml:1: there is no [[host]]"));
    }

    #[test]
    fn too_many_are_refused() {
        let many: String = (0..16).map(|n| process(&format!("B{n}"), 8000 + n)).collect();
        assert_eq!(refusal(&format!("{SMALL}{many}")), "t.toml:69: a host has at most 16 processes, and a has more");
        let hosts: String =
            (0..16).map(|n| format!("[[host]]\nname = \"h{n}\"\n{}", process(&format!("B{n}"), 8000 + n))).collect();
        assert_eq!(refusal(&format!("{SMALL}{hosts}")), "t.toml:99: a topology has at most 16 hosts");
    }

    #[test]
    fn bad_names_roles_and_addresses_are_refused() {
        assert!(refusal(&SMALL.replace("\"A1\"", "\"A 1\"")).starts_with("t.toml:5: a process's id must be"));
        assert!(refusal(&SMALL.replace("\"a\"", "\"\"")).starts_with("t.toml:3: a host's name must be"));
        assert!(refusal(&SMALL.replace("\"c\"", "\"a/b\"")).starts_with("t.toml:1: a cluster's name must be"));
        assert!(refusal(&SMALL.replace("worker", "king")).starts_with("t.toml:6: unknown variant `king`"));
        assert!(refusal(&SMALL.replace("127.0.0.1:7001", "here")).starts_with("t.toml:7: an address must be"));
        assert!(refusal(&SMALL.replace("127.0.0.1:7001", "0.0.0.0:7001")).starts_with("t.toml:7: others cannot"));
        assert!(refusal(&SMALL.replace(":7001", ":0")).starts_with("t.toml:7: others cannot"));
        assert!(refusal(&format!("ack = \"some\"\n{SMALL}")).starts_with("t.toml:1: unknown variant `some`"));
        assert!(refusal(&format!("{SMALL}[log]\nkept = 9\nmax = 3\n")).starts_with("t.toml:10: the log's max"));
        assert!(refusal("cluster = \n").starts_with("t.toml:1: "));
    }

    #[test]
    fn which_posts_are_kept_is_told_by_age_and_count() {
        let posts = |text: &str| Topology::parse(&format!("{SMALL}[posts]\n{text}"), "t.toml").unwrap().posts;
        let days = |days: u64| Some(Duration::from_secs(days * 24 * 3_600));
        assert_eq!(posts(""), PostsKept::default());
        assert_eq!(posts("max_age = \"90d\"\n"), PostsKept { max_age: days(90), max_count: None });
        assert_eq!(posts("max_age = \"48h\"\nmax_count = 7\n"), PostsKept { max_age: days(2), max_count: Some(7) });
        for wrong in ["", "d", "0h", "90", "9m", "+1d", "1.5d", "99999999999d", "1é"] {
            let text = refusal(&format!("{SMALL}[posts]\nmax_age = \"{wrong}\"\n"));
            assert!(text.starts_with("t.toml:9: the age of posts must be whole days or hours"), "{text}");
        }
        assert!(refusal(&format!("{SMALL}[posts]\nmax_count = 0\n")).starts_with("t.toml:9: the count of posts"));
        assert!(refusal(&format!("{SMALL}[posts]\nage = 3\n")).starts_with("t.toml:9: unknown field `age`"));
    }

    #[test]
    fn the_hash_is_of_the_meaning() {
        let topology = Topology::parse(SMALL, "t.toml").unwrap();
        let commented = Topology::parse(&format!("# a comment\ndata = \"elsewhere\"\n{SMALL}"), "t.toml").unwrap();
        let other = Topology::parse(&SMALL.replace("7001", "7002"), "t.toml").unwrap();
        assert_eq!(topology.hash(), commented.hash());
        assert_ne!(topology.hash(), other.hash());
        let posts = |text: &str| Topology::parse(&format!("{SMALL}[posts]\n{text}"), "t.toml").unwrap().hash();
        assert_eq!(topology.hash(), posts(""));
        assert_ne!(topology.hash(), posts("max_count = 7\n"));
        assert_eq!(topology.hash(), 0xe1c3_d379, "whoever reads this file with an older version has this hash");
    }
}
