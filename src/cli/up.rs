//! `up`: the processes of some hosts as children of this command, and a view of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;

use crate::cli::args::UpArgs;
use crate::cli::context::{Context, Loaded};
use crate::cli::failure::{Failure, Kind};
use crate::cli::harmless::harmless;
use crate::cli::interrupted;
use crate::cli::output::Paint;
use crate::cli::screen::Screen;
use crate::cli::session::{Person, Session};
use crate::cli::status::status_text;
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
    ready: Option<String>,
    /// Our own children that have their ports and stores: the same processes may run elsewhere, and answer.
    children: BTreeSet<ProcessId>,
    status: Option<ClusterStatus>,
}

/// Runs the verb until it is interrupted, or cannot go on.
pub(crate) async fn run(context: &Context, args: &UpArgs) -> Result<u8, Failure> {
    let started = now();
    // One listener from before the first child on: a signal between two looks must not be missed.
    let stop = interrupted();
    let loaded = context.topology()?;
    let hosts = chosen(&loaded.topology, &args.hosts)?;
    let options = UpOptions {
        topology_path: loaded.path.clone(),
        topology: loaded.topology.clone(),
        hosts: hosts.clone(),
        before: BTreeMap::new(),
    };
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
        return Err(unknown_host(topology, *unknown));
    }
    Ok(if named.is_empty() { known } else { named.to_vec() })
}

/// A host that is not in the file.
pub(crate) fn unknown_host(topology: &Topology, host: HostId) -> Failure {
    let names = topology.hosts.iter().map(|host| host.id.to_string()).collect::<Vec<_>>().join(", ");
    Failure::usage(format!("the topology has no host {host}")).hint(format!("it has {names}"))
}

/// Whether every duty that these hosts can fill is taken.
fn is_ready(topology: &Topology, hosts: &[HostId], status: &ClusterStatus) -> bool {
    let has_duties = |id: &HostId| {
        let found = status.hosts.iter().find(|host| host.name == *id);
        found.is_some_and(|host| host.up && host.serving.is_some() && host.relaying.is_some())
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
    let asking = super::spawn(ask(context.clone(), loaded.clone(), hosts.to_vec(), sender));
    let mut view = View {
        context: context.clone(),
        screen: Screen::of(context.out),
        lines: Vec::new(),
        ready: None,
        children: BTreeSet::new(),
        status: None,
    };
    tokio::pin!(stop);
    let result = loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(ChildEvent::Failed { id, status, message }) => break Err(cannot_start(id, status, &message)),
                Some(event) => {
                    view.event(&event)?;
                    view.look(&loaded.topology, hosts, started)?;
                }
                None => break Err(Failure::failed("all processes ended").hint("the lines above say why")),
            },
            Some(status) = statuses.recv() => {
                view.status = Some(status);
                view.look(&loaded.topology, hosts, started)?;
                view.draw()?;
            }
            () = &mut stop => break Ok(0),
        }
    };
    asking.abort();
    result
}

/// A process could not start at all; its exit status says whose fault that is.
fn cannot_start(id: ProcessId, status: Option<i32>, message: &str) -> Failure {
    // The last line says why, in the words of a command.
    let why = message.lines().last().unwrap_or_default().trim_start_matches("gaggle: ");
    let message = format!("{id} cannot start: {why}");
    if status == Some(i32::from(Kind::Identity.exit_status())) {
        return Failure::identity(message);
    }
    Failure::failed(message)
        .hint("is this topology up already (gaggle status)? Otherwise free the port, or correct the file")
}

/// Asks for the status again and again, over a connection of its own, by whatever way in answers.
async fn ask(context: Context, loaded: Loaded, hosts: Vec<HostId>, statuses: mpsc::Sender<ClusterStatus>) {
    let mut session: Option<Session> = None;
    let mut pause = ASK_UNTIL_READY;
    loop {
        if session.is_none() {
            session = open(&context, &loaded, &hosts).await;
        }
        if let Some(open) = &session {
            match tokio::time::timeout(ANSWER_WAIT, open.status()).await {
                Ok(Ok(status)) => {
                    if is_ready(&loaded.topology, &hosts, &status) {
                        pause = ASK_WHEN_READY;
                    }
                    if statuses.send(status).await.is_err() {
                        return;
                    }
                }
                // The next attempt knows the keys that were published meanwhile.
                Ok(Err(_)) | Err(_) => session = None,
            }
        }
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
            ChildEvent::Ready { id } => {
                self.children.insert(*id);
                return Ok(());
            }
            ChildEvent::Started { id, pid } => format!("{id} started as pid {pid}"),
            ChildEvent::Died { id, how } => format!("{id} ended: {how}"),
            ChildEvent::Restarting { id, after } => format!("{id} starts again in {} ms", after.as_millis()),
            ChildEvent::Line { id, text } => format!("{id} | {text}"),
            ChildEvent::Failed { id, message, .. } => format!("{id} failed: {message}"),
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

    /// Says `ready`, once, when everything is.
    fn look(&mut self, topology: &Topology, hosts: &[HostId], started: Instant) -> Result<(), Failure> {
        let mut wanted = topology.processes().filter(|process| hosts.contains(&process.host));
        let all = wanted.all(|process| self.children.contains(&process.id));
        let duties = self.status.as_ref().is_some_and(|status| is_ready(topology, hosts, status));
        if self.ready.is_none() && all && duties { self.ready(started.elapsed()) } else { Ok(()) }
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
            text.push_str(&status_text(out, status, &[]));
        }
        screen.draw(&text, &self.lines)
    }
}
