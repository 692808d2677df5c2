//! What a verb refuses, and what it leaves behind.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::runtime::pids;
use crate::service::ledger::WriterMark;
use crate::store::Store;
use crate::time::Wall;

/// A host with a store, and a port that is free.
fn place(base: &Path) -> BackupPlace {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "cluster = \"c\"\n[[host]]\nname = \"a\"\n[[host.process]]\nid = \"A1\"\nrole = \"worker\"\naddr = \"127.0.0.1:{port}\"\n"
    );
    let topology = Topology::parse(&text, "t.toml").unwrap();
    let place = BackupPlace { topology, base: base.to_owned(), host: "a".parse().unwrap() };
    let store = LmdbStore::open(&place.folder(), &place.identity()).unwrap();
    let mark = WriterMark { process: "A1".parse().unwrap(), pid: 1 };
    let epoch = store.take_epoch(&mark).unwrap().epoch;
    store.commit(epoch, Wall(5), Vec::new()).unwrap();
    place
}

fn never() -> CancellationToken {
    CancellationToken::new()
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn refusal(outcome: Result<BackupSummary, BackupError>) -> (Blame, String) {
    let error = outcome.unwrap_err();
    assert!(!error.hint.is_empty());
    (error.blame, error.message)
}

#[test]
fn a_backup_is_private_and_never_written_over() {
    let base = tempfile::tempdir().unwrap();
    let place = place(base.path());
    let file = base.path().join("a.backup");
    let made = create_backup(&place, &file, &never()).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&file).unwrap().len(), made.bytes);
    assert_eq!(verify_backup(&file, &never()).unwrap(), made);
    let (blame, message) = refusal(create_backup(&place, &file, &never()));
    assert!(blame == Blame::Machine && message.contains("is there already"), "{message}");
    assert_eq!(names(base.path()), ["a.backup", "data"]);
}

#[test]
fn where_no_store_is_none_is_made() {
    let base = tempfile::tempdir().unwrap();
    let place = place(base.path());
    fs::remove_dir_all(place.folder()).unwrap();
    let (blame, message) = refusal(create_backup(&place, &base.path().join("a.backup"), &never()));
    assert!(blame == Blame::Machine && message.contains("there is no store in it"), "{message}");
    assert_eq!(names(base.path()), ["data"]);
    assert_eq!(names(&base.path().join("data")), [""; 0]);
}

#[test]
fn who_is_interrupted_leaves_nothing_behind() {
    let base = tempfile::tempdir().unwrap();
    let place = place(base.path());
    let (file, stopped) = (base.path().join("a.backup"), never());
    stopped.cancel();
    assert_eq!(refusal(create_backup(&place, &file, &stopped)).0, Blame::Interrupted);
    assert_eq!(names(base.path()), ["data"]);
    create_backup(&place, &file, &never()).unwrap();
    fs::rename(place.folder(), base.path().join("old")).unwrap();
    assert_eq!(refusal(restore_backup(&place, &file, &stopped)).0, Blame::Interrupted);
    assert_eq!(names(&base.path().join("data")), [""; 0]);
}

#[test]
fn a_restore_refuses_what_would_harm_and_then_fills_the_empty_place() {
    let base = tempfile::tempdir().unwrap();
    let place = place(base.path());
    let file = base.path().join("a.backup");
    let made = create_backup(&place, &file, &never()).unwrap();
    let restore = || restore_backup(&place, &file, &never());
    let (_, message) = refusal(restore());
    assert!(message.ends_with("holds a store already"), "{message}");
    fs::rename(place.folder(), base.path().join("old")).unwrap();

    // Its data folder is another now, and with it the run files; its port is the same.
    let addr = place.topology.hosts[0].processes[0].addr;
    let listener = UdpSocket::bind(addr).unwrap();
    let (_, message) = refusal(restore());
    assert_eq!(message, format!("somebody listens at {addr}, the address of A1 of a"));
    drop(listener);
    let run = pids::run_path(&base.path().join("data"), place.host, "A1".parse().unwrap());
    fs::create_dir_all(run.parent().unwrap()).unwrap();
    pids::write_run(&run, pids::myself().unwrap()).unwrap();
    let (_, message) = refusal(restore());
    assert_eq!(message, format!("processes of a live: A1 (pid {})", std::process::id()));
    pids::write_left(&run).unwrap();

    let mut other = place.clone();
    other.topology.cluster = "d".to_owned();
    let (blame, message) = refusal(restore_backup(&other, &file, &never()));
    assert!(blame == Blame::Request && message.ends_with("is a backup of c/a, not of d/a"), "{message}");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let damaged = base.path().join("damaged");
    fs::write(&damaged, bytes).unwrap();
    let (_, message) = refusal(restore_backup(&place, &damaged, &never()));
    assert!(message.contains("its checksum does not match"), "{message}");
    assert_eq!(names(&place.folder()), ["run"]);

    // A store that was emptied is none.
    fs::create_dir(place.folder().join(SUBFOLDER)).unwrap();
    assert_eq!(restore().unwrap(), made);
    assert_eq!(names(&place.folder()), ["run", "store"]);
    assert!(LmdbStore::open_as_it_is(&place.folder(), &place.identity()).is_ok());
}
