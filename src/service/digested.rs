//! Rows that keep the digest of the merged tables up to date with every change.
//!
//! The digest is a wrapping sum of row hashes: the order of changes leaves no trace in it, and one change costs two
//! hashes whatever the size of the tables. The sum is written once, at the end of a transaction.

use crate::id::Digest;
use crate::service::rows::{Rows, RowsMut, Table, Walk};

/// The hash of one row: the first 16 bytes of BLAKE3 over table, length of the key, key and value.
pub(super) fn row_hash(table: Table, key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[table as u8]);
    hasher.update(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_be_bytes(short)
}

/// Computes the digest from all rows: what the running sum must equal.
pub fn digest_of(rows: &dyn Rows) -> Digest {
    let mut sum = DigestSum::default();
    for table in Table::ALL.into_iter().filter(|table| table.merged()) {
        rows.ascend(table, &[], &[], &mut |key, value| {
            sum.add(table, key, value);
            Walk::On
        });
    }
    sum.digest()
}

/// The digest of rows that come one by one, in any order.
#[derive(Debug, Default)]
pub struct DigestSum(u128);

impl DigestSum {
    /// Adds a row; one that the digest does not cover changes nothing.
    pub fn add(&mut self, table: Table, key: &[u8], value: &[u8]) {
        if table.merged() {
            self.0 = self.0.wrapping_add(row_hash(table, key, value));
        }
    }

    /// The digest of all rows so far.
    pub fn digest(&self) -> Digest {
        Digest(self.0)
    }
}

/// A view whose changes to merged tables are summed up.
pub(super) struct Digested<'a> {
    rows: &'a mut dyn RowsMut,
    delta: u128,
}

impl<'a> Digested<'a> {
    pub(super) fn new(rows: &'a mut dyn RowsMut) -> Self {
        Self { rows, delta: 0 }
    }

    /// The digest after the changes made through this view.
    pub(super) fn after(&self, before: Digest) -> Digest {
        Digest(before.0.wrapping_add(self.delta))
    }

    /// Writes a row where there is none, as the caller has just seen: spares the look for an old one.
    pub(super) fn put_new(&mut self, table: Table, key: &[u8], value: &[u8]) {
        debug_assert!(self.rows.get(table, key).is_none(), "a row that is there is replaced");
        if table.merged() {
            self.delta = self.delta.wrapping_add(row_hash(table, key, value));
        }
        self.rows.put(table, key, value);
    }

    fn subtract_old(&mut self, table: Table, key: &[u8]) {
        if let Some(old) = self.rows.get(table, key) {
            self.delta = self.delta.wrapping_sub(row_hash(table, key, &old));
        }
    }
}

impl Rows for Digested<'_> {
    fn count(&self, table: Table) -> u64 {
        self.rows.count(table)
    }

    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.rows.get(table, key)
    }

    fn ascend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        self.rows.ascend(table, from, to, visit);
    }

    fn descend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        self.rows.descend(table, from, to, visit);
    }
}

impl RowsMut for Digested<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        if table.merged() {
            self.subtract_old(table, key);
            self.delta = self.delta.wrapping_add(row_hash(table, key, value));
        }
        self.rows.put(table, key, value);
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        if table.merged() {
            self.subtract_old(table, key);
        }
        self.rows.delete(table, key);
    }
}
