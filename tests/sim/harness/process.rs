//! Processes: started, killed, stopped and continued as an operating system would, with what the kernel tells of it.

use gaggle::core::io::Input;
use gaggle::core::node::{Node, NodeConfig};
use gaggle::wire::heartbeat::Life;

use super::disk::{LOG_BLOCK, SYNC_FAILED};
use super::line::Line;
use super::world::{Event, State, World, micros};

/// What every process has read in the topology file.
pub(crate) const TOPOLOGY_HASH: u32 = 0x70_70_01;

impl World {
    /// Starts a process unless it runs.
    pub(crate) fn start(&mut self, proc: usize) {
        let host = self.procs[proc].host;
        if self.procs[proc].state != State::Dead || self.procs[proc].left || self.faults.dark.contains(&host) {
            return;
        }
        let pid = u32::try_from(self.fresh_id()).unwrap_or(u32::MAX);
        let mono_offset = self.dice.between(0, 1_000_000_000);
        let (run, seed) = (self.dice.number(), self.dice.number());
        let process = &mut self.procs[proc];
        process.state = State::Running;
        process.life += 1;
        // Those of its last life are void.
        process.timer_at = None;
        (process.run, process.pid, process.mono_offset) = (run, pid, mono_offset);
        process.backlog.clear();
        process.jobs.clear();
        process.writing = false;
        process.drained = false;
        process.line = Line::default();
        let me = process.id;
        let versions = super::shape::versions(&self.options, proc, process.life);
        process.versions = versions;
        let (topology, topology_hash) = (self.topology.clone(), TOPOLOGY_HASH);
        let config = NodeConfig { topology, topology_hash, me, run, pid, seed, versions, block: LOG_BLOCK };
        let now = self.now(proc);
        self.procs[proc].node = Some(Node::new(config, now));
        self.note(|| format!("{me} starts"));
        let life = self.procs[proc].life;
        for sibling in self.siblings(proc) {
            self.on_notice(proc, life, sibling);
        }
        self.tell_siblings(proc, (100, 50_000));
        self.rearm(proc);
    }

    pub(crate) fn siblings(&self, proc: usize) -> Vec<usize> {
        let host = self.procs[proc].host;
        (0..self.procs.len()).filter(|other| *other != proc && self.procs[*other].host == host).collect()
    }

    /// The kernel tells a process how a sibling is at this moment.
    pub(crate) fn on_notice(&mut self, proc: usize, life: u32, sibling: usize) {
        let found = &self.procs[sibling];
        let (life_now, pid) = match found.state {
            State::Dead => (Life::Dead, 0),
            State::Running => (Life::Up, found.pid),
            State::Stopped => (Life::Stopped, found.pid),
        };
        let process = found.id;
        self.reach(proc, life, Input::Sibling { process, life: life_now, pid });
    }

    fn tell_siblings(&mut self, proc: usize, within: (u64, u64)) {
        for sibling in self.siblings(proc) {
            let life = self.procs[sibling].life;
            let after = self.dice.between(within.0, within.1);
            self.after(after, Event::Notice { proc: sibling, life, sibling: proc });
        }
    }

    /// Ends a process at once.
    pub(crate) fn kill(&mut self, proc: usize) {
        if self.procs[proc].state == State::Dead {
            return;
        }
        let (id, host) = (self.procs[proc].id, self.procs[proc].host);
        self.note(|| format!("{id} dies"));
        let process = &mut self.procs[proc];
        process.state = State::Dead;
        process.node = None;
        process.backlog.clear();
        process.jobs.clear();
        self.abandon(host, proc);
        self.forget_links(proc);
        self.tell_siblings(proc, (150, 400));
        let idle = micros(gaggle::limits::PEER_IDLE);
        self.watch(|_, _, to| to == proc, (idle, idle + 100_000));
        // Where nobody of the host is left to decide a restart, whoever supervises the host does.
        let alone = self.siblings(proc).iter().all(|other| self.procs[*other].state == State::Dead);
        if alone {
            for other in (0..self.procs.len()).filter(|other| self.procs[*other].host == host).collect::<Vec<_>>() {
                let after = self.dice.between(1_000_000, 1_200_000);
                self.after(after, Event::Start { proc: other });
            }
        }
    }

    /// A process ends itself, closing its connections.
    pub(crate) fn exit(&mut self, proc: usize, failure: Option<String>) {
        let id = self.procs[proc].id;
        match failure {
            Some(failure) if failure == SYNC_FAILED => self.kill(proc),
            Some(failure) => self.fail(format!("{id} ends itself: {failure}")),
            None => {
                self.procs[proc].left = true;
                self.watch(|_, _, to| to == proc, (1_000, 3_000));
                self.kill(proc);
            }
        }
    }

    /// SIGSTOP.
    pub(crate) fn stop(&mut self, proc: usize) {
        if self.procs[proc].state != State::Running {
            return;
        }
        let id = self.procs[proc].id;
        self.note(|| format!("{id} is stopped"));
        self.procs[proc].state = State::Stopped;
        self.procs[proc].stopped_at = self.clock;
        self.tell_siblings(proc, (1_000, 50_000));
        let idle = micros(gaggle::limits::PEER_IDLE);
        self.watch(|_, from, to| from == proc || to == proc, (idle, idle + 100_000));
    }

    /// SIGCONT: what waited is handled first, then what is due.
    pub(crate) fn go_on(&mut self, proc: usize) {
        if self.procs[proc].state != State::Stopped {
            return;
        }
        let (id, host, life) = (self.procs[proc].id, self.procs[proc].host, self.procs[proc].life);
        self.note(|| format!("{id} goes on"));
        self.procs[proc].state = State::Running;
        self.tell_siblings(proc, (1_000, 50_000));
        let timers_first = self.dice.chance(300);
        if timers_first {
            let token = self.procs[proc].timer_token;
            self.on_timer_if_due(proc, life, token);
        }
        while self.lives(proc, life) && self.procs[proc].state == State::Running {
            let Some(input) = self.procs[proc].backlog.pop_front() else { break };
            self.reach(proc, life, input);
        }
        self.finish_if_synced(host, proc);
        if self.lives(proc, life) {
            self.rearm(proc);
        }
    }

    fn on_timer_if_due(&mut self, proc: usize, life: u32, token: u64) {
        let due = self.procs[proc].node.as_ref().and_then(Node::poll_timeout);
        if due.is_some_and(|due| due <= self.now(proc).mono) {
            self.on_timer(proc, life, token);
        }
    }
}
