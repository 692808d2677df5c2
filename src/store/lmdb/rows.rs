//! The views that a transaction gives to the service, and the checksum of every row.
//!
//! On disk a value is followed by four bytes, little-endian: the CRC-32 of the table's number, the key and the value.
//! [`Rows`] has no errors, so the first fault of a transaction is kept aside in [`Kept`]; from then on the view is as
//! empty, and the transaction ends with the fault. Invariant: nothing read after a fault is committed or answered.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::ops::Bound;

use heed::types::Bytes;
use heed::{AnyTls, Database, RoTxn, RwTxn};

use crate::service::rows::{Rows, RowsMut, Table, Walk};
use crate::store::tables::{Bounds, bounds};

/// One LMDB database: bytes to bytes, ordered as bytes.
pub(super) type Db<'t> = Database<'t, Bytes, Bytes>;

/// The database of each table, at its number.
pub(super) type Dbs = [Db<'static>; Table::ALL.len()];

/// Bytes of the checksum behind each value.
const CHECKSUM_BYTES: usize = 4;

/// Bytes of the longest key that LMDB takes. What people ask for may make a longer one; no such row can be there.
const KEY_BYTES_MAX: usize = 511;

/// Whether a row may have this key: LMDB calls it an error even to look for another.
fn is_key(key: &[u8]) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len())
}

/// The same walk with ends that LMDB takes. Of the possible keys, only one that is a clipped end lies between that and
/// the longer end, and it lies below.
fn clipped<'a>((from, to): Bounds<'a>) -> Bounds<'a> {
    let from = match from {
        Bound::Included(key) | Bound::Excluded(key) if key.len() > KEY_BYTES_MAX => {
            Bound::Excluded(&key[..KEY_BYTES_MAX])
        }
        Bound::Included(_) | Bound::Excluded(_) | Bound::Unbounded => from,
    };
    let to = match to {
        Bound::Included(key) | Bound::Excluded(key) if key.len() > KEY_BYTES_MAX => {
            Bound::Included(&key[..KEY_BYTES_MAX])
        }
        Bound::Included(_) | Bound::Excluded(_) | Bound::Unbounded => to,
    };
    (from, to)
}

/// What went wrong in a transaction.
#[derive(Debug)]
pub(super) enum Fault {
    /// LMDB or the system said so.
    Heed(heed::Error),
    /// A row's checksum does not match.
    Damaged(String),
}

/// The first fault of a transaction.
#[derive(Debug, Default)]
pub(super) struct Kept(RefCell<Option<Fault>>);

impl Kept {
    /// Ends the use of the transaction, and tells what went wrong.
    pub(super) fn take(self) -> Option<Fault> {
        self.0.into_inner()
    }

    fn is_sound(&self) -> bool {
        self.0.borrow().is_none()
    }

    /// Keeps the first fault: the later ones are its consequences.
    fn keep(&self, fault: Fault) {
        self.0.borrow_mut().get_or_insert(fault);
    }

    fn check<T>(&self, result: heed::Result<T>) -> Option<T> {
        result.map_err(|error| self.keep(Fault::Heed(error))).ok()
    }
}

fn checksum(table: Table, key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[table as u8]);
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}

/// The value of a stored row, if its checksum matches.
fn open_value<'a>(table: Table, key: &[u8], stored: &'a [u8]) -> Option<&'a [u8]> {
    let (value, sum) = stored.split_last_chunk::<CHECKSUM_BYTES>()?;
    (*sum == checksum(table, key, value)).then_some(value)
}

fn damaged(table: Table, key: &[u8]) -> Fault {
    let mut text = format!("damaged row in {table:?} at ");
    for byte in key {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Fault::Damaged(text)
}

/// A read view.
pub(super) struct View<'a> {
    pub(super) dbs: &'a Dbs,
    pub(super) txn: &'a RoTxn<'a, AnyTls>,
    pub(super) kept: &'a Kept,
}

impl View<'_> {
    /// Shows one stored row to a visitor.
    fn show(
        &self,
        table: Table,
        row: heed::Result<(&[u8], &[u8])>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk,
    ) -> Walk {
        // The visitor may have met a fault through this same view.
        let Some((key, stored)) = self.kept.check(row) else { return Walk::Stop };
        match open_value(table, key, stored) {
            Some(value) => match visit(key, value) {
                Walk::On if self.kept.is_sound() => Walk::On,
                Walk::On | Walk::Stop => Walk::Stop,
            },
            None => {
                self.kept.keep(damaged(table, key));
                Walk::Stop
            }
        }
    }
}

impl Rows for View<'_> {
    fn count(&self, table: Table) -> u64 {
        self.kept.check(self.dbs[table as usize].len(self.txn)).unwrap_or(0)
    }

    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        if !is_key(key) || !self.kept.is_sound() {
            return None;
        }
        let stored = self.kept.check(self.dbs[table as usize].get(self.txn, key))??;
        let value = open_value(table, key, stored);
        if value.is_none() {
            self.kept.keep(damaged(table, key));
        }
        value.map(<[u8]>::to_vec)
    }

    fn ascend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        let Some(bounds) = bounds(from, to).map(clipped).filter(|_| self.kept.is_sound()) else { return };
        let Some(rows) = self.kept.check(self.dbs[table as usize].range(self.txn, &bounds)) else { return };
        for row in rows {
            if self.show(table, row, visit) == Walk::Stop {
                return;
            }
        }
    }

    fn descend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        let Some(bounds) = bounds(from, to).map(clipped).filter(|_| self.kept.is_sound()) else { return };
        let Some(rows) = self.kept.check(self.dbs[table as usize].rev_range(self.txn, &bounds)) else { return };
        for row in rows {
            if self.show(table, row, visit) == Walk::Stop {
                return;
            }
        }
    }
}

/// A view that changes rows inside a write transaction.
pub(super) struct Change<'a, 'e> {
    pub(super) dbs: &'a Dbs,
    pub(super) txn: &'a mut RwTxn<'e>,
    pub(super) kept: &'a Kept,
    /// Where a value and its checksum are put together.
    pub(super) stored: Vec<u8>,
}

impl Change<'_, '_> {
    fn view(&self) -> View<'_> {
        View { dbs: self.dbs, txn: self.txn, kept: self.kept }
    }
}

impl Rows for Change<'_, '_> {
    fn count(&self, table: Table) -> u64 {
        self.view().count(table)
    }

    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.view().get(table, key)
    }

    fn ascend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        self.view().ascend(table, from, to, visit);
    }

    fn descend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        self.view().descend(table, from, to, visit);
    }
}

impl RowsMut for Change<'_, '_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        if !self.kept.is_sound() {
            return;
        }
        self.stored.clear();
        self.stored.extend_from_slice(value);
        self.stored.extend_from_slice(&checksum(table, key, value));
        self.kept.check(self.dbs[table as usize].put(self.txn, key, &self.stored));
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        if !is_key(key) || !self.kept.is_sound() {
            return;
        }
        self.kept.check(self.dbs[table as usize].delete(self.txn, key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_covers_table_key_and_value() {
        let mut stored = b"value".to_vec();
        stored.extend_from_slice(&checksum(Table::Posts, b"key", b"value"));
        assert_eq!(open_value(Table::Posts, b"key", &stored), Some(b"value".as_slice()));
        assert_eq!(open_value(Table::Edges, b"key", &stored), None);
        assert_eq!(open_value(Table::Posts, b"kez", &stored), None);
        stored[0] ^= 1;
        assert_eq!(open_value(Table::Posts, b"key", &stored), None);
        assert_eq!(open_value(Table::Posts, b"key", b"val"), None);
    }

    #[test]
    fn the_disk_format_of_a_value_stays() {
        // CRC-32 (IEEE) of 01 6b 76, little-endian: a change needs a new disk format.
        assert_eq!(checksum(Table::Log, b"k", b"v"), crc32fast::hash(&[1, b'k', b'v']).to_le_bytes());
    }
}
