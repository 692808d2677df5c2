//! Opening a data folder: the LMDB environment, its databases, and whose they are.
//!
//! The environment lies in `store/` below the data folder: one database for each table, and `identity`, which names the
//! disk format, the cluster and the host. Opening what is there takes no write lock, because a sibling that is stopped
//! may hold it. Neither `data.mdb` nor `lock.mdb` may ever be opened here besides: closing any descriptor of
//! `lock.mdb` would drop the process's locks on it, and with them its readers' slots. `suite.rs` tests the refusals.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{CommitOrAbort, DatabaseOpener, Env, EnvOpenOptions, RoTxn, WithoutTls};

use super::rows::{Db, Dbs};
use crate::id::HostId;
use crate::service::rows::Table;
use crate::store::OpenError;

/// The disk format that this version writes, and the newest that it reads.
pub(in crate::store) const FORMAT: u32 = 1;
/// Reader slots: as many as reads may run at once on a host; a slot costs 64 bytes of `lock.mdb`.
const READERS_MAX: u32 = 4_096;
/// A slot is a cache line, and the header in front of them takes less than a page. LMDB makes of a larger file as many
/// slots as it holds.
const LOCK_FILE_BYTES: usize = 64 * (READERS_MAX as usize) + 4_096;
/// Named databases that may be open; above what this format has, so that a later one can add some.
const DATABASES_MAX: u32 = 32;
/// Where the environment lies below the data folder.
pub(crate) const SUBFOLDER: &str = "store";

const IDENTITY: &str = "identity";
const KEY_FORMAT: &[u8] = b"format";
const KEY_CLUSTER: &[u8] = b"cluster";
const KEY_HOST: &[u8] = b"host";

/// Reads may move between threads and overlap on one.
pub(super) type StoreEnv = Env<WithoutTls>;

/// Whose data folder it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreIdentity {
    /// The cluster's name in the topology.
    pub cluster: String,
    /// The host.
    pub host: HostId,
}

impl std::fmt::Display for StoreIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.cluster, self.host)
    }
}

/// Which file a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileMark {
    device: u64,
    inode: u64,
}

/// The environment's files as they were at the start.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    data: FileMark,
    lock: FileMark,
}

impl Files {
    const DATA: &str = "data.mdb";
    const LOCK: &str = "lock.mdb";

    fn look(folder: PathBuf) -> std::io::Result<Self> {
        let (data, _) = mark(&folder.join(Self::DATA))?;
        let (lock, _) = mark(&folder.join(Self::LOCK))?;
        Ok(Self { folder, data, lock })
    }

    /// Where the environment lies.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The size of the data file, if the paths still lead to the files that are open. Otherwise this process and one
    /// started later would each hold a write lock of their own, and what is committed here would have no name.
    pub(super) fn check(&self) -> Result<u64, String> {
        let replaced = |why: String| format!("the data folder was replaced while it was in use: {why}");
        let (data, bytes) = mark(&self.folder.join(Self::DATA)).map_err(|error| replaced(error.to_string()))?;
        let (lock, _) = mark(&self.folder.join(Self::LOCK)).map_err(|error| replaced(error.to_string()))?;
        match data == self.data && lock == self.lock {
            true => Ok(bytes),
            false => Err(replaced(format!("other files lie in {}", self.folder.display()))),
        }
    }
}

/// Looks at a file by its path only: see the module's words on `lock.mdb`.
fn mark(path: &Path) -> std::io::Result<(FileMark, u64)> {
    let found = std::fs::metadata(path)?;
    Ok((FileMark { device: found.dev(), inode: found.ino() }, found.len()))
}

/// An opened data folder.
pub(super) struct Opened {
    pub(super) env: StoreEnv,
    pub(super) dbs: Dbs,
    pub(super) files: Files,
}

/// What may go wrong while databases are opened.
enum Trouble {
    Heed(heed::Error),
    Open(OpenError),
}

impl From<heed::Error> for Trouble {
    fn from(error: heed::Error) -> Self {
        Self::Heed(error)
    }
}

/// What is done where there is no store yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// One is made.
    Fill,
    /// It is refused, and the folder stays as it is.
    Refuse,
}

/// Whether a host's data folder holds a store. Only the names are looked at.
pub(super) fn is_there(folder: &Path) -> bool {
    let place = folder.join(SUBFOLDER);
    [Files::DATA, Files::LOCK].iter().all(|file| place.join(file).is_file())
}

/// One opening of one folder.
struct Opening<'a> {
    folder: &'a Path,
    identity: &'a StoreIdentity,
    absence: Absence,
}

/// Opens a data folder, and makes it if it is not there, unless that is refused.
pub(super) fn open(
    folder: &Path,
    identity: &StoreIdentity,
    map_bytes: usize,
    absence: Absence,
) -> Result<Opened, OpenError> {
    let opening = Opening { folder, identity, absence };
    let place = folder.join(SUBFOLDER);
    match absence {
        Absence::Fill => {
            DirBuilder::new().recursive(true).mode(0o700).create(&place).map_err(|error| opening.unusable(error))?;
            lay_lock_file(&place).map_err(|error| opening.unusable(error))?;
        }
        // LMDB itself would make the files.
        Absence::Refuse if !is_there(folder) => return Err(opening.unusable("there is no store in it")),
        Absence::Refuse => {}
    }
    let env = map(&place, map_bytes).map_err(|error| opening.unusable(error))?;
    let dbs = opening.databases(&env).map_err(|trouble| match trouble {
        Trouble::Heed(error) => opening.unusable(error),
        Trouble::Open(error) => error,
    })?;
    // LMDB syncs what is in its files, not the names by which they are found again after a power cut.
    [place.as_path(), folder]
        .into_iter()
        .try_for_each(|named| File::open(named)?.sync_all())
        .map_err(|error| opening.unusable(error))?;
    let files = Files::look(place).map_err(|error| opening.unusable(error))?;
    Ok(Opened { env, dbs, files })
}

/// Gives a new folder a `lock.mdb` that has all its bytes on the disk. LMDB would make one with a hole for the readers'
/// slots, and then, when the disk is full, a read that needs a slot in the hole ends its process by SIGBUS.
///
/// It is filled under another name and linked, so that no descriptor of a lock file in use is ever opened here; of
/// processes that start at once, one wins. Who opens the environment alone writes the header, as into a hole.
fn lay_lock_file(place: &Path) -> std::io::Result<()> {
    let lock = place.join(Files::LOCK);
    if lock.try_exists()? {
        return Ok(());
    }
    let filled = place.join(format!("lock.{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&filled)?;
    let laid = file.write_all(&vec![0; LOCK_FILE_BYTES]);
    drop(file);
    if laid.is_ok() {
        // If a sibling was faster, its file serves; if the file system knows no links, LMDB makes one with a hole.
        let _ = std::fs::hard_link(&filled, &lock);
    }
    std::fs::remove_file(&filled)?;
    laid
}

/// Maps the environment: synced on every commit, and written through the system, not through the map.
#[expect(unsafe_code, reason = "LMDB maps a file, which nothing but its own locks guards")]
fn map(place: &Path, map_bytes: usize) -> heed::Result<StoreEnv> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(map_bytes).max_readers(READERS_MAX).max_dbs(DATABASES_MAX);
    // SAFETY: The map stays sound as long as the files change through LMDB alone. They lie in a folder that only its
    // owner can enter, every process that opens them is this program and takes LMDB's locks (no flag turns them off),
    // and none opens, truncates or rewrites the files by other means; heed refuses a second opening in this process.
    unsafe { options.open(place) }
}

impl Opening<'_> {
    fn path(&self) -> String {
        self.folder.display().to_string()
    }

    fn unusable(&self, reason: impl std::fmt::Display) -> OpenError {
        OpenError::Unusable { path: self.path(), reason: reason.to_string() }
    }

    /// The databases; they are made, in a write transaction, only if the folder is new.
    fn databases(&self, env: &StoreEnv) -> Result<Dbs, Trouble> {
        let found = env.open_databases_and_commit(env.read_txn()?, |opener, txn| {
            let Some(identity) = opener.open_database::<Bytes, Bytes>(txn, Some(IDENTITY))? else {
                return Ok(CommitOrAbort::Abort(()));
            };
            // Before the tables are looked for: another format may have others.
            self.check_identity(identity, txn)?;
            self.open_tables(opener, txn).map(CommitOrAbort::Commit)
        })?;
        match found {
            CommitOrAbort::Commit(dbs) => Ok(dbs),
            CommitOrAbort::Abort(()) => match self.absence {
                Absence::Fill => self.create(env),
                Absence::Refuse => Err(Trouble::Open(self.unusable("its store holds nothing yet"))),
            },
        }
    }

    fn open_tables<'e>(
        &self,
        opener: &DatabaseOpener<'e, WithoutTls>,
        txn: &RoTxn<'e, WithoutTls>,
    ) -> Result<[Db<'e>; Table::ALL.len()], Trouble> {
        let mut dbs = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            let db = opener.open_database::<Bytes, Bytes>(txn, Some(name(table)))?;
            dbs.push(db.ok_or_else(|| self.missing(table))?);
        }
        dbs.try_into().map_err(|_| self.missing(Table::Meta))
    }

    fn missing(&self, table: Table) -> Trouble {
        Trouble::Open(self.unusable(format!("the table {} is missing", name(table))))
    }

    /// Makes what is missing. A sibling may have done so since we looked, so identity is checked here again.
    fn create(&self, env: &StoreEnv) -> Result<Dbs, Trouble> {
        let created = env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
            let identity = opener.create_database::<Bytes, Bytes>(txn, Some(IDENTITY))?;
            if identity.is_empty(txn)? {
                identity.put(txn, KEY_FORMAT, &FORMAT.to_be_bytes())?;
                identity.put(txn, KEY_CLUSTER, self.identity.cluster.as_bytes())?;
                identity.put(txn, KEY_HOST, self.identity.host.to_string().as_bytes())?;
            }
            self.check_identity(identity, txn)?;
            let mut dbs = Vec::with_capacity(Table::ALL.len());
            for table in Table::ALL {
                dbs.push(opener.create_database::<Bytes, Bytes>(txn, Some(name(table)))?);
            }
            let dbs: [Db<'_>; Table::ALL.len()] = dbs.try_into().map_err(|_| self.missing(Table::Meta))?;
            Ok::<_, Trouble>(CommitOrAbort::Commit(dbs))
        })?;
        match created {
            CommitOrAbort::Commit(dbs) => Ok(dbs),
            CommitOrAbort::Abort(()) => Err(self.missing(Table::Meta)),
        }
    }

    /// Refuses a folder that another version, cluster or host has written.
    fn check_identity(&self, db: Db<'_>, txn: &RoTxn<'_>) -> Result<(), Trouble> {
        let text = |key: &[u8]| -> Result<String, Trouble> {
            Ok(String::from_utf8_lossy(db.get(txn, key)?.unwrap_or_default()).into_owned())
        };
        let format = db.get(txn, KEY_FORMAT)?.unwrap_or_default();
        let Ok(format) = format.try_into().map(u32::from_be_bytes) else {
            return Err(Trouble::Open(self.unusable("its disk format is not readable")));
        };
        if format > FORMAT {
            return Err(Trouble::Open(OpenError::Newer { path: self.path(), found: format, newest: FORMAT }));
        }
        let found = format!("{}/{}", text(KEY_CLUSTER)?, text(KEY_HOST)?);
        let wanted = self.identity.to_string();
        match found == wanted {
            true => Ok(()),
            false => Err(Trouble::Open(OpenError::Foreign { path: self.path(), found, wanted })),
        }
    }
}

/// The table's name on disk.
fn name(table: Table) -> &'static str {
    match table {
        Table::Meta => "meta",
        Table::Log => "log",
        Table::Users => "users",
        Table::Names => "names",
        Table::Requests => "requests",
        Table::Posts => "posts",
        Table::Edges => "edges",
        Table::JoinedBy => "joined_by",
    }
}

/// Test-only: gives a folder another disk format.
#[cfg(test)]
pub(super) fn set_format(opened: &StoreEnv, format: u32) {
    let txn = opened.write_txn().unwrap();
    let done = opened.create_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
        let identity = opener.create_database::<Bytes, Bytes>(txn, Some(IDENTITY))?;
        identity.put(txn, KEY_FORMAT, &format.to_be_bytes())?;
        Ok(CommitOrAbort::<_, ()>::Commit(identity))
    });
    done.unwrap();
}
