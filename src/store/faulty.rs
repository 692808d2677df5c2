//! A store in memory whose disk can lose, fail and fill, for the simulator.
//!
//! Which fault is legal when: a batch that was committed but not synced may be lost whole ([`FaultyStore::crash`]),
//! never in part (LMDB shows a transaction through one page, which is written last). A sync may fail, and then the
//! batch may be there after a restart or not ([`UnsyncedBatch`]). The disk may be full at any batch
//! ([`FaultyStore::set_full`]), be wiped, and be restored from an older backup. A synced batch is never lost otherwise.
//!
//! The store shows readers nothing that no sync has covered. So writers work on the newest rows, and an overlay
//! keeps, for each row changed since the last sync, what the sync covered: a sync forgets the overlay, a crash puts it
//! back, and both cost only what changed. Invariant: newest rows with the overlay laid over them = the synced state.
//!
//! One `Arc` may serve all processes of a host. A handle that met a failed sync refuses later writes, as a process
//! must end then; [`FaultyStore::another`] gives a handle for the process that starts after it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::tables::{Change, Tables, bounds};
use super::{Store, StoreError};
use crate::id::Epoch;
use crate::service::ledger::{self, Committed, Fenced, Standing, Write, WriteId, WriterMark};
use crate::service::rows::{Rows, RowsMut, Table, Walk};
use crate::time::Wall;

/// Whether the disk has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Room {
    /// Writes go through.
    #[default]
    Ample,
    /// Every write ends with [`StoreError::Full`].
    None,
}

/// What becomes of the batches that a failed sync should have covered: nobody can know, so a test tries both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnsyncedBatch {
    /// They reached the disk all the same.
    Stored,
    /// They are gone.
    Lost,
}

/// A copy of what was synced: a backup.
#[derive(Debug, Clone, Default)]
pub struct DiskState(Tables);

/// For each row changed since the last sync, what the sync covered.
#[derive(Debug, Default)]
struct Overlay([BTreeMap<Vec<u8>, Option<Vec<u8>>>; Table::ALL.len()]);

impl Overlay {
    fn is_empty(&self) -> bool {
        self.0.iter().all(BTreeMap::is_empty)
    }

    fn map(&self, table: Table) -> &BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        &self.0[table as usize]
    }
}

#[derive(Debug, Default)]
struct Disk {
    newest: Tables,
    synced: Overlay,
    room: Room,
    failing: Option<UnsyncedBatch>,
}

impl Disk {
    fn sync(&mut self) {
        self.synced = Overlay::default();
    }

    fn lose_unsynced(&mut self) {
        for (table, rows) in Table::ALL.into_iter().zip(std::mem::take(&mut self.synced).0) {
            for (key, value) in rows {
                self.newest.replace(table, &key, value);
            }
        }
    }
}

/// A store in memory with faults, or rather one process's handle on it.
#[derive(Debug, Default)]
pub struct FaultyStore {
    disk: Arc<Mutex<Disk>>,
    failed: AtomicBool,
}

impl FaultyStore {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another handle on the same disk, for a process that has met no failure.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { disk: Arc::clone(&self.disk), failed: AtomicBool::new(false) }
    }

    /// As [`Store::commit`], without the sync: only later batches see the effects.
    pub fn commit_volatile(
        &self,
        epoch: Epoch,
        wall: Wall,
        writes: Vec<(WriteId, Write)>,
    ) -> Result<Committed, StoreError> {
        let (mut committed, bytes) = self.write_volatile(|rows| ledger::commit(rows, epoch, wall, writes))?;
        committed.standing.disk_bytes = bytes;
        Ok(committed)
    }

    /// As [`Store::take_epoch`], without the sync.
    pub fn take_epoch_volatile(&self, writer: &WriterMark) -> Result<Standing, StoreError> {
        let (mut standing, bytes) = self.write_volatile(|rows| Ok(ledger::take_epoch(rows, writer)))?;
        standing.disk_bytes = bytes;
        Ok(standing)
    }

    /// Makes every batch so far durable, and shows it to readers.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.refuse_after_failure()?;
        let mut disk = self.lock();
        let Some(batch) = disk.failing.take() else {
            disk.sync();
            return Ok(());
        };
        match batch {
            UnsyncedBatch::Stored => disk.sync(),
            UnsyncedBatch::Lost => disk.lose_unsynced(),
        }
        self.failed.store(true, Ordering::SeqCst);
        Err(StoreError::Failed("the sync failed".to_owned()))
    }

    /// Whether a batch waits for a sync. A real store's write lock is held that long: no other process may write.
    pub fn is_unsynced(&self) -> bool {
        !self.lock().synced.is_empty()
    }

    /// The writer or its host dies: what no sync has covered is gone. The handle is as a fresh one afterwards.
    pub fn crash(&self) {
        self.lock().lose_unsynced();
        self.failed.store(false, Ordering::SeqCst);
    }

    /// From now on the disk is full, or has room again.
    pub fn set_full(&self, room: Room) {
        self.lock().room = room;
    }

    /// The next sync fails, once.
    pub fn fail_next_sync(&self, batch: UnsyncedBatch) {
        self.lock().failing = Some(batch);
    }

    /// The disk is replaced by an empty one; the faults that were set are gone with it.
    pub fn wipe(&self) {
        *self.lock() = Disk::default();
    }

    /// A backup of what is synced.
    pub fn snapshot_state(&self) -> DiskState {
        let disk = self.lock();
        let mut tables = disk.newest.clone();
        for (table, rows) in Table::ALL.into_iter().zip(&disk.synced.0) {
            for (key, value) in rows {
                tables.replace(table, key, value.clone());
            }
        }
        DiskState(tables)
    }

    /// Puts a backup in place of everything; room and a sync that is to fail stay as they are set.
    pub fn restore_state(&self, state: &DiskState) {
        let mut disk = self.lock();
        disk.newest = state.0.clone();
        disk.synced = Overlay::default();
    }

    /// Runs a batch without a sync; one that is fenced or finds the disk full changes nothing.
    pub(super) fn write_volatile<T>(
        &self,
        job: impl FnOnce(&mut dyn RowsMut) -> Result<T, Fenced>,
    ) -> Result<(T, u64), StoreError> {
        self.refuse_after_failure()?;
        let mut disk = self.lock();
        let Disk { newest, synced, room, failing: _ } = &mut *disk;
        let mut change = Change::begin(newest);
        let outcome = job(&mut change);
        let value = match (outcome, *room) {
            (Ok(value), Room::Ample) => value,
            // A fence is found before the disk is needed, so it goes first.
            (Err(fenced), Room::Ample | Room::None) => {
                change.abort();
                return Err(fenced.into());
            }
            (Ok(_), Room::None) => {
                change.abort();
                return Err(StoreError::Full("no room is left on the simulated disk".to_owned()));
            }
        };
        for before in change.keep() {
            // Only the oldest is what the sync covered.
            synced.0[before.table as usize].entry(before.key).or_insert(before.value);
        }
        Ok((value, newest.bytes()))
    }

    fn refuse_after_failure(&self) -> Result<(), StoreError> {
        match self.failed.load(Ordering::SeqCst) {
            true => Err(StoreError::Failed("a sync failed earlier".to_owned())),
            false => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        // A panic while the lock was held is a bug that a test reports by itself.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for FaultyStore {
    fn take_epoch(&self, writer: &WriterMark) -> Result<Standing, StoreError> {
        let standing = self.take_epoch_volatile(writer)?;
        self.sync()?;
        Ok(standing)
    }

    fn commit(&self, epoch: Epoch, wall: Wall, writes: Vec<(WriteId, Write)>) -> Result<Committed, StoreError> {
        let committed = self.commit_volatile(epoch, wall, writes)?;
        self.sync()?;
        Ok(committed)
    }

    fn read(&self, reader: &mut dyn FnMut(&dyn Rows)) -> Result<(), StoreError> {
        let disk = self.lock();
        if disk.synced.is_empty() {
            reader(&disk.newest);
        } else {
            reader(&Synced { newest: &disk.newest, overlay: &disk.synced });
        }
        Ok(())
    }

    fn sibling_died(&self) {}
}

/// The state that the last sync covered.
struct Synced<'a> {
    newest: &'a Tables,
    overlay: &'a Overlay,
}

/// A row, or the place of one that was not there.
type Place<'a> = (&'a Vec<u8>, Option<&'a Vec<u8>>);

/// Visits the newest rows with the overlay laid over them; both come in the order in which `precedes` holds.
fn visit_merged<'a>(
    newest: impl Iterator<Item = Place<'a>>,
    overlay: impl Iterator<Item = Place<'a>>,
    precedes: fn(&[u8], &[u8]) -> bool,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk,
) {
    let (mut newest, mut overlay) = (newest.peekable(), overlay.peekable());
    loop {
        let next = match (newest.peek(), overlay.peek()) {
            (None, None) => return,
            (Some((left, _)), Some((right, _))) if precedes(left, right) => newest.next(),
            (Some(_), None) => newest.next(),
            (left, Some((right, _))) => {
                if left.is_some_and(|(left, _)| left == right) {
                    newest.next();
                }
                overlay.next()
            }
        };
        if let Some((key, Some(value))) = next
            && visit(key, value) == Walk::Stop
        {
            return;
        }
    }
}

impl Rows for Synced<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        match self.overlay.map(table).get(key) {
            Some(synced) => synced.clone(),
            None => self.newest.get(table, key),
        }
    }

    fn ascend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        let Some(bounds) = bounds(from, to) else { return };
        let newest = self.newest.map(table).range::<[u8], _>(bounds).map(|(key, value)| (key, Some(value)));
        let overlay = self.overlay.map(table).range::<[u8], _>(bounds).map(|(key, value)| (key, value.as_ref()));
        visit_merged(newest, overlay, |left, right| left < right, visit);
    }

    fn descend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        let Some(bounds) = bounds(from, to) else { return };
        let newest = self.newest.map(table).range::<[u8], _>(bounds).rev().map(|(key, value)| (key, Some(value)));
        let overlay = self.overlay.map(table).range::<[u8], _>(bounds).rev().map(|(key, value)| (key, value.as_ref()));
        visit_merged(newest, overlay, |left, right| left > right, visit);
    }
}
