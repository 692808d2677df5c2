//! Digests of the log: what they cover, when there are none, and what a comparison finds.

use super::*;
use crate::limits;
use crate::service::blocks::{Compared, LogDigest, compare, digests};
use crate::service::ledger::commit_in_blocks;
use crate::service::log::read_log;
use crate::service::snapshot::{Part, read_chunk};

/// A short block.
const BLOCK: u64 = 4;

fn posts(count: u64) -> Vec<Entry> {
    let post = |n: u64| entry("b", n, n * 10, 1, &format!("r{n}"), Op::Post { text: format!("p{n}").parse().unwrap() });
    (1..=count).map(post).collect()
}

/// Takes these entries of `b`, in one transaction.
fn take(host: &mut Host, entries: &[Entry]) {
    let write = Write::Run(run("b", entries[0].id.seq.0, entries));
    let done = commit_in_blocks(&mut host.rows, host.epoch, Wall(1), vec![(WriteId(1), write)], BLOCK).unwrap();
    assert_eq!(done.outcomes, [(WriteId(1), Wrote::Done)]);
}

fn of(host: &Host) -> Vec<LogDigest> {
    digests(&host.rows, &[(origin("b"), Seq::ZERO)])
}

fn ends(digests: &[LogDigest]) -> Vec<u64> {
    digests.iter().map(|digest| digest.upto.seq.0).collect()
}

fn upto(seq: u64) -> EntryId {
    EntryId { origin: origin("b"), seq: Seq(seq) }
}

#[test]
fn a_digest_is_the_same_however_the_entries_came() {
    let posts = posts(10);
    let (mut whole, mut pieces) = (Host::new("a", 1), Host::new("c", 1));
    take(&mut whole, &posts);
    for piece in [0..1, 1..3, 2..7, 7..10] {
        take(&mut pieces, &posts[piece]);
    }
    assert_eq!(ends(&of(&whole)), [4, 8]);
    assert_eq!(of(&pieces), of(&whole));
    assert_eq!(ends(&digests(&whole.rows, &[(origin("b"), Seq(4))])), [8]);
    let compared = compare(&pieces.rows, &of(&whole));
    assert_eq!(compared, Compared { same: vec![upto(4), upto(8)], differing: vec![] });
}

#[test]
fn one_entry_that_differs_under_its_name_is_found() {
    let (ours, mut theirs) = (posts(8), posts(8));
    theirs[5].op = Op::Post { text: "something else".parse().unwrap() };
    let (mut one, mut other) = (Host::new("a", 1), Host::new("c", 1));
    take(&mut one, &ours);
    take(&mut other, &theirs);
    assert_eq!(compare(&one.rows, &of(&other)), Compared { same: vec![upto(4)], differing: vec![upto(8)] });
}

#[test]
fn a_host_that_takes_lost_seqs_again_is_found() {
    let mut host = Host::new("b", 1);
    let ask = |host: &mut Host, id: u64, text: &str| {
        let op = WriteOp::Post { text: text.parse().unwrap() };
        let request = WriteRequest { key: key(1), id: format!("i{id}").parse().unwrap(), op };
        let writes = vec![(WriteId(1), Write::Request(request))];
        commit_in_blocks(&mut host.rows, host.epoch, Wall(id), writes, BLOCK).unwrap();
    };
    host.register(1, "ann");
    (1..3).for_each(|n| ask(&mut host, n, "before"));
    let backup = host.rows.clone();
    (3..6).for_each(|n| ask(&mut host, n, "sent, and lost"));
    let mut other = Host::new("c", 1);
    let chunk = read_log(&host.rows, &[(origin("b"), Seq::ZERO)], usize::MAX);
    let entries: Vec<Entry> = chunk.runs[0].entries.iter().map(|bytes| Entry::decode(bytes).unwrap()).collect();
    take(&mut other, &entries);
    host.rows = backup;
    (13..17).for_each(|n| ask(&mut host, n, "the same seqs again"));
    assert_eq!(compare(&other.rows, &of(&host)).differing, [upto(4)]);
}

#[test]
fn a_block_that_came_partly_by_a_snapshot_has_none() {
    let posts = posts(16);
    let mut sender = Host::new("b", 1);
    take(&mut sender, &posts[..6]);
    let chunk = read_chunk(&sender.rows, &[], usize::MAX);
    let vector = sender.standing().vector;
    let mut host = Host::new("a", 1);
    take(&mut host, &posts[..2]);
    host.write(Write::Rows(Part { at: vec![], bytes: chunk.bytes, next: None, vector }));
    take(&mut host, &posts[6..]);
    assert_eq!(ends(&of(&host)), [12, 16]);
    take(&mut sender, &posts[6..]);
    assert_eq!(compare(&host.rows, &of(&sender)).same, [upto(12), upto(16)]);
    assert_eq!(compare(&host.rows, &of(&sender)).differing, []);
}

#[test]
fn what_an_older_version_appended_is_in_no_digest() {
    let posts = posts(12);
    let mut host = Host::new("a", 1);
    take(&mut host, &posts[..2]);
    let key = [b"p", &crate::service::keys::origin(origin("b"))[..]].concat();
    let sum = host.rows.get(Table::Meta, &key).unwrap();
    take(&mut host, &posts[2..3]);
    // It passed over the sum.
    host.rows.put(Table::Meta, &key, &sum);
    take(&mut host, &posts[3..]);
    assert_eq!(ends(&of(&host)), [8, 12]);
    // Data from before there were digests has no sum at all.
    let mut old = Host::new("c", 1);
    take(&mut old, &posts[..6]);
    old.rows.delete(Table::Meta, &key);
    take(&mut old, &posts[6..]);
    assert_eq!(ends(&of(&old)), [4, 12]);
}

#[test]
fn the_last_blocks_are_kept() {
    let posts = posts(BLOCK * (limits::LOG_BLOCKS_KEPT + 3));
    let mut host = Host::new("a", 1);
    posts.chunks(50).for_each(|piece| take(&mut host, piece));
    let ends = ends(&of(&host));
    assert_eq!(ends.len() as u64, limits::LOG_BLOCKS_KEPT);
    assert_eq!((ends[0], ends.last()), (BLOCK * 4, Some(&(BLOCK * (limits::LOG_BLOCKS_KEPT + 3)))));
}

#[test]
fn the_rows_have_these_bytes() {
    let mut host = Host::new("a", 1);
    take(&mut host, &posts(5));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let rows = host.rows.table(Table::Meta).into_iter().filter(|(key, _)| key[0] == b'b' || key[0] == b'p');
    let rows: Vec<_> = rows.map(|(key, value)| (hex(&key), hex(&value))).collect();
    // `b`, origin, the last seq -> the sum; `p`, origin -> the last seq, and the sum under way: varints.
    let origin = "6200000000000000000000000000000000000007"; // b.00000007
    let expected = [
        (format!("62{origin}0000000000000004"), "86c3d9aaa9eafbc083aae09ec0f7a2ebd2c003"),
        (format!("70{origin}"), "05dba4ff9082cf8cc9f8c19abaddd3c9d7f6aa02"),
    ];
    assert_eq!(rows, expected.map(|(key, value)| (key, value.to_owned())));
}
