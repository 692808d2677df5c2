//! Tests of the whole room over rows in memory.

mod blocks;
mod golden;
mod ledger;
mod merge;
mod people;
mod reading;
mod retired;
mod sweep;
mod trim;

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::id::{EntryId, Epoch, Origin, ProcessId, PublicKey, RequestId, Seq, UserId, Vector};
use crate::service::entry::{Entry, Op};
use crate::service::intake::{Accepted, IntakeResult, WriteOp, WriteRequest};
use crate::service::ledger::{Committed, EntryRun, Standing, Write, WriteId, WriterMark, Wrote, commit, take_epoch};
use crate::service::rows::{Rows, RowsMut, Table, Walk};
use crate::time::{Hlc, Wall};

/// Rows in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct MemRows(BTreeMap<(Table, Vec<u8>), Vec<u8>>);

impl MemRows {
    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = (&Vec<u8>, &Vec<u8>)> {
        assert!(to.is_empty() || from <= to, "a store need not bear a range that ends before it begins");
        let upper = match (to.is_empty(), Table::ALL.get(table as usize + 1)) {
            (false, _) => Bound::Excluded((table, to.to_vec())),
            (true, Some(next)) => Bound::Excluded((*next, Vec::new())),
            (true, None) => Bound::Unbounded,
        };
        self.0.range((Bound::Included((table, from.to_vec())), upper)).map(|((_, key), value)| (key, value))
    }

    /// Only the rows that the digest covers.
    pub(super) fn merged(&self) -> Self {
        Self(self.0.iter().filter(|((table, _), _)| table.merged()).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    pub(super) fn table(&self, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.range(table, &[], &[]).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl Rows for MemRows {
    fn count(&self, table: Table) -> u64 {
        self.range(table, &[], &[]).count() as u64
    }

    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(&(table, key.to_vec())).cloned()
    }

    fn ascend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        let _ = self.range(table, from, to).find(|(key, value)| visit(key, value) == Walk::Stop);
    }

    fn descend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        let _ = self.range(table, from, to).rev().find(|(key, value)| visit(key, value) == Walk::Stop);
    }
}

impl RowsMut for MemRows {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.0.insert((table, key.to_vec()), value.to_vec());
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.0.remove(&(table, key.to_vec()));
    }
}

pub(super) fn origin(host: &str) -> Origin {
    Origin { host: host.parse().unwrap(), incarnation: 7 }
}

pub(super) fn key(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

pub(super) fn user(number: u8) -> UserId {
    UserId::of(&key(number))
}

pub(super) fn entry(host: &str, seq: u64, hlc: u64, who: u8, request: &str, op: Op) -> Entry {
    let id = EntryId { origin: origin(host), seq: Seq(seq) };
    Entry { id, hlc: Hlc(hlc), user: user(who), request: request.parse().unwrap(), after: Vector::new(), op }
}

/// An entry that a host makes for nobody.
pub(super) fn own_entry(host: &str, seq: u64, hlc: u64, op: Op) -> Entry {
    let request = if matches!(op, Op::Trim { .. }) { RequestId::of_trim() } else { RequestId::of_retirement() };
    let id = EntryId { origin: origin(host), seq: Seq(seq) };
    Entry { id, hlc: Hlc(hlc), user: UserId::NOBODY, request, after: Vector::new(), op }
}

/// One host: rows, its epoch, and a clock that rises by a microsecond at each commit.
pub(super) struct Host {
    pub(super) rows: MemRows,
    pub(super) epoch: Epoch,
    pub(super) origin: Origin,
    pub(super) wall: Wall,
    requests: u32,
}

impl Host {
    pub(super) fn new(name: &str, wall: u64) -> Self {
        let mut rows = MemRows::default();
        let process: ProcessId = "P".parse().unwrap();
        let epoch = take_epoch(&mut rows, &WriterMark { process, pid: 1 }).epoch;
        let mut host = Self { rows, epoch, origin: origin(name), wall: Wall(wall), requests: 0 };
        let begun = host.write(Write::Begin(host.origin));
        assert_eq!(begun, Wrote::Done);
        host
    }

    pub(super) fn commit(&mut self, writes: Vec<Write>) -> Committed {
        self.wall.0 += 1;
        let writes = writes.into_iter().zip(0..).map(|(write, id)| (WriteId(id), write)).collect();
        commit(&mut self.rows, self.epoch, self.wall, writes).unwrap()
    }

    pub(super) fn write(&mut self, write: Write) -> Wrote {
        self.commit(vec![write]).outcomes.pop().unwrap().1
    }

    pub(super) fn try_ask(&mut self, who: u8, id: &str, op: WriteOp) -> IntakeResult {
        let request = WriteRequest { key: key(who), id: id.parse().unwrap(), op };
        let Wrote::Request(result) = self.write(Write::Request(request)) else { panic!("not an answer") };
        result
    }

    /// Asks with a fresh id.
    pub(super) fn ask(&mut self, who: u8, op: WriteOp) -> Accepted {
        self.requests += 1;
        let id = format!("{}-{}", self.origin, self.requests);
        self.try_ask(who, &id, op).unwrap()
    }

    pub(super) fn register(&mut self, who: u8, name: &str) -> Accepted {
        self.ask(who, WriteOp::Register { name: name.parse().unwrap() })
    }

    pub(super) fn join(&mut self, who: u8, name: &str) -> Accepted {
        self.ask(who, WriteOp::Join { name: name.into() })
    }

    pub(super) fn leave(&mut self, who: u8, name: &str) -> Accepted {
        self.ask(who, WriteOp::Leave { name: name.into() })
    }

    pub(super) fn post(&mut self, who: u8, text: &str) -> Accepted {
        self.ask(who, WriteOp::Post { text: text.parse().unwrap() })
    }

    pub(super) fn standing(&self) -> Standing {
        crate::service::ledger::standing(&self.rows)
    }

    /// Takes all that another host has and this one lacks.
    pub(super) fn pull(&mut self, other: &Self) {
        let held = self.standing().vector;
        let after: Vec<_> = other.standing().vector.iter().map(|(origin, _)| (origin, held.get(origin))).collect();
        let chunk = crate::service::log::read_log(&other.rows, &after, usize::MAX);
        assert_eq!(chunk.cut, []);
        for run in chunk.runs {
            assert_eq!(self.write(Write::Run(run)), Wrote::Done);
        }
    }
}

pub(super) fn run(host: &str, from: u64, entries: &[Entry]) -> EntryRun {
    EntryRun { origin: origin(host), from: Seq(from), entries: entries.iter().map(Entry::encode).collect() }
}
