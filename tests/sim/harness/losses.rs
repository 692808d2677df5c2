//! Disks that do not survive: emptied, put back to an older backup, or failing to sync.
//!
//! Within the budget of the promises: of one cluster only one host ever loses what it had, so whatever two hosts held
//! is still somewhere. What only the lost disk held is noted as gone: people may miss it, if it was shown because no
//! second copy could be had. What a failed sync should have covered is on the disk or not; the process ends either way.

use std::collections::{BTreeMap, BTreeSet};

use gaggle::id::{EntryId, Origin, Seq, Vector};
use gaggle::service::ledger;

use super::Mutant;
use super::disk::Disk;
use super::rows::Transaction;
use super::world::{World, micros};

/// What was lost so far.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// The only host that loses anything.
    pub(crate) host: usize,
    backup: Option<Disk>,
    /// What the lost disks held.
    held: Vector,
    /// Held by no disk after a loss.
    gone: BTreeSet<EntryId>,
    /// When each entry was first durable.
    pub(crate) made_at: BTreeMap<EntryId, u64>,
    /// Origins of which an entry was acknowledged with one copy.
    pub(crate) thin: BTreeSet<Origin>,
}

impl World {
    /// The host's folder is emptied while none of its processes lives.
    pub(crate) fn lose_disk(&mut self) {
        let host = self.losses.host;
        self.kill_host(host);
        self.replace_disk(host, Disk::default());
    }

    /// An operator makes a backup, and another time puts it back.
    pub(crate) fn back_up_or_restore(&mut self) {
        let host = self.losses.host;
        match self.losses.backup.take() {
            None => self.losses.backup = Some(self.disks[host].backup()),
            Some(mut backup) => {
                self.kill_host(host);
                if !self.is(Mutant::OldIncarnation) {
                    let mut rows = Transaction::new(&backup.tables);
                    ledger::forget_origin(&mut rows);
                    let changes = rows.into_changes();
                    backup.tables.apply(changes);
                }
                self.replace_disk(host, backup);
            }
        }
    }

    fn replace_disk(&mut self, host: usize, new: Disk) {
        let before = self.disks[host].vector();
        let kept = new.vector();
        self.note(|| format!("host {host} is put back from {before:?} to {kept:?}"));
        let old = std::mem::replace(&mut self.disks[host], new);
        (self.disks[host].full, self.disks[host].slowness) = (old.full, old.slowness);
        for (origin, seq) in before.iter() {
            let elsewhere = self.disks.iter().map(|disk| disk.vector().get(origin)).max().unwrap_or(Seq::ZERO);
            for gone in elsewhere.0 + 1..=seq.0 {
                self.note_gone(EntryId { origin, seq: Seq(gone) });
            }
        }
        self.losses.held.merge(&before);
    }

    /// Nobody has seen what had to have two copies and had one.
    fn note_gone(&mut self, entry: EntryId) {
        // A write of which fewer copies could be had is answered after this, shown, and lost if it must be.
        let wait = micros(gaggle::limits::COPIES_WAIT);
        let waited = self.losses.made_at.get(&entry).is_none_or(|at| self.clock - at >= wait);
        let seen = self.people.iter().position(|person| person.token.vector.holds(entry));
        if let Some(person) = seen.filter(|_| !waited && !self.losses.thin.contains(&entry.origin)) {
            self.fail(format!("P3: person{person} has seen {entry:?}, of which the only copy is lost"));
        }
        self.losses.gone.insert(entry);
    }

    /// Whether nobody can be blamed for the lack of this entry.
    pub(crate) fn is_gone(&self, entry: EntryId) -> bool {
        self.losses.gone.contains(&entry)
    }

    /// How many hosts hold an entry durably, or did before their disks were lost.
    pub(crate) fn copies(&self, entry: EntryId) -> usize {
        let lost = self.losses.held.holds(entry) && !self.disks[self.losses.host].vector().holds(entry);
        self.disks.iter().filter(|disk| disk.vector().holds(entry)).count() + usize::from(lost)
    }
}
