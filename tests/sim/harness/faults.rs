//! What breaks, when, and for how long. Each seed draws which kinds of faults it knows (swarm testing: a run with two
//! kinds finds what a run with all of them hides), then how often they come.
//!
//! Within the budget of the promises: only one host's disk is ever lost ([`super::losses`]), so what two hosts held may
//! not be.

use std::collections::BTreeSet;

use gaggle::core::io::Input;
use gaggle::core::node::Node;
use gaggle::wire::heartbeat::Duty;

use super::dice::Dice;
use super::world::{Event, State, World, micros};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any process dies.
    Kill,
    /// A process that holds this duty dies.
    KillHolder(Duty),
    /// Every process of a host dies at once, and comes back after a second.
    KillHost,
    /// A host loses power for a while.
    Dark,
    /// SIGSTOP for a while.
    Stop,
    /// A process that holds this duty is stopped for a while.
    StopHolder(Duty),
    /// Two groups of hosts do not hear each other.
    Cut,
    /// One host does not hear another.
    CutOneWay,
    SlowDisk,
    FullDisk,
    ClockJump,
    /// A host's folder is emptied.
    LoseDisk,
    /// A backup is made, or put back.
    Restore,
    /// The next sync fails.
    SyncFails,
    /// SIGTERM, and an operator starts it again.
    Leave,
    /// Links get slow and lossy, or good again.
    Weather,
}

const KINDS: &[Kind] = &[
    Kind::Kill,
    Kind::KillHolder(Duty::Serve),
    Kind::KillHolder(Duty::Relay),
    Kind::KillHolder(Duty::Direct),
    Kind::KillHost,
    Kind::Dark,
    Kind::Stop,
    Kind::StopHolder(Duty::Serve),
    Kind::StopHolder(Duty::Relay),
    Kind::Cut,
    Kind::CutOneWay,
    Kind::SlowDisk,
    Kind::FullDisk,
    Kind::ClockJump,
    Kind::LoseDisk,
    Kind::Restore,
    Kind::SyncFails,
    Kind::Leave,
    Kind::Weather,
];

/// What is mended later.
#[derive(Debug)]
pub(crate) enum Undo {
    Continue { proc: usize },
    Light { host: usize },
    Mend { pairs: Vec<(usize, usize)> },
    Fast { host: usize },
    Room { host: usize },
    Return { proc: usize },
}

/// The faults of one simulation.
#[derive(Debug)]
pub(crate) struct Faults {
    pub(crate) kinds: Vec<Kind>,
    /// Mean time between two, in microseconds.
    mean: u64,
    pub(crate) active: bool,
    /// (from, to): packets between these hosts get lost.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// Hosts without power.
    pub(crate) dark: BTreeSet<usize>,
    /// Bounds of the one-way delay between hosts, in microseconds.
    pub(crate) delay: (u64, u64),
    /// Datagrams lost, and repeated, of 1,000.
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
}

impl Faults {
    /// Draws the faults of a run; those that a mutant needs to show itself are always among them.
    pub(crate) fn draw(dice: &mut Dice, hosts: usize, needed: &[Kind]) -> Self {
        // Few others beside those that are needed, so that these come often.
        let share = if needed.is_empty() { dice.between(100, 700) } else { 100 };
        let alone =
            |kind: &Kind| hosts == 1 && matches!(kind, Kind::Cut | Kind::CutOneWay | Kind::LoseDisk | Kind::Restore);
        let drawn = |kind: &&Kind| !alone(kind) && (needed.contains(kind) || dice.chance(share));
        let kinds = KINDS.iter().filter(drawn).copied().collect();
        let mean = dice.between(150_000, 2_000_000);
        Self {
            kinds,
            mean,
            active: true,
            cut: BTreeSet::new(),
            dark: BTreeSet::new(),
            delay: (100, 500),
            lost: 0,
            duplicated: 0,
        }
    }
}

impl World {
    pub(crate) fn note_faults(&mut self) {
        let line = format!("{} hosts, {} people, {:?}", self.disks.len(), self.people.len(), self.faults.kinds);
        self.note(|| line);
    }

    /// Clusters are hit while they start, too.
    pub(crate) fn first_fault_after(&mut self) -> u64 {
        self.dice.between(0, 2_000_000)
    }

    pub(crate) fn on_fault(&mut self) {
        if !self.faults.active {
            return;
        }
        let mean = self.faults.mean;
        let next = self.dice.between(mean / 10, mean * 2);
        self.after(next, Event::Fault);
        if let Some(kind) = self.dice.pick(&self.faults.kinds) {
            self.counts.faults += 1;
            self.note(|| format!("FAULT {kind:?}"));
            self.inflict(kind);
        }
    }

    fn inflict(&mut self, kind: Kind) {
        let host = self.dice.index(self.disks.len());
        let any = self.dice.index(self.procs.len());
        match kind {
            Kind::Kill => self.kill(any),
            Kind::KillHolder(duty) => {
                if let Some(proc) = self.holder(duty) {
                    self.kill(proc);
                }
            }
            Kind::KillHost => self.kill_host(host),
            Kind::Dark => {
                self.faults.dark.insert(host);
                self.kill_host(host);
                self.undo_within(300_000, 5_000_000, Undo::Light { host });
            }
            Kind::Stop => self.stop_for_a_while(any),
            Kind::StopHolder(duty) => {
                if let Some(proc) = self.holder(duty) {
                    self.stop_for_a_while(proc);
                }
            }
            Kind::Cut => self.cut_in_two(),
            Kind::CutOneWay => {
                let other = (host + 1 + self.dice.index(self.disks.len() - 1)) % self.disks.len();
                self.cut(vec![(host, other)]);
            }
            Kind::SlowDisk => {
                self.disks[host].slowness = self.dice.between(10, 400);
                self.undo_within(100_000, 3_000_000, Undo::Fast { host });
            }
            Kind::FullDisk => {
                self.disks[host].full = true;
                self.undo_within(100_000, 3_000_000, Undo::Room { host });
            }
            Kind::ClockJump => {
                let jump = i64::try_from(self.dice.between(0, 4_000_000)).unwrap_or(0) - 2_000_000;
                self.clock_offset[host] = jump;
            }
            Kind::LoseDisk => self.lose_disk(),
            Kind::Restore => self.back_up_or_restore(),
            Kind::SyncFails => self.disks[host].sync_fails = true,
            Kind::Leave => self.leave(any),
            Kind::Weather => self.change_weather(),
        }
    }

    /// A running process with this duty, by chance.
    fn holder(&mut self, duty: Duty) -> Option<usize> {
        let holds = |node: &Node| node.snapshot().duties.contains(&duty);
        let holders: Vec<usize> = (0..self.procs.len())
            .filter(|proc| {
                self.procs[*proc].state == State::Running && self.procs[*proc].node.as_ref().is_some_and(holds)
            })
            .collect();
        self.dice.pick(&holders)
    }

    pub(crate) fn kill_host(&mut self, host: usize) {
        for proc in 0..self.procs.len() {
            if self.procs[proc].host == host {
                self.kill(proc);
            }
        }
    }

    fn stop_for_a_while(&mut self, proc: usize) {
        self.stop(proc);
        self.undo_within(60_000, 6_000_000, Undo::Continue { proc });
    }

    fn leave(&mut self, proc: usize) {
        if self.procs[proc].state == State::Dead {
            return;
        }
        self.procs[proc].left = true;
        let life = self.procs[proc].life;
        self.reach(proc, life, Input::Terminate);
        self.undo_within(500_000, 4_000_000, Undo::Return { proc });
    }

    fn cut_in_two(&mut self) {
        let hosts = self.disks.len();
        let side: Vec<bool> = (0..hosts).map(|_| self.dice.chance(500)).collect();
        let pairs = (0..hosts).flat_map(|from| (0..hosts).map(move |to| (from, to)));
        let pairs = pairs.filter(|(from, to)| side[*from] != side[*to]).collect();
        self.cut(pairs);
    }

    fn cut(&mut self, pairs: Vec<(usize, usize)>) {
        self.faults.cut.extend(pairs.iter().copied());
        let idle = micros(gaggle::limits::PEER_IDLE);
        self.watch(|world, from, to| world.is_cut(from, to), (idle, idle + 200_000));
        self.undo_within(100_000, 6_000_000, Undo::Mend { pairs });
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        let (from, to) = (self.procs[from].host, self.procs[to].host);
        self.faults.cut.contains(&(from, to)) || self.faults.cut.contains(&(to, from))
    }

    fn change_weather(&mut self) {
        let high = self.dice.between(300, 20_000);
        self.faults.delay = (high / 4, high);
        self.faults.lost = self.dice.between(0, 300);
        self.faults.duplicated = self.dice.between(0, 200);
    }

    fn undo_within(&mut self, low: u64, high: u64, undo: Undo) {
        let after = self.dice.between(low, high);
        self.after(after, Event::Undo(undo));
    }

    pub(crate) fn on_undo(&mut self, undo: &Undo) {
        self.note(|| format!("UNDO {undo:?}"));
        match undo {
            Undo::Continue { proc } => self.go_on(*proc),
            Undo::Light { host } => self.light(*host),
            Undo::Mend { pairs } => {
                for pair in pairs {
                    self.faults.cut.remove(pair);
                }
                self.release_held();
            }
            Undo::Fast { host } => self.disks[*host].slowness = 1,
            Undo::Room { host } => self.disks[*host].full = false,
            Undo::Return { proc } => self.bring_back(*proc),
        }
    }

    fn light(&mut self, host: usize) {
        self.faults.dark.remove(&host);
        for proc in 0..self.procs.len() {
            if self.procs[proc].host == host {
                let after = self.dice.between(0, 50_000);
                self.after(after, Event::Start { proc });
            }
        }
    }

    /// An operator starts again what was told to leave; what has not left by now never will.
    fn bring_back(&mut self, proc: usize) {
        self.kill(proc);
        self.procs[proc].left = false;
        self.after(1_000, Event::Start { proc });
    }

    /// The end of all faults: everything runs, hears everything, and has room.
    pub(crate) fn heal(&mut self) {
        self.note(|| "HEAL".to_owned());
        self.faults.active = false;
        self.faults.cut.clear();
        (self.faults.delay, self.faults.lost, self.faults.duplicated) = ((100, 500), 0, 0);
        self.release_held();
        for host in 0..self.disks.len() {
            self.disks[host].full = false;
            self.disks[host].sync_fails = false;
            self.disks[host].slowness = 1;
            self.light(host);
        }
        for proc in 0..self.procs.len() {
            self.go_on(proc);
            self.procs[proc].left = false;
            self.after(60_000, Event::Start { proc });
        }
    }
}
