//! A disk that can be filled: a memory disk of a host's own, mounted at its data folder in the drill's own mounts. It is
//! full when its size is set to what it holds, as a quota would, and has room again when it is set back.

use std::ffi::OsStr;
use std::path::PathBuf;

use rustix::fs::statvfs;

use crate::cli::drill::room::{copy, run};
use crate::cli::failure::Failure;

/// Its size while it has room: more than any drill writes. Memory is used only as it fills.
const SIZE: &str = "16g";
/// Somebody may write between the look at what it holds and the new size, which is refused then.
const TRIES: usize = 100;

/// One host's disk.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts it at this folder, which is made; only inside the drill's own namespaces.
    pub(super) async fn mount(folder: PathBuf) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("cannot make {}: {error}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let disk = Self { folder };
        disk.set(&format!("size={SIZE}")).await?;
        Ok(disk)
    }

    /// No byte more.
    pub(super) async fn fill(&self) -> Result<(), Failure> {
        let mut tries = 0;
        loop {
            let look =
                statvfs(&self.folder).map_err(|error| Failure::failed(format!("cannot look at a disk: {error}")))?;
            let held = (look.f_blocks - look.f_bfree) * look.f_frsize;
            match self.resize(&held.to_string()).await {
                Err(failure) if tries == TRIES => return Err(failure),
                Err(_) => tries += 1,
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Room again.
    pub(super) async fn free(&self) -> Result<(), Failure> {
        self.resize(SIZE).await
    }

    async fn resize(&self, size: &str) -> Result<(), Failure> {
        self.set(&format!("remount,size={size}")).await
    }

    /// Mounts with these options and no others: by itself, `mount` would repeat those that it finds, of which a user
    /// namespace refuses some.
    async fn set(&self, options: &str) -> Result<(), Failure> {
        let words = ["-t", "tmpfs", "-o", options, "none"].map(OsStr::new);
        run("mount", words.into_iter().chain([self.folder.as_os_str()]), "").await
    }

    /// Unmounts it. What it held is in its place afterwards, if it is wanted.
    pub(super) async fn end(self, wanted: Wanted) -> Result<(), Failure> {
        let aside = self.folder.with_extension("aside");
        if wanted == Wanted::Yes {
            copy(&self.folder, &aside).await?;
        }
        run("umount", [self.folder.as_os_str()], "").await?;
        if wanted == Wanted::Yes {
            let moved = std::fs::remove_dir(&self.folder).and_then(|()| std::fs::rename(&aside, &self.folder));
            moved.map_err(|error| Failure::failed(format!("{}: {error}", self.folder.display())))?;
        }
        Ok(())
    }
}

/// Whether what a disk held is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Yes,
    No,
}
