//! What an idle mesh costs: `cargo bench --bench idle` (`-- --help` for more).
//!
//! Starts the topology (`topology/lenss.toml` unless another is named), waits until it is ready, lets it settle, and prints the CPU time of each process over some seconds, from
//! `/proc/PID/stat`, and its share of the memory (PSS), from `/proc/PID/smaps_rollup`. Aim: ten processes, at most 5 % of
//! one core and 150 MB in all.
//!
//! The topology's folders are used as they are: name a copy of the file if a cluster must not be touched.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has nothing to say")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Parser;

/// Measures an idle mesh.
#[derive(Debug, Parser)]
struct Arguments {
    /// The topology to start.
    #[arg(long, default_value = "topology/lenss.toml")]
    topology: PathBuf,
    /// How long the mesh settles before the measurement.
    #[arg(long, default_value_t = 5)]
    settle: u64,
    /// How long it is measured.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Said by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One process of the mesh.
struct Process {
    id: String,
    pid: i64,
    ticks_before: u64,
}

fn main() {
    let arguments = Arguments::parse();
    let gaggle = env!("CARGO_BIN_EXE_gaggle");
    let mut up = Command::new(gaggle);
    up.args(["up", "--json", "--topology"]).arg(&arguments.topology).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut up = up.spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(up.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    if ready.is_empty() {
        eprintln!("the mesh did not get ready: run {gaggle} up to see why");
        std::process::exit(1);
    }
    std::thread::sleep(Duration::from_secs(arguments.settle));
    // `up` itself asks for the status twice a second: it is measured, too, and told apart.
    let mut processes: Vec<Process> = children(up.id());
    processes.push(Process { id: "up".into(), pid: up.id().into(), ticks_before: ticks(up.id().into()) });
    std::thread::sleep(Duration::from_secs(arguments.seconds));
    report(&processes, arguments.seconds);
    rustix::process::kill_process(rustix::process::Pid::from_child(&up), rustix::process::Signal::TERM).unwrap();
    up.wait().unwrap();
}

/// The processes that `up` has started.
fn children(up: u32) -> Vec<Process> {
    let list = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let tasks = fs::read_dir(format!("/proc/{up}/task")).unwrap().flatten();
    let pids = tasks.map(list).collect::<Vec<_>>().join(" ");
    let process = |pid: &str| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        let id = command.split('\0').nth(2).unwrap_or("?").to_owned();
        let pid = pid.parse().unwrap();
        Process { id, pid, ticks_before: ticks(pid) }
    };
    pids.split_whitespace().map(process).collect()
}

/// User and system time of a process, in clock ticks.
fn ticks(pid: i64) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

/// Proportional share of the memory, in KiB.
fn pss_kib(pid: i64) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn report(processes: &[Process], seconds: u64) {
    let percent = |ticks: u64| ticks as f64 * 100.0 / (rustix::param::clock_ticks_per_second() * seconds) as f64;
    let megabytes = |kib: u64| kib as f64 * 1024.0 / 1e6;
    let mut total = (0, 0);
    println!("{:8} {:>7} {:>9}", "PROCESS", "CPU %", "PSS MB");
    for process in processes {
        let (used, pss) = (ticks(process.pid) - process.ticks_before, pss_kib(process.pid));
        if process.id != "up" {
            total = (total.0 + used, total.1 + pss);
        }
        println!("{:8} {:>7.2} {:>9.2}", process.id, percent(used), megabytes(pss));
    }
    println!("{:8} {:>7.2} {:>9.2}  (without up)", "all", percent(total.0), megabytes(total.1));
}
