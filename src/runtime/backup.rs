//! Backups of a host: made while its processes run, and put in place of a store that is gone.
//!
//! Making one opens the host's store as one more process and reads it in one transaction; it writes no run file, so
//! nobody takes it for a process of the host. A file is checked as a whole before it gets its name, and again before
//! anything is restored from it. A restore fills a folder of its own beside the store's place, which it then takes by one
//! rename: what breaks off leaves nothing half done. It refuses while anything of the host lives, by the run files and,
//! because the data folder may be a new one, by the ports.
//!
//! `store/backup.rs` has the format and its proofs, `tests/it/backups.rs` the proof that a cluster goes on.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, ErrorKind};
use std::net::UdpSocket;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::process::living_processes;
use crate::id::HostId;
use crate::store::{
    BackupFault, BackupHead, BackupReader, LmdbStore, MakeError, Next, RestoreError, SUBFOLDER, StoreIdentity,
    restore_rows, write_backup,
};
use crate::topology::Topology;

/// Bytes that are read or written at once.
const BUFFER_BYTES: usize = 1 << 16;

/// Whose fault it is that nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// What was asked for cannot be meant.
    Request,
    /// The machine, the file, or what runs.
    Machine,
    /// Whoever asked has changed their mind.
    Interrupted,
}

/// Why a verb of `backup` did nothing.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct BackupError {
    /// Whose fault it is.
    pub blame: Blame,
    /// What happened, to what.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl BackupError {
    fn new(blame: Blame, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { blame, message: message.into(), hint: hint.into() }
    }

    fn machine(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Blame::Machine, message, hint)
    }

    fn interrupted() -> Self {
        Self::new(Blame::Interrupted, "interrupted: nothing was done", "ask again")
    }

    /// A backup that is not sound.
    fn fault(path: &Path, fault: &BackupFault) -> Self {
        let hint = match fault {
            BackupFault::NotOne => "name a file that `gaggle backup create` made",
            BackupFault::Newer { .. } => "use a newer gaggle",
            BackupFault::Short { .. } | BackupFault::Damaged { .. } => "use another copy of it, or another backup",
            BackupFault::Io { .. } => "check the file and its disk",
        };
        Self::machine(format!("{}: {fault}", path.display()), hint)
    }

    fn io(path: &Path, error: &io::Error) -> Self {
        let hint = match error.kind() == ErrorKind::StorageFull {
            true => "make room, or choose another place",
            false => "check the path, and who owns it",
        };
        Self::machine(format!("{}: {error}", path.display()), hint)
    }
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSummary {
    /// Whose, and of when.
    pub head: BackupHead,
    /// Rows of all tables.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Where a host's data lies.
#[derive(Debug, Clone)]
pub struct BackupPlace {
    /// The cluster.
    pub topology: Topology,
    /// The folder that the topology's own are relative to.
    pub base: PathBuf,
    /// The host.
    pub host: HostId,
}

impl BackupPlace {
    /// The host's data folder.
    pub fn folder(&self) -> PathBuf {
        self.base.join(&self.topology.data).join(self.host.to_string())
    }

    fn identity(&self) -> StoreIdentity {
        StoreIdentity { cluster: self.topology.cluster.clone(), host: self.host }
    }
}

/// The hosts of the topology whose stores are on this machine.
pub fn hosts_here(topology: &Topology, base: &Path) -> Vec<HostId> {
    let data = base.join(&topology.data);
    let is_here = |host: &HostId| LmdbStore::is_there(&data.join(host.to_string()));
    topology.hosts.iter().map(|host| host.id).filter(is_here).collect()
}

/// Makes a backup of a host, whether its processes run or not. Blocks.
pub fn create_backup(
    place: &BackupPlace,
    path: &Path,
    cancel: &CancellationToken,
) -> Result<BackupSummary, BackupError> {
    refuse_taken(path)?;
    let store = LmdbStore::open_as_it_is(&place.folder(), &place.identity()).map_err(|error| {
        BackupError::machine(error.to_string(), "run this where the host's data is, as the user who runs the host")
    })?;
    let unnamed = Unnamed::beside(path)?;
    let written = write(place, &store, &unnamed, cancel)?;
    drop(store);
    written.sync_all().map_err(|error| BackupError::io(path, &error))?;
    drop(written);
    // What is to be relied on is what lies there, not what was meant to.
    let summary = verify(&unnamed.path, path, cancel)?;
    unnamed.name(path)?;
    Ok(summary)
}

fn write(
    place: &BackupPlace,
    store: &LmdbStore,
    unnamed: &Unnamed,
    cancel: &CancellationToken,
) -> Result<File, BackupError> {
    let file = OpenOptions::new().write(true).open(&unnamed.path);
    let out = file.map(|file| BufWriter::with_capacity(BUFFER_BYTES, file));
    let out = out.map_err(|error| BackupError::io(&unnamed.path, &error))?;
    let made = Clock::start().now().wall;
    let written = write_backup(store, &place.identity(), made, out, &|| !cancel.is_cancelled());
    let written = written.map_err(|error| match error {
        MakeError::Io(error) => BackupError::io(&unnamed.path, &error),
        MakeError::Store(error) => {
            let message = format!("{}: {error}", place.folder().display());
            BackupError::machine(message, "its store cannot be trusted: make a backup of another host")
        }
        MakeError::Stopped => BackupError::interrupted(),
    })?;
    written.into_inner().map_err(|error| BackupError::io(&unnamed.path, error.error()))
}

fn refuse_taken(path: &Path) -> Result<(), BackupError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(taken(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(BackupError::io(path, &error)),
    }
}

fn taken(path: &Path) -> BackupError {
    BackupError::machine(format!("{} is there already", path.display()), "choose another name, or move it away")
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// A file or folder that has not got its name yet: unless it gets it, it is removed.
#[derive(Debug)]
struct Unnamed {
    path: PathBuf,
}

impl Unnamed {
    fn name_beside(path: &Path) -> Result<PathBuf, BackupError> {
        let Some(name) = path.file_name() else {
            let message = format!("{} names no file", path.display());
            return Err(BackupError::new(Blame::Request, message, "give the file a name"));
        };
        let mut unnamed = name.to_owned();
        unnamed.push(format!(".{}.new", std::process::id()));
        Ok(path.with_file_name(unnamed))
    }

    /// A new file beside the one that it is to become, for its owner alone.
    fn beside(path: &Path) -> Result<Self, BackupError> {
        let unnamed = Self::name_beside(path)?;
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unnamed);
        made.map(|_| Self { path: unnamed.clone() }).map_err(|error| BackupError::io(&unnamed, &error))
    }

    /// A new folder beside the one that something in it is to become.
    fn folder_beside(path: &Path) -> Result<Self, BackupError> {
        let unnamed = Self::name_beside(path)?;
        let made = DirBuilder::new().mode(0o700).create(&unnamed);
        made.map(|()| Self { path: unnamed.clone() }).map_err(|error| BackupError::io(&unnamed, &error))
    }

    /// Gives the file its name, durably, unless that is taken by now.
    fn name(self, path: &Path) -> Result<(), BackupError> {
        let renamed = match renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => return Err(taken(path)),
            // A file system that cannot do both at once.
            Err(Errno::INVAL | Errno::NOSYS) => {
                refuse_taken(path)?;
                fs::rename(&self.path, path)
            }
            other => other.map_err(Into::into),
        };
        let named = renamed.and_then(|()| File::open(parent(path))?.sync_all());
        named.map_err(|error| BackupError::io(path, &error))
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        // It has its name, and is not here any more; or it is of no use.
        let _ = fs::remove_file(&self.path).or_else(|_| fs::remove_dir_all(&self.path));
    }
}

/// Reads a backup from its first byte to its last, and tells what it holds. Blocks.
pub fn verify_backup(path: &Path, cancel: &CancellationToken) -> Result<BackupSummary, BackupError> {
    verify(path, path, cancel)
}

fn open(path: &Path, name: &Path) -> Result<BackupReader<BufReader<File>>, BackupError> {
    let file = File::open(path).map_err(|error| BackupError::io(name, &error))?;
    BackupReader::open(BufReader::with_capacity(BUFFER_BYTES, file)).map_err(|fault| BackupError::fault(name, &fault))
}

fn verify(path: &Path, name: &Path, cancel: &CancellationToken) -> Result<BackupSummary, BackupError> {
    let mut reader = open(path, name)?;
    while reader.step(&mut |_, _, _| {}).map_err(|fault| BackupError::fault(name, &fault))? == Next::Rows {
        if cancel.is_cancelled() {
            return Err(BackupError::interrupted());
        }
    }
    Ok(BackupSummary { head: reader.head().clone(), rows: reader.rows(), bytes: reader.bytes() })
}

/// Makes the store of a host that has none from a backup. Nothing is changed unless all of it is sound. Blocks.
pub fn restore_backup(
    place: &BackupPlace,
    path: &Path,
    cancel: &CancellationToken,
) -> Result<BackupSummary, BackupError> {
    let (found, wanted) = (open(path, path)?.head().identity(), place.identity());
    if found != wanted {
        let message = format!("{} is a backup of {found}, not of {wanted}", path.display());
        let hint = "name the host that it is of, and its cluster's topology file";
        return Err(BackupError::new(Blame::Request, message, hint));
    }
    refuse_living(place)?;
    refuse_store(place)?;
    let summary = verify(path, path, cancel)?;

    let folder = place.folder();
    let failed = |error: &io::Error| BackupError::io(&folder, error);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|error| failed(&error))?;
    let filling = Unnamed::folder_beside(&folder.join(SUBFOLDER))?;
    restore_rows(&filling.path, open(path, path)?, &|| !cancel.is_cancelled()).map_err(|error| match error {
        RestoreError::Backup(fault) => BackupError::fault(path, &fault),
        RestoreError::Open(error) => BackupError::machine(error.to_string(), "check the folder, and who owns it"),
        RestoreError::Store(error) => BackupError::machine(
            format!("{}: {error}", filling.path.display()),
            "nothing was restored: make room or mend the disk, and ask again",
        ),
        RestoreError::Stopped => BackupError::interrupted(),
    })?;
    // A process that was started meanwhile has made a store, and then there is no room for this one.
    refuse_living(place)?;
    let placed = fs::rename(filling.path.join(SUBFOLDER), folder.join(SUBFOLDER));
    let placed =
        placed.and_then(|()| File::open(&folder)?.sync_all()).and_then(|()| File::open(parent(&folder))?.sync_all());
    placed.map_err(|error| match error.kind() == ErrorKind::DirectoryNotEmpty {
        true => store_there(&folder),
        false => failed(&error),
    })?;
    Ok(summary)
}

/// A process of the host would write to a store without a name, or find another under its feet.
fn refuse_living(place: &BackupPlace) -> Result<(), BackupError> {
    let BackupPlace { topology, base, host } = place;
    let hint = "stop all processes of the host first, then ask again";
    let living = living_processes(topology, base, *host);
    if !living.is_empty() {
        let living: Vec<String> = living.iter().map(|(id, pid)| format!("{id} (pid {pid})")).collect();
        return Err(BackupError::machine(format!("processes of {host} live: {}", living.join(", ")), hint));
    }
    let processes = topology.host(*host).map(|host| host.processes.as_slice()).unwrap_or_default();
    let taken = |addr| UdpSocket::bind(addr).is_err_and(|error| error.kind() == ErrorKind::AddrInUse);
    match processes.iter().find(|process| taken(process.addr)) {
        Some(process) => {
            let message = format!("somebody listens at {}, the address of {} of {host}", process.addr, process.id);
            Err(BackupError::machine(message, hint))
        }
        None => Ok(()),
    }
}

fn store_there(folder: &Path) -> BackupError {
    let message = format!("{} holds a store already", folder.display());
    BackupError::machine(message, format!("move it away first: mv {0} {0}.old", folder.display()))
}

fn refuse_store(place: &BackupPlace) -> Result<(), BackupError> {
    let folder = place.folder();
    match fs::read_dir(folder.join(SUBFOLDER)).map(|mut found| found.next().is_some()) {
        Ok(false) => Ok(()),
        Ok(true) => Err(store_there(&folder)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(BackupError::io(&folder, &error)),
    }
}

#[cfg(test)]
mod tests;
