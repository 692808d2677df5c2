//! Snapshots between real processes: taken up where they broke, whoever was killed meanwhile.

use gaggle::id::{EntryId, Origin, PublicKey, Seq, UserId, Vector};
use gaggle::service::entry::{Entry, Op};
use gaggle::service::ledger::{self, EntryRun, Write, WriteId, WriterMark};
use gaggle::service::snapshot::Cursor;
use gaggle::store::{LmdbStore, Store, StoreIdentity};
use gaggle::time::{Hlc, Wall};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::harness::cluster::signal;
use crate::harness::{Cluster, LOOK, PATIENCE, Status, Ups};

/// As many as make a snapshot of some fifty parts.
const POSTS: u64 = 30_000;

fn origin() -> Origin {
    Origin { host: "lenss3".parse().unwrap(), incarnation: 7 }
}

fn entry(seq: u64) -> Entry {
    let key = PublicKey([1; 32]);
    let op = match seq {
        1 => Op::Register { key, name: "ann".parse().unwrap() },
        _ => Op::Post { text: format!("{seq} {}", "is a number, ".repeat(8)).trim().parse().unwrap() },
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

fn open(cluster: &Cluster, host: &str) -> LmdbStore {
    let identity = StoreIdentity { cluster: "lenss".to_owned(), host: host.parse().unwrap() };
    LmdbStore::open(&cluster.path(&format!("data/{host}")), &identity).unwrap()
}

/// Fills a host's store through the store's own interface, and cuts its log.
fn fill(cluster: &Cluster, host: &str) {
    let store = open(cluster, host);
    let mark = WriterMark { process: "W0".parse().unwrap(), pid: std::process::id() };
    let epoch = store.take_epoch(&mark).unwrap().epoch;
    let run =
        EntryRun { origin: origin(), from: Seq(1), entries: (1..=POSTS).map(|seq| entry(seq).encode()).collect() };
    let cut = [(origin(), Seq(POSTS - 10))].into_iter().collect();
    let mut writes = vec![(WriteId(1), Write::Run(run)), (WriteId(2), Write::Cut(cut))];
    if host == "lenss3" {
        writes.push((WriteId(3), Write::Begin(origin())));
    }
    store.commit(epoch, Wall(0), writes).unwrap();
}

/// How far a snapshot is merged into a store, and who writes there.
fn look(store: &LmdbStore) -> (Option<Cursor>, Option<WriterMark>) {
    let mut found = (None, None);
    store.read(&mut |rows| found = (ledger::standing(rows).snapshot, ledger::writer(rows))).unwrap();
    found
}

/// Waits until a snapshot has come further than this; its new place, or none if it is done.
async fn wait_beyond(store: &LmdbStore, before: &[u8]) -> Option<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look(store).0 {
            Some(Cursor { at, .. }) if at.as_slice() > before => return Some(at),
            Some(Cursor { at, .. }) => assert_eq!(at, before, "it began anew"),
            None if !before.is_empty() => return None,
            None => {}
        }
        assert!(Instant::now() < deadline, "no snapshot comes");
        sleep(LOOK / 20).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_where_it_broke_whoever_is_killed() {
    let mut cluster = Cluster::prepare(Ups::ForEachHost);
    std::fs::write(cluster.topology(), cluster.lenss() + "\n[log]\nkept = 10\nmax = 1_000_000\n").unwrap();
    for host in ["lenss1", "lenss3"] {
        fill(&cluster, host);
        cluster.start_host(host);
    }
    let relay_pids = |status: &Status| -> Vec<i32> {
        let relays = status.processes().filter(|process| process.duties.iter().any(|duty| duty == "relay"));
        relays.map(|process| process.pid).collect()
    };
    let status = cluster.wait("two relays", |status| relay_pids(status).len() == 2).await;
    cluster.start_host("lenss4");
    let store = open(&cluster, "lenss4");

    let first = wait_beyond(&store, &[]).await.expect("a snapshot under way");
    let primary = look(&store).1.expect("a writer");
    signal(primary.pid.try_into().unwrap(), Signal::KILL);
    let second = wait_beyond(&store, &first).await.expect("a snapshot that goes on");
    for pid in relay_pids(&status) {
        signal(pid, Signal::KILL);
    }
    let mut place = second;
    while let Some(next) = wait_beyond(&store, &place).await {
        place = next;
    }
    drop(store);
    cluster.wait_converged(&[(origin(), Seq(POSTS))].into_iter().collect()).await;
}
