//! The tables of a simulated disk, and a transaction over them that shows its own changes to nobody else.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;

use gaggle::service::rows::{Rows, RowsMut, Table, Walk};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
/// What a transaction changed: the new value, or that the row is gone.
pub(crate) type Changes = BTreeMap<Table, BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

/// What is durable.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tables(BTreeMap<Table, Map>);

impl Tables {
    /// Makes a transaction's changes durable and visible.
    pub(crate) fn apply(&mut self, changes: Changes) {
        for (table, rows) in changes {
            let map = self.0.entry(table).or_default();
            for (key, value) in rows {
                match value {
                    Some(value) => map.insert(key, value),
                    None => map.remove(&key),
                };
            }
        }
    }

    fn range<'a>(
        &'a self,
        table: Table,
        from: &'a [u8],
        to: &'a [u8],
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> {
        let bounds = bounds(from, to);
        let map = self.0.get(&table);
        map.into_iter().flat_map(move |map| map.range::<[u8], _>(bounds)).map(|(k, v)| (k.as_slice(), v.as_slice()))
    }
}

/// `from..to`, where an empty `to` is the end and an inverted range is empty.
fn bounds<'a>(from: &'a [u8], to: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    if to.is_empty() {
        (Bound::Included(from), Bound::Unbounded)
    } else {
        (Bound::Included(from), Bound::Excluded(to.max(from)))
    }
}

impl Rows for &Tables {
    fn count(&self, table: Table) -> u64 {
        (**self).count(table)
    }

    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        (**self).get(table, key)
    }

    fn ascend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        (**self).ascend(table, from, to, visit);
    }

    fn descend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        (**self).descend(table, from, to, visit);
    }
}

impl Rows for Tables {
    fn count(&self, table: Table) -> u64 {
        self.0.get(&table).map_or(0, |map| map.len() as u64)
    }

    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(&table)?.get(key).cloned()
    }

    fn ascend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        for (key, value) in self.range(table, from, to) {
            if visit(key, value) == Walk::Stop {
                return;
            }
        }
    }

    fn descend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        for (key, value) in self.range(table, from, to).rev() {
            if visit(key, value) == Walk::Stop {
                return;
            }
        }
    }
}

/// A write transaction.
#[derive(Debug)]
pub(crate) struct Transaction<'a> {
    base: &'a Tables,
    changes: Changes,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(base: &'a Tables) -> Self {
        Self { base, changes: Changes::new() }
    }

    pub(crate) fn into_changes(self) -> Changes {
        self.changes
    }

    fn changed<'b>(
        &'b self,
        table: Table,
        from: &'b [u8],
        to: &'b [u8],
    ) -> impl DoubleEndedIterator<Item = (&'b [u8], Option<&'b [u8]>)> {
        let bounds = bounds(from, to);
        let map = self.changes.get(&table);
        map.into_iter().flat_map(move |map| map.range::<[u8], _>(bounds)).map(|(k, v)| (k.as_slice(), v.as_deref()))
    }
}

/// Which of two keys a walk meets first.
fn walk<'a>(
    base: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    changes: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    comes_first: fn(&[u8], &[u8]) -> bool,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk,
) {
    let (mut base, mut changes) = (base.peekable(), changes.peekable());
    while let Some((key, value)) = next_of(&mut base, &mut changes, comes_first) {
        if let Some(value) = value
            && visit(key, value) == Walk::Stop
        {
            return;
        }
    }
}

/// The next row of both; a change hides the row below it.
fn next_of<'a>(
    base: &mut Peekable<impl Iterator<Item = (&'a [u8], &'a [u8])>>,
    changes: &mut Peekable<impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>>,
    comes_first: fn(&[u8], &[u8]) -> bool,
) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    match (base.peek(), changes.peek()) {
        (Some((below, _)), Some((above, _))) if below == above => {
            base.next();
            changes.next()
        }
        (Some((below, _)), Some((above, _))) if comes_first(below, above) => base.next().map(|(k, v)| (k, Some(v))),
        (Some(_), None) => base.next().map(|(k, v)| (k, Some(v))),
        _ => changes.next(),
    }
}

impl Rows for Transaction<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        match self.changes.get(&table).and_then(|map| map.get(key)) {
            Some(change) => change.clone(),
            None => self.base.get(table, key),
        }
    }

    fn ascend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        walk(self.base.range(table, from, to), self.changed(table, from, to), |a, b| a < b, visit);
    }

    fn descend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        walk(self.base.range(table, from, to).rev(), self.changed(table, from, to).rev(), |a, b| a > b, visit);
    }
}

impl RowsMut for Transaction<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.changes.entry(table).or_default().insert(key.to_vec(), Some(value.to_vec()));
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.changes.entry(table).or_default().insert(key.to_vec(), None);
    }
}
