//! Who holds what: how many copies an entry has, and what may be shown.
//!
//! Readers are shown, and tokens name, only entries that as many hosts hold durably as the cluster's level asks
//! (Kafka's high watermark), or that were acknowledged with fewer because no more could be had. Otherwise killing a host
//! leaves clients that have seen what no living host has. Pure bookkeeping; the primary feeds it.

use std::collections::BTreeMap;

use crate::core::feeds::Lack;
use crate::core::retention::Retention;
use crate::id::{EntryId, HostId, Origin, Seq, Vector};
use crate::topology::AckLevel;

/// What each host holds, as far as this primary knows.
#[derive(Debug)]
pub(crate) struct Copies {
    me: HostId,
    hosts: u32,
    level: AckLevel,
    own: Vector,
    others: BTreeMap<HostId, Vector>,
    /// Acknowledged with fewer copies: shown all the same.
    forced: Vector,
    shown: Vector,
    /// Levels that were not reached in time, each with the entry that missed it: later writes do not wait for them.
    missed: BTreeMap<AckLevel, EntryId>,
}

impl Copies {
    /// A primary that knows only what its own store holds.
    pub(crate) fn new(me: HostId, hosts: u32, level: AckLevel, own: Vector) -> Self {
        let mut copies = Self {
            me,
            hosts,
            level,
            own,
            others: BTreeMap::new(),
            forced: Vector::new(),
            shown: Vector::new(),
            missed: BTreeMap::new(),
        };
        copies.reckon();
        copies
    }

    /// Copies that a level asks for.
    pub(crate) fn need(&self, level: AckLevel) -> u32 {
        match level {
            AckLevel::Host => 1,
            AckLevel::Peer => self.hosts.min(2),
            AckLevel::All => self.hosts,
        }
    }

    /// Hosts known to hold an entry durably.
    pub(crate) fn count(&self, entry: EntryId) -> u32 {
        let mut count = u32::from(self.own.holds(entry));
        let mut origin_counted = entry.origin.host == self.me;
        for (host, vector) in &self.others {
            if vector.holds(entry) {
                count += 1;
                origin_counted |= *host == entry.origin.host;
            }
        }
        // Nothing leaves a host before it is durable there: who made it holds it.
        count + u32::from(!origin_counted)
    }

    /// Whether a write may be answered now: it has its copies, or its level was lately out of reach.
    pub(crate) fn settles(&self, entry: EntryId, level: AckLevel) -> bool {
        self.missed.contains_key(&level) || self.count(entry) >= self.need(level)
    }

    /// What may be shown.
    pub(crate) fn shown(&self) -> &Vector {
        &self.shown
    }

    /// What this host holds.
    pub(crate) fn own(&self) -> &Vector {
        &self.own
    }

    /// What may be done about something that is not shown here.
    pub(crate) fn lack(&self, wanted: &Vector) -> Lack {
        if self.own.covers(wanted) {
            Lack::Soon
        } else if self.others.values().any(|vector| vector.covers(wanted)) {
            Lack::Elsewhere
        } else {
            Lack::Nowhere
        }
    }

    /// How far the log may be cut now.
    pub(crate) fn next_cut(&self, retention: Retention, cut: &Vector) -> Option<Vector> {
        retention.next_cut(&self.own, cut, &self.others, self.hosts)
    }

    /// This host committed.
    pub(crate) fn on_committed(&mut self, own: &Vector) {
        self.own.merge(own);
        self.reckon();
    }

    /// Another host told what it holds. A host whose disk was lost may hold less than before: the newest word counts.
    pub(crate) fn on_held(&mut self, host: HostId, vector: &Vector) {
        if host == self.me || self.others.get(&host) == Some(vector) {
            return;
        }
        self.others.insert(host, vector.clone());
        let mut missed = std::mem::take(&mut self.missed);
        missed.retain(|level, entry| self.count(*entry) < self.need(*level));
        self.missed = missed;
        self.reckon();
    }

    /// An entry is answered with the copies that it has, because its level could not be reached in time.
    pub(crate) fn on_missed(&mut self, entry: EntryId, level: AckLevel) {
        if self.count(entry) < self.need(level) {
            self.missed.insert(level, entry);
        }
        self.force(entry);
    }

    /// An entry was acknowledged with the copies that it has: it is shown from now on.
    pub(crate) fn force(&mut self, entry: EntryId) {
        if self.own.holds(entry) && !self.shown.holds(entry) {
            self.forced.raise(entry.origin, entry.seq);
            self.shown.raise(entry.origin, entry.seq);
        }
    }

    fn reckon(&mut self) {
        let need = usize::try_from(self.need(self.level)).unwrap_or(usize::MAX);
        let forced_level = self.missed.contains_key(&self.level);
        for (origin, own) in self.own.iter() {
            let seq = if forced_level { own } else { self.held_by(need, origin, own) };
            self.shown.raise(origin, seq.max(self.forced.get(origin)).min(own));
        }
    }

    /// The highest seq of an origin that this host and enough others hold.
    fn held_by(&self, need: usize, origin: Origin, own: Seq) -> Seq {
        let mut held = vec![own];
        if origin.host != self.me && !self.others.contains_key(&origin.host) {
            held.push(own);
        }
        for (host, vector) in &self.others {
            let seq = vector.get(origin);
            held.push(if *host == origin.host { seq.max(own) } else { seq });
        }
        held.sort_unstable_by(|a, b| b.cmp(a));
        held.get(need.saturating_sub(1)).copied().unwrap_or(Seq::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostId {
        name.parse().unwrap()
    }

    fn entry(name: &str, seq: u64) -> EntryId {
        EntryId { origin: Origin { host: host(name), incarnation: 1 }, seq: Seq(seq) }
    }

    fn vector(entries: &[EntryId]) -> Vector {
        entries.iter().map(|entry| (entry.origin, entry.seq)).collect()
    }

    #[test]
    fn an_own_entry_is_shown_when_a_peer_holds_it() {
        let mut copies = Copies::new(host("a"), 3, AckLevel::Peer, Vector::new());
        copies.on_committed(&vector(&[entry("a", 5)]));
        assert_eq!(copies.count(entry("a", 5)), 1);
        assert!(copies.shown().is_empty());
        copies.on_held(host("b"), &vector(&[entry("a", 3)]));
        assert_eq!(copies.shown(), &vector(&[entry("a", 3)]));
        assert!(copies.settles(entry("a", 3), AckLevel::Peer));
        assert!(!copies.settles(entry("a", 3), AckLevel::All));
    }

    #[test]
    fn a_received_entry_has_two_copies_at_once() {
        let mut copies = Copies::new(host("a"), 3, AckLevel::Peer, Vector::new());
        copies.on_committed(&vector(&[entry("b", 2)]));
        assert_eq!(copies.shown(), &vector(&[entry("b", 2)]));
        assert_eq!(copies.count(entry("b", 2)), 2);
    }

    #[test]
    fn after_a_miss_writes_do_not_wait_until_a_peer_acknowledges_it() {
        let mut copies = Copies::new(host("a"), 3, AckLevel::Peer, Vector::new());
        copies.on_committed(&vector(&[entry("a", 1)]));
        copies.on_missed(entry("a", 1), AckLevel::Peer);
        assert_eq!(copies.shown(), &vector(&[entry("a", 1)]));
        copies.on_committed(&vector(&[entry("a", 2)]));
        assert!(copies.settles(entry("a", 2), AckLevel::Peer));
        copies.on_held(host("b"), &vector(&[entry("a", 1)]));
        assert!(!copies.settles(entry("a", 2), AckLevel::Peer));
        assert!(copies.shown().holds(entry("a", 2)), "what was shown stays shown");
    }
}
