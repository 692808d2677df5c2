//! How long a trim holds the store: `cargo bench --bench trim` (`-- --help` for more).
//!
//! Fills the stores of two hosts with the same posts, as people make them: each row has its author, and each author has
//! about as many. One host makes trims by count, the other takes their entries in; the time of each commit is printed,
//! with its two syncs, that of a look which finds nothing over the count, and that of one which walks by everybody to find
//! too little. Nothing is asserted: the figures are for people.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has nothing to say")]
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use gaggle::id::{EntryId, Epoch, Origin, PublicKey, Seq, UserId, Vector};
use gaggle::limits;
use gaggle::service::entry::{Entry, Op};
use gaggle::service::ledger::{EntryRun, Write, WriteId, WriterMark};
use gaggle::service::log;
use gaggle::service::trim::Keep;
use gaggle::store::{LmdbStore, Store, StoreIdentity};
use gaggle::time::{Hlc, Wall};
use tempfile::TempDir;

/// Measures trims.
#[derive(Debug, Parser)]
struct Arguments {
    /// Posts that there are.
    #[arg(long, default_value_t = 300_000)]
    posts: u64,
    /// Their authors.
    #[arg(long, default_value_t = 100_000)]
    people: u64,
    /// Trims that are made.
    #[arg(long, default_value_t = 8)]
    trims: u64,
    /// Said by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Entries in one commit.
const BATCH: u64 = 20_000;
/// When the first was made, in microseconds since 1970, and how much later each next one.
const FIRST: u64 = 1_780_000_000_000_000;
const STEP: u64 = 100_000;

fn main() {
    let arguments = Arguments::parse();
    let folder = TempDir::with_prefix("gaggle-trim-").unwrap();
    let [maker, taker] = ["lenss3", "lenss4"].map(|host| fill(&arguments, folder.path(), host));
    let mut kept = arguments.posts;
    let keep = |posts| Write::Trim(Keep { since: Hlc::ZERO, posts: Some(posts), rows_min: 1 });
    println!("{} posts of {} people: ms to look in vain {:.2}", kept, arguments.people, ms(commit(&maker, keep(kept))));
    let (mut walked, mut made, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.trims {
        let old = Keep {
            since: Hlc::at(Wall(FIRST + STEP * (arguments.people + arguments.posts))),
            posts: None,
            rows_min: usize::MAX,
        };
        walked.push(commit(&maker, Write::Trim(old)));
        kept = kept.saturating_sub(limits::TRIM_ROWS_MAX as u64);
        made.push(commit(&maker, keep(kept)));
        let mut chunk = None;
        let held = held(&taker);
        maker.0.read(&mut |rows| chunk = Some(log::read_log(rows, &held, usize::MAX))).unwrap();
        for run in chunk.unwrap().runs {
            taken.push(commit(&taker, Write::Run(run)));
        }
    }
    for (what, mut times) in [("find too little for", walked), ("make", made), ("take in", taken)] {
        times.sort();
        let all = times.iter().map(|time| format!("{:.0}", ms(*time))).collect::<Vec<_>>().join(" ");
        println!("{} posts of {} people: ms to {what} a full trim: {all}", arguments.posts, arguments.people);
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

/// One host's store, and its epoch.
type Host = (LmdbStore, Epoch);

fn commit((store, epoch): &Host, write: Write) -> Duration {
    let begun = Instant::now();
    store.commit(*epoch, Wall(FIRST), vec![(WriteId(0), write)]).unwrap();
    begun.elapsed()
}

fn held((store, epoch): &Host) -> Vec<(Origin, Seq)> {
    store.commit(*epoch, Wall(FIRST), Vec::new()).unwrap().standing.vector.iter().collect()
}

fn origin() -> Origin {
    Origin { host: "lenss3".parse().unwrap(), incarnation: 7 }
}

fn fill(arguments: &Arguments, folder: &Path, name: &str) -> Host {
    let identity = StoreIdentity { cluster: "lenss".to_owned(), host: name.parse().unwrap() };
    let store = LmdbStore::open(&folder.join(name), &identity).unwrap();
    let epoch = store.take_epoch(&WriterMark { process: "W0".parse().unwrap(), pid: 1 }).unwrap().epoch;
    let host = (store, epoch);
    if identity.host == origin().host {
        commit(&host, Write::Begin(origin()));
    }
    let last = arguments.people + arguments.posts;
    let mut from = 1;
    while from <= last {
        let upto = (from + BATCH - 1).min(last);
        let entries = (from..=upto).map(|seq| entry(arguments, seq).encode()).collect();
        commit(&host, Write::Run(EntryRun { origin: origin(), from: Seq(from), entries }));
        from = upto + 1;
    }
    host
}

fn entry(arguments: &Arguments, seq: u64) -> Entry {
    let person = seq % arguments.people;
    let key = PublicKey(*blake3::hash(&person.to_be_bytes()).as_bytes());
    let at = FIRST + seq * STEP;
    let op = if seq <= arguments.people {
        Op::Register { key, name: format!("p{person}").parse().unwrap() }
    } else {
        Op::Post { text: format!("{seq} is a number, {}", blake3::hash(&seq.to_be_bytes()).to_hex()).parse().unwrap() }
    };
    // As clients make them: time first, then chance.
    let chance = *blake3::hash(&at.to_be_bytes()).as_bytes();
    let request = uuid::Builder::from_unix_timestamp_millis(at / 1_000, chance[..10].try_into().unwrap());
    Entry {
        id: EntryId { origin: origin(), seq: Seq(seq) },
        hlc: Hlc::at(Wall(at)),
        user: UserId::of(&key),
        request: request.into_uuid().to_string().parse().unwrap(),
        after: Vector::new(),
        op,
    }
}
