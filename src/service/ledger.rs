//! The ledger: what a host keeps besides the merged state, and the one procedure by which anything is committed.
//!
//! Everything here runs inside one transaction that a store opened. `take_epoch` and `commit` check the fence inside
//! that transaction (P6): a check before it is not enough. A store performs them and decides nothing.

use crate::id::{Digest, Epoch, Origin, Seq, Vector};
use crate::service::intake::{IntakeResult, WriteRequest};
use crate::service::rows::{Rows, RowsMut};
use crate::time::{Hlc, Wall};
use serde::{Deserialize, Serialize};

/// A write on its way to the store, numbered by the process that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId(pub u64);

/// A run of entries of one origin, as their canonical bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRun {
    /// Whose entries.
    pub origin: Origin,
    /// The seq of the first; the rest follow without a gap.
    pub from: Seq,
    /// Their bytes, as in the log.
    pub entries: Vec<Vec<u8>>,
}

impl EntryRun {
    /// The seq of the last entry (of the one before the first, if there is none).
    pub fn last(&self) -> Seq {
        Seq((self.from.0 + self.entries.len() as u64).saturating_sub(1))
    }

    /// Bytes of the entries.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(Vec::len).sum()
    }
}

impl std::fmt::Debug for EntryRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}..={}", self.origin, self.from.0, self.last().0)
    }
}

/// One thing to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A person's request.
    Request(WriteRequest),
    /// Entries of another host. Those already held are skipped; a gap refuses the run.
    Run(EntryRun),
    /// A chunk of another host's snapshot, merged in.
    Rows(Vec<u8>),
    /// All chunks up to this vector are merged in: the log goes on after it.
    Adopt(Vector),
    /// From now on this host's entries have this origin.
    Begin(Origin),
    /// Entries up to this vector leave the log.
    Cut(Vector),
}

/// What became of one [`Write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrote {
    /// The request's answer.
    Request(IntakeResult),
    /// Done, or done before.
    Done,
    /// The run depends on an entry that is not held (its predecessor, or one that its host held before it); what
    /// comes before that in the run was taken.
    Waits {
        /// What is lacked.
        on: crate::id::EntryId,
    },
    /// The bytes are not what they should be; nothing of it was taken.
    Refused(String),
}

/// The state after a commit, read in its own transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The newest epoch.
    pub epoch: Epoch,
    /// Whose entries this host makes; none before the first `Begin`.
    pub origin: Option<Origin>,
    /// What is held without a gap.
    pub vector: Vector,
    /// The highest stamp held.
    pub hlc: Hlc,
    /// The sum over the merged rows.
    pub digest: Digest,
    /// Entries ever applied (those that came in a snapshot count too).
    pub entries: u64,
    /// The log holds each origin from after this place on.
    pub cut: Vector,
    /// Bytes that the store takes on disk; filled in by the store.
    pub disk_bytes: u64,
}

/// The writer that took an epoch, so that a successor can tell whom to suspect of holding the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterMark {
    /// Its process.
    pub process: crate::id::ProcessId,
    /// Its operating system's number.
    pub pid: u32,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The outcome of each write, in order.
    pub outcomes: Vec<(WriteId, Wrote)>,
    /// The state after them.
    pub standing: Standing,
}

/// A newer epoch was taken: whoever asked is no longer the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("fenced: the store's epoch is {newest:?}")]
pub struct Fenced {
    /// The store's epoch.
    pub newest: Epoch,
}

/// What a read of the log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Runs of entries, at most the bytes asked for in all (but at least one entry where there is one).
    pub runs: Vec<EntryRun>,
    /// Origins whose entries at the place asked for were cut: only a snapshot helps.
    pub cut: Vec<Origin>,
    /// The state in the same transaction.
    pub standing: Standing,
}

/// Reads the state.
pub fn standing(rows: &dyn Rows) -> Standing {
    let _ = rows;
    unimplemented!()
}

/// Adds one to the epoch and records the writer.
pub fn take_epoch(rows: &mut dyn RowsMut, writer: &WriterMark) -> Standing {
    let _ = (rows, writer);
    unimplemented!()
}

/// Commits writes in order, if the epoch is still the newest.
pub fn commit(
    rows: &mut dyn RowsMut,
    epoch: Epoch,
    wall: Wall,
    writes: Vec<(WriteId, Write)>,
) -> Result<Committed, Fenced> {
    let _ = (rows, epoch, wall, writes);
    unimplemented!()
}

/// Reads entries after each of these places, in this order.
pub fn read_log(rows: &dyn Rows, after: &[(Origin, Seq)], bytes_max: usize) -> LogChunk {
    let _ = (rows, after, bytes_max);
    unimplemented!()
}
