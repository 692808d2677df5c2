//! Tests of a node as its host's primary.

use super::*;
use crate::core::io::Input;
use crate::core::node::NodeConfig;
use crate::core::testing::{at, first, id, standing};
use crate::id::Digest;
use crate::service::ledger::Write;
use crate::service::snapshot::Cursor;
use crate::service::trim::Keep;
use crate::time::Wall;
use crate::topology::Topology;
use crate::wire::heartbeat::HostRecord;

/// Whether its heartbeats say that the incarnation is settled.
fn is_warm(node: &mut Node, ms: u64) -> bool {
    let mut out = Vec::new();
    let (process, life) = (id("W2"), Life::Up);
    node.handle_input(at(ms), Input::Sibling { process, life, pid: 2 }, &mut out);
    node.handle_timeout(at(ms), &mut out);
    let warm = |output: &Output| if let Output::Beat { heartbeat, .. } = output { Some(heartbeat.warm) } else { None };
    let mut beats = out.iter().filter_map(warm);
    beats.next().unwrap()
}

#[test]
fn siblings_hear_of_an_incarnation_only_when_it_is_stored() {
    let mut node = first();
    let mut out = Vec::new();
    node.handle_input(at(1), Input::EpochTaken(Ok(standing(1, None))), &mut out);
    let Some(Output::Persist { id: write, write: Write::Begin(origin), .. }) =
        out.iter().find(|output| matches!(output, Output::Persist { .. })).cloned()
    else {
        panic!("no incarnation begins: {out:?}");
    };
    assert!(!is_warm(&mut node, 1_000), "a sibling that takes over now would go on with the old origin");
    let full = Input::Persisted { writes: vec![write], result: Err(StoreTrouble::Full) };
    node.handle_input(at(1_001), full, &mut out);
    assert!(!is_warm(&mut node, 2_000), "nor was it stored");
    let committed = Committed {
        outcomes: Vec::new(),
        standing: standing(1, Some(origin)),
        proved: std::collections::BTreeMap::new(),
    };
    node.handle_input(at(2_001), Input::Persisted { writes: vec![], result: Ok(committed) }, &mut out);
    assert!(is_warm(&mut node, 3_000));
}

#[test]
fn an_origin_that_goes_on_is_settled_at_once() {
    let mut node = first();
    let origin = Origin { host: node.host, incarnation: 7 };
    node.handle_input(at(1), Input::EpochTaken(Ok(standing(1, Some(origin)))), &mut Vec::new());
    assert!(is_warm(&mut node, 1_000));
}

/// A successor in the midst of a snapshot was not told what other hosts hold, and still has but half.
#[test]
fn who_has_half_a_snapshot_is_catching_up() {
    let fitness = |snapshot: Option<Cursor>| {
        let mut node = first();
        let origin = Origin { host: node.host, incarnation: 7 };
        let standing = Standing { snapshot, ..standing(1, Some(origin)) };
        node.handle_input(at(1), Input::EpochTaken(Ok(standing)), &mut Vec::new());
        node.primary_status_at(at(2)).unwrap().fitness
    };
    let half = Cursor { at: b"m".to_vec(), vector: Vector::new() };
    assert_eq!((fitness(None), fitness(Some(half))), (Fitness::Ready, Fitness::CatchingUp));
}

const KEEPERS: &str = r#"
    cluster = "test"

    [posts]
    max_age = "1h"

    [[host]]
    name = "a"

    [[host.process]]
    id = "W1"
    role = "worker"
    addr = "127.0.0.1:7001"

    [[host]]
    name = "b"

    [[host.process]]
    id = "W2"
    role = "worker"
    addr = "127.0.0.1:7002"
"#;

/// Two hours after 1970: then an age of an hour is a time.
const LATER: u64 = 2 * 3_600 * 1_000;

/// W1 at the end of its election, where posts are kept for an hour and by nothing else unless this says so.
fn keeper(topology: &str) -> Node {
    let topology = Topology::parse(topology, "t.toml").unwrap();
    let config = NodeConfig {
        topology,
        topology_hash: 7,
        me: id("W1"),
        run: 1,
        pid: 1,
        seed: 1,
        versions: crate::wire::Versions::OURS,
        block: 4,
    };
    let mut node = Node::new(config, at(LATER));
    node.handle_timeout(at(LATER + 10_000), &mut Vec::new());
    assert!(matches!(node.serving, Serving::Taking { .. }));
    node
}

fn own(node: &Node) -> Origin {
    Origin { host: node.host, incarnation: 7 }
}

/// What a host says of itself by its clock, and that it is up.
fn hear(node: &mut Node, host: &str, clock: Now, topology: u32) {
    let host: HostId = host.parse().unwrap();
    let record = HostRecord {
        host,
        version: Hlc::at(clock.wall),
        wall: clock.wall,
        serving: None,
        relaying: None,
        directing: None,
        epoch: Epoch::ZERO,
        fitness: Fitness::Ready,
        sessions: 0,
        vector: Vector::new(),
        digest: Digest::default(),
        entries: 0,
        disk_bytes: 0,
        topology,
        processes: Vec::new(),
    };
    node.mesh.views.insert(host, HostView { record, up: true });
}

/// The host goes down: what it said last stays.
fn lose(node: &mut Node, host: &str) {
    node.mesh.views.get_mut(&host.parse().unwrap()).unwrap().up = false;
}

/// What is to be kept, as each trim says that is asked of the store meanwhile.
fn trims(node: &mut Node, ms: u64) -> Vec<Keep> {
    let mut out = Vec::new();
    node.serve_timeout(at(ms), &mut out);
    let keep = |output| if let Output::Persist { write: Write::Trim(keep), .. } = output { Some(keep) } else { None };
    out.into_iter().filter_map(keep).collect()
}

fn an_hour_before(ms: u64) -> Keep {
    Keep { since: Hlc::at(Wall((ms - 3_600_000) * 1_000)), posts: None, rows_min: 1 }
}

#[test]
fn posts_go_by_age_only_while_every_host_that_is_up_has_the_same_time_and_file() {
    let mut node = keeper(KEEPERS);
    let (begin, origin) = (LATER + 10_001, own(&node));
    node.warm = Warm::Yes;
    node.handle_input(at(begin), Input::EpochTaken(Ok(standing(1, Some(origin)))), &mut Vec::new());
    let skew = u64::try_from(limits::TRIM_SKEW_MAX.as_millis()).unwrap();
    let mut now = begin;
    let mut look = |said: &dyn Fn(&mut Node, u64)| {
        now += 60_000;
        said(&mut node, now);
        (now, trims(&mut node, now))
    };
    assert_eq!(look(&|_, _| {}).1, [], "nobody is heard");
    assert_eq!(look(&|node, ms| hear(node, "b", at(ms + skew + 1), 7)).1, [], "its clock is ahead");
    assert_eq!(look(&|node, ms| hear(node, "b", at(ms - skew - 1), 7)).1, [], "its clock is behind");
    assert_eq!(look(&|node, ms| hear(node, "b", at(ms), 8)).1, [], "it has read another file");
    for far in [0, skew] {
        let (now, found) = look(&|node, ms| hear(node, "b", at(ms - far), 7));
        assert_eq!(found, [an_hour_before(now)], "{far}");
    }
    assert_eq!(look(&|node, _| lose(node, "b")).1, [], "it is down: nobody is heard");
    let (_, found) = look(&|node, ms| hear(node, "c", at(ms), 7));
    assert_eq!(found.len(), 1, "what a host that is down said last does not count");
}

#[test]
fn a_look_for_posts_waits_for_a_settled_term() {
    let mut node = keeper(&KEEPERS.replace("max_age = \"1h\"", "max_count = 5"));
    let (begin, origin) = (LATER + 10_001, own(&node));
    hear(&mut node, "b", at(begin), 7);
    node.handle_input(at(begin), Input::EpochTaken(Ok(standing(1, Some(origin)))), &mut Vec::new());
    let due = begin + 1_000;
    let recall = node.serving.term_mut().and_then(|term| term.recall.as_mut()).unwrap();
    recall.until = at(due + 500).mono;
    assert_eq!(trims(&mut node, due), [], "whose seqs come next is not known");
    let vector = standing(1, Some(origin)).vector;
    node.on_recalled(at(due + 1), id("W2"), vector, &mut Vec::new());
    assert!(node.serving.term().is_some_and(Term::settled));
    let keep = Keep { since: Hlc::ZERO, posts: Some(5), rows_min: 1 };
    assert_eq!(trims(&mut node, due + 2), [keep], "it was put off, not left out");
    assert_eq!(trims(&mut node, due + 3), []);
}

/// Whom W1, which has waited so long for the store's lock, kills.
fn killed(node: &mut Node, ms: u64) -> Vec<ProcessId> {
    let mut out = Vec::new();
    node.serve_timeout(at(ms), &mut out);
    out.into_iter()
        .filter_map(|output| if let Output::Kill { process } = output { Some(process) } else { None })
        .collect()
}

#[test]
fn a_stopped_sibling_that_may_hold_the_lock_is_killed_at_once_and_the_last_primary_after_a_wait() {
    let wait = u64::try_from(limits::LOCK_HOLDER_WAIT.as_millis()).unwrap();
    let waiting = |life| {
        let mut node = first();
        node.handle_input(at(1), Input::Sibling { process: id("W2"), life, pid: 2 }, &mut Vec::new());
        node.serving = Serving::No;
        node.take_epoch(at(2), &mut Vec::new());
        node
    };
    let mut node = waiting(Life::Stopped);
    assert_eq!(killed(&mut node, 3), [], "it may be for a moment only");
    assert_eq!(killed(&mut node, 100), [id("W2")]);

    let mut node = waiting(Life::Up);
    assert_eq!(killed(&mut node, 2 + wait), [], "it was not the primary");
    let mut node = waiting(Life::Up);
    let Standing { epoch, vector, digest, entries, disk_bytes, .. } = standing(1, None);
    let fitness = Fitness::Ready;
    let status = PrimaryStatus { epoch, fitness, sessions: 0, vector, digest, entries, disk_bytes };
    node.mesh.primary = Some((id("W2"), status));
    assert_eq!(killed(&mut node, 1 + wait), []);
    assert_eq!(killed(&mut node, 1 + wait + 100), [id("W2")]);
}

#[test]
fn a_process_that_dies_again_and_again_is_restarted_ever_later_until_it_lives_for_a_while() {
    let mut node = first();
    let origin = own(&node);
    node.handle_input(at(1), Input::EpochTaken(Ok(standing(1, Some(origin)))), &mut Vec::new());
    let mut now = 10;
    let mut live = |lived: Duration| {
        let mut out = Vec::new();
        let process = id("W2");
        node.handle_input(at(now), Input::Sibling { process, life: Life::Up, pid: 2 }, &mut Vec::new());
        now += u64::try_from(lived.as_millis()).unwrap();
        node.handle_input(at(now), Input::Sibling { process, life: Life::Dead, pid: 0 }, &mut out);
        let restart = |output| if let Output::Restart { after, .. } = output { Some(after) } else { None };
        let pauses: Vec<Duration> = out.into_iter().filter_map(restart).collect();
        assert_eq!(pauses.len(), 1, "it is wished back once");
        pauses[0]
    };
    let moment = Duration::from_millis(5);
    assert_eq!(live(limits::RESTART_FORGIVEN), Duration::ZERO, "the first time at once");
    let pauses: Vec<Duration> = std::iter::repeat_with(|| live(moment)).take(12).collect();
    assert!(pauses[0] == limits::RESTART_BACKOFF && pauses.is_sorted(), "{pauses:?}");
    assert_eq!(pauses[11], limits::RESTART_BACKOFF_MAX);
    assert_eq!(live(limits::RESTART_FORGIVEN - moment), limits::RESTART_BACKOFF_MAX);
    assert_eq!(live(limits::RESTART_FORGIVEN), Duration::ZERO);
}

#[test]
fn a_stopped_process_is_killed_when_the_store_grows_and_grows() {
    let mut node = first();
    let origin = own(&node);
    node.handle_input(at(1), Input::EpochTaken(Ok(standing(1, Some(origin)))), &mut Vec::new());
    let process = id("W2");
    let mut commits = |life, sizes: [u64; 2]| {
        node.handle_input(at(2), Input::Sibling { process, life, pid: 2 }, &mut Vec::new());
        let mut out = Vec::new();
        for disk_bytes in sizes {
            let standing = Standing { disk_bytes, ..standing(1, Some(origin)) };
            let committed = Committed { outcomes: Vec::new(), standing, proved: BTreeMap::new() };
            node.handle_input(at(3), Input::Persisted { writes: Vec::new(), result: Ok(committed) }, &mut out);
        }
        out.contains(&Output::Kill { process })
    };
    let (small, large) = (1 << 20, (1 << 20) + limits::STOPPED_GROWTH_MAX + 1);
    assert!(!commits(Life::Up, [small, large]), "it runs");
    assert!(!commits(Life::Stopped, [large, large + 1]), "what there was before counts for nothing");
    assert!(!commits(Life::Up, [small, large]));
    assert!(commits(Life::Stopped, [small, large]));
}
