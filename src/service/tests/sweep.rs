//! What a snapshot told and nobody holds any more: no answer comes from it, nobody else is told, and it goes.

use proptest::prelude::*;

use super::merge::{entries, recipes};
use super::*;
use crate::service::snapshot::{self, Part};
use crate::service::{digest_of, trim};

const WALL: u64 = 1_000_000;

/// The first part of a snapshot, with all rows; the last one never comes.
fn half(source: &Host) -> Part {
    let chunk = snapshot::read_chunk(&source.rows, &[], usize::MAX);
    Part { at: Vec::new(), bytes: chunk.bytes, next: Some(vec![0xff]), vector: source.standing().vector }
}

fn say(text: &str) -> WriteOp {
    WriteOp::Post { text: text.parse().unwrap() }
}

/// Walks until all rows are of what is held.
fn sweep(host: &mut Host) {
    while !host.standing().ahead.is_empty() {
        assert_eq!(host.write(Write::Sweep), Wrote::Done);
    }
    assert_eq!(host.standing().digest, digest_of(&host.rows));
}

/// A host `a` that was told all by `b`, of which it holds as much as the bystander `c`.
fn told_more() -> (Host, Host, Host) {
    let mut b = Host::new("b", WALL);
    b.register(1, "ann");
    b.register(2, "bob");
    b.post(1, "held");
    let mut c = Host::new("c", WALL);
    c.pull(&b);
    let mut a = Host::new("a", WALL);
    a.pull(&b);
    b.join(1, "bob");
    b.try_ask(1, "lost", say("told to one")).unwrap();
    assert_eq!(a.write(Write::Rows(half(&b))), Wrote::Done);
    (a, b, c)
}

#[test]
fn what_nobody_holds_goes_and_what_is_held_stays() {
    let (mut a, b, c) = told_more();
    assert_eq!(a.standing().ahead, b.standing().vector);
    assert_eq!(a.rows.merged(), b.rows.merged());
    sweep(&mut a);
    assert_eq!(a.rows.merged(), c.rows.merged());
    assert_eq!(a.standing().snapshot, None, "the next one begins anew");
    // It was too soon: its host comes back, and with it all that was taken out.
    a.pull(&b);
    assert_eq!(a.rows.merged(), b.rows.merged());
}

#[test]
fn what_comes_by_the_log_needs_no_walk() {
    let (mut a, b, _) = told_more();
    a.pull(&b);
    assert!(a.standing().ahead.is_empty());
    assert_eq!(a.rows.merged(), b.rows.merged());
}

#[test]
fn a_retry_of_what_is_not_held_is_an_entry() {
    let (mut a, _, mut c) = told_more();
    let retried = a.try_ask(1, "lost", say("told to one")).unwrap();
    assert_eq!(retried.entry.origin, a.origin);
    let joined = a.join(1, "bob");
    assert_eq!(joined.entry.origin, a.origin);
    sweep(&mut a);
    c.pull(&a);
    assert_eq!(a.rows.merged(), c.rows.merged());
}

#[test]
fn a_registration_that_is_not_held_is_made_again() {
    let (mut a, mut b, mut c) = told_more();
    b.register(3, "cid");
    a.write(Write::Rows(half(&b)));
    assert_eq!(a.register(3, "cid").entry.origin, a.origin);
    sweep(&mut a);
    c.pull(&a);
    assert_eq!(a.rows.merged(), c.rows.merged());
}

#[test]
fn nobody_else_is_told() {
    let (a, _, c) = told_more();
    let mut d = Host::new("d", WALL);
    d.write(Write::Rows(Part { next: None, ..half(&a) }));
    assert_eq!(d.rows.merged(), c.rows.merged());
    assert!(d.standing().ahead.is_empty());
}

#[test]
fn a_trim_that_nobody_holds_becomes_everybodys() {
    let (mut a, mut b, mut c) = told_more();
    let keep = trim::Keep { since: Hlc::ZERO, posts: Some(1), rows_min: 1 };
    assert_eq!(b.write(Write::Trim(keep)), Wrote::Done);
    a.write(Write::Rows(half(&b)));
    assert!(a.standing().trim > c.standing().trim);
    sweep(&mut a);
    c.pull(&a);
    assert_eq!(a.standing().trim, c.standing().trim);
    assert_eq!(a.rows.merged(), c.rows.merged());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Of each origin some entries are held, and all are told.
    #[test]
    fn a_walk_leaves_the_rows_of_what_is_held(mut recipes in recipes(), held in prop::array::uniform3(0..30_usize)) {
        for (_, _, request, kind, _) in &mut recipes {
            // An id is used for posts, or for other things. What a post that came to nothing said is not kept.
            *kind = if *request % 2 == 0 { 4 } else { *kind % 3 };
        }
        let set = entries(&recipes);
        let (mut all, mut some) = (Host::new("x", WALL), Host::new("y", WALL));
        for (host, held) in ["a", "b", "c"].into_iter().zip(held) {
            let own: Vec<Entry> = set.iter().filter(|entry| entry.id.origin == origin(host)).cloned().collect();
            prop_assert_eq!(all.write(Write::Run(run(host, 1, &own))), Wrote::Done);
            prop_assert_eq!(some.write(Write::Run(run(host, 1, &own[..held.min(own.len())]))), Wrote::Done);
        }
        let before = some.rows.merged();
        prop_assert_eq!(some.write(Write::Rows(half(&all))), Wrote::Done);
        sweep(&mut some);
        prop_assert_eq!(some.rows.merged(), before);
    }
}
