//! One process of the topology, from its start to its goodbye.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clock::Clock;
use super::driver::{Ending, Supervision};
use super::event::Event;
use super::joined::{Joined, Parts, join};
use super::pids::{self, Living, RunFile};
use super::supervise::{PARENT, SUPERVISED, Wish};
use super::writer::Writing;
use crate::core::io::Input;
use crate::core::node::NodeConfig;
use crate::id::{HostId, ProcessId};
use crate::limits;
use crate::net::{CertBook, CloseCode, Identity, NodeEndpoint, certs};
use crate::store::{LmdbStore, Store, StoreIdentity};
use crate::topology::{HostSpec, ProcessSpec, Topology};
use crate::wire::{VERSION, VERSION_OLDEST, Versions};

/// How long the last words of a process that leaves may take to leave, too.
const LAST_WORDS: Duration = Duration::from_millis(60);
/// How long tasks and other sides have to take note of the end.
const FAREWELL: Duration = Duration::from_millis(300);

/// The newest wire version that a process is to speak.
const WIRE: &str = "GAGGLE_WIRE";

/// What a process is started with.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Who is in the cluster.
    pub topology: Topology,
    /// The folder that the topology's `data` and `certs` are relative to: the file's own.
    pub base: PathBuf,
    /// Which process this is.
    pub id: ProcessId,
}

/// Why a process did not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The topology has no such process: a usage error.
    #[error("the topology has no process {0}: `gaggle node` takes one of its ids")]
    UnknownProcess(ProcessId),
    /// A process with this id runs already.
    #[error("{id} runs already, as pid {pid}: stop it first")]
    Running {
        /// Which.
        id: ProcessId,
        /// Its operating system's number.
        pid: u32,
    },
    /// Its key, or a public identity, cannot be used.
    #[error("{0}")]
    Identity(String),
    /// Ports, folders or the operating system refused.
    #[error("{0}")]
    Start(String),
    /// It ran, and cannot go on.
    #[error("{0}")]
    Failed(String),
}

impl RunError {
    /// The exit status of the command.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::UnknownProcess(_) => 2,
            Self::Identity(_) => 5,
            Self::Running { .. } | Self::Start(_) | Self::Failed(_) => 1,
        }
    }
}

/// Runs a process of the topology until it said goodbye (SIGTERM) or cannot go on. Blocks; logs to standard error.
///
/// To be called from the main thread, and once: it ties the process's life to its supervisor's.
pub fn run_node(options: NodeOptions) -> Result<(), RunError> {
    let supervision = follow_parent()?;
    start_log();
    let site = Site::of(&options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(start_error)?;
    let ending = runtime.block_on(run(&options, &site, supervision));
    // The writer thread may wait for a lock that nobody gives back: it is not waited for.
    runtime.shutdown_background();
    ending
}

/// Under `gaggle up`: ends with it, even if it is killed.
fn follow_parent() -> Result<Supervision, RunError> {
    let Some(parent) = std::env::var(PARENT).ok().filter(|_| std::env::var_os(SUPERVISED).is_some()) else {
        return Ok(Supervision::Alone);
    };
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(start_error)?;
    // It may have died before the line above, and then no signal ever comes.
    let lives = getppid().is_some_and(|pid| pid.as_raw_nonzero().get().to_string() == parent);
    if lives { Ok(Supervision::Supervised) } else { Err(RunError::Start("the supervisor is gone".to_owned())) }
}

fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("GAGGLE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // Fails only when there is a log already, as in tests.
    let _ = log.compact().with_ansi(std::io::stderr().is_terminal()).try_init();
}

pub(super) fn start_error(error: impl std::fmt::Display) -> RunError {
    RunError::Start(error.to_string())
}

fn identity_error(error: impl std::fmt::Display) -> RunError {
    RunError::Identity(error.to_string())
}

/// Where a process stands, in the topology and on the disk.
pub(super) struct Site {
    spec: ProcessSpec,
    pub(super) host: HostSpec,
    certs: PathBuf,
    pub(super) data: PathBuf,
    run_path: PathBuf,
}

impl Site {
    pub(super) fn of(options: &NodeOptions) -> Result<Self, RunError> {
        let NodeOptions { topology, base, id } = options;
        let spec = topology.process(*id).ok_or(RunError::UnknownProcess(*id))?.clone();
        let host = topology.host(spec.host).ok_or(RunError::UnknownProcess(*id))?.clone();
        let (certs, data) = (base.join(&topology.certs), base.join(&topology.data));
        let run_path = pids::run_path(&data, spec.host, *id);
        Ok(Self { spec, host, certs, data, run_path })
    }

    /// Two processes with one id would share a key and a place in the election.
    fn refuse_a_second(&self) -> Result<(), RunError> {
        let RunFile::Process(stamp) = pids::read_run(&self.run_path) else { return Ok(()) };
        if stamp.pid == std::process::id() || Living::hold(stamp).is_none() {
            return Ok(());
        }
        Err(RunError::Running { id: self.spec.id, pid: stamp.pid })
    }

    fn identity(&self) -> Result<Identity, RunError> {
        let key = self.certs.join("private").join(format!("{}.key", self.spec.id));
        let identity = Identity::load_or_make(&key).map_err(identity_error)?;
        certs::publish(&self.certs, self.spec.id, &identity.public_key()).map_err(identity_error)?;
        Ok(identity)
    }

    fn store(&self, cluster: &str) -> Result<Arc<dyn Store>, RunError> {
        let identity = StoreIdentity { cluster: cluster.to_owned(), host: self.spec.host };
        let folder = self.data.join(self.spec.host.to_string());
        let store = LmdbStore::open(&folder, &identity).map_err(start_error)?;
        Ok(Arc::new(store))
    }
}

/// Everything from the first port to the last word.
async fn run(options: &NodeOptions, site: &Site, supervision: Supervision) -> Result<(), RunError> {
    let clock = Clock::start();
    site.refuse_a_second()?;
    let identity = site.identity()?;
    let book = CertBook::load(&site.certs).map_err(identity_error)?;
    let store = site.store(&options.topology.cluster)?;
    let endpoint = NodeEndpoint::bind(site.spec.addr, identity).map_err(start_error)?;
    let signals = Signals::new().map_err(start_error)?;
    fs::create_dir_all(pids::run_folder(&site.data, site.spec.host))
        .map_err(|error| folder_error(&site.data, &error))?;
    // Only with the port in hand: of two that start at once, one fails before it says who it is.
    let me = pids::myself().map_err(start_error)?;
    pids::write_run(&site.run_path, me).map_err(|error| folder_error(&site.run_path, &error))?;

    let parts = Parts {
        config: NodeConfig { pid: me.pid, ..node_config(options)? },
        endpoint: endpoint.clone(),
        store,
        book,
        clock,
        writing: Writing::InThread,
        supervision,
    };
    let others = site.host.processes.iter().map(|process| process.id).filter(|id| *id != options.id);
    let Joined { driver, first, events, tasks, cancel } =
        join(parts, &site.host, &site.data, others).map_err(start_error)?;
    tasks.spawn(signals.run(cancel.clone(), events));
    if supervision == Supervision::Supervised {
        Wish::Ready { ready: options.id }.say();
    }
    tracing::info!(id = %options.id, addr = %site.spec.addr, pid = me.pid, "up");

    let ending = driver.run(first).await;
    leave(&ending, site, &endpoint, &tasks, &cancel).await;
    match ending {
        Ending::Clean => Ok(()),
        Ending::Failed(reason) => Err(RunError::Failed(reason)),
        Ending::Aborted => Err(RunError::Failed("ended by a second signal".to_owned())),
    }
}

/// Lets the last words arrive and closes what is open. The driver is gone, and with it the ends of all streams.
async fn leave(ending: &Ending, site: &Site, endpoint: &NodeEndpoint, tasks: &TaskTracker, cancel: &CancellationToken) {
    tasks.close();
    if *ending == Ending::Clean {
        if let Err(error) = pids::write_left(&site.run_path) {
            tracing::warn!(%error, "the run file cannot say goodbye: this process may be started again");
        }
        // Links and clients write what was queued; a close would throw away what is not yet on its way.
        tokio::time::sleep(LAST_WORDS).await;
    }
    cancel.cancel();
    endpoint.close(CloseCode::Goodbye, "");
    let _ = tokio::time::timeout(FAREWELL, tasks.wait()).await;
    endpoint.wait_closed(FAREWELL).await;
    tracing::info!(id = %site.spec.id, ?ending, "gone");
}

fn folder_error(path: &Path, error: &std::io::Error) -> RunError {
    RunError::Start(format!("cannot use {}: {error}", path.display()))
}

/// SIGTERM and SIGINT: the first asks the node to hand over, the second ends the process.
struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn run(mut self, cancel: CancellationToken, events: mpsc::Sender<Event>) {
        for event in [Event::Input(Input::Terminate), Event::Abort] {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = self.term.recv() => {}
                _ = self.int.recv() => {}
            }
            if events.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// What this process understands: all that this build does, or as much as it is told, so that all processes of a
/// cluster can be replaced before any writes what an older build cannot read. Tests make an older build of this one so.
fn versions() -> Result<Versions, RunError> {
    let Ok(newest) = std::env::var(WIRE) else { return Ok(Versions::OURS) };
    let known = newest.parse().ok().filter(|newest| (VERSION_OLDEST..=VERSION).contains(newest));
    known.map(Versions::upto).ok_or_else(|| {
        RunError::Start(format!(
            "{WIRE} is {newest:?}: this program speaks wire versions {VERSION_OLDEST} to {VERSION}"
        ))
    })
}

pub(super) fn node_config(options: &NodeOptions) -> Result<NodeConfig, RunError> {
    Ok(NodeConfig {
        topology: options.topology.clone(),
        topology_hash: options.topology.hash(),
        me: options.id,
        run: random()?,
        pid: std::process::id(),
        seed: random()?,
        versions: versions()?,
        block: limits::LOG_BLOCK_ENTRIES,
    })
}

fn random() -> Result<u64, RunError> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| RunError::Start("no randomness".to_owned()))?;
    Ok(u64::from_be_bytes(bytes))
}

/// The processes of a host that live, by their run files, for those that must know whether it is down (`backup restore`).
pub fn living_processes(topology: &Topology, base: &Path, host: HostId) -> Vec<(ProcessId, u32)> {
    let data = base.join(&topology.data);
    let of_host = topology.host(host).map(|host| host.processes.as_slice()).unwrap_or_default();
    let living = of_host.iter().filter_map(|process| match pids::read_run(&pids::run_path(&data, host, process.id)) {
        RunFile::Process(stamp) => Living::hold(stamp).map(|_| (process.id, stamp.pid)),
        RunFile::Absent | RunFile::Left => None,
    });
    living.collect()
}
