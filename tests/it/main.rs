//! Real processes on this machine: the real binary, real QUIC, real LMDB, real signals.
//!
//! Each test has a cluster of its own, on free ports and in a temporary folder, and leaves no process behind, even if it
//! is killed (`harness/keeper.rs`). Nothing is timed: every condition is waited for, and pauses are printed, not judged.
//! Set `GAGGLE_IT_KEEP` to keep the folder of a test that fails, and `GAGGLE_LOG` to choose what the processes log.

#![expect(clippy::unwrap_used, reason = "test code: the harness makes these values itself")]
#![expect(clippy::expect_used, reason = "test code: what fails here fails the test")]
#![expect(clippy::panic, reason = "test code: what fails here fails the test")]

mod backups;
mod crowd;
mod differences;
mod drill;
mod harness;
mod hosts;
mod kills;
mod refusals;
mod retention;
mod snapshots;
mod talk;
mod upgrade;
