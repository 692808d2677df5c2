//! A host whose log holds another entry under a name that the others know: every host says so, and between whom.

use std::collections::BTreeSet;

use gaggle::id::{EntryId, Origin, PublicKey, Seq, UserId, Vector};
use gaggle::limits;
use gaggle::service::entry::{Entry, Op};
use gaggle::service::ledger::{EntryRun, Write, WriteId, WriterMark};
use gaggle::store::{LmdbStore, Store, StoreIdentity};
use gaggle::time::{Hlc, Wall};

use crate::harness::{Cluster, HOSTS, Status, Ups};

/// Whole blocks of the log.
const BLOCKS: u64 = 3;

fn origin() -> Origin {
    Origin { host: "lenss3".parse().unwrap(), incarnation: 7 }
}

fn entry(seq: u64, text: &str) -> Entry {
    let key = PublicKey([1; 32]);
    let op = match seq {
        1 => Op::Register { key, name: "ann".parse().unwrap() },
        _ => Op::Post { text: text.parse().unwrap() },
    };
    Entry {
        id: EntryId { origin: origin(), seq: Seq(seq) },
        hlc: Hlc::at(Wall(1_780_000_000_000_000 + seq)),
        user: UserId::of(&key),
        request: format!("r{seq:08}").parse().unwrap(),
        after: Vector::new(),
        op,
    }
}

/// Fills a host's store through the store's own interface; one has something else in the second block.
fn fill(cluster: &Cluster, host: &str) {
    let identity = StoreIdentity { cluster: "lenss".to_owned(), host: host.parse().unwrap() };
    let store = LmdbStore::open(&cluster.path(&format!("data/{host}")), &identity).unwrap();
    let mark = WriterMark { process: "W0".parse().unwrap(), pid: std::process::id() };
    let epoch = store.take_epoch(&mark).unwrap().epoch;
    let other = |seq| host == "lenss4" && seq == limits::LOG_BLOCK_ENTRIES + 700;
    let seqs = 1..=BLOCKS * limits::LOG_BLOCK_ENTRIES;
    let entries = seqs.map(|seq| entry(seq, if other(seq) { "other" } else { "same" }).encode()).collect();
    let mut writes = vec![(WriteId(1), Write::Run(EntryRun { origin: origin(), from: Seq(1), entries }))];
    if host == "lenss3" {
        writes.push((WriteId(2), Write::Begin(origin())));
    }
    store.commit(epoch, Wall(0), writes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_differ_under_one_name_are_an_alarm_that_names_hosts_and_block() {
    let mut cluster = Cluster::prepare(Ups::ForEachHost);
    for host in HOSTS {
        fill(&cluster, host);
    }
    for host in HOSTS {
        cluster.start_host(host);
    }
    let found = |status: &Status| -> BTreeSet<String> {
        status.alarms.iter().filter(|alarm| alarm.contains("different entries")).cloned().collect()
    };
    let alarm = |other| {
        let end = 2 * limits::LOG_BLOCK_ENTRIES;
        format!("{other} and lenss4 hold different entries of {} in the block that ends at {end}", origin())
    };
    let both: BTreeSet<String> = ["lenss1", "lenss3"].map(alarm).into();
    let status = cluster.wait("both pairs are named", |status| found(status) == both).await;
    assert!(status.degraded);
}
