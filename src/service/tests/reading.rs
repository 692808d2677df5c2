//! Timelines, cursors and feeds.

use proptest::prelude::*;

use super::*;
use crate::id::{FeedId, Vector};
use crate::limits;
use crate::service::entry::Stamp;
use crate::service::feed::{FeedStep, advance, advance_by};
use crate::service::query::{Answer, Query, ShownPost, answer};
use crate::service::timeline::{from_log, from_tables, sources};
use crate::service::view::View;

struct Page {
    posts: Vec<ShownPost>,
    more: bool,
    cursor: Vector,
}

fn timeline(
    rows: &MemRows,
    shown: &Vector,
    limit: u32,
    since: Option<&Vector>,
    before: Option<Stamp>,
    of: Option<&str>,
) -> Page {
    let of = of.map(ToOwned::to_owned);
    let query = Query::Timeline { user: user(1), of, limit, since: since.cloned(), before };
    let Answer::Posts { posts, more, cursor } = answer(rows, shown, &query).unwrap() else { panic!("not posts") };
    Page { posts, more, cursor }
}

fn texts(posts: &[ShownPost]) -> Vec<&str> {
    posts.iter().map(|post| post.text.as_str()).collect()
}

#[test]
fn a_timeline_holds_what_was_posted_while_joined() {
    let mut host = Host::new("a", 1_000);
    for (who, name) in [(1, "ann"), (2, "bob"), (3, "carl")] {
        host.register(who, name);
    }
    host.post(2, "before");
    host.post(1, "mine");
    host.join(1, "bob");
    host.post(2, "during");
    host.post(3, "stranger");
    let all = |host: &Host| host.standing().vector;
    let page = timeline(&host.rows, &all(&host), 20, None, None, None);
    assert_eq!(texts(&page.posts), ["mine", "during"]);
    assert_eq!((page.more, &page.cursor), (false, &all(&host)));
    assert_eq!(texts(&timeline(&host.rows, &all(&host), 1, None, None, None).posts), ["during"]);
    let of = timeline(&host.rows, &all(&host), 20, None, None, Some("BOB"));
    assert_eq!(texts(&of.posts), ["before", "during"]);
    host.leave(1, "bob");
    assert_eq!(texts(&timeline(&host.rows, &all(&host), 20, None, None, None).posts), ["mine"]);
    host.join(1, "bob");
    host.post(2, "anew");
    let page = timeline(&host.rows, &all(&host), 20, None, None, None);
    assert_eq!(texts(&page.posts), ["mine", "anew"]);
    let early = Stamp { hlc: Hlc(1), origin: host.origin };
    assert_eq!(texts(&timeline(&host.rows, &all(&host), 20, None, Some(early), None).posts), [""; 0]);
    // What is not shown is not there.
    let less: Vector = [(host.origin, Seq(all(&host).get(host.origin).0 - 1))].into_iter().collect();
    assert_eq!(texts(&timeline(&host.rows, &less, 20, None, None, None).posts), ["mine"]);
    let query = Query::Timeline { user: user(1), of: Some("dora".into()), limit: 1, since: None, before: None };
    assert_eq!(answer(&host.rows, &less, &query).unwrap_err().code, crate::error::ErrorCode::UnknownUser);
}

#[test]
fn long_answers_are_cut_by_count_and_by_bytes() {
    let mut host = Host::new("a", 1_000);
    host.register(1, "ann");
    let count = limits::ANSWER_POSTS_MAX + 20;
    let text = "é".repeat(1000);
    for _ in 0..count {
        host.post(1, "short");
    }
    let shown = host.standing().vector;
    let page = timeline(&host.rows, &shown, 100_000, None, None, None);
    assert_eq!((page.posts.len(), page.more), (500, true));
    let rest = timeline(&host.rows, &shown, 100_000, None, Some(page.posts[0].stamp), None);
    assert_eq!((rest.posts.len(), rest.more), (20, false));
    assert_eq!(timeline(&host.rows, &shown, 100_000, Some(&rest.cursor), None, None).posts, page.posts);
    assert!(!timeline(&host.rows, &shown, 500, None, None, None).more);
    let first = timeline(&host.rows, &shown, 100_000, Some(&Vector::new()), None, None);
    assert_eq!((first.posts.len(), first.more), (500, true));
    let second = timeline(&host.rows, &shown, 100_000, Some(&first.cursor), None, None);
    assert_eq!((second.posts.len(), second.more, second.cursor), (20, false, shown));
    for _ in 0..count {
        host.post(1, &text);
    }
    let shown = host.standing().vector;
    let page = timeline(&host.rows, &shown, 500, None, None, None);
    let bytes: usize = page.posts.iter().map(|post| post.text.len()).sum();
    assert!(page.more && page.posts.len() > 400 && bytes <= limits::ANSWER_BYTES_MAX);
}

/// A post: at which host, by whom (2 and 3 are joined, 4 is not), and whether it repeats an earlier request.
type Recipe = (u8, u8, Option<u8>);

/// Logs of three hosts: registrations and joins at `a`, then posts and their retries at other hosts.
fn logs(recipes: &[Recipe]) -> Vec<Vec<Entry>> {
    let mut host = Host::new("a", 1);
    for (who, name) in [(1, "ann"), (2, "bob"), (3, "carl"), (4, "dora")] {
        host.register(who, name);
    }
    host.join(1, "bob");
    host.join(1, "carl");
    let after = [(host.origin, Seq::ZERO)];
    let run = crate::service::log::read_log(&host.rows, &after, usize::MAX).runs.remove(0);
    let start = run.entries.iter().map(|bytes| Entry::decode(bytes).unwrap()).collect();
    let mut logs: Vec<Vec<Entry>> = vec![start, vec![], vec![]];
    let mut made: Vec<(u8, String)> = Vec::new();
    for (at, (host, who, repeats)) in recipes.iter().enumerate() {
        let again = repeats.and_then(|index| made.get(usize::from(index)).cloned());
        let (who, id) = again.unwrap_or((*who, format!("post{at}")));
        made.push((who, id.clone()));
        let log = &mut logs[usize::from(*host)];
        let hlc = 1_000_000 + (at as u64 + 7 * u64::from(*host)) * 10;
        let op = Op::Post { text: id.parse().unwrap() };
        log.push(entry(["a", "b", "c"][usize::from(*host)], log.len() as u64 + 1, hlc, who, &id, op));
    }
    logs
}

fn recipes() -> impl Strategy<Value = Vec<Recipe>> {
    prop::collection::vec((0..3_u8, 1..5_u8, prop::option::weighted(0.3, 0..20_u8)), 0..30)
}

/// Gives a host the next `count` entries of a log.
fn feed_log(host: &mut Host, logs: &[Vec<Entry>], which: u8, count: u64) {
    let name = ["a", "b", "c"][usize::from(which)];
    let log = &logs[usize::from(which)];
    let held = host.standing().vector.get(origin(name)).0;
    let from = usize::try_from(held).unwrap();
    let upto = (from + usize::try_from(count).unwrap()).min(log.len());
    if from < upto {
        assert_eq!(host.write(Write::Run(run(name, held + 1, &log[from..upto]))), Wrote::Done);
    }
}

/// A host of another name, that begins with registrations and joins only.
fn reader(name: &str, logs: &[Vec<Entry>]) -> Host {
    let mut host = Host::new(name, 1);
    feed_log(&mut host, logs, 0, 6);
    host
}

fn all_of(logs: &[Vec<Entry>]) -> Host {
    let mut host = reader("x", logs);
    (0..3).for_each(|which| feed_log(&mut host, logs, which, 1_000));
    host
}

/// The ids of the posts in the timeline of user 1, each once.
fn expected(logs: &[Vec<Entry>]) -> Vec<String> {
    let joined = [user(1), user(2), user(3)];
    let posts = logs.iter().flatten().filter(|entry| matches!(entry.op, Op::Post { .. }));
    let mut ids: Vec<String> =
        posts.filter(|post| joined.contains(&post.user)).map(|post| post.request.to_string()).collect();
    ids.sort();
    ids.dedup();
    ids
}

fn sorted_ids(posts: &[ShownPost]) -> Vec<String> {
    let mut ids: Vec<String> = posts.iter().map(|post| post.id.to_string()).collect();
    ids.sort();
    ids
}

fn steps_of(host: &Host, from: &mut Vector, told: &mut Vec<ShownPost>) {
    let shown = host.standing().vector;
    loop {
        let (steps, reached) = advance(&host.rows, from, &shown, &[(FeedId(1), user(1)), (FeedId(2), user(4))]);
        for FeedStep { feed, posts } in steps {
            assert!(!posts.is_empty());
            if feed == FeedId(1) {
                told.extend(posts);
            } else {
                assert!(posts.iter().all(|post| post.author == "dora"));
            }
        }
        assert!(reached.covers(from));
        if reached == *from {
            break;
        }
        *from = reached;
    }
    assert!(from.covers(&shown));
}

/// After the cursor, bob asks at the host `a`, and ann leaves carl there.
fn question_and_leave() -> (Host, Vector) {
    let mut host = Host::new("a", 1_000);
    for (who, name) in [(1, "ann"), (2, "bob"), (3, "carl")] {
        host.register(who, name);
    }
    host.join(1, "bob");
    host.join(1, "carl");
    let cursor = host.standing().vector;
    host.post(2, "question");
    host.leave(1, "carl");
    (host, cursor)
}

/// What a cut log held is told from the tables: with what other logs hold still, or an answer would come before the post
/// that it answers, and posts would be told of whom another log says was left.
#[test]
fn a_feed_behind_a_cut_log_goes_on_in_the_order_of_all_logs() {
    let (mut host, mut cursor) = question_and_leave();
    let post = |text: &str| Op::Post { text: text.parse().unwrap() };
    let clock = host.standing().hlc.0;
    let answer = entry("b", 1, clock + 1, 2, "answer", post("answer"));
    let late = entry("b", 2, clock + 2, 3, "late", post("of somebody left"));
    assert_eq!(host.write(Write::Run(run("b", 1, &[answer, late]))), Wrote::Done);
    assert_eq!(host.write(Write::Cut([(origin("b"), Seq(2))].into_iter().collect())), Wrote::Done);
    let mut told = Vec::new();
    steps_of(&host, &mut cursor, &mut told);
    assert_eq!(texts(&told), ["question", "answer"]);
}

/// So is what a long cut log held: no part of it before what it depends on, however far the feed is behind.
#[test]
fn a_feed_far_behind_a_cut_log_goes_on_in_the_order_of_all_logs() {
    let (mut host, mut cursor) = question_and_leave();
    let clock = host.standing().hlc.0;
    let count = 2 * limits::FEED_ENTRIES_MAX as u64;
    let post = |text: String| Op::Post { text: text.parse().unwrap() };
    let mut entries = vec![entry("b", 1, clock + 1, 2, "answer", post("answer".into()))];
    entries.extend((2..=count).map(|seq| {
        let who = if seq % 2 == 0 { 3 } else { 2 };
        entry("b", seq, clock + seq, who, &format!("id{seq}"), post(format!("post {seq}")))
    }));
    assert_eq!(host.write(Write::Run(run("b", 1, &entries))), Wrote::Done);
    assert_eq!(host.write(Write::Cut([(origin("b"), Seq(count))].into_iter().collect())), Wrote::Done);
    let mut told = Vec::new();
    steps_of(&host, &mut cursor, &mut told);
    let expected = (3..count).step_by(2).map(|seq| format!("post {seq}"));
    let expected: Vec<String> = ["question", "answer"].map(String::from).into_iter().chain(expected).collect();
    assert_eq!(texts(&told), expected);
}

/// All that a host holds, but for the last entries of the host `b`.
fn shown_but(host: &Host, hidden: u64) -> Vector {
    let mut shown = host.standing().vector;
    shown.set(origin("b"), Seq(shown.get(origin("b")).0.saturating_sub(hidden)));
    shown
}

/// What is done at a host: a post, whose request may repeat an earlier one; or user 1 joins or leaves.
type Deed = (u8, u8, Option<u8>, u8);

fn turns() -> impl Strategy<Value = Vec<Deed>> {
    prop::collection::vec((0..3_u8, 1..5_u8, prop::option::weighted(0.3, 0..20_u8), 0..6_u8), 0..30)
}

/// The logs of these deeds. Those of the last kinds are a join and a leave of whoever would have posted.
fn turned(deeds: &[Deed]) -> Vec<Vec<Entry>> {
    let recipes: Vec<Recipe> = deeds.iter().map(|(host, who, repeats, _)| (*host, *who, *repeats)).collect();
    let mut logs = logs(&recipes);
    let kinds: BTreeMap<String, u8> =
        deeds.iter().enumerate().map(|(at, (.., kind))| (format!("post{at}"), *kind)).collect();
    for entry in logs.iter_mut().flatten().filter(|entry| matches!(entry.op, Op::Post { .. })) {
        let followee = entry.user;
        match kinds[entry.request.as_str()] {
            4 if followee != user(1) => (entry.user, entry.op) = (user(1), Op::Join { followee }),
            5 if followee != user(1) => (entry.user, entry.op) = (user(1), Op::Leave { followee }),
            _ => {}
        }
    }
    logs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn each_cursor_gives_exactly_the_later_lines(mut recipes in recipes(), hidden in 0..8_u64, limit in 1..9_u32) {
        if hidden > 0 {
            // A post that is shown by its second entry only may come once more: see the next test.
            recipes.iter_mut().for_each(|recipe| recipe.2 = None);
        }
        let logs = logs(&recipes);
        let host = all_of(&logs);
        let shown = shown_but(&host, hidden);
        let whole = timeline(&host.rows, &shown, 500, None, None, None);
        prop_assert_eq!(&whole.cursor, &shown);
        if hidden == 0 {
            prop_assert_eq!(sorted_ids(&whole.posts), expected(&logs));
        }
        prop_assert!(whole.posts.is_sorted_by_key(|post| post.stamp));
        for (index, post) in whole.posts.iter().enumerate() {
            let later = timeline(&host.rows, &shown, 500, Some(&post.cursor), None, None);
            prop_assert_eq!(&later.posts[..], &whole.posts[index + 1..]);
            let earlier = timeline(&host.rows, &shown, 500, None, Some(post.stamp), None);
            prop_assert_eq!(&earlier.posts[..], &whole.posts[..index]);
            let lines = timeline(&host.rows, &shown, 500, Some(&earlier.cursor), None, None);
            prop_assert_eq!(&lines.posts[..], &whole.posts[index..]);
        }
        // Pages from an empty cursor, each from where the last one ended, make the whole.
        let (mut since, mut pages) = (Vector::new(), Vec::new());
        while since != shown {
            let page = timeline(&host.rows, &shown, limit, Some(&since), None, None);
            prop_assert!(!page.more && page.posts.len() <= limit as usize);
            pages.extend(page.posts);
            since = page.cursor;
        }
        prop_assert_eq!(pages, whole.posts);
    }

    #[test]
    fn no_cursor_leaves_a_later_line_out(recipes in recipes(), hidden in 0..8_u64) {
        let logs = logs(&recipes);
        let host = all_of(&logs);
        let shown = shown_but(&host, hidden);
        let whole = timeline(&host.rows, &shown, 500, None, None, None);
        for (index, post) in whole.posts.iter().enumerate() {
            let later = timeline(&host.rows, &shown, 500, Some(&post.cursor), None, None);
            let later = sorted_ids(&later.posts);
            prop_assert!(whole.posts[index + 1..].iter().all(|post| later.contains(&post.id.to_string())));
        }
        // What was shown by the answer does not come again when more is shown.
        let all = host.standing().vector;
        let rest = timeline(&host.rows, &all, 500, Some(&whole.cursor), None, None);
        let mut ids = sorted_ids(&whole.posts);
        ids.extend(sorted_ids(&rest.posts));
        ids.sort();
        prop_assert_eq!(ids, expected(&logs));
    }

    #[test]
    fn the_log_and_the_tables_tell_the_same(recipes in recipes(), seen in prop::array::uniform3(0..12_u64)) {
        let logs = logs(&recipes);
        let host = all_of(&logs);
        let shown = host.standing().vector;
        let since = ["a", "b", "c"].into_iter().zip(seen).map(|(host, seq)| (origin(host), Seq(seq))).collect();
        let view = View { rows: &host.rows, shown: &shown };
        let sources = sources(view, user(1));
        let mut one = from_log(view, &sources, &since);
        one.sort();
        one.dedup();
        let mut other = from_tables(view, &sources, &since);
        other.sort();
        prop_assert_eq!(one, other);
    }

    #[test]
    fn a_feed_has_no_gap_and_no_duplicate_across_hosts(
        recipes in recipes(),
        first in prop::collection::vec((0..3_u8, 1..6_u64), 0..12),
        second in prop::collection::vec((0..3_u8, 1..6_u64), 0..12),
        cut in 0..3_u8,
        resume in any::<prop::sample::Index>(),
    ) {
        let logs = logs(&recipes);
        let (mut one, mut other) = (reader("x", &logs), reader("y", &logs));
        let mut cursor = timeline(&one.rows, &one.standing().vector, 20, None, None, None).cursor;
        let mut told = Vec::new();
        for (which, count) in first {
            feed_log(&mut one, &logs, which, count);
            steps_of(&one, &mut cursor, &mut told);
        }
        // The client goes elsewhere after any of the posts that it was told, and waits there until its cursor is held.
        if !told.is_empty() {
            told.truncate(resume.index(told.len()) + 1);
            cursor = told[told.len() - 1].cursor.clone();
        }
        for (which, name) in (0..3).zip(["a", "b", "c"]) {
            feed_log(&mut other, &logs, which, cursor.get(origin(name)).0.saturating_sub(if which == 0 { 6 } else { 0 }));
        }
        for (which, count) in second {
            feed_log(&mut other, &logs, which, count);
            steps_of(&other, &mut cursor, &mut told);
        }
        (0..3).for_each(|which| feed_log(&mut other, &logs, which, 1_000));
        if cut > 0 {
            let vector = other.standing().vector;
            other.write(Write::Cut(vector.iter().skip(usize::from(cut - 1)).collect()));
        }
        steps_of(&other, &mut cursor, &mut told);
        prop_assert_eq!(sorted_ids(&told), expected(&logs));
        prop_assert_eq!(timeline(&other.rows, &cursor, 500, Some(&cursor), None, None).posts, vec![]);
    }

    #[test]
    fn a_cut_log_tells_what_the_whole_log_told(turns in turns(), seen in prop::array::uniform3(0..12_u64), step in 1..9_usize) {
        let logs = turned(&turns);
        let (whole, mut short) = (all_of(&logs), all_of(&logs));
        let shown = whole.standing().vector;
        prop_assert_eq!(short.write(Write::Cut(shown.clone())), Wrote::Done);
        let since: Vector = ["a", "b", "c"].into_iter().zip(seen).map(|(host, seq)| (origin(host), Seq(seq))).collect();
        let told = |host: &Host, step: usize| {
            let (mut from, mut told) = (since.clone(), Vec::new());
            while !from.covers(&shown) {
                let feeds = [(FeedId(1), user(1))];
                let (steps, reached) = advance_by(step, &host.rows, &from, &shown, &feeds);
                assert!(reached.covers(&from) && reached != from, "it moves on");
                told.extend(steps.into_iter().flat_map(|step| step.posts).map(|post| post.id.to_string()));
                from = reached;
            }
            told
        };
        prop_assert_eq!(told(&short, step), told(&whole, limits::FEED_ENTRIES_MAX));
    }
}

/// Whoever joins elsewhere during a partition is told of the newest posts only; the others are in the timeline.
#[test]
fn a_join_that_comes_late_tells_a_bounded_number_of_posts() {
    let (mut here, mut there) = (Host::new("a", 1_000), Host::new("b", 1_000));
    here.register(1, "ann");
    here.register(2, "bob");
    there.pull(&here);
    there.join(1, "bob");
    let many = limits::FEED_LATE_POSTS_MAX + 3;
    (0..many).for_each(|number| drop(here.post(2, &number.to_string())));
    let from = here.standing().vector;
    here.pull(&there);
    let shown = here.standing().vector;
    let (steps, reached) = advance(&here.rows, &from, &shown, &[(FeedId(1), user(1))]);
    assert_eq!((steps.len(), reached), (1, shown));
    let told: Vec<_> = steps[0].posts.iter().map(|post| post.text.clone()).collect();
    assert_eq!(told, (3..many).map(|number| number.to_string()).collect::<Vec<_>>());
}
