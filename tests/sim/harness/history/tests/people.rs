//! P2, P3, P4 and P8: what one person is answered and told.

use gaggle::error::{ErrorCode, Refusal};
use gaggle::service::query::ShownPost;
use gaggle::service::retired::Retirement;
use gaggle::time::Hlc;

use super::super::Session;
use super::*;

/// Person 1 has joined person 0, who then posts "a"; a timeline has shown it to person 1.
fn joined_and_shown() -> (Script, ShownPost) {
    let mut script = Script::new();
    script.write(1, "join", Want::Join(0), 1);
    let entry = script.write(0, "a", post("a"), 2);
    let shown = script.shown(0, &entry);
    assert_eq!(script.timeline(1, vec![shown.clone()], 2), Ok(()));
    (script, shown)
}

#[test]
fn p2_a_request_tried_twice_has_one_post() {
    let (mut good, a) = joined_and_shown();
    assert_eq!(good.timeline(1, vec![a], 2), Ok(()));
    let (mut bad, a) = joined_and_shown();
    assert_eq!(broken(bad.timeline(1, vec![a.clone(), a], 2)), Some(Promise::P2));
}

#[test]
fn p3_one_reads_what_one_wrote() {
    let broken_by = |shown: bool| {
        let mut script = Script::new();
        let entry = script.write(0, "a", post("a"), 1);
        let posts = if shown { vec![script.shown(0, &entry)] } else { Vec::new() };
        broken(script.timeline(0, posts, 1))
    };
    assert_eq!(broken_by(true), None);
    assert_eq!(broken_by(false), Some(Promise::P3(Session::ReadYourWrites)));
}

#[test]
fn p3_a_token_holds_what_its_owner_wrote() {
    let broken_by = |upto: u64| {
        let mut script = Script::new();
        let asked = script.call(0, "a", post("a"));
        let entry = script.entry(0, &asked, 2);
        script.history.people[0].token.vector.merge(&vector(upto));
        let written = script.written(0, &entry);
        broken(script.history.on_written(0, &asked, &written))
    };
    assert_eq!(broken_by(2), None);
    assert_eq!(broken_by(1), Some(Promise::P3(Session::ReadYourWrites)));
}

#[test]
fn p3_whoever_joined_is_not_told_that_it_did_not() {
    let broken_by = |joins: bool| {
        let mut script = Script::new();
        if joins {
            script.write(1, "join", Want::Join(0), 1);
        }
        let asked = script.call(1, "leave", Want::Leave(0));
        broken(script.history.on_refused(1, &asked, &Refusal::new(ErrorCode::NotJoined, "not joined")))
    };
    assert_eq!(broken_by(false), None);
    assert_eq!(broken_by(true), Some(Promise::P3(Session::ReadYourWrites)));
}

#[test]
fn p3_what_was_seen_is_seen_again() {
    let (mut good, a) = joined_and_shown();
    assert_eq!(good.timeline(1, vec![a], 2), Ok(()));
    let (mut bad, _) = joined_and_shown();
    assert_eq!(broken(bad.timeline(1, Vec::new(), 2)), Some(Promise::P3(Session::MonotonicReads)));
    // Nobody misses posts of somebody whom it has left.
    let (mut left, _) = joined_and_shown();
    left.write(1, "leave", Want::Leave(0), 3);
    assert_eq!(left.timeline(1, Vec::new(), 3), Ok(()));
}

#[test]
fn p3_a_token_holds_what_its_owner_is_shown() {
    let broken_by = |upto: u64| {
        let mut script = Script::new();
        script.write(1, "join", Want::Join(0), 1);
        let entry = script.write(0, "a", post("a"), 2);
        let shown = script.shown(0, &entry);
        broken(script.timeline(1, vec![shown], upto))
    };
    assert_eq!(broken_by(2), None);
    assert_eq!(broken_by(1), Some(Promise::P3(Session::MonotonicReads)));
}

#[test]
fn p3_what_one_writes_comes_after_what_one_wrote() {
    let broken_by = |hlc: u64| {
        let mut script = Script::new();
        let first = script.write(0, "a", post("a"), 1);
        assert_eq!(first.hlc, Hlc(1));
        let asked = script.call(0, "b", post("b"));
        let second = Entry { hlc: Hlc(hlc), ..script.entry(0, &asked, 2) };
        broken(script.acknowledge(0, &asked, &second))
    };
    assert_eq!(broken_by(2), None);
    assert_eq!(broken_by(1), Some(Promise::P3(Session::MonotonicWrites)));
}

#[test]
fn p3_no_host_holds_the_second_post_without_the_first() {
    let mut script = Script::new();
    let first = script.write(0, "a", post("a"), 1);
    let asked = script.call(0, "b", post("b"));
    let second = script.entry(0, &asked, 2);
    script.history.hosts.push(Facts::default());
    script.history.hosts.push(Facts::default());
    assert_eq!(script.commit(2, &[first, second.clone()]), Ok(()));
    assert_eq!(broken(script.commit(3, &[second])), Some(Promise::P3(Session::MonotonicWrites)));
}

#[test]
fn p3_what_one_writes_comes_after_what_one_saw() {
    let broken_by = |hlc: u64| {
        let (mut script, a) = joined_and_shown();
        assert_eq!(a.stamp.hlc, Hlc(2));
        let asked = script.call(1, "b", post("b re:a"));
        let answer = Entry { hlc: Hlc(hlc), ..script.entry(1, &asked, 3) };
        broken(script.acknowledge(1, &asked, &answer))
    };
    assert_eq!(broken_by(3), None);
    assert_eq!(broken_by(2), Some(Promise::P3(Session::WritesFollowReads)));
}

/// Person 1 has joined person 0, who posts "a", and answers it with "b"; both are held everywhere.
fn answered() -> (Script, ShownPost, ShownPost) {
    let mut script = Script::new();
    script.write(1, "join", Want::Join(0), 1);
    let a = script.write(0, "a", post("a"), 2);
    let b = script.write(0, "b", post("b re:a"), 3);
    let (a, b) = (script.shown(0, &a), script.shown(0, &b));
    (script, a, b)
}

#[test]
fn p4_a_timeline_shows_what_an_answer_answers() {
    let (mut good, a, b) = answered();
    assert_eq!(good.timeline(1, vec![a, b], 3), Ok(()));
    let (mut bad, _, b) = answered();
    assert_eq!(broken(bad.timeline(1, vec![b], 3)), Some(Promise::P4));
}

#[test]
fn p4_a_feed_tells_first_what_an_answer_answers() {
    let (mut good, a, b) = answered();
    good.history.on_feed_begun(1, &[], &vector(1));
    assert_eq!(good.tell(1, &[a, b], 3), Ok(()));
    let (mut bad, a, b) = answered();
    bad.history.on_feed_begun(1, &[], &vector(1));
    assert_eq!(broken(bad.tell(1, &[b, a], 3)), Some(Promise::P4));
}

#[test]
fn p4_a_host_holds_what_an_answer_answers() {
    let mut script = Script::new();
    let a = script.write(0, "a", post("a"), 1);
    let asked = script.call(1, "b", post("b re:a"));
    let b = script.entry(1, &asked, 2);
    script.history.hosts.push(Facts::default());
    script.history.hosts.push(Facts::default());
    assert_eq!(script.commit(2, &[a, b.clone()]), Ok(()));
    assert_eq!(broken(script.commit(3, &[b])), Some(Promise::P4));
}

#[test]
fn p8_a_feed_tells_each_post_once() {
    let (mut good, a, b) = answered();
    good.history.on_feed_begun(1, &[], &vector(1));
    assert_eq!(good.tell(1, &[a], 2), Ok(()));
    assert_eq!(good.tell(1, &[b], 3), Ok(()));
    let (mut bad, a, b) = answered();
    bad.history.on_feed_begun(1, &[], &vector(1));
    assert_eq!(bad.tell(1, std::slice::from_ref(&a), 2), Ok(()));
    assert_eq!(broken(bad.tell(1, &[a, b], 3)), Some(Promise::P8));
}

#[test]
fn p8_what_a_timeline_showed_no_feed_tells_again() {
    let (mut bad, a, _) = answered();
    bad.history.on_feed_begun(1, std::slice::from_ref(&a), &vector(2));
    assert_eq!(broken(bad.tell(1, &[a], 2)), Some(Promise::P8));
}

#[test]
fn p8_a_feed_never_goes_back() {
    let (mut bad, a, b) = answered();
    bad.history.on_feed_begun(1, &[], &vector(1));
    assert_eq!(bad.tell(1, &[a, b], 3), Ok(()));
    assert_eq!(broken(bad.tell(1, &[], 2)), Some(Promise::P8));
}

#[test]
fn p8_nobody_is_shown_an_error_that_is_not_its_own() {
    let broken_by = |code: ErrorCode| {
        let mut script = Script::new();
        script.write(1, "join", Want::Join(0), 1);
        let asked = script.call(1, "again", Want::Join(0));
        broken(script.history.on_refused(1, &asked, &Refusal::new(code, "no")))
    };
    assert_eq!(broken_by(ErrorCode::AlreadyJoined), None);
    for code in [ErrorCode::BadRequest, ErrorCode::NotLoggedIn, ErrorCode::TooOld, ErrorCode::IdReused] {
        assert_eq!(broken_by(code), Some(Promise::P8), "{code:?}");
    }
}

/// Person 0 has posted so many times.
fn posted(count: u64) -> (Script, Vec<ShownPost>) {
    let mut script = Script::new();
    let posts = (1..=count).map(|seq| {
        let entry = script.write(0, &format!("p{seq}"), post("a"), seq);
        ShownPost { cursor: vector(seq), ..script.shown(0, &entry) }
    });
    let posts = posts.collect();
    (script, posts)
}

#[test]
fn p8_pages_leave_no_post_out() {
    let broken_by = |last: &[usize]| {
        let (mut script, posts) = posted(4);
        // Read up to its first line, and the next one up to its second.
        assert_eq!(script.page(1, posts[..PAGE_POSTS].to_vec(), 4), Ok(()));
        assert_eq!(script.page(1, posts[1..].to_vec(), 4), Ok(()));
        assert_eq!(script.history.people[1].walk.as_ref().unwrap().cursor, vector(3));
        broken(script.page(1, last.iter().map(|index| posts[*index].clone()).collect(), 4))
    };
    assert_eq!(broken_by(&[3]), None);
    assert_eq!(broken_by(&[]), Some(Promise::P8));
}

#[test]
fn p8_no_page_tells_what_an_earlier_one_told() {
    let (mut script, posts) = posted(2);
    assert_eq!(script.page(1, posts.clone(), 2), Ok(()));
    // It was read up to its first line.
    assert_eq!(broken(script.page(1, posts, 2)), Some(Promise::P8));
}

#[test]
fn who_holds_the_end_of_an_origin_is_taken_to_hold_all_of_it() {
    let mut script = Script::new();
    let renewed = Origin { incarnation: 2, ..origin() };
    let by = EntryId { origin: renewed, seq: Seq(1) };
    script.history.retired.extend([Retirement { hlc: Hlc(9), by, origin: origin(), last: Seq(5) }]);
    let names = |token: &[(Origin, u64)], seq| {
        let token: Vector = token.iter().map(|(origin, seq)| (*origin, Seq(*seq))).collect();
        script.history.names(&token, EntryId { origin: origin(), seq: Seq(seq) })
    };
    assert!(names(&[(renewed, 1)], 5));
    assert!(names(&[(origin(), 3), (renewed, 1)], 5), "of a session that saw a part of it before it ended");
    assert!(!names(&[(origin(), 3)], 5));
    assert!(!names(&[(renewed, 1)], 6));
}
