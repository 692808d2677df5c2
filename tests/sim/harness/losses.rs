//! Disks that do not survive: emptied, put back to an older backup, or failing to sync.
//!
//! Within the budget of the promises: of one cluster only one host ever loses what it had, so whatever two hosts held
//! is still somewhere. What only the lost disk held is noted as gone: people may miss it, if it was shown because no
//! second copy could be had. What a failed sync should have covered is on the disk or not; the process ends either way.

use gaggle::service::ledger;

use super::Mutant;
use super::disk::Disk;
use super::history::Facts;
use super::rows::Transaction;
use super::world::World;

/// A backup, and what is known of the disk that it makes.
#[derive(Debug)]
pub(crate) struct Backup(Disk, Facts);

impl World {
    /// The host's folder is emptied while none of its processes lives.
    pub(crate) fn lose_disk(&mut self) {
        let host = self.history.losses.host;
        self.kill_host(host);
        self.replace_disk(host, Disk::default(), Facts::default());
    }

    /// An operator makes a backup, and another time puts it back.
    pub(crate) fn back_up_or_restore(&mut self) {
        let host = self.history.losses.host;
        match self.backup.take() {
            None => self.backup = Some(Backup(self.disks[host].backup(), self.history.hosts[host].backup())),
            Some(Backup(mut disk, facts)) => {
                self.kill_host(host);
                if !self.is(Mutant::OldIncarnation) {
                    let mut rows = Transaction::new(&disk.tables);
                    ledger::forget_origin(&mut rows);
                    let changes = rows.into_changes();
                    disk.tables.apply(changes);
                }
                self.replace_disk(host, disk, facts);
            }
        }
    }

    fn replace_disk(&mut self, host: usize, new: Disk, facts: Facts) {
        let (before, kept) = (self.disks[host].vector(), new.vector());
        self.note(|| format!("host {host} is put back from {before:?} to {kept:?}"));
        let old = std::mem::replace(&mut self.disks[host], new);
        let new = &mut self.disks[host];
        (new.full, new.slowness, new.read_slowness) = (old.full, old.slowness, old.read_slowness);
        let verdict = self.history.on_replaced(host, facts, self.clock);
        self.judge(verdict);
    }
}
