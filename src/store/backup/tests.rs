//! The format, bit by bit. Its golden bytes lie with those of the disk (see `suite/formats.rs`).

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::id::{Epoch, Origin, PublicKey, Seq};
use crate::service::intake::{WriteOp, WriteRequest};
use crate::service::ledger::{Write as Job, WriteId, WriterMark};
use crate::service::rows::Rows;
use crate::store::MemoryStore;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/formats/backup-1.txt");

fn identity() -> StoreIdentity {
    StoreIdentity { cluster: "lenss".into(), host: "lenss3".parse().unwrap() }
}

/// A store in which somebody has said this many things of so many characters.
fn store(posts: u64, chars: usize) -> MemoryStore {
    let store = MemoryStore::new();
    let mark = WriterMark { process: "W5".parse().unwrap(), pid: 5 };
    let epoch = store.take_epoch(&mark).unwrap().epoch;
    let ask = |id: String, op| Job::Request(WriteRequest { key: PublicKey([1; 32]), id: id.parse().unwrap(), op });
    let origin = Origin { host: identity().host, incarnation: 7 };
    let mut jobs = vec![Job::Begin(origin), ask("name".into(), WriteOp::Register { name: "ann".parse().unwrap() })];
    jobs.extend(
        (0..posts).map(|number| ask(format!("p-{number}"), WriteOp::Post { text: "x".repeat(chars).parse().unwrap() })),
    );
    let jobs = jobs.into_iter().map(|job| (WriteId(1), job)).collect();
    store.commit(epoch, Wall(1_000_000), jobs).unwrap();
    store
}

fn backup(store: &dyn Store) -> Vec<u8> {
    write_backup(store, &identity(), Wall(2_000_000), Vec::new(), &|| true).unwrap()
}

/// Reads all of it; tells the frames, the rows among them.
fn read(bytes: &[u8]) -> Result<(BackupHead, u64, u64), BackupFault> {
    let mut reader = BackupReader::open(bytes)?;
    let mut frames = 2;
    while reader.step(&mut |_, _, _| {})? == Next::Rows {
        frames += 1;
    }
    assert_eq!(reader.bytes(), bytes.len() as u64);
    Ok((reader.head().clone(), frames, reader.rows()))
}

/// Where each frame begins, and where the last one ends.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut places = vec![MAGIC.len() + 4];
    while let Some(length) = places.last().and_then(|at| bytes[*at..].first_chunk()) {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
        places.push(places.last().unwrap() + 4 + length + SUM_BYTES);
    }
    places
}

fn all(store: &dyn Store) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    store
        .read(&mut |rows| {
            for table in Table::ALL {
                rows.ascend(table, &[], &[], &mut |key, value| {
                    found.push((table, key.to_vec(), value.to_vec()));
                    Walk::On
                });
            }
        })
        .unwrap();
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn a_backup_has_these_bytes() {
    let bytes = backup(&store(1, 3));
    let places = frames(&bytes);
    // The opening, and then a line for the length, the body and the sum of each frame.
    let mut text = format!("{}\n", hex(&bytes[..places[0]]));
    for frame in places.windows(2) {
        let (body, sum) = (frame[0] + 4, frame[1] - SUM_BYTES);
        let parts = [&bytes[frame[0]..body], &bytes[body..sum], &bytes[sum..frame[1]]].map(hex);
        let _ = writeln!(text, "{}", parts.join(" "));
    }
    if std::env::var_os("GAGGLE_FORMATS_WRITE").is_some() {
        std::fs::write(GOLDEN, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(GOLDEN).unwrap(), text, "the format has changed: it needs a new version");
}

#[test]
fn what_is_written_is_read() {
    let store = store(1_000, 500);
    let bytes = backup(&store);
    let (head, frames, rows) = read(&bytes).unwrap();
    assert_eq!((head.cluster.as_str(), head.entries, rows), ("lenss", 1_001, all(&store).len() as u64));
    assert!(frames > 8, "several frames of a table: {frames}");
}

#[test]
fn every_changed_bit_is_found() {
    let mut bytes = backup(&store(1, 3));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            assert!(read(&bytes).is_err(), "bit {bit} of byte {at}");
            bytes[at] ^= 1 << bit;
        }
    }
    assert!(read(&bytes).is_ok());
}

#[test]
fn every_cut_and_every_addition_is_found() {
    let mut bytes = backup(&store(1, 3));
    for length in 0..bytes.len() {
        let fault = read(&bytes[..length]).unwrap_err();
        assert!(matches!(fault, BackupFault::Short { .. }), "{length}: {fault}");
    }
    bytes.push(0);
    assert!(matches!(read(&bytes), Err(BackupFault::Damaged { .. })));
}

#[test]
fn frames_that_are_left_out_moved_or_repeated_are_found() {
    let bytes = backup(&store(1_000, 500));
    let places = frames(&bytes);
    let frame = |number: usize| &bytes[places[number]..places[number + 1]];
    let with = |order: &[usize]| {
        order.iter().fold(bytes[..places[0]].to_vec(), |mut file, number| {
            file.extend(frame(*number));
            file
        })
    };
    let right: Vec<usize> = (0..places.len() - 1).collect();
    assert_eq!(with(&right), bytes);
    for at in 0..right.len() - 1 {
        let (mut without, mut twice, mut swapped) = (right.clone(), right.clone(), right.clone());
        without.remove(at);
        twice.insert(at, at);
        swapped.swap(at, at + 1);
        for order in [without, twice, swapped] {
            assert!(read(&with(&order)).is_err(), "{order:?}");
        }
    }
}

#[test]
fn other_files_and_newer_ones_are_refused() {
    let bytes = backup(&store(1, 3));
    let newer = [&MAGIC[..], &2_u32.to_be_bytes(), &bytes[16..]].concat();
    let fault = read(&newer).unwrap_err();
    assert!(matches!(fault, BackupFault::Newer { what: "backup format", found: 2, newest: 1 }), "{fault}");
    assert!(matches!(read(b"a file that is something else"), Err(BackupFault::NotOne)));
    let head = BackupHead { disk_format: FORMAT + 1, ..read(&bytes).unwrap().0 };
    let fault = read(&Writer::begin(Vec::new(), &head).unwrap().end().unwrap()).unwrap_err();
    assert!(matches!(fault, BackupFault::Newer { what: "disk format", .. }), "{fault}");
}

#[test]
fn a_length_is_not_believed() {
    let bytes = backup(&store(1, 3));
    let huge = [&bytes[..16], &u32::MAX.to_be_bytes(), &bytes[20..]].concat();
    let fault = read(&huge).unwrap_err().to_string();
    assert_eq!(fault, "it is damaged in the part that begins at byte 16: it claims to be 4294967295 bytes long");
}

/// What is wrong with a file that has these rows, and is otherwise sound.
fn fault_of(head: &BackupHead, rows: &[(Table, &[u8], &[u8])]) -> String {
    let mut writer = Writer::begin(Vec::new(), head).unwrap();
    rows.iter().for_each(|(table, key, value)| writer.row(*table, key, value).unwrap());
    read(&writer.end().unwrap()).unwrap_err().to_string()
}

#[test]
fn rows_in_disorder_and_false_claims_are_found() {
    let store = store(1, 3);
    let head = read(&backup(&store)).unwrap().0;
    let rows = all(&store);
    let rows: Vec<_> = rows.iter().map(|(table, key, value)| (*table, key.as_slice(), value.as_slice())).collect();
    let mut swapped = rows.clone();
    swapped.swap(0, 1);
    assert!(fault_of(&head, &swapped).contains("not in order"));
    let mut twice = rows.clone();
    twice.insert(1, rows[0]);
    assert!(fault_of(&head, &twice).contains("not in order"));
    assert!(fault_of(&head, &rows[..rows.len() - 1]).contains("have the digest"));
    assert!(fault_of(&BackupHead { digest: Digest(1), ..head.clone() }, &rows).contains("not 0000"));
    assert!(fault_of(&BackupHead { entries: 9, ..head.clone() }, &rows).contains("its head"));
    let mut unknown = vec![ROWS, 99];
    unknown.extend([0, 1, 0, 0, 0, 0, b'k']);
    let mut writer = Writer::begin(Vec::new(), &head).unwrap();
    writer.frame(&unknown).unwrap();
    assert!(read(&writer.out).unwrap_err().to_string().contains("no table 99"));
}

#[test]
fn what_was_written_wrong_and_has_right_sums_is_refused_or_read() {
    let bytes = backup(&store(1, 3));
    let places = frames(&bytes);
    let (mut refused, mut read_on) = (0, 0);
    for (number, frame) in places.windows(2).enumerate() {
        for at in frame[0] + 4..frame[1] - SUM_BYTES {
            for change in [1, 0x80, 0xff] {
                let (mut file, mut sum) = (opening().to_vec(), opening());
                for (other, frame) in places.windows(2).enumerate() {
                    let (length, mut body) = (&bytes[frame[0]..frame[0] + 4], bytes[frame[0] + 4..frame[1]].to_vec());
                    body.truncate(body.len() - SUM_BYTES);
                    if other == number {
                        body[at - frame[0] - 4] ^= change;
                    }
                    sum = next_sum(&sum, length.try_into().unwrap(), &body);
                    file.extend([length, &body, &sum].concat());
                }
                match read(&file) {
                    Ok(_) => read_on += 1,
                    Err(_) => refused += 1,
                }
            }
        }
    }
    // What is read is another store, but a whole one: the log, and what the host alone knows, have no digest.
    assert!(refused > read_on, "{refused} refused, {read_on} read");
}

#[test]
fn nothing_is_written_that_nobody_wants() {
    let outcome = write_backup(&store(1, 3), &identity(), Wall(0), Vec::new(), &|| false);
    assert!(matches!(outcome, Err(MakeError::Stopped)), "{outcome:?}");
}

#[test]
fn a_restored_store_is_the_same_and_begins_anew() {
    let store = store(1_000, 500);
    let bytes = backup(&store);
    let folder = tempfile::tempdir().unwrap();
    restore_rows(folder.path(), BackupReader::open(bytes.as_slice()).unwrap(), &|| true).unwrap();
    let restored = LmdbStore::open(folder.path(), &identity()).unwrap();
    let mut expected = all(&store);
    expected.retain(|(table, key, _)| (*table, key.as_slice()) != (Table::Meta, b"origin"));
    assert_eq!(all(&restored), expected);
    let mut standing = None;
    restored.read(&mut |rows: &dyn Rows| standing = Some(ledger::standing(rows))).unwrap();
    let standing = standing.unwrap();
    assert_eq!((standing.origin, standing.epoch), (None, Epoch(1)));
    assert_eq!(standing.vector.iter().map(|(_, seq)| seq).collect::<Vec<_>>(), [Seq(1_001)]);
}

proptest! {
    #[test]
    fn arbitrary_bodies_are_refused_or_read(kind in 0_u8..4, body in proptest::collection::vec(0_u8.., 0..60)) {
        let head = read(&backup(&store(0, 1))).unwrap().0;
        let mut writer = Writer::begin(Vec::new(), &head).unwrap();
        writer.frame(&[&[kind][..], &body].concat()).unwrap();
        let _ = read(&writer.out);
        let _ = read(&[&opening()[..], &body].concat());
    }
}
