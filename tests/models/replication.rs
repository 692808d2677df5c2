//! Two or three hosts: what an acknowledgement, an answer and the name of an entry mean (P1, P3, P5, and what DESIGN
//! says of what is shown and of incarnations), while hosts lose power, disks and processes.
//!
//! | action | code |
//! |---|---|
//! | `Write` | `Primary::write` gives `Output::Persist` out; the store's transaction is open, not synced |
//! | `Sync` | the transaction's sync; `Primary::on_committed` and `Sink::on_persisted` |
//! | `Refuse` | the disk is full: `Primary::on_full`, nothing was stored |
//! | `Send` | `Source::pump` reads the log and sends a `Batch`: its own entries, and others that are lacked |
//! | `Deliver` | `Sink::on_batch`, `ledger::commit` of a `Write::Run` |
//! | `Held` | `Held` reaches the relay and `Copies` its primary: `Primary::on_copies` |
//! | `Miss` | `COPIES_WAIT` is over: `Primary::on_copies_missed` |
//! | `Recalled` | `Node::on_recall` there, `Node::on_recalled` here |
//! | `Settle` | `Node::settle_incarnation`, all having answered or `RECALL_WAIT` being over |
//! | `TakeOver` | the primary's process dies and a sibling takes the next epoch (`Node::on_epoch_taken`) |
//! | `Crash`, `Start` | all processes of the host die; the first of them serves again |
//! | `Lose` | the disk is empty |
//! | `Restore` | an operator puts a backup back, with the command that says so: a new incarnation is due |
//! | `RollBack` | an old state of the disk comes back and nobody is told (a snapshot of a virtual machine) |
//!
//! A `Batch` stays in flight until the process that it is for ends: so it is lost, late, overtaken or taken twice in
//! some run. An answer (`Held`, `Recalled`) is one step, since an older one says less of the same. Inside a host,
//! processes are one: the fence is the other model's. A write is acknowledged, as in the code, in the same step that
//! finds its copies.

mod promises;

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

/// How the protocol is broken, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Real,
    /// A write is taken for durable before its sync.
    AcknowledgeEarly,
    /// A receiver says that it holds what it has not synced.
    HeldEarly,
    /// A relay sends what its host has not synced.
    ServeEarly,
    /// Whatever is committed here is shown.
    ShowEarly,
    /// A host has one origin for ever.
    OneIncarnation,
    /// Nobody is asked at a cold start.
    NoRecall,
    /// A restored backup is started as if nothing had happened.
    RestoreUntold,
    /// Siblings think the incarnation settled when the new one is asked for, not when it is stored.
    WarmEarly,
    /// A new incarnation that finds the disk full is forgotten.
    BeginForgotten,
}

type HostNo = u8;
/// A host and its incarnation: `host * 8 + incarnation`.
type Origin = u8;
type Name = (Origin, u8);
type Vector = BTreeMap<Origin, u8>;

fn host_of(origin: Origin) -> HostNo {
    origin / 8
}

fn held(vector: &Vector, origin: Origin) -> u8 {
    vector.get(&origin).copied().unwrap_or(0)
}

fn names(vector: &Vector) -> impl Iterator<Item = Name> {
    vector.iter().flat_map(|(origin, last)| (1..=*last).map(|seq| (*origin, seq)))
}

fn raise(vector: &mut Vector, (origin, seq): Name) {
    if held(vector, origin) < seq {
        vector.insert(origin, seq);
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Disk {
    origin: Option<Origin>,
    /// What each entry says, a different number for each write that anybody made.
    logs: BTreeMap<Origin, Vec<u8>>,
}

impl Disk {
    fn vector(&self) -> Vector {
        self.logs.iter().map(|(origin, log)| (*origin, u8::try_from(log.len()).unwrap())).collect()
    }

    fn held(&self, origin: Origin) -> u8 {
        self.logs.get(&origin).map_or(0, |log| u8::try_from(log.len()).unwrap())
    }

    fn value(&self, (origin, seq): Name) -> Option<u8> {
        self.logs.get(&origin)?.get(usize::from(seq) - 1).copied()
    }

    /// `ledger::commit` of one write. Returns the name of the entry that is new.
    fn commit(&mut self, write: Write) -> Option<Name> {
        let (origin, value) = match write {
            Write::Begin(origin) => {
                self.origin = Some(origin);
                return None;
            }
            Write::Request(value) => (self.origin?, value),
            Write::Run((origin, seq), value) if self.held(origin) + 1 == seq => (origin, value),
            Write::Run(..) => return None,
        };
        self.logs.entry(origin).or_default().push(value);
        Some((origin, self.held(origin)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Write {
    Request(u8),
    Run(Name, u8),
    Begin(Origin),
}

/// What a primary keeps in memory (`core::primary`, `core::copies`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Term {
    /// Who has answered, and whether one of them holds more of this host's origin; none once it is settled.
    recall: Option<BTreeMap<HostNo, Vector>>,
    others: BTreeMap<HostNo, Vector>,
    forced: Vector,
    shown: Vector,
    missed: Option<Name>,
    owed: BTreeSet<Name>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Host {
    disk: Disk,
    /// The disk as it was before the last write: the backup.
    backup: Disk,
    /// In the transaction that is open.
    unsynced: Option<Write>,
    /// None while the host is down.
    term: Option<Term>,
    /// Whether its processes know that the incarnation is settled.
    warm: Warm,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Warm {
    #[default]
    No,
    Yes,
}

/// How much may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Budget {
    writes: u8,
    /// Crashes, takeovers, and writes refused for want of room.
    faults: u8,
    /// Disks lost, restored or rolled back.
    disks: u8,
    misses: u8,
}

/// What the checker remembers and no host knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct History {
    /// Every entry that a disk ever held.
    entries: BTreeMap<Name, u8>,
    /// Two different entries had this name.
    clash: Option<Name>,
    /// With how many copies a write was acknowledged at most.
    acknowledged: BTreeMap<Name, u8>,
    /// Entries shown by a primary whose level was out of reach: whatever its host held then.
    missed: BTreeSet<Name>,
    incarnations: BTreeMap<HostNo, u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    hosts: Vec<Host>,
    /// Batches of one entry: to whom, what.
    flying: BTreeSet<(HostNo, Name, u8)>,
    history: History,
    left: Budget,
    disks_lost: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Write(HostNo),
    Sync(HostNo),
    Refuse(HostNo),
    Send { from: HostNo, to: HostNo, name: Name },
    Deliver { to: HostNo, name: Name, value: u8 },
    Held { from: HostNo, to: HostNo },
    Miss(HostNo),
    Recalled { from: HostNo, to: HostNo },
    Settle(HostNo),
    TakeOver(HostNo),
    Crash(HostNo),
    Start(HostNo),
    Lose(HostNo),
    Restore(HostNo),
    RollBack(HostNo),
}

#[derive(Clone, Debug)]
struct Cluster {
    hosts: u8,
    /// Clients write at the first of the hosts only.
    writers: u8,
    variant: Variant,
    /// Copies that the level asks for.
    need: usize,
    budget: Budget,
}

impl Term {
    /// `Copies::count`.
    fn count(&self, me: HostNo, own: &Vector, (origin, seq): Name) -> usize {
        let holds = |vector: &Vector| held(vector, origin) >= seq;
        let others = self.others.values().filter(|vector| holds(vector)).count();
        let origin_holds = host_of(origin) == me || self.others.get(&host_of(origin)).is_some_and(holds);
        usize::from(holds(own)) + others + usize::from(!origin_holds)
    }

    /// `Copies::reckon`.
    fn reckon(&mut self, me: HostNo, own: &Vector, need: usize) {
        for (origin, last) in own {
            let enough = |seq: &u8| self.missed.is_some() || self.count(me, own, (*origin, *seq)) >= need;
            let seq = (1..=*last).rev().find(enough).unwrap_or(0);
            let forced = held(&self.forced, *origin);
            raise(&mut self.shown, (*origin, seq.max(forced).min(*last)));
        }
    }
}

impl State {
    fn host(&mut self, host: HostNo) -> &mut Host {
        &mut self.hosts[usize::from(host)]
    }

    /// The process that served is gone: its transaction is rolled back, and what was on its way to it is lost.
    fn end(&mut self, host: HostNo) {
        self.flying.retain(|(to, ..)| *to != host);
        let host = self.host(host);
        host.unsynced = None;
        host.term = None;
    }

    /// `Node::on_epoch_taken`.
    fn begin_term(&mut self, host: HostNo, need: usize) {
        let Host { disk, term, warm, .. } = self.host(host);
        let mut fresh = Term { recall: (*warm == Warm::No).then(BTreeMap::new), ..Term::default() };
        fresh.reckon(host, &disk.vector(), need);
        *term = Some(fresh);
    }

    fn note(&mut self, name: Name, value: u8) {
        if *self.history.entries.entry(name).or_insert(value) != value {
            self.history.clash = Some(name);
        }
    }

    fn disks_with(&self, name: Name) -> usize {
        let value = self.history.entries.get(&name);
        self.hosts.iter().filter(|host| value.is_some() && host.disk.value(name).as_ref() == value).count()
    }
}

impl Cluster {
    /// What a primary takes for its host's own: the disk, or (broken) also what is not synced yet.
    fn own(&self, host: &Host) -> Vector {
        let mut disk = host.disk.clone();
        if self.variant == Variant::AcknowledgeEarly {
            host.unsynced.and_then(|write| disk.commit(write));
        }
        disk.vector()
    }

    /// Acknowledges what has its copies, and shows what may be shown. Called wherever more is known.
    fn on_copies(&self, state: &mut State, me: HostNo) {
        let own = self.own(&state.hosts[usize::from(me)]);
        let need = self.need;
        let Some(term) = &mut state.hosts[usize::from(me)].term else { return };
        term.missed = term.missed.filter(|name| term.count(me, &own, *name) < need);
        term.reckon(me, &own, if self.variant == Variant::ShowEarly { 1 } else { need });
        if term.missed.is_some() {
            state.history.missed.extend(names(&own));
        }
        for name in std::mem::take(&mut term.owed) {
            let count = term.count(me, &own, name);
            if count < need && term.missed.is_none() {
                term.owed.insert(name);
                continue;
            }
            raise(&mut term.forced, name);
            raise(&mut term.shown, name);
            let most = state.history.acknowledged.entry(name).or_default();
            *most = (*most).max(u8::try_from(count).unwrap());
        }
    }

    fn sync(&self, state: &mut State, me: HostNo) {
        let host = state.host(me);
        let Some(write) = host.unsynced.take() else { return };
        if let Write::Request(_) = write {
            host.backup = host.disk.clone();
        }
        let new = host.disk.commit(write);
        match write {
            Write::Begin(_) => host.warm = Warm::Yes,
            Write::Request(value) | Write::Run(_, value) => {
                if let (Some(name), Some(term)) = (new, &mut host.term) {
                    if matches!(write, Write::Request(_)) && self.variant != Variant::AcknowledgeEarly {
                        term.owed.insert(name);
                    }
                    state.note(name, value);
                }
            }
        }
        self.on_copies(state, me);
    }

    /// The disk is full: a write is handed back; a new incarnation is tried again when there is room.
    fn refuse(&self, state: &mut State, me: HostNo) {
        state.left.faults -= 1;
        let host = state.host(me);
        let write = host.unsynced.take();
        if let (Some(Write::Begin(_)), Variant::BeginForgotten) = (write, self.variant) {
            host.warm = Warm::Yes;
        } else {
            host.unsynced = write.filter(|write| matches!(write, Write::Begin(_)));
        }
    }

    fn write(&self, state: &mut State, me: HostNo) {
        let value = self.budget.writes - state.left.writes + 1;
        state.left.writes -= 1;
        let host = state.host(me);
        host.unsynced = Some(Write::Request(value));
        if self.variant == Variant::AcknowledgeEarly {
            let name = host.disk.clone().commit(Write::Request(value));
            if let (Some(term), Some(name)) = (&mut host.term, name) {
                term.owed.insert(name);
            }
            self.on_copies(state, me);
        }
    }

    fn miss(&self, state: &mut State, me: HostNo) {
        state.left.misses -= 1;
        let own = self.own(state.host(me));
        let Host { disk, term, .. } = state.host(me);
        let (Some(origin), Some(term)) = (disk.origin, term) else { return };
        let newest = (origin, held(&own, origin));
        term.missed = Some(newest);
        raise(&mut term.forced, newest);
        raise(&mut term.shown, newest);
        self.on_copies(state, me);
    }

    fn settle(&self, state: &mut State, me: HostNo) {
        let others = usize::from(self.hosts) - 1;
        let incarnation = state.history.incarnations.entry(me).or_default();
        let fresh = me * 8 + if self.variant == Variant::OneIncarnation { 0 } else { *incarnation };
        let host = &mut state.hosts[usize::from(me)];
        let Some(term) = &mut host.term else { return };
        let answers = term.recall.take();
        let begin = match (host.disk.origin, answers) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(_), Some(_)) if matches!(self.variant, Variant::NoRecall | Variant::OneIncarnation) => false,
            (Some(origin), Some(answers)) => {
                let more = |answer: &Vector| held(answer, origin) > host.disk.held(origin);
                answers.len() < others || answers.values().any(more)
            }
        };
        if begin {
            *incarnation += 1;
            host.unsynced = Some(Write::Begin(fresh));
        }
        if !begin || self.variant == Variant::WarmEarly {
            host.warm = Warm::Yes;
        }
    }

    fn replace_disk(state: &mut State, me: HostNo, disk: Disk) {
        state.left.disks -= 1;
        state.disks_lost += 1;
        let host = state.host(me);
        host.backup = disk.clone();
        host.disk = disk;
    }

    /// The backup, as the command that restores it leaves the disk: the next primary begins a new incarnation.
    fn restored(&self, host: &Host) -> Disk {
        match self.variant {
            Variant::RestoreUntold | Variant::OneIncarnation => host.backup.clone(),
            Variant::Real
            | Variant::AcknowledgeEarly
            | Variant::HeldEarly
            | Variant::ServeEarly
            | Variant::ShowEarly
            | Variant::NoRecall
            | Variant::WarmEarly
            | Variant::BeginForgotten => Disk { origin: None, ..host.backup.clone() },
        }
    }

    /// Whether another disk holds whatever the backup lacks.
    fn is_elsewhere(state: &State, me: HostNo) -> bool {
        let host = &state.hosts[usize::from(me)];
        let lacked = names(&host.disk.vector()).filter(|name| host.backup.value(*name).is_none()).collect::<Vec<_>>();
        lacked.into_iter().all(|name| state.disks_with(name) > 1)
    }

    fn down_actions(state: &State, me: HostNo, actions: &mut Vec<Action>) {
        actions.push(Action::Start(me));
        let host = &state.hosts[usize::from(me)];
        if state.left.disks > 0 && host.disk != Disk::default() {
            actions.extend([Action::Lose(me), Action::Restore(me)]);
            if Self::is_elsewhere(state, me) {
                actions.push(Action::RollBack(me));
            }
        }
    }

    fn up_actions(&self, state: &State, me: HostNo, term: &Term, actions: &mut Vec<Action>) {
        let host = &state.hosts[usize::from(me)];
        let settled = term.recall.is_none();
        match host.unsynced {
            Some(_) => actions.push(Action::Sync(me)),
            None if !settled => actions.push(Action::Settle(me)),
            None if host.disk.origin.is_none() => actions.push(Action::Settle(me)),
            None if state.left.writes > 0 && me < self.writers => actions.push(Action::Write(me)),
            None => {}
        }
        if state.left.faults > 0 {
            actions.extend([Action::TakeOver(me), Action::Crash(me)]);
            actions.extend(host.unsynced.map(|_| Action::Refuse(me)));
        }
        let newest = host.disk.origin.map(|origin| (origin, host.disk.held(origin)));
        let unshown = newest.is_some_and(|(origin, seq)| seq > held(&term.shown, origin));
        if state.left.misses > 0 && (unshown || !term.owed.is_empty()) {
            actions.push(Action::Miss(me));
        }
        for (to, name, value) in state.flying.iter().filter(|(to, ..)| *to == me) {
            let next = host.disk.held(name.0) + 1 == name.1;
            if settled && next && host.unsynced.is_none() {
                actions.push(Action::Deliver { to: *to, name: *name, value: *value });
            }
        }
    }

    fn pair_actions(&self, state: &State, from: HostNo, to: HostNo, actions: &mut Vec<Action>) {
        let (sender, receiver) = (&state.hosts[usize::from(from)], &state.hosts[usize::from(to)]);
        let (Some(_), Some(term)) = (&sender.term, &receiver.term) else { return };
        let vector = self.told(sender);
        if term.recall.as_ref().is_some_and(|answers| answers.get(&from) != Some(&vector)) {
            actions.push(Action::Recalled { from, to });
        }
        let settled = sender.term.as_ref().is_some_and(|term| term.recall.is_none());
        if settled && term.recall.is_none() && term.others.get(&from) != Some(&vector) {
            actions.push(Action::Held { from, to });
        }
        let readable = self.readable(sender);
        for name in names(&readable.vector()).filter(|(origin, seq)| *seq > receiver.disk.held(*origin)) {
            let batch = (to, name, readable.value(name).unwrap());
            if !state.flying.contains(&batch) {
                actions.push(Action::Send { from, to, name });
            }
        }
    }

    /// What a host says that it holds.
    fn told(&self, host: &Host) -> Vector {
        let mut disk = host.disk.clone();
        if self.variant == Variant::HeldEarly {
            host.unsynced.and_then(|write| disk.commit(write));
        }
        disk.vector()
    }

    /// What a relay reads.
    fn readable(&self, host: &Host) -> Disk {
        let mut disk = host.disk.clone();
        if self.variant == Variant::ServeEarly {
            host.unsynced.and_then(|write| disk.commit(write));
        }
        disk
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        // The hosts have begun their first incarnations and serve.
        let mut hosts = Vec::new();
        for host in 0..self.hosts {
            let disk = Disk { origin: Some(host * 8), ..Disk::default() };
            let term = Some(Term::default());
            hosts.push(Host { backup: disk.clone(), disk, unsynced: None, term, warm: Warm::Yes });
        }
        let incarnations = (0..self.hosts).map(|host| (host, 1)).collect();
        let history = History { incarnations, ..History::default() };
        vec![State { hosts, flying: BTreeSet::new(), history, left: self.budget, disks_lost: 0 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for me in 0..self.hosts {
            match &state.hosts[usize::from(me)].term {
                None => Self::down_actions(state, me, actions),
                Some(term) => self.up_actions(state, me, term, actions),
            }
            for other in (0..self.hosts).filter(|other| *other != me) {
                self.pair_actions(state, me, other, actions);
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Write(me) => self.write(&mut next, me),
            Action::Sync(me) => self.sync(&mut next, me),
            Action::Refuse(me) => self.refuse(&mut next, me),
            Action::Send { from, to, name } => {
                let value = self.readable(&state.hosts[usize::from(from)]).value(name)?;
                next.flying.insert((to, name, value));
            }
            Action::Deliver { to, name, value } => next.host(to).unsynced = Some(Write::Run(name, value)),
            Action::Held { from, to } => {
                let vector = self.told(next.host(from));
                next.host(to).term.as_mut()?.others.insert(from, vector);
                self.on_copies(&mut next, to);
            }
            Action::Miss(me) => self.miss(&mut next, me),
            Action::Recalled { from, to } => {
                let vector = self.told(next.host(from));
                let term = next.host(to).term.as_mut()?;
                term.others.insert(from, vector.clone());
                term.recall.as_mut()?.insert(from, vector);
                self.on_copies(&mut next, to);
            }
            Action::Settle(me) => self.settle(&mut next, me),
            Action::TakeOver(me) => {
                next.left.faults -= 1;
                next.end(me);
                next.begin_term(me, self.need);
            }
            Action::Crash(me) => {
                next.left.faults -= 1;
                next.end(me);
                next.host(me).warm = Warm::No;
            }
            Action::Start(me) => next.begin_term(me, self.need),
            Action::Lose(me) => Self::replace_disk(&mut next, me, Disk::default()),
            Action::Restore(me) => Self::replace_disk(&mut next, me, self.restored(&state.hosts[usize::from(me)])),
            Action::RollBack(me) => {
                Self::replace_disk(&mut next, me, state.hosts[usize::from(me)].backup.clone());
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = promises::promises();
        properties.extend(promises::possibilities());
        properties
    }
}
