//! The children, and what becomes of them: one task owns them all.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::talk::{PARENT, SUPERVISED, Wish};
use super::{Blow, ChildEvent, GOODBYE, Strike, UpOptions};
use crate::id::{HostId, ProcessId};
use crate::runtime::clock::Clock;
use crate::runtime::pids::{Living, stamp_of};

/// When nobody of a host lives, its processes are started again after this.
const HOST_PAUSE: Duration = Duration::from_secs(1);
/// A wish may come before the death is reaped, but an old one is about another death.
const WISH_MEMORY: Duration = Duration::from_secs(2);
/// Of what a child that could not start said, the last lines are kept.
const WORDS_KEPT_MAX: usize = 5;
/// Happenings that wait for the owner; children's readers wait when it is behind.
const HAPPENINGS_WAITING_MAX: usize = 1_024;

/// What the helper tasks tell the owner.
#[derive(Debug)]
enum Happening {
    Ended(ProcessId, std::io::Result<ExitStatus>),
    Said(ProcessId, Wish),
    Logged(ProcessId, String),
}

/// Where a child is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Runs, and has not said `ready`.
    Starting,
    /// Runs.
    Running,
    /// Died; nobody has asked for it yet.
    Dead,
    /// To be started at this time.
    Due(Instant),
    /// Said goodbye.
    Left,
}

impl Stage {
    fn runs(self) -> bool {
        matches!(self, Self::Starting | Self::Running)
    }
}

/// How the child of this start was known before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Past {
    /// It never said `ready`: a failure is reported, not repeated.
    New,
    /// It did.
    Proven,
}

#[derive(Debug)]
struct Member {
    host: HostId,
    stage: Stage,
    past: Past,
    living: Option<Living>,
    wish: Option<(Instant, Duration)>,
    last_words: VecDeque<String>,
}

/// Whether anything is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Keeping,
    Stopping,
}

/// All children.
#[derive(Debug)]
pub(super) struct Family {
    program: PathBuf,
    topology_path: PathBuf,
    before: BTreeMap<HostId, Vec<OsString>>,
    members: BTreeMap<ProcessId, Member>,
    events: mpsc::Sender<ChildEvent>,
    sender: mpsc::Sender<Happening>,
    happenings: mpsc::Receiver<Happening>,
    tasks: TaskTracker,
    clock: Clock,
    mode: Mode,
}

impl Family {
    pub(super) fn new(program: PathBuf, options: &UpOptions, events: mpsc::Sender<ChildEvent>) -> Self {
        let (sender, happenings) = mpsc::channel(HAPPENINGS_WAITING_MAX);
        let clock = Clock::start();
        let due = Stage::Due(clock.tokio_now());
        let wanted = |host: &HostId| options.hosts.is_empty() || options.hosts.contains(host);
        let members = options.topology.processes().filter(|process| wanted(&process.host)).map(|process| {
            let (wish, last_words) = (None, VecDeque::new());
            let member = Member { host: process.host, stage: due, past: Past::New, living: None, wish, last_words };
            (process.id, member)
        });
        Self {
            program,
            topology_path: options.topology_path.clone(),
            before: options.before.clone(),
            members: members.collect(),
            events,
            sender,
            happenings,
            tasks: TaskTracker::new(),
            clock,
            mode: Mode::Keeping,
        }
    }

    /// Keeps the children until asked to stop (or forgotten), or one cannot start; then none is left.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>, mut strikes: mpsc::Receiver<Strike>) {
        let failure = loop {
            if let Some(failure) = self.start_due() {
                break Some(failure);
            }
            let due = self.members.values().filter_map(|member| match member.stage {
                Stage::Due(at) => Some(at),
                Stage::Starting | Stage::Running | Stage::Dead | Stage::Left => None,
            });
            let next = due.min();
            tokio::select! {
                asked = &mut stop => {
                    if asked.is_err() {
                        self.signal(Signal::KILL);
                    }
                    break None;
                }
                () = sleep_until(next) => {}
                Some(strike) = strikes.recv() => {
                    // Who asked may have been interrupted meanwhile.
                    let _ = strike.struck.send(self.strike(&strike.ids, strike.blow));
                }
                Some(happening) = self.happenings.recv() => {
                    if let Some(failure) = self.on_happening(happening) {
                        break Some(failure);
                    }
                }
            }
        };
        self.end().await;
        if let Some(failure) = failure {
            let last = self.events.send(failure);
            let _ = tokio::time::timeout(Duration::from_secs(1), last).await;
        }
    }

    /// Starts whoever is due.
    fn start_due(&mut self) -> Option<ChildEvent> {
        let now = self.clock.tokio_now();
        let due = |member: &Member| matches!(member.stage, Stage::Due(at) if at <= now);
        let ids: Vec<_> = self.members.iter().filter(|(_, member)| due(member)).map(|(id, _)| *id).collect();
        let failed =
            |id, error| ChildEvent::Failed { id, status: None, message: format!("cannot be started: {error}") };
        ids.into_iter().find_map(|id| self.start(id).err().map(|error| failed(id, error)))
    }

    /// The program, with what comes before it.
    fn command(&self, id: ProcessId) -> Command {
        let before = self.members.get(&id).and_then(|member| self.before.get(&member.host));
        match before.map(Vec::as_slice) {
            Some([first, rest @ ..]) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.program);
                command
            }
            Some([]) | None => Command::new(&self.program),
        }
    }

    fn start(&mut self, id: ProcessId) -> std::io::Result<()> {
        let mut command = self.command(id);
        command.arg("node").arg(id.to_string()).arg("--topology").arg(&self.topology_path);
        command.env(SUPERVISED, "1").env(PARENT, std::process::id().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C goes to the whole foreground group; the children are to hear of it once, from us, in order.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        let pid = child.id().unwrap_or(0);
        let Some(member) = self.members.get_mut(&id) else { return Ok(()) };
        // Not yet reaped, so the number is still its own.
        member.living = stamp_of(pid).ok().and_then(Living::hold);
        member.stage = Stage::Starting;
        member.wish = None;
        member.last_words.clear();
        let out = child
            .stdout
            .take()
            .map(|out| self.listen(out, move |line| Wish::hear(&line).map(|wish| Happening::Said(id, wish))));
        let err = child.stderr.take().map(|err| self.listen(err, move |line| Some(Happening::Logged(id, line))));
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            let status = wait(child).await;
            // Its last words come first: they say why it ended.
            for listener in [out, err].into_iter().flatten() {
                let _ = tokio::time::timeout(Duration::from_millis(200), listener).await;
            }
            let _ = sender.send(Happening::Ended(id, status)).await;
        });
        self.tell(ChildEvent::Started { id, pid });
        Ok(())
    }

    /// Reads a child's pipe to its end, so that the child never waits for us.
    fn listen(
        &self,
        pipe: impl AsyncRead + Unpin + Send + 'static,
        hear: impl Fn(String) -> Option<Happening> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let sender = self.sender.clone();
        self.tasks.spawn(async move {
            let mut lines = BufReader::new(pipe).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                if let Some(happening) = hear(String::from_utf8_lossy(&line).into_owned())
                    && sender.send(happening).await.is_err()
                {
                    return;
                }
            }
        })
    }

    /// Takes a happening; answers with a child that could not start.
    fn on_happening(&mut self, happening: Happening) -> Option<ChildEvent> {
        match happening {
            Happening::Logged(id, text) => {
                let member = self.members.get_mut(&id)?;
                member.last_words.push_back(text.clone());
                if member.last_words.len() > WORDS_KEPT_MAX {
                    member.last_words.pop_front();
                }
                let _ = self.events.try_send(ChildEvent::Line { id, text });
                None
            }
            Happening::Said(id, Wish::Ready { .. }) => {
                let member = self.members.get_mut(&id)?;
                member.past = Past::Proven;
                if member.stage == Stage::Starting {
                    member.stage = Stage::Running;
                }
                self.tell(ChildEvent::Ready { id });
                None
            }
            Happening::Said(from, Wish::Restart { restart, after_ms }) => {
                self.on_wish(from, restart, Duration::from_millis(after_ms));
                None
            }
            Happening::Ended(id, status) => self.on_end(id, status),
        }
    }

    fn on_wish(&mut self, from: ProcessId, id: ProcessId, after: Duration) {
        let now = self.clock.tokio_now();
        let host = self.members.get(&from).map(|member| member.host);
        let Some(member) = self.members.get_mut(&id).filter(|member| Some(member.host) == host) else { return };
        match member.stage {
            Stage::Dead => {
                member.stage = Stage::Due(now + after);
                self.tell(ChildEvent::Restarting { id, after });
            }
            // A primary that starts before its siblings asks for those, too: then there is nothing to remember.
            Stage::Starting | Stage::Due(_) | Stage::Left => {}
            Stage::Running => member.wish = Some((now, after)),
        }
    }

    fn on_end(&mut self, id: ProcessId, status: std::io::Result<ExitStatus>) -> Option<ChildEvent> {
        let now = self.clock.tokio_now();
        let member = self.members.get_mut(&id)?;
        let how = match &status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let code = status.ok().and_then(|status| status.code());
        let never_started = member.stage == Stage::Starting && member.past == Past::New;
        let wish = member.wish.take().filter(|(at, _)| now.duration_since(*at) <= WISH_MEMORY);
        member.living = None;
        member.stage = match wish {
            _ if code == Some(0) => Stage::Left,
            Some((at, after)) => Stage::Due(at + after),
            // It ended before its siblings could see that it lived: none of them will ask again.
            None if member.stage == Stage::Starting && member.past == Past::Proven => Stage::Due(now + HOST_PAUSE),
            None => Stage::Dead,
        };
        let words: Vec<_> = member.last_words.iter().map(String::as_str).collect();
        let message = if words.is_empty() { how.clone() } else { words.join("\n") };
        self.tell(ChildEvent::Died { id, how });
        if let Some((_, after)) = wish.filter(|_| code != Some(0)) {
            self.tell(ChildEvent::Restarting { id, after });
        }
        if self.mode == Mode::Stopping {
            return None;
        }
        if never_started && code.is_some_and(|code| code != 0) {
            return Some(ChildEvent::Failed { id, status: code, message });
        }
        self.revive_hosts();
        None
    }

    /// A host of which nobody lives cannot ask: it is started again as a whole, save who said goodbye.
    fn revive_hosts(&mut self) {
        let at = self.clock.tokio_now() + HOST_PAUSE;
        let hosts: Vec<HostId> = self.members.values().map(|member| member.host).collect();
        for host in hosts {
            let of_host = |member: &&mut Member| member.host == host;
            let waits = |stage| matches!(stage, Stage::Due(_));
            if self.members.values_mut().filter(of_host).any(|member| member.stage.runs() || waits(member.stage)) {
                continue;
            }
            let mut revived = Vec::new();
            for (id, member) in self.members.iter_mut().filter(|(_, member)| member.host == host) {
                if member.stage == Stage::Dead {
                    member.stage = Stage::Due(at);
                    revived.push(*id);
                }
            }
            for id in revived {
                self.tell(ChildEvent::Restarting { id, after: HOST_PAUSE });
            }
        }
    }

    /// SIGTERM, patience, SIGKILL; returns when all are reaped.
    async fn end(&mut self) {
        self.mode = Mode::Stopping;
        self.signal(Signal::TERM);
        // One that was stopped hears of it only when it goes on.
        self.signal(Signal::CONT);
        let deadline = self.clock.tokio_now() + GOODBYE;
        let mut patience = Some(deadline);
        while self.members.values().any(|member| member.stage.runs()) {
            tokio::select! {
                () = sleep_until(patience) => {
                    patience = None;
                    self.signal(Signal::KILL);
                }
                Some(happening) = self.happenings.recv() => { self.on_happening(happening); }
            }
        }
    }

    /// All of them, even if one has ended already; that is the answer then.
    fn strike(&self, ids: &[ProcessId], blow: Blow) -> std::io::Result<()> {
        let signal = match blow {
            Blow::Kill => Signal::KILL,
            Blow::Stop => Signal::STOP,
            Blow::Continue => Signal::CONT,
        };
        let mut result = Ok(());
        for id in ids {
            let living = self.members.get(id).and_then(|member| member.living.as_ref());
            let struck = match living {
                Some(living) => living.signal(signal),
                None => Err(std::io::Error::other(format!("{id} does not run"))),
            };
            result = result.and(struck);
        }
        result
    }

    fn signal(&self, signal: Signal) {
        for (id, member) in &self.members {
            if let Some(Err(error)) = member.living.as_ref().map(|living| living.signal(signal)) {
                // Most likely it has just ended by itself.
                tracing::debug!(child = %id, %error, "a signal did not arrive");
            }
        }
    }

    fn tell(&self, event: ChildEvent) {
        // Whoever started us may not look; the children are kept all the same.
        let _ = self.events.try_send(event);
    }
}

async fn wait(mut child: Child) -> std::io::Result<ExitStatus> {
    child.wait().await
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
