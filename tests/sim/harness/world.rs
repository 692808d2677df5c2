//! The world: every process, disk, link and person of one simulation, and the loop that moves its clock.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use gaggle::core::io::{Input, Output, Outputs};
use gaggle::core::node::Node;
use gaggle::id::{FeedId, ProcessId};
use gaggle::service::ledger::{Write, WriterMark};
use gaggle::time::{Now, Wall};
use gaggle::topology::Topology;
use gaggle::wire::Versions;
use gaggle::wire::client::{FeedFrame, ServerFrame};
use gaggle::wire::heartbeat::Heartbeat;
use gaggle::wire::peer::PeerMessage;

use super::clock::Clocks;
use super::dice::Dice;
use super::disk::{Disk, Job};
use super::faults::{Faults, Undo};
use super::history::{Breach, Facts, History, Promise, Verdict};
use super::line::Line;
use super::load::Load;
use super::losses::Backup;
use super::network::Link;
use super::people::{Conn, Person};
use super::queue::Queue;
use super::shape::{Logs, Posts};
use super::{Mutant, Options};

/// Timeouts that one process may have in a millisecond; more is a timer that spins.
const TIMEOUTS_PER_MS_MAX: u32 = 500;

/// Events of one simulation; most runs have a twentieth of it.
const EVENTS_MAX: u64 = 1_000_000;

/// Events within this simulated time, in microseconds: more are messages that beget messages. Ordinary runs stay far
/// below it.
const RUSH: u64 = 100_000;
const EVENTS_PER_RUSH_MAX: u64 = 20_000;

/// What will happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A supervisor starts a process, unless it runs.
    Start { proc: usize },
    /// The node's timer, if this token is still the newest.
    Timer { proc: usize, life: u32, token: u64 },
    /// Something reaches a process, if it has not been started anew since.
    Input { proc: usize, life: u32, input: Box<Input> },
    /// The kernel tells a process how a sibling is now.
    Notice { proc: usize, life: u32, sibling: usize },
    /// A read transaction runs.
    Read { proc: usize, life: u32, read: Box<Output> },
    /// The write transaction with this token has been synced.
    Synced { host: usize, token: u64 },
    /// An attempt to connect.
    Connect { from: usize, to: usize, generation: u64, deadline: u64 },
    /// A message arrives on a stream.
    Deliver { from: usize, to: usize, generation: u64, message: Box<PeerMessage> },
    /// What a cut held back arrives.
    Redeliver { from: usize, to: usize, generation: u64 },
    /// A datagram arrives.
    Datagram { from: usize, to: usize, generation: u64, heartbeat: Box<Heartbeat> },
    /// A connection whose other end is silent breaks.
    Silence { from: usize, to: usize, generation: u64 },
    /// A frame reaches a person.
    Frame { conn: u64, frame: Box<ServerFrame> },
    /// A frame of a feed reaches a person.
    FeedFrame { feed: FeedId, frame: Box<FeedFrame> },
    /// A person looks up, if this token is still the newest.
    Tick { person: usize, token: u64 },
    /// An operator's drain reaches a process.
    Drain { proc: usize, life: u32 },
    /// Something breaks.
    Fault,
    /// Something is mended.
    Undo(Undo),
}

/// How a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Dead,
    Running,
    Stopped,
}

/// One process.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one process, each read by its name")]
#[derive(Debug)]
pub(crate) struct Proc {
    pub(crate) id: ProcessId,
    pub(crate) host: usize,
    pub(crate) state: State,
    /// Counts its starts.
    pub(crate) life: u32,
    pub(crate) node: Option<Node>,
    pub(crate) run: u64,
    pub(crate) pid: u32,
    /// What it understands of the wire.
    pub(crate) versions: Versions,
    /// Its monotonic clock began elsewhere than the others'.
    pub(crate) mono_offset: u64,
    pub(crate) timer_token: u64,
    /// When the newest timer comes.
    pub(crate) timer_at: Option<u64>,
    pub(crate) timeouts: (u64, u32),
    pub(crate) stopped_at: u64,
    /// What waits for a stopped process.
    pub(crate) backlog: VecDeque<Input>,
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) writing: bool,
    /// Of a mutant.
    pub(crate) line: Line,
    /// It ended by itself, or was told to leave: only an operator starts it again.
    pub(crate) left: bool,
    /// It was told to have no duties for the rest of its life.
    pub(crate) drained: bool,
}

impl Proc {
    pub(crate) fn mark(&self) -> WriterMark {
        WriterMark { process: self.id, pid: self.pid }
    }
}

/// What went wrong first, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) at: u64,
    pub(crate) breach: Breach,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: {}", seconds(self.at), self.breach)
    }
}

/// What one simulation counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) events: u64,
    pub(crate) commits: u64,
    pub(crate) acknowledged: u64,
    pub(crate) answers: u64,
    pub(crate) feed_posts: u64,
    pub(crate) faults: u64,
    pub(crate) missing: u64,
    /// Times that a host took a whole snapshot.
    pub(crate) snapshots: u64,
    /// Times that a host was trimmed.
    pub(crate) trims: u64,
}

/// Everything.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) clock: u64,
    queue: Queue,
    /// Nothing, and the room for what a node wants done: asked for anew at each event it cost a tenth of all time.
    outputs: Outputs,
    pub(crate) dice: Dice,
    pub(crate) topology: Topology,
    pub(crate) procs: Vec<Proc>,
    pub(crate) disks: Vec<Disk>,
    /// The clocks of each host.
    pub(crate) clocks: Vec<Clocks>,
    pub(crate) links: BTreeMap<(usize, usize), Link>,
    pub(crate) people: Vec<Person>,
    pub(crate) conns: BTreeMap<u64, Conn>,
    pub(crate) feeds: BTreeMap<FeedId, (u64, usize)>,
    pub(crate) history: History,
    pub(crate) backup: Option<Backup>,
    pub(crate) faults: Faults,
    pub(crate) load: Load,
    /// When people stop to begin calls.
    pub(crate) calls_until: u64,
    pub(crate) counts: Counts,
    /// The events of the newest stretch of time, by its number.
    rush: (u64, u64),
    pub(crate) next_id: u64,
    pub(crate) failure: Option<Failure>,
    /// Folds every event, so that two runs of a seed can be compared.
    pub(crate) fingerprint: u64,
    pub(crate) trace: VecDeque<String>,
}

impl World {
    pub(crate) fn new(options: Options) -> Self {
        let mut dice = Dice::new(options.seed);
        let logs = options.mutant.map_or(Logs::Any, Mutant::logs);
        let posts = options.mutant.map_or(Posts::Any, Mutant::posts);
        let posts = super::shape::posts(options.seed, posts);
        let topology = Topology { posts, ..super::shape::topology(&mut dice, logs, options.shape) };
        let faults = Faults::draw(&options, topology.hosts.len());
        let (load, calls_until) = (Load::draw(&options), options.calls_until);
        let mut procs = Vec::new();
        for (host, spec) in topology.hosts.iter().enumerate() {
            procs.extend(spec.processes.iter().map(|process| Proc {
                id: process.id,
                host,
                state: State::Dead,
                life: 0,
                node: None,
                run: 0,
                pid: 0,
                versions: Versions::OURS,
                mono_offset: 0,
                timer_token: 0,
                timer_at: None,
                timeouts: (0, 0),
                stopped_at: 0,
                backlog: VecDeque::new(),
                jobs: VecDeque::new(),
                writing: false,
                line: Line::default(),
                left: false,
                drained: false,
            }));
        }
        let hosts = topology.hosts.iter().map(|_| Facts::default()).collect();
        let disks = topology.hosts.iter().map(|_| Disk::default()).collect();
        let clocks = topology.hosts.iter().map(|_| Clocks::default()).collect();
        let mut world = Self {
            options,
            clock: 0,
            queue: Queue::default(),
            outputs: Outputs::new(),
            dice,
            topology,
            procs,
            disks,
            clocks,
            links: BTreeMap::new(),
            people: Vec::new(),
            conns: BTreeMap::new(),
            feeds: BTreeMap::new(),
            history: History { hosts, ..History::default() },
            backup: None,
            faults,
            load,
            calls_until,
            counts: Counts::default(),
            next_id: 1,
            failure: None,
            rush: (0, 0),
            fingerprint: 0xcbf2_9ce4_8422_2325,
            trace: VecDeque::new(),
        };
        for proc in 0..world.procs.len() {
            let after = world.dice.between(0, 50_000);
            world.after(after, Event::Start { proc });
        }
        world.history.losses.host = world.dice.index(world.disks.len());
        world.bring_people();
        world
    }

    /// Has an event happen after so many microseconds.
    pub(crate) fn after(&mut self, micros: u64, event: Event) {
        self.at(self.clock + micros, event);
    }

    pub(crate) fn at(&mut self, micros: u64, event: Event) {
        self.queue.push(micros.max(self.clock), event);
    }

    pub(crate) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Records the first thing that went wrong; the loop ends.
    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        self.judge(Err(Breach { promise: Promise::Rules, what: what.into() }));
    }

    /// Records what the judge found, if it is the first.
    pub(crate) fn judge(&mut self, verdict: Verdict) {
        if let (Err(breach), None) = (verdict, &self.failure) {
            self.failure = Some(Failure { at: self.clock, breach });
        }
    }

    /// Notes a line, where anybody looks at it.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.options.trace == 0 {
            return;
        }
        if self.trace.len() == self.options.trace {
            self.trace.pop_front();
        }
        let line = line();
        self.trace.push_back(format!("{} {line}", seconds(self.clock)));
    }

    pub(crate) fn fold(&mut self, number: u64) {
        self.fingerprint = (self.fingerprint ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    /// Moves on to the next event; false when it lies beyond `until`, or something failed.
    pub(crate) fn step(&mut self, until: u64) -> bool {
        if self.failure.is_some() {
            return false;
        }
        let Some(((at, serial), event)) = self.queue.pop_until(until) else {
            self.clock = until;
            return false;
        };
        self.clock = at;
        self.count_event();
        self.fold(at ^ serial.rotate_left(32));
        self.happen(event);
        true
    }

    /// A run has an end: who waits for one that goes round in circles is not served.
    fn count_event(&mut self) {
        self.counts.events += 1;
        let (window, count) = &mut self.rush;
        if *window == self.clock / RUSH {
            *count += 1;
        } else {
            (*window, *count) = (self.clock / RUSH, 1);
        }
        let circles = |events: u64, within: &str| {
            let what = format!("more than {events} events {within}: something goes round in circles");
            Err(Breach { promise: Promise::P7, what })
        };
        if *count > EVENTS_PER_RUSH_MAX {
            self.judge(circles(EVENTS_PER_RUSH_MAX, &format!("in {} s", seconds(RUSH))));
        } else if self.counts.events > EVENTS_MAX {
            self.judge(circles(EVENTS_MAX, "in all"));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start { proc } => self.start(proc),
            Event::Timer { proc, life, token } => self.on_timer(proc, life, token),
            Event::Input { proc, life, input } => self.reach(proc, life, *input),
            Event::Notice { proc, life, sibling } => self.on_notice(proc, life, sibling),
            Event::Read { proc, life, read } => self.on_read(proc, life, &read),
            Event::Synced { host, token } => self.on_synced(host, token),
            Event::Connect { from, to, generation, deadline } => self.on_connect(from, to, generation, deadline),
            Event::Deliver { from, to, generation, message } => self.on_deliver(from, to, generation, *message),
            Event::Redeliver { from, to, generation } => self.on_redeliver(from, to, generation),
            Event::Datagram { from, to, generation, heartbeat } => self.on_datagram(from, to, generation, *heartbeat),
            Event::Silence { from, to, generation } => self.on_silence(from, to, generation),
            Event::Frame { conn, frame } => self.on_frame(conn, *frame),
            Event::FeedFrame { feed, frame } => self.on_feed_frame(feed, *frame),
            Event::Tick { person, token } => self.on_tick(person, token),
            Event::Drain { proc, life } => self.on_drain(proc, life),
            Event::Fault => self.on_fault(),
            Event::Undo(undo) => self.on_undo(&undo),
        }
    }

    /// Both clocks of a process.
    pub(crate) fn now(&self, proc: usize) -> Now {
        let Proc { host, mono_offset, .. } = &self.procs[proc];
        let clocks = &self.clocks[*host];
        Now { mono: clocks.mono(self.clock, *mono_offset), wall: clocks.wall(self.clock) }
    }

    /// The true time.
    pub(crate) fn wall(&self) -> Wall {
        Clocks::default().wall(self.clock)
    }

    pub(crate) fn index_of(&self, process: ProcessId) -> Option<usize> {
        self.procs.iter().position(|proc| proc.id == process)
    }

    pub(crate) fn lives(&self, proc: usize, life: u32) -> bool {
        self.procs[proc].life == life && self.procs[proc].state != State::Dead
    }

    /// Hands an input to a process as it is now: at once, later if it is stopped, never if it died.
    pub(crate) fn reach(&mut self, proc: usize, life: u32, input: Input) {
        if !self.lives(proc, life) {
            return;
        }
        if self.procs[proc].state == State::Stopped {
            if self.procs[proc].backlog.len() < gaggle::limits::INPUTS_WAITING_MAX {
                self.procs[proc].backlog.push_back(input);
            }
            return;
        }
        let now = self.now(proc);
        self.note_input(proc, &input);
        if self.is(Mutant::LateRunFirst) {
            self.procs[proc].line.on_input(&input);
        }
        let mut out = std::mem::take(&mut self.outputs);
        if let Some(node) = self.procs[proc].node.as_mut() {
            node.handle_input(now, input, &mut out);
        }
        self.perform(proc, out);
    }

    fn note_input(&mut self, proc: usize, input: &Input) {
        let quiet = matches!(input, Input::Heartbeat { .. });
        if self.options.trace > 0 && (!quiet || self.options.heartbeats) {
            let id = self.procs[proc].id;
            self.note(|| format!("{id} <- {}", short(format!("{input:?}"))));
        }
    }

    pub(crate) fn on_timer(&mut self, proc: usize, life: u32, token: u64) {
        if !self.lives(proc, life) || self.procs[proc].timer_token != token || self.procs[proc].state == State::Stopped
        {
            return;
        }
        self.procs[proc].timer_at = None;
        if self.timeout_at(proc).is_none_or(|at| at > self.clock) {
            self.rearm(proc);
            return;
        }
        let clock = self.clock;
        let (window, count) = &mut self.procs[proc].timeouts;
        if *window == clock / 1_000 {
            *count += 1;
        } else {
            (*window, *count) = (clock / 1_000, 0);
        }
        if *count > TIMEOUTS_PER_MS_MAX {
            let id = self.procs[proc].id;
            self.fail(format!("{id}: its timer spins: {:?}", self.procs[proc].node.as_ref().map(Node::snapshot)));
            return;
        }
        let now = self.now(proc);
        let mut out = std::mem::take(&mut self.outputs);
        if let Some(node) = self.procs[proc].node.as_mut() {
            node.handle_timeout(now, &mut out);
        }
        self.perform(proc, out);
    }

    /// Asks the node for its next timeout. A timer that comes before it stays, and asks again when it comes.
    pub(crate) fn rearm(&mut self, proc: usize) {
        let Some(at) = self.timeout_at(proc).map(|at| at.max(self.clock + 1)) else { return };
        if self.procs[proc].timer_at.is_some_and(|armed| armed > self.clock && armed <= at) {
            return;
        }
        let process = &mut self.procs[proc];
        process.timer_token += 1;
        process.timer_at = Some(at);
        let (life, token) = (process.life, process.timer_token);
        self.at(at, Event::Timer { proc, life, token });
    }

    /// The true time of a node's next timeout.
    fn timeout_at(&self, proc: usize) -> Option<u64> {
        let Proc { node, host, mono_offset, .. } = &self.procs[proc];
        let due = node.as_ref().and_then(Node::poll_timeout)?;
        Some(self.clocks[*host].when_mono(due, *mono_offset))
    }

    /// Performs what a node wants done, in order, and nothing after its end.
    pub(crate) fn perform(&mut self, proc: usize, mut out: Outputs) {
        let life = self.procs[proc].life;
        self.fold(out.len() as u64);
        for output in out.drain(..) {
            if !self.lives(proc, life) {
                break;
            }
            self.perform_one(proc, output);
        }
        self.outputs = out;
        if self.lives(proc, life) {
            self.start_writer(proc);
            self.rearm(proc);
        }
    }

    fn perform_one(&mut self, proc: usize, output: Output) {
        if self.options.trace > 0 && (!matches!(output, Output::Beat { .. }) || self.options.heartbeats) {
            let id = self.procs[proc].id;
            self.note(|| format!("{id} -> {}", short(format!("{output:?}"))));
        }
        match output {
            Output::Send { to, message } => self.send(proc, to, self.changed_on_its_way(proc, message)),
            Output::Beat { to, heartbeat } => self.beat(proc, to, heartbeat),
            Output::Reply { client, frame } => self.reply(proc, client, frame),
            Output::Feed { feed, frame } => self.feed(proc, feed, frame),
            Output::TakeEpoch => self.procs[proc].jobs.push_back(Job::TakeEpoch),
            Output::Persist { id, epoch, mut write } => {
                let disk = &self.disks[self.procs[proc].host];
                let seen = disk.epoch();
                if self.is(Mutant::LateRunFirst)
                    && let Write::Run(run) = &mut write
                {
                    let held = disk.vector();
                    self.procs[proc].line.on_persist(id, run, &held);
                }
                self.procs[proc].jobs.push_back(Job::Persist { id, epoch, seen, write });
            }
            Output::ReadLog { .. }
            | Output::ReadSnapshot { .. }
            | Output::ReadDigests { .. }
            | Output::CompareDigests { .. }
            | Output::Query { .. }
            | Output::ReadFeeds { .. } => {
                let slow = self.disks[self.procs[proc].host].read_slowness.max(1);
                let after = self.dice.between(30, 300) * slow;
                let life = self.procs[proc].life;
                let read = Box::new(self.changed_before_read(output));
                self.after(after, Event::Read { proc, life, read });
            }
            Output::Restart { process, after } => self.restart(process, after),
            Output::Kill { process } => match self.index_of(process) {
                Some(victim) if self.procs[victim].host == self.procs[proc].host => self.kill(victim),
                Some(_) | None => {
                    self.fail(format!("{} kills {process}, which is not its sibling", self.procs[proc].id))
                }
            },
            Output::Exit { failure } => self.exit(proc, failure),
        }
    }

    fn restart(&mut self, process: ProcessId, after: Duration) {
        if let Some(proc) = self.index_of(process) {
            self.after(micros(after) + 2_000, Event::Start { proc });
        }
    }
}

/// A duration in simulated time.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4)
}

/// Simulated time as people read it.
pub(crate) fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// A line that fits a screen.
fn short(mut line: String) -> String {
    const CHARS_MAX: usize = 400;
    if let Some((cut, _)) = line.char_indices().nth(CHARS_MAX) {
        line.truncate(cut);
        line.push('…');
    }
    line
}
