//! The durable log and tables: one store per host, opened by all its processes; one writes, all read.
//!
//! The interface is narrow: take an epoch, commit a batch under it, read a consistent view. Three implementations
//! keep the same promises and pass one suite (`suite.rs`): LMDB, memory, and memory with faults.
//!
//! Invariants: a batch is stored whole and durably or not at all; the fence is checked inside the batch's own
//! transaction (by [`crate::service::ledger`], which a store only runs); a reader sees one committed state and never
//! what no sync has covered. What the rows mean, a store does not know.

mod backup;
mod faulty;
mod lmdb;
mod memory;
#[cfg(test)]
mod suite;
mod tables;

pub use backup::{
    BackupFault, BackupHead, BackupReader, MakeError, Next, RestoreError, Visit, restore_rows, write_backup,
};
pub use faulty::{DiskState, FaultyStore, Room, UnsyncedBatch};
pub(crate) use lmdb::SUBFOLDER;
pub use lmdb::{LmdbStore, StoreIdentity};
pub use memory::MemoryStore;

use crate::id::Epoch;
use crate::service::ledger::{Committed, Fenced, Standing, Write, WriteId, WriterMark};
use crate::service::rows::Rows;
use crate::time::Wall;

/// Why a store did not do what was asked. Nothing of the batch was stored, unless said otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A newer primary has taken over.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// No room: reads go on, and writes go on when there is room again.
    #[error("the disk or the store's map is full: {0}")]
    Full(String),
    /// The disk failed, or a row is damaged; what the failed batch left behind is unknown. The process must end.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// Why a data folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder belongs to another cluster or host.
    #[error("{path} belongs to {found}, not to {wanted}: use another data folder, or correct the topology file")]
    Foreign {
        /// The folder.
        path: String,
        /// `cluster/host` found in it.
        found: String,
        /// `cluster/host` asked for.
        wanted: String,
    },
    /// The folder was written by a newer version.
    #[error("{path} has disk format {found}, and this version reads up to {newest}: run a newer gaggle")]
    Newer {
        /// The folder.
        path: String,
        /// The format found.
        found: u32,
        /// The newest format that this version reads.
        newest: u32,
    },
    /// The folder cannot be used.
    #[error("{path}: {reason}")]
    Unusable {
        /// The folder.
        path: String,
        /// Why.
        reason: String,
    },
}

/// What a process needs of its host's store. All calls block; writes are for one thread.
pub trait Store: Send + Sync + 'static {
    /// Waits for the write lock without a limit, then adds one to the epoch, durably.
    fn take_epoch(&self, writer: &WriterMark) -> Result<Standing, StoreError>;

    /// Commits a batch under an epoch, durably, in one transaction.
    fn commit(&self, epoch: Epoch, wall: Wall, writes: Vec<(WriteId, Write)>) -> Result<Committed, StoreError>;

    /// Runs a short read transaction.
    fn read(&self, reader: &mut dyn FnMut(&dyn Rows)) -> Result<(), StoreError>;

    /// Frees what a dead sibling held (reader slots).
    fn sibling_died(&self);
}
