//! Data of every disk format that was ever released opens with this version, and is what it was.
//!
//! A file in `tests/formats` holds one host's store as text: what people were shown, and then a line for each row of
//! each table, in hex, as it lies on disk (checksums included). A folder is made of it, opened as any data folder is,
//! read, and written to. The newest file is also what the same writes give today: a change of a byte on disk fails here,
//! and needs a new format, a new file (`GAGGLE_FORMATS_WRITE=1` writes it) and a way to read the old one. How LMDB lays
//! pages out is its own business.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::id::{EntryId, Epoch, Origin, PublicKey, Seq, UserId, Vector};
use crate::service::digest_of;
use crate::service::entry::{Entry, Op};
use crate::service::intake::{WriteOp, WriteRequest};
use crate::service::ledger::{self, EntryRun, Write, WriteId, WriterMark, Wrote};
use crate::service::query::{self, Answer, ListPart, Query};
use crate::service::rows::{Rows, Table};
use crate::service::trim::Keep;
use crate::store::{LmdbStore, Store, StoreIdentity};
use crate::time::{Hlc, Wall};

type Fill = fn(&LmdbStore);

/// Each file, its format, and what filled it, where that gives the same today. The first two are from before there were
/// digests of the log.
const FILES: [(&str, u32, Option<Fill>); 5] = [
    ("disk-1", NEWEST, None),
    ("disk-1-trimmed", NEWEST, None),
    ("disk-1-digests", NEWEST, Some(fill)),
    ("disk-1-digests-trimmed", NEWEST, Some(fill_and_trim)),
    ("disk-1-retired", NEWEST, Some(fill_and_begin_anew)),
];
const NEWEST: u32 = 1;
const MAP_BYTES: usize = 1 << 24;

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats")
}

fn open(folder: &Path) -> LmdbStore {
    let identity = StoreIdentity { cluster: "lenss".into(), host: "lenss3".parse().unwrap() };
    LmdbStore::open_sized(folder, &identity, MAP_BYTES).unwrap()
}

fn key(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

fn origin(host: &str) -> Origin {
    Origin { host: host.parse().unwrap(), incarnation: 7 }
}

fn mark() -> WriterMark {
    WriterMark { process: "W5".parse().unwrap(), pid: 5 }
}

fn commit(store: &LmdbStore, epoch: Epoch, wall: u64, write: Write) {
    let committed = store.commit(epoch, Wall(wall), vec![(WriteId(1), write)]).unwrap();
    let (_, wrote) = &committed.outcomes[0];
    assert!(matches!(wrote, Wrote::Done | Wrote::Request(Ok(_))), "{wrote:?}");
}

fn ask(number: u8, id: &str, op: WriteOp) -> Write {
    Write::Request(WriteRequest { key: key(number), id: id.parse().unwrap(), op })
}

/// Entries of another host, one of which claims a name that is taken here.
fn foreign() -> EntryRun {
    let origin = origin("lenss4");
    let ops = [
        Op::Register { key: key(3), name: "ANN".parse().unwrap() },
        Op::Post { text: "from the other side".parse().unwrap() },
        Op::Join { followee: UserId::of(&key(1)) },
    ];
    let entries = ops.into_iter().zip(1..).map(|(op, seq)| {
        let (id, hlc) = (EntryId { origin, seq: Seq(seq) }, Hlc::at(Wall(5_000_000 + seq)));
        let request = format!("there-{seq}").parse().unwrap();
        Entry { id, hlc, user: UserId::of(&key(3)), request, after: Vector::new(), op }.encode()
    });
    EntryRun { origin, from: Seq(1), entries: entries.collect() }
}

/// Every kind of row, the same each time.
fn fill(store: &LmdbStore) {
    let epoch = store.take_epoch(&mark()).unwrap().epoch;
    let here = origin("lenss3");
    let name = |name: &str| WriteOp::Register { name: name.parse().unwrap() };
    let post = |text: &str| WriteOp::Post { text: text.parse().unwrap() };
    let writes = [
        Write::Begin(here),
        ask(1, "a-1", name("ann")),
        ask(2, "b-1", name("Bob")),
        ask(1, "a-2", WriteOp::Join { name: "bob".into() }),
        ask(2, "b-2", post("hello, ann: é")),
        ask(2, "b-3", WriteOp::Join { name: "ann".into() }),
        ask(2, "b-4", WriteOp::Leave { name: "ann".into() }),
        Write::Run(foreign()),
        ask(1, "a-3", post("hello, bob")),
        Write::Cut([(here, Seq(2))].into_iter().collect()),
    ];
    for (write, number) in writes.into_iter().zip(1..) {
        commit(store, epoch, 1_000_000 * number, write);
    }
}

/// The same, and then rows that stand for posts that are not kept.
fn fill_and_trim(store: &LmdbStore) {
    fill(store);
    let epoch = store.take_epoch(&mark()).unwrap().epoch;
    let id = "00000000-0010-7000-8000-000000000000";
    commit(store, epoch, 20_000_000, ask(2, id, WriteOp::Post { text: "an id that is forgotten".parse().unwrap() }));
    let day = 24 * 3_600 * 1_000_000;
    commit(store, epoch, 8 * day + 10_000_000, ask(1, "a-4", WriteOp::Post { text: "kept".parse().unwrap() }));
    let keep = Keep { since: Hlc::at(Wall(8 * day + 5_000_000)), posts: None, rows_min: 1 };
    commit(store, epoch, 9 * day, Write::Trim(keep));
}

/// The same as the first, and then a new incarnation that says where the former one ends.
fn fill_and_begin_anew(store: &LmdbStore) {
    fill(store);
    let epoch = store.take_epoch(&mark()).unwrap().epoch;
    let former = origin("lenss3");
    commit(store, epoch, 20_000_000, Write::Begin(Origin { incarnation: 8, ..former }));
    commit(store, epoch, 21_000_000, Write::Retire { origin: former, last: Seq(7) });
}

/// What people are shown, a line each.
fn shown(store: &LmdbStore) -> Vec<String> {
    let mut lines = Vec::new();
    let reader = &mut |rows: &dyn Rows| {
        let standing = ledger::standing(rows);
        assert_eq!(standing.digest, digest_of(rows), "the digest is that of the rows");
        lines.push(format!("standing {:?} {:?} {:?}", standing.epoch, standing.vector, standing.cut));
        for number in 1..=3 {
            let user = UserId::of(&key(number));
            let parts = [ListPart::Users, ListPart::Joined, ListPart::JoinedBy];
            let lists = parts.map(|part| Query::List { user, part, after: String::new() });
            let timeline = Query::Timeline { user, of: None, limit: 20, since: None, before: None };
            for query in lists.into_iter().chain([timeline]) {
                let line = match query::answer(rows, &standing.vector, &query).unwrap() {
                    Answer::Names { names, .. } => format!("person {number} names {names:?}"),
                    Answer::Posts { posts, .. } => {
                        let posts: Vec<_> = posts.iter().map(|post| (&post.author, &post.text)).collect();
                        format!("person {number} posts {posts:?}")
                    }
                    Answer::WhoAmI { name, .. } => format!("person {number} is {name}"),
                };
                lines.push(line);
            }
        }
    };
    store.read(reader).unwrap();
    lines
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Rows as they lie on disk.
type Dump = Vec<(Table, Vec<u8>, Vec<u8>)>;

fn to_text(shown: &[String], dump: &Dump) -> String {
    let mut text = String::new();
    for line in shown {
        let _ = writeln!(text, "# {line}");
    }
    for (table, key, value) in dump {
        let _ = writeln!(text, "{table:?} {} {}", hex(key), hex(value));
    }
    text
}

fn from_text(text: &str) -> (Vec<String>, Dump) {
    let (mut shown, mut dump) = (Vec::new(), Dump::new());
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("# ") {
            shown.push(line.to_owned());
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let table = Table::ALL.into_iter().find(|table| format!("{table:?}") == words[0]).unwrap();
        dump.push((table, unhex(words[1]), unhex(words[2])));
    }
    (shown, dump)
}

#[test]
fn the_newest_format_is_written_byte_for_byte() {
    for (name, fill) in FILES.into_iter().filter_map(|(name, _, fill)| Some(name).zip(fill)) {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        fill(&store);
        let (shown, dump) = (shown(&store), store.all_raw());
        let path = files().join(format!("{name}.txt"));
        if std::env::var_os("GAGGLE_FORMATS_WRITE").is_some() {
            std::fs::write(&path, to_text(&shown, &dump)).unwrap();
        }
        let kept = from_text(&std::fs::read_to_string(path).unwrap());
        assert_eq!(kept, (shown, dump), "what lies on disk has changed: see the top of this file");
    }
}

#[test]
fn data_of_every_format_opens_and_goes_on() {
    for (name, format, _) in FILES {
        let text = std::fs::read_to_string(files().join(format!("{name}.txt"))).unwrap();
        let (expected, dump) = from_text(&text);
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        dump.iter().for_each(|(table, key, value)| store.put_raw(*table, key, value));
        store.set_format(format);
        drop(store);
        let store = open(folder.path());
        assert_eq!(shown(&store), expected, "{name}");
        let epoch = store.take_epoch(&mark()).unwrap().epoch;
        commit(&store, epoch, 90 << 32, ask(1, "new", WriteOp::Post { text: "and on".parse().unwrap() }));
        let last = shown(&store);
        assert!(last.iter().any(|line| line.starts_with("person 1 posts") && line.contains("and on")), "{last:#?}");
    }
}
