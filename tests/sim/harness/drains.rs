//! Drains: an operator moves a process's duties and clients away, and ends it a while later, or forgets it.
//!
//! A drained process runs on ([`gaggle::core::serve`]): it is the end of its life that makes it willing again, whoever
//! brings that about. So what follows a drain is part of the fault: SIGTERM, and a start by hand, as when a machine is
//! looked after; a death, and a start by whoever supervises it; or nothing, and it is drained when all is judged.
//!
//! Drains have chance of their own, and numbers of their own among the faults: a run without them is what the seed made
//! before there were any.

use gaggle::core::io::{Input, Rank};
use gaggle::id::{ClientId, Token};
use gaggle::wire::client::{Request, RequestBody};
use gaggle::wire::heartbeat::Duty;

use super::dice::Dice;
use super::faults::{Fault, Kind, Undo};
use super::world::{Event, State, World};
use super::{Choice, Options};

const KINDS: &[Kind] = &[
    Kind::Drain,
    Kind::DrainHolder(Duty::Serve),
    Kind::DrainHolder(Duty::Relay),
    Kind::DrainHolder(Duty::Direct),
    Kind::DrainTwo,
];

/// The part of a seed's chance that plans the drains: far from those of the other faults and of the load.
const DRAINS: u64 = 1 << 34;

/// Drains are numbered from here: no run has so many other faults, and how many it has depends on its length.
const NUMBERED_FROM: usize = 1_000;

/// What becomes of a drained process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// SIGTERM, and after so many microseconds an operator starts it again.
    Leaves { returns_after: u64 },
    /// It dies, and whoever supervises it starts it again.
    Dies,
}

/// Draws the drains of a run, and their kinds.
pub(crate) fn draw(options: &Options) -> (Vec<Kind>, Vec<Fault>) {
    let mut dice = Dice::of(options.seed, DRAINS);
    let needed = options.mutant.is_some_and(|mutant| mutant.needs().iter().any(|kind| KINDS.contains(kind)));
    let share = match options.drains {
        Choice::Always => 1_000,
        Choice::Drawn if needed => 1_000,
        Choice::Drawn if options.mutant.is_none() => 300,
        Choice::Drawn | Choice::Never => 0,
    };
    if !dice.chance(share) {
        return (Vec::new(), Vec::new());
    }
    let share = dice.between(300, 1_000);
    let mut kinds: Vec<Kind> = KINDS.iter().filter(|_| dice.chance(share)).copied().collect();
    if kinds.is_empty() {
        kinds.push(Kind::Drain);
    }
    let mean = dice.between(300_000, 3_000_000);
    let mut at = dice.between(0, 3_000_000);
    let mut plan = Vec::new();
    for index in NUMBERED_FROM.. {
        let Some(kind) = dice.pick(&kinds).filter(|_| at < options.faults_until) else { break };
        if options.faults.as_ref().is_none_or(|only| only.contains(&index)) {
            plan.push(Fault { index, at, kind });
        }
        at += dice.between(mean / 10, mean * 2);
    }
    (kinds, plan)
}

impl World {
    /// Drains a process after a while, and plans its end.
    pub(crate) fn drain(&mut self, proc: usize, after: u64, dice: &mut Dice) {
        let life = self.procs[proc].life;
        self.after(after, Event::Drain { proc, life });
        let longest = if dice.chance(300) { 200_000 } else { 5_000_000 };
        let ends_after = after + dice.between(1_000, longest);
        let returns_after = dice.between(100_000, 4_000_000);
        let end = match dice.between(0, 10) {
            0..5 => End::Leaves { returns_after },
            5..8 => End::Dies,
            _ => return,
        };
        self.undo_after(ends_after, Undo::Drained { proc, life, end });
    }

    /// Drains two processes of one host, the second while the first one's duties move, or when they have.
    pub(crate) fn drain_two(&mut self, host: usize, dice: &mut Dice) {
        let running = |proc: &usize| self.procs[*proc].host == host && self.procs[*proc].state == State::Running;
        let mut running: Vec<usize> = (0..self.procs.len()).filter(running).collect();
        let soon = if dice.chance(500) { 5_000 } else { 1_500_000 };
        for after in [0, dice.between(0, soon)] {
            if running.is_empty() {
                return;
            }
            let proc = running.swap_remove(dice.index(running.len()));
            self.drain(proc, after, dice);
        }
    }

    /// An operator's command reaches a process.
    pub(crate) fn on_drain(&mut self, proc: usize, life: u32) {
        if !self.lives(proc, life) {
            return;
        }
        let process = self.procs[proc].id;
        self.note(|| format!("{process} is drained"));
        self.procs[proc].drained = true;
        let (client, number) = (ClientId(self.fresh_id()), self.fresh_id());
        let request = Request { number, token: Token::default(), body: RequestBody::Drain { process } };
        let opened = Input::ClientOpened { client, key: None, rank: Rank::Operator };
        for input in [opened, Input::Client { client, request }, Input::ClientClosed { client }] {
            self.reach(proc, life, input);
        }
    }

    /// The life of a drained process ends, unless it has.
    pub(crate) fn end_drained(&mut self, proc: usize, life: u32, end: End) {
        if !self.lives(proc, life) {
            return;
        }
        match end {
            End::Leaves { returns_after } => self.leave(proc, returns_after),
            End::Dies => self.kill(proc),
        }
    }
}
