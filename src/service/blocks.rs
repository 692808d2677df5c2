//! Digests of the log: of each origin one for every whole block of its seqs, so that hosts can compare what they hold
//! at any time, not only at the moments when they hold the same.
//!
//! A block ends at each 1,024th seq, and its digest is the sum of its entries' hashes, as that of the tables is of their
//! rows'. It is summed up as entries are appended, in the same transaction, and kept for the last `LOG_BLOCKS_KEPT`
//! blocks. A host has a digest only of blocks that it got as entries, one after the other: of one that came partly by a
//! snapshot, or before there were digests, it has none, and nothing is compared. The sum that is under way says up to
//! which entry it goes, so that one which stopped (in a snapshot, or under an older version, which passes over these
//! rows) is never gone on with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, EntryId, Origin, Seq};
use crate::limits;
use crate::service::digested::row_hash;
use crate::service::keys;
use crate::service::records::{decode, encode};
use crate::service::rows::{Rows, RowsMut, Table, Walk};

/// Before the origin and the last seq of a whole block; no other key of Meta begins with it.
const BLOCK: &[u8] = b"b";
/// Before the origin of a sum under way; no other key of Meta begins with it.
const SUM: &[u8] = b"p";

/// The digest of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDigest {
    /// The last entry of the block.
    pub upto: EntryId,
    /// The sum over its entries.
    pub digest: Digest,
}

/// What a comparison with another host's digests found; blocks of which this host has no digest are in neither.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compared {
    /// Blocks that are the same.
    pub same: Vec<EntryId>,
    /// Blocks that differ.
    pub differing: Vec<EntryId>,
}

/// A sum under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Sum {
    upto: Seq,
    sum: Digest,
}

/// The sums of a transaction; none of an origin whose block did not come whole.
#[derive(Debug)]
pub(super) struct Sums {
    block: u64,
    of: BTreeMap<Origin, Option<Sum>>,
}

impl Sums {
    /// Blocks of so many entries.
    pub(super) fn new(block: u64) -> Self {
        Self { block, of: BTreeMap::new() }
    }

    /// An entry was appended to its origin's log.
    pub(super) fn add(&mut self, rows: &mut dyn RowsMut, id: EntryId, bytes: &[u8]) {
        let EntryId { origin, seq } = id;
        let found = self.of.entry(origin).or_insert_with(|| decode(&rows.get(Table::Meta, &sum_key(origin))?));
        let begins = (seq.0 - 1).is_multiple_of(self.block);
        let before = found.filter(|sum| sum.upto.next() == seq).map(|sum| sum.sum);
        let before = if begins { Some(Digest::default()) } else { before };
        let sum = before.map(|Digest(sum)| Digest(sum.wrapping_add(row_hash(Table::Log, &keys::log(id), bytes))));
        *found = sum.map(|sum| Sum { upto: seq, sum });
        if let Some(digest) = sum.filter(|_| seq.0.is_multiple_of(self.block)) {
            rows.put(Table::Meta, &block_key(id), &encode(&digest));
            self.forget(rows, id);
        }
    }

    /// Takes out what is older than the blocks that are kept, of which this is the newest.
    fn forget(&self, rows: &mut dyn RowsMut, newest: EntryId) {
        let kept = self.block.saturating_mul(limits::LOG_BLOCKS_KEPT);
        let Some(last) = newest.seq.0.checked_sub(kept) else { return };
        let origin = newest.origin;
        let (from, to) =
            (block_key(EntryId { origin, seq: Seq::ZERO }), block_key(EntryId { origin, seq: Seq(last + 1) }));
        let mut old = Vec::new();
        rows.ascend(Table::Meta, &from, &to, &mut |key, _| {
            old.push(key.to_vec());
            Walk::On
        });
        old.iter().for_each(|key| rows.delete(Table::Meta, key));
    }

    /// Writes the sums that go on.
    pub(super) fn save(self, rows: &mut dyn RowsMut) {
        for (origin, sum) in self.of {
            if let Some(sum) = sum {
                rows.put(Table::Meta, &sum_key(origin), &encode(&sum));
            }
        }
    }
}

/// Takes out all digests of an origin.
pub(super) fn forget_origin(rows: &mut dyn RowsMut, origin: Origin) {
    let mut gone = vec![sum_key(origin)];
    let prefix = [BLOCK, &keys::origin(origin)].concat();
    rows.ascend(Table::Meta, &prefix, &keys::end(&prefix), &mut |key, _| {
        gone.push(key.to_vec());
        Walk::On
    });
    gone.iter().for_each(|key| rows.delete(Table::Meta, key));
}

fn sum_key(origin: Origin) -> Vec<u8> {
    [SUM, &keys::origin(origin)].concat()
}

fn block_key(upto: EntryId) -> Vec<u8> {
    [BLOCK, &keys::log(upto)].concat()
}

/// The digests of all whole blocks after each of these places.
pub fn digests(rows: &dyn Rows, after: &[(Origin, Seq)]) -> Vec<LogDigest> {
    let mut found = Vec::new();
    for (origin, seq) in after {
        let (origin, from) = (*origin, keys::after(&block_key(EntryId { origin: *origin, seq: *seq })));
        let to = keys::end(&[BLOCK, &keys::origin(origin)].concat());
        rows.ascend(Table::Meta, &from, &to, &mut |key, value| {
            let seq = key[BLOCK.len() + keys::ORIGIN..].try_into().map(u64::from_be_bytes);
            if let (Ok(seq), Some(digest)) = (seq, decode(value)) {
                found.push(LogDigest { upto: EntryId { origin, seq: Seq(seq) }, digest });
            }
            Walk::On
        });
    }
    found
}

/// Compares what another host told with what is here.
pub fn compare(rows: &dyn Rows, told: &[LogDigest]) -> Compared {
    let mut compared = Compared::default();
    for LogDigest { upto, digest } in told {
        match rows.get(Table::Meta, &block_key(*upto)).and_then(|value| decode::<Digest>(&value)) {
            Some(ours) if ours == *digest => compared.same.push(*upto),
            Some(_) => compared.differing.push(*upto),
            None => {}
        }
    }
    compared
}
