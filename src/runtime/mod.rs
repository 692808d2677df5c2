//! Joins core, store and net into one process: the driver, the writer thread, timers, restarts, supervision.
//!
//! Invariants: one task owns the node and performs its outputs in their order; one thread owns the store's writes;
//! every channel is bounded by [`crate::limits`]; nothing here decides anything about the domain. What must hold
//! across processes is proved in `core` (the simulator runs the same node) and in `store` (the fence); here stand the
//! tests of what only the real thing has: threads, pids, signals.
//!
//! A process is one async thread, because ten of them share a machine with few cores, and the writer's thread. Tasks:
//! the driver; one keeper for each peer that we dial ([`links`]); one listener for each peer that dials us
//! ([`inbound`]); one for each client and each live feed ([`clients`]); the watcher of siblings; the signals.

mod backup;
mod clients;
mod clock;
mod driver;
pub mod embedded;
mod event;
mod inbound;
mod joined;
mod links;
mod pids;
mod process;
mod shared;
mod siblings;
pub mod supervise;
#[cfg(test)]
mod testing;
mod writer;

pub use backup::{
    BackupError, BackupPlace, BackupSummary, Blame, create_backup, hosts_here, restore_backup, verify_backup,
};
pub use process::{NodeOptions, RunError, living_processes, run_node};

/// What a backup says of itself.
pub use crate::store::BackupHead;
