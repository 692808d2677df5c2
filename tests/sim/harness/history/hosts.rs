//! What hosts commit, hold, acknowledge and lose.

use std::collections::{BTreeMap, BTreeSet};

use gaggle::id::{Digest, EntryId, Epoch, Origin, RequestId, Seq, Vector};
use gaggle::service::entry::{Entry, Op};
use gaggle::service::ledger::Standing;
use gaggle::service::retired::Retirement;
use gaggle::topology::AckLevel;
use gaggle::wire::client::{Response, ServerFrame};

use super::{History, Promise, Session, Verdict, never};

/// So long after a chunk of a snapshot a host's vector does not tell what it holds, in microseconds.
const FUZZY: u64 = 3_000_000;

/// So long after all was well a write that had waited for its copies until then has been answered, in microseconds.
const SOUND_AFTER: u64 = 1_000_000;

/// A process in one of its lives.
pub(crate) type Writer = (usize, u32);

/// Rows of a snapshot in a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotRows {
    /// Some of them, without the vector that tells of them.
    Some,
    /// The last, with the vector.
    Last,
}

/// What is known of one host's disk.
#[derive(Debug, Default, Clone)]
pub(crate) struct Facts {
    standing: Option<Standing>,
    /// Who took each epoch.
    takers: BTreeMap<Epoch, Writer>,
    /// Until then rows of a snapshot may be in whose vector is not: two relays may send one at a time.
    fuzzy_until: u64,
    /// A snapshot was adopted: the log does not hold all that is held.
    adopted: bool,
    held_posts: BTreeSet<RequestId>,
}

impl Facts {
    /// What a backup of it holds.
    pub(crate) fn backup(&self) -> Self {
        Self { takers: BTreeMap::new(), ..self.clone() }
    }

    fn vector(&self) -> Vector {
        self.standing.as_ref().map(|standing| standing.vector.clone()).unwrap_or_default()
    }

    pub(super) fn holds(&self, entry: EntryId) -> bool {
        self.standing.as_ref().is_some_and(|standing| standing.vector.holds(entry))
    }
}

/// What was lost so far.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// The only host that loses anything.
    pub(crate) host: usize,
    /// What the lost disks held.
    held: Vector,
    /// Held by no disk after a loss.
    gone: BTreeSet<EntryId>,
    /// When each entry was first durable.
    made_at: BTreeMap<EntryId, u64>,
    /// Origins of which an entry was acknowledged with one copy.
    thin: BTreeSet<Origin>,
}

impl History {
    /// An epoch was taken, durably.
    pub(crate) fn on_taken(&mut self, host: usize, writer: Writer, epoch: Epoch) -> Verdict {
        let taker = *self.hosts[host].takers.entry(epoch).or_insert(writer);
        never(taker != writer, Promise::P6, || {
            format!("host {host}: {writer:?} takes {epoch:?}, which {taker:?} had taken")
        })
    }

    /// P6: under an epoch commits only who took it, and nobody once a newer one was taken.
    pub(crate) fn on_commit(&mut self, host: usize, writer: Writer, epoch: Epoch) -> Verdict {
        let takers = &self.hosts[host].takers;
        let taker = takers.get(&epoch).copied();
        never(taker != Some(writer), Promise::P6, || {
            format!("host {host}: {writer:?} commits under {epoch:?}, which {taker:?} took")
        })?;
        let newest = takers.last_key_value().map(|(newest, _)| *newest);
        never(newest != Some(epoch), Promise::P6, || {
            format!("host {host}: {writer:?} commits under {epoch:?}, deposed by {newest:?}")
        })
    }

    /// A commit is durable. Its new entries are told next ([`Self::on_entries`]).
    pub(crate) fn on_durable(
        &mut self,
        host: usize,
        standing: &Standing,
        rows: Option<SnapshotRows>,
        clock: u64,
    ) -> Verdict {
        let facts = &mut self.hosts[host];
        if rows.is_some() {
            (facts.fuzzy_until, facts.adopted) = (clock + FUZZY, true);
        }
        if let Some(before) = facts.standing.replace(standing.clone()) {
            let falls = standing.epoch < before.epoch || standing.hlc < before.hlc || standing.entries < before.entries;
            never(falls || !standing.vector.covers(&before.vector), Promise::Rules, || {
                format!("host {host}: the state falls from {before:?} to {standing:?}")
            })?;
        }
        self.compare_digests(host, standing, clock)
    }

    /// P5: hosts that hold the same entries hold the same state.
    fn compare_digests(&self, host: usize, standing: &Standing, clock: u64) -> Verdict {
        if self.hosts[host].fuzzy_until > clock {
            return Ok(());
        }
        let others = self.hosts.iter().enumerate();
        let others = others.filter(|(other, facts)| *other != host && facts.fuzzy_until <= clock);
        let differing: Option<(usize, Digest)> = others
            .filter_map(|(other, facts)| facts.standing.as_ref().map(|standing| (other, standing)))
            .find(|(_, other)| other.vector == standing.vector && other.digest != standing.digest)
            .map(|(other, found)| (other, found.digest));
        let Some((other, digest)) = differing else { return Ok(()) };
        never(true, Promise::P5, || {
            let Standing { vector, digest: ours, .. } = standing;
            format!("hosts {host} and {other} hold {vector:?}, with digests {ours:?} and {digest:?}")
        })
    }

    /// What a commit brought to a host's log.
    pub(crate) fn on_entries(&mut self, host: usize, entries: &[Entry], clock: u64) -> Verdict {
        let mut posts = Vec::new();
        for entry in entries {
            // One name, one entry: whatever was lost, no seq is taken twice.
            let known = self.archive.entry(entry.id).or_insert_with(|| entry.clone());
            self.losses.made_at.entry(entry.id).or_insert(clock);
            let same = (&known.request, &known.op, known.hlc) == (&entry.request, &entry.op, entry.hlc);
            never(!same, Promise::P5, || format!("two entries have one name: {known:?} and {entry:?}"))?;
            if let Op::Trim { before } = entry.op {
                self.trim = self.trim.max(before);
            }
            self.retired.extend(Retirement::of(entry));
            if !matches!(entry.op, Op::Post { .. }) {
                continue;
            }
            posts.push(entry);
            self.hosts[host].held_posts.insert(entry.request.clone());
            let Some(facts) = self.posts.get_mut(&entry.request) else {
                return never(true, Promise::Rules, || format!("host {host}: a post that nobody made: {entry:?}"));
            };
            facts.entries.insert(entry.id, entry.stamp());
        }
        if self.hosts[host].adopted {
            return Ok(());
        }
        posts.into_iter().try_for_each(|entry| self.check_causes(host, entry))
    }

    /// A host that holds a post holds what it answers, and what its author posted before.
    fn check_causes(&self, host: usize, entry: &Entry) -> Verdict {
        let Some(facts) = self.posts.get(&entry.request).filter(|facts| !facts.orphaned) else { return Ok(()) };
        let lacks = |cause: &Option<RequestId>| {
            cause.as_ref().filter(|cause| !self.hosts[host].held_posts.contains(*cause)).cloned()
        };
        if let Some(parent) = lacks(&facts.parent) {
            never(true, Promise::P4, || format!("host {host} holds {entry:?}, and not {parent:?}, which it answers"))?;
        }
        if let Some(previous) = lacks(&facts.previous) {
            let what = || format!("host {host} holds {entry:?}, and not {previous:?}, which its author posted before");
            never(true, Promise::P3(Session::MonotonicWrites), what)?;
        }
        Ok(())
    }

    /// P1: an acknowledgement counts no copy that is not durable, at the moment when it leaves its host; and it waits for
    /// those of its level, as long as they can be had.
    pub(crate) fn on_reply(&mut self, frame: &ServerFrame, clock: u64) -> Verdict {
        let ServerFrame::Response { result: Ok(Response::Written(written)), .. } = frame else { return Ok(()) };
        let copies = self.copies(written.accepted.entry);
        if written.copies < 2 {
            self.losses.thin.insert(written.accepted.entry.origin);
        }
        let too_few = written.copies == 0 || copies < usize::try_from(written.copies).unwrap_or(usize::MAX);
        never(too_few, Promise::P1, || format!("{written:?} is acknowledged while {copies} hosts hold it durably"))?;
        let hosts = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        let level = match written.ack {
            AckLevel::Host => 1,
            AckLevel::Peer => hosts.min(2),
            AckLevel::All => hosts,
        };
        never(written.copies < level && self.is_sound(clock), Promise::P1, || {
            format!("{written:?} is acknowledged with too few copies while every host can be had")
        })
    }

    /// Whether there was no fault for a while, and every host held what any did before.
    pub(super) fn is_sound(&self, clock: u64) -> bool {
        self.sound_since.is_some_and(|since| clock >= since + SOUND_AFTER)
    }

    /// All processes of a host die: nobody has seen what had to have two copies and had one.
    pub(crate) fn on_dark(&self, host: usize, clock: u64) -> Verdict {
        let held = self.hosts[host].vector();
        let mut alone = self.beyond(&held, |origin| self.held_elsewhere(host, origin));
        // The other copy may have been lost a moment ago: two failures at once.
        alone.retain(|entry| !self.losses.held.holds(*entry));
        self.check_unseen(&alone, clock, "host is down")
    }

    /// The entries of a vector after what is left of each origin.
    fn beyond(&self, held: &Vector, left: impl Fn(Origin) -> Seq) -> Vec<EntryId> {
        let of = |(origin, seq): (Origin, Seq)| {
            (left(origin).0 + 1..=seq.0).map(move |seq| EntryId { origin, seq: Seq(seq) })
        };
        held.iter().flat_map(of).collect()
    }

    /// How far any other host holds an origin.
    fn held_elsewhere(&self, host: usize, origin: Origin) -> Seq {
        let others = self.hosts.iter().enumerate().filter(|(other, _)| *other != host);
        others.map(|(_, facts)| facts.vector().get(origin)).max().unwrap_or(Seq::ZERO)
    }

    /// A host's disk is emptied, or put back to a backup.
    pub(crate) fn on_replaced(&mut self, host: usize, new: Facts, clock: u64) -> Verdict {
        let before = std::mem::replace(&mut self.hosts[host], new).vector();
        let left = |origin| self.hosts[host].vector().get(origin).max(self.held_elsewhere(host, origin));
        let gone = self.beyond(&before, left);
        let verdict = self.check_unseen(&gone, clock, "disk is lost");
        self.losses.gone.extend(gone);
        self.losses.held.merge(&before);
        verdict
    }

    /// Nobody has seen what had to have two copies and had one.
    fn check_unseen(&self, alone: &[EntryId], clock: u64, whose: &str) -> Verdict {
        // A write of which fewer copies could be had is answered after this, shown, and lost if it must be; and nothing waits
        // then for hosts that lack it.
        let wait = u64::try_from(gaggle::limits::COPIES_WAIT.as_micros()).unwrap_or(u64::MAX);
        let waited = |entry: &EntryId| self.losses.made_at.get(entry).is_none_or(|at| clock - at >= wait);
        if alone.iter().any(waited) {
            return Ok(());
        }
        let seen = |entry: EntryId| self.people.iter().position(|person| self.names(&person.token.vector, entry));
        let blamed = alone.iter().filter(|entry| !self.losses.thin.contains(&entry.origin));
        match blamed.copied().find_map(|entry| Some(entry).zip(seen(entry))) {
            Some((entry, person)) => never(true, Promise::P3(Session::MonotonicReads), || {
                format!("person{person} has seen {entry:?}, and the {whose} that had the only copy")
            }),
            None => Ok(()),
        }
    }

    /// Whether nobody can be blamed for the lack of this entry.
    pub(super) fn is_gone(&self, entry: EntryId) -> bool {
        self.losses.gone.contains(&entry)
    }

    /// How many hosts hold an entry durably, or did before their disks were lost.
    pub(super) fn copies(&self, entry: EntryId) -> usize {
        let lost = self.losses.held.holds(entry) && !self.hosts[self.losses.host].holds(entry);
        self.hosts.iter().filter(|facts| facts.holds(entry)).count() + usize::from(lost)
    }
}
