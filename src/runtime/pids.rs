//! Who is alive on this machine: run files, start times from `/proc`, and pidfds.
//!
//! A pid alone proves nothing (it may be somebody else's by now): a run file names pid *and* start time, and a signal
//! goes through a pidfd that was opened before the start time was compared.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::id::{HostId, ProcessId};

/// What a process writes into its run file when it leaves for good.
const LEFT: &str = "left";
/// Bytes of a `/proc/PID/stat` that we need: up to field 22, behind a command of at most 64 bytes.
const STAT_BYTES: usize = 1_024;

/// A process of the operating system that cannot be mistaken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessStamp {
    /// Its number.
    pub(super) pid: u32,
    /// When it started, in ticks since boot.
    pub(super) start: u64,
}

/// What a run file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunFile {
    /// There is none, or it cannot be understood.
    Absent,
    /// The process that wrote it.
    Process(ProcessStamp),
    /// It said goodbye.
    Left,
}

/// What `/proc` shows of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// It runs or sleeps.
    Running,
    /// SIGSTOP, or a debugger.
    Stopped,
    /// It is gone, or nobody has taken note of its end yet.
    Gone,
}

/// The folder of a host's run files.
pub(super) fn run_folder(data: &Path, host: HostId) -> PathBuf {
    data.join(host.to_string()).join("run")
}

/// Where a process's run file is.
pub(super) fn run_path(data: &Path, host: HostId, id: ProcessId) -> PathBuf {
    run_folder(data, host).join(id.to_string())
}

/// Reads a run file.
pub(super) fn read_run(path: &Path) -> RunFile {
    let Ok(text) = fs::read_to_string(path) else { return RunFile::Absent };
    let text = text.trim();
    if text == LEFT {
        return RunFile::Left;
    }
    let mut words = text.split(' ');
    let (pid, start) = (words.next().map(str::parse), words.next().map(str::parse));
    match (pid, start) {
        (Some(Ok(pid)), Some(Ok(start))) => RunFile::Process(ProcessStamp { pid, start }),
        (Some(_) | None, Some(_) | None) => RunFile::Absent,
    }
}

/// Writes this process into its run file, whole or not at all.
pub(super) fn write_run(path: &Path, stamp: ProcessStamp) -> std::io::Result<()> {
    replace(path, &format!("{} {}\n", stamp.pid, stamp.start))
}

/// Says goodbye in the run file.
pub(super) fn write_left(path: &Path) -> std::io::Result<()> {
    replace(path, &format!("{LEFT}\n"))
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    // Not synced: after a crash of the machine no pid means anything.
    let new = path.with_extension("new");
    let replaced = fs::write(&new, text).and_then(|()| fs::rename(&new, path));
    if replaced.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull) {
        // A full disk must not keep a process from starting: the old file's block is there.
        let _ = fs::remove_file(&new);
        return overwrite(path, text);
    }
    replaced
}

/// Writes over what the file holds, and takes no more room. Who reads it half written finds a process that never lived
/// (its start time fits no pid) or nothing, and looks again.
fn overwrite(path: &Path, text: &str) -> std::io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

/// This very process.
pub(super) fn myself() -> std::io::Result<ProcessStamp> {
    stamp_of(std::process::id())
}

/// A process that cannot end unnoticed at this moment: ourselves, or a child that was not reaped.
pub(super) fn stamp_of(pid: u32) -> std::io::Result<ProcessStamp> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    let start = parse_stat(&stat).map(|(_, start)| start);
    start.map(|start| ProcessStamp { pid, start }).ok_or_else(|| std::io::Error::other("/proc/PID/stat is unreadable"))
}

/// The state and the start time: fields 3 and 22. The command in field 2 may hold spaces and parentheses.
fn parse_stat(stat: &[u8]) -> Option<(u8, u64)> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

/// A living process, held by pidfd: signals reach it or nobody.
#[derive(Debug)]
pub(super) struct Living {
    stamp: ProcessStamp,
    pidfd: OwnedFd,
    stat: File,
}

impl Living {
    /// Takes hold of a process if it lives and is the one that was meant.
    pub(super) fn hold(stamp: ProcessStamp) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(stamp.pid).ok()?)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let stat = File::open(format!("/proc/{}/stat", stamp.pid)).ok()?;
        let living = Self { stamp, pidfd, stat };
        (living.look() != Shown::Gone).then_some(living)
    }

    /// Its number and start time.
    pub(super) fn stamp(&self) -> ProcessStamp {
        self.stamp
    }

    /// How it is now: one short read of a file that stays open.
    pub(super) fn look(&self) -> Shown {
        let mut bytes = [0; STAT_BYTES];
        let count = match self.stat.read_at(&mut bytes, 0) {
            Ok(count) => count,
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Shown::Gone,
            // Out of memory, say: no news is no reason to bury anybody; the pidfd tells of a death anyway.
            Err(_) => return Shown::Running,
        };
        match parse_stat(&bytes[..count]) {
            Some((_, start)) if start != self.stamp.start => Shown::Gone,
            Some((b'T' | b't', _)) => Shown::Stopped,
            Some((b'Z' | b'X' | b'x', _)) => Shown::Gone,
            Some(_) => Shown::Running,
            None => Shown::Gone,
        }
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: Signal) -> std::io::Result<()> {
        pidfd_send_signal(&self.pidfd, signal).map_err(Into::into)
    }

    /// A second pidfd, to wait for the end: readable once the process is gone.
    pub(super) fn wait_fd(&self) -> std::io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_shift_the_fields() {
        let stat = b"7 (a) b (c)) T 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parse_stat(stat), Some((b'T', 4242)));
        assert_eq!(parse_stat(b"7 (a"), None);
    }

    #[test]
    fn a_run_file_names_a_process_or_a_goodbye() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("W5");
        assert_eq!(read_run(&path), RunFile::Absent);
        let me = myself().unwrap();
        write_run(&path, me).unwrap();
        assert_eq!(read_run(&path), RunFile::Process(me));
        assert_eq!(Living::hold(me).unwrap().look(), Shown::Running);
        assert!(Living::hold(ProcessStamp { start: me.start + 1, ..me }).is_none(), "another process's number");
        write_left(&path).unwrap();
        assert_eq!(read_run(&path), RunFile::Left);
        overwrite(&path, &format!("{} {}\n", me.pid, me.start)).unwrap();
        assert_eq!(read_run(&path), RunFile::Process(me), "as on a full disk");
        overwrite(&path, "left\n").unwrap();
        assert_eq!(read_run(&path), RunFile::Left);
        fs::write(&path, "12").unwrap();
        assert_eq!(read_run(&path), RunFile::Absent);
    }
}
