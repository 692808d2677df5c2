//! What only a store on disk can show: reopening, a full map or disk, damage, foreign folders, and dead siblings.
//!
//! Processes that are killed are real ones: the test binary starts itself.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::{Epoch, Fenced, HostId, LmdbStore, MAP_BYTES, OpenError, RowsMut, Store, StoreError, StoreIdentity};
use super::{Subject, Table, ascending, identity, lmdb, writer};

#[test]
fn an_epoch_outlives_the_process_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    for epoch in 1..4 {
        let store = lmdb(folder.path());
        assert_eq!(store.take_epoch(&writer("W5", 5)).unwrap().epoch, Epoch(epoch));
    }
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

/// Needs a file system of a few MiB, for example
/// `unshare -rm sh -c 'mount -t tmpfs -o size=3m none /mnt && GAGGLE_SUITE_FOLDER=/mnt cargo test -- --ignored full_disk'`.
#[test]
#[ignore = "needs a small file system"]
fn a_full_disk_refuses_writes_keeps_reads_and_heals() {
    let folder = std::env::var_os(CHILD_FOLDER).expect("GAGGLE_SUITE_FOLDER");
    let folder = Path::new(&folder);
    let filler = folder.join("filler");
    let store = LmdbStore::open(&folder.join("data"), &identity()).unwrap();
    store.put(Table::Log, &[(b"kept", b"1")]).unwrap();
    for value_bytes in [100, 5_000, 300_000] {
        let mut file = std::fs::File::create(&filler).unwrap();
        while file.write_all(&[0; 512]).is_ok() {
            // The disk may be larger than this test should fill.
            assert!(file.metadata().unwrap().len() < 64 << 20);
        }
        let value = vec![7; value_bytes];
        let full = (0..20_000u32).find_map(|at| store.put(Table::Posts, &[(&at.to_be_bytes(), &value)]).err());
        assert!(matches!(full, Some(StoreError::Full(_))), "{full:?}");
        println!("{value_bytes}: {full:?}");
        assert_eq!(store.all(Table::Log), [(b"kept".to_vec(), b"1".to_vec())]);
        // The table of readers has its pages: one that were missing would end this process by SIGBUS.
        read_nested(&store, 300);
        drop(file);
        std::fs::remove_file(&filler).unwrap();
        store.put(Table::Posts, &[(b"after", &value)]).unwrap();
        let written = store.all(Table::Posts);
        store
            .change(&mut |rows| {
                written.iter().for_each(|(key, _)| rows.delete(Table::Posts, key));
                Ok(())
            })
            .unwrap();
    }
}

/// Holds this many read transactions at once.
fn read_nested(store: &LmdbStore, count: usize) {
    if count > 0 {
        store.read(&mut |_| read_nested(store, count - 1)).unwrap();
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

/// Not a test: a process that is in the midst of a read, and waits to be killed.
#[test]
#[ignore = "run by other tests, as their child"]
fn child_that_reads() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let store = LmdbStore::open_as_it_is(Path::new(&folder), &identity()).unwrap();
    let reading = store.read(&mut |_| {
        println!("\n{CHILD_MARK}0");
        std::thread::sleep(Duration::from_secs(60));
    });
    drop(reading);
}

/// Starts a child and waits until it has reported a number at least this high.
fn start_child(name: &str, folder: &Path, reached: u64) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("store::suite::on_disk::{name}"), "--ignored", "--nocapture"])
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

#[test]
fn a_killed_reader_of_whom_nobody_tells_does_not_keep_pages_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbStore::open(folder.path(), &identity()).unwrap();
    let value = vec![7; 1 << 20];
    store.put(Table::Posts, &[(b"a", &value)]).unwrap();
    let (mut child, _out) = start_child("child_that_reads", folder.path(), 0);
    child.kill().unwrap();
    child.wait().unwrap();
    let size = || std::fs::metadata(folder.path().join("store/data.mdb")).unwrap().len();
    for _ in 0..64 {
        store.put(Table::Posts, &[(b"a", &value)]).unwrap();
    }
    assert!(size() < crate::limits::STALE_GROWTH_MAX + (8 << 20), "{}", size());
}

#[test]
fn where_there_is_no_store_none_is_made_for_a_reader() {
    let folder = tempfile::tempdir().unwrap();
    let host = folder.path().join("host");
    let outcome = LmdbStore::open_as_it_is(&host, &identity());
    assert!(matches!(outcome, Err(OpenError::Unusable { .. })), "{outcome:?}");
    assert!(!host.exists());
}
