//! Golden bytes: entries and rows as they stand on wires and disks. A change here is a new version of the format.

use super::*;
use crate::service::{digest_of, rules, snapshot};

/// `user(1)` and `user(2)`.
const ANN: &str = "9515049071ed913149a80d3bb7891fcd";
const BOB: &str = "e4d60b4531b114100aab5f9907d1718c";
/// `key(1)`.
const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
/// The origin `h1.00000007` in a value: length of the host's name, the name, the incarnation.
const H1: &str = "02683107";
/// The same in a key: the host's name in 16 bytes, the incarnation in 4.
const H1_KEY: &str = "6831000000000000000000000000000000000007";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn one_of_each() -> [Entry; 4] {
    [
        entry("h1", 1, 0x1000, 1, "r1", Op::Register { key: key(1), name: "Ann".parse().unwrap() }),
        entry("h1", 2, 0x2000, 1, "r2", Op::Join { followee: user(2) }),
        entry("h1", 3, 0x3000, 1, "r3", Op::Leave { followee: user(2) }),
        entry("h1", 4, 0x4000, 1, "r4", Op::Post { text: "hé".parse().unwrap() }),
    ]
}

#[test]
fn entries_have_these_bytes() {
    let expected = [
        // origin, seq, clock (varint), user, request id with its length, dependencies (none); then the operation's number and what it holds.
        format!("{H1} 01 8020 {ANN} 027231 00 00 {KEY} 03416e6e"),
        format!("{H1} 02 8040 {ANN} 027232 00 01 {BOB}"),
        format!("{H1} 03 8060 {ANN} 027233 00 02 {BOB}"),
        format!("{H1} 04 808001 {ANN} 027234 00 03 0368c3a9"),
    ];
    for (entry, expected) in one_of_each().iter().zip(expected) {
        assert_eq!(hex(&entry.encode()), expected.replace(' ', ""));
        assert_eq!(Entry::decode(&entry.encode()).as_ref(), Ok(entry));
    }
}

#[test]
fn rows_have_these_bytes() {
    let mut rows = MemRows::default();
    for entry in &one_of_each() {
        rules::apply(&mut rows, entry);
    }
    // The same request taken at a second host: a repeat.
    rules::apply(&mut rows, &entry("h2", 9, 0x5000, 1, "r4", Op::Post { text: "hé".parse().unwrap() }));
    let expected = [
        // user, stamp -> seq, request id, repeats, key, name
        (Table::Users, format!("{ANN} 0000000000001000 {H1_KEY}"), format!("01 027231 00 {KEY} 03416e6e")),
        // folded name, 0, stamp, user -> seq, repeats, name
        (Table::Names, format!("616e6e 00 0000000000001000 {H1_KEY} {ANN}"), "01 00 03416e6e".into()),
        // user, request id -> kind (with the followee), entries: clock, origin, seq, content
        (Table::Requests, format!("{ANN} 7231"), format!("00 01 8020 {H1} 01 ef3a34c07571a673")),
        (Table::Requests, format!("{ANN} 7232"), format!("01 {BOB} 01 8040 {H1} 02 bd49a1dd77873456")),
        (Table::Requests, format!("{ANN} 7233"), format!("01 {BOB} 01 8060 {H1} 03 dc556e7866dae2aa")),
        (
            Table::Requests,
            format!("{ANN} 7234"),
            format!("02 02 808001 {H1} 04 c9ad83ea1bb91182 80a001 02683207 09 c9ad83ea1bb91182"),
        ),
        // author, stamp -> seq, request id, repeats (one: origin, seq), text
        (Table::Posts, format!("{ANN} 0000000000004000 {H1_KEY}"), "04 027234 01 02683207 09 0368c3a9".into()),
        // follower, followee, stamp -> seq, request id, repeats, join or leave
        (Table::Edges, format!("{ANN} {BOB} 0000000000002000 {H1_KEY}"), "02 027232 00 00".into()),
        (Table::Edges, format!("{ANN} {BOB} 0000000000003000 {H1_KEY}"), "03 027233 00 01".into()),
    ];
    let expected: Vec<_> =
        expected.into_iter().map(|(table, key, value)| (table, key.replace(' ', ""), value.replace(' ', ""))).collect();
    let mut found = Vec::new();
    for table in Table::ALL.into_iter().filter(|table| table.merged()) {
        found.extend(rows.table(table).into_iter().map(|(key, value)| (table, hex(&key), hex(&value))));
    }
    assert_eq!(found, expected);
    assert_eq!(digest_of(&rows).to_string(), "086426df9eb874590595359033687898");
}

#[test]
fn an_inverse_edge_has_these_bytes() {
    let mut rows = MemRows::default();
    rules::apply(&mut rows, &one_of_each()[1]);
    assert_eq!(rows.table(Table::JoinedBy), vec![([user(2).0, user(1).0].concat(), Vec::new())]);
}

#[test]
fn what_a_host_knows_about_itself_has_these_bytes() {
    let mut host = Host::new("h1", 0x10);
    host.register(1, "ann");
    host.write(Write::Cut([(host.origin, Seq(1))].into_iter().collect()));
    let found: Vec<_> = host.rows.table(Table::Meta).into_iter().map(|(key, value)| (key, hex(&value))).collect();
    let row = |key: &str, value: &str| (key.as_bytes().to_vec(), value.replace(' ', ""));
    let of_origin = |prefix: &str, value: &str| {
        let key = [prefix.as_bytes(), b"h1", &[0; 17], &[7]].concat();
        (key, value.to_owned())
    };
    let digest = found.iter().find(|(key, _)| key == b"digest").unwrap().clone();
    let expected = [
        of_origin("c", "01"),
        digest,
        row("epoch", "01"),
        // The wall clock in microseconds (18), and 12 bits of counter.
        row("hlc", "80c004"),
        row("origin", H1),
        // The last seq summed up, and the sum over the log's entries so far.
        of_origin("p", "01ebcfcea2ddff8888abd1b4f8d9a09abaf738"),
        of_origin("v", "01"),
        row("writer", "0150 01"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_chunk_has_these_bytes() {
    let mut rows = MemRows::default();
    rules::apply(&mut rows, &one_of_each()[1]);
    // How many elements; user, request id, entries (clock, origin, seq, content), the operation of the first.
    let expected = format!("01 {ANN} 027232 01 8040 {H1} 02 bd49a1dd77873456 01 {BOB}");
    assert_eq!(hex(&snapshot::read_chunk(&rows, &[], 1).bytes), expected.replace(' ', ""));
}

#[test]
fn a_trim_has_these_bytes() {
    let trim = own_entry("h1", 5, 0x5000, Op::Trim { before: Hlc(0x4001) });
    let nobody = "00".repeat(16);
    assert_eq!(hex(&trim.encode()), format!("{H1} 05 80a001 {nobody} 047472696d 00 04 818001").replace(' ', ""));
    let mut rows = MemRows::default();
    for entry in one_of_each()[3..].iter().chain([&trim]) {
        rules::apply(&mut rows, entry);
    }
    assert_eq!(rows.table(Table::Meta).last().map(|(key, value)| (key.clone(), hex(value))), {
        Some((b"trim".to_vec(), "818001".into()))
    });
    // A chunk tells of the trim first, as of a request without entries; then of the post that it took.
    let told = format!("{nobody} 047472696d 00 04 818001");
    let post = format!("{ANN} 027234 01 808001 {H1} 04 c9ad83ea1bb91182 04 818001");
    let chunk = snapshot::read_chunk(&rows, &[], usize::MAX);
    assert_eq!(hex(&chunk.bytes), format!("02 {told} {post}").replace(' ', ""));
}

#[test]
fn an_end_of_an_origin_has_these_bytes() {
    let former = Origin { incarnation: 6, ..origin("h1") };
    let end = own_entry("h1", 5, 0x5000, Op::Retire { origin: former, last: Seq(300) });
    let nobody = "00".repeat(16);
    let said = "05 02683106 ac02";
    assert_eq!(hex(&end.encode()), format!("{H1} 05 80a001 {nobody} 06726574697265 00 {said}").replace(' ', ""));
    let mut rows = MemRows::default();
    rules::apply(&mut rows, &end);
    // The letter, and the entry -> its clock, the origin, its last seq.
    let meta: Vec<_> = rows.table(Table::Meta).into_iter().map(|(key, value)| (hex(&key), hex(&value))).collect();
    assert_eq!(meta, [(format!("72{H1_KEY}0000000000000005"), "80a00102683106ac02".into())]);
    // A chunk tells of it first, as of a request.
    let told = format!("01 {nobody} 06726574697265 01 80a001 {H1} 05 cecdc96d6a0b0a49 {said}");
    assert_eq!(hex(&snapshot::read_chunk(&rows, &[], 1).bytes), told.replace(' ', ""));
}
