//! Joins core, store and net into one process: the driver, the writer thread, timers, restarts, supervision.
//!
//! Invariants: one task owns the node and performs its outputs in their order; one thread owns the store's writes;
//! every channel is bounded by [`crate::limits`]; nothing here decides anything about the domain. What must hold
//! across processes is proved in `core` (the simulator runs the same node) and in `store` (the fence); here stand the
//! tests of what only the real thing has: threads, pids, signals.

mod clock;
mod process;
pub mod supervise;

pub use process::{NodeOptions, RunError, run_node};
