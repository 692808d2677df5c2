//! Each host's store: one writer at a time, group commits that take simulated time, readers that see what was synced.
//!
//! Legal here: a process that dies between the start of its transaction and the end of the sync leaves all of it or
//! nothing; a stopped process keeps the lock; a full disk refuses the whole batch; a sync may fail, and then its batch
//! is there or not. Not legal, and not simulated: a sync that lies (P1 would have nothing to stand on).

use std::collections::VecDeque;

use gaggle::core::io::{Input, Output, StoreTrouble};
use gaggle::id::{Epoch, Vector};
use gaggle::limits;
use gaggle::service::blocks;
use gaggle::service::entry::Entry;
use gaggle::service::feed;
use gaggle::service::ledger::{self, Committed, Standing, Write, WriteId};
use gaggle::service::log;
use gaggle::service::query;
use gaggle::service::rows::Rows;
use gaggle::service::snapshot;

use super::history::SnapshotRows;
use super::mutants::{Mutant, Seen};
use super::rows::{Changes, Tables, Transaction};
use super::world::{Event, State, World};

/// Why a process ends itself, without blame.
pub(crate) const SYNC_FAILED: &str = "a sync failed, as it was told to";

/// No commit takes longer, in microseconds, however slow the disk is.
const COMMIT_MAX: u64 = 400_000;

/// What is said here is little: small parts, so that a snapshot has many, and breaks between them.
const SNAPSHOT_BYTES: usize = 100;

/// Entries of one digest of the log: few, so that there are some, and comparisons of them.
pub(crate) const LOG_BLOCK: u64 = 8;

/// What waits for the lock.
#[derive(Debug)]
pub(crate) enum Job {
    TakeEpoch,
    /// `seen` is the store's epoch when the write was handed over.
    Persist {
        id: WriteId,
        epoch: Epoch,
        seen: Epoch,
        write: Write,
    },
}

/// A transaction under way.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one transaction, each read by its name")]
#[derive(Debug)]
struct Running {
    token: u64,
    proc: usize,
    life: u32,
    changes: Changes,
    input: Option<Input>,
    standing: Option<Standing>,
    /// The sync is done, but the process is stopped and has not seen it.
    synced: bool,
    /// The tables before it, where a mutant shows it at once.
    before: Option<Tables>,
    /// It holds rows of a snapshot, so that the vector does not tell what is held.
    snapshot: Option<SnapshotRows>,
    /// It takes an epoch.
    takes: bool,
}

/// One host's disk.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one disk, each read by its name")]
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) tables: Tables,
    running: Option<Running>,
    waiting: VecDeque<(usize, u32)>,
    pub(crate) standing: Option<Standing>,
    pub(crate) full: bool,
    /// The next sync fails.
    pub(crate) sync_fails: bool,
    /// Commits take so many times longer.
    pub(crate) slowness: u64,
    /// Reads take so many times longer.
    pub(crate) read_slowness: u64,
}

impl Disk {
    pub(crate) fn vector(&self) -> Vector {
        self.standing.as_ref().map(|standing| standing.vector.clone()).unwrap_or_default()
    }

    /// The newest epoch taken.
    pub(crate) fn epoch(&self) -> Epoch {
        ledger::epoch(&self.tables)
    }

    /// What a backup of it holds.
    pub(crate) fn backup(&self) -> Self {
        Self { tables: self.tables.clone(), standing: self.standing.clone(), ..Self::default() }
    }
}

impl World {
    /// Has a process ask for the lock, if it has something to write.
    pub(crate) fn start_writer(&mut self, proc: usize) {
        let process = &mut self.procs[proc];
        if process.writing || process.jobs.is_empty() {
            return;
        }
        process.writing = true;
        let (host, life) = (process.host, process.life);
        self.disks[host].waiting.push_back((proc, life));
        self.grant(host);
    }

    /// Gives the lock to the first that waits and runs.
    pub(crate) fn grant(&mut self, host: usize) {
        if self.disks[host].running.is_some() {
            return;
        }
        let procs = &self.procs;
        self.disks[host].waiting.retain(|(proc, life)| procs[*proc].life == *life && procs[*proc].state != State::Dead);
        let ready = self.disks[host].waiting.iter().position(|(proc, _)| procs[*proc].state == State::Running);
        let Some((proc, life)) = ready.and_then(|index| self.disks[host].waiting.remove(index)) else { return };
        self.begin(host, proc, life);
    }

    fn begin(&mut self, host: usize, proc: usize, life: u32) {
        let token = self.fresh_id();
        let mut running = Running {
            token,
            proc,
            life,
            changes: Changes::new(),
            input: None,
            standing: None,
            synced: false,
            before: None,
            snapshot: None,
            takes: false,
        };
        match self.procs[proc].jobs.pop_front() {
            Some(Job::TakeEpoch) => self.take_epoch(host, proc, &mut running),
            Some(Job::Persist { id, epoch, seen, write }) => {
                let mut writes = vec![(id, write)];
                while let Some(Job::Persist { epoch: next, .. }) = self.procs[proc].jobs.front() {
                    if *next != epoch || writes.len() >= limits::COMMIT_WRITES_MAX {
                        break;
                    }
                    if let Some(Job::Persist { id, write, .. }) = self.procs[proc].jobs.pop_front() {
                        writes.push((id, write));
                    }
                }
                let fence = match self.options.mutant {
                    Some(Mutant::NoFence) => self.disks[host].epoch(),
                    Some(Mutant::FenceOutside) if seen == epoch => self.disks[host].epoch(),
                    Some(_) | None => epoch,
                };
                self.commit(host, proc, (epoch, fence), writes, &mut running);
            }
            None => {}
        }
        if self.is(Mutant::AckBeforeSync)
            && let Some(input) = running.input.take()
        {
            let life = running.life;
            self.after(20, Event::Input { proc, life, input: Box::new(input) });
        }
        let slow = self.disks[host].slowness.max(1);
        let after = (self.dice.between(self.load.commit.0, self.load.commit.1) * slow).min(COMMIT_MAX);
        if std::mem::take(&mut self.disks[host].sync_fails) {
            self.fail_sync(&mut running);
        }
        if self.is(Mutant::ServeBeforeSync) {
            let disk = &mut self.disks[host];
            running.before = Some(disk.tables.clone());
            disk.tables.apply(running.changes.clone());
        }
        self.disks[host].running = Some(running);
        self.after(after, Event::Synced { host, token });
    }

    /// Nobody knows whether the batch is on the disk, and its process cannot go on.
    fn fail_sync(&mut self, running: &mut Running) {
        let trouble = || StoreTrouble::Failed(SYNC_FAILED.to_owned());
        running.input = match running.input.take() {
            Some(Input::Persisted { writes, .. }) => Some(Input::Persisted { writes, result: Err(trouble()) }),
            Some(_) => Some(Input::EpochTaken(Err(trouble()))),
            None => None,
        };
        if self.dice.chance(500) {
            running.standing = None;
        }
    }

    fn take_epoch(&mut self, host: usize, proc: usize, running: &mut Running) {
        let mark = self.procs[proc].mark();
        let mut rows = Transaction::new(&self.disks[host].tables);
        let standing = ledger::take_epoch(&mut rows, &mark);
        running.changes = rows.into_changes();
        running.standing = Some(standing.clone());
        running.takes = true;
        running.input = Some(Input::EpochTaken(Ok(standing)));
    }

    fn commit(
        &mut self,
        host: usize,
        proc: usize,
        (epoch, fence): (Epoch, Epoch),
        writes: Vec<(WriteId, Write)>,
        running: &mut Running,
    ) {
        let ids: Vec<WriteId> = writes.iter().map(|(id, _)| *id).collect();
        if self.disks[host].full {
            running.input = Some(Input::Persisted { writes: ids, result: Err(StoreTrouble::Full) });
            return;
        }
        let snapshot = self.rows_in(host, &writes);
        let wall = self.now(proc).wall;
        let rows = Transaction::new(&self.disks[host].tables);
        let mut rows = Seen::new(rows, self.options.mutant, self.topology.hosts[host].id);
        let result = ledger::commit_in_blocks(&mut rows, fence, wall, writes, LOG_BLOCK);
        let changes = rows.into_rows().into_changes();
        match &result {
            Ok(committed) => {
                running.changes = changes;
                running.standing = Some(committed.standing.clone());
                running.snapshot = snapshot;
                self.check_commit(host, proc, epoch, &ids, committed);
            }
            Err(fenced) => {
                if fenced.newest == epoch {
                    self.fail(format!("host {host}: fenced at its own epoch {epoch:?}"));
                }
            }
        }
        let result = result.map_err(StoreTrouble::Fenced);
        running.input = Some(Input::Persisted { writes: ids, result });
    }

    /// What a batch holds of a snapshot.
    fn rows_in(&mut self, host: usize, writes: &[(WriteId, Write)]) -> Option<SnapshotRows> {
        let mut rows = writes.iter().filter_map(|(_, write)| match write {
            Write::Rows(part) if part.next.is_some() => Some(SnapshotRows::Some),
            Write::Rows(_) => Some(SnapshotRows::Last),
            Write::Request(_)
            | Write::Run(_)
            | Write::Begin(_)
            | Write::Cut(_)
            | Write::Trim(_)
            | Write::Retire { .. }
            | Write::Sweep => None,
        });
        let rows = rows.next_back()?;
        self.note(|| format!("host {host} takes a snapshot: {rows:?}"));
        Some(rows)
    }

    fn check_commit(&mut self, host: usize, proc: usize, epoch: Epoch, ids: &[WriteId], committed: &Committed) {
        let verdict = self.history.on_commit(host, (proc, self.procs[proc].life), epoch);
        self.judge(verdict);
        if committed.standing.epoch != epoch {
            self.fail(format!("a commit under {epoch:?} while the store is at {:?}", committed.standing.epoch));
        }
        if !committed.outcomes.iter().map(|(id, _)| id).eq(ids) {
            self.fail(format!("host {host}: a commit of {ids:?} tells of {:?}", committed.outcomes));
        }
    }

    pub(crate) fn on_synced(&mut self, host: usize, token: u64) {
        let Some(running) = self.disks[host].running.as_mut().filter(|running| running.token == token) else { return };
        let proc = running.proc;
        if self.procs[proc].state == State::Stopped {
            running.synced = true;
            return;
        }
        self.finish(host);
    }

    /// A process that goes on sees that its sync is done.
    pub(crate) fn finish_if_synced(&mut self, host: usize, proc: usize) {
        if self.disks[host].running.as_ref().is_some_and(|running| running.proc == proc && running.synced) {
            self.finish(host);
        }
        self.grant(host);
    }

    fn finish(&mut self, host: usize) {
        let Some(running) = self.disks[host].running.take() else { return };
        let (proc, life) = (running.proc, running.life);
        let input = running.input.clone();
        self.make_durable(host, running);
        self.procs[proc].writing = false;
        if let Some(input) = input {
            let after = self.dice.between(5, 50);
            self.after(after, Event::Input { proc, life, input: Box::new(input) });
        }
        self.grant(host);
        self.start_writer(proc);
    }

    /// A process died: its transaction happened or did not, and the lock is free.
    pub(crate) fn abandon(&mut self, host: usize, proc: usize) {
        if self.disks[host].running.as_ref().is_some_and(|running| running.proc == proc)
            && let Some(running) = self.disks[host].running.take()
        {
            let lucky = running.synced || self.dice.chance(500);
            if lucky && !self.is(Mutant::AckBeforeSync) {
                self.make_durable(host, running);
            } else if let Some(before) = running.before {
                self.disks[host].tables = before;
            }
        }
        self.grant(host);
    }

    fn make_durable(&mut self, host: usize, running: Running) {
        let Some(standing) = running.standing else { return };
        self.counts.commits += 1;
        self.counts.snapshots += u64::from(running.snapshot == Some(SnapshotRows::Last));
        let disk = &mut self.disks[host];
        disk.tables.apply(running.changes);
        let (before, trim) =
            disk.standing.replace(standing.clone()).map(|before| (before.vector, before.trim)).unwrap_or_default();
        self.counts.trims += u64::from(standing.trim > trim);
        if running.takes {
            let verdict = self.history.on_taken(host, (running.proc, running.life), standing.epoch);
            self.judge(verdict);
        }
        let verdict = self.history.on_durable(host, &standing, running.snapshot, self.clock);
        self.judge(verdict);
        self.read_entries(host, &before, &standing.vector);
    }

    /// Reads what a commit brought.
    fn read_entries(&mut self, host: usize, before: &Vector, after: &Vector) {
        let places = after.iter().map(|(origin, seq)| (origin, before.get(origin), seq));
        let places = places.filter(|(_, held, seq)| held < seq).map(|(origin, held, _)| (origin, held));
        // One origin at a time: a read of several is bounded in its turns.
        let rows = &self.disks[host].tables;
        let runs: Vec<_> = places.flat_map(|place| log::read_log(&rows, &[place], usize::MAX).runs).collect();
        let mut entries = Vec::new();
        for bytes in runs.iter().flat_map(|run| &run.entries) {
            match Entry::decode(bytes) {
                Ok(entry) => entries.push(entry),
                Err(error) => self.fail(format!("host {host}: the log holds bytes that are {error}")),
            }
        }
        let verdict = self.history.on_entries(host, &entries, self.clock);
        self.judge(verdict);
    }

    /// What a host's processes read.
    pub(crate) fn seen_rows(&self, host: usize) -> Seen<&Tables> {
        Seen::new(&self.disks[host].tables, self.options.mutant, self.topology.hosts[host].id)
    }

    /// Answers a read from what is durable now.
    pub(crate) fn on_read(&mut self, proc: usize, life: u32, read: &Output) {
        if !self.lives(proc, life) {
            return;
        }
        let host = self.procs[proc].host;
        let rows: &dyn Rows = &self.seen_rows(host);
        let input = match read {
            Output::ReadLog { read, after, bytes_max } => {
                Input::LogRead { read: *read, chunk: log::read_log(rows, after, *bytes_max) }
            }
            Output::ReadSnapshot { read, at } => Input::SnapshotRead {
                read: *read,
                chunk: snapshot::read_chunk(rows, at, SNAPSHOT_BYTES),
                standing: ledger::standing(rows),
            },
            Output::ReadDigests { read, after } => {
                Input::DigestsRead { read: *read, digests: blocks::digests(rows, after) }
            }
            Output::CompareDigests { with, told } => {
                let compared = blocks::compare(rows, told);
                Input::DigestsCompared { with: *with, compared }
            }
            Output::Query { client, number, shown, query } => Input::QueryDone {
                client: *client,
                number: *number,
                epoch: ledger::epoch(rows),
                result: self.changed_answer(shown, query::answer(rows, shown, query)),
            },
            Output::ReadFeeds { read, from, shown, feeds } => {
                let (steps, cursor) = feed::advance(rows, from, shown, feeds);
                Input::FeedsRead { read: *read, epoch: ledger::epoch(rows), steps, cursor }
            }
            Output::Send { .. }
            | Output::Beat { .. }
            | Output::Reply { .. }
            | Output::Feed { .. }
            | Output::TakeEpoch
            | Output::Persist { .. }
            | Output::Restart { .. }
            | Output::Kill { .. }
            | Output::Exit { .. } => return,
        };
        if let Input::DigestsCompared { with, compared } = &input {
            let verdict = self.blame_differences(host, *with, &compared.differing);
            self.judge(verdict);
        }
        let after = self.dice.between(10, 100) * self.disks[host].read_slowness.max(1);
        self.after(after, Event::Input { proc, life, input: Box::new(input) });
    }
}
