//! The simulator: whole clusters of the very node that runs on QUIC and LMDB, under a seeded scheduler, a virtual
//! clock, simulated disks and links, and faults.
//!
//! One seed makes a cluster, its people, its load and its faults; the same seed gives the same run, event for event.
//! A run has two phases: faults, then none, in which the cluster must become whole within a bound. What happens, at each
//! commit ([`disk`]), answer, feed item ([`answers`]) and at the end ([`check`]), is told to a judge ([`history`]).
//! What it leaves to others: real sockets, real LMDB, and the client library.

mod answers;
mod check;
mod dice;
mod disk;
mod faults;
mod history;
mod losses;
mod mutants;
mod network;
mod people;
mod process;
mod rows;
mod shape;
mod world;

use history::Breach;
pub(crate) use mutants::Mutant;
pub(crate) use world::Failure;
use world::{Counts, Event, World, seconds};

/// How to run one simulation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    /// How many of the last lines to keep; 0 keeps none.
    pub(crate) trace: usize,
    /// Whether heartbeats are among them.
    pub(crate) heartbeats: bool,
    pub(crate) mutant: Option<Mutant>,
    /// When faults end, in microseconds.
    pub(crate) faults_until: u64,
    /// When people stop to begin calls.
    pub(crate) calls_until: u64,
}

impl Options {
    /// A run of this seed, as tests do it.
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, trace: 0, heartbeats: false, mutant: None, faults_until: 8_000_000, calls_until: 9_000_000 }
    }
}

/// The simulated time within which a healed cluster becomes whole.
const WHOLE_WITHIN: u64 = 30_000_000;

/// What came out of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) counts: Counts,
    /// Simulated time in all, in microseconds.
    pub(crate) micros: u64,
    /// From the end of the faults until all was well.
    pub(crate) healed_in: u64,
    pub(crate) fingerprint: u64,
    /// What went wrong.
    pub(crate) failure: Option<Failure>,
    pub(crate) trace: Vec<String>,
}

/// Runs one simulation.
pub(crate) fn run(options: Options) -> Outcome {
    let mut world = World::new(options);
    world.note_faults();
    let first = world.first_fault_after();
    world.after(first, Event::Fault);
    while world.step(options.faults_until) {}
    let mut healed_in = 0;
    if world.failure.is_none() {
        world.heal();
        while world.step(options.calls_until) {}
        healed_in = settle(&mut world);
    }
    if world.failure.is_none() {
        world.check_end();
    }
    Outcome {
        counts: world.counts,
        micros: world.clock,
        healed_in,
        fingerprint: world.fingerprint,
        failure: world.failure.take(),
        trace: world.trace.drain(..).collect(),
    }
}

/// Lets the healed cluster run until it is whole, and every feed has been told all.
fn settle(world: &mut World) -> u64 {
    const LOOK_EVERY: u64 = 200_000;
    let begun = world.clock;
    let deadline = begun + WHOLE_WITHIN;
    loop {
        let until = world.clock + LOOK_EVERY;
        while world.step(until) {}
        if world.failure.is_some() {
            return 0;
        }
        match world.history.on_moment(&world.moment()) {
            Ok(()) => return world.clock - begun,
            Err(Breach { promise, what }) if world.clock >= deadline => {
                let what = format!("{} after the faults: {what}", seconds(WHOLE_WITHIN));
                world.judge(Err(Breach { promise, what }));
                return 0;
            }
            Err(_) => {}
        }
    }
}
