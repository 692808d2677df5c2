//! Who is there: the siblings of this host, the masters of other hosts, and what is known of every host.
//!
//! Inside a host the kernel tells of deaths and stops; a sibling that is neither, but silent, is slow. A host's relay
//! composes its record, and the records of other hosts reach the siblings through their own relay, so that any process
//! can answer `status` and direct clients.

use std::collections::BTreeMap;

use crate::core::detector::Detector;
use crate::core::election::Standing;
use crate::id::{HostId, ProcessId};
use crate::limits;
use crate::time::{Instant, Now};
use crate::topology::{Role, Topology};
use crate::wire::heartbeat::{Duty, Fitness, Heartbeat, HostView, Life, PrimaryStatus};

/// Whether a process may hold duties, by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Willing {
    /// It may.
    Yes,
    /// It was drained.
    No,
}

/// Another process of this host.
#[derive(Debug)]
pub(crate) struct Sibling {
    pub(crate) life: Life,
    pub(crate) pid: u32,
    pub(crate) willing: Willing,
    /// Last heard, or since when it should have been.
    heard_at: Instant,
    pub(crate) duties: Vec<Duty>,
    run: Option<u64>,
    /// When it came up, to forgive earlier deaths.
    up_at: Instant,
    /// Deaths in a row, for the backoff.
    pub(crate) deaths: u32,
    /// Bytes of the store when the primary first knew it stopped.
    pub(crate) stopped_at: Option<u64>,
}

/// A master of another host, as a master hears it.
#[derive(Debug)]
struct FarMaster {
    detector: Detector,
    duties: Vec<Duty>,
}

/// All that is known of others.
#[derive(Debug)]
pub(crate) struct Mesh {
    me: ProcessId,
    host: HostId,
    pub(crate) willing: Willing,
    pub(crate) siblings: BTreeMap<ProcessId, Sibling>,
    masters: BTreeMap<ProcessId, FarMaster>,
    /// The newest word on each other host.
    pub(crate) views: BTreeMap<HostId, HostView>,
    /// As a relay: how other hosts' relays sound.
    relays: BTreeMap<HostId, Detector>,
    /// As a sibling: what the primary last told of itself.
    pub(crate) primary: Option<(ProcessId, PrimaryStatus)>,
}

/// The places for `serve`: workers, then masters, then connectors; on a host without workers the places for `relay`, so
/// that its relay is the primary of its copy. Among equals the lowest port, then the id.
pub(crate) fn serve_order(topology: &Topology, host: HostId) -> Vec<ProcessId> {
    let Some(spec) = topology.host(host) else { return Vec::new() };
    if spec.processes.iter().all(|process| process.role != Role::Worker) {
        return relay_order(topology, host);
    }
    let rank = |role| match role {
        Role::Worker => 0,
        Role::Master => 1,
        Role::Connector => 2,
    };
    let mut order: Vec<_> = spec.processes.iter().map(|p| (rank(p.role), p.addr.port(), p.id)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, _, id)| id).collect()
}

/// The places for `relay`: connectors from the lowest port up, then the others from the highest port down.
pub(crate) fn relay_order(topology: &Topology, host: HostId) -> Vec<ProcessId> {
    let Some(spec) = topology.host(host) else { return Vec::new() };
    let key = |role, port: u16| match role {
        Role::Connector => (0, port),
        Role::Master | Role::Worker => (1, u16::MAX - port),
    };
    let mut order: Vec<_> = spec.processes.iter().map(|p| (key(p.role, p.addr.port()), p.id)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, id)| id).collect()
}

/// The places for `direct`: all masters of the cluster; in a cluster without masters, the processes of this host.
pub(crate) fn direct_order(topology: &Topology, host: HostId) -> Vec<ProcessId> {
    let mut order: Vec<_> = topology
        .processes()
        .filter(|p| if topology.has_masters() { p.role == Role::Master } else { p.host == host })
        .map(|p| (p.addr.port(), p.id))
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, id)| id).collect()
}

impl Mesh {
    /// Nothing is known but the topology.
    pub(crate) fn new(topology: &Topology, me: ProcessId, host: HostId, now: Instant) -> Self {
        let sibling = || Sibling {
            life: Life::Dead,
            pid: 0,
            willing: Willing::Yes,
            heard_at: now,
            duties: Vec::new(),
            run: None,
            up_at: now,
            deaths: 0,
            stopped_at: None,
        };
        let siblings = topology.host(host).map(|spec| spec.processes.as_slice()).unwrap_or_default();
        let siblings = siblings.iter().filter(|p| p.id != me).map(|p| (p.id, sibling())).collect();
        Self {
            me,
            host,
            willing: Willing::Yes,
            siblings,
            masters: BTreeMap::new(),
            views: BTreeMap::new(),
            relays: BTreeMap::new(),
            primary: None,
        }
    }

    /// What a candidate is worth in an election.
    pub(crate) fn standing(&self, now: Instant, process: ProcessId) -> Standing {
        if self.is_willing(process) { self.ability(now, process) } else { Standing::Gone }
    }

    /// Whether a process would take a duty; of other hosts' processes that is not known.
    fn is_willing(&self, process: ProcessId) -> bool {
        let word = self.siblings.get(&process).map(|sibling| sibling.willing);
        (if process == self.me { self.willing } else { word.unwrap_or(Willing::Yes) }) == Willing::Yes
    }

    /// What a candidate would be worth if it were willing.
    pub(crate) fn ability(&self, now: Instant, process: ProcessId) -> Standing {
        if process == self.me {
            return Standing::Fit;
        }
        if let Some(sibling) = self.siblings.get(&process) {
            let silent = now >= sibling.heard_at + limits::SIBLING_SILENCE;
            return match sibling.life {
                Life::Dead | Life::Left => Standing::Gone,
                Life::Stopped => Standing::Suspect,
                Life::Up if silent => Standing::Suspect,
                Life::Up => Standing::Fit,
            };
        }
        match self.masters.get(&process) {
            Some(master) if !master.detector.suspects(now) => Standing::Fit,
            Some(_) | None => Standing::Gone,
        }
    }

    /// Whether this is a sibling that the kernel does not show, or not yet.
    pub(crate) fn is_down(&self, process: ProcessId) -> bool {
        self.siblings.get(&process).is_some_and(|sibling| matches!(sibling.life, Life::Dead | Life::Left))
    }

    /// Whether a sibling lives and would rather have no duty.
    pub(crate) fn is_drained(&self, process: ProcessId) -> bool {
        process != self.me && !self.is_willing(process)
    }

    /// Siblings that can be talked to.
    pub(crate) fn living(&self) -> impl Iterator<Item = ProcessId> + '_ {
        let lives = |sibling: &Sibling| matches!(sibling.life, Life::Up | Life::Stopped);
        self.siblings.iter().filter(move |(_, sibling)| lives(sibling)).map(|(id, _)| *id)
    }

    /// The kernel tells of a sibling. Returns whether it is gone now.
    pub(crate) fn on_life(&mut self, now: Now, process: ProcessId, life: Life, pid: u32) -> Gone {
        let Some(sibling) = self.siblings.get_mut(&process) else { return Gone::No };
        let restarted = pid != 0 && sibling.pid != 0 && pid != sibling.pid;
        let was = std::mem::replace(&mut sibling.life, life);
        sibling.pid = pid;
        if life != Life::Stopped {
            sibling.stopped_at = None;
        }
        // That it was drained holds for the run that said so, however the next one is first seen.
        if restarted || matches!(life, Life::Dead | Life::Left) {
            sibling.willing = Willing::Yes;
        }
        match life {
            Life::Up => {
                sibling.heard_at = now.mono;
                // One that was stopped, or is shown once more, is what it was.
                if restarted || matches!(was, Life::Dead | Life::Left) {
                    sibling.up_at = now.mono;
                    sibling.duties.clear();
                }
            }
            Life::Stopped => {}
            Life::Dead | Life::Left => {
                sibling.duties.clear();
                sibling.run = None;
                if now.mono.since(sibling.up_at) >= limits::RESTART_FORGIVEN {
                    sibling.deaths = 0;
                }
            }
        }
        if restarted || matches!(life, Life::Dead | Life::Left) { Gone::Yes } else { Gone::No }
    }

    /// Whether this run of a process is another one than before.
    pub(crate) fn on_run(&mut self, process: ProcessId, run: u64) -> Gone {
        let Some(sibling) = self.siblings.get_mut(&process) else { return Gone::No };
        let before = sibling.run.replace(run);
        if before.is_some_and(|before| before != run) { Gone::Yes } else { Gone::No }
    }

    /// A sibling or a far master is heard.
    pub(crate) fn on_heartbeat(&mut self, now: Instant, from: ProcessId, heartbeat: &Heartbeat) {
        if let Some(sibling) = self.siblings.get_mut(&from) {
            sibling.heard_at = now;
            sibling.duties.clone_from(&heartbeat.duties);
            if let Some(primary) = &heartbeat.primary {
                self.on_primary(from, primary.clone());
            }
        } else {
            let master = self.far_master(now, from);
            master.detector.on_heard(now);
            master.duties.clone_from(&heartbeat.duties);
        }
    }

    /// A master of another host said something on a stream: it lives, whether its heartbeats have come yet or not. A
    /// claim of one that counts as dead would be answered with a claim, for ever.
    pub(crate) fn on_far_master(&mut self, now: Instant, from: ProcessId) {
        self.far_master(now, from).detector.on_sign_of_life(now);
    }

    fn far_master(&mut self, now: Instant, from: ProcessId) -> &mut FarMaster {
        let fresh = || FarMaster { detector: Detector::new(now, limits::HEARTBEAT_MASTERS), duties: Vec::new() };
        self.masters.entry(from).or_insert_with(fresh)
    }

    /// A primary of this host tells of itself.
    pub(crate) fn on_primary(&mut self, from: ProcessId, status: PrimaryStatus) {
        if self.primary.as_ref().is_none_or(|(_, known)| status.epoch >= known.epoch) {
            self.primary = Some((from, status));
        }
    }

    /// A word on another host: from its own relay, or, `trusted`, from this host's.
    pub(crate) fn on_view(&mut self, view: HostView, source: ViewSource) -> Changed {
        if view.record.host == self.host {
            return Changed::No;
        }
        match self.views.get_mut(&view.record.host) {
            None => {
                self.views.insert(view.record.host, view);
                Changed::Yes
            }
            Some(known) => {
                let newer = view.record.version > known.record.version;
                let same = view.record.version == known.record.version;
                let up = source != ViewSource::OwnRelay || view.up;
                let judged = same && source == ViewSource::OwnRelay;
                if !newer && !judged {
                    return Changed::No;
                }
                let changed = known.up != up || routing(&known.record) != routing(&view.record);
                *known = HostView { record: view.record, up };
                if changed { Changed::Yes } else { Changed::No }
            }
        }
    }

    /// As a relay: another host's relay is heard.
    pub(crate) fn on_far_relay(&mut self, now: Instant, host: HostId) -> Changed {
        let detector = self.relays.entry(host).or_insert_with(|| Detector::new(now, limits::HEARTBEAT_RELAYS));
        detector.on_heard(now);
        self.set_up(host, Up::Yes)
    }

    fn set_up(&mut self, host: HostId, up: Up) -> Changed {
        match self.views.get_mut(&host) {
            Some(view) if view.up != (up == Up::Yes) => {
                view.up = up == Up::Yes;
                Changed::Yes
            }
            Some(_) | None => Changed::No,
        }
    }

    /// As a new relay: every other host gets its full patience from now on.
    pub(crate) fn on_relay_begins(&mut self, now: Instant, others: impl Iterator<Item = HostId>) {
        self.relays = others.map(|host| (host, Detector::new(now, limits::HEARTBEAT_RELAYS))).collect();
    }

    /// No relay any more: silence of other hosts is somebody else's to judge.
    pub(crate) fn on_relay_ends(&mut self) {
        self.relays.clear();
    }

    /// This process itself was stopped or starved: what seems silent had no chance to be heard.
    pub(crate) fn on_own_pause(&mut self, now: Instant) {
        for sibling in self.siblings.values_mut() {
            sibling.heard_at = now;
        }
        let far = self.masters.values_mut().map(|master| &mut master.detector);
        for detector in far.chain(self.relays.values_mut()) {
            detector.on_own_pause(now);
        }
    }

    /// As a relay: the hosts that have just become silent.
    pub(crate) fn silent_hosts(&mut self, now: Instant) -> Vec<HostId> {
        let silent: Vec<HostId> =
            self.relays.iter().filter(|(_, detector)| detector.suspects(now)).map(|(host, _)| *host).collect();
        silent.into_iter().filter(|host| self.set_up(*host, Up::No) == Changed::Yes).collect()
    }

    /// When the next silence becomes suspicious: of a host's relay, or of a sibling.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let hosts = self.relays.iter().filter(|(host, _)| self.views.get(host).is_some_and(|view| view.up));
        let hosts = hosts.map(|(_, detector)| detector.suspect_at());
        let siblings = self.siblings.values().filter(|sibling| sibling.life == Life::Up);
        let siblings = siblings.map(|sibling| sibling.heard_at + limits::SIBLING_SILENCE);
        let masters = self.masters.values().map(|master| master.detector.suspect_at());
        hosts.chain(siblings.chain(masters).filter(|at| *at > now)).min()
    }

    /// Who directs, as far as heartbeats and views tell.
    pub(crate) fn director(&self, now: Instant) -> Option<ProcessId> {
        let near = self.siblings.iter().filter(|(id, _)| self.ability(now, **id) == Standing::Fit);
        let near = near.filter(|(_, sibling)| sibling.duties.contains(&Duty::Direct)).map(|(id, _)| *id);
        let far = self.views.values().filter(|view| view.up).filter_map(|view| view.record.directing);
        // One that was drained directs if nobody else does, or did so until a moment ago.
        let (willing, drained): (Vec<_>, Vec<_>) = near.partition(|id| self.is_willing(*id));
        willing.into_iter().chain(far).chain(drained).next()
    }
}

/// What clients and relays steer by.
pub(crate) fn routing(
    record: &crate::wire::heartbeat::HostRecord,
) -> (Option<ProcessId>, Option<ProcessId>, Option<ProcessId>, crate::id::Epoch, Fitness) {
    (record.serving, record.relaying, record.directing, record.epoch, record.fitness)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Up {
    Yes,
    No,
}

/// Whether a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It did.
    Yes,
    /// It did not.
    No,
}

/// Whether what others steer by has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    /// It has.
    Yes,
    /// It has not.
    No,
}

/// Who tells of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ViewSource {
    /// A process of that host: it is up.
    Itself,
    /// This host's relay: it also says whether that host is up.
    OwnRelay,
}
