//! What the tests of several parts share: a host of two workers, and the better placed of them.

use crate::core::node::{Node, NodeConfig};
use crate::id::{Digest, Epoch, Origin, ProcessId, Seq, Vector};
use crate::service::ledger::Standing;
use crate::service::retired::Retired;
use crate::time::{Hlc, Instant, Now, Wall};
use crate::topology::Topology;
use crate::wire::Versions;

const PAIR: &str = r#"
    cluster = "test"

    [[host]]
    name = "a"

    [[host.process]]
    id = "W1"
    role = "worker"
    addr = "127.0.0.1:7001"

    [[host.process]]
    id = "W2"
    role = "worker"
    addr = "127.0.0.1:7002"
"#;

pub(super) fn id(name: &str) -> ProcessId {
    name.parse().unwrap()
}

pub(super) fn at(ms: u64) -> Now {
    Now { mono: Instant::from_micros(ms * 1_000), wall: Wall(ms * 1_000) }
}

/// The better placed, which knows of no living sibling yet.
pub(super) fn first() -> Node {
    one_of_two("W1")
}

/// A node of the two, which knows of no living sibling yet.
pub(super) fn one_of_two(me: &str) -> Node {
    let topology = Topology::parse(PAIR, "t.toml").unwrap();
    let config = NodeConfig {
        topology,
        topology_hash: 0,
        me: id(me),
        run: 1,
        pid: 1,
        seed: 1,
        versions: Versions::OURS,
        block: 4,
    };
    Node::new(config, at(0))
}

/// What the store says to who takes this epoch.
pub(crate) fn standing(epoch: u64, origin: Option<Origin>) -> Standing {
    Standing {
        epoch: Epoch(epoch),
        origin,
        vector: origin.iter().map(|origin| (*origin, Seq(3))).collect(),
        hlc: Hlc::ZERO,
        digest: Digest::default(),
        entries: 0,
        cut: Vector::new(),
        snapshot: None,
        trim: Hlc::ZERO,
        ahead: Vector::new(),
        retired: Retired::default(),
        disk_bytes: 0,
    }
}
