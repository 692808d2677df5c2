//! Runs simulated clusters, seed after seed: `cargo run --release --example sim -- --seeds 1000 --start 0`.
//!
//! `--verbose` shows the last lines of each run (`--lines N` of them, `--heartbeats` too). A failing seed is replayed
//! with its last lines, and the run goes on with `--keep-going`. The exit status is 1 if any seed failed.
//!
//! `--mutants` puts each known bug back in turn and looks for a seed that finds it, for a minute at most: a line for
//! each, and exit status 1 if one lives.

#![expect(clippy::unwrap_used, reason = "test code: the harness makes these values itself")]

#[path = "../tests/sim/harness/mod.rs"]
mod harness;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use harness::{Mutant, Options, Outcome, run};

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
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
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
            let failure = match std::panic::catch_unwind(|| run(options).failure.map(|failure| failure.to_string())) {
                Ok(failure) => failure,
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
        let outcome = run(Options { mutant: arguments.mutant, ..Options::new(seed) });
        runs += 1;
        events += outcome.counts.events;
        micros += outcome.micros;
        longest = longest.max(outcome.healed_in);
        if outcome.failure.is_some() || arguments.verbose {
            show(&arguments, seed, &outcome);
        }
        if outcome.failure.is_some() {
            failures += 1;
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
fn show(arguments: &Arguments, seed: u64, outcome: &Outcome) {
    let lines = if arguments.verbose { arguments.lines } else { arguments.lines.min(60) };
    let (heartbeats, mutant) = (arguments.heartbeats, arguments.mutant);
    let again = run(Options { trace: lines, heartbeats, mutant, ..Options::new(seed) });
    for line in &again.trace {
        println!("{line}");
    }
    println!("seed {seed}: {:?}", outcome.counts);
    if let Some(failure) = &outcome.failure {
        println!("seed {seed} FAILED {failure}");
        println!("replay: cargo run --release --example sim -- --start {seed} --seeds 1 --verbose");
    }
}
