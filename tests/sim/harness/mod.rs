//! The simulator: whole clusters of the very node that runs on QUIC and LMDB, under a seeded scheduler, a virtual
//! clock, simulated disks and links, and faults.
//!
//! One seed makes a cluster, its people, its load and its faults; the same seed gives the same run, event for event.
//! A run has two phases: faults, then none, in which the cluster must become whole within a bound; in some runs while
//! people go on calling ([`load`]). What happens, at each
//! commit ([`disk`]), answer, feed item ([`answers`]) and at the end ([`check`]), is told to a judge ([`history`]).
//! What it leaves to others: real sockets, real LMDB, and the client library.

use std::collections::BTreeSet;

mod answers;
mod check;
mod clock;
mod dice;
mod disk;
mod drains;
mod faults;
mod history;
mod line;
mod load;
mod losses;
pub(crate) mod minimise;
mod mutants;
mod network;
mod pages;
mod people;
mod process;
mod queue;
mod rows;
mod shape;
mod world;

use history::Breach;
pub(crate) use load::Loads;
pub(crate) use mutants::Mutant;
pub(crate) use shape::{Shape, Wires};
use world::{Counts, World};
pub(crate) use world::{Failure, seconds};

/// Whether something happens that has chance of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// In some runs; in those of a mutant only if it needs that.
    Drawn,
    Never,
    Always,
}

impl Choice {
    const ALL: [Self; 3] = [Self::Drawn, Self::Never, Self::Always];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Drawn => "drawn",
            Self::Never => "never",
            Self::Always => "always",
        }
    }
}

impl std::str::FromStr for Choice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        named(&Self::ALL, Self::name, "choice", name)
    }
}

/// How to run one simulation.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    /// How many of the last lines to keep; 0 keeps none.
    pub(crate) trace: usize,
    /// Whether heartbeats are among them.
    pub(crate) heartbeats: bool,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) loads: Loads,
    pub(crate) wires: Wires,
    /// Whether operators drain processes.
    pub(crate) drains: Choice,
    /// Whether people read in pages.
    pub(crate) pages: Choice,
    /// Else one is drawn.
    pub(crate) shape: Option<Shape>,
    /// How many people; else that is drawn.
    pub(crate) people: Option<u64>,
    /// Which of them come, and which of the drawn faults; none for all.
    pub(crate) who: Option<BTreeSet<usize>>,
    pub(crate) faults: Option<BTreeSet<usize>>,
    /// When faults end, in microseconds.
    pub(crate) faults_until: u64,
    /// When people stop to begin calls.
    pub(crate) calls_until: u64,
}

impl Options {
    /// A run of this seed, as tests do it.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            trace: 0,
            heartbeats: false,
            mutant: None,
            loads: Loads::Drawn,
            wires: Wires::Drawn,
            drains: Choice::Drawn,
            pages: Choice::Drawn,
            shape: None,
            people: None,
            who: None,
            faults: None,
            faults_until: CALLS_UNTIL - FAULTS_BEFORE,
            calls_until: CALLS_UNTIL,
        }
    }

    /// The same run, which ends earlier.
    pub(crate) fn until(self, calls_until: u64) -> Self {
        Self { faults_until: calls_until.saturating_sub(FAULTS_BEFORE), calls_until, ..self }
    }
}

/// When people stop to begin calls, and so long before that faults end.
const CALLS_UNTIL: u64 = 9_000_000;
const FAULTS_BEFORE: u64 = 1_000_000;

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
    let (faults_until, calls_until) = (options.faults_until, options.calls_until);
    let mut world = World::new(options);
    world.note_faults();
    world.await_fault();
    while world.step(faults_until) {}
    let mut healed_in = 0;
    if world.failure.is_none() {
        world.heal();
        while world.step(calls_until) {}
        world.go_on_calling();
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

/// How often it is looked whether it is, in microseconds.
const LOOK_EVERY: u64 = 200_000;

/// Lets the healed cluster run until it is whole, and every feed has been told all.
fn settle(world: &mut World) -> u64 {
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

/// The one with this name, for the command line.
fn named<T: Copy>(all: &[T], name_of: fn(T) -> &'static str, kind: &str, name: &str) -> Result<T, String> {
    all.iter().copied().find(|one| name_of(*one) == name).ok_or_else(|| {
        let names = all.iter().map(|one| name_of(*one)).collect::<Vec<_>>().join(", ");
        format!("no {kind} is called {name:?}: there are {names}")
    })
}
