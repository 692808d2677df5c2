//! The network: connections that come up, hold back, break; streams in order; datagrams that get lost, repeated and
//! overtaken.

use gaggle::core::io::Input;
use gaggle::id::ProcessId;
use gaggle::wire::heartbeat::Heartbeat;
use gaggle::wire::peer::{Lane, PeerHello, PeerMessage};

use super::load::Streams;
use super::world::{Event, State, World, micros};

/// What was lost on a stream is sent again after this, in microseconds.
const RESENT: (u64, u64) = (20_000, 250_000);

/// How a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum LinkState {
    #[default]
    Down,
    Connecting,
    Up,
}

/// One process's connection to another, for what it sends.
#[derive(Debug, Default)]
pub(crate) struct Link {
    state: LinkState,
    /// Counts attempts and breaks: what belongs to an earlier one is lost.
    generation: u64,
    /// The receiver's start that this connection leads to.
    life: u32,
    /// When the last message of each lane arrives.
    arrival: [u64; 2],
    /// Sent, and held back by a cut, in order.
    held: Vec<PeerMessage>,
}

impl World {
    /// Whether packets get from one process's host to the other's.
    fn open(&self, from: usize, to: usize) -> bool {
        !self.faults.cut.contains(&(self.procs[from].host, self.procs[to].host))
    }

    fn open_both_ways(&self, from: usize, to: usize) -> bool {
        self.open(from, to) && self.open(to, from)
    }

    fn delay(&mut self, from: usize, to: usize) -> u64 {
        if self.procs[from].host == self.procs[to].host {
            self.dice.between(30, 200)
        } else {
            let (low, high) = self.faults.delay;
            self.dice.between(low, high)
        }
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        self.links.entry((from, to)).or_default()
    }

    /// The connection to use now; starts one where there is none.
    fn up(&mut self, from: usize, to: usize) -> Option<u64> {
        let link = self.link(from, to);
        match link.state {
            LinkState::Up => Some(link.generation),
            LinkState::Connecting => None,
            LinkState::Down => {
                link.state = LinkState::Connecting;
                link.generation += 1;
                let generation = link.generation;
                let deadline = self.clock + micros(gaggle::limits::CONNECT_WAIT);
                let after = self.dice.between(1_000, 3_000);
                self.after(after, Event::Connect { from, to, generation, deadline });
                None
            }
        }
    }

    pub(crate) fn on_connect(&mut self, from: usize, to: usize, generation: u64, deadline: u64) {
        let link = self.link(from, to);
        if link.generation != generation || link.state != LinkState::Connecting {
            return;
        }
        if self.procs[to].state == State::Running && self.open_both_ways(from, to) {
            let life = self.procs[to].life;
            let link = self.link(from, to);
            *link = Link { state: LinkState::Up, generation, life, arrival: [0; 2], held: Vec::new() };
            let hello = PeerHello {
                versions: self.procs[to].versions,
                cluster: self.topology.cluster.clone(),
                run: self.procs[to].run,
                pid: self.procs[to].pid,
                topology: super::process::TOPOLOGY_HASH,
            };
            let peer = self.procs[to].id;
            self.reach(from, self.procs[from].life, Input::PeerUp { peer, hello });
        } else if self.clock < deadline {
            let after = self.dice.between(50_000, 150_000);
            self.after(after, Event::Connect { from, to, generation, deadline });
        } else {
            self.link(from, to).state = LinkState::Down;
        }
    }

    /// A message on a stream.
    pub(crate) fn send(&mut self, from: usize, to: ProcessId, message: PeerMessage) {
        let Some(to) = self.index_of(to).filter(|to| *to != from) else {
            self.fail(format!("{} sends to {to}, which is not another process", self.procs[from].id));
            return;
        };
        let Some(generation) = self.up(from, to) else { return };
        let life = self.link(from, to).life;
        if self.lives(to, life) && !self.procs[to].versions.knows(message.since()) {
            self.fail(format!("{} is sent what it does not know: {message:?}", self.procs[to].id));
        }
        if self.reset(from, to, generation) {
            return;
        }
        let lane = match message.lane() {
            Lane::Control => 0,
            Lane::Bulk => 1,
        };
        let at = self.clock + self.delay(from, to) + self.stall(from, to);
        let link = self.link(from, to);
        let at = at.max(link.arrival[lane] + 1);
        link.arrival[lane] = at;
        self.at(at, Event::Deliver { from, to, generation, message: Box::new(message) });
    }

    /// How much later a message on a stream comes because it, or what was sent before it, was lost.
    fn stall(&mut self, from: usize, to: usize) -> u64 {
        let stalls = self.load.streams == Streams::Stalling && self.procs[from].host != self.procs[to].host;
        if stalls && self.dice.chance(self.faults.lost) { self.dice.between(RESENT.0, RESENT.1) } else { 0 }
    }

    /// Whether the other end was started anew (it then resets the connection) or is gone.
    fn reset(&mut self, from: usize, to: usize, generation: u64) -> bool {
        let life = self.link(from, to).life;
        if self.lives(to, life) {
            return false;
        }
        if self.procs[to].state == State::Running && self.open_both_ways(from, to) {
            let after = self.delay(from, to) + self.delay(to, from);
            self.after(after, Event::Silence { from, to, generation });
        }
        true
    }

    pub(crate) fn on_deliver(&mut self, from: usize, to: usize, generation: u64, message: PeerMessage) {
        let open = self.open(from, to);
        let link = self.link(from, to);
        if link.generation != generation {
            return;
        }
        if !open || !link.held.is_empty() {
            link.held.push(message);
            return;
        }
        let life = link.life;
        let from = self.procs[from].id;
        self.reach(to, life, Input::Peer { from, message });
    }

    pub(crate) fn on_redeliver(&mut self, from: usize, to: usize, generation: u64) {
        let open = self.open(from, to);
        let link = self.link(from, to);
        if link.generation != generation || !open {
            return;
        }
        let (life, held) = (link.life, std::mem::take(&mut link.held));
        let from = self.procs[from].id;
        for message in held {
            self.reach(to, life, Input::Peer { from, message });
        }
    }

    /// A datagram.
    pub(crate) fn beat(&mut self, from: usize, to: ProcessId, heartbeat: Heartbeat) {
        let Some(to) = self.index_of(to).filter(|to| *to != from) else {
            self.fail(format!("{} beats to {to}, which is not another process", self.procs[from].id));
            return;
        };
        let Some(generation) = self.up(from, to) else { return };
        if self.reset(from, to, generation) {
            return;
        }
        let heartbeat = Box::new(heartbeat);
        if self.dice.chance(self.faults.duplicated) {
            self.fly(from, to, generation, heartbeat.clone());
        }
        self.fly(from, to, generation, heartbeat);
    }

    /// A datagram gets there some time, or not.
    fn fly(&mut self, from: usize, to: usize, generation: u64, heartbeat: Box<Heartbeat>) {
        if self.procs[from].host != self.procs[to].host && self.dice.chance(self.faults.lost) {
            return;
        }
        let jitter = if self.dice.chance(20) { self.dice.between(0, 30_000) } else { 0 };
        let after = self.delay(from, to) + jitter;
        self.after(after, Event::Datagram { from, to, generation, heartbeat });
    }

    pub(crate) fn on_datagram(&mut self, from: usize, to: usize, generation: u64, heartbeat: Heartbeat) {
        let open = self.open(from, to);
        let link = self.link(from, to);
        if link.generation != generation || !open {
            return;
        }
        let life = link.life;
        let seeming = self.seeming_sender(from, to);
        let from = self.procs[seeming].id;
        self.reach(to, life, Input::Heartbeat { from, heartbeat });
    }

    /// Breaks a connection whose other end has been silent for too long.
    pub(crate) fn on_silence(&mut self, from: usize, to: usize, generation: u64) {
        let link = self.link(from, to);
        if link.generation != generation || link.state != LinkState::Up {
            return;
        }
        let life = link.life;
        let fine = self.lives(to, life)
            && self.open_both_ways(from, to)
            && !self.stopped_for_long(to)
            && !self.stopped_for_long(from);
        if fine {
            return;
        }
        let link = self.link(from, to);
        link.state = LinkState::Down;
        link.generation += 1;
        link.held.clear();
        let peer = self.procs[to].id;
        self.reach(from, self.procs[from].life, Input::PeerDown { peer });
    }

    fn stopped_for_long(&self, proc: usize) -> bool {
        let proc = &self.procs[proc];
        let idle = micros(gaggle::limits::PEER_IDLE);
        proc.state == State::Stopped && self.clock.saturating_sub(proc.stopped_at) >= idle
    }

    /// Looks after the idle timeout at every connection of these that a change may have silenced.
    pub(crate) fn watch(&mut self, concerns: impl Fn(&Self, usize, usize) -> bool, after: (u64, u64)) {
        let links: Vec<(usize, usize, u64)> = self
            .links
            .iter()
            .filter(|((from, to), link)| link.state == LinkState::Up && concerns(self, *from, *to))
            .map(|((from, to), link)| (*from, *to, link.generation))
            .collect();
        for (from, to, generation) in links {
            let micros = self.dice.between(after.0, after.1);
            self.after(micros, Event::Silence { from, to, generation });
        }
    }

    /// A process is gone: what it sent last is on its way, its connections are no more.
    pub(crate) fn forget_links(&mut self, proc: usize) {
        for ((from, _), link) in &mut self.links {
            if *from == proc {
                link.state = LinkState::Down;
                link.generation += 1;
                link.held.clear();
            }
        }
    }

    /// A cut is mended: what it held back arrives.
    pub(crate) fn release_held(&mut self) {
        let links: Vec<(usize, usize, u64)> = self
            .links
            .iter()
            .filter(|(_, link)| !link.held.is_empty())
            .map(|((from, to), link)| (*from, *to, link.generation))
            .collect();
        for (from, to, generation) in links {
            let after = self.dice.between(5_000, 200_000);
            self.after(after, Event::Redeliver { from, to, generation });
        }
    }
}
