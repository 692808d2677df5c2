//! P1, P5, P6, P7, and what only the end shows of P2 and P8: what hosts hold, commit, show and do.

use std::collections::BTreeMap;

use gaggle::wire::client::{Response, ServerFrame};
use gaggle::wire::heartbeat::Duty;

use super::super::end::{Moment, Shown};
use super::*;

/// A post that so many hosts have.
fn posted_on(hosts: usize) -> (Script, Asked, Entry) {
    let mut script = Script::new();
    let asked = script.call(0, "a", post("a"));
    let entry = script.entry(0, &asked, 1);
    for host in 0..hosts {
        assert_eq!(script.commit(host, std::slice::from_ref(&entry)), Ok(()));
    }
    (script, asked, entry)
}

#[test]
fn p1_an_acknowledgement_counts_only_durable_copies() {
    let broken_by = |hosts: usize| {
        let (mut script, _, entry) = posted_on(hosts);
        let result = Ok(Response::Written(script.written(0, &entry)));
        broken(script.history.on_reply(&ServerFrame::Response { number: 1, token: Token::default(), result }, 0))
    };
    assert_eq!(broken_by(2), None);
    assert_eq!(broken_by(1), Some(Promise::P1));
}

#[test]
fn p1_what_was_acknowledged_is_there_at_the_end() {
    let broken_by = |commits: bool| {
        let mut script = Script::new();
        let asked = script.call(0, "a", post("a"));
        let entry = script.entry(0, &asked, 1);
        if commits {
            assert_eq!(script.commit(0, std::slice::from_ref(&entry)), Ok(()));
        }
        assert_eq!(script.acknowledge(0, &asked, &entry), Ok(()));
        broken(script.history.on_end(&[]))
    };
    assert_eq!(broken_by(true), None);
    assert_eq!(broken_by(false), Some(Promise::P1));
}

#[test]
fn p1_what_is_missing_was_lost_with_the_one_disk_that_may_be() {
    let mut script = Script::new();
    let asked = script.call(0, "a", post("a"));
    let entry = script.entry(0, &asked, 1);
    let gap = [(entry.id, entry.id)];
    assert_eq!(broken(script.history.on_missing(0, &asked, &gap, 0)), Some(Promise::P1));
    assert_eq!(script.commit(0, std::slice::from_ref(&entry)), Ok(()));
    assert_eq!(script.history.on_replaced(0, Facts::default(), 1), Ok(()));
    assert_eq!(script.history.on_missing(0, &asked, &gap, 0), Ok(()));
}

#[test]
fn p1_an_acknowledgement_waits_for_its_copies_while_they_can_be_had() {
    let broken_by = |copies: u32, sound: bool| {
        let mut script = Script::new();
        let entry = script.write(0, "a", post("a"), 1);
        script.history.sound_since = sound.then_some(0);
        let written = Written { copies, ..script.written(0, &entry) };
        let frame =
            ServerFrame::Response { number: 1, token: Token::default(), result: Ok(Response::Written(written)) };
        broken(script.history.on_reply(&frame, 5_000_000))
    };
    assert_eq!(broken_by(2, true), None);
    assert_eq!(broken_by(1, false), None, "a host may have been away");
    assert_eq!(broken_by(1, true), Some(Promise::P1));
}

#[test]
fn p3_nothing_is_called_missing_that_can_be_had() {
    let broken_by = |sound: bool| {
        let mut script = Script::new();
        let entry = script.write(0, "a", post("a"), 1);
        script.history.sound_since = sound.then_some(0);
        let asked = script.call(0, "timeline", Want::Timeline);
        broken(script.history.on_missing(0, &asked, &[(entry.id, entry.id)], 5_000_000))
    };
    assert_eq!(broken_by(false), None, "who has it may be away");
    assert_eq!(broken_by(true), Some(Promise::P3(Session::MonotonicReads)));
}

#[test]
fn p3_nobody_has_seen_what_only_a_dead_host_has() {
    let broken_by = |hosts: usize| {
        let (mut script, asked, entry) = posted_on(hosts);
        assert_eq!(script.acknowledge(0, &asked, &entry), Ok(()));
        broken(script.history.on_dark(0, 2))
    };
    assert_eq!(broken_by(2), None);
    assert_eq!(broken_by(1), Some(Promise::P3(Session::MonotonicReads)));
}

#[test]
fn p7_an_origin_that_has_ended_leaves_tokens() {
    let script = Script::new();
    let moment = |unended| Moment { unended, ..well() };
    assert_eq!(broken(script.history.on_moment(&moment(Vec::new()))), None);
    assert_eq!(broken(script.history.on_moment(&moment(vec![(0, origin())]))), Some(Promise::P7));
}

/// Two posts held everywhere, and what a host shows their author of them.
fn shows(ids: &[&str]) -> Option<Promise> {
    let mut script = Script::new();
    script.write(0, "a", post("a"), 1);
    script.write(0, "b", post("b"), 2);
    let timeline = Ok(ids.iter().map(|id| request(id)).collect());
    let shown = Shown { host: 1, timelines: BTreeMap::from([(0, timeline)]), names: BTreeMap::new() };
    broken(script.history.on_end(&[shown]))
}

#[test]
fn p2_a_host_shows_in_the_end_what_the_entries_say() {
    assert_eq!(shows(&["a", "b"]), None);
    assert_eq!(shows(&["a", "a", "b"]), Some(Promise::P2));
    assert_eq!(shows(&["a"]), Some(Promise::P2));
}

#[test]
fn p5_hosts_with_the_same_entries_have_the_same_state() {
    let broken_by = |seq: u64, digest: u128| {
        let mut script = Script::new();
        assert_eq!(script.history.on_durable(0, &standing(2, 7), None, 0), Ok(()));
        broken(script.history.on_durable(1, &standing(seq, digest), None, 0))
    };
    assert_eq!(broken_by(2, 7), None);
    assert_eq!(broken_by(1, 8), None);
    assert_eq!(broken_by(2, 8), Some(Promise::P5));
}

#[test]
fn p5_one_name_of_an_entry_names_one_entry() {
    let mut script = Script::new();
    let (first, second) = (script.call(0, "a", post("a")), script.call(0, "b", post("b")));
    let (entry, other) = (script.entry(0, &first, 1), script.entry(0, &second, 1));
    assert_eq!(script.commit(0, std::slice::from_ref(&entry)), Ok(()));
    assert_eq!(script.history.on_entries(1, &[entry], 0), Ok(()));
    assert_eq!(broken(script.history.on_entries(1, &[other], 0)), Some(Promise::P5));
}

#[test]
fn p5_hosts_decide_a_contested_name_alike() {
    // Both want one name; person 0 claimed it first.
    let broken_by = |names: [(&str, &str); 2]| {
        let mut script = Script::new();
        script.history.people[1].name = "person0".to_owned();
        script.write(0, "first", Want::Register, 1);
        script.write(1, "second", Want::Register, 2);
        let shown = |(host, (first, second)): (usize, (&str, &str))| {
            let names = [first, second].map(|name| (name.to_owned(), "person0".to_owned()));
            Shown { host, timelines: BTreeMap::new(), names: names.into_iter().enumerate().collect() }
        };
        let shown: Vec<Shown> = names.into_iter().enumerate().map(shown).collect();
        broken(script.history.on_end(&shown))
    };
    let (right, wrong) = (("person0", "person0~3f2a"), ("person0~17c0", "person0"));
    assert_eq!(broken_by([right, right]), None);
    assert_eq!(broken_by([right, wrong]), Some(Promise::P5));
}

#[test]
fn p6_under_an_epoch_commits_only_who_took_it() {
    let mut script = Script::new();
    let (first, second) = ((0, 1), (1, 1));
    assert_eq!(script.history.on_taken(0, first, Epoch(1)), Ok(()));
    assert_eq!(script.history.on_commit(0, first, Epoch(1)), Ok(()));
    assert_eq!(broken(script.history.on_commit(0, second, Epoch(1))), Some(Promise::P6));
    // The same process, started anew, is another writer.
    assert_eq!(broken(script.history.on_commit(0, (0, 2), Epoch(1))), Some(Promise::P6));
}

#[test]
fn p6_a_deposed_primary_never_commits() {
    let mut script = Script::new();
    let (first, second) = ((0, 1), (1, 1));
    assert_eq!(script.history.on_taken(0, first, Epoch(1)), Ok(()));
    assert_eq!(script.history.on_commit(0, first, Epoch(1)), Ok(()));
    assert_eq!(script.history.on_taken(0, second, Epoch(2)), Ok(()));
    assert_eq!(script.history.on_commit(0, second, Epoch(2)), Ok(()));
    assert_eq!(broken(script.history.on_commit(0, first, Epoch(1))), Some(Promise::P6));
    // Each host counts its own.
    assert_eq!(script.history.on_taken(1, first, Epoch(1)), Ok(()));
    assert_eq!(script.history.on_commit(1, first, Epoch(1)), Ok(()));
}

#[test]
fn p6_no_epoch_is_taken_twice() {
    let mut script = Script::new();
    assert_eq!(script.history.on_taken(0, (0, 1), Epoch(1)), Ok(()));
    assert_eq!(broken(script.history.on_taken(0, (1, 1), Epoch(1))), Some(Promise::P6));
    assert_eq!(script.history.on_taken(0, (1, 1), Epoch(2)), Ok(()));
}

/// A moment at which all is well.
fn well() -> Moment {
    let held = vec![Some((vector(2), Digest(2))); 2];
    let duties = vec![("host 0".to_owned(), Duty::Serve, vec!["W1".parse().unwrap()])];
    Moment { down: Vec::new(), duties, unwilling: Vec::new(), waiting: Vec::new(), held, unended: Vec::new() }
}

#[test]
fn p7_all_run_and_each_duty_has_one_holder() {
    let history = Script::new().history;
    let group = |holders: &[&str]| {
        let holders = holders.iter().map(|id| id.parse().unwrap()).collect();
        vec![("host 0".to_owned(), Duty::Serve, holders)]
    };
    assert_eq!(history.on_moment(&well()), Ok(()));
    for holders in [&[] as &[&str], &["W1", "W2"]] {
        let moment = Moment { duties: group(holders), ..well() };
        assert_eq!(broken(history.on_moment(&moment)), Some(Promise::P7), "{holders:?}");
    }
    let moment = Moment { down: vec![("W1".parse().unwrap(), "Dead".to_owned())], ..well() };
    assert_eq!(broken(history.on_moment(&moment)), Some(Promise::P7));
    let moment = Moment { unwilling: vec![("W1".parse().unwrap(), Duty::Serve)], ..well() };
    assert_eq!(broken(history.on_moment(&moment)), Some(Promise::P7));
}

#[test]
fn p7_every_call_is_answered() {
    let history = Script::new().history;
    let moment = Moment { waiting: vec![call("a")], ..well() };
    assert_eq!(broken(history.on_moment(&moment)), Some(Promise::P7));
}

/// Person 0 waits for this.
fn call(id: &str) -> (usize, RequestId, String) {
    (0, id.parse().unwrap(), "its timeline".to_owned())
}

#[test]
fn p7_who_waited_is_answered_though_people_go_on() {
    let waits = |id: &str| Moment { waiting: vec![call(id)], ..well() };
    let mark = waits("a").mark();
    assert_eq!(waits("b").fulfils(&mark), Ok(()));
    assert_eq!(broken(waits("a").fulfils(&mark)), Some(Promise::P7));
}

#[test]
fn p7_what_any_host_held_every_host_comes_to_hold_though_people_go_on() {
    let moment = |first, second| {
        let held = |seq| Some((vector(seq), Digest(u128::from(seq))));
        Moment { held: vec![held(first), held(second)], ..well() }
    };
    let mark = moment(2, 3).mark();
    assert_eq!(moment(3, 4).fulfils(&mark), Ok(()));
    assert_eq!(broken(moment(2, 4).fulfils(&mark)), Some(Promise::P7));
    let none = Moment { held: vec![None, Some((vector(4), Digest(4)))], ..well() };
    assert_eq!(broken(none.fulfils(&mark)), Some(Promise::P7));
}

#[test]
fn p7_every_host_catches_up_and_p5_to_the_same_state() {
    let history = Script::new().history;
    let second = |second: Option<(Vector, Digest)>| {
        let moment = Moment { held: vec![Some((vector(2), Digest(2))), second], ..well() };
        broken(history.on_moment(&moment))
    };
    assert_eq!(second(Some((vector(2), Digest(2)))), None);
    assert_eq!(second(Some((vector(1), Digest(1)))), Some(Promise::P7));
    assert_eq!(second(None), Some(Promise::P7));
    assert_eq!(second(Some((vector(2), Digest(3)))), Some(Promise::P5));
}

#[test]
fn p8_a_feed_has_no_gap() {
    let broken_by = |told: &[usize]| {
        let mut script = Script::new();
        script.history.on_feed_begun(0, &[], &vector(0));
        let entries = [script.write(0, "a", post("a"), 1), script.write(0, "b", post("b"), 2)];
        let posts: Vec<ShownPost> = told.iter().map(|index| script.shown(0, &entries[*index])).collect();
        assert_eq!(script.tell(0, &posts, 2), Ok(()));
        broken(script.history.on_moment(&well()))
    };
    assert_eq!(broken_by(&[0, 1]), None);
    assert_eq!(broken_by(&[1]), Some(Promise::P8));
}
