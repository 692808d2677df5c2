//! The fence, runs, cuts, and reading the log.

use super::*;
use crate::id::Vector;
use crate::limits;
use crate::service::digest_of;
use crate::service::entry::EntryError;
use crate::service::ledger::{Fenced, writer};
use crate::service::log::read_log;
use crate::service::snapshot::{self, Cursor, Part};

fn posts(count: u64) -> Vec<Entry> {
    let post = |n: u64| entry("b", n, n * 10, 1, &format!("r{n}"), Op::Post { text: format!("p{n}").parse().unwrap() });
    (1..=count).map(post).collect()
}

#[test]
fn a_deposed_writer_commits_nothing() {
    let mut host = Host::new("a", 1_000);
    let mark = WriterMark { process: "Q".parse().unwrap(), pid: 2 };
    let newer = take_epoch(&mut host.rows, &mark).epoch;
    assert_eq!(newer, host.epoch.next());
    assert_eq!(writer(&host.rows), Some(mark));
    let before = host.rows.clone();
    let writes = vec![(WriteId(1), Write::Begin(origin("z")))];
    assert_eq!(commit(&mut host.rows, host.epoch, Wall(1), writes), Err(Fenced { newest: newer }));
    assert_eq!(host.rows, before);
}

#[test]
fn a_host_without_an_origin_takes_no_requests() {
    let mut rows = MemRows::default();
    let epoch = take_epoch(&mut rows, &WriterMark { process: "P".parse().unwrap(), pid: 1 }).epoch;
    let op = WriteOp::Register { name: "ann".parse().unwrap() };
    let request = WriteRequest { key: key(1), id: "i".parse().unwrap(), op };
    let done = commit(&mut rows, epoch, Wall(1), vec![(WriteId(1), Write::Request(request))]).unwrap();
    let Wrote::Request(Err(refusal)) = &done.outcomes[0].1 else { panic!("{done:?}") };
    assert_eq!(refusal.code, crate::error::ErrorCode::NotServing);
}

#[test]
fn runs_with_wrong_bytes_are_refused_whole() {
    let mut host = Host::new("a", 1);
    let all = posts(5);
    let refused = |host: &mut Host, run: EntryRun| {
        let before = host.rows.clone();
        assert!(matches!(host.write(Write::Run(run)), Wrote::Refused(_)));
        assert_eq!(host.rows, before);
    };
    refused(&mut host, run("b", 0, &all));
    refused(&mut host, run("c", 1, &all));
    refused(&mut host, run("b", 1, &[all[0].clone(), all[2].clone()]));
    let mut torn = run("b", 1, &all);
    torn.entries[4].pop();
    refused(&mut host, torn);
    let falling = Entry { hlc: Hlc(1), ..all[1].clone() };
    refused(&mut host, run("b", 1, &[all[0].clone(), falling]));
    assert_eq!(host.write(Write::Run(run("b", 1, &all[..3]))), Wrote::Done);
    assert_eq!(host.write(Write::Run(run("b", 1, &all[..2]))), Wrote::Done);
    assert_eq!(host.write(Write::Run(run("b", 2, &all[1..]))), Wrote::Done);
    let standing = host.standing();
    assert_eq!((standing.vector.get(origin("b")), standing.hlc, standing.entries), (Seq(5), Hlc(50), 5));
    assert_eq!(standing.digest, digest_of(&host.rows));
}

#[test]
fn a_run_waits_for_its_predecessor_and_for_what_its_host_held_before_it() {
    let mut host = Host::new("a", 1);
    let mut all = posts(3);
    all[1].after = [(origin("c"), Seq(2))].into_iter().collect();
    let on = |host: &str, seq| Wrote::Waits { on: EntryId { origin: origin(host), seq: Seq(seq) } };
    assert_eq!(host.write(Write::Run(run("b", 2, &all[1..]))), on("b", 1));
    assert_eq!(host.write(Write::Run(run("b", 1, &all))), on("c", 2));
    assert_eq!(host.standing().vector.get(origin("b")), Seq(1), "what comes before was taken");
    let mut theirs = posts(2);
    for entry in &mut theirs {
        entry.id.origin = origin("c");
    }
    assert_eq!(host.write(Write::Run(run("c", 1, &theirs))), Wrote::Done);
    assert_eq!(host.write(Write::Run(run("b", 1, &all))), Wrote::Done);
    host.register(1, "ann");
    let chunk = read_log(&host.rows, &[(host.origin, Seq::ZERO)], 1 << 20);
    let own = Entry::decode(&chunk.runs[0].entries[0]).unwrap();
    assert_eq!(own.after, [(origin("b"), Seq(3)), (origin("c"), Seq(2))].into_iter().collect());
}

#[test]
fn the_clock_rises_with_what_is_taken() {
    let mut host = Host::new("a", 1);
    let far = Hlc::at(Wall(1_000_000));
    let entry = Entry { hlc: far, ..posts(1).remove(0) };
    host.write(Write::Run(run("b", 1, &[entry])));
    assert!(host.register(2, "bob").hlc > far);
}

#[test]
fn the_log_is_read_in_runs_within_bytes() {
    let mut host = Host::new("a", 1_000_000);
    host.write(Write::Run(run("b", 1, &posts(5))));
    host.register(2, "bob");
    let read = |host: &Host, after: &[(Origin, Seq)], bytes_max| {
        let chunk = read_log(&host.rows, after, bytes_max);
        (chunk.runs.iter().map(|run| (run.origin, run.from.0, run.last().0)).collect::<Vec<_>>(), chunk.cut)
    };
    let (a, b) = (origin("a"), origin("b"));
    let both = [(b, Seq(2)), (a, Seq(0))];
    assert_eq!(read(&host, &both, usize::MAX), (vec![(b, 3, 5), (a, 1, 1)], vec![]));
    assert_eq!(read(&host, &both, 0), (vec![(b, 3, 3)], vec![]));
    assert_eq!(read(&host, &[(b, Seq(5)), (b, Seq(9))], 0), (vec![], vec![]));
    let taken = read_log(&host.rows, &[(b, Seq(0))], usize::MAX).runs.remove(0);
    assert_eq!(taken, run("b", 1, &posts(5)));

    let upto: Vector = [(b, Seq(3)), (a, Seq(99))].into_iter().collect();
    host.write(Write::Cut(upto));
    assert_eq!(host.standing().cut, [(b, Seq(3)), (a, Seq(1))].into_iter().collect());
    assert_eq!(read(&host, &both, usize::MAX), (vec![], vec![b, a]));
    assert_eq!(read(&host, &[(b, Seq(3))], usize::MAX), (vec![(b, 4, 5)], vec![]));
    assert_eq!(host.rows.table(Table::Log).len(), 2);
}

#[test]
fn origins_that_take_turns_fill_a_read_with_so_many_turns() {
    let mut host = Host::new("a", 1_000_000);
    let entries = |name: &str, user| -> Vec<Entry> {
        let post = |n: u64| entry(name, n, n * 10, user, &format!("r{n}"), Op::Post { text: "p".parse().unwrap() });
        (1..=200).map(post).collect()
    };
    for (name, user) in [("b", 1), ("c", 2)] {
        host.write(Write::Run(run(name, 1, &entries(name, user))));
    }
    let places = [(origin("b"), Seq(0)), (origin("c"), Seq(0))];
    let runs = read_log(&host.rows, &places, usize::MAX).runs;
    assert_eq!(runs.len(), limits::BATCH_RUNS_MAX);
    assert!(runs.windows(2).all(|pair| pair[0].origin != pair[1].origin));
}

/// The smallest part of a host's snapshot that begins here.
fn part(source: &Host, at: &[u8]) -> Part {
    let chunk = snapshot::read_chunk(&source.rows, at, 1);
    Part { at: at.to_vec(), bytes: chunk.bytes, next: chunk.next, vector: source.standing().vector }
}

#[test]
fn a_snapshot_goes_on_elsewhere_and_claims_what_both_held() {
    let (mut first, mut second) = (Host::new("a", 1_000_000), Host::new("c", 1_000_000));
    first.register(1, "ann");
    first.post(1, "one");
    first.post(1, "two");
    second.register(3, "cid");
    second.pull(&first);
    first.post(1, "three");
    first.pull(&second);
    first.post(1, "four");
    let mut target = Host::new("b", 1);
    let began = part(&first, &[]);
    let at = began.next.clone().unwrap();
    assert_eq!(target.write(Write::Rows(began.clone())), Wrote::Done);
    assert_eq!(target.standing().snapshot, Some(Cursor { at: at.clone(), vector: began.vector }));
    assert!(target.standing().vector.is_empty());
    let mut next = Some(at);
    while let Some(at) = next {
        let part = part(&second, &at);
        next = part.next.clone();
        assert_eq!(target.write(Write::Rows(part)), Wrote::Done);
    }
    // What the second lacked is not claimed, though the first part may have held it.
    let both = [(origin("a"), Seq(3)), (origin("c"), Seq(1))].into_iter().collect();
    assert_eq!((target.standing().vector, target.standing().snapshot), (both, None));
    target.pull(&first);
    assert_eq!(target.standing().digest, first.standing().digest);
    assert_eq!(target.rows.merged(), first.rows.merged());
}

#[test]
fn a_snapshot_may_begin_anew_and_is_forgotten_when_the_log_was_faster() {
    let mut source = Host::new("a", 1_000_000);
    source.register(1, "ann");
    source.post(1, "one");
    let mut target = Host::new("b", 1);
    let began = part(&source, &[]);
    assert_eq!(target.write(Write::Rows(began.clone())), Wrote::Done);
    source.post(1, "two");
    let anew = part(&source, &[]);
    assert_ne!(anew.vector, began.vector);
    assert_eq!(target.write(Write::Rows(anew.clone())), Wrote::Done);
    assert_eq!(target.standing().snapshot.map(|cursor| cursor.vector), Some(anew.vector));
    target.pull(&source);
    assert_eq!(target.standing().snapshot, None);
    assert_eq!(target.rows.merged(), source.rows.merged());
}

#[test]
fn a_part_that_leads_nowhere_is_refused() {
    let mut source = Host::new("a", 1_000_000);
    source.register(1, "ann");
    source.post(1, "one");
    let mut target = Host::new("b", 1);
    let began = part(&source, &[]);
    let long = vec![9; limits::SNAPSHOT_KEY_BYTES_MAX + 1];
    let endless: Vector = [(origin("a"), Seq(u64::MAX))].into_iter().collect();
    let wrong = [
        Part { next: Some(Vec::new()), ..began.clone() },
        Part { next: Some(long), ..began.clone() },
        Part { next: None, vector: endless, ..began },
    ];
    for part in wrong {
        assert!(matches!(target.write(Write::Rows(part)), Wrote::Refused(_)));
    }
    assert_eq!(target.rows.merged(), MemRows::default());
}

#[test]
fn a_snapshot_is_adopted_and_the_log_goes_on_after_it() {
    let mut source = Host::new("a", 1_000_000);
    source.register(1, "ann");
    for text in ["one", "two", "three"] {
        source.post(1, text);
    }
    let mut target = Host::new("b", 1);
    target.register(2, "bob");
    let mut at = Some(Vec::new());
    while let Some(from) = at {
        let part = part(&source, &from);
        at = part.next.clone();
        let damaged = Part { bytes: vec![1, 2, 3], ..part.clone() };
        assert!(matches!(target.write(Write::Rows(damaged)), Wrote::Refused(_)));
        assert_eq!(target.write(Write::Rows(part.clone())), Wrote::Done);
        let elsewhere = Part { at: [&from[..], &[1]].concat(), ..part };
        assert!(matches!(target.write(Write::Rows(elsewhere)), Wrote::Refused(_)));
        assert_eq!(target.standing().snapshot.map(|cursor| cursor.at), at);
    }
    assert_eq!(target.standing().cut.get(origin("a")), Seq(4));
    assert_eq!(target.standing().hlc, source.standing().hlc);
    source.post(1, "four");
    target.pull(&source);
    source.pull(&target);
    assert_eq!(target.standing().digest, source.standing().digest);
    assert_eq!(target.standing().entries, source.standing().entries);
    assert_eq!(target.rows.merged(), source.rows.merged());
}

#[test]
fn the_longest_post_fits_in_an_entry_and_what_is_longer_than_any_entry_is_refused() {
    let text = "\u{1F980}".repeat(limits::POST_CHARS_MAX).parse().unwrap();
    let origin = Origin { host: "sixteen-letters-".parse().unwrap(), incarnation: u32::MAX };
    let longest = Entry {
        id: EntryId { origin, seq: Seq(u64::MAX) },
        request: "i".repeat(64).parse().unwrap(),
        ..entry("a", 1, u64::MAX / 2, 1, "id", Op::Post { text })
    };
    assert!(longest.encode().len() <= limits::ENTRY_BYTES_MAX);
    assert!(Entry::decode(&longest.encode()) == Ok(longest), "it is read as it was written");
    let length = limits::ENTRY_BYTES_MAX + 1;
    assert_eq!(Entry::decode(&vec![0; length]), Err(EntryError::TooLong(length)));
    let run = EntryRun { origin: super::origin("b"), from: Seq(1), entries: vec![vec![0; length]] };
    let Wrote::Refused(reason) = Host::new("a", 1).write(Write::Run(run)) else { panic!("it is taken") };
    assert!(reason.contains("over the limit of 8192"), "{reason}");
}
