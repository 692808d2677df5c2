//! A cluster of its own: a folder, ports, a topology, and one `gaggle up` or one for each host.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gaggle::client::{CertBook, Entrance};
use gaggle::id::Vector;
use gaggle::topology::Topology;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::cli::{self, Ended, GAGGLE};
use super::keeper::Up;
use super::ports::Ports;
use super::status::Status;
use super::{LOOK, PATIENCE};

/// The reference topology, whose ports are replaced.
const LENSS: &str = include_str!("../../../topology/lenss.toml");
pub(crate) const HOSTS: [&str; 3] = ["lenss1", "lenss3", "lenss4"];

/// How many commands start the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ups {
    /// One for all hosts, as on one machine.
    One,
    /// One for each host, as on three machines: a host can stay down.
    ForEachHost,
}

impl Ups {
    fn groups(self) -> Vec<&'static [&'static str]> {
        match self {
            Self::One => vec![&HOSTS],
            Self::ForEachHost => HOSTS.chunks(1).collect(),
        }
    }
}

/// The reference topology on ports of its own. Dropping it ends every process.
#[derive(Debug)]
pub(crate) struct Cluster {
    // In this order: processes end before their folder goes, and the ports after both.
    ups: BTreeMap<&'static str, Up>,
    folder: TempDir,
    ports: Ports,
    how: Ups,
    /// What `up` is started through.
    wrapper: Vec<String>,
}

impl Cluster {
    /// Starts it and waits until it is ready, and healthy by its own account.
    pub(crate) async fn start(how: Ups) -> Self {
        let mut cluster = Self::prepare(how);
        cluster.start_again().await;
        cluster
    }

    /// All but its processes.
    pub(crate) fn prepare(how: Ups) -> Self {
        let (ports, folder) = (Ports::reserve(), TempDir::with_prefix("gaggle-it-").unwrap());
        let cluster = Self { ups: BTreeMap::new(), folder, ports, how, wrapper: Vec::new() };
        std::fs::write(cluster.topology(), cluster.lenss()).unwrap();
        cluster
    }

    /// The reference topology with this cluster's ports and folders.
    pub(crate) fn lenss(&self) -> String {
        let mut text = LENSS.replace("\"../", "\"");
        for number in 1..=10 {
            text = text.replace(&format!("\"127.0.0.1:{}\"", 6_000 + number), &format!("\"{}\"", self.addr(number)));
        }
        text
    }

    /// The address of the process with this number (W5 has 5).
    pub(crate) fn addr(&self, number: u16) -> String {
        format!("127.0.0.1:{}", self.ports.get(number))
    }

    pub(crate) fn path(&self, inner: &str) -> PathBuf {
        self.folder.path().join(inner)
    }

    pub(crate) fn topology(&self) -> PathBuf {
        self.path("lenss.toml")
    }

    /// Starts whatever was started and does not run.
    pub(crate) async fn start_again(&mut self) {
        for hosts in self.how.groups() {
            self.begin(hosts);
        }
        for up in self.ups.values() {
            tokio::task::block_in_place(|| up.wait_ready(PATIENCE));
        }
        self.wait("healthy", Status::is_healthy).await;
    }

    /// Starts one host's processes, which were ended before, without waiting for them.
    pub(crate) fn start_host(&mut self, host: &'static str) {
        let group = self.how.groups().into_iter().find(|group| *group == [host]);
        self.begin(group.expect("a cluster with an `up` for each host"));
    }

    fn begin(&mut self, hosts: &'static [&'static str]) {
        let log = self.path(&format!("{}.log", hosts[0]));
        let (topology, wrapper) = (self.topology(), &self.wrapper);
        self.ups.entry(hosts[0]).or_insert_with(|| Up::start(wrapper, &topology, hosts, log));
    }

    /// SIGTERM to every `up`: all processes say goodbye.
    pub(crate) fn stop(&mut self) {
        let ups = std::mem::take(&mut self.ups);
        for up in ups.values() {
            up.signal(Signal::TERM);
        }
        for up in ups.into_values() {
            assert_eq!(tokio::task::block_in_place(|| up.wait(PATIENCE)), Some(0));
        }
        self.ports.wait_until_free();
    }

    /// Kills what was started, the command and nothing else; its children must end by themselves.
    pub(crate) fn kill_ups_only(&mut self) {
        let ups = std::mem::take(&mut self.ups);
        ups.values().for_each(|up| up.signal(Signal::KILL));
        for up in ups.into_values() {
            tokio::task::block_in_place(|| up.wait(PATIENCE));
        }
        self.ports.wait_until_free();
    }

    /// Starts with a small disk of its own for a host's data, in a mount namespace that ends with its processes. Tells
    /// why if this machine does not let us.
    pub(crate) async fn start_on_small_disk(&mut self, host: &str, size: &str) -> Result<(), String> {
        let folder = self.path(&format!("data/{host}"));
        std::fs::create_dir_all(&folder).unwrap();
        let namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"];
        let mount = r#"mount -t tmpfs -o "size=$0" none "$1" && shift && exec "$@""#;
        let folder = folder.to_str().unwrap();
        let wrapper = namespace.into_iter().chain([mount, size, folder]).map(str::to_owned).collect::<Vec<_>>();
        let mut trial = Command::new(&wrapper[0]);
        let trial = cli::run(trial.args(&wrapper[1..]).arg("true"), "").await;
        if trial.status != Some(0) {
            return Err(trial.err);
        }
        self.wrapper = wrapper;
        self.start_again().await;
        Ok(())
    }

    /// A path as the processes see it.
    pub(crate) fn inside(&self, inner: &str) -> PathBuf {
        let up = self.ups.values().next().unwrap();
        PathBuf::from(format!("/proc/{}/root{}", up.pid(), self.path(inner).display()))
    }

    /// Kills everything at once, the commands that started it included.
    pub(crate) fn kill_all(&mut self) {
        let ups = std::mem::take(&mut self.ups);
        for up in ups.values() {
            up.signal(Signal::KILL);
        }
        drop(ups);
        self.ports.wait_until_free();
    }

    /// Takes a host's power away: all its processes are stopped first, so that none sees the others die.
    pub(crate) async fn kill_host(&mut self, host: &str) {
        let pids = self.pids_of(host).await;
        for pid in &pids {
            signal(*pid, Signal::STOP);
        }
        if self.how == Ups::ForEachHost {
            let up = self.ups.remove(host).unwrap();
            up.signal(Signal::KILL);
        }
        for pid in pids {
            // Its `up`, if that was killed, has taken it along by now.
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }

    pub(crate) async fn pids_of(&self, host: &str) -> Vec<i32> {
        let status = self.wait("known pids", |status| status.processes().all(|process| process.up)).await;
        status.host(host).processes.iter().map(|process| process.pid).collect()
    }

    /// A command with this cluster, and its profiles, in its environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(GAGGLE);
        command.args(arguments).env("GAGGLE_TOPOLOGY", self.topology()).env("GAGGLE_HOME", self.path("home"));
        command.env_remove("GAGGLE_AS").current_dir(self.folder.path());
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn gaggle(&self, arguments: &[&str]) -> Ended {
        cli::run(&mut self.command(arguments), "").await
    }

    /// What `gaggle status --json` says; none if nobody answers.
    pub(crate) async fn status(&self) -> Option<Status> {
        let mut command = self.command(&["status", "--json", "--timeout", "3"]);
        let ended = cli::run(command.env("GAGGLE_HOME", self.path("nobody")), "").await;
        match ended.status {
            Some(0 | 8) => Some(serde_json::from_str(&ended.out).unwrap()),
            Some(6 | 7) => None,
            _ => panic!("{ended:?}"),
        }
    }

    /// Waits until the status is so.
    pub(crate) async fn wait(&self, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            if let Some(status) = status.as_ref().filter(|status| is_so(status)) {
                return status.clone();
            }
            assert!(Instant::now() < deadline, "not {what} in time: {status:#?}");
            sleep(LOOK).await;
        }
    }

    /// Waits until nothing is wrong and all hosts hold the same, at least all of this: what one process knows of
    /// others may be a second old.
    pub(crate) async fn wait_converged(&self, vector: &Vector) -> Status {
        let held = |status: &Status| status.hosts[0].holds(vector);
        self.wait("converged", |status| status.is_healthy() && status.is_converged() && held(status)).await
    }

    /// The ways in, masters first, as the topology file has them.
    pub(crate) fn entrances(&self) -> Vec<Entrance> {
        let text = std::fs::read_to_string(self.topology()).unwrap();
        let topology = Topology::parse(&text, "lenss.toml").unwrap();
        let book = CertBook::load(&self.folder.path().join(&topology.certs)).unwrap();
        topology
            .processes()
            .map(|process| Entrance { id: process.id, addr: process.addr, key: book.key(process.id).unwrap() })
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (name, up) in &self.ups {
                eprintln!("--- the last lines of {name} and others\n{}", up.log_tail());
            }
            if std::env::var_os("GAGGLE_IT_KEEP").is_some() {
                self.folder.disable_cleanup(true);
                eprintln!("kept: {}", self.folder.path().display());
            }
        }
        self.ups.clear();
        self.ports.wait_until_free();
    }
}

/// Sends a signal to a process of the cluster.
pub(crate) fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}
