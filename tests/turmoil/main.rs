//! Real QUIC in simulated time: the project's endpoints, TLS, links and framing, and a cluster of its real runtime with a
//! real client, on quinn, over turmoil's UDP and clock.
//!
//! Hosts, their network and the time are simulated, so that ten seconds of a cut cost none. All else is what runs in
//! earnest: handshakes, pinned keys, loss recovery, idle times, stateless resets, flow control. Turmoil's own chance
//! comes from a seed, but keys and connection ids come from the operating system: two runs of a test are alike, not the
//! same, and what is asserted must hold in each (`docs/simulator.md`).

#![expect(clippy::unwrap_used, reason = "test code: what fails here fails the test")]

mod cluster;
mod feeds;
mod links;
mod socket;
mod world;
