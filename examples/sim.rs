//! Runs simulated clusters, seed after seed: `cargo run --release --example sim -- --seeds 1000 --start 0`.
//!
//! `--verbose` shows the last lines of each run (`--lines N` of them, `--heartbeats` too). A failing seed is replayed
//! with its last lines, and the run goes on with `--keep-going`. The exit status is 1 if any seed failed.
//!
//! `--minimise` cuts each failing seed down to the faults, people and time that it needs to fail, and prints the command
//! that replays what is left (`--faults`, `--who` and `--until` are for that).
//!
//! `--mutants` puts each known bug back in turn and looks for a seed that finds it, for a minute at most: a line for
//! each, and exit status 1 if one lives.

#![expect(clippy::unwrap_used, reason = "test code: the harness makes these values itself")]

#[path = "../tests/sim/harness/mod.rs"]
mod harness;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Parser;
use harness::minimise::{minimise, plan};
use harness::{Choice, Loads, Mutant, Options, Outcome, Shape, Wires, run, seconds};

/// Simulates clusters under faults.
#[expect(clippy::struct_excessive_bools, reason = "flags of a command")]
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Show the lines of runs that succeed, too.
    #[arg(long)]
    verbose: bool,
    /// How many of the last lines to show.
    #[arg(long, default_value_t = 300)]
    lines: usize,
    /// Show heartbeats among them.
    #[arg(long)]
    heartbeats: bool,
    /// Put a known bug back (a wrong name lists them).
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Put every known bug back in turn, and print which seed finds it.
    #[arg(long)]
    mutants: bool,
    /// Loads that runs may have: `drawn`, `calm` or `heavy`.
    #[arg(long, default_value = "drawn")]
    load: Loads,
    /// Versions of the wire that processes speak: `drawn`, or the `first`.
    #[arg(long, default_value = "drawn")]
    wires: Wires,
    /// Whether operators drain processes: `drawn`, `never` or `always`.
    #[arg(long, default_value = "drawn")]
    drains: Choice,
    /// Whether people read in pages: `drawn`, `never` or `always`.
    #[arg(long, default_value = "drawn")]
    pages: Choice,
    /// Simulate clusters of this shape only (a wrong name lists them).
    #[arg(long)]
    shape: Option<Shape>,
    /// So many people.
    #[arg(long)]
    people: Option<u64>,
    /// Of the faults that a seed draws, inflict these: numbers with commas, or `none`.
    #[arg(long)]
    faults: Option<Numbers>,
    /// Of the people that a seed draws, only these come.
    #[arg(long)]
    who: Option<Numbers>,
    /// People begin no calls after so many simulated seconds; the faults end a second before.
    #[arg(long)]
    until: Option<f64>,
    /// Cut each failing seed down to what it needs to fail.
    #[arg(long)]
    minimise: bool,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
}

/// A list of numbers on the command line.
#[derive(Debug, Clone)]
struct Numbers(BTreeSet<usize>);

impl FromStr for Numbers {
    type Err = std::num::ParseIntError;

    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let numbers = list.split(',').filter(|number| *number != "none");
        numbers.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl Arguments {
    /// How to run this seed.
    fn options(&self, seed: u64) -> Options {
        let options = Options {
            mutant: self.mutant,
            loads: self.load,
            wires: self.wires,
            drains: self.drains,
            pages: self.pages,
            shape: self.shape,
            people: self.people,
            faults: self.faults.clone().map(|numbers| numbers.0),
            who: self.who.clone().map(|numbers| numbers.0),
            ..Options::new(seed)
        };
        match self.until {
            Some(until) => options.until(Duration::from_secs_f64(until).as_micros().try_into().unwrap()),
            None => options,
        }
    }
}

/// The command that replays a run.
fn command(options: &Options) -> String {
    let list = |numbers: &BTreeSet<usize>| match numbers.is_empty() {
        true => "none".to_owned(),
        false => numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
    };
    let mut command = format!("cargo run --release --example sim -- --start {} --seeds 1", options.seed);
    let mut add = |flag: &str, value: Option<String>| {
        if let Some(value) = value {
            command.push_str(&format!(" --{flag} {value}"));
        }
    };
    add("mutant", options.mutant.map(|mutant| mutant.name().to_owned()));
    add("load", (options.loads != Loads::Drawn).then(|| options.loads.name().to_owned()));
    add("wires", (options.wires != Wires::Drawn).then(|| options.wires.name().to_owned()));
    add("drains", (options.drains != Choice::Drawn).then(|| options.drains.name().to_owned()));
    add("pages", (options.pages != Choice::Drawn).then(|| options.pages.name().to_owned()));
    add("shape", options.shape.map(|shape| shape.name().to_owned()));
    add("people", options.people.map(|people| people.to_string()));
    add("faults", options.faults.as_ref().map(list));
    add("who", options.who.as_ref().map(list));
    let until = options.calls_until;
    add("until", (until != Options::new(0).calls_until).then(|| format!("{}", until as f64 / 1e6)));
    command
}

/// How long a mutant is hunted for.
const HUNT: Duration = Duration::from_secs(60);

/// Looks for each mutant.
#[expect(clippy::disallowed_methods, reason = "measures the simulator, decides nothing in it")]
fn hunt_mutants(start: u64) -> ExitCode {
    // A broken belief of the node itself counts as found, and needs no backtrace.
    std::panic::set_hook(Box::new(|_| {}));
    let mut lives = 0;
    for mutant in Mutant::ALL {
        let begun = Instant::now();
        let found = (start..).take_while(|_| begun.elapsed() < HUNT).find_map(|seed| {
            let options = Options { mutant: Some(mutant), ..Options::new(seed) };
            let failure = match std::panic::catch_unwind(|| run(options).failure) {
                Ok(failure) => failure.map(|failure| failure.to_string()),
                Err(_) => Some("the node panicked".to_owned()),
            };
            failure.map(|failure| (seed, failure))
        });
        let name = mutant.name();
        let seconds = begun.elapsed().as_secs_f64();
        match found {
            Some((seed, failure)) => {
                let failure: String = failure.lines().next().unwrap_or_default().chars().take(100).collect();
                println!("{name:20} found by seed {seed:4} in {seconds:5.1} s: {failure}");
            }
            None => {
                println!("{name:20} LIVES after {seconds:.1} s");
                lives += 1;
            }
        }
    }
    if lives == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.mutants {
        return hunt_mutants(arguments.start);
    }
    #[expect(clippy::disallowed_methods, reason = "measures the simulator, decides nothing in it")]
    let begun = Instant::now();
    let (mut failures, mut runs, mut events, mut micros, mut longest) = (0_u64, 0_u64, 0, 0, 0);
    for seed in arguments.start..arguments.start + arguments.seeds {
        // Known before the run: in release a panic of the node ends the process.
        std::panic::set_hook(Box::new(move |panic| eprintln!("seed {seed}: {panic}")));
        let options = arguments.options(seed);
        let outcome = run(options.clone());
        runs += 1;
        events += outcome.counts.events;
        micros += outcome.micros;
        longest = longest.max(outcome.healed_in);
        if outcome.failure.is_some() || arguments.verbose {
            show(&arguments, &options, &outcome);
        }
        if outcome.failure.is_some() {
            failures += 1;
            if arguments.minimise {
                show_minimised(options);
            }
            if !arguments.keep_going {
                break;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{runs} seeds, {failures} failed; {:.1} seeds/s, {:.0} events/s, {:.0} simulated seconds a second; longest healing {:.1} s",
        runs as f64 / seconds,
        events as f64 / seconds,
        micros as f64 / 1e6 / seconds,
        longest as f64 / 1e6
    );
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Replays a seed with its lines.
fn show(arguments: &Arguments, options: &Options, outcome: &Outcome) {
    let lines = match (arguments.verbose, arguments.minimise) {
        (true, _) => arguments.lines,
        // The lines of the smaller run are more to the point.
        (false, true) => 0,
        (false, false) => arguments.lines.min(60),
    };
    let again = run(Options { trace: lines, heartbeats: arguments.heartbeats, ..options.clone() });
    for line in &again.trace {
        println!("{line}");
    }
    let seed = options.seed;
    println!("seed {seed}: {:?}", outcome.counts);
    if let Some(failure) = &outcome.failure {
        println!("seed {seed} FAILED {failure}");
        println!("replay: {} --verbose", command(options));
    }
}

/// Lines that tell what a fault did.
const TELLING: &[&str] = &[
    " FAULT ",
    " UNDO ",
    " HEAL",
    " dies",
    " is drained",
    " is stopped",
    " goes on",
    " vanishes",
    " is put back ",
    "'s clocks ",
];

/// Makes a failing run as small as it gets, and shows what it still needs to fail.
fn show_minimised(options: Options) {
    let (faults, people) = plan(&options);
    let Some(found) = minimise(options) else { return };
    let (faults_left, people_left) = plan(&found.options);
    println!(
        "minimised in {} runs: {} of {} faults, {} of {} people, calls until {}",
        found.runs,
        faults_left.len(),
        faults.len(),
        people_left.len(),
        people.len(),
        seconds(found.options.calls_until)
    );
    // What each fault did stands in the lines of the run.
    let again = run(Options { trace: usize::MAX, ..found.options.clone() });
    for line in again.trace.iter().filter(|line| TELLING.iter().any(|word| line.contains(word))) {
        println!("  {line}");
    }
    if let Some(failure) = again.failure {
        println!("  FAILED {failure}");
    }
    println!("replay: {} --verbose", command(&found.options));
}
