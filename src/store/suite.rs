//! One suite over every store: what one promises, all promise. Below it, what only one of them can show.
//!
//! The common part is written against [`Subject`], so that it needs no ledger for rows, and the ledger's own
//! procedures for epochs. Processes that are killed are real ones: the test binary starts itself.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::id::HostId;
use crate::service::rows::{RowsMut, Table, Walk};

/// What the suite needs of a store besides [`Store`].
trait Subject: Store {
    fn change(&self, job: &mut dyn FnMut(&mut dyn RowsMut) -> Result<(), Fenced>) -> Result<(), StoreError>;

    fn put(&self, table: Table, rows: &[(&[u8], &[u8])]) -> Result<(), StoreError> {
        self.change(&mut |view| {
            rows.iter().for_each(|(key, value)| view.put(table, key, value));
            Ok(())
        })
    }

    fn all(&self, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        self.read(&mut |rows| found = ascending(rows, table, b"", b"")).unwrap();
        found
    }
}

impl Subject for MemoryStore {
    fn change(&self, job: &mut dyn FnMut(&mut dyn RowsMut) -> Result<(), Fenced>) -> Result<(), StoreError> {
        self.write(job).map(|_| ())
    }
}

impl Subject for FaultyStore {
    fn change(&self, job: &mut dyn FnMut(&mut dyn RowsMut) -> Result<(), Fenced>) -> Result<(), StoreError> {
        self.write_volatile(job)?;
        self.sync()
    }
}

impl Subject for LmdbStore {
    fn change(&self, job: &mut dyn FnMut(&mut dyn RowsMut) -> Result<(), Fenced>) -> Result<(), StoreError> {
        self.write(job).map(|_| ())
    }
}

type Found = Vec<(Vec<u8>, Vec<u8>)>;

fn ascending(rows: &dyn Rows, table: Table, from: &[u8], to: &[u8]) -> Found {
    let mut found = Vec::new();
    rows.ascend(table, from, to, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        Walk::On
    });
    found
}

fn descending(rows: &dyn Rows, table: Table, from: &[u8], to: &[u8]) -> Found {
    let mut found = Vec::new();
    rows.descend(table, from, to, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        Walk::On
    });
    found
}

fn identity() -> StoreIdentity {
    StoreIdentity { cluster: "test".to_owned(), host: "one".parse().unwrap() }
}

/// A map of a few MiB: enough for these tests, and a full one is soon made.
const MAP_BYTES: usize = 4 << 20;

fn lmdb(folder: &Path) -> LmdbStore {
    LmdbStore::open_sized(folder, &identity(), MAP_BYTES).unwrap()
}

/// Runs a test over every store.
fn each(test: fn(&dyn Subject)) {
    test(&MemoryStore::new());
    test(&FaultyStore::new());
    let folder = tempfile::tempdir().unwrap();
    test(&lmdb(folder.path()));
}

#[test]
fn rows_are_written_read_and_taken_out() {
    each(|store| {
        store.put(Table::Users, &[(b"a", b"1"), (b"b", b""), (b"a", b"2")]).unwrap();
        store.put(Table::Posts, &[(b"a", b"other table")]).unwrap();
        store
            .read(&mut |rows| {
                assert_eq!(rows.get(Table::Users, b"a"), Some(b"2".to_vec()));
                assert_eq!(rows.get(Table::Users, b"b"), Some(Vec::new()));
                assert_eq!(rows.get(Table::Users, b"c"), None);
                assert_eq!(rows.get(Table::Users, b""), None);
            })
            .unwrap();
        store
            .change(&mut |rows| {
                rows.delete(Table::Users, b"a");
                rows.delete(Table::Users, b"never there");
                rows.delete(Table::Users, b"");
                Ok(())
            })
            .unwrap();
        assert_eq!(store.all(Table::Users), [(b"b".to_vec(), Vec::new())]);
        assert_eq!(store.all(Table::Posts), [(b"a".to_vec(), b"other table".to_vec())]);
    });
}

#[test]
fn walks_keep_to_their_bounds() {
    each(|store| {
        let keys: [&[u8]; 5] = [b"a", b"b", b"b\0", b"c", b"\xff\xff"];
        store.put(Table::Log, &keys.map(|key| (key, key))).unwrap();
        // A walk must not run on into a neighbouring table.
        store.put(Table::Meta, &[(b"x", b"meta")]).unwrap();
        store.put(Table::Users, &[(b"x", b"users")]).unwrap();
        let cases: [(&[u8], &[u8], &[usize]); 9] = [
            (b"", b"", &[0, 1, 2, 3, 4]),
            (b"b", b"", &[1, 2, 3, 4]),
            (b"", b"b", &[0]),
            (b"b", b"c", &[1, 2]),
            (b"a\0", b"bz", &[1, 2]),
            (b"b", b"b", &[]),
            (b"c", b"a", &[]),
            (b"\xff\xff\xff", b"", &[]),
            (b"d", b"e", &[]),
        ];
        for (from, to, places) in cases {
            let mut wanted: Found = places.iter().map(|at| (keys[*at].to_vec(), keys[*at].to_vec())).collect();
            store.read(&mut |rows| assert_eq!(ascending(rows, Table::Log, from, to), wanted)).unwrap();
            wanted.reverse();
            store.read(&mut |rows| assert_eq!(descending(rows, Table::Log, from, to), wanted)).unwrap();
        }
    });
}

#[test]
fn a_visitor_stops_a_walk_and_may_read_inside_it() {
    each(|store| {
        store.put(Table::Log, &[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]).unwrap();
        store
            .read(&mut |rows| {
                let mut seen = Vec::new();
                let mut visit = |key: &[u8], _: &[u8]| {
                    seen.push(rows.get(Table::Log, key).unwrap());
                    if seen.len() == 2 { Walk::Stop } else { Walk::On }
                };
                rows.ascend(Table::Log, b"", b"", &mut visit);
                assert_eq!(seen, [b"1", b"2"]);
                let mut last = None;
                rows.descend(Table::Log, b"", b"", &mut |key, _| {
                    last = Some(key.to_vec());
                    Walk::Stop
                });
                assert_eq!(last, Some(b"c".to_vec()));
            })
            .unwrap();
    });
}

#[test]
fn a_batch_sees_its_own_changes() {
    each(|store| {
        store.put(Table::Log, &[(b"a", b"1"), (b"b", b"2")]).unwrap();
        store
            .change(&mut |rows| {
                rows.put(Table::Log, b"c", b"3");
                rows.delete(Table::Log, b"a");
                assert_eq!(rows.get(Table::Log, b"c"), Some(b"3".to_vec()));
                assert_eq!(rows.get(Table::Log, b"a"), None);
                assert_eq!(ascending(rows, Table::Log, b"", b"").len(), 2);
                assert_eq!(descending(rows, Table::Log, b"", b"")[0].0, b"c");
                Ok(())
            })
            .unwrap();
    });
}

#[test]
fn a_fenced_batch_changes_nothing() {
    each(|store| {
        store.put(Table::Users, &[(b"a", b"1"), (b"b", b"2")]).unwrap();
        let before = store.all(Table::Users);
        let outcome = store.change(&mut |rows| {
            rows.put(Table::Users, b"a", b"changed");
            rows.put(Table::Users, b"a", b"changed twice");
            rows.put(Table::Users, b"c", b"new");
            rows.delete(Table::Users, b"c");
            rows.delete(Table::Users, b"b");
            Err(Fenced { newest: Epoch(7) })
        });
        assert!(matches!(outcome, Err(StoreError::Fenced(Fenced { newest: Epoch(7) }))), "{outcome:?}");
        assert_eq!(store.all(Table::Users), before);
        store.put(Table::Users, &[(b"d", b"after")]).unwrap();
        assert_eq!(store.all(Table::Users).len(), 3);
    });
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
}

/// One batch, and whether it ends in a fence.
fn batches() -> impl Strategy<Value = Vec<(Vec<Step>, bool)>> {
    let step = prop_oneof![
        3 => (0..12u8, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        1 => (0..12u8).prop_map(Step::Delete),
    ];
    proptest::collection::vec((proptest::collection::vec(step, 0..8), proptest::bool::weighted(0.2)), 0..10)
}

fn apply(steps: &[Step], mut put: impl FnMut(u8, Option<u8>)) {
    for step in steps {
        match step {
            Step::Put(key, value) => put(*key, Some(*value)),
            Step::Delete(key) => put(*key, None),
        }
    }
}

fn run(rows: &mut dyn RowsMut, steps: &[Step], fenced: bool) -> Result<(), Fenced> {
    apply(steps, |key, value| match value {
        Some(value) => rows.put(Table::Edges, &[key], &[value]),
        None => rows.delete(Table::Edges, &[key]),
    });
    if fenced { Err(Fenced { newest: Epoch(1) }) } else { Ok(()) }
}

fn model_rows(model: &BTreeMap<u8, u8>, from: u8, to: u8) -> Found {
    model.iter().filter(|(key, _)| (from..to).contains(key)).map(|(key, value)| (vec![*key], vec![*value])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_store_is_a_sorted_map(batches in batches(), from in 0..12u8, to in 0..12u8) {
        let folder = tempfile::tempdir().unwrap();
        let stores: [Box<dyn Subject>; 3] =
            [Box::new(MemoryStore::new()), Box::new(FaultyStore::new()), Box::new(lmdb(folder.path()))];
        let mut model = BTreeMap::new();
        for (steps, fenced) in &batches {
            for store in &stores {
                assert_eq!(store.change(&mut |rows| run(rows, steps, *fenced)).is_err(), *fenced);
            }
            if !fenced {
                apply(steps, |key, value| match value {
                    Some(value) => drop(model.insert(key, value)),
                    None => drop(model.remove(&key)),
                });
            }
        }
        let mut wanted = model_rows(&model, from, to);
        for store in &stores {
            store.read(&mut |rows| assert_eq!(ascending(rows, Table::Edges, &[from], &[to]), wanted)).unwrap();
        }
        wanted.reverse();
        for store in &stores {
            store.read(&mut |rows| assert_eq!(descending(rows, Table::Edges, &[from], &[to]), wanted)).unwrap();
        }
    }

    /// Some batches are synced, the rest are read around and then lost.
    #[test]
    fn readers_see_what_is_synced_and_a_crash_leaves_it(
        synced in batches(), unsynced in batches(), from in 0..12u8, to in 0..12u8
    ) {
        let (store, wanted) = (FaultyStore::new(), FaultyStore::new());
        for (steps, fenced) in &synced {
            let _ = store.write_volatile(|rows| run(rows, steps, *fenced));
            let _ = wanted.change(&mut |rows| run(rows, steps, *fenced));
        }
        store.sync().unwrap();
        for (steps, fenced) in &unsynced {
            let _ = store.write_volatile(|rows| run(rows, steps, *fenced));
        }
        let look = |store: &FaultyStore| {
            let mut found = Vec::new();
            store.read(&mut |rows| {
                found.push(ascending(rows, Table::Edges, &[from], &[to]));
                found.push(descending(rows, Table::Edges, &[from], &[to]));
                found.push((0..12).filter_map(|key| Some((vec![key], rows.get(Table::Edges, &[key])?))).collect());
            }).unwrap();
            found
        };
        prop_assert_eq!(look(&store), look(&wanted));
        let backup = store.snapshot_state();
        store.crash();
        prop_assert!(!store.is_unsynced());
        prop_assert_eq!(look(&store), look(&wanted));
        store.wipe();
        prop_assert_eq!(store.all(Table::Edges), Found::new());
        store.restore_state(&backup);
        prop_assert_eq!(look(&store), look(&wanted));
    }
}

#[test]
fn a_sync_shows_a_batch_and_later_batches_need_none_to_see_it() {
    let store = FaultyStore::new();
    store
        .write_volatile(|rows| {
            rows.put(Table::Log, b"a", b"1");
            Ok(())
        })
        .unwrap();
    assert!(store.is_unsynced());
    assert!(store.all(Table::Log).is_empty());
    let (seen, _) = store.write_volatile(|rows| Ok(rows.get(Table::Log, b"a"))).unwrap();
    assert_eq!(seen, Some(b"1".to_vec()));
    store.another().sync().unwrap();
    assert_eq!(store.all(Table::Log).len(), 1);
}

#[test]
fn a_failed_sync_ends_a_handle_and_leaves_either_state() {
    for (batch, rows_left) in [(UnsyncedBatch::Stored, 1), (UnsyncedBatch::Lost, 0)] {
        let store = FaultyStore::new();
        store.fail_next_sync(batch);
        assert!(matches!(store.put(Table::Log, &[(b"a", b"1")]), Err(StoreError::Failed(_))));
        assert!(matches!(store.put(Table::Log, &[(b"b", b"2")]), Err(StoreError::Failed(_))));
        assert_eq!(store.all(Table::Log).len(), rows_left);
        store.another().put(Table::Log, &[(b"b", b"2")]).unwrap();
        assert_eq!(store.all(Table::Log).len(), rows_left + 1);
    }
}

#[test]
fn a_full_simulated_disk_refuses_writes_until_there_is_room() {
    let store = FaultyStore::new();
    store.put(Table::Log, &[(b"a", b"1")]).unwrap();
    store.set_full(Room::None);
    assert!(matches!(store.put(Table::Log, &[(b"b", b"2")]), Err(StoreError::Full(_))));
    assert_eq!(store.all(Table::Log).len(), 1);
    store.set_full(Room::Ample);
    store.put(Table::Log, &[(b"b", b"2")]).unwrap();
    assert_eq!(store.all(Table::Log).len(), 2);
}

#[test]
fn a_reader_keeps_its_view_while_a_batch_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let store = lmdb(folder.path());
    store.put(Table::Log, &[(b"a", b"1")]).unwrap();
    let (inside_sender, inside) = mpsc::channel();
    let (go_sender, go) = mpsc::channel::<()>();
    let store = &store;
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            store.change(&mut |rows| {
                rows.put(Table::Log, b"a", b"2");
                inside_sender.send(()).unwrap();
                go.recv().unwrap();
                Ok(())
            })
        });
        inside.recv().unwrap();
        // The batch is under way: not seen, and not in the way.
        assert_eq!(store.all(Table::Log), [(b"a".to_vec(), b"1".to_vec())]);
        let mut writer = Some(writer);
        store
            .read(&mut |rows| {
                assert_eq!(rows.get(Table::Log, b"a"), Some(b"1".to_vec()));
                go_sender.send(()).unwrap();
                if let Some(writer) = writer.take() {
                    writer.join().unwrap().unwrap();
                }
                assert_eq!(rows.get(Table::Log, b"a"), Some(b"1".to_vec()));
            })
            .unwrap();
    });
    assert_eq!(store.all(Table::Log), [(b"a".to_vec(), b"2".to_vec())]);
}

#[test]
fn lmdb_rows_outlive_the_process_in_a_private_folder() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let store = lmdb(&folder);
    store.put(Table::Users, &[(b"a", b"1")]).unwrap();
    drop(store);
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let store = LmdbStore::open(&folder, &identity()).unwrap();
    assert_eq!(store.all(Table::Users), [(b"a".to_vec(), b"1".to_vec())]);
    store.sibling_died();
}

#[test]
fn a_full_map_refuses_the_batch_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let store = lmdb(folder.path());
    let value = vec![7; 64 << 10];
    store.put(Table::Log, &[(b"kept", b"1")]).unwrap();
    let mut count = 0u32;
    let full = loop {
        match store.put(Table::Posts, &[(&count.to_be_bytes(), &value)]) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
        assert!(count < 100);
    };
    assert!(matches!(full, StoreError::Full(_)), "{full:?}");
    assert_eq!(store.all(Table::Posts).len(), usize::try_from(count).unwrap());
    assert_eq!(store.all(Table::Log), [(b"kept".to_vec(), b"1".to_vec())]);
    // A batch that needs more pages than there are in the middle of its work is refused as a whole.
    let big = vec![1; MAP_BYTES];
    let outcome = store.put(Table::Log, &[(b"small", b"1"), (b"big", &big), (b"after", b"1")]);
    assert!(matches!(outcome, Err(StoreError::Full(_))), "{outcome:?}");
    assert_eq!(store.all(Table::Log).len(), 1);
    drop(store);
    // Room again: a larger map.
    let store = LmdbStore::open_sized(folder.path(), &identity(), 2 * MAP_BYTES).unwrap();
    store.put(Table::Posts, &[(&count.to_be_bytes(), &value)]).unwrap();
    // Room again, without opening anew: rows that leave.
    store
        .change(&mut |rows| {
            (0..count).for_each(|at| rows.delete(Table::Posts, &at.to_be_bytes()));
            Ok(())
        })
        .unwrap();
    store.put(Table::Posts, &[(b"again", &value)]).unwrap();
}

#[test]
fn a_damaged_row_fails_the_transaction_and_every_later_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = lmdb(folder.path());
    store.put(Table::Users, &[(b"a", b"1"), (b"c", b"3")]).unwrap();
    store.put_raw(Table::Users, b"b", b"no checksum");
    store.put_raw(Table::Posts, b"s", b"ab");
    let mut seen = None;
    let outcome = store.read(&mut |rows| {
        seen = Some(ascending(rows, Table::Users, b"", b"").len());
        assert_eq!(rows.get(Table::Users, b"a"), None, "after a fault nothing is answered");
    });
    assert_eq!(seen, Some(1));
    let Err(StoreError::Failed(reason)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(reason, "damaged row in Users at 62");
    assert!(matches!(store.put(Table::Log, &[(b"a", b"1")]), Err(StoreError::Failed(_))));
    drop(store);
    let store = lmdb(folder.path());
    assert!(store.all(Table::Log).is_empty());
    // A row too short for a checksum; and a fault goes before a fence that it may have caused.
    let outcome = store.change(&mut |rows| {
        assert_eq!(rows.get(Table::Posts, b"s"), None);
        Err(Fenced { newest: Epoch::ZERO })
    });
    assert!(matches!(outcome, Err(StoreError::Failed(_))), "{outcome:?}");
}

#[test]
fn another_cluster_host_or_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(lmdb(folder.path()));
    let host: HostId = "two".parse().unwrap();
    for other in [
        StoreIdentity { host, ..identity() },
        StoreIdentity { cluster: "live".to_owned(), ..identity() },
        StoreIdentity { cluster: "test/one".to_owned(), host },
    ] {
        let outcome = LmdbStore::open_sized(folder.path(), &other, MAP_BYTES);
        let Err(OpenError::Foreign { found, wanted, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!((found, wanted), ("test/one".to_owned(), other.to_string()));
    }
    lmdb(folder.path()).set_format(2);
    let outcome = LmdbStore::open_sized(folder.path(), &identity(), MAP_BYTES);
    assert!(matches!(outcome, Err(OpenError::Newer { found: 2, newest: 1, .. })), "{outcome:?}");
}

#[test]
fn a_folder_that_cannot_be_used_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    let outcome = LmdbStore::open(&file, &identity());
    assert!(matches!(outcome, Err(OpenError::Unusable { .. })), "{outcome:?}");
    let place = folder.path().join("garbage/store");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("data.mdb"), vec![b'x'; 16 << 10]).unwrap();
    let outcome = LmdbStore::open(&folder.path().join("garbage"), &identity());
    assert!(matches!(outcome, Err(OpenError::Unusable { .. })), "{outcome:?}");
}

#[test]
fn a_folder_that_was_replaced_is_not_written() {
    let parent = tempfile::tempdir().unwrap();
    for left in [None, Some("data.mdb"), Some("lock.mdb")] {
        let folder = parent.path().join(left.unwrap_or("moved"));
        let store = lmdb(&folder);
        store.put(Table::Users, &[(b"a", b"1")]).unwrap();
        match left {
            None => std::fs::rename(&folder, parent.path().join("elsewhere")).unwrap(),
            Some(file) => {
                // A copy has the bytes, and is another file.
                let path = folder.join("store").join(file);
                std::fs::copy(&path, path.with_extension("copy")).unwrap();
                std::fs::rename(path.with_extension("copy"), &path).unwrap();
            }
        }
        let outcome = store.put(Table::Users, &[(b"b", b"2")]);
        let Err(StoreError::Failed(reason)) = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("replaced"), "{reason}");
        assert_eq!(store.all(Table::Users).len(), 1);
    }
}

/// The variable by which a test binary knows that it is a child, and where.
const CHILD_FOLDER: &str = "GAGGLE_SUITE_FOLDER";
/// What a child prints before each thing that it did.
const CHILD_MARK: &str = "suite-child ";

/// Not a test: the process that the tests below kill.
#[test]
#[ignore = "run by other tests, as their child"]
fn child_that_commits() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let store = lmdb(Path::new(&folder));
    for count in 0..u64::MAX {
        let bytes = count.to_be_bytes();
        let put = |rows: &mut dyn RowsMut| {
            rows.put(Table::Meta, b"count", &bytes);
            rows.put(Table::Users, &(count % 64).to_be_bytes(), &bytes);
            Ok(())
        };
        store.change(&mut { put }).unwrap();
        println!("\n{CHILD_MARK}{count}");
    }
}

/// Not a test: a process that holds the write lock, and then waits to be killed.
#[test]
#[ignore = "run by other tests, as their child"]
fn child_that_holds_the_lock() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let store = lmdb(Path::new(&folder));
    let hold = store.change(&mut |rows| {
        rows.put(Table::Users, b"half", b"done");
        println!("\n{CHILD_MARK}0");
        std::thread::sleep(Duration::from_secs(60));
        Err(Fenced { newest: Epoch::ZERO })
    });
    drop(hold);
}

/// Starts a child and waits until it has reported a number at least this high.
fn start_child(name: &str, folder: &Path, reached: u64) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("store::suite::{name}"), "--ignored", "--nocapture"])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    while reported(&mut out).expect("the child ended early") < reached {}
    (child, out)
}

/// The next number that a child reports.
fn reported(out: &mut impl BufRead) -> Option<u64> {
    loop {
        let mut line = String::new();
        if out.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        if let Some(number) = line.strip_prefix(CHILD_MARK) {
            // A line that was cut by the kill is not a report.
            return number.strip_suffix('\n')?.parse().ok();
        }
    }
}

#[test]
fn a_killed_writer_leaves_whole_batches_and_a_free_lock() {
    let folder = tempfile::tempdir().unwrap();
    let store = lmdb(folder.path());
    for round in 0..3 {
        let (mut child, mut out) = start_child("child_that_commits", folder.path(), 20 + round);
        child.kill().unwrap();
        child.wait().unwrap();
        let mut told = 20 + round;
        while let Some(number) = reported(&mut out) {
            told = number;
        }
        store.sibling_died();
        let mut count = None;
        store
            .read(&mut |rows| {
                let bytes = rows.get(Table::Meta, b"count").unwrap();
                count = Some(u64::from_be_bytes(bytes.try_into().unwrap()));
            })
            .unwrap();
        let count = count.unwrap();
        assert!(count >= told, "told {told}, stored {count}");
        store
            .read(&mut |rows| {
                let row = rows.get(Table::Users, &(count % 64).to_be_bytes());
                assert_eq!(row, Some(count.to_be_bytes().to_vec()), "both rows of a batch or none");
            })
            .unwrap();
        store.put(Table::Log, &[(b"after", b"the lock is free")]).unwrap();
    }
}

#[test]
fn a_held_write_lock_keeps_nobody_from_opening_and_reading() {
    let folder = tempfile::tempdir().unwrap();
    drop(lmdb(folder.path()));
    let (mut child, _out) = start_child("child_that_holds_the_lock", folder.path(), 0);
    let store = lmdb(folder.path());
    assert!(store.all(Table::Users).is_empty());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| store.put(Table::Users, &[(b"next", b"1")]));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!writer.is_finished(), "the lock is held");
        child.kill().unwrap();
        child.wait().unwrap();
        writer.join().unwrap().unwrap();
    });
    assert_eq!(store.all(Table::Users), [(b"next".to_vec(), b"1".to_vec())]);
}
