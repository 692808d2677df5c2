//! Who works and what moves: detector, election, replication, sessions, placement, and the node that joins them.
//!
//! Sans I/O: every part takes `now` and an input, and appends to an ordered list of outputs that a shell performs
//! (the runtime on QUIC and LMDB, the simulator on its own network and disk). Nothing is shown to anybody before the
//! store has said `Persisted`.

mod copies;
mod detector;
mod duties;
mod election;
mod feeds;
pub mod io;
mod mesh;
pub mod node;
mod people;
mod primary;
mod relay;
mod report;
mod reports;
mod retention;
mod serve;
mod sink;
mod source;
#[cfg(test)]
pub(crate) mod testing;
