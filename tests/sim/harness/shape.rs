//! The clusters that are simulated: from one host to five, with and without masters.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use gaggle::topology::{AckLevel, HostSpec, PostsKept, ProcessSpec, Role, Topology};
use gaggle::wire::Versions;

use super::dice::Dice;
use super::{Options, named};

const M: Role = Role::Master;
const W: Role = Role::Worker;
const C: Role = Role::Connector;

/// A cluster that can be asked for by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// topology/lenss.toml
    Lenss,
    /// topology/spread.toml
    Spread,
    Pair,
    Alone,
    Uneven,
    Workers,
}

impl Shape {
    const ALL: [Self; 6] = [Self::Lenss, Self::Spread, Self::Pair, Self::Alone, Self::Uneven, Self::Workers];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lenss => "lenss",
            Self::Spread => "spread",
            Self::Pair => "pair",
            Self::Alone => "alone",
            Self::Uneven => "uneven",
            Self::Workers => "workers",
        }
    }

    /// Its hosts, by their processes' roles.
    fn hosts(self) -> &'static [&'static [Role]] {
        match self {
            Self::Lenss => &[&[M, M, M, C], &[W, W, C], &[W, W, C]],
            Self::Spread => &[&[M, W, W, C], &[M, W, W, C], &[M, W, W, C]],
            Self::Pair => &[&[W, C], &[W, C]],
            Self::Alone => &[&[M, W, C]],
            Self::Uneven => &[&[M, W], &[W, C], &[W], &[W, W], &[C, C]],
            Self::Workers => &[&[W], &[W], &[W]],
        }
    }
}

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        named(&Self::ALL, Self::name, "shape", name)
    }
}

/// The part of the dice that decides how many posts are kept.
const POSTS: u64 = u64::MAX;

/// How long logs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logs {
    Any,
    Short,
}

/// How many posts are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Posts {
    Any,
    Few,
}

/// A topology drawn by chance, unless one is asked for; the reference shapes come up most often.
pub(crate) fn topology(dice: &mut Dice, logs: Logs, asked: Option<Shape>) -> Topology {
    let among = if dice.chance(600) { &Shape::ALL[..2] } else { &Shape::ALL[..] };
    let drawn = among[dice.index(among.len())];
    let mut topology = build(asked.unwrap_or(drawn).hosts());
    if logs == Logs::Short || dice.chance(400) {
        // Short logs: whoever was away for long needs a snapshot.
        topology.log_entries_kept = dice.between(1, 40);
        topology.log_entries_max = topology.log_entries_kept + dice.between(0, 60);
    }
    topology
}

/// How many posts are kept, drawn apart: in most runs all.
pub(crate) fn posts(seed: u64, posts: Posts) -> PostsKept {
    let mut dice = Dice::of(seed, POSTS);
    let age = |dice: &mut Dice| Some(Duration::from_millis(dice.between(500, 6_000)));
    let count = |dice: &mut Dice| Some(dice.between(1, 40));
    let sides = if posts == Posts::Few { 3 } else { 12 };
    match dice.between(0, sides) {
        0 => PostsKept { max_age: age(&mut dice), max_count: None },
        1 => PostsKept { max_age: None, max_count: count(&mut dice) },
        2 => PostsKept { max_age: age(&mut dice), max_count: count(&mut dice) },
        _ => PostsKept::default(),
    }
}

/// The part of the dice that decides which versions of the wire are spoken.
const WIRES: u64 = u64::MAX - 1;

/// Which versions of the wire are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wires {
    /// That is drawn: in most runs the newest, in some the first, in some one or the other by each process, at each start
    /// anew, as while a cluster is upgraded or an upgrade is taken back.
    Drawn,
    /// The first, everywhere: what nodes did before there was another.
    First,
}

impl Wires {
    const ALL: [Self; 2] = [Self::Drawn, Self::First];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Drawn => "drawn",
            Self::First => "first",
        }
    }
}

impl std::str::FromStr for Wires {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        named(&Self::ALL, Self::name, "choice of versions", name)
    }
}

/// What a process understands in one of its lives, drawn apart.
pub(crate) fn versions(options: &Options, proc: usize, life: u32) -> Versions {
    let first = Versions::upto(gaggle::wire::VERSION_OLDEST);
    let mut dice = Dice::of(options.seed, WIRES);
    match (options.wires, dice.between(0, 10)) {
        (Wires::First, _) | (Wires::Drawn, 0) => first,
        (Wires::Drawn, 1..=4) => {
            let place = (proc as u64) << 32 | u64::from(life);
            if Dice::of(options.seed ^ dice.number(), place).chance(500) { first } else { Versions::OURS }
        }
        (Wires::Drawn, _) => Versions::OURS,
    }
}

fn build(shape: &[&[Role]]) -> Topology {
    let mut port = 6_001;
    let mut hosts = Vec::new();
    for (index, roles) in shape.iter().enumerate() {
        let host = format!("host{}", index + 1).parse().unwrap();
        let mut processes = Vec::new();
        for role in *roles {
            let letter = match role {
                Role::Master => 'M',
                Role::Worker => 'W',
                Role::Connector => 'C',
            };
            let addr = SocketAddr::from(([127, 0, 0, 1], port));
            let id = format!("{letter}{}", port - 6_000).parse().unwrap();
            processes.push(ProcessSpec { id, host, role: *role, addr });
            port += 1;
        }
        hosts.push(HostSpec { id: host, processes });
    }
    Topology {
        cluster: "simulated".to_owned(),
        hosts,
        data: PathBuf::from("data"),
        certs: PathBuf::from("certs"),
        ack: AckLevel::Peer,
        log_entries_kept: 1_000_000,
        log_entries_max: 1_000_000,
        posts: PostsKept::default(),
    }
}
