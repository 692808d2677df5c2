//! A store in memory, for tests and for processes that need no disk: it cannot fail, and forgets all at its end.
//!
//! Several processes of one simulated host share it by `Arc`. The lock plays the part of LMDB's write lock: a batch
//! that is fenced is taken back before anyone can read. `suite.rs` holds it to the promises of every store.

use std::sync::{PoisonError, RwLock};

use super::tables::{Change, Tables};
use super::{Store, StoreError};
use crate::id::Epoch;
use crate::service::ledger::{self, Committed, Fenced, Standing, Write, WriteId, WriterMark};
use crate::service::rows::{Rows, RowsMut};
use crate::time::Wall;

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: RwLock<Tables>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a batch; what a fenced one changed is taken back. Also tells the bytes held afterwards.
    pub(super) fn write<T>(
        &self,
        job: impl FnOnce(&mut dyn RowsMut) -> Result<T, Fenced>,
    ) -> Result<(T, u64), StoreError> {
        // A panic while the lock was held is a bug that a test reports by itself.
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let mut change = Change::begin(&mut tables);
        match job(&mut change) {
            Ok(value) => {
                change.keep();
                Ok((value, tables.bytes()))
            }
            Err(fenced) => {
                change.abort();
                Err(fenced.into())
            }
        }
    }
}

impl Store for MemoryStore {
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
        reader(&*self.tables.read().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    fn sibling_died(&self) {}
}
