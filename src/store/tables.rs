//! The tables in memory, which [`super::MemoryStore`] and [`super::FaultyStore`] share.
//!
//! A change notes what each row was before, so that a batch that must not be stored is taken back at the cost of its
//! own rows, and not by copying tables. Invariant: `bytes` is the sum of the lengths of all keys and values. The
//! suite (`suite.rs`) holds the views to the semantics of [`Rows`].

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::service::rows::{Rows, RowsMut, Table, Walk};

/// One table.
pub(super) type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A row as it was before a change; `None`: it was not there.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) table: Table,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

/// All tables.
#[derive(Debug, Clone, Default)]
pub(super) struct Tables {
    maps: [Map; Table::ALL.len()],
    bytes: u64,
}

/// The two ends of a walk.
pub(super) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The bounds of a walk, or `None` if nothing lies between them (a map's `range` panics on bounds in wrong order).
pub(super) fn bounds<'a>(from: &'a [u8], to: &'a [u8]) -> Option<Bounds<'a>> {
    // Not `Included(empty)`: LMDB refuses empty keys, even to seek.
    let start = if from.is_empty() { Bound::Unbounded } else { Bound::Included(from) };
    match to.is_empty() {
        true => Some((start, Bound::Unbounded)),
        false if from < to => Some((start, Bound::Excluded(to))),
        false => None,
    }
}

impl Tables {
    /// One table, to read.
    pub(super) fn map(&self, table: Table) -> &Map {
        &self.maps[table as usize]
    }

    /// What the rows would take on a disk without any overhead.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sets a row, or takes it out, and gives back what it was.
    pub(super) fn replace(&mut self, table: Table, key: &[u8], value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let map = &mut self.maps[table as usize];
        let new_bytes = value.as_ref().map_or(0, |value| size(key, value));
        let old = match value {
            Some(value) => map.insert(key.to_vec(), value),
            None => map.remove(key),
        };
        let old_bytes = old.as_ref().map_or(0, |value| size(key, value));
        self.bytes = self.bytes + new_bytes - old_bytes;
        old
    }

    /// Takes changes back, the newest first.
    pub(super) fn undo(&mut self, changes: Vec<Before>) {
        for change in changes.into_iter().rev() {
            self.replace(change.table, &change.key, change.value);
        }
    }
}

fn size(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

impl Rows for Tables {
    fn count(&self, table: Table) -> u64 {
        self.map(table).len() as u64
    }

    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.map(table).get(key).cloned()
    }

    fn ascend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        let Some(bounds) = bounds(from, to) else { return };
        for (key, value) in self.map(table).range::<[u8], _>(bounds) {
            if visit(key, value) == Walk::Stop {
                return;
            }
        }
    }

    fn descend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        let Some(bounds) = bounds(from, to) else { return };
        for (key, value) in self.map(table).range::<[u8], _>(bounds).rev() {
            if visit(key, value) == Walk::Stop {
                return;
            }
        }
    }
}

/// A write transaction on the tables: changes take effect at once and are noted.
pub(super) struct Change<'a> {
    tables: &'a mut Tables,
    before: Vec<Before>,
}

impl<'a> Change<'a> {
    /// Begins with nothing changed.
    pub(super) fn begin(tables: &'a mut Tables) -> Self {
        Self { tables, before: Vec::new() }
    }

    /// Keeps the changes, and tells what was there before, the oldest change first.
    pub(super) fn keep(self) -> Vec<Before> {
        self.before
    }

    /// Takes every change back.
    pub(super) fn abort(self) {
        self.tables.undo(self.before);
    }
}

impl Rows for Change<'_> {
    fn count(&self, table: Table) -> u64 {
        self.tables.count(table)
    }

    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.tables.get(table, key)
    }

    fn ascend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        self.tables.ascend(table, from, to, visit);
    }

    fn descend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        self.tables.descend(table, from, to, visit);
    }
}

impl RowsMut for Change<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        let old = self.tables.replace(table, key, Some(value.to_vec()));
        self.before.push(Before { table, key: key.to_vec(), value: old });
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        if let Some(old) = self.tables.replace(table, key, None) {
            self.before.push(Before { table, key: key.to_vec(), value: Some(old) });
        }
    }
}
