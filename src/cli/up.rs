//! `up`: the processes of some hosts as children of this command, and a view of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::cli::args::UpArgs;
use crate::cli::context::{Context, Loaded};
use crate::cli::failure::Failure;
use crate::cli::harmless::harmless;
use crate::cli::interrupted;
use crate::cli::output::Paint;
use crate::cli::screen::Screen;
use crate::cli::session::{Person, Session};
use crate::cli::status::{status_text, troubles};
use crate::client::ClusterStatus;
use crate::id::{HostId, ProcessId};
use crate::runtime::supervise::{ChildEvent, Supervisor, UpOptions};
use crate::topology::{Role, Topology};

/// How often the cluster is asked until it is ready.
const ASK_UNTIL_READY: Duration = Duration::from_millis(25);
/// How often it is asked afterwards, for the live table.
const ASK_WHEN_READY: Duration = Duration::from_millis(500);
/// One answer of a local process takes a millisecond; while it starts, it takes for ever.
const ANSWER_WAIT: Duration = Duration::from_millis(500);
/// Lines below the table, where there is room for them.
const LINES_SHOWN: usize = 10;

/// What is on the screen.
struct View {
    context: Context,
    screen: Option<Screen>,
    lines: Vec<String>,
    /// Our children as they live now.
    children: BTreeMap<ProcessId, u32>,
    ready: Option<String>,
    status: Option<ClusterStatus>,
}

/// Runs the verb until it is interrupted, or cannot go on.
pub(crate) async fn run(context: &Context, args: &UpArgs) -> Result<u8, Failure> {
    let started = now();
    // One listener from before the first child on: a signal between two looks must not be missed.
    let stop = interrupted();
    let loaded = context.topology()?;
    let hosts = chosen(&loaded.topology, &args.hosts)?;
    let options =
        UpOptions { topology_path: loaded.path.clone(), topology: loaded.topology.clone(), hosts: hosts.clone() };
    let (supervisor, events) =
        Supervisor::start(options).map_err(|error| Failure::failed(format!("cannot start the processes: {error}")))?;
    let result = watch(context, &loaded, &hosts, started, events, stop).await;
    supervisor.stop().await;
    result
}

#[expect(clippy::disallowed_methods, reason = "the time that a person waited, which no decision depends on")]
fn now() -> Instant {
    Instant::now()
}

/// The hosts to start: all, unless told.
fn chosen(topology: &Topology, named: &[HostId]) -> Result<Vec<HostId>, Failure> {
    let known: Vec<HostId> = topology.hosts.iter().map(|host| host.id).collect();
    if let Some(unknown) = named.iter().find(|host| !known.contains(host)) {
        let names = known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!("the topology has no host {unknown}")).hint(format!("it has {names}")));
    }
    Ok(if named.is_empty() { known } else { named.to_vec() })
}

/// Whether every duty that these hosts can fill is taken, and by our children: another `gaggle up` of the same
/// topology would answer in their place, until they find their ports taken.
fn is_ready(
    topology: &Topology,
    hosts: &[HostId],
    status: &ClusterStatus,
    children: &BTreeMap<ProcessId, u32>,
) -> bool {
    let has_duties = |id: &HostId| {
        let Some(host) = status.hosts.iter().find(|host| host.name == *id) else { return false };
        let is_ours = |duty: Option<ProcessId>| {
            let process = host.processes.iter().find(|process| Some(process.id) == duty);
            process.is_some_and(|process| children.get(&process.id) == Some(&process.pid))
        };
        host.up && is_ours(host.serving) && is_ours(host.relaying)
    };
    let has_master = |id: &HostId| {
        topology.host(*id).is_some_and(|host| host.processes.iter().any(|process| process.role == Role::Master))
    };
    let can_direct = !topology.has_masters() || hosts.iter().any(has_master);
    let is_directed = status.hosts.iter().any(|host| host.directing.is_some());
    hosts.iter().all(has_duties) && (is_directed || !can_direct)
}

async fn watch(
    context: &Context,
    loaded: &Loaded,
    hosts: &[HostId],
    started: Instant,
    mut events: mpsc::Receiver<ChildEvent>,
    stop: impl Future<Output = ()>,
) -> Result<u8, Failure> {
    let (sender, mut statuses) = mpsc::channel(1);
    let (is_ready_now, ready) = watch::channel(false);
    let asking = super::spawn(ask(context.clone(), loaded.clone(), hosts.to_vec(), sender, ready));
    let screen = Screen::of(context.out);
    let (lines, children) = (Vec::new(), BTreeMap::new());
    let mut view = View { context: context.clone(), screen, lines, children, ready: None, status: None };
    tokio::pin!(stop);
    let result = loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(ChildEvent::Failed { id, message }) => {
                    // The last line says why, in the words of a command.
                    let why = message.lines().last().unwrap_or_default().trim_start_matches("gaggle: ");
                    break Err(Failure::failed(format!("{id} cannot start: {why}"))
                        .hint("`gaggle status` shows whether this topology is up already"));
                }
                Some(event) => view.event(&event)?,
                None => break Err(Failure::failed("all processes ended").hint("the lines above say why")),
            },
            Some(status) = statuses.recv() => {
                if view.ready.is_none() && is_ready(&loaded.topology, hosts, &status, &view.children) {
                    view.ready(started.elapsed())?;
                    is_ready_now.send_replace(true);
                }
                view.status = Some(status);
                view.draw()?;
            }
            () = &mut stop => break Ok(0),
        }
    };
    asking.abort();
    result
}

/// Asks for the status again and again, over a connection of its own, by whatever way in answers.
async fn ask(
    context: Context,
    loaded: Loaded,
    hosts: Vec<HostId>,
    statuses: mpsc::Sender<ClusterStatus>,
    ready: watch::Receiver<bool>,
) {
    let mut session: Option<Session> = None;
    loop {
        if session.is_none() {
            session = open(&context, &loaded, &hosts).await;
        }
        if let Some(open) = &session {
            match tokio::time::timeout(ANSWER_WAIT, open.status()).await {
                Ok(Ok(status)) => {
                    if statuses.send(status).await.is_err() {
                        return;
                    }
                }
                // The next attempt knows the keys that were published meanwhile.
                Ok(Err(_)) | Err(_) => session = None,
            }
        }
        let pause = if *ready.borrow() { ASK_WHEN_READY } else { ASK_UNTIL_READY };
        tokio::time::sleep(pause).await;
    }
}

/// Only the hosts that this command started are asked: another may be of another time.
async fn open(context: &Context, loaded: &Loaded, hosts: &[HostId]) -> Option<Session> {
    let mut place = Context::place_of_file(loaded.clone()).ok()?;
    place.entrances.retain(|entrance| hosts.contains(&entrance.host));
    if place.entrances.is_empty() {
        return None;
    }
    tokio::time::timeout(ANSWER_WAIT, Session::open(context, &place, Person::Nobody)).await.ok()?.ok()
}

impl View {
    fn event(&mut self, event: &ChildEvent) -> Result<(), Failure> {
        let line = match event {
            ChildEvent::Started { id, pid } => {
                self.children.insert(*id, *pid);
                format!("{id} started as pid {pid}")
            }
            ChildEvent::Died { id, how } => {
                self.children.remove(id);
                format!("{id} ended: {how}")
            }
            ChildEvent::Restarting { id, after } => format!("{id} starts again in {} ms", after.as_millis()),
            ChildEvent::Line { id, text } => format!("{id} | {text}"),
            ChildEvent::Failed { id, message } => format!("{id} failed: {message}"),
        };
        if self.screen.is_none() {
            self.context.out.notice("log", &line);
            return Ok(());
        }
        if self.lines.len() >= LINES_SHOWN {
            self.lines.remove(0);
        }
        self.lines.push(self.context.out.paint(Paint::Dim, &harmless(&line)));
        self.draw()
    }

    fn ready(&mut self, after: Duration) -> Result<(), Failure> {
        let seconds = after.as_secs_f64();
        let line = format!("ready in {seconds:.2} s");
        if self.screen.is_none() {
            let rounded = (seconds * 1000.0).round() / 1000.0;
            self.context.out.say(&json!({"v": 1, "ready": true, "seconds": rounded}), &line)?;
        }
        self.ready = Some(line);
        Ok(())
    }

    fn draw(&self) -> Result<(), Failure> {
        let Some(screen) = self.screen else { return Ok(()) };
        let out = self.context.out;
        let mut text = self.ready.clone().unwrap_or_else(|| "starting ...".to_owned());
        text.push_str("  (Ctrl-C stops all)\n");
        if let Some(status) = &self.status {
            text.push_str(&status_text(out, status, &troubles(status)));
        }
        screen.draw(&text, &self.lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Duty, HostStatus, Life, ProcessStatus};
    use crate::id::{Digest, Epoch, Vector};

    #[test]
    fn ready_means_our_own_children() {
        let text = "cluster = \"c\"\n[[host]]\nname = \"a\"\n[[host.process]]\nid = \"A1\"\nrole = \"master\"\naddr = \"127.0.0.1:7001\"\n";
        let topology = Topology::parse(text, "t.toml").unwrap();
        let process = &topology.hosts[0].processes[0];
        let one = Some(process.id);
        let host = HostStatus {
            name: topology.hosts[0].id,
            up: true,
            serving: one,
            relaying: one,
            directing: one,
            epoch: Epoch(1),
            sessions: 0,
            vector: Vector::new(),
            digest: Digest(0),
            entries: 0,
            lag: 0,
            disk_bytes: 0,
            processes: vec![ProcessStatus {
                id: process.id,
                role: process.role,
                addr: process.addr,
                life: Life::Up,
                pid: 42,
                duties: vec![Duty::Serve, Duty::Relay, Duty::Direct],
            }],
        };
        let status = ClusterStatus { cluster: "c".into(), alarms: vec![], hosts: vec![host] };
        let ready = |pid: u32| {
            let children = [(process.id, pid)].into_iter().collect();
            is_ready(&topology, &[topology.hosts[0].id], &status, &children)
        };
        assert!(ready(42));
        assert!(!ready(43), "the duty is another's");
    }
}
