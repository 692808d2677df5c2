//! One host: an election that may be wrong at any time, and the store's fence that makes that harmless (P6).
//!
//! The election itself is left out on purpose. `src/core/election.rs` decides who works, never what is true, so here any
//! process may believe at any time that it has won: every run of the real election is one of these. What the model
//! keeps is what the truth hangs on, step by step:
//!
//! | action | code |
//! |---|---|
//! | `Win` | `Election::evaluate` says `Won`, `Node::take_epoch` gives `Output::TakeEpoch` out |
//! | `Lock` | the writer thread (`src/runtime/writer.rs`) gets the store's write lock, without a timeout |
//! | `TakeEpoch` | `ledger::take_epoch` in that transaction, and its commit; `Node::on_epoch_taken` |
//! | `Check`, `Commit` | `ledger::commit`: the fence inside the transaction, then the batch with its sync |
//! | `Answer` | `Primary::on_outcome` acknowledges |
//! | `Hear` | `Node::deposed`, by a `Coordinator` or a heartbeat of the newer epoch |
//! | `KillHolder` | `Node::serve_timeout` kills a stopped sibling while it waits for the lock |
//! | `Die`, `Stop`, `Continue`, `Restart` | SIGKILL, SIGSTOP, SIGCONT, the supervisor |
//!
//! A primary remembers its next seq from the transaction that gave it the epoch. The real one reads it in every
//! transaction; the model asks for more, so that the fence alone must carry the weight. The kill of a holder that runs
//! but hangs is `Die`.

use stateright::{Model, Property};

use crate::{breaks, holds};

const ONE_WRITER: &str = "one writer for each epoch";
const DEPOSED: &str = "a deposed primary commits nothing";
const KEPT: &str = "no acknowledged write is lost";
const SERVED: &str = "it is quiet only when somebody serves";

/// How the protocol is broken, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Real,
    /// `commit` does not look at the epoch.
    NoFence,
    /// The epoch is looked at before the lock is waited for.
    FenceOutside,
    /// The epoch is read, raised and written without the lock.
    LooseEpoch,
    /// A stopped holder of the lock is left alone.
    HolderSpared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Life {
    Up,
    Stopped,
    Dead,
}

/// What a primary knows of its time in office.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Term {
    epoch: u8,
    /// Where its next write goes.
    seq: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Standby,
    /// Waits for the lock to take an epoch.
    Wanting,
    /// Has read this epoch without the lock (`LooseEpoch` only).
    Guessed(u8),
    /// Holds the lock, to take an epoch.
    Taking,
    Serving(Term),
    /// Has looked at the epoch without the lock (`FenceOutside` only).
    Looked(Term),
    /// Holds the lock, to commit.
    Opened(Term),
    /// Holds the lock, and the epoch is still its own.
    Checked(Term),
    /// Has committed this one of `commits`, and owes an answer.
    Owing(Term, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Process {
    life: Life,
    step: Step,
}

/// One batch that reached the disk, and what the store's epoch was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Commit {
    seq: u8,
    writer: u8,
    epoch: u8,
    newest: u8,
}

/// How much may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Budget {
    deaths: u8,
    stops: u8,
    restarts: u8,
    /// Elections won although somebody serves and runs.
    mistakes: u8,
    writes: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    processes: Vec<Process>,
    /// The store's row; the lock's holder.
    epoch: u8,
    lock: Option<u8>,
    /// All batches in order: the last with a seq is what the log holds there.
    commits: Vec<Commit>,
    /// Indices of commits that a client was told of.
    answered: Vec<u8>,
    left: Budget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Die(u8),
    Stop(u8),
    Continue(u8),
    Restart(u8),
    Win(u8),
    Read(u8),
    Lock(u8),
    TakeEpoch(u8),
    Look(u8),
    Check(u8),
    Commit(u8),
    Answer(u8),
    Hear(u8),
    KillHolder(u8),
}

#[derive(Clone, Debug)]
struct Host {
    processes: usize,
    variant: Variant,
    budget: Budget,
}

impl State {
    fn up(&self, process: u8) -> bool {
        self.processes[usize::from(process)].life == Life::Up
    }

    fn step(&self, process: u8) -> Step {
        self.processes[usize::from(process)].step
    }

    fn set(&mut self, process: u8, step: Step) {
        self.processes[usize::from(process)].step = step;
    }

    /// Ends whatever the process was in the middle of: its transaction is rolled back and its lock is free.
    fn end(&mut self, process: u8, life: Life) {
        self.processes[usize::from(process)] = Process { life, step: Step::Standby };
        if self.lock == Some(process) {
            self.lock = None;
        }
    }

    /// Whether a process that runs is on its way to serve, or does, as far as its siblings can tell.
    fn is_led(&self) -> bool {
        self.processes.iter().any(|process| {
            process.life == Life::Up
                && match process.step {
                    Step::Standby => false,
                    Step::Wanting | Step::Guessed(_) | Step::Taking => true,
                    Step::Serving(term)
                    | Step::Looked(term)
                    | Step::Opened(term)
                    | Step::Checked(term)
                    | Step::Owing(term, _) => term.epoch == self.epoch,
                }
        })
    }

    fn has_primary(&self) -> bool {
        let serves = |step| matches!(step, Step::Serving(term) if term.epoch == self.epoch);
        self.processes.iter().any(|process| process.life == Life::Up && serves(process.step))
    }
}

impl Host {
    fn new(variant: Variant, processes: usize, budget: Budget) -> Self {
        Self { processes, variant, budget }
    }

    /// What a process does by itself; faults and mistakes are not among it.
    fn own_actions(&self, state: &State, process: u8, actions: &mut Vec<Action>) {
        let free = state.lock.is_none();
        match state.step(process) {
            Step::Standby if !state.is_led() => actions.push(Action::Win(process)),
            Step::Standby => {}
            Step::Wanting if self.variant == Variant::LooseEpoch => actions.push(Action::Read(process)),
            Step::Wanting if free => actions.push(Action::Lock(process)),
            Step::Wanting => {
                let stopped = state.lock.filter(|holder| !state.up(*holder));
                let spared = self.variant == Variant::HolderSpared;
                actions.extend(stopped.filter(|_| !spared).map(Action::KillHolder));
            }
            Step::Guessed(_) | Step::Taking => actions.push(Action::TakeEpoch(process)),
            Step::Serving(term) => {
                if term.epoch < state.epoch {
                    actions.push(Action::Hear(process));
                }
                if state.left.writes > 0 {
                    match self.variant {
                        Variant::FenceOutside => actions.push(Action::Look(process)),
                        Variant::Real | Variant::NoFence | Variant::LooseEpoch | Variant::HolderSpared if free => {
                            actions.push(Action::Lock(process));
                        }
                        Variant::Real | Variant::NoFence | Variant::LooseEpoch | Variant::HolderSpared => {}
                    }
                }
            }
            Step::Looked(_) if free => actions.push(Action::Lock(process)),
            Step::Looked(_) => {}
            Step::Opened(_) => actions.push(Action::Check(process)),
            Step::Checked(_) => actions.push(Action::Commit(process)),
            Step::Owing(..) => actions.push(Action::Answer(process)),
        }
    }

    fn faults(state: &State, process: u8, actions: &mut Vec<Action>) {
        let left = &state.left;
        match state.processes[usize::from(process)].life {
            Life::Up => {
                if left.deaths > 0 {
                    actions.push(Action::Die(process));
                }
                if left.stops > 0 {
                    actions.push(Action::Stop(process));
                }
                if left.mistakes > 0 && state.step(process) == Step::Standby && state.is_led() {
                    actions.push(Action::Win(process));
                }
            }
            Life::Stopped => actions.push(Action::Continue(process)),
            Life::Dead if left.restarts > 0 => actions.push(Action::Restart(process)),
            Life::Dead => {}
        }
    }

    /// A look at the epoch, by one that wants to commit.
    fn look(&self, state: &mut State, process: u8, term: Term, fine: Step) {
        let fenced = term.epoch != state.epoch && self.variant != Variant::NoFence;
        if fenced && state.lock == Some(process) {
            state.lock = None;
        }
        state.set(process, if fenced { Step::Standby } else { fine });
    }

    fn perform(&self, state: &mut State, action: Action) {
        match action {
            Action::Die(process) => {
                state.left.deaths -= 1;
                state.end(process, Life::Dead);
            }
            Action::Stop(process) => {
                state.left.stops -= 1;
                state.processes[usize::from(process)].life = Life::Stopped;
            }
            Action::Continue(process) => state.processes[usize::from(process)].life = Life::Up,
            Action::Restart(process) => {
                state.left.restarts -= 1;
                state.end(process, Life::Up);
            }
            Action::Win(process) => {
                if state.is_led() {
                    state.left.mistakes -= 1;
                }
                state.set(process, Step::Wanting);
            }
            Action::KillHolder(holder) => state.end(holder, Life::Dead),
            Action::Hear(process) => state.set(process, Step::Standby),
            Action::Read(process) => state.set(process, Step::Guessed(state.epoch)),
            Action::Lock(process) => Self::lock(state, process),
            Action::TakeEpoch(process) => Self::take_epoch(state, process),
            Action::Look(process) => {
                let Step::Serving(term) = state.step(process) else { return };
                self.look(state, process, term, Step::Looked(term));
            }
            Action::Check(process) => {
                let Step::Opened(term) = state.step(process) else { return };
                self.look(state, process, term, Step::Checked(term));
            }
            Action::Commit(process) => {
                let Step::Checked(Term { epoch, seq }) = state.step(process) else { return };
                state.left.writes = state.left.writes.saturating_sub(1);
                state.commits.push(Commit { seq, writer: process, epoch, newest: state.epoch });
                state.lock = None;
                let index = u8::try_from(state.commits.len() - 1).unwrap();
                state.set(process, Step::Owing(Term { epoch, seq: seq + 1 }, index));
            }
            Action::Answer(process) => {
                let Step::Owing(term, index) = state.step(process) else { return };
                state.answered.push(index);
                state.answered.sort_unstable();
                state.set(process, Step::Serving(term));
            }
        }
    }

    fn lock(state: &mut State, process: u8) {
        state.lock = Some(process);
        let step = match state.step(process) {
            Step::Serving(term) => Step::Opened(term),
            // The look outside was the only one.
            Step::Looked(term) => Step::Checked(term),
            Step::Wanting => Step::Taking,
            // Nobody else asks for the lock.
            other @ (Step::Standby
            | Step::Guessed(_)
            | Step::Taking
            | Step::Opened(_)
            | Step::Checked(_)
            | Step::Owing(..)) => other,
        };
        state.set(process, step);
    }

    fn take_epoch(state: &mut State, process: u8) {
        let before = if let Step::Guessed(epoch) = state.step(process) { epoch } else { state.epoch };
        state.epoch = before + 1;
        if state.lock == Some(process) {
            state.lock = None;
        }
        let seq = state.commits.iter().map(|commit| commit.seq + 1).max().unwrap_or(0);
        state.set(process, Step::Serving(Term { epoch: state.epoch, seq }));
    }
}

impl Model for Host {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let process = Process { life: Life::Up, step: Step::Standby };
        vec![State {
            processes: vec![process; self.processes],
            epoch: 0,
            lock: None,
            commits: Vec::new(),
            answered: Vec::new(),
            left: self.budget,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for process in (0..).take(self.processes) {
            if state.up(process) {
                self.own_actions(state, process, actions);
            }
            Self::faults(state, process, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.perform(&mut next, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_WRITER, |_, state: &State| {
                let pairs = state.commits.iter().flat_map(|a| state.commits.iter().map(move |b| (a, b)));
                pairs.into_iter().all(|(a, b)| a.epoch != b.epoch || a.writer == b.writer)
            }),
            Property::always(DEPOSED, |_, state: &State| {
                state.commits.iter().all(|commit| commit.epoch == commit.newest)
            }),
            Property::always(KEPT, |_, state: &State| {
                state.answered.iter().all(|index| {
                    let after = &state.commits[usize::from(*index)..];
                    after[1..].iter().all(|later| later.seq != after[0].seq)
                })
            }),
            // The space has no cycle that costs nothing, so "never stuck without a primary" is "some time served".
            Property::always(SERVED, |model: &Host, state: &State| {
                let mut own = Vec::new();
                for process in (0..).take(model.processes).filter(|process| state.up(*process)) {
                    model.own_actions(state, process, &mut own);
                }
                let anybody = (0..).take(model.processes).any(|process| state.up(process));
                !own.is_empty() || !anybody || state.has_primary()
            }),
            Property::sometimes("a successor answers", |_, state: &State| {
                let writer = |index: &u8| state.commits[usize::from(*index)].writer;
                state.answered.iter().any(|index| writer(index) != writer(&state.answered[0]))
            }),
            Property::sometimes("a primary wakes up fenced", |_, state: &State| {
                let opened = |step| matches!(step, Step::Opened(term) if term.epoch < state.epoch);
                state.processes.iter().any(|process| process.life == Life::Up && opened(process.step))
            }),
        ]
    }
}

const BUDGET: Budget = Budget { deaths: 1, stops: 2, restarts: 1, mistakes: 2, writes: 3 };

#[test]
fn two_processes_keep_the_fence() {
    holds("election, 2 processes", Host::new(Variant::Real, 2, Budget { deaths: 2, ..BUDGET }));
}

#[test]
fn three_processes_keep_the_fence() {
    holds("election, 3 processes", Host::new(Variant::Real, 3, Budget { mistakes: 1, writes: 2, ..BUDGET }));
}

#[test]
fn without_a_fence_a_deposed_primary_commits() {
    breaks("no fence", Host::new(Variant::NoFence, 2, BUDGET), DEPOSED, 9);
}

#[test]
fn without_a_fence_an_acknowledged_write_is_lost() {
    breaks("no fence", Host::new(Variant::NoFence, 2, BUDGET), KEPT, 13);
}

#[test]
fn a_fence_outside_the_transaction_lets_a_deposed_primary_commit() {
    breaks("fence outside the transaction", Host::new(Variant::FenceOutside, 2, BUDGET), DEPOSED, 9);
}

#[test]
fn a_fence_outside_the_transaction_loses_an_acknowledged_write() {
    breaks("fence outside the transaction", Host::new(Variant::FenceOutside, 2, BUDGET), KEPT, 13);
}

#[test]
fn an_epoch_taken_without_a_transaction_has_two_writers() {
    breaks("epoch taken without a transaction", Host::new(Variant::LooseEpoch, 2, BUDGET), ONE_WRITER, 12);
}

#[test]
fn a_stopped_holder_that_is_spared_leaves_nobody_to_serve() {
    breaks("stopped holder spared", Host::new(Variant::HolderSpared, 2, BUDGET), SERVED, 4);
}
