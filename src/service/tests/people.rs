//! What people ask for, and what they are refused.

use super::*;
use crate::error::ErrorCode;
use crate::id::Vector;
use crate::limits;
use crate::service::names::{display_name, resolve_name};
use crate::service::query::{Answer, ListPart, Query, answer};
use crate::service::rules;

fn refused(result: IntakeResult) -> ErrorCode {
    result.unwrap_err().code
}

fn names(rows: &MemRows, shown: &Vector, who: u8, part: ListPart) -> Vec<String> {
    let query = Query::List { user: user(who), part, after: String::new() };
    let Answer::Names { names, next: None } = answer(rows, shown, &query).unwrap() else { panic!("not one page") };
    names
}

#[test]
fn requests_are_refused_with_their_reasons() {
    let mut host = Host::new("a", 1_000);
    let join = |name: &str| WriteOp::Join { name: name.into() };
    let leave = |name: &str| WriteOp::Leave { name: name.into() };
    let login = |name: &str| WriteOp::Register { name: name.parse().unwrap() };
    assert_eq!(refused(host.try_ask(1, "i", join("bob"))), ErrorCode::NotRegistered);
    host.register(1, "Ann");
    host.register(2, "bob");
    assert_eq!(refused(host.try_ask(3, "i", login("ANN"))), ErrorCode::NameTaken);
    assert_eq!(refused(host.try_ask(1, "i", login("carl"))), ErrorCode::OtherName);
    assert_eq!(refused(host.try_ask(1, "i", join("nobody"))), ErrorCode::UnknownUser);
    assert_eq!(refused(host.try_ask(1, "i", join("no such name"))), ErrorCode::UnknownUser);
    assert_eq!(refused(host.try_ask(1, "i", join("ann"))), ErrorCode::Oneself);
    assert_eq!(refused(host.try_ask(1, "i", leave("bob"))), ErrorCode::NotJoined);
    assert_eq!(refused(host.try_ask(1, "i", leave("ann"))), ErrorCode::NotJoined);
    assert_eq!(host.join(1, "BOB").name, "bob");
    assert_eq!(refused(host.try_ask(1, "i", join("bob"))), ErrorCode::AlreadyJoined);
    host.leave(1, "bob");
    assert_eq!(refused(host.try_ask(1, "i", leave("bob"))), ErrorCode::NotJoined);
    host.join(1, "bob");
    assert_eq!(host.standing().entries, 5);
}

#[test]
fn a_retry_finds_its_first_attempt() {
    let mut host = Host::new("a", 1_000);
    let first = host.register(1, "Ann");
    host.register(2, "bob");
    let again = host.try_ask(1, "other-id", WriteOp::Register { name: "ann".parse().unwrap() }).unwrap();
    assert_eq!(again, first);
    for op in [
        WriteOp::Join { name: "bob".into() },
        WriteOp::Leave { name: "bob".into() },
        WriteOp::Post { text: "hello".parse().unwrap() },
    ] {
        let id = format!("{op:?}").replace(' ', "")[..12].to_owned();
        let first = host.try_ask(1, &id, op.clone()).unwrap();
        let entries = host.standing().entries;
        assert_eq!(host.try_ask(1, &id, op).unwrap(), first);
        assert_eq!(host.standing().entries, entries);
        let other = WriteOp::Post { text: "something else".parse().unwrap() };
        assert_eq!(refused(host.try_ask(1, &id, other)), ErrorCode::IdReused);
    }
    // The same id of another person is another request.
    assert!(host.try_ask(2, "Post{text:\"h", WriteOp::Post { text: "mine".parse().unwrap() }).is_ok());
}

#[test]
fn a_batch_sees_its_own_writes() {
    let mut host = Host::new("a", 1_000);
    host.register(1, "ann");
    let request = |id: &str| {
        Write::Request(WriteRequest {
            key: key(1),
            id: id.parse().unwrap(),
            op: WriteOp::Post { text: "x".parse().unwrap() },
        })
    };
    let committed = host.commit(vec![request("i"), request("i"), request("j")]);
    let accepted: Vec<_> = committed.outcomes.into_iter().map(|(_, wrote)| wrote).collect();
    assert_eq!(accepted[0], accepted[1]);
    assert_ne!(accepted[0], accepted[2]);
    assert_eq!(committed.standing.entries, 3);
}

#[test]
fn a_uuid_older_than_the_memory_is_refused_unless_it_is_known() {
    let made_ms = 0x0190_0000_0000_u64;
    let id = "01900000-0000-7abc-8def-0123456789ab";
    let post = || WriteOp::Post { text: "x".parse().unwrap() };
    let memory = u64::try_from(limits::REQUEST_MEMORY.as_micros()).unwrap();
    let mut host = Host::new("a", made_ms * 1_000);
    host.register(1, "ann");
    let first = host.try_ask(1, id, post()).unwrap();
    host.wall.0 += memory + 1;
    assert_eq!(host.try_ask(1, id, post()).unwrap(), first);
    assert_eq!(refused(host.try_ask(1, "01900000-0000-7abc-8def-0123456789ac", post())), ErrorCode::TooOld);
    // Not of version 7, or not a UUID at all: chosen by a person.
    assert!(host.try_ask(1, "01900000-0000-4abc-8def-0123456789ac", post()).is_ok());
    assert!(host.try_ask(1, "01900000-0000-7abc-8def-0123456789ac/1", post()).is_ok());
}

#[test]
fn a_contested_name_gets_a_suffix_and_loses_nothing_else() {
    let (mut a, mut b) = (Host::new("a", 1_000), Host::new("b", 2_000));
    a.register(1, "Ann");
    b.register(2, "ann");
    b.post(2, "from the other side");
    a.pull(&b);
    b.pull(&a);
    assert_eq!(a.standing().digest, b.standing().digest);
    let suffixed = format!("ann~{}", &user(2).to_string()[..4]);
    assert_eq!(display_name(&a.rows, user(1)), Some("Ann".into()));
    assert_eq!(display_name(&a.rows, user(2)), Some(suffixed.clone()));
    assert_eq!(resolve_name(&a.rows, "ANN"), Some(user(1)));
    assert_eq!(resolve_name(&a.rows, &suffixed.to_uppercase()), Some(user(2)));
    assert_eq!(resolve_name(&a.rows, "ann~"), None);
    assert_eq!(resolve_name(&a.rows, "ann~0000"), None);
    assert_eq!(names(&a.rows, &a.standing().vector, 1, ListPart::Users), ["Ann".to_owned(), suffixed.clone()]);
    // Still registered, under the same name as before.
    assert_eq!(b.try_ask(2, "again", WriteOp::Register { name: "ann".parse().unwrap() }).unwrap().name, suffixed);
    a.register(3, "carl");
    assert_eq!(a.join(3, &suffixed).name, suffixed);
    assert_eq!(names(&a.rows, &a.standing().vector, 3, ListPart::Joined), [suffixed]);
}

#[test]
fn suffixes_are_as_long_as_it_takes() {
    let mut rows = MemRows::default();
    let id = |last: u8| UserId([0xab, 0xcd, 0xe0 + last, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for last in 0..3 {
        let op = Op::Register { key: key(last), name: "ann".parse().unwrap() };
        let made = entry("a", u64::from(last) + 1, u64::from(last) + 1, last, "r", op);
        rules::apply(&mut rows, &Entry { user: id(last), ..made });
    }
    assert_eq!(display_name(&rows, id(0)), Some("ann".into()));
    assert_eq!(display_name(&rows, id(1)), Some("ann~abcde1".into()));
    assert_eq!(resolve_name(&rows, "ann~abcde2"), Some(id(2)));
    assert_eq!(resolve_name(&rows, "ann~abcd"), None);
}

#[test]
fn lists_show_what_is_shown_in_pages() {
    let mut host = Host::new("a", 1_000);
    for (who, name) in [(1, "bob"), (2, "Ann"), (3, "carl")] {
        host.register(who, name);
    }
    host.join(1, "carl");
    host.join(1, "ann");
    host.join(2, "carl");
    let all = host.standing().vector;
    assert_eq!(names(&host.rows, &all, 1, ListPart::Users), ["Ann", "bob", "carl"]);
    assert_eq!(names(&host.rows, &all, 1, ListPart::Joined), ["Ann", "carl"]);
    assert_eq!(names(&host.rows, &all, 3, ListPart::JoinedBy), ["Ann", "bob"]);
    let some = [(host.origin, Seq(4))].into_iter().collect();
    assert_eq!(names(&host.rows, &some, 1, ListPart::Joined), ["carl"]);
    assert_eq!(names(&host.rows, &some, 3, ListPart::JoinedBy), ["bob"]);
    let few = [(host.origin, Seq(1))].into_iter().collect();
    assert_eq!(names(&host.rows, &few, 1, ListPart::Users), ["bob"]);
    let who_am_i = Query::WhoAmI { user: user(2) };
    assert_eq!(answer(&host.rows, &few, &who_am_i).unwrap_err().code, ErrorCode::NotRegistered);
    assert!(answer(&host.rows, &all, &who_am_i).is_ok());
    let after = Query::List { user: user(1), part: ListPart::Users, after: "ann".into() };
    let page = Answer::Names { names: vec!["bob".into(), "carl".into()], next: None };
    assert_eq!(answer(&host.rows, &all, &after), Ok(page));
}

#[test]
fn long_lists_are_paged_without_loss() {
    let mut rows = MemRows::default();
    let count = limits::ANSWER_NAMES_MAX + 5;
    for number in 0..count {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let key = PublicKey(bytes);
        let op = Op::Register { key, name: format!("u{number:06}").parse().unwrap() };
        let made = entry("a", u64::from(number) + 1, u64::from(number) + 1, 0, "r", op);
        rules::apply(&mut rows, &Entry { user: UserId::of(&key), ..made });
    }
    let shown = [(origin("a"), Seq(u64::from(count)))].into_iter().collect();
    let (mut found, mut after) = (Vec::new(), Some(String::new()));
    while let Some(from) = after {
        let query = Query::List { user: user(1), part: ListPart::Users, after: from };
        let Answer::Names { names, next } = answer(&rows, &shown, &query).unwrap() else { panic!("not names") };
        found.extend(names);
        after = next;
    }
    assert_eq!(found, (0..count).map(|number| format!("u{number:06}")).collect::<Vec<_>>());
}

#[test]
fn who_registered_at_two_hosts_is_listed_where_one_of_them_is_shown() {
    let (mut a, mut b) = (Host::new("a", 1_000), Host::new("b", 2_000));
    a.register(1, "ann");
    b.register(1, "ann");
    let shown = b.standing().vector;
    b.pull(&a);
    assert_eq!(names(&b.rows, &shown, 1, ListPart::Users), ["ann"]);
    assert_eq!(names(&b.rows, &Vector::new(), 1, ListPart::Users), Vec::<String>::new());
}
