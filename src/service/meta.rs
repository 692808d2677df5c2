//! What a host knows about itself, as rows of the table Meta: read once by a transaction, written once at its end.

use crate::id::{Digest, Epoch, Origin, Seq, Vector};
use crate::service::keys;
use crate::service::ledger::{Standing, WriterMark};
use crate::service::records::{decode, encode};
use crate::service::retired::{Retired, Retirement};
use crate::service::rows::{Rows, RowsMut, Table, Walk};
use crate::service::snapshot::Cursor;
use crate::service::sweep::Ahead;
use crate::time::Hlc;

const EPOCH: &[u8] = b"epoch";
const WRITER: &[u8] = b"writer";
const ORIGIN: &[u8] = b"origin";
const HLC: &[u8] = b"hlc";
const DIGEST: &[u8] = b"digest";
const NEWS: &[u8] = b"news";
const SNAPSHOT: &[u8] = b"snapshot";
const TRIM: &[u8] = b"trim";
const AHEAD: &[u8] = b"ahead";
/// Before the origins of the vector; no single key begins with it.
const VECTOR: &[u8] = b"v";
/// Before the origins of the cut; no single key begins with it.
const CUT: &[u8] = b"c";
/// Before the entries that say where an origin ends; no single key begins with it.
const RETIRED: &[u8] = b"r";

/// The rows of Meta.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Meta {
    pub(super) epoch: Epoch,
    pub(super) origin: Option<Origin>,
    pub(super) vector: Vector,
    pub(super) hlc: Hlc,
    pub(super) digest: Digest,
    pub(super) cut: Vector,
    /// What was taken in of other origins since this host's last entry: the next one names it.
    pub(super) news: Vector,
    /// How far a snapshot is merged in that is not whole yet.
    pub(super) snapshot: Option<Cursor>,
    /// Posts of an earlier time are not kept.
    pub(super) trim: Hlc,
    /// How far parts of snapshots told of more than is held.
    pub(super) ahead: Ahead,
    /// Where origins end, by entries that are held or that parts of snapshots told of.
    pub(super) retired: Retired,
}

fn single<T: serde::de::DeserializeOwned>(rows: &dyn Rows, key: &[u8]) -> Option<T> {
    decode(&rows.get(Table::Meta, key)?)
}

fn vector(rows: &dyn Rows, prefix: &[u8]) -> Vector {
    let mut found = Vector::new();
    rows.ascend(Table::Meta, prefix, &keys::end(prefix), &mut |key, value| {
        if let Some((origin, seq)) = keys::parse_origin(&key[prefix.len()..]).zip(decode::<Seq>(value)) {
            found.set(origin, seq);
        }
        Walk::On
    });
    found
}

/// Where origins end.
pub(super) fn retired(rows: &dyn Rows) -> Retired {
    let mut found = Retired::default();
    rows.ascend(Table::Meta, RETIRED, &keys::end(RETIRED), &mut |key, value| {
        if let Some((by, (hlc, origin, last))) = keys::parse_log(&key[RETIRED.len()..]).zip(decode(value)) {
            found.extend([Retirement { hlc, by, origin, last }]);
        }
        Walk::On
    });
    found
}

/// The newest epoch.
pub(super) fn epoch(rows: &dyn Rows) -> Epoch {
    single(rows, EPOCH).unwrap_or_default()
}

/// How far the log was cut.
pub(super) fn cut(rows: &dyn Rows) -> Vector {
    vector(rows, CUT)
}

/// What is held without a gap.
pub(super) fn held(rows: &dyn Rows) -> Vector {
    vector(rows, VECTOR)
}

/// Whether there are rows of more than is held.
pub(super) fn is_ahead(rows: &dyn Rows) -> bool {
    rows.get(Table::Meta, AHEAD).is_some()
}

/// The first time of which posts are kept.
pub(super) fn trim(rows: &dyn Rows) -> Hlc {
    single(rows, TRIM).unwrap_or_default()
}

/// The writer that took the newest epoch.
pub(super) fn writer(rows: &dyn Rows) -> Option<WriterMark> {
    single(rows, WRITER)
}

/// Records the writer that takes an epoch.
pub(super) fn set_writer(rows: &mut dyn RowsMut, writer: &WriterMark) {
    rows.put(Table::Meta, WRITER, &encode(writer));
}

/// Takes away the name under which this host makes entries.
pub(super) fn forget_origin(rows: &mut dyn RowsMut) {
    rows.delete(Table::Meta, ORIGIN);
}

impl Meta {
    pub(super) fn load(rows: &dyn Rows) -> Self {
        Self {
            epoch: epoch(rows),
            origin: single(rows, ORIGIN),
            vector: held(rows),
            hlc: single(rows, HLC).unwrap_or_default(),
            digest: single(rows, DIGEST).unwrap_or_default(),
            cut: cut(rows),
            news: single(rows, NEWS).unwrap_or_default(),
            snapshot: single(rows, SNAPSHOT),
            trim: trim(rows),
            ahead: single(rows, AHEAD).unwrap_or_default(),
            retired: retired(rows),
        }
    }

    /// Writes what differs from `before`.
    pub(super) fn save(&self, before: &Self, rows: &mut dyn RowsMut) {
        if self.epoch != before.epoch {
            rows.put(Table::Meta, EPOCH, &encode(&self.epoch));
        }
        if self.origin != before.origin
            && let Some(origin) = self.origin
        {
            rows.put(Table::Meta, ORIGIN, &encode(&origin));
        }
        if self.hlc != before.hlc {
            rows.put(Table::Meta, HLC, &encode(&self.hlc));
        }
        if self.digest != before.digest {
            rows.put(Table::Meta, DIGEST, &encode(&self.digest));
        }
        if self.trim != before.trim {
            rows.put(Table::Meta, TRIM, &encode(&self.trim));
        }
        if self.news != before.news {
            rows.put(Table::Meta, NEWS, &encode(&self.news));
        }
        if self.snapshot != before.snapshot {
            match &self.snapshot {
                Some(cursor) => rows.put(Table::Meta, SNAPSHOT, &encode(cursor)),
                None => rows.delete(Table::Meta, SNAPSHOT),
            }
        }
        if self.ahead != before.ahead {
            match self.ahead.vector.is_empty() {
                true => rows.delete(Table::Meta, AHEAD),
                false => rows.put(Table::Meta, AHEAD, &encode(&self.ahead)),
            }
        }
        let row = |one: &Retirement| [RETIRED, &keys::log(one.by)].concat();
        for one in self.retired.iter().filter(|one| !before.retired.contains(one)) {
            rows.put(Table::Meta, &row(&one), &encode(&(one.hlc, one.origin, one.last)));
        }
        for one in before.retired.iter().filter(|one| !self.retired.contains(one)) {
            rows.delete(Table::Meta, &row(&one));
        }
        // Neither vector ever falls, so no row is ever taken away.
        for (prefix, now, then) in [(VECTOR, &self.vector, &before.vector), (CUT, &self.cut, &before.cut)] {
            for (origin, seq) in now.iter().filter(|(origin, seq)| then.get(*origin) != *seq) {
                rows.put(Table::Meta, &[prefix, &keys::origin(origin)].concat(), &encode(&seq));
            }
        }
    }

    /// The state as the store's callers see it.
    pub(super) fn standing(&self) -> Standing {
        Standing {
            epoch: self.epoch,
            origin: self.origin,
            vector: self.vector.clone(),
            hlc: self.hlc,
            digest: self.digest,
            // Seqs have no gap, so the vector counts the entries.
            entries: self.vector.iter().fold(0, |sum: u64, (_, seq)| sum.saturating_add(seq.0)),
            cut: self.cut.clone(),
            snapshot: self.snapshot.clone(),
            trim: self.trim,
            ahead: self.ahead.vector.clone(),
            retired: self.retired.clone(),
            disk_bytes: 0,
        }
    }
}
