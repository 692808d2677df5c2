//! Hosts that are cut from each other: a network namespace for each host, and one for a switch that joins them and the
//! clients, which stay with the drill itself. Everything that goes from one to another passes the switch, which drops
//! what it is told to: one set of rules, changed at once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::cli::drill::delay::{self, Delay, Detour};
use crate::cli::drill::room::run;
use crate::cli::failure::Failure;
use crate::id::HostId;
use crate::topology::Topology;

/// The first three numbers of every address.
const SUBNET: [u8; 3] = [10, 77, 0];
/// The last number of the clients' address; hosts have 1, 2, 3 ...
const CLIENTS: u8 = 254;
/// What the end of a wire is called in a host's namespace, and in the clients'.
const WIRE: &str = "wire";
/// Prepares the switch: what it drops, and for now nothing.
const TABLE: &str = "table bridge drill { chain drops { type filter hook forward priority 0; policy accept; }; }\n";
/// Holds a namespace for as long as its standard input is open, which it is for as long as the drill lives.
const HOLD: &str = "echo && exec cat";

/// One end of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// All clients.
    Clients,
    /// A host.
    Host(HostId),
}

/// What is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Drops {
    /// Nothing.
    Nothing,
    /// What goes from the first to the second.
    Ways(Vec<(End, End)>),
    /// So many of a hundred packets, whatever their way.
    Percent(u32),
}

/// A namespace that lives as long as this. Its process ends by itself when the drill ends, even if it is killed.
#[derive(Debug)]
struct Space {
    child: Child,
    pid: u32,
}

impl Space {
    async fn new() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("cannot make a network namespace: {error}"));
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", HOLD]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C is not for it: hosts need their network to say goodbye.
        let mut child = command.process_group(0).spawn().map_err(failed)?;
        let pid = child.id().unwrap_or(0);
        // It speaks when it is in its namespace.
        let mut line = [0];
        let mut stdout = child.stdout.take().ok_or_else(|| failed(std::io::Error::other("no pipe")))?;
        stdout.read_exact(&mut line).await.map_err(failed)?;
        Ok(Self { child, pid })
    }

    /// Words before a command that is to run there; they become it.
    fn before(&self) -> Vec<String> {
        ["nsenter", "--target", &self.pid.to_string(), "--net"].map(str::to_owned).to_vec()
    }

    async fn run(&self, words: &[&str], input: &str) -> Result<(), Failure> {
        let before = self.before();
        let words = before[1..].iter().map(String::as_str).chain(words.iter().copied());
        run(&before[0], words, input).await
    }

    async fn end(mut self) {
        let _ = self.child.kill().await;
    }
}

/// The switch and the hosts.
#[derive(Debug)]
pub(super) struct Network {
    switch: Space,
    hosts: BTreeMap<HostId, (Space, Ipv4Addr)>,
}

impl Network {
    /// Makes it; only inside the drill's own namespaces, one of which becomes the clients'.
    pub(super) async fn start(topology: &Topology) -> Result<Self, Failure> {
        let switch = Space::new().await?;
        switch.run(&["ip", "link", "add", "name", "switch", "up", "type", "bridge"], "").await?;
        switch.run(&["nft", "-f", "-"], TABLE).await?;
        plug(&switch, std::process::id(), CLIENTS).await?;
        run("ip", ["-batch", "-"], &join(CLIENTS)).await?;
        let mut hosts = BTreeMap::new();
        for (host, number) in topology.hosts.iter().zip(1..CLIENTS) {
            let space = Space::new().await?;
            plug(&switch, space.pid, number).await?;
            space.run(&["ip", "-batch", "-"], &join(number)).await?;
            hosts.insert(host.id, (space, addr(number)));
        }
        Ok(Self { switch, hosts })
    }

    /// A host's address.
    pub(super) fn addr(&self, host: HostId) -> Option<Ipv4Addr> {
        self.hosts.get(&host).map(|(_, addr)| *addr)
    }

    /// Words before the command of a host's processes.
    pub(super) fn before(&self, host: HostId) -> Vec<OsString> {
        let words = self.hosts.get(&host).map(|(space, _)| space.before());
        words.unwrap_or_default().into_iter().map(OsString::from).collect()
    }

    /// From now on this is dropped, and nothing else.
    pub(super) async fn drop_only(&self, drops: &Drops) -> Result<(), Failure> {
        let of = |end: &End| match end {
            End::Clients => Some(addr(CLIENTS)),
            End::Host(host) => self.addr(*host),
        };
        self.switch.run(&["nft", "-f", "-"], &rules(drops, of)).await
    }

    /// For so long every packet is late.
    pub(super) async fn delay(&self, delay: Delay, lasting: Duration) -> Result<(), Failure> {
        let detour = Detour::start(delay)?;
        run("ip", ["link", "set", delay::PORT, "netns", &self.switch.pid.to_string()], "").await?;
        self.switch.run(&["ip", "-batch", "-"], &delay::plug()).await?;
        let numbers = self.hosts.values().map(|(_, addr)| addr.octets()[3]).chain([CLIENTS]);
        let ports: Vec<_> = numbers.map(port).collect();
        self.switch.run(&["nft", "-f", "-"], &delay::divert(&ports)).await?;
        tokio::time::sleep(lasting).await;
        self.switch.run(&["nft", "-f", "-"], delay::REJOIN).await?;
        detour.end().await
    }

    /// Takes it away; the processes in it have ended.
    pub(super) async fn end(self) {
        // By hand, because the kernel takes its time, and the next network has the same names.
        let _ = run("ip", ["link", "del", WIRE], "").await;
        for (space, _) in self.hosts.into_values() {
            space.end().await;
        }
        self.switch.end().await;
    }
}

/// The name of the switch's end of a wire.
fn port(number: u8) -> String {
    format!("port{number}")
}

fn addr(number: u8) -> Ipv4Addr {
    let [a, b, c] = SUBNET;
    Ipv4Addr::new(a, b, c, number)
}

/// A wire from the switch to the namespace of a process, which has its other end.
async fn plug(switch: &Space, pid: u32, number: u8) -> Result<(), Failure> {
    let (port, pid) = (port(number), pid.to_string());
    let wire = ["ip", "link", "add", "name", &port, "type", "veth", "peer", "name", WIRE, "netns", &pid];
    switch.run(&wire, "").await?;
    switch.run(&["ip", "link", "set", &port, "master", "switch", "up"], "").await
}

/// Commands of `ip` for a namespace that was plugged in. Packets are as long as on a real wire: a loss is then of one
/// packet, not of a burst that QUIC hands to the kernel as a whole.
fn join(number: u8) -> String {
    let addr = addr(number);
    format!("link set lo up\naddr add {addr}/24 dev {WIRE}\nlink set {WIRE} gso_max_segs 1\nlink set {WIRE} up\n")
}

/// Commands of `nft`, carried out together or not at all.
fn rules(drops: &Drops, addr: impl Fn(&End) -> Option<Ipv4Addr>) -> String {
    let mut text = "flush chain bridge drill drops\n".to_owned();
    let mut rule = |what: String| writeln!(text, "add rule bridge drill drops {what} drop");
    // Writing to a string cannot fail.
    let _ = match drops {
        Drops::Nothing => Ok(()),
        Drops::Percent(percent) => rule(format!("ip protocol udp numgen random mod 100 < {percent}")),
        Drops::Ways(ways) => ways.iter().try_for_each(|(from, to)| match (addr(from), addr(to)) {
            (Some(from), Some(to)) => rule(format!("ip saddr {from} ip daddr {to}")),
            (_, None) | (None, _) => Ok(()),
        }),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_replace_those_before() {
        let addr_of = |end: &End| match end {
            End::Clients => Some(addr(CLIENTS)),
            End::Host(host) => (host.to_string() == "a").then(|| addr(1)),
        };
        let (a, gone) = (End::Host("a".parse().unwrap()), End::Host("gone".parse().unwrap()));
        let text = |drops: &Drops| rules(drops, addr_of);
        assert_eq!(text(&Drops::Nothing), "flush chain bridge drill drops\n");
        assert_eq!(
            text(&Drops::Ways(vec![(a, End::Clients), (a, gone)])),
            "flush chain bridge drill drops\nadd rule bridge drill drops ip saddr 10.77.0.1 ip daddr 10.77.0.254 drop\n"
        );
        assert!(text(&Drops::Percent(5)).ends_with("udp numgen random mod 100 < 5 drop\n"));
    }
}
