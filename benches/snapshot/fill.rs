//! A store as a host has it that took a million posts: the very entries, through the store's own interface.

use std::path::Path;

use gaggle::id::{EntryId, HostId, Origin, PublicKey, Seq, UserId, Vector};
use gaggle::service::entry::{Entry, Op};
use gaggle::service::ledger::{EntryRun, Write, WriteId};
use gaggle::store::{LmdbStore, Store};
use gaggle::time::{Hlc, Wall};

use crate::{Arguments, open};

/// Entries in one commit.
const BATCH: u64 = 20_000;
/// When the first was made, in microseconds since 1970, and how much later each next one: a day of posts.
const FIRST: u64 = 1_780_000_000_000_000;
const STEP: u64 = 86_400;

/// Whose entries they all are.
pub(crate) fn origin() -> Origin {
    Origin { host: "lenss3".parse().unwrap(), incarnation: 7 }
}

/// Fills a host's store. Its log is cut below the last batch, if it is to be short.
pub(crate) fn fill(arguments: &Arguments, folder: &Path, name: &str) -> LmdbStore {
    let host: HostId = name.parse().unwrap();
    let (store, epoch) = open(&folder.join("data").join(name), host);
    let mut writes = Vec::new();
    if host == origin().host {
        writes.push((WriteId(0), Write::Begin(origin())));
    }
    let last = arguments.people + arguments.posts;
    let mut from = 1;
    while from <= last {
        let upto = (from + BATCH - 1).min(last);
        let entries = (from..=upto).map(|seq| entry(arguments, seq).encode()).collect();
        writes.push((WriteId(from), Write::Run(EntryRun { origin: origin(), from: Seq(from), entries })));
        if !arguments.log {
            let cut: Vector = [(origin(), Seq(from - 1))].into_iter().collect();
            writes.push((WriteId(upto), Write::Cut(cut)));
        }
        store.commit(epoch, Wall(0), std::mem::take(&mut writes)).unwrap();
        from = upto + 1;
    }
    store
}

fn entry(arguments: &Arguments, seq: u64) -> Entry {
    let person = seq % arguments.people;
    let key = PublicKey(*blake3::hash(&person.to_be_bytes()).as_bytes());
    let at = FIRST + seq * STEP;
    let op = if seq <= arguments.people {
        Op::Register { key, name: format!("p{person}").parse().unwrap() }
    } else {
        let words = format!("{seq} is a number, {}", blake3::hash(&seq.to_be_bytes()).to_hex());
        Op::Post { text: words.chars().cycle().take(arguments.chars).collect::<String>().parse().unwrap() }
    };
    // As clients make them: time first, then chance.
    let chance = u128::from_be_bytes(blake3::hash(&at.to_be_bytes()).as_bytes()[..16].try_into().unwrap());
    let request = uuid::Builder::from_unix_timestamp_millis(at / 1_000, &chance.to_be_bytes()[6..].try_into().unwrap());
    Entry {
        id: EntryId { origin: origin(), seq: Seq(seq) },
        hlc: Hlc::at(Wall(at)),
        user: UserId::of(&key),
        request: request.into_uuid().to_string().parse().unwrap(),
        after: Vector::new(),
        op,
    }
}
