//! The folder of public identities: `certs/ID.pub`, one line of 64 hexadecimal digits, for each process.
//!
//! On one machine the processes fill it themselves; between machines an operator copies the files. A file that says
//! something else than before is never believed silently: replacing a process's key is an operator's decision.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER_PERMISSIVE;

use crate::id::{ProcessId, PublicKey};
use crate::net::identity::{Wrote, write_new};

/// How often the folder is read at most, when unknown keys show up: strangers must not keep the disk busy.
const REREAD_AFTER: Duration = Duration::from_millis(200);
/// Bytes of an identity file that are read.
const FILE_BYTES_MAX: u64 = 4 << 10;
const EXTENSION: &str = "pub";

/// A folder of public identities that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// The folder or a file cannot be read or written.
    #[error("cannot use {path}: {source}")]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold a key.
    #[error("{path} does not hold a public key of 64 hexadecimal digits; copy it anew from the process's own machine")]
    Content {
        /// Where.
        path: PathBuf,
    },
    /// The published key of this process is another one.
    #[error(
        "{path} holds another key ({published}) than this process has ({own}): if the process is meant to have a new key, \
         delete {path} on every machine and start it again; otherwise restore its private key"
    )]
    Conflict {
        /// Where.
        path: PathBuf,
        /// The key in the file.
        published: PublicKey,
        /// The key that was to be written.
        own: PublicKey,
    },
    /// Two processes with one key.
    #[error(
        "{first} and {second} have the same key: each process needs its own; delete one's private key and .pub file"
    )]
    Shared {
        /// One of them.
        first: ProcessId,
        /// The other.
        second: ProcessId,
    },
}

/// Writes a process's public identity, if it is not there yet.
pub fn publish(folder: &Path, id: ProcessId, key: &PublicKey) -> Result<(), CertError> {
    let path = folder.join(format!("{id}.{EXTENSION}"));
    let text = format!(
        "# The public identity of the process {id}: safe to copy, needed by every machine of the cluster.\n{key}\n"
    );
    let wrote = write_new(&path, text.as_bytes(), 0o644, 0o755)
        .map_err(|source| CertError::File { path: path.clone(), source })?;
    match wrote {
        Wrote::Made => Ok(()),
        Wrote::Stood => {
            let published = read_key(&path)?;
            if published == *key { Ok(()) } else { Err(CertError::Conflict { path, published, own: *key }) }
        }
    }
}

/// Who has which key, as the folder says.
#[derive(Debug, Clone)]
pub struct CertBook {
    folder: PathBuf,
    keys: BTreeMap<ProcessId, PublicKey>,
    read_at: Instant,
}

impl CertBook {
    /// Reads the folder; a missing one is empty.
    #[expect(clippy::disallowed_methods, reason = "spares the disk; no decision hangs on this clock")]
    pub fn load(folder: &Path) -> Result<Self, CertError> {
        Ok(Self { folder: folder.to_owned(), keys: read_folder(folder)?, read_at: Instant::now() })
    }

    /// The key of a process.
    pub fn key(&self, id: ProcessId) -> Option<PublicKey> {
        self.keys.get(&id).copied()
    }

    /// The process of a key.
    pub fn process(&self, key: &PublicKey) -> Option<ProcessId> {
        self.keys.iter().find(|(_, known)| *known == key).map(|(id, _)| *id)
    }

    /// Everybody.
    pub fn iter(&self) -> impl Iterator<Item = (ProcessId, PublicKey)> {
        self.keys.iter().map(|(id, key)| (*id, *key))
    }

    /// Reads the folder again, but not more often than every 200 ms; says whether anything changed. A folder that
    /// cannot be used now leaves what was known: a half-copied file must not cut working connections.
    #[expect(clippy::disallowed_methods, reason = "spares the disk; no decision hangs on this clock")]
    pub fn refresh(&mut self) -> Result<Refreshed, CertError> {
        if self.read_at.elapsed() < REREAD_AFTER {
            return Ok(Refreshed::Same);
        }
        self.read_at = Instant::now();
        let keys = read_folder(&self.folder)?;
        if keys == self.keys {
            return Ok(Refreshed::Same);
        }
        self.keys = keys;
        Ok(Refreshed::Changed)
    }

    /// The key of a process; looks into the folder again if it is unknown.
    pub fn find_key(&mut self, id: ProcessId) -> Option<PublicKey> {
        if self.key(id).is_none() {
            self.refresh_or_warn();
        }
        self.key(id)
    }

    /// The process of a key; looks into the folder again if it is unknown.
    pub fn find_process(&mut self, key: &PublicKey) -> Option<ProcessId> {
        if self.process(key).is_none() {
            self.refresh_or_warn();
        }
        self.process(key)
    }

    fn refresh_or_warn(&mut self) {
        if let Err(error) = self.refresh() {
            tracing::warn!(%error, "the folder of public identities cannot be read again");
        }
    }
}

/// What [`CertBook::refresh`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// Nothing new, or it was too early to look.
    Same,
    /// Something new.
    Changed,
}

/// Reads the folder of public identities.
pub fn lookup(folder: &Path) -> Result<CertBook, CertError> {
    CertBook::load(folder)
}

fn read_folder(folder: &Path) -> Result<BTreeMap<ProcessId, PublicKey>, CertError> {
    let failed = |source| CertError::File { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut keys = BTreeMap::new();
    let mut owners: BTreeMap<PublicKey, ProcessId> = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        // A file whose name is no process's name is somebody else's business.
        let Some(id) = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok()) else {
            continue;
        };
        let key = read_key(&path)?;
        if let Some(other) = owners.insert(key, id) {
            return Err(CertError::Shared { first: other.min(id), second: other.max(id) });
        }
        keys.insert(id, key);
    }
    Ok(keys)
}

fn read_key(path: &Path) -> Result<PublicKey, CertError> {
    let failed = |source| CertError::File { path: path.to_owned(), source };
    let content = || CertError::Content { path: path.to_owned() };
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(content());
    }
    let bytes = fs::read(path).map_err(failed)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| content())?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (Some(line), None) = (lines.next(), lines.next()) else { return Err(content()) };
    let key = HEXLOWER_PERMISSIVE.decode(line.as_bytes()).map_err(|_| content())?;
    Ok(PublicKey(key.try_into().map_err(|_| content())?))
}
