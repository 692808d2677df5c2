//! Clocks that jump: each host's processes read the wall clock through libfaketime, which adds what the host's file
//! says, a second after it is written at the latest. The monotonic clock, and the times of files, are left alone.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::drill::room::library;
use crate::cli::failure::Failure;
use crate::id::HostId;
use crate::topology::Topology;

/// How long a process may go on with what it has read before, in seconds.
const CACHE_SECONDS: u64 = 1;
/// When everybody reads the new time.
pub(super) const READ_AFTER: Duration = Duration::from_millis(1_000 * CACHE_SECONDS + 100);

/// The hosts' clocks.
#[derive(Debug)]
pub(super) struct Clocks {
    library: PathBuf,
    files: BTreeMap<HostId, PathBuf>,
}

impl Clocks {
    /// All of them right, with their files in this folder.
    pub(super) fn start(topology: &Topology, folder: &Path) -> Result<Self, Failure> {
        let library = library().ok_or_else(|| Failure::failed("there is no libfaketime on this machine"))?;
        let files = topology.hosts.iter().map(|host| (host.id, folder.join(format!("clock-{}", host.id)))).collect();
        let clocks = Self { library, files };
        topology.hosts.iter().try_for_each(|host| clocks.set(host.id, 0))?;
        Ok(clocks)
    }

    /// The clock of a host is wrong by so many seconds.
    pub(super) fn set(&self, host: HostId, seconds: i64) -> Result<(), Failure> {
        let Some(file) = self.files.get(&host) else { return Ok(()) };
        // Whole or not at all: who reads half a line tells the time of nobody.
        let new = file.with_extension("new");
        let written = std::fs::write(&new, format!("{seconds:+}\n")).and_then(|()| std::fs::rename(&new, file));
        written.map_err(|error| Failure::failed(format!("cannot set a clock: {error}")))
    }

    /// Words before the command of a host's processes.
    pub(super) fn before(&self, host: HostId) -> Vec<OsString> {
        let Some(file) = self.files.get(&host) else { return Vec::new() };
        let with = |name: &str, value: &Path| {
            let mut word = OsString::from(format!("{name}="));
            word.push(value);
            word
        };
        let plain = [
            format!("FAKETIME_CACHE_DURATION={CACHE_SECONDS}"),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            "NO_FAKE_STAT=1".to_owned(),
        ];
        let paths = [with("LD_PRELOAD", &self.library), with("FAKETIME_TIMESTAMP_FILE", file)];
        std::iter::once("env".into()).chain(paths).chain(plain.map(OsString::from)).collect()
    }

    /// Whether this process reads its clock so: a program that was linked in one piece does not.
    pub(super) fn is_read_by(&self, pid: u32) -> bool {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        self.library.file_name().is_some_and(|name| maps.contains(&*name.to_string_lossy()))
    }
}
