//! The store on disk: LMDB through heed, shared by all processes of a host.
//!
//! LMDB's write lock is a robust mutex: when its holder dies, the next in line has it, and what the dead one had not
//! committed was never visible. A commit is on disk when it returns (no flag relaxes the syncs), and readers never
//! block it. Invariants: the files by which siblings find the store are still ours at every write; after a failure,
//! other than a full disk, this handle writes nothing more, because a sync that failed once cannot be believed later.
//! `env.rs` opens, `rows.rs` reads and writes rows; `suite.rs` beside this folder holds the proofs.

mod env;
mod rows;

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use heed::MdbError;
use rustix::io::Errno;

pub(super) use env::FORMAT;
pub(crate) use env::SUBFOLDER;
pub use env::StoreIdentity;
use env::{Absence, Files, StoreEnv};
use rows::{Change, Dbs, Fault, Kept, View};

use super::{OpenError, Store, StoreError};
use crate::id::Epoch;
use crate::limits;
use crate::service::ledger::{self, Committed, Fenced, Standing, Write, WriteId, WriterMark};
use crate::service::rows::{Rows, RowsMut};
use crate::time::Wall;

/// An I/O error with less room than this on the disk is taken for a full disk: LMDB calls a short write `EIO`.
const ROOM_BYTES_MIN: u64 = 1 << 20;

/// A process's handle on its host's store. A process opens its folder once, and shares the handle.
pub struct LmdbStore {
    env: StoreEnv,
    dbs: Dbs,
    files: Files,
    failed: OnceLock<String>,
    /// The store's size when dead readers were last looked for.
    cleared_at: AtomicU64,
}

impl std::fmt::Debug for LmdbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LmdbStore").field("files", &self.files).field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl LmdbStore {
    /// Opens the data folder of a host, and makes it if it is not there.
    pub fn open(folder: &Path, identity: &StoreIdentity) -> Result<Self, OpenError> {
        Self::open_sized(folder, identity, limits::STORE_BYTES_MAX)
    }

    /// Opens with a map of this size: the store is full when the map is.
    pub(super) fn open_sized(folder: &Path, identity: &StoreIdentity, map_bytes: usize) -> Result<Self, OpenError> {
        Ok(Self::of(env::open(folder, identity, map_bytes, Absence::Fill)?))
    }

    /// Opens the store of a host whose processes may run, to read it: makes nothing, and takes no write lock.
    pub fn open_as_it_is(folder: &Path, identity: &StoreIdentity) -> Result<Self, OpenError> {
        Ok(Self::of(env::open(folder, identity, limits::STORE_BYTES_MAX, Absence::Refuse)?))
    }

    /// Whether a host's data folder holds a store.
    pub fn is_there(folder: &Path) -> bool {
        env::is_there(folder)
    }

    fn of(env::Opened { env, dbs, files }: env::Opened) -> Self {
        Self { env, dbs, files, failed: OnceLock::new(), cleared_at: AtomicU64::new(0) }
    }

    /// Runs a batch in a write transaction, for which it waits without a limit. Also tells the bytes on disk.
    pub(super) fn write<T>(
        &self,
        job: impl FnOnce(&mut dyn RowsMut) -> Result<T, Fenced>,
    ) -> Result<(T, u64), StoreError> {
        if let Some(reason) = self.failed.get() {
            return Err(StoreError::Failed(format!("it failed before: {reason}")));
        }
        self.transact(job).inspect_err(|error| self.remember(error))
    }

    fn transact<T>(&self, job: impl FnOnce(&mut dyn RowsMut) -> Result<T, Fenced>) -> Result<(T, u64), StoreError> {
        let mut txn = self.env.write_txn().map_err(|error| self.sort(error))?;
        // Inside the transaction, so that no sibling that waited for the lock writes to files without a name.
        self.files.check().map_err(StoreError::Failed)?;
        let kept = Kept::default();
        let outcome = job(&mut Change { dbs: &self.dbs, txn: &mut txn, kept: &kept, stored: Vec::new() });
        // A fault goes before a fence: the epoch may not have been read at all. Whoever returns here drops, and so
        // aborts, the transaction.
        if let Some(fault) = kept.take() {
            return Err(self.sort_fault(fault));
        }
        let value = outcome?;
        txn.commit().map_err(|error| self.sort(error))?;
        let bytes = self.files.check().map_err(StoreError::Failed)?;
        self.on_size(bytes);
        Ok((value, bytes))
    }

    /// A reader that is no process of the host, such as a backup, may have been killed: nobody tells of its death, and
    /// its slot would keep every page that was freed since from being used again.
    fn on_size(&self, bytes: u64) {
        if bytes.saturating_sub(self.cleared_at.load(Ordering::Relaxed)) > limits::STALE_GROWTH_MAX {
            self.sibling_died();
            self.cleared_at.store(bytes, Ordering::Relaxed);
        }
    }

    /// A failure ends all writes through this handle; a fence or a full disk does not.
    fn remember(&self, error: &StoreError) {
        match error {
            StoreError::Failed(reason) => {
                // The first reason stays.
                let _ = self.failed.set(reason.clone());
            }
            StoreError::Fenced(_) | StoreError::Full(_) => {}
        }
    }

    fn sort_fault(&self, fault: Fault) -> StoreError {
        match fault {
            Fault::Heed(error) => self.sort(error),
            Fault::Damaged(row) => StoreError::Failed(row),
        }
    }

    /// Whether an error says that there is no room, or that the disk failed.
    fn sort(&self, error: heed::Error) -> StoreError {
        let full = match &error {
            heed::Error::Mdb(error) => *error == MdbError::MapFull,
            heed::Error::Io(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOSPC | Errno::DQUOT) => true,
                Some(Errno::IO) => self.room_bytes().is_some_and(|bytes| bytes < ROOM_BYTES_MIN),
                Some(_) | None => false,
            },
            heed::Error::Encoding(_) | heed::Error::Decoding(_) | heed::Error::EnvAlreadyOpened => false,
        };
        match full {
            true => StoreError::Full(error.to_string()),
            false => StoreError::Failed(error.to_string()),
        }
    }

    /// Bytes that the disk has left for us.
    fn room_bytes(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(self.files.folder()).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Begins a read; if dead processes fill the table of readers, they are taken out first.
    fn read_txn(&self) -> Result<heed::RoTxn<'_, heed::WithoutTls>, StoreError> {
        let begun = self.env.read_txn().or_else(|error| {
            if !matches!(error, heed::Error::Mdb(MdbError::ReadersFull)) {
                return Err(error);
            }
            self.env.clear_stale_readers()?;
            self.env.read_txn()
        });
        begun.map_err(|error| self.sort(error)).inspect_err(|error| self.remember(error))
    }
}

impl Store for LmdbStore {
    fn take_epoch(&self, writer: &WriterMark) -> Result<Standing, StoreError> {
        let (mut standing, bytes) = self.write(|rows| Ok(ledger::take_epoch(rows, writer)))?;
        standing.disk_bytes = bytes;
        Ok(standing)
    }

    fn commit(&self, epoch: Epoch, wall: Wall, writes: Vec<(WriteId, Write)>) -> Result<Committed, StoreError> {
        let (mut committed, bytes) = self.write(|rows| ledger::commit(rows, epoch, wall, writes))?;
        committed.standing.disk_bytes = bytes;
        Ok(committed)
    }

    fn read(&self, reader: &mut dyn FnMut(&dyn Rows)) -> Result<(), StoreError> {
        let txn = self.read_txn()?;
        let kept = Kept::default();
        reader(&View { dbs: &self.dbs, txn: &txn, kept: &kept });
        drop(txn);
        match kept.take() {
            Some(fault) => Err(self.sort_fault(fault)).inspect_err(|error| self.remember(error)),
            None => Ok(()),
        }
    }

    fn sibling_died(&self) {
        // What a dead reader still holds only delays the use of free pages; the next death or a full table of readers
        // tries again, so an error here changes nothing.
        let _ = self.env.clear_stale_readers();
    }
}

/// Test-only: ways to hurt a store.
#[cfg(test)]
impl LmdbStore {
    /// Writes a row without its checksum.
    pub(super) fn put_raw(&self, table: crate::service::rows::Table, key: &[u8], stored: &[u8]) {
        let mut txn = self.env.write_txn().unwrap();
        self.dbs[table as usize].put(&mut txn, key, stored).unwrap();
        txn.commit().unwrap();
    }

    /// Every row of every table, as it lies on disk.
    pub(super) fn all_raw(&self) -> Vec<(crate::service::rows::Table, Vec<u8>, Vec<u8>)> {
        let txn = self.env.read_txn().unwrap();
        let mut rows = Vec::new();
        for table in crate::service::rows::Table::ALL {
            let all = self.dbs[table as usize].iter(&txn).unwrap().map(Result::unwrap);
            rows.extend(all.map(|(key, value)| (table, key.to_vec(), value.to_vec())));
        }
        rows
    }

    /// Claims that another version wrote the folder.
    pub(super) fn set_format(&self, format: u32) {
        env::set_format(&self.env, format);
    }
}
