//! The faults: their names, what they need, and who is struck how the nth time.

use clap::ValueEnum;

use crate::cli::drill::delay::Delay;
use crate::cli::drill::network::{Drops, End};
use crate::cli::drill::room::Need;
use crate::cli::failure::{Failure, Kind};
use crate::client::{ClusterStatus, HostStatus};
use crate::id::{HostId, ProcessId};

/// By how much clocks jump, in seconds.
const JUMPS: &[i64] = &[2, -2, 60, -60, 3_600, -3_600];
/// How many of a hundred packets are lost.
const LOSSES: &[u32] = &[5, 20];

/// How late packets are.
const DELAYS: &[Delay] = &[Delay { from_ms: 10, to_ms: 30 }, Delay { from_ms: 50, to_ms: 150 }];

/// One kind of fault, as it is named on the command line and told of in its help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Fault {
    /// Nothing, for a second each time: what the machine itself does to the load
    Calm,
    /// kill -9 of the primary of a host that has clients, hosts in turn
    Kill,
    /// kill -9 of the relay of a host, hosts in turn
    KillRelay,
    /// kill -9 of the director; somebody logs in at that moment
    KillMaster,
    /// SIGSTOP of the primary of a host that has clients, SIGCONT a second later
    Stop,
    /// All processes of a host that has clients: all stopped, then all killed
    Host,
    /// Hosts cut from each other, or from everything, for three seconds
    Partition,
    /// One packet in twenty, or in five, is lost for three seconds
    Loss,
    /// Every packet is 10 to 30 ms late, or 50 to 150, each by another time, for three seconds
    Delay,
    /// The disk of a host, hosts in turn, is full until a second after `status` says so
    Disk,
    /// The wall clock of a host, hosts in turn, is wrong by up to an hour for some seconds
    Clock,
    // Two of the others, of different families, at once; only chaos does it.
    #[value(skip)]
    Two,
    /// A random mixture of these on one cluster, some two at a time, for so many --seconds
    Chaos,
    /// Each of these but chaos in turn, each on a cluster of its own
    All,
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deed {
    Rest,
    Kill(Vec<ProcessId>),
    Stop(Vec<ProcessId>),
    /// The power of a host goes.
    Fell(Vec<ProcessId>),
    Drop(Drops),
    /// Packets are late.
    Delay(Delay),
    /// A host's disk is full; whoever is named is killed at that moment, and starts on a full disk.
    Fill(HostId, Vec<ProcessId>),
    /// A host's clock is wrong by so many seconds; whoever is named is killed meanwhile, and starts with it.
    Jump(HostId, i64, Vec<ProcessId>),
}

/// A fault, ready to be struck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) fault: Fault,
    pub(super) deed: Deed,
    /// At the same time, of another family.
    pub(super) also: Option<Deed>,
    /// For people: who is struck, and how.
    pub(super) what: String,
}

impl Fault {
    /// Every fault that is struck by itself.
    fn each() -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied().filter(|fault| !matches!(fault, Self::Chaos | Self::All))
    }

    /// What the person asked for with this word.
    pub(super) fn chosen(self) -> Vec<Self> {
        if self == Self::All { Self::each().collect() } else { vec![self] }
    }

    /// What chaos is made of, as far as this much is there.
    pub(super) fn of_chaos(has: impl Fn(Need) -> bool) -> Vec<Self> {
        Self::each().filter(|fault| *fault != Self::Calm && fault.need().is_none_or(&has)).collect()
    }

    /// As on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(|| "two".to_owned(), |value| value.get_name().to_owned())
    }

    /// What the machine must have for it; chaos takes what there is.
    pub(super) fn need(self) -> Option<Need> {
        match self {
            Self::Partition | Self::Loss => Some(Need::Network),
            Self::Delay => Some(Need::Delay),
            Self::Disk => Some(Need::Disk),
            Self::Clock => Some(Need::Clock),
            Self::Calm | Self::Kill | Self::KillRelay | Self::KillMaster => None,
            Self::Stop | Self::Host | Self::Two | Self::Chaos | Self::All => None,
        }
    }

    /// Who is struck the nth time, and how, in a cluster that is whole. `disks` are the hosts whose disks can be filled.
    pub(super) fn plan(self, status: &ClusterStatus, turn: u32, disks: &[HostId]) -> Result<Plan, Failure> {
        let turn = usize::try_from(turn).unwrap_or(0);
        let with_clients: Vec<&HostStatus> = status.hosts.iter().filter(|host| host.sessions > 0).collect();
        let all: Vec<&HostStatus> = status.hosts.iter().collect();
        let host_of = |hosts: &[&HostStatus]| in_turn(hosts, turn).copied().cloned();
        let deed = match self {
            Self::Calm => Some(Deed::Rest),
            Self::Kill => host_of(&with_clients).and_then(|host| host.serving).map(|id| Deed::Kill(vec![id])),
            Self::Stop => host_of(&with_clients).and_then(|host| host.serving).map(|id| Deed::Stop(vec![id])),
            Self::KillRelay => host_of(&all).and_then(|host| host.relaying).map(|id| Deed::Kill(vec![id])),
            Self::KillMaster => status.hosts.iter().find_map(|host| host.directing).map(|id| Deed::Kill(vec![id])),
            Self::Host => host_of(&with_clients).map(|host| Deed::Fell(processes(&host))),
            Self::Partition => cut(&names(&all), &names(&with_clients), turn),
            Self::Loss => in_turn(LOSSES, turn).map(|percent| Deed::Drop(Drops::Percent(*percent))),
            Self::Delay => in_turn(DELAYS, turn).map(|delay| Deed::Delay(*delay)),
            Self::Disk => in_turn(disks, turn).map(|host| {
                let of_host = all.iter().filter(|status| status.name == *host).flat_map(|status| processes(status));
                let restarted = if (turn / disks.len()).is_multiple_of(2) { Vec::new() } else { of_host.collect() };
                Deed::Fill(*host, restarted)
            }),
            Self::Clock => host_of(&all).zip(in_turn(JUMPS, turn)).map(|(host, seconds)| {
                // Only who starts while the clock is wrong stamps by it: all others go on from where they were.
                let restarted = if (turn / JUMPS.len()).is_multiple_of(2) { processes(&host) } else { Vec::new() };
                Deed::Jump(host.name, *seconds, restarted)
            }),
            Self::Two | Self::Chaos | Self::All => None,
        };
        let deed =
            deed.ok_or_else(|| Failure::new(Kind::Degraded, format!("nobody is there for the fault {}", self.name())))?;
        let what = deed.what();
        Ok(Plan { fault: self, deed, also: None, what })
    }
}

impl Plan {
    /// What the person named, whatever its duty.
    pub(super) fn of_process(fault: Fault, named: ProcessId) -> Self {
        let deed = if fault == Fault::Stop { Deed::Stop(vec![named]) } else { Deed::Kill(vec![named]) };
        Self { fault, what: deed.what(), deed, also: None }
    }

    /// Both at once.
    pub(super) fn and(self, other: Self) -> Self {
        let what = format!("{} {}, {} {}", self.fault.name(), self.what, other.fault.name(), other.what);
        Self { fault: Fault::Two, deed: self.deed, also: Some(other.deed), what }
    }
}

impl Deed {
    /// For people.
    fn what(&self) -> String {
        let list = |ids: &[ProcessId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        match self {
            Self::Rest => "nobody".to_owned(),
            Self::Kill(ids) | Self::Stop(ids) | Self::Fell(ids) => list(ids),
            Self::Drop(Drops::Nothing) => "nothing".to_owned(),
            Self::Drop(Drops::Percent(percent)) => format!("{percent} %"),
            Self::Drop(Drops::Ways(ways)) => {
                let end = |end: &End| match end {
                    End::Clients => "clients".to_owned(),
                    End::Host(host) => host.to_string(),
                };
                ways.iter().map(|(from, to)| format!("{}>{}", end(from), end(to))).collect::<Vec<_>>().join(" ")
            }
            Self::Delay(Delay { from_ms, to_ms }) => format!("{from_ms} to {to_ms} ms"),
            Self::Fill(host, restarted) if restarted.is_empty() => host.to_string(),
            Self::Fill(host, _) => format!("{host}, restarted"),
            Self::Jump(host, seconds, restarted) if restarted.is_empty() => format!("{host} {seconds:+} s"),
            Self::Jump(host, seconds, _) => format!("{host} {seconds:+} s, restarted"),
        }
    }
}

fn names(hosts: &[&HostStatus]) -> Vec<HostId> {
    hosts.iter().map(|host| host.name).collect()
}

fn processes(host: &HostStatus) -> Vec<ProcessId> {
    host.processes.iter().map(|process| process.id).collect()
}

fn in_turn<T>(list: &[T], turn: usize) -> Option<&T> {
    list.get(turn % list.len().max(1))
}

/// The nth cut: a host from the others, the way from one host to another, a host from everything (one that has clients),
/// and the other hosts from each other; in turn for each host.
fn cut(hosts: &[HostId], with_clients: &[HostId], turn: usize) -> Option<Deed> {
    const KINDS: usize = 4;
    // Also where the kinds are as many as the hosts, each host gets each kind.
    let place = (turn + turn / KINDS) % hosts.len().max(1);
    let host = match turn % KINDS {
        2 => *in_turn(with_clients, turn / KINDS)?,
        _ => *hosts.get(place)?,
    };
    let others: Vec<HostId> = hosts.iter().copied().filter(|other| *other != host).collect();
    let both = |one: End, other: End| [(one, other), (other, one)];
    let from_others = others.iter().flat_map(|other| both(End::Host(host), End::Host(*other)));
    let ways: Vec<(End, End)> = match turn % KINDS {
        0 => from_others.collect(),
        1 => in_turn(&others, turn / KINDS).map(|other| (End::Host(host), End::Host(*other))).into_iter().collect(),
        2 => from_others.chain(both(End::Host(host), End::Clients)).collect(),
        _ if others.len() < 2 => from_others.collect(),
        _ => {
            let pairs = others.iter().flat_map(|one| others.iter().map(move |other| (*one, *other)));
            pairs.filter(|(one, other)| one != other).map(|(one, other)| (End::Host(one), End::Host(other))).collect()
        }
    };
    (!ways.is_empty()).then_some(Deed::Drop(Drops::Ways(ways)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn cuts(hosts: &[&str], turns: std::ops::Range<usize>) -> Vec<String> {
        let hosts: Vec<HostId> = hosts.iter().map(|host| host.parse().unwrap()).collect();
        turns.map(|turn| cut(&hosts, &hosts[1..], turn).unwrap().what()).collect()
    }

    #[test]
    fn each_kind_of_cut_comes_to_each_host() {
        let first = cuts(&["a", "b", "c"], 0..4);
        let expected = ["a>b b>a a>c c>a", "b>a", "b>a a>b b>c c>b b>clients clients>b", "b>c c>b"];
        assert_eq!(first, expected);
        for hosts in [&["a", "b"][..], &["a", "b", "c"], &["a", "b", "c", "d"]] {
            let distinct: BTreeSet<_> = cuts(hosts, 0..4 * hosts.len()).into_iter().collect();
            // Of two hosts, one from the others is the others from each other; only those with clients lose them.
            let expected = if hosts.len() == 2 { 5 } else { 4 * hosts.len() - 1 };
            assert_eq!(distinct.len(), expected, "{hosts:?}: {distinct:?}");
        }
        assert_eq!(cut(&["a".parse().unwrap()], &[], 0), None);
    }

    #[test]
    fn chaos_takes_what_there_is() {
        let with = |has: bool| Fault::of_chaos(|_| has);
        assert_eq!(with(true).len(), Fault::each().count() - 1);
        assert_eq!(with(false), [Fault::Kill, Fault::KillRelay, Fault::KillMaster, Fault::Stop, Fault::Host]);
    }
}
