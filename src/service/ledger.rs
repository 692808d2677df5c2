//! The ledger: what a host keeps besides the merged state, and the one procedure by which anything is committed.
//!
//! Everything here runs inside one transaction that a store opened. `take_epoch` and `commit` check the fence inside
//! that transaction (P6): a check before it is not enough. A store performs them and decides nothing.

use std::collections::BTreeMap;

use crate::error::{ErrorCode, Refusal};
use crate::id::{Digest, EntryId, Epoch, Origin, RequestId, Seq, UserId, Vector};
use crate::limits;
use crate::service::blocks::Sums;
use crate::service::digested::Digested;
use crate::service::entry::{Entry, Op};
use crate::service::intake::{self, IntakeContext, IntakeResult, IntakeStep, WriteRequest};
use crate::service::meta::{self, Meta};
use crate::service::retired::Retired;
use crate::service::rows::{Rows, RowsMut, Table, Walk};
use crate::service::snapshot::{Cursor, Part};
use crate::service::trim::Keep;
use crate::service::{blocks, keys, rules, snapshot, trim};
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
    /// Entries of another host. Those already held are skipped; a gap, or a dependency that is not held, makes it wait.
    Run(EntryRun),
    /// A part of another host's snapshot, merged in. After the last, the log goes on after what all parts held.
    Rows(Part),
    /// From now on this host's entries have this origin.
    Begin(Origin),
    /// Entries up to this vector leave the log.
    Cut(Vector),
    /// Posts that need not be kept are removed, at every host: becomes an entry if it is worth one.
    Trim(Keep),
    /// An origin of an earlier incarnation of this host ends here: becomes an entry, unless it was said already.
    Retire {
        /// Which origin.
        origin: Origin,
        /// Its last entry.
        last: Seq,
    },
    /// Some of what parts of snapshots told and nobody holds any more is taken out.
    Sweep,
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
    /// How far a snapshot is merged in that is not whole yet.
    pub snapshot: Option<Cursor>,
    /// Posts of an earlier time are not kept.
    pub trim: Hlc,
    /// Parts of snapshots told of entries up to here; empty once these are held.
    pub ahead: Vector,
    /// Where origins of earlier incarnations end.
    pub retired: Retired,
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
    /// What entries that came in prove to be held where they were made, by their origins: nothing leaves a host before it
    /// is durable there.
    pub proved: BTreeMap<Origin, Vector>,
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
    /// Runs of entries in causal order, at most the bytes asked for in all (but at least one entry where there is one).
    pub runs: Vec<EntryRun>,
    /// Origins whose entries at the place asked for were cut: only a snapshot helps.
    pub cut: Vec<Origin>,
    /// The state in the same transaction.
    pub standing: Standing,
}

/// Reads the state.
pub fn standing(rows: &dyn Rows) -> Standing {
    Meta::load(rows).standing()
}

/// Reads the epoch alone.
pub fn epoch(rows: &dyn Rows) -> Epoch {
    meta::epoch(rows)
}

/// The writer that took the newest epoch, if any was taken.
pub fn writer(rows: &dyn Rows) -> Option<WriterMark> {
    meta::writer(rows)
}

/// Adds one to the epoch and records the writer.
pub fn take_epoch(rows: &mut dyn RowsMut, writer: &WriterMark) -> Standing {
    let before = Meta::load(rows);
    let mut after = before.clone();
    after.epoch = before.epoch.next();
    after.save(&before, rows);
    meta::set_writer(rows, writer);
    after.standing()
}

/// A backup is put in a store's place: what was made after it is known elsewhere, or was, by the names that would come
/// next. So the host makes nothing more under its old incarnation, and begins another.
pub fn forget_origin(rows: &mut dyn RowsMut) {
    meta::forget_origin(rows);
}

/// Commits writes in order, if the epoch is still the newest.
pub fn commit(
    rows: &mut dyn RowsMut,
    epoch: Epoch,
    wall: Wall,
    writes: Vec<(WriteId, Write)>,
) -> Result<Committed, Fenced> {
    commit_in_blocks(rows, epoch, wall, writes, limits::LOG_BLOCK_ENTRIES)
}

/// The same, with digests of so many entries: fewer in tests, whose logs are short.
pub fn commit_in_blocks(
    rows: &mut dyn RowsMut,
    epoch: Epoch,
    wall: Wall,
    writes: Vec<(WriteId, Write)>,
    block: u64,
) -> Result<Committed, Fenced> {
    let before = Meta::load(rows);
    if before.epoch != epoch {
        return Err(Fenced { newest: before.epoch });
    }
    let (rows, sums) = (Digested::new(rows), Sums::new(block));
    let mut batch = Batch { rows, meta: before.clone(), wall, proved: BTreeMap::new(), sums };
    let outcomes = writes.into_iter().map(|(id, write)| (id, batch.write(write))).collect();
    let Batch { rows: mut digested, meta: mut after, proved, sums, .. } = batch;
    after.digest = digested.after(before.digest);
    sums.save(&mut digested);
    // What an unfinished snapshot would bring has come by the log.
    after.snapshot.take_if(|cursor| after.vector.covers(&cursor.vector));
    after.ahead.on_held(&after.vector);
    for (origin, seq) in before.vector.iter() {
        assert!(after.vector.get(origin) >= seq, "what is held never falls");
    }
    after.save(&before, &mut digested);
    Ok(Committed { outcomes, standing: after.standing(), proved })
}

/// Refuses a vector after which a log could not go on.
fn check_vector(vector: &Vector) -> Result<(), String> {
    match vector.iter().find(|(_, seq)| seq.0 == u64::MAX) {
        Some((origin, seq)) => Err(format!("{origin} {seq:?}: no log is that long")),
        None => Ok(()),
    }
}

/// A commit under way.
struct Batch<'a> {
    rows: Digested<'a>,
    meta: Meta,
    wall: Wall,
    proved: BTreeMap<Origin, Vector>,
    sums: Sums,
}

impl Batch<'_> {
    fn write(&mut self, write: Write) -> Wrote {
        let done = match write {
            Write::Request(request) => return Wrote::Request(self.request(&request)),
            Write::Run(run) => return self.run(&run).unwrap_or_else(Wrote::Refused),
            Write::Rows(part) => self.part(part),
            Write::Begin(origin) => self.begin(origin),
            Write::Cut(vector) => self.cut(&vector),
            Write::Trim(keep) => self.trim(&keep),
            Write::Retire { origin, last } => self.retire(origin, last),
            Write::Sweep => self.sweep(),
        };
        done.map_or_else(Wrote::Refused, |()| Wrote::Done)
    }

    fn request(&mut self, request: &WriteRequest) -> IntakeResult {
        let Some(origin) = self.meta.origin else {
            let message = "this host has not begun its log yet: ask another host, or again in a moment";
            return Err(Refusal::new(ErrorCode::NotServing, message));
        };
        let next = EntryId { origin, seq: self.meta.vector.get(origin).next() };
        let Meta { hlc, trim, vector: held, .. } = &self.meta;
        let context = IntakeContext { next, hlc: *hlc, wall: self.wall, trim: *trim, held };
        match intake::intake(&self.rows, &context, request)? {
            IntakeStep::Known(accepted) => Ok(accepted),
            IntakeStep::New(mut entry) => {
                entry.after = std::mem::take(&mut self.meta.news);
                self.append(&entry, &entry.encode());
                Ok(intake::accepted(&self.rows, &entry))
            }
        }
    }

    /// Logs and applies the entry that comes next in its origin's log.
    fn append(&mut self, entry: &Entry, bytes: &[u8]) {
        let EntryId { origin, seq } = entry.id;
        assert_eq!(self.meta.vector.get(origin).0 + 1, seq.0, "a log has no gap");
        self.rows.put(Table::Log, &keys::log(entry.id), bytes);
        self.sums.add(&mut self.rows, entry.id, bytes);
        rules::apply_entry(&mut self.rows, &mut self.meta, entry);
        self.meta.vector.raise(origin, seq);
        self.meta.hlc = self.meta.hlc.max(entry.hlc);
    }

    /// Takes a run up to the first entry whose dependencies are not held; entries held already are skipped.
    fn run(&mut self, run: &EntryRun) -> Result<Wrote, String> {
        let held = self.meta.vector.get(run.origin);
        if run.from == Seq::ZERO {
            return Err(format!("the run {run:?} begins at no entry"));
        }
        if run.from.0 > held.0.saturating_add(1) {
            return Ok(Wrote::Waits { on: EntryId { origin: run.origin, seq: Seq(run.from.0 - 1) } });
        }
        let skipped = usize::try_from(held.0 + 1 - run.from.0).unwrap_or(usize::MAX);
        let mut entries = Vec::new();
        let mut newest = Hlc::ZERO;
        let mut seq = held;
        for bytes in run.entries.iter().skip(skipped) {
            seq = seq.next();
            let entry = Entry::decode(bytes).map_err(|error| format!("{} {seq:?}: {error}", run.origin))?;
            if entry.id != (EntryId { origin: run.origin, seq }) {
                return Err(format!("{} {seq:?}: holds the entry {:?}", run.origin, entry.id));
            }
            if entry.hlc <= newest {
                return Err(format!("{} {seq:?}: its clock does not rise", run.origin));
            }
            newest = entry.hlc;
            entries.push((entry, bytes));
        }
        for (entry, bytes) in entries {
            let lacked = entry.after.iter().find(|(origin, seq)| *seq > self.meta.vector.get(*origin));
            if let Some((origin, seq)) = lacked.filter(|(origin, _)| *origin != run.origin) {
                return Ok(Wrote::Waits { on: EntryId { origin, seq } });
            }
            self.append(&entry, bytes);
            let proved = self.proved.entry(run.origin).or_default();
            proved.merge(&entry.after);
            proved.raise(run.origin, entry.id.seq);
            self.meta.news.raise(run.origin, entry.id.seq);
        }
        Ok(Wrote::Done)
    }

    /// Merges a part of a snapshot in, and remembers in the same transaction where the next one begins: whoever is
    /// primary then goes on there.
    fn part(&mut self, part: Part) -> Result<(), String> {
        let vector = Cursor::advance(self.meta.snapshot.as_ref(), &part)?;
        check_vector(&vector)?;
        let hlc = snapshot::merge_elements(&mut self.rows, &mut self.meta, &part.bytes)?;
        self.meta.hlc = self.meta.hlc.max(hlc);
        self.meta.ahead.on_part(&part.vector);
        if let Some(at) = part.next {
            self.meta.snapshot = Some(Cursor { at, vector });
        } else {
            self.meta.snapshot = None;
            self.adopt(&vector);
        }
        Ok(())
    }

    /// The log of a raised origin goes on after a place that it never held: all of it goes.
    fn adopt(&mut self, vector: &Vector) {
        for (origin, seq) in vector.iter() {
            if seq > self.meta.vector.get(origin) {
                self.forget(origin, seq);
                self.meta.vector.raise(origin, seq);
                self.meta.news.raise(origin, seq);
            }
        }
    }

    fn begin(&mut self, origin: Origin) -> Result<(), String> {
        self.meta.origin = Some(origin);
        self.meta.news = self.meta.vector.clone();
        self.meta.news.set(origin, Seq::ZERO);
        self.meta.retired.shorten(&mut self.meta.news, |_| true);
        Ok(())
    }

    fn trim(&mut self, keep: &Keep) -> Result<(), String> {
        if let Some(before) = trim::due(&self.rows, self.meta.trim, keep) {
            self.append_own(Op::Trim { before }, RequestId::of_trim());
        }
        Ok(())
    }

    fn retire(&mut self, origin: Origin, last: Seq) -> Result<(), String> {
        let former = self.meta.origin.is_some_and(|own| own.host == origin.host && own != origin);
        if former && self.meta.vector.get(origin) == last && !self.meta.retired.ends(origin, last) {
            self.append_own(Op::Retire { origin, last }, RequestId::of_retirement());
        }
        Ok(())
    }

    /// Logs and applies what the host itself says.
    fn append_own(&mut self, op: Op, request: RequestId) {
        if let Some(origin) = self.meta.origin {
            let id = EntryId { origin, seq: self.meta.vector.get(origin).next() };
            let hlc = self.meta.hlc.tick(self.wall);
            let after = std::mem::take(&mut self.meta.news);
            let entry = Entry { id, hlc, user: UserId::NOBODY, request, after, op };
            self.append(&entry, &entry.encode());
        }
    }

    /// One step of a walk, at whose end all rows are of what is held. A snapshot that is not whole counts no more.
    fn sweep(&mut self) -> Result<(), String> {
        if self.meta.ahead.vector.is_empty() {
            return Ok(());
        }
        self.meta.snapshot = None;
        self.meta.ahead.sweep(&mut self.rows, self.meta.trim, &self.meta.vector);
        self.meta.retired.keep_held(&self.meta.vector);
        if self.meta.ahead.vector.is_empty() && self.meta.trim > Hlc::ZERO {
            // The trim that was told may be nobody's any more, too. What it took is gone: so all are to follow it.
            self.append_own(Op::Trim { before: self.meta.trim }, RequestId::of_trim());
        }
        Ok(())
    }

    fn cut(&mut self, vector: &Vector) -> Result<(), String> {
        for (origin, seq) in vector.iter() {
            self.forget(origin, seq.min(self.meta.vector.get(origin)));
        }
        Ok(())
    }

    /// Takes an origin's entries up to this place out of the log.
    fn forget(&mut self, origin: Origin, upto: Seq) {
        if upto <= self.meta.cut.get(origin) {
            return;
        }
        let (from, to) = (keys::origin(origin), keys::after(&keys::log(EntryId { origin, seq: upto })));
        let mut gone = Vec::new();
        self.rows.ascend(Table::Log, &from, &to, &mut |key, _| {
            gone.push(key.to_vec());
            Walk::On
        });
        for key in gone {
            self.rows.delete(Table::Log, &key);
        }
        self.meta.cut.raise(origin, upto);
        if self.meta.retired.ends(origin, upto) {
            blocks::forget_origin(&mut self.rows, origin);
        }
    }
}
