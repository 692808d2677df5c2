//! What waits at a primary: in which order it goes on, and how much of it there may be.

use super::*;
use crate::core::testing::{at, standing};
use crate::id::Seq;

fn origin() -> Origin {
    Origin { host: "a".parse().unwrap(), incarnation: 1 }
}

fn upto(seq: u64) -> Vector {
    [(origin(), Seq(seq))].into_iter().collect()
}

/// The primary of a host that is alone: all that it holds may be shown. It holds three entries.
fn alone() -> Primary {
    alone_but_for(&[], standing(1, Some(origin())))
}

/// The primary of a host that knows of these others.
fn alone_but_for(others: &[HostId], standing: Standing) -> Primary {
    let host = origin().host;
    let post = Post {
        host,
        hosts: [&[host], others].concat(),
        level: AckLevel::Host,
        retention: Retention { kept: 1_000, max: 1_000 },
        posts: PostsKept::default(),
        first_write: 0,
        first_feed_read: 0,
    };
    Primary::new(at(0), post, standing)
}

fn ask(client: u64, number: u64, seen: u64, body: RequestBody) -> Ask {
    let token = Token { vector: upto(seen), ..Token::default() };
    Ask { client: ClientId(client), key: PublicKey([1; 32]), request: Request { number, token, body } }
}

fn look(primary: &mut Primary, client: u64, number: u64, seen: u64) -> Outputs {
    let mut out = Outputs::new();
    primary.on_request(at(1), ask(client, number, seen, RequestBody::WhoAmI), &mut out);
    out
}

/// Which requests are handed to the store to read, as client and number.
fn reads(out: &Outputs) -> Vec<(u64, u64)> {
    let read = |output: &Output| {
        if let Output::Query { client, number, .. } = output { Some((client.0, *number)) } else { None }
    };
    out.iter().filter_map(read).collect()
}

/// Which requests are refused as too many.
fn busy(out: &Outputs) -> Vec<(u64, u64)> {
    let busy = |output: &Output| {
        let Output::Reply { client, frame: ServerFrame::Response { number, result: Err(refusal), .. } } = output else {
            return None;
        };
        assert_eq!(refusal.code, ErrorCode::Busy);
        Some((client.0, *number))
    };
    out.iter().filter_map(busy).collect()
}

/// The store holds entries up to this one.
fn commit(primary: &mut Primary, seq: u64) -> Outputs {
    let standing = Standing { vector: upto(seq), ..standing(1, Some(origin())) };
    let mut out = Outputs::new();
    primary.on_committed(at(2), Committed { outcomes: Vec::new(), standing, proved: BTreeMap::new() }, &mut out);
    primary.check_invariants();
    out
}

#[test]
fn requests_of_a_client_wait_behind_its_first_and_behind_nobody_elses() {
    let mut primary = alone();
    assert_eq!(reads(&look(&mut primary, 1, 1, 3)), [(1, 1)], "held");
    assert_eq!(look(&mut primary, 1, 2, 6), []);
    assert_eq!(look(&mut primary, 1, 3, 3), [], "held, but a request before it waits");
    assert_eq!(look(&mut primary, 2, 1, 5), []);
    assert_eq!(look(&mut primary, 2, 2, 6), []);
    assert_eq!(look(&mut primary, 2, 3, 3), []);
    assert_eq!(reads(&look(&mut primary, 3, 1, 3)), [(3, 1)], "nothing of its own waits");
    assert_eq!(reads(&commit(&mut primary, 4)), []);
    assert_eq!(reads(&commit(&mut primary, 5)), [(2, 1)]);
    assert_eq!(look(&mut primary, 2, 4, 3), [], "it still waits behind another");
    assert_eq!(reads(&commit(&mut primary, 6)), [(1, 2), (1, 3), (2, 2), (2, 3), (2, 4)]);
    assert_eq!(reads(&look(&mut primary, 1, 4, 6)), [(1, 4)], "nothing waits any more");
}

#[test]
fn a_request_too_many_that_would_wait_for_its_token_is_refused() {
    let mut primary = alone();
    let max = u64::try_from(limits::TOKEN_WAITS_MAX).unwrap();
    for client in 0..max {
        assert_eq!(look(&mut primary, client, 1, 4), []);
    }
    assert_eq!(busy(&look(&mut primary, max, 1, 4)), [(max, 1)]);
    assert_eq!(busy(&look(&mut primary, 0, 2, 4)), [(0, 2)], "whoever it is");
    assert_eq!(reads(&look(&mut primary, max, 2, 3)), [(max, 2)], "this one need not wait");
    primary.on_client_closed(ClientId(7));
    assert_eq!(look(&mut primary, max, 3, 4), [], "a place is free");
    assert_eq!(reads(&commit(&mut primary, 4)).len(), limits::TOKEN_WAITS_MAX);
}

#[test]
fn a_write_too_many_is_refused_until_the_store_has_done_one() {
    let mut primary = alone();
    let write = |primary: &mut Primary, number: u64| {
        let op = WriteOp::Post { text: "hello".parse().unwrap() };
        let body = RequestBody::Write { id: format!("r{number}").parse().unwrap(), op, ack: None };
        let mut out = Outputs::new();
        primary.on_request(at(1), ask(number, number, 3, body), &mut out);
        out
    };
    let max = u64::try_from(limits::WRITES_WAITING_MAX).unwrap();
    for number in 0..max {
        assert!(matches!(write(&mut primary, number)[..], [Output::Persist { .. }]));
    }
    assert_eq!(busy(&write(&mut primary, max)), [(max, max)]);
    let refusal = Refusal::new(ErrorCode::NotJoined, "no");
    let outcomes = vec![(WriteId(1), Wrote::Request(Err(refusal)))];
    let standing = standing(1, Some(origin()));
    primary.on_committed(at(2), Committed { outcomes, standing, proved: BTreeMap::new() }, &mut Outputs::new());
    assert!(matches!(write(&mut primary, max)[..], [Output::Persist { .. }]));
    assert_eq!(busy(&write(&mut primary, max + 1)), [(max + 1, max + 1)]);
}

/// What is handed to the store to take out what nobody holds.
fn sweeps(out: &Outputs) -> Vec<WriteId> {
    let sweep = |output: &Output| {
        if let Output::Persist { id, write: Write::Sweep, .. } = output { Some(*id) } else { None }
    };
    out.iter().filter_map(sweep).collect()
}

#[test]
fn what_a_snapshot_told_is_taken_out_step_by_step_once_nobody_has_it() {
    let other: HostId = "b".parse().unwrap();
    let lost = Origin { host: other, incarnation: 1 };
    let told = Standing { ahead: [(lost, Seq(2))].into_iter().collect(), ..standing(1, Some(origin())) };
    let mut primary = alone_but_for(&[other], told.clone());
    let mut out = Outputs::new();
    primary.on_copies(other, &[(lost, Seq(2))].into_iter().collect(), &mut out);
    assert_eq!(sweeps(&out), [], "its host has it");
    primary.on_copies(other, &Vector::new(), &mut out);
    let [step] = sweeps(&out)[..] else { panic!("{out:?}") };
    out.clear();
    primary.on_copies(other, &upto(1), &mut out);
    assert_eq!(sweeps(&out), [], "one is under way");
    let done = |standing| Committed { outcomes: vec![(step, Wrote::Done)], standing, proved: BTreeMap::new() };
    primary.on_committed(at(3), done(told), &mut out);
    let [next] = sweeps(&out)[..] else { panic!("{out:?}") };
    out.clear();
    primary.on_full(at(4), &[next], &mut out);
    let swept = Committed { outcomes: Vec::new(), standing: standing(1, Some(origin())), proved: BTreeMap::new() };
    primary.on_committed(at(5), swept, &mut out);
    assert_eq!(sweeps(&out), []);
}
