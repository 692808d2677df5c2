//! The clusters that are simulated: from one host to five, with and without masters.

use std::net::SocketAddr;
use std::path::PathBuf;

use gaggle::topology::{AckLevel, HostSpec, ProcessSpec, Role, Topology};

use super::dice::Dice;

const M: Role = Role::Master;
const W: Role = Role::Worker;
const C: Role = Role::Connector;

/// Hosts by their processes' roles.
const SHAPES: &[&[&[Role]]] = &[
    // topology/lenss.toml
    &[&[M, M, M, C], &[W, W, C], &[W, W, C]],
    // topology/spread.toml
    &[&[M, W, W, C], &[M, W, W, C], &[M, W, W, C]],
    &[&[W, C], &[W, C]],
    &[&[M, W, C]],
    &[&[M, W], &[W, C], &[W], &[W, W], &[C, C]],
    &[&[W], &[W], &[W]],
];

/// How long logs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logs {
    Any,
    Short,
}

/// A topology drawn by chance; the reference shapes come up most often.
pub(crate) fn topology(dice: &mut Dice, logs: Logs) -> Topology {
    let shape = if dice.chance(600) { SHAPES[dice.index(2)] } else { SHAPES[dice.index(SHAPES.len())] };
    let mut topology = build(shape);
    if logs == Logs::Short || dice.chance(400) {
        // Short logs: whoever was away for long needs a snapshot.
        topology.log_entries_kept = dice.between(1, 40);
        topology.log_entries_max = topology.log_entries_kept + dice.between(0, 60);
    }
    topology
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
    }
}
