//! The snapshot between real processes, people at work meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gaggle::client::{CertBook, Client, ClientOptions, Entrance, HostStatus};
use gaggle::id::{Seq, Vector};
use gaggle::topology::Topology;
use rustix::process::{Pid, Signal, kill_process};

use crate::people::Crowd;
use crate::{Arguments, Size, fill, megabytes, rate};

/// The reference topology, whose ports are replaced.
const LENSS: &str = include_str!("../../topology/lenss.toml");
/// How often is looked how far it is.
const LOOK: Duration = Duration::from_millis(50);
/// The host that gets the snapshot.
const EMPTY: &str = "lenss4";

/// A running `gaggle up`; dropped, its processes end.
struct Up(Child);

impl Up {
    fn start(topology: &Path, hosts: &[&str]) -> Self {
        let log = fs::File::options().create(true).append(true).open(topology.with_file_name("up.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gaggle"));
        command.args(["up", "--json", "--topology"]).arg(topology).stdout(Stdio::piped()).stderr(log);
        for host in hosts {
            command.args(["--host", host]);
        }
        Self(command.spawn().unwrap())
    }

    fn wait_ready(&mut self) {
        let mut ready = String::new();
        BufReader::new(self.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(!ready.is_empty(), "the mesh did not get ready");
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Memory of a process that no other has, in kB: the pages of the store's map are the system's, which takes them back
/// when it needs them.
fn own_kb(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The most memory that each process had.
#[derive(Default)]
struct Peaks(BTreeMap<String, (u64, u64)>);

impl Peaks {
    fn look(&mut self, hosts: &[HostStatus]) {
        for process in hosts.iter().flat_map(|host| &host.processes) {
            if let Some(now) = own_kb(process.pid) {
                let peak = self.0.entry(process.id.to_string()).or_insert((now, now));
                peak.1 = peak.1.max(now);
            }
        }
    }
}

fn lay_topology(arguments: &Arguments, folder: &Path) -> PathBuf {
    let mut text = LENSS.replace("\"../", "\"");
    for number in 1..=10_u16 {
        text = text.replace(&format!(":{}\"", 6_000 + number), &format!(":{}\"", arguments.port + number));
    }
    let (kept, max) = if arguments.log { (2_000_000_000, 2_000_000_000) } else { (2_000, 1_000_000) };
    text.push_str(&format!("\n[log]\nkept = {kept}\nmax = {max}\n"));
    let path = folder.join("lenss.toml");
    fs::write(&path, text).unwrap();
    path
}

fn entrances(topology: &Path) -> Vec<Entrance> {
    let parsed = Topology::parse(&fs::read_to_string(topology).unwrap(), "lenss.toml").unwrap();
    let book = CertBook::load(&topology.parent().unwrap().join(&parsed.certs)).unwrap();
    let entrance = |process: &gaggle::topology::ProcessSpec| {
        Some(Entrance { id: process.id, addr: process.addr, key: book.key(process.id)? })
    };
    parsed.processes().filter_map(entrance).collect()
}

async fn status(watcher: &Client) -> Vec<HostStatus> {
    watcher.status().await.unwrap().hosts
}

fn vector_of(hosts: &[HostStatus], name: &str) -> Vector {
    let host = hosts.iter().find(|host| host.name.to_string() == name);
    host.map(|host| host.vector.clone()).unwrap_or_default()
}

/// Starts two hosts, and then the empty one, and tells what that costs.
pub(crate) async fn measure(arguments: &Arguments, folder: &Path, size: &Size) {
    let topology = lay_topology(arguments, folder);
    let mut full = Up::start(&topology, &["lenss1", "lenss3"]);
    full.wait_ready();
    let entrances = entrances(&topology);
    let watcher = Client::connect(ClientOptions::new(entrances.clone())).await.unwrap();
    let pause = Duration::from_millis(arguments.pause_ms);
    let crowd = Crowd::start(&entrances, "lenss3", arguments.clients, pause).await;
    tokio::time::sleep(Duration::from_secs(arguments.before)).await;

    let mut peaks = Peaks::default();
    peaks.look(&status(&watcher).await);
    crowd.enter(1);
    let began = Instant::now();
    let _empty = Up::start(&topology, &[EMPTY]);
    let wanted = Seq(arguments.people + arguments.posts);
    let mut opened = None;
    loop {
        let hosts = status(&watcher).await;
        peaks.look(&hosts);
        let is_up = hosts.iter().any(|host| host.name.to_string() == EMPTY && host.serving.is_some());
        if is_up {
            opened.get_or_insert_with(|| began.elapsed());
        }
        if vector_of(&hosts, EMPTY).get(fill::origin()) >= wanted {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    let adopted = began.elapsed();
    let came = vector_of(&status(&watcher).await, "lenss3");
    while !vector_of(&status(&watcher).await, EMPTY).covers(&came) {
        tokio::time::sleep(LOOK).await;
    }
    let whole = began.elapsed();
    let latencies = crowd.finish().await;
    let streamed = adopted - opened.unwrap_or_default();
    println!("\n{:26} {:>9}", "BETWEEN PROCESSES", "");
    println!("{:26} {:>9.2} s", "the empty host is up", opened.unwrap_or_default().as_secs_f64());
    println!("{:26} {:>9.2} s", "and holds what was noted", adopted.as_secs_f64());
    println!("{:26} {:>9.2} s", "and what came meanwhile", whole.as_secs_f64());
    println!(
        "{:26} {:>9.1} MB/s ({:.1} MB, {} rows)",
        "streamed",
        rate(size.bytes, streamed),
        megabytes(size.bytes),
        size.rows
    );
    println!("\n{:10} {:>9} {:>9} {:>9} {:>9} {:>9}", "POSTS", "COUNT", "P50 MS", "P90 MS", "P99 MS", "WORST MS");
    for (phase, latency) in ["before", "meanwhile"].iter().zip(&latencies) {
        let ms = |at: f64| std::time::Duration::from_micros(latency.value_at_quantile(at)).as_secs_f64() * 1e3;
        let (p50, p90, p99, worst) = (ms(0.5), ms(0.9), ms(0.99), ms(1.0));
        println!("{phase:10} {:>9} {p50:>9.2} {p90:>9.2} {p99:>9.2} {worst:>9.2}", latency.len());
    }
    println!("\n{:10} {:>12} {:>12}", "PROCESS", "OWN MB FIRST", "OWN MB MOST");
    for (process, (first, most)) in peaks.0 {
        println!("{process:10} {:>12.1} {:>12.1}", megabytes(first * 1_024), megabytes(most * 1_024));
    }
}
