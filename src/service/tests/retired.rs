//! Origins that come to their end, at a host's store.

use super::*;
use crate::id::RequestId;
use crate::service::query::{self, Answer, Query};
use crate::service::retired::{Retired, Retirement};

/// The next incarnation of a host.
fn begin_anew(host: &mut Host) -> Origin {
    let former = host.origin;
    host.origin = Origin { incarnation: former.incarnation + 1, ..former };
    assert_eq!(host.write(Write::Begin(host.origin)), Wrote::Done);
    former
}

fn last(host: &Host, origin: Origin) -> Seq {
    host.standing().vector.get(origin)
}

#[test]
fn a_host_says_once_where_its_former_origin_ends() {
    let (mut a, mut b) = (Host::new("a", 1_000), Host::new("b", 1_000));
    a.register(1, "ann");
    a.post(1, "before");
    let former = begin_anew(&mut a);
    let end = Write::Retire { origin: former, last: Seq(2) };
    for not_so in [
        Write::Retire { origin: former, last: Seq(1) },
        Write::Retire { origin: a.origin, last: Seq(1) },
        Write::Retire { origin: origin("b"), last: Seq(1) },
    ] {
        assert_eq!(a.write(not_so), Wrote::Done);
    }
    assert_eq!(last(&a, a.origin), Seq::ZERO);
    a.commit(vec![end.clone(), end.clone()]);
    assert_eq!(a.write(end), Wrote::Done);
    assert_eq!(last(&a, a.origin), Seq(1));
    let known: Vec<Retirement> = a.standing().retired.iter().collect();
    let by = EntryId { origin: a.origin, seq: Seq(1) };
    assert!(matches!(known[..], [one] if (one.by, one.origin, one.last) == (by, former, Seq(2))), "{known:?}");
    b.pull(&a);
    assert_eq!(b.standing().retired, a.standing().retired);
    assert!(b.standing().hlc > known[0].hlc || b.standing().hlc == known[0].hlc);
}

#[test]
fn the_first_entry_of_an_incarnation_names_no_origin_that_its_host_has_ended() {
    let mut a = Host::new("a", 1_000);
    a.register(1, "ann");
    let first = begin_anew(&mut a);
    a.write(Write::Retire { origin: first, last: Seq(1) });
    let second = begin_anew(&mut a);
    a.post(1, "after");
    let bytes = a.rows.get(Table::Log, &crate::service::keys::log(EntryId { origin: a.origin, seq: Seq(1) }));
    let entry = Entry::decode(&bytes.unwrap()).unwrap();
    assert_eq!(entry.after, [(second, Seq(1))].into_iter().collect());
}

#[test]
fn what_a_lost_snapshot_told_of_an_end_is_taken_out() {
    let (mut a, mut b) = (Host::new("a", 1_000), Host::new("b", 1_000));
    a.register(1, "ann");
    let former = begin_anew(&mut a);
    b.pull(&a);
    a.write(Write::Retire { origin: former, last: Seq(1) });
    a.register(2, "bob");
    let chunk = crate::service::snapshot::read_chunk(&a.rows, &[], 1);
    assert!(chunk.next.is_some());
    let vector = a.standing().vector;
    let part = crate::service::snapshot::Part { at: Vec::new(), bytes: chunk.bytes, next: chunk.next, vector };
    assert_eq!(b.write(Write::Rows(part)), Wrote::Done);
    assert!(!b.standing().retired.is_empty());
    assert!(crate::service::snapshot::read_chunk(&b.rows, &[], usize::MAX).rows == 1, "b tells only of what it holds");
    while !b.standing().ahead.is_empty() {
        assert_eq!(b.write(Write::Sweep), Wrote::Done);
    }
    assert!(b.standing().retired.is_empty());
}

#[test]
fn ends_that_no_host_can_have_made_are_refused() {
    let former = Origin { incarnation: 6, ..origin("a") };
    let good = own_entry("a", 1, 50, Op::Retire { origin: former, last: Seq(1) });
    assert_eq!(Entry::decode(&good.encode()), Ok(good.clone()));
    let of = |origin, last| Entry { op: Op::Retire { origin, last }, ..good.clone() };
    let ends = [of(origin("a"), Seq(1)), of(origin("b"), Seq(1)), of(former, Seq::ZERO)];
    let named = Entry { user: user(1), request: RequestId::of_retirement(), ..good.clone() };
    for bad in ends.into_iter().chain([named]) {
        assert!(Entry::decode(&bad.encode()).is_err(), "{bad:?}");
        let mut rows = MemRows::default();
        crate::service::rules::apply(&mut rows, &bad);
        let chunk = crate::service::snapshot::read_chunk(&rows, &[], usize::MAX);
        if !matches!(bad.op, Op::Retire { .. }) || bad.user == UserId::NOBODY {
            let mut target = MemRows::default();
            assert!(crate::service::snapshot::merge_chunk(&mut target, &chunk.bytes).is_err(), "{bad:?}");
            assert_eq!(target, MemRows::default());
        }
    }
}

#[test]
fn a_log_that_has_ended_goes_with_its_digests() {
    let mut a = Host::new("a", 1_000);
    a.register(1, "ann");
    a.post(1, "before");
    let former = begin_anew(&mut a);
    let of_former = |host: &Host| {
        let key = crate::service::keys::origin(former);
        let rows = host.rows.table(Table::Meta);
        rows.iter().filter(|(name, _)| name.starts_with(&[b"p", &key[..]].concat())).count()
    };
    a.write(Write::Retire { origin: former, last: Seq(2) });
    a.write(Write::Cut([(former, Seq(1))].into_iter().collect()));
    assert_eq!(of_former(&a), 1);
    a.write(Write::Cut([(former, Seq(2))].into_iter().collect()));
    assert_eq!((of_former(&a), last(&a, former)), (0, Seq(2)));
}

/// A cursor of a line as it goes to a client, and as it is when it comes back.
fn there_and_back(retired: &Retired, cursor: &Vector) -> Vector {
    let mut cursor = cursor.clone();
    retired.lower(&mut cursor);
    retired.shorten(&mut cursor, |_| true);
    retired.complete(&mut cursor);
    cursor
}

#[test]
fn a_timeline_goes_on_after_each_of_its_lines_whatever_origins_have_ended() {
    let mut a = Host::new("a", 1_000);
    a.register(1, "ann");
    let (mut all, mut present) = (Vec::new(), 0);
    for text in ["one", "two", "-", "three", "-", "-", "four", "five", "-", "six"] {
        if text == "-" {
            let former = begin_anew(&mut a);
            let end = Write::Retire { origin: former, last: last(&a, former) };
            // Twice none at all was made under an origin but for the end of the one before.
            assert_eq!(a.write(end), Wrote::Done);
            present += 1;
        } else {
            a.post(1, text);
            all.push(text.to_owned());
        }
    }
    let standing = a.standing();
    assert_eq!((standing.retired.iter().count(), standing.vector.len()), (present, present + 1));
    let lines = |since: Option<Vector>, limit: u32| {
        let query = Query::Timeline { user: user(1), of: None, limit, since, before: None };
        let Ok(Answer::Posts { posts, .. }) = query::answer(&a.rows, &standing.vector, &query) else { panic!() };
        posts.into_iter().map(|post| (post.text, post.cursor)).collect::<Vec<_>>()
    };
    let whole = lines(None, 100);
    assert_eq!(whole.iter().map(|(text, _)| text).collect::<Vec<_>>(), all.iter().collect::<Vec<_>>());
    for limit in [1, 2, 100] {
        for (at, (_, cursor)) in whole.iter().enumerate() {
            let (mut since, mut rest) = (there_and_back(&standing.retired, cursor), Vec::new());
            loop {
                let page = lines(Some(since.clone()), limit);
                let Some((_, cursor)) = page.last() else { break };
                since = there_and_back(&standing.retired, cursor);
                rest.extend(page.into_iter().map(|(text, _)| text));
            }
            assert_eq!(rest, all[at + 1..], "after line {at}, by {limit}");
        }
    }
}
