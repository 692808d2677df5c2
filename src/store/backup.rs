//! A backup: all rows of one host's store at one moment, in a file that is checked without a store.
//!
//! The file is self-describing and read from front to back in the memory of one frame. Numbers are big-endian:
//!
//! | part | bytes |
//! |---|---|
//! | opening | `gagglebackup`, the version (4) |
//! | frame | the length of its body (4), the body, its sum (16) |
//!
//! A body begins with its kind: `0` the head (postcard of [`BackupHead`]), `1` rows (the table's number, then for each
//! row the lengths of key (2) and value (4), key, value), `2` the end (the number of all rows, 8). Tables come in the
//! order of their numbers, rows in the order of their keys; there is one head, first, and one end, last.
//!
//! Invariants: a sum covers the sum before it (the first: the opening), so that a frame that was changed, left out,
//! moved or repeated is found; a file that was cut short has no end; and what the head claims is what the rows say. The
//! tests below change every bit and cut at every byte.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::lmdb::FORMAT;
use super::tables::Tables;
use super::{LmdbStore, OpenError, Store, StoreError, StoreIdentity};
use crate::id::{Digest, HostId, Vector};
use crate::limits;
use crate::service::ledger::{self, Standing};
use crate::service::rows::{Table, Walk};
use crate::service::{DigestSum, digest_of};
use crate::time::Wall;

const MAGIC: [u8; 12] = *b"gagglebackup";
/// The version of the file's layout that is written, and the newest that is read.
const VERSION: u32 = 1;
const HEAD: u8 = 0;
const ROWS: u8 = 1;
const END: u8 = 2;
const SUM_BYTES: usize = 16;
/// Bytes in front of a row: the lengths of its key and its value.
const LENGTHS_BYTES: usize = 6;

type Sum = [u8; SUM_BYTES];

/// Whose rows a backup holds, and of when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHead {
    /// The cluster's name.
    pub cluster: String,
    /// The host.
    pub host: HostId,
    /// The disk format of the rows.
    pub disk_format: u32,
    /// When it was made, by the clock of the machine.
    pub made: Wall,
    /// Entries ever applied.
    pub entries: u64,
    /// What was held without a gap.
    pub vector: Vector,
    /// The sum over the merged rows.
    pub digest: Digest,
}

impl BackupHead {
    fn of(identity: &StoreIdentity, made: Wall, standing: &Standing) -> Self {
        Self {
            cluster: identity.cluster.clone(),
            host: identity.host,
            disk_format: FORMAT,
            made,
            entries: standing.entries,
            vector: standing.vector.clone(),
            digest: standing.digest,
        }
    }

    /// Whose data folder the rows may lie in.
    pub fn identity(&self) -> StoreIdentity {
        StoreIdentity { cluster: self.cluster.clone(), host: self.host }
    }

    /// Whether a store stands where this was made.
    fn is_at(&self, standing: &Standing) -> bool {
        (self.entries, &self.vector, self.digest) == (standing.entries, &standing.vector, standing.digest)
    }
}

/// What is wrong with a backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupFault {
    /// It does not begin as one.
    #[error("it is not a backup of gaggle")]
    NotOne,
    /// A newer version made it.
    #[error("it has {what} {found}, and this version reads up to {newest}")]
    Newer {
        /// Which format.
        what: &'static str,
        /// The format found.
        found: u32,
        /// The newest that this version reads.
        newest: u32,
    },
    /// It was cut short.
    #[error("it ends in the part that begins at byte {at}")]
    Short {
        /// Where that part begins.
        at: u64,
    },
    /// It is not what was written.
    #[error("it is damaged in the part that begins at byte {at}: {what}")]
    Damaged {
        /// Where that part begins.
        at: u64,
        /// How that shows.
        what: String,
    },
    /// The file cannot be read.
    #[error("it cannot be read at byte {at}: {source}")]
    Io {
        /// Where.
        at: u64,
        /// Why.
        source: io::Error,
    },
}

/// Why a backup was not made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Whoever asked for it does not want it any more.
    #[error("interrupted")]
    Stopped,
}

/// Why a backup was not put into a store.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup is not sound.
    #[error(transparent)]
    Backup(#[from] BackupFault),
    /// The folder cannot be made into a store.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store does not take the rows.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Whoever asked for it does not want it any more.
    #[error("interrupted")]
    Stopped,
}

fn next_sum(before: &Sum, length: [u8; 4], body: &[u8]) -> Sum {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before).update(&length).update(body);
    let mut sum = [0; SUM_BYTES];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..SUM_BYTES]);
    sum
}

fn opening() -> [u8; MAGIC.len() + 4] {
    let mut bytes = [0; MAGIC.len() + 4];
    bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
    bytes[MAGIC.len()..].copy_from_slice(&VERSION.to_be_bytes());
    bytes
}

/// Writes a backup, row by row.
struct Writer<W> {
    out: W,
    sum: Sum,
    /// The body that is being filled; empty if none is.
    chunk: Vec<u8>,
    table: Table,
    rows: u64,
}

impl<W: Write> Writer<W> {
    fn begin(mut out: W, head: &BackupHead) -> io::Result<Self> {
        out.write_all(&opening())?;
        let mut body = vec![HEAD];
        body.extend(postcard::to_stdvec(head).map_err(io::Error::other)?);
        let mut writer = Self { out, sum: opening(), chunk: Vec::new(), table: Table::Meta, rows: 0 };
        writer.frame(&body)?;
        Ok(writer)
    }

    fn frame(&mut self, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= limits::BACKUP_FRAME_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("a row is larger than a backup may hold"))?.to_be_bytes();
        self.sum = next_sum(&self.sum, length, body);
        self.out.write_all(&length)?;
        self.out.write_all(body)?;
        self.out.write_all(&self.sum)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let mut chunk = std::mem::take(&mut self.chunk);
        self.frame(&chunk)?;
        chunk.clear();
        self.chunk = chunk;
        Ok(())
    }

    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        let size = LENGTHS_BYTES + key.len() + value.len();
        if table != self.table || self.chunk.len() + size > limits::BACKUP_CHUNK_BYTES {
            self.flush()?;
            self.table = table;
        }
        if self.chunk.is_empty() {
            self.chunk.extend([ROWS, table as u8]);
        }
        let lengths = u16::try_from(key.len()).ok().zip(u32::try_from(value.len()).ok());
        let (key_length, value_length) = lengths.ok_or_else(|| io::Error::other("a row is too long for a backup"))?;
        self.chunk.extend(key_length.to_be_bytes());
        self.chunk.extend(value_length.to_be_bytes());
        self.chunk.extend(key);
        self.chunk.extend(value);
        self.rows += 1;
        Ok(())
    }

    fn end(mut self) -> io::Result<W> {
        self.flush()?;
        let body = [&[END][..], &self.rows.to_be_bytes()].concat();
        self.frame(&body)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Writes all rows of a store, as they are at one moment, while others write there; `is_wanted` is asked now and then.
pub fn write_backup<W: Write>(
    store: &dyn Store,
    identity: &StoreIdentity,
    made: Wall,
    out: W,
    is_wanted: &dyn Fn() -> bool,
) -> Result<W, MakeError> {
    let mut out = Some(out);
    let mut result = Err(MakeError::Stopped);
    store.read(&mut |rows| {
        let Some(out) = out.take() else { return };
        result = (|| {
            let head = BackupHead::of(identity, made, &ledger::standing(rows));
            let mut writer = Writer::begin(out, &head)?;
            for table in Table::ALL {
                let mut step = Ok(());
                rows.ascend(table, &[], &[], &mut |key, value| {
                    step = match is_wanted() {
                        true => writer.row(table, key, value).map_err(MakeError::Io),
                        false => Err(MakeError::Stopped),
                    };
                    if step.is_ok() { Walk::On } else { Walk::Stop }
                });
                step?;
            }
            Ok(writer)
        })();
    })?;
    // Only now is it known that every row was read as it was written.
    Ok(result?.end()?)
}

/// Is shown a row: its table, key and value.
pub type Visit<'a> = dyn FnMut(Table, &[u8], &[u8]) + 'a;

/// What a step through a backup found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Rows, and there is more.
    Rows,
    /// The end: everything was there, and is sound.
    End,
}

/// The frames of a file.
#[derive(Debug)]
struct Frames<R> {
    input: R,
    body: Vec<u8>,
    sum: Sum,
    /// Where the next frame begins.
    at: u64,
}

impl<R: Read> Frames<R> {
    fn open(input: R) -> Result<Self, BackupFault> {
        let mut frames = Self { input, body: Vec::new(), sum: opening(), at: 0 };
        let mut found = [0; MAGIC.len() + 4];
        frames.fill(&mut found)?;
        let (magic, version) = found.split_at(MAGIC.len());
        let version = version.try_into().map_or(0, u32::from_be_bytes);
        if magic != MAGIC || version == 0 {
            return Err(BackupFault::NotOne);
        }
        if version > VERSION {
            return Err(BackupFault::Newer { what: "backup format", found: version, newest: VERSION });
        }
        frames.at = found.len() as u64;
        Ok(frames)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupFault> {
        let at = self.at;
        self.input.read_exact(bytes).map_err(|source| match source.kind() == ErrorKind::UnexpectedEof {
            true => BackupFault::Short { at },
            false => BackupFault::Io { at, source },
        })
    }

    /// Reads a frame into `body`, if its sum is right.
    fn next(&mut self) -> Result<(), BackupFault> {
        let (mut length, mut sum) = ([0; 4], [0; SUM_BYTES]);
        self.fill(&mut length)?;
        let size = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if size > limits::BACKUP_FRAME_BYTES_MAX {
            return Err(damaged(self.at, format!("it claims to be {size} bytes long")));
        }
        let mut body = std::mem::take(&mut self.body);
        body.resize(size, 0);
        self.fill(&mut body)?;
        self.fill(&mut sum)?;
        if sum != next_sum(&self.sum, length, &body) {
            return Err(damaged(self.at, "its checksum does not match"));
        }
        (self.body, self.sum) = (body, sum);
        self.at += (length.len() + size + SUM_BYTES) as u64;
        Ok(())
    }

    /// Nothing may follow.
    fn finish(&mut self) -> Result<(), BackupFault> {
        let at = self.at;
        match self.input.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(damaged(at, "it follows the end")),
            Err(source) => Err(BackupFault::Io { at, source }),
        }
    }
}

/// Reads a backup, and checks it on the way.
#[derive(Debug)]
pub struct BackupReader<R> {
    frames: Frames<R>,
    head: BackupHead,
    /// The last row's place.
    last: Option<(Table, Vec<u8>)>,
    rows: u64,
    digest: DigestSum,
    /// The rows in which the host tells of itself.
    meta: Tables,
}

impl<R: Read> BackupReader<R> {
    /// Reads the head.
    pub fn open(input: R) -> Result<Self, BackupFault> {
        let mut frames = Frames::open(input)?;
        let at = frames.at;
        frames.next()?;
        let decoded = match frames.body.split_first() {
            Some((&HEAD, rest)) => postcard::take_from_bytes::<BackupHead>(rest).ok(),
            Some(_) | None => None,
        };
        let Some((head, [])) = decoded else { return Err(damaged(at, "it is no head")) };
        if head.disk_format > FORMAT {
            return Err(BackupFault::Newer { what: "disk format", found: head.disk_format, newest: FORMAT });
        }
        Ok(Self { frames, head, last: None, rows: 0, digest: DigestSum::default(), meta: Tables::default() })
    }

    /// Whose rows, and of when.
    pub fn head(&self) -> &BackupHead {
        &self.head
    }

    /// How many rows were read.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many bytes were read.
    pub fn bytes(&self) -> u64 {
        self.frames.at
    }

    /// Reads on, by one frame, and shows its rows.
    pub fn step(&mut self, visit: &mut Visit<'_>) -> Result<Next, BackupFault> {
        let at = self.frames.at;
        self.frames.next()?;
        let body = std::mem::take(&mut self.frames.body);
        let next = match body.split_first() {
            Some((&ROWS, rest)) => self.chunk(at, rest, visit).map(|()| Next::Rows),
            Some((&END, rest)) => self.end(at, rest).map(|()| Next::End),
            Some(_) | None => Err(damaged(at, "it is neither rows nor the end")),
        };
        self.frames.body = body;
        next
    }

    fn chunk(&mut self, at: u64, bytes: &[u8], visit: &mut Visit<'_>) -> Result<(), BackupFault> {
        let (&number, mut rest) = bytes.split_first().ok_or_else(|| damaged(at, "it names no table"))?;
        let table = Table::ALL.into_iter().find(|table| *table as u8 == number);
        let table = table.ok_or_else(|| damaged(at, format!("there is no table {number}")))?;
        while !rest.is_empty() {
            let (key, value, after) = split_row(rest).ok_or_else(|| damaged(at, "a row is not whole"))?;
            rest = after;
            let follows = self.last.as_ref().is_none_or(|last| (last.0, last.1.as_slice()) < (table, key));
            if !follows || key.is_empty() {
                return Err(damaged(at, "its rows are not in order"));
            }
            let place = self.last.get_or_insert((table, Vec::new()));
            place.0 = table;
            place.1.clear();
            place.1.extend(key);
            self.rows += 1;
            self.digest.add(table, key, value);
            if table == Table::Meta {
                self.meta.replace(table, key, Some(value.to_vec()));
                if self.meta.bytes() > limits::BACKUP_META_BYTES_MAX {
                    return Err(damaged(at, "the host tells more of itself than there can be"));
                }
            }
            visit(table, key, value);
        }
        Ok(())
    }

    fn end(&mut self, at: u64, bytes: &[u8]) -> Result<(), BackupFault> {
        let claimed = bytes.try_into().map(u64::from_be_bytes).map_err(|_| damaged(at, "it is no end"))?;
        if claimed != self.rows {
            return Err(damaged(at, format!("it has {} rows, and should have {claimed}", self.rows)));
        }
        let found = self.digest.digest();
        if found != self.head.digest {
            return Err(damaged(at, format!("its rows have the digest {found}, not {}", self.head.digest)));
        }
        if !self.head.is_at(&ledger::standing(&self.meta)) {
            return Err(damaged(at, "its head does not say what its rows say"));
        }
        self.frames.finish()
    }
}

fn damaged(at: u64, what: impl Into<String>) -> BackupFault {
    BackupFault::Damaged { at, what: what.into() }
}

/// The first row, and what follows it.
fn split_row(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key_length, rest) = bytes.split_first_chunk()?;
    let (value_length, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u16::from_be_bytes(*key_length).into())?;
    let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*value_length)).ok()?)?;
    Some((key, value, rest))
}

/// Makes a store of a backup, in a folder that holds none. It begins a new incarnation: see [`ledger::forget_origin`].
///
/// If this fails, the folder holds a part of a store, and is to be removed.
pub fn restore_rows<R: Read>(
    folder: &Path,
    mut reader: BackupReader<R>,
    is_wanted: &dyn Fn() -> bool,
) -> Result<(), RestoreError> {
    let store = LmdbStore::open(folder, &reader.head().identity())?;
    loop {
        if !is_wanted() {
            return Err(RestoreError::Stopped);
        }
        let (step, _) = store.write(|rows| {
            let mut bytes = 0;
            while bytes < limits::RESTORE_BATCH_BYTES {
                let step = reader.step(&mut |table, key, value| {
                    bytes += key.len() + value.len();
                    rows.put(table, key, value);
                });
                if !matches!(step, Ok(Next::Rows)) {
                    return Ok(step);
                }
            }
            Ok(Ok(Next::Rows))
        })?;
        if step? == Next::End {
            break;
        }
    }
    store.write(|rows| {
        ledger::forget_origin(rows);
        Ok(())
    })?;
    let mut is_same = false;
    let digest = reader.head().digest;
    store.read(&mut |rows| is_same = reader.head().is_at(&ledger::standing(rows)) && digest_of(rows) == digest)?;
    match is_same {
        true => Ok(()),
        false => Err(StoreError::Failed("the rows that were written are not those that are read".to_owned()).into()),
    }
}

#[cfg(test)]
mod tests;
