//! What breaks, when, and for how long. Each seed draws which kinds of faults it knows (swarm testing: a run with two
//! kinds finds what a run with all of them hides), then how often they come.
//!
//! All is drawn before the run begins, and each fault has chance of its own: a run without one of them has the others at
//! the same times, with the same victims ([`super::minimise`]).
//!
//! Within the budget of the promises: only one host's disk is ever lost ([`super::losses`]), so what two hosts held may
//! not be.

use std::collections::{BTreeSet, VecDeque};

use gaggle::core::io::Input;
use gaggle::core::node::Node;
use gaggle::wire::heartbeat::Duty;

use super::dice::Dice;
use super::drains::{self, End};
use super::people::Memory;
use super::world::{Event, State, World, micros};
use super::{Mutant, Options};

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
    /// Reads of a host's store take long, and see what was there when they began.
    SlowReads,
    ClockJump,
    /// From now on a host's clocks, both of them, run fast or slow.
    ClockDrift,
    /// A person is gone without a word, in the midst of a call perhaps; some have forgotten the call when they are back.
    Vanish,
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
    /// An operator drains any process, and ends it later ([`drains`]).
    Drain,
    /// An operator drains a process that holds this duty.
    DrainHolder(Duty),
    /// An operator drains two processes of a host, one soon after the other.
    DrainTwo,
}

/// All but the drains, which are drawn apart: one more of these changes what every seed draws.
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
    Kind::SlowReads,
    Kind::ClockJump,
    Kind::ClockDrift,
    Kind::Vanish,
    Kind::LoseDisk,
    Kind::Restore,
    Kind::SyncFails,
    Kind::Leave,
    Kind::Weather,
];

/// A read takes 0.5 s then: no read transaction may last over 1 s.
const READ_SLOWNESS_MAX: u64 = 1_500;

/// What is mended later.
#[derive(Debug)]
pub(crate) enum Undo {
    Continue { proc: usize },
    Light { host: usize },
    Mend { pairs: Vec<(usize, usize)> },
    Fast { host: usize },
    ReadFast { host: usize },
    Room { host: usize },
    Return { proc: usize },
    Drained { proc: usize, life: u32, end: End },
}

/// One fault of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Its place among all that the seed draws.
    pub(crate) index: usize,
    pub(crate) at: u64,
    pub(crate) kind: Kind,
}

/// The faults of one simulation.
#[derive(Debug)]
pub(crate) struct Faults {
    kinds: Vec<Kind>,
    /// What is still to come.
    pub(crate) plan: VecDeque<Fault>,
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
    pub(crate) fn draw(options: &Options, hosts: usize) -> Self {
        let mut dice = Dice::of(options.seed, PLAN);
        let needed = options.mutant.map_or(&[] as &[Kind], Mutant::needs);
        // Few others beside those that are needed, so that these come often.
        let share = if needed.is_empty() { dice.between(100, 700) } else { 100 };
        let alone =
            |kind: &Kind| hosts == 1 && matches!(kind, Kind::Cut | Kind::CutOneWay | Kind::LoseDisk | Kind::Restore);
        let drawn = |kind: &&Kind| !alone(kind) && (needed.contains(kind) || dice.chance(share));
        let kinds: Vec<Kind> = KINDS.iter().filter(drawn).copied().collect();
        let mean = dice.between(150_000, if needed.is_empty() { 2_000_000 } else { 600_000 });
        // Clusters are hit while they start, too.
        let mut at = dice.between(0, 2_000_000);
        let mut plan = Vec::new();
        for index in 0.. {
            let Some(kind) = dice.pick(&kinds).filter(|_| at < options.faults_until) else { break };
            if options.faults.as_ref().is_none_or(|only| only.contains(&index)) {
                plan.push(Fault { index, at, kind });
            }
            at += dice.between(mean / 10, mean * 2);
        }
        let (drains, drained) = drains::draw(options);
        plan.extend(drained);
        plan.sort_by_key(|fault| (fault.at, fault.index));
        Self {
            kinds: [kinds, drains].concat(),
            plan: plan.into(),
            active: true,
            cut: BTreeSet::new(),
            dark: BTreeSet::new(),
            delay: (100, 500),
            lost: 0,
            duplicated: 0,
        }
    }
}

/// The part of a seed's chance that plans the faults; each fault has the next after it.
const PLAN: u64 = 1 << 32;

impl World {
    pub(crate) fn note_faults(&mut self) {
        let line = format!("{} hosts, {} people, {:?}", self.disks.len(), self.people.len(), self.faults.kinds);
        self.note(|| line);
    }

    /// Has the next fault come at its time.
    pub(crate) fn await_fault(&mut self) {
        if let Some(fault) = self.faults.plan.front() {
            self.at(fault.at, Event::Fault);
        }
    }

    pub(crate) fn on_fault(&mut self) {
        let Some(fault) = self.faults.plan.pop_front().filter(|_| self.faults.active) else { return };
        self.counts.faults += 1;
        let Fault { index, kind, .. } = fault;
        self.note(|| format!("FAULT {index}: {kind:?}"));
        self.inflict(kind, &mut Dice::of(self.options.seed, PLAN + 1 + index as u64));
        self.await_fault();
    }

    fn inflict(&mut self, kind: Kind, dice: &mut Dice) {
        let host = dice.index(self.disks.len());
        let any = dice.index(self.procs.len());
        match kind {
            Kind::Kill => self.kill(any),
            Kind::KillHolder(duty) => {
                if let Some(proc) = self.holder(duty, dice) {
                    self.kill(proc);
                }
            }
            Kind::KillHost => self.kill_host(host),
            Kind::Dark => {
                self.faults.dark.insert(host);
                self.kill_host(host);
                self.undo_after(dice.between(300_000, 5_000_000), Undo::Light { host });
            }
            Kind::Stop => self.stop_for_a_while(any, dice),
            Kind::StopHolder(duty) => {
                if let Some(proc) = self.holder(duty, dice) {
                    self.stop_for_a_while(proc, dice);
                }
            }
            Kind::Cut => self.cut_in_two(dice),
            Kind::CutOneWay => {
                let other = (host + 1 + dice.index(self.disks.len() - 1)) % self.disks.len();
                self.cut(vec![(host, other)], dice);
            }
            Kind::SlowDisk => {
                self.disks[host].slowness = dice.between(10, 400);
                self.undo_after(dice.between(100_000, 3_000_000), Undo::Fast { host });
            }
            Kind::FullDisk => {
                self.disks[host].full = true;
                self.undo_after(dice.between(100_000, 3_000_000), Undo::Room { host });
            }
            Kind::SlowReads => {
                self.disks[host].read_slowness = dice.between(10, READ_SLOWNESS_MAX);
                self.undo_after(dice.between(100_000, 3_000_000), Undo::ReadFast { host });
            }
            Kind::ClockJump => {
                let jump = i64::try_from(dice.between(0, 4_000_000)).unwrap_or(0) - 2_000_000;
                self.clocks[host].jump(jump);
                self.note(|| format!("host {host}'s clocks are set {jump} us ahead"));
            }
            Kind::ClockDrift => self.drift(host, dice),
            Kind::Vanish => self.vanish(dice),
            Kind::LoseDisk => self.lose_disk(),
            Kind::Restore => self.back_up_or_restore(),
            Kind::SyncFails => self.disks[host].sync_fails = true,
            Kind::Leave if self.procs[any].state == State::Dead => {}
            Kind::Leave => self.leave(any, dice.between(500_000, 4_000_000)),
            Kind::Weather => self.change_weather(dice),
            Kind::Drain => self.drain(any, 0, dice),
            Kind::DrainHolder(duty) => {
                if let Some(proc) = self.holder(duty, dice) {
                    self.drain(proc, 0, dice);
                }
            }
            Kind::DrainTwo => self.drain_two(host, dice),
        }
    }

    /// A running process with this duty, by chance.
    fn holder(&mut self, duty: Duty, dice: &mut Dice) -> Option<usize> {
        let holds = |node: &Node| node.snapshot().duties.contains(&duty);
        let holders: Vec<usize> = (0..self.procs.len())
            .filter(|proc| {
                self.procs[*proc].state == State::Running && self.procs[*proc].node.as_ref().is_some_and(holds)
            })
            .collect();
        dice.pick(&holders)
    }

    /// Clocks of computers are off by up to 500 ppm; those of virtual machines by some percent, for a while.
    fn drift(&mut self, host: usize, dice: &mut Dice) {
        let most = if dice.chance(500) { 500 } else { 50_000 };
        let rate = i64::try_from(dice.between(0, 2 * most + 1)).unwrap_or(0) - i64::try_from(most).unwrap_or(0);
        self.clocks[host].run_at(rate, self.clock);
        self.note(|| format!("host {host}'s clocks run {rate} ppm fast"));
        for proc in 0..self.procs.len() {
            if self.procs[proc].host == host && self.procs[proc].state == State::Running {
                self.rearm(proc);
            }
        }
    }

    fn vanish(&mut self, dice: &mut Dice) {
        let person = dice.index(self.people.len());
        let memory = if dice.chance(300) { Memory::Lost } else { Memory::Kept };
        self.drop_out(person, memory, dice.between(50_000, 4_000_000));
    }

    pub(crate) fn kill_host(&mut self, host: usize) {
        for proc in 0..self.procs.len() {
            if self.procs[proc].host == host {
                self.kill(proc);
            }
        }
        let verdict = self.history.on_dark(host, self.clock);
        self.judge(verdict);
    }

    fn stop_for_a_while(&mut self, proc: usize, dice: &mut Dice) {
        self.stop(proc);
        self.undo_after(dice.between(60_000, 6_000_000), Undo::Continue { proc });
    }

    /// SIGTERM, and a start by hand later.
    pub(crate) fn leave(&mut self, proc: usize, returns_after: u64) {
        self.procs[proc].left = true;
        let life = self.procs[proc].life;
        self.reach(proc, life, Input::Terminate);
        self.undo_after(returns_after, Undo::Return { proc });
    }

    fn cut_in_two(&mut self, dice: &mut Dice) {
        let hosts = self.disks.len();
        let side: Vec<bool> = (0..hosts).map(|_| dice.chance(500)).collect();
        let pairs = (0..hosts).flat_map(|from| (0..hosts).map(move |to| (from, to)));
        let pairs = pairs.filter(|(from, to)| side[*from] != side[*to]).collect();
        self.cut(pairs, dice);
    }

    fn cut(&mut self, pairs: Vec<(usize, usize)>, dice: &mut Dice) {
        self.faults.cut.extend(pairs.iter().copied());
        let idle = micros(gaggle::limits::PEER_IDLE);
        self.watch(|world, from, to| world.is_cut(from, to), (idle, idle + 200_000));
        self.undo_after(dice.between(100_000, 6_000_000), Undo::Mend { pairs });
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        let (from, to) = (self.procs[from].host, self.procs[to].host);
        self.faults.cut.contains(&(from, to)) || self.faults.cut.contains(&(to, from))
    }

    fn change_weather(&mut self, dice: &mut Dice) {
        let high = dice.between(300, 20_000);
        self.faults.delay = (high / 4, high);
        self.faults.lost = dice.between(0, 300);
        self.faults.duplicated = dice.between(0, 200);
    }

    pub(crate) fn undo_after(&mut self, micros: u64, undo: Undo) {
        self.after(micros, Event::Undo(undo));
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
            Undo::ReadFast { host } => self.disks[*host].read_slowness = 1,
            Undo::Room { host } => self.disks[*host].full = false,
            Undo::Return { proc } => self.bring_back(*proc),
            Undo::Drained { proc, life, end } => self.end_drained(*proc, *life, *end),
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

    /// The end of all faults: everything runs, hears everything, and has room. Clocks stay as they are.
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
            self.disks[host].read_slowness = 1;
            self.light(host);
        }
        for proc in 0..self.procs.len() {
            self.go_on(proc);
            self.procs[proc].left = false;
            self.after(60_000, Event::Start { proc });
        }
    }
}
