//! Retention: what a trim takes, what it leaves, and when one is worth it.

use super::*;
use crate::error::ErrorCode;
use crate::id::FeedId;
use crate::limits;
use crate::service::query::{self, Answer, Query};
use crate::service::trim::Keep;
use crate::service::{digest_of, feed, keys, snapshot};

/// Long after 1970, in microseconds.
const START: u64 = 1 << 50;
const DAY: u64 = 24 * 3_600 * 1_000_000;

fn keep(since: u64, posts: Option<u64>) -> Write {
    Write::Trim(Keep { since: Hlc::at(Wall(since)), posts, rows_min: 1 })
}

fn newest(posts: u64) -> Write {
    keep(0, Some(posts))
}

fn texts(host: &Host, who: u8) -> Vec<String> {
    let query = Query::Timeline { user: user(who), of: None, limit: 100, since: None, before: None };
    let Answer::Posts { posts, .. } = query::answer(&host.rows, &host.standing().vector, &query).unwrap() else {
        panic!("not posts")
    };
    posts.into_iter().map(|post| post.text).collect()
}

/// The id that a client makes at this time.
fn made_at(wall: u64) -> String {
    let millis = wall / 1_000;
    format!("{:08x}-{:04x}-7000-8000-000000000000", millis >> 16, millis & 0xffff)
}

fn say(text: &str) -> WriteOp {
    WriteOp::Post { text: text.parse().unwrap() }
}

fn check_digest(host: &Host) {
    assert_eq!(host.standing().digest, digest_of(&host.rows));
}

#[test]
fn a_count_keeps_the_newest_posts_of_everybody() {
    let mut host = Host::new("a", START);
    host.register(1, "ann");
    host.register(2, "bob");
    host.join(1, "bob");
    (1..=3).for_each(|number| {
        host.post(1, &format!("ann {number}"));
        host.post(2, &format!("bob {number}"));
    });
    host.write(newest(6));
    assert_eq!(host.standing().trim, Hlc::ZERO, "nothing is over the count");
    host.write(newest(3));
    assert_eq!(texts(&host, 1), ["bob 2", "ann 3", "bob 3"]);
    let standing = host.standing();
    host.write(newest(3));
    assert_eq!(host.standing(), standing, "nothing to do makes no entry");
    assert_eq!(host.rows.table(Table::Edges).len(), 1, "who follows whom stays");
    check_digest(&host);
}

#[test]
fn an_age_keeps_what_is_younger() {
    let mut host = Host::new("a", START);
    host.register(1, "ann");
    host.post(1, "old");
    host.wall.0 += DAY;
    host.post(1, "new");
    host.write(keep(START, None));
    assert_eq!(texts(&host, 1), ["old", "new"]);
    host.write(keep(START + DAY, None));
    assert_eq!(texts(&host, 1), ["new"]);
    assert_eq!(host.standing().trim, Hlc::at(Wall(START + DAY)));
    check_digest(&host);
}

#[test]
fn one_trim_removes_a_bounded_number_of_rows() {
    let mut host = Host::new("a", START);
    host.register(1, "ann");
    let count = limits::TRIM_ROWS_MAX as u64 + 10;
    let posts = (0..count).map(|number| {
        let id = made_at(START + number * 1_000).parse().unwrap();
        Write::Request(WriteRequest { key: key(1), id, op: say("hello") })
    });
    host.commit(posts.collect());
    // The request rows of what was trimmed before count as well.
    host.write(newest(count - 8));
    assert_eq!(host.rows.count(Table::Posts), count - 8);
    host.wall.0 += 20 * DAY;
    host.write(keep(host.wall.0 - DAY, None));
    assert_eq!(host.rows.count(Table::Posts), 2 + 8 - 8);
    assert_eq!(host.rows.count(Table::Requests), count + 1, "their ids are remembered");
    host.write(keep(host.wall.0 - DAY, None));
    let left = host.rows.count(Table::Posts) + host.rows.count(Table::Requests);
    assert!((2..=13).contains(&left), "{left} rows are left");
    host.write(keep(host.wall.0 - DAY, None));
    assert_eq!((host.rows.count(Table::Posts), host.rows.count(Table::Requests)), (0, 1));
    check_digest(&host);
}

/// Rows are stepped over or leapt over, by how many there are of each person.
#[test]
fn a_trim_finds_the_rows_of_everybody_however_many_each_has() {
    const HOUR: u64 = DAY / 24;
    let mut host = Host::new("a", START);
    let many = [0, 1, 7, 8, 9, 10, 40, 0, 40, 3];
    (0..).zip(many).for_each(|(who, _)| drop(host.register(who, &format!("p{who}"))));
    for round in 0..40 {
        host.wall.0 = START + round * HOUR;
        for (who, _) in (0..).zip(many).filter(|(_, posts)| round < *posts) {
            let chosen = format!("{}-{who}-{round}", if round % 2 == 0 { "0" } else { "z" });
            let id = if round % 3 == 0 { chosen } else { made_at(host.wall.0) };
            host.try_ask(who, &id, say("hello")).unwrap();
        }
    }
    let table = |host: &Host, table| host.rows.table(table).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    // What is above the trim stays: of the posts by their stamps, of the requests by their ids.
    let hours = [1, 8, 20, 39];
    for trim in hours.into_iter().chain(hours.map(|hours| 8 * 24 + hours)).map(|hours| START + hours * HOUR) {
        let before = Hlc::at(Wall(trim));
        let (mut posts, mut requests) = (table(&host, Table::Posts), table(&host, Table::Requests));
        posts.retain(|key| keys::parse_made(key).unwrap().1.hlc >= before);
        requests.retain(|key| !crate::service::trim::forgotten(&keys::parse_request(key).unwrap().1, before));
        host.wall.0 = host.wall.0.max(trim);
        host.write(keep(trim, None));
        assert_eq!(host.standing().trim, before);
        assert_eq!((table(&host, Table::Posts), table(&host, Table::Requests)), (posts, requests), "{trim}");
        check_digest(&host);
    }
    let chosen: u64 = many.iter().map(|posts| posts.div_ceil(3)).sum();
    assert_eq!(host.rows.count(Table::Requests), 10 + chosen, "only chosen ids are remembered");
}

#[test]
fn few_rows_are_not_worth_a_trim_to_who_says_so() {
    let mut host = Host::new("a", START);
    host.register(1, "ann");
    (1..=9).for_each(|_| drop(host.post(1, "hello")));
    let trim = |rows_min| Write::Trim(Keep { since: Hlc::ZERO, posts: Some(4), rows_min });
    host.write(trim(6));
    assert_eq!(host.rows.count(Table::Posts), 9);
    host.write(trim(5));
    assert_eq!(host.rows.count(Table::Posts), 4);
}

#[test]
fn a_retry_of_what_was_trimmed_succeeds_and_brings_nothing_back() {
    let (mut here, mut there) = (Host::new("a", START), Host::new("b", START + 500));
    here.register(1, "ann");
    there.pull(&here);
    let id = made_at(START);
    let first = here.try_ask(1, &id, say("once")).unwrap();
    // The retry is taken elsewhere, where the first attempt is not known.
    there.try_ask(1, &id, say("once")).unwrap();
    here.write(newest(0));
    assert_eq!(here.try_ask(1, &id, say("once")).unwrap().entry, first.entry);
    here.pull(&there);
    there.pull(&here);
    for host in [&here, &there] {
        assert!(texts(host, 1).is_empty());
        check_digest(host);
    }
    assert_eq!(here.standing().digest, there.standing().digest);
}

#[test]
fn an_entry_whose_id_is_forgotten_counts_nowhere_however_late_it_comes() {
    let (mut here, mut there) = (Host::new("a", START), Host::new("b", START));
    here.register(1, "ann");
    there.pull(&here);
    let id = made_at(START);
    here.try_ask(1, &id, say("here")).unwrap();
    // Cut off for a month; nobody has seen it yet.
    there.try_ask(1, &id, say("there")).unwrap();
    here.wall.0 += 30 * DAY;
    let now = here.wall.0;
    here.write(keep(now - 10 * DAY, None));
    assert_eq!(here.rows.table(Table::Requests).len(), 1, "only the registration");
    here.pull(&there);
    there.pull(&here);
    for host in [&mut here, &mut there] {
        assert!(texts(host, 1).is_empty());
        assert_eq!(host.rows.table(Table::Requests).len(), 1);
        check_digest(host);
        host.wall.0 = START;
        let refused = host.try_ask(1, &id, say("here")).unwrap_err();
        assert_eq!(refused.code, ErrorCode::TooOld, "even by a clock that runs behind");
    }
}

#[test]
fn a_post_that_comes_late_is_not_kept_and_what_follows_a_trim_is() {
    let (mut here, mut there) = (Host::new("a", START), Host::new("b", START));
    here.register(1, "ann");
    there.pull(&here);
    there.post(1, "late");
    here.wall.0 += 2 * DAY;
    here.post(1, "new");
    here.write(keep(START + DAY, None));
    here.write(newest(0));
    here.pull(&there);
    there.pull(&here);
    assert!(texts(&here, 1).is_empty());
    assert!(texts(&there, 1).is_empty());
    // Its clock is two days behind, and its next post comes after the trim all the same.
    there.post(1, "next");
    assert_eq!(texts(&there, 1), ["next"]);
}

#[test]
fn a_snapshot_tells_of_the_trim_and_of_ids_without_posts() {
    let (mut source, mut target) = (Host::new("a", START), Host::new("b", START));
    source.register(1, "ann");
    let id = made_at(START);
    source.try_ask(1, &id, say("gone")).unwrap();
    target.pull(&source);
    assert_eq!(texts(&target, 1), ["gone"]);
    source.write(newest(0));
    let mut empty = Host::new("c", START);
    for host in [&mut target, &mut empty] {
        let chunk = snapshot::read_chunk(&source.rows, &[], usize::MAX);
        let vector = source.standing().vector;
        let part = snapshot::Part { at: Vec::new(), bytes: chunk.bytes, next: chunk.next, vector };
        assert_eq!(host.write(Write::Rows(part)), Wrote::Done);
        assert_eq!(host.rows.merged(), source.rows.merged());
        assert_eq!(host.standing().trim, source.standing().trim);
        check_digest(host);
        assert!(host.try_ask(1, &id, say("gone")).is_ok(), "a retry");
        assert!(texts(host, 1).is_empty());
        host.post(1, "new");
        assert_eq!(texts(host, 1), ["new"], "its clock went on from the trim");
    }
}

#[test]
fn a_feed_passes_over_what_was_trimmed() {
    let mut host = Host::new("a", START);
    host.register(1, "ann");
    let from = host.standing().vector;
    host.post(1, "old");
    host.post(1, "new");
    host.write(newest(1));
    let shown = host.standing().vector;
    let feeds = [(FeedId(1), user(1))];
    let told = |rows: &MemRows| {
        let (steps, reached) = feed::advance(rows, &from, &shown, &feeds);
        assert_eq!(reached, shown);
        steps.into_iter().flat_map(|step| step.posts).map(|post| post.text).collect::<Vec<_>>()
    };
    assert_eq!(told(&host.rows), ["new"], "by the log");
    host.write(Write::Cut(shown.clone()));
    assert_eq!(told(&host.rows), ["new"], "by the tables");
}

#[test]
fn other_operations_outlive_a_post_with_their_id() {
    let join = entry("b", 1, 20 << 12, 1, "id", Op::Join { followee: user(2) });
    let post = entry("a", 1, 10 << 12, 1, "id", Op::Post { text: "hi".parse().unwrap() });
    let mut rows = MemRows::default();
    crate::service::rules::apply(&mut rows, &join);
    let alone = rows.merged();
    crate::service::rules::apply(&mut rows, &post);
    assert_eq!(rows.merged(), alone);
    let mut rows = MemRows::default();
    crate::service::rules::apply(&mut rows, &post);
    crate::service::rules::apply(&mut rows, &join);
    assert_eq!(rows.merged(), alone);
}

#[test]
fn trims_of_the_future_or_in_a_persons_name_are_refused() {
    let good = own_entry("a", 1, 50, Op::Trim { before: Hlc(50) });
    assert_eq!(Entry::decode(&good.encode()), Ok(good.clone()));
    let future = Entry { hlc: Hlc(49), ..good.clone() };
    let named = Entry { user: user(1), ..good };
    for bad in [future, named] {
        assert!(Entry::decode(&bad.encode()).is_err(), "{bad:?}");
    }
}
