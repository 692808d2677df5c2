//! Tests of a node as its host's primary.

use super::*;
use crate::core::io::Input;
use crate::core::testing::{at, first, id, standing};
use crate::service::ledger::Write;
use crate::service::snapshot::Cursor;

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
