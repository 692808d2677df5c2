//! One suite over every store: what one promises, all promise. Below it, what only faults can show; what only a disk
//! can show stands in `suite/on_disk.rs`.
//!
//! It is written against [`Subject`], so that it needs no ledger for rows, and uses the ledger's own procedures for
//! epochs. Properties compare every store with a `BTreeMap`.

mod formats;
mod on_disk;

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::id::{HostId, Origin, ProcessId, PublicKey};
use crate::service::intake::{WriteOp, WriteRequest};
use crate::service::ledger::{self, Wrote};
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
fn walks_are_right_in_a_table_of_many_pages() {
    each(|store| {
        let key = |number: u32| (2 * number).to_be_bytes();
        store
            .change(&mut |rows| {
                (0..3_000).for_each(|number| rows.put(Table::Posts, &key(number), &[7; 40]));
                Ok(())
            })
            .unwrap();
        for (from, to) in
            [(0, 6_000), (0, 9_000), (1, 2), (2_999, 3_333), (5_998, 5_999), (5_999, 9_000), (7_000, 8_000)]
        {
            let (low, high) = (u32::to_be_bytes(from), u32::to_be_bytes(to));
            let mut wanted: Vec<_> = (0..3_000).map(key).filter(|key| (low..high).contains(key)).collect();
            let keys = |found: Found| -> Vec<Vec<u8>> { found.into_iter().map(|(key, _)| key).collect() };
            store.read(&mut |rows| assert_eq!(keys(ascending(rows, Table::Posts, &low, &high)), wanted)).unwrap();
            wanted.reverse();
            store.read(&mut |rows| assert_eq!(keys(descending(rows, Table::Posts, &low, &high)), wanted)).unwrap();
        }
    });
}

/// What a person asks for may make a key longer than LMDB takes: there is no such row, and that is no fault.
#[test]
fn keys_beyond_the_longest_are_not_there() {
    each(|store| {
        let longest = [b'n'; 511];
        let (long, longer) = ([b'n'; 512], [b'n'; 5_000]);
        store.put(Table::Names, &[(b"a", b"1"), (&longest, b"2"), (b"z", b"3")]).unwrap();
        let cases: [(&[u8], &[u8], usize); 8] = [
            (&long, b"", 1),
            (b"", &long, 2),
            (&longest, &long, 1),
            (&long, &longer, 0),
            (b"b", &longer, 1),
            (&longest, b"", 2),
            (b"", &longest, 1),
            (&long, b"nz", 0),
        ];
        store
            .read(&mut |rows| {
                assert_eq!(rows.get(Table::Names, &longest), Some(b"2".to_vec()));
                assert_eq!(rows.get(Table::Names, &long), None);
                for (from, to, count) in cases {
                    assert_eq!(ascending(rows, Table::Names, from, to).len(), count);
                    assert_eq!(descending(rows, Table::Names, from, to).len(), count);
                }
            })
            .unwrap();
        store
            .change(&mut |rows| {
                rows.delete(Table::Names, &longer);
                Ok(())
            })
            .unwrap();
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
                assert_eq!((rows.count(Table::Log), rows.count(Table::Posts)), (2, 0));
                rows.put(Table::Log, b"c", b"4");
                rows.delete(Table::Log, b"never there");
                assert_eq!(rows.count(Table::Log), 2, "no row came or went");
                rows.delete(Table::Log, b"b");
                assert_eq!(rows.count(Table::Log), 1);
                rows.put(Table::Log, b"b", b"2");
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

fn writer(process: &str, pid: u32) -> WriterMark {
    let process: ProcessId = process.parse().unwrap();
    WriterMark { process, pid }
}

fn standing(store: &dyn Subject) -> Standing {
    let mut found = None;
    store.read(&mut |rows| found = Some(ledger::standing(rows))).unwrap();
    found.unwrap()
}

fn begin(incarnation: u32) -> Vec<(WriteId, Write)> {
    vec![(WriteId(incarnation.into()), Write::Begin(Origin { host: identity().host, incarnation }))]
}

#[test]
fn a_deposed_writer_commits_nothing() {
    each(|store| {
        let first = store.take_epoch(&writer("W5", 5)).unwrap();
        let committed = store.commit(first.epoch, Wall(1), begin(1)).unwrap();
        assert_eq!(committed.outcomes, [(WriteId(1), Wrote::Done)]);
        assert_eq!(committed.standing.origin.unwrap().incarnation, 1);
        let second = store.take_epoch(&writer("W6", 6)).unwrap();
        assert_eq!((first.epoch, second.epoch), (Epoch(1), Epoch(2)));
        assert!(second.disk_bytes > 0);
        let before = (standing(store), store.all(Table::Meta));
        let outcome = store.commit(first.epoch, Wall(2), begin(2));
        assert!(matches!(outcome, Err(StoreError::Fenced(Fenced { newest })) if newest == second.epoch), "{outcome:?}");
        // Nor does one from an epoch that nobody took.
        let outcome = store.commit(second.epoch.next(), Wall(2), begin(2));
        assert!(matches!(outcome, Err(StoreError::Fenced(_))), "{outcome:?}");
        assert_eq!((standing(store), store.all(Table::Meta)), before);
        let committed = store.commit(second.epoch, Wall(3), begin(3)).unwrap();
        assert_eq!(committed.standing.origin.unwrap().incarnation, 3);
        assert_eq!(standing(store), Standing { disk_bytes: 0, ..committed.standing });
    });
}

/// A batch of a registration and posts, with one post asked for twice.
fn requests() -> Vec<(WriteId, Write)> {
    let ops = std::iter::once(WriteOp::Register { name: "ann".parse().unwrap() })
        .chain((0..50).map(|count| WriteOp::Post { text: format!("post {}", count / 2 * 2).parse().unwrap() }));
    let request = |(count, op): (u64, WriteOp)| {
        let id = format!("request-{}", if count > 0 { (count - 1) / 2 + 1 } else { 0 }).parse().unwrap();
        (WriteId(count), Write::Request(WriteRequest { key: PublicKey([7; 32]), id, op }))
    };
    (0..).zip(ops).map(request).collect()
}

#[test]
fn every_store_answers_a_batch_alike() {
    let mut answers = Vec::new();
    let folder = tempfile::tempdir().unwrap();
    let stores: [&dyn Subject; 3] = [&MemoryStore::new(), &FaultyStore::new(), &lmdb(folder.path())];
    for store in stores {
        let epoch = store.take_epoch(&writer("W5", 5)).unwrap().epoch;
        store.commit(epoch, Wall(1), begin(1)).unwrap();
        let mut committed = store.commit(epoch, Wall(2_000_000), requests()).unwrap();
        assert!(committed.outcomes.iter().all(|(_, wrote)| matches!(wrote, Wrote::Request(Ok(_)))), "{committed:?}");
        assert_eq!(committed.standing.entries, 26);
        assert!(committed.standing.disk_bytes > 0);
        committed.standing.disk_bytes = 0;
        assert_eq!(standing(store), committed.standing);
        let tables: Vec<_> = Table::ALL.into_iter().map(|table| store.all(table)).collect();
        answers.push((committed, tables));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
}

#[test]
fn an_epoch_that_no_sync_covered_is_taken_again() {
    let store = FaultyStore::new();
    assert_eq!(store.take_epoch(&writer("W5", 5)).unwrap().epoch, Epoch(1));
    assert_eq!(store.take_epoch_volatile(&writer("W6", 6)).unwrap().epoch, Epoch(2));
    assert_eq!(standing(&store).epoch, Epoch(1));
    store.crash();
    assert_eq!(store.take_epoch(&writer("W7", 7)).unwrap().epoch, Epoch(2));
    let volatile = store.commit_volatile(Epoch(2), Wall(1), begin(1)).unwrap();
    assert!(volatile.standing.origin.is_some());
    assert_eq!(standing(&store).origin, None);
    store.sync().unwrap();
    assert_eq!(standing(&store).origin, volatile.standing.origin);
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

/// Whether a change is let through in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fence {
    Open,
    Shut,
}

impl From<bool> for Fence {
    fn from(fenced: bool) -> Self {
        if fenced { Self::Shut } else { Self::Open }
    }
}

fn run(rows: &mut dyn RowsMut, steps: &[Step], fence: Fence) -> Result<(), Fenced> {
    apply(steps, |key, value| {
        match value {
            Some(value) => rows.put(Table::Edges, &[key], &[value]),
            None => rows.delete(Table::Edges, &[key]),
        }
        assert_eq!(rows.count(Table::Edges), ascending(rows, Table::Edges, b"", b"").len() as u64);
    });
    if fence == Fence::Shut { Err(Fenced { newest: Epoch(1) }) } else { Ok(()) }
}

fn model_rows(model: &BTreeMap<u8, u8>, from: u8, to: u8) -> Found {
    model.iter().filter(|(key, _)| (from..to).contains(*key)).map(|(key, value)| (vec![*key], vec![*value])).collect()
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
                assert_eq!(store.change(&mut |rows| run(rows, steps, Fence::from(*fenced))).is_err(), *fenced);
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
            store.read(&mut |rows| assert_eq!(rows.count(Table::Edges), model.len() as u64)).unwrap();
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
            let _ = store.write_volatile(|rows| run(rows, steps, Fence::from(*fenced)));
            let _ = wanted.change(&mut |rows| run(rows, steps, Fence::from(*fenced)));
        }
        store.sync().unwrap();
        for (steps, fenced) in &unsynced {
            let _ = store.write_volatile(|rows| run(rows, steps, Fence::from(*fenced)));
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
