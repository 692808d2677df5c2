//! The cluster that a drill may break: a copy of a topology in a temporary folder, on free ports of 127.0.0.1 or in a
//! network of its own, and its processes. Nothing else is ever touched: blows go through the supervisor, which reaches
//! its own children only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cli::context::{Context, Loaded, Place};
use crate::cli::drill::disk::Wanted;
use crate::cli::drill::now;
use crate::cli::drill::room::Need;
use crate::cli::drill::terrain::Terrain;
use crate::cli::failure::{Failure, Kind};
use crate::cli::session::{Person, Session};
use crate::client::{ClusterStatus, Life};
use crate::id::ProcessId;
use crate::runtime::supervise::{Blow, ChildEvent, Supervisor, UpOptions};
use crate::topology::Topology;

/// Ports are taken from here up to the end, below those that the kernel gives away: the port of a process that is dead
/// for a moment must not become some client's.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// Where a host has its own network, its processes' ports begin here.
const OWN_PORTS: u16 = 6_001;
/// How long the cluster may take to become whole: a process that died often is started again after 5 s.
const WHOLE_WAIT: Duration = Duration::from_secs(60);
/// How often its status is asked for until it is.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A process that has just died answers nobody: then another one is asked.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// What the processes logged, in the folder.
const LOG: &str = "processes.log";

/// What becomes of the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folder {
    /// It goes.
    Remove,
    /// It holds the evidence.
    Keep,
}

/// What the events of the supervisor told.
#[derive(Debug, Default)]
struct Children {
    pids: BTreeMap<ProcessId, u32>,
    ready: BTreeSet<ProcessId>,
    /// Why the cluster cannot go on at all.
    failed: Option<String>,
}

/// The cluster.
#[derive(Debug)]
pub(super) struct Ground {
    supervisor: Supervisor,
    children: Arc<Mutex<Children>>,
    listening: JoinHandle<()>,
    loaded: Loaded,
    context: Context,
    folder: TempDir,
    terrain: Terrain,
    /// Held for as long as the processes may have the UDP ports of the same numbers: no other drill takes them.
    _ports: Vec<TcpListener>,
}

/// A connection to whichever process tells the status.
#[derive(Debug)]
pub(super) struct Watch {
    place: Place,
    session: Option<Session>,
}

impl Ground {
    /// Starts the processes on what is needed, and waits for nothing.
    pub(super) async fn start(context: &Context, model: &Topology, needs: &BTreeSet<Need>) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("cannot make a place for the drill: {error}"));
        let folder = tempfile::Builder::new().prefix("gaggle-drill-").tempdir().map_err(failed)?;
        let terrain = Terrain::start(model, folder.path(), needs).await?;
        let (ports, addrs) = match own_addrs(model, &terrain) {
            Some(addrs) => (Vec::new(), addrs),
            None => free_ports(model.processes().count())?,
        };
        let text = text_of(model, &addrs);
        let path = folder.path().join("topology.toml");
        std::fs::write(&path, text).map_err(failed)?;
        let loaded = Loaded::read(&path)?;
        let topology = loaded.topology.clone();
        let before = topology.hosts.iter().map(|host| (host.id, terrain.before(host.id))).collect();
        let options = UpOptions { topology_path: path, topology, hosts: Vec::new(), before };
        let (supervisor, events) = Supervisor::start(options).map_err(failed)?;
        let children = Arc::new(Mutex::new(Children::default()));
        let log = folder.path().join(LOG);
        let listening = crate::cli::spawn(listen(events, Arc::clone(&children), log));
        // Nothing of the person's own cluster: neither its profile nor its hosts.
        let mut context = context.clone();
        (context.global.via, context.global.profile) = (None, None);
        Ok(Self { supervisor, children, listening, loaded, context, folder, terrain, _ports: ports })
    }

    /// The topology as it was copied.
    pub(super) fn topology(&self) -> &Topology {
        &self.loaded.topology
    }

    /// Where its data and logs are.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it stands on.
    pub(super) fn terrain(&self) -> &Terrain {
        &self.terrain
    }

    /// The surroundings of sessions with this cluster.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// Waits until every process has its port and its store, and with them its key.
    pub(super) async fn started(&self) -> Result<Place, Failure> {
        let deadline = now() + WHOLE_WAIT;
        loop {
            let (count, failed) = {
                let children = self.children();
                (children.ready.len(), children.failed.clone())
            };
            if let Some(why) = failed {
                return Err(Failure::failed(why));
            }
            if count == self.loaded.topology.processes().count() {
                self.clocks_work()?;
                return Context::place_of_file(self.loaded.clone());
            }
            if now() > deadline {
                return Err(Failure::failed(format!("only {count} processes started in time")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A clock that does not jump would break nothing, and the drill would praise the cluster for it.
    fn clocks_work(&self) -> Result<(), Failure> {
        let Some(clocks) = self.terrain.clocks() else { return Ok(()) };
        match self.children().pids.values().find(|pid| !clocks.is_read_by(**pid)) {
            Some(pid) => Err(Failure::failed(format!("libfaketime has no effect on the process {pid}"))
                .hint("use a program that is linked to the C library dynamically")),
            None => Ok(()),
        }
    }

    /// Waits until nothing is wrong any more and every process that should live does, as another one sees it.
    pub(super) async fn whole(&self, watch: &mut Watch) -> Result<ClusterStatus, Failure> {
        self.wait(watch, "whole", |status| self.is_whole(status)).await
    }

    /// As `whole`, and some host has clients: who serves since a moment ago has not counted them yet.
    pub(super) async fn busy(&self, watch: &mut Watch) -> Result<ClusterStatus, Failure> {
        let serves = |status: &ClusterStatus| status.hosts.iter().any(|host| host.sessions > 0);
        self.wait(watch, "serving clients", |status| self.is_whole(status) && serves(status)).await
    }

    /// As `whole`, and all hosts hold the same entries.
    pub(super) async fn converged(&self, watch: &mut Watch) -> Result<ClusterStatus, Failure> {
        let same = |status: &ClusterStatus| {
            let mut vectors = status.hosts.iter().map(|host| &host.vector);
            let first = vectors.next();
            vectors.all(|vector| Some(vector) == first)
        };
        self.wait(watch, "of one state", |status| self.is_whole(status) && same(status)).await
    }

    /// Waits until there is an alarm that says this.
    pub(super) async fn alarmed(&self, watch: &mut Watch, words: &str) -> Result<(), Failure> {
        let says = |status: &ClusterStatus| status.alarms.iter().any(|alarm| alarm.contains(words));
        self.wait(watch, &format!("saying that {words}"), says).await.map(|_| ())
    }

    async fn wait(
        &self,
        watch: &mut Watch,
        what: &str,
        is_so: impl Fn(&ClusterStatus) -> bool,
    ) -> Result<ClusterStatus, Failure> {
        let deadline = now() + WHOLE_WAIT;
        loop {
            let status = watch.look(&self.context).await;
            if let Some(why) = self.children().failed.clone() {
                return Err(Failure::failed(why));
            }
            if let Some(status) = status.as_ref().filter(|status| is_so(status)) {
                return Ok(status.clone());
            }
            if now() > deadline {
                let alarms = status.map_or_else(|| "nobody answers".to_owned(), |status| status.alarms.join(", "));
                let seconds = WHOLE_WAIT.as_secs();
                let message = format!("the cluster is not {what} after {seconds} s: {alarms}");
                return Err(Failure::new(Kind::Degraded, message));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The pids are compared, so that a status of before the blow is not believed.
    fn is_whole(&self, status: &ClusterStatus) -> bool {
        let children = self.children();
        let lives = |id: &ProcessId, life: Life, pid: u32| {
            life == Life::Up && children.ready.contains(id) && children.pids.get(id) == Some(&pid)
        };
        let mut hosts = status.hosts.iter();
        status.alarms.is_empty()
            && hosts.all(|host| {
                let mut processes = host.processes.iter();
                host.up
                    && host.serving.is_some()
                    && host.relaying.is_some()
                    && processes.all(|process| lives(&process.id, process.life, process.pid))
            })
    }

    /// Strikes some processes.
    pub(super) async fn strike(&self, ids: &[ProcessId], blow: Blow) -> Result<(), Failure> {
        if blow == Blow::Kill {
            let mut children = self.children();
            for id in ids {
                children.pids.remove(id);
                children.ready.remove(id);
            }
        }
        let struck = self.supervisor.strike(ids.to_vec(), blow).await;
        struck.map_err(|error| Failure::failed(format!("the blow missed: {error}")))
    }

    /// Whether this very process still runs: one that was stopped may have been killed by its successor.
    pub(super) fn pid(&self, id: ProcessId) -> Option<u32> {
        self.children().pids.get(&id).copied()
    }

    /// Ends every process; returns when none is left. Tells where the folder is, if it is kept.
    pub(super) async fn end(self, folder: Folder) -> Option<PathBuf> {
        self.supervisor.stop().await;
        let _ = self.listening.await;
        let wanted = match folder {
            Folder::Remove => Wanted::No,
            Folder::Keep => Wanted::Yes,
        };
        if let Err(failure) = self.terrain.end(wanted).await {
            self.context.out.notice("drill-kept", &format!("not all data could be kept: {}", failure.message));
        }
        match folder {
            Folder::Remove => None,
            Folder::Keep => Some(self.folder.keep()),
        }
    }

    fn children(&self) -> MutexGuard<'_, Children> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Of this cluster; connects when it is first used.
    pub(super) fn new(place: Place) -> Self {
        Self { place, session: None }
    }

    /// The status; none if nobody answers in time.
    async fn look(&mut self, context: &Context) -> Option<ClusterStatus> {
        let asked = async {
            let session = match self.session.take() {
                Some(session) => session,
                None => Session::open(context, &self.place, Person::Nobody).await.ok()?,
            };
            let status = session.status().await.ok()?;
            self.session = Some(session);
            Some(status)
        };
        tokio::time::timeout(ANSWER_WAIT, asked).await.ok().flatten()
    }
}

/// Takes the supervisor's events until it ends.
async fn listen(mut events: mpsc::Receiver<ChildEvent>, children: Arc<Mutex<Children>>, log: PathBuf) {
    // A log that cannot be written is missed only by who looks for a cause.
    let mut log = std::fs::File::create(log).ok();
    while let Some(event) = events.recv().await {
        let line = {
            let mut children = children.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                ChildEvent::Started { id, pid } => {
                    children.pids.insert(id, pid);
                    format!("{id} started as pid {pid}")
                }
                ChildEvent::Ready { id } => {
                    children.ready.insert(id);
                    format!("{id} is ready")
                }
                ChildEvent::Died { id, how } => {
                    children.pids.remove(&id);
                    children.ready.remove(&id);
                    format!("{id} ended: {how}")
                }
                ChildEvent::Restarting { id, after } => format!("{id} starts again in {} ms", after.as_millis()),
                ChildEvent::Line { id, text } => format!("{id} | {text}"),
                ChildEvent::Failed { id, message, .. } => {
                    let why = format!("{id} cannot start: {}", message.lines().last().unwrap_or_default());
                    children.failed = Some(why.clone());
                    why
                }
            }
        };
        if let Some(log) = &mut log {
            let _ = writeln!(log, "{line}");
        }
    }
}

/// Addresses in the cluster's own network; none if it has none.
fn own_addrs(model: &Topology, terrain: &Terrain) -> Option<Vec<SocketAddr>> {
    let network = terrain.network()?;
    let mut ports = OWN_PORTS..;
    model.processes().map(|process| Some((network.addr(process.host)?, ports.next()?).into())).collect()
}

/// Addresses that nobody has, and what keeps other drills from them.
fn free_ports(count: usize) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), Failure> {
    let (mut reserved, mut addrs) = (Vec::new(), Vec::new());
    // Drills that begin at the same time look at different places.
    let span = u32::from(PORTS.end - PORTS.start);
    let skip = usize::try_from(std::process::id().wrapping_mul(16) % span).unwrap_or(0);
    for port in PORTS.skip(skip).chain(PORTS.take(skip)) {
        if addrs.len() == count {
            break;
        }
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if let (Ok(listener), Ok(_)) = (TcpListener::bind(addr), UdpSocket::bind(addr)) {
            reserved.push(listener);
            addrs.push(addr);
        }
    }
    if addrs.len() < count {
        return Err(Failure::failed("there are not enough free ports on 127.0.0.1").hint("end what uses them"));
    }
    Ok((reserved, addrs))
}

/// The topology with other addresses and folders, and a name of its own: no person's profile fits it.
fn text_of(model: &Topology, addrs: &[SocketAddr]) -> String {
    let mut text = format!("cluster = \"drill\"\ndata = \"data\"\ncerts = \"certs\"\nack = \"{}\"\n", model.ack);
    let mut addrs = addrs.iter();
    let (kept, max) = (model.log_entries_kept, model.log_entries_max);
    let mut write = || -> std::fmt::Result {
        writeln!(text, "[log]\nkept = {kept}\nmax = {max}")?;
        for host in &model.hosts {
            writeln!(text, "[[host]]\nname = \"{}\"", host.id)?;
            for (process, addr) in host.processes.iter().zip(&mut addrs) {
                writeln!(text, "[[host.process]]\nid = \"{}\"\nrole = \"{}\"", process.id, process.role)?;
                writeln!(text, "addr = \"{addr}\"")?;
            }
        }
        Ok(())
    };
    // Writing to a string cannot fail.
    let _ = write();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_means_the_same_at_other_addresses() {
        let model = Topology::parse(include_str!("../../../topology/lenss.toml"), "lenss.toml").unwrap();
        let (_reserved, addrs) = free_ports(10).unwrap();
        let copy = Topology::parse(&text_of(&model, &addrs), "topology.toml").unwrap();
        assert_eq!(copy.processes().map(|process| process.addr).collect::<Vec<_>>(), addrs);
        let plain = |topology: &Topology| {
            let rows = topology.processes().map(|process| (process.host, process.id, process.role));
            (rows.collect::<Vec<_>>(), topology.ack, topology.log_entries_kept, topology.log_entries_max)
        };
        assert_eq!(plain(&copy), plain(&model));
        assert_eq!((copy.data, copy.certs), ("data".into(), "certs".into()));
    }

    #[test]
    fn ports_are_taken_once() {
        let (_first, one) = free_ports(10).unwrap();
        let (_second, other) = free_ports(10).unwrap();
        assert!(one.iter().all(|addr| !other.contains(addr)));
    }
}
